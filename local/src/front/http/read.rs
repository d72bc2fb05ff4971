//! GET and HEAD of a name or a blob.
//!
//! A value whose type is that of several ranges in one answer (`multipart/byteranges`) is given as a whole only: a part of
//! it, with its type, would read as such an answer.

use super::conditions::{Conditions, Verdict, Wanted, tag};
use super::problem::{Problem, Slug};
use super::write::{millis, told_of};
use super::{Answered, Desk, X_REVISION, X_TIER, X_TTL, tier_value, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use dstore_proto::store::{Body as Value, Found, Provenance, Slice, Stat, Store, Target};
use dstore_shared::{ContentType, Entry, Error};
use std::ops::Range;

/// Another origin may not even embed it.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Of a name: kept, but asked for again before it is used, because it may be deleted at any time.
const OF_A_NAME: HeaderValue = HeaderValue::from_static("no-cache");
/// Of a blob: kept for a year, the most that caches take.
const OF_A_BLOB: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Of a value whose type nobody said.
pub(super) const UNTYPED: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// How often a part is looked for of a value that changes meanwhile.
const ATTEMPTS: usize = 4;

pub(super) async fn get_name<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let target = Target::Name(name_alone(&request)?);
    get(desk, target, request.headers()).await
}

pub(super) async fn head_name<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let target = Target::Name(name_alone(&request)?);
    head(desk, target, request.headers()).await
}

pub(super) async fn get_blob<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let target = Target::Hash(hash_alone(&request)?);
    get(desk, target, request.headers()).await
}

pub(super) async fn head_blob<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let target = Target::Hash(hash_alone(&request)?);
    head(desk, target, request.headers()).await
}

/// The name of a request without parameters.
pub(super) fn name_alone(request: &Request) -> Result<dstore_shared::Name, Error> {
    url::Query::read(request.uri().query(), &[])?;
    url::name(request.uri().path())
}

fn hash_alone(request: &Request) -> Result<dstore_shared::BlobHash, Error> {
    url::Query::read(request.uri().query(), &[])?;
    url::hash(request.uri().path())
}

async fn get<S: Store>(desk: &Desk<S>, target: Target, headers: &HeaderMap) -> Answered {
    if let Some(wanted) = Wanted::of(headers) {
        return part(desk, target, headers, wanted).await;
    }
    let found = desk.until().of(desk.store.get(target.clone(), Slice::ALL)).await?;
    let answer = judged(&target, headers, found.as_ref().map(|found| (&found.entry, found.from)))?;
    match found {
        Some(found) if answer.status() == StatusCode::OK => Ok(with_value(answer, found)),
        _ => Ok(answer),
    }
}

async fn head<S: Store>(desk: &Desk<S>, target: Target, headers: &HeaderMap) -> Answered {
    let stat = desk.until().of(desk.store.stat(target.clone())).await?;
    judged(&target, headers, stat.as_ref().map(|Stat { entry, from }| (entry, *from)))
}

/// A range of a value. What it is cut from is looked at first, since the conditions and the last bytes need its hash
/// and size; the bytes are of that very value, or it is looked at again.
async fn part<S: Store>(desk: &Desk<S>, target: Target, headers: &HeaderMap, wanted: Wanted) -> Answered {
    let until = desk.until();
    for _ in 0..ATTEMPTS {
        let stat = until.of(desk.store.stat(target.clone())).await?;
        let answer = judged(&target, headers, stat.as_ref().map(|Stat { entry, from }| (entry, *from)))?;
        let Some(Stat { entry, .. }) = stat else { return Ok(answer) };
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let (range, slice) = if Wanted::holds(headers, &entry.hash) && has_parts(&entry) {
            let range = wanted.within(entry.size).ok_or_else(|| no_byte(&entry))?;
            let slice = Slice { offset: range.start, len: Some(range.end - range.start) };
            (Some(range), slice)
        } else {
            (None, Slice::ALL)
        };
        match until.of(desk.store.get(target.clone(), slice)).await {
            Ok(Some(found))
                if found.entry.hash == entry.hash && has_parts(&found.entry) == has_parts(&entry) =>
            {
                let answer = judged(&target, headers, Some((&found.entry, found.from)))?;
                return Ok(with_value(cut(answer, range, entry.size), found));
            }
            // Deleted, or set to something shorter, meanwhile.
            Ok(_) => {}
            Err(e) if e.kind() == dstore_shared::Kind::Invalid => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Error::unavailable("the value changed while it was looked for: try again").into())
}

/// The answer without a body, to a read of what is bound so, or not at all.
fn judged(target: &Target, headers: &HeaderMap, bound: Option<(&Entry, Provenance)>) -> Answered {
    let Some((entry, from)) = bound else {
        return Err(Problem::not_found(match target {
            Target::Name(_) => "the key is bound to nothing",
            Target::Hash(_) => "there is no such blob",
        }));
    };
    let status = match Conditions::of(headers).of_read(&entry.hash) {
        Verdict::Go => StatusCode::OK,
        Verdict::NotModified => StatusCode::NOT_MODIFIED,
        Verdict::Failed => {
            let why = "the value is not the one of `If-Match`: read it anew";
            let problem = Problem::precondition(why, Some(entry.hash));
            return Err(match target {
                Target::Name(_) => told_of(problem, entry),
                Target::Hash(_) => problem.with(ETAG, tag(&entry.hash)),
            });
        }
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.reserve(12);
    headers.insert(ETAG, tag(&entry.hash));
    headers.insert(CONTENT_LENGTH, entry.size.into());
    put_type(headers, entry.content_type.as_ref());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static(if has_parts(entry) { "bytes" } else { "none" }));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_TIER, tier_value(from.tier));
    if let Some(left) = from.journal_ms.and_then(|at_ms| entry.left(at_ms)) {
        headers.insert(X_TTL, millis(left).into());
    }
    match target {
        Target::Name(_) => {
            headers.insert(CACHE_CONTROL, OF_A_NAME);
            headers.insert(X_REVISION, entry.bind_rev.0.into());
        }
        Target::Hash(_) => _ = headers.insert(CACHE_CONTROL, OF_A_BLOB),
    }
    Ok(answer)
}

/// Whether a part of the value may be given by itself.
fn has_parts(entry: &Entry) -> bool {
    let words = entry.content_type.as_ref().map_or("", ContentType::as_str);
    let bare = words.split(';').next().unwrap_or_default().trim();
    !bare.eq_ignore_ascii_case("multipart/byteranges")
}

/// Of what type the value is, as whoever bound the name said. No browser is to run one: a page that is stored here is
/// shown without scripts, and as of an origin of its own.
fn put_type(headers: &mut HeaderMap, content_type: Option<&ContentType>) {
    match content_type {
        None => _ = headers.insert(CONTENT_TYPE, UNTYPED),
        Some(words) => {
            let words = HeaderValue::from_str(words.as_str()).expect("visible ASCII and spaces");
            headers.insert(CONTENT_TYPE, words);
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        }
    }
}

/// The answer of a range of a value of `size` bytes; `None` = the whole.
fn cut(mut answer: Response, range: Option<Range<u64>>, size: u64) -> Response {
    if let Some(range) = range {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        answer.headers_mut().insert(CONTENT_RANGE, told.parse().expect("digits"));
        answer.headers_mut().insert(CONTENT_LENGTH, (range.end - range.start).into());
    }
    answer
}

fn with_value(mut answer: Response, found: Found) -> Response {
    *answer.body_mut() = match found.body {
        Value::Blob(blob) => Body::from(blob.bytes().clone()),
        Value::Bytes(bytes) => Body::from(bytes),
        Value::Stream(stream) => Body::from_stream(stream),
    };
    answer
}

fn no_byte(entry: &Entry) -> Problem {
    let size = entry.size;
    let text = format!("no byte of the range is there: the value has `{size}` bytes");
    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, Slug::Range, text)
        .with(CONTENT_RANGE, format!("bytes */{size}").parse().expect("digits"))
        .with(ETAG, tag(&entry.hash))
}
