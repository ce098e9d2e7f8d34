//! Format `pcapng`: packets made up from the streams of a session's client leg,
//! for Wireshark and its like (draft-ietf-opsawg-pcapng).
//!
//! A session is one TCP connection from the client to the listener: a handshake,
//! segments with the bytes of both directions, FINs and RSTs. What the client is
//! sent is what the upstream sent. Bytes that are missing leave a hole in the
//! sequence numbers, which the reader reports as not captured.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::addresses::{Pair, is_unix};
use super::feed::{Close, End, Opening, SessionNumber, StreamEnd};
use super::packet::{ACK, FIN, MSS, PSH, RST, SYN, Segment};
use crate::net::word::Text;
use crate::relay::Direction;
use crate::relay::ending::{Cause, Who};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets begin with an IP header, of whichever family (LINKTYPE_RAW).
const LINKTYPE_RAW: u16 = 101;

const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_APPLICATION: u16 = 4;
const OPTION_FLAGS: u16 = 2;

/// What every file begins with: a section and its only interface.
pub(super) fn prologue() -> Vec<u8> {
    let mut out = Vec::new();
    let mut section = Block::new(SECTION_HEADER);
    section.u32(BYTE_ORDER_MAGIC);
    section.u16(1);
    section.u16(0);
    // The section's length is not known.
    section.u32(u32::MAX);
    section.u32(u32::MAX);
    let version = concat!("thalweg ", env!("CARGO_PKG_VERSION"));
    section.option(OPTION_APPLICATION, version.as_bytes());
    section.finish(&mut out);
    let mut interface = Block::new(INTERFACE);
    interface.u16(LINKTYPE_RAW);
    interface.u16(0);
    interface.u32(0);
    interface.option(OPTION_NAME, b"thalweg");
    // Times are in nanoseconds: ten to the minus ninth.
    interface.option(OPTION_RESOLUTION, &[9]);
    interface.finish(&mut out);
    out
}

/// A block under construction, little-endian.
struct Block {
    bytes: Vec<u8>,
    options: bool,
}

impl Block {
    fn new(kind: u32) -> Self {
        let mut block = Self {
            bytes: Vec::new(),
            options: false,
        };
        block.u32(kind);
        // Its length, known at the end.
        block.u32(0);
        block
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// An option; a value longer than its length can say is cut.
    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.options = true;
        self.u16(code);
        self.u16(value.len() as u16);
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        if self.options {
            self.u32(0);
        }
        let length = self.bytes.len() as u32 + 4;
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.u32(length);
        out.extend_from_slice(&self.bytes);
    }
}

/// One session as a TCP connection.
#[derive(Debug)]
pub(super) struct Stream {
    pair: Pair,
    opened: SystemTime,
    /// The first sequence number of each direction, and the next one.
    initial: [u32; 2],
    next: [u32; 2],
    /// Bytes before the first that could be shown: the connection begins behind them.
    before: [u64; 2],
    packets: [u16; 2],
    finished: [bool; 2],
    reset: bool,
    /// For the next packet.
    comments: Vec<String>,
}

impl Stream {
    pub(super) fn new(number: SessionNumber, opening: &Opening) -> Self {
        let SessionNumber { reactor, id } = number;
        // Of sessions that come from the same port, one after the other, the numbers
        // must differ; else they look like one.
        let initial = (id as u32).wrapping_mul(0x9E37_79B1) ^ (u32::from(reactor) << 24);
        let initial = [initial, initial.rotate_left(16)];
        let mut about = format!("forward={} id={reactor}.{id}", Text(&opening.forward));
        let (client, listener) = (&opening.client, &opening.listener);
        if is_unix(client) || is_unix(listener) {
            // Writing to a String cannot fail.
            let _ = write!(about, " client={client} listener={listener}");
        }
        let mut comments = vec![about];
        let [up, down] = opening.before;
        if opening.before != [0; 2] {
            comments.push(format!(
                "nobody looked at the {up} bytes up and {down} bytes down before this"
            ));
        }
        Self {
            pair: Pair::new(client, listener, id),
            opened: opening.at,
            initial,
            next: initial,
            before: opening.before,
            packets: [0; 2],
            finished: [false; 2],
            reset: false,
            comments,
        }
    }

    /// The handshake.
    pub(super) fn open(&mut self, out: &mut Vec<u8>, sessions_missing: u64) {
        if sessions_missing > 0 {
            self.comments.push(format!(
                "{sessions_missing} sessions before this one are missing: the tap could not keep up"
            ));
        }
        let at = self.opened;
        self.packet(out, at, Direction::Up, SYN, &[]);
        self.packet(out, at, Direction::Down, SYN | ACK, &[]);
        self.packet(out, at, Direction::Up, ACK, &[]);
    }

    pub(super) fn chunk(
        &mut self,
        out: &mut Vec<u8>,
        at: SystemTime,
        direction: Direction,
        bytes: &[u8],
    ) {
        let segments = bytes.chunks(MSS).count();
        for (index, segment) in bytes.chunks(MSS).enumerate() {
            let push = if index + 1 == segments { PSH } else { 0 };
            self.packet(out, at, direction, ACK | push, segment);
        }
        self.packet(out, at, opposite(direction), ACK, &[]);
    }

    /// Bytes that leave a hole.
    pub(super) fn missing(&mut self, direction: Direction, n: u64) {
        let next = &mut self.next[direction.index()];
        *next = next.wrapping_add(n as u32);
        self.comments.push(format!(
            "{n} bytes are missing here: the tap could not keep up"
        ));
    }

    /// From here on nothing is shown.
    pub(super) fn limit(&mut self, max: u64) {
        self.comments.push(format!(
            "max_bytes_per_session = {max} is reached: no more is shown"
        ));
    }

    /// Packets before the next one did not reach the target.
    pub(super) fn lost_before(&mut self) {
        let text = "packets before this one are lost: the target failed";
        if !self.comments.iter().any(|it| it == text) {
            self.comments.push(text.to_owned());
        }
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>, end: &End) {
        self.skip_to(end.direction, end.total);
        match end.how {
            StreamEnd::Orderly => self.finish(out, end.at, end.direction),
            StreamEnd::Failed => self.abort(out, end.at, end.direction),
        }
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, close: &Close) {
        for (direction, total) in Direction::BOTH.into_iter().zip(close.closing.totals) {
            if !self.finished[direction.index()] {
                self.skip_to(direction, total);
            }
        }
        if let Some(process) = close.closing.moved_to {
            self.comments.push(format!(
                "goes on in process {process}, where it is not shown"
            ));
            return self.packet(out, close.at, Direction::Up, ACK, &[]);
        }
        let orderly = close.closing.ending.is_some_and(|ending| {
            ending.who == Who::Both || matches!(ending.cause, Cause::Finished)
        });
        if orderly {
            for direction in Direction::BOTH {
                self.finish(out, close.at, direction);
            }
        } else {
            // Whoever is at fault, it is the forwarder that tells the client.
            self.abort(out, close.at, Direction::Down);
        }
    }

    /// What was not shown counts all the same.
    fn skip_to(&mut self, direction: Direction, total: u64) {
        let index = direction.index();
        let total = total.saturating_sub(self.before[index]);
        // Behind the SYN.
        let next = self.initial[index]
            .wrapping_add(1)
            .wrapping_add(total as u32);
        if self.finished[index] || next == self.next[index] {
            return;
        }
        let hidden = next.wrapping_sub(self.next[index]);
        self.next[index] = next;
        self.comments
            .push(format!("{hidden} bytes before this are not shown"));
    }

    fn finish(&mut self, out: &mut Vec<u8>, at: SystemTime, direction: Direction) {
        if self.reset || self.finished[direction.index()] {
            return;
        }
        self.finished[direction.index()] = true;
        self.packet(out, at, direction, FIN | ACK, &[]);
        self.packet(out, at, opposite(direction), ACK, &[]);
    }

    fn abort(&mut self, out: &mut Vec<u8>, at: SystemTime, direction: Direction) {
        let over = self.finished == [true; 2];
        if !self.reset && !over {
            self.packet(out, at, direction, RST | ACK, &[]);
            self.reset = true;
        }
    }

    fn packet(
        &mut self,
        out: &mut Vec<u8>,
        at: SystemTime,
        direction: Direction,
        flags: u8,
        payload: &[u8],
    ) {
        let (mine, theirs) = (direction.index(), opposite(direction).index());
        let (from, to) = match direction {
            Direction::Up => (self.pair.client, self.pair.listener),
            Direction::Down => (self.pair.listener, self.pair.client),
        };
        let segment = Segment {
            from,
            to,
            sequence: self.next[mine],
            acknowledgment: if flags & ACK == 0 {
                0
            } else {
                self.next[theirs]
            },
            flags,
            number: self.packets[mine],
            payload,
        };
        self.packets[mine] = self.packets[mine].wrapping_add(1);
        // SYN and FIN count as a byte each.
        let counted = u32::from(flags & (SYN | FIN) != 0);
        self.next[mine] = self.next[mine].wrapping_add(payload.len() as u32 + counted);
        let comments = std::mem::take(&mut self.comments);
        write_packet(out, at, direction, &segment, &comments);
    }
}

const fn opposite(direction: Direction) -> Direction {
    direction.sink().outgoing()
}

fn write_packet(
    out: &mut Vec<u8>,
    at: SystemTime,
    direction: Direction,
    segment: &Segment<'_>,
    comments: &[String],
) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.as_ref().map_or(0, Duration::as_nanos) as u64;
    let mut packet = Vec::with_capacity(segment.payload.len() + 80);
    segment.write(&mut packet);
    let mut block = Block::new(ENHANCED_PACKET);
    block.u32(0);
    block.u32((nanos >> 32) as u32);
    block.u32(nanos as u32);
    block.u32(packet.len() as u32);
    block.u32(packet.len() as u32);
    block.bytes.extend_from_slice(&packet);
    block.pad();
    for comment in comments {
        block.option(
            OPTION_COMMENT,
            comment.escape_debug().to_string().as_bytes(),
        );
    }
    // Inbound and outbound as the forwarder sees it.
    let flags: u32 = match direction {
        Direction::Up => 1,
        Direction::Down => 2,
    };
    block.option(OPTION_FLAGS, &flags.to_le_bytes());
    block.finish(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Kinds of the blocks; each is framed by its length, before and behind.
    fn kinds(mut bytes: &[u8]) -> Vec<usize> {
        let mut kinds = Vec::new();
        while !bytes.is_empty() {
            let length = number(bytes, 4);
            assert!(length.is_multiple_of(4) && length <= bytes.len());
            assert_eq!(number(bytes, length - 4), length);
            kinds.push(number(bytes, 0));
            bytes = &bytes[length..];
        }
        kinds
    }

    #[test]
    fn blocks_are_framed_whatever_they_hold() {
        assert_eq!(
            kinds(&prologue()),
            [SECTION_HEADER as usize, INTERFACE as usize]
        );
        for length in 0..9 {
            let segment = Segment {
                from: "192.0.2.1:1".parse().unwrap(),
                to: "192.0.2.2:2".parse().unwrap(),
                sequence: 1,
                acknowledgment: 2,
                flags: ACK,
                number: 0,
                payload: &vec![0; length],
            };
            let mut out = Vec::new();
            let comments = ["x".repeat(length), "\u{1b}[2J\n".to_owned()];
            let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(5_000_000_001);
            write_packet(&mut out, at, Direction::Up, &segment, &comments);
            assert_eq!(kinds(&out), [ENHANCED_PACKET as usize]);
            assert_eq!(number(&out, 12), 1);
            assert_eq!(number(&out, 16), 705_032_705);
            assert_eq!(number(&out, 20), 40 + length);
            assert!(!out.windows(4).any(|it| it == b"\x1b[2J"));
        }
    }
}
