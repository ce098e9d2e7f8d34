//! Just enough of Rust's lexical structure to tell code from comments, strings
//! and lifetimes. A token carries the line it begins on.

use std::iter::Peekable;
use std::str::Chars;

/// A token of Rust text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    /// What a string literal holds, as written.
    Text(String),
    /// `::`
    Separator,
    /// Any other character.
    Mark(char),
}

/// The tokens of `text` with their lines, from 1.
pub(crate) fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 1,
    };
    let mut found = Vec::new();
    loop {
        let line = reader.line;
        let Some(c) = reader.take() else { return found };
        let token = match c {
            c if c.is_whitespace() => continue,
            '/' if reader.rest.peek() == Some(&'/') => {
                reader.skip_line();
                continue;
            }
            '/' if reader.rest.peek() == Some(&'*') => {
                reader.skip_block();
                continue;
            }
            '\'' => {
                reader.skip_char_or_lifetime();
                continue;
            }
            '"' => Token::Text(reader.string()),
            ':' if reader.rest.peek() == Some(&':') => {
                reader.take();
                Token::Separator
            }
            c if is_word(c) => reader.word(c),
            c => Token::Mark(c),
        };
        found.push((line, token));
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn skip_line(&mut self) {
        while self.rest.peek().is_some_and(|c| *c != '\n') {
            self.take();
        }
    }

    /// Block comments nest.
    fn skip_block(&mut self) {
        self.take();
        let mut depth = 1;
        while depth > 0 {
            let Some(c) = self.take() else { return };
            match (c, self.rest.peek()) {
                ('*', Some('/')) => depth -= 1,
                ('/', Some('*')) => depth += 1,
                _ => continue,
            }
            self.take();
        }
    }

    /// After a `'`: a character ends with another one, a lifetime does not.
    fn skip_char_or_lifetime(&mut self) {
        if self.rest.peek() == Some(&'\\') {
            self.take();
            self.take();
            while self.take().is_some_and(|c| c != '\'') {}
            return;
        }
        self.take();
        if self.rest.peek() == Some(&'\'') {
            self.take();
            return;
        }
        while self.rest.peek().is_some_and(|c| is_word(*c)) {
            self.take();
        }
    }

    fn word(&mut self, first: char) -> Token {
        let mut word = String::from(first);
        while let Some(c) = self.rest.next_if(|c| is_word(*c)) {
            word.push(c);
        }
        let prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
        match self.rest.peek() {
            Some('"') if word.ends_with('r') && prefix => {
                self.take();
                Token::Text(self.raw_string(0))
            }
            Some('"') if prefix => {
                self.take();
                Token::Text(self.string())
            }
            Some('#') if word.ends_with('r') && prefix => self.raw_string_or_word(),
            _ => Token::Word(word),
        }
    }

    /// After `r`: `r#"…"#`, or a raw identifier such as `r#type`.
    fn raw_string_or_word(&mut self) -> Token {
        let mut hashes = 0;
        while self.rest.peek() == Some(&'#') {
            self.take();
            hashes += 1;
        }
        match self.take() {
            Some('"') => Token::Text(self.raw_string(hashes)),
            Some(c) => self.word(c),
            None => Token::Mark('#'),
        }
    }

    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.take() {
            match c {
                '"' => break,
                '\\' => {
                    text.push(c);
                    text.extend(self.take());
                }
                c => text.push(c),
            }
        }
        text
    }

    fn raw_string(&mut self, hashes: usize) -> String {
        let end = format!("\"{}", "#".repeat(hashes));
        let mut text = String::new();
        while !text.ends_with(&end) {
            let Some(c) = self.take() else { break };
            text.push(c);
        }
        text.truncate(text.len().saturating_sub(end.len()));
        text
    }
}
