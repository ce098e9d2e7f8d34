//! SIGINT, SIGTERM and SIGHUP as a flag that every wait of a measurement looks at.
//!
//! The signals are blocked and taken by one thread from a signalfd(2), so that no
//! code runs in a signal handler. Children started through `std::process` get an
//! empty mask again. A second signal ends the process at once; its children have
//! asked for SIGKILL at its death.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Whether the user wants it to end. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// Takes the signals of this process. Call before starting threads: they
    /// inherit the blocked mask.
    pub fn install() -> Self {
        Self::install_for(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP], || {})
    }

    /// Likewise other signals; `last` is done before a second one ends the process.
    pub fn install_for(taken: &[Signal], last: impl Fn() + Send + 'static) -> Self {
        let mut signals = SigSet::empty();
        for signal in taken {
            signals.add(*signal);
        }
        Self::install_set(signals, last)
    }

    /// Every signal that may be sent to a process and would end it, those without a name
    /// included. Not those that say nothing of an end: of children, windows and pipes, and those
    /// that stop who reads or writes a terminal from the background.
    pub fn install_for_all(last: impl Fn() + Send + 'static) -> Self {
        let mut signals = SigSet::all();
        for other in [
            Signal::SIGCHLD,
            Signal::SIGCONT,
            Signal::SIGPIPE,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGURG,
            Signal::SIGWINCH,
        ] {
            signals.remove(other);
        }
        Self::install_set(signals, last)
    }

    fn install_set(signals: SigSet, last: impl Fn() + Send + 'static) -> Self {
        let interrupt = Self::default();
        let taken = interrupt.clone();
        let installed = signals.thread_block().is_ok()
            && std::thread::Builder::new()
                .name("signals".to_owned())
                .spawn(move || {
                    let mut count = 0;
                    // Not sigwait(3): there one without a name has no word of its own.
                    let Ok(taken_signals) = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
                    else {
                        return;
                    };
                    loop {
                        match taken_signals.read_signal() {
                            Ok(Some(_)) => {}
                            Err(Errno::EINTR) => continue,
                            Ok(None) | Err(_) => return,
                        }
                        count += 1;
                        if count > 1 {
                            last();
                            std::process::exit(1);
                        }
                        taken.raise();
                    }
                })
                .is_ok();
        if !installed {
            // Then a signal ends the process by default, and PR_SET_PDEATHSIG its children.
            let _ = signals.thread_unblock();
        }
        interrupt
    }

    /// Sets the flag, as a signal would.
    pub fn raise(&self) {
        let (raised, changed) = &*self.shared;
        *raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Whether it was set.
    pub fn is_raised(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is set.
    pub fn wait(&self) {
        while !self.wait_until(Instant::now() + Duration::from_secs(3600)) {}
    }

    /// Waits until `deadline` or until it is set; says whether it is.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let (raised, changed) = &*self.shared;
        let mut guard = raised.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *guard {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = changed
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
