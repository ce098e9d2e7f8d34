//! Frames of HTTP/2 and the headers in them: RFC 9113, RFC 7541.
//!
//! ```text
//!           9 bytes            payload
//!  Header ─────────► Whole ───────────────► a note, Header      (all but DATA)
//!                    Data  ── as it comes ─► a note, Header
//!                    Skip  ── unread ──────► Header              (kinds not known)
//! ```
//! Each direction has a table of header compression of its own: whatever makes it
//! lose a block of headers ends what can be told of that direction.

mod frames;

use std::collections::BTreeMap;

use loona_hpack::Decoder;

use super::grpc::Messages;
use super::http1;
use super::notes::{Field, Frame, Note, Stop};
use super::tell::{self, Teller};
use crate::relay::Direction;

pub use frames::begins_with_settings;
use frames::{
    ACK, Block, CONTINUATION, Data, END_HEADERS, GOAWAY, HEADER, HEADERS, Head, PING, PUSH_PROMISE,
    RST_STREAM, SETTING_TABLE_SIZE, SETTINGS, State, WINDOW_UPDATE, head,
};

/// What a client of HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a block of headers, or of another frame that is read as a whole.
pub const BLOCK_MAX: usize = 64 * 1024;

/// Bytes of a table of header compression; a sender that uses a larger one is not
/// followed.
pub const TABLE_MAX: usize = 64 * 1024;

/// Streams of which something is remembered. Of more those are forgotten that are over, then
/// those that have no messages, then those that said nothing for the longest time.
pub const STREAMS_MAX: usize = 256;

/// Bytes of decoded fields of one block; more are left out.
const FIELDS_MAX: u64 = 256 * 1024;

/// How many times its own size a connection's headers may decompress to, told or not, and
/// so much more: what it costs to find that out is bounded as well.
const UNPACKED_MAX: u64 = 1024;
const UNPACKED_FREE: u64 = 4 << 20;

/// What an entry of a table counts besides its bytes (RFC 7541, 4.1).
const ENTRY: usize = 32;

/// Both directions of a connection.
#[derive(Debug)]
pub struct Http2 {
    halves: [Half; 2],
    streams: BTreeMap<u32, Stream>,
    /// Counts up, to tell which stream was used last.
    uses: u64,
}

/// What is remembered of a stream.
#[derive(Debug, Default)]
struct Stream {
    /// When it was used last.
    used: u64,
    grpc: bool,
    headers_seen: [bool; 2],
    ended: [bool; 2],
    messages: [Messages; 2],
}

impl Stream {
    /// Whether something would be lost with it: headers were there, and what follows them is
    /// still to come. A direction that has not begun, or is not shown, begins anew.
    fn is_open(&self) -> bool {
        let mut ways = self.headers_seen.iter().zip(self.ended);
        ways.any(|(seen, ended)| *seen && !ended)
    }
}

struct Half {
    state: State,
    decoder: Decoder<'static>,
    table_max: usize,
    /// Headers that go on in the next frame.
    block: Option<Block>,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    /// Bytes of blocks, and what they came to.
    packed: u64,
    unpacked: u64,
}

impl std::fmt::Debug for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Half")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Half {
    fn new(preface: bool) -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(4096);
        Self {
            state: State::Header(Vec::new()),
            decoder,
            table_max: 4096,
            block: None,
            preface_left: if preface { PREFACE.len() } else { 0 },
            packed: 0,
            unpacked: 0,
        }
    }
}

impl Http2 {
    /// A connection whose client still has to send its preface.
    pub fn new() -> Self {
        Self {
            halves: [Half::new(true), Half::new(false)],
            streams: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Takes bytes of one direction; `Some`: it cannot be followed any further.
    pub(super) fn feed(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        notes: &mut Teller<'_>,
    ) -> Option<Stop> {
        let half = &mut self.halves[direction.index()];
        let skipped = bytes.len().min(half.preface_left);
        let at = PREFACE.len() - half.preface_left;
        if bytes[..skipped] != PREFACE[at..at + skipped] {
            return Some(Stop::Malformed);
        }
        half.preface_left -= skipped;
        if skipped > 0 && half.preface_left == 0 {
            notes.tell(Note::Preface);
        }
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            match self.step(direction, rest, notes) {
                Ok(used) => rest = &rest[used..],
                Err(stop) => return Some(stop),
            }
        }
        None
    }

    /// So many bytes are missing; `false`: what follows is not known any more. Only
    /// within the content of one frame that no table depends on can they be.
    pub fn skip(&mut self, direction: Direction, n: u64) -> bool {
        let half = &mut self.halves[direction.index()];
        match &mut half.state {
            State::Skip(left) if n < *left => *left -= n,
            State::Data(data) if !data.padded && n < u64::from(data.content) => {
                data.content -= n as u32;
                if let Some(stream) = self.streams.get_mut(&data.stream) {
                    stream.messages[direction.index()].skip(n);
                }
            }
            _ => return false,
        }
        true
    }

    /// Bytes of memory that it takes at the most.
    pub fn kept(&self) -> usize {
        let kept = |half: &Half| {
            let block = half
                .block
                .as_ref()
                .map_or(0, |block| block.bytes.capacity());
            let payload = match &half.state {
                State::Header(bytes) | State::Whole(_, bytes) => bytes.capacity(),
                State::Data(_) | State::Skip(_) => 0,
            };
            // An entry of the table counts 32 bytes (RFC 7541, 4.1) and takes thrice that.
            let table = (half.unpacked as usize).min(half.table_max);
            block + payload + 3 * table
        };
        let streams = self.streams.len() * 2 * size_of::<Stream>();
        size_of::<Self>() + self.halves.iter().map(kept).sum::<usize>() + streams
    }

    fn step(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        notes: &mut Teller<'_>,
    ) -> Result<usize, Stop> {
        let half = &mut self.halves[direction.index()];
        match &mut half.state {
            State::Header(header) => {
                let n = bytes.len().min(HEADER - header.len());
                header.extend_from_slice(&bytes[..n]);
                if header.len() == HEADER {
                    let head = head(header);
                    self.begin(direction, head, notes)?;
                }
                Ok(n)
            }
            State::Whole(head, payload) => {
                let (head, missing) = (*head, head.length as usize - payload.len());
                let n = bytes.len().min(missing);
                payload.extend_from_slice(&bytes[..n]);
                if n == missing {
                    let payload = std::mem::take(payload);
                    half.state = State::Header(Vec::new());
                    self.whole(direction, head, &payload, notes)?;
                }
                Ok(n)
            }
            State::Skip(left) => {
                let n = (bytes.len() as u64).min(*left);
                *left -= n;
                if *left == 0 {
                    half.state = State::Header(Vec::new());
                }
                Ok(n as usize)
            }
            State::Data(_) => self.data(direction, bytes, notes),
        }
    }

    /// A frame begins.
    fn begin(
        &mut self,
        direction: Direction,
        head: Head,
        notes: &mut Teller<'_>,
    ) -> Result<(), Stop> {
        let half = &mut self.halves[direction.index()];
        // Nothing may come between the frames of a block.
        let open_block = half.block.as_ref().map(|block| block.stream);
        let wanted_block = (head.kind == CONTINUATION).then_some(head.stream);
        if open_block != wanted_block {
            return Err(Stop::Malformed);
        }
        half.state = State::begin(head)?;
        if let State::Skip(_) = half.state {
            let Head {
                length,
                kind,
                flags,
                stream,
            } = head;
            notes.tell(Note::Frame(Frame::Other {
                kind,
                flags,
                stream,
                length,
            }));
        }
        // An empty frame has no payload that would end it.
        match half.state {
            State::Data(Data { padded: false, .. }) => {
                self.announce(direction, notes);
                Ok(())
            }
            State::Whole(..) if head.length == 0 => {
                half.state = State::Header(Vec::new());
                self.whole(direction, head, &[], notes)
            }
            State::Skip(0) => {
                half.state = State::Header(Vec::new());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The content's length of a DATA frame is known.
    fn announce(&mut self, direction: Direction, notes: &mut Teller<'_>) {
        let half = &mut self.halves[direction.index()];
        let State::Data(data) = &half.state else {
            return;
        };
        let (stream, end) = (data.stream, data.end);
        notes.tell(Note::Frame(Frame::Data {
            stream,
            length: data.content,
            end,
        }));
        if data.content == 0 && data.padding == 0 {
            half.state = State::Header(Vec::new());
        }
        if end {
            self.stream(stream, notes).ended[direction.index()] = true;
        }
    }

    fn data(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        notes: &mut Teller<'_>,
    ) -> Result<usize, Stop> {
        let half = &mut self.halves[direction.index()];
        let State::Data(data) = &mut half.state else {
            return Err(Stop::Malformed);
        };
        if data.padded {
            data.padded = false;
            data.padding = u32::from(bytes[0]);
            data.content = (data.content - 1)
                .checked_sub(data.padding)
                .ok_or(Stop::Malformed)?;
            self.announce(direction, notes);
            return Ok(1);
        }
        if data.content > 0 {
            let n = bytes.len().min(data.content as usize);
            data.content -= n as u32;
            let stream = data.stream;
            let over = data.content == 0 && data.padding == 0;
            if over {
                half.state = State::Header(Vec::new());
            }
            if let Some(known) = self.streams.get_mut(&stream)
                && known.grpc
            {
                self.uses += 1;
                known.used = self.uses;
                known.messages[direction.index()].feed(&bytes[..n], |message| {
                    notes.tell(Note::Message {
                        stream,
                        compressed: message.compressed,
                        length: message.length,
                    });
                });
            }
            return Ok(n);
        }
        let n = bytes.len().min(data.padding as usize);
        data.padding -= n as u32;
        if data.padding == 0 {
            half.state = State::Header(Vec::new());
        }
        Ok(n)
    }

    /// A frame that is read as a whole is there.
    fn whole(
        &mut self,
        direction: Direction,
        head: Head,
        payload: &[u8],
        notes: &mut Teller<'_>,
    ) -> Result<(), Stop> {
        let Head { flags, stream, .. } = head;
        let number = |at: usize| {
            let bytes = payload
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or(Stop::Malformed)
        };
        let frame = match head.kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                return self.headers(direction, head, payload, notes);
            }
            SETTINGS => {
                if !payload.len().is_multiple_of(6) {
                    return Err(Stop::Malformed);
                }
                let values = payload.chunks_exact(6).map(|pair| {
                    let value = [pair[2], pair[3], pair[4], pair[5]];
                    (
                        u16::from_be_bytes([pair[0], pair[1]]),
                        u32::from_be_bytes(value),
                    )
                });
                let values: Vec<(u16, u32)> = values.collect();
                self.table_sizes(direction, &values);
                Frame::Settings {
                    ack: flags & ACK != 0,
                    values,
                }
            }
            RST_STREAM => {
                self.streams.remove(&stream);
                Frame::Reset {
                    stream,
                    code: number(0)?,
                }
            }
            GOAWAY => Frame::GoAway {
                last: number(0)? & !(1 << 31),
                code: number(4)?,
                debug: payload[8..].iter().take(256).copied().collect(),
            },
            WINDOW_UPDATE => Frame::Window {
                stream,
                more: number(0)? & !(1 << 31),
            },
            PING => Frame::Ping {
                ack: flags & ACK != 0,
            },
            kind => Frame::Other {
                kind,
                flags,
                stream,
                length: head.length,
            },
        };
        notes.tell(Note::Frame(frame));
        Ok(())
    }

    /// What one side allows is the bound of what the other side's table may become.
    fn table_sizes(&mut self, direction: Direction, values: &[(u16, u32)]) {
        let other = &mut self.halves[direction.sink().outgoing().index()];
        for (_, size) in values
            .iter()
            .filter(|(name, _)| *name == SETTING_TABLE_SIZE)
        {
            // What was allowed before may still be on its way.
            let size = (*size as usize).min(TABLE_MAX);
            other.table_max = other.table_max.max(size);
            other.decoder.set_max_allowed_table_size(other.table_max);
        }
    }

    fn headers(
        &mut self,
        direction: Direction,
        head: Head,
        payload: &[u8],
        notes: &mut Teller<'_>,
    ) -> Result<(), Stop> {
        let half = &mut self.halves[direction.index()];
        let mut block = match half.block.take() {
            Some(mut block) => {
                block.bytes.extend_from_slice(payload);
                block
            }
            None => Block::begin(head, payload).ok_or(Stop::Malformed)?,
        };
        if block.bytes.len() > BLOCK_MAX {
            return Err(Stop::TooLarge);
        }
        if head.flags & END_HEADERS == 0 {
            half.block = Some(block);
            return Ok(());
        }
        let (mut fields, mut weight, mut truncated) = (Vec::new(), 0, false);
        let bytes = std::mem::take(&mut block.bytes);
        let room = notes.room().min(FIELDS_MAX);
        let mut unpacked = 0;
        let decoded = half.decoder.decode_with_cb(&bytes, |name, value| {
            unpacked += (name.len() + value.len() + ENTRY) as u64;
            truncated = truncated || {
                weight += tell::field_weight(&name, &value);
                weight > room
            };
            if !truncated {
                let (name, value) = (name.into_owned(), value.into_owned());
                fields.push(Field { name, value });
            }
        });
        half.packed += bytes.len() as u64;
        half.unpacked += unpacked;
        if decoded.is_err() {
            return Err(Stop::Compression);
        }
        let bomb = half.unpacked > UNPACKED_MAX * half.packed + UNPACKED_FREE;
        let note = self.block(direction, &block, fields, truncated, notes);
        notes.tell(note);
        if bomb { Err(Stop::Bomb) } else { Ok(()) }
    }

    fn block(
        &mut self,
        direction: Direction,
        block: &Block,
        fields: Vec<Field>,
        truncated: bool,
        notes: &mut Teller<'_>,
    ) -> Note {
        let grpc = http1::values(&fields, "content-type")
            .any(|kind| kind.starts_with(b"application/grpc"));
        let index = direction.index();
        let stream = self.stream(block.promised.unwrap_or(block.stream), notes);
        stream.grpc |= grpc;
        let informational = http1::values(&fields, ":status").any(|it| it.starts_with(b"1"));
        let trailers = block.promised.is_none() && stream.headers_seen[index];
        if block.promised.is_none() {
            stream.headers_seen[index] |= !informational;
            stream.ended[index] |= block.end;
        }
        Note::Frame(Frame::Headers {
            stream: block.stream,
            promised: block.promised,
            fields,
            truncated,
            end: block.end,
            trailers,
        })
    }

    /// A stream, remembered from now on. Another makes room for it, if it must; one that is
    /// not over is told of.
    fn stream(&mut self, id: u32, notes: &mut Teller<'_>) -> &mut Stream {
        self.uses += 1;
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
            let rank = |it: &Stream| (it.is_open(), it.grpc, it.used);
            let least = self.streams.iter().min_by_key(|(_, it)| rank(it));
            if let Some((least, open)) = least.map(|(id, it)| (*id, it.is_open())) {
                self.streams.remove(&least);
                if open {
                    notes.tell(Note::Forgotten { stream: least });
                }
            }
        }
        let stream = self.streams.entry(id).or_default();
        stream.used = self.uses;
        stream
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self::new()
    }
}
