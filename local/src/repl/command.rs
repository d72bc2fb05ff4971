//! What a line means: bytes in, a [`Command`] or a clear refusal out. Pure.
//!
//! `WORD [OPTION].. KEY [OPTION].. VALUE`: words in any case; options (`--json`, `--raw`, ..) before the value; the
//! value is the rest of the line without blanks around it, or one quoted word. `--` ends the options. `words` says
//! which words there are; `read` reads what follows one.

mod dot;
mod read;

use super::options::How;
use super::render::Mode;
use super::scan::{OPEN_QUOTE, Scanner};
use super::script::{Script, Separators};
use super::words::{self, nearest};
use bytes::Bytes;
use dstore_proto::store::Slice;
use dstore_shared::{Attributes, BlobHash, Error, Key, Result};
pub use read::{bench, heredoc};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
pub use words::words;

/// What is read or looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// What a key is bound to.
    Key(Key),
    /// The blob of this hash, whether a key is bound to it or not.
    Hash(BlobHash),
}

impl What {
    /// `@` and 64 hexadecimal digits are a hash; all else is a key.
    pub fn written(key: Key) -> Self {
        read::hash_of(key.as_bytes()).map_or(Self::Key(key), Self::Hash)
    }

    /// The key, if it is one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Key(key) => Some(key),
            Self::Hash(_) => None,
        }
    }
}

/// Where a value that is read goes, if not to the answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Into a file, which is then there whole or as it was.
    File(PathBuf),
    /// To the standard input of a command of the shell.
    Command(OsString),
}

/// Where a value that is stored comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// The line.
    Bytes(Bytes),
    /// A file.
    File(PathBuf),
}

/// A GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Get {
    /// Of what.
    pub what: What,
    /// An old value will do, if Global does not answer for so long and there is no lease.
    pub stale_ok: Option<Duration>,
    /// Only these bytes of it.
    pub slice: Slice,
    /// Where to.
    pub to: Option<Sent>,
}

impl Get {
    /// A GET of all of a value, to the answers.
    pub fn of(key: Key) -> Self {
        Self { what: What::Key(key), stale_ok: None, slice: Slice::ALL, to: None }
    }
}

/// A page of keys.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct List {
    /// What they begin with.
    pub prefix: Bytes,
    /// Only those after this one.
    pub after: Option<Key>,
    /// At most so many; else what `.limit` says.
    pub limit: Option<usize>,
    /// With size, hash and revision.
    pub long: bool,
}

/// Which keys a WARM fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warm {
    /// All that begin with this.
    Prefix(Bytes),
    /// Those on the lines of a file.
    File(PathBuf),
}

/// What one line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read a value.
    Get(Get),
    /// Store a value under a key.
    Set {
        /// The key.
        key: Key,
        /// The value.
        value: Given,
        /// What is said besides.
        attributes: Attributes,
    },
    /// Store a value without a key.
    Add(Given),
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
    /// Tell what is known without the value.
    Stat(What),
    /// Tell which keys there are.
    Exists(Vec<Key>),
    /// Tell whether two keys have one value.
    Same(Key, Key),
    /// Tell a page of keys.
    List(List),
    /// Tell what becomes of keys, as it happens.
    Watch {
        /// What the keys begin with.
        prefix: Bytes,
        /// Only changes after this revision; else from now on.
        after: Option<u64>,
        /// Ends after so many events.
        count: Option<u64>,
    },
    /// End the watches above the prompt.
    Unwatch,
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
    /// Let the node forget its copies.
    Evict(Vec<Key>),
    /// Keep values in the node's memory; or, with `false`, let them leave again.
    Pin(Vec<Key>, bool),
    /// Fetch values into the node.
    Warm(Warm),
    /// Tell which Locals are attached, and who holds a key.
    Locals(Option<Key>),
    /// Tell how a GET would go, hop by hop.
    Why(Key),
    /// Tell how the node is.
    Status,
    /// Time some commands.
    Bench {
        /// So many of each.
        count: u64,
        /// Values of so many bytes.
        size: u64,
    },
    /// Leave, with a code of one's own or with that of the first failure.
    Exit(Option<u8>),
    /// Tell the version.
    Version,
    /// Tell the words, or more about one.
    Help(Option<Bytes>),
    /// Change how answers are written, or tell how they are.
    Mode(Option<Mode>),
    /// Tell how long each command took, or not.
    Timer(Option<bool>),
    /// So many keys a page.
    Limit(Option<usize>),
    /// Stop after each page, or not.
    Pager(Option<bool>),
    /// End a script at its first failure, or not.
    Bail(Option<bool>),
    /// Run the lines of a file.
    Read(PathBuf),
    /// Write answers to a file, or to the screen again.
    Output(Option<PathBuf>),
    /// Write the last line anew.
    Edit,
    /// Talk to another node.
    Connect(String),
    /// Tell the last lines.
    History(usize),
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

/// Reads a line, with or without its line end. `Ok(None)`: it is empty.
///
/// # Errors
/// As [`Refused`]; no input makes it panic.
pub fn parse(line: impl Into<Bytes>) -> Result<Option<Line>, Refused> {
    let mut line: Bytes = line.into();
    let body = heredoc(&line).is_some().then(|| read::split_body(&mut line));
    let mut scanner = Scanner::new(line);
    let Some(first) = scanner.word()? else { return Ok(None) };
    if first.bytes.starts_with(b".") && !first.quoted {
        return dot::read(&first.bytes, &mut scanner).map(Some);
    }
    match words::grammar(&first.bytes) {
        Some(known) => Ok(Some(read::line(known, &mut scanner, body)?)),
        None => Err(Refused::UnknownWord(Error::invalid(format!(
            "`{}` is not a command: {}see `.help`",
            shown(&first.bytes),
            meant(&first.bytes),
        )))),
    }
}

/// Whether lines that were typed want another: a quote or a heredoc is open.
pub fn is_open(text: &str) -> bool {
    let lines = Script::new(text.as_bytes().to_vec(), Separators::LineEnds);
    let error = match lines.last() {
        Some(Ok(line)) => parse(line).err(),
        Some(Err(e)) => Some(Refused::Usage(e)),
        None => None,
    };
    error.is_some_and(|refused| {
        let message = refused.error().message();
        message.starts_with(OPEN_QUOTE) || message.starts_with(read::OPEN_LINES)
    })
}

/// `did you mean ..`, if there is a word like it.
fn meant(typed: &[u8]) -> String {
    nearest(typed, words()).map(|word| format!("did you mean `{word}`? ")).unwrap_or_default()
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
