//! The socket at which new processes ask for what this one has: in the runtime directory,
//! for this user alone.
//!
//! Whoever connects is served on a thread of its own, few at a time and for a bounded time:
//! one who says nothing keeps nobody else from anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::channel::Channel;
use crate::admin;
use crate::control::signals;
use crate::net::handed::{Handed, HandedLabel, Role};
use crate::net::listener::Bound;
use crate::observe::panics;

/// Those that are served at a time.
const SERVED_MAX: usize = 4;

/// Descriptors that it takes beside its socket, at the most.
pub(in crate::control) const DESCRIPTORS: u32 = SERVED_MAX as u32 + 3;

/// What the socket is called in its directory.
const STEM: &str = "upgrade";

/// Where it listens; nobody is let in so far.
#[derive(Debug)]
pub(in crate::control) struct Entrance {
    bound: Bound,
    socket: OwnedFd,
    label: HandedLabel,
}

impl Entrance {
    /// The one that was handed over, or a new one; none where there is no directory for it.
    pub(in crate::control) fn take(handed: &mut Handed) -> Option<Self> {
        let (mut bound, address) = admin::in_runtime_directory(STEM, Role::Upgrade, handed).ok()?;
        let socket = bound.take_share(0).pop()?.fd;
        Some(Self {
            bound,
            socket,
            label: HandedLabel::new(Role::Upgrade, &address),
        })
    }

    /// Another process may listen there as well.
    pub(in crate::control) fn passable(&self) -> Option<(HandedLabel, OwnedFd)> {
        Some((self.label.clone(), self.socket.try_clone().ok()?))
    }

    /// Lets processes of the same user in, until the result is dropped.
    pub(in crate::control) fn open(
        mut self,
        serve: impl Fn(Channel) + Send + Sync + 'static,
    ) -> io::Result<OpenEntrance> {
        self.bound.own_path();
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let listener = UnixListener::from(self.socket.try_clone()?);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("upgrades".to_owned())
            .spawn(move || {
                signals::block_here();
                keep(&listener, &stopped, &Arc::new(serve));
            })?;
        Ok(OpenEntrance {
            entrance: self,
            stop,
            thread: Some(thread),
        })
    }
}

/// See [`Entrance`].
#[derive(Debug)]
pub(in crate::control) struct OpenEntrance {
    pub(in crate::control) entrance: Entrance,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl OpenEntrance {
    /// Another process has it: its path stays.
    pub(in crate::control) fn disown(&mut self) {
        self.entrance.bound.leave_path();
    }

    pub(in crate::control) fn label(&self) -> &HandedLabel {
        &self.entrance.label
    }
}

impl Drop for OpenEntrance {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(
    listener: &UnixListener,
    stop: &EventFd,
    serve: &Arc<impl Fn(Channel) + Send + Sync + 'static>,
) {
    let served = Arc::new(AtomicUsize::new(0));
    loop {
        let mut ready = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut ready, PollTimeout::NONE);
        if ready[1].any().unwrap_or(false) {
            return;
        }
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        let Ok(channel) = Channel::over(stream.into()) else {
            continue;
        };
        // The mode of the path says it already, but to root.
        let own = nix::unistd::geteuid().as_raw();
        let is_own = channel.peer().is_ok_and(|(_, user)| user == own);
        if !is_own || served.fetch_add(1, Ordering::Relaxed) >= SERVED_MAX {
            if is_own {
                served.fetch_sub(1, Ordering::Relaxed);
            }
            continue;
        }
        let (serve, place) = (serve.clone(), Served(served.clone()));
        // If there is no thread to be had, the connection closes.
        let _ = std::thread::Builder::new()
            .name("upgrade".to_owned())
            .spawn(move || {
                signals::block_here();
                // Whoever asked hears nothing more; it is counted.
                panics::caught("upgrade", || serve(channel));
                drop(place);
            });
    }
}

/// One of those that are served.
struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to a process that serves: at this path, or where one listens in the runtime
/// directory.
pub(in crate::control) fn reach(path: Option<&Path>) -> Result<Channel, String> {
    let candidates: Vec<PathBuf> = match path {
        Some(path) => vec![path.to_owned()],
        None => admin::runtime_directories()
            .into_iter()
            .map(|it| it.join(format!("{STEM}.sock")))
            .collect(),
    };
    let mut problem = "there is no runtime directory".to_owned();
    for path in candidates {
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(stream) => {
                let channel = Channel::over(stream.into()).map_err(|it| it.to_string())?;
                let own = nix::unistd::geteuid().as_raw();
                // Descriptors are taken from this user's processes only.
                if channel.peer().is_ok_and(|(_, user)| user == own) {
                    return Ok(channel);
                }
                problem = format!("{}: it belongs to another user", path.display());
            }
            Err(error) => problem = format!("{}: {error}", path.display()),
        }
    }
    Err(problem)
}
