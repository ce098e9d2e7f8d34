//! A network namespace of its own for a measurement.
//!
//! Inside, sysctls can be set without touching the machine's: the same congestion
//! control for every subject, also for those that cannot choose it, and a port range
//! wide enough for connections that live for one exchange. The namespace belongs to
//! the process and its children, and ends with them; there is nothing to clean up.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::sys;

/// Whether to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// When it is permitted.
    Auto,
    /// Or fail.
    Yes,
    /// Measure in the machine's own.
    No,
}

/// Where a measurement runs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Place {
    /// In a namespace of its own.
    pub isolated: bool,
    /// The congestion control that sockets get unless they ask for another.
    pub congestion: String,
    /// Why it is not isolated, or what could not be set inside.
    pub notes: Vec<String>,
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Enters a new namespace with `congestion` as the default, or stays. Threads and
/// children that the calling thread starts later are inside; others are not, so
/// this comes first of all.
///
/// # Errors
/// With [`Choice::Yes`]: why not.
pub fn enter(choice: Choice, congestion: &str) -> Result<Place, String> {
    let mut notes = Vec::new();
    let isolated = match choice {
        Choice::No => false,
        Choice::Auto | Choice::Yes => match isolate() {
            Ok(()) => true,
            Err(error) if choice == Choice::Auto => {
                notes.push(format!("no network namespace of its own: {error}"));
                false
            }
            Err(error) => return Err(format!("cannot make a network namespace: {error}")),
        },
    };
    if isolated {
        for (file, value) in [(CONGESTION, congestion), (PORTS, "10240 65535")] {
            if let Err(error) = fs::write(file, value) {
                notes.push(format!("cannot set {file} to `{value}`: {error}"));
            }
        }
    }
    let congestion = fs::read_to_string(CONGESTION)
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned());
    Ok(Place {
        isolated,
        congestion,
        notes,
    })
}

fn isolate() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            // Without privileges: a user namespace in which this user is itself.
            let (user, group) = (geteuid(), getegid());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        }
        Err(error) => return Err(error.into()),
    }
    sys::loopback_up()
}
