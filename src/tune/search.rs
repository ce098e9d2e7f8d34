//! One race over the space, carried out: candidates become runs, runs become
//! figures, figures become rows.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::TuneError;
use super::diagnose::{self, Bounds, Diagnosis, Evidence, Sender};
use super::measure::{Contender, Ground, NoRun, Run, Through, Timing};
use super::objective::Figures;
use super::race::{DEFAULTS, Decision, Fate, Leave, Race, RaceOptions, Step};
use super::space::values::Skipped;
use super::space::{Candidate, combinations};
use crate::bench::load::shape::Direction;
use crate::bench::report::{Cost, Ratio};
use crate::bench::stats::{self, Better, Estimate};
use crate::net::limits::sysctl;

/// Rounds that a field must get before the worse half is dropped; what cannot get
/// them in the time is not in it.
const ROUNDS_WANTED: u32 = 3;

/// Runs are stretched until a field gets no more rounds than this before the
/// combinations: a longer run has less noise than two short ones.
const ROUNDS_MOST: u32 = 8;

/// A run is stretched to so many times its least length, at the most.
const STRETCH_MAX: u32 = 4;

/// Share of the budget in which singles race; see the race.
const SINGLES_SHARE: f64 = 0.5;

/// Runs of a comparison of two that says anything: three rounds and a confirmation.
pub(super) const RUNS_LEAST: u32 = 2 * (3 + 5);

/// One race to be run.
pub(super) struct Search<'a> {
    pub(super) ground: &'a Ground<'a>,
    /// What every candidate has beside its own, the defaults of this race too.
    pub(super) base: &'a Candidate,
    /// What the user has now, if that is anything.
    pub(super) present: Option<&'a Candidate>,
    pub(super) budget: Duration,
    pub(super) rtt: Duration,
    pub(super) timing: Timing,
    pub(super) minimum_effect: f64,
    pub(super) seed: u64,
    pub(super) tell: &'a dyn Fn(String),
    /// Of the whole search, for messages.
    pub(super) time: Duration,
    pub(super) elapsed: Duration,
}

/// One candidate with everything known of it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Row {
    /// What it is.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// In one line.
    pub name: String,
    /// Whether it is what the user has now.
    pub present: bool,
    /// Rounds while racing, and in the confirmation, which decides.
    pub rounds: [usize; 2],
    /// Bytes a second.
    #[serde(rename = "throughput_bytes_per_second")]
    pub throughput: Option<Estimate>,
    /// Of the exchanges beside the bulk, nanoseconds; `None` where latency is not asked for.
    #[serde(rename = "latency_p99_nanoseconds")]
    pub p99: Option<Estimate>,
    /// CPU time for a gigabyte.
    #[serde(flatten)]
    pub cost: Option<Cost>,
    /// Merit by the defaults', while racing and in the confirmation.
    pub ratios: Vec<Ratio>,
    /// The first of them.
    #[serde(skip)]
    pub ratio: Option<Estimate>,
    /// The second.
    #[serde(skip)]
    pub confirmed: Option<Estimate>,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
    /// What the kernel granted otherwise than asked.
    pub granted: Vec<String>,
    /// What held its last run back.
    pub diagnosis: Option<Diagnosis>,
    /// Its last run, over time.
    pub series: Option<Series>,
}

/// A run over time: of the busiest flow's sender, or of the receiver where only that
/// is here.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Series {
    /// Seconds since the traffic began.
    #[serde(rename = "at_seconds")]
    pub at: Vec<f64>,
    /// Smoothed round trip time, seconds.
    #[serde(rename = "rtt_seconds")]
    pub rtt: Vec<f64>,
    /// Congestion window, bytes.
    #[serde(rename = "congestion_window_bytes")]
    pub cwnd: Vec<f64>,
    /// Bytes a second lately delivered.
    #[serde(rename = "delivery_rate_bytes_per_second")]
    pub rate: Vec<f64>,
}

/// What a race came to.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StageResult {
    /// What was between load and path.
    pub through: Through,
    /// What every candidate has beside its own.
    pub base: Candidate,
    /// How long each run was.
    pub timing: Timing,
    /// Runs in all.
    pub runs: usize,
    /// By arm: the defaults first.
    pub rows: Vec<Row>,
    /// What is recommended, by number of the row.
    pub decision: Decision,
}

impl StageResult {
    /// What is recommended; nothing: the defaults.
    pub fn recommended(&self) -> Option<&Candidate> {
        match &self.decision {
            Decision::Recommend { arm, .. } => Some(&self.rows[*arm].candidate),
            Decision::Leave { .. } => None,
        }
    }

    /// The row of what the user has now.
    pub fn present(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.present)
    }
}

/// An arm of the race with what was measured of it.
struct Entrant {
    contender: Contender,
    figures: Vec<Figures>,
    last: Option<Run>,
}

impl Search<'_> {
    pub(super) fn run(
        &self,
        singles: Vec<Candidate>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<StageResult, TuneError> {
        let through = self.ground.through;
        let least = self.timing.whole(self.rtt, through);
        self.check_time(least)?;
        let (field, present) = self.field(singles, least, skipped);
        let timing = self.stretched(field.len() as u32);
        let mut entrants = Vec::new();
        for candidate in field {
            entrants.push(self.entrant(candidate).map_err(TuneError::Broken)?);
        }
        let mut race = Race::new(RaceOptions {
            arms: entrants.len(),
            present,
            budget: self.budget,
            run: timing.whole(self.rtt, through),
            minimum_effect: self.minimum_effect,
            seed: self.seed,
        });
        let runs = self.drive(&mut race, &mut entrants, timing)?;
        let decision = match race.decision() {
            Some(Decision::Leave {
                why: Leave::Broken { error },
            }) => return Err(TuneError::Broken(error.clone())),
            Some(decision) => decision.clone(),
            None => return Err(TuneError::Broken("the race did not end".to_owned())),
        };
        let rows = entrants
            .iter()
            .enumerate()
            .map(|(arm, entrant)| self.row(&race, arm, present == Some(arm), entrant))
            .collect();
        Ok(StageResult {
            through,
            base: self.base.clone(),
            timing,
            runs,
            rows,
            decision,
        })
    }

    fn check_time(&self, run: Duration) -> Result<(), TuneError> {
        let needed = run * RUNS_LEAST;
        if self.budget >= needed {
            return Ok(());
        }
        let others = self.time.saturating_sub(self.budget).max(self.elapsed);
        let seconds = (needed + others).as_secs_f64().ceil();
        Err(TuneError::TooShort {
            time: self.time,
            run,
            needed: Duration::from_secs_f64(seconds),
        })
    }

    /// The arms, defaults first, as many as get enough rounds in the time; and which
    /// of them is what the user has now.
    fn field(
        &self,
        singles: Vec<Candidate>,
        run: Duration,
        skipped: &mut Vec<Skipped>,
    ) -> (Vec<Candidate>, Option<usize>) {
        let mut field = vec![Candidate::default()];
        let mut present = None;
        if let Some(settings) = self.present.filter(|it| !it.changes.is_empty()) {
            present = Some(field.len());
            field.push(settings.clone());
            if settings.changes.len() > 1 {
                let without = (0..settings.changes.len()).map(|index| settings.without(index));
                field.extend(without);
            }
        }
        for single in singles {
            if !field.contains(&single) {
                field.push(single);
            }
        }
        let affordable = self.budget.mul_f64(SINGLES_SHARE).as_secs_f64() / run.as_secs_f64();
        let affordable = (affordable / f64::from(ROUNDS_WANTED)) as usize;
        let kept = affordable.max(2).min(field.len());
        let left_out: Vec<String> = field
            .split_off(kept)
            .iter()
            .map(ToString::to_string)
            .collect();
        if !left_out.is_empty() {
            skipped.push(Skipped {
                what: left_out.join(", "),
                why: format!(
                    "no time: {kept} candidates get their rounds in it; a longer --time tries more"
                ),
            });
        }
        (field, present.filter(|arm| *arm < kept))
    }

    fn stretched(&self, arms: u32) -> Timing {
        let rounds = self.budget.mul_f64(SINGLES_SHARE) / arms.max(1) / ROUNDS_MOST;
        let overhead = self
            .timing
            .whole(self.rtt, self.ground.through)
            .saturating_sub(self.timing.duration);
        let least = self.timing.duration;
        Timing {
            duration: rounds
                .saturating_sub(overhead)
                .clamp(least, least * STRETCH_MAX),
            ..self.timing
        }
    }

    fn entrant(&self, candidate: Candidate) -> Result<Entrant, String> {
        // What is measured has the base too; what is reported does not.
        let mut contender = Contender::new(self.base.with(&candidate))?;
        contender.candidate = candidate;
        Ok(Entrant {
            contender,
            figures: Vec::new(),
            last: None,
        })
    }

    fn drive(
        &self,
        race: &mut Race,
        entrants: &mut Vec<Entrant>,
        timing: Timing,
    ) -> Result<usize, TuneError> {
        let begin = Instant::now();
        let mut runs = 0;
        loop {
            match race.next(begin.elapsed()) {
                Step::Done => return Ok(runs),
                Step::Combine(helped) => {
                    let helped: Vec<Candidate> = helped
                        .iter()
                        .map(|arm| entrants[*arm].contender.candidate.clone())
                        .collect();
                    let mut joined = combinations(&helped);
                    joined.retain(|new| {
                        let old = entrants.iter().map(|it| &it.contender.candidate);
                        !old.into_iter().any(|old| old == new)
                    });
                    race.join(joined.len());
                    for candidate in joined {
                        entrants.push(self.entrant(candidate).map_err(TuneError::Broken)?);
                    }
                }
                Step::Run(arm) => {
                    self.show(race, arm, entrants);
                    runs += 1;
                    let entrant = &mut entrants[arm];
                    let outcome = match self.measure(&entrant.contender, timing) {
                        Ok(run) => {
                            let merit = self.ground.terms.objective.merit(&run.figures);
                            if merit.is_ok() {
                                entrant.figures.push(run.figures);
                                entrant.last = Some(run);
                            }
                            merit
                        }
                        // What has its rounds is reported.
                        Err(NoRun::Interrupted)
                            if race.rounds(DEFAULTS)[0] >= stats::ROUNDS_MIN =>
                        {
                            race.interrupt();
                            return Ok(runs);
                        }
                        Err(NoRun::Interrupted) => return Err(TuneError::Interrupted),
                        Err(NoRun::Failed(error)) => Err(error),
                    };
                    race.tell(arm, outcome, begin.elapsed());
                }
            }
        }
    }

    fn measure(&self, contender: &Contender, timing: Timing) -> Result<Run, NoRun> {
        if self.ground.through == Through::Nothing {
            return self.ground.run(contender, timing);
        }
        let mut with_base = contender.clone();
        with_base.candidate = self.base.with(&contender.candidate);
        self.ground.run(&with_base, timing)
    }

    fn show(&self, race: &Race, arm: usize, entrants: &[Entrant]) {
        let part = if race.is_confirming() {
            "confirming"
        } else {
            "racing"
        };
        let what = match self.ground.through {
            Through::Nothing => "",
            Through::Forwarder => "forwarder: ",
        };
        let best = match race.leader() {
            Some((best, ratio)) if ratio >= 1.0 + self.minimum_effect => format!(
                "best so far: {} {:+.0} %",
                entrants[best].contender.candidate,
                (ratio - 1.0) * 100.0
            ),
            _ => "best so far: the kernel's defaults".to_owned(),
        };
        let name = &entrants[arm].contender.candidate;
        let round = race.round();
        (self.tell)(format!("{best}  ({what}{part} {round}: {name})"));
    }

    fn row(&self, race: &Race, arm: usize, present: bool, entrant: &Entrant) -> Row {
        let mean = |of: &dyn Fn(&Figures) -> Option<f64>| {
            let values: Vec<f64> = entrant.figures.iter().filter_map(of).collect();
            stats::mean(&values)
        };
        let last = entrant.last.as_ref();
        let ratio = race.ratio(arm).filter(|_| arm != DEFAULTS);
        let confirmed = race.confirmed(arm).filter(|_| arm != DEFAULTS);
        Row {
            name: entrant.contender.candidate.to_string(),
            candidate: entrant.contender.candidate.clone(),
            present,
            rounds: race.rounds(arm),
            throughput: mean(&|figures| Some(figures.throughput)),
            p99: mean(&|figures| figures.p99),
            cost: mean(&|figures| Some(figures.cpu)).map(Cost::of_path),
            ratios: ratios(ratio, confirmed, race.rounds(arm)),
            ratio,
            confirmed,
            fate: race.fate(arm).clone(),
            granted: entrant.contender.granted.clone(),
            diagnosis: last.map(|run| diagnosis(self.ground, run, &entrant.contender)),
            series: last.map(|run| self.series(run)),
        }
    }

    fn series(&self, run: &Run) -> Series {
        let sender = sender(self.ground.terms.direction);
        let of = |sample: &'_ diagnose::Sample| match sender {
            Sender::Far if self.ground.venue.is_ours() => sample.far.clone(),
            _ => sample.near.clone(),
        };
        let last = run.samples.last().map(of).unwrap_or_default();
        let moved = |info: &crate::net::tcp_info::TcpInfo| info.bytes_sent + info.bytes_received;
        let busiest = (0..last.len()).max_by_key(|flow| moved(&last[*flow]));
        let mut series = Series::default();
        let Some(busiest) = busiest else {
            return series;
        };
        for sample in &run.samples {
            if let Some(info) = of(sample).get(busiest) {
                series.at.push(sample.at.as_secs_f64());
                series.rtt.push(info.rtt.as_secs_f64());
                series
                    .cwnd
                    .push(f64::from(info.cwnd) * f64::from(info.send_mss));
                series.rate.push(info.delivery_rate as f64);
            }
        }
        series
    }
}

/// Comparisons with the defaults, as the document has them.
fn ratios(racing: Option<Estimate>, fresh: Option<Estimate>, rounds: [usize; 2]) -> Vec<Ratio> {
    let both = [("merit_racing", racing), ("merit_fresh", fresh)];
    let both = both.into_iter().zip(rounds);
    both.filter_map(|((of, ratio), rounds)| {
        let ratio = ratio?;
        Some(Ratio {
            against: "defaults".to_owned(),
            of,
            rounds,
            ratio,
            verdict: stats::verdict(ratio, rounds, Better::More),
        })
    })
    .collect()
}

/// Whose `TCP_INFO` tells about the sending.
fn sender(direction: Direction) -> Sender {
    match direction {
        Direction::Up | Direction::Both => Sender::Near,
        Direction::Down => Sender::Far,
    }
}

/// What held a run back.
fn diagnosis(ground: &Ground<'_>, run: &Run, contender: &Contender) -> Diagnosis {
    let granted = |asked: Option<u32>, limit: &str| {
        let limit = sysctl(limit).and_then(|text| text.parse::<u64>().ok());
        asked.map(|asked| limit.map_or(u64::from(asked), |limit| limit.min(asked.into())))
    };
    let options = &contender.options;
    diagnose::diagnose(&Evidence {
        samples: &run.samples,
        sender: sender(ground.terms.direction),
        window: run.window,
        throughput: run.figures.throughput,
        flows: ground.terms.flows,
        loopback: ground.venue.is_this_machine(),
        loss_based: !run
            .congestion
            .as_deref()
            .is_some_and(|it| it.starts_with("bbr")),
        busiest_thread: run.busiest_thread,
        machine: run.machine,
        receive_buffer: granted(options.receive_buffer, "net.core.rmem_max"),
        send_buffer: granted(options.send_buffer, "net.core.wmem_max"),
        pacing: options.max_pacing_rate,
        path_rate: ground.venue.rate(),
        bounds: bounds(),
    })
}

/// The ends of the kernel's own tuning, in the network namespace of this thread.
fn bounds() -> Bounds {
    let third = |name: &str| {
        let text = sysctl(name)?;
        text.split_whitespace().nth(2)?.parse().ok()
    };
    Bounds {
        tcp_rmem: third("net.ipv4.tcp_rmem").unwrap_or(0),
        tcp_wmem: third("net.ipv4.tcp_wmem").unwrap_or(0),
    }
}
