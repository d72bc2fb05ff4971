//! PUT and DELETE of a name.
//!
//! Invariant: a condition is judged at Global in the step that makes the change. What a name is bound to is looked at
//! first; if the conditions allow the change, that very binding is its guard, and if the guard does not hold any more,
//! it is looked at again. So nothing is changed that the caller did not mean.

use super::body::{Arriving, passage};
use super::conditions::{Conditions, tag};
use super::problem::{Problem, Slug};
use super::read::{UNTYPED, name_alone};
use super::until::Until;
use super::{ATTEMPTS, Answered, Desk, X_REVISION, X_TIER, X_TTL, tier_value, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPECT, HeaderName, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::Response;
use dstore_proto::store::{Body as Value, SetReply, Store, Target, Tier};
use dstore_shared::limits::{BLOB_BYTES_MAX, CARRIED_BYTES_MAX};
use dstore_shared::{
    Attributes, Blob, ContentType, Decision, Entry, Error, Guard, Name, Namespace, Payload, RequestId,
    Result, Revision, SetOutcome, Step, StepOutcome, StepResult, Transaction, When, check_ttl,
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
    let asks_first = parts.headers.contains_key(EXPECT) && parts.version == Version::HTTP_11;
    if asks_first || body.may_exceed(CARRIED_BYTES_MAX) {
        // What is refused is refused before it is sent, or at least before it is passed on. It is read to its end: a
        // caller that is answered, and then cut off, while he sends may see nothing but that he was cut off.
        if let Err(refused) = guard(desk, desk.until(), &name, &conditions).await {
            if !asks_first {
                body.discard().await?;
            }
            return Err(refused);
        }
    }
    let (head, is_whole) = body.gather(CARRIED_BYTES_MAX).await?;
    let value = if is_whole {
        Payload::carrying(Blob::hash(head))
    } else {
        let entry = upload(desk, body, head).await?;
        Payload::stored(entry.hash, entry.size)
    };
    let stored = store(desk, desk.until(), &name, (value, attributes), &conditions).await?;
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

/// What a PUT says besides the value.
fn attributes_of(headers: &HeaderMap) -> Result<Attributes> {
    Ok(Attributes { content_type: type_of(headers)?, ttl: ttl_of(headers)? })
}

/// How long the name is to live.
fn ttl_of(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(field) = only(headers, &X_TTL)? else { return Ok(None) };
    match field.to_str().ok().filter(|text| !text.is_empty()).and_then(url::digits) {
        Some(ms) => ttl(ms).map(Some),
        None => Err(Error::invalid("the header `X-Dstore-TTL-Ms` is no number: write milliseconds")),
    }
}

/// A time to live of so many milliseconds.
pub(super) fn ttl(ms: u64) -> Result<Duration> {
    let ttl = Duration::from_millis(ms);
    check_ttl(ttl)?;
    Ok(ttl)
}

/// Of what type the value is; nothing is kept of what is said of a value whose type nobody said.
fn type_of(headers: &HeaderMap) -> Result<Option<ContentType>> {
    let Some(field) = only(headers, &CONTENT_TYPE)?.filter(|field| *field != UNTYPED) else {
        return Ok(None);
    };
    let words =
        field.to_str().map_err(|_| Error::invalid("the header `Content-Type` is not ASCII: correct it"));
    ContentType::new(words?).map(Some)
}

/// The field `name`, if there is one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (field, None) => Ok(field),
        _ => Err(Error::invalid(format!("the header `{name}` comes more than once: send it once"))),
    }
}

/// Whole milliseconds.
pub(super) fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the body is the value itself: what is stored are its bytes.
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

    fn said(name: &HeaderName, fields: &[&'static str]) -> Result<Attributes> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name, HeaderValue::from_static(field));
        }
        attributes_of(&headers)
    }

    #[test]
    fn a_time_to_live_is_a_number_of_milliseconds_given_once() {
        let of = |fields: &[&'static str]| said(&X_TTL, fields).map(|said| said.ttl);
        assert_eq!(of(&[]).expect("none"), None);
        assert_eq!(of(&["1500"]).expect("a number"), Some(Duration::from_millis(1500)));
        for bad in
            [&["0"][..], &[""], &["-1"], &["1.5"], &["1s"], &["1", "1"], &["9999999999999999"], &["1, 1"]]
        {
            assert_eq!(of(bad).expect_err("no time").kind(), Kind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn a_content_type_is_kept_as_it_is_said_and_that_of_any_bytes_is_none() {
        let of = |fields: &[&'static str]| said(&CONTENT_TYPE, fields).map(|said| said.content_type);
        for none in [&[][..], &["application/octet-stream"]] {
            assert_eq!(of(none).expect("none"), None, "{none:?}");
        }
        let html = "text/html; charset=\"utf-8\"";
        assert_eq!(of(&[html]).expect("one").expect("kept").as_str(), html);
        let long = |n: usize| -> &'static str { "x".repeat(n).leak() };
        assert!(of(&[long(255)]).is_ok_and(|kept| kept.is_some()));
        for bad in [&[""][..], &[long(256)], &["text/a", "text/a"], &["text/\ta"]] {
            assert_eq!(of(bad).expect_err("none").kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
