//! Which engine runs: the one place that knows what was built in.
//!
//! Everything above is generic over the engine; [`run`] makes the one chosen and
//! hands it to a [`Work`], so that no call on the hot path is dynamic.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::epoll::Epoll;
use super::{Datagrams, Detached, Incoming, Listener, Setup};

/// The version, and which engines it has.
pub const VERSION: &str = if cfg!(feature = "uring") {
    concat!(env!("CARGO_PKG_VERSION"), "\nengines: epoll, io_uring")
} else {
    concat!(
        env!("CARGO_PKG_VERSION"),
        "\nengines: epoll (io_uring is not built in)"
    )
};

/// An engine that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Readiness, through mio.
    Epoll,
    /// Completions, through io_uring.
    IoUring,
}

impl Kind {
    /// As it is written in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        }
    }
}

/// What came of looking for the best engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// It.
    pub kind: Kind,
    /// Why it is that one; for the log.
    pub reason: String,
    /// io_uring is built in and was refused, by the kernel or by its operator.
    pub refused: bool,
}

/// io_uring where it is built in and everything it needs is permitted here and
/// now, epoll otherwise.
pub fn best() -> Found {
    match io_uring() {
        Ok(()) => Found {
            kind: Kind::IoUring,
            reason: "every operation it needs was tried and works".into(),
            refused: false,
        },
        Err(reason) => Found {
            kind: Kind::Epoll,
            reason: format!("io_uring is not to be had: {reason}"),
            refused: cfg!(feature = "uring"),
        },
    }
}

/// Whether io_uring can be had, and if not, why.
#[cfg(feature = "uring")]
pub fn io_uring() -> Result<(), String> {
    super::uring::probe()
}

/// Whether io_uring can be had, and if not, why.
#[cfg(not(feature = "uring"))]
pub fn io_uring() -> Result<(), String> {
    Err("this build has no io_uring engine".into())
}

/// Wakes a reactor from another thread.
#[derive(Debug)]
pub enum Waker {
    /// Through epoll.
    Epoll(mio::Waker),
    /// Through the ring.
    #[cfg(feature = "uring")]
    IoUring(super::uring::Waker),
}

impl Waker {
    /// Wakes it; it need not be asleep.
    pub fn wake(&self) -> io::Result<()> {
        match self {
            Self::Epoll(waker) => waker.wake(),
            #[cfg(feature = "uring")]
            Self::IoUring(waker) => waker.wake(),
        }
    }
}

/// What a thread does with its engine.
pub trait Work {
    /// Works until there is nothing more to do.
    fn work<E>(self, engine: E, waker: Waker)
    where
        E: Datagrams<Listener = Listener, Incoming = Incoming, Detached = Detached, Call = OwnedFd>;
}

/// Makes an engine for the calling thread and works with it; `origin` is time zero.
/// An error is that of making it, before any work.
pub fn run(kind: Kind, setup: &Setup, origin: Instant, work: impl Work) -> io::Result<()> {
    match kind {
        #[cfg(feature = "uring")]
        Kind::IoUring => {
            let engine = super::uring::Uring::new(setup, origin)?;
            let waker = engine.waker()?;
            work.work(engine, Waker::IoUring(waker));
        }
        #[cfg(not(feature = "uring"))]
        Kind::IoUring => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        Kind::Epoll => {
            let engine = Epoll::new(setup, origin)?;
            let waker = engine.waker()?;
            work.work(engine, Waker::Epoll(waker));
        }
    }
    Ok(())
}
