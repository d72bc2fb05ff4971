//! What a PUT says of its value, in its headers: of what type it is, how long its name lives, and that it is the value
//! itself.

use super::X_TTL;
use super::problem::{Problem, Slug};
use super::read::UNTYPED;
use super::url;
use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use dstore_shared::{Attributes, ContentType, Error, Result, check_ttl};
use std::time::Duration;

/// What a PUT says besides the value.
pub(super) fn attributes_of(headers: &HeaderMap) -> Result<Attributes> {
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

/// Whether the body is the value itself: what is stored are its bytes.
pub(super) fn is_a_value(headers: &HeaderMap) -> Result<(), Problem> {
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
