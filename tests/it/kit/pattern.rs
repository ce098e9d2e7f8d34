//! Payload that can be checked where it arrives: the byte at each position of a
//! stream is known, and differs from one stream to the next.
//!
//! Comparing with what was expected is stronger than comparing hashes: it tells the
//! position of the first wrong byte, and fails at once instead of at the end.

use std::sync::LazyLock;

/// A prime: no chunk, page, pipe or buffer size is a multiple of it, so a piece that
/// is lost, repeated or swapped shifts what follows.
const PERIOD: usize = 1_048_573;

/// What is handed out at a time.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Two periods' worth at the end, so that a chunk never wraps.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes: Vec<u8> = Vec::with_capacity(PERIOD + CHUNK);
    while bytes.len() < PERIOD {
        // Xorshift: its low byte has no short period.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push((state >> 32) as u8);
    }
    bytes.extend_from_within(..CHUNK);
    bytes
});

/// A stream of known bytes, and how far along it one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    start: u64,
    position: u64,
}

impl Pattern {
    /// Streams of different seeds differ from their first bytes on.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            start: seed.wrapping_mul(7_919) % PERIOD as u64,
            position: 0,
        }
    }

    /// How many bytes have gone by.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, at most `max` and at most a chunk; does not move on.
    pub(crate) fn upcoming(&self, max: u64) -> &'static [u8] {
        let at = ((self.start + self.position) % PERIOD as u64) as usize;
        let len = max.min(CHUNK as u64) as usize;
        &BYTES[at..at + len]
    }

    /// Moves on.
    pub(crate) const fn advance(&mut self, n: u64) {
        self.position += n;
    }

    /// Checks that `bytes` come next, and moves on over them.
    #[track_caller]
    pub(crate) fn check(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(CHUNK) {
            let expected = self.upcoming(piece.len() as u64);
            if piece != expected {
                let wrong = piece.iter().zip(expected).position(|(a, b)| a != b);
                panic!(
                    "byte {} of the stream is wrong",
                    self.position + wrong.unwrap_or(0) as u64
                );
            }
            self.advance(piece.len() as u64);
        }
    }
}
