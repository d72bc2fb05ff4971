//! The REPL: lines, scripts, and what is shown of bytes.

use dstore_local::repl::{
    Command, Escaper, Get, Given, List, Script, Sent, Separators, Warm, What, escape, parse, printable, quote,
};
use dstore_shared::{DeleteMode, Key, RequestId, Result};
use std::time::Duration;

/// A line; what it means, written in full, means the same.
pub fn line(bytes: &[u8]) -> Result<()> {
    let line = parse(bytes.to_vec()).map_err(|refused| {
        // The prompt shows it as it is.
        assert!(!refused.error().message().chars().any(char::is_control), "{:?}", refused.error());
        refused.error().clone()
    });
    let Some(line) = line? else { return Ok(()) };
    let Some(full) = written(&line.command) else { return Ok(()) };
    let again = parse(full.clone().into_bytes());
    let again = again.unwrap_or_else(|refused| panic!("{full}: {}", refused.error()));
    assert_eq!(again.expect("a command").command, line.command, "{full}");
    Ok(())
}

/// The command with every word quoted; `None` for dot words.
fn written(command: &Command) -> Option<String> {
    let key = |key: &Key| quote(key.as_bytes());
    Some(match command {
        Command::Get(Get { what, stale_ok, slice, to }) => {
            let stale_ok = stale_ok.map_or_else(String::new, |wait| format!("--stale-ok={} ", time(wait)));
            let range = slice.len.map_or_else(String::new, |len| {
                format!(" RANGE {} {}", slice.offset, slice.offset.saturating_add(len - 1))
            });
            // A range to the end of all numbers is one byte shorter when it is written.
            if slice.len.is_some_and(|len| slice.offset.checked_add(len).is_none()) {
                return None;
            }
            let to = match to {
                None => String::new(),
                Some(Sent::File(path)) => format!(" > {}", quote(path.as_os_str().as_encoded_bytes())),
                // Bytes of the shell, which are never quoted.
                Some(Sent::Command(_)) => return None,
            };
            format!("GET {stale_ok}{}{range}{to}", named(what))
        }
        Command::Set { key: k, value, attributes } => {
            let ttl = attributes.ttl.map_or_else(String::new, |ttl| format!("--ttl {} ", time(ttl)));
            let words = attributes.content_type.as_ref();
            let words = words
                .map_or_else(String::new, |words| format!("--type {} ", quote(words.as_str().as_bytes())));
            format!("SET {ttl}{words}{} {}", key(k), given(value))
        }
        Command::Add(value) => format!("ADD {}", given(value)),
        Command::Stat(what) => format!("STAT {}", named(what)),
        Command::Exists(keys) => format!("EXISTS {}", all(keys)),
        Command::Same(a, b) => format!("SAME {} {}", key(a), key(b)),
        Command::List(List { prefix, after, limit, long }) => {
            let after = after.as_ref().map_or_else(String::new, |after| format!("--after {} ", key(after)));
            let limit = limit.map_or_else(String::new, |n| format!("--limit {n} "));
            format!("LS {after}{limit}{}{}", if *long { "--long " } else { "" }, quote(prefix))
        }
        Command::Evict(keys) => format!("EVICT {}", all(keys)),
        Command::Pin(keys, true) => format!("PIN {}", all(keys)),
        Command::Pin(keys, false) => format!("UNPIN {}", all(keys)),
        Command::Warm(Warm::Prefix(prefix)) => format!("WARM {}", quote(prefix)),
        Command::Warm(Warm::File(path)) => format!("WARM < {}", quote(path.as_os_str().as_encoded_bytes())),
        Command::Locals(None) => "LOCALS".to_owned(),
        Command::Locals(Some(k)) => format!("LOCALS {}", key(k)),
        Command::Why(k) => format!("WHY {}", key(k)),
        Command::Bench { count, size } => format!("BENCH --count {count} --size {size}"),
        Command::Delete { keys, how } => {
            let mode = match how.mode {
                DeleteMode::Strict => String::new(),
                DeleteMode::Async => "--async ".to_owned(),
                DeleteMode::Deadline(limit) => format!("--deadline {} ", time(limit)),
            };
            let request = how.request.as_ref().map_or_else(String::new, request);
            format!("DEL {mode}{request}{}", all(keys))
        }
        Command::DeletePrefix { prefix, sure } => {
            format!("DEL --prefix {}{}", quote(prefix), if *sure { " -y" } else { "" })
        }
        Command::Watch { prefix, after, count } => {
            let number = |name: &str, n: &Option<u64>| n.map_or_else(String::new, |n| format!("{name} {n} "));
            format!("WATCH {}{}{}", number("--from", after), number("--count", count), quote(prefix))
        }
        Command::Copy { from, to } => format!("COPY {} {}", key(from), key(to)),
        Command::Rename { from, to } => format!("RENAME {} {}", key(from), key(to)),
        _ => return None,
    })
}

fn all(keys: &[Key]) -> String {
    keys.iter().map(|key| quote(key.as_bytes())).collect::<Vec<_>>().join(" ")
}

fn named(what: &What) -> String {
    match what {
        What::Key(key) => quote(key.as_bytes()),
        What::Hash(hash) => format!("@{hash}"),
    }
}

fn given(value: &Given) -> String {
    match value {
        Given::Bytes(bytes) => quote(bytes),
        Given::File(path) => format!("< {}", quote(path.as_os_str().as_encoded_bytes())),
    }
}

fn time(time: Duration) -> String {
    let ms = time.as_millis();
    if ms < 1_000_000_000 { format!("{ms}ms") } else { format!("{}s", ms / 1000) }
}

fn request(id: &RequestId) -> String {
    let RequestId { client, n, born } = id;
    format!("--request {client}-{n}-{}-{}-{} ", born.history, born.boot, born.at_ms)
}

/// A script, of `-c` if the first byte is even, else pasted: nothing of it is lost or comes twice.
pub fn script(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let separators = if which % 2 == 0 { Separators::Semicolons } else { Separators::LineEnds };
    let mut at = 0;
    for line in Script::new(bytes.to_vec(), separators) {
        let line = line?;
        assert_eq!(bytes.get(at..at + line.len()), Some(&line[..]));
        at += line.len();
        let separator = bytes.get(at).copied();
        assert!(matches!(separator, None | Some(b'\n' | b';')), "{separator:?}");
        at += usize::from(separator.is_some());
        _ = self::line(&line);
    }
    assert_eq!(at, bytes.len());
    Ok(())
}

/// Bytes as they are shown, in whole and in two pieces: nothing that a terminal obeys.
#[expect(clippy::unnecessary_wraps, reason = "it refuses nothing, others do")]
pub fn shown(bytes: &[u8]) -> Result<()> {
    let Some((cut, bytes)) = bytes.split_first() else { return Ok(()) };
    let (a, b) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let mut escaper = Escaper::one_line();
    let pieces = [escaper.push(a), escaper.push(b), escaper.finish()].concat();
    assert_eq!(pieces, escape(bytes));
    let mut layout = Escaper::keeping_layout();
    let with_layout = [layout.push(a), layout.push(b), layout.finish()].concat();
    let json = printable(&String::from_utf8_lossy(bytes));
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(![&pieces, &json, &quote(bytes)].into_iter().any(|text| text.contains(obeyed)));
    assert!(!with_layout.contains(|c| obeyed(c) && c != '\n' && c != '\t'));
    if let Ok(key) = Key::new(bytes.to_vec()) {
        let get = parse(format!("GET {}", quote(bytes)).into_bytes());
        let expected = Command::Get(Get::of(key));
        assert_eq!(get.expect("a quoted key").expect("a command").command, expected);
    }
    Ok(())
}
