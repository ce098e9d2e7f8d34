//! The text of a file in pieces that mean the same wherever they stand: each `[[forward]]`
//! and each `[upstream.NAME]` with the tables below it, and the rest between them.
//!
//! This knows of TOML just what keeps pieces apart: strings, comments, brackets and headers.
//! It says `None` wherever it is not sure, and whoever asked reads the whole text instead.
//! What a piece means, and whether it means anything, is the parser's matter.

use std::ops::Range;

/// A piece. All of them one after the other are the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Chunk {
    pub(in crate::config) range: Range<usize>,
    pub(in crate::config) what: ChunkKind,
}

/// What a piece is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum ChunkKind {
    /// Of neither: the beginning, `[global]`, `[defaults]`.
    Rest,
    /// One `[[forward]]`.
    Forward,
    /// `[upstream.NAME]`.
    Pool(String),
}

/// The pieces of a text.
pub(in crate::config) fn chunks(text: &str) -> Option<Vec<Chunk>> {
    let mut cursor = Cursor {
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut chunks = vec![Chunk {
        range: 0..0,
        what: ChunkKind::Rest,
    }];
    while let Some(line) = cursor.line() {
        let begin = line;
        if cursor.peek() == Some(b'[') {
            let header = cursor.header()?;
            if let Meets::Begins(what) = header.meets(&chunks.last()?.what)? {
                chunks.last_mut()?.range.end = begin;
                chunks.push(Chunk {
                    range: begin..begin,
                    what,
                });
            }
        } else {
            cursor.statement()?;
        }
    }
    chunks.last_mut()?.range.end = text.len();
    Some(chunks)
}

/// `[a.b]` or `[[a.b]]`.
struct Header {
    is_list: bool,
    keys: Vec<String>,
}

impl Header {
    /// What this is to the piece before it.
    fn meets(self, before: &ChunkKind) -> Option<Meets> {
        let mut keys = self.keys.into_iter();
        let (first, second) = (keys.next()?, keys.next());
        match (first.as_str(), second, keys.next()) {
            ("forward", None, _) => self.is_list.then_some(Meets::Begins(ChunkKind::Forward)),
            // Of the last one, which must not be elsewhere.
            ("forward", Some(_), _) => (*before == ChunkKind::Forward).then_some(Meets::Belongs),
            ("upstream", Some(name), below) => {
                let what = ChunkKind::Pool(name);
                match below {
                    Some(_) if what == *before => Some(Meets::Belongs),
                    None if self.is_list => None,
                    _ => Some(Meets::Begins(what)),
                }
            }
            _ if *before == ChunkKind::Rest => Some(Meets::Belongs),
            _ => Some(Meets::Begins(ChunkKind::Rest)),
        }
    }
}

/// What a header is to the piece before it.
enum Meets {
    /// Part of it.
    Belongs,
    /// The first line of another one.
    Begins(ChunkKind),
}

struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Where the next line begins; this stands at its first sign afterwards.
    fn line(&mut self) -> Option<usize> {
        let begin = self.at;
        self.blanks();
        self.peek().map(|_| begin)
    }

    /// Up to the end of the line, which is left.
    fn comment(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest
            .iter()
            .position(|it| *it == b'\n')
            .unwrap_or(rest.len());
    }

    /// Whatever ends with its line, but for lines within brackets and strings.
    fn statement(&mut self) -> Option<()> {
        let mut open = Vec::new();
        while let Some(byte) = self.next() {
            match byte {
                b'\n' if open.is_empty() => return Some(()),
                b'#' => self.comment(),
                b'"' | b'\'' => self.string(byte)?,
                b'[' => open.push(b']'),
                b'{' => open.push(b'}'),
                b']' | b'}' if open.pop() != Some(byte) => return None,
                _ => {}
            }
        }
        open.is_empty().then_some(())
    }

    /// The rest of a string whose first quote was taken.
    fn string(&mut self, quote: u8) -> Option<()> {
        if self.bytes[self.at..].starts_with(&[quote; 2]) {
            self.at += 2;
            return self.long_string(quote);
        }
        loop {
            match self.next()? {
                b'\n' => return None,
                b'\\' if quote == b'"' => {
                    self.next().filter(|it| *it != b'\n')?;
                }
                byte if byte == quote => return Some(()),
                _ => {}
            }
        }
    }

    /// Likewise of one in three quotes, which may end with two more of them.
    fn long_string(&mut self, quote: u8) -> Option<()> {
        loop {
            match self.next()? {
                b'\\' if quote == b'"' => {
                    self.next()?;
                }
                byte if byte == quote && self.bytes[self.at..].starts_with(&[quote; 2]) => {
                    self.at += 2;
                    let _ = self.eat(quote) && self.eat(quote);
                    return Some(());
                }
                _ => {}
            }
        }
    }

    fn header(&mut self) -> Option<Header> {
        self.eat(b'[').then_some(())?;
        let is_list = self.eat(b'[');
        let mut keys = Vec::new();
        loop {
            self.blanks();
            keys.push(self.key()?);
            self.blanks();
            if !self.eat(b'.') {
                break;
            }
        }
        let closed = self.eat(b']') && (!is_list || self.eat(b']'));
        closed.then_some(())?;
        self.blanks();
        if self.peek() == Some(b'#') {
            self.comment();
        }
        self.eat(b'\r');
        match self.next() {
            None | Some(b'\n') => Some(Header { is_list, keys }),
            Some(_) => None,
        }
    }

    /// A key: as it is, or in quotes without an escape.
    fn key(&mut self) -> Option<String> {
        let quote = self.peek().filter(|it| matches!(it, b'"' | b'\''));
        self.at += usize::from(quote.is_some());
        let begin = self.at;
        let fits = |byte: u8| match quote {
            Some(quote) => !matches!(byte, b'\n' | b'\\') && byte != quote,
            None => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
        };
        while self.peek().is_some_and(fits) {
            self.at += 1;
        }
        let key = std::str::from_utf8(&self.bytes[begin..self.at]).ok()?;
        if let Some(quote) = quote {
            self.eat(quote).then_some(())?;
        }
        (quote.is_some() || !key.is_empty()).then(|| key.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<(&str, ChunkKind)>> {
        let chunks = chunks(text)?;
        let all: String = chunks.iter().map(|it| &text[it.range.clone()]).collect();
        assert_eq!(all, text);
        let texts = chunks.into_iter().map(|it| (&text[it.range], it.what));
        Some(texts.collect())
    }

    #[test]
    fn forwards_and_pools_are_pieces_with_the_tables_below_them() {
        let text = "# a\n[global]\nreactors = 1\n [[forward]] # b\nlisten = [\n':1', # ]\n]\n\
                    [forward.upstream]\nservers = [{ address = \"a:1\" }]\n[[ forward . route ]]\n\
                    [upstream.\"w b\"]\r\nservers = '''\n[[forward]]\n''''\n\
                    [upstream.'w b'.check]\ntype = \"\"\"\\\"\"\"\"\"\"\n[log]\n[admin]\n\
                    [[forward]]";
        let whats: Vec<ChunkKind> = texts(text).unwrap().into_iter().map(|it| it.1).collect();
        let pool = ChunkKind::Pool("w b".to_owned());
        assert_eq!(
            whats,
            [
                ChunkKind::Rest,
                ChunkKind::Forward,
                pool,
                ChunkKind::Rest,
                ChunkKind::Forward
            ]
        );
        assert_eq!(texts("").unwrap(), [("", ChunkKind::Rest)]);
    }

    #[test]
    fn what_is_not_sure_is_none() {
        for text in [
            "[forward]\n",
            "[forward.upstream]\n",
            "[[forward]]\n[global]\n[forward.upstream]\n",
            "[[upstream.web]]\n",
            "[[forward]\n",
            "[a] b = 1\n",
            "[\"a\\u0062\"]\n",
            "a = \"b\n\"\n",
            "a = [1, 2\n",
            "a = [1}\n",
            "a = 1]\n",
            "a = \"\"\"b\n",
            "a = 'b",
            "[]\n",
        ] {
            assert_eq!(texts(text), None, "{text}");
        }
    }
}
