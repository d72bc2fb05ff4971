//! G6: nothing is weaker than asked for without saying so.
//!
//! Kinds of errors are judged where they arrive (`cluster/client.rs`).

use super::Evidence;
use std::time::Duration;

/// Answers that are weaker than they may be.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let lease = evidence.plan.lease;
    // A drain, by a clock that may be slow; after a restart the leases of before.
    let bound = (lease.min(Duration::from_secs(1)) / 4 + lease * 1005 / 1000) * 1005 / 995;
    let mut wrong = Vec::new();
    for call in &evidence.calls {
        let Some(stale) = call.told.stale else { continue };
        let may =
            if call.op.is_read() { call.told.may_be_stale } else { call.told.is_async && stale <= bound };
        if !may {
            wrong.push(format!("G6: stale for {stale:?} unasked, or for longer than {bound:?}:\n    {call}"));
        }
    }
    wrong.truncate(2);
    wrong
}
