//! Listening sockets that this process did not make: passed by a service manager
//! (`LISTEN_FDS`), kept by it over a crash, or handed over by the process before this one.
//!
//! What each of them is, is asked of the kernel and not believed: type, family, address, and
//! that it listens. Whoever needs an address claims those that are meant for it; what
//! nobody claims is left, and its giver says what becomes of it.

mod passed;

use std::fmt;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockRef, Type};

use crate::net::address::{Address, Endpoint};
use crate::net::dial::endpoint;
use crate::net::options::Family;

/// What a listener carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carries {
    /// Connections, TCP's or those of a unix stream socket.
    Streams,
    /// Datagrams.
    Datagrams,
}

/// Whom a socket comes from, and what that one calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Passed at the start by a service manager, which keeps a copy and owns the path of a
    /// unix socket.
    Passed {
        /// Of `LISTEN_FDNAMES`; several may have the same.
        name: String,
    },
    /// One of ours, kept by the service manager while no process had it.
    Kept(Label),
    /// Handed over by the process that had it, with the path of a unix socket.
    HandedOver(Label),
}

/// What a listener is called between processes: its address as configured, and whose it is
/// where that alone does not say it (a port that the kernel chose).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label {
    /// As [`Address`] is written.
    pub address: String,
    /// The forward, or empty.
    pub forward: String,
}

impl Label {
    /// Of the listener `address` of a forward.
    pub fn of(forward: &str, address: &Address) -> Self {
        let chosen = address.port() == Some(0);
        Self {
            address: address.to_string(),
            forward: if chosen { forward } else { "" }.to_owned(),
        }
    }
}

/// See the module's documentation. Non-blocking and close-on-exec.
#[derive(Debug)]
pub struct InheritedSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// Where it is bound.
    pub local: Endpoint,
    /// Of the socket, and thereby of those that it accepts.
    pub family: Family,
    /// What comes in there.
    pub carries: Carries,
    /// It takes IPv4 and IPv6.
    pub dual: bool,
    /// Whom it comes from.
    pub origin: Origin,
}

/// Those that nobody has claimed so far, in the order in which they came.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
}

/// Why a descriptor cannot be listened on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{which}: {problem}")]
pub struct InheritedError {
    /// Which one, by its number and name.
    pub which: String,
    /// What is wrong with it, and what to do about that.
    pub problem: String,
}

impl Inherited {
    /// Takes one more, if it is a socket that something can come in at. `which` is for the
    /// error, which closes it.
    pub fn add(
        &mut self,
        fd: OwnedFd,
        origin: Origin,
        which: impl fmt::Display,
    ) -> Result<(), InheritedError> {
        let socket = look_at(fd, origin).map_err(|problem| InheritedError {
            which: which.to_string(),
            problem,
        })?;
        self.sockets.push(socket);
        Ok(())
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// What is left.
    pub fn sockets(&self) -> &[InheritedSocket] {
        &self.sockets
    }

    /// What a service manager calls those of ours that it had kept.
    pub fn kept_as(&self) -> impl Iterator<Item = String> {
        self.sockets.iter().filter_map(|it| match &it.origin {
            Origin::Kept(label) => label.kept_as(),
            Origin::Passed { .. } | Origin::HandedOver(_) => None,
        })
    }

    /// Takes those for the listener `address` of a forward: by name for `systemd:NAME`, else
    /// those that are called like it, else those that are bound there.
    pub fn claim(
        &mut self,
        forward: &str,
        address: &Address,
        carries: Carries,
    ) -> Vec<InheritedSocket> {
        let label = Label::of(forward, address);
        let named = |it: &InheritedSocket| match (&it.origin, address) {
            (Origin::Passed { name }, Address::Passed(wanted)) => name == wanted,
            (Origin::Kept(its) | Origin::HandedOver(its), _) => *its == label,
            (Origin::Passed { .. }, _) => false,
        };
        let bound = |it: &InheritedSocket| is_at(it, address);
        let fits = |it: &InheritedSocket| it.carries == carries;
        let called = self.extract(|it| fits(it) && named(it));
        if called.is_empty() {
            self.extract(|it| fits(it) && bound(it))
        } else {
            called
        }
    }

    /// One that is called, or bound, as this listener wants it, and carries something else.
    pub fn misfit(&self, address: &Address, carries: Carries) -> Option<&InheritedSocket> {
        let wanted = |it: &&InheritedSocket| match (&it.origin, address) {
            (Origin::Passed { name }, Address::Passed(wanted)) => name == wanted,
            _ => is_at(it, address),
        };
        let other = |it: &&InheritedSocket| it.carries != carries;
        self.sockets.iter().find(|it| other(it) && wanted(it))
    }

    fn extract(&mut self, which: impl Fn(&InheritedSocket) -> bool) -> Vec<InheritedSocket> {
        let all = std::mem::take(&mut self.sockets);
        let (taken, left) = all.into_iter().partition(which);
        self.sockets = left;
        taken
    }
}

/// Whether a socket is bound where `address` says.
fn is_at(socket: &InheritedSocket, address: &Address) -> bool {
    match (address, &socket.local) {
        (Address::Any { port }, Endpoint::Inet(local)) => {
            // On a host without IPv6 the other is what `:PORT` is.
            local.port() == *port && local.ip().is_unspecified() && (socket.dual || local.is_ipv4())
        }
        (Address::Inet(wanted), Endpoint::Inet(local)) => wanted == local,
        (Address::Unix(wanted), Endpoint::Unix(local)) => wanted == local,
        _ => false,
    }
}

/// What it is, by the kernel.
fn look_at(fd: OwnedFd, origin: Origin) -> Result<InheritedSocket, String> {
    let socket = SockRef::from(&fd);
    let failed = |what: &str, error: &std::io::Error| format!("{what}: {error}");
    let kind = socket
        .r#type()
        .map_err(|_| "it is not a socket; only listening sockets can be passed".to_owned())?;
    let carries = match kind {
        Type::STREAM => Carries::Streams,
        Type::DGRAM => Carries::Datagrams,
        _ => {
            return Err(
                "it is neither a stream nor a datagram socket; use ListenStream= or \
                 ListenDatagram="
                    .to_owned(),
            );
        }
    };
    let domain = socket.domain().map_err(|it| failed("SO_DOMAIN", &it))?;
    let family = match domain {
        Domain::IPV4 => Family::V4,
        Domain::IPV6 => Family::V6,
        Domain::UNIX => Family::Unix,
        _ => return Err("its family is neither IPv4, IPv6 nor unix".to_owned()),
    };
    let local = socket
        .local_addr()
        .map_err(|it| failed("getsockname", &it))?;
    let local = endpoint(&local);
    if carries == Carries::Streams {
        let listens = socket.is_listener();
        if !listens.map_err(|it| failed("SO_ACCEPTCONN", &it))? {
            return Err(format!(
                "it is bound to {local} and does not listen; a socket of a unit with Accept=yes \
                 is a connection, write Accept=no"
            ));
        }
    } else if matches!(&local, Endpoint::Inet(at) if at.port() == 0) {
        return Err("it is not bound to a port".to_owned());
    }
    let dual = family == Family::V6 && !socket.only_v6().unwrap_or(true);
    let dual = dual && local.is_unspecified();
    // The flags are of the descriptor and of the open file: neither is to be relied on.
    socket
        .set_cloexec(true)
        .map_err(|it| failed("FD_CLOEXEC", &it))?;
    socket
        .set_nonblocking(true)
        .map_err(|it| failed("O_NONBLOCK", &it))?;
    Ok(InheritedSocket {
        fd,
        local,
        family,
        carries,
        dual,
        origin,
    })
}

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streams => "stream",
            Self::Datagrams => "datagram",
        })
    }
}

impl fmt::Display for InheritedSocket {
    /// `the stream socket web on 127.0.0.1:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.origin {
            Origin::Passed { name } => name,
            Origin::Kept(label) | Origin::HandedOver(label) => &label.address,
        };
        let name = name.escape_debug();
        write!(f, "the {} socket {name} on {}", self.carries, self.local)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
