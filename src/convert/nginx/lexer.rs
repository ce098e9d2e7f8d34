//! nginx's grammar: words, `;`, `{` and `}`, as ngx_conf_read_token reads them.
//!
//! A quote counts at the beginning of a word only; `#` likewise; `{` and `;` end a word, but not
//! behind `$`; a backslash keeps what follows, and is itself kept before most of it.

use crate::convert::finding::Origin;
use crate::convert::source::{Failure, Text};

/// Blocks in blocks at the most.
const DEPTH_MAX: usize = 64;

/// `name args;` or `name args { block }`.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    pub(super) place: Origin,
}

impl Directive {
    /// As it stands, for a finding: without arguments where they could be secrets.
    pub(super) fn shown(&self) -> String {
        const SHOWN_MAX: usize = 80;
        let secret = ["password", "key", "secret", "auth"];
        let name = self.name.to_ascii_lowercase();
        if secret.iter().any(|word| name.contains(word)) || self.args.is_empty() {
            return self.name.clone();
        }
        let mut shown = format!("{} {}", self.name, self.args.join(" "));
        if let Some((cut, _)) = shown.char_indices().nth(SHOWN_MAX) {
            shown.truncate(cut);
            shown.push('…');
        }
        shown.replace(|c: char| c.is_control(), "·")
    }

    /// Its only argument.
    pub(super) fn only(&self) -> Option<&str> {
        match self.args.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// Reads a whole file.
pub(super) fn read(text: &Text) -> Result<Vec<Directive>, Failure> {
    let mut reader = Reader {
        text,
        rest: &text.text,
        line: 1,
    };
    reader.block(0, None)
}

struct Reader<'a> {
    text: &'a Text,
    rest: &'a str,
    line: usize,
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

impl Reader<'_> {
    fn here(&self) -> Origin {
        self.text.place(self.line)
    }

    fn fault<T>(&self, what: &str) -> Result<T, Failure> {
        Err(Failure::at(&self.here(), what))
    }

    /// Directives up to the `}` of the block that began at `opened`, or up to the end.
    fn block(&mut self, depth: usize, opened: Option<&Origin>) -> Result<Vec<Directive>, Failure> {
        let mut all = Vec::new();
        if depth > DEPTH_MAX {
            return self.fault("blocks are nested too deep");
        }
        loop {
            match (self.token()?, opened) {
                (Token::End, None) | (Token::Close, Some(_)) => return Ok(all),
                (Token::End, Some(opened)) => {
                    return Err(Failure::at(
                        opened,
                        "this block has no end: a \"}\" is missing",
                    ));
                }
                (Token::Close, None) => return self.fault("a \"}\" that ends nothing"),
                (Token::Semicolon, _) => return self.fault("a \";\" that ends nothing"),
                (Token::Open, _) => return self.fault("a \"{\" without a name in front"),
                (Token::Word(name), _) => all.push(self.directive(name, depth)?),
            }
        }
    }

    fn directive(&mut self, name: String, depth: usize) -> Result<Directive, Failure> {
        let place = self.here();
        let mut args = Vec::new();
        let block = loop {
            match self.token()? {
                Token::Word(word) => args.push(word),
                Token::Semicolon => break None,
                Token::Open if name.ends_with("_by_lua_block") => {
                    self.skip_lua(&place)?;
                    break Some(Vec::new());
                }
                Token::Open => break Some(self.block(depth + 1, Some(&place))?),
                Token::Close | Token::End => {
                    return Err(Failure::at(
                        &place,
                        format!("\"{name}\" has no \";\" behind it"),
                    ));
                }
            }
        };
        Ok(Directive {
            name,
            args,
            block,
            place,
        })
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn token(&mut self) -> Result<Token, Failure> {
        loop {
            match self.peek() {
                None => return Ok(Token::End),
                Some(' ' | '\t' | '\r' | '\n') => {
                    self.next();
                }
                Some('#') => {
                    while !matches!(self.peek(), None | Some('\n')) {
                        self.next();
                    }
                }
                Some(';') => {
                    self.next();
                    return Ok(Token::Semicolon);
                }
                Some('{') => {
                    self.next();
                    return Ok(Token::Open);
                }
                Some('}') => {
                    self.next();
                    return Ok(Token::Close);
                }
                Some(quote @ ('"' | '\'')) => {
                    self.next();
                    return self.quoted(quote).map(Token::Word);
                }
                Some(_) => return Ok(Token::Word(self.bare())),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Failure> {
        let opened = self.here();
        let mut word = String::new();
        loop {
            match self.next() {
                None => return Err(Failure::at(&opened, "this quote has no end")),
                Some('\\') => self.escaped(&mut word),
                Some(c) if c == quote => break,
                Some(c) => word.push(c),
            }
        }
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
            Some(c) => self.fault(&format!("\"{c}\" right behind a quote")),
        }
    }

    fn bare(&mut self) -> String {
        let mut word = String::new();
        let mut after_dollar = false;
        while let Some(c) = self.peek() {
            if matches!(c, ' ' | '\t' | '\r' | '\n' | ';') || (c == '{' && !after_dollar) {
                break;
            }
            self.next();
            after_dollar = c == '$';
            if c == '\\' {
                self.escaped(&mut word);
            } else {
                word.push(c);
            }
        }
        word
    }

    /// What a backslash keeps.
    fn escaped(&mut self, word: &mut String) {
        match self.next() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => {
                word.push('\\');
                word.push(c);
            }
            None => word.push('\\'),
        }
    }

    /// A block of Lua: its own quotes and comments, balanced braces.
    fn skip_lua(&mut self, place: &Origin) -> Result<(), Failure> {
        let mut depth = 1_usize;
        while let Some(c) = self.next() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                '-' if self.rest.starts_with("-[[") => self.skip_to("]]"),
                '-' if self.peek() == Some('-') => self.skip_to("\n"),
                '[' if self.peek() == Some('[') => self.skip_to("]]"),
                '"' | '\'' => {
                    while let Some(inner) = self.next() {
                        match inner {
                            '\\' => {
                                self.next();
                            }
                            inner if inner == c || inner == '\n' => break,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Err(Failure::at(
            place,
            "this block has no end: a \"}\" is missing",
        ))
    }

    fn skip_to(&mut self, end: &str) {
        let length = self
            .rest
            .find(end)
            .map_or(self.rest.len(), |at| at + end.len());
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let text = Text {
            name: "t".into(),
            text: text.to_owned(),
        };
        let all = read(&text).unwrap_or_else(|failure| panic!("{failure}"));
        all.into_iter()
            .map(|d| [vec![d.name], d.args].concat())
            .collect()
    }

    fn fault(text: &str) -> String {
        let text = Text {
            name: "t".into(),
            text: text.to_owned(),
        };
        read(&text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn words_are_read_as_nginx_reads_them() {
        assert_eq!(words("a b c;"), [["a", "b", "c"]]);
        assert_eq!(words("a \"b ; { c\" 'd\"';"), [["a", "b ; { c", "d\""]]);
        assert_eq!(words("a b#c; # d;\r\ne;"), [vec!["a", "b#c"], vec!["e"]]);
        assert_eq!(words("a ${b}c $d;"), [["a", "${b}c", "$d"]]);
        assert_eq!(
            words(r#"a "b\"c" d\ e \.f;"#),
            [["a", "b\"c", "d\\ e", "\\.f"]]
        );
        assert_eq!(words("a\nb\n;"), [["a", "b"]]);
    }

    #[test]
    fn what_nginx_refuses_is_refused_with_its_line() {
        assert_eq!(
            fault("a;\nb {\n c;\n"),
            "t:2: this block has no end: a \"}\" is missing"
        );
        assert_eq!(fault("a;\n}\n"), "t:2: a \"}\" that ends nothing");
        assert_eq!(fault("\n\na b"), "t:3: \"a\" has no \";\" behind it");
        assert_eq!(fault("a \"b"), "t:1: this quote has no end");
        assert_eq!(fault("a \"b\"c;"), "t:1: \"c\" right behind a quote");
        assert!(fault(&"a{".repeat(10_000)).contains("nested too deep"));
    }

    #[test]
    fn lua_is_passed_over_with_its_own_comments_and_quotes() {
        let text = "preread_by_lua_block {\n -- it's a }\n local a = { \"}\" }\n --[[ } ]]\n}\nb;";
        let text = Text {
            name: "t".into(),
            text: text.to_owned(),
        };
        let all = read(&text).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].name.as_str(), all[1].place.line), ("b", 6));
    }
}
