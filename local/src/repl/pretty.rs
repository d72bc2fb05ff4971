//! How a value is shown to a person: JSON indented, text as text, anything else as hexadecimal digits. Pure.
//!
//! JSON keeps its words: numbers, strings and the order of members stand as they were stored; only white space changes.
//! Nothing here lets a byte through that a terminal would obey.

use super::escape::{Escaper, is_active};
use serde::de::IgnoredAny;
use std::fmt::Write;

/// Bytes of a value that a dump shows.
pub(super) const DUMPED_BYTES_MAX: usize = 512;
/// Deeper than this JSON is shown as it stands.
const DEPTH_MAX: usize = 64;

/// A value, ready to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// One line.
    Line(String),
    /// Several, for a place of their own.
    Block(String),
    /// Digits, of so many bytes of the value.
    Digits(String, usize),
}

/// `value` for a terminal of so many columns.
pub(super) fn shown(value: &[u8], columns: u16) -> Shown {
    if let Some(json) = indented(value) {
        return Shown::Block(json);
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => {
            let mut escaper = Escaper::keeping_layout();
            let text = escaper.push(text.as_bytes());
            if text.trim_end_matches('\n').contains('\n') {
                Shown::Block(text.trim_end_matches('\n').to_owned())
            } else {
                Shown::Line(super::escape::escape(value))
            }
        }
        _ => Shown::Digits(dump(value, columns), value.len().min(DUMPED_BYTES_MAX)),
    }
}

/// `value` as JSON with two spaces a level, if it is an object or array that has anything in it.
fn indented(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\n', '\t', '\r']);
    if !text.starts_with(['{', '[']) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut anything = false;
    while let Some(c) = rest.next() {
        if in_string {
            // JSON has no bare control character in a string; others that a terminal obeys are.
            if is_active(c) {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes what is written");
            } else {
                out.push(c);
            }
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => {}
            '{' | '[' => {
                out.push(c);
                while rest.peek().is_some_and(char::is_ascii_whitespace) {
                    rest.next();
                }
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    (depth, anything) = (depth + 1, true);
                    if depth > DEPTH_MAX {
                        return None;
                    }
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    anything.then_some(out)
}

/// Offset, digits and what of it is printable ASCII; as many bytes a line as fit.
pub(super) fn dump(value: &[u8], columns: u16) -> String {
    let fits = usize::from(columns).saturating_sub(11) / 4;
    let a_line = fits.clamp(1, 16);
    let mut out = String::new();
    for (n, bytes) in value[..value.len().min(DUMPED_BYTES_MAX)].chunks(a_line).enumerate() {
        if n > 0 {
            out.push('\n');
        }
        write!(out, "{:08x} ", n * a_line).expect("a string takes what is written");
        for b in bytes {
            write!(out, " {b:02x}").expect("a string takes what is written");
        }
        out.extend(std::iter::repeat_n("   ", a_line - bytes.len()));
        out.push_str("  ");
        out.extend(bytes.iter().map(|b| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' }));
    }
    out
}

/// A number of bytes for people: `5 B`, `12.4 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1024.0, 0);
    // What would be rounded to 1024.0 has the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        (amount, unit) = (amount / 1024.0, unit + 1);
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_control_character_within_a_string_is_written_as_json_has_it() {
        let shown = indented("{\"a\":\"x\u{9b}y\u{7f}\"}".as_bytes()).expect("JSON");
        assert_eq!(shown, "{\n  \"a\": \"x\\u009by\\u007f\"\n}");
    }

    #[test]
    fn json_is_indented_and_its_words_stay_as_they_are() {
        let value = br#"{"z":1e400, "a" : [1.10,{},[ ],"x\"{,:"], "big":12345678901234567890}"#;
        let lines = "{\n  \"z\": 1e400,\n  \"a\": [\n    1.10,\n    {},\n    [],\n    \"x\\\"{,:\"\n  ],\n  \"big\": 12345678901234567890\n}";
        assert_eq!(shown(value, 80), Shown::Block(lines.into()));
        for plain in ["{}", "[]", "12", "\"a\"", "{\"a\":1", "{a}", "[1,]"] {
            assert_eq!(shown(plain.as_bytes(), 80), Shown::Line(plain.into()), "{plain}");
        }
        let deep = "[".repeat(100) + "1" + &"]".repeat(100);
        assert_eq!(shown(deep.as_bytes(), 80), Shown::Line(deep), "no wider than a screen could show");
    }

    #[test]
    fn text_is_text_and_the_rest_is_digits() {
        assert_eq!(shown("größe".as_bytes(), 80), Shown::Line("größe".into()));
        assert_eq!(shown(b"one\n\ttwo\n", 80), Shown::Block("one\n\ttwo".into()));
        assert_eq!(shown(b"a\x1b[2J", 80), Shown::Line("a\\x1b[2J".into()));
        let digits = "00000000  00 01 61 ff                                      ..a.";
        assert_eq!(shown(b"\0\x01a\xff", 80), Shown::Digits(digits.into(), 4));
        let Shown::Digits(narrow, 512) = shown(&[0xff; 1000], 20) else { panic!("digits") };
        assert!(narrow.lines().all(|line| line.len() <= 20), "{narrow}");
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        let table =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (13_002_342, "12.4 MiB"), (1 << 30, "1.0 GiB")];
        for (bytes, told) in table {
            assert_eq!(size(bytes), told);
        }
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
    }

    proptest! {
        #[test]
        fn nothing_shown_controls_a_terminal_and_json_means_what_it_meant(
            bytes: Vec<u8>, text in r#"[\[\]{}:,"\\a1 \u{9b}\u{202e}\n\x1b]{0,40}"#, columns: u16
        ) {
            for value in [bytes, text.into_bytes()] {
                let (Shown::Line(all) | Shown::Block(all) | Shown::Digits(all, _)) = shown(&value, columns);
                prop_assert!(!all.chars().any(|c| is_active(c) && c != '\n' && c != '\t'), "{all:?}");
                if let (Ok(was), Some(json)) = (serde_json::from_slice::<serde_json::Value>(&value), indented(&value)) {
                    prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON"), was);
                }
            }
        }
    }
}
