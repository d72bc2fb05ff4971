//! The machine's time, for how long the simulator itself has worked.
//!
//! In the process `dstore-sim` std's clocks are the simulation's (`main.rs`), so the kernel is asked.
//! It must never be asked for anything within a run.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A moment of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wall(Duration);

impl Wall {
    /// Now.
    pub fn now() -> Self {
        Self(read(ClockId::Monotonic))
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        read(ClockId::Monotonic).saturating_sub(self.0)
    }
}

/// The time since 1970.
pub fn since_1970() -> Duration {
    read(ClockId::Realtime)
}

/// The time that all threads of this process have worked.
pub fn cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}
