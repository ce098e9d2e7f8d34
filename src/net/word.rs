//! One word of visible ASCII out of whatever a peer chose: the only way that such a value
//! gets into a line of `key=value` pairs, into a record, a tap or a message.
//!
//! Line ends, blanks, `=` and `,` are escaped besides what is not printable, so that a
//! value forges neither a line nor a field nor an entry of a list, and steers no terminal.
//! What reads addresses undoes it ([`super::address`]).

use std::fmt;

/// Bytes as one word.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a>(pub &'a [u8]);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A run at a time: most values are plain from end to end.
        let mut plain = 0;
        for (at, byte) in self.0.iter().enumerate() {
            let escape = match byte {
                b' ' => "\\x20",
                b'=' => "\\x3d",
                b',' => "\\x2c",
                _ => continue,
            };
            write!(f, "{}{escape}", self.0[plain..at].escape_ascii())?;
            plain = at + 1;
        }
        write!(f, "{}", self.0[plain..].escape_ascii())
    }
}

/// What the configuration calls something, as one word: letters of any script stay as
/// they are.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 4];
        self.0.chars().try_for_each(|c| match c {
            c if c.is_alphanumeric() => write!(f, "{c}"),
            c => Word(c.encode_utf8(&mut bytes).as_bytes()).fmt(f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b72_what_a_peer_chose_forges_neither_a_line_nor_a_field() {
        let word = Word(b"a\r\nsession end code=-- \x1b[2J\x00\xff\"\\b").to_string();
        assert_eq!(
            word,
            r#"a\r\nsession\x20end\x20code\x3d--\x20\x1b[2J\x00\xff\"\\b"#
        );
        let all: Vec<u8> = (0..=255).collect();
        for word in [
            Word(&all).to_string(),
            Text("a b=c,d\u{202e}\n").to_string(),
        ] {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'=' && byte != b',';
            assert!(word.bytes().all(plain), "{word}");
        }
        assert_eq!(Word(b"a.example:443").to_string(), "a.example:443");
        assert_eq!(Word(b"[::1]:443").to_string(), "[::1]:443");
        assert_eq!(Text("b\u{fc}ro-1:2").to_string(), "b\u{fc}ro-1:2");
    }
}
