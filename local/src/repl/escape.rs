//! Makes bytes safe to show: what a terminal could take for a command is written as `\xHH`.
//!
//! UTF-8 passes as it is, a backslash too. Escaped are: bytes that are not UTF-8, control characters (C0, DEL,
//! C1; `\n \t \r` by their short names), and the characters that end a line or turn its direction (U+2028,
//! U+2029 and the embeddings, overrides and isolates U+202A..202E, U+2066..2069), because they let a value
//! forge another line. So an answer is one line whatever the value; for exact bytes there are raw and JSON.

use std::fmt::Write;

/// Escapes a value piece by piece; a character may be cut between two pieces.
#[derive(Clone, Debug, Default)]
pub struct Escaper {
    /// The beginning of a character whose end has not come: at most 3 bytes.
    cut: Vec<u8>,
    /// Line ends and tabs stand as they are.
    keep_layout: bool,
}

impl Escaper {
    /// Everything on one line.
    pub fn one_line() -> Self {
        Self::default()
    }

    /// Line ends and tabs stand as they are: for a text file on a terminal.
    pub fn keeping_layout() -> Self {
        Self { cut: Vec::new(), keep_layout: true }
    }

    /// What to show of the next piece.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let mut out = String::with_capacity(piece.len());
        let joined;
        let mut rest = if self.cut.is_empty() {
            piece
        } else {
            joined = [std::mem::take(&mut self.cut).as_slice(), piece].concat();
            &joined
        };
        while !rest.is_empty() {
            let (text, bad, tail) = split_utf8(rest);
            self.push_text(text, &mut out);
            match bad {
                Bad::Bytes(bytes) => push_hex(bytes, &mut out),
                Bad::Cut(bytes) => self.cut = bytes.to_vec(),
            }
            rest = tail;
        }
        out
    }

    /// What to show of a character that never ended.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        push_hex(&std::mem::take(&mut self.cut), &mut out);
        out
    }

    fn push_text(&self, text: &str, out: &mut String) {
        for c in text.chars() {
            match c {
                '\n' | '\t' if self.keep_layout => out.push(c),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if is_active(c) => push_char(c, out),
                c => out.push(c),
            }
        }
    }
}

/// Whether a terminal does something at `c`, other than to show it.
pub(super) fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What follows the text that a piece begins with.
enum Bad<'a> {
    Bytes(&'a [u8]),
    Cut(&'a [u8]),
}

fn split_utf8(bytes: &[u8]) -> (&str, Bad<'_>, &[u8]) {
    let Some(chunk) = bytes.utf8_chunks().next() else { return ("", Bad::Bytes(&[]), &[]) };
    let (text, bad) = (chunk.valid(), chunk.invalid());
    let tail = &bytes[text.len() + bad.len()..];
    let may_go_on = tail.is_empty() && std::str::from_utf8(bad).is_err_and(|e| e.error_len().is_none());
    (text, if may_go_on { Bad::Cut(bad) } else { Bad::Bytes(bad) }, tail)
}

fn push_char(c: char, out: &mut String) {
    push_hex(c.encode_utf8(&mut [0; 4]).as_bytes(), out);
}

fn push_hex(bytes: &[u8], out: &mut String) {
    for b in bytes {
        write!(out, "\\x{b:02x}").expect("a string takes what is written");
    }
}

/// All of `bytes` on one line.
pub fn escape(bytes: &[u8]) -> String {
    let mut escaper = Escaper::one_line();
    let mut out = escaper.push(bytes);
    out.push_str(&escaper.finish());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_passes_and_what_a_terminal_obeys_does_not() {
        let table: [(&[u8], &str); 10] = [
            (b"hello", "hello"),
            ("größe 雪 🦀".as_bytes(), "größe 雪 🦀"),
            (b"C:\\new", "C:\\new"),
            (b"a\nb\tc\r", "a\\nb\\tc\\r"),
            (b"\x1b[2J", "\\x1b[2J"),
            (b"\0\x07\x7f", "\\x00\\x07\\x7f"),
            ("\u{9b}31m".as_bytes(), "\\xc2\\x9b31m"),
            ("a\u{202e}b\u{2028}".as_bytes(), "a\\xe2\\x80\\xaeb\\xe2\\x80\\xa8"),
            (b"\xff\xfe ok", "\\xff\\xfe ok"),
            (b"\xe2\x82", "\\xe2\\x82"),
        ];
        for (bytes, shown) in table {
            assert_eq!(escape(bytes), shown, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn layout_may_be_kept_but_a_carriage_return_never() {
        let mut escaper = Escaper::keeping_layout();
        assert_eq!(escaper.push(b"a\n\tb\r\x1b"), "a\n\tb\\r\\x1b");
    }

    proptest! {
        #[test]
        fn pieces_show_as_the_whole_does_and_nothing_controls(bytes: Vec<u8>, text: String, cut: usize) {
            for bytes in [bytes, text.into_bytes()] {
                let whole = escape(&bytes);
                prop_assert!(!whole.chars().any(char::is_control), "{whole:?}");
                let at = cut % (bytes.len() + 1);
                let mut escaper = Escaper::one_line();
                let pieces = [escaper.push(&bytes[..at]), escaper.push(&bytes[at..]), escaper.finish()].concat();
                prop_assert_eq!(pieces, whole);
            }
        }
    }
}
