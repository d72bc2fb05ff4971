//! What time it is.

use dstore_shared::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells the time. Leases are measured with [`Clock::now`]; nothing that must be safe depends on
/// [`Clock::wall_ms`].
pub trait Clock: Send + Sync + Debug {
    /// Time since boot, suspend included.
    fn now(&self) -> Moment;
    /// Milliseconds since 1970 as this machine believes.
    fn wall_ms(&self) -> u64;
}

/// `CLOCK_BOOTTIME`. Unlike `CLOCK_MONOTONIC` it does not stand still while the machine is suspended, so a
/// lease cannot outlive its term that way. A read costs about 24 ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        let t = clock_gettime(ClockId::Boottime);
        Moment::from_nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    fn wall_ms(&self) -> u64 {
        let t = clock_gettime(ClockId::Realtime);
        t.tv_sec as u64 * 1_000 + t.tv_nsec as u64 / 1_000_000
    }
}

/// A clock that moves only when told, for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn at(at: Moment) -> Self {
        Self(AtomicU64::new(at.as_nanos()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis()
    }
}

/// Follows tokio's clock, which a simulation moves: virtual time, with a rate error of its own.
#[derive(Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    start: Moment,
    /// Rate relative to true time, in parts per million: 1,000,000 = exact.
    rate_ppm: u64,
}

impl TokioClock {
    /// A clock that starts at `start` now and runs at `rate_ppm` millionths of true speed.
    pub fn new(start: Moment, rate_ppm: u64) -> Self {
        Self { origin: tokio::time::Instant::now(), start, rate_ppm }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        let elapsed = self.origin.elapsed().as_nanos() * u128::from(self.rate_ppm) / 1_000_000;
        self.start + Duration::from_nanos(elapsed as u64)
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.now().as_millis()
    }
}
