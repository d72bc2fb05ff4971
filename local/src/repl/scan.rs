//! Cuts a line into words: the one place that knows how quoting works.
//!
//! A quote counts only where a word begins, so `it's` and `5"` are plain words. Between double quotes
//! `\n \t \r \\ \"` and `\xHH` stand for bytes; between single quotes everything stands for itself. A line is
//! bytes, not text: nothing here assumes UTF-8.

use bytes::Bytes;
use dstore_shared::{Error, Result};
use std::fmt::Write;

/// Begins the message about a word that has no end.
pub(super) const OPEN_QUOTE: &str = "a quote is not closed";

/// One word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub bytes: Bytes,
    pub quoted: bool,
}

/// Reads words from the left.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    rest: Bytes,
    options_ended: bool,
}

impl Scanner {
    pub fn new(line: Bytes) -> Self {
        Self { rest: line, options_ended: false }
    }

    /// The next word, if there is one.
    pub fn word(&mut self) -> Result<Option<Word>> {
        self.skip_blanks();
        match self.rest.first() {
            None => Ok(None),
            Some(b'"' | b'\'') => self.quoted().map(Some),
            Some(_) => {
                let len = self.rest.iter().position(u8::is_ascii_whitespace).unwrap_or(self.rest.len());
                Ok(Some(Word { bytes: self.rest.split_to(len), quoted: false }))
            }
        }
    }

    /// Everything that is left, without blanks around it.
    pub fn remainder(&mut self) -> Bytes {
        self.skip_blanks();
        let len = self.rest.trim_ascii_end().len();
        self.rest.truncate(len);
        std::mem::take(&mut self.rest)
    }

    /// What the next word begins with; `None` at the end.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.rest.first().copied()
    }

    /// Whether the next word is, unquoted, an option.
    pub fn at_option(&mut self) -> bool {
        self.skip_blanks();
        !self.options_ended && self.rest.starts_with(b"--")
    }

    /// Takes the next word if it is, unquoted and in any case, this one.
    pub fn skips(&mut self, word: &[u8]) -> bool {
        self.skip_blanks();
        let len = self.rest.iter().position(u8::is_ascii_whitespace).unwrap_or(self.rest.len());
        let is = self.rest[..len].eq_ignore_ascii_case(word);
        if is {
            let _ = self.rest.split_to(len);
        }
        is
    }

    /// Takes one byte, if there is one.
    pub fn skip_byte(&mut self) {
        let _ = self.rest.split_to(self.rest.len().min(1));
    }

    /// From here on nothing is an option.
    pub fn end_options(&mut self) {
        self.options_ended = true;
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.len() - self.rest.trim_ascii_start().len();
        let _ = self.rest.split_to(blanks);
    }

    fn quoted(&mut self) -> Result<Word> {
        let quote = self.rest[0];
        let Some(len) = quoted_len(&self.rest) else {
            let quote = char::from(quote);
            return Err(Error::invalid(format!("{OPEN_QUOTE}: end the word with `{quote}`")));
        };
        let token = self.rest.split_to(len);
        if self.rest.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return Err(Error::invalid(
                "a closing quote ends a word: put a blank after it, or quote all of it",
            ));
        }
        let inside = token.slice(1..len - 1);
        let bytes = if quote == b'"' { unescape(inside)? } else { inside };
        Ok(Word { bytes, quoted: true })
    }
}

/// The length, quotes included, of the quoted word that `text` begins with; `None` if it is not closed.
pub(super) fn quoted_len(text: &[u8]) -> Option<usize> {
    let quote = *text.first()?;
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if quote == b'"' => at += 2,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn unescape(inside: Bytes) -> Result<Bytes> {
    if !inside.contains(&b'\\') {
        return Ok(inside);
    }
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = &inside[..];
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, used) = if first == b'\\' { escaped(tail)? } else { (first, 0) };
        bytes.push(byte);
        rest = &tail[used..];
    }
    Ok(bytes.into())
}

/// The byte that the escape stands for whose text after the backslash begins `tail`, and that text's length.
fn escaped(tail: &[u8]) -> Result<(u8, usize)> {
    let hex = |b: &u8| char::from(*b).to_digit(16);
    match tail {
        [b'n', ..] => Ok((b'\n', 1)),
        [b't', ..] => Ok((b'\t', 1)),
        [b'r', ..] => Ok((b'\r', 1)),
        [b @ (b'\\' | b'"'), ..] => Ok((*b, 1)),
        [b'x', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
            let digit = |b| hex(b).unwrap_or_default() as u8;
            Ok((digit(high) << 4 | digit(low), 3))
        }
        _ => {
            let shown = tail[..tail.len().min(3)].escape_ascii();
            Err(Error::invalid(format!(
                "`\\{shown}` is not an escape: between double quotes use \\n \\t \\r \\\\ \\\" \\xHH, or use single quotes"
            )))
        }
    }
}

/// The double-quoted word that stands for `bytes`, in printable ASCII.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &b in bytes {
        match b {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' => text.push(char::from(b)),
            _ => write!(text, "\\x{b:02x}").expect("a string takes what is written"),
        }
    }
    text.push('"');
    text
}
