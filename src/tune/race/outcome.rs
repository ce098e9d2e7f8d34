//! What a race is given, asks for, and comes to.

use std::time::Duration;

use serde::Serialize;

use crate::bench::stats::Estimate;

/// What a race is given.
#[derive(Debug, Clone, Copy)]
pub struct RaceOptions {
    /// Arms at the start, the defaults included.
    pub arms: usize,
    /// The arm of the settings that the user has now; it is never dropped either,
    /// and takes part in the confirmation.
    pub present: Option<usize>,
    /// Everything ends within this.
    pub budget: Duration,
    /// What one run takes, guessed; measured from the first run on.
    pub run: Duration,
    /// A gain below this share is not worth a setting: 0.03 is three per cent.
    pub minimum_effect: f64,
    /// Of the order within rounds, and of the intervals.
    pub seed: u64,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Measure this arm and tell what it came to.
    Run(usize),
    /// These arms surely help, best first: let combinations of them join.
    Combine(Vec<usize>),
    /// It is over.
    Done,
}

/// What became of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "fate")]
pub enum Fate {
    /// It ran to the end of the race.
    Stayed,
    /// Surely worse than the defaults.
    Worse {
        /// After so many rounds.
        #[serde(rename = "after_rounds")]
        rounds: usize,
    },
    /// Surely worse than the best, once combinations had joined.
    Beaten {
        /// After so many rounds.
        #[serde(rename = "after_rounds")]
        rounds: usize,
    },
    /// Among the worse half when the time was given to the better one.
    Halved {
        /// After so many rounds.
        #[serde(rename = "after_rounds")]
        rounds: usize,
    },
    /// It could not be measured.
    Failed {
        /// Why.
        why: String,
    },
}

/// What the race comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// This arm is better than the defaults by more than the minimum effect.
    Recommend {
        /// Which.
        arm: usize,
        /// Its merit by the defaults', in the confirmation.
        ratio: Estimate,
    },
    /// No difference that can be told from noise and is worth a setting.
    Leave {
        /// Why, and what was looked at last.
        why: Leave,
    },
}

/// Why the kernel's defaults are the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Leave {
    /// No arm even looked better by the minimum effect.
    NothingBetter,
    /// One looked better, and fresh runs did not bear it out.
    NotConfirmed {
        /// Which.
        arm: usize,
        /// Its merit by the defaults', in the confirmation.
        ratio: Estimate,
    },
    /// One looked better, and there was no time for enough fresh runs.
    NoTime {
        /// Which.
        arm: usize,
    },
    /// The defaults themselves could not be measured.
    Broken {
        /// Why.
        error: String,
    },
}
