//! Keys: which session, which generation, which side, in 64 bits.
//!
//! The same number is mio's `Token` and io_uring's `user_data`. A slot is used
//! again by later sessions, its generation tells them apart: an event of an
//! earlier one is recognised as stale and dropped.

use crate::relay::Side;

/// A session: its slot in the slab, and how often that slot was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Index into the slab; below [`SessionKey::SLOTS_MAX`].
    pub slot: u32,
    /// Bumped when the slot is freed.
    pub generation: u32,
}

/// A listener of an engine: its slot, and how often that slot was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// Below [`SessionKey::SLOTS_MAX`]. One that is freed is used again first, so it
    /// stays near the number of listeners.
    pub slot: u32,
    /// Bumped when the slot is freed.
    pub generation: u32,
}

/// A slot and its generation, whatever is in the slot.
pub trait Key: Copy {
    /// The key of a slot.
    fn new(slot: u32, generation: u32) -> Self;
    /// The slot.
    fn slot(self) -> u32;
    /// How often it was used before.
    fn generation(self) -> u32;
}

impl Key for SessionKey {
    fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    fn slot(self) -> u32 {
        self.slot
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

impl Key for ListenerKey {
    fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    fn slot(self) -> u32 {
        self.slot
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

/// A datagram socket of an engine: its slot, and how often that slot was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatagramKey {
    /// Below half of [`SessionKey::SLOTS_MAX`].
    pub slot: u32,
    /// Bumped when the slot is freed.
    pub generation: u32,
}

impl Key for DatagramKey {
    fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    fn slot(self) -> u32 {
        self.slot
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

/// What a 64-bit token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A side of a session.
    Side(SessionKey, Side),
    /// A listener.
    Listener(ListenerKey),
    /// A datagram socket.
    Datagrams(DatagramKey),
    /// The waker.
    Waker,
}

const KIND_BIT: u64 = 1 << 63;
const DATAGRAM_BIT: u64 = 1 << 62;
const WAKER: u64 = u64::MAX;

impl SessionKey {
    /// Slots are 30 bits: a reactor holds a billion sessions at the most.
    pub const SLOTS_MAX: u32 = 1 << 30;
}

impl Token {
    /// As a number: sides have bit 63 clear, listeners have it set, datagram sockets bit 62
    /// as well.
    pub const fn encode(self) -> u64 {
        match self {
            Self::Side(key, side) => {
                (key.slot as u64) << 33 | (key.generation as u64) << 1 | side as u64
            }
            Self::Listener(key) => KIND_BIT | (key.slot as u64) << 32 | key.generation as u64,
            Self::Datagrams(key) => {
                KIND_BIT | DATAGRAM_BIT | (key.slot as u64) << 32 | key.generation as u64
            }
            Self::Waker => WAKER,
        }
    }

    /// The inverse of [`Token::encode`].
    pub const fn decode(bits: u64) -> Self {
        if bits == WAKER {
            Self::Waker
        } else if bits & KIND_BIT != 0 && bits & DATAGRAM_BIT != 0 {
            Self::Datagrams(DatagramKey {
                slot: ((bits & !KIND_BIT & !DATAGRAM_BIT) >> 32) as u32,
                generation: bits as u32,
            })
        } else if bits & KIND_BIT != 0 {
            Self::Listener(ListenerKey {
                slot: ((bits & !KIND_BIT) >> 32) as u32,
                generation: bits as u32,
            })
        } else {
            let side = if bits & 1 == 0 {
                Side::Client
            } else {
                Side::Upstream
            };
            Self::Side(
                SessionKey {
                    slot: (bits >> 33) as u32,
                    generation: (bits >> 1) as u32,
                },
                side,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip() {
        for slot in [0, 1, 12345, SessionKey::SLOTS_MAX - 1] {
            for generation in [0, 1, u32::MAX] {
                for side in Side::BOTH {
                    let token = Token::Side(SessionKey { slot, generation }, side);
                    assert_eq!(Token::decode(token.encode()), token);
                }
            }
        }
        for slot in [0, 1 << 20, SessionKey::SLOTS_MAX - 1] {
            for generation in [0, 1, u32::MAX] {
                let token = Token::Listener(ListenerKey { slot, generation });
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
        for slot in [0, 1 << 20, SessionKey::SLOTS_MAX / 2 - 1] {
            for generation in [0, 1, u32::MAX] {
                let token = Token::Datagrams(DatagramKey { slot, generation });
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
        assert_eq!(Token::decode(Token::Waker.encode()), Token::Waker);
    }
}
