//! Reads what follows a word: options, keys, a value.

use super::super::options::{self, How};
use super::super::render::Mode;
use super::super::scan::{Scanner, Word, quote};
use super::super::words::{Grammar, Opt, Takes, Verb, grammar};
use super::dot::path;
use super::{Command, Get, Given, Line, List, Sent, Warm, What, shown};
use bytes::Bytes;
use dstore_proto::store::Slice;
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{Attributes, BlobHash, ContentType, DeleteMode, Error, Key, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// What a BENCH does unless it is told otherwise, and the most of it.
const BENCH: (u64, u64) = (200, 100);
const BENCH_COUNT_MAX: u64 = 100_000;
const BENCH_BYTES_MAX: u64 = 64 << 20;

/// A word as it was written, and its grammar.
type Known = (&'static Grammar, &'static str);

/// The options of one line.
#[derive(Default)]
struct Said {
    mode: Option<Mode>,
    stale_ok: Option<Duration>,
    how: How,
    attributes: Attributes,
    after: Option<Bytes>,
    from: Option<u64>,
    count: Option<u64>,
    size: Option<u64>,
    limit: Option<u64>,
    long: bool,
}

/// Reads the line that began with a word of `grammar`; `body`: the lines of its heredoc.
pub(super) fn line(known: Known, scanner: &mut Scanner, body: Option<Result<Bytes>>) -> Result<Line> {
    let (mut said, grammar) = (Said::default(), known.0);
    let command = match grammar.verb {
        Verb::Set => set(known, scanner, &mut said, body)?,
        Verb::Add => {
            said.read(scanner, grammar)?;
            Command::Add(given(known, scanner, &mut said, body)?)
        }
        Verb::Get => get(known, scanner, &mut said)?,
        Verb::Delete => {
            if let Some(line) = delete_prefix(scanner)? {
                return Ok(line);
            }
            let keys = keys(known, scanner, &mut said)?;
            Command::Delete { keys, how: said.how }
        }
        Verb::Warm => warm(known, scanner, &mut said)?,
        _ => plain(known, scanner, &mut said)?,
    };
    Ok(Line { command, mode: said.mode })
}

/// What has nothing but options and words.
fn plain((grammar, word): Known, scanner: &mut Scanner, said: &mut Said) -> Result<Command> {
    let words = said.words(scanner, grammar)?;
    let key = |word: &Word| Key::new(word.bytes.clone());
    let (takes, at_least) = match grammar.verb {
        Verb::Unwatch | Verb::Status | Verb::Bench => (0, 0),
        Verb::Watch | Verb::List | Verb::Locals => (1, 0),
        Verb::Stat | Verb::Why => (1, 1),
        Verb::Same | Verb::Copy | Verb::Rename => (2, 2),
        _ => (usize::MAX, 1),
    };
    if words.len() < at_least {
        return Err(usage(grammar, word));
    }
    if words.len() > takes {
        return Err(Error::invalid(match takes {
            0 => format!("{word} takes nothing but options"),
            1 => format!("{word} takes one word: quote one that has blanks"),
            _ => format!("{word} takes two keys: quote a key that has blanks"),
        }));
    }
    let first = words.first().map(|word| word.bytes.clone()).unwrap_or_default();
    Ok(match grammar.verb {
        Verb::Watch => Command::Watch { prefix: first, after: said.from, count: said.count },
        Verb::List => Command::List(List {
            prefix: first,
            after: said.after.take().map(Key::new).transpose()?,
            limit: said.limit.map(|n| n.clamp(1, LIST_NAMES_MAX as u64) as usize),
            long: said.long,
        }),
        Verb::Unwatch => Command::Unwatch,
        Verb::Status => Command::Status,
        Verb::Bench => bench(said.count.unwrap_or(BENCH.0), said.size.unwrap_or(BENCH.1))?,
        Verb::Stat => Command::Stat(what(&words[0])?),
        Verb::Why => Command::Why(key(&words[0])?),
        Verb::Locals => Command::Locals(words.first().map(key).transpose()?),
        Verb::Same => Command::Same(key(&words[0])?, key(&words[1])?),
        Verb::Copy => Command::Copy { from: key(&words[0])?, to: key(&words[1])? },
        Verb::Rename => Command::Rename { from: key(&words[0])?, to: key(&words[1])? },
        Verb::Evict => Command::Evict(all(&words)?),
        Verb::Pin => Command::Pin(all(&words)?, true),
        Verb::Unpin => Command::Pin(all(&words)?, false),
        _ => Command::Exists(all(&words)?),
    })
}

fn all(words: &[Word]) -> Result<Vec<Key>> {
    words.iter().map(|word| Key::new(word.bytes.clone())).collect()
}

/// BENCH with `count` values of `size` bytes.
///
/// # Errors
/// `Invalid` if that is more than anybody would wait for.
pub fn bench(count: u64, size: u64) -> Result<Command> {
    if count == 0 || count > BENCH_COUNT_MAX || size > BENCH_BYTES_MAX || count * size.max(1) > 1 << 30 {
        return Err(Error::invalid(format!(
            "a BENCH of {count} values of {size} bytes: at most {BENCH_COUNT_MAX} values, {BENCH_BYTES_MAX} bytes each and 1 GiB together"
        )));
    }
    Ok(Command::Bench { count, size })
}

fn keys((grammar, word): Known, scanner: &mut Scanner, said: &mut Said) -> Result<Vec<Key>> {
    let words = said.words(scanner, grammar)?;
    if words.is_empty() { Err(usage(grammar, word)) } else { all(&words) }
}

fn get((grammar, word): Known, scanner: &mut Scanner, said: &mut Said) -> Result<Command> {
    said.read(scanner, grammar)?;
    let Some(key) = scanner.word()? else { return Err(usage(grammar, word)) };
    let mut get = Get { what: what(&key)?, stale_ok: None, slice: Slice::ALL, to: None };
    loop {
        said.read(scanner, grammar)?;
        match scanner.peek() {
            None => break,
            Some(b'>') => {
                scanner.skip_byte();
                let file = one_word(scanner, "> FILE")?;
                get.to = Some(Sent::File(path(&file)));
                break;
            }
            Some(b'|') => {
                scanner.skip_byte();
                let command = scanner.remainder();
                if command.is_empty() {
                    return Err(Error::invalid("`|` needs a command: write `GET KEY | COMMAND`"));
                }
                get.to = Some(Sent::Command(OsString::from_vec(command.to_vec())));
                break;
            }
            Some(_) if get.slice == Slice::ALL && scanner.skips(b"RANGE") => get.slice = range(scanner)?,
            Some(_) => {
                return Err(Error::invalid(format!(
                    "{word} takes one key: quote a key that has blanks; after it may come RANGE, `>` or `|`"
                )));
            }
        }
    }
    get.stale_ok = said.stale_ok;
    Ok(Command::Get(get))
}

/// `FIRST LAST`, both of them included.
fn range(scanner: &mut Scanner) -> Result<Slice> {
    let mut next = || Ok::<_, Error>(scanner.word()?.and_then(|word| number_of(&word.bytes)));
    match (next()?, next()?) {
        (Some(first), Some(last)) if first <= last => {
            Ok(Slice { offset: first, len: Some((last - first).saturating_add(1)) })
        }
        _ => Err(Error::invalid(
            "RANGE needs the first and the last byte, counted from 0: `RANGE 0 99` is the first 100",
        )),
    }
}

/// The one word that ends a line: a file, which may be quoted.
fn one_word(scanner: &mut Scanner, form: &str) -> Result<Bytes> {
    let word = scanner.word()?.filter(|word| !word.bytes.is_empty());
    match word {
        Some(word) if scanner.peek().is_none() => Ok(word.bytes),
        _ => Err(Error::invalid(format!("one file: write `{form}`, and quote one that has blanks"))),
    }
}

/// `@` and 64 hexadecimal digits, unquoted, are a hash; all else is a key.
fn what(word: &Word) -> Result<What> {
    let key = Key::new(word.bytes.clone())?;
    Ok(if word.quoted { What::Key(key) } else { What::written(key) })
}

pub(super) fn hash_of(word: &[u8]) -> Option<BlobHash> {
    let word = std::str::from_utf8(word.strip_prefix(b"@")?).ok()?;
    word.strip_prefix("blake3:").unwrap_or(word).parse().ok()
}

fn set(
    (grammar, word): Known,
    scanner: &mut Scanner,
    said: &mut Said,
    body: Option<Result<Bytes>>,
) -> Result<Command> {
    said.read(scanner, grammar)?;
    let Some(key) = scanner.word()? else { return Err(usage(grammar, word)) };
    let key = Key::new(key.bytes)?;
    said.read(scanner, grammar)?;
    let value = given((grammar, word), scanner, said, body)?;
    said.attributes.check()?;
    Ok(Command::Set { key, value, attributes: said.attributes.clone() })
}

/// One quoted word, or everything that is left, or what `< FILE` or `<<END` stands for.
fn given(
    (grammar, word): Known,
    scanner: &mut Scanner,
    said: &mut Said,
    body: Option<Result<Bytes>>,
) -> Result<Given> {
    if let Some(body) = body {
        return body.map(Given::Bytes);
    }
    match scanner.peek() {
        None => Err(usage(grammar, word)),
        Some(b'"' | b'\'') => {
            let word = scanner.word()?.unwrap_or_else(|| Word { bytes: Bytes::new(), quoted: true });
            said.read(scanner, grammar)?;
            if scanner.peek().is_some() {
                return Err(Error::invalid("nothing but options may follow a quoted value: quote all of it"));
            }
            Ok(Given::Bytes(word.bytes))
        }
        Some(b'<') if scanner.skips(b"<") => {
            one_word(scanner, "SET KEY < FILE").map(|file| Given::File(path(&file)))
        }
        Some(_) => Ok(Given::Bytes(scanner.remainder())),
    }
}

fn warm((grammar, word): Known, scanner: &mut Scanner, said: &mut Said) -> Result<Command> {
    said.read(scanner, grammar)?;
    if scanner.peek() == Some(b'<') && scanner.skips(b"<") {
        return Ok(Command::Warm(Warm::File(path(&one_word(scanner, "WARM < FILE")?))));
    }
    let words = said.words(scanner, grammar)?;
    match <[Word; 1]>::try_from(words) {
        Ok([prefix]) => Ok(Command::Warm(Warm::Prefix(prefix.bytes))),
        Err(_) => Err(usage(grammar, word)),
    }
}

/// What ends the heredoc that the first line of `line` begins: `SET KEY <<END`, `ADD <<END`.
pub fn heredoc(line: &[u8]) -> Option<Bytes> {
    let head = line.split(|b| *b == b'\n').next().unwrap_or_default();
    // Nearly every line is decided here.
    let at = head.windows(2).rposition(|two| two == b"<<")?;
    let end = head[at + 2..].trim_ascii();
    let fits = end.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && end.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !fits {
        return None;
    }
    let mut scanner = Scanner::new(Bytes::copy_from_slice(head));
    let (grammar, _) = grammar(&scanner.word().ok()??.bytes)?;
    let mut said = Said::default();
    said.read(&mut scanner, grammar).ok()?;
    match grammar.verb {
        Verb::Set => {
            scanner.word().ok()??;
            said.read(&mut scanner, grammar).ok()?;
        }
        Verb::Add => {}
        _ => return None,
    }
    (scanner.remainder() == head[at..].trim_ascii()).then(|| Bytes::copy_from_slice(end))
}

/// Cuts the lines of a heredoc, which must be ended, from the line that begins it.
pub(super) fn split_body(line: &mut Bytes) -> Result<Bytes> {
    let end = heredoc(line).unwrap_or_default();
    let head = line.iter().position(|b| *b == b'\n').unwrap_or(line.len());
    let rest = line.split_off(head);
    let mut at = rest.len().min(1);
    while at < rest.len() {
        let len = rest[at..].iter().position(|b| *b == b'\n').unwrap_or(rest.len() - at);
        if rest[at..at + len].trim_ascii_end() == end {
            return Ok(rest.slice(rest.len().min(1)..at));
        }
        at += len + 1;
    }
    Err(Error::invalid(format!("{OPEN_LINES}: end them with `{}`", shown(&end))))
}

impl Said {
    /// Reads the options that stand here.
    fn read(&mut self, scanner: &mut Scanner, grammar: &Grammar) -> Result<()> {
        while scanner.at_option() {
            let Some(word) = scanner.word()? else { break };
            if &word.bytes[..] == b"--" {
                scanner.end_options();
                break;
            }
            let (name, maybe) = match word.bytes.iter().position(|b| *b == b'=') {
                Some(at) => (word.bytes.slice(..at), Some(word.bytes.slice(at + 1..))),
                None => (word.bytes.clone(), None),
            };
            let known = grammar.options.iter().find(|opt| opt.name.as_bytes() == name);
            let Some(opt) = known.filter(|opt| maybe.is_none() || opt.takes != Takes::Nothing) else {
                return Err(unknown_option(&word.bytes, grammar));
            };
            let value = match (opt.takes, maybe) {
                (Takes::Value(form), None) => {
                    let word = scanner.word()?;
                    word.map(|word| word.bytes).ok_or_else(|| {
                        Error::invalid(format!("an option lacks its value: write `{} {form}`", opt.name))
                    })?
                }
                (_, maybe) => maybe.unwrap_or_default(),
            };
            self.take(opt, value)?;
        }
        Ok(())
    }

    fn take(&mut self, opt: &Opt, value: Bytes) -> Result<()> {
        let number = || {
            number_of(&value).ok_or_else(|| {
                Error::invalid(format!("{} needs a number, not `{}`", opt.name, shown(&value)))
            })
        };
        match opt.name {
            "--json" => self.mode = Some(Mode::Json),
            "--raw" => self.mode = Some(Mode::Raw),
            "--stale-ok" => {
                let given = (!value.is_empty()).then_some(&value[..]);
                self.stale_ok = Some(options::stale_wait(given)?);
            }
            "--async" => self.how.set_mode(DeleteMode::Async)?,
            "--deadline" => self.how.set_mode(DeleteMode::Deadline(options::time(&value)?))?,
            "--request" => self.how.request = Some(options::request_from(&value)?),
            "--ttl" => self.attributes.ttl = Some(options::time(&value)?),
            "--type" => {
                let words = std::str::from_utf8(&value).map_err(|_| {
                    Error::invalid(format!("`{}` is no content type: use ASCII", shown(&value)))
                })?;
                self.attributes.content_type = Some(ContentType::new(words)?);
            }
            "--after" => self.after = Some(value),
            "--from" => self.from = Some(number()?),
            "--count" => self.count = Some(number()?),
            "--size" => self.size = Some(number()?),
            "--limit" => self.limit = Some(number()?),
            "--long" => self.long = true,
            other => return Err(Error::internal(format!("`{other}` is told and not read: report this"))),
        }
        Ok(())
    }

    /// All words that are left, and the options between them.
    fn words(&mut self, scanner: &mut Scanner, grammar: &Grammar) -> Result<Vec<Word>> {
        let mut words = Vec::new();
        loop {
            self.read(scanner, grammar)?;
            let Some(word) = scanner.word()? else { return Ok(words) };
            words.push(word);
        }
    }
}

/// `--prefix PREFIX [-y]`, or `PREFIX P [-y]` where nothing else follows: a key may have any name, and one that is called
/// `PREFIX` is quoted.
fn delete_prefix(scanner: &mut Scanner) -> Result<Option<Line>> {
    let wrong = || Error::invalid(PREFIX_USAGE);
    let mut ahead = scanner.clone();
    let (mut mode, mut prefix, mut sure, mut meant) = (None, None, false, false);
    while let Some(next) = ahead.peek() {
        if !(ahead.at_option() || meant && next == b'-') {
            if !meant && ahead.skips(b"PREFIX") {
                meant = true;
                continue;
            }
            if !meant {
                return Ok(None);
            }
            let word = ahead.word()?.ok_or_else(wrong)?;
            if prefix.replace(word.bytes).is_some() {
                return Err(wrong());
            }
            continue;
        }
        let Some(option) = ahead.word()? else { break };
        match &option.bytes[..] {
            b"--json" => mode = Some(Mode::Json),
            b"-y" => sure = true,
            b"--prefix" if prefix.is_none() => {
                meant = true;
                prefix = Some(ahead.word()?.ok_or_else(wrong)?.bytes);
            }
            _ if meant => return Err(wrong()),
            _ => return Ok(None),
        }
    }
    if !meant {
        return Ok(None);
    }
    let prefix = prefix.ok_or_else(wrong)?;
    *scanner = ahead;
    Ok(Some(Line { command: Command::DeletePrefix { prefix, sure }, mode }))
}

/// Begins the message about a heredoc that has no end.
pub(in super::super) const OPEN_LINES: &str = "the lines of the value do not end";

const PREFIX_USAGE: &str = "a DEL by prefix takes a prefix and no keys: write `DEL PREFIX P [-y]`, and quote a key that is called \"PREFIX\"";

fn number_of(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn usage(grammar: &Grammar, word: &str) -> Error {
    let form = grammar.form;
    Error::invalid(match grammar.verb {
        Verb::Get => format!("{word} needs a key: write `{word} KEY`"),
        Verb::Set => {
            format!("{word} needs a key and a value: write `{word} KEY VALUE`, and `\"\"` for an empty value")
        }
        Verb::Add => format!("{word} needs a value: write `{word} VALUE`, and `\"\"` for an empty one"),
        Verb::Copy | Verb::Rename | Verb::Same => format!("{word} needs two keys: write `{word} KEY KEY`"),
        Verb::Warm => format!("{word} takes one prefix, or a file: write `{word} PREFIX` or `{word} < FILE`"),
        _ => format!("{word} needs a key: write `{word} {form}`"),
    })
}

fn unknown_option(other: &[u8], grammar: &Grammar) -> Error {
    let names: Vec<&str> = grammar.options.iter().map(|opt| opt.name).collect();
    let known = match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    };
    Error::invalid(format!(
        "`{}` is not an option here, known: {known}; as a key or value quote it: {}",
        shown(other),
        quote(&other[..other.len().min(64)]),
    ))
}
