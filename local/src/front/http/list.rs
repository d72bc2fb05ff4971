//! GET of a namespace: its names in byte order, a page at a time.

use super::{Answered, Desk, X_REVISION, json, url};
use axum::extract::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dstore_proto::store::{ListQuery, Listing, Store};
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{Entry, Error, Key, Prefix, Result};
use serde_json::{Map, Value};

/// Names on a page that says nothing of a limit.
const NAMES: u64 = 100;

pub(super) async fn list<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    let query = query(&request)?;
    let namespace = query.namespace.clone();
    let Listing { names, next, from } = desk.until().of(desk.store.list(query)).await?;
    let mut page = Map::new();
    page.insert("namespace".into(), namespace.as_str().into());
    page.insert("revision".into(), from.revision.0.into());
    page.insert("names".into(), names.iter().map(|(key, entry)| name(key, entry)).collect());
    page.insert("cursor".into(), next.map_or(Value::Null, |next| cursor_of(&next).into()));
    let mut response = json::response(page);
    response.headers_mut().insert(X_REVISION, from.revision.0.into());
    Ok(response)
}

fn name(key: &Key, entry: &Entry) -> Value {
    let mut fields = Map::new();
    json::put_bytes(&mut fields, "key", key.as_bytes());
    json::put_entry(&mut fields, entry);
    Value::Object(fields)
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
