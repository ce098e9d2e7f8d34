//! What a search found, as a document: the verdict in words, and all that it rests
//! on. The outputs are in [`table`], [`html`] and [`profile`], whose
//! figures are tables of the model that `bench` reports by; JSON is the document itself.

pub mod html;
pub mod profile;
#[cfg(test)]
mod sample;
pub mod table;
mod tables;

use serde::Serialize;

use super::diagnose::Diagnosis;
use super::measure::{Terms, Through};
use super::race::{DEFAULTS, Decision, Fate, Leave};
use super::search::{Row, StageResult};
use super::space::values::{Facts, Skipped};
use super::{TuneOptions, TuneResult};
use crate::bench::machine::Machine;
use crate::bench::report::Head;
use crate::bench::report::render::ratio_text;
use crate::bench::stats::{self, Better, Verdict};

/// Everything that a search found.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// What it is, and what made it.
    #[serde(flatten)]
    pub head: Head,
    /// Which path, in words.
    pub place: String,
    /// What all runs share.
    pub terms: Terms,
    /// Asked for, seconds.
    #[serde(rename = "time_seconds")]
    pub time: f64,
    /// Taken, seconds.
    #[serde(rename = "took_seconds")]
    pub took: f64,
    /// A gain below this share is not recommended.
    #[serde(rename = "minimum_effect_share")]
    pub minimum_effect: f64,
    /// Of the order and the intervals.
    pub seed: u64,
    /// What a first look at the path found.
    pub facts: Facts,
    /// What makes the figures doubtful.
    pub doubts: Vec<String>,
    /// What was not searched over, and why.
    pub skipped: Vec<Skipped>,
    /// One for each race.
    pub stages: Vec<StageResult>,
    /// In a few sentences, the answer first.
    pub verdict: Vec<String>,
    /// What held the defaults back, and the present settings, in a few sentences.
    pub findings: Vec<String>,
    /// The profile as TOML.
    pub profile: String,
}

/// What the command knows and a search does not.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// The command line.
    pub command: String,
    /// UTC, ISO 8601.
    pub when: String,
    /// What it ran on.
    pub machine: Machine,
    /// Which path, in words.
    pub place: String,
    /// What makes the figures doubtful.
    pub doubts: Vec<String>,
    /// What the profile is to be called.
    pub profile_name: String,
}

impl Report {
    /// Puts the document together.
    pub fn new(options: &TuneOptions, result: TuneResult, occasion: Occasion) -> Self {
        let mut report = Self {
            head: Head::new(
                "thalweg-tune",
                occasion.command,
                occasion.when,
                occasion.machine,
            ),
            place: occasion.place,
            terms: options.terms.clone(),
            time: options.time.as_secs_f64(),
            took: result.took.as_secs_f64(),
            minimum_effect: options.minimum_effect,
            seed: options.seed,
            verdict: verdict(&result, options.minimum_effect),
            findings: findings(&result),
            facts: result.facts,
            doubts: [result.doubts, occasion.doubts].concat(),
            skipped: result.skipped,
            stages: result.stages,
            profile: String::new(),
        };
        report.profile = profile::render(&report, &occasion.profile_name);
        report
    }

    /// How it was measured, in one sentence.
    pub fn method(&self) -> String {
        let stages = self.stages.iter().map(|stage| {
            format!(
                "{}{} runs of {:.2} s after {:.2} s of warm-up",
                match stage.through {
                    Through::Nothing => "",
                    Through::Forwarder => "through a forwarder ",
                },
                stage.runs,
                stage.timing.duration.as_secs_f64(),
                stage.timing.warm_up.as_secs_f64(),
            )
        });
        format!(
            "{}; interleaved rounds in random order, the kernel's defaults in each; the decision \
             by fresh runs at {:.0} %; took {:.0} s of {:.0} s",
            stages.collect::<Vec<_>>().join(", "),
            self.head.confidence * 100.0,
            self.took,
            self.time,
        )
    }

    /// The conditions, in one line.
    pub fn conditions(&self) -> String {
        let flows = self.terms.flows;
        format!(
            "objective {}, direction {}, {flows} flow{}; congestion control of the defaults: {}",
            self.terms.objective,
            super::measure::name_of(self.terms.direction),
            if flows == 1 { "" } else { "s" },
            self.facts.congestion,
        )
    }

    /// What the first look found, in one line.
    pub fn path(&self) -> String {
        use crate::bench::units;
        format!(
            "rtt {}, segments of {} bytes, {} in a first run with the defaults; a flow at {} has {} \
             under way",
            units::latency(self.facts.rtt.as_nanos() as f64),
            self.facts.mss,
            units::bit_rate(self.facts.rate),
            units::bit_rate(self.facts.flow_rate()),
            units::size(self.facts.bandwidth_delay() as f64),
        )
    }
}

impl StageResult {
    /// Rows for a table: those that stayed to the end, then those that were dropped,
    /// each by what is known best of them, best first; without a figure, last.
    pub fn ranked(&self) -> Vec<(usize, &Row)> {
        let mut rows: Vec<(usize, &Row)> = self.rows.iter().enumerate().collect();
        let key = |row: &(usize, &Row)| match row.1.confirmed.or(row.1.ratio) {
            _ if row.0 == DEFAULTS => 1.0,
            Some(ratio) => ratio.estimate,
            None => f64::NEG_INFINITY,
        };
        let dropped = |row: &(usize, &Row)| row.1.fate != Fate::Stayed;
        rows.sort_by(|a, b| {
            let by_fate = dropped(a).cmp(&dropped(b));
            by_fate.then(key(b).total_cmp(&key(a)))
        });
        rows
    }

    /// What a row is called: one that has nothing of its own is the race's defaults.
    pub fn name<'a>(&self, row: &'a Row) -> &'a str {
        if row.candidate.changes.is_empty() && !self.base.changes.is_empty() {
            "recommended leg alone"
        } else {
            &row.name
        }
    }
}

fn verdict(result: &TuneResult, minimum_effect: f64) -> Vec<String> {
    let mut sentences = Vec::new();
    for stage in &result.stages {
        sentences.push(decision(stage, minimum_effect));
        sentences.extend(present(stage));
    }
    sentences
}

fn decision(stage: &StageResult, minimum_effect: f64) -> String {
    let than = match stage.through {
        Through::Nothing => "the kernel's defaults",
        Through::Forwarder => "the forwarder's defaults",
    };
    let leave = match stage.through {
        Through::Nothing => "leave it to the kernel",
        Through::Forwarder => "leave the forwarder's settings as they are",
    };
    let least = minimum_effect * 100.0;
    match &stage.decision {
        Decision::Recommend { arm, ratio } => format!(
            "{}: {} times as good as {than} in {} fresh rounds",
            stage.rows[*arm].name,
            ratio_text(*ratio),
            stage.rows[*arm].rounds[1],
        ),
        Decision::Leave { why } => match why {
            Leave::NothingBetter => {
                format!("{leave}: nothing looked better than {than} by {least:.0} % or more")
            }
            Leave::NotConfirmed { arm, ratio } => format!(
                "{leave}: {} led the race, but {} fresh rounds say {} times as good as {than}: {}",
                stage.rows[*arm].name,
                stage.rows[*arm].rounds[1],
                ratio_text(*ratio),
                if ratio.is_above(1.0) {
                    format!("less than the {least:.0} % that is worth a setting")
                } else if ratio.is_below(1.0) {
                    "worse".to_owned()
                } else {
                    "noise".to_owned()
                },
            ),
            Leave::NoTime { arm } => format!(
                "{leave}: {} led the race, but there was no time to confirm it; a longer --time \
                 tells",
                stage.rows[*arm].name,
            ),
            Leave::Broken { error } => format!("{leave}: {error}"),
        },
    }
}

/// What the user has now against the defaults.
fn present(stage: &StageResult) -> Option<String> {
    let row = stage.present()?;
    let (ratio, rounds) = match (row.confirmed, row.ratio) {
        (Some(ratio), _) => (ratio, row.rounds[1]),
        (None, Some(ratio)) => (ratio, row.rounds[0]),
        (None, None) => return Some(format!("present settings ({}): not measured", row.name)),
    };
    let advice = match stats::verdict(ratio, rounds, Better::More) {
        Verdict::Faster => "better than the defaults",
        Verdict::Slower => "worse than the defaults: leave them out",
        Verdict::Noise | Verdict::Disturbed => {
            "no different from the defaults: they can be left out"
        }
    };
    Some(format!(
        "present settings ({}): {} times as good as the kernel's defaults, {advice}",
        row.name,
        ratio_text(ratio),
    ))
}

fn findings(result: &TuneResult) -> Vec<String> {
    let mut findings = Vec::new();
    let Some(stage) = result.stages.first() else {
        return findings;
    };
    let recommended = match stage.decision {
        Decision::Recommend { arm, .. } => stage.rows.get(arm),
        Decision::Leave { .. } => None,
    };
    let rows = stage.rows.first().into_iter().chain(stage.present());
    for row in rows.chain(recommended.filter(|row| !row.present)) {
        if let Some(diagnosis) = &row.diagnosis {
            let remedy = advice(stage, diagnosis);
            let remedy = remedy.map_or_else(String::new, |text| format!("\n    → {text}"));
            findings.push(format!("{}: {}{remedy}", row.name, diagnosis.finding));
        }
    }
    findings
}

/// What would lift a limit; not what this search tried, which its answer speaks of.
fn advice(stage: &StageResult, diagnosis: &Diagnosis) -> Option<String> {
    let remedy = diagnosis.remedy.clone()?;
    let Some(option) = diagnosis.remedy_option else {
        return Some(remedy);
    };
    let has = |row: &&Row| {
        let mut changes = row.candidate.changes.iter();
        changes.any(|change| change.option() == option)
    };
    let measured = |row: &&Row| !row.present && !matches!(row.fate, Fate::Failed { .. });
    let tried: Vec<&Row> = stage.rows.iter().filter(measured).filter(has).collect();
    if tried.is_empty() {
        return Some(remedy);
    }
    let recommended = stage.recommended();
    if recommended.is_some_and(|it| it.changes.iter().any(|change| change.option() == option)) {
        return Some(format!("`{option}`, as recommended"));
    }
    let values = tried.iter().flat_map(|row| &row.candidate.changes);
    let mut values: Vec<String> = values
        .filter(|change| change.option() == option)
        .map(|change| change.shown().to_owned())
        .collect();
    values.dedup();
    Some(format!(
        "`{option}` was tried ({}), and none was better than what the kernel does",
        values.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tune::diagnose::{Limit, Shares};

    fn losses() -> Diagnosis {
        Diagnosis {
            limit: Limit::Losses,
            shares: Shares::default(),
            rtt_min: Duration::ZERO,
            rtt: Duration::ZERO,
            retransmitted: 0.01,
            window: 0,
            congestion_window: 0,
            mss: 1448,
            rate: 1e6,
            bandwidth_delay: 0,
            busiest_thread: 0.0,
            machine: 0.0,
            finding: "losses".to_owned(),
            remedy: Some("another congestion control".to_owned()),
            remedy_option: Some("congestion"),
        }
    }

    #[test]
    fn the_schema_of_tune_is_what_its_types_say() {
        crate::bench::report::document::check_schema::<Report>("tune.schema.json");
    }

    #[test]
    fn nothing_is_advised_that_was_tried_and_not_recommended() {
        let mut stages = sample::sample().stages;
        let stage = &mut stages[0];
        assert_eq!(
            advice(stage, &losses()).as_deref(),
            Some("`congestion`, as recommended")
        );
        stage.decision = Decision::Leave {
            why: Leave::NothingBetter,
        };
        let text = advice(stage, &losses()).unwrap();
        assert!(text.contains("was tried (cubic)"), "{text}");
        stage.rows.truncate(2);
        assert_eq!(
            advice(stage, &losses()).as_deref(),
            Some("another congestion control")
        );
    }
}
