//! G5: whoever cannot reach Global stops serving names from memory when his lease has run out by his own clock, which
//! is right within ρ.
//!
//! Whether anybody changed the name meanwhile does not matter: so a lease that is too long shows in every partition
//! that outlasts it, and not only where somebody fought over a name.

use super::{Evidence, host_of};
use crate::cluster::local_host;
use std::time::Duration;

/// For steps of the simulation, in which faults begin and messages arrive.
const SLACK: Duration = Duration::from_millis(4);

/// Hits that no lease allows.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for planned in &evidence.plan.faults {
        // A lease counts from the sending of what asked for it: the last such message left when the fault began.
        let (from, to) = (planned.at + evidence.plan.lease + SLACK, planned.at + planned.lasts);
        for local in (0..evidence.plan.locals).filter(|local| planned.fault.isolates(*local)) {
            let host = local_host(local);
            for call in evidence.calls.iter().filter(|call| call.told.is_hit && host_of(&call.by) == host) {
                if call.begun > from && call.begun < to {
                    wrong.push(format!(
                        "G5: a hit without a lease, cut off since {:?}:\n    {call}",
                        planned.at
                    ));
                }
            }
        }
    }
    wrong.truncate(2);
    wrong
}
