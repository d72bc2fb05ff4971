//! PUT and DELETE of a name.
//!
//! Invariant: a condition is judged at Global in the step that makes the change. What a name is bound to is looked at
//! first; if the conditions allow the change, that very binding is its guard, and if the guard does not hold any more,
//! it is looked at again. So nothing is changed that the caller did not mean.

use super::attributes::{attributes_of, is_a_value};
use super::body::{Arriving, passage};
use super::conditions::{Conditions, tag};
use super::problem::Problem;
use super::read::name_alone;
use super::until::Until;
use super::{ATTEMPTS, Answered, Desk, X_REVISION, X_TIER, X_TTL, guard, tier_value, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use dstore_proto::store::{Body as Value, SetReply, Store, Target, Tier};
use dstore_shared::limits::{BLOB_BYTES_MAX, CARRIED_BYTES_MAX};
use dstore_shared::{
    Attributes, Blob, BlobHash, Decision, Entry, Error, Guard, Name, Namespace, Payload, RequestId, Result,
    Revision, SetOutcome, Step, StepOutcome, StepResult, Transaction, When,
};
use std::time::Duration;
use tokio::sync::oneshot;

/// What Global decided of one step.
struct Decided {
    outcome: StepOutcome,
    /// Of the change, or as of which the outcome holds.
    revision: Revision,
    /// Journal time of the decision.
    at_ms: u64,
}

/// Binds a name to the body, whatever its length.
pub(super) async fn put<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let name = name_alone(&request)?;
    let (parts, body) = request.into_parts();
    is_a_value(&parts.headers)?;
    let conditions = Conditions::of(&parts.headers);
    let attributes = attributes_of(&parts.headers)?;
    let mut body = Arriving::new(body, parts.version, BLOB_BYTES_MAX, desk.idle)?;
    let mut until = desk.until();
    if guard::is_awaited(&parts.headers, parts.version) || body.may_exceed(CARRIED_BYTES_MAX) {
        // What is refused is refused before it is sent, or at least before it is passed on.
        check(desk, until, &name, &conditions).await?;
    }
    let mut room = desk.room(body.memory(CARRIED_BYTES_MAX)).await?;
    let (head, is_whole) = until.aside(body.gather(CARRIED_BYTES_MAX)).await?;
    let value = if is_whole {
        room.shrink_to(head.len() as u64);
        Payload::carrying(Blob::hash(head))
    } else {
        let entry = upload(desk, &mut until, body, head).await?;
        Payload::stored(entry.hash, entry.size)
    };
    let stored = store(desk, until, &name, (value, attributes), &conditions).await?;
    Ok(told(&name, &stored))
}

/// What a SET has come to.
pub(super) struct Stored {
    /// 201: the name was bound to nothing. 204: it was bound, to these bytes or to others.
    pub status: StatusCode,
    pub entry: Entry,
    tier: Tier,
    /// Journal time, if it is known.
    at_ms: Option<u64>,
}

/// Binds `name` to a value for as long as it says, if the conditions hold.
///
/// # Errors
/// 409 if it is occupied, 412 if a condition does not hold.
pub(super) async fn store<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    (value, attributes): (Payload, Attributes),
    conditions: &Conditions,
) -> Result<Stored, Problem> {
    // There no name is ever bound anew, so that a SET tells all that a caller is to know; and the node keeps its value.
    if conditions.is_none() && name.namespace() == Namespace::default() {
        return set(desk, until, name, (value, attributes)).await;
    }
    let expiry = attributes.expiry();
    let value = value.typed(attributes.content_type);
    let step = Step::Set { name: name.clone(), value, when: When::Always, expiry };
    let Decided { outcome, at_ms, .. } = decide(desk, until, name, conditions, &step).await?;
    let (status, entry) = set_status(&outcome)?;
    Ok(Stored { status, entry: entry.clone(), tier: Tier::Global, at_ms: Some(at_ms) })
}

/// Binds a name of a write-once namespace, whatever it is bound to.
async fn set<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    (value, attributes): (Payload, Attributes),
) -> Result<Stored, Problem> {
    let id = desk.ids.next_id()?;
    let SetReply { outcome, from } = if let Some(blob) = value.carried {
        until.of(desk.store.set_as(id, Some(name.clone()), Value::Blob(blob), attributes)).await?
    } else {
        let blob = (value.hash, value.size);
        until.of(desk.store.bind_as(id, name.clone(), blob, attributes)).await?
    };
    let (status, entry) = match outcome {
        SetOutcome::Stored(entry) => (StatusCode::CREATED, entry),
        SetOutcome::Unchanged(entry) => (StatusCode::NO_CONTENT, entry),
        SetOutcome::Occupied(entry) => return Err(told_of(Error::occupied(entry.hash).into(), &entry)),
        SetOutcome::NeedBlob => return Err(swept().into()),
    };
    Ok(Stored { status, entry, tier: from.tier, at_ms: from.journal_ms })
}

/// Stores a long body without a name. The store's part runs in a task of its own, so that it sees an error, and is not
/// dropped in the middle, when the caller goes away.
async fn upload<S: Store>(
    desk: &Desk<S>,
    until: &mut Until,
    mut body: Arriving,
    head: bytes::Bytes,
) -> Result<Entry, Problem> {
    let (to, stream) = passage();
    let (done, outcome) = oneshot::channel();
    let store = desk.store.clone();
    desk.tasks.spawn("http upload", async move {
        _ = done.send(store.set(RequestId::default(), None, Value::Stream(stream)).await);
    });
    until.aside(body.pass(head, to)).await?;
    let stopped = |_| Error::unavailable("the node stops: send the value to another one");
    let outcome = async { outcome.await.map_err(stopped)? };
    match until.of(outcome).await?.outcome {
        SetOutcome::Stored(entry) => Ok(entry),
        _ => Err(Error::internal("a blob without a name was not stored: report this").into()),
    }
}

/// Has `step`, which is about `name`, decided at Global, if and only if the conditions hold of what it is bound to then.
/// The request's id is made now: an upload before may have taken longer than one is good for.
///
/// # Errors
/// 412 if a condition does not hold.
async fn decide<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    conditions: &Conditions,
    step: &Step,
) -> Result<Decided, Problem> {
    for attempt in 0..ATTEMPTS {
        let guard = guarded(desk, until, (name, step), conditions).await?;
        let transaction = Transaction::guarded(guard.into_iter().collect(), vec![step.clone()]);
        let done = until.of(desk.store.apply(desk.ids.next_id()?, transaction)).await?;
        match done.decision {
            Decision::Done(outcomes) => {
                let lost = || Error::internal("a step has no outcome: report this");
                let outcome = outcomes.into_iter().next().ok_or_else(lost)?;
                return Ok(Decided { outcome, revision: done.revision, at_ms: done.at_ms });
            }
            Decision::NeedBlobs(_) => return Err(swept().into()),
            Decision::Aborted(_) | Decision::Refused(..) => desk.pause(attempt).await,
        }
    }
    Err(Error::unavailable("the key changes faster than it can be compared: try again").into())
}

/// The guard under which `step`, a change of `name`, is what the conditions allow; none if there are no conditions.
///
/// # Errors
/// 412 if they do not hold now. To delete what is not bound is 404, whatever they say (RFC 9110, section 13.2.1).
async fn guarded<S: Store>(
    desk: &Desk<S>,
    until: Until,
    (name, step): (&Name, &Step),
    conditions: &Conditions,
) -> Result<Option<Guard>, Problem> {
    if conditions.is_none() {
        return Ok(None);
    }
    let entry = bound(desk, until, name).await?;
    let guard = Guard { name: name.clone(), bind_rev: entry.as_ref().map(|entry| entry.bind_rev) };
    match step {
        Step::Delete { .. } if entry.is_none() => {}
        Step::Set { value, .. } => hold(conditions, entry.as_ref(), Some(&value.hash))?,
        _ => hold(conditions, entry.as_ref(), None)?,
    }
    Ok(Some(guard))
}

/// Whether the conditions let a value be bound to `name` now.
///
/// # Errors
/// 412.
async fn check<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    conditions: &Conditions,
) -> Result<(), Problem> {
    if conditions.is_none() {
        return Ok(());
    }
    hold(conditions, bound(desk, until, name).await?.as_ref(), None)
}

async fn bound<S: Store>(desk: &Desk<S>, until: Until, name: &Name) -> Result<Option<Entry>> {
    let stat = until.of(desk.store.stat(Target::Name(name.clone()))).await?;
    Ok(stat.map(|stat| stat.entry))
}

/// Whether the conditions hold of what a name is bound to; `sent`: what is to be bound.
///
/// # Errors
/// 412, also if the very bytes that are sent are bound: who tried before may have bound them, but so may another
/// caller who counts from the same number to the same next one, or takes a lock. The document says so, and he judges.
fn hold(conditions: &Conditions, entry: Option<&Entry>, sent: Option<&BlobHash>) -> Result<(), Problem> {
    let Some(why) = conditions.against_write(entry.map(|entry| &entry.hash)) else { return Ok(()) };
    let problem = Problem::precondition(why, entry.map(|entry| entry.hash));
    let Some(entry) = entry else { return Err(problem) };
    let problem = if sent == Some(&entry.hash) { problem.of_same_bytes() } else { problem };
    Err(told_of(problem, entry))
}

/// The answer to a PUT.
fn told(name: &Name, stored: &Stored) -> Response {
    let Stored { status, entry, tier, at_ms } = stored;
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = *status;
    let headers = answer.headers_mut();
    headers.insert(ETAG, tag(&entry.hash));
    headers.insert(X_REVISION, entry.bind_rev.0.into());
    headers.insert(X_TIER, tier_value(*tier));
    if let Some(left) = at_ms.and_then(|at_ms| entry.left(at_ms)) {
        headers.insert(X_TTL, millis(left).into());
    }
    if *status == StatusCode::CREATED {
        headers.insert(LOCATION, url::path_of(name).parse().expect("a path is ASCII"));
    }
    answer
}

/// The status of a SET that was decided, and what the name is bound to now: 201 if it was bound to nothing, 204 if it was.
///
/// # Errors
/// 409 if it is bound to other bytes.
pub(super) fn set_status(outcome: &StepOutcome) -> Result<(StatusCode, &Entry), Problem> {
    match (outcome.result, &outcome.entry) {
        (StepResult::Done | StepResult::Unchanged, Some(entry)) => {
            let is_new = outcome.old.is_none();
            Ok((if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }, entry))
        }
        (StepResult::Occupied, Some(entry)) => Err(told_of(Error::occupied(entry.hash).into(), entry)),
        _ => Err(Error::internal("a SET came to something else: report this").into()),
    }
}

pub(super) fn told_of(problem: Problem, entry: &Entry) -> Problem {
    problem.with(ETAG, tag(&entry.hash)).with(X_REVISION, entry.bind_rev.0.into())
}

/// Of a change whose blob was there, and is not any more.
pub(super) fn swept() -> Error {
    Error::unavailable("the blob was swept meanwhile: send it again")
}

/// Unbinds a name everywhere.
pub(super) async fn delete<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let name = name_alone(&request)?;
    let conditions = Conditions::of(request.headers());
    let (removed, revision) = if conditions.is_none() {
        let reply = desk.until().of(desk.store.delete(desk.ids.next_id()?, vec![name])).await?;
        (!reply.removed.contains(&false), reply.revision)
    } else {
        let step = Step::Delete { name: name.clone() };
        let decided = decide(desk, desk.until(), &name, &conditions, &step).await?;
        (decided.outcome.result == StepResult::Done, decided.revision)
    };
    let revision = HeaderValue::from(revision.0);
    if !removed {
        return Err(Problem::not_found("the key is bound to nothing").with(X_REVISION, revision));
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(X_REVISION, revision);
    Ok(answer)
}

/// Whole milliseconds.
pub(super) fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}
