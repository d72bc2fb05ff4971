//! The run's random numbers and its machines' clocks.

use super::config::{Config, Fault};
use super::planted::Planted;
use dstore_shared::Moment;
use dstore_shared::limits::CLOCK_RATE_ERROR_PER_MILLE;
use dstore_sys::rng::Rng as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// Virtual nanoseconds since the run began: what no machine of the run can read.
pub(super) type Time = u64;

pub(super) const MS: Time = 1_000_000;

/// What `d` by one clock may be by another, rounded up.
pub(super) fn lengthened(d: Duration) -> Duration {
    d + d * CLOCK_RATE_ERROR_PER_MILLE as u32 / 1000 + Duration::from_nanos(1)
}

/// The numbers of one run.
#[derive(Debug)]
pub(super) struct Rng(dstore_sys::rng::SeededRng);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(dstore_sys::rng::SeededRng::new(seed))
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % (high - low + 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of those that weigh something, the heavier the more often.
    pub fn weighed<T: Copy>(&mut self, from: &BTreeMap<T, u64>) -> T {
        let mut at = self.0.next_u64() % from.values().sum::<u64>();
        let mut chosen = from.iter();
        loop {
            let (one, weight) = chosen.next().expect("a place below the sum of all weights");
            if at < *weight {
                return *one;
            }
            at -= weight;
        }
    }

    /// True in `per_mille` of a thousand cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.0.next_u64() % 1000 < per_mille
    }
}

/// A machine's clock: it began somewhere, and its rate is off by at most ρ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    offset: u64,
    /// Parts per million by which it is fast.
    fast_ppm: i64,
}

impl Clock {
    pub fn of(rng: &mut Rng, cfg: &Config) -> Self {
        let worse = if cfg.is_planted(Planted::WrongClocks) { 10 } else { 1 };
        let most = CLOCK_RATE_ERROR_PER_MILLE as i64 * 1000 * worse;
        let any = rng.between(0, 2 * most as u64) as i64 - most;
        let fast_ppm = if cfg.has(Fault::Skew) { rng.pick(&[-most, most, 0, any]) } else { 0 };
        Self { offset: rng.between(1, 1_000_000) * MS, fast_ppm }
    }

    fn rate(self) -> u128 {
        u128::from((1_000_000 + self.fast_ppm).unsigned_abs())
    }

    pub fn read(self, now: Time) -> Moment {
        Moment::from_nanos(self.offset + (u128::from(now) * self.rate() / 1_000_000) as u64)
    }

    /// The first time at which it reads `moment` or more.
    pub fn time_of(self, moment: Moment) -> Time {
        let run = u128::from(moment.as_nanos().saturating_sub(self.offset));
        (run * 1_000_000).div_ceil(self.rate()) as u64
    }
}
