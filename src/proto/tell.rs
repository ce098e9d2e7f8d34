//! To whom a conversation tells its notes, one by one as they are made, and how much it
//! may tell.
//!
//! Header compression lets a few bytes stand for kilobytes: what is decompressed is paid
//! for from a budget that grows with what was shown. All else is bounded by its own
//! form: the smallest thing that a note is made of has five bytes.
//!
//! Invariant, fuzzed: the notes of a session weigh no more than [`TOLD_MAX`] times what
//! was fed, and [`TOLD_FREE`]. Weights are those of text: what a person is shown of a note
//! is no longer than its weight.

use super::notes::{Field, Frame, Note};

/// How many times what was fed the decompressed headers of a session may weigh.
const UNPACKED_MAX: u64 = 16;

/// … and so much more, for a session that has only begun.
const UNPACKED_FREE: u64 = 64 * 1024;

/// How many times what was fed all notes of a session weigh at the most: once more as
/// much as the headers, for all that is not compressed.
pub const TOLD_MAX: u64 = 2 * UNPACKED_MAX;

/// … and so much more.
pub const TOLD_FREE: u64 = UNPACKED_FREE + 4096;

/// What each piece counts besides its bytes: it has a note even where it has one byte.
pub const PIECE: u64 = 8;

/// What a note weighs besides the bytes of peers in it.
const NOTE: u64 = 96;

/// What a field weighs besides its bytes: its blanks, and `[7 bytes masked]`.
const FIELD: u64 = 24;

/// Takes notes.
pub trait Tell {
    /// One more.
    fn tell(&mut self, note: Note);
}

impl Tell for Vec<Note> {
    fn tell(&mut self, note: Note) {
        self.push(note);
    }
}

/// What a session has fed and told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    fed: u64,
    told: u64,
}

impl Budget {
    /// A piece of so many bytes is fed.
    pub(super) const fn feed(&mut self, bytes: usize) {
        self.fed += bytes as u64 + PIECE;
    }

    /// What decompressed headers may still weigh.
    const fn room(&self) -> u64 {
        (UNPACKED_MAX * self.fed + UNPACKED_FREE).saturating_sub(self.told)
    }
}

/// The way from a parser to whoever takes its notes.
pub(super) struct Teller<'a> {
    budget: &'a mut Budget,
    to: &'a mut dyn Tell,
}

impl<'a> Teller<'a> {
    pub(super) fn new(budget: &'a mut Budget, to: &'a mut dyn Tell) -> Self {
        Self { budget, to }
    }

    pub(super) fn tell(&mut self, note: Note) {
        self.budget.told += weight(&note);
        self.to.tell(note);
    }

    /// What decompressed headers may weigh now, with the note that has them.
    pub(super) fn room(&self) -> u64 {
        self.budget.room().saturating_sub(NOTE)
    }
}

/// What is shown of these bytes: what is not printable takes four; behind `=` and before
/// `@` something may be masked by three.
fn shown(bytes: &[u8]) -> u64 {
    let shown = |byte: &u8| match byte {
        b'\\' => 2,
        b'=' | b'@' => 3,
        b' '..=b'~' => 1,
        _ => 4,
    };
    bytes.iter().map(shown).sum()
}

/// What a field weighs; some of HTTP/2 stand in the line before them as well.
pub(super) fn field_weight(name: &[u8], value: &[u8]) -> u64 {
    let once = FIELD + shown(name) + shown(value);
    match name {
        b":path" | b"grpc-status" | b"grpc-message" => once + 2 * FIELD + shown(value),
        _ => once,
    }
}

fn fields_weight(fields: &[Field]) -> u64 {
    let weigh = |field: &Field| field_weight(&field.name, &field.value);
    fields.iter().map(weigh).sum()
}

/// What a note weighs: no less than the text that is made of it.
pub fn weight(note: &Note) -> u64 {
    NOTE + match note {
        Note::Request { line, fields } => shown(line) + fields_weight(fields),
        Note::Response {
            line,
            fields,
            answers,
        } => shown(line) + shown(answers.as_deref().unwrap_or_default()) + fields_weight(fields),
        Note::BadHead {
            line, fields, bad, ..
        } => shown(line) + fields_weight(fields) + shown(bad) + NOTE,
        Note::Trailers(fields) => fields_weight(fields),
        Note::Hello {
            server_name,
            protocols,
        } => {
            let names = protocols.iter().map(|name| 1 + shown(name));
            shown(server_name.as_deref().unwrap_or_default()) + names.sum::<u64>()
        }
        Note::Frame(Frame::Headers { fields, .. }) => fields_weight(fields),
        Note::Frame(Frame::Settings { values, .. }) => 36 * values.len() as u64,
        Note::Frame(Frame::GoAway { debug, .. }) => shown(debug),
        _ => 0,
    }
}
