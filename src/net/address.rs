//! Addresses: as a user writes them ([`Address`]), and as the kernel takes them
//! ([`Endpoint`]).
//!
//! Deliberately not here: name resolution at run time (see `control`).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// `host.example:443`.
    Name {
        /// The host name, lower case, without a trailing dot.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path` or `unix:@name`.
    Unix(UnixName),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// IPv4 or IPv6. IPv4-mapped IPv6 addresses are stored as IPv4.
    Inet(SocketAddr),
    /// A named unix socket.
    Unix(UnixName),
    /// A unix socket without a name (most clients of a unix listener).
    Unnamed,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}

impl fmt::Display for UnixName {
    /// Control bytes are escaped: the text may go to a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(
                f,
                "unix:{}",
                path.as_os_str().as_encoded_bytes().escape_ascii()
            ),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}
