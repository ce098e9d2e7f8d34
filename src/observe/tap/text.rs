//! Format `text`: lines of the stream as lines, with what is not printable escaped.
//!
//! A line that begins with the name of a secret header has its value masked, and so have
//! the lines that continue it (those that begin with a blank). In all others users and
//! secret parameters of URLs are. The state of the line is kept from chunk to chunk, so
//! that what is cut in two is recognised; behind missing bytes a value that was being
//! masked stays masked to the end of its line.
//!
//! What ends a line, and which blanks belong to a name, is not agreed among those that
//! read HTTP. So a CR alone ends one, except that what is being masked stays so up to
//! the next LF, and blanks and control bytes around a name do not matter, however many.

use super::render::escaped;
use crate::proto::secrets::{NAME_MAX, Secrets, Url};

/// What is known of the current line of each direction.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Line,
    /// The line before is masked: one that continues it is as well.
    continues: bool,
    url: Url,
}

#[derive(Debug)]
enum Line {
    /// What may become the name of a header, without the blanks around it; whether some
    /// stand behind it; whether anything stands on the line at all.
    Name(Vec<u8>, bool, bool),
    /// There is none: what follows is shown.
    Shown,
    /// It is a secret one: what follows is counted.
    Masked(u64),
}

impl Default for Line {
    fn default() -> Self {
        Self::Name(Vec::new(), false, false)
    }
}

impl Lines {
    /// Bytes of one direction. What is shown is a line of its own, or several. Without
    /// `secrets` nothing is one.
    pub(super) fn show(&mut self, out: &mut Vec<u8>, bytes: &[u8], secrets: Option<&Secrets>) {
        let mut fresh = true;
        for byte in bytes {
            if fresh {
                out.extend_from_slice(b"  ");
                fresh = false;
            }
            match secrets {
                Some(secrets) => self.one(out, *byte, secrets),
                None => escaped(out, *byte),
            }
            if *byte == b'\n' {
                out.push(b'\n');
                fresh = true;
            }
        }
        if !fresh {
            if let Line::Masked(hidden) = &mut self.line {
                mask(out, std::mem::take(hidden));
            }
            self.url.cut(&mut |byte| escaped(out, byte));
            out.push(b'\n');
        }
    }

    fn one(&mut self, out: &mut Vec<u8>, byte: u8, secrets: &Secrets) {
        if byte == b'\n' {
            return self.end(out, secrets);
        }
        match &mut self.line {
            Line::Masked(hidden) => {
                // The line's end, most likely.
                if byte != b'\r' {
                    *hidden += 1;
                }
                return;
            }
            Line::Name(_, _, any) if !*any && self.continues && is_blank(byte) => {
                self.line = Line::Masked(1);
                return;
            }
            _ if byte == b'\r' => {
                self.line = Line::default();
                self.continues = false;
            }
            Line::Shown => {}
            Line::Name(name, closed, any) => {
                *any = true;
                if byte == b':' && secrets.is_header(name) {
                    self.line = Line::Masked(0);
                    escaped(out, byte);
                    return;
                }
                if is_blank(byte) {
                    *closed = !name.is_empty();
                } else if byte == b':' || *closed || name.len() == NAME_MAX {
                    if *closed && name.eq_ignore_ascii_case(b"CONNECT") {
                        self.url.expect_user();
                    }
                    self.line = Line::Shown;
                } else {
                    name.push(byte);
                }
            }
        }
        self.url.byte(secrets, byte, &mut |byte| escaped(out, byte));
    }

    /// The line is over.
    fn end(&mut self, out: &mut Vec<u8>, secrets: &Secrets) {
        self.continues = matches!(self.line, Line::Masked(_));
        if let Line::Masked(hidden) = self.line {
            mask(out, hidden);
        }
        self.line = Line::default();
        self.url.finish(secrets, &mut |byte| escaped(out, byte));
        escaped(out, b'\n');
    }
}

/// Blanks, and control bytes that some take for such.
const fn is_blank(byte: u8) -> bool {
    byte <= b' '
}

fn mask(out: &mut Vec<u8>, hidden: u64) {
    if hidden > 0 {
        out.extend_from_slice(format!(" [{hidden} bytes masked]").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]], unmask: bool) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let secrets = Secrets::new(&["X-Mine".to_owned()]);
        for piece in pieces {
            lines.show(&mut out, piece, (!unmask).then_some(&secrets));
        }
        String::from_utf8(out).unwrap()
    }

    proptest::proptest! {
        /// What is written is a small multiple of what was shown, masked or not.
        #[test]
        fn a_line_is_no_longer_than_it_may_be(
            pieces in proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<u8>(), 1..40),
                0..20,
            ),
            unmask: bool,
        ) {
            let fed: usize = pieces.iter().map(|piece| piece.len() + 8).sum();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            proptest::prop_assert!(shown(&pieces, unmask).len() <= 6 * fed);
        }
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
        let blanks = " ".repeat(100);
        let header = |name: &str| format!("GET / HTTP/1.1\r\n{name} c2VjcmV0\r\nX: visible\r\n");
        for request in [
            header("authorization: Basic"),
            header("X-MINE:"),
            header(&format!("Cookie{blanks}:")),
            header(&format!("{blanks}Cookie:")),
            header("Cookie:\r\n"),
            header("Cookie: a\r\n\t\r\n"),
            header("Cookie: a\n "),
            header("X: y\rCookie:"),
            header("Cookie: a\rb"),
            "GET /?token=c2VjcmV0 HTTP/1.1\r\nX: visible\r\n".to_owned(),
            "GET http://ann:c2VjcmV0@h/ HTTP/1.1\r\nX: visible\r\n".to_owned(),
            "CONNECT ann:c2VjcmV0@h:1 HTTP/1.1\r\nX: visible\r\n".to_owned(),
        ] {
            let request = request.as_bytes();
            for at in 0..request.len() {
                let (one, two) = request.split_at(at);
                let text = shown(&[one, two], false);
                for length in 3..=8 {
                    assert!(!text.contains(&"c2VjcmV0"[..length]), "{at}: {text}");
                }
                let text = text.replace("\n  ", "");
                assert!(text.contains("X: visible"), "{at}: {text}");
                let text = shown(&[one, two], true).replace("\n  ", "");
                assert!(text.contains("c2VjcmV0"), "{at}: {text}");
            }
        }
    }
}
