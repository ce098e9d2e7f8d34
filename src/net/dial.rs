//! Dialling: from an [`Endpoint`] and an [`OptionPlan`] to a socket that is
//! connecting, in as few system calls as the options allow (socket, nodelay,
//! quickack, connect; two more with a source address).
//!
//! Deliberately not here: waiting for the outcome, deadlines and which server is
//! next. Nothing in this file blocks.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::net::address::{Endpoint, UnixName};
use crate::net::errno::{Failure, Operation};
use crate::net::options::plan::{self, Stage};
use crate::net::options::{Family, OptionName, OptionPlan, Refusal};
use crate::net::tcp_info::{State, TcpInfo};
use crate::net::{sys, tcp_info};

/// A socket that is ready for [`connect`].
#[derive(Debug)]
pub struct Opened {
    /// Non-blocking, close-on-exec, options set, bound if that was asked for.
    pub fd: OwnedFd,
    /// Options the kernel refused; to be counted.
    pub refusal: Option<Refusal>,
}

/// Whether there are bytes to go along with the SYN.
///
/// With TCP Fast Open and a cookie at hand the kernel sends no SYN before the first
/// write. Without bytes to write that is never: a server that speaks first would
/// wait for ever, and a half-close would undo the connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// Some wait.
    Bytes,
    /// None: connect the ordinary way, whatever the options say.
    Nothing,
}

impl Early {
    /// What the client whose connection `fd` is has sent so far.
    pub fn of(client: Option<BorrowedFd<'_>>) -> Self {
        let waiting = client.and_then(|fd| tcp_info::unread(fd).ok());
        if waiting.unwrap_or(0) > 0 {
            Self::Bytes
        } else {
            Self::Nothing
        }
    }
}

/// The address that a connect comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Local {
    /// As the options have it: their `source`, or the kernel's choice.
    #[default]
    Plan,
    /// This one.
    Address(IpAddr),
    /// This one although it is not an address of this host (`IP_TRANSPARENT`, needs
    /// `CAP_NET_ADMIN`): the client's.
    Foreign(IpAddr),
}

/// What `connect` says when it does not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    /// Connected; so far only unix sockets are that quick.
    Done,
    /// Writable, or in error, once the outcome is known.
    InProgress,
    /// TCP Fast Open: nothing was sent, the SYN goes out with the first write. The
    /// socket is writable at once, and a refusal is an error of that write.
    Deferred,
}

/// Makes the socket for a connect to `endpoint`, from where the options say.
pub fn open_for_connect(
    endpoint: &Endpoint,
    plan: &OptionPlan,
    early: Early,
) -> Result<Opened, Failure> {
    open_for_connect_from(Local::Plan, endpoint, plan, early)
}

/// Makes the socket for a connect to `endpoint`.
///
/// Refused options do not stop it, except `interface`: traffic that was told to
/// leave by one interface must not leave by another. A `source` of the other
/// family is [`crate::net::errno::Obstacle::Family`], for the same reason.
pub fn open_for_connect_from(
    local: Local,
    endpoint: &Endpoint,
    plan: &OptionPlan,
    early: Early,
) -> Result<Opened, Failure> {
    let family = Family::of(endpoint);
    let (socket, mut refusal) =
        make_socket(family, plan.mptcp).map_err(|error| Failure::of_io(Operation::Open, &error))?;
    let fd = std::os::fd::AsFd::as_fd(&socket);
    if let Err(mut refused) = plan.apply(fd, Stage::BeforeConnect, family) {
        if refused.option == OptionName::Interface {
            return Err(Failure::of(Operation::Open, refused.errno));
        }
        if let Some(earlier) = refusal {
            refused.count += earlier.count;
        }
        refusal = Some(refused);
    }
    if plan.fast_open && early == Early::Nothing {
        // Refused only where it was never on.
        let _ = sys::set_int(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 0);
    }
    if let Endpoint::Inet(target) = endpoint {
        match (local, plan.source) {
            (Local::Plan, None) => {}
            (Local::Plan, Some(source)) => bind_source(&socket, source, target)?,
            (Local::Address(source), _) => {
                plan::choose_port_late(fd);
                bind_source(&socket, source, target)?;
            }
            (Local::Foreign(source), _) => {
                plan::allow_foreign_source(fd, family)
                    .map_err(|errno| Failure::of(Operation::BindSource, errno))?;
                plan::choose_port_late(fd);
                bind_source(&socket, source, target)?;
            }
        }
    }
    Ok(Opened {
        fd: socket.into(),
        refusal,
    })
}

/// Whether this process may connect from addresses of others ([`Local::Foreign`]).
pub fn may_be_transparent() -> Result<(), Errno> {
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let (socket, _) = make_socket(Family::V4, false).map_err(failed)?;
    plan::allow_foreign_source(std::os::fd::AsFd::as_fd(&socket), Family::V4)
}

/// Whether connects may come from this address: the host has it.
pub fn may_come_from(source: IpAddr) -> Result<(), Errno> {
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let family = if source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let (socket, _) = make_socket(family, false).map_err(failed)?;
    let local = SockAddr::from(SocketAddr::new(source, 0));
    socket.bind(&local).map_err(failed)
}

/// A stream socket, non-blocking and close-on-exec. Falls back from MPTCP to TCP
/// where the kernel lacks it or `net.mptcp.enabled` is 0: MPTCP does the same
/// towards a peer that does not speak it.
pub(in crate::net) fn make_socket(
    family: Family,
    mptcp: bool,
) -> std::io::Result<(Socket, Option<Refusal>)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
        Family::Unix => Domain::UNIX,
    };
    if !mptcp || family == Family::Unix {
        return Ok((Socket::new_raw(domain, kind, None)?, None));
    }
    match Socket::new_raw(domain, kind, Some(Protocol::MPTCP)) {
        Ok(socket) => Ok((socket, None)),
        // ENOPROTOOPT: switched off. EPROTONOSUPPORT, EINVAL: not built in.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOPROTOOPT | libc::EPROTONOSUPPORT | libc::EINVAL)
            ) =>
        {
            let refusal = Refusal {
                option: OptionName::Mptcp,
                errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
                count: 1,
            };
            Ok((Socket::new_raw(domain, kind, None)?, Some(refusal)))
        }
        Err(error) => Err(error),
    }
}

pub(in crate::net) fn bind_source(
    socket: &Socket,
    source: IpAddr,
    target: &SocketAddr,
) -> Result<(), Failure> {
    if source.is_ipv4() != target.is_ipv4() {
        return Err(Failure::of(Operation::BindSource, Errno::EAFNOSUPPORT));
    }
    let mut local = SocketAddr::new(source, 0);
    if let (SocketAddr::V6(local), SocketAddr::V6(target)) = (&mut local, target) {
        // A link-local source needs a scope; it can only be that of the target.
        local.set_scope_id(target.scope_id());
    }
    socket
        .bind(&SockAddr::from(local))
        .map_err(|error| Failure::of_io(Operation::BindSource, &error))
}

/// Starts the connect.
pub fn connect(fd: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<Connecting, Failure> {
    let address = sockaddr(endpoint).map_err(|errno| Failure::of(Operation::Connect, errno))?;
    match SockRef::from(&fd).connect(&address) {
        Ok(()) if address.is_unix() => Ok(Connecting::Done),
        // A non-blocking TCP connect answers EINPROGRESS even on loopback; 0 comes
        // from TCP_FASTOPEN_CONNECT with a cookie at hand.
        Ok(()) => Ok(Connecting::Deferred),
        // EINTR: the attempt goes on in the background (connect(2)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(Connecting::InProgress)
        }
        Err(error) => Err(Failure::of_io(Operation::Connect, &error)),
    }
}

/// `SO_ERROR`, read and thereby cleared: how a connect ended, or why readiness
/// reported an error (behaviour 27).
pub fn pending_error(fd: BorrowedFd<'_>, operation: Operation) -> Option<Failure> {
    match SockRef::from(&fd).take_error() {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(Failure::of_io(operation, &error)),
    }
}

/// Whether a connection is established and its peer has neither ended nor reset it;
/// what waits to be read does not matter. A unix socket has no such state: there a
/// look at what can be read tells, and an end behind unread bytes is not seen.
pub fn is_fresh(fd: BorrowedFd<'_>) -> bool {
    if let Ok(info) = TcpInfo::read(fd) {
        return info.state == State::Established;
    }
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(fd.as_raw_fd(), &mut byte, flags) {
        Ok(n) => n > 0,
        Err(errno) => errno == Errno::EAGAIN,
    }
}

/// The port of a connect that could end as a socket talking to itself: with
/// nobody listening on a port of the ephemeral range of this host, the kernel
/// can pick that very port for the connect, and a TCP simultaneous open succeeds
/// (behaviour 28). `ephemeral` is [`crate::net::limits::ephemeral_ports`]; so
/// only connects to such ports pay for [`is_self_connect`].
pub fn may_self_connect(endpoint: &Endpoint, ephemeral: &RangeInclusive<u16>) -> Option<u16> {
    match endpoint {
        Endpoint::Inet(target) if ephemeral.contains(&target.port()) => Some(target.port()),
        _ => None,
    }
}

/// Whether an established connection to `port` is a socket talking to itself. Treat it as
/// refused. Whose own port is another has not: one system call tells that, and it is all
/// that an honest connection costs.
pub fn is_self_connect(fd: BorrowedFd<'_>, port: u16) -> bool {
    let socket = SockRef::from(&fd);
    let local = socket.local_addr().ok().and_then(|it| it.as_socket());
    let Some(local) = local.filter(|it| it.port() == port) else {
        return false;
    };
    let peer = socket.peer_addr().ok().and_then(|it| it.as_socket());
    // Without the flow label and the scope, which only one side has.
    peer.is_some_and(|peer| (peer.ip(), peer.port()) == (local.ip(), local.port()))
}

/// The kernel's form of an endpoint. ENAMETOOLONG for a unix name over 107
/// bytes, EINVAL for an unnamed socket, which cannot be called.
pub(in crate::net) fn sockaddr(endpoint: &Endpoint) -> Result<SockAddr, Errno> {
    match endpoint {
        Endpoint::Inet(address) => Ok(SockAddr::from(*address)),
        // An empty path would autobind, one with a NUL would be cut or abstract.
        Endpoint::Unix(UnixName::Path(path))
            if path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) =>
        {
            Err(Errno::EINVAL)
        }
        Endpoint::Unix(UnixName::Path(path)) => {
            SockAddr::unix(path).map_err(|_| Errno::ENAMETOOLONG)
        }
        Endpoint::Unix(UnixName::Abstract(name)) => {
            let mut bytes = [0; 108];
            let slot = bytes.get_mut(1..=name.len()).ok_or(Errno::ENAMETOOLONG)?;
            slot.copy_from_slice(name);
            let path = Path::new(std::ffi::OsStr::from_bytes(&bytes[..=name.len()]));
            SockAddr::unix(path).map_err(|_| Errno::ENAMETOOLONG)
        }
        Endpoint::Unnamed => Err(Errno::EINVAL),
    }
}

/// The endpoint of a kernel address; IPv4-mapped addresses become IPv4.
pub(in crate::net) fn endpoint(address: &SockAddr) -> Endpoint {
    if let Some(inet) = address.as_socket() {
        let ip = inet.ip().to_canonical();
        return Endpoint::Inet(if ip.is_ipv4() && inet.is_ipv6() {
            SocketAddr::new(ip, inet.port())
        } else {
            inet
        });
    }
    if let Some(path) = address.as_pathname() {
        return Endpoint::Unix(UnixName::Path(path.to_owned()));
    }
    match address.as_abstract_namespace() {
        Some(name) => Endpoint::Unix(UnixName::Abstract(name.to_vec())),
        None => Endpoint::Unnamed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
