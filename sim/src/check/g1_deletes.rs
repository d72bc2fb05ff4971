//! G1: what an acknowledged delete removed is seen nowhere by whoever reads after it.
//!
//! The search for one order (`g2_one_order`) implies this; here it is looked at by itself, by what can be said in
//! one sentence: a value that is read after a delete of its key was acknowledged was bound to that key after the
//! delete began, or at least may have been.

use super::Evidence;
use crate::linear::{Answer, Bind, Call, Op, Value};
use std::collections::HashMap;
use std::time::Duration;

/// Deletes that are seen undone.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut bindings: HashMap<(usize, Value), Vec<&Call>> = HashMap::new();
    for call in &evidence.calls {
        for (key, value) in binds(call, evidence) {
            bindings.entry((key, value)).or_default().push(call);
        }
    }
    for removal in evidence.calls.iter().filter(|call| !call.told.is_async && call.told.stale.is_none()) {
        let (Some(ended), removed) = (removal.ended, removes(removal)) else { continue };
        for read in evidence.calls.iter().filter(|read| read.begun > ended && read.told.stale.is_none()) {
            for (key, value) in reads(read).into_iter().filter(|(key, _)| removed.contains(key)) {
                let may_be_later = |binding: &&Call| binding.ended.is_none_or(|end| end >= removal.begun);
                let of = bindings.get(&(key, value)).map(Vec::as_slice).unwrap_or_default();
                if !of.iter().any(may_be_later) && !is_async_near(evidence, read, key) {
                    wrong
                        .push(format!("G1: key {key} is deleted and read again:\n    {removal}\n    {read}"));
                }
            }
        }
    }
    wrong.truncate(3);
    wrong
}

/// Keys that a call, answered so, has unbound.
fn removes(call: &Call) -> Vec<usize> {
    match (call.op, call.answer) {
        (Op::Delete(_), Some(Answer::Removed(keys)))
        | (Op::DeletePrefix(keys), Some(Answer::RemovedMany(_))) => keys.each().collect(),
        (Op::Rename(from, _), Some(Answer::Done(_))) => vec![from],
        (Op::Swap(swap), Some(Answer::Applied(Some(_), _))) => vec![swap.unbound],
        _ => Vec::new(),
    }
}

/// Bindings that a call has made, or may have.
fn binds(call: &Call, evidence: &Evidence<'_>) -> Vec<(usize, Value)> {
    match (call.op, call.answer) {
        (Op::Set(key, value), None | Some(Answer::Stored)) => vec![(key, value)],
        (Op::Swap(swap), None | Some(Answer::Applied(_, Bind::Stored))) => vec![swap.bound],
        (Op::Copy(_, to) | Op::Rename(_, to), Some(Answer::Done(value))) => vec![(to, value)],
        // Of what, nobody knows: any value that was ever set.
        (Op::Copy(_, to) | Op::Rename(_, to), None) => {
            let values = evidence.calls.iter().filter_map(|call| match call.op {
                Op::Set(_, value) => Some((to, value)),
                Op::Swap(swap) => Some((to, swap.bound.1)),
                _ => None,
            });
            values.collect()
        }
        _ => Vec::new(),
    }
}

fn reads(call: &Call) -> Vec<(usize, Value)> {
    match (call.op, call.answer) {
        (Op::Get(key), Some(Answer::Found(value))) => vec![(key, value)],
        (Op::Read(_), Some(Answer::All(state))) => {
            state.bound().each().filter_map(|key| Some((key, state.get(key)?))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether an asynchronous DEL of the key may excuse the read: `g2_one_order` says when.
fn is_async_near(evidence: &Evidence<'_>, read: &Call, key: usize) -> bool {
    let began = |call: &&Call| call.begun <= read.ended.unwrap_or(Duration::MAX);
    let of_key = |call: &&Call| call.told.is_async && call.op.keys().has(key);
    evidence.calls.iter().filter(of_key).any(|call| began(&call))
}
