//! A batch whose steps are done all or none, at one revision.
//!
//! ```text
//! look: what is each name bound to that is set, or has `if_revision`?  -> 412, 409: nothing is done
//! apply at Global, with those very bindings as guards                  -> done, all of it
//!                                        a guard does not hold any more -> look again
//! ```
//! Invariant: a SET that Global would find occupied is refused before; that the bindings are guarded makes sure that it
//! finds what was looked at. Whether a namespace lets names be bound anew is asked after the look: it cannot change
//! while one of its names is bound.

use super::answer::Answer;
use super::{Checked, Op};
use crate::front::http::problem::Problem;
use crate::front::http::until::Until;
use crate::front::http::write::{set_status, swept};
use crate::front::http::{ATTEMPTS, Answered, Desk};
use bytes::Bytes;
use dstore_proto::store::{Slice, Store, Target};
use dstore_shared::{
    BlobHash, Decision, Entry, Error, Guard, Name, NamespaceInfo, Result, Revision, StepOutcome, StepResult,
    Transaction,
};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeMap;

/// Values that are fetched side by side.
const FETCHES: usize = 16;

/// What names were bound to when they were looked at.
type Seen<'a> = BTreeMap<&'a Name, Option<Entry>>;

pub(super) async fn batch<S: Store>(desk: &Desk<S>, until: Until, steps: &[Checked]) -> Answered {
    for attempt in 0..ATTEMPTS {
        let seen = look(desk, until, steps).await?;
        as_expected(steps, &seen)?;
        free(desk, until, steps, &seen).await?;
        let guards = seen.iter().map(|(name, entry)| Guard {
            name: (*name).clone(),
            bind_rev: entry.as_ref().map(|entry| entry.bind_rev),
        });
        let transaction =
            Transaction { guards: guards.collect(), steps: steps.iter().map(Checked::doing).collect() };
        let done = until.of(desk.store.apply(desk.ids.next_id()?, transaction)).await?;
        match done.decision {
            Decision::Done(outcomes) => return told(desk, until, steps, &outcomes, done.revision).await,
            Decision::NeedBlobs(_) => return Err(swept().into()),
            Decision::Aborted(_) => desk.pause(attempt).await,
        }
    }
    Err(Error::unavailable("the keys change faster than they can be compared: try again").into())
}

/// What the names are bound to on which it depends whether the batch is done, all at one moment.
async fn look<'a, S: Store>(desk: &Desk<S>, until: Until, steps: &'a [Checked]) -> Result<Seen<'a>> {
    let decides = |step: &&Checked| step.op == Op::Set || step.if_revision.is_some();
    let mut seen: Seen<'a> = steps.iter().filter(decides).map(|step| (&step.name, None)).collect();
    if seen.is_empty() {
        return Ok(seen);
    }
    let names = seen.keys().map(|name| (*name).clone()).collect();
    let stats = until.of(desk.store.stat_many(names)).await?.stats;
    for (entry, stat) in seen.values_mut().zip(stats) {
        *entry = stat.map(|stat| stat.entry);
    }
    Ok(seen)
}

/// Whether each name is bound as its steps say.
///
/// # Errors
/// 412, with the first step whose name is not.
fn as_expected(steps: &[Checked], seen: &Seen<'_>) -> Result<(), Problem> {
    for (i, step) in steps.iter().enumerate() {
        let Some(expected) = step.if_revision else { continue };
        let now = seen.get(&step.name).and_then(Option::as_ref);
        let revision = now.map_or(Revision(0), |entry| entry.bind_rev);
        if revision != expected {
            let text = format!(
                "the key is bound by revision `{revision}` and not `{expected}`, 0 is not at all: read it anew"
            );
            return Err(Problem::precondition(&text, now.map(|entry| entry.hash)).of_step(i));
        }
    }
    Ok(())
}

/// Whether each SET finds its name free, bound to the same bytes, or in a namespace that lets it be bound anew.
///
/// # Errors
/// 409, with the first step that does not.
async fn free<S: Store>(
    desk: &Desk<S>,
    until: Until,
    steps: &[Checked],
    seen: &Seen<'_>,
) -> Result<(), Problem> {
    let mut bound: BTreeMap<&Name, Option<BlobHash>> =
        seen.iter().map(|(name, entry)| (*name, entry.as_ref().map(|entry| entry.hash))).collect();
    let mut namespaces = None;
    for (i, step) in steps.iter().enumerate() {
        let now = match step.op {
            Op::Get => continue,
            Op::Delete => None,
            Op::Set => Some(BlobHash::of(&step.value)),
        };
        let before = bound.insert(&step.name, now).flatten();
        let (Some(now), Some(before)) = (now, before) else { continue };
        if now == before {
            continue;
        }
        let known = match namespaces.take() {
            Some(known) => known,
            None => until.of(desk.store.namespaces()).await?,
        };
        if !replaces(&known, &step.name) {
            return Err(Problem::from(Error::occupied(before)).of_step(i));
        }
        namespaces = Some(known);
    }
    Ok(())
}

fn replaces(namespaces: &[NamespaceInfo], name: &Name) -> bool {
    let namespace = name.namespace();
    namespaces.iter().any(|info| info.namespace == namespace && info.spec.replaces())
}

/// What became of each step.
async fn told<S: Store>(
    desk: &Desk<S>,
    until: Until,
    steps: &[Checked],
    outcomes: &[StepOutcome],
    revision: Revision,
) -> Answered {
    let mut answer = Answer::default();
    let mut values = values(desk, until, steps, outcomes).await.into_iter();
    for (step, outcome) in steps.iter().zip(outcomes) {
        let value = values.next().flatten();
        match (step.op, &outcome.entry) {
            (Op::Set, _) => match set_status(outcome) {
                Ok((status, entry)) => answer.entry(step, status, entry),
                Err(problem) => answer.failed(step, &problem),
            },
            (Op::Delete, _) => answer.deleted(step, outcome.result == StepResult::Done, revision),
            (Op::Get, None) => answer.failed(step, &Problem::not_found("the key is bound to nothing")),
            (Op::Get, Some(entry)) => match value {
                Some(Ok(value)) => answer.value(step, entry, &value),
                Some(Err(e)) => answer.failed(step, &e.into()),
                None => answer.full(step, entry),
            },
        }
    }
    Ok(answer.response(Some(revision)))
}

/// The values that were read and may fit the answer, by their hashes.
async fn values<S: Store>(
    desk: &Desk<S>,
    until: Until,
    steps: &[Checked],
    outcomes: &[StepOutcome],
) -> Vec<Option<Result<Bytes>>> {
    let mut room = super::answer::ANSWER_BYTES_MAX as u64;
    let wanted: Vec<Option<(BlobHash, u64)>> = steps
        .iter()
        .zip(outcomes)
        .map(|(step, outcome)| {
            let entry = outcome.entry.as_ref().filter(|_| step.op == Op::Get)?;
            room = room.checked_sub(entry.size)?;
            Some((entry.hash, entry.size))
        })
        .collect();
    let read = wanted.into_iter().map(async |wanted| {
        let (hash, size) = wanted?;
        Some(until.of(value(desk, hash, size)).await)
    });
    stream::iter(read).buffered(FETCHES).collect().await
}

async fn value<S: Store>(desk: &Desk<S>, hash: BlobHash, size: u64) -> Result<Bytes> {
    match desk.store.get(Target::Hash(hash), Slice::ALL).await? {
        Some(found) => found.body.collect(size).await,
        None => Err(Error::unavailable("the value was swept meanwhile: try again")),
    }
}
