//! Who runs first where threads of the harness share a CPU.
//!
//! The delay of a small message beside bulk is to be the subject's, not the
//! generator's or the origin's: there its threads go before those that move bulk, and leave them a share.

use std::io;

use super::sys;

/// How a thread stands to the others of its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// As the scheduler likes.
    Ordinary,
    /// Before ordinary threads, with three times their weight.
    First,
}

impl Precedence {
    /// Gives it to the calling thread.
    ///
    /// # Errors
    /// `EACCES` without `CAP_SYS_NICE` and with a smaller `RLIMIT_NICE`.
    pub(crate) fn take(self) -> io::Result<()> {
        match self {
            Self::Ordinary => Ok(()),
            Self::First => sys::run_first(),
        }
    }

    /// The best that this process may give its threads: tried on one that ends.
    pub fn permitted() -> Self {
        let tried = std::thread::spawn(|| Self::First.take().is_ok()).join();
        if tried.unwrap_or(false) {
            Self::First
        } else {
            Self::Ordinary
        }
    }
}
