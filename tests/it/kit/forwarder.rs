//! The real binary as a child: started on ports from the kernel, its log collected,
//! looked at from outside, ended and reaped when dropped.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::Signal;

use super::directory::Directory;
use super::log::{Counters, Lines, Record};
use super::process::{Descriptors, Memory, Process};
use super::{Case, MIB, PATIENCE, Peer, poll};

/// Pipes that a reactor may keep for later.
const PIPES_POOLED_MAX: usize = 16;

/// Lines of a log that a panic shows, of its beginning and of its end: more would
/// hide what the panic is about.
const REPORTED_LINES: usize = 20;

/// User memory that may stay with a process after a few sessions: slabs, whatever the allocator keeps, and of
/// each of two reactors the pooled chunks and, with io_uring, 2.5 MiB of provided buffers.
const MEMORY_KEPT_MAX: u64 = 12 * MIB;

/// The share of a core that an idle forwarder may use. What it does use is next to
/// nothing; what spins uses as much as it gets, on a busy machine too.
const IDLE_SHARE_MAX: f64 = 0.1;

/// How to start it. One reactor and a JSON log with a record of each session, unless
/// told otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pairs: Vec<(String, String)>,
    /// Forwards of a configuration file.
    configured: usize,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    reactors: u16,
    reactors_by_file: bool,
    binary: PathBuf,
    stdout: Option<Arc<File>>,
    runtime_directory: PathBuf,
    /// From descriptor 3 on, and what each is called.
    passed: Vec<(Arc<OwnedFd>, String)>,
    environment: Vec<(String, String)>,
    /// The pairs only say what a file has.
    file_alone: bool,
}

/// Says for whom the passed sockets are: the process stays the same over `exec`.
const FOR_ITSELF: [&str; 4] = ["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"];

impl Setup {
    /// From a free port of 127.0.0.1 to `servers` (`host:port`, comma-separated).
    pub(crate) fn new(servers: impl ToString) -> Self {
        Self::between("127.0.0.1:0", servers)
    }

    /// From `listen` to `servers`.
    pub(crate) fn between(listen: impl ToString, servers: impl ToString) -> Self {
        Self {
            pairs: vec![(listen.to_string(), servers.to_string())],
            configured: 0,
            arguments: Vec::new(),
            wrapper: Vec::new(),
            reactors: 1,
            reactors_by_file: false,
            binary: env!("CARGO_BIN_EXE_thalweg").into(),
            stdout: None,
            // Nowhere: what is not asked for an admin endpoint has none, and none that
            // others would find.
            runtime_directory: "/nonexistent/thalweg".into(),
            passed: Vec::new(),
            environment: Vec::new(),
            file_alone: false,
        }
    }

    /// From a configuration file with so many forwards.
    pub(crate) fn configured(file: &std::path::Path, forwards: usize) -> Self {
        let mut setup = Self::between("", "");
        setup.pairs.clear();
        setup.configured = forwards;
        setup.argument("-c").argument(file.display())
    }

    /// As this file says, which has the listener of the pair: for a log in a file.
    pub(crate) fn only_file(mut self, file: &std::path::Path) -> Self {
        self.file_alone = true;
        self.reactors_by_file = true;
        self.argument("-c").argument(file.display())
    }

    /// To several servers, in this order.
    pub(crate) fn to_all(servers: &[SocketAddr]) -> Self {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        Self::new(servers.join(","))
    }

    /// One more forward.
    pub(crate) fn and(mut self, listen: impl ToString, servers: impl ToString) -> Self {
        self.pairs.push((listen.to_string(), servers.to_string()));
        self
    }

    /// `--set KEY=VALUE`.
    pub(crate) fn set(self, key: &str, value: impl ToString) -> Self {
        self.argument("--set")
            .argument(format!("{key}={}", value.to_string()))
    }

    /// Any further argument.
    pub(crate) fn argument(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// The engine and data path under test.
    pub(crate) fn case(self, case: Case) -> Self {
        self.engine(case.engine)
            .set("defaults.data_path", case.path)
    }

    /// The engine.
    pub(crate) fn engine(self, engine: &str) -> Self {
        self.set("global.engine", engine)
    }

    /// How many reactors.
    pub(crate) fn reactors(mut self, reactors: u16) -> Self {
        self.reactors = reactors;
        self
    }

    /// As many as the configuration file says.
    pub(crate) fn reactors_by_file(mut self) -> Self {
        self.reactors_by_file = true;
        self
    }

    /// A command that executes the one that follows it, such as
    /// `["prlimit", "--nofile=64:64"]`. It must keep its process.
    pub(crate) fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// With an admin endpoint, at `admin.sock` in this directory.
    pub(crate) fn admin(mut self, directory: &Directory) -> Self {
        directory.path().clone_into(&mut self.runtime_directory);
        self
    }

    /// With a listening socket of that name, as a service manager passes it. The caller
    /// keeps it.
    pub(crate) fn passing(mut self, name: &str, socket: &Arc<OwnedFd>) -> Self {
        self.passed.push((socket.clone(), name.to_owned()));
        self
    }

    /// With a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Another copy of the binary, for whoever may not reach the built one.
    pub(crate) fn binary(mut self, path: PathBuf) -> Self {
        self.binary = path;
        self
    }

    /// Lets it log to `file` instead of to the test: nothing of its log is seen,
    /// so every listener needs an address that is known beforehand.
    pub(crate) fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(Arc::new(file));
        self
    }

    /// The command line.
    pub(crate) fn command(&self) -> Command {
        let for_itself: &[&str] = match self.passed.as_slice() {
            [] => &[],
            _ => &FOR_ITSELF,
        };
        let mut words = for_itself
            .iter()
            .map(OsStr::new)
            .chain(self.wrapper.iter().map(OsStr::new))
            .chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(self.binary.as_os_str()));
        command.env("RUNTIME_DIRECTORY", &self.runtime_directory);
        if !self.passed.is_empty() {
            self.pass(&mut command);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(words).arg("run");
        let pairs = self.pairs.iter().filter(|_| !self.file_alone);
        for (listen, servers) in pairs {
            command.args(["-l", listen, "-r", servers]);
        }
        if !self.reactors_by_file {
            command.args(["--set", &format!("global.reactors={}", self.reactors)]);
        }
        // A whole run of the tests in the sandbox: of what it denies only the system calls
        // matter to a test that does not know of it.
        if let Ok(sandbox) = std::env::var("THALWEG_TEST_SANDBOX") {
            for set in [
                format!("global.sandbox={sandbox}"),
                "global.sandbox_paths=/".to_owned(),
                "global.sandbox_ports=1-65535".to_owned(),
            ] {
                command.args(["--set", &set]);
            }
        }
        command.args(["--set", "log.format=json", "--set", "log.sessions=close"]);
        command.args(&self.arguments);
        command
    }

    fn pass(&self, command: &mut Command) {
        let names: Vec<&str> = self.passed.iter().map(|(_, name)| &**name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        let mapped = self
            .passed
            .iter()
            .zip(3..)
            .map(|((fd, _), child_fd)| FdMapping {
                parent_fd: fd.try_clone().unwrap(),
                child_fd,
            });
        command.fd_mappings(mapped.collect()).unwrap();
    }

    /// Starts it, in the network namespace of the calling thread.
    #[track_caller]
    pub(crate) fn start(&self) -> Forwarder {
        match self.try_start() {
            Ok(forwarder) => forwarder,
            Err(why) => panic!("thalweg does not start: {why}"),
        }
    }

    /// Starts it, and what it said when it ended of itself, as it must: some listen before they know that they may not
    /// serve.
    #[track_caller]
    pub(crate) fn fails(&self) -> String {
        let mut forwarder = match self.try_start() {
            Ok(forwarder) => forwarder,
            Err(why) => return why,
        };
        let status = forwarder.wait_for_exit(PATIENCE);
        forwarder.end();
        let said = forwarder.report("it ended");
        assert!(status.is_some_and(|it| !it.success()), "{status:?}: {said}");
        said
    }

    /// Starts it, or says what it said.
    pub(crate) fn try_start(&self) -> Result<Forwarder, String> {
        Forwarder::start(self)
    }
}

/// A running forwarder.
#[derive(Debug)]
pub(crate) struct Forwarder {
    child: Child,
    log: Arc<Lines>,
    errors: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
    addresses: Vec<String>,
    reactors: u16,
    idle: Idle,
}

/// What it had before its first session.
#[derive(Debug, Clone, Copy, Default)]
struct Idle {
    descriptors: Descriptors,
    memory: Memory,
}

impl Forwarder {
    fn start(setup: &Setup) -> Result<Self, String> {
        let stdout = match &setup.stdout {
            Some(file) => file.try_clone().unwrap().into(),
            None => Stdio::piped(),
        };
        let mut child = setup
            .command()
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (log, errors) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        let mut readers = vec![errors.clone().collect(child.stderr.take().unwrap())];
        let logged = child.stdout.take();
        readers.extend(logged.map(|stdout| log.clone().collect(stdout)));
        let mut forwarder = Self {
            child,
            log,
            errors,
            readers,
            addresses: Vec::new(),
            reactors: setup.reactors,
            idle: Idle::default(),
        };
        // On an error the forwarder is dropped here, and with it the child.
        if setup.stdout.is_some() {
            let listeners = setup.pairs.iter().map(|(listen, _)| listen.clone());
            forwarder.addresses = listeners.collect();
        } else {
            forwarder.wait_for_listeners(setup.pairs.len() + setup.configured)?;
        }
        forwarder.wait_for_threads()?;
        Ok(forwarder)
    }

    fn wait_for_listeners(&mut self, forwards: usize) -> Result<(), String> {
        let listening = |record: &Record| {
            let rest = record.message().strip_prefix("listening on ")?.to_owned();
            let (address, forward) = rest.split_once(" forward=")?;
            Some((address.to_owned(), forward.to_owned()))
        };
        let found = poll(PATIENCE, || {
            let found: Vec<_> = self.records().iter().filter_map(listening).collect();
            let mut names: Vec<_> = found.iter().map(|(_, forward)| forward).collect();
            names.dedup();
            let complete = names.len() >= forwards;
            (complete || !Process(self.child.id()).is_alive()).then_some((complete, found))
        });
        match found {
            Some((true, found)) => {
                self.addresses = found.into_iter().map(|(address, _)| address).collect();
                Ok(())
            }
            Some((false, _)) => {
                // What it said last may still be on its way.
                self.end();
                Err(self.report("it ended"))
            }
            None => Err(self.report("it does not listen")),
        }
    }

    /// The sockets listen before the reactors stand; what an idle forwarder has is
    /// known once they do, each with its waker, and nothing more is being opened.
    /// So does the admin's thread, if there is one: it sets descriptors aside as it begins.
    /// Whatever opens something else is not asleep meanwhile, however long it is not let run.
    fn wait_for_threads(&mut self) -> Result<(), String> {
        let process = self.process();
        let mut still = 0;
        let settled = poll(PATIENCE, || {
            let descriptors = process.descriptors();
            let reactors = descriptors.eventfds.max(descriptors.rings);
            // A ring or an eventfd may be another's: of the question whether rings are
            // permitted, of the thread that resolves names.
            let threads = process.waiting_for_events("reactor-");
            let same = descriptors == self.idle.descriptors;
            still = if same { still + 1 } else { 0 };
            self.idle.descriptors = descriptors;
            let stand = reactors.min(threads) >= usize::from(self.reactors)
                && (process.thread("admin").is_none() || process.waiting_for_events("admin") > 0)
                && process.sleeps_but_for("reactor-");
            (stand && still >= 5 || !process.is_alive()).then_some(())
        });
        if settled.is_none() || !process.is_alive() {
            // What it said last may still be on its way.
            self.end();
            return Err(self.report("its reactors do not start"));
        }
        self.idle.memory = process.memory();
        Ok(())
    }

    /// What it wrote, for a panic.
    fn report(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for (name, lines) in [("log", &self.log), ("error", &self.errors)] {
            let lines = lines.all();
            let skipped = lines.len().saturating_sub(2 * REPORTED_LINES);
            for (number, line) in lines.iter().enumerate() {
                if number == REPORTED_LINES && skipped > 0 {
                    let _ = write!(text, "\n  {name}: ({skipped} lines)");
                }
                if number < REPORTED_LINES || number >= REPORTED_LINES + skipped {
                    let _ = write!(text, "\n  {name}: {line}");
                }
            }
        }
        text
    }

    /// Where its first listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0].parse().unwrap()
    }

    /// Where all listeners are, as it wrote them.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A client, connected to the first listener.
    #[track_caller]
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.address())
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    // Its log.

    /// Takes its log from here, to the end of `from`: see [`Setup::stdout`].
    pub(crate) fn read_log(&mut self, from: impl Read + Send + 'static) {
        self.readers.push(self.log.clone().collect(from));
    }

    /// Every line so far.
    #[track_caller]
    pub(crate) fn records(&self) -> Vec<Record> {
        self.log.all().iter().map(|l| Record::parse(l)).collect()
    }

    /// The records of sessions that have ended.
    pub(crate) fn sessions(&self) -> Vec<Record> {
        let mut records = self.records();
        records.retain(|record| record.text("kind") == "session_end");
        records
    }

    /// Lines that are no records of sessions and hold `text`.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<Record> {
        let mut records = self.records();
        records.retain(|record| record.message().contains(text));
        records
    }

    /// Lines at the level of a warning or above.
    pub(crate) fn complaints(&self) -> Vec<Record> {
        let mut records = self.records();
        records.retain(|record| matches!(record.text("level"), "warn" | "error"));
        records
    }

    /// Waits for the records of `count` sessions, and returns all there are.
    #[track_caller]
    pub(crate) fn wait_for_sessions(&self, count: usize) -> Vec<Record> {
        let sessions = || Some(self.sessions()).filter(|sessions| sessions.len() >= count);
        match poll(PATIENCE, sessions) {
            Some(sessions) => sessions,
            None => panic!(
                "{}",
                self.report(&format!("there are no {count} ended sessions"))
            ),
        }
    }

    /// Waits for the record of the only session.
    #[track_caller]
    pub(crate) fn wait_for_session(&self) -> Record {
        let mut sessions = self.wait_for_sessions(1);
        assert_eq!(sessions.len(), 1, "one session, one record: {sessions:?}");
        sessions.remove(0)
    }

    /// Waits for a line that holds `text`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> Record {
        match poll(PATIENCE, || self.lines_with(text).pop()) {
            Some(record) => record,
            None => panic!("{}", self.report(&format!("no line says {text:?}"))),
        }
    }

    /// The counters, by name, asked for now (SIGUSR1).
    #[track_caller]
    pub(crate) fn counters(&self) -> Counters {
        let before = self.lines_with("counters").len();
        self.process().signal(Signal::SIGUSR1);
        let line = poll(PATIENCE, || {
            self.lines_with("counters").get(before).cloned()
        });
        match line {
            Some(line) => Counters::of_line(&line),
            None => panic!("{}", self.report("it does not tell its counters")),
        }
    }

    // The checks after every behaviour.

    /// What must hold once every session has ended, whatever happened before: it
    /// lives, nothing panicked, descriptors and memory are back at what they were,
    /// no pipe holds a byte, and it sleeps.
    #[track_caller]
    pub(crate) fn check_idle(&self) {
        let process = self.process();
        let sockets = || process.descriptors().sockets;
        let back = poll(PATIENCE, || {
            (sockets() <= self.idle.descriptors.sockets).then_some(())
        });
        if back.is_none() {
            let (now, before) = (process.descriptors(), self.idle.descriptors);
            panic!(
                "{}",
                self.report(&format!("sockets leak: {now:?}, before {before:?}"))
            );
        }
        self.check_quiet();
        self.check_descriptors();
        let memory = process.memory().anonymous;
        let kept = memory.saturating_sub(self.idle.memory.anonymous);
        assert!(
            kept <= MEMORY_KEPT_MAX,
            "{kept} bytes of memory are kept, beside {}",
            self.idle.memory.anonymous
        );
        assert_eq!(process.bytes_in_pipes(), 0, "a pooled pipe holds bytes");
    }

    /// What is open for a moment, to look something up, is closed again; a leak stays.
    fn check_descriptors(&self) {
        let idle = self.idle.descriptors;
        let pooled_max = 2 * PIPES_POOLED_MAX * usize::from(self.reactors);
        let mut now = Descriptors::default();
        let back = poll(PATIENCE, || {
            now = self.process().descriptors();
            let pooled = now.pipe_ends.saturating_sub(idle.pipe_ends);
            let but_for_pooled = Descriptors {
                pipe_ends: now.pipe_ends - pooled,
                ..now
            };
            (pooled <= pooled_max && but_for_pooled == idle).then_some(())
        });
        let leak = format!("descriptors leak: {now:?}, before {idle:?}");
        assert!(back.is_some(), "{}", self.report(&leak));
    }

    /// Whether it lives, did not panic, and does not spin while nothing moves,
    /// whether or not there are sessions.
    #[track_caller]
    pub(crate) fn check_quiet(&self) {
        let process = self.process();
        assert!(process.is_alive(), "{}", self.report("it has ended"));
        let panicked = self.errors.all().iter().any(|l| l.contains("panicked"));
        assert!(!panicked, "{}", self.report("it panicked"));
        // What ended a moment ago may still be written to the log.
        let quiet = || process.processor_share(Duration::from_millis(150)) <= IDLE_SHARE_MAX;
        let found = poll(Duration::from_secs(2), || quiet().then_some(()));
        assert!(
            found.is_some(),
            "{}",
            self.report("it burns CPU while idle")
        );
    }

    // Its end.

    /// Asks it to end (SIGTERM), and waits.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.process().signal(Signal::SIGTERM);
        self.wait_for_exit(PATIENCE)
            .expect("it does not end after SIGTERM")
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        poll(patience, || self.child.try_wait().unwrap())
    }

    /// What it wrote to standard error.
    pub(crate) fn standard_error(&self) -> String {
        self.errors.all().join("\n")
    }
}

impl Forwarder {
    /// Ends it for good, and reads what it wrote to the end.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let started = Instant::now();
        self.end();
        if std::thread::panicking() {
            eprintln!(
                "{}\n(reaped in {:?})",
                self.report("the forwarder of the failed test"),
                started.elapsed()
            );
        }
    }
}
