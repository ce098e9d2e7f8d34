//! What an errno means to a forwarder: classified once, here, so that no other
//! file has a ladder of error numbers.
//!
//! The same number means different things to different calls (EAGAIN from a
//! unix `connect` is a full backlog, EPERM from `accept` is one firewalled
//! connection), hence [`Failure::of`] takes the [`Operation`] as well.
//!
//! Deliberately not here: what to do about it. Policy lives with the caller.

use std::fmt;

use nix::errno::Errno;

/// The kind of system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `accept4(2)`.
    Accept,
    /// `socket(2)`, and whatever prepares a descriptor: `epoll_ctl(2)`, `fcntl(2)`.
    Open,
    /// `bind(2)` of the local address of a connect.
    BindSource,
    /// `connect(2)`, and `SO_ERROR` of a socket that was connecting.
    Connect,
    /// `recv`, `send`, `shutdown`, and `SO_ERROR` of a connected socket.
    Transfer,
    /// `splice(2)`.
    Splice,
    /// `pipe2(2)` and `F_SETPIPE_SZ`.
    Pipe,
}

/// An errno, classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nothing to do right now; readiness will say when.
    WouldBlock,
    /// A signal came first: try again at once.
    Interrupted,
    /// ECONNRESET, ECONNABORTED: the connection was reset, in whatever direction.
    Reset,
    /// EPIPE: this direction is closed for writing. Bytes the peer sent before
    /// may still be readable, hence distinct from [`Failure::Reset`].
    BrokenPipe,
    /// Nobody listens there: ECONNREFUSED, or a unix path that does not exist.
    Refused,
    /// No way to get there.
    Unreachable(Obstacle),
    /// ETIMEDOUT: SYN retries, keepalive or `TCP_USER_TIMEOUT` ran out.
    TimedOut,
    /// This host is out of something; it concerns no peer and no server.
    Exhausted(Resource),
    /// `accept` lost this one connection; the listener is well. See accept(2),
    /// which asks to treat pending network errors like EAGAIN.
    ConnectionLost,
    /// The kernel cannot do this here (splice, `F_SETPIPE_SZ)`: take the other path.
    Unsupported,
    /// Any other errno.
    Other(i32),
}

/// What stands between this host and a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// EHOSTUNREACH, EHOSTDOWN.
    Host,
    /// ENETUNREACH, ENETDOWN, ENONET.
    Network,
    /// EACCES, EPERM: a firewall rule, or the mode of a unix socket's path.
    Forbidden,
    /// EAFNOSUPPORT: no such address family here, or a source of the other one.
    Family,
    /// ENODEV: the interface to leave by does not exist (any more).
    Interface,
    /// EADDRNOTAVAIL of `bind`: the source address is not one of this host's.
    Source,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// EMFILE: descriptors of this process.
    ProcessDescriptors,
    /// ENFILE: descriptors of the whole system.
    SystemDescriptors,
    /// ENOBUFS, ENOMEM.
    Memory,
    /// EADDRNOTAVAIL of `connect`: every local port towards that destination is taken.
    Ports,
    /// EAGAIN of a unix `connect`: the backlog of the server is full.
    Backlog,
    /// ENOSPC of `epoll_ctl`: `fs.epoll.max_user_watches`.
    Watches,
    /// EPERM of `F_SETPIPE_SZ`: `fs.pipe-user-pages-soft` or `fs.pipe-max-size`.
    PipePages,
}

impl Failure {
    /// Classifies `errno` as `operation` returned it.
    pub fn of(operation: Operation, errno: Errno) -> Self {
        Self::by_operation(operation, errno).unwrap_or_else(|| Self::anywhere(errno))
    }

    /// As [`Failure::of`], for errors that come out of the standard library.
    /// An error without an errno is EINVAL's class: the call never happened.
    pub fn of_io(operation: Operation, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        Self::of(operation, Errno::from_raw(errno))
    }

    /// Numbers that mean something particular to one call.
    fn by_operation(operation: Operation, errno: Errno) -> Option<Self> {
        let failure = match (operation, errno) {
            // The connection was dropped between the handshake and accept, or
            // carries an error that accept(2) passes on: only this one is lost.
            // ETIMEDOUT and ECONNRESET are not on that page's list but Linux
            // passes any pending sk_err on.
            (
                Operation::Accept,
                Errno::ECONNABORTED
                | Errno::EPROTO
                | Errno::EPERM
                | Errno::ENETDOWN
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::EHOSTUNREACH
                | Errno::EOPNOTSUPP
                | Errno::ENETUNREACH
                | Errno::ETIMEDOUT
                | Errno::ECONNRESET,
            ) => Self::ConnectionLost,
            (Operation::Open, Errno::ENOSPC) => Self::Exhausted(Resource::Watches),
            (Operation::Open | Operation::BindSource | Operation::Connect, Errno::ENODEV) => {
                Self::Unreachable(Obstacle::Interface)
            }
            (Operation::BindSource, Errno::EADDRNOTAVAIL) => Self::Unreachable(Obstacle::Source),
            // Without IP_BIND_ADDRESS_NO_PORT the port is chosen by `bind`.
            (Operation::BindSource, Errno::EADDRINUSE)
            | (Operation::Connect, Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => {
                Self::Exhausted(Resource::Ports)
            }
            (Operation::Connect, Errno::EAGAIN) => Self::Exhausted(Resource::Backlog),
            // A unix path that is not there, or leads through a file.
            (Operation::Connect, Errno::ENOENT | Errno::ENOTDIR) => Self::Refused,
            (
                Operation::Open | Operation::BindSource | Operation::Connect,
                Errno::EACCES | Errno::EPERM,
            ) => Self::Unreachable(Obstacle::Forbidden),
            (Operation::Pipe, Errno::EPERM) => Self::Exhausted(Resource::PipePages),
            (
                Operation::Splice | Operation::Pipe,
                Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM,
            ) => Self::Unsupported,
            _ => return None,
        };
        Some(failure)
    }

    /// Numbers that mean the same wherever they come from.
    fn anywhere(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::WouldBlock,
            Errno::EINTR => Self::Interrupted,
            // ECONNABORTED: `ss -K`, the operator's way to reset a connection.
            Errno::ECONNRESET | Errno::ECONNABORTED => Self::Reset,
            Errno::EPIPE => Self::BrokenPipe,
            Errno::ECONNREFUSED => Self::Refused,
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Self::Unreachable(Obstacle::Host),
            Errno::ENETUNREACH | Errno::ENETDOWN | Errno::ENONET => {
                Self::Unreachable(Obstacle::Network)
            }
            Errno::EAFNOSUPPORT => Self::Unreachable(Obstacle::Family),
            Errno::ETIMEDOUT => Self::TimedOut,
            Errno::EMFILE => Self::Exhausted(Resource::ProcessDescriptors),
            Errno::ENFILE => Self::Exhausted(Resource::SystemDescriptors),
            Errno::ENOBUFS | Errno::ENOMEM => Self::Exhausted(Resource::Memory),
            other => Self::Other(other as i32),
        }
    }

    /// The short name that logs and session records carry. These never change.
    pub fn name(self) -> &'static str {
        match self {
            Self::WouldBlock => "would_block",
            Self::Interrupted => "interrupted",
            Self::Reset => "reset",
            Self::BrokenPipe => "broken_pipe",
            Self::Refused => "refused",
            Self::Unreachable(Obstacle::Host) => "host_unreachable",
            Self::Unreachable(Obstacle::Network) => "network_unreachable",
            Self::Unreachable(Obstacle::Forbidden) => "forbidden",
            Self::Unreachable(Obstacle::Family) => "family_unsupported",
            Self::Unreachable(Obstacle::Interface) => "no_interface",
            Self::Unreachable(Obstacle::Source) => "no_source_address",
            Self::TimedOut => "timed_out",
            Self::Exhausted(Resource::ProcessDescriptors) => "no_descriptors",
            Self::Exhausted(Resource::SystemDescriptors) => "no_system_descriptors",
            Self::Exhausted(Resource::Memory) => "no_memory",
            Self::Exhausted(Resource::Ports) => "no_ports",
            Self::Exhausted(Resource::Backlog) => "backlog_full",
            Self::Exhausted(Resource::Watches) => "no_watches",
            Self::Exhausted(Resource::PipePages) => "no_pipe_pages",
            Self::ConnectionLost => "connection_lost",
            Self::Unsupported => "unsupported",
            Self::Other(_) => "os_error",
        }
    }

    /// The peer ended the connection; nothing more can be sent to it.
    pub fn is_peer_gone(self) -> bool {
        matches!(self, Self::Reset | Self::BrokenPipe)
    }

    /// A failed connect that says something about the server, so that the next
    /// one is tried and this one's failure counted (behaviours 18 to 20).
    pub fn blames_server(self) -> bool {
        match self {
            Self::Refused
            | Self::TimedOut
            | Self::Reset
            | Self::BrokenPipe
            | Self::Unreachable(
                Obstacle::Host | Obstacle::Network | Obstacle::Forbidden | Obstacle::Family,
            )
            | Self::Exhausted(Resource::Backlog)
            | Self::Other(_) => true,
            Self::WouldBlock
            | Self::Interrupted
            | Self::Unreachable(Obstacle::Interface | Obstacle::Source)
            | Self::Exhausted(_)
            | Self::ConnectionLost
            | Self::Unsupported => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => {
                write!(f, "os_error {number} ({})", Errno::from_raw(*number).desc())
            }
            named => f.write_str(named.name()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn b35_what_accept_says_to_retry_is_one_lost_connection() {
        for errno in [
            Errno::ECONNABORTED,
            Errno::EPROTO,
            Errno::EPERM,
            Errno::ENETDOWN,
        ] {
            assert_eq!(
                Failure::of(Operation::Accept, errno),
                Failure::ConnectionLost,
                "{errno}"
            );
        }
        assert_eq!(
            Failure::of(Operation::Accept, Errno::EINTR),
            Failure::Interrupted
        );
        assert_eq!(
            Failure::of(Operation::Accept, Errno::EAGAIN),
            Failure::WouldBlock
        );
    }

    #[test]
    fn b34_running_out_is_local_exhaustion_on_every_call() {
        for operation in [
            Operation::Accept,
            Operation::Open,
            Operation::Connect,
            Operation::Transfer,
            Operation::Splice,
            Operation::Pipe,
        ] {
            for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
                let failure = Failure::of(operation, errno);
                assert!(
                    matches!(failure, Failure::Exhausted(it) if it != Resource::Backlog),
                    "{operation:?} {errno}"
                );
                assert!(!failure.blames_server(), "{operation:?} {errno}");
            }
        }
    }

    #[test]
    fn b20_unreachable_and_forbidden_take_the_path_of_refused() {
        for errno in [
            Errno::ECONNREFUSED,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::EACCES,
            Errno::EPERM,
            Errno::ETIMEDOUT,
            Errno::ENOENT,
        ] {
            assert!(
                Failure::of(Operation::Connect, errno).blames_server(),
                "{errno}"
            );
        }
    }

    #[test]
    fn b29_no_free_port_is_not_the_fault_of_the_server() {
        let failure = Failure::of(Operation::Connect, Errno::EADDRNOTAVAIL);
        assert_eq!(failure, Failure::Exhausted(Resource::Ports));
        assert_eq!(failure.name(), "no_ports");
        assert!(!failure.blames_server());
    }

    #[test]
    fn a_full_unix_backlog_is_the_servers_and_not_would_block() {
        let failure = Failure::of(Operation::Connect, Errno::EAGAIN);
        assert_eq!(failure, Failure::Exhausted(Resource::Backlog));
        assert!(failure.blames_server());
    }

    #[test]
    fn b38_splice_that_cannot_is_unsupported_and_send_is_not() {
        for errno in [Errno::EINVAL, Errno::ENOSYS] {
            assert_eq!(
                Failure::of(Operation::Splice, errno),
                Failure::Unsupported,
                "{errno}"
            );
        }
        assert_eq!(
            Failure::of(Operation::Transfer, Errno::EINVAL),
            Failure::Other(libc::EINVAL)
        );
    }

    #[test]
    fn b37_a_pipe_that_may_not_grow_is_pipe_pages() {
        assert_eq!(
            Failure::of(Operation::Pipe, Errno::EPERM),
            Failure::Exhausted(Resource::PipePages)
        );
    }

    #[test]
    fn unknown_numbers_keep_their_number_for_the_log() {
        let failure = Failure::of(Operation::Transfer, Errno::EISNAM);
        assert_eq!(failure, Failure::Other(libc::EISNAM));
        assert!(failure.to_string().contains("120"), "{failure}");
        assert_eq!(size_of::<Failure>(), 8);
    }
}
