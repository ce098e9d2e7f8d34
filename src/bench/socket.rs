//! Sockets as the generator and the origin want them: non-blocking, no delay,
//! and with a stated congestion control.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::bench::units;
use crate::net::address::{Address, AddressError};
use crate::net::limits::sysctl;
use crate::net::options::plan::Stage;
use crate::net::options::{Family, OptionPlan};
use crate::net::tcp_info::TcpInfo;

/// Connections that wait to be accepted; the kernel caps it at
/// `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// A listening socket for mio. `congestion` is inherited by what it accepts, and so
/// are most of `options`, which are those of a leg towards clients.
pub(crate) fn listen(
    address: SocketAddr,
    congestion: Option<&str>,
    options: Option<&OptionPlan>,
) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // Restarting within the minute of TIME_WAIT must not fail; a port that
    // somebody listens on is still refused.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    set_congestion(&socket, congestion)?;
    socket.set_tcp_nodelay(true)?;
    set_options(&socket, options, Stage::Listener, family_of(address))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Room for datagrams that wait to be read at an end of a measurement, bytes as the kernel counts
/// them: what is lost shall be lost by the subject, not by an end that had to wait for its turn.
const DATAGRAM_ROOM: usize = 4 << 20;

/// A socket that takes datagrams from anybody.
pub(crate) fn bind_datagrams(address: SocketAddr) -> io::Result<mio::net::UdpSocket> {
    let socket = datagram_socket(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(mio::net::UdpSocket::from_std(socket.into()))
}

/// A socket for datagrams to and from one address, at a port of its own.
pub(crate) fn connect_datagrams(address: SocketAddr) -> io::Result<mio::net::UdpSocket> {
    let socket = datagram_socket(address)?;
    socket.connect(&address.into())?;
    Ok(mio::net::UdpSocket::from_std(socket.into()))
}

fn datagram_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    // Without privileges net.core.rmem_max bounds it, and less is what there is.
    setsockopt(&socket, sockopt::RcvBufForce, &DATAGRAM_ROOM)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &DATAGRAM_ROOM))?;
    Ok(socket)
}

/// Starts connecting without waiting for it. `options` are those of a leg towards
/// upstreams; what belongs behind the connect is set by [`connected`].
pub(crate) fn connect(
    address: SocketAddr,
    congestion: Option<&str>,
    options: Option<&OptionPlan>,
) -> io::Result<mio::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    set_congestion(&socket, congestion)?;
    socket.set_tcp_nodelay(true)?;
    set_options(&socket, options, Stage::BeforeConnect, family_of(address))?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

/// Sets what of `options` belongs behind the connect, and `congestion` once more: a
/// route that names one (`ip route … congctl`) has overridden it in the connect.
pub(crate) fn connected(
    stream: &mio::net::TcpStream,
    congestion: Option<&str>,
    options: Option<&OptionPlan>,
) -> io::Result<()> {
    once_more(stream, congestion, options, Stage::AfterConnect)
}

/// Sets what of `options` an accepted socket does not inherit from its listener, and
/// `congestion` once more, for the reason given at [`connected`].
pub(crate) fn accepted(
    stream: &mio::net::TcpStream,
    congestion: Option<&str>,
    options: Option<&OptionPlan>,
) -> io::Result<()> {
    once_more(stream, congestion, options, Stage::Accepted)
}

/// Both ends of a connection are of one family.
fn once_more(
    stream: &mio::net::TcpStream,
    congestion: Option<&str>,
    options: Option<&OptionPlan>,
    stage: Stage,
) -> io::Result<()> {
    if options.is_none() {
        return Ok(());
    }
    set_congestion(&SockRef::from(stream), congestion)?;
    let family = family_of(stream.local_addr()?);
    set_options(stream, options, stage, family)
}

fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// A measurement with one option less than it says is wrong, so a refusal ends it.
fn set_options(
    socket: &impl AsFd,
    options: Option<&OptionPlan>,
    stage: Stage,
    family: Family,
) -> io::Result<()> {
    let Some(plan) = options else {
        return Ok(());
    };
    plan.apply(socket.as_fd(), stage, family)
        .map_err(|refusal| {
            io::Error::other(format!(
                "the kernel refuses {}: {}",
                refusal.option,
                refusal.errno.desc()
            ))
        })
}

/// Takes what has arrived, up to the length of `buffer`, without copying it (`MSG_TRUNC`,
/// tcp(7)); the buffer stays as it is. 0: the peer has ended.
pub(crate) fn discard(stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = stream.as_fd().as_raw_fd();
    Ok(recv(fd, buffer, MsgFlags::MSG_TRUNC)?)
}

/// How long a proxy may take to make a tunnel.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(5);

/// Asks the proxy at the other end of a stream for a tunnel, and waits for it. The
/// stream is left as it was, with nothing of the tunnel's read.
///
/// # Errors
/// What failed, or how the proxy answered.
pub(crate) fn ask_for_tunnel(stream: &impl AsFd, to: SocketAddr) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let waits = !socket.nonblocking()?;
    let (reads, writes) = (socket.read_timeout()?, socket.write_timeout()?);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TUNNEL_PATIENCE))?;
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    (&*socket).write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer is the origin's.
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 1024 {
        let mut byte = [0];
        (&*socket).read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    socket.set_read_timeout(reads)?;
    socket.set_write_timeout(writes)?;
    socket.set_nonblocking(!waits)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        let first = answer.split(|byte| *byte == b'\r').next();
        let first = first.unwrap_or_default().escape_ascii();
        Err(io::Error::other(format!("the proxy answered {first}")))
    }
}

fn set_congestion(socket: &Socket, congestion: Option<&str>) -> io::Result<()> {
    let Some(name) = congestion else {
        return Ok(());
    };
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("congestion control `{name}` is not available here: {error}"),
        )
    })
}

/// Whether this machine has a congestion control. One that only the administrator may choose
/// counts: a route can name it.
///
/// # Errors
/// That it has not, and which it has.
pub fn check_congestion(name: &str) -> Result<(), String> {
    let known = || sysctl("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
        .map_err(|error| format!("cannot make a socket: {error}"))?;
    // The kernel would cut a longer name (TCP_CA_NAME_MAX), and may load a module for it.
    if name.len() < 16 {
        match socket.set_tcp_congestion(name.as_bytes()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(_) => {}
        }
    }
    Err(format!(
        "this machine has no congestion control `{name}`; it has {} (net.ipv4.\
         tcp_available_congestion_control; `modprobe tcp_{name}` may add it)",
        known().split_whitespace().collect::<Vec<_>>().join(", "),
    ))
}

/// The congestion control that a socket really has.
pub(crate) fn congestion_of(socket: &impl AsFd) -> io::Result<String> {
    let name = SockRef::from(socket).tcp_congestion()?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Where an origin takes commands unless it is told otherwise.
pub const ORIGIN_PORT: u16 = 7000;

/// Why there is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The text is none.
    #[error("{0}")]
    Malformed(String),
    /// It names a host that has none.
    #[error("{0}")]
    NoAddress(String),
}

/// The command port of an origin: as [`resolve`], and a host alone means
/// [`ORIGIN_PORT`] there.
///
/// # Errors
/// The text and what is wrong with it.
pub fn resolve_origin(text: &str) -> Result<SocketAddr, ResolveError> {
    if has_no_port(text) {
        resolve(&format!("{text}:{ORIGIN_PORT}"))
    } else {
        resolve(text)
    }
}

/// `host:port`, `[::1]:port`, or `:port` for every address of this host.
///
/// # Errors
/// The text and what is wrong with it.
pub fn resolve(text: &str) -> Result<SocketAddr, ResolveError> {
    let malformed = |e: AddressError| ResolveError::Malformed(e.to_string());
    let no_address = |why: &str| ResolveError::NoAddress(format!("`{text}`: {why}"));
    let address: Address = text.parse().map_err(malformed)?;
    match address {
        Address::Any { port } => Ok(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))),
        Address::Inet(address) => Ok(address),
        Address::Name { host, port } => (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| no_address(&error.to_string()))?
            .next()
            .ok_or_else(|| no_address("no address")),
        Address::Unix(_) | Address::Srv(_) | Address::Passed(_) => Err(ResolveError::Malformed(
            format!("`{text}` is not HOST:PORT, which this takes"),
        )),
    }
}

/// The name of a host, an IPv4 address, or an IPv6 address in brackets, and nothing
/// else. A number is a port that lacks its colon.
fn has_no_port(text: &str) -> bool {
    let bracketed = text.starts_with('[') && text.ends_with(']');
    let plain = !text.is_empty() && !text.contains([':', '/']);
    bracketed || plain && text.parse::<u64>().is_err()
}

/// This end's `TCP_INFO` as one line of `name=value` words.
pub(crate) fn path_info(socket: &impl AsFd) -> io::Result<String> {
    let info = TcpInfo::read(socket.as_fd())?;
    let micros = |time: Duration| units::latency(time.as_nanos() as f64).replace(' ', "");
    Ok(format!(
        "congestion={} rtt={} min_rtt={} mss={} receive_mss={} mtu={} cwnd={} retransmits={} \
         lost={} delivery_rate={} sent={} received={}",
        congestion_of(socket)?,
        micros(info.rtt),
        info.min_rtt.map_or_else(|| "unknown".to_owned(), micros),
        info.send_mss,
        info.receive_mss,
        info.path_mtu,
        info.cwnd,
        info.retransmits,
        info.lost,
        units::bit_rate(info.delivery_rate as f64).replace(' ', ""),
        info.bytes_acked,
        info.bytes_received,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_alone_is_an_origin_at_its_usual_port() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:7000"),
            ("[::1]", "[::1]:7000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            (":80", "[::]:80"),
        ] {
            let found = resolve_origin(text).map(|it| it.to_string());
            assert_eq!(found, Ok(address.to_owned()), "{text}");
        }
        let named = resolve_origin("localhost").map(|it| it.port());
        assert_eq!(named, Ok(ORIGIN_PORT));
        for text in ["", "7000", "localhost:", "::1", "unix:/x", "a/b", "a b"] {
            assert!(resolve_origin(text).is_err(), "{text}");
        }
        assert!(resolve("127.0.0.1").is_err());
    }
}
