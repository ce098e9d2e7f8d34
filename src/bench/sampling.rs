//! Which bytes of a bulk flow are compared with what was sent.
//!
//! Comparing costs the harness more than forwarding costs a good forwarder, and would hide
//! the difference between forwarders. So of every `one_in` stretches of a flow one is read and
//! compared, the first of them among it, and the rest is discarded in the kernel. Each
//! compared stretch says where it is in the stream, because the pattern depends on the
//! position: a byte that was lost or came twice in what was discarded shows in the next
//! one, and in the count at the end. Only a byte that was changed in a discarded stretch is
//! not seen.

use std::fmt;

/// Bytes of a stretch.
pub const STRETCH: u64 = 1024 * 1024;

/// Of so many stretches one is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling {
    one_in: u64,
}

/// What to do with the bytes from some position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// Read and compare them.
    Compare,
    /// Let the kernel discard so many bytes at the most.
    Discard(u64),
}

impl Sampling {
    /// 0 compares nothing, 1 everything.
    pub(crate) fn new(one_in: u64) -> Self {
        Self { one_in }
    }

    /// What to do with the bytes at `position` of a stream.
    pub(crate) fn care(self, position: u64) -> Care {
        if self.one_in == 0 {
            return Care::Discard(u64::MAX);
        }
        let period = STRETCH.saturating_mul(self.one_in);
        let into = position % period;
        if into < STRETCH {
            Care::Compare
        } else {
            Care::Discard(period - into)
        }
    }

    /// How many of the first `bytes` of a stream are compared, at the least: a read that
    /// begins within a stretch may go beyond it.
    pub(crate) fn compared(self, bytes: u64) -> u64 {
        if self.one_in == 0 {
            return 0;
        }
        let period = STRETCH.saturating_mul(self.one_in);
        bytes / period * STRETCH + (bytes % period).min(STRETCH)
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.one_in.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stretch_in_so_many_is_compared_and_the_first_is_among_them() {
        let sampling = Sampling::new(3);
        assert_eq!(sampling.care(0), Care::Compare);
        assert_eq!(sampling.care(STRETCH - 1), Care::Compare);
        assert_eq!(sampling.care(STRETCH), Care::Discard(2 * STRETCH));
        assert_eq!(sampling.care(3 * STRETCH - 1), Care::Discard(1));
        assert_eq!(sampling.care(3 * STRETCH), Care::Compare);
        let compared =
            [0, 5, STRETCH, 3 * STRETCH, 3 * STRETCH + 5].map(|it| sampling.compared(it));
        assert_eq!(compared, [0, 5, STRETCH, STRETCH, STRETCH + 5]);
        assert_eq!(Sampling::new(1).care(77 * STRETCH), Care::Compare);
        assert_eq!(Sampling::new(1).compared(7 * STRETCH + 3), 7 * STRETCH + 3);
        assert_eq!(Sampling::new(0).care(0), Care::Discard(u64::MAX));
        // A client chooses the number.
        assert_eq!(Sampling::new(u64::MAX).care(0), Care::Compare);
    }
}
