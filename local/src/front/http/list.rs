//! GET of a namespace: its names in byte order, a page at a time, which is bounded as it is written.

use super::written::Written;
use super::{Answered, Desk, X_REVISION, json, url};
use axum::extract::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dstore_proto::store::{ListQuery, Listing, Store};
use dstore_shared::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX, LIST_BYTES_MAX, LIST_NAMES_MAX};
use dstore_shared::{Entry, Error, Key, Prefix, Result};
use serde_json::{Map, Value, json};

/// Names on a page that says nothing of a limit.
const NAMES: u64 = 100;

/// Bytes of a page as it is written, at most: what takes six bytes in JSON for one counts so.
const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// What a name takes at most beside its key: hash, numbers, a type.
const NAME_BYTES: usize = 1024;
/// The most that a byte of a key takes in JSON.
const ESCAPED: usize = 6;

pub(super) async fn list<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let query = query(&request)?;
    let namespace = query.namespace.clone();
    let room = desk.room(memory(query.limit)).await?;
    let Listing { names, next, from } = desk.until().of(desk.store.list(query)).await?;
    let mut page = Written::begin("{\"names\":[", room);
    let mut last = None;
    for (key, entry) in &names {
        if page.len() + json::written_len(key.as_bytes()) + NAME_BYTES > PAGE_BYTES_MAX {
            break;
        }
        page.push(name(key, entry));
        last = Some(key);
    }
    let is_cut = last != names.last().map(|(key, _)| key);
    let next = if is_cut { last } else { next.as_ref() };
    let cursor = next.map_or(Value::Null, |next| cursor_of(next).into());
    let tail =
        json!({"cursor": cursor, "namespace": namespace.as_str(), "revision": from.revision.0}).to_string();
    let mut response = page.end(&format!("],{}", &tail[1..]));
    response.headers_mut().insert(X_REVISION, from.revision.0.into());
    Ok(response)
}

/// About as many bytes as a page of so many names takes at most: as it came, and as it is written, while that grows.
fn memory(limit: usize) -> u64 {
    let came = (limit * (KEY_BYTES_MAX + NAME_BYTES)).min(2 * LIST_BYTES_MAX);
    let written = (limit * (ESCAPED * KEY_BYTES_MAX + NAME_BYTES)).min(PAGE_BYTES_MAX);
    (came + 2 * written) as u64
}

fn name(key: &Key, entry: &Entry) -> Map<String, Value> {
    let mut fields = Map::new();
    json::put_bytes(&mut fields, "key", key.as_bytes());
    json::put_entry(&mut fields, entry);
    fields
}

fn query(request: &Request) -> Result<ListQuery> {
    let namespace = url::namespace(request.uri().path())?;
    let query = url::Query::read(request.uri().query(), &["prefix", "limit", "cursor"])?;
    let prefix = query.bytes("prefix").cloned().unwrap_or_default();
    Prefix::new(&namespace, &prefix)?;
    let limit = query.number("limit")?.unwrap_or(NAMES);
    if !(1..=LIST_NAMES_MAX as u64).contains(&limit) {
        return Err(Error::invalid(format!("a page of `{limit}` names: write 1 to {LIST_NAMES_MAX}")));
    }
    let after = query.text("cursor")?.map(key_after).transpose()?;
    Ok(ListQuery { namespace, prefix, after, limit: limit as usize })
}

/// A page goes on after this key.
fn cursor_of(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

fn key_after(cursor: &str) -> Result<Key> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ());
    bytes.and_then(|bytes| Key::new(bytes).map_err(|_| ())).map_err(|()| {
        Error::invalid("the cursor is none: take the one that the page before gave, or leave it out")
    })
}
