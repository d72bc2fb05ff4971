//! What is answered, and its bytes in RESP2 and RESP3.
//!
//! Pure. Invariant: a reply is one value of the protocol, whatever bytes it carries: text that goes into a line has no
//! line end in it.

use super::output::Output;
use bytes::Bytes;
use std::borrow::Cow;

/// Which protocol a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Version {
    /// RESP2: what a client speaks until it says HELLO 3.
    #[default]
    Two,
    /// RESP3: maps, sets, pushes, doubles.
    Three,
}

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// A line.
    Line(Cow<'static, str>),
    /// An error line; begins with its code, as `ERR`.
    Error(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// No bytes.
    Nil,
    /// No array.
    NilArray,
    /// Several replies as one.
    Array(Vec<Reply>),
    /// Pairs; in RESP2 one array of both.
    Map(Vec<(Reply, Reply)>),
    /// Different things in no order; in RESP2 an array.
    Set(Vec<Reply>),
    /// Text for people; in RESP2 bytes.
    Text(String),
    /// Told without being asked; in RESP2 an array.
    Push(Vec<Reply>),
    /// These, one after another.
    Several(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    pub const OK: Self = Self::Line(Cow::Borrowed("OK"));

    /// Bytes that are known beforehand.
    pub const fn word(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// Bytes of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into())
    }

    /// An error with the code `ERR`.
    pub fn err(text: impl AsRef<str>) -> Self {
        Self::Error(format!("ERR {}", text.as_ref()).into())
    }

    /// An error whose text is known beforehand; begins with its code.
    pub const fn error(text: &'static str) -> Self {
        Self::Error(Cow::Borrowed(text))
    }

    /// 1 or 0.
    pub const fn flag(yes: bool) -> Self {
        Self::Int(yes as i64)
    }

    /// A number of things.
    pub fn count(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// Bytes if there are some.
    pub fn maybe(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Nil, Self::Bulk)
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The text of an error.
    pub fn error_text(&self) -> &str {
        match self {
            Self::Error(text) => text,
            _ => "",
        }
    }

    /// Bytes of memory that it holds and that nobody else has.
    pub fn held(&self) -> usize {
        let many = |replies: &[Self]| replies.iter().map(Self::held).sum();
        size_of::<Self>()
            + match self {
                Self::Line(Cow::Owned(text)) | Self::Error(Cow::Owned(text)) | Self::Text(text) => text.len(),
                Self::Bulk(bytes) if bytes.is_unique() => bytes.len(),
                Self::Array(replies) | Self::Set(replies) | Self::Push(replies) | Self::Several(replies) => {
                    many(replies)
                }
                Self::Map(pairs) => pairs.iter().map(|(key, value)| key.held() + value.held()).sum(),
                _ => 0,
            }
    }

    /// Writes it.
    pub fn write(&self, out: &mut Output, version: Version) {
        let three = version == Version::Three;
        match self {
            Self::Line(text) => line(out, b'+', text),
            Self::Error(text) => line(out, b'-', text),
            Self::Int(n) => number(out, b':', *n),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Nil => out.put(if three { b"_\r\n" } else { b"$-1\r\n" }),
            Self::NilArray => out.put(if three { b"_\r\n" } else { b"*-1\r\n" }),
            Self::Array(replies) => many(out, b'*', replies, version),
            Self::Set(replies) => many(out, if three { b'~' } else { b'*' }, replies, version),
            Self::Push(replies) => many(out, if three { b'>' } else { b'*' }, replies, version),
            Self::Map(pairs) => {
                let (kind, len) = if three { (b'%', pairs.len()) } else { (b'*', 2 * pairs.len()) };
                head(out, kind, len);
                for (key, value) in pairs {
                    key.write(out, version);
                    value.write(out, version);
                }
            }
            Self::Text(text) if three => {
                head(out, b'=', text.len() + 4);
                out.put(b"txt:");
                out.put(text.as_bytes());
                out.put(b"\r\n");
            }
            Self::Text(text) => {
                head(out, b'$', text.len());
                out.put(text.as_bytes());
                out.put(b"\r\n");
            }
            Self::Several(replies) => replies.iter().for_each(|reply| reply.write(out, version)),
        }
    }
}

/// Writes bytes, shared if they are many.
#[inline]
pub fn bulk(out: &mut Output, bytes: &Bytes) {
    head(out, b'$', bytes.len());
    out.put_shared(bytes);
    out.put(b"\r\n");
}

/// Writes the line before a number of bytes or replies.
#[inline]
pub fn head(out: &mut Output, kind: u8, len: usize) {
    // Most are short.
    if let Ok(short @ 0..=9) = u8::try_from(len) {
        return out.put(&[kind, b'0' + short, b'\r', b'\n']);
    }
    number(out, kind, i64::try_from(len).unwrap_or(i64::MAX));
}

fn many(out: &mut Output, kind: u8, replies: &[Reply], version: Version) {
    head(out, kind, replies.len());
    replies.iter().for_each(|reply| reply.write(out, version));
}

fn line(out: &mut Output, kind: u8, text: &str) {
    out.put(&[kind]);
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n')) {
        out.put(text.replace(['\r', '\n'], " ").as_bytes());
    } else {
        out.put(text.as_bytes());
    }
    out.put(b"\r\n");
}

fn number(out: &mut Output, kind: u8, n: i64) {
    let mut digits = [0; 24];
    let mut at = digits.len() - 2;
    digits[at..].copy_from_slice(b"\r\n");
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    at -= 1;
    digits[at] = kind;
    out.put(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply, version: Version) -> String {
        let mut out = Output::default();
        reply.write(&mut out, version);
        String::from_utf8(out.to_bytes()).expect("text")
    }

    #[test]
    fn each_reply_has_its_bytes_in_both_versions() {
        let one = || vec![Reply::Int(1)];
        let table = [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::err("no\r\nline"), "-ERR no  line\r\n", "-ERR no  line\r\n"),
            (Reply::Int(0), ":0\r\n", ":0\r\n"),
            (Reply::Int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::Int(i64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n"),
            (Reply::word(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::word("0123456789"), "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n"),
            (Reply::Nil, "$-1\r\n", "_\r\n"),
            (Reply::NilArray, "*-1\r\n", "_\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::Array(vec![Reply::Int(-1), Reply::Nil]), "*2\r\n:-1\r\n$-1\r\n", "*2\r\n:-1\r\n_\r\n"),
            (
                Reply::Map(vec![(Reply::word("a"), Reply::Int(1))]),
                "*2\r\n$1\r\na\r\n:1\r\n",
                "%1\r\n$1\r\na\r\n:1\r\n",
            ),
            (Reply::Set(one()), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Reply::Push(one()), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
            (Reply::Text("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (Reply::Several(vec![Reply::OK, Reply::Int(2)]), "+OK\r\n:2\r\n", "+OK\r\n:2\r\n"),
        ];
        for (reply, two, three) in table {
            assert_eq!(written(&reply, Version::Two), two, "{reply:?}");
            assert_eq!(written(&reply, Version::Three), three, "{reply:?}");
        }
    }
}
