//! The only crate of dstore that touches the outside: clock, randomness, network, disk, tasks.
//!
//! Each is a narrow trait with its real implementation and one for tests or simulation. Everything else
//! gets a [`Sys`] and asks it; the lints of `global`, `local` and `client` ban the direct ways. So the same
//! code runs in production, in tests with a clock that stands still, and in a simulated network.

pub mod clock;
pub mod disk;
pub mod failpoints;
pub mod net;
pub mod ready;
pub mod rng;
pub mod tasks;

use std::sync::Arc;

/// The outside, as one process sees it.
#[derive(Clone, Debug)]
pub struct Sys {
    /// Tells the time.
    pub clock: Arc<dyn clock::Clock>,
    /// Draws random numbers.
    pub rng: Arc<dyn rng::Rng>,
    /// Connects and listens.
    pub net: Arc<dyn net::Net>,
    /// Reads and writes files.
    pub disk: Arc<dyn disk::Disk>,
    /// Runs what blocks.
    pub blocking: tasks::Blocking,
}

impl Sys {
    /// The machine that this process runs on.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(clock::BootClock),
            rng: Arc::new(rng::OsRng),
            net: Arc::new(net::RealNet),
            disk: Arc::new(disk::RealDisk),
            blocking: tasks::Blocking::Threads,
        }
    }
}
