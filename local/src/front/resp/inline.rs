//! Splits a line that a person types into words, as Redis does: blanks between, quotes around, escapes within.

use bytes::Bytes;

/// The words of `line`; `None` if a quote is not closed, or is followed by something other than a blank.
pub fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let (mut words, mut at) = (Vec::new(), 0);
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at == line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        at = read_word(line, at, &mut word)?;
        words.push(word.into());
    }
}

fn read_word(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    while let Some(byte) = line.get(at).filter(|b| !b.is_ascii_whitespace()) {
        match byte {
            b'"' | b'\'' => {
                at = read_quoted(line, at + 1, *byte, word)?;
                // A closing quote ends the word.
                return line.get(at).is_none_or(u8::is_ascii_whitespace).then_some(at);
            }
            byte => word.push(*byte),
        }
        at += 1;
    }
    Some(at)
}

/// Reads up to the quote that closes; gives where it goes on.
fn read_quoted(line: &[u8], mut at: usize, quote: u8, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        let byte = *line.get(at)?;
        match (byte, line.get(at + 1)) {
            (byte, _) if byte == quote => return Some(at + 1),
            (b'\\', Some(b'x')) if quote == b'"' && hex(line, at + 2).is_some() => {
                word.push(hex(line, at + 2)?);
                at += 4;
            }
            (b'\\', Some(escaped)) if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            (b'\\', Some(b'\'')) if quote == b'\'' => {
                word.push(b'\'');
                at += 2;
            }
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(line: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| Some((*line.get(at)? as char).to_digit(16)? as u8);
    Some(digit(at)? << 4 | digit(at + 1)?)
}

/// Whether the line is the beginning of an HTTP request or one of its headers. A page in a browser can make it send
/// such lines to any port of its machine.
pub fn is_http(line: &[u8]) -> bool {
    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let is = |text: &str| word.eq_ignore_ascii_case(text.as_bytes());
    let version = line.windows(8).any(|w| w.eq_ignore_ascii_case(b" HTTP/1.") || w == b" HTTP/2.");
    version || is("post") || is("host:") || is("put") || is("options") || is("connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_redis_does() {
        let table: [(&str, Option<&[&str]>); 12] = [
            ("", Some(&[])),
            ("  PING  ", Some(&["PING"])),
            ("set k  v", Some(&["set", "k", "v"])),
            (r#"set k "a b""#, Some(&["set", "k", "a b"])),
            (r#"set k "a\nb\x41\"""#, Some(&["set", "k", "a\nbA\""])),
            (r"set k 'a\'b\n'", Some(&["set", "k", r"a'b\n"])),
            (r#"set k """#, Some(&["set", "k", ""])),
            (r#"set k "a"b"#, None),
            (r#"set k "a"#, None),
            ("set k 'a", None),
            (r#""\xg""#, Some(&["xg"])),
            (r#"a"b""#, Some(&["ab"])),
        ];
        for (line, words) in table {
            let split = split(line.as_bytes());
            let words =
                words.map(|words| words.iter().map(|w| Bytes::from(w.to_string())).collect::<Vec<_>>());
            assert_eq!(split, words, "{line}");
        }
    }

    #[test]
    fn http_is_recognised_and_commands_are_not() {
        for line in ["GET / HTTP/1.1", "POST /x", "Host: a", "PUT / x", "get /a http/1.0", "OPTIONS *"] {
            assert!(is_http(line.as_bytes()), "{line}");
        }
        for line in ["GET /", "get http", "SET k v", "PING", ""] {
            assert!(!is_http(line.as_bytes()), "{line}");
        }
    }
}
