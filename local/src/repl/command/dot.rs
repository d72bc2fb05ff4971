//! Reads the words that begin with a dot.

use super::super::words::{dot, help_of, words};
use super::{Command, Line, Refused, meant, shown};
use crate::repl::scan::Scanner;
use crate::repl::words::nearest;
use bytes::Bytes;
use dstore_shared::Error;
use dstore_shared::limits::LIST_NAMES_MAX;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Lines that `.history` tells, unless it is given a number.
const HISTORY_LINES: usize = 20;

fn wrong<T>(message: String) -> Result<T, Refused> {
    Err(Refused::DotWord(Error::invalid(message)))
}

/// Reads the arguments of `word`.
pub(super) fn read(word: &[u8], scanner: &mut Scanner) -> Result<Line, Refused> {
    let Some(known) = dot(word) else {
        return wrong(format!("`{}` is not known: {}see `.help`", shown(word), meant(word)));
    };
    // A path may be quoted, or be all that is left.
    let quoted = matches!(scanner.peek(), Some(b'"' | b'\''));
    let argument = match scanner.clone().word() {
        Ok(Some(only)) if quoted => {
            let _ = scanner.word()?;
            if scanner.peek().is_some() {
                return wrong(format!("`{}` takes one word: quote all of it", known.word));
            }
            only.bytes
        }
        _ => scanner.remainder(),
    };
    let text = String::from_utf8_lossy(&argument).to_ascii_lowercase();
    let command = match (known.word, text.as_str()) {
        (".exit", "") => Command::Exit(None),
        (".exit", code) => match code.parse() {
            Ok(code) => Command::Exit(Some(code)),
            Err(_) => return wrong(format!("`{}` is not an exit code: use 0 to 255", shown(&argument))),
        },
        (".help", "") => Command::Help(None),
        (".help", _) => help(argument)?,
        (".mode", "") => Command::Mode(None),
        (".mode", mode) => match mode.parse() {
            Ok(mode) => Command::Mode(Some(mode)),
            Err(()) => {
                return wrong(format!(
                    "`{}` is not a mode: use text, pretty, raw, hex, json, jsonl or csv",
                    shown(&argument)
                ));
            }
        },
        (".timer", _) => Command::Timer(switch(known.word, &text)?),
        (".pager", _) => Command::Pager(switch(known.word, &text)?),
        (".bail", _) => Command::Bail(switch(known.word, &text)?),
        (".limit", "") => Command::Limit(None),
        (".limit", n) => match n.parse() {
            Ok(n) if (1..=LIST_NAMES_MAX).contains(&n) => Command::Limit(Some(n)),
            _ => return wrong(format!("`{}` is no limit: use 1 to {LIST_NAMES_MAX}", shown(&argument))),
        },
        (".history", "") => Command::History(HISTORY_LINES),
        (".history", n) => match n.parse() {
            Ok(n) => Command::History(n),
            Err(_) => return wrong(format!("`{}` is no number of lines", shown(&argument))),
        },
        (".output", "") => Command::Output(None),
        (".output", _) => Command::Output(Some(path(&argument))),
        (".read" | ".connect", "") => {
            return wrong(format!("`{0}` needs something: write `{0} {1}`", known.word, known.form));
        }
        (".read", _) => Command::Read(path(&argument)),
        (".connect", _) => match std::str::from_utf8(&argument) {
            Ok(address) => Command::Connect(address.to_owned()),
            Err(_) => return wrong(format!("`{}` is no address", shown(&argument))),
        },
        (".version", "") => Command::Version,
        (".edit", "") => Command::Edit,
        _ => return wrong(format!("`{}` takes nothing after it", known.word)),
    };
    Ok(Line { command, mode: None })
}

fn help(word: Bytes) -> Result<Command, Refused> {
    if help_of(&word).is_some() {
        return Ok(Command::Help(Some(word)));
    }
    let meant = nearest(&word, words()).map(|word| format!(": did you mean `{word}`?")).unwrap_or_default();
    wrong(format!("there is no word `{}`{meant}", shown(&word)))
}

fn switch(word: &str, argument: &str) -> Result<Option<bool>, Refused> {
    match argument {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => wrong(format!("`{word}` is on or off, not `{}`", shown(other.as_bytes()))),
    }
}

/// The path of these bytes.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}
