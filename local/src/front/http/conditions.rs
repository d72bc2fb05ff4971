//! Conditions and ranges of a request (RFC 9110, sections 13 and 14), read against a blob's hash and size. Pure.
//!
//! The entity tag of a value is its hash in quotes, always strong: equal tags mean equal bytes.

use super::url::digits;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};
use dstore_shared::BlobHash;

/// The entity tag of a blob.
pub fn tag(hash: &BlobHash) -> HeaderValue {
    let mut text = [b'"'; 66];
    for (pair, byte) in text[1..65].chunks_exact_mut(2).zip(hash.as_bytes()) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        (pair[0], pair[1]) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
    }
    HeaderValue::from_bytes(&text).expect("quotes and digits")
}

/// The tags of a condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tags {
    /// `*`: whatever there is.
    Any,
    /// These blobs; tags that no blob can have are left out.
    Of(Vec<BlobHash>),
}

impl Tags {
    /// Whether a name that is bound to `hash`, or to nothing, is among them.
    pub fn cover(&self, hash: Option<&BlobHash>) -> bool {
        match (self, hash) {
            (Self::Any, bound) => bound.is_some(),
            (Self::Of(hashes), Some(hash)) => hashes.contains(hash),
            (Self::Of(_), None) => false,
        }
    }

    /// The tags in all fields `name`; `weak`: a weak tag counts as its strong one.
    fn read(headers: &HeaderMap, name: HeaderName, weak: bool) -> Option<Self> {
        let fields = headers.get_all(name);
        let first = fields.iter().next()?;
        // Only as the whole field, which may have several lines: within the quotes of a tag it is a part of the tag.
        if first.as_bytes().trim_ascii() == b"*" && fields.iter().count() == 1 {
            return Some(Self::Any);
        }
        let mut hashes = Vec::new();
        // A tag with a comma is cut in two, none of which is a hash in quotes.
        for part in fields.iter().flat_map(|field| field.as_bytes().split(|b| *b == b',')) {
            let part = part.trim_ascii();
            let strong = part.strip_prefix(b"W/").filter(|_| weak).unwrap_or(part);
            hashes.extend(hash_of(strong));
        }
        Some(Self::Of(hashes))
    }
}

/// The blob of a strong tag.
fn hash_of(tag: &[u8]) -> Option<BlobHash> {
    let bare = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// The conditions of a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Conditions {
    /// `If-Match`.
    pub only: Option<Tags>,
    /// `If-None-Match`.
    pub unless: Option<Tags>,
}

/// What the conditions of a read let be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is read.
    Go,
    /// The caller has it: 304.
    NotModified,
    /// It is not what the caller wants: 412.
    Failed,
}

impl Conditions {
    /// Those of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        Self { only: Tags::read(headers, IF_MATCH, false), unless: Tags::read(headers, IF_NONE_MATCH, true) }
    }

    /// Whether a change is to be done in any case.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The first of them that keeps a change from being done to a name that is bound to `hash`, or not at all (RFC 9110,
    /// section 13.2.2).
    pub fn against_write(&self, hash: Option<&BlobHash>) -> Option<&'static str> {
        if self.only.as_ref().is_some_and(|only| !only.cover(hash)) {
            return Some("the value is not the one of `If-Match`: read it anew");
        }
        let unless = self.unless.as_ref().filter(|unless| unless.cover(hash));
        unless.map(|_| "the key is bound already: leave `If-None-Match` out to store the same bytes again")
    }

    /// What they let be done with a read of what is bound to `hash` (RFC 9110, section 13.2.2). Of what is not bound there
    /// is nothing to read, whatever they say (section 13.2.1): 404, and not 412.
    pub fn of_read(&self, hash: &BlobHash) -> Verdict {
        if self.only.as_ref().is_some_and(|only| !only.cover(Some(hash))) {
            return Verdict::Failed;
        }
        match &self.unless {
            Some(unless) if unless.cover(Some(hash)) => Verdict::NotModified,
            _ => Verdict::Go,
        }
    }
}

/// The one range that a read asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// From a byte on, up to another, that one included.
    From(u64, Option<u64>),
    /// So many last bytes.
    Last(u64),
}

impl Wanted {
    /// The range that `headers` ask for. `None`, which is the whole: no range, another unit, several ranges, or one that
    /// cannot be read, as RFC 9110 (section 14.2) lets a server do.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(RANGE).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (unit, range) = field.to_str().ok()?.split_once('=')?;
        let (first, last) =
            range.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// Whether it holds under `If-Range`, of what has `hash`.
    pub fn holds(headers: &HeaderMap, hash: &BlobHash) -> bool {
        headers.get(IF_RANGE).is_none_or(|tag| hash_of(tag.as_bytes()).as_ref() == Some(hash))
    }

    /// The bytes of it in a blob of `size` bytes. `None`: there are none.
    pub fn within(self, size: u64) -> Option<std::ops::Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
            Self::Last(n) => size.saturating_sub(n)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits; more than fit count as the most that do.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits(text).unwrap_or(u64::MAX))
}

/// The conditions, and the URL, of bytes, for the fuzz target.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::super::url;
    use super::{Conditions, Verdict, Wanted};
    use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
    use axum::http::{HeaderMap, HeaderValue};
    use dstore_shared::{BlobHash, Result};

    /// Reads a line each as path, query, `If-Match`, `If-None-Match`, `Range` and `If-Range`.
    ///
    /// # Errors
    /// What the path or the query is refused with.
    ///
    /// # Panics
    /// If what was read does not hold what it must.
    pub fn request(bytes: &[u8]) -> Result<()> {
        let mut lines = bytes.split(|b| *b == b'\n');
        let mut line = || lines.next().unwrap_or_default();
        let (path, query) = (String::from_utf8_lossy(line()), String::from_utf8_lossy(line()));
        let mut headers = HeaderMap::new();
        for name in [IF_MATCH, IF_NONE_MATCH, RANGE, IF_RANGE] {
            if let Ok(value) = HeaderValue::from_bytes(line()) {
                headers.append(name, value);
            }
        }
        let hash = BlobHash::of(b"x");
        let conditions = Conditions::of(&headers);
        let refused = [None, Some(&hash)].map(|hash| conditions.against_write(hash).is_some());
        let read = conditions.of_read(&hash) == Verdict::Go;
        assert_eq!(read, !refused[1], "what is not to be read is not to be changed");
        assert!(!conditions.is_none() || refused == [false, false], "no condition refuses nothing");
        if let Some(wanted) = Wanted::of(&headers) {
            for size in [0, 1, 1000, u64::MAX] {
                let range = wanted.within(size);
                assert!(range.is_none_or(|r| r.start < r.end && r.end <= size), "{wanted:?} of {size}");
            }
            _ = Wanted::holds(&headers, &hash);
        }
        let query = url::Query::read(Some(&query), &["prefix", "limit", "cursor"])?;
        _ = query.number("limit")?;
        _ = query.text("prefix");
        let name = url::name(&path)?;
        assert_eq!(url::name(&url::path_of(&name))?, name, "a name's path names it");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("valid"))).collect()
    }

    #[test]
    fn a_tag_is_the_hash_in_quotes_and_reads_back() {
        let hash = BlobHash::of(b"x");
        assert_eq!(tag(&hash), format!("\"{hash}\"").as_str());
        assert_eq!(hash_of(tag(&hash).as_bytes()), Some(hash));
    }

    #[test]
    fn conditions_are_judged_as_rfc_9110_says() {
        let (mine, other) = (BlobHash::of(b"mine"), BlobHash::of(b"other"));
        let (m, o) = (format!("\"{mine}\""), format!("\"{other}\""));
        let weak = format!("W/{m}");
        let list = format!("\"a,b\", {o} ,{m}");
        let table = [
            (None, None, Verdict::Go, Verdict::Go),
            (Some("*"), None, Verdict::Go, Verdict::Failed),
            (Some(&*m), None, Verdict::Go, Verdict::Failed),
            (Some(&*weak), None, Verdict::Failed, Verdict::Failed),
            (Some(&*o), None, Verdict::Failed, Verdict::Failed),
            (Some(&*list), None, Verdict::Go, Verdict::Failed),
            (None, Some("*"), Verdict::NotModified, Verdict::Go),
            (None, Some(&*m), Verdict::NotModified, Verdict::Go),
            (None, Some(&*weak), Verdict::NotModified, Verdict::Go),
            (None, Some(&*o), Verdict::Go, Verdict::Go),
            (None, Some("nonsense"), Verdict::Go, Verdict::Go),
            (None, Some("\"a,*,b\""), Verdict::Go, Verdict::Go),
            (Some("\"a,*,b\""), None, Verdict::Failed, Verdict::Failed),
            (Some(&*o), Some(&*m), Verdict::Failed, Verdict::Failed),
            (Some(&*m), Some(&*m), Verdict::NotModified, Verdict::Failed),
        ];
        for (only, unless, bound, absent) in table {
            let mut all = Vec::new();
            all.extend(only.map(|v| (IF_MATCH, v)));
            all.extend(unless.map(|v| (IF_NONE_MATCH, v)));
            let conditions = Conditions::of(&headers(&all));
            assert_eq!(conditions.of_read(&mine), bound, "{only:?} {unless:?}");
            // What a read need not move, or does not want, a change is not done to; nor to nothing, if something is wanted.
            for (verdict, hash) in [(bound, Some(&mine)), (absent, None)] {
                let refused = conditions.against_write(hash).is_some();
                assert_eq!(refused, verdict != Verdict::Go, "{only:?} {unless:?} {hash:?}");
            }
        }
    }

    #[test]
    fn tags_of_several_fields_count_together() {
        let mut all = headers(&[(IF_NONE_MATCH, "\"x\"")]);
        all.append(IF_NONE_MATCH, tag(&BlobHash::of(b"y")));
        assert_eq!(Conditions::of(&all).of_read(&BlobHash::of(b"y")), Verdict::NotModified);
    }

    #[test]
    fn one_range_is_cut_at_the_end_and_what_cannot_be_read_is_the_whole() {
        let of = |range| Wanted::of(&headers(&[(RANGE, range)]));
        let table = [
            ("bytes=0-0", Some(0..1)),
            ("bytes=2-4", Some(2..5)),
            ("bytes=2-", Some(2..10)),
            ("bytes=9-100", Some(9..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-100", Some(0..10)),
            ("Bytes = 1-1", Some(1..2)),
            ("bytes=0-99999999999999999999999999", Some(0..10)),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=99999999999999999999999999-", None),
        ];
        for (text, range) in table {
            assert_eq!(of(text).unwrap_or_else(|| panic!("{text}")).within(10), range, "{text}");
        }
        for whole in [
            "bytes=",
            "bytes=-",
            "bytes=4-2",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes 1-2",
            "bytes=a-b",
            "bytes=+1-2",
        ] {
            assert_eq!(of(whole), None, "{whole}");
        }
        assert_eq!(Wanted::From(0, None).within(0), None, "nothing of nothing");
    }

    #[test]
    fn a_range_holds_only_of_the_value_it_was_meant_for() {
        let (mine, other) = (BlobHash::of(b"mine"), BlobHash::of(b"other"));
        let with = |tag: &str| headers(&[(IF_RANGE, tag)]);
        assert!(Wanted::holds(&HeaderMap::new(), &mine));
        assert!(Wanted::holds(&with(&format!("\"{mine}\"")), &mine));
        for bad in [format!("\"{other}\""), format!("W/\"{mine}\""), "Sat, 21 Nov 2026 00:00:00 GMT".into()] {
            assert!(!Wanted::holds(&with(&bad), &mine), "{bad}");
        }
    }
}
