//! HAProxy's grammar: a line is a directive; quotes, backslashes and variables as in section 2.2
//! of its manual.

use std::collections::BTreeMap;

use crate::convert::finding::{Findings, Origin};
use crate::convert::source::{Failure, Text};

/// Blocks of `.if` in one another at the most.
const DEPTH_MAX: usize = 16;

/// A line that says something.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) place: Origin,
    pub(super) words: Vec<String>,
}

impl Line {
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// From a word on.
    pub(super) fn from(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// As it stands, for a finding: without values where these could be secrets.
    pub(super) fn shown(&self) -> String {
        const SHOWN_MAX: usize = 80;
        let secrets = ["password", "insecure-password", "user", "stats"];
        let mut shown = match self.words.first() {
            Some(first) if secrets.contains(&first.as_str()) && self.words.len() > 2 => {
                format!("{first} {} …", self.words[1])
            }
            _ => self.words.join(" "),
        };
        if let Some((cut, _)) = shown.char_indices().nth(SHOWN_MAX) {
            shown.truncate(cut);
            shown.push('…');
        }
        shown.replace(|c: char| c.is_control(), "·")
    }
}

/// Reads all lines that count. `environment` is that of this process, and grows by `setenv`.
pub(super) fn read(
    text: &Text,
    environment: &mut BTreeMap<String, String>,
    findings: &mut Findings,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    // Of each open `.if`: whether its lines count, and whether one of its branches was taken.
    let mut open: Vec<(bool, bool)> = Vec::new();
    for (index, line) in text.text.lines().enumerate() {
        let place = text.place(index + 1);
        let skipped = open.iter().any(|(counts, _)| !counts);
        if skipped && !line.trim_start().starts_with('.') {
            continue;
        }
        let words = split(line, &place, environment, findings)?;
        let Some(first) = words.first() else { continue };
        let line = Line {
            place,
            words: words.clone(),
        };
        match first.as_str() {
            ".if" | ".elif" | ".else" | ".endif" => {
                conditional(&line, environment, &mut open, findings)?;
            }
            ".notice" | ".warning" | ".alert" | ".diag" => {
                findings.needless(&line.place, first, "a message");
            }
            "setenv" | "presetenv" if words.len() == 3 => {
                let keep = first == "presetenv" && environment.contains_key(&words[1]);
                if !keep {
                    environment.insert(words[1].clone(), words[2].clone());
                }
                findings.same(&line.place, &format!("{first} {}", words[1]));
            }
            _ => lines.push(line),
        }
    }
    if open.is_empty() {
        Ok(lines)
    } else {
        Err(Failure::at(
            &text.place(text.text.lines().count()),
            "an .if has no .endif",
        ))
    }
}

fn conditional(
    line: &Line,
    environment: &BTreeMap<String, String>,
    open: &mut Vec<(bool, bool)>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    const UNKNOWN: &str = "its condition cannot be known here; what is in it is passed over";
    let mut holds = || {
        let truth = truth(line.word(1), environment);
        match truth {
            Some(_) => findings.same(&line.place, &line.shown()),
            None => findings.left(&line.place, &line.shown(), UNKNOWN),
        }
        truth.unwrap_or(false)
    };
    let depth = open.len();
    match (line.word(0), open.last_mut()) {
        (".if", _) if depth >= DEPTH_MAX => {
            Err(Failure::at(&line.place, "too many .if in one another"))
        }
        (".if", _) => {
            let holds = holds();
            open.push((holds, holds));
            Ok(())
        }
        (".elif", Some((counts, taken))) => {
            *counts = !*taken && holds();
            *taken |= *counts;
            Ok(())
        }
        (".else", Some((counts, taken))) => {
            *counts = !*taken;
            *taken = true;
            Ok(())
        }
        (".endif", Some(_)) => {
            open.pop();
            Ok(())
        }
        (word, _) => Err(Failure::at(&line.place, format!("{word} without .if"))),
    }
}

/// Of conditions those that need no HAProxy.
fn truth(condition: &str, environment: &BTreeMap<String, String>) -> Option<bool> {
    if let Some(rest) = condition.strip_prefix('!') {
        return truth(rest, environment).map(|truth| !truth);
    }
    if let Some(name) = condition
        .strip_prefix("defined(")
        .and_then(|c| c.strip_suffix(')'))
    {
        return Some(environment.contains_key(name));
    }
    match condition {
        "true" | "1" => Some(true),
        "false" | "0" | "" => Some(false),
        _ => None,
    }
}

/// The words of a line.
fn split(
    line: &str,
    place: &Origin,
    environment: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars().peekable();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (quote, c) {
            (None, '#') => break,
            (None, ' ' | '\t' | '\r') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => escaped(&mut rest, quote.is_some(), word.get_or_insert_default()),
            (Some('"'), '$') => {
                let expanded = variable(&mut rest, place, environment, findings);
                word.get_or_insert_default().push_str(&expanded);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Failure::at(place, "this quote has no end"));
    }
    words.extend(word);
    Ok(words)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn escaped(rest: &mut Chars<'_>, quoted: bool, word: &mut String) {
    match rest.next() {
        Some(c @ ('\\' | '"' | '$')) => word.push(c),
        Some(c @ (' ' | '#' | '\'')) if !quoted => word.push(c),
        Some('n') if !quoted => word.push('\n'),
        Some('r') if !quoted => word.push('\r'),
        Some('t') if !quoted => word.push('\t'),
        Some('x') if !quoted => {
            let hex: String = rest.clone().take(2).collect();
            match u8::from_str_radix(&hex, 16) {
                Ok(byte) if hex.len() == 2 => {
                    word.push(char::from(byte));
                    rest.nth(1);
                }
                _ => word.push_str("\\x"),
            }
        }
        Some(c) => {
            word.push('\\');
            word.push(c);
        }
        None => word.push('\\'),
    }
}

/// `NAME`, `{NAME}`, `{NAME-default}` behind a `$`; what is not set is empty.
fn variable(
    rest: &mut Chars<'_>,
    place: &Origin,
    environment: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> String {
    let braced = rest.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    let mut default = None;
    if braced {
        let mut inner = String::new();
        for c in rest.by_ref() {
            if c == '}' {
                break;
            }
            inner.push(c);
        }
        default = inner.strip_prefix('-').map(str::to_owned);
    }
    let shown = format!("${name}");
    match (environment.get(&name), default) {
        (Some(value), _) => {
            findings.differs(place, &shown, "its value now is written into the result");
            value.clone()
        }
        (None, Some(default)) => {
            findings.differs(place, &shown, "it is not set: its default is taken");
            default
        }
        (None, None) => {
            findings.left(place, &shown, "it is not set, and empty for HAProxy");
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<String>, Failure> {
        let text = Text {
            name: "t".into(),
            text: text.to_owned(),
        };
        let mut environment = BTreeMap::from([("HOST".to_owned(), "a b".to_owned())]);
        let lines = read(&text, &mut environment, &mut Findings::default())?;
        Ok(lines.into_iter().map(|line| line.words.join("|")).collect())
    }

    #[test]
    fn words_are_read_as_haproxy_reads_them() {
        let of = |text: &str| lines(text).unwrap().join("\n");
        assert_eq!(of("a b # c\r\n\n d\t e"), "a|b\nd|e");
        assert_eq!(of(r#"a\ b "c d" 'e # f' g\#h"#), "a b|c d|e # f|g#h");
        assert_eq!(
            of(r#"x "$HOST" '$HOST' $HOST "${HOST}s" "${NO-default}""#),
            "x|a b|$HOST|$HOST|a bs|default"
        );
        assert_eq!(of(r"x \x41\n"), "x|A\n");
        assert_eq!(of("setenv P 80\nx \"$P\""), "x|80");
    }

    #[test]
    fn conditions_that_can_be_known_are_followed() {
        let of = |text: &str| lines(text).unwrap().join(" ");
        assert_eq!(of(".if defined(HOST)\na\n.else\nb\n.endif\nc"), "a c");
        assert_eq!(
            of(".if !defined(HOST)\na\n.elif true\nb\n.else\nc\n.endif"),
            "b"
        );
        assert_eq!(of(".if 0\n.if 1\na\n.endif\n.endif\nb"), "b");
        assert!(lines(".if 1\na").is_err());
        assert!(lines(".endif").is_err());
        assert!(lines("a \"b").is_err());
    }
}
