//! Owns journal time: the wall clock as names with a time to live are measured by it, made safe against being set.
//!
//! Invariants: it never goes back, and is never less than what was journaled; while Global runs it goes on as the
//! monotonic clock does, whatever becomes of the wall clock. So a wall clock that was ahead, and is set right, revives
//! no name, and no name lives on until it has caught up. What passes while Global is stopped is seen by the wall clock
//! alone.

use dstore_shared::Moment;
use dstore_sys::clock::Clock;
use parking_lot::Mutex;
use std::sync::Arc;

/// Journal time, in milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct JournalTime {
    clock: Arc<dyn Clock>,
    /// What it was, and when by the monotonic clock.
    was: Mutex<(u64, Moment)>,
}

impl JournalTime {
    /// Goes on from what was journaled.
    pub fn after(journaled_ms: u64, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self { clock, was: Mutex::new((journaled_ms, now)) }
    }

    /// What it is now.
    pub fn now(&self) -> u64 {
        let mut was = self.was.lock();
        // Read under the lock, so that nobody is told less than another was before.
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.now());
        let passed_ms = u64::try_from(now.since(was.1).as_millis()).unwrap_or(u64::MAX);
        let goes_on = was.0.saturating_add(passed_ms);
        if wall_ms <= goes_on {
            return goes_on;
        }
        *was = (wall_ms, now);
        wall_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_sys::clock::ManualClock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A wall clock that is set, beside a monotonic one that is not.
    #[derive(Debug, Default)]
    struct SetClock {
        monotonic: ManualClock,
        wall_ms: AtomicU64,
    }

    impl Clock for SetClock {
        fn now(&self) -> Moment {
            self.monotonic.now()
        }

        fn wall_ms(&self) -> u64 {
            self.wall_ms.load(Ordering::SeqCst)
        }
    }

    impl SetClock {
        fn pass(&self, ms: u64) {
            self.monotonic.advance(Duration::from_millis(ms));
            self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }

    #[test]
    fn journal_time_goes_on_after_a_wall_clock_that_was_ahead_is_set_right() {
        let clock = Arc::new(SetClock::default());
        clock.wall_ms.store(1_000, Ordering::SeqCst);
        let time = JournalTime::after(0, clock.clone());
        assert_eq!(time.now(), 1_000);
        clock.wall_ms.store(1_000_000, Ordering::SeqCst);
        assert_eq!(time.now(), 1_000_000, "it follows a clock that is set forward");
        clock.wall_ms.store(1_000, Ordering::SeqCst);
        assert_eq!(time.now(), 1_000_000, "it never goes back");
        for passed in 1..=5_000 {
            clock.pass(1);
            assert_eq!(time.now(), 1_000_000 + passed, "names go on to run out");
        }
        clock.monotonic.advance(Duration::from_nanos(999_999));
        assert_eq!(time.now(), 1_005_000);
        clock.monotonic.advance(Duration::from_nanos(1));
        assert_eq!(time.now(), 1_005_001, "less than a millisecond is not lost by looking");
        clock.wall_ms.store(2_000_000, Ordering::SeqCst);
        assert_eq!(time.now(), 2_000_000, "once the wall clock has caught up it counts again");
    }

    #[test]
    fn journal_time_is_never_less_than_what_was_journaled() {
        let clock = Arc::new(SetClock::default());
        let time = JournalTime::after(70, clock.clone());
        assert_eq!(time.now(), 70);
        clock.pass(5);
        assert_eq!(time.now(), 75, "though the wall clock says 5");
    }
}
