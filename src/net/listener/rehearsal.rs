//! Whether an address could be listened on: what `bind` would say, without listening, so
//! that no client is taken, and without making or removing a path.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::{AccessFlags, faccessat};
use socket2::SockAddr;

use super::{BindCause, BindError, Binder, Stack, unix};
use crate::net::address::{Address, Endpoint, Transport, UnixName};
use crate::net::dial::{make_socket, sockaddr};
use crate::net::options::{Family, Leg, SocketOptions};

/// Says whether [`super::bind`] would succeed now, and on which addresses. A name is
/// looked up, which blocks. The port is bound for a moment; a socket that listens there
/// already, whoever's it is, is [`BindCause::PortTaken`].
pub fn rehearse(
    (transport, address): (Transport, &Address),
    options: &SocketOptions,
) -> Result<Vec<Endpoint>, BindError> {
    let plan = options.plan(Leg::Client);
    let binder = Binder {
        options,
        plan: &plan,
        reactors: 1,
        transport,
    };
    let result = match address {
        Address::Any { port } => binder.rehearse_any(*port),
        Address::Inet(local) => binder.rehearse(*local, Stack::OwnFamily),
        Address::Name { host, port } => binder.rehearse_name(host, *port),
        Address::Unix(name) => rehearse_unix(name),
        Address::Srv(_) | Address::Passed(_) => Ok(Vec::new()),
    };
    result.map_err(|cause| BindError::new(address, cause))
}

impl Binder<'_> {
    fn rehearse_any(&self, port: u16) -> Result<Vec<Endpoint>, BindCause> {
        let [v6, v4] = super::every_address(port);
        match self.rehearse(v6, Stack::Dual) {
            Err(BindCause::NoFamily | BindCause::NoSuchAddress) => {
                self.rehearse(v4, Stack::OwnFamily)
            }
            other => other,
        }
    }

    fn rehearse_name(&self, host: &str, port: u16) -> Result<Vec<Endpoint>, BindCause> {
        let addresses = (host, port)
            .to_socket_addrs()
            .map_err(|error| BindCause::NameNotFound(error.to_string()))?;
        let mut locals = Vec::new();
        let mut missing = BindCause::NameNotFound("it has no address".to_owned());
        for local in addresses {
            match self.rehearse(local, Stack::OwnFamily) {
                Ok(found) => locals.extend(found),
                Err(cause @ (BindCause::NoFamily | BindCause::NoSuchAddress)) => missing = cause,
                Err(cause) => return Err(cause),
            }
        }
        if locals.is_empty() {
            return Err(missing);
        }
        Ok(locals)
    }

    fn rehearse(&self, local: SocketAddr, stack: Stack) -> Result<Vec<Endpoint>, BindCause> {
        let (socket, _) = self.socket((Family::of(&Endpoint::Inet(local)), false), stack, 0)?;
        socket
            .bind(&SockAddr::from(local))
            .map_err(|error| BindCause::binding(&error, local.port()))?;
        Ok(vec![Endpoint::Inet(local)])
    }
}

fn rehearse_unix(name: &UnixName) -> Result<Vec<Endpoint>, BindCause> {
    let local = Endpoint::Unix(name.clone());
    let errno = |operation, errno| BindCause::System { operation, errno };
    let address = sockaddr(&local).map_err(|it| errno("bind", it))?;
    let (socket, _) =
        make_socket(Family::Unix, false).map_err(|error| BindCause::opening(&error))?;
    let UnixName::Path(path) = name else {
        unix::bind_once(&socket, &address)?;
        return Ok(vec![local]);
    };
    let len = path.as_os_str().as_bytes().len();
    if len > unix::NAME_MAX {
        return Err(BindCause::UnixTooLong { len });
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindCause::NotASocket),
        // A path that nobody listens on is replaced.
        Ok(_) => match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {}
            _ => return Err(BindCause::UnixInUse),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(BindCause::system("stat", &error)),
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    may_make_files_in(parent.unwrap_or(Path::new("."))).map_err(|it| errno("bind", it))?;
    Ok(vec![local])
}

/// Whether this process may make a file in a directory, by its effective user.
pub fn may_make_files_in(directory: &Path) -> Result<(), Errno> {
    may(directory, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// Whether this process may do that with a path, by its effective user.
pub fn may(path: &Path, access: AccessFlags) -> Result<(), Errno> {
    faccessat(AT_FDCWD, path, access, nix::fcntl::AtFlags::AT_EACCESS)
}
