//! A network namespace of its own for a measurement.
//!
//! Inside, the network can be set up without touching the machine's: the same
//! congestion control for every subject, also for those that cannot choose it, and a
//! port range wide enough for connections that live for one exchange. The namespace belongs to
//! the process and its children, and ends with them; there is nothing to clean up.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::path::Link;
use super::{route, socket, sys};

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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Place {
    /// In a namespace of its own.
    pub isolated: bool,
    /// The congestion control that sockets get unless they ask for another.
    pub congestion: String,
    /// Why it is not isolated, or what could not be set inside.
    pub notes: Vec<String>,
}

const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const PORT_RANGE: &str = "10240 65535";

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
        if let Err(error) = route::set_loopback_congestion(congestion) {
            notes.push(format!(
                "cannot make {congestion} the congestion control of loopback: {error}"
            ));
        }
        // Room for connections that live for one exchange and leave TIME_WAIT behind.
        if let Err(error) = fs::write(PORTS, PORT_RANGE) {
            notes.push(format!("cannot set {PORTS} to `{PORT_RANGE}`: {error}"));
        }
    }
    Ok(Place {
        isolated,
        congestion: congestion_in_use()
            .map_err(|error| format!("cannot connect over loopback: {error}"))?,
        notes,
    })
}

/// Enters the near end of a path with `congestion` on every leg: across the path and
/// on loopback. Threads and children that the calling thread starts later are inside.
///
/// # Errors
/// What the kernel refused.
pub fn enter_path(link: &Link, congestion: &str) -> Result<Place, String> {
    let mut notes = Vec::new();
    if let Err(error) = link.set_congestion(congestion) {
        notes.push(error.to_string());
    }
    link.near().enter().map_err(|error| error.to_string())?;
    Ok(Place {
        isolated: true,
        congestion: congestion_in_use()
            .map_err(|error| format!("cannot connect over loopback: {error}"))?,
        notes,
    })
}

/// What both ends of a connection over loopback really get.
fn congestion_in_use() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let (up, down) = (
        socket::congestion_of(&client)?,
        socket::congestion_of(&server)?,
    );
    Ok(if up == down {
        up
    } else {
        format!("{up} (clients), {down} (servers)")
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
