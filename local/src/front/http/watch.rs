//! GET of what becomes of names, as server-sent events (WHATWG HTML, section 9.2), resumable without a gap.
//!
//! An event's id is a history and the newest revision that is told whole with it; an event in the middle of a revision
//! has none, so that whoever resumes after the last id he got sees that revision again and misses nothing.

use super::problem::Problem;
use super::{Answered, Desk, json, url};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use dstore_proto::serve::OfConnection;
use dstore_proto::store::Store;
use dstore_proto::watch::{Event, Happened, Seen, WatchQuery, Watching};
use dstore_shared::limits::WATCHES_PER_CONNECTION;
use dstore_shared::{Error, HistoryId, Namespace, Prefix, Result, Revision};
use futures_util::stream::{self, StreamExt};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::fmt::Write;
use tokio::sync::OwnedSemaphorePermit;

/// Where it is.
pub(super) const PATH: &str = "/v1/watch";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Watches over HTTP at a time, of those that a node may have: whoever opens many leaves some to the other doors.
pub(super) const WATCHES_MAX: usize = WATCHES_PER_CONNECTION * 3 / 4;
/// What a browser waits before it connects again.
const BEGIN: &str = "retry: 1000\n";

pub(super) async fn watch<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let query = query(&request)?;
    let of = request.extensions().get::<OfConnection>().cloned();
    let of = of.ok_or_else(|| Error::internal("a call without a connection: report this"))?;
    let place = (of.enter()?, enter(desk)?);
    let Watching { history, after, batches } = desk.until().of(desk.store.watch(query)).await?;
    let begin = Bytes::from(format!("{BEGIN}id: {}\n\n", id(history, after)));
    let told = batches.map(move |seen| match seen {
        Ok(seen) => (told(history, &seen), true),
        Err(e) => (ended(e), false),
    });
    // After an error nothing more comes.
    let told = told.scan(true, |goes_on, (text, more)| {
        let now = std::mem::replace(goes_on, more);
        std::future::ready(now.then_some(text))
    });
    let all = stream::iter([begin]).chain(told).inspect(move |_| _ = &place);
    let until_stopped = all.take_until(of.stop().clone().cancelled_owned());
    let mut response = Response::new(Body::from_stream(until_stopped.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A place among the watches of this door.
fn enter<S>(desk: &Desk<S>) -> Result<OwnedSemaphorePermit> {
    desk.watches.clone().try_acquire_owned().map_err(|_| {
        Error::exhausted(format!(
            "the HTTP door of a node has at most {WATCHES_MAX} watches: end one, or ask another node"
        ))
    })
}

fn query(request: &Request) -> Result<WatchQuery> {
    let query = url::Query::read(request.uri().query(), &["namespace", "prefix", "after"])?;
    let namespace = query.bytes("namespace").cloned();
    let namespace = namespace.map_or_else(|| Ok(Namespace::default()), Namespace::new)?;
    let prefix = query.bytes("prefix").cloned().unwrap_or_default();
    Prefix::new(&namespace, &prefix)?;
    let (history, after) = match last_seen(request.headers())? {
        Some((history, after)) => (Some(history), Some(after)),
        None => (None, query.number("after")?.map(Revision)),
    };
    Ok(WatchQuery { namespace, prefix, after, history })
}

/// What the caller saw last, if he comes again.
fn last_seen(headers: &HeaderMap) -> Result<Option<(HistoryId, Revision)>> {
    let Some(given) = headers.get(LAST_EVENT_ID).filter(|given| !given.is_empty()) else { return Ok(None) };
    let read = || {
        let (history, revision) = given.to_str().ok()?.split_once('-')?;
        let hex = history.len() == 32 && history.bytes().all(|b| b.is_ascii_hexdigit());
        let history = u128::from_str_radix(history, 16).ok().filter(|_| hex)?;
        Some((HistoryId(history), Revision(url::digits(revision)?)))
    };
    let none = || Error::invalid("the header `Last-Event-ID` is no id of an event here: leave it out");
    read().map(Some).ok_or_else(none)
}

fn id(history: HistoryId, through: Revision) -> String {
    format!("{history}-{through}")
}

/// Some events, and how far they reach.
fn told(history: HistoryId, seen: &Seen) -> Bytes {
    let mut text = String::new();
    let mut reached = None;
    for (i, event) in seen.events.iter().enumerate() {
        let goes_on = seen.events.get(i + 1).is_some_and(|next| next.revision == event.revision);
        let is_whole = !goes_on && event.revision <= seen.through;
        if is_whole {
            line(&mut text, "id", &id(history, event.revision));
            reached = Some(event.revision);
        }
        push(&mut text, event);
    }
    if reached != Some(seen.through) {
        // Changes of other names: no event, but the place to resume at. It also keeps the connection alive.
        line(&mut text, "id", &id(history, seen.through));
        text.push('\n');
    }
    text.into()
}

fn push(text: &mut String, event: &Event) {
    let (kind, entry) = match &event.happened {
        Happened::Bound(entry) => ("bound", Some(entry)),
        Happened::Unbound(was) => ("unbound", was.as_ref()),
    };
    let mut fields = Map::new();
    json::put_bytes(&mut fields, "key", event.key.as_bytes());
    if let Some(entry) = entry {
        json::put_entry(&mut fields, entry);
    }
    fields.insert("revision".into(), json!(event.revision.0));
    fields.insert("at_ms".into(), event.at_ms.into());
    line(text, "event", kind);
    line(text, "data", &Value::Object(fields).to_string());
    text.push('\n');
}

/// Why nothing more comes.
fn ended(error: Error) -> Bytes {
    let mut text = String::new();
    line(&mut text, "event", "problem");
    line(&mut text, "data", &json!(Problem::from(error).document()).to_string());
    text.push('\n');
    text.into()
}

/// A field; JSON and ids have no line ends in them.
fn line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name}: {value}").expect("a string takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::{BlobHash, Entry, Key};

    fn event(revision: u64, key: &'static [u8], size: Option<u64>) -> Event {
        let entry = |size| Entry {
            hash: BlobHash::of(b"v"),
            size,
            bind_rev: Revision(revision),
            expires_at: None,
            content_type: None,
        };
        let happened = size.map_or(Happened::Unbound(None), |size| Happened::Bound(entry(size)));
        Event { revision: Revision(revision), at_ms: 7, key: Key::new(key).expect("valid"), happened }
    }

    #[test]
    fn only_the_last_event_of_a_revision_that_is_told_whole_has_an_id() {
        let history = HistoryId(10);
        let events = vec![
            event(4, b"a", Some(1)),
            event(5, b"b", None),
            event(5, b"\xff", None),
            event(6, b"c\n", None),
        ];
        let text = told(history, &Seen { events, through: Revision(5) });
        let hash = BlobHash::of(b"v");
        let h = "0000000000000000000000000000000a";
        let expected = format!(
            "id: {h}-4\nevent: bound\ndata: {{\"at_ms\":7,\"hash\":\"{hash}\",\"key\":\"a\",\"revision\":4,\"size\":1}}\n\n\
             event: unbound\ndata: {{\"at_ms\":7,\"key\":\"b\",\"revision\":5}}\n\n\
             id: {h}-5\nevent: unbound\ndata: {{\"at_ms\":7,\"key_base64\":\"/w==\",\"revision\":5}}\n\n\
             event: unbound\ndata: {{\"at_ms\":7,\"key\":\"c\\n\",\"revision\":6}}\n\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_an_event_still_moves_the_place_to_resume_at() {
        let text = told(HistoryId(1), &Seen { events: Vec::new(), through: Revision(9) });
        assert_eq!(text, "id: 00000000000000000000000000000001-9\n\n");
    }

    #[test]
    fn the_id_of_an_event_reads_back_and_others_are_refused() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_str(id).expect("valid"));
            last_seen(&headers)
        };
        let seen = (HistoryId(u128::MAX), Revision(12));
        assert_eq!(of(&id(seen.0, seen.1)).expect("read"), Some(seen));
        assert_eq!(of("").expect("none"), None);
        for bad in
            ["12", "-12", "f-1", &format!("{}-", "0".repeat(32)), &format!("+{}-1", "0".repeat(31)), "x"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
