//! Cuts the text of `-c`, or a paste, into lines: `;` (only in `-c`) and line ends separate, outside quotes.

use super::command::heredoc;
use super::scan::quoted_len;
use bytes::Bytes;
use dstore_shared::{Error, Result};

/// Which bytes separate commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Separators {
    /// `;` and line ends, for `-c`.
    Semicolons,
    /// Line ends only, for what was pasted into a prompt.
    LineEnds,
}

impl Separators {
    fn contain(self, byte: u8) -> bool {
        byte == b'\n' || (byte == b';' && self == Self::Semicolons)
    }
}

/// The lines of a text, from the left.
#[derive(Clone, Debug)]
pub struct Script {
    rest: Bytes,
    separators: Separators,
}

impl Script {
    /// The lines of `text`.
    pub fn new(text: impl Into<Bytes>, separators: Separators) -> Self {
        Self { rest: text.into(), separators }
    }

    /// Where the first line ends, its separator not included. `Err` if a quote that is not closed hides
    /// whether a separator after it counts.
    fn line_len(&self) -> Result<usize> {
        let text = &self.rest[..];
        let (mut at, mut word_begins) = (0, true);
        while at < text.len() {
            let byte = text[at];
            if self.separators.contain(byte) {
                break;
            }
            if word_begins && matches!(byte, b'"' | b'\'') {
                match quoted_len(&text[at..]) {
                    Some(len) => {
                        (at, word_begins) = (at + len, false);
                        continue;
                    }
                    None if text[at..].iter().any(|b| self.separators.contain(*b)) => {
                        let quote = char::from(byte);
                        return Err(Error::invalid(format!(
                            "a quote is not closed, so the commands after it cannot be told apart: add `{quote}`, or quote the whole value"
                        )));
                    }
                    None => {}
                }
            }
            word_begins = byte.is_ascii_whitespace();
            at += 1;
        }
        Ok(at)
    }
}

impl Script {
    /// Takes the first line, and the lines of its heredoc with what ends it; without an end, all that is left.
    fn take(&mut self, len: usize) -> Bytes {
        let with_body = match heredoc(&self.rest[..len]) {
            Some(end) if self.rest.get(len) == Some(&b'\n') => {
                let mut at = len + 1;
                loop {
                    let line =
                        self.rest[at..].iter().position(|b| *b == b'\n').unwrap_or(self.rest.len() - at);
                    let ended = self.rest[at..at + line].trim_ascii_end() == end;
                    at += line;
                    if ended || at >= self.rest.len() {
                        break at;
                    }
                    at += 1;
                }
            }
            _ => len,
        };
        let line = self.rest.split_to(with_body);
        let separator = self.rest.len().min(1);
        let _ = self.rest.split_to(separator);
        line
    }
}

impl Iterator for Script {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.rest.is_empty() {
            return None;
        }
        match self.line_len() {
            Ok(len) => Some(Ok(self.take(len))),
            Err(e) => {
                self.rest.clear();
                Some(Err(e))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, separators: Separators) -> Vec<String> {
        Script::new(text, separators)
            .map(|line| line.map_or_else(|_| "!".into(), |l| l.escape_ascii().to_string()))
            .collect()
    }

    #[test]
    fn semicolons_separate_outside_quotes_only() {
        let table: [(&str, &[&str]); 10] = [
            ("SET a 1; GET a", &["SET a 1", " GET a"]),
            ("SET a 'x;y';GET a", &["SET a \\'x;y\\'", "GET a"]),
            (r#"SET a "x\";y";GET a"#, &[r#"SET a \"x\\\";y\""#, "GET a"]),
            ("SET a it's; GET a", &["SET a it\\'s", " GET a"]),
            ("SET a b 'c;d'; GET a", &["SET a b \\'c;d\\'", " GET a"]),
            ("SET a 5 \" tall", &["SET a 5 \\\" tall"]),
            ("GET a; SET a 5 \" tall; GET a", &["GET a", "!"]),
            ("GET a\nGET b;;", &["GET a", "GET b", ""]),
            ("", &[]),
            ("'", &["\\'"]),
        ];
        for (text, expected) in table {
            assert_eq!(lines(text, Separators::Semicolons), expected, "{text}");
        }
    }

    #[test]
    fn the_lines_of_a_heredoc_stay_together() {
        let text = "SET a <<END\n x; 'y\n\nEND\nGET a";
        assert_eq!(lines(text, Separators::LineEnds), ["SET a <<END\\n x; \\'y\\n\\nEND", "GET a"]);
        assert_eq!(lines(text, Separators::Semicolons), ["SET a <<END\\n x; \\'y\\n\\nEND", "GET a"]);
        assert_eq!(lines("ADD <<E\nx", Separators::LineEnds), ["ADD <<E\\nx"]);
        assert_eq!(lines("GET <<E\nx", Separators::LineEnds), ["GET <<E", "x"]);
    }

    #[test]
    fn a_paste_is_cut_at_line_ends_but_not_at_semicolons() {
        assert_eq!(lines("SET a 1;2\nGET a", Separators::LineEnds), ["SET a 1;2", "GET a"]);
        assert_eq!(lines("SET a \"1\n2\"\nGET a", Separators::LineEnds), ["SET a \\\"1\\n2\\\"", "GET a"]);
    }
}
