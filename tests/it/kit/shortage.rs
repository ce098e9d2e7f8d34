//! Kernels that say no: a lowered limit of descriptors, system calls that fail (by
//! strace's fault injection, on the live process), a user without privileges.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::namespace::run;
use super::process::Process;
use super::{Setup, skip, test_name};

/// Lowers (or raises) the soft limit of descriptors of a living process.
#[track_caller]
pub(crate) fn limit_descriptors(process: Process, limit: u64) {
    let process = process.0.to_string();
    let set = run(
        "prlimit",
        &["--pid", &process, &format!("--nofile={limit}:")],
    );
    assert!(set.is_ok(), "{set:?}");
}

/// Lets a living process open just `count` descriptors more.
#[track_caller]
pub(crate) fn leave_descriptors(process: Process, count: usize) {
    let taken = process.descriptor_targets();
    let taken: Vec<u32> = taken.into_iter().map(|(number, _)| number).collect();
    let mut free = (0..).filter(|number| !taken.contains(number));
    let limit = free.nth(count).unwrap_or(0);
    limit_descriptors(process, u64::from(limit));
}

/// A system call of a process fails, while this value lives.
#[derive(Debug)]
pub(crate) struct Fault {
    tracer: Child,
    /// What strace saw.
    trace: PathBuf,
}

impl Fault {
    /// From now on every `call` fails with `errno`. Says that the test is skipped
    /// where strace is missing or may not attach.
    pub(crate) fn always(process: Process, call: &str, errno: &str) -> Option<Self> {
        Self::inject(process, &format!("{call}:error={errno}"))
    }

    /// The calls of each thread that `when` counts, such as `1..5`, fail.
    pub(crate) fn when(process: Process, call: &str, errno: &str, when: &str) -> Option<Self> {
        Self::inject(process, &format!("{call}:error={errno}:when={when}"))
    }

    fn inject(process: Process, what: &str) -> Option<Self> {
        match Self::attach(process, what) {
            Ok(fault) => Some(fault),
            Err(why) => {
                skip(&test_name(), &format!("strace cannot inject faults: {why}"));
                None
            }
        }
    }

    fn attach(process: Process, what: &str) -> Result<Self, String> {
        let call = what.split(':').next().unwrap_or(what);
        let name = format!("thalweg-trace-{}-{what}", process.0);
        let trace = std::env::temp_dir().join(name);
        let tracer = Command::new("strace")
            .args(["-f", "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={what}"), "-p"])
            .arg(process.0.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut fault = Self { tracer, trace };
        // It says so once every thread was told to stop: from then on none makes a
        // system call unseen.
        let mut said = String::new();
        if let Some(stderr) = &mut fault.tracer.stderr {
            let _ = BufReader::new(stderr).read_line(&mut said);
        }
        if said.contains(" attached") {
            Ok(fault)
        } else {
            Err(said)
        }
    }

    /// How many calls have failed so.
    pub(crate) fn injected(&self) -> usize {
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        trace.matches("(INJECTED)").count()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // On SIGTERM strace detaches from all threads, then ends.
        let _ = kill(Pid::from_raw(self.tracer.id() as i32), Signal::SIGTERM);
        let _ = self.tracer.wait();
        let _ = fs::remove_file(&self.trace);
    }
}

/// Numbers that systems leave to users made for a moment (systemd.exec(5),
/// `DynamicUser`).
const FREE_IDS: u32 = 61_184;
const FREE_IDS_COUNT: u32 = 4_000;

/// A user without privileges, and a copy of the binary that he may execute.
#[derive(Debug)]
pub(crate) struct Nobody {
    binary: PathBuf,
}

impl Nobody {
    /// Says that the test is skipped where this process may not become another
    /// user.
    pub(crate) fn new() -> Option<Self> {
        let test = test_name();
        if !geteuid().is_root() {
            skip(&test, "needs root, to become somebody else");
            return None;
        }
        let name = format!("thalweg-{}-{}", std::process::id(), test.replace(' ', "-"));
        let binary = std::env::temp_dir().join(name);
        fs::copy(env!("CARGO_BIN_EXE_thalweg"), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { binary })
    }

    /// Lets it run as such a user: another one each time, because what a user may
    /// have in pipes is counted over all of its processes, and engines are tested
    /// side by side.
    pub(crate) fn runs(&self, setup: Setup) -> Setup {
        let user = Self::becomes();
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        setup.binary(self.binary.clone()).wrapped(&user)
    }

    /// One command of its as such a user; its arguments are to follow.
    pub(crate) fn command(&self) -> Command {
        let user = Self::becomes();
        let mut command = Command::new(&user[0]);
        command.args(&user[1..]).arg(&self.binary);
        command
    }

    fn becomes() -> [String; 4] {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = std::process::id().wrapping_mul(16) + RUNS.fetch_add(1, Ordering::Relaxed);
        let id = FREE_IDS + run % FREE_IDS_COUNT;
        [
            "setpriv".to_owned(),
            format!("--reuid={id}"),
            format!("--regid={id}"),
            "--clear-groups".to_owned(),
        ]
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.binary);
    }
}
