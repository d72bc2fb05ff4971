//! G4: a DEL takes no longer than its work, and one drain for each failure of a Local elsewhere.

use super::Evidence;
use crate::cluster::local_host;
use crate::linear::{Call, Op};
use std::time::Duration;

/// DELs that took too long.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for call in evidence.calls.iter().filter(|call| is_strict(call)) {
        // A DEL of two keys waits for what is ahead on either, and that for more: every change counts.
        let meets = |other: &&Call| {
            !other.op.is_read()
                && Some(other.begun) <= call.ended
                && other.ended.is_none_or(|ended| call.begun <= ended)
        };
        // That a name's time is over is a change, too.
        let ends = |other: &&Call| other.told.ttl.is_some() && Some(other.begun) <= call.ended;
        let ends =
            evidence.calls.iter().filter(ends).filter(|other| other.op.keys().meets(call.op.keys())).count();
        let ahead = (evidence.calls.iter().filter(meets).count() + ends).saturating_sub(1) as u32;
        if let (Some(bound), Some(ended)) = (bound(evidence, call, ahead), call.ended) {
            let took = ended.saturating_sub(call.begun);
            if took > bound {
                wrong.push(format!("G4: a DEL took {took:?}, longer than {bound:?}: {call}"));
            }
        }
    }
    wrong
}

/// Changes that wait for whoever may serve what they remove.
fn is_strict(call: &Call) -> bool {
    let drains = matches!(call.op, Op::Delete(_) | Op::DeletePrefix(_) | Op::Rename(..));
    drains && !call.told.is_async && !call.told.is_patient
}

/// How long it may take; `None` where the caller or Global is in trouble.
///
/// Each failure of a Local costs a drain of at most `A + D(1+ρ)` by Global's clock, which may itself be slow by
/// ρ: `(A + D(1+ρ)) / (1-ρ)`; and nobody is waited for later than that after what failed is whole again.
/// Failures count once, but for losses, each of which may break a session that has just begun anew.
///
/// Else a DEL takes four ways of the network (to Global, INV, ack, reply) and two waits for a commit, the one
/// under way and its own. What changes the same key goes first, each with two ways and a commit. A step of the
/// simulation is a millisecond, and each way may cost another. A commit is an append and a sync of the journal, each
/// as long as a job that blocks, and turns of the committer. Who calls from elsewhere has ways of his own.
fn bound(evidence: &Evidence<'_>, call: &Call, ahead: u32) -> Option<Duration> {
    let plan = evidence.plan;
    let ended = call.ended?;
    let from = |local: usize| call.by.starts_with(&format!("{}/", local_host(local)));
    if !(0..plan.locals).any(from) {
        return None;
    }
    let drain = (plan.lease.min(Duration::from_secs(1)) / 4 + plan.lease * 1005 / 1000) * 1000 / 995;
    let mut drains = Duration::ZERO;
    for trouble in &evidence.troubles {
        let is_elsewhere = trouble.local.is_some_and(|local| !from(local));
        let to = if is_elsewhere { trouble.whole + drain } else { trouble.to };
        let both = ended.min(to).checked_sub(call.begun.max(trouble.from));
        match both {
            Some(both) if is_elsewhere => drains += both.min(drain * trouble.failures),
            Some(_) => return None,
            None => {}
        }
    }
    let way = plan.latency_max + Duration::from_millis(1);
    let commit = plan.blocked * 3;
    Some(drains + way * (4 + 2 * ahead) + commit * (2 + ahead))
}
