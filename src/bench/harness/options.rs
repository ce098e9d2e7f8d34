//! What the harness is asked for.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::bench::load::shape::Shape;
use crate::bench::path::Link;
use crate::bench::subjects::Subject;

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Everything on one CPU.
    OneCore,
    /// The forwarder alone on its CPUs, the rest on the others.
    OwnCore,
}

impl Layout {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneCore => "one-core",
            Self::OwnCore => "own-core",
        }
    }
}

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Whom.
    pub subjects: Vec<Subject>,
    /// With which traffic.
    pub shapes: Vec<Shape>,
    /// In which layouts.
    pub layouts: Vec<Layout>,
    /// How often each; at least once.
    pub rounds: usize,
    /// Of the order of subjects within the rounds.
    pub seed: u64,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement.
    pub duration: Duration,
    /// Event loops of each subject.
    pub workers: usize,
    /// Threads of the generator and of the origin; `None`: one for each of their CPUs.
    pub threads: Option<usize>,
    /// How often every subject is started for the cost of that; 0 leaves it out.
    pub starts: usize,
    /// Idle sessions for the memory figure; 0 leaves it out.
    pub idle_sessions: usize,
    /// See [`LoadPlan::compare_one_in`](crate::bench::load::LoadPlan::compare_one_in).
    pub compare_one_in: usize,
    /// Set on the generator's and the origin's sockets; `None`: the system's.
    pub congestion: Option<String>,
    /// The origin is at the far end of this path; generator and subjects are where
    /// the calling thread is, which must be its near end. `None`: loopback.
    pub path: Option<Arc<Link>>,
}

/// What happens now, for a display.
#[derive(Debug, Clone)]
pub struct Status {
    /// Measurements done.
    pub done: usize,
    /// Measurements in all.
    pub total: usize,
    /// The one that begins.
    pub text: String,
}
