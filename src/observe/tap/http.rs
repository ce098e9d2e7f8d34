//! Format `http`: what a conversation is, in words, two blanks before each line.

use std::io::Write as _;

use super::render::escaped_all;
use crate::proto::conversation::Conversation;
use crate::proto::grpc;
use crate::proto::notes::{Field, Frame, Framing, Note, Stop};
use crate::proto::secrets::is_secret_header;
use crate::relay::Direction;

/// One session.
#[derive(Debug)]
pub(super) struct Decoded {
    conversation: Conversation,
    unmask: bool,
    notes: Vec<Note>,
}

impl Decoded {
    pub(super) fn new(unmask: bool) -> Self {
        Self {
            conversation: Conversation::new(),
            unmask,
            notes: Vec::new(),
        }
    }

    pub(super) fn chunk(&mut self, out: &mut Vec<u8>, direction: Direction, bytes: &[u8]) {
        self.conversation.feed(direction, bytes, &mut self.notes);
        self.write(out);
    }

    pub(super) fn missing(&mut self, out: &mut Vec<u8>, direction: Direction, n: u64) {
        self.conversation.skip(direction, n, &mut self.notes);
        self.write(out);
    }

    /// A direction has ended; `shown`: all of it was there to be decoded.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, direction: Direction, shown: bool) {
        if shown {
            self.conversation.end(direction, &mut self.notes);
        }
        self.write(out);
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        let notes = std::mem::take(&mut self.notes);
        for note in &notes {
            self.note(out, note);
        }
        self.notes = notes;
        self.notes.clear();
    }

    // Writing to a Vec cannot fail.
    fn note(&self, out: &mut Vec<u8>, note: &Note) {
        out.extend_from_slice(b"  ");
        let _ = match note {
            Note::Request { .. } | Note::Response { .. } => return self.head(out, note),
            Note::Trailers(fields) => {
                out.extend_from_slice(b"trailers");
                return self.fields(out, fields);
            }
            Note::Body {
                framing,
                bytes,
                chunks,
                complete,
            } => body(out, *framing, *bytes, *chunks, *complete),
            Note::Switched => writeln!(out, "the protocol is switched"),
            Note::Preface => writeln!(out, "HTTP/2 begins"),
            Note::Frame(frame) => return self.frame(out, frame),
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

    fn head(&self, out: &mut Vec<u8>, note: &Note) {
        match note {
            Note::Request { line, fields } => {
                escaped_all(out, line);
                self.fields(out, fields);
            }
            Note::Response {
                line,
                fields,
                answers,
            } => {
                escaped_all(out, line);
                match answers {
                    Some(request) => {
                        out.extend_from_slice(b" (answers ");
                        escaped_all(out, request);
                        out.push(b')');
                    }
                    None => out.extend_from_slice(b" (its request was not seen)"),
                }
                self.fields(out, fields);
            }
            _ => {}
        }
    }

    /// Ends the line, and writes one for each field.
    fn fields(&self, out: &mut Vec<u8>, fields: &[Field]) {
        out.push(b'\n');
        for Field { name, value } in fields {
            out.extend_from_slice(b"    ");
            escaped_all(out, name);
            out.extend_from_slice(b": ");
            if !self.unmask && is_secret_header(name) {
                let _ = write!(out, "[{} bytes masked]", value.len());
            } else {
                escaped_all(out, value);
            }
            out.push(b'\n');
        }
    }

    fn frame(&self, out: &mut Vec<u8>, frame: &Frame) {
        let _ = match frame {
            Frame::Headers { .. } => return self.headers(out, frame),
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

    fn headers(&self, out: &mut Vec<u8>, frame: &Frame) {
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
            escaped_all(out, &path.value);
        }
        if let Some(status) = named(b"grpc-status") {
            out.extend_from_slice(b" gRPC status ");
            escaped_all(out, &status.value);
            let code = std::str::from_utf8(&status.value).ok();
            if let Some(name) = code
                .and_then(|it| it.parse().ok())
                .and_then(grpc::status_name)
            {
                let _ = write!(out, " {name}");
            }
            if let Some(message) = named(b"grpc-message") {
                out.extend_from_slice(b": ");
                escaped_all(out, &message.value);
            }
        }
        self.fields(out, fields);
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
    escaped_all(out, server_name.unwrap_or(b"-"));
    out.extend_from_slice(b" alpn=");
    if protocols.is_empty() {
        out.push(b'-');
    }
    for (index, protocol) in protocols.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        escaped_all(out, protocol);
    }
    out.push(b'\n');
}

const fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Gap => "bytes are missing where something begins",
        Stop::TooLarge => "a head or frame is too large",
        Stop::Malformed => "this breaks the rules of its protocol",
        Stop::Compression => "these headers cannot be decompressed",
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
mod tests {
    use super::*;

    #[test]
    fn b72_a_hostile_head_stays_on_its_lines_and_keeps_its_secrets() {
        let mut decoded = Decoded::new(false);
        let mut out = Vec::new();
        let request = b"GET /x HTTP/1.1\r\nHost: a\x80\xffb\r\nCookie: k=v\r\n\r\n";
        decoded.chunk(&mut out, Direction::Up, request);
        let text = String::from_utf8(out).unwrap();
        let expected = "  GET /x HTTP/1.1\n    Host: a\\x80\\xffb\n    Cookie: [3 bytes masked]\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn unmasked_means_shown() {
        let mut decoded = Decoded::new(true);
        let mut out = Vec::new();
        decoded.chunk(
            &mut out,
            Direction::Up,
            b"GET / HTTP/1.1\r\nCookie: k=v\r\n\r\n",
        );
        assert!(String::from_utf8(out).unwrap().contains("Cookie: k=v"));
    }

    #[test]
    fn a_gap_is_said_to_be_one_and_nothing_is_made_up_behind_it() {
        let mut decoded = Decoded::new(false);
        let mut out = Vec::new();
        let down = Direction::Down;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        decoded.chunk(&mut out, down, head);
        decoded.missing(&mut out, down, 90);
        decoded.chunk(&mut out, down, &[b'x'; 10]);
        decoded.missing(&mut out, down, 1);
        decoded.chunk(&mut out, down, head);
        decoded.end(&mut out, down, false);
        let text = String::from_utf8(out).unwrap();
        let expected = "  HTTP/1.1 200 OK (its request was not seen)\n    Content-Length: 100\n  \
                        body of 100 bytes\n  bytes are missing where something begins; this \
                        direction is decoded no further\n  not decoded, 40 bytes\n";
        assert_eq!(text, expected);
    }
}
