//! G4: writes are bounded: no drain is longer than A + D(1+ρ), by Global's clock, while Global runs.
//!
//! A Local that owes an ack is granted no LEASE at a mark's age of A or more (rule 17), so that its last one ends
//! within D(1+ρ) of that; A grows with D. Nothing else extends a drain, neither a new session (rules 15, 16) nor other
//! drains. What stands still decides nothing, so a pause of Global counts in what it sees, but not here: what is due is
//! done as soon as it wakes. On top comes only how late a tick may be.

use crate::pure::global::TICK_LATE_MAX;
use crate::pure::planted::Planted;
use crate::pure::rng::lengthened;
use crate::pure::world::World;
use std::time::Duration;

/// The most that A is at the shortest D.
const ACK_MAX: Duration = Duration::from_millis(250);

impl World {
    pub(super) fn check_drains(&mut self) {
        let Some(process) = &self.global.process else { return };
        // The event that wakes it may share its moment with others, which happen nanoseconds apart.
        if self.now < self.global.paused_until + 1_000 {
            return;
        }
        // Computed anew, so that a machine that is wrong about its own terms is found: A and the longest D granted, or
        // how long leases of before may run.
        let shortest = self.cfg.lease;
        let grown = process.granted.max(shortest).as_secs_f64() / shortest.as_secs_f64();
        let a = (shortest / 4).min(ACK_MAX).mul_f64(grown);
        let longest_wait = (a + lengthened(process.granted)).max(process.grace);
        let bound = longest_wait + TICK_LATE_MAX * 1005 / 1000 + Duration::from_micros(1);
        let longest = process.m.longest_drain(self.global.clock.read(self.now));
        // The planted clocks are off by more than the tick is late.
        if longest > bound && !self.planted(Planted::WrongClocks) {
            self.violation(|| format!("G4: a drain takes {longest:?}, more than {bound:?}"));
        }
    }
}
