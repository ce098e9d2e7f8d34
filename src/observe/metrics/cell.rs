//! Cells: numbers with one writer, read by anyone.
//!
//! Adding is a load and a store, not a locked instruction: nobody else writes it.
//! Readers may see one cell's change before an earlier one of another cell.

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::Distribution;

/// A total that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, wrapping. Only ever called by the one writer.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Follows a total that is kept elsewhere. Only ever called by the one writer.
    pub fn follow(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value. Only ever called by the one writer.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a number lay between two powers of two; see [`Distribution`].
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; N],
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// One more observation: bytes, or microseconds. Only ever called by the one
    /// writer.
    pub fn record(&self, n: u64) {
        let add = |cell: &AtomicU64, n: u64| {
            let sum = cell.load(Ordering::Relaxed).wrapping_add(n);
            cell.store(sum, Ordering::Relaxed);
        };
        add(&self.counts[Distribution::<N>::bucket(n)], 1);
        add(&self.sum, n);
    }

    /// What somebody else has observed. Only ever called by the one writer.
    pub fn absorb(&self, more: &Distribution<N>) {
        let add = |cell: &AtomicU64, n: u64| {
            let sum = cell.load(Ordering::Relaxed).wrapping_add(n);
            cell.store(sum, Ordering::Relaxed);
        };
        for (cell, count) in self.counts.iter().zip(more.counts) {
            add(cell, count);
        }
        add(&self.sum, more.sum.unwrap_or(0));
    }

    /// The counts now.
    pub fn get(&self) -> Distribution<N> {
        let counts = self.counts.each_ref();
        Distribution {
            counts: counts.map(|count| count.load(Ordering::Relaxed)),
            sum: Some(self.sum.load(Ordering::Relaxed)),
        }
    }
}
