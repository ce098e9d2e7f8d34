//! What became of each directive.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// As it was named, or included.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What became of a directive that is not simply the same now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It could not be converted, and it matters.
    Left(String),
    /// It was converted, and behaves differently in this.
    Differs(String),
    /// It is not needed here.
    Needless(String),
}

/// A directive that is not simply the same now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it stands.
    pub place: Origin,
    /// The directive, without its values where these could be secrets.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.outcome {
            Outcome::Left(why) => ("not converted", why),
            Outcome::Differs(why) => ("differs", why),
            Outcome::Needless(why) => ("not needed", why),
        };
        write!(f, "{}: {word}: {}: {why}", self.place, self.what)
    }
}

/// What was found so far. A directive that several forwards inherit is told of once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: BTreeSet<Finding>,
    /// Directives that were looked at, by their place and what they say.
    seen: BTreeSet<(Origin, String)>,
}

impl Findings {
    /// Means the same now.
    pub(super) fn same(&mut self, place: &Origin, what: &str) {
        self.seen.insert((place.clone(), what.to_owned()));
    }

    /// Was converted, and differs.
    pub(super) fn differs(&mut self, place: &Origin, what: &str, why: impl Into<String>) {
        self.add(place, what, Outcome::Differs(why.into()));
    }

    /// Has no counterpart and needs none.
    pub(super) fn needless(&mut self, place: &Origin, what: &str, why: impl Into<String>) {
        self.add(place, what, Outcome::Needless(why.into()));
    }

    /// Could not be converted, and matters.
    pub(super) fn left(&mut self, place: &Origin, what: &str, why: impl Into<String>) {
        self.add(place, what, Outcome::Left(why.into()));
    }

    fn add(&mut self, place: &Origin, what: &str, outcome: Outcome) {
        self.same(place, what);
        self.found.insert(Finding {
            place: place.clone(),
            what: what.to_owned(),
            outcome,
        });
    }

    /// Everything, in the order of the places, and how many directives were converted.
    pub(super) fn told(self) -> (Vec<Finding>, usize) {
        let unconverted: BTreeSet<(&Origin, &str)> = self
            .found
            .iter()
            .filter(|finding| !matches!(finding.outcome, Outcome::Differs(_)))
            .map(|finding| (&finding.place, finding.what.as_str()))
            .collect();
        let converted = self
            .seen
            .iter()
            .filter(|(place, what)| !unconverted.contains(&(place, what.as_str())))
            .count();
        (self.found.into_iter().collect(), converted)
    }
}
