//! Datagram sockets: those that clients send to, and those connected to a server; and the
//! batches in which both are read and written ([`batch`]).
//!
//! What the kernel does, tried on Linux 6.18:
//! - A listener gets no `SO_REUSEADDR`: for UDP that lets anybody share the port. The first
//!   socket of a group is bound before `SO_REUSEPORT` is set on it, as with TCP.
//! - With `IP_RECVERR` a full queue of the device is told of (ENOBUFS; without it a send
//!   into one "succeeds"), and what ICMP said is taken off a queue of its own, so that it
//!   costs no datagram: without it the next send fails in the place of the one that is gone.
//! - `UDP_GRO` hands over trains of equal datagrams in one piece, which takes buffers of
//!   64 KiB: of a smaller one the rest is lost.

pub mod batch;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::net::dial::{self, Local};
use crate::net::errno::{Failure, Operation};
use crate::net::options::plan::{self, Stage};
use crate::net::options::{Family, OptionName, OptionPlan};
use crate::net::sys;

/// The largest payload of a datagram over IPv4, and over IPv6 one more header's worth.
pub const PAYLOAD_MAX: usize = 65_507;
/// See [`PAYLOAD_MAX`].
pub const PAYLOAD_MAX_V6: usize = 65_527;

/// Asked for where the profile says nothing: the kernel grants up to `rmem_max`. The
/// socket of a listener has the datagrams of all its clients.
pub const LISTENER_BUFFER: i32 = 8 << 20;

/// `UDP_GRO` and `UDP_SEGMENT` of linux/udp.h.
pub(super) const UDP_GRO: i32 = 104;
pub(super) const UDP_SEGMENT: i32 = 103;

/// Of linux/in.h (Linux 6.3), for sockets of both families.
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// A datagram socket, non-blocking and close-on-exec.
pub(in crate::net) fn make_socket(family: Family) -> std::io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
        Family::Unix => Domain::UNIX,
    };
    Socket::new_raw(domain, Type::DGRAM.nonblocking().cloexec(), None)
}

/// Everything that a listener of datagrams needs besides the options of its profile.
/// `every_address`: it is bound to all of them, so each datagram says which it came to.
pub(in crate::net) fn prepare_listener(
    fd: BorrowedFd<'_>,
    family: Family,
    every_address: bool,
    has_buffer: bool,
) {
    // None of it can fail on a kernel of this decade, and without each of it datagrams
    // are forwarded still.
    if !has_buffer {
        let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, LISTENER_BUFFER);
    }
    if every_address && family == Family::V6 {
        let _ = sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
    } else if every_address {
        let _ = sys::set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    }
    let _ = sys::set_int(fd, libc::SOL_UDP, UDP_GRO, 1);
    report_errors(fd, family);
}

/// What ICMP says, and that a device takes no more, is told of.
fn report_errors(fd: BorrowedFd<'_>, family: Family) {
    let _ = sys::set_int(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    if family == Family::V6 {
        let _ = sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
    }
}

/// Trains of datagrams come in one piece from now on.
pub fn take_trains(fd: BorrowedFd<'_>) {
    let _ = sys::set_int(fd, libc::SOL_UDP, UDP_GRO, 1);
}

/// How a server is called.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Whom.
    pub server: SocketAddr,
    /// With which options.
    pub options: &'a OptionPlan,
    /// From where.
    pub local: Local,
    /// Datagrams larger than the path are dropped, not cut into fragments.
    pub never_fragment: bool,
    /// The first and the last of the local ports that it may have; `None`: any that the kernel draws.
    pub ports: Option<(u16, u16)>,
}

/// A socket that is connected to its server.
#[derive(Debug)]
pub struct Connected {
    /// It.
    pub fd: OwnedFd,
    /// It has one of the ports that were asked for, and so after every [`connect_anew`]: neither is
    /// the kernel older than 6.3, nor do its options say which ports it may have.
    pub has_ports: bool,
}

/// A socket that is connected to a server: it sends nowhere else and takes nothing from
/// anybody else.
///
/// Between the choice of its port and the connect it is open to all; what came then, or was
/// meant for who had the port before, is thrown away here.
pub fn connect(call: &Call<'_>) -> Result<Connected, Failure> {
    let family = if call.server.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let socket = make_socket(family).map_err(|error| Failure::of_io(Operation::Open, &error))?;
    let fd = socket.as_fd();
    if let Err(refused) = call
        .options
        .apply_datagrams(fd, Stage::BeforeConnect, family)
        && refused.option == OptionName::Interface
    {
        return Err(Failure::of(Operation::Open, refused.errno));
    }
    report_errors(fd, family);
    if call.never_fragment {
        never_fragment(fd, family);
    }
    let source = match call.local {
        Local::Plan => call.options.source(),
        Local::Address(source) => Some(source),
        Local::Foreign(source) => {
            plan::allow_foreign_source(fd, family)
                .map_err(|errno| Failure::of(Operation::BindSource, errno))?;
            Some(source)
        }
    };
    if let Some(source) = source {
        plan::choose_port_late(fd);
        dial::bind_source(&socket, source, &call.server)?;
    }
    let has_ports = call.ports.is_some_and(|ports| keep_to(fd, ports));
    socket
        .connect(&SockAddr::from(call.server))
        .map_err(|error| connect_failure(&error))?;
    discard_all(fd);
    let fd = socket.into();
    Ok(Connected { fd, has_ports })
}

/// Has the kernel draw the ports of a socket from these alone, unless its options say from which.
/// Whether it does.
fn keep_to(fd: BorrowedFd<'_>, (first, last): (u16, u16)) -> bool {
    let mut before = [0; 4];
    let read = sys::option_bytes(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &mut before);
    let range = u32::from(last) << 16 | u32::from(first);
    read == Ok(before.len())
        && before == [0; 4]
        && sys::set_int(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range as i32).is_ok()
}

/// Has a socket that [`connect`] made keep the address that it is connected from, and not the port, for
/// every [`connect_anew`]: the kernel looks for the way to the server once each time and not twice,
/// a sixth of what that takes (Linux 6.18). It is not connected after this.
pub fn keep_source(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let of_open = |error: std::io::Error| Failure::of_io(Operation::Open, &error);
    let socket = SockRef::from(&fd);
    let local = socket.local_addr().map_err(of_open)?.as_socket();
    let mut local = local.ok_or(Failure::Other(libc::EINVAL))?;
    local.set_port(0);
    sys::disconnect(fd).map_err(|errno| Failure::of(Operation::Connect, errno))?;
    // Without this the port that the bind chooses would stay.
    sys::set_int(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
        .map_err(|errno| Failure::of(Operation::Open, errno))?;
    let bound = socket.bind(&SockAddr::from(local));
    bound.map_err(|error| Failure::of_io(Operation::BindSource, &error))
}

/// Connects a socket that [`connect`] made to its server again, from another port: what comes to the
/// old one finds nobody. What has come, and between the choice of the new port and the connect may
/// have come from anybody, is thrown away: how many datagrams that were. A quarter of what a
/// new socket costs (1.7 of 7.4 µs with its watch, Linux 6.18).
///
/// Only where no port and no interface was asked for: the first would stay, the second would not.
pub fn connect_anew(fd: BorrowedFd<'_>, server: &SocketAddr) -> Result<u32, Failure> {
    sys::disconnect(fd).map_err(|errno| Failure::of(Operation::Connect, errno))?;
    sys::connect_now(fd, &SockAddr::from(*server))
        .map_err(|errno| connect_failure(&std::io::Error::from(errno)))?;
    Ok(discard_all(fd))
}

fn connect_failure(error: &std::io::Error) -> Failure {
    match error.raw_os_error() {
        // No port is left: connect(2) of a datagram socket says so in this way.
        Some(libc::EAGAIN) => Failure::of(Operation::Connect, Errno::EADDRNOTAVAIL),
        _ => Failure::of_io(Operation::Connect, error),
    }
}

/// Whether a connected socket has become its own peer: the server's port lies among
/// those that the kernel hands out, and nobody else has it.
pub fn is_self_connect(fd: BorrowedFd<'_>, port: u16) -> bool {
    dial::is_self_connect(fd, port)
}

/// Ports on one side of a server's own among all that the kernel draws from, so that a socket keeps
/// off it and need not be asked whether it has become its own peer, which is a system call each
/// time that it is connected. `nth`: of the sockets that were made; of many, each side gets as many
/// as it has ports. `None`: there are no others.
pub fn ports_beside(server: u16, all: &RangeInclusive<u16>, nth: u32) -> Option<(u16, u16)> {
    /// 2³² by the golden ratio: the multiples are spread evenly, however many there are.
    const STEP: u32 = 0x9E37_79B9;
    let below = u64::from(server.checked_sub(*all.start())?);
    let above = u64::from(all.end().checked_sub(server)?);
    let drawn = (u64::from(nth.wrapping_mul(STEP)) * (below + above)) >> 32;
    if drawn < below {
        Some((*all.start(), server - 1))
    } else if above > 0 {
        Some((server + 1, *all.end()))
    } else {
        None
    }
}

/// `IP_PMTUDISC_DO`: never a fragment of our own, and routers are told so.
fn never_fragment(fd: BorrowedFd<'_>, family: Family) {
    if family == Family::V6 {
        let option = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO);
        let _ = sys::set_int(fd, libc::IPPROTO_IPV6, option.0, option.1);
    } else {
        let option = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO);
        let _ = sys::set_int(fd, libc::IPPROTO_IP, option.0, option.1);
    }
}

/// Has an epoll instance tell of a socket with this number whenever it is asked and something is in
/// the socket, or has failed. mio tells of news alone.
pub fn watch(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, number: u64) -> std::io::Result<()> {
    Ok(sys::watch_level(epoll, fd, number)?)
}

/// Throws away what waits in a socket; how many datagrams that were.
pub fn discard_all(fd: BorrowedFd<'_>) -> u32 {
    const MOST: u32 = 64;
    let mut byte = [0];
    let taken = (0..MOST).take_while(|_| sys::receive_now(fd, &mut byte).is_ok());
    taken.count() as u32
}

/// Sends a datagram by a socket that is connected. An error that the kernel has for an earlier one costs
/// this one nothing.
pub fn send_at_once(fd: BorrowedFd<'_>, datagram: &[u8]) -> Result<(), Lost> {
    let mut again = false;
    loop {
        match sys::send_now(fd, datagram) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) if may_be_pending(errno) && !again => again = true,
            Err(errno) => return Err(Lost::of(errno)),
        }
    }
}

/// Whether a socket is one of IPv6.
pub fn is_v6(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
    let local = getsockname::<SockaddrStorage>(fd.as_raw_fd());
    local.is_ok_and(|it| it.family() == Some(AddressFamily::Inet6))
}

/// The address that a datagram came to, which its answer leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LocalAddress {
    /// It.
    pub ip: IpAddr,
    /// The interface, of a link-local address; else 0.
    pub interface: u32,
}

/// Why a datagram could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lost {
    /// It is larger than the path, or than any datagram.
    TooBig,
    /// The socket's send queue is full.
    SendQueue,
    /// The device's queue is full, or the kernel is short of memory.
    NoBuffers,
    /// There is no way to it.
    Unreachable,
    /// It was refused, and again.
    Refused,
    /// Any other reason.
    Failed,
}

impl Lost {
    /// By the errno of a send.
    pub fn of(errno: Errno) -> Self {
        match errno {
            Errno::EMSGSIZE => Self::TooBig,
            Errno::EAGAIN => Self::SendQueue,
            Errno::ENOBUFS | Errno::ENOMEM => Self::NoBuffers,
            Errno::ECONNREFUSED => Self::Refused,
            other => match Failure::of(Operation::Connect, other) {
                Failure::Unreachable(_) => Self::Unreachable,
                _ => Self::Failed,
            },
        }
    }
}

/// Whether an errno may be what ICMP said of an earlier datagram: the send that it is told
/// to sent nothing, and the next one works.
pub fn may_be_pending(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENOPROTOOPT
            | Errno::EPROTO
            | Errno::EACCES
            | Errno::EMSGSIZE
    )
}

/// Whether several datagrams were refused for being sent at once, and may pass singly: no
/// checksum offload (EIO), too many segments or a segment above the MTU.
pub fn may_pass_singly(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
