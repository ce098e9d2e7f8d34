//! The race: which arm is measured next, which is out, and what is recommended.
//!
//! Pure: time is a parameter, and figures are told. An arm is a candidate; arm 0 is
//! the kernel's defaults, which run in every round and are never dropped. Every
//! figure is a *merit*: positive, more is better; only ratios of two merits of the
//! same round are ever looked at, so what the machine did at that time cancels.
//!
//! ```text
//! Singles ──70 % of the racing time──► Combined ──racing time over──► Confirming ──► Done
//!  one option differs        Step::Combine: what surely     defaults, winner and
//!  from the defaults         helped, joined                 present settings, afresh
//! ```
//!
//! While racing, after each round from the third on, an arm is out when its interval
//! says that it is worse than the best arm or than the defaults; and twice the worse
//! half of those left is out anyway (successive halving: Jamieson and Talwalkar 2016),
//! so that the time goes to what is close. Whoever leads after that is partly lucky:
//! the best of twenty equal arms looks better than it is. So the race only picks, and
//! the decision is by runs that had no part in the picking: one comparison, fixed in
//! length before it begins, at [`stats::CONFIDENCE`]. That is what keeps a false
//! recommendation below 1 in 20 however many arms there were.
//!
//! Invariants: no run begins that would not end within the budget; every round has
//! the defaults; the confirmation shares no figure with the race.

mod confirming;
mod outcome;

use std::collections::VecDeque;
use std::time::Duration;

pub use outcome::{Decision, Fate, Leave, RaceOptions, Step};

use crate::balance::Random;
use crate::bench::stats::{self, Estimate};

/// The arm of the kernel's defaults.
pub const DEFAULTS: usize = 0;

/// Share of the budget for racing; the rest is for the confirmation.
const RACING: f64 = 0.75;

/// Share of the racing time after which combinations join.
const SINGLES: f64 = 0.7;

/// Failures after which an arm is out.
const STRIKES: u32 = 2;

/// The same for arms that cannot be dropped: then the race cannot go on.
const STRIKES_PROTECTED: u32 = 4;

/// One arm.
#[derive(Debug, Clone)]
struct Arm {
    /// By round; `None` where it did not run.
    race: Vec<Option<f64>>,
    confirmation: Vec<Option<f64>>,
    fate: Fate,
    strikes: u32,
}

impl Arm {
    fn new() -> Self {
        Self {
            race: Vec::new(),
            confirmation: Vec::new(),
            fate: Fate::Stayed,
            strikes: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Singles,
    Combined,
    Confirming { arms: Vec<usize>, rounds: usize },
    Done(Decision),
}

/// A race in progress.
#[derive(Debug, Clone)]
pub struct Race {
    options: RaceOptions,
    arms: Vec<Arm>,
    phase: Phase,
    /// Who runs yet in this round.
    queue: VecDeque<usize>,
    /// Complete or not, of this phase's kind of round.
    round: usize,
    /// Whether the worse half of this phase's arms was dropped at its middle.
    halved: bool,
    /// When the phase began.
    since: Duration,
    /// When the last run ended, and how long runs took in all.
    last: Duration,
    spent: Duration,
    runs: u32,
    random: Random,
    asked: bool,
}

impl Race {
    /// A race that has not begun.
    pub fn new(options: RaceOptions) -> Self {
        Self {
            arms: vec![Arm::new(); options.arms.max(1)],
            phase: Phase::Singles,
            queue: VecDeque::new(),
            round: 0,
            halved: false,
            since: Duration::ZERO,
            last: Duration::ZERO,
            spent: Duration::ZERO,
            runs: 0,
            random: Random::new(options.seed),
            asked: false,
            options,
        }
    }

    /// What to do at `now`, counted from the start of the race.
    pub fn next(&mut self, now: Duration) -> Step {
        loop {
            match &self.phase {
                Phase::Done(_) => return Step::Done,
                Phase::Confirming { .. } => {
                    if !self.fits(now, self.options.budget) {
                        self.decide();
                    } else if let Some(arm) = self.queue.front() {
                        return Step::Run(*arm);
                    } else {
                        self.next_confirming_round();
                    }
                }
                Phase::Singles | Phase::Combined => {
                    if !self.fits(now, self.racing_ends()) {
                        self.end_of_racing(now);
                    } else if let Some(arm) = self.queue.front() {
                        return Step::Run(*arm);
                    } else if let Some(helped) = self.end_of_round(now) {
                        return Step::Combine(helped);
                    }
                }
            }
        }
    }

    /// What the run of `arm` came to: its merit, or why there is none.
    pub fn tell(&mut self, arm: usize, outcome: Result<f64, String>, now: Duration) {
        self.spent += now.saturating_sub(self.last);
        self.last = now;
        self.runs += 1;
        self.queue.pop_front();
        let round = self.round.saturating_sub(1);
        let confirming = matches!(self.phase, Phase::Confirming { .. });
        let protected = self.is_protected(arm);
        let told = &mut self.arms[arm];
        let error = match outcome {
            Ok(merit) if merit.is_finite() && merit > 0.0 => {
                let column = if confirming {
                    &mut told.confirmation
                } else {
                    &mut told.race
                };
                column.resize(round.max(column.len()), None);
                column.push(Some(merit));
                return;
            }
            Ok(merit) => format!("a figure of {merit}"),
            Err(error) => error,
        };
        told.strikes += 1;
        if protected && told.strikes >= STRIKES_PROTECTED {
            self.finish(Decision::Leave {
                why: Leave::Broken { error },
            });
        } else if !protected && told.strikes >= STRIKES {
            told.fate = Fate::Failed { why: error };
        }
    }

    /// Ends it now, by what was measured until then: the fresh runs decide if there were
    /// enough of them, else nothing is recommended.
    pub fn interrupt(&mut self) {
        match self.phase {
            Phase::Done(_) => {}
            Phase::Confirming { .. } => self.decide(),
            Phase::Singles | Phase::Combined => {
                let least = self.options.minimum_effect.ln_1p();
                let leader = self.leader().map(|(arm, _)| arm);
                let why = match leader.filter(|arm| self.estimate(*arm) >= least) {
                    Some(arm) => Leave::NoTime { arm },
                    None => Leave::NothingBetter,
                };
                self.finish(Decision::Leave { why });
            }
        }
    }

    /// Adds `count` arms, combinations of what [`Step::Combine`] named. Returns the
    /// number of the first.
    pub fn join(&mut self, count: usize) -> usize {
        let first = self.arms.len();
        self.arms.extend((0..count).map(|_| Arm::new()));
        first
    }

    /// The decision, once [`Step::Done`] was answered.
    pub fn decision(&self) -> Option<&Decision> {
        match &self.phase {
            Phase::Done(decision) => Some(decision),
            _ => None,
        }
    }

    /// Merit by the defaults' while racing, with its interval where there are
    /// rounds enough for one.
    pub fn ratio(&self, arm: usize) -> Option<Estimate> {
        let ratio = stats::student(&self.logs(arm, DEFAULTS))?.map(f64::exp);
        let tells = ratio.interval.is_some() && ratio.estimate.is_finite();
        tells.then_some(ratio)
    }

    /// Merit by the defaults' in the confirmation; the interval that decides.
    pub fn confirmed(&self, arm: usize) -> Option<Estimate> {
        let both = |of: usize| {
            let (arm, base) = (
                &self.arms[arm].confirmation,
                &self.arms[DEFAULTS].confirmation,
            );
            let pairs = arm
                .iter()
                .zip(base)
                .filter_map(|(a, b)| Some([(*a)?, (*b)?]));
            pairs.map(|pair| pair[of]).collect::<Vec<f64>>()
        };
        stats::ratio(&both(0), &both(1))
    }

    /// Rounds of the race in which this arm was measured, and of the confirmation.
    pub fn rounds(&self, arm: usize) -> [usize; 2] {
        let arm = &self.arms[arm];
        [&arm.race, &arm.confirmation].map(|column| column.iter().flatten().count())
    }

    /// What became of an arm.
    pub fn fate(&self, arm: usize) -> &Fate {
        &self.arms[arm].fate
    }

    /// Whether what runs now is the confirmation.
    pub fn is_confirming(&self) -> bool {
        matches!(self.phase, Phase::Confirming { .. })
    }

    /// Rounds begun in this part of the race.
    pub fn round(&self) -> usize {
        self.round
    }

    /// The arm that looks best so far, and its merit by the defaults'; none while
    /// nothing looks better than they do.
    pub fn leader(&self) -> Option<(usize, f64)> {
        let better = (1..self.arms.len())
            .filter(|arm| self.arms[*arm].fate == Fate::Stayed)
            .map(|arm| (arm, self.estimate(arm)))
            .filter(|(_, estimate)| *estimate > 0.0);
        let best = better.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((best.0, best.1.exp()))
    }

    // Racing.

    /// The racing part ends early enough for a confirmation that says something.
    fn racing_ends(&self) -> Duration {
        let arms = 2 + u32::from(self.options.present.is_some());
        let confirmation = self.cost() * arms * (*confirming::ROUNDS.start() as u32 + 1);
        let budget = self.options.budget;
        budget
            .mul_f64(RACING)
            .min(budget.saturating_sub(confirmation))
    }

    fn singles_end(&self) -> Duration {
        self.racing_ends().mul_f64(SINGLES)
    }

    /// What a run takes.
    fn cost(&self) -> Duration {
        if self.runs == 0 {
            return self.options.run;
        }
        self.spent / self.runs
    }

    /// Whether a run that takes rather longer than usual ends in time.
    fn fits(&self, now: Duration, end: Duration) -> bool {
        now + self.cost().mul_f64(1.2) <= end
    }

    /// Drops who is out and begins the next round; arms to be combined, once.
    fn end_of_round(&mut self, now: Duration) -> Option<Vec<usize>> {
        self.drop_the_worse();
        let alone = self.round >= stats::ROUNDS_MIN && self.droppable().is_empty();
        if self.phase == Phase::Singles && (alone || now >= self.singles_end()) {
            let helped = self.helped();
            self.drop_half();
            self.phase = Phase::Combined;
            self.since = now;
            self.halved = false;
            if helped.len() > 1 && !self.asked {
                self.asked = true;
                return Some(helped);
            }
        }
        if alone && self.phase == Phase::Combined && !self.has_fresh_arms() {
            self.begin_confirming(now);
            return None;
        }
        self.halve(now);
        self.begin_round(now);
        None
    }

    fn has_fresh_arms(&self) -> bool {
        let fresh = |arm: &Arm| arm.fate == Fate::Stayed && arm.race.is_empty();
        self.arms[1..].iter().any(fresh)
    }

    /// In random order, so that nobody always follows the same; in a round that time
    /// will cut short the defaults come first.
    fn begin_round(&mut self, now: Duration) {
        let mut order: Vec<usize> = (0..self.arms.len())
            .filter(|arm| self.arms[*arm].fate == Fate::Stayed)
            .collect();
        self.random.shuffle(&mut order);
        if now + self.cost().mul_f64(1.2) * order.len() as u32 > self.racing_ends()
            && let Some(at) = order.iter().position(|arm| *arm == DEFAULTS)
        {
            order.swap(0, at);
        }
        self.queue = order.into();
        self.round += 1;
    }

    fn is_protected(&self, arm: usize) -> bool {
        arm == DEFAULTS || Some(arm) == self.options.present
    }

    /// Logarithms of the ratio of two arms, one for each round that both ran in.
    fn logs(&self, arm: usize, base: usize) -> Vec<f64> {
        let pairs = self.arms[arm].race.iter().zip(&self.arms[base].race);
        pairs
            .filter_map(|(arm, base)| Some(((*arm)? / (*base)?).ln()))
            .collect()
    }

    /// Mean of the logarithms against the defaults; the worst there is without any.
    fn estimate(&self, arm: usize) -> f64 {
        let logs = self.logs(arm, DEFAULTS);
        match logs.len() {
            0 => f64::NEG_INFINITY,
            count => logs.iter().sum::<f64>() / count as f64,
        }
    }

    fn droppable(&self) -> Vec<usize> {
        (1..self.arms.len())
            .filter(|arm| !self.is_protected(*arm) && self.arms[*arm].fate == Fate::Stayed)
            .collect()
    }

    fn drop_the_worse(&mut self) {
        let best = self.leader().map_or(DEFAULTS, |(arm, _)| arm);
        for arm in self.droppable() {
            let rounds = self.rounds(arm)[0];
            let surely_below = |base: usize| {
                let interval = stats::student(&self.logs(arm, base));
                rounds >= stats::ROUNDS_MIN
                    && arm != base
                    && interval.is_some_and(|interval| interval.is_below(0.0))
            };
            // What only trails the best may be half of the best combination: before
            // those have joined, only what hurts is out.
            if surely_below(DEFAULTS) {
                self.arms[arm].fate = Fate::Worse { rounds };
            } else if self.phase == Phase::Combined && surely_below(best) {
                self.arms[arm].fate = Fate::Beaten { rounds };
            }
        }
    }

    /// Drops the worse half in the middle of each phase.
    fn halve(&mut self, now: Duration) {
        let end = match self.phase {
            Phase::Singles => self.singles_end(),
            _ => self.racing_ends(),
        };
        let middle = self.since + end.saturating_sub(self.since) / 2;
        if !self.halved && now >= middle && self.round >= stats::ROUNDS_MIN {
            self.halved = true;
            self.drop_half();
        }
    }

    /// The mean of the logarithms and one standard error: what an arm may well be
    /// worth.
    fn optimistic(&self, arm: usize) -> f64 {
        let logs = self.logs(arm, DEFAULTS);
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        mean + (squares / (count - 1.0) / count).sqrt()
    }

    /// Drops the worse half of those that ran often enough to be judged, but leaves
    /// two. By what they may well be worth: of two that look alike the one that was
    /// measured with more noise deserves another look.
    fn drop_half(&mut self) {
        let mut left = self.droppable();
        left.retain(|arm| self.rounds(*arm)[0] >= stats::ROUNDS_MIN);
        left.sort_by(|a, b| self.optimistic(*b).total_cmp(&self.optimistic(*a)));
        for arm in left.split_off(left.len().div_ceil(2).max(2).min(left.len())) {
            let rounds = self.rounds(arm)[0];
            self.arms[arm].fate = Fate::Halved { rounds };
        }
    }

    /// Arms that surely help, best first.
    fn helped(&self) -> Vec<usize> {
        let mut helped: Vec<usize> = (1..self.arms.len())
            .filter(|arm| Some(*arm) != self.options.present)
            .filter(|arm| self.rounds(*arm)[0] >= stats::ROUNDS_MIN)
            .filter(|arm| {
                stats::student(&self.logs(*arm, DEFAULTS)).is_some_and(|it| it.is_above(0.0))
            })
            .collect();
        helped.sort_by(|a, b| self.estimate(*b).total_cmp(&self.estimate(*a)));
        helped
    }
}

#[cfg(test)]
mod tests;
