//! An emulated path on this machine: delay, rate, loss, a bounded queue.
//!
//! ```text
//!   namespace "near"                                    namespace "far"
//!   198.18.0.1 ── TUN ══► thread: queue, line, delay ══► TUN ── 198.18.0.2
//!                     ◄══ thread: queue, line, delay ◄══
//! ```
//!
//! | part | what it is |
//! | --- | --- |
//! | [`PathSpec`] | what the path is like, as text |
//! | [`model`] | pure: which packet is dropped, lost, and when it arrives |
//! | [`End`] | a network namespace and the way into it |
//! | [`Link`] | both ends and the threads between them |
//!
//! ```no_run
//! use thalweg::bench::path::{Link, PathSpec};
//!
//! let spec: PathSpec = "rtt=40ms,rate=200Mbit,loss=0.1%".parse()?;
//! let link = Link::start(&spec)?;
//! let listener = link.far().run(|| std::net::TcpListener::bind("198.18.0.2:0"))??;
//! let address = listener.local_addr()?;
//! let stream = link.near().run(|| std::net::TcpStream::connect(address))??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Packets keep the MTU: the devices offer no offloads, so segmentation and
//! checksums cost what they cost without a network card's help. It needs the right to
//! make network namespaces (root, or a user namespace of one's own).

mod carrier;
mod end;
mod facts;
mod link;
pub mod model;
mod spec;

use std::io;

pub use end::End;
pub use facts::PathFacts;
pub use link::{DirectionCounters, Link, LinkCounters};
pub use spec::{Loss, PathSpec, SpecError};

/// Why there is no path.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// No privilege.
    #[error(
        "an emulated path needs network namespaces, which this user may not make; run it as root \
         (CAP_SYS_ADMIN and CAP_NET_ADMIN)"
    )]
    NotPermitted,
    /// `/dev/net/tun` cannot be used.
    #[error("an emulated path needs a TUN device: {problem}; {remedy}")]
    Tun {
        /// What the kernel said.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The routes take no such congestion control.
    #[error("congestion control `{name}` cannot be set on the path: {problem}; {remedy}")]
    Congestion {
        /// Which.
        name: String,
        /// What the kernel said.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Another step failed.
    #[error("cannot set up an emulated path: {step}: {problem}")]
    System {
        /// Which.
        step: String,
        /// What the kernel said.
        problem: String,
    },
    /// A thread that sets it up panicked, and said so.
    #[error("cannot set up an emulated path: a thread panicked")]
    Panicked,
}

impl PathError {
    fn system(step: &str, error: &io::Error) -> Self {
        Self::System {
            step: step.to_owned(),
            problem: error.to_string(),
        }
    }

    fn tun(error: &io::Error) -> Self {
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "run it as root (CAP_NET_ADMIN)",
            _ => "load the kernel's module (modprobe tun); a container must be given /dev/net/tun",
        };
        Self::Tun {
            problem: error.to_string(),
            remedy,
        }
    }

    fn congestion(name: &str, error: &io::Error) -> Self {
        let remedy = match error.raw_os_error() {
            Some(libc::ENOENT | libc::EINVAL) => format!(
                "load it (modprobe tcp_{name}), or name one of \
                 net.ipv4.tcp_available_congestion_control"
            ),
            _ => "name another".to_owned(),
        };
        Self::Congestion {
            name: name.to_owned(),
            problem: error.to_string(),
            remedy,
        }
    }
}
