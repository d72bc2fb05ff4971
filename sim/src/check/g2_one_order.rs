//! G2: all calls of a run together can be explained by one order; nobody sees half of a change.
//!
//! Three things bend a call's interval or its keys before the search: an old value that was asked for holds for a
//! moment within the age that the answer states; a change that a watcher was told of was visible then, whenever
//! its own caller learned of it; and what an asynchronous DEL removed may be read for as long as that DEL said,
//! unless a strict change of the name, begun after it, was acknowledged before.
//! That the time of a name is over is a call that nobody made.

use super::Evidence;
use super::{g2_expiry, g2_hints};
use crate::history::Watched;
use crate::linear::{self, Answer, Bind, Call, Keys, Op, Verdict};
use std::collections::HashMap;
use std::time::Duration;

/// For the error of clocks, and for what passes between an answer and the note of it.
const SLACK: Duration = Duration::from_millis(5);

/// What a search that has no end is told as: neither is anything wrong, nor is it judged.
pub const UNDECIDED: &str = "G2: no verdict";

/// Why there is no such order.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let calls = bent(evidence);
    match linear::check(&calls) {
        Verdict::Explained => Vec::new(),
        Verdict::Impossible(stuck) => vec![format!("G2: not linearizable: {}", stuck.tell(&calls))],
        Verdict::Undecided(steps) => {
            vec![format!("{UNDECIDED} in {steps} steps over {} calls", calls.len())]
        }
    }
}

/// The calls as the search gets them.
fn bent(evidence: &Evidence<'_>) -> Vec<Call> {
    let told = first_told(evidence);
    let asyncs: Vec<&Call> = evidence.calls.iter().filter(|call| call.told.is_async).collect();
    let mut calls = Vec::with_capacity(evidence.calls.len());
    for call in &evidence.calls {
        let mut call = call.clone();
        if !call.op.is_read() && has_effect(&call) {
            let seen = call.told.revision.and_then(|revision| told.get(&revision).copied());
            call.ended = call.ended.map(|ended| seen.map_or(ended, |seen| ended.min(seen).max(call.begun)));
        }
        if call.op.is_read() {
            if let Some(age) = call.told.stale {
                call.begun = call.begun.saturating_sub(age * 102 / 100 + SLACK);
            }
            let excused =
                Keys::of(call.op.keys().each().filter(|key| is_excused(evidence, &asyncs, &call, *key)));
            let Some(rest) = without(call, excused) else { continue };
            call = rest;
        }
        calls.push(call);
    }
    calls.extend(g2_expiry::ends(&evidence.calls));
    g2_hints::give(&mut calls, evidence);
    calls
}

/// When a watcher was first told of each revision.
fn first_told(evidence: &Evidence<'_>) -> HashMap<u64, Duration> {
    let mut told = HashMap::new();
    for what in evidence.watches.values().flatten() {
        let Watched::Batch { at, events, .. } = what else { continue };
        for (revision, ..) in events {
            told.entry(*revision)
                .and_modify(|first: &mut Duration| *first = (*first).min(*at))
                .or_insert(*at);
        }
    }
    told
}

/// Whether a change did something, and its revision is its own.
fn has_effect(call: &Call) -> bool {
    match call.answer {
        Some(
            Answer::Stored | Answer::Done(_) | Answer::Applied(Some(_), _) | Answer::Applied(_, Bind::Stored),
        ) => true,
        Some(Answer::Removed(keys)) => keys != Keys::default(),
        Some(Answer::RemovedMany(n)) => n > 0,
        _ => false,
    }
}

/// Whether the read of a key may tell what an asynchronous DEL removed.
fn is_excused(evidence: &Evidence<'_>, asyncs: &[&Call], read: &Call, key: usize) -> bool {
    asyncs.iter().filter(|del| del.op.keys().has(key)).any(|del| {
        let until = match (del.ended, del.told.stale) {
            (Some(ended), Some(stale)) => ended + stale * 102 / 100 + SLACK,
            (Some(ended), None) => ended,
            // Nobody knows when, or whether.
            (None, _) => Duration::MAX,
        };
        let is_near = del.begun <= read.ended.unwrap_or(Duration::MAX) && read.begun <= until;
        is_near && !is_strict_between(evidence, del, read, key)
    })
}

fn is_strict_between(evidence: &Evidence<'_>, del: &Call, read: &Call, key: usize) -> bool {
    let Some(after) = del.ended else { return false };
    evidence.calls.iter().any(|call| {
        let is_change =
            !call.op.is_read() && !call.told.is_async && call.op.keys().has(key) && has_effect(call);
        is_change && call.begun > after && call.ended.is_some_and(|ended| ended < read.begun)
    })
}

/// The read without some of its keys; `None` if nothing is left.
fn without(mut call: Call, keys: Keys) -> Option<Call> {
    let left = Keys(call.op.keys().0 & !keys.0);
    if keys == Keys::default() {
        return Some(call);
    }
    if left == Keys::default() {
        return None;
    }
    call.op = match call.op {
        Op::Read(_) => Op::Read(left),
        Op::Exists(_) => Op::Exists(left),
        op => op,
    };
    call.answer = call.answer.map(|answer| match answer {
        Answer::All(state) => Answer::All(state.only(left)),
        Answer::Bound(bound) => Answer::Bound(Keys(bound.0 & left.0)),
        answer => answer,
    });
    Some(call)
}
