//! What a metric is, apart from its value: families, their members, and the values
//! of a table that was read.

use std::collections::BTreeMap;

/// How a metric's values are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A total since the start.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A [`Distribution`].
    Histogram,
    /// One of a few words, which are the family's members.
    States,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Each,
    /// Bytes.
    Bytes,
    /// Time; the values are microseconds, what is exported are seconds.
    Seconds,
}

/// Metrics that differ in one label only.
#[derive(Debug)]
pub struct Family {
    /// Without the program's name before it, and without unit and `_total` behind it.
    pub name: &'static str,
    /// Of all members.
    pub kind: Kind,
    /// Of all members.
    pub unit: Unit,
    /// A sentence.
    pub help: &'static str,
    /// The label that tells the members apart; `None` if there is but one.
    pub label: Option<&'static str>,
    /// In the order of the table.
    pub members: &'static [Member],
    /// The words of [`Kind::States`].
    pub states: &'static [&'static str],
}

/// A metric of a family.
#[derive(Debug)]
pub struct Member {
    /// Its name in the log.
    pub key: &'static str,
    /// The value of the family's label.
    pub label: &'static str,
}

/// A value at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a counter or a gauge.
    Number(u64),
    /// Of a histogram: see [`Distribution`].
    Distribution {
        /// By bucket.
        counts: &'a [u64],
        /// Of all observations, where it is known.
        sum: Option<u64>,
    },
    /// One of the family's states.
    State(&'static str),
}

/// The metrics of one kind of subject, read at one moment.
pub trait Table {
    /// In the order of the table.
    const FAMILIES: &'static [Family];

    /// One for each member of each family, in their order.
    fn values(&self) -> Vec<Value<'_>>;
}

/// Totals by their names in the log: a counter is one number, a distribution its buckets and
/// then its sum. So they are told to another process, which may be another build.
pub type Totals = BTreeMap<String, Vec<u64>>;

/// The totals of a table.
pub fn totals<T: Table>(table: &T) -> Totals {
    let members = T::FAMILIES.iter().flat_map(|family| {
        let members = family.members.iter();
        members.map(|member| (family.kind, member.key))
    });
    let mut told = Totals::new();
    for ((kind, key), value) in members.zip(table.values()) {
        let numbers = match value {
            Value::Number(number) => vec![number],
            Value::Distribution { counts, sum } => {
                counts.iter().copied().chain([sum.unwrap_or(0)]).collect()
            }
            Value::State(_) => Vec::new(),
        };
        if matches!(kind, Kind::Counter | Kind::Histogram) {
            told.insert(key.to_owned(), numbers);
        }
    }
    told
}

/// A counter of these.
pub fn total(totals: &Totals, key: &str) -> u64 {
    let numbers = totals.get(key);
    numbers.and_then(|it| it.first()).copied().unwrap_or(0)
}

/// How often a number lay between two powers of two: bucket `n` has those below
/// 2 to the power of `n + 1` that are in no bucket before it, the last one has all above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution<const N: usize> {
    /// By bucket.
    pub counts: [u64; N],
    /// Of all observations, where it is known.
    pub sum: Option<u64>,
}

impl<const N: usize> Default for Distribution<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            sum: Some(0),
        }
    }
}

impl<const N: usize> Distribution<N> {
    /// The bucket of an observation.
    pub const fn bucket(n: u64) -> usize {
        let power = match n.checked_ilog2() {
            Some(power) => power as usize,
            None => 0,
        };
        if power < N { power } else { N - 1 }
    }

    /// The sum with another one's.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count += other;
        }
        let both = self.sum.zip(other.sum);
        self.sum = both.map(|(one, other)| one.wrapping_add(other));
        self
    }

    /// One that was told among others.
    pub fn of_totals(totals: &Totals, key: &str) -> Self {
        let mut told = Self::default();
        let Some((sum, counts)) = totals.get(key).and_then(|it| it.split_last()) else {
            return told;
        };
        for (at, count) in counts.iter().enumerate() {
            told.counts[at.min(N - 1)] += count;
        }
        told.sum = Some(*sum);
        told
    }

    /// As a value.
    pub const fn value(&self) -> Value<'_> {
        Value::Distribution {
            counts: &self.counts,
            sum: self.sum,
        }
    }
}

/// The upper bound of a bucket.
pub(super) const fn bound(bucket: usize) -> u64 {
    2 << bucket
}

/// What `percent` of the observations are below, as far as the buckets tell; `None`
/// before the first.
pub fn percentile(counts: &[u64], percent: u64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let mut left = (total * percent).div_ceil(100).max(1);
    for (bucket, count) in counts.iter().enumerate() {
        if *count >= left {
            return Some(bound(bucket));
        }
        left -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_and_the_last_has_the_rest() {
        for (n, bucket) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3)] {
            assert_eq!(Distribution::<4>::bucket(n), bucket, "{n}");
        }
        assert_eq!(Distribution::<4>::bucket(u64::MAX), 3);
        assert_eq!(Distribution::<64>::bucket(u64::MAX), 63);
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut counts = [0; 8];
        assert_eq!(percentile(&counts, 50), None);
        counts[2] = 99;
        counts[6] = 1;
        assert_eq!(percentile(&counts, 50), Some(8));
        assert_eq!(percentile(&counts, 99), Some(8));
        assert_eq!(percentile(&counts, 100), Some(128));
    }
}
