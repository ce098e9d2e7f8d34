//! What the text formats share: the line before each chunk, and the escaping of
//! whatever a peer sent.

use std::io::Write as _;
use std::time::SystemTime;

use super::feed::{Close, Opening, SessionNumber, StreamEnd};
use crate::net::word::{Text, Word};
use crate::observe::timestamp::timestamp;
use crate::relay::Direction;
use crate::relay::ending::Ending;

/// Begins a line: when, whose, which session. What follows is the caller's.
pub(super) fn begin(out: &mut Vec<u8>, at: SystemTime, forward: &str, session: SessionNumber) {
    let SessionNumber { reactor, id } = session;
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{} tap forward={} id={reactor}.{id} ",
        stamp(at),
        Text(forward)
    );
}

/// RFC 3339 in UTC with microseconds.
pub(super) fn stamp(at: SystemTime) -> String {
    let mut text = timestamp(at);
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.unwrap_or_default().subsec_micros();
    // Down to the second it is the log's own.
    text.truncate("YYYY-MM-DDTHH:MM:SS".len());
    text + &format!(".{micros:06}Z")
}

pub(super) const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

pub(super) fn open(out: &mut Vec<u8>, session: SessionNumber, opening: &Opening) {
    begin(out, opening.at, &opening.forward, session);
    let (client, listener) = (&opening.client, &opening.listener);
    let _ = write!(out, "open client={client} listener={listener}");
    if opening.before != [0; 2] {
        let [up, down] = opening.before;
        let _ = write!(out, " before_up={up} before_down={down}");
    }
    out.push(b'\n');
}

pub(super) const fn end_word(how: StreamEnd) -> &'static str {
    match how {
        StreamEnd::Orderly => "fin",
        StreamEnd::Failed => "failed",
    }
}

/// The rest of a session's last line: its end, or where it goes on.
pub(super) fn close(out: &mut Vec<u8>, close: &Close) {
    let [up, down] = close.closing.totals;
    let _ = if let Some(process) = close.closing.moved_to {
        write!(out, "moved process={process}")
    } else {
        let (code, cause) = close.closing.ending.map_or(("-", "-"), |ending| {
            (Ending::code(ending), ending.cause.name())
        });
        write!(out, "close code={code} cause={cause}")
    };
    let _ = writeln!(
        out,
        " up={up} down={down} missing_up={} missing_down={}",
        close.missing[0], close.missing[1]
    );
}

/// A line's end, and what it says of bytes that are not there.
pub(super) fn missing(out: &mut Vec<u8>, direction: Direction, n: u64, offset: u64) {
    let _ = writeln!(
        out,
        "{} missing={n} offset={offset} (the tap could not keep up)",
        way(direction)
    );
}

/// One byte of a peer: what is printable as it is, anything else as `\xNN`, so that
/// it cannot steer a terminal, end a line or look like another one.
pub(super) fn escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b' '..=b'~' => out.push(byte),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\n' => out.extend_from_slice(b"\\n"),
        _ => {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// What a peer chose where a line has other fields: one word, as in records.
pub(super) fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}", Word(bytes));
}

/// As [`escaped`], all of them.
pub(super) fn escaped_all(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        escaped(out, *byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b72_no_byte_of_a_peer_steers_a_terminal() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        escaped_all(&mut out, &all);
        assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~')));
        let mut line = Vec::new();
        escaped_all(&mut line, b"a\r\n\x1b[2J\\x1b");
        assert_eq!(line, br"a\r\n\x1b[2J\\x1b");
    }

    #[test]
    fn times_have_microseconds() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_000_042);
        assert_eq!(stamp(at), "1970-01-01T00:00:01.000042Z");
    }
}
