//! The one grammar of host names: what `-r` and `-l`, a configuration, an access rule, an
//! SRV record's domain, a CONNECT request and the resolver take for the name of a host.
//!
//! A name has letters, digits, `-` and `_`, parts of 1 to 63 characters between dots and
//! 253 in all (RFC 1035, section 2.3.4); one dot at the end is allowed. Two rules are
//! choices:
//!
//! - A part cannot begin with `-`, which programs that are given it would take for an
//!   option. It may end with one: RFC 952 says no, but such names are in use, and glibc
//!   (`res_hnok`) and browsers look them up.
//! - A last part that is a number (`127.1`, `0x7f`, `2130706433`) makes it a misspelt
//!   address (URL Standard, "ends in a number"). inet_aton(3), and with it some
//!   resolvers, would take it for one, so it is never asked of any.

use std::fmt;

/// Why a text is not the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// There is nothing but perhaps a dot.
    Empty,
    /// So many characters.
    TooLong(usize),
    /// Two dots in a row, or one in front.
    EmptyPart,
    /// A part of so many characters.
    LongPart(usize),
    /// A character that cannot stand there.
    Character(char),
    /// A part begins with `-`.
    LeadingHyphen,
    /// The last part is a number.
    Number,
}

/// Characters of a name, and of each of its parts.
const NAME_MAX: usize = 253;
const PART_MAX: usize = 63;

/// Reads the name of a host: lower case, without the dot at the end.
pub fn parse(text: &str) -> Result<String, HostError> {
    check(text)?;
    Ok(without_dot(text).to_ascii_lowercase())
}

/// Reads a name that is to be looked up: lower case; a dot at the end stays, for it says
/// that the name is whole, and not to be completed by a list of domains to search.
pub fn parse_for_lookup(text: &str) -> Result<String, HostError> {
    check(text)?;
    Ok(text.to_ascii_lowercase())
}

/// A name as others call it: without the dot at the end.
pub fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a text is the name of a host.
pub fn check(text: &str) -> Result<(), HostError> {
    let name = without_dot(text);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(bad) = name.chars().find(|c| !plain(*c)) {
        return Err(HostError::Character(bad));
    }
    // Before the lengths: a number of any length is no name.
    if is_number(name.rsplit('.').next().unwrap_or(name)) {
        return Err(HostError::Number);
    }
    if name.len() > NAME_MAX {
        return Err(HostError::TooLong(name.len()));
    }
    name.split('.').try_for_each(|part| match part.len() {
        0 => Err(HostError::EmptyPart),
        len if len > PART_MAX => Err(HostError::LongPart(len)),
        _ if part.starts_with('-') => Err(HostError::LeadingHyphen),
        _ => Ok(()),
    })
}

/// Whether inet_aton(3) would read a number: decimal, octal or hexadecimal digits, and
/// `0x` alone.
fn is_number(part: &str) -> bool {
    match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl HostError {
    /// What to write instead.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Empty => "write a name such as `host.example`",
            Self::TooLong(_) | Self::LongPart(_) => "write a shorter name",
            Self::EmptyPart => "remove the extra dot",
            Self::Character(c) if !c.is_ascii() => "write its `xn--` form",
            Self::Character(_) => "use letters, digits, `-` and `.`",
            Self::LeadingHyphen => "remove the `-`",
            Self::Number => "write four numbers from 0 to 255, such as 10.0.0.1",
        }
    }
}

impl std::error::Error for HostError {}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the host name is empty"),
            Self::TooLong(len) => write!(
                f,
                "the host name has {len} characters; {NAME_MAX} is the most"
            ),
            Self::EmptyPart => f.write_str("the host name has an empty part"),
            Self::LongPart(len) => write!(
                f,
                "a part of the host name has {len} characters; {PART_MAX} is the most"
            ),
            Self::Character(c) => {
                write!(f, "`{}` cannot stand in a host name", c.escape_debug())
            }
            Self::LeadingHyphen => f.write_str("a part of the host name begins with `-`"),
            Self::Number => f.write_str("this host is neither a name nor an IPv4 address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_parts_of_letters_digits_and_dashes() {
        let long = ["a"; 127].join(".");
        for host in [
            "a",
            "db_1.example.",
            "1.2.3.4.example",
            "0x.example",
            "0xg",
            "a-.example",
            "xn--bcher-kva.example",
            &"a".repeat(63),
            &long,
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for (host, why) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("a..b", HostError::EmptyPart),
            (".a", HostError::EmptyPart),
            ("a..", HostError::EmptyPart),
            ("a.-b", HostError::LeadingHyphen),
            ("a b", HostError::Character(' ')),
            ("b\u{fc}cher.example", HostError::Character('\u{fc}')),
            ("a\0", HostError::Character('\0')),
            ("127.1", HostError::Number),
            ("2130706433", HostError::Number),
            ("0x7F.1.", HostError::Number),
            ("127.0.0.0X1", HostError::Number),
            ("0x", HostError::Number),
            (&"a".repeat(64), HostError::LongPart(64)),
            (&format!("{long}.a"), HostError::TooLong(255)),
        ] {
            assert_eq!(check(host), Err(why), "{host}");
        }
        assert_eq!(parse("Db.Example."), Ok("db.example".to_owned()));
        let whole = parse_for_lookup("Db.Example.");
        assert_eq!(whole, Ok("db.example.".to_owned()));
    }
}
