//! Signals as things that are waited for. A handler does nothing but note the number and
//! ring a bell, on whatever thread of the process the kernel picks: so a forwarder that
//! is embedded in a program, on a thread that is not its first, is told as well.
//!
//! Threads that this one starts block them all ([`block_here`]): no call of a reactor is
//! ever interrupted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use signal_hook_registry::SigId;

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT: end; a second one at once.
    Stop,
    /// SIGQUIT: end once the last session has.
    Drain,
    /// SIGHUP: read everything again.
    Reload,
    /// SIGUSR1: say how things are.
    Report,
    /// SIGUSR2: hand over to a new process.
    Upgrade,
    /// SIGCHLD: a child has ended. Only asked for where orphans are ours.
    Child,
    /// One that means nothing here; its default would kill the process without a line.
    Meaningless(Number),
}

/// Those that an operator sends on purpose.
const MEANT: [Number; 6] = [
    Number::SIGTERM,
    Number::SIGINT,
    Number::SIGQUIT,
    Number::SIGHUP,
    Number::SIGUSR1,
    Number::SIGUSR2,
];

/// Those that kill by default and mean nothing to a forwarder. SIGXFSZ is among them: a
/// log that has reached the limit of its size is an error of writing and nothing more.
const MEANINGLESS: [Number; 6] = [
    Number::SIGALRM,
    Number::SIGVTALRM,
    Number::SIGPROF,
    Number::SIGIO,
    Number::SIGPWR,
    Number::SIGXFSZ,
];

/// The signals this process waits for; none of them, if whoever embeds it has its own
/// ideas.
#[derive(Debug)]
pub(super) struct Signals {
    /// Those that have come, a bit for each number.
    came: Arc<AtomicU64>,
    handlers: Vec<SigId>,
    /// Of the thread, to be put back.
    mask: Option<SigSet>,
}

impl Signals {
    /// Takes them for the process, and rings the bell when one has come. They are
    /// delivered to this thread, unless another one of the process does not block them.
    pub(super) fn take_over(bell: &Arc<EventFd>) -> io::Result<Self> {
        let children = super::reap::orphans_are_ours().then_some(Number::SIGCHLD);
        let mut signals = Self::none();
        let mut set = SigSet::empty();
        for number in MEANT.into_iter().chain(MEANINGLESS).chain(children) {
            set.add(number);
            signals.handle(number, bell.clone())?;
        }
        signals.mask = Some(set.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?);
        Ok(signals)
    }

    /// None: they are somebody else's.
    pub(super) fn none() -> Self {
        Self {
            came: Arc::default(),
            handlers: Vec::new(),
            mask: None,
        }
    }

    #[allow(unsafe_code, reason = "a signal handler; see below")]
    fn handle(&mut self, number: Number, bell: Arc<EventFd>) -> io::Result<()> {
        let (came, bit) = (self.came.clone(), 1 << number as u32);
        let note = move || {
            let errno = Errno::last_raw();
            came.fetch_or(bit, Ordering::Relaxed);
            let _ = bell.write(1);
            Errno::set_raw(errno);
        };
        // SAFETY: it touches an atomic and calls write(2), which is safe in a handler
        // (signal-safety(7)), allocates nothing, takes no lock, and leaves errno as it was.
        let handler = unsafe { signal_hook_registry::register(number as libc::c_int, note) }?;
        self.handlers.push(handler);
        Ok(())
    }

    /// A signal that has come, if any has; the same one twice before it is taken is one.
    pub(super) fn take(&self) -> Option<Signal> {
        let came = self.came.load(Ordering::Relaxed);
        let number = (came != 0).then(|| came.trailing_zeros())?;
        self.came.fetch_and(!(1 << number), Ordering::Relaxed);
        Some(meaning(number as libc::c_int))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook_registry::unregister(handler);
        }
        if let Some(mask) = &self.mask {
            let _ = mask.thread_set_mask();
        }
    }
}

fn meaning(number: libc::c_int) -> Signal {
    match Number::try_from(number) {
        Ok(Number::SIGTERM | Number::SIGINT) => Signal::Stop,
        Ok(Number::SIGQUIT) => Signal::Drain,
        Ok(Number::SIGHUP) => Signal::Reload,
        Ok(Number::SIGUSR1) => Signal::Report,
        Ok(Number::SIGUSR2) => Signal::Upgrade,
        Ok(Number::SIGCHLD) => Signal::Child,
        Ok(number) => Signal::Meaningless(number),
        Err(_) => Signal::Meaningless(Number::SIGIO),
    }
}

/// Blocks them for this thread and all that it starts from now on.
pub(super) fn block_here() {
    let mut set = SigSet::empty();
    for number in MEANT.into_iter().chain(MEANINGLESS) {
        set.add(number);
    }
    set.add(Number::SIGCHLD);
    // Fails for a `how` that does not exist.
    let _ = set.thread_block();
}

/// splice(2) has no `MSG_NOSIGNAL`. Rust's start-up ignores SIGPIPE already; a
/// program that embeds the library may not.
#[allow(unsafe_code, reason = "installs SIG_IGN, which runs no code of ours")]
pub(super) fn ignore_broken_pipes() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, signal};
    // SAFETY: SIG_IGN is not a handler; nothing can be called asynchronously.
    unsafe { signal(Number::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
