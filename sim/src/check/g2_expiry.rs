//! G2, times to live: a name is there until its time is over, and nobody is served it later.
//!
//! That a name is not gone before its time, and does not come back after it was told to be gone, the search for one
//! order says (`g2_one_order`): the end of its time is a call of unknown outcome, which begins when it is over at the
//! earliest. Here: that nobody reads it when it must be over.

use super::Evidence;
use crate::linear::{Answer, Call, Op, Value};
use std::time::Duration;

/// For what passes between an answer and the note of it.
const SLACK: Duration = Duration::from_millis(10);

/// A time to live that a change gave, or may have given.
struct Brief<'a> {
    key: usize,
    value: Value,
    ttl: Duration,
    call: &'a Call,
}

/// Names that were given a time to live, by the value that they had then.
fn briefs(calls: &[Call]) -> Vec<Brief<'_>> {
    let mut briefs = Vec::new();
    for call in calls {
        let Some(ttl) = call.told.ttl else { continue };
        match (call.op, call.answer) {
            (Op::Set(key, value), None | Some(Answer::Stored)) => {
                briefs.push(Brief { key, value, ttl, call });
            }
            (Op::Brief(key), Some(Answer::Found(value))) => briefs.push(Brief { key, value, ttl, call }),
            // Of what, nobody knows: any value that was ever set there.
            (Op::Brief(key), None) => {
                briefs.extend(bound(calls, key).map(|value| Brief { key, value, ttl, call }));
            }
            _ => {}
        }
    }
    // Whoever copies a name copies its time: what was brief elsewhere may be so here.
    let moved = calls.iter().filter_map(|call| match (call.op, call.answer) {
        (Op::Copy(_, to) | Op::Rename(_, to), answer @ (None | Some(Answer::Done(_)))) => Some((to, answer)),
        _ => None,
    });
    let mut copies = Vec::new();
    for (to, answer) in moved {
        for brief in &briefs {
            if answer.is_none_or(|answer| answer == Answer::Done(brief.value)) && to != brief.key {
                copies.push(Brief { key: to, ..*brief });
            }
        }
    }
    briefs.extend(copies);
    briefs
}

/// Values that a key may have been bound to.
fn bound(calls: &[Call], key: usize) -> impl Iterator<Item = Value> {
    calls.iter().filter_map(move |call| match call.op {
        Op::Set(at, value) if at == key => Some(value),
        Op::Swap(swap) if swap.bound.0 == key => Some(swap.bound.1),
        Op::Copy(_, to) | Op::Rename(_, to) if to == key => match call.answer {
            Some(Answer::Done(value)) => Some(value),
            _ => None,
        },
        _ => None,
    })
}

/// Whether a key was given a time to live while it was bound to a value, or may have been.
pub fn is_brief(calls: &[Call], key: usize, value: Value) -> bool {
    briefs(calls).iter().any(|brief| (brief.key, brief.value) == (key, value))
}

/// The ends of times, as calls that may have happened.
pub fn ends(calls: &[Call]) -> Vec<Call> {
    let end = |brief: &Brief<'_>| Call {
        by: "time".to_owned(),
        op: Op::Expire(brief.key, brief.value),
        answer: None,
        begun: brief.call.begun + brief.ttl * 98 / 100,
        ended: None,
        told: crate::linear::Told::default(),
    };
    briefs(calls).iter().map(end).collect()
}

/// Reads of names whose time was over.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let (calls, mut wrong) = (&evidence.calls, Vec::new());
    for brief in briefs(calls) {
        let Some(over) = brief.call.ended.map(|ended| ended + brief.ttl * 102 / 100 + SLACK) else {
            continue;
        };
        if brief.call.op.keys().each().all(|key| key != brief.key) || is_bound_twice(calls, &brief) {
            continue;
        }
        let late = calls.iter().find(|read| {
            read.begun > over && read.told.stale.is_none() && has_read(read, brief.key) == Some(brief.value)
        });
        if let Some(late) = late {
            wrong.push(format!(
                "G2: key {} is read after its time:\n    {}\n    {late}",
                brief.key, brief.call
            ));
        }
    }
    wrong.truncate(3);
    wrong
}

/// Whether another change may have bound the key to the value too, for longer.
fn is_bound_twice(calls: &[Call], brief: &Brief<'_>) -> bool {
    let binds = calls.iter().filter(|call| match (call.op, call.answer) {
        (Op::Set(key, value), None | Some(Answer::Stored)) => (key, value) == (brief.key, brief.value),
        (Op::Copy(_, to) | Op::Rename(_, to), None | Some(Answer::Done(_))) => to == brief.key,
        (Op::Swap(swap), _) => swap.bound == (brief.key, brief.value),
        _ => false,
    });
    let mine = usize::from(matches!(brief.call.op, Op::Set(..)));
    // Of a name that was bound before, the one that bound it.
    binds.count() > mine.max(1)
}

fn has_read(read: &Call, key: usize) -> Option<Value> {
    match (read.op, read.answer) {
        (Op::Get(at), Some(Answer::Found(value))) if at == key => Some(value),
        (Op::Read(_), Some(Answer::All(state))) => state.get(key),
        _ => None,
    }
}
