//! The simulator: `dstore-sim stack ...` runs both tiers as they are, `dstore-sim pure ...` the two machines of the
//! protocol alone.
//!
//! From its first moment on this process has no clock of the machine: outside of a run std's clocks stand still,
//! within one they show the virtual time of the host that asks. h2 has a clock of std's, and with it a run under
//! faults would be another one each time. Only [`dstore_sim::wall`] asks the kernel.

use std::process::ExitCode;
use std::time::SystemTime;

fn main() -> ExitCode {
    let _virtual = mad_turmoil::time::SimClocksGuard::init();
    if SystemTime::now() != SystemTime::UNIX_EPOCH {
        eprintln!("this build has the clock of the machine: runs could not be repeated");
        return ExitCode::from(70);
    }
    let mut given = std::env::args().skip(1);
    match given.next().as_deref() {
        Some("stack") => dstore_sim::cli::main(given),
        Some("pure") => dstore_sim::pure::cli::main(given),
        _ => {
            eprintln!("{}\n{}", dstore_sim::cli::usage(), dstore_sim::pure::cli::USAGE);
            ExitCode::from(2)
        }
    }
}
