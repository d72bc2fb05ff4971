//! What a prompt shows of a line that is being typed: completions, a grey hint, colours. Pure but for the memory of keys.
//!
//! Every look takes a bounded time: at most [`CANDIDATES_MAX`] keys are looked at, and lines beyond [`LINE_BYTES_MAX`] are
//! shown plain. Nothing here asks the node.

use super::escape::{escape, is_active};
use super::keys::Keys;
use super::pretty::size;
use super::scan::{Scanner, quote, quoted_len};
use super::words::{DOTS, Grammar, Takes, Verb, dot, grammar, words};
use bytes::Bytes;
use std::borrow::Cow;

/// Keys that one completion offers.
pub(super) const CANDIDATES_MAX: usize = 64;
/// Longer lines are neither coloured nor hinted at.
const LINE_BYTES_MAX: usize = 4096;

/// What may stand in place of the word at the cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    /// What is shown.
    pub shown: String,
    /// What comes in place of the word.
    pub text: String,
}

impl Candidate {
    fn word(word: &str) -> Self {
        Self { shown: word.to_owned(), text: format!("{word} ") }
    }
}

/// The word at the end of `typed`, and what stands before it.
struct AtEnd<'a> {
    before: &'a str,
    word: &'a str,
}

/// Cuts at the last blank that is in no quotes.
fn at_end(typed: &str) -> AtEnd<'_> {
    let (bytes, mut at, mut begins) = (typed.as_bytes(), 0, 0);
    let mut word_begins = true;
    while at < bytes.len() {
        if word_begins && matches!(bytes[at], b'"' | b'\'') {
            match quoted_len(&bytes[at..]) {
                Some(len) => {
                    (at, word_begins) = (at + len, false);
                    continue;
                }
                None => break,
            }
        }
        word_begins = bytes[at].is_ascii_whitespace();
        at += 1;
        if word_begins {
            begins = at;
        }
    }
    let (before, word) = typed.split_at(begins);
    AtEnd { before, word }
}

/// The first word of a line, and how many words follow it before its end; options do not count.
struct Spoken {
    grammar: Option<&'static Grammar>,
    first: Bytes,
    words: Vec<Bytes>,
}

fn spoken(before: &str) -> Option<Spoken> {
    let mut scanner = Scanner::new(Bytes::copy_from_slice(before.as_bytes()));
    let first = scanner.word().ok()??.bytes;
    let grammar = grammar(&first).map(|(grammar, _)| grammar);
    let mut words = Vec::new();
    while let Ok(Some(word)) = scanner.word() {
        if !word.quoted && word.bytes.starts_with(b"--") {
            let opt = grammar.and_then(|g| g.options.iter().find(|opt| opt.name.as_bytes() == word.bytes));
            if opt.is_some_and(|opt| matches!(opt.takes, Takes::Value(_))) {
                let _ = scanner.word();
            }
            continue;
        }
        words.push(word.bytes);
    }
    Some(Spoken { grammar, first, words })
}

/// Whether the word after so many is a key.
fn is_key(verb: Verb, words: usize) -> bool {
    match verb {
        Verb::Get
        | Verb::Set
        | Verb::Stat
        | Verb::Why
        | Verb::Locals
        | Verb::List
        | Verb::Watch
        | Verb::Warm => words == 0,
        Verb::Same | Verb::Copy | Verb::Rename => words < 2,
        Verb::Delete | Verb::Exists | Verb::Evict | Verb::Pin | Verb::Unpin => true,
        Verb::Add | Verb::Unwatch | Verb::Status | Verb::Bench => false,
    }
}

/// What the word that ends `typed` may become, and where it begins.
pub(super) fn completions(typed: &str, keys: &Keys) -> (usize, Vec<Candidate>) {
    let AtEnd { before, word } = at_end(typed);
    let at = before.len();
    let begins = |known: &&str| known.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let Some(Spoken { grammar, first, words: spoken }) = spoken(before) else {
        // One letter is quicker typed than completed.
        let found = words().filter(|known| known.len() > 2).filter(begins);
        return (at, found.map(Candidate::word).collect());
    };
    if let Some(dot) = dot(&first) {
        let known: Vec<&str> = match dot.word {
            ".help" => words().collect(),
            ".mode" => vec!["text", "pretty", "raw", "hex", "json", "jsonl", "csv"],
            ".timer" | ".pager" | ".bail" => vec!["on", "off"],
            _ => Vec::new(),
        };
        let known = if spoken.is_empty() { known } else { Vec::new() };
        return (at, known.into_iter().filter(begins).map(Candidate::word).collect());
    }
    let Some(grammar) = grammar else { return (at, Vec::new()) };
    if word.starts_with("--") {
        let names = grammar.options.iter().map(|opt| opt.name).filter(begins);
        return (at, names.map(Candidate::word).collect());
    }
    if !is_key(grammar.verb, spoken.len()) {
        return (at, Vec::new());
    }
    (at, key_candidates(word, keys))
}

fn key_candidates(word: &str, keys: &Keys) -> Vec<Candidate> {
    let quoted = word.starts_with(['"', '\'']);
    // What is open may end within an escape: then there is nothing to offer.
    let begin = if quoted {
        let closed = format!("{word}{}", &word[..1]);
        match Scanner::new(Bytes::from(closed)).word() {
            Ok(Some(word)) => word.bytes,
            _ => return Vec::new(),
        }
    } else {
        Bytes::copy_from_slice(word.as_bytes())
    };
    let candidate = |key: &[u8]| {
        let text =
            if quoted || !is_plain(key) { quote(key) } else { String::from_utf8_lossy(key).into_owned() };
        Candidate { shown: escape(key), text: format!("{text} ") }
    };
    keys.begin(&begin, CANDIDATES_MAX).iter().map(|key| candidate(key)).collect()
}

/// Whether a key can be written as it is.
fn is_plain(key: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(key) else { return false };
    !text.starts_with(['"', '\'', '-', '@', '<', '>', '|'])
        && !text.chars().any(|c| c.is_whitespace() || is_active(c))
        && !text.eq_ignore_ascii_case("PREFIX")
        && !text.eq_ignore_ascii_case("RANGE")
}

/// What to show after a line, in grey: what it still takes, or what is known of its key; at most `room` columns.
pub(super) fn hint(line: &str, keys: &Keys, room: usize) -> Option<String> {
    if line.len() > LINE_BYTES_MAX || line.contains('\n') {
        return None;
    }
    let AtEnd { before, word } = at_end(line);
    let (ends_word, whole) = (word.is_empty(), format!("{line} "));
    let Spoken { grammar, first, words } = spoken(&whole)?;
    if let Some(dot) = dot(&first).filter(|_| words.is_empty()) {
        return fitting(ends_word, dot.form, room);
    }
    if before.is_empty() && grammar.is_none() {
        return one_left(word, room);
    }
    let grammar = grammar?;
    let told = words.last().filter(|_| is_key(grammar.verb, words.len() - 1));
    match told.and_then(|key| known(grammar.verb, key, keys)) {
        Some(known) => fitting(ends_word, &known, room),
        None => fitting(ends_word, &form_after(grammar.form, words.len()), room),
    }
}

/// What is left of the only word that begins so.
fn one_left(word: &str, room: usize) -> Option<String> {
    let begins = |known: &&str| known.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut found =
        DOTS.iter().map(|dot| dot.word).chain(words().filter(|known| known.len() > 2)).filter(begins);
    let one = found.next().filter(|one| word.len() > 1 && one.len() > word.len())?;
    let rest = one.get(word.len()..)?;
    found.all(|other| other == one).then(|| rest.to_owned()).filter(|rest| rest.len() <= room)
}

/// What a form has after so many words.
fn form_after(form: &str, words: usize) -> String {
    let mut parts = form.split(' ').filter(|part| !part.is_empty());
    if form.ends_with("..") && words > 0 {
        return form.rsplit(' ').next().map(|last| format!("[{last}]")).unwrap_or_default();
    }
    for _ in 0..words {
        parts.next();
    }
    parts.collect::<Vec<_>>().join(" ")
}

/// What the memory tells of a key.
fn known(verb: Verb, key: &[u8], keys: &Keys) -> Option<String> {
    let known = keys.known(key)?;
    let size = size(known.size?);
    if verb == Verb::Set {
        return Some(format!("occupied, {size}"));
    }
    Some(match known.local {
        Some(true) => format!("{size}, local"),
        Some(false) => format!("{size}, not cached"),
        None => size,
    })
}

fn fitting(after_blank: bool, text: &str, room: usize) -> Option<String> {
    let text = if after_blank { text.trim_start().to_owned() } else { format!(" {}", text.trim_start()) };
    let fits = !text.trim().is_empty() && text.chars().count() <= room;
    fits.then_some(text)
}

/// The line in colours, as wide as it was.
pub(super) fn coloured(line: &str) -> Cow<'_, str> {
    if line.len() > LINE_BYTES_MAX || line.is_empty() {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 64);
    let (bytes, mut at, mut first) = (line.as_bytes(), 0, true);
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            out.push(char::from(bytes[at]));
            at += 1;
            continue;
        }
        let quoted = matches!(bytes[at], b'"' | b'\'');
        let len = match quoted_len(&bytes[at..]) {
            Some(len) if quoted => len,
            None if quoted => bytes.len() - at,
            _ => bytes[at..].iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len() - at),
        };
        // A quote may be followed by what is no blank; that is told when the line is run.
        let Some(word) = line.get(at..at + len) else { return Cow::Borrowed(line) };
        let known = || grammar(word.as_bytes()).is_some() || dot(word.as_bytes()).is_some();
        let colour = match (first, quoted) {
            (true, _) if known() => "\x1b[1;36m",
            // What is typed yet may become a word.
            (true, _) if at + len < bytes.len() => "\x1b[31m",
            (false, true) => "\x1b[32m",
            (false, false) if word.starts_with("--") => "\x1b[33m",
            _ => "",
        };
        if colour.is_empty() {
            out.push_str(word);
        } else {
            out.push_str(colour);
            out.push_str(word);
            out.push_str("\x1b[0m");
        }
        (at, first) = (at + len, false);
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[path = "hint_tests.rs"]
mod tests;
