//! A subject that runs: its processes, its files, and the end of both.
//!
//! Invariants: a subject is its own process group; dropping it stops and reaps
//! every process of the group (one that makes a group of its own escapes); its files are in the [`Workspace`], which is removed
//! when it is dropped. A subject gets SIGTERM when the thread that started it ends.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use super::launch::{Launch, Terms};
use super::{Datagrams, Kind, Subject};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::idle;
use crate::bench::preface::Preface;
use crate::bench::{pattern, process, sys};

/// How long a subject may take until an exchange crosses it.
const START: Duration = Duration::from_secs(10);

/// How long it may take to end after SIGTERM.
const STOP: Duration = Duration::from_millis(500);

/// A directory for configurations and output, removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// Makes one in the directory for temporary files, for this user only.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("thalweg-bench-{}-{count}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is a few kilobytes in a temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A subject that answers.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub subject: Subject,
    /// Where clients connect; the origin itself for `direct`.
    pub address: SocketAddr,
    /// Where datagrams go that are one question each; `None`: it forwards no datagrams. All others go to
    /// `address`.
    pub single: Option<SocketAddr>,
    /// What each connection to it says first.
    pub preface: Preface,
    /// How it was started.
    pub launch: Launch,
    /// Whether a response that follows the client's end arrives whole.
    pub keeps_half_closed: bool,
    /// What it took until the first exchange crossed it.
    pub start: StartCost,
    child: Option<Child>,
    log: PathBuf,
}

/// What a start took, until the first exchange crossed the subject.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartCost {
    /// Seconds since its first process was started.
    pub seconds: f64,
    /// CPU seconds of its process tree.
    #[serde(rename = "cpu_seconds")]
    pub cpu: f64,
}

/// What subjects are given besides their own.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// Whom they forward to.
    pub upstream: SocketAddr,
    /// Event loops of each.
    pub workers: usize,
    /// Sessions at the most.
    pub sessions: usize,
    /// They forward datagrams, too, if they can.
    pub datagrams: bool,
    /// For their files.
    pub workspace: &'a Workspace,
    /// Ends the wait for readiness.
    pub interrupt: &'a Interrupt,
}

impl Running {
    /// Starts a subject and waits until an exchange crosses it.
    ///
    /// # Errors
    /// Why it does not, with what it printed.
    pub fn start(subject: &Subject, stage: Stage<'_>) -> Result<Self, String> {
        let started = Self::try_start(subject, stage);
        started.map_err(|error| format!("{subject} cannot start: {error}"))
    }

    fn try_start(subject: &Subject, stage: Stage<'_>) -> Result<Self, String> {
        let directory = stage.workspace.path().join(
            subject
                .name
                .replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        );
        fs::create_dir_all(&directory).map_err(text)?;
        let listen = match subject.kind {
            Kind::Direct => stage.upstream,
            _ => free_port(stage.datagrams).map_err(text)?,
        };
        let single = match subject.datagrams() {
            _ if !stage.datagrams => None,
            Datagrams::Forwards => Some(free_port(true).map_err(text)?),
            Datagrams::ForwardsAlike => Some(listen),
            Datagrams::ForwardsNone => None,
        };
        let launch = subject.kind.launch(Terms {
            listen,
            upstream: stage.upstream,
            workers: stage.workers,
            sessions: stage.sessions,
            size: subject.size,
            asks: subject.asks,
            single,
            directory: &directory,
        })?;
        for (path, content) in &launch.files {
            fs::write(path, content).map_err(text)?;
        }
        let log = directory.join("output.txt");
        let began = Instant::now();
        let child = match launch.argv.split_first() {
            Some((program, arguments)) => Some(spawn(program, arguments, &launch, &log)?),
            None => None,
        };
        let mut running = Self {
            subject: subject.clone(),
            address: listen,
            single,
            preface: subject.preface(stage.upstream),
            launch,
            keeps_half_closed: true,
            start: StartCost::default(),
            child,
            log,
        };
        running.wait_until_ready(stage.interrupt)?;
        running.start = StartCost {
            seconds: began.elapsed().as_secs_f64(),
            cpu: running
                .process()
                .map_or(0.0, |root| process::usage_of_tree(root).cpu_ns as f64 / 1e9),
        };
        running.keeps_half_closed = half_close(listen, running.preface).is_ok();
        Ok(running)
    }

    fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<(), String> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(ended) = self.ended() {
                return Err(ended);
            }
            let crosses = idle::open(self.address, self.preface, 1)
                .map(drop)
                .and_then(|()| {
                    let ports = self.single.map(|single| [self.address, single]);
                    ports
                        .into_iter()
                        .flatten()
                        .try_for_each(|port| idle::ask(port, 1).map(drop))
                });
            let Err(error) = crosses else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(format!(
                    "nothing crosses it within {} s: {error}{}",
                    START.as_secs(),
                    self.printed()
                ));
            }
            if interrupt.wait_until(Instant::now() + Duration::from_millis(2)) {
                return Err("interrupted".to_owned());
            }
        }
    }

    /// The first process of its tree; `None` for `direct`.
    pub fn process(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// Says how it ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.as_mut()?.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("it ended by itself ({status}){}", self.printed())),
            Err(error) => Some(format!("its state is unknown: {error}")),
        }
    }

    /// The end of what it printed.
    fn printed(&self) -> String {
        const LINES: usize = 10;
        let output = fs::read(&self.log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return "; it printed nothing".to_owned();
        }
        let last = &lines[lines.len().saturating_sub(LINES)..];
        format!("; it printed:\n    {}", last.join("\n    "))
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let group = Pid::from_raw(child.id() as i32);
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whatever is left of the group, the first process included.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(
    program: &str,
    arguments: &[String],
    launch: &Launch,
    log: &Path,
) -> Result<Child, String> {
    let output = File::create(log).map_err(text)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(launch.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(text)?)
        .stderr(output)
        .process_group(0);
    sys::die_with_parent(&mut command);
    command
        .spawn()
        .map_err(|error| format!("cannot run `{program}`: {error}"))
}

/// A port that was free a moment ago. In a network namespace of its own nobody
/// can take it meanwhile; elsewhere the subject then says that it is in use.
/// A number that nobody uses for connections, and with `both` nor for datagrams.
fn free_port(both: bool) -> io::Result<SocketAddr> {
    const ATTEMPTS: usize = 32;
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..ATTEMPTS {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        result = if both {
            UdpSocket::bind(address).map(|_| address)
        } else {
            Ok(address)
        };
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Asks for a megabyte and ends the own side at once: does all of it come?
fn half_close(target: SocketAddr, preface: Preface) -> io::Result<()> {
    const BYTES: usize = 1_000_000;
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    preface.say(&stream)?;
    stream.write_all(format!("SOURCE {BYTES} 5\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    stream.take(BYTES as u64 * 2).read_to_end(&mut received)?;
    if received.len() == BYTES && pattern::check(5, &received).is_ok() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
