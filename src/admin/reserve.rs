//! Descriptors set aside: when all others are used up, the endpoint takes these.
//!
//! One is given up right before the call that needs it. A reactor may be faster, so there
//! are a few of them, and each is taken back as soon as that can be.

use std::fs::File;
use std::io;

/// So many are set aside.
pub(super) const RESERVED: usize = 12;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Reserve(Vec<File>);

impl Reserve {
    /// As many of them as can be had.
    pub(super) fn take() -> Self {
        let mut reserve = Self::default();
        reserve.fill();
        reserve
    }

    /// Takes back what was given up, as far as that can be.
    pub(super) fn fill(&mut self) {
        while self.0.len() < RESERVED {
            match File::open("/dev/null") {
                Ok(file) => self.0.push(file),
                Err(_) => return,
            }
        }
    }

    /// Gives one up after an error, if that was for want of descriptors: it is worth
    /// another try then.
    pub(super) fn give_up_one(&mut self, error: &io::Error) -> bool {
        let wanting = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        wanting && self.0.pop().is_some()
    }
}
