//! G5: safety needs a bound on clock rates only. Global waits for a Local longer than that serves (I4), whatever their
//! clocks began with and however they differ within ρ.

use crate::pure::world::World;

impl World {
    pub(super) fn check_lease(&mut self, i: usize) {
        let local = &self.locals[i];
        let (local_id, incarnation) = local.identity();
        let Some(process) = &self.global.process else { return };
        let now = self.global.clock.read(self.now);
        let end = process.m.lease_end(local_id, incarnation).filter(|end| *end > now);
        let serves_until = local.clock.time_of(local.valid_until);
        let holds =
            end.is_some_and(|end| serves_until <= self.global.clock.time_of(end)) || process.m.in_grace(now);
        if !holds {
            self.violation(|| {
                format!("G5: local {i} serves until {serves_until} ns, global waits until {end:?}")
            });
        }
    }
}
