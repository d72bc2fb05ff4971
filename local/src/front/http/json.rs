//! How bytes stand in JSON: what is UTF-8 as text, other bytes base64-encoded (RFC 4648) in a field of its own, whose
//! name ends with `_base64`. Pure; the same as `--json` of the prompt.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dstore_shared::{Entry, Error, Result};
use serde_json::{Map, Value};

/// Puts `bytes` into `fields` under `name`, or `name` and `_base64`.
pub fn put_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.to_owned(), text.into()),
        Err(_) => fields.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// How many bytes [`put_bytes`] makes of `bytes`, quotes included, once it is written.
pub fn written_len(bytes: &[u8]) -> usize {
    let len = match std::str::from_utf8(bytes) {
        Ok(_) => bytes.iter().map(|byte| escaped_len(*byte)).sum(),
        Err(_) => bytes.len().div_ceil(3) * 4,
    };
    len + 2
}

/// Puts what a name is bound to into `fields`.
pub fn put_entry(fields: &mut Map<String, Value>, entry: &Entry) {
    fields.insert("hash".into(), entry.hash.to_string().into());
    fields.insert("size".into(), entry.size.into());
    fields.insert("revision".into(), entry.bind_rev.0.into());
    if let Some(end) = entry.expires_at {
        fields.insert("expires_at_ms".into(), end.get().into());
    }
    if let Some(words) = &entry.content_type {
        fields.insert("content_type".into(), words.as_str().into());
    }
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

/// How many bytes JSON has for one of a text.
fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// A response of JSON, which is written already and which no cache may keep.
pub fn written(text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bytes_take_in_json_is_known_before_they_are_written() {
        let all: Vec<u8> = (0..=255).collect();
        let ascii: Vec<u8> = (0..128).collect();
        for bytes in [
            &b""[..],
            b"a",
            b"\xff",
            b"\xff\xff",
            b"\xff\xff\xff",
            &all,
            &ascii,
            "größe \u{2028} 雪".as_bytes(),
        ] {
            let mut fields = Map::new();
            put_bytes(&mut fields, "v", bytes);
            let (name, value) = fields.iter().next().expect("a field");
            assert_eq!(value.to_string().len(), written_len(bytes), "{name}: {}", bytes.escape_ascii());
        }
    }
}
