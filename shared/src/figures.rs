//! What a tier tells of itself to whoever runs it: counts, levels, and how long things took.
//!
//! Owns the shapes, not the numbers: each tier gathers its own when it is asked, so nothing here costs the paths that
//! are measured more than a few relaxed additions. A distribution has buckets that double, as Prometheus wants them.
//! It must never hold anything that grows with what is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a distribution: up to 1, 2, 4 ... 2^26 units, and beyond.
const BUCKETS: usize = 28;

/// How values are distributed: whole numbers, or times in microseconds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    counts: [u64; BUCKETS],
    sum: u64,
}

fn bucket(value: u64) -> usize {
    let ceil_log2 = 64 - value.saturating_sub(1).leading_zeros() as usize;
    ceil_log2.min(BUCKETS - 1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

impl Tally {
    /// Counts a number.
    pub fn note(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Counts a time, in microseconds, rounded up.
    pub fn note_time(&mut self, time: Duration) {
        self.note(micros(time));
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in units.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// For each bucket but the last its greatest value, and how many were not greater.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let running = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        running.take(BUCKETS - 1).enumerate().map(|(i, n)| (1 << i, n))
    }
}

/// A [`Tally`] that many threads add to.
#[derive(Default, Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a number.
    pub fn note(&self, value: u64) {
        self.counts[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time, in microseconds, rounded up.
    pub fn note_time(&self, time: Duration) {
        self.note(micros(time));
    }

    /// What was counted; of values that are being counted, some.
    pub fn read(&self) -> Tally {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Tally { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a figure tells.
#[derive(Clone, PartialEq, Debug)]
pub enum Reading {
    /// How often since the start.
    Counter(u64),
    /// For how long in all since the start.
    Seconds(Duration),
    /// What is so now.
    Gauge(f64),
    /// How long it took each time.
    Times(Tally),
    /// How many it were each time.
    Sizes(Tally),
}

/// One number, or distribution, that a tier tells of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// By Prometheus's rules: `dstore_`, the tier, what, the unit, `_total` of counters.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Of what it is, if there are several of one name: label and value, any text.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub reading: Reading,
}

impl Figure {
    /// A figure without labels.
    pub fn new(name: &'static str, help: &'static str, reading: Reading) -> Self {
        Self { name, help, labels: Vec::new(), reading }
    }

    /// A count since the start.
    pub fn counter(name: &'static str, help: &'static str, count: u64) -> Self {
        Self::new(name, help, Reading::Counter(count))
    }

    /// What is so now.
    pub fn gauge(name: &'static str, help: &'static str, level: impl Into<f64>) -> Self {
        Self::new(name, help, Reading::Gauge(level.into()))
    }

    /// As [`Self::gauge`], for whole numbers of any size.
    pub fn level(name: &'static str, help: &'static str, level: u64) -> Self {
        Self::gauge(name, help, level as f64)
    }

    /// The same of one of several.
    #[must_use]
    pub fn of(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_of_the_next_power_of_two() {
        for (value, wanted) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (1 << 26, 26),
            ((1 << 26) + 1, 27),
            (u64::MAX, 27),
        ] {
            assert_eq!(bucket(value), wanted, "{value}");
        }
    }

    #[test]
    fn a_tally_tells_how_many_were_not_greater() {
        let mut tally = Tally::default();
        for value in [1, 2, 2, 4, u64::MAX] {
            tally.note(value);
        }
        let below: Vec<_> = tally.up_to().take(4).collect();
        assert_eq!(below, [(1, 1), (2, 3), (4, 4), (8, 4)]);
        assert_eq!(
            (tally.count(), tally.up_to().count(), tally.up_to().last()),
            (5, BUCKETS - 1, Some((1 << 26, 4)))
        );
    }

    #[test]
    fn times_are_in_microseconds_rounded_up() {
        let histogram = Histogram::default();
        histogram.note_time(Duration::from_nanos(1));
        histogram.note_time(Duration::from_micros(3));
        let mut tally = Tally::default();
        tally.note(1);
        tally.note(3);
        assert_eq!(histogram.read(), tally);
        assert_eq!(tally.sum(), 4);
    }
}
