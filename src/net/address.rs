//! Addresses: as a user writes them ([`Address`], [`AddressRange`]), and as the
//! kernel takes them ([`Endpoint`]).
//!
//! Invariant: what `Display` writes for an [`Address`] reads back as the same
//! address; control bytes are escaped on the way out and understood on the way in.
//! Deliberately not here: name resolution at run time (see `control`).

mod compact;
mod parse;
mod written;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::word::Word;
pub use compact::CompactEndpoint;
use written::WrittenEndpoint;

/// An address as configured, before any name is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `:5000`. To listen on: every IPv4 and IPv6 address of this host.
    Any {
        /// The port; 0 asks the kernel for a free one.
        port: u16,
    },
    /// `10.0.0.1:443`, `[::1]:443`. `[::]` and `0.0.0.0` mean exactly that family.
    Inet(SocketAddr),
    /// `host.example:443`. A host that is called `unix`, `tcp` or `udp` is written with a
    /// capital: `Unix:443`.
    Name {
        /// The host name, lower case; with a dot at its end it is whole, and no list of
        /// domains to search counts.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path` or `unix:@name`.
    Unix(UnixName),
    /// `srv:_http._tcp.example.com`: the servers that the SRV records of this name
    /// list (RFC 2782), lower case, with a dot at its end if it has one. Never to listen on.
    Srv(String),
    /// `systemd:web`: the listening sockets of that name (`FileDescriptorName=`) that a
    /// service manager passes. Only to listen on.
    Passed(String),
}

/// What an address is listened on for, or called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Transport {
    /// Connections: TCP, and stream unix sockets.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Its name before an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The name of a unix socket. At most 107 bytes (`sun_path` less its terminator).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A path in the file system.
    Path(PathBuf),
    /// A name in the abstract namespace, without the leading NUL.
    Abstract(Vec<u8>),
}

/// An address the kernel takes as it is: what is dialled, and what a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "WrittenEndpoint", into = "WrittenEndpoint")]
pub enum Endpoint {
    /// IPv4 or IPv6. IPv4-mapped IPv6 addresses are stored as IPv4.
    Inet(SocketAddr),
    /// A named unix socket.
    Unix(UnixName),
    /// A unix socket without a name (most clients of a unix listener).
    Unnamed,
}

impl Endpoint {
    /// The address of the host, if it is one of the internet.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix(_) | Self::Unnamed => None,
        }
    }

    /// Whether it stands for every address of this host.
    pub const fn is_unspecified(&self) -> bool {
        matches!(self, Self::Inet(address) if address.ip().is_unspecified())
    }
}

impl fmt::Display for Endpoint {
    /// One word, whatever a peer calls itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}

impl fmt::Display for UnixName {
    /// One word, for a log or a list of addresses: a peer chooses its own name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                // A leading `@` would read back as an abstract name.
                match bytes.strip_prefix(b"@") {
                    Some(rest) => write!(f, "unix:\\x40{}", Word(rest)),
                    None => write!(f, "unix:{}", Word(bytes)),
                }
            }
            Self::Abstract(name) => write!(f, "unix:@{}", Word(name)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::Inet(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{}:{port}", Host(host)),
            Self::Unix(name) => name.fmt(f),
            Self::Srv(name) => write!(f, "srv:{name}"),
            Self::Passed(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// What has a meaning of its own before the colon of an address, in small letters.
const WORDS: [&str; 4] = ["unix", "tcp", "udp", "systemd"];

/// The name of a host as it is written before a colon. One that is called like a word
/// with a meaning begins with a capital, which makes it a host again.
struct Host<'a>(&'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !WORDS.contains(&self.0) {
            return f.write_str(self.0);
        }
        let (first, rest) = self.0.split_at(1);
        write!(f, "{}{rest}", first.to_ascii_uppercase())
    }
}

impl Address {
    /// The port; `None` for a unix socket, and for SRV records, which have their own.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Any { port } | Self::Name { port, .. } => Some(*port),
            Self::Inet(address) => Some(address.port()),
            Self::Unix(_) | Self::Srv(_) | Self::Passed(_) => None,
        }
    }

    /// The same address with another port; one without a port stays as it is.
    #[must_use]
    pub fn with_port(mut self, new: u16) -> Self {
        match &mut self {
            Self::Any { port } | Self::Name { port, .. } => *port = new,
            Self::Inet(address) => address.set_port(new),
            Self::Unix(_) | Self::Srv(_) | Self::Passed(_) => {}
        }
        self
    }

    /// Whether this can be listened on: it is not a name of SRV records.
    pub fn check_listener(&self) -> Result<(), AddressError> {
        match self {
            Self::Srv(_) => {
                let problem = "SRV records name servers; they cannot be listened on";
                Err(AddressError::new(&self.to_string(), problem)
                    .remedy("write the port to listen on, such as `:5000`"))
            }
            _ => Ok(()),
        }
    }

    /// Whether this can be dialled: it names a host and a port.
    pub fn check_server(&self) -> Result<(), AddressError> {
        let port = self.port().unwrap_or(1);
        let loopback = match self {
            Self::Any { .. } => Some("127.0.0.1"),
            Self::Inet(address) if address.ip().is_unspecified() => match address {
                SocketAddr::V4(_) => Some("127.0.0.1"),
                SocketAddr::V6(_) => Some("[::1]"),
            },
            _ => None,
        };
        let error = |problem: &str, remedy: String| {
            Err(AddressError::new(&self.to_string(), problem).remedy(remedy))
        };
        if let Self::Passed(_) = self {
            return error(
                "a socket that is passed can be listened on, not dialled",
                "write the host and port of the server".to_owned(),
            );
        }
        match (loopback, port) {
            (Some(host), _) => error(
                "a server needs a host; this is an address to listen on",
                format!("for this machine write `{host}:{port}`"),
            ),
            (None, 0) => error(
                "a server needs a port; 0 lets the kernel choose, which only a listener can do",
                "write the port of the server".to_owned(),
            ),
            (None, _) => Ok(()),
        }
    }
}

/// One address, or a run of ports on one host: `:5000-5009`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// The address of the lowest port.
    first: Address,
    /// How many ports, 1 to 65535.
    len: u16,
}

impl AddressRange {
    /// How many addresses it stands for; never 0.
    #[allow(clippy::len_without_is_empty)] // It is never empty.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Its first address, the only one unless it is a range of ports.
    pub fn first(&self) -> &Address {
        &self.first
    }

    /// The address at `index`; `None` past its end.
    pub fn nth(&self, index: usize) -> Option<Address> {
        if index >= self.len() {
            return None;
        }
        let port = self.first.port().unwrap_or(0);
        Some(self.first.clone().with_port(port + index as u16))
    }

    /// Every address, lowest port first.
    pub fn expand(&self) -> impl Iterator<Item = Address> + '_ {
        (0..self.len()).filter_map(|index| self.nth(index))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.first.port() {
            Some(port) if self.len > 1 => write!(f, "-{}", port + (self.len - 1)),
            _ => Ok(()),
        }
    }
}

/// Why a text is not an address: what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a usable address: {problem}{}", .remedy.as_ref().map_or_else(String::new, |r| format!(" ({r})")))]
pub struct AddressError {
    /// The text, control characters escaped and cut after 120 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: Option<String>,
}
