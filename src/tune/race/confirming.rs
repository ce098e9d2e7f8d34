//! The part that decides: fresh runs of the defaults against the pick, and against
//! what the user has now.

use std::time::Duration;

use super::outcome::{Decision, Leave};
use super::{DEFAULTS, Phase, Race};
use crate::bench::stats::{self, Better, Verdict};

/// Rounds of a confirmation: with fewer the interval is too wide to say anything,
/// with more than the second the remaining effect is too small to matter.
pub(super) const ROUNDS: std::ops::RangeInclusive<usize> = 4..=32;

impl Race {
    /// The last round may be cut short: what was measured in it counts all the same.
    pub(super) fn end_of_racing(&mut self, now: Duration) {
        self.drop_the_worse();
        self.begin_confirming(now);
    }

    pub(super) fn begin_confirming(&mut self, now: Duration) {
        self.queue.clear();
        self.round = 0;
        let least = self.options.minimum_effect.ln_1p();
        let winner = self
            .leader()
            .map(|(arm, _)| arm)
            .filter(|arm| self.estimate(*arm) >= least);
        let mut arms = vec![DEFAULTS];
        arms.extend(winner);
        arms.extend(self.options.present.filter(|arm| Some(*arm) != winner));
        if arms.len() == 1 {
            self.finish(Decision::Leave {
                why: Leave::NothingBetter,
            });
            return;
        }
        let rounds = self.rounds_to_confirm(arms[1]);
        let left = self.options.budget.saturating_sub(now).as_secs_f64();
        let each = self.cost().as_secs_f64().max(1e-6) * arms.len() as f64;
        let rounds = rounds.min((left / each) as usize);
        self.phase = Phase::Confirming { arms, rounds };
    }

    /// Enough for an interval of a third of the effect seen to each side, given the
    /// noise seen (a third, because what leads has been lucky too): fixed before the first of them, so that nobody stops at a lucky moment.
    fn rounds_to_confirm(&self, arm: usize) -> usize {
        let logs = self.logs(arm, DEFAULTS);
        let effect = self.estimate(arm).abs().max(self.options.minimum_effect);
        let rounds = match stats::student(&logs).and_then(|it| it.interval) {
            Some(interval) => {
                let half = (interval.high - interval.low) / 2.0;
                logs.len() as f64 * (half / (effect / 3.0)).powi(2)
            }
            None => f64::INFINITY,
        };
        (rounds.ceil() as usize).clamp(*ROUNDS.start(), *ROUNDS.end())
    }

    pub(super) fn next_confirming_round(&mut self) {
        let Phase::Confirming { arms, rounds } = &self.phase else {
            return;
        };
        if self.round >= *rounds {
            self.decide();
            return;
        }
        let mut order = arms.clone();
        self.random.shuffle(&mut order);
        self.queue = order.into();
        self.round += 1;
    }

    /// The winner against the defaults, by the fresh runs alone.
    pub(super) fn decide(&mut self) {
        let Phase::Confirming { arms, .. } = &self.phase else {
            return;
        };
        let arm = arms[1];
        let looked_better = self.estimate(arm) >= self.options.minimum_effect.ln_1p();
        let rounds = self.rounds(arm)[1].min(self.rounds(DEFAULTS)[1]);
        let decision = match self.confirmed(arm) {
            _ if !looked_better => Decision::Leave {
                why: Leave::NothingBetter,
            },
            Some(ratio) if rounds + 1 >= *ROUNDS.start() => {
                let sure = stats::verdict(ratio, rounds, Better::More) == Verdict::Faster;
                if sure && ratio.estimate >= 1.0 + self.options.minimum_effect {
                    Decision::Recommend { arm, ratio }
                } else {
                    Decision::Leave {
                        why: Leave::NotConfirmed { arm, ratio },
                    }
                }
            }
            _ => Decision::Leave {
                why: Leave::NoTime { arm },
            },
        };
        self.finish(decision);
    }

    pub(super) fn finish(&mut self, decision: Decision) {
        self.queue.clear();
        self.phase = Phase::Done(decision);
    }
}
