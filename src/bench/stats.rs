//! What rounds say: a mean or a ratio with an interval, and a verdict.
//!
//! Pure. Rounds are paired: in each round every subject was measured within seconds of
//! the others, so what the machine did at that time cancels in the ratio of one round.
//! The estimate of a ratio is the geometric mean of the rounds' ratios; its interval is
//! Student's t on their logarithms. One function, [`student`], makes every interval of
//! `bench` and of `tune`.
//!
//! Not a bootstrap: whatever it resamples, a percentile bootstrap cannot leave the range
//! of the rounds, and three rounds of equal subjects lie on one side of 1 in a quarter of
//! all cases. Student's t is exact for normal logarithms at any number of rounds, and errs
//! towards `noise` when some rounds are far out, as those of a disturbed machine are.

use serde::Serialize;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// Fewer rounds than this give no verdict.
pub const ROUNDS_MIN: usize = 3;

/// A figure, and where it may well be, given rounds enough to tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Estimate {
    /// The best guess.
    pub estimate: f64,
    /// `None` after a single round, which tells nothing of the spread.
    #[serde(flatten)]
    pub interval: Option<Interval>,
}

/// Both ends, at [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// Through a function that keeps the order.
    pub(crate) fn map(self, through: impl Fn(f64) -> f64) -> Self {
        Self {
            estimate: through(self.estimate),
            interval: self.interval.map(|it| Interval {
                low: through(it.low),
                high: through(it.high),
            }),
        }
    }

    /// Whether all of the interval is above `value`; never without one.
    pub fn is_above(&self, value: f64) -> bool {
        self.interval.is_some_and(|it| it.low > value)
    }

    /// Whether all of the interval is below `value`; never without one.
    pub fn is_below(&self, value: f64) -> bool {
        self.interval.is_some_and(|it| it.high < value)
    }
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Throughput, requests a second.
    More,
    /// Latency, CPU time.
    Less,
}

/// What a ratio means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Better, and the interval excludes "equal".
    Faster,
    /// Worse, and the interval excludes "equal".
    Slower,
    /// The interval contains "equal", or there were too few rounds for one.
    Noise,
    /// Something else took the CPUs in too many rounds: the figures are shown, and
    /// nothing is concluded from them.
    Disturbed,
}

impl Verdict {
    /// Lower case, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Noise => "noise",
            Self::Disturbed => "disturbed",
        }
    }
}

/// The mean of `values` with its interval; `None` without values. Of figures none of which
/// is negative, no end of it is.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    let mut mean = student(values)?;
    if let Some(interval) = &mut mean.interval
        && values.iter().all(|value| *value >= 0.0)
    {
        interval.low = interval.low.max(0.0);
    }
    Some(mean)
}

/// The ratio `values / base`, round by round. `None` when there are no rounds, not
/// the same number of them, or a figure is not positive.
pub fn ratio(values: &[f64], base: &[f64]) -> Option<Estimate> {
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
    let ratio = student(&logs)?.map(f64::exp);
    // A spread of rounds that no number holds is no figure.
    let holds = |it: Interval| it.high.is_finite();
    ratio.interval.is_none_or(holds).then_some(ratio)
}

/// The mean of `values` with Student's interval; `None` without values. The interval
/// takes two of them.
pub fn student(values: &[f64]) -> Option<Estimate> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let estimate = values.iter().sum::<f64>() / count as f64;
    let interval = (count > 1).then(|| {
        let squares: f64 = values.iter().map(|v| (v - estimate).powi(2)).sum();
        let error = (squares / (count - 1) as f64 / count as f64).sqrt();
        let half = student_t(count - 1) * error;
        Interval {
            low: estimate - half,
            high: estimate + half,
        }
    });
    Some(Estimate { estimate, interval })
}

/// What a ratio over `rounds` rounds says.
pub fn verdict(ratio: Estimate, rounds: usize, better: Better) -> Verdict {
    let (above, below) = (ratio.is_above(1.0), ratio.is_below(1.0));
    match better {
        _ if rounds < ROUNDS_MIN => Verdict::Noise,
        Better::More if above => Verdict::Faster,
        Better::More if below => Verdict::Slower,
        Better::Less if below => Verdict::Faster,
        Better::Less if above => Verdict::Slower,
        Better::More | Better::Less => Verdict::Noise,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Random;

    /// Normal, mean 0 and deviation 1: the sum of twelve uniform variables.
    fn normal(random: &mut Random) -> f64 {
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    /// Rounds of a figure around `base`, `spread` being the deviation of the logarithm.
    fn rounds(base: f64, spread: f64, count: usize, random: &mut Random) -> Vec<f64> {
        (0..count)
            .map(|_| base * (spread * normal(random)).exp())
            .collect()
    }

    #[test]
    fn a_clear_difference_is_a_verdict_in_both_directions() {
        let mut random = Random::new(1);
        let fast = rounds(30.0, 0.02, 7, &mut random);
        let slow = rounds(10.0, 0.02, 7, &mut random);
        let ratio = ratio(&fast, &slow).unwrap();
        assert!((ratio.estimate - 3.0).abs() < 0.1, "{ratio:?}");
        assert_eq!(verdict(ratio, 7, Better::More), Verdict::Faster);
        assert_eq!(verdict(ratio, 7, Better::Less), Verdict::Slower);
    }

    /// Of how many pairs of equal subjects, out of `pairs`, a verdict was wrong.
    fn wrong(pairs: usize, count: usize, mut figure: impl FnMut(usize) -> f64) -> usize {
        let mut subject = || (0..count).map(&mut figure).collect::<Vec<f64>>();
        (0..pairs)
            .filter(|_| {
                let ratio = ratio(&subject(), &subject()).unwrap();
                verdict(ratio, count, Better::More) != Verdict::Noise
            })
            .count()
    }

    #[test]
    fn equal_subjects_are_noise_at_the_stated_rate_with_the_fewest_rounds_permitted() {
        let pairs = 4_000;
        // Four deviations above 5 % of the pairs, which is what 95 % promises.
        let most = 200 + 4 * 14;
        for count in [ROUNDS_MIN, 4, 5, 7] {
            let mut random = Random::new(count as u64);
            let calm = wrong(pairs, count, |_| (0.05 * normal(&mut random)).exp());
            assert!(calm <= most, "{count} rounds: {calm} of {pairs} wrong");
            // Most of these are wrong for want of noise, were the interval too narrow.
            assert!(calm >= pairs / 40, "{count} rounds: only {calm} of {pairs}");

            // One measurement in eight is far out, by up to a factor of 60.
            let mut random = Random::new(100 + count as u64);
            let disturbed = wrong(pairs, count, |_| {
                let far_out = random.below(8) == 0;
                let spread = if far_out { 2.0 } else { 0.05 };
                (spread * normal(&mut random)).exp()
            });
            assert!(disturbed <= most, "{count} rounds: {disturbed} of {pairs}");

            // The machine slows down from round to round.
            let mut random = Random::new(200 + count as u64);
            let drifting = wrong(pairs, count, |round| {
                (0.05 * normal(&mut random) - 0.3 * round as f64).exp()
            });
            assert!(drifting <= most, "{count} rounds: {drifting} of {pairs}");
        }
    }

    #[test]
    fn drift_that_hits_both_alike_cancels() {
        let base: Vec<f64> = (1..=6).map(|round| f64::from(round) * 10.0).collect();
        let values: Vec<f64> = base.iter().map(|value| value * 1.05).collect();
        let ratio = ratio(&values, &base).unwrap();
        let interval = ratio.interval.unwrap();
        assert!((interval.high - interval.low).abs() < 1e-9);
        assert_eq!(verdict(ratio, 6, Better::More), Verdict::Faster);
    }

    #[test]
    fn an_interval_may_leave_the_range_of_the_rounds_but_not_the_possible() {
        let far = mean(&[1.0, 1.0, 9.0]).unwrap();
        let interval = far.interval.unwrap();
        assert!(interval.high > 9.0, "{far:?}");
        assert!(interval.low.abs() < 1e-12, "{far:?}");
        assert!(mean(&[]).is_none());
        assert!(ratio(&[1.0, 2.0], &[1.0, 0.0]).is_none());
        assert!(ratio(&[1e300, 1e-300], &[1.0, 1.0]).is_none());
    }

    #[test]
    fn one_round_has_neither_interval_nor_verdict() {
        let one = ratio(&[30.0], &[10.0]).unwrap();
        assert!((one.estimate - 3.0).abs() < 1e-9 && one.interval.is_none());
        assert_eq!(verdict(one, 1, Better::More), Verdict::Noise);
        let one = mean(&[3.0]).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), "{\"estimate\":3.0}");
        let two = ratio(&[30.0, 30.1], &[10.0, 10.0]).unwrap();
        assert!(two.interval.is_some());
        assert_eq!(verdict(two, 2, Better::More), Verdict::Noise);
    }

    #[test]
    fn the_table_is_right() {
        assert!((student_t(30) - 2.042).abs() < 1e-3);
        assert!((student_t(10) - 2.228).abs() < 1e-9);
    }
}
