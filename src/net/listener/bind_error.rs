//! Why an address cannot be listened on, and what the person who configured it
//! can do about that.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::net::address::Address;
use crate::net::limits;
use crate::net::options::SocketOptions;

/// A listener that could not be set up: names it, the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    /// The address as configured.
    pub listener: String,
    /// What went wrong.
    pub cause: BindCause,
}

/// What kept a listener from being set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindCause {
    /// EADDRINUSE of a port.
    PortTaken {
        /// The port.
        port: u16,
    },
    /// EACCES: the port is below the first that anyone may bind.
    Privileged {
        /// The port.
        port: u16,
        /// `net.ipv4.ip_unprivileged_port_start`.
        first_free: u16,
    },
    /// EADDRNOTAVAIL: not an address of this host.
    NoSuchAddress,
    /// EAFNOSUPPORT: the host has no IPv6 (or IPv4).
    NoFamily,
    /// The option `interface` was refused.
    Interface {
        /// Its name.
        name: String,
        /// ENODEV, or EPERM.
        errno: Errno,
    },
    /// The name has no address; why.
    NameNotFound(String),
    /// No socket of this name was passed to this process.
    NotPassed,
    /// Somebody listens on the unix socket.
    UnixInUse,
    /// A unix name of more than 107 bytes.
    UnixTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The path exists and is something else than a socket.
    NotASocket,
    /// The owner or group that a path is to be given is not known here.
    NoSuchUser {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Anything else.
    System {
        /// The call or the option.
        operation: &'static str,
        /// What it answered.
        errno: Errno,
    },
}

impl BindError {
    /// That this address cannot be listened on.
    pub fn new(address: &Address, cause: BindCause) -> Self {
        Self {
            listener: address.to_string(),
            cause,
        }
    }
}

impl BindCause {
    /// Of `bind` and `listen` on a port.
    pub(super) fn binding(error: &io::Error, port: u16) -> Self {
        match errno_of(error) {
            Errno::EADDRINUSE => Self::PortTaken { port },
            Errno::EACCES => Self::Privileged {
                port,
                first_free: limits::first_unprivileged_port(),
            },
            Errno::EADDRNOTAVAIL => Self::NoSuchAddress,
            Errno::EAFNOSUPPORT => Self::NoFamily,
            _ => Self::system("bind", error),
        }
    }

    /// Of `socket`.
    pub(super) fn opening(error: &io::Error) -> Self {
        match errno_of(error) {
            Errno::EAFNOSUPPORT => Self::NoFamily,
            _ => Self::system("socket", error),
        }
    }

    pub(super) fn interface(options: &SocketOptions, errno: Errno) -> Self {
        Self::Interface {
            name: options.interface.clone().unwrap_or_default(),
            errno,
        }
    }

    pub(super) fn system(operation: &'static str, error: &io::Error) -> Self {
        Self::System {
            operation,
            errno: errno_of(error),
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.listener, self.cause)
    }
}

impl fmt::Display for BindCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { port } => write!(
                f,
                "the address is in use; `ss -ltunp 'sport = :{port}'` shows by whom \
                 (if it is another thalweg, stop that one or choose another port)"
            ),
            Self::Privileged { port, first_free } => write!(
                f,
                "permission denied; ports below {first_free} need CAP_NET_BIND_SERVICE \
                 (`setcap cap_net_bind_service=+ep` on the binary), or \
                 `sysctl -w net.ipv4.ip_unprivileged_port_start={port}`"
            ),
            Self::NoSuchAddress => f.write_str(
                "this host does not have that address; `ip address` lists those it has \
                 (free_bind = true binds to one that comes later)",
            ),
            Self::NoFamily => f.write_str("this host does not speak that address family"),
            Self::Interface { name, errno } => {
                write!(f, "interface {}: {}", name.escape_debug(), errno.desc())?;
                f.write_str(match errno {
                    Errno::ENODEV => "; `ip link` lists the interfaces",
                    Errno::EPERM => "; SO_BINDTODEVICE needs CAP_NET_RAW here",
                    _ => "",
                })
            }
            Self::NameNotFound(why) => write!(f, "the name could not be looked up: {why}"),
            Self::NotPassed => f.write_str(
                "no socket of this name was passed to this process; it is one of a unit's \
                 sockets, by FileDescriptorName= (thalweg.socket), and only at the start",
            ),
            Self::UnixInUse => f.write_str(
                "somebody listens there already; `ss -lxp` shows who \
                 (a path that nobody listens on would have been replaced)",
            ),
            Self::UnixTooLong { len } => write!(
                f,
                "the name of a unix socket has at most 107 bytes, this one has {len}"
            ),
            Self::NotASocket => f.write_str(
                "the path exists and is not a socket; it is left alone, remove it or \
                 choose another path",
            ),
            Self::NoSuchUser { what, name } => {
                write!(f, "there is no {what} {} on this host", name.escape_debug())
            }
            Self::System { operation, errno } => {
                write!(f, "{operation}: {}", errno.desc())?;
                f.write_str(match (*operation, *errno) {
                    (_, Errno::EMFILE) => "; raise RLIMIT_NOFILE (LimitNOFILE=, `ulimit -Hn`)",
                    (_, Errno::ENFILE) => "; raise the sysctl fs.file-max",
                    ("bind", Errno::ENOENT) => "; the directory has to be there first",
                    ("bind", Errno::EACCES) => "; this user may not make files in that directory",
                    ("chown", Errno::EPERM) => {
                        "; another owner, or a group that one is not in, takes root or CAP_CHOWN"
                    }
                    ("bind", Errno::EROFS) => "; choose a directory such as /run",
                    _ => "",
                })
            }
        }
    }
}
