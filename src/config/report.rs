//! The errors of a configuration: collected, never stopping at the first, each with
//! its place, an excerpt and a remedy.
//!
//! Invariant: no [`Problem`] exists without a [`Place`].

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::PathBuf;

/// Problems kept word for word. A file that is not meant for thalweg at all could
/// have a hundred thousand; the rest is counted.
const PROBLEMS_MAX: usize = 200;

/// Every error of a configuration, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// Never empty.
    problems: Vec<Problem>,
    /// How many more there were.
    omitted: usize,
    lists: Vec<ListFile>,
}

/// A file that a list of rules names. What stands in it is somebody else's to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListFile {
    /// Networks of clients: `access` of a forward.
    Clients(PathBuf),
    /// Rules about where requests may go: `access` of `[forward.connect]`.
    Targets(PathBuf),
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, one line.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Where.
    pub place: Place,
}

/// Where an error is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or the command-line argument such as `--set global.reactors=0`.
    pub source: String,
    /// Line and column, both from 1, the column in characters. `None` within a
    /// command-line argument, which has no lines.
    pub position: Option<(usize, usize)>,
    /// The line, control characters replaced, cut to a readable width.
    excerpt: String,
    /// Which characters of the excerpt to mark.
    mark: Range<usize>,
}

impl ConfigErrors {
    /// The errors, in the order of the text.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many errors there are, those not kept included.
    pub fn count(&self) -> usize {
        self.problems.len() + self.omitted
    }

    /// The files that its lists name, as far as they could be made out: what is wrong with those can be told
    /// together with the errors.
    pub fn lists(&self) -> &[ListFile] {
        &self.lists
    }

    /// The errors as a person reads them, with or without terminal colours.
    pub fn render(&self, colours: bool) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            problem.render(&mut text, &Paint { colours });
            text.push('\n');
        }
        if self.omitted > 0 {
            let _ = writeln!(text, "… and {} more errors", self.omitted);
        }
        text
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        match self.position {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl Problem {
    /// Writing to a `String` cannot fail.
    fn render(&self, text: &mut String, paint: &Paint) {
        let line = self
            .place
            .position
            .map_or_else(String::new, |(line, _)| line.to_string());
        let margin = " ".repeat(line.len());
        let bar = paint.dim("|");
        let _ = writeln!(
            text,
            "{}: {}",
            paint.red("error"),
            paint.bold(&self.message)
        );
        let _ = writeln!(text, "{margin}{} {}", paint.dim("-->"), self.place);
        // No line to show: there is no argument that could be wrong.
        if self.place.position.is_some() || !self.place.excerpt.is_empty() {
            let _ = writeln!(text, "{margin} {bar}");
            let _ = writeln!(text, "{} {bar} {}", paint.dim(&line), self.place.excerpt);
            let blank = " ".repeat(self.place.mark.start);
            let caret = "^".repeat(self.place.mark.len().max(1));
            let _ = writeln!(text, "{margin} {bar} {blank}{}", paint.red(&caret));
        }
        if let Some(remedy) = &self.remedy {
            let help = paint.bold("help");
            let _ = writeln!(text, "{margin} {} {help}: {remedy}", paint.dim("="));
        }
    }
}

/// Terminal colours, or none.
struct Paint {
    colours: bool,
}

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn red(&self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.wrap("34", text)
    }
}

/// Which source a span lies in: an index into [`Report::sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId(usize);

/// A piece of a source, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) source: SourceId,
    pub(super) range: Range<usize>,
}

/// What is wrong with one value; the reader of the table knows where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: None,
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With the key that has the value in front.
    pub(super) fn of_key(mut self, key: &str) -> Self {
        self.message = format!("`{key}`: {}", self.message);
        self
    }
}

/// Whether a source is a file, whose places are lines and columns, or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Argument,
}

#[derive(Debug)]
struct Source {
    kind: SourceKind,
    name: String,
    text: String,
    /// Byte offset of the start of each line; never empty.
    lines: Vec<usize>,
}

/// Collects what is wrong while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    sources: Vec<Source>,
    problems: Vec<((SourceId, usize), Problem)>,
    omitted: usize,
    /// Whether part of the text could not be read at all, so that "missing" and
    /// "unknown name" may merely be its echo.
    damaged: bool,
    /// Values that nobody knows, of which everything else would be an echo.
    unknown: Vec<Span>,
    /// Files that lists name.
    lists: Vec<ListFile>,
}

impl Report {
    pub(super) fn add_source(
        &mut self,
        kind: SourceKind,
        name: impl Into<String>,
        text: impl Into<String>,
    ) -> SourceId {
        let text = text.into();
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        self.sources.push(Source {
            kind,
            name: plain(&name.into()),
            text,
            lines,
        });
        SourceId(self.sources.len() - 1)
    }

    /// The text of a span; empty where it does not lie on character boundaries.
    pub(super) fn text(&self, span: &Span) -> &str {
        let text = &self.sources[span.source.0].text;
        text.get(span.range.clone()).unwrap_or_default()
    }

    /// Where a span is, for an error that is told of `from`: "line 3", with the file if it
    /// is another one, or the argument it stands in.
    pub(super) fn describe(&self, span: &Span, from: &Span) -> String {
        let place = self.place(span);
        match place.position {
            Some((line, _)) if span.source == from.source => format!("line {line}"),
            // Of an argument the file is sure, as long as there is only one.
            Some((line, _)) if self.is_argument(from) && self.files() == 1 => {
                format!("line {line}")
            }
            Some((line, _)) => format!("{}:{line}", place.source),
            None => format!("`{}`", place.source),
        }
    }

    fn files(&self) -> usize {
        let files = self.sources.iter().filter(|it| it.kind == SourceKind::File);
        files.count()
    }

    pub(super) fn error(&mut self, span: &Span, fault: Fault) {
        let within = |it: &Span| it.source == span.source && it.range.contains(&span.range.start);
        if self.unknown.iter().any(within) {
            return;
        }
        if self.problems.len() >= PROBLEMS_MAX {
            self.omitted += 1;
            return;
        }
        let problem = Problem {
            message: plain(&fault.message),
            remedy: fault.remedy.map(|remedy| plain(&remedy)),
            place: self.place(span),
        };
        self.problems
            .push(((span.source, span.range.start), problem));
    }

    /// An error that may be no more than the echo of an unreadable part of the
    /// text: left out if there was one, and there will be another run.
    pub(super) fn consequence(&mut self, span: &Span, fault: Fault) {
        if !self.damaged {
            self.error(span, fault);
        }
    }

    /// How many errors there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.omitted
    }

    /// A list of rules names this file.
    pub(super) fn names_list(&mut self, file: ListFile) {
        if !self.lists.contains(&file) {
            self.lists.push(file);
        }
    }

    pub(super) fn mark_damaged(&mut self) {
        self.damaged = true;
    }

    /// This value could not be made out, which has been reported.
    pub(super) fn mark_unknown(&mut self, span: &Span) {
        self.unknown.push(span.clone());
    }

    pub(super) fn is_argument(&self, span: &Span) -> bool {
        self.sources[span.source.0].kind == SourceKind::Argument
    }

    /// All errors in the order of the text; `None` if there were none.
    pub(super) fn into_errors(mut self) -> Option<ConfigErrors> {
        self.problems.sort_by_key(|(order, _)| *order);
        (!self.problems.is_empty()).then(|| ConfigErrors {
            problems: self.problems.into_iter().map(|(_, p)| p).collect(),
            omitted: self.omitted,
            lists: self.lists,
        })
    }

    fn place(&self, span: &Span) -> Place {
        let source = &self.sources[span.source.0];
        let (start, end) = (span.range.start, span.range.end);
        let index = source.lines.partition_point(|line| *line <= start) - 1;
        let line_start = source.lines[index];
        let line = source.text[line_start..]
            .split('\n')
            .next()
            .unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let chars_until = |offset: usize| {
            line.char_indices()
                .take_while(|(at, _)| line_start + at < offset)
                .count()
        };
        let (first, last) = (chars_until(start), chars_until(end));
        let (excerpt, mark) = excerpt(line, first..last.max(first));
        Place {
            source: source.name.clone(),
            position: match source.kind {
                SourceKind::File => Some((index + 1, first + 1)),
                SourceKind::Argument => None,
            },
            excerpt,
            mark,
        }
    }
}

/// Characters of a line that an excerpt shows.
const EXCERPT_WIDTH: usize = 100;

/// Cuts a long line around what is marked.
fn excerpt(line: &str, mark: Range<usize>) -> (String, Range<usize>) {
    let length = line.chars().count();
    let skip = if length > EXCERPT_WIDTH {
        mark.start.saturating_sub(EXCERPT_WIDTH / 2)
    } else {
        0
    };
    let mut shown = String::new();
    if skip > 0 {
        shown.push('…');
    }
    let lead = usize::from(skip > 0);
    shown.extend(line.chars().skip(skip).take(EXCERPT_WIDTH).map(visible));
    if length > skip + EXCERPT_WIDTH {
        shown.push('…');
    }
    let start = mark.start - skip + lead;
    let end = (mark.end - skip + lead).min(EXCERPT_WIDTH + lead);
    (shown, start..end.max(start))
}

/// One character for one, so that the marks stay below what they mark.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // These turn the direction of writing around.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// Whatever a message quotes cannot steer the terminal it is shown on.
fn plain(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The known name that `word` was most likely meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Beyond this length it is no slip of the fingers, and comparing costs its square.
    if word.len() > 48 {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&lower, name), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= name.len().min(lower.len()).div_ceil(3))
        .map(|(_, name)| name)
}

/// Edits from `word` to `name`. A word that is whole parts of a name (`idle` of
/// `idle_timeout`) counts as one edit away.
fn distance(word: &str, name: &str) -> usize {
    let part = |long: &str, short: &str| {
        short.len() >= 3
            && long
                .strip_prefix(short)
                .is_some_and(|rest| rest.starts_with('_'))
            || long
                .strip_suffix(short)
                .is_some_and(|rest| rest.ends_with('_'))
    };
    if word.replace('-', "_") == name {
        return 0;
    }
    if part(name, word) || part(word, name) {
        1
    } else {
        strsim::damerau_levenshtein(word, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, range: Range<usize>) -> Problem {
        let mut report = Report::default();
        let source = report.add_source(SourceKind::File, "t.toml", text);
        report.error(&Span { source, range }, Fault::new("m").remedy("r"));
        let errors = report.into_errors().expect("one error");
        errors.problems()[0].clone()
    }

    #[test]
    fn line_and_column_count_characters_from_one() {
        let place = |text: &str, range| one(text, range).place.position;
        assert_eq!(place("", 0..0), Some((1, 1)));
        assert_eq!(place("a = 1\nüb = 2\n", 8..9), Some((2, 2)));
        assert_eq!(place("a\r\nb", 3..4), Some((2, 1)));
        assert_eq!(place("a\n", 2..2), Some((2, 1)));
        assert_eq!(place("a", 900..901), Some((1, 2)));
    }

    #[test]
    fn an_error_shows_its_line_and_marks_the_place() {
        let mut text = String::new();
        one("x = 1\nabc = \x1b2\n", 12..14).render(&mut text, &Paint { colours: false });
        let expected =
            "error: m\n --> t.toml:2:7\n  |\n2 | abc = \u{fffd}2\n  |       ^^\n  = help: r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let line = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let place = one(&line, 5000..5001).place;
        assert_eq!(place.position, Some((1, 5001)));
        let marked: String = place
            .excerpt
            .chars()
            .skip(place.mark.start)
            .take(1)
            .collect();
        assert_eq!(marked, "X");
        assert!(place.excerpt.chars().count() <= EXCERPT_WIDTH + 2);
    }

    #[test]
    fn the_nearest_name_is_a_likely_one() {
        let known = ["idle_timeout", "connect_timeout", "listen", "mss"];
        assert_eq!(nearest("idle_timout", known), Some("idle_timeout"));
        assert_eq!(nearest("idle-timeout", known), Some("idle_timeout"));
        assert_eq!(nearest("idle", known), Some("idle_timeout"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }
}
