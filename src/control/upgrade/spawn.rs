//! The new process as a child of the old one: the same command line, and standard input
//! is the connection between them.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::order::UpgradeError;

/// Says to a process that standard input is the connection to the one that started it.
const VARIABLE: &str = "THALWEG_TAKE_OVER";

/// How long a child that is no use any more has to end by itself.
const PARTING: Duration = Duration::from_millis(500);

/// The path that this process was started from.
static STARTED_FROM: OnceLock<PathBuf> = OnceLock::new();

/// Notes where this process was started from: later its file may be another one, or gone.
pub(in crate::control) fn remember() {
    STARTED_FROM.get_or_init(|| {
        let name = std::env::args_os().next().unwrap_or_default();
        found(&name).unwrap_or_else(|| std::env::current_exe().unwrap_or(name.into()))
    });
}

/// By the name that it was called by: a symbolic link stays one, so that a new version is
/// found behind it.
fn found(name: &OsString) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return std::path::absolute(path).ok();
    }
    let directories = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&directories).map(|it| it.join(path));
    files.find(|it| it.is_file())
}

/// Whether this process can be followed by another one: it is no part of a program that
/// does other things as well.
pub(in crate::control) fn is_possible() -> bool {
    STARTED_FROM.get().is_some()
}

/// Whether this process was started by the one that it takes over from.
pub(in crate::control) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|it| it == "stdin")
}

/// The connection to it. Standard input is nothing from then on.
pub(in crate::control) fn from_parent() -> io::Result<Channel> {
    let stdin: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    // Anything but a socket is a mistake of whoever set the variable.
    rustix::net::sockopt::socket_type(&stdin)?;
    Channel::over(stdin)
}

/// A new process that was started. Dropped, it is ended, unless it was let go.
#[derive(Debug)]
pub(in crate::control) struct NewProcess {
    child: Option<Child>,
}

impl NewProcess {
    /// Starts one, from this path or from where this process was started.
    pub(in crate::control) fn start(
        binary: Option<&Path>,
    ) -> Result<(Self, Channel), UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::Impossible(
                "this is the first process of its container, which ends with it: start a new \
                 container instead"
                    .to_owned(),
            ));
        }
        let Some(own) = STARTED_FROM.get() else {
            return Err(UpgradeError::Impossible(
                "this forwarder is part of another program, which has to be started anew"
                    .to_owned(),
            ));
        };
        let path = binary.unwrap_or(own).to_owned();
        let cannot = |error: io::Error| UpgradeError::Binary {
            path: path.display().to_string(),
            error: error.to_string(),
        };
        let (here, there) = Channel::pair().map_err(cannot)?;
        let child = Command::new(&path)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, "stdin")
            // Those are for this process, by its number.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(there)
            .spawn()
            .map_err(cannot)?;
        let child = Some(child);
        Ok((Self { child }, here))
    }

    /// It serves: whoever started it does not matter any more.
    pub(in crate::control) fn let_go(mut self) {
        self.child = None;
    }

    /// How it ended, if it has.
    pub(in crate::control) fn ended(&mut self) -> Option<String> {
        let deadline = Instant::now() + PARTING;
        let child = self.child.as_mut()?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Some(status.to_string());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
