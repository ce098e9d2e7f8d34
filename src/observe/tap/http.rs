//! Format `http`: what a conversation is, in words, two blanks before each line.

use std::io::Write as _;

use super::render::{escaped, escaped_all, word};
use crate::proto::conversation::{Conversation, LINE_SHOWN};
use crate::proto::grpc;
use crate::proto::http1::BAD_SHOWN;
use crate::proto::notes::{Field, Frame, Framing, Note, Stop};
use crate::proto::secrets::{self, Secrets};
use crate::proto::tell::Tell;
use crate::relay::Direction;

/// One session.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    conversation: Conversation,
}

impl Decoded {
    pub(super) fn chunk(&mut self, words: &mut Words<'_>, direction: Direction, bytes: &[u8]) {
        self.conversation.feed(direction, bytes, words);
    }

    pub(super) fn missing(&mut self, words: &mut Words<'_>, direction: Direction, n: u64) {
        self.conversation.skip(direction, n, words);
    }

    /// A direction has ended; `shown`: all of it was there to be decoded.
    pub(super) fn end(&mut self, words: &mut Words<'_>, direction: Direction, shown: bool) {
        if shown {
            self.conversation.end(direction, words);
        }
    }

    /// There is no more memory for it.
    pub(super) fn give_up(&mut self, words: &mut Words<'_>) {
        self.conversation.give_up(Stop::Memory, words);
    }

    /// Bytes of memory that it takes.
    pub(super) fn kept(&self) -> usize {
        self.conversation.kept()
    }
}

/// What is written of notes, and where.
pub(super) struct Words<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// `None`: nothing is masked.
    pub(super) secrets: Option<&'a Secrets>,
}

impl Tell for Words<'_> {
    fn tell(&mut self, note: Note) {
        self.note(&note);
    }
}

impl Words<'_> {
    // Writing to a Vec cannot fail.
    fn note(&mut self, note: &Note) {
        let out = &mut *self.out;
        out.extend_from_slice(b"  ");
        let _ = match note {
            Note::Request { .. } | Note::Response { .. } => return self.head(note),
            Note::BadHead { .. } => return self.bad_head(note),
            Note::Trailers(fields) => {
                out.extend_from_slice(b"trailers");
                return self.fields(fields);
            }
            Note::Body {
                framing,
                bytes,
                chunks,
                complete,
            } => body(out, *framing, *bytes, *chunks, *complete),
            Note::Switched => writeln!(out, "the protocol is switched"),
            Note::Preface => writeln!(out, "HTTP/2 begins"),
            Note::Frame(frame) => return self.frame(frame),
            Note::Forgotten { stream } => writeln!(
                out,
                "stream={stream} is followed no further: too many are open"
            ),
            Note::Message {
                stream,
                compressed,
                length,
            } => {
                let compressed = if *compressed { " compressed" } else { "" };
                writeln!(
                    out,
                    "gRPC message stream={stream} length={length}{compressed}"
                )
            }
            Note::Record {
                kind,
                version,
                length,
            } => writeln!(
                out,
                "TLS record {} version={} length={length}",
                record_name(*kind),
                version_name(*version)
            ),
            Note::Alert { level, description } => writeln!(
                out,
                "TLS alert {} {}",
                alert_level(*level),
                alert_name(*description)
            ),
            Note::Hello {
                server_name,
                protocols,
            } => {
                hello(out, server_name.as_deref(), protocols);
                Ok(())
            }
            Note::Raw { bytes } => writeln!(out, "not HTTP, {bytes} bytes"),
            Note::Stopped(stop) => writeln!(
                out,
                "{}; this direction is decoded no further",
                reason(*stop)
            ),
            Note::Unfollowed { bytes } => writeln!(out, "not decoded, {bytes} bytes"),
        };
    }

    fn head(&mut self, note: &Note) {
        match note {
            Note::Request { line, fields } => {
                self.request(line, false);
                self.fields(fields);
            }
            Note::Response {
                line,
                fields,
                answers,
            } => {
                self.text(line, false);
                match answers {
                    Some(request) => {
                        self.out.extend_from_slice(b" (answers ");
                        self.request(request, request.len() >= LINE_SHOWN);
                        self.out.push(b')');
                    }
                    None => self.out.extend_from_slice(b" (its request was not seen)"),
                }
                self.fields(fields);
            }
            _ => {}
        }
    }

    /// A head up to the line that makes it none, and why.
    fn bad_head(&mut self, note: &Note) {
        let Note::BadHead {
            line,
            fields,
            bad,
            number,
            rule,
        } = note
        else {
            return;
        };
        self.request(line, false);
        self.fields(fields);
        let _ = write!(self.out, "    line {number} breaks a rule, {rule}: ");
        let name = bad.split(|byte| *byte == b':').next().unwrap_or_default();
        let first = name.trim_ascii().split(u8::is_ascii_whitespace).next();
        let secret = |name: &[u8]| self.secrets.is_some_and(|secrets| secrets.is_header(name));
        // It may be one that is misspelt, or go on with one.
        let continues = bad.first().is_some_and(|byte| *byte <= b' ')
            && fields.last().is_some_and(|field| secret(&field.name));
        if continues || secret(name) || first.is_some_and(secret) {
            let _ = writeln!(self.out, "[{} bytes masked]", bad.len());
        } else {
            self.text(bad, bad.len() >= BAD_SHOWN);
            self.out.push(b'\n');
        }
    }

    /// The first line of a request; `cut`: that is not all of it.
    fn request(&mut self, line: &[u8], cut: bool) {
        let mut show = |byte| escaped(self.out, byte);
        match self.secrets {
            Some(secrets) => secrets::show_request(secrets, line, cut, &mut show),
            None => line.iter().copied().for_each(show),
        }
    }

    /// What may have URLs in it.
    fn text(&mut self, text: &[u8], cut: bool) {
        let mut show = |byte| escaped(self.out, byte);
        match self.secrets {
            Some(secrets) => secrets::show_text(secrets, text, cut, &mut show),
            None => text.iter().copied().for_each(show),
        }
    }

    /// Ends the line, and writes one for each field.
    fn fields(&mut self, fields: &[Field]) {
        self.out.push(b'\n');
        for Field { name, value } in fields {
            self.out.extend_from_slice(b"    ");
            escaped_all(self.out, name);
            self.out.extend_from_slice(b": ");
            if self.secrets.is_some_and(|secrets| secrets.is_header(name)) {
                let _ = write!(self.out, "[{} bytes masked]", value.len());
            } else {
                self.text(value, false);
            }
            self.out.push(b'\n');
        }
    }

    fn frame(&mut self, frame: &Frame) {
        let out = &mut *self.out;
        let _ = match frame {
            Frame::Headers { .. } => return self.headers(frame),
            Frame::Data {
                stream,
                length,
                end,
            } => writeln!(out, "DATA stream={stream} length={length}{}", over(*end)),
            Frame::Settings { ack: true, .. } => writeln!(out, "SETTINGS ack"),
            Frame::Settings { values, .. } => {
                out.extend_from_slice(b"SETTINGS");
                for (name, value) in values {
                    let _ = match setting_name(*name) {
                        Some(name) => write!(out, " {name}={value}"),
                        None => write!(out, " {name:#06x}={value}"),
                    };
                }
                writeln!(out)
            }
            Frame::Reset { stream, code } => {
                writeln!(
                    out,
                    "RST_STREAM stream={stream} error={}",
                    error_name(*code)
                )
            }
            Frame::GoAway { last, code, debug } => {
                let _ = write!(out, "GOAWAY last={last} error={} ", error_name(*code));
                escaped_all(out, debug);
                writeln!(out)
            }
            Frame::Window { stream, more } => {
                writeln!(out, "WINDOW_UPDATE stream={stream} more={more}")
            }
            Frame::Ping { ack: true } => writeln!(out, "PING ack"),
            Frame::Ping { ack: false } => writeln!(out, "PING"),
            Frame::Other {
                kind,
                flags,
                stream,
                length,
            } => writeln!(
                out,
                "frame kind={kind:#04x} flags={flags:#04x} stream={stream} length={length}"
            ),
        };
    }

    fn headers(&mut self, frame: &Frame) {
        let Frame::Headers {
            stream,
            promised,
            fields,
            truncated,
            end,
            trailers,
        } = frame
        else {
            return;
        };
        let kind = match (promised, trailers) {
            (Some(_), _) => "PUSH_PROMISE",
            (None, true) => "trailers",
            (None, false) => "HEADERS",
        };
        let out = &mut *self.out;
        let _ = write!(out, "{kind} stream={stream}{}", over(*end));
        if let Some(promised) = promised {
            let _ = write!(out, " promised={promised}");
        }
        if *truncated {
            out.extend_from_slice(b" (some fields are left out)");
        }
        let named = |name: &[u8]| fields.iter().find(|field| field.name == name);
        let grpc =
            named(b"content-type").is_some_and(|kind| kind.value.starts_with(b"application/grpc"));
        if let (true, Some(path)) = (grpc, named(b":path")) {
            out.extend_from_slice(b" gRPC call ");
            word(out, &path.value);
        }
        if let Some(status) = named(b"grpc-status") {
            out.extend_from_slice(b" gRPC status ");
            word(out, &status.value);
            let code = std::str::from_utf8(&status.value).ok();
            if let Some(name) = code
                .and_then(|it| it.parse().ok())
                .and_then(grpc::status_name)
            {
                let _ = write!(out, " {name}");
            }
            if let Some(message) = named(b"grpc-message") {
                out.extend_from_slice(b": ");
                message_of(out, &message.value);
            }
        }
        self.fields(fields);
    }
}

/// A message as whoever wrote it meant it: `%XX` stands for what HTTP/2 does not carry (gRPC
/// over HTTP/2, "Status-Message"). Letters and digits of any script are shown, all else
/// that is not ASCII may steer a terminal.
fn message_of(out: &mut Vec<u8>, message: &[u8]) {
    for part in secrets::percent_decoded(message).utf8_chunks() {
        for c in part.valid().chars() {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).as_bytes();
            if c.is_alphanumeric() {
                out.extend_from_slice(bytes);
            } else {
                escaped_all(out, bytes);
            }
        }
        escaped_all(out, part.invalid());
    }
}

const fn over(end: bool) -> &'static str {
    if end { " end" } else { "" }
}

fn body(
    out: &mut Vec<u8>,
    framing: Framing,
    bytes: u64,
    chunks: u64,
    complete: bool,
) -> std::io::Result<()> {
    let complete = if complete { "" } else { ", cut short" };
    match framing {
        Framing::Length => writeln!(out, "body of {bytes} bytes{complete}"),
        Framing::Chunked => writeln!(out, "body of {bytes} bytes in {chunks} chunks{complete}"),
        Framing::UntilClose => {
            writeln!(out, "body of {bytes} bytes up to the end{complete}")
        }
    }
}

fn hello(out: &mut Vec<u8>, server_name: Option<&[u8]>, protocols: &[Vec<u8>]) {
    out.extend_from_slice(b"TLS ClientHello sni=");
    word(out, server_name.unwrap_or(b"-"));
    out.extend_from_slice(b" alpn=");
    if protocols.is_empty() {
        out.push(b'-');
    }
    for (index, protocol) in protocols.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        word(out, protocol);
    }
    out.push(b'\n');
}

const fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Gap => "bytes are missing where something begins",
        Stop::TooLarge => "a head or frame is too large",
        Stop::Malformed => "this breaks the rules of its protocol",
        Stop::Compression => "these headers cannot be decompressed",
        Stop::Bomb => "these headers decompress to far more than was sent",
        Stop::Memory => "all that is decoded takes too much memory",
    }
}

fn record_name(kind: u8) -> String {
    let name = match kind {
        20 => "change_cipher_spec",
        21 => "alert",
        22 => "handshake",
        23 => "application_data",
        24 => "heartbeat",
        kind => return kind.to_string(),
    };
    name.to_owned()
}

fn alert_level(level: u8) -> String {
    let name = match level {
        1 => "warning",
        2 => "fatal",
        level => return level.to_string(),
    };
    name.to_owned()
}

/// RFC 8446, 6; RFC 5246, 7.2, for those that are no more.
fn alert_name(description: u8) -> String {
    let name = match description {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        description => return description.to_string(),
    };
    name.to_owned()
}

fn version_name(version: u16) -> String {
    let name = match version {
        0x0300 => "SSL3.0",
        0x0301 => "TLS1.0",
        0x0302 => "TLS1.1",
        // TLS 1.3 says so too (RFC 8446, 5.1).
        0x0303 => "TLS1.2",
        version => return format!("{version:#06x}"),
    };
    name.to_owned()
}

/// RFC 9113, 6.5.2; RFC 8441.
const fn setting_name(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "HEADER_TABLE_SIZE",
        2 => "ENABLE_PUSH",
        3 => "MAX_CONCURRENT_STREAMS",
        4 => "INITIAL_WINDOW_SIZE",
        5 => "MAX_FRAME_SIZE",
        6 => "MAX_HEADER_LIST_SIZE",
        8 => "ENABLE_CONNECT_PROTOCOL",
        _ => return None,
    })
}

/// RFC 9113, 7.
fn error_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = NAMES.get(code as usize);
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests;
