//! What came of a reload, or would: for people and as data.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::config::{Difference, Subject, What};

/// What a reload did; of a dry run, what it would do.
#[derive(Debug, Clone, Serialize)]
pub struct Reloaded {
    /// Which configuration of this process runs now, from 0.
    pub generation: u64,
    /// It was only looked at.
    pub dry_run: bool,
    /// One line: `2 forwards added, 1 changed, 3 servers added, 0 sessions cut`.
    pub summary: String,
    /// Every difference in words: `forward web: idle_timeout: "10m" becomes "5s" (live)`.
    pub changes: Vec<String>,
    /// Addresses that are listened on from now on, and were not before.
    pub listeners_opened: Vec<String>,
    /// Addresses that are listened on as before, by the very same sockets.
    pub listeners_kept: usize,
    /// Addresses that are listened on no more.
    pub listeners_closed: Vec<String>,
    /// Forwards that were compared with those that ran before: those that are written
    /// otherwise, and those of a pool that is.
    pub forwards_compared: usize,
    /// Orders that reactors were given for it; none where nothing differs, and none in a dry run.
    pub orders: usize,
    /// Sessions whose forward is gone; they run to their end, or until the forward's
    /// `drain_timeout`.
    pub sessions_left: usize,
    /// Sessions that were ended by this: none ever is.
    pub sessions_cut: usize,
    /// Until then it has to be confirmed, or what was before is back; seconds from now.
    pub confirm_within: Option<f64>,
    /// How long it took.
    #[serde(flatten)]
    pub took: Took,
}

/// Where the time of a reload went, in seconds. Reading grows with all that is written, the
/// rest with what differs, but for a look at each forward and each address.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Took {
    /// Reading the files and checking what they say.
    #[serde(rename = "read_seconds")]
    pub read: f64,
    /// Comparing it with what runs, and what follows from that.
    #[serde(rename = "compare_seconds")]
    pub compare: f64,
    /// Acquiring what is missing, and applying it: until every reactor goes by it.
    #[serde(rename = "apply_seconds")]
    pub apply: f64,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum ReloadError {
    /// The configuration has mistakes; each with its place.
    Configuration(String),
    /// These need a new process, so nothing was touched.
    Restart(Vec<String>),
    /// The sandbox that this process is in for good denies these, so nothing was touched.
    Denied(Vec<String>),
    /// Something that it asks for cannot be had.
    Unavailable(String),
    /// Another one has not come to an end yet.
    Busy(String),
    /// Another process is taking over.
    Upgrading(String),
    /// The process is ending.
    Ending,
}

impl std::error::Error for ReloadError {}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) | Self::Unavailable(text) => f.write_str(text),
            Self::Restart(keys) => {
                write!(
                    f,
                    "a running process cannot change this: {}",
                    keys.join("; ")
                )
            }
            Self::Denied(needs) => {
                write!(
                    f,
                    "{}; a new process can, or name it in `sandbox_paths` or `sandbox_ports` \
                     for the next start",
                    needs.join("; ")
                )
            }
            Self::Busy(step) => write!(f, "an earlier reload has not come to an end: {step}"),
            Self::Upgrading(what) => write!(f, "an upgrade has not come to an end: {what}"),
            Self::Ending => f.write_str("the process is ending"),
        }
    }
}

const fn is_whole(difference: &Difference) -> bool {
    !matches!(difference.subject, Subject::Listener { .. })
}

/// How many there are of what was added, removed and changed, in words.
pub(super) fn summary(differences: &[Difference], sessions_cut: usize) -> String {
    type Kind = (&'static str, fn(&Subject) -> Option<String>);
    let kinds: [Kind; 4] = [
        ("forward", |it| match it {
            Subject::Forward(name) => Some(name.clone()),
            Subject::Listener { forward, .. } => Some(forward.clone()),
            _ => None,
        }),
        ("upstream", |it| match it {
            Subject::Pool(name) => Some(name.clone()),
            _ => None,
        }),
        ("server", |it| match it {
            Subject::Server { pool, address } => Some(format!("{pool} {address}")),
            _ => None,
        }),
        ("setting", |it| match it {
            Subject::Global | Subject::Log | Subject::Profile(_) => Some(it.to_string()),
            _ => None,
        }),
    ];
    let whole: BTreeSet<&str> = differences
        .iter()
        .filter_map(|it| match (&it.subject, &it.what) {
            (Subject::Forward(name), What::Added | What::Removed) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let comes_with_its_forward = |it: &Difference| matches!(&it.subject, Subject::Pool(name) if whole.contains(name.as_str()));
    let mut parts: Vec<String> = Vec::new();
    for (kind, name) in kinds {
        let names = |what: fn(&Difference) -> bool| -> BTreeSet<String> {
            let of_kind = differences
                .iter()
                .filter(|it| what(it) && !comes_with_its_forward(it));
            of_kind.filter_map(|it| name(&it.subject)).collect()
        };
        // A listener more or less is a change of its forward.
        let added = names(|it| is_whole(it) && it.what == What::Added);
        let removed = names(|it| is_whole(it) && it.what == What::Removed);
        let changed: BTreeSet<String> = names(|_| true)
            .difference(&added)
            .filter(|it| !removed.contains(*it))
            .cloned()
            .collect();
        let mut first = true;
        for (names, what) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
            if names.is_empty() {
                continue;
            }
            let count = names.len();
            let plural = if count == 1 { "" } else { "s" };
            parts.push(if first {
                format!("{count} {kind}{plural} {what}")
            } else {
                format!("{count} {what}")
            });
            first = false;
        }
    }
    if parts.is_empty() {
        parts.push("nothing differs".to_owned());
    }
    parts.push(format!("{sessions_cut} sessions cut"));
    parts.join(", ")
}
