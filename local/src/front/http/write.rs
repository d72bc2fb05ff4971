//! PUT and DELETE of a name.

use super::body::{Arriving, passage};
use super::conditions::{Conditions, Tags, tag};
use super::problem::{Problem, Slug};
use super::read::name_alone;
use super::{Answered, Desk, X_REVISION, X_TIER, tier_value, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use dstore_proto::store::{Body as Value, SetReply, Store};
use dstore_shared::limits::{BLOB_BYTES_MAX, CARRIED_BYTES_MAX};
use dstore_shared::{Entry, Error, Name, RequestId, Result, SetOutcome};
use tokio::sync::oneshot;

/// Binds a name to the body, whatever its length.
pub(super) async fn put<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let name = name_alone(&request)?;
    let (parts, body) = request.into_parts();
    is_a_value(&parts.headers)?;
    let unless = unconditional_but_new(&parts.headers)?;
    let mut body = Arriving::new(body, parts.version, BLOB_BYTES_MAX, desk.idle)?;
    let (head, is_whole) = body.gather(CARRIED_BYTES_MAX).await?;
    let reply = if is_whole {
        let id = desk.ids.next_id()?;
        desk.in_time(desk.store.set(id, Some(name.clone()), Value::Bytes(head))).await?
    } else {
        let entry = upload(desk, body, head).await?;
        // Made now that the bytes are there: an upload may take longer than an id is good for.
        let id = desk.ids.next_id()?;
        desk.in_time(desk.store.bind(id, name.clone(), entry.hash, entry.size)).await?
    };
    stored(&name, &reply, unless.as_ref())
}

/// Stores a long body without a name. The store's part runs in a task of its own, so that it sees an error, and is not
/// dropped in the middle, when the caller goes away.
async fn upload<S: Store>(desk: &Desk<S>, mut body: Arriving, head: Bytes) -> Result<Entry, Problem> {
    let (to, stream) = passage();
    let (done, outcome) = oneshot::channel();
    let store = desk.store.clone();
    desk.tasks.spawn("http upload", async move {
        _ = done.send(store.set(RequestId::default(), None, Value::Stream(stream)).await);
    });
    body.pass(head, to).await?;
    let stopped = |_| Error::unavailable("the node stops: send the value to another one");
    let outcome = async { outcome.await.map_err(stopped)? };
    match desk.in_time(outcome).await?.outcome {
        SetOutcome::Stored(entry) => Ok(entry),
        _ => Err(Error::internal("a blob without a name was not stored: report this").into()),
    }
}

/// The answer to a SET; `unless`: what the name was not to be bound to.
fn stored(name: &Name, reply: &SetReply, unless: Option<&Tags>) -> Answered {
    let (status, entry) = match &reply.outcome {
        SetOutcome::Stored(entry) => (StatusCode::CREATED, entry),
        SetOutcome::Unchanged(entry) | SetOutcome::Occupied(entry)
            if unless.is_some_and(|unless| unless.cover(Some(&entry.hash))) =>
        {
            let text = "the key is bound already: leave `If-None-Match` out to store the same bytes again";
            return Err(told_of(Problem::precondition(text, Some(entry.hash)), entry));
        }
        SetOutcome::Unchanged(entry) => (StatusCode::NO_CONTENT, entry),
        SetOutcome::Occupied(entry) => return Err(told_of(Error::occupied(entry.hash).into(), entry)),
        SetOutcome::NeedBlob => {
            return Err(Error::unavailable("the blob was swept meanwhile: send it again").into());
        }
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(ETAG, tag(&entry.hash));
    headers.insert(X_REVISION, entry.bind_rev.0.into());
    headers.insert(X_TIER, tier_value(reply.from.tier));
    if status == StatusCode::CREATED {
        headers.insert(LOCATION, url::path_of(name).parse().expect("a path is ASCII"));
    }
    Ok(answer)
}

fn told_of(problem: Problem, entry: &Entry) -> Problem {
    problem.with(ETAG, tag(&entry.hash)).with(X_REVISION, entry.bind_rev.0.into())
}

/// Unbinds a name everywhere.
pub(super) async fn delete<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let name = name_alone(&request)?;
    let conditions = Conditions::of(request.headers());
    if conditions != Conditions::default() {
        return Err(unkept("a delete takes no condition"));
    }
    let reply = desk.in_time(desk.store.delete(desk.ids.next_id()?, vec![name])).await?;
    let revision = HeaderValue::from(reply.revision.0);
    if reply.removed.contains(&false) {
        return Err(Problem::not_found("the key is bound to nothing").with(X_REVISION, revision));
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(X_REVISION, revision);
    Ok(answer)
}

/// What a PUT is not to find. Of a name that is bound, only the same bytes can be stored again, so there is nothing that
/// `If-Match` could allow.
fn unconditional_but_new(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
    let Conditions { only, unless } = Conditions::of(headers);
    match only {
        Some(_) => Err(unkept(
            "a value that is bound cannot be replaced, so `If-Match` allows nothing: delete it first",
        )),
        None => Ok(unless),
    }
}

fn unkept(text: &str) -> Problem {
    Problem::new(StatusCode::NOT_IMPLEMENTED, Slug::Unsupported, text)
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
