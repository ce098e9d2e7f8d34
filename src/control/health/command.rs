//! A check by an external command: a process in a group of its own, watched by a
//! descriptor, killed with its group, and always reaped.
//!
//! Spawned by posix_spawn(3), not by fork: a fork would make every reactor fault
//! over the pages it shares, and the child would keep the signals blocked that threads of
//! this process block, so that nothing it starts could be terminated.
//!
//! What the command writes goes nowhere. What it leaves running in its group is
//! killed when it exits; only what moves to another session escapes.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use super::Outcome;
use crate::control::reap;
use crate::net::address::Endpoint;
use crate::net::errno::{Failure, Operation};

/// A command that runs, or has been killed and is not yet reaped.
#[derive(Debug)]
pub(super) struct Command {
    /// The process, and the leader of its group. `None` once it is reaped: the
    /// number may belong to another process then.
    process: Option<Pid>,
    /// Readable when the process has ended; `None` where the kernel has no such
    /// thing, and somebody has to look now and then.
    watch: Option<OwnedFd>,
}

impl Command {
    /// Starts `argv`, whose first word is a path, to check the server at `server`.
    pub(super) fn start(argv: &[String], server: &Endpoint) -> Result<Self, Outcome> {
        let process = spawn(argv, server).map_err(|refused| {
            let reason = refused.reason(argv);
            // Without memory, processes, descriptors or /dev/null no server is to blame.
            match Failure::of(Operation::Open, refused.errno()) {
                _ if matches!(refused, NotStarted::Null(_)) => Outcome::Unable(reason),
                Failure::Exhausted(_) | Failure::WouldBlock => Outcome::Unable(reason),
                _ => Outcome::Failed(reason),
            }
        })?;
        let watch = rustix::process::Pid::from_raw(process.as_raw())
            .and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
        Ok(Self {
            process: Some(process),
            watch,
        })
    }

    /// The descriptor that becomes readable when the process ends, if there is one.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.watch.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The outcome, once the process has ended; it is reaped then.
    pub(super) fn advance(&mut self) -> Option<Outcome> {
        let process = self.process?;
        // Left unreaped for now: until then nobody else has its number.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(process), look) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return None,
            Ok(_) => {}
            Err(errno) => {
                // ECHILD: this process ignores SIGCHLD, so the kernel reaped it.
                self.process = None;
                reap::forget(process);
                let reason = format!("the command's exit status is lost: {}", errno.desc());
                return Some(Outcome::Unable(reason));
            }
        }
        // What is left of its group goes as well; usually nothing is (ESRCH).
        let _ = killpg(process, Signal::SIGKILL);
        let status = self.reap()?;
        Some(match status {
            WaitStatus::Exited(_, 0) => Outcome::Passed,
            WaitStatus::Exited(_, code) => Outcome::Failed(format!("command exited with {code}")),
            WaitStatus::Signaled(_, signal, _) => {
                Outcome::Failed(format!("command was killed by {signal}"))
            }
            other => Outcome::Failed(format!("command ended strangely: {other:?}")),
        })
    }

    /// Kills the process and its group. It is to be reaped then, by [`Self::reap`]
    /// until that says so.
    pub(super) fn kill(&self) {
        if let Some(process) = self.process {
            // Fails only if the whole group is gone.
            let _ = killpg(process, Signal::SIGKILL);
        }
    }

    /// Reaps the process if it has ended.
    pub(super) fn reap(&mut self) -> Option<WaitStatus> {
        let process = self.process?;
        let status = match waitpid(process, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return None,
            Ok(status) => Some(status),
            Err(_) => None,
        };
        self.process = None;
        reap::forget(process);
        status
    }

    /// Whether nothing is left of it.
    pub(super) const fn is_reaped(&self) -> bool {
        self.process.is_none()
    }
}

impl Drop for Command {
    /// No process outlives its check. Whoever drops it without having reaped it
    /// leaves a zombie until this process ends.
    fn drop(&mut self) {
        self.kill();
        self.reap();
        if let Some(process) = self.process {
            // Whoever reaps orphans may have it.
            reap::forget(process);
        }
    }
}

/// Why a command was not started.
#[derive(Debug, Clone, Copy)]
enum NotStarted {
    /// What its standard input and output would be cannot be had: a container may have
    /// no /dev.
    Null(Errno),
    /// The kernel did not start it.
    Start(Errno),
}

impl From<Errno> for NotStarted {
    fn from(errno: Errno) -> Self {
        Self::Start(errno)
    }
}

impl NotStarted {
    const fn errno(self) -> Errno {
        match self {
            Self::Null(errno) | Self::Start(errno) => errno,
        }
    }

    /// ENOENT alone would send people looking for a program that is there.
    fn reason(self, argv: &[String]) -> String {
        let program = argv.first().map_or("", String::as_str);
        let errno = match self {
            Self::Null(errno) => {
                return format!(
                    "{program} cannot be run: /dev/null, its standard input and output, cannot be \
                     opened: {}; mount /dev, as container runtimes do",
                    errno.desc()
                );
            }
            Self::Start(errno) => errno,
        };
        let there = std::path::Path::new(program).exists();
        let why = match errno {
            Errno::ENOENT if there => {
                "it is there, but not what it is run by: the interpreter of its first line, or \
                 its dynamic loader"
            }
            Errno::ENOEXEC => "it is no program for this machine, and its first line is not #!",
            Errno::EACCES if there => {
                "it may not be executed: see its mode, and whether its file system is mounted noexec"
            }
            errno => errno.desc(),
        };
        format!("{program} cannot be run: {why}")
    }
}

fn spawn(argv: &[String], server: &Endpoint) -> Result<Pid, NotStarted> {
    // Words with a NUL are refused by the configuration.
    let argv: Vec<CString> = argv
        .iter()
        .map(|word| CString::new(word.as_str()).map_err(|_| Errno::EINVAL))
        .collect::<Result<_, Errno>>()?;
    let program = argv.first().ok_or(Errno::ENOENT)?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| {
            NotStarted::Null(Errno::from_raw(
                error.raw_os_error().unwrap_or(libc::ENOENT),
            ))
        })?;
    let mut files = PosixSpawnFileActions::init()?;
    for standard in 0..=2 {
        files.add_dup2(null.as_raw_fd(), standard)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut ignored_here = SigSet::empty();
    ignored_here.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&ignored_here)?;
    let environment = environment(server)?;
    let start = || posix_spawn(program.as_c_str(), &files, &attributes, &argv, &environment);
    Ok(reap::start(start)?)
}

/// What a service manager says to one process.
const MANAGERS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// This process's own environment, and which server it is about.
fn environment(server: &Endpoint) -> Result<Vec<CString>, Errno> {
    let (address, port) = match server {
        Endpoint::Inet(address) => (address.ip().to_string(), address.port().to_string()),
        unix => (unix.to_string(), String::new()),
    };
    let ours = [
        ("THALWEG_SERVER_ADDRESS", address),
        ("THALWEG_SERVER_PORT", port),
    ];
    // What is said to this process by a service manager is not said to a check.
    let taken = |name: &OsString| ours.iter().any(|(it, _)| name == it);
    let not_its = |name: &OsString| MANAGERS.iter().any(|it| name == it);
    let inherited = std::env::vars_os().filter(|(name, _)| !taken(name) && !not_its(name));
    let ours = ours
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    inherited
        .chain(ours)
        .map(|(name, value)| {
            let entry = [name.into_vec(), value.into_vec()].join(&b'=');
            CString::new(entry).map_err(|_| Errno::EINVAL)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn reason_of(program: &std::path::Path) -> String {
        let argv = [program.display().to_string()];
        let server = Endpoint::Inet(([192, 0, 2, 7], 443).into());
        spawn(&argv, &server).unwrap_err().reason(&argv)
    }

    /// ENOENT has three causes, and only one of them is the program.
    #[test]
    fn a_command_that_cannot_be_started_says_what_is_missing() {
        let name = format!("thalweg-check-{}", std::process::id());
        let script = std::env::temp_dir().join(name);
        std::fs::write(&script, "#!/no/such/shell\n").unwrap();
        assert!(reason_of(&script).contains("may not be executed"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let reason = reason_of(&script);
        std::fs::remove_file(&script).unwrap();
        assert!(
            reason.contains("the interpreter of its first line"),
            "{reason}"
        );
        let reason = reason_of(&script);
        assert!(reason.ends_with("No such file or directory"), "{reason}");
        let argv = ["/bin/true".to_owned()];
        let reason = NotStarted::Null(Errno::ENOENT).reason(&argv);
        assert!(reason.contains("/dev/null"), "{reason}");
    }
}
