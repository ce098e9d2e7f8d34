//! Listening: from an [`Address`] and options to listening sockets, one for each
//! reactor, and accepting on them.
//!
//! | listener | what each reactor has |
//! | --- | --- |
//! | TCP | a socket of its own in one `SO_REUSEPORT` group: the kernel spreads connections by a hash, no wake-up is wasted, nothing is shared |
//! | unix | a duplicate of one socket, because `SO_REUSEPORT` does not exist there |
//!
//! A connect to a unix listener wakes every reactor that waits for it, and one
//! of them gets it; the others see `WouldBlock`. EPOLLEXCLUSIVE would avoid that
//! but mio does not offer it, and letting one reactor accept for all would put
//! the whole load on one core: the wasted wake-ups (one for each other reactor
//! that is asleep) are the smaller evil. Since duplicates share one open file, a
//! reactor must deregister its listener before it closes it, or epoll goes on
//! reporting it.
//!
//! A port is never shared with another process by accident (behaviour 69): the
//! first socket binds and listens *without* `SO_REUSEPORT`, so the kernel refuses
//! it if anyone listens there; only then the option is set and the rest join.
//! Found by experiment: the kernel then balances over all of them, a second
//! instance gets EADDRINUSE, and also the loser of a race between two
//! instances does (were the option set before `listen`, both would win).

mod adopt;
mod again;
mod bind_error;
mod overlap;
mod permissions;
mod rehearsal;
mod unix;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use socket2::{SockAddr, Socket};

pub use adopt::{Lacking, adopt};
pub use again::{fixed_options, join, set_again};
pub use bind_error::{BindCause, BindError};
pub use overlap::Listeners;
pub use permissions::{SocketPermissions, Who};
pub use rehearsal::{may, may_make_files_in, rehearse};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::net::address::{Address, Endpoint, UnixName};
use crate::net::dial::{endpoint, make_socket};
use crate::net::errno::{Failure, Operation};
use crate::net::limits;
use crate::net::options::plan::Stage;
use crate::net::options::{Family, Leg, OptionName, OptionPlan, Refusal, SocketOptions};
use crate::net::own::{OwnListeners, Owner, Registration};
use crate::net::sys;
use crate::net::tcp_info::TcpInfo;

/// The listening sockets of one configured address. Dropping it removes the path
/// of a unix listener; the sockets live on with whoever took them.
#[derive(Debug)]
pub struct Bound {
    locals: Vec<Endpoint>,
    /// One entry for each reactor.
    shares: Vec<Vec<ListenSocket>>,
    refusal: Option<Refusal>,
    /// One IPv6 socket that takes IPv4, too.
    dual: bool,
    /// A service manager passed it, and keeps it.
    passed: bool,
    /// Held for its `Drop`.
    file: Option<unix::SocketFile>,
    /// Likewise.
    registered: Vec<Registration>,
}

/// One listening socket: non-blocking and close-on-exec.
#[derive(Debug)]
pub struct ListenSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// Where it listens, with the true port.
    pub local: Endpoint,
    /// The family of the socket, and thereby of the sockets it accepts.
    pub family: Family,
}

impl Bound {
    /// The path of a unix socket goes before this does.
    pub fn remove_file(&mut self) {
        self.file = None;
    }

    /// Where it listens, with the port the kernel gave if 0 was asked for. More
    /// than one for a name with several addresses.
    pub fn locals(&self) -> &[Endpoint] {
        &self.locals
    }

    /// Takes the sockets of reactor `index`, one for each of [`Bound::locals`].
    /// Empty the second time, and for a reactor that does not exist.
    pub fn take_share(&mut self, index: usize) -> Vec<ListenSocket> {
        self.shares
            .get_mut(index)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// From now on connects of this process that would end here are known for that.
    pub fn register(&mut self, own: &Arc<OwnListeners>, owner: &Arc<Owner>) {
        let registered = self.locals.iter();
        self.registered = registered
            .map(|local| own.register(local, self.dual, owner.clone()))
            .collect();
    }

    /// The path of a unix listener that was handed over is this process's from now on.
    pub fn own_path(&mut self) {
        let path = self.locals.iter().find_map(|local| match local {
            Endpoint::Unix(UnixName::Path(path)) => Some(path),
            _ => None,
        });
        if self.file.is_none()
            && !self.passed
            && let Some(path) = path
        {
            self.file = unix::SocketFile::new(path);
        }
    }

    /// A service manager had passed it to the process that handed it over.
    pub const fn mark_passed(&mut self) {
        self.passed = true;
    }

    /// Whether a service manager passed it: that one keeps it, whatever becomes of this
    /// process.
    pub const fn is_passed(&self) -> bool {
        self.passed
    }

    /// Leaves the path of a unix listener alone from now on: another process serves it.
    pub fn leave_path(&mut self) {
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }

    /// Options the kernel refused. The listener works without them.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }
}

/// Binds and listens on `address`, once for each of `reactors`.
///
/// [`Address::Any`] is one dual-stack socket, or IPv4 alone on a host without
/// IPv6; `[::]` is IPv6 alone. A name is looked up as the system does (this blocks) and
/// stands for all its addresses that this host has, at least one; see [`bind_found`].
pub fn bind(
    address: &Address,
    options: &SocketOptions,
    reactors: usize,
) -> Result<Bound, BindError> {
    let system = match address {
        Address::Name { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .map_err(|error| BindCause::NameNotFound(error.to_string()))
            .map(|found| found.map(|it| it.ip()).collect())
            .map_err(|cause| BindError::new(address, cause))?,
        _ => Vec::new(),
    };
    bind_found(address, &system, options, reactors)
}

/// As [`bind`], for a name that was looked up and has the addresses `found`.
pub fn bind_found(
    address: &Address,
    found: &[IpAddr],
    options: &SocketOptions,
    reactors: usize,
) -> Result<Bound, BindError> {
    let permissions = SocketPermissions::default();
    bind_with(address, found, options, &permissions, reactors)
}

/// As [`bind`], for a unix listener whose path is given these rights before anybody can
/// connect to it.
pub fn bind_for(
    address: &Address,
    options: &SocketOptions,
    permissions: &SocketPermissions,
    reactors: usize,
) -> Result<Bound, BindError> {
    bind_with(address, &[], options, permissions, reactors)
}

fn bind_with(
    address: &Address,
    found: &[IpAddr],
    options: &SocketOptions,
    permissions: &SocketPermissions,
    reactors: usize,
) -> Result<Bound, BindError> {
    let plan = options.plan(Leg::Client);
    let binder = Binder {
        options,
        plan: &plan,
        reactors: reactors.max(1),
    };
    let result = match address {
        Address::Any { port } => binder.any(*port),
        Address::Inet(local) => binder.inet(*local, Stack::OwnFamily),
        Address::Name { port, .. } => binder.name(found, *port),
        Address::Unix(name) => unix::bind(
            name,
            &plan,
            permissions,
            backlog_of(options),
            binder.reactors,
        ),
        Address::Passed(_) => Err(BindCause::NotPassed),
        Address::Srv(_) => Err(BindCause::NameNotFound(
            "SRV records name servers, not an address of this host".to_owned(),
        )),
    };
    result.map_err(|cause| BindError::new(address, cause))
}

/// As [`bind`], one socket; a path in the file system is for the user of this process
/// alone (mode 0600) from its first moment.
pub fn bind_private(address: &Address) -> Result<Bound, BindError> {
    let Address::Unix(name) = address else {
        return bind(address, &SocketOptions::default(), 1);
    };
    let options = SocketOptions::default();
    let plan = options.plan(Leg::Client);
    unix::bind_private(name, &plan, backlog_of(&options))
        .map_err(|cause| BindError::new(address, cause))
}

/// What `:PORT` is: one socket for both families, or else one for IPv4.
fn every_address(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ]
}

/// Whether an IPv6 socket takes IPv4 connections too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    OwnFamily,
    Dual,
}

/// What every socket of one listener is made from.
struct Binder<'a> {
    options: &'a SocketOptions,
    plan: &'a OptionPlan,
    reactors: usize,
}

impl Binder<'_> {
    fn any(&self, port: u16) -> Result<Bound, BindCause> {
        let [v6, v4] = every_address(port);
        match self.inet(v6, Stack::Dual) {
            // IPv6 is not built in, or switched off.
            Err(BindCause::NoFamily | BindCause::NoSuchAddress) => self.inet(v4, Stack::OwnFamily),
            other => other,
        }
    }

    fn name(&self, found: &[IpAddr], port: u16) -> Result<Bound, BindCause> {
        let mut addresses: Vec<SocketAddr> = found.iter().map(|ip| (*ip, port).into()).collect();
        addresses.dedup();
        let mut all: Option<Bound> = None;
        let mut missing = BindCause::NameNotFound("it has no address".to_owned());
        for mut local in addresses {
            if let (0, Some(Endpoint::Inet(first))) = (port, all.as_ref().map(|all| &all.locals[0]))
            {
                local.set_port(first.port());
            }
            match self.inet(local, Stack::OwnFamily) {
                Ok(bound) => match &mut all {
                    None => all = Some(bound),
                    Some(all) => all.append(bound),
                },
                // A name may stand for several hosts, of which this is one.
                Err(cause @ (BindCause::NoFamily | BindCause::NoSuchAddress)) => missing = cause,
                Err(cause) => return Err(cause),
            }
        }
        all.ok_or(missing)
    }

    /// One socket for each reactor at `local`. See the module's header for why the
    /// first differs.
    fn inet(&self, mut local: SocketAddr, stack: Stack) -> Result<Bound, BindCause> {
        let family = if local.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let (first, refusal) = self.socket(family, stack, 0)?;
        self.bind_and_listen(&first, local)?;
        if let Some(actual) = first.local_addr().ok().and_then(|it| it.as_socket()) {
            local.set_port(actual.port());
        }
        if self.reactors > 1 {
            first
                .set_reuse_port(true)
                .map_err(|error| BindCause::system("SO_REUSEPORT", &error))?;
        }
        let mut sockets = vec![first];
        for reactor in 1..self.reactors {
            let (socket, _) = self.socket(family, stack, reactor)?;
            socket
                .set_reuse_port(true)
                .map_err(|error| BindCause::system("SO_REUSEPORT", &error))?;
            self.bind_and_listen(&socket, local)?;
            sockets.push(socket);
        }
        let local = Endpoint::Inet(local);
        let share = |socket: Socket| {
            vec![ListenSocket {
                fd: socket.into(),
                local: local.clone(),
                family,
            }]
        };
        Ok(Bound {
            shares: sockets.into_iter().map(share).collect(),
            locals: vec![local],
            refusal,
            dual: stack == Stack::Dual,
            passed: false,
            file: None,
            registered: Vec::new(),
        })
    }

    /// A socket with everything set that belongs before `bind`.
    fn socket(
        &self,
        family: Family,
        stack: Stack,
        reactor: usize,
    ) -> Result<(Socket, Option<Refusal>), BindCause> {
        let (socket, mut refusal) =
            make_socket(family, self.plan.mptcp).map_err(|error| BindCause::opening(&error))?;
        // Lets a restart bind while connections of the last run are in TIME_WAIT.
        // On Linux it does not let two sockets listen on one port.
        socket
            .set_reuse_address(true)
            .map_err(|error| BindCause::system("SO_REUSEADDR", &error))?;
        if family == Family::V6 {
            // Always said, because net.ipv6.bindv6only changes the default.
            socket
                .set_only_v6(stack == Stack::OwnFamily)
                .map_err(|error| BindCause::system("IPV6_V6ONLY", &error))?;
        }
        if let Err(refused) = self.plan.apply(socket.as_fd(), Stage::Listener, family) {
            if refused.option == OptionName::Interface {
                return Err(BindCause::interface(self.options, refused.errno));
            }
            refusal = Some(refused);
        }
        if self.options.incoming_cpu == Some(true) {
            // Best effort: without it the group falls back to hashing.
            if let Some(cpu) = limits::cpu_of_reactor(reactor) {
                let _ = socket.set_cpu_affinity(cpu);
            }
        }
        Ok((socket, refusal))
    }

    fn bind_and_listen(&self, socket: &Socket, local: SocketAddr) -> Result<(), BindCause> {
        socket
            .bind(&SockAddr::from(local))
            .map_err(|error| BindCause::binding(&error, local.port()))?;
        // The port is contested a second time here: see the module's header.
        socket
            .listen(backlog_of(self.options))
            .map_err(|error| BindCause::binding(&error, local.port()))
    }
}

impl Bound {
    /// Adds the sockets of another address of the same name.
    fn append(&mut self, other: Self) {
        self.locals.extend(other.locals);
        for (mine, theirs) in self.shares.iter_mut().zip(other.shares) {
            mine.extend(theirs);
        }
        self.refusal = self.refusal.or(other.refusal);
    }
}

/// The backlog for `listen(2)`. Unset asks for the most, which is
/// net.core.somaxconn: one place to tune instead of two.
fn backlog_of(options: &SocketOptions) -> i32 {
    options.backlog.map_or(i32::MAX, |backlog| {
        i32::try_from(backlog).unwrap_or(i32::MAX)
    })
}

/// A connection from a listener.
#[derive(Debug)]
pub struct Accepted {
    /// Non-blocking and close-on-exec. [`Stage::Accepted`] is still to be applied,
    /// with the family of the listener.
    pub fd: OwnedFd,
    /// Who connected; IPv4 for IPv4 clients of a dual-stack listener.
    pub peer: Endpoint,
}

/// Whether a connection waits to be accepted; works for unix listeners too.
pub fn has_waiting(listener: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::new(listener, PollFlags::POLLIN)];
    // An error counts as "somebody": accept will say what is wrong.
    nix::poll::poll(&mut poll, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Accepts one connection: one system call, and no allocation for IPv4 and IPv6.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Accepted, Failure> {
    let (fd, peer) =
        sys::accept4(listener).map_err(|errno| Failure::of(Operation::Accept, errno))?;
    Ok(Accepted {
        fd,
        peer: endpoint(&peer),
    })
}

/// The address that an accepted connection's client is connected to: a listener on
/// every address does not tell.
pub fn local_address(fd: BorrowedFd<'_>) -> Option<Endpoint> {
    let address = socket2::SockRef::from(&fd).local_addr().ok()?;
    Some(endpoint(&address))
}

/// What the kernel knows of the accept queue of a listener; nothing of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub queued: Option<u32>,
    /// How many may.
    pub backlog: Option<u32>,
    /// See [`drops`].
    pub dropped: Option<u32>,
}

/// Looks at an accept queue: two system calls.
pub fn accept_queue(listener: BorrowedFd<'_>) -> AcceptQueue {
    let info = TcpInfo::read(listener).ok();
    AcceptQueue {
        queued: info.map(|info| info.unacked),
        backlog: info.map(|info| info.sacked),
        dropped: info.and_then(|_| drops(listener).ok()),
    }
}

/// Connections that a TCP listener lost since it was made, because its accept
/// queue or its SYN queue was full (behaviour 44). Wraps at 2^32.
pub fn drops(listener: BorrowedFd<'_>) -> Result<u32, Errno> {
    /// Bytes before `SK_MEMINFO_DROPS` in the array of u32 (`linux/sock_diag.h`).
    const OFFSET: usize = libc::SK_MEMINFO_DROPS as usize * 4;
    let mut bytes = [0; OFFSET + 4];
    let len = sys::option_bytes(listener, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut bytes)?;
    let drops = bytes[..len].get(OFFSET..OFFSET + 4);
    let drops = drops.and_then(|drops| drops.try_into().ok());
    drops.map(u32::from_ne_bytes).ok_or(Errno::ENOPROTOOPT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
