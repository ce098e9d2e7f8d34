//! The stream of a hello, put together from pieces in any order.

use super::header::Bytes;
use crate::proto::hello::{self, Hello};

/// Pieces with holes between them. Browsers cut a hello into a dozen and shuffle them.
pub const PIECES_MAX: usize = 64;

/// Bytes of the message with its header.
const LEN_MAX: usize = hello::HELLO_MAX + 4;

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;
const CLOSE: u64 = 0x1c;

/// What has come of a hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembly {
    bytes: Vec<u8>,
    /// From where to where there are any, in order, with holes between them.
    pieces: Vec<(usize, usize)>,
}

impl Assembly {
    /// Takes the frames of one Initial. `Some`: the hello is whole.
    ///
    /// # Errors
    /// What is wrong with them, whatever follows.
    pub fn take(&mut self, frames: &[u8]) -> Result<Option<Hello>, &'static str> {
        const CUT: &str = "a frame of an Initial is cut";
        let mut bytes = Bytes(frames);
        if bytes.0.is_empty() {
            return Err("an Initial has no frame");
        }
        while !bytes.0.is_empty() {
            match bytes.number().ok_or(CUT)? {
                PADDING | PING => {}
                kind @ (ACK | ACK_ECN) => skip_ack(&mut bytes, kind == ACK_ECN).ok_or(CUT)?,
                CRYPTO => {
                    let offset = bytes.number().ok_or(CUT)?;
                    let len = bytes.number().ok_or(CUT)?;
                    let len = usize::try_from(len).map_err(|_| CUT)?;
                    let piece = bytes.take(len).ok_or(CUT)?;
                    self.put(offset, piece)?;
                }
                // The client gave it up: what follows does not matter.
                CLOSE => return Err("the client closed the connection within its hello"),
                _ => return Err("an Initial has a frame that does not belong there"),
            }
        }
        match self.pieces.first() {
            Some((0, end)) => hello::read_message(&self.bytes[..*end]),
            _ => Ok(None),
        }
    }

    fn put(&mut self, offset: u64, piece: &[u8]) -> Result<(), &'static str> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = from.saturating_add(piece.len());
        if end > LEN_MAX {
            return Err("the hello is longer than 16 KiB");
        }
        if piece.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let overlaps = |it: &&(usize, usize)| it.0 < end && from < it.1;
        for (known_from, known_end) in self.pieces.iter().filter(overlaps) {
            let (from_both, end_both) = (from.max(*known_from), end.min(*known_end));
            if self.bytes[from_both..end_both] != piece[from_both - from..end_both - from] {
                return Err("bytes of the hello came twice and differ");
            }
        }
        self.bytes[from..end].copy_from_slice(piece);
        self.join(from, end)
    }

    /// Notes that there are bytes from here to there.
    fn join(&mut self, mut from: usize, mut end: usize) -> Result<(), &'static str> {
        self.pieces.retain(|(known_from, known_end)| {
            let touches = *known_from <= end && from <= *known_end;
            if touches {
                from = from.min(*known_from);
                end = end.max(*known_end);
            }
            !touches
        });
        if self.pieces.len() >= PIECES_MAX {
            return Err("the hello is in too many pieces");
        }
        let at = self.pieces.partition_point(|it| it.0 < from);
        self.pieces.insert(at, (from, end));
        Ok(())
    }
}

fn skip_ack(bytes: &mut Bytes<'_>, has_counts: bool) -> Option<()> {
    let _largest = bytes.number()?;
    let _delay = bytes.number()?;
    let ranges = bytes.number()?;
    let _first = bytes.number()?;
    let counts = if has_counts { 3 } else { 0 };
    // Each takes a byte at least, so this ends with the packet.
    for _ in 0..ranges.saturating_mul(2).saturating_add(counts) {
        bytes.number()?;
    }
    Some(())
}
