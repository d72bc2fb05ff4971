//! The REPL: lines, scripts, and what is shown of bytes.

use dstore_local::repl::{Command, Escaper, Script, Separators, escape, parse, printable, quote};
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
        Command::Get { key: k, stale_ok: None } => format!("GET {}", key(k)),
        Command::Get { key: k, stale_ok: Some(wait) } => format!("GET --stale-ok={} {}", time(*wait), key(k)),
        Command::Set { key: k, value } => format!("SET {} {}", key(k), quote(value)),
        Command::Delete { keys, how } => {
            let mode = match how.mode {
                DeleteMode::Strict => String::new(),
                DeleteMode::Async => "--async ".to_owned(),
                DeleteMode::Deadline(limit) => format!("--deadline {} ", time(limit)),
            };
            let request = how.request.as_ref().map_or_else(String::new, request);
            format!("DEL {mode}{request}{}", keys.iter().map(key).collect::<Vec<_>>().join(" "))
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
        Command::Status | Command::Exit(_) | Command::Version | Command::Help | Command::Mode(_) => {
            return None;
        }
    })
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
        let expected = Command::Get { key, stale_ok: None };
        assert_eq!(get.expect("a quoted key").expect("a command").command, expected);
    }
    Ok(())
}
