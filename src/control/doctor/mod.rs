//! What on this machine limits a forwarder.
//!
//! ```text
//! kernel ──► Facts ─┐
//!                   ├─► judge (pure) ─► findings: found, wanted, what to change
//! Config ──► Needs ─┘
//! ```
//! Without a configuration nothing is needed, so nothing falls short: what is worth
//! knowing is a note. Reads only, but for scratch sockets: one for each leg of
//! a configuration, on which its options are tried, and one for each listener, which is
//! bound for a moment and never listens (`start`).

mod checks;
mod facts;
mod needs;
mod start;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::config::Config;
use crate::control::Confinement;

pub use facts::{Congestion, Facts, Interface, IoUring, Refused};
pub use needs::Needs;
pub use start::{Trial, Verdict};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is called: a sysctl, a limit, an option.
    pub name: String,
    /// What it is here; `unknown` where the kernel does not say.
    pub found: String,
    /// What the configuration needs, or what is usual where a note says so.
    pub wanted: Option<String>,
    /// Whether that suffices.
    pub state: State,
    /// What it limits and how to change it.
    pub remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing to do.
    Fine,
    /// The kernel does not say: neither good nor bad.
    Unknown,
    /// It limits something that the configuration does not ask for.
    Note,
    /// Less than the configuration needs.
    Short,
}

/// Looks at this machine, with a configuration in mind or without.
pub fn examine(config: Option<&Config>) -> Vec<Finding> {
    let needs = config.map(Needs::of).unwrap_or_default();
    let mut findings = judge(&Facts::collect(config), &needs);
    findings.extend(config.map(|config| {
        let expected = Confinement::expected(config);
        Finding::new("user and sandbox", expected)
    }));
    findings
}

/// What the facts mean for these needs.
pub fn judge(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    checks::all(facts, needs)
}

impl Finding {
    fn new(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            found: found.into(),
            wanted: None,
            state: State::Fine,
            remedy: None,
        }
    }

    fn unknown(name: impl Into<String>) -> Self {
        Self {
            state: State::Unknown,
            ..Self::new(name, "unknown")
        }
    }

    fn wanted(mut self, wanted: impl Into<String>) -> Self {
        self.wanted = Some(wanted.into());
        self
    }

    fn note(mut self, remedy: impl Into<String>) -> Self {
        self.state = State::Note;
        self.remedy = Some(remedy.into());
        self
    }

    fn short(mut self, remedy: impl Into<String>) -> Self {
        self.state = State::Short;
        self.remedy = Some(remedy.into());
        self
    }
}
