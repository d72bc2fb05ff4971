//! PUT and DELETE of a name.
//!
//! Invariant: a condition is judged at Global in the step that makes the change. What a name is bound to is looked at
//! first; if the conditions allow the change, that very binding is its guard, and if the guard does not hold any more,
//! it is looked at again. So nothing is changed that the caller did not mean.

use super::body::{Arriving, passage};
use super::conditions::{Conditions, tag};
use super::problem::{Problem, Slug};
use super::read::name_alone;
use super::until::Until;
use super::{ATTEMPTS, Answered, Desk, X_REVISION, X_TIER, X_TTL, tier_value, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, ETAG, EXPECT, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use dstore_proto::store::{Body as Value, SetReply, Store, Target, Tier};
use dstore_shared::limits::{BLOB_BYTES_MAX, CARRIED_BYTES_MAX};
use dstore_shared::{
    Blob, Decision, Entry, Error, Expiry, Guard, Name, Namespace, Payload, RequestId, Result, Revision,
    SetOutcome, Step, StepOutcome, StepResult, Transaction, When, check_ttl,
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
    let (conditions, expiry) = (Conditions::of(&parts.headers), expiry_of(&parts.headers)?);
    let mut body = Arriving::new(body, parts.version, BLOB_BYTES_MAX, desk.idle)?;
    if parts.headers.contains_key(EXPECT) || body.may_exceed(CARRIED_BYTES_MAX) {
        // What is refused is refused before it is sent.
        guard(desk, desk.until(), &name, &conditions).await?;
    }
    let (head, is_whole) = body.gather(CARRIED_BYTES_MAX).await?;
    let value = if is_whole {
        Payload::carrying(Blob::hash(head))
    } else {
        let entry = upload(desk, body, head).await?;
        Payload::stored(entry.hash, entry.size)
    };
    let stored = store(desk, desk.until(), &name, (value, expiry), &conditions).await?;
    Ok(told(&name, &stored))
}

/// What a SET has come to.
pub(super) struct Stored {
    /// 201: the name was bound to nothing. 204: it was bound, to these bytes or to others.
    pub status: StatusCode,
    pub entry: Entry,
    tier: Tier,
    /// Journal time.
    at_ms: u64,
}

/// Binds `name` to a value for as long as it says, if the conditions hold.
///
/// # Errors
/// 409 if it is occupied, 412 if a condition does not hold.
pub(super) async fn store<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    (value, expiry): (Payload, Expiry),
    conditions: &Conditions,
) -> Result<Stored, Problem> {
    // There no name is ever bound anew, so that a SET tells all that a caller is to know; and the node keeps its value.
    if conditions.is_none() && expiry == Expiry::Clear && name.namespace() == Namespace::default() {
        return set(desk, until, name, value).await;
    }
    let step = Step::Set { name: name.clone(), value, when: When::Always, expiry };
    let Decided { outcome, at_ms, .. } = decide(desk, until, name, conditions, &step).await?;
    let (status, entry) = set_status(&outcome)?;
    Ok(Stored { status, entry: *entry, tier: Tier::Global, at_ms })
}

/// Binds a name of a write-once namespace, whatever it is bound to.
async fn set<S: Store>(desk: &Desk<S>, until: Until, name: &Name, value: Payload) -> Result<Stored, Problem> {
    let id = desk.ids.next_id()?;
    let SetReply { outcome, from } = match value.carried {
        Some(blob) => until.of(desk.store.set(id, Some(name.clone()), Value::Blob(blob))).await?,
        None => until.of(desk.store.bind(id, name.clone(), value.hash, value.size)).await?,
    };
    let (status, entry) = match outcome {
        SetOutcome::Stored(entry) => (StatusCode::CREATED, entry),
        SetOutcome::Unchanged(entry) => (StatusCode::NO_CONTENT, entry),
        SetOutcome::Occupied(entry) => return Err(told_of(Error::occupied(entry.hash).into(), &entry)),
        SetOutcome::NeedBlob => return Err(swept().into()),
    };
    Ok(Stored { status, entry, tier: from.tier, at_ms: from.journal_ms.unwrap_or_default() })
}

/// Stores a long body without a name. The store's part runs in a task of its own, so that it sees an error, and is not
/// dropped in the middle, when the caller goes away.
async fn upload<S: Store>(desk: &Desk<S>, mut body: Arriving, head: bytes::Bytes) -> Result<Entry, Problem> {
    let (to, stream) = passage();
    let (done, outcome) = oneshot::channel();
    let store = desk.store.clone();
    desk.tasks.spawn("http upload", async move {
        _ = done.send(store.set(RequestId::default(), None, Value::Stream(stream)).await);
    });
    body.pass(head, to).await?;
    let stopped = |_| Error::unavailable("the node stops: send the value to another one");
    let outcome = async { outcome.await.map_err(stopped)? };
    match desk.until().of(outcome).await?.outcome {
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
        let guards = guard(desk, until, name, conditions).await?;
        let transaction = Transaction { guards: guards.into_iter().collect(), steps: vec![step.clone()] };
        let done = until.of(desk.store.apply(desk.ids.next_id()?, transaction)).await?;
        match done.decision {
            Decision::Done(outcomes) => {
                let lost = || Error::internal("a step has no outcome: report this");
                let outcome = outcomes.into_iter().next().ok_or_else(lost)?;
                return Ok(Decided { outcome, revision: done.revision, at_ms: done.at_ms });
            }
            Decision::NeedBlobs(_) => return Err(swept().into()),
            Decision::Aborted(_) => desk.pause(attempt).await,
        }
    }
    Err(Error::unavailable("the key changes faster than it can be compared: try again").into())
}

/// The guard under which a change of `name` is what the conditions allow; none if there are no conditions.
///
/// # Errors
/// 412 if they do not hold now.
async fn guard<S: Store>(
    desk: &Desk<S>,
    until: Until,
    name: &Name,
    conditions: &Conditions,
) -> Result<Option<Guard>, Problem> {
    if conditions.is_none() {
        return Ok(None);
    }
    let stat = until.of(desk.store.stat(Target::Name(name.clone()))).await?;
    let entry = stat.map(|stat| stat.entry);
    if let Some(why) = conditions.against_write(entry.as_ref().map(|entry| &entry.hash)) {
        let problem = Problem::precondition(why, entry.as_ref().map(|entry| entry.hash));
        return Err(match &entry {
            Some(entry) => told_of(problem, entry),
            None => problem,
        });
    }
    Ok(Some(Guard { name: name.clone(), bind_rev: entry.map(|entry| entry.bind_rev) }))
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
    if let Some(left) = entry.left(*at_ms) {
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

fn told_of(problem: Problem, entry: &Entry) -> Problem {
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

/// How long a name is to live that is PUT.
fn expiry_of(headers: &HeaderMap) -> Result<Expiry> {
    let mut fields = headers.get_all(X_TTL).iter();
    let Some(field) = fields.next() else { return Ok(Expiry::Clear) };
    let ms = field.to_str().ok().filter(|text| !text.is_empty()).and_then(url::digits);
    match ms.filter(|_| fields.next().is_none()) {
        Some(ms) => expiry_after(ms),
        None => Err(Error::invalid("the header `X-Dstore-TTL-Ms` is no number: write milliseconds, once")),
    }
}

/// So many milliseconds.
pub(super) fn expiry_after(ms: u64) -> Result<Expiry> {
    let ttl = Duration::from_millis(ms);
    check_ttl(ttl)?;
    Ok(Expiry::In(ttl))
}

/// Whole milliseconds.
pub(super) fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the body is the value itself: what is stored are its bytes, and nothing else is kept with them.
fn is_a_value(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Error::invalid(
            "a part of a value cannot be stored: send all of it, without `Content-Range`",
        )
        .into());
    }
    let plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let text =
        "the coding of a value is not kept with it: send the bytes themselves, without `Content-Encoding`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Slug::MediaType, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;

    #[test]
    fn a_time_to_live_is_a_number_of_milliseconds_given_once() {
        let of = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(X_TTL, HeaderValue::from_static(field));
            }
            expiry_of(&headers)
        };
        assert_eq!(of(&[]).expect("none"), Expiry::Clear);
        assert_eq!(of(&["1500"]).expect("a number"), Expiry::In(Duration::from_millis(1500)));
        for bad in
            [&["0"][..], &[""], &["-1"], &["1.5"], &["1s"], &["1", "1"], &["9999999999999999"], &["1, 1"]]
        {
            assert_eq!(of(bad).expect_err("no time").kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
