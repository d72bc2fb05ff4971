//! A batch whose steps are done all or none, at one revision: one whole transaction, decided at Global.
//!
//! ```text
//! apply at Global, each `if_revision` as a guard  -> done, all of it
//!                                    a guard fails -> 412: nothing is done
//!                       a SET finds a name occupied -> 409: nothing is done
//! ```
//! Invariant: nothing is decided here. What the names are bound to, and whether their namespaces let them be bound anew, is
//! looked at by Global in the step that makes the change.

use super::answer::Answer;
use super::{Checked, Op};
use crate::front::http::problem::Problem;
use crate::front::http::until::Until;
use crate::front::http::write::{set_status, swept};
use crate::front::http::{Answered, Desk};
use crate::rooms::Room;
use bytes::Bytes;
use dstore_proto::store::{Slice, Store, Target};
use dstore_shared::{
    BlobHash, Decision, Entry, Error, Guard, Result, Revision, StepOutcome, StepResult, Transaction,
};
use futures_util::stream::{self, StreamExt};

/// Values that are fetched side by side.
const FETCHES: usize = 16;

pub(super) async fn batch<S: Store>(
    desk: &Desk<S>,
    until: Until,
    steps: &[Checked],
    mut answer: Answer,
) -> Answered {
    let transaction = Transaction::guarded(guards(steps), steps.iter().map(Checked::doing).collect()).whole();
    let done = until.of(desk.store.apply(desk.ids.next_id()?, transaction)).await?;
    match done.decision {
        Decision::Done(outcomes) => {
            tell(desk, until, (steps, &outcomes, done.revision), &mut answer).await;
            Ok(answer.response(Some(done.revision)))
        }
        Decision::NeedBlobs(_) => Err(swept().into()),
        Decision::Aborted(guard) => Err(otherwise(desk, until, steps, guard).await),
        Decision::Refused(step, outcome) => match (outcome.result, outcome.entry) {
            (StepResult::Occupied, Some(entry)) => {
                Err(Problem::from(Error::occupied(entry.hash)).of_step(step))
            }
            _ => Err(Error::internal("a step of a batch was refused: report this").into()),
        },
    }
}

/// Gets that read as of one moment, of values that are more than one call of the store gives.
pub(super) async fn gets<S: Store>(
    desk: &Desk<S>,
    until: Until,
    steps: &[Checked],
    answer: &mut Answer,
) -> Result<()> {
    let transaction = Transaction::steps(steps.iter().map(Checked::doing).collect());
    let done = until.of(desk.store.apply(desk.ids.next_id()?, transaction)).await?;
    let Decision::Done(outcomes) = done.decision else {
        return Err(Error::internal("gets without guards came to something else: report this"));
    };
    tell(desk, until, (steps, &outcomes, done.revision), answer).await;
    Ok(())
}

/// The steps that say what their names are to be bound by, in their order, with that.
fn expecting(steps: &[Checked]) -> impl Iterator<Item = (usize, &Checked, Revision)> {
    steps.iter().enumerate().filter_map(|(i, step)| Some((i, step, step.if_revision?)))
}

fn guards(steps: &[Checked]) -> Vec<Guard> {
    let guard = |(_, step, expected): (usize, &Checked, Revision)| Guard {
        name: step.name.clone(),
        bind_rev: Some(expected).filter(|expected| *expected > Revision(0)),
    };
    expecting(steps).map(guard).collect()
}

/// 412: a name was bound by another revision than its step says. What it is bound by now is told, if it can be known.
async fn otherwise<S: Store>(desk: &Desk<S>, until: Until, steps: &[Checked], guard: usize) -> Problem {
    let Some((i, step, expected)) = expecting(steps).nth(guard) else {
        return Error::internal("a guard failed that there is not: report this").into();
    };
    let stat = until.of(desk.store.stat(Target::Name(step.name.clone()))).await;
    let now: Option<Entry> = stat.ok().flatten().map(|stat| stat.entry);
    let told = now.as_ref().map(|entry| entry.bind_rev).filter(|revision| *revision != expected);
    let by = told.map(|revision| format!("by revision `{revision}`"));
    let by = by.unwrap_or_else(|| "otherwise, or not at all,".to_owned());
    let text = format!("the key is bound {by} and not by `{expected}`, 0 is not at all: read it anew");
    Problem::precondition(&text, now.map(|entry| entry.hash)).of_step(i)
}

/// What became of each step.
async fn tell<S: Store>(
    desk: &Desk<S>,
    until: Until,
    (steps, outcomes, revision): (&[Checked], &[StepOutcome], Revision),
    answer: &mut Answer,
) {
    let mut values = values(desk, until, (steps, outcomes), answer).await.into_iter();
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
                Some(Ok((value, _room))) => answer.value(step, entry, &value),
                Some(Err(e)) => answer.failed(step, &e.into()),
                None => answer.full(step, entry),
            },
        }
    }
}

/// A value that was read, with its room; `None`: it does not fit.
type Read = Option<Result<(Bytes, Room)>>;

/// The values that were read and may fit the answer, by their hashes.
async fn values<S: Store>(
    desk: &Desk<S>,
    until: Until,
    (steps, outcomes): (&[Checked], &[StepOutcome]),
    answer: &Answer,
) -> Vec<Read> {
    let mut left = answer.left();
    let wanted: Vec<Option<(BlobHash, u64, Result<Room>)>> = steps
        .iter()
        .zip(outcomes)
        .map(|(step, outcome)| {
            let entry = outcome.entry.as_ref().filter(|_| step.op == Op::Get)?;
            left = left.checked_sub(entry.size)?;
            Some((entry.hash, entry.size, answer.room(entry.size)))
        })
        .collect();
    let read = wanted.into_iter().map(async |wanted| {
        let (hash, size, room) = wanted?;
        let read = async {
            let room = room?;
            Ok((until.of(value(desk, hash, size)).await?, room))
        };
        Some(read.await)
    });
    stream::iter(read).buffered(FETCHES).collect().await
}

async fn value<S: Store>(desk: &Desk<S>, hash: BlobHash, size: u64) -> Result<Bytes> {
    match desk.store.get(Target::Hash(hash), Slice::ALL).await? {
        Some(found) => found.body.collect(size).await,
        None => Err(Error::unavailable("the value was swept meanwhile: try again")),
    }
}
