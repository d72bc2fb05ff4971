//! What a path and a query name: namespaces, keys, prefixes, numbers. Pure.
//!
//! A key is what stands in the path after its namespace, percent-decoded (RFC 3986, section 2.1) to bytes, which need be
//! no UTF-8; a slash may stand as itself or as `%2F`. In a query a `+` is a space, as forms are encoded.

use bytes::Bytes;
use dstore_shared::{BlobHash, Error, Key, Name, Namespace, Result};

/// What paths of names begin with.
pub const KV: &str = "/v1/kv/";
/// What paths of blobs begin with.
pub const BLOB: &str = "/v1/blob/";

/// The name of a path `/v1/kv/NAMESPACE/KEY`.
///
/// # Errors
/// As [`Namespace::new`] and [`Key::new`]; `Invalid` for another path, or for a `%` without two hex digits.
pub fn name(path: &str) -> Result<Name> {
    let rest = path.strip_prefix(KV).and_then(|rest| rest.split_once('/'));
    let (namespace, key) =
        rest.ok_or_else(|| Error::invalid("the path names no key: write /v1/kv/NAMESPACE/KEY"))?;
    Ok(Name::new(&Namespace::new(decoded(namespace, false)?)?, &Key::new(decoded(key, false)?)?))
}

/// The namespace of a path `/v1/kv/NAMESPACE`.
///
/// # Errors
/// As [`name`].
pub fn namespace(path: &str) -> Result<Namespace> {
    Namespace::new(decoded(path.strip_prefix(KV).unwrap_or_default(), false)?)
}

/// The hash of a path `/v1/blob/HASH`, 64 hex digits.
///
/// # Errors
/// `Invalid`.
pub fn hash(path: &str) -> Result<BlobHash> {
    let text = path.strip_prefix(BLOB).unwrap_or_default();
    text.parse().map_err(|_| Error::invalid("the path names no blob: write /v1/blob/ and 64 hex digits"))
}

/// The path of a name, with everything encoded that is not unreserved.
pub fn path_of(name: &Name) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let (namespace, key) = (name.namespace(), name.key());
    let mut path =
        String::with_capacity(KV.len() + namespace.as_bytes().len() + 1 + 3 * key.as_bytes().len());
    path.push_str(KV);
    path.push_str(namespace.as_str());
    path.push('/');
    for byte in key.as_bytes() {
        // A dot would be taken for the folder itself, or the one above, if it stood alone between slashes.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            path.push(char::from(*byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    path
}

/// Percent-decodes; `form`: a `+` is a space.
fn decoded(text: &str, form: bool) -> Result<Bytes> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| *b == b'%' || form && *b == b'+') {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match *first {
            b'%' => {
                let [high, low, after @ ..] = after else { return Err(cut_escape()) };
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let (high, low) = digit(high).zip(digit(low)).ok_or_else(cut_escape)?;
                out.push((high << 4 | low) as u8);
                rest = after;
            }
            b'+' if form => out.push(b' '),
            other => out.push(other),
        }
    }
    Ok(out.into())
}

fn cut_escape() -> Error {
    Error::invalid("a `%` in the URL is not followed by two hex digits: write `%25` for the character itself")
}

/// The parameters of a query, each at most once.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, Bytes)>);

impl Query {
    /// Reads the query of a URL, whose parameters must be among `known`.
    ///
    /// # Errors
    /// `Invalid` for a parameter that is not known, comes twice, or is not encoded.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self> {
        let mut read = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name, true)?;
            let Some(name) = known.iter().find(|known| known.as_bytes() == name) else {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let name: String = name.escape_ascii().take(64).map(char::from).collect();
                return Err(Error::invalid(format!(
                    "the parameter `{name}` is not known here: there is {known}"
                )));
            };
            if read.bytes(name).is_some() {
                return Err(Error::invalid(format!("the parameter `{name}` comes twice: send it once")));
            }
            read.0.push(((*name).to_owned(), decoded(value, true)?));
        }
        Ok(read)
    }

    /// The bytes of the parameter `name`.
    pub fn bytes(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The text of the parameter `name`.
    ///
    /// # Errors
    /// `Invalid` if it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        let text = self.bytes(name).map(|value| std::str::from_utf8(value)).transpose();
        text.map_err(|_| Error::invalid(format!("the parameter `{name}` is not UTF-8: correct it")))
    }

    /// The number of the parameter `name`.
    ///
    /// # Errors
    /// `Invalid` if it is not digits, or too large.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = digits(text)
            .ok_or_else(|| Error::invalid(format!("the parameter `{name}` is no number: write digits")))?;
        Ok(Some(number))
    }
}

/// A number of digits alone.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;

    fn key_of(path: &str) -> Vec<u8> {
        name(path).unwrap_or_else(|e| panic!("{path}: {e}")).key().as_bytes().to_vec()
    }

    #[test]
    fn a_key_is_what_follows_the_namespace_whatever_its_bytes() {
        let table: [(&str, &[u8]); 10] = [
            ("/v1/kv/default/a", b"a"),
            ("/v1/kv/default/a/b//c/", b"a/b//c/"),
            ("/v1/kv/default/a%2Fb", b"a/b"),
            ("/v1/kv/default/%00%ff%FE", b"\0\xff\xfe"),
            ("/v1/kv/default/a+b%2b", b"a+b+"),
            ("/v1/kv/default//", b"/"),
            ("/v1/kv/default/%2e%2E", b".."),
            ("/v1/kv/default/%2525", b"%25"),
            ("/v1/kv/defa%75lt/k", b"k"),
            ("/v1/kv/default/%E9%9b%AA", "雪".as_bytes()),
        ];
        for (path, key) in table {
            assert_eq!(key_of(path), key, "{path}");
        }
        assert_eq!(name("/v1/kv/other.1/k").expect("valid").namespace().as_str(), "other.1");
    }

    #[test]
    fn what_names_no_key_is_refused_and_nothing_is_guessed() {
        for (path, kind) in [
            ("/v1/kv/default/", Kind::Invalid),
            ("/v1/kv/default", Kind::Invalid),
            ("/v1/kv//k", Kind::Invalid),
            ("/v1/kv/Default/k", Kind::Invalid),
            ("/v1/kv/a%2Fb/k", Kind::Invalid),
            ("/v1/kv/default/%", Kind::Invalid),
            ("/v1/kv/default/a%2", Kind::Invalid),
            ("/v1/kv/default/%zz", Kind::Invalid),
            ("/v1/kv/default/%+1", Kind::Invalid),
        ] {
            assert_eq!(name(path).expect_err(path).kind(), kind, "{path}");
        }
        let long = |n: usize| format!("/v1/kv/default/{}", "%41".repeat(n));
        assert_eq!(key_of(&long(1024)).len(), 1024);
        assert_eq!(name(&long(1025)).expect_err("long").kind(), Kind::TooLarge);
    }

    #[test]
    fn the_path_of_a_name_names_it_again_and_no_client_shortens_it() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [&all[..], b"..", b".", b"a/../b", b"//", b"%41", b"caf\xc3\xa9 + ?#"] {
            let name_in = Name::of(key.to_vec()).expect("valid");
            let path = path_of(&name_in);
            assert_eq!(name(&path).expect("it was written"), name_in, "{path}");
            assert!(
                path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains('.') && !path.contains("//"),
                "{path}"
            );
        }
    }

    #[test]
    fn a_query_has_each_known_parameter_once() {
        let known = ["prefix", "limit"];
        let read = |query| Query::read(Some(query), &known);
        let query = read("prefix=a+b%2B%00&limit=12&").expect("valid");
        assert_eq!(
            (query.bytes("prefix").map(|b| &b[..]), query.number("limit").expect("a number")),
            (Some(&b"a b+\0"[..]), Some(12))
        );
        assert!(Query::read(None, &[]).expect("none").bytes("limit").is_none());
        assert_eq!(read("prefix").expect("empty").bytes("prefix").map(Bytes::len), Some(0));
        for bad in ["other=1", "limit=1&limit=2", "prefix=%1", "=1", "Prefix=a"] {
            assert_eq!(read(bad).expect_err(bad).kind(), Kind::Invalid, "{bad}");
        }
        for bad in ["limit=", "limit=-1", "limit=+1", "limit=1e3", "limit=18446744073709551616", "limit=%ff"]
        {
            assert!(read(bad).expect("known").number("limit").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_blob_is_named_by_64_digits() {
        let hash = BlobHash::of(b"x");
        assert_eq!(super::hash(&format!("/v1/blob/{hash}")).expect("a hash"), hash);
        for bad in ["", "a", &"g".repeat(64), &"a".repeat(65)] {
            assert!(super::hash(&format!("/v1/blob/{bad}")).is_err(), "{bad}");
        }
    }
}
