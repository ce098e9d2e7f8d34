//! One end of an emulated path: a network namespace with a TUN device in it.
//!
//! The namespace has no name and no process of its own; a descriptor keeps it. It
//! vanishes with its last user, and the device with the descriptor that reads it:
//! there is nothing to clean up, also after SIGKILL.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::PathError;
use crate::bench::netlink::Request;
use crate::bench::{route, sys};

/// The TUN device in each namespace.
const DEVICE: &str = "path";

/// Packets that wait in the device for the thread of the link. Far more than a
/// sender can offer while that thread waits for its turn: the queue that drops is
/// the path's own.
const DEVICE_QUEUE: u32 = 16_384;

/// What a namespace is given before anything runs in it.
const SYSCTLS: [(&str, &str); 5] = [
    // Router solicitations and multicast reports would use the path.
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    // What one connection learned of the path would make the next another one.
    ("net/ipv4/tcp_no_metrics_save", "1"),
    // Room for connections that live for one exchange and leave TIME_WAIT behind.
    ("net/ipv4/ip_local_port_range", "10240 65535"),
    // Unprivileged ones too: an origin may listen where it likes.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
];

/// An end, and the way into it.
#[derive(Debug)]
pub struct End {
    name: &'static str,
    address: Ipv4Addr,
    peer: Ipv4Addr,
    namespace: File,
    statistics: File,
}

impl End {
    /// Makes the namespace and the device; the device is for the thread that carries
    /// its packets.
    pub(super) fn make(
        name: &'static str,
        address: Ipv4Addr,
        peer: Ipv4Addr,
        mtu: u32,
    ) -> Result<(Self, File), PathError> {
        // On a thread of its own, which does not come back from there.
        let made = thread::scope(|scope| {
            let inside = move || Self::make_here(name, address, peer, mtu);
            let thread = thread::Builder::new().name(format!("path-{name}"));
            let thread = thread
                .spawn_scoped(scope, inside)
                .map_err(|error| PathError::system("start a thread", &error))?;
            thread.join().map_err(|_| PathError::Panicked)
        });
        made?
    }

    fn make_here(
        name: &'static str,
        address: Ipv4Addr,
        peer: Ipv4Addr,
        mtu: u32,
    ) -> Result<(Self, File), PathError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            Errno::EPERM => PathError::NotPermitted,
            errno => PathError::system("make a network namespace", &errno.into()),
        })?;
        for (key, value) in SYSCTLS {
            let written = fs::write(format!("/proc/sys/{key}"), value);
            match written {
                // A kernel without IPv6 has nothing to be switched off.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|error| PathError::system(key, &error))?,
            }
        }
        sys::loopback_up().map_err(|error| PathError::system("bring loopback up", &error))?;
        let device = sys::tun(DEVICE).map_err(|error| PathError::tun(&error))?;
        set_up(address, peer, mtu)
            .map_err(|error| PathError::system("set up a TUN device", &error))?;
        let open = |path: &str| {
            File::open(path).map_err(|error| PathError::system(&format!("open {path}"), &error))
        };
        let end = Self {
            name,
            address,
            peer,
            namespace: open("/proc/thread-self/ns/net")?,
            // It goes on showing the namespace that it was opened in.
            statistics: open("/proc/thread-self/net/dev")?,
        };
        Ok((end, device))
    }

    /// This end's address on the path.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Moves the calling thread into this end's namespace. Sockets that it makes,
    /// threads and processes that it starts from then on are inside and stay there.
    /// There is no way back to where the thread was: enter on a thread made for it
    /// ([`End::run`]), or first of all.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn enter(&self) -> Result<(), PathError> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| PathError::system("enter a network namespace", &errno.into()))
    }

    /// Runs `work` on a thread of its own inside and waits for it.
    ///
    /// # Errors
    /// The thread cannot be started or cannot enter.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PathError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(format!("path-{}", self.name))
                .spawn_scoped(scope, || self.enter().map(|()| work()))
                .map_err(|error| PathError::system("start a thread", &error))?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Makes `name` the congestion control of this end's sockets towards the other
    /// end, unless they set one themselves.
    ///
    /// # Errors
    /// What the kernel refused: it has no such algorithm, or needs to load it.
    pub fn set_congestion(&self, name: &str) -> Result<(), PathError> {
        self.run(|| route::set_peer_congestion(DEVICE, self.address, self.peer, name))?
            .map_err(|error| PathError::congestion(name, &error))
    }

    /// The same of this end's sockets among themselves, over its loopback.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_loopback_congestion(&self, name: &str) -> Result<(), PathError> {
        self.run(|| route::set_loopback_congestion(name))?
            .map_err(|error| PathError::congestion(name, &error))
    }

    /// Packets that the device dropped because the link's thread came too late: not
    /// a property of the path but of a machine that is too slow for it.
    pub(super) fn overrun(&self) -> u64 {
        let mut text = vec![0; 4096];
        let len = self.statistics.read_at(&mut text, 0).unwrap_or(0);
        transmit_drops(&String::from_utf8_lossy(&text[..len]))
    }
}

/// The device's dropped packets in /proc/net/dev: eight columns of receiving, then
/// bytes, packets, errors, drops of sending.
fn transmit_drops(text: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().nth(11)?.parse().ok())
        .unwrap_or(0)
}

/// Address, MTU, queue, up: two requests.
fn set_up(address: Ipv4Addr, peer: Ipv4Addr, mtu: u32) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(DEVICE)?;
    let up = libc::IFF_UP as u32;
    // struct ifinfomsg: family, padding, type (2), index (4), flags (4), change (4).
    let mut link = [0; 16];
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    link[8..12].copy_from_slice(&up.to_ne_bytes());
    link[12..16].copy_from_slice(&up.to_ne_bytes());
    Request::new(libc::RTM_NEWLINK, 0, &link)
        .with(libc::IFLA_MTU, &mtu.to_ne_bytes())
        .with(libc::IFLA_TXQLEN, &DEVICE_QUEUE.to_ne_bytes())
        .send()?;
    // struct ifaddrmsg: family, prefix length, flags, scope, index (4).
    let mut own = [
        libc::AF_INET as u8,
        32,
        0,
        libc::RT_SCOPE_UNIVERSE,
        0,
        0,
        0,
        0,
    ];
    own[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(
        libc::RTM_NEWADDR,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &own,
    )
    .with(libc::IFA_LOCAL, &address.octets())
    .with(libc::IFA_ADDRESS, &peer.octets())
    .send()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_right_column() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13\n  path: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(transmit_drops(text), 12);
        assert_eq!(transmit_drops(""), 0);
    }
}
