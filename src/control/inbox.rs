//! What control's thread waits for: signals, and what other threads tell it. It sleeps
//! until there is something, and never looks twice at what did not change.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::signals::{Signal, Signals};

/// What control learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// An operator asks for something.
    Signal(Signal),
    /// The thread of this reactor has ended.
    Ended(u16),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inbox {
    signals: Signals,
    told: Receiver<Told>,
    teller: Teller,
}

/// The way to control's thread.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    told: Sender<Told>,
    bell: Arc<EventFd>,
}

impl Teller {
    pub(super) fn tell(&self, what: Told) {
        // Nobody listens only when the process is ending.
        if self.told.send(what).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

impl Inbox {
    pub(super) fn new(signals: Signals) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, told) = channel();
        Ok(Self {
            signals,
            told,
            teller: Teller { told: sender, bell },
        })
    }

    /// The way here, for other threads.
    pub(super) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// The next thing; `None` when there was none until then. Without a time it waits
    /// for as long as it takes.
    pub(super) fn wait(&self, until: Option<Instant>) -> Option<Told> {
        loop {
            if let Ok(told) = self.told.try_recv() {
                return Some(told);
            }
            if let Some(signal) = self.signals.take() {
                return Some(Told::Signal(signal));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            // At least a millisecond, so that a rest below one does not spin.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                let left = left.max(Duration::from_millis(1));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut sources = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.teller.bell.as_fd(), PollFlags::POLLIN),
            ];
            // An interrupted or failed poll is looked at again by the reads above.
            let _ = poll(&mut sources, timeout);
            let _ = self.teller.bell.read();
        }
    }
}
