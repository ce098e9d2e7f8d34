//! From the rounds of two subjects to ratios and verdicts.
//!
//! Rounds are paired by their number. A round in which something else had more than
//! [`DISTURBED`] of the CPUs is left out where rounds enough remain without it; where they
//! do not, every round counts and the verdict is `disturbed`: nothing is concluded.

use super::round::{bulk, path_cpu, per_unit, quantile};
use super::{Disturbance, Ratio};
use crate::bench::harness::Sample;
use crate::bench::load::shape::Shape;
use crate::bench::stats::{self, Better, ROUNDS_MIN, Verdict};

/// A round in which more than this share of the CPUs went to something else is disturbed.
pub(super) const DISTURBED: f64 = 0.05;

/// Who lets less of a burst's bulk pass first is as good as who lets so much: a ratio to
/// nothing would say nothing.
const SHARE_LEAST: f64 = 0.01;

fn is_disturbed(sample: &Sample) -> bool {
    sample.foreign_cpu > DISTURBED
}

/// The rounds that figures are made from.
pub(super) fn calm(samples: &[Sample]) -> Vec<&Sample> {
    let calm: Vec<&Sample> = samples.iter().filter(|it| !is_disturbed(it)).collect();
    if calm.len() >= ROUNDS_MIN {
        calm
    } else {
        samples.iter().collect()
    }
}

/// What disturbed the rounds of a subject; `None`: nothing.
pub(super) fn disturbance(samples: &[Sample]) -> Option<Disturbance> {
    let shares = samples.iter().filter(|it| is_disturbed(it));
    let shares: Vec<f64> = shares.map(|it| it.foreign_cpu).collect();
    (!shares.is_empty()).then(|| Disturbance {
        rounds: shares.len(),
        // Of a window so short that the reading of it was late, more than all.
        share: shares.iter().copied().fold(0.0, f64::max).min(1.0),
        is_left_out: samples.len() - shares.len() >= ROUNDS_MIN,
    })
}

/// Every figure of a subject against that of another, which `against` names.
pub(super) fn ratios(
    shape: &Shape,
    samples: &[Sample],
    others: &[Sample],
    against: &str,
) -> Vec<Ratio> {
    // Rounds that both have: a subject that failed later still has its earlier ones.
    let mut pairs: Vec<(&Sample, &Sample)> = samples
        .iter()
        .filter_map(|sample| {
            let other = others.iter().find(|other| other.round == sample.round)?;
            Some((sample, other))
        })
        .collect();
    let is_calm =
        |(sample, other): &(&Sample, &Sample)| !is_disturbed(sample) && !is_disturbed(other);
    let calm = pairs.iter().filter(|pair| is_calm(pair)).count();
    let disturbed = calm < pairs.len() && calm < ROUNDS_MIN;
    if !disturbed {
        pairs.retain(is_calm);
    }
    figures(shape)
        .into_iter()
        .filter_map(|(of, better, figure)| {
            let (values, base): (Vec<f64>, Vec<f64>) = pairs
                .iter()
                .map(|(sample, other)| (figure(sample), figure(other)))
                .unzip();
            let ratio = stats::ratio(&values, &base)?;
            Some(Ratio {
                against: against.to_owned(),
                of,
                rounds: pairs.len(),
                ratio,
                verdict: if disturbed {
                    Verdict::Disturbed
                } else {
                    stats::verdict(ratio, pairs.len(), better)
                },
            })
        })
        .collect()
}

type Of<'a> = (&'static str, Better, Box<dyn Fn(&Sample) -> f64 + 'a>);

/// What is compared in a shape.
fn figures(shape: &Shape) -> Vec<Of<'_>> {
    let mut figures: Vec<Of<'_>> = Vec::new();
    if shape.bulk.is_some() {
        figures.push(("throughput", Better::More, Box::new(|s| bulk(shape, s))));
    }
    if shape.stream.is_some() {
        let arrived = |s: &Sample| s.datagrams.map_or(f64::NAN, |it| it.arrived);
        figures.push(("datagrams", Better::More, Box::new(arrived)));
    }
    if shape.exchange.is_some() {
        figures.push(("exchanges", Better::More, Box::new(|s| s.exchanges)));
        figures.push(("p50", Better::Less, Box::new(|s| quantile(s, 0.5))));
        figures.push(("p99", Better::Less, Box::new(|s| quantile(s, 0.99))));
    }
    if shape.burst.is_some() {
        let waited = |s: &Sample| s.burst.map_or(f64::NAN, |it| it.last.max(SHARE_LEAST));
        figures.push(("share", Better::Less, Box::new(waited)));
    }
    figures.push((
        "cpu",
        Better::Less,
        Box::new(|s| per_unit(shape, s, s.forwarder_cpu)),
    ));
    figures.push((
        "path",
        Better::Less,
        Box::new(|s| per_unit(shape, s, path_cpu(s))),
    ));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Random;
    use crate::bench::load::histogram;

    fn sample(round: usize, exchanges: f64, foreign_cpu: f64) -> Sample {
        let mut latency = histogram();
        latency.saturating_record((1e12 / exchanges) as u64);
        Sample {
            round,
            seconds: 1.0,
            up: exchanges * 64.0,
            down: exchanges * 64.0,
            exchanges,
            unanswered: 0,
            forwarder_cpu: 0.3,
            generator_cpu: 0.3,
            origin_cpu: 0.2,
            foreign_cpu,
            switches: 0.0,
            checked: 0,
            latency,
            quiet: None,
            burst: None,
            datagrams: None,
        }
    }

    fn shape() -> Shape {
        "rr".parse().unwrap()
    }

    #[test]
    fn a_report_of_equal_subjects_with_the_fewest_rounds_is_wrong_at_the_stated_rate() {
        let mut random = Random::new(5);
        let shape = shape();
        let reports = 1_500;
        let mut wrong = [0; 5];
        for _ in 0..reports {
            let mut subject = || {
                let mut rate = || 1e4 * (0.2 * (random.unit() - 0.5)).exp();
                let rounds = (0..ROUNDS_MIN).map(|round| sample(round, rate(), 0.0));
                rounds.collect::<Vec<Sample>>()
            };
            let ratios = ratios(&shape, &subject(), &subject(), "itself");
            assert_eq!(ratios.len(), wrong.len());
            for (wrong, ratio) in wrong.iter_mut().zip(&ratios) {
                *wrong += usize::from(ratio.verdict != Verdict::Noise);
            }
        }
        // Four deviations above 5 %; the figures of a round go together, so one by one.
        let most = reports / 20 + 4 * 9;
        assert!(wrong.iter().all(|it| *it <= most), "{wrong:?} of {reports}");
    }

    #[test]
    fn no_verdict_stands_beside_rounds_that_were_disturbed() {
        let rounds = |rate: f64, foreign: &[f64]| -> Vec<Sample> {
            let each = foreign.iter().enumerate();
            each.map(|(round, it)| sample(round, rate * (1.0 + 0.001 * round as f64), *it))
                .collect()
        };
        let of = |samples: &[Sample], others: &[Sample]| {
            let ratios = ratios(&shape(), samples, others, "other");
            (ratios[0].rounds, ratios[0].verdict)
        };
        let calm = rounds(1e4, &[0.0; 5]);
        // Three calm rounds are left: they alone count.
        let twice = rounds(2e4, &[0.0, 0.9, 0.0, 0.3, 0.0]);
        assert_eq!(of(&twice, &calm), (3, Verdict::Faster));
        let disturbance = disturbance(&twice).unwrap();
        assert_eq!((disturbance.rounds, disturbance.is_left_out), (2, true));
        assert_eq!(super::calm(&twice).len(), 3);
        // Two are not enough, whichever of both was disturbed.
        let twice = rounds(2e4, &[0.0, 0.9, 0.0, 0.3, 0.2]);
        assert_eq!(of(&twice, &calm), (5, Verdict::Disturbed));
        assert_eq!(of(&calm, &twice), (5, Verdict::Disturbed));
        assert_eq!(super::calm(&twice).len(), 5);
    }

    #[test]
    fn rounds_are_paired_by_their_number() {
        let drifting = |factor: f64, rounds: &[usize]| -> Vec<Sample> {
            let rate = |round: usize| 1e4 * factor * (1.0 + round as f64);
            let each = rounds.iter();
            each.map(|round| sample(*round, rate(*round), 0.0))
                .collect()
        };
        let subject = drifting(1.1, &[0, 1, 3, 4]);
        let ratios = ratios(
            &shape(),
            &subject,
            &drifting(1.0, &[0, 1, 2, 3, 4]),
            "other",
        );
        let ratio = &ratios[0];
        assert_eq!((ratio.rounds, ratio.verdict), (4, Verdict::Faster));
        assert!((ratio.ratio.estimate - 1.1).abs() < 1e-9, "{ratio:?}");
    }
}
