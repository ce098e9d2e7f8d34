//! What control's thread waits for: signals, and what other threads tell it. It sleeps
//! until there is something, and never looks twice at what did not change.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::net::journal::SlotName;
use crate::reactor::{KeptSession, OldSession};

use super::reap;
use super::request::Request;
use super::signals::{Signal, Signals};

/// How soon it is looked again for processes to be reaped, where one that somebody else
/// is about to reap stood before them.
const REAP_AGAIN: Duration = Duration::from_millis(100);

/// What control learns.
#[derive(Debug)]
pub(super) enum Told {
    /// An operator asks for something.
    Signal(Signal),
    /// The thread of this reactor has ended.
    Ended(u16),
    /// A thread that control waits for has come to an end; what of is in a channel.
    Ready,
    /// Files of the configuration have changed.
    Changed,
    /// A reactor has a session that is to outlive this process.
    Old(u16, OldSession),
    /// A reactor has one that is kept already.
    Has(u16, KeptSession),
    /// One of them has ended, or left.
    Gone(SlotName),
    /// Another thread of this process asks for something.
    Asked(Request),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inbox {
    signals: Signals,
    /// `None` once nobody listens any more.
    told: RefCell<Option<Receiver<Told>>>,
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
    /// Takes the signals of the process.
    pub(super) fn with_signals() -> io::Result<Self> {
        let bell = bell()?;
        Ok(Self::new(Signals::take_over(&bell)?, bell))
    }

    /// Leaves them to whoever embeds this.
    pub(super) fn without_signals() -> io::Result<Self> {
        Ok(Self::new(Signals::none(), bell()?))
    }

    fn new(signals: Signals, bell: Arc<EventFd>) -> Self {
        let (sender, told) = channel();
        Self {
            signals,
            told: RefCell::new(Some(told)),
            teller: Teller { told: sender, bell },
        }
    }

    /// The way here, for other threads.
    pub(super) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// Nobody listens any more: whoever has asked for something, or does from now on, learns at once
    /// that there is no answer. Signals are taken as before.
    pub(super) fn close(&self) {
        drop(self.told.take());
    }

    /// The next thing; `None` when there was none until then. Without a time it waits
    /// for as long as it takes.
    ///
    /// Processes that were inherited are reaped here, whatever is waited for.
    pub(super) fn wait(&self, until: Option<Instant>) -> Option<Told> {
        let mut reaped = true;
        loop {
            let told = self.told.borrow();
            if let Some(told) = told.as_ref().and_then(|it| it.try_recv().ok()) {
                return Some(told);
            }
            drop(told);
            match self.signals.take() {
                Some(Signal::Child) => reaped = false,
                Some(signal) => return Some(Told::Signal(signal)),
                None => {}
            }
            reaped = reaped || reap::reap();
            let again = (!reaped).then(|| Instant::now() + REAP_AGAIN);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            let first = [until, again].into_iter().flatten().min();
            let left = first.map(|first| first.saturating_duration_since(Instant::now()));
            // At least a millisecond, so that a rest below one does not spin.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                let left = left.max(Duration::from_millis(1));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut bell = [PollFd::new(self.teller.bell.as_fd(), PollFlags::POLLIN)];
            // An interrupted or failed poll is looked at again by the reads above.
            let _ = poll(&mut bell, timeout);
            let _ = self.teller.bell.read();
        }
    }
}

/// What is rung when there is something.
fn bell() -> io::Result<Arc<EventFd>> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(Arc::new(EventFd::from_value_and_flags(0, flags)?))
}
