//! Signals, received by waiting for them: no handler ever runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigHandler, SigSet, Signal as Number, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT: end.
    Stop,
    /// SIGUSR1: say how things are.
    Report,
}

/// The signals this process waits for.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this thread and all that it starts from now on.
    pub(super) fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for number in [Number::SIGTERM, Number::SIGINT, Number::SIGUSR1] {
            set.add(number);
        }
        set.thread_block()?;
        ignore_broken_pipes()?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self(descriptor))
    }

    /// The next signal that has come, if any.
    pub(super) fn take(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        let report = info.ssi_signo == Number::SIGUSR1 as u32;
        Some(if report { Signal::Report } else { Signal::Stop })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// splice(2) has no `MSG_NOSIGNAL`. Rust's start-up ignores SIGPIPE already; a
/// program that embeds the library may not.
#[allow(unsafe_code, reason = "installs SIG_IGN, which runs no code of ours")]
fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: SIG_IGN is not a handler; nothing can be called asynchronously.
    unsafe { signal(Number::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
