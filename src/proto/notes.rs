//! What a conversation tells of the bytes it was shown. Bytes of peers are as they
//! came: whoever shows them escapes them.

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, as written.
    pub name: Vec<u8>,
    /// Its value, without the blanks around it.
    pub value: Vec<u8>,
}

/// One thing that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The head of an HTTP/1 request.
    Request {
        /// The first line, without its end.
        line: Vec<u8>,
        /// The fields.
        fields: Vec<Field>,
    },
    /// The head of an HTTP/1 response.
    Response {
        /// The first line, without its end.
        line: Vec<u8>,
        /// The fields.
        fields: Vec<Field>,
        /// The first line of the request that it answers, cut to a readable length;
        /// `None`: that was not seen.
        answers: Option<Vec<u8>>,
    },
    /// A head of HTTP/1 with a line that breaks the rules. What it means is not known.
    BadHead {
        /// The first line, without its end; empty if that is the bad one.
        line: Vec<u8>,
        /// The fields up to the bad line.
        fields: Vec<Field>,
        /// The bad line, without its end, cut to a readable length.
        bad: Vec<u8>,
        /// Which line that is, from 1.
        number: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The body of an HTTP/1 message, once it is over or can be followed no more.
    Body {
        /// How its end is found.
        framing: Framing,
        /// Bytes of content.
        bytes: u64,
        /// Chunks, where it is chunked.
        chunks: u64,
        /// Whether all of it was there.
        complete: bool,
    },
    /// Fields behind a chunked body.
    Trailers(Vec<Field>),
    /// From here on both directions speak something else.
    Switched,
    /// HTTP/2 begins.
    Preface,
    /// A frame of HTTP/2.
    Frame(Frame),
    /// A message of gRPC begins.
    Message {
        /// Its stream.
        stream: u32,
        /// Whether its content is compressed.
        compressed: bool,
        /// Bytes of content.
        length: u32,
    },
    /// A stream of HTTP/2 that is not over is forgotten, because too many are open: its
    /// messages are told of no more, and its trailers not told from headers.
    Forgotten {
        /// Its number.
        stream: u32,
    },
    /// A record of TLS begins.
    Record {
        /// 20 to 23, or 24.
        kind: u8,
        /// As written: 0x0301 to 0x0303.
        version: u16,
        /// Bytes of content.
        length: u16,
    },
    /// What an alert of TLS says that is not encrypted.
    Alert {
        /// 1 a warning, 2 fatal.
        level: u8,
        /// Its number (RFC 8446, 6).
        description: u8,
    },
    /// What a TLS client asks for.
    Hello {
        /// The name of the server.
        server_name: Option<Vec<u8>>,
        /// The protocols it offers.
        protocols: Vec<Vec<u8>>,
    },
    /// So many bytes are none of all that.
    Raw {
        /// How many.
        bytes: u64,
    },
    /// This direction cannot be followed any further.
    Stopped(Stop),
    /// So many bytes of a direction that is not followed any more.
    Unfollowed {
        /// How many.
        bytes: u64,
    },
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`.
    Length,
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why a direction cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Bytes are missing, and what follows has no recognisable beginning.
    Gap,
    /// A head, a frame or a table is larger than what is kept of one.
    TooLarge,
    /// It breaks the rules of the protocol it began with.
    Malformed,
    /// Header compression of HTTP/2 failed: no later header can be read.
    Compression,
    /// Its headers decompress to far more than was sent.
    Bomb,
    /// All that is followed takes more memory than there is for it.
    Memory,
}

/// A frame of HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// HEADERS with its CONTINUATIONs, or PUSH_PROMISE.
    Headers {
        /// Its stream.
        stream: u32,
        /// The stream that is promised.
        promised: Option<u32>,
        /// The fields, pseudo-fields first.
        fields: Vec<Field>,
        /// Fields were left out: there are too many.
        truncated: bool,
        /// Its sender has said all on this stream.
        end: bool,
        /// They end a stream whose headers were there before.
        trailers: bool,
    },
    /// DATA.
    Data {
        /// Its stream.
        stream: u32,
        /// Bytes of content, without padding.
        length: u32,
        /// Its sender has said all on this stream.
        end: bool,
    },
    /// SETTINGS.
    Settings {
        /// The other side's are taken.
        ack: bool,
        /// Number and value of each.
        values: Vec<(u16, u32)>,
    },
    /// RST_STREAM.
    Reset {
        /// Its stream.
        stream: u32,
        /// Why.
        code: u32,
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that was looked at.
        last: u32,
        /// Why.
        code: u32,
        /// In words.
        debug: Vec<u8>,
    },
    /// WINDOW_UPDATE.
    Window {
        /// Its stream; 0: all of them.
        stream: u32,
        /// Bytes more.
        more: u32,
    },
    /// PING.
    Ping {
        /// It answers one.
        ack: bool,
    },
    /// PRIORITY, or a kind that is not known.
    Other {
        /// Its number.
        kind: u8,
        /// Its flags.
        flags: u8,
        /// Its stream.
        stream: u32,
        /// Bytes of its payload.
        length: u32,
    },
}
