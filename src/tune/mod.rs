//! `thalweg tune`: which options make this path fast, by measurement.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`space`] | pure but for what the kernel grants: options, candidates, values |
//! | [`objective`] | pure: three figures of a run, one merit |
//! | [`race`] | pure: which candidate runs next, which is out, what is recommended |
//! | [`diagnose`] | pure: what holds the path back, from `TCP_INFO` |
//! | [`venue`] | where the far end is: loopback, an emulated path, elsewhere |
//! | [`measure`] | one run of a candidate |
//! | [`search`] | one race over the space: runs, figures, rows |
//! | [`report`] | the result as a table, JSON, HTML, and a profile to paste |
//!
//! Two races, each with defaults of its own: over the options of a leg, without a
//! forwarder between, and then over those of the forwarder, with one between in every
//! run, its legs set up as the first race found. Everything ends within the time
//! that was asked for.

pub mod diagnose;
pub mod measure;
pub mod objective;
pub mod race;
pub mod report;
pub mod search;
pub mod space;
pub mod venue;

use std::time::{Duration, Instant};

use measure::{Contender, Ground, NoRun, Run, Terms, Through, Timing};
use search::{Search, StageResult};
use space::values::{Facts, Skipped};
use space::{Candidate, Place, Searched, values};
use venue::{Venue, VenueError, Where};

use crate::bench::interrupt::Interrupt;
use crate::bench::subjects::running::Workspace;
use crate::net::limits;

/// Kept back for the end: closing, statistics, writing.
const RESERVE: Duration = Duration::from_millis(500);

/// Share of the time for the options of a leg where both races run.
const LEG_SHARE: f64 = 0.65;

/// On a longer path the forwarder's own work does not show beside the network's.
const FORWARDER_RTT_MAX: Duration = Duration::from_millis(2);

/// What to search, where, and how long.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    /// Where the far end is.
    pub place: Where,
    /// What all runs share.
    pub terms: Terms,
    /// Everything ends within this.
    pub time: Duration,
    /// What is searched over; `None`: everything that can matter there.
    pub searched: Option<Vec<Searched>>,
    /// The settings that the user has now; nothing: the kernel's.
    pub present: Candidate,
    /// A gain below this share is not worth a setting.
    pub minimum_effect: f64,
    /// Makes order and intervals repeatable for the same figures.
    pub seed: u64,
    /// Congestion control that the defaults of an emulated path have.
    pub congestion: Option<String>,
}

/// What happens now, for a display.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// In words.
    pub text: String,
}

/// What a search found.
#[derive(Debug)]
pub struct TuneResult {
    /// What a first look at the path found.
    pub facts: Facts,
    /// What makes the figures doubtful.
    pub doubts: Vec<String>,
    /// What was not searched over, and why.
    pub skipped: Vec<Skipped>,
    /// One for each race.
    pub stages: Vec<StageResult>,
    /// How long it took.
    pub took: Duration,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// No far end.
    #[error(transparent)]
    Venue(#[from] VenueError),
    /// Settings that no configuration takes, or that cannot be set here.
    #[error("the present settings: {0}")]
    Present(String),
    /// No comparison fits into the time.
    #[error(
        "--time {time:.0?} is too short to compare anything on this path, where one run takes \
         {run:.1?}: it needs {needed:.0?} at least"
    )]
    TooShort {
        /// Asked for.
        time: Duration,
        /// Of one run.
        run: Duration,
        /// At the least.
        needed: Duration,
    },
    /// The defaults cannot be measured.
    #[error("the path cannot be measured: {0}")]
    Broken(String),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

impl From<NoRun> for TuneError {
    fn from(no: NoRun) -> Self {
        match no {
            NoRun::Interrupted => Self::Interrupted,
            NoRun::Failed(error) => Self::Broken(error),
        }
    }
}

/// A duration as JSON has it.
fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// Searches. `show` is called before each run. Time counts from `started`.
///
/// # Errors
/// Why nothing was found. By then everything started has ended.
pub fn run(
    options: &TuneOptions,
    venue: &Venue,
    interrupt: &Interrupt,
    started: Instant,
    show: &dyn Fn(&Progress),
) -> Result<TuneResult, TuneError> {
    let cpus = limits::allowed_cpus();
    let tell = |text: String| {
        show(&Progress {
            elapsed: started.elapsed(),
            text,
        });
    };
    let tuning = Tuning {
        options,
        venue,
        interrupt,
        started,
        cpus: &cpus,
        tell: &tell,
    };
    tuning.run()
}

/// A search in progress.
struct Tuning<'a> {
    options: &'a TuneOptions,
    venue: &'a Venue,
    interrupt: &'a Interrupt,
    started: Instant,
    cpus: &'a [usize],
    tell: &'a dyn Fn(String),
}

/// What both races need to know.
struct Known {
    facts: Facts,
    timing: Timing,
    /// What makes short runs doubtful on this path.
    doubt: Option<String>,
}

impl Tuning<'_> {
    fn run(&self) -> Result<TuneResult, TuneError> {
        (self.tell)("looking at the path".to_owned());
        let present = Contender::new(self.options.present.clone()).map_err(TuneError::Present)?;
        if !present.refused.is_empty() {
            return Err(TuneError::Present(present.refused.join("; ")));
        }
        let known = self.look()?;
        let (searched, mut skipped) = chosen(self.options, &known.facts, known.timing, self.left());
        let (of_leg, of_forwarder): (Vec<_>, Vec<_>) = searched
            .into_iter()
            .partition(|option| option.place() == Place::Profile);
        let mut stages = Vec::new();
        let has_present = !present.candidate.changes.is_empty();
        if !of_leg.is_empty() || has_present || of_forwarder.is_empty() {
            let share = if of_forwarder.is_empty() {
                1.0
            } else {
                LEG_SHARE
            };
            let budget = self.left().mul_f64(share);
            let ground = self.ground(Through::Nothing, None);
            let base = Candidate::default();
            let search = self.search(&known, &ground, &base, Some(&present.candidate), budget);
            let (singles, not_settable) = values::singles(&of_leg, &known.facts);
            skipped.extend(not_settable);
            stages.push(search.run(singles, &mut skipped)?);
        }
        if !of_forwarder.is_empty() && !self.interrupt.is_raised() {
            let workspace = Workspace::new()
                .map_err(|error| TuneError::Broken(format!("no temporary directory: {error}")))?;
            let base = stages.first().and_then(StageResult::recommended).cloned();
            let base = base.unwrap_or_default();
            let ground = self.ground(Through::Forwarder, Some(&workspace));
            let search = self.search(&known, &ground, &base, None, self.left());
            let (singles, not_settable) = values::singles(&of_forwarder, &known.facts);
            skipped.extend(not_settable);
            match search.run(singles, &mut skipped) {
                Ok(stage) => stages.push(stage),
                // The first race stands by itself.
                Err(TuneError::Interrupted) if !stages.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        let took = self.started.elapsed();
        let interrupted = self.interrupt.is_raised().then(|| {
            format!(
                "interrupted after {:.0} s of {:.0} s: this is what was known by then",
                took.as_secs_f64(),
                self.options.time.as_secs_f64()
            )
        });
        Ok(TuneResult {
            facts: known.facts,
            doubts: known.doubt.into_iter().chain(interrupted).collect(),
            skipped,
            stages,
            took,
        })
    }

    /// The time that is left for measuring.
    fn left(&self) -> Duration {
        let end = self.options.time.saturating_sub(RESERVE);
        end.saturating_sub(self.started.elapsed())
    }

    fn ground<'g>(&'g self, through: Through, workspace: Option<&'g Workspace>) -> Ground<'g> {
        Ground {
            venue: self.venue,
            terms: &self.options.terms,
            through,
            workspace,
            cpus: self.cpus,
            interrupt: self.interrupt,
            deadline: self.started + self.options.time,
        }
    }

    /// A run of the defaults, from which the rest is planned.
    fn look(&self) -> Result<Known, TuneError> {
        let connect = self.venue.greet()?;
        let ground = self.ground(Through::Nothing, None);
        let objective = &self.options.terms.objective;
        // On a slow path even a look would outlast a short time.
        let least = Timing::least(connect, objective);
        let run = least.whole(connect, ground.through);
        let needed = run * search::RUNS_LEAST;
        if needed > self.left() {
            return Err(TuneError::TooShort {
                time: self.options.time,
                run,
                needed,
            });
        }
        let defaults = Contender::new(Candidate::default()).map_err(TuneError::Broken)?;
        let long = Timing::lossy(connect, objective);
        let affordable = long.whole(connect, ground.through) * search::RUNS_LEAST <= self.left();
        let run = ground.run(&defaults, if affordable { long } else { least })?;
        let rtt = rtt_of(&run).unwrap_or(connect);
        let facts = Facts {
            mss: mss_of(&run),
            rtt,
            rate: run.figures.throughput,
            peak: peak_of(&run),
            flows: self.options.terms.flows,
            congestion: run.congestion.clone().unwrap_or_default(),
        };
        // Where anything was sent again, longer runs, if there is time for them.
        let lossy = Timing::lossy(rtt, objective);
        let needed = lossy.whole(rtt, ground.through) * search::RUNS_LEAST;
        let short = Timing::least(rtt, objective);
        // On a short path connections have grown long before.
        let (timing, doubt) = if rtt <= FORWARDER_RTT_MAX || !has_resent(&run) {
            (short, None)
        } else if needed <= self.left() {
            (lossy, None)
        } else {
            (short, Some(slow_start_doubt(short, needed)))
        };
        Ok(Known {
            facts,
            timing,
            doubt,
        })
    }

    fn search<'s>(
        &'s self,
        known: &Known,
        ground: &'s Ground<'s>,
        base: &'s Candidate,
        present: Option<&'s Candidate>,
        budget: Duration,
    ) -> Search<'s> {
        Search {
            ground,
            base,
            present,
            budget,
            rtt: known.facts.rtt,
            timing: known.timing,
            minimum_effect: self.options.minimum_effect,
            seed: self.options.seed,
            tell: self.tell,
            time: self.options.time,
            elapsed: self.started.elapsed(),
        }
    }
}

fn rtt_of(run: &Run) -> Option<Duration> {
    let near = run.samples.iter().flat_map(|sample| &sample.near);
    near.filter_map(|info| info.min_rtt).min()
}

fn slow_start_doubt(timing: Timing, needed: Duration) -> String {
    format!(
        "the path loses packets, and runs of {:.1?} after {:.1?} of warm-up still show how \
         connections begin; for long transfers give it --time {:.0}s or more",
        timing.duration,
        timing.warm_up,
        (needed + RESERVE * 10).as_secs_f64().ceil(),
    )
}

fn has_resent(run: &Run) -> bool {
    let last = run.samples.last();
    let infos = last
        .into_iter()
        .flat_map(|it| it.near.iter().chain(&it.far));
    infos.into_iter().any(|info| info.bytes_retransmitted > 0)
}

/// The highest delivery rate of a flow at any moment, bytes a second.
fn peak_of(run: &Run) -> f64 {
    let infos = run
        .samples
        .iter()
        .flat_map(|it| it.near.iter().chain(&it.far));
    infos.map(|info| info.delivery_rate).max().unwrap_or(0) as f64
}

fn mss_of(run: &Run) -> u32 {
    let near = run.samples.iter().flat_map(|sample| &sample.near);
    // An end that only receives knows the size from what it gets.
    near.map(|info| info.send_mss.max(info.receive_mss))
        .max()
        .unwrap_or(0)
}

/// What is searched over, and what is left out because it cannot matter, or for want
/// of time. What the user asked for by name is searched in any case.
fn chosen(
    options: &TuneOptions,
    facts: &Facts,
    timing: Timing,
    left: Duration,
) -> (Vec<Searched>, Vec<Skipped>) {
    if let Some(searched) = &options.searched {
        return (searched.clone(), Vec::new());
    }
    let all = Searched::ALL.to_vec();
    let needed = timing.whole(facts.rtt, Through::Forwarder) * search::RUNS_LEAST;
    let why = if facts.rtt > FORWARDER_RTT_MAX {
        format!(
            "what the forwarder does itself does not show on a path of {}; --options all \
             searches it too",
            crate::bench::units::latency(facts.rtt.as_nanos() as f64)
        )
    } else if left.mul_f64(1.0 - LEG_SHARE) < needed {
        let time = needed.div_f64(1.0 - LEG_SHARE).as_secs_f64().ceil();
        format!("no time: it takes --time {:.0}s or more", time + 1.0)
    } else {
        return (all, Vec::new());
    };
    let (legs, forwarder): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|option| option.place() == Place::Profile);
    let names: Vec<&str> = forwarder.iter().map(|option| option.name()).collect();
    let skipped = Skipped {
        what: names.join(", "),
        why,
    };
    (legs, vec![skipped])
}
