//! Format `text`: lines of the stream as lines, with what is not printable escaped.
//!
//! A line that begins with the name of a secret header has its value masked. The
//! state of the line is kept from chunk to chunk, so that a name that is cut in two
//! is recognised; behind missing bytes a value that was being masked stays masked to
//! the end of its line.

use super::render::escaped;
use crate::proto::secrets::is_secret_header;

/// Longer than the longest name that is masked.
const NAME_MAX: usize = 32;

/// What is known of the current line of each direction.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line so far, as long as it can be the name of a header.
    name: Vec<u8>,
    /// It is none: what follows on this line is shown.
    shown: bool,
    /// It is a secret one: what follows on this line is counted.
    masked: Option<u64>,
}

impl Lines {
    /// Bytes of one direction. What is shown is a line of its own, or several.
    pub(super) fn show(&mut self, out: &mut Vec<u8>, bytes: &[u8], unmask: bool) {
        let mut fresh = true;
        for byte in bytes {
            if fresh {
                out.extend_from_slice(b"  ");
                fresh = false;
            }
            self.one(out, *byte, unmask);
            if *byte == b'\n' {
                out.push(b'\n');
                fresh = true;
            }
        }
        if !fresh {
            if let Some(hidden) = &mut self.masked {
                mask(out, std::mem::take(hidden));
            }
            out.push(b'\n');
        }
    }

    fn one(&mut self, out: &mut Vec<u8>, byte: u8, unmask: bool) {
        if byte == b'\n' {
            if let Some(hidden) = self.masked.take() {
                mask(out, hidden);
            }
            self.name.clear();
            self.shown = false;
            return escaped(out, byte);
        }
        if let Some(hidden) = &mut self.masked {
            if byte != b'\r' {
                *hidden += 1;
            }
            return;
        }
        escaped(out, byte);
        if self.shown || unmask {
            return;
        }
        if byte == b':' && is_secret_header(&self.name) {
            self.masked = Some(0);
        } else if byte == b':' || self.name.len() == NAME_MAX {
            self.shown = true;
        } else {
            self.name.push(byte);
        }
    }
}

fn mask(out: &mut Vec<u8>, hidden: u64) {
    out.extend_from_slice(format!(" [{hidden} bytes masked]").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]], unmask: bool) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.show(&mut out, piece, unmask);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_lines() {
        let text = shown(&[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\xff"], false);
        assert_eq!(
            text,
            "  GET / HTTP/1.1\\r\\n\n  Host: a\\r\\n\n  \\r\\n\n  \\x00\\xff\n"
        );
    }

    #[test]
    fn a_secret_is_masked_however_it_is_cut() {
        let request: &[u8] = b"GET / HTTP/1.1\r\nauthorization: Basic c2VjcmV0\r\nX: visible\r\n";
        for at in 0..request.len() {
            let (one, two) = request.split_at(at);
            let text = shown(&[one, two], false);
            for length in 3..=8 {
                assert!(!text.contains(&"c2VjcmV0"[..length]), "{at}: {text}");
            }
            assert!(
                text.replace("\n  ", "").contains("X: visible"),
                "{at}: {text}"
            );
            let text = shown(&[one, two], true).replace("\n  ", "");
            assert!(text.contains("c2VjcmV0"), "{at}: {text}");
        }
    }
}
