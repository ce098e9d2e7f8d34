//! What frames are made of: their heads, and what is known of one under way.

use super::BLOCK_MAX;
use crate::proto::notes::Stop;

/// Bytes before each payload.
pub(super) const HEADER: usize = 9;

// Kinds (RFC 9113, 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

// Flags.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

pub(super) const SETTING_TABLE_SIZE: u16 = 1;

/// What a frame says of itself before its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// See the drawing in the module's documentation.
#[derive(Debug)]
pub(super) enum State {
    Header(Vec<u8>),
    Whole(Head, Vec<u8>),
    Data(Data),
    Skip(u64),
}

impl State {
    /// What begins with this head.
    pub(super) fn begin(head: Head) -> Result<Self, Stop> {
        Ok(match head.kind {
            DATA => {
                let padded = head.flags & PADDED != 0;
                if padded && head.length == 0 {
                    return Err(Stop::Malformed);
                }
                Self::Data(Data {
                    stream: head.stream,
                    content: head.length,
                    padding: 0,
                    padded,
                    end: head.flags & END_STREAM != 0,
                })
            }
            HEADERS | RST_STREAM..=CONTINUATION => {
                if head.length as usize > BLOCK_MAX {
                    return Err(Stop::TooLarge);
                }
                Self::Whole(head, Vec::new())
            }
            _ => Self::Skip(u64::from(head.length)),
        })
    }
}

/// A DATA frame under way.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) stream: u32,
    /// Bytes of content that are still to come.
    pub(super) content: u32,
    pub(super) padding: u32,
    /// The byte with the length of the padding is still to come.
    pub(super) padded: bool,
    pub(super) end: bool,
}

/// A block of compressed headers, so far.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) promised: Option<u32>,
    pub(super) end: bool,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// The first frame of a block, without its padding and priority.
    pub(super) fn begin(head: Head, payload: &[u8]) -> Option<Self> {
        let mut rest = payload;
        let mut padding = 0;
        if head.flags & PADDED != 0 {
            let (first, others) = rest.split_first()?;
            (padding, rest) = (usize::from(*first), others);
        }
        let mut promised = None;
        if head.kind == PUSH_PROMISE {
            let (id, others) = rest.split_at_checked(4)?;
            let id = u32::from_be_bytes(id.try_into().ok()?);
            (promised, rest) = (Some(id & !(1 << 31)), others);
        } else if head.flags & PRIORITY != 0 {
            rest = rest.get(5..)?;
        }
        let bytes = rest.get(..rest.len().checked_sub(padding)?)?.to_vec();
        Some(Self {
            stream: head.stream,
            promised,
            end: head.kind == HEADERS && head.flags & END_STREAM != 0,
            bytes,
        })
    }
}

pub(super) fn head(bytes: &[u8]) -> Head {
    let number =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Head {
        length: number(0) >> 8,
        kind: bytes[3],
        flags: bytes[4],
        stream: number(5) & !(1 << 31),
    }
}

/// Whether a server begins with SETTINGS, as it must; `None`: more are needed.
pub fn begins_with_settings(bytes: &[u8]) -> Option<bool> {
    // Length below 256, kind 4, no flags, stream 0.
    let expected: [Option<u8>; HEADER] = [
        Some(0),
        Some(0),
        None,
        Some(SETTINGS),
        Some(0),
        Some(0),
        Some(0),
        Some(0),
        Some(0),
    ];
    for (byte, expected) in bytes.iter().zip(expected) {
        if expected.is_some_and(|expected| expected != *byte) {
            return Some(false);
        }
    }
    (bytes.len() >= HEADER).then_some(true)
}
