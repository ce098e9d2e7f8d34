//! Unix listeners: names, stale paths, and removing what is ours.
//!
//! A path outlives the process that bound it. It is stale when no socket is bound to it any
//! more, and only then, and only if it is a socket, it is replaced. Whether one is, is asked
//! by a connect of another type: the kernel looks for the socket of the file first, in
//! every network namespace, and says ECONNREFUSED if there is none and EPROTOTYPE if there
//! is one, whether it listens yet or not. Instances that start together take turns by a lock
//! on the directory (behaviour 61).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{BindCause, Bound, ListenSocket, SocketPermissions};
use crate::net::address::{Endpoint, UnixName};
use crate::net::dial::{make_socket, sockaddr};
use crate::net::options::plan::Stage;
use crate::net::options::{Family, OptionPlan};

/// `sun_path` less the terminator, or less the NUL that marks an abstract name.
pub(super) const NAME_MAX: usize = 107;

/// How long to wait for another instance that is binding in the same directory.
/// It needs a millisecond; whoever holds the lock longer is something else and
/// must not keep us from starting.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The path of a listener, removed at drop if it is still the file we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn new(path: &Path) -> Option<Self> {
        Some(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// Is somebody else's from now on.
    pub(super) fn leave(mut self) {
        self.path.clear();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another instance may have replaced it meanwhile: that one is not ours.
        if identity(&self.path) == Some(self.identity) {
            // Nothing sensible is left to do at drop if the directory forbids it;
            // the next start finds the path stale and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of what `path` names, symbolic links not followed.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Listens on `name`: one socket, a duplicate of it for each of `reactors`.
pub(super) fn bind(
    name: &UnixName,
    plan: &OptionPlan,
    permissions: &SocketPermissions,
    backlog: i32,
    reactors: usize,
) -> Result<Bound, BindCause> {
    let len = match name {
        UnixName::Path(path) => path.as_os_str().as_bytes().len(),
        UnixName::Abstract(bytes) => bytes.len(),
    };
    if len > NAME_MAX {
        return Err(BindCause::UnixTooLong { len });
    }
    let local = Endpoint::Unix(name.clone());
    let address = sockaddr(&local).map_err(|errno| BindCause::System {
        operation: "bind",
        errno,
    })?;
    let (socket, mut refusal) =
        make_socket(Family::Unix, false).map_err(|error| BindCause::opening(&error))?;
    if let Err(refused) = plan.apply(socket.as_fd(), Stage::Listener, Family::Unix) {
        refusal = Some(refused);
    }
    let file = match name {
        UnixName::Path(path) => bind_path(&socket, &address, path, permissions, backlog)?,
        UnixName::Abstract(_) => {
            bind_once(&socket, &address)?;
            listen(&socket, backlog)?;
            None
        }
    };
    let mut shares = Vec::with_capacity(reactors);
    for _ in 0..reactors {
        let fd = socket
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| BindCause::system("dup", &error))?;
        shares.push(vec![ListenSocket {
            fd,
            local: local.clone(),
            family: Family::Unix,
        }]);
    }
    Ok(Bound {
        locals: vec![local],
        shares,
        refusal,
        dual: false,
        passed: false,
        file,
        registered: Vec::new(),
    })
}

/// Listens on `name`, which only the user of this process may connect to.
pub(super) fn bind_private(
    name: &UnixName,
    plan: &OptionPlan,
    backlog: i32,
) -> Result<Bound, BindCause> {
    let private = SocketPermissions {
        mode: Some(0o600),
        ..SocketPermissions::default()
    };
    bind(name, plan, &private, backlog, 1)
}

/// Binds and listens on a path, replacing a stale one.
fn bind_path(
    socket: &Socket,
    address: &SockAddr,
    path: &Path,
    permissions: &SocketPermissions,
    backlog: i32,
) -> Result<Option<SocketFile>, BindCause> {
    let _lock = lock_directory(path);
    match bind_once(socket, address) {
        Err(BindCause::UnixInUse) => {
            remove_stale(address, path)?;
            bind_once(socket, address)?;
        }
        other => other?,
    }
    let file = SocketFile::new(path);
    // Who is not meant to connect finds nobody listening until it is so.
    permissions.apply(path)?;
    listen(socket, backlog)?;
    Ok(file)
}

pub(super) fn bind_once(socket: &Socket, address: &SockAddr) -> Result<(), BindCause> {
    socket
        .bind(address)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => BindCause::UnixInUse,
            _ => BindCause::system("bind", &error),
        })
}

fn listen(socket: &Socket, backlog: i32) -> Result<(), BindCause> {
    socket
        .listen(backlog)
        .map_err(|error| BindCause::system("listen", &error))
}

/// Removes `path` if it is the file of a socket that there is no more.
fn remove_stale(address: &SockAddr, path: &Path) -> Result<(), BindCause> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // Gone since: its owner has just left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindCause::system("stat", &error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindCause::NotASocket);
    }
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)
        .map_err(|error| BindCause::system("socket", &error))?;
    match probe.connect(address) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {}
        // EPROTOTYPE: it is bound, by a stream socket. Connected: by one for datagrams. EACCES
        // and the rest: not ours to remove.
        _ => return Err(BindCause::UnixInUse),
    }
    if identity(path) != Some((found.dev(), found.ino())) {
        return Err(BindCause::UnixInUse);
    }
    fs::remove_file(path).map_err(|error| BindCause::system("removing the stale path", &error))
}

/// An exclusive lock on the directory of `path`, or `None` where it cannot be
/// had: the directory is unreadable, or somebody keeps it locked.
fn lock_directory(path: &Path) -> Option<Flock<File>> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let mut file = File::open(parent.unwrap_or(Path::new("."))).ok()?;
    let mut waited = Duration::ZERO;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((returned, Errno::EWOULDBLOCK)) if waited < LOCK_PATIENCE => {
                file = returned;
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(_) => return None,
        }
    }
}
