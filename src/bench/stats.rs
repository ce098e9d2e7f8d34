//! What rounds say: a mean or a ratio with an interval, and a verdict.
//!
//! Pure and seeded. Rounds are paired: in each round every subject was measured
//! within seconds of the others, so what the machine did at that time cancels in
//! the ratio of one round. The estimate is the geometric mean of the rounds'
//! ratios; the interval is a bootstrap over rounds.
//!
//! With a handful of rounds the plain percentile bootstrap is too narrow. Its
//! percentiles are therefore widened to what Student's t asks for at that number of
//! rounds (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", 5.1.2:
//! the expanded percentile interval).

use serde::Serialize;

use crate::balance::Random;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// Fewer rounds than this give no interval.
pub const ROUNDS_MIN: usize = 3;

const RESAMPLES: usize = 4_000;

/// An estimate and the range it may well be in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The best guess.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Throughput, requests a second.
    More,
    /// Latency, CPU time.
    Less,
}

/// What a ratio means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Better, and the interval excludes "equal".
    Faster,
    /// Worse, and the interval excludes "equal".
    Slower,
    /// The interval contains "equal", or there were too few rounds for one.
    Noise,
}

impl Verdict {
    /// Lower case, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Noise => "noise",
        }
    }
}

/// The mean of `values` with its interval; `None` without values.
pub fn mean(values: &[f64], seed: u64) -> Option<Interval> {
    interval(values, seed, |sample| {
        sample.iter().sum::<f64>() / sample.len() as f64
    })
}

/// The ratio `values / base`, round by round. `None` when there are no rounds, not
/// the same number of them, or a figure is not positive.
pub fn ratio(values: &[f64], base: &[f64], seed: u64) -> Option<Interval> {
    if values.len() != base.len() {
        return None;
    }
    let logs: Vec<f64> = values
        .iter()
        .zip(base)
        .map(|(value, base)| (value / base).ln())
        .collect();
    if !logs.iter().all(|log| log.is_finite()) {
        return None;
    }
    let interval = mean(&logs, seed)?;
    Some(Interval {
        estimate: interval.estimate.exp(),
        low: interval.low.exp(),
        high: interval.high.exp(),
    })
}

/// The mean of `values` with Student's interval; `None` for fewer than two.
///
/// For the middle of a race, which asks after each round about every arm: as wide as
/// [`mean`]'s where the values are not far from normal, and a thousand times cheaper.
pub fn student(values: &[f64]) -> Option<Interval> {
    let count = values.len();
    if count < 2 {
        return None;
    }
    let estimate = values.iter().sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|v| (v - estimate).powi(2)).sum();
    let error = (squares / (count - 1) as f64 / count as f64).sqrt();
    let half = student_t(count - 1) * error;
    Some(Interval {
        estimate,
        low: estimate - half,
        high: estimate + half,
    })
}

/// What a ratio over `rounds` rounds says.
pub fn verdict(ratio: Interval, rounds: usize, better: Better) -> Verdict {
    if rounds < ROUNDS_MIN {
        return Verdict::Noise;
    }
    match better {
        Better::More if ratio.low > 1.0 => Verdict::Faster,
        Better::More if ratio.high < 1.0 => Verdict::Slower,
        Better::Less if ratio.high < 1.0 => Verdict::Faster,
        Better::Less if ratio.low > 1.0 => Verdict::Slower,
        Better::More | Better::Less => Verdict::Noise,
    }
}

fn interval(values: &[f64], seed: u64, statistic: impl Fn(&[f64]) -> f64) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let estimate = statistic(values);
    let mut random = Random::new(seed);
    let mut sample = vec![0.0; values.len()];
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for slot in &mut sample {
                *slot = values[random.below(values.len() as u64) as usize];
            }
            statistic(&sample)
        })
        .collect();
    resampled.sort_unstable_by(f64::total_cmp);
    let tail = tail(values.len());
    Some(Interval {
        estimate,
        low: quantile(&resampled, tail),
        high: quantile(&resampled, 1.0 - tail),
    })
}

/// The share of resamples to leave out on each side.
fn tail(count: usize) -> f64 {
    if count < 2 {
        return 0.0;
    }
    let n = count as f64;
    normal_cdf(-student_t(count - 1) * (n / (n - 1.0)).sqrt())
}

/// Linear between neighbours; `sorted` must not be empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = at.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

/// The 97.5 % point of Student's t with `freedom` degrees of freedom.
fn student_t(freedom: usize) -> f64 {
    // Abramowitz and Stegun, table 26.10; beyond it the expansion 26.7.5.
    const TABLE: [f64; 10] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    ];
    if let Some(t) = TABLE.get(freedom.saturating_sub(1)) {
        return *t;
    }
    let z = 1.959_964_f64;
    let n = freedom as f64;
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
}

/// The standard normal distribution (Abramowitz and Stegun 7.1.26 for erf; its
/// error of 1.5e-7 is far below what 4,000 resamples resolve).
fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let upper = 0.5 * poly * (-z * z).exp();
    if x < 0.0 { upper } else { 1.0 - upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(base: f64, spread: f64, rounds: usize, random: &mut Random) -> Vec<f64> {
        (0..rounds)
            .map(|_| {
                let unit = random.unit();
                base * (1.0 + spread * (unit * 2.0 - 1.0))
            })
            .collect()
    }

    #[test]
    fn a_clear_difference_is_a_verdict_in_both_directions() {
        let mut random = Random::new(1);
        let fast = noisy(30.0, 0.02, 7, &mut random);
        let slow = noisy(10.0, 0.02, 7, &mut random);
        let ratio = ratio(&fast, &slow, 42).unwrap();
        assert!((ratio.estimate - 3.0).abs() < 0.1, "{ratio:?}");
        assert_eq!(verdict(ratio, 7, Better::More), Verdict::Faster);
        assert_eq!(verdict(ratio, 7, Better::Less), Verdict::Slower);
    }

    #[test]
    fn equal_subjects_are_noise_at_about_the_stated_rate() {
        let mut random = Random::new(7);
        let runs = 400;
        let mut wrong = 0;
        for seed in 0..runs {
            let a = noisy(10.0, 0.1, 5, &mut random);
            let b = noisy(10.0, 0.1, 5, &mut random);
            if verdict(ratio(&a, &b, seed).unwrap(), 5, Better::More) != Verdict::Noise {
                wrong += 1;
            }
        }
        // 5 % of 400 is 20; four standard deviations (4 × 4.4) above that is a bug.
        assert!(wrong <= 38, "{wrong} of {runs} equal pairs got a verdict");
    }

    #[test]
    fn drift_that_hits_both_alike_cancels() {
        let base: Vec<f64> = (1..=6).map(|round| f64::from(round) * 10.0).collect();
        let values: Vec<f64> = base.iter().map(|value| value * 1.05).collect();
        let ratio = ratio(&values, &base, 3).unwrap();
        assert!((ratio.high - ratio.low).abs() < 1e-9);
        assert_eq!(verdict(ratio, 6, Better::More), Verdict::Faster);
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values = [1.0, 2.0, 4.0, 3.0];
        assert_eq!(mean(&values, 9), mean(&values, 9));
        assert!(mean(&[], 9).is_none());
        assert!(ratio(&values, &[1.0, 0.0, 1.0, 1.0], 9).is_none());
    }

    #[test]
    fn the_cheap_interval_agrees_with_the_bootstrap() {
        let mut random = Random::new(5);
        let values = noisy(10.0, 0.1, 12, &mut random);
        let (cheap, thorough) = (student(&values).unwrap(), mean(&values, 3).unwrap());
        assert!((cheap.estimate - thorough.estimate).abs() < 1e-9);
        let width = |interval: Interval| interval.high - interval.low;
        let ratio = width(cheap) / width(thorough);
        assert!((0.8..1.25).contains(&ratio), "{cheap:?} {thorough:?}");
        assert_eq!(student(&[1.0]), None);
    }

    #[test]
    fn one_round_is_never_a_verdict() {
        let ratio = ratio(&[30.0], &[10.0], 1).unwrap();
        assert_eq!(verdict(ratio, 1, Better::More), Verdict::Noise);
    }

    #[test]
    fn the_tables_are_right() {
        assert!((normal_cdf(-1.959_964) - 0.025).abs() < 1e-6);
        assert!((student_t(30) - 2.042).abs() < 1e-3);
        assert!((student_t(10) - 2.228).abs() < 1e-9);
    }
}
