//! What a soak is told on its command line.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Runs one Global and some Locals as processes, loads them, kills them and cuts them off at random, and judges every
/// answer while it runs. Ends with 1 if a promise was broken.
#[derive(Parser, Clone, Debug)]
#[command(name = "dstore-soak", version)]
pub struct Args {
    /// How long, in minutes; parts of one too.
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,
    /// Where load and faults are drawn from [default: another one each time]. What the machine does is not.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Global's index engine: fjall, sled or memory.
    #[arg(long, default_value = "fjall")]
    pub engine: String,
    /// Number of Locals.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub locals: u32,
    /// Number of callers, each with one call at a time.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub callers: u32,
    /// Lease length.
    #[arg(long, default_value = "500ms")]
    pub lease: String,
    /// Keep data and logs in DIR, which must not exist [default: a temporary one, kept if a promise was broken].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The `dstore` to run [default: the one of this build, brought up to date first].
    #[arg(long, value_name = "FILE")]
    pub dstore: Option<PathBuf>,
    /// Make a mistake on purpose, which must be found: callers keep what they read, and at times answer from it.
    #[arg(long)]
    pub stale_callers: bool,
}

impl Args {
    /// How long callers work.
    pub fn span(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or(Duration::from_secs(120))
    }
}
