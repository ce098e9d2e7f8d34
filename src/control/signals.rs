//! Signals, received by waiting for them: no handler ever runs.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

    /// The next signal; `None` when none came within `patience`.
    pub(super) fn wait(&self, patience: Option<Duration>) -> Option<Signal> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            if let Ok(Some(info)) = self.0.read_signal() {
                let report = info.ssi_signo == Number::SIGUSR1 as u32;
                return Some(if report { Signal::Report } else { Signal::Stop });
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            // At least a millisecond, so that a rest below one does not spin.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.max(Duration::from_millis(1)))
                    .unwrap_or(PollTimeout::MAX)
            });
            // An interrupted or failed poll is looked at again by the read above.
            let _ = poll(
                &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                timeout,
            );
        }
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
