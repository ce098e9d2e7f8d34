//! A finished search that never took place, for the tests of the outputs.

use std::time::Duration;

use super::{Occasion, Report};
use crate::bench::load::shape::Direction;
use crate::bench::machine;
use crate::bench::report::Cost;
use crate::bench::stats::{Estimate, Interval};
use crate::tune::measure::{Terms, Through, Timing};
use crate::tune::objective::Objective;
use crate::tune::race::{Decision, Fate};
use crate::tune::search::{Row, Series, StageResult};
use crate::tune::space::Candidate;
use crate::tune::space::values::{Facts, Skipped};
use crate::tune::venue::Where;
use crate::tune::{TuneOptions, TuneResult};

/// cubic won over bbr, and a small segment size lost.
pub(super) fn sample() -> Report {
    Report::new(
        &options(),
        result(),
        Occasion {
            command: "thalweg tune --loopback".to_owned(),
            when: "2026-01-01T00:00:00Z".to_owned(),
            machine: machine::facts(),
            place: "loopback".to_owned(),
            doubts: vec!["<late>".to_owned()],
            profile_name: "tuned".to_owned(),
        },
    )
}

fn options() -> TuneOptions {
    TuneOptions {
        place: Where::Loopback,
        terms: Terms {
            direction: Direction::Up,
            flows: 1,
            objective: Objective::default(),
            both_ends: true,
        },
        time: Duration::from_secs(10),
        searched: None,
        present: Candidate::default(),
        minimum_effect: 0.03,
        seed: 1,
        congestion: None,
    }
}

fn result() -> TuneResult {
    TuneResult {
        facts: Facts {
            mss: 1448,
            rtt: Duration::from_millis(1),
            rate: 1e9,
            peak: 1.2e9,
            flows: 1,
            congestion: "bbr".to_owned(),
        },
        doubts: Vec::new(),
        skipped: vec![Skipped {
            what: "congestion=<vegas>".to_owned(),
            why: "not here".to_owned(),
        }],
        stages: vec![StageResult {
            through: Through::Nothing,
            base: Candidate::default(),
            timing: Timing {
                warm_up: Duration::from_millis(80),
                duration: Duration::from_millis(250),
            },
            runs: 40,
            rows: vec![
                row("", 1.0, None, Fate::Stayed),
                row("mss=536", 0.4, None, Fate::Worse { rounds: 3 }),
                row("congestion=cubic", 1.5, Some(1.45), Fate::Stayed),
            ],
            decision: Decision::Recommend {
                arm: 2,
                ratio: interval(1.45),
            },
        }],
        took: Duration::from_secs(9),
    }
}

fn interval(estimate: f64) -> Estimate {
    Estimate {
        estimate,
        interval: Some(Interval {
            low: estimate * 0.97,
            high: estimate * 1.03,
        }),
    }
}

fn row(text: &str, ratio: f64, confirmed: Option<f64>, fate: Fate) -> Row {
    let candidate = Candidate {
        changes: text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect(),
    };
    Row {
        name: candidate.to_string(),
        candidate,
        present: false,
        rounds: [4, usize::from(confirmed.is_some()) * 9],
        throughput: Some(interval(1e9 * ratio)),
        p99: None,
        cost: Some(Cost::of_path(interval(0.3))),
        ratios: Vec::new(),
        ratio: Some(interval(ratio)).filter(|_| !text.is_empty()),
        confirmed: confirmed.map(interval),
        fate,
        granted: Vec::new(),
        diagnosis: None,
        series: Some(Series {
            at: vec![0.0, 0.1, 0.2],
            rtt: vec![0.0, 0.001, 0.002],
            cwnd: vec![1e4, 2e4, 3e4],
            rate: vec![0.0, 1e9, 2e9],
        }),
    }
}
