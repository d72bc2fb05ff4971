//! What a line means: bytes in, a [`Command`] or a clear refusal out. Pure.
//!
//! `WORD [OPTION].. KEY [OPTION].. VALUE`: words in any case; options (`--json`, `--raw`, ..) before the value; the
//! value is the rest of the line without blanks around it, or one quoted word. `--` ends the options.

use super::options::{self, How};
use super::render::Mode;
use super::scan::{Scanner, Word, quote};
use bytes::Bytes;
use dstore_shared::{DeleteMode, Error, Key, Result};
use std::time::Duration;

/// What one line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read a value.
    Get {
        /// Its key.
        key: Key,
        /// An old value will do, if Global does not answer for so long and there is no lease.
        stale_ok: Option<Duration>,
    },
    /// Store a value under a key.
    Set {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
    },
    /// Unbind keys, all or none.
    Delete {
        /// The keys, at least one.
        keys: Vec<Key>,
        /// When it is answered, and which request it repeats.
        how: How,
    },
    /// Unbind all keys that begin with something, all or none.
    DeletePrefix {
        /// What they begin with.
        prefix: Bytes,
        /// Whoever asks has said that he means it.
        sure: bool,
    },
    /// Tell what becomes of keys, as it happens.
    Watch {
        /// What the keys begin with.
        prefix: Bytes,
        /// Only changes after this revision; else from now on.
        after: Option<u64>,
        /// Ends after so many events.
        count: Option<u64>,
    },
    /// Let a key have the value of another.
    Copy {
        /// The key that has it.
        from: Key,
        /// The key that is to have it too.
        to: Key,
    },
    /// Move a value to another key.
    Rename {
        /// The key that has it.
        from: Key,
        /// The key that is to have it.
        to: Key,
    },
    /// Tell how the node is; only `dstore status` says it.
    Status,
    /// Leave, with a code of one's own or with that of the first failure.
    Exit(Option<u8>),
    /// Tell the version.
    Version,
    /// Tell the words.
    Help,
    /// Change how answers are written, or tell how they are.
    Mode(Option<Mode>),
}

/// A command and how its answer is to be written, if not as the session does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// What is asked for.
    pub command: Command,
    /// How to write the answer to this one command.
    pub mode: Option<Mode>,
}

/// Why a line is not a command.
#[derive(Clone, Debug)]
pub enum Refused {
    /// It begins with a word that nobody knows.
    UnknownWord(Error),
    /// It begins with a dot, and is no dot word or has a wrong argument.
    DotWord(Error),
    /// Its words are known, its form is wrong.
    Usage(Error),
}

impl Refused {
    /// What is wrong and what to do.
    pub fn error(&self) -> &Error {
        match self {
            Self::UnknownWord(e) | Self::DotWord(e) | Self::Usage(e) => e,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Usage(error)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
    Delete,
    Watch,
    Copy,
    Rename,
}

/// Every word of the language with what it means, for the parser, the help and completion.
const WORDS: [(&str, Verb); 19] = [
    ("GET", Verb::Get),
    ("SELECT", Verb::Get),
    ("OUTPUT", Verb::Get),
    ("OUT", Verb::Get),
    ("O", Verb::Get),
    ("SET", Verb::Set),
    ("PUT", Verb::Set),
    ("INSERT", Verb::Set),
    ("IN", Verb::Set),
    ("I", Verb::Set),
    ("DEL", Verb::Delete),
    ("DELETE", Verb::Delete),
    ("REM", Verb::Delete),
    ("REMOVE", Verb::Delete),
    ("RM", Verb::Delete),
    ("D", Verb::Delete),
    ("WATCH", Verb::Watch),
    ("COPY", Verb::Copy),
    ("RENAME", Verb::Rename),
];

/// The words that begin with a dot.
const DOT_WORDS: [&str; 4] = [".exit", ".help", ".mode", ".version"];

/// Every word a line can begin with.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word).chain(DOT_WORDS)
}

/// Reads a line, with or without its line end. `Ok(None)`: it is empty.
///
/// # Errors
/// As [`Refused`]; no input makes it panic.
pub fn parse(line: impl Into<Bytes>) -> Result<Option<Line>, Refused> {
    let mut scanner = Scanner::new(line.into());
    let Some(first) = scanner.word()? else { return Ok(None) };
    if first.bytes.starts_with(b".") && !first.quoted {
        return dot_word(&first.bytes, &mut scanner).map(Some);
    }
    let known = WORDS.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(&first.bytes));
    match known {
        Some((word, verb)) => Ok(Some(verb.read(word, &mut scanner)?)),
        None => Err(Refused::UnknownWord(Error::invalid(format!(
            "`{}` is not a command: see `.help`",
            shown(&first.bytes)
        )))),
    }
}

impl Verb {
    fn read(self, word: &str, scanner: &mut Scanner) -> Result<Line> {
        if self == Self::Watch {
            return watch(scanner);
        }
        if self == Self::Delete
            && let Some(line) = delete_prefix(scanner)?
        {
            return Ok(line);
        }
        let mut asked = Options::default();
        asked.read(scanner, self)?;
        let Some(key) = scanner.word()? else { return Err(self.usage(word)) };
        let key = Key::new(key.bytes)?;
        let command = match self {
            Self::Get => {
                asked.read(scanner, self)?;
                if scanner.peek().is_some() {
                    return Err(Error::invalid(format!("{word} takes one key: quote a key that has blanks")));
                }
                Command::Get { key, stale_ok: asked.stale_ok }
            }
            Self::Set => {
                asked.read(scanner, self)?;
                let Some(value) = value(scanner)? else { return Err(self.usage(word)) };
                if value.quoted {
                    asked.read(scanner, self)?;
                    if scanner.peek().is_some() {
                        return Err(Error::invalid(
                            "nothing but options may follow a quoted value: quote all of it",
                        ));
                    }
                }
                Command::Set { key, value: value.bytes }
            }
            Self::Copy | Self::Rename => {
                asked.read(scanner, self)?;
                let Some(to) = scanner.word()? else { return Err(self.usage(word)) };
                asked.read(scanner, self)?;
                if scanner.peek().is_some() {
                    return Err(Error::invalid(format!(
                        "{word} takes two keys: quote a key that has blanks"
                    )));
                }
                let (from, to) = (key, Key::new(to.bytes)?);
                if self == Self::Copy { Command::Copy { from, to } } else { Command::Rename { from, to } }
            }
            Self::Delete => {
                let mut keys = vec![key];
                loop {
                    asked.read(scanner, self)?;
                    let Some(word) = scanner.word()? else { break };
                    keys.push(Key::new(word.bytes)?);
                }
                Command::Delete { keys, how: asked.how }
            }
            Self::Watch => return Err(self.usage(word)),
        };
        Ok(Line { command, mode: asked.mode })
    }

    fn usage(self, word: &str) -> Error {
        Error::invalid(match self {
            Self::Get => format!("{word} needs a key: write `{word} KEY`"),
            Self::Set => format!(
                "{word} needs a key and a value: write `{word} KEY VALUE`, and `\"\"` for an empty value"
            ),
            Self::Delete => format!("{word} needs a key: write `{word} KEY..`"),
            Self::Watch => WATCH_USAGE.to_owned(),
            Self::Copy | Self::Rename => format!("{word} needs two keys: write `{word} KEY KEY`"),
        })
    }
}

/// `--prefix PREFIX [OPTION]..`: an option, because a key may have any name.
fn delete_prefix(scanner: &mut Scanner) -> Result<Option<Line>> {
    let mut ahead = scanner.clone();
    let (mut mode, mut prefix, mut sure) = (None, None, false);
    while ahead.at_option() || prefix.is_some() && ahead.peek() == Some(b'-') {
        let Some(option) = ahead.word()? else { break };
        match &option.bytes[..] {
            b"--json" => mode = Some(Mode::Json),
            b"-y" => sure = true,
            b"--prefix" => match ahead.word()? {
                Some(word) => prefix = Some(word.bytes),
                None => return Err(Error::invalid(PREFIX_USAGE)),
            },
            _ if prefix.is_none() => return Ok(None),
            _ => return Err(Error::invalid(PREFIX_USAGE)),
        }
    }
    let Some(prefix) = prefix else { return Ok(None) };
    if ahead.peek().is_some() {
        return Err(Error::invalid(PREFIX_USAGE));
    }
    *scanner = ahead;
    Ok(Some(Line { command: Command::DeletePrefix { prefix, sure }, mode }))
}

const PREFIX_USAGE: &str = "DEL --prefix takes a prefix and no keys: write `DEL --prefix PREFIX [-y]`";
const WATCH_USAGE: &str = "WATCH takes a prefix: write `WATCH [--from REVISION] [--count N] [PREFIX]`";

/// `[OPTION].. [PREFIX] [OPTION]..`
fn watch(scanner: &mut Scanner) -> Result<Line> {
    let (mut mode, mut after, mut count, mut prefix) = (None, None, None, None);
    while scanner.peek().is_some() {
        if !scanner.at_option() {
            let Some(word) = scanner.word()? else { break };
            if prefix.replace(word.bytes).is_some() {
                return Err(Error::invalid("WATCH takes one prefix: quote one that has blanks"));
            }
            continue;
        }
        let Some(option) = scanner.word()? else { break };
        match &option.bytes[..] {
            b"--" => scanner.end_options(),
            b"--json" => mode = Some(Mode::Json),
            b"--from" => after = Some(number(scanner, "--from")?),
            b"--count" => count = Some(number(scanner, "--count")?),
            other => {
                return Err(Error::invalid(format!(
                    "`{}` is not an option here, known: --from, --count and --json; as a prefix quote it",
                    shown(other)
                )));
            }
        }
    }
    let command = Command::Watch { prefix: prefix.unwrap_or_default(), after, count };
    Ok(Line { command, mode })
}

fn number(scanner: &mut Scanner, option: &str) -> Result<u64> {
    let word = scanner.word()?;
    let text = word.as_ref().and_then(|word| std::str::from_utf8(&word.bytes).ok());
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::invalid(format!("{option} needs a number: {WATCH_USAGE}")))
}

/// One quoted word, or everything that is left.
fn value(scanner: &mut Scanner) -> Result<Option<Word>> {
    match scanner.peek() {
        None => Ok(None),
        Some(b'"' | b'\'') => scanner.word(),
        Some(_) => Ok(Some(Word { bytes: scanner.remainder(), quoted: false })),
    }
}

/// The options of one line.
#[derive(Default)]
struct Options {
    mode: Option<Mode>,
    stale_ok: Option<Duration>,
    how: How,
}

impl Options {
    /// Reads those that stand here.
    fn read(&mut self, scanner: &mut Scanner, verb: Verb) -> Result<()> {
        while scanner.at_option() {
            let Some(option) = scanner.word()? else { break };
            match (&option.bytes[..], verb) {
                (b"--", _) => scanner.end_options(),
                (b"--json", _) => self.mode = Some(Mode::Json),
                (b"--raw", Verb::Get) => self.mode = Some(Mode::Raw),
                (b"--stale-ok", Verb::Get) => self.stale_ok = Some(options::stale_wait(None)?),
                (given, Verb::Get) if given.starts_with(b"--stale-ok=") => {
                    self.stale_ok = Some(options::stale_wait(Some(&given[b"--stale-ok=".len()..]))?);
                }
                (b"--async", Verb::Delete) => self.how.set_mode(DeleteMode::Async)?,
                (b"--deadline", Verb::Delete) => {
                    let limit = options::time(&value_of(scanner, "--deadline TIME")?)?;
                    self.how.set_mode(DeleteMode::Deadline(limit))?;
                }
                (b"--request", Verb::Delete) => {
                    let word = value_of(scanner, "--request WORD")?;
                    self.how.request = Some(options::request_from(&word)?);
                }
                (other, _) => return Err(unknown_option(other, verb)),
            }
        }
        Ok(())
    }
}

fn value_of(scanner: &mut Scanner, form: &str) -> Result<Bytes> {
    let word = scanner
        .word()?
        .ok_or_else(|| Error::invalid(format!("an option lacks its value: write `{form}`")))?;
    Ok(word.bytes)
}

fn unknown_option(other: &[u8], verb: Verb) -> Error {
    let known = match verb {
        Verb::Get => "--json, --raw and --stale-ok",
        Verb::Set | Verb::Copy | Verb::Rename => "--json",
        Verb::Delete => "--json, --async, --deadline, --request and --prefix",
        Verb::Watch => "--json, --from and --count",
    };
    Error::invalid(format!(
        "`{}` is not an option here, known: {known}; as a key or value quote it: {}",
        shown(other),
        quote(&other[..other.len().min(64)]),
    ))
}

fn dot_word(word: &[u8], scanner: &mut Scanner) -> Result<Line, Refused> {
    let wrong = |message: String| Err(Refused::DotWord(Error::invalid(message)));
    let argument = scanner.remainder();
    let text = String::from_utf8_lossy(&argument).to_ascii_lowercase();
    let command = match (word.to_ascii_lowercase().as_slice(), text.as_str()) {
        (b".exit", "") => Command::Exit(None),
        (b".exit", code) => match code.parse() {
            Ok(code) => Command::Exit(Some(code)),
            Err(_) => return wrong(format!("`{}` is not an exit code: use 0 to 255", shown(&argument))),
        },
        (b".version", "") => Command::Version,
        (b".help", "") => Command::Help,
        (b".mode", "") => Command::Mode(None),
        (b".mode", mode) => match mode.parse() {
            Ok(mode) => Command::Mode(Some(mode)),
            Err(()) => return wrong(format!("`{}` is not a mode: use text, raw or json", shown(&argument))),
        },
        (b".version" | b".help", _) => return wrong(format!("`{}` takes nothing after it", shown(word))),
        _ => return wrong(format!("`{}` is not known: use .exit, .help, .mode or .version", shown(word))),
    };
    Ok(Line { command, mode: None })
}

/// The beginning of `bytes`, safe to show in a message.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    let rest = if bytes.len() > SHOWN_MAX { ".." } else { "" };
    format!("{}{rest}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii())
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
