//! Operations and their tags: what a completion belongs to, in its 64 bits of
//! `user_data`.
//!
//! ```text
//! bit 63: 0, a side of a session     62..36: slot   35..4: generation   3: side   2..0: operation
//! bit 63: 1, anything else           one of the constants
//! ```
//! A slot is used again only when nothing of its last session is in flight; the
//! generation is there so that a mistake in that is a dropped event and not
//! another session's bytes.

use crate::engine::SessionKey;
use crate::relay::Side;

/// Slots fit 26 bits: more sessions than a process has descriptors for.
pub(super) const SLOTS_MAX: u32 = 1 << 26;

const OTHER_BIT: u64 = 1 << 63;
const WAKER: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;
const LISTENERS: u64 = u64::MAX - 2;

/// An operation on a side of a session. At most one of each is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// Poll: bytes or an end can be read.
    WatchIn = 0,
    /// Poll: bytes can be written, or a connect has its outcome.
    WatchOut = 1,
    /// Poll for failure alone, of a side from which nothing is being read.
    Vigil = 2,
    /// Multishot receive into provided buffers.
    Recv = 3,
    /// Send out of a provided buffer, at once or not at all: it never outlives the
    /// system call that submits it, and completes only when it fails.
    Send = 4,
}

impl Op {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::WatchIn,
        Self::WatchOut,
        Self::Vigil,
        Self::Recv,
        Self::Send,
    ];

    /// As a bit of a set.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) key: SessionKey,
    pub(super) side: Side,
}

/// What a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// An operation on a side.
    Side(At, Op),
    /// The poll of the listeners.
    Listeners,
    /// The poll of the waker.
    Waker,
    /// A cancellation that found nothing. Nobody waits for it.
    Cancel,
}

impl Tag {
    /// Whether a completion is sure to follow. Cancellations and sends have one
    /// only when they fail.
    pub(super) const fn is_counted(self) -> bool {
        !matches!(self, Self::Cancel | Self::Side(_, Op::Send))
    }

    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Side(at, op) => {
                (at.key.slot as u64) << 36
                    | (at.key.generation as u64) << 4
                    | (at.side as u64) << 3
                    | op as u64
            }
            Self::Listeners => LISTENERS,
            Self::Waker => WAKER,
            Self::Cancel => CANCEL,
        }
    }

    pub(super) const fn decode(bits: u64) -> Self {
        if bits & OTHER_BIT == 0 {
            let side = if bits & 8 == 0 {
                Side::Client
            } else {
                Side::Upstream
            };
            let key = SessionKey {
                slot: (bits >> 36) as u32,
                generation: (bits >> 4) as u32,
            };
            let op = Op::ALL[(bits & 7) as usize];
            return Self::Side(At { key, side }, op);
        }
        match bits {
            WAKER => Self::Waker,
            LISTENERS => Self::Listeners,
            _ => Self::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_round_trip() {
        for slot in [0, 1, 12345, SLOTS_MAX - 1] {
            for generation in [0, 1, u32::MAX] {
                for side in Side::BOTH {
                    for op in Op::ALL {
                        let key = SessionKey { slot, generation };
                        let tag = Tag::Side(At { key, side }, op);
                        assert_eq!(Tag::decode(tag.encode()), tag);
                    }
                }
            }
        }
        for tag in [Tag::Listeners, Tag::Waker, Tag::Cancel] {
            assert_eq!(Tag::decode(tag.encode()), tag);
        }
    }
}
