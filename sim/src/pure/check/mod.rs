//! The checkers: what must hold at every step, at every answer, and at the end. One file for each promise of
//! docs/GUARANTEES.md.
//!
//! ```text
//! after an event   g1 (what may be served is true), g4 (drains end), g5 (leases), g7 (bounds)   of what it touched
//! at an answer     g2 (timeline), g3 (durable), g6 (what lingers)        watches: at every batch
//! at the end       g2 (search), calm (everybody is answered, everything is given back)
//! ```
//! They read the state of the machines and the driver's truth, and change neither.

mod calm;
mod g1_never_stale;
mod g2_linear;
mod g3_durable;
mod g4_bounded_writes;
mod g5_clocks;
mod g6_said;
mod g7_memory;
mod search;
mod watches;

use super::world::World;
pub(super) use watches::{Became, Due};

/// Bounds are looked at after every so many events: what is over its bound stays so for a while.
const BOUNDS_EVERY: u64 = 64;

/// What the last event may have changed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Touched {
    pub global: bool,
    /// Locals, by number.
    pub locals: u64,
}

impl World {
    /// What may be served, and who waits for whom: both depend on Global and on a Local, and on time only so that
    /// less may be served later.
    pub fn check_invariants(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        if self.cfg.black_box {
            return;
        }
        for i in 0..self.locals.len() {
            let is_touched = touched.global || touched.locals >> i & 1 > 0;
            if is_touched && self.locals[i].up && self.local_now(i) < self.locals[i].valid_until {
                self.check_lease(i);
                self.check_names(i);
            }
        }
        if touched.global {
            self.check_drains();
        }
        if self.steps.is_multiple_of(BOUNDS_EVERY) {
            self.check_bounds();
        }
    }
}
