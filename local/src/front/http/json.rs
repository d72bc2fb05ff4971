//! How bytes stand in JSON: what is UTF-8 as text, other bytes base64-encoded (RFC 4648) in a field of its own, whose
//! name ends with `_base64`. Pure; the same as `--json` of the prompt.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dstore_shared::{Error, Result};
use serde_json::{Map, Value};

/// Puts `bytes` into `fields` under `name`, or `name` and `_base64`.
pub fn put_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.to_owned(), text.into()),
        Err(_) => fields.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// The bytes of one of two fields, of which exactly one is there.
///
/// # Errors
/// `Invalid`.
pub fn one_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Bytes> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes().into()),
        (None, Some(base64)) => match STANDARD.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(bytes.into()),
            Err(e) => Err(Error::invalid(format!("`{name}_base64` is not base64, {e}: correct it"))),
        },
        _ => Err(Error::invalid(format!("a step has one of `{name}` and `{name}_base64`: give one"))),
    }
}

/// A response of JSON that no cache may keep.
pub fn response(fields: Map<String, Value>) -> Response {
    let mut response = Response::new(Body::from(Value::Object(fields).to_string()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
