//! The exact texts of the REPL language: a result in, lines out. Pure; nothing here knows a terminal.
//!
//! One row of the table in the design is one constant or function here, and one row of the tests. They are a
//! promise to scripts: change none of them.

use super::escape::escape;
use super::exit;
use dstore_proto::store::{DeleteReply, Provenance, SetReply, Status, Tier};
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{CopyResult, Entry, Key, PrefixOutcome, SetOutcome};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The lines of the table; values escaped to one line.
    #[default]
    Text,
    /// GET writes the exact bytes and nothing else; every other line goes to standard error.
    Raw,
    /// One JSON object a command.
    Json,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Raw => "raw",
            Self::Json => "json",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Text, Self::Raw, Self::Json].into_iter().find(|mode| mode.to_string() == text).ok_or(())
    }
}

/// The prompt.
pub const PROMPT: &str = "db > ";
/// Of a GET, of a COPY or RENAME, and of each key of a DEL, that is nowhere.
pub const NOWHERE: &str = "Key-Value mapping doesn't exist";
/// Of each key that a DEL removed.
pub const REMOVED: &str = "Key removed (global and local)";
/// Of a SET, COPY or RENAME that bound the key.
pub const UPDATED: &str = "Database updated";
/// Of a SET whose key is taken.
pub const OCCUPIED: &str = "Key occupied!";
/// Of a SET whose key turned out to be taken, and is now held by this Local too.
pub const OCCUPIED_AND_TAKEN: &str = "(Updated local) Key occupied!";
/// Of a first word that nobody knows.
pub const UNKNOWN: &str = "Unknown command!";
/// Of a dot word that nobody knows.
pub const UNPARSED: &str = "Unsuccessful parsing!";
/// Ends the line of a GET whose value the Local keeps from now on.
const FILLED: &str = "     (Updating Local)";

/// What stands at the start of a session on a terminal.
pub fn banner(version: &str, address: &str) -> [String; 3] {
    [
        format!("dstore v{version} (addr: {address})"),
        "Every answer says which tier gave it; `.help` lists the commands".into(),
        "Use `.exit` to exit the repl".into(),
    ]
}

/// What stands before and after the value in the line of a GET that found it.
pub fn around_value(key: &Key, from: Provenance) -> (String, &'static str) {
    let (tier, after) = match (from.tier, from.cached) {
        (Tier::Local, _) => ("db", ""),
        (Tier::Global, true) => ("global", FILLED),
        (Tier::Global, false) => ("global", ""),
    };
    (format!("{tier}: {} -> ", escape(key.as_bytes())), after)
}

/// The line of a SET and its exit code.
pub fn set_line(reply: &SetReply) -> (&'static str, u8) {
    match (&reply.outcome, reply.from.tier, reply.from.cached) {
        (SetOutcome::Stored(_), ..) => (UPDATED, exit::OK),
        (SetOutcome::Unchanged(_), ..) => (OCCUPIED, exit::OK),
        (SetOutcome::Occupied(_), Tier::Global, true) => (OCCUPIED_AND_TAKEN, exit::OCCUPIED),
        (SetOutcome::Occupied(_), ..) => (OCCUPIED, exit::OCCUPIED),
        // A defect of the node, by the contract of `Store`: the session says so.
        (SetOutcome::NeedBlob, ..) => (OCCUPIED, exit::SOFTWARE),
    }
}

/// The line of a COPY or RENAME and its exit code.
pub fn copy_line(result: &CopyResult) -> (&'static str, u8) {
    match result {
        CopyResult::Done(_) => (UPDATED, exit::OK),
        CopyResult::Unchanged(_) => (OCCUPIED, exit::OK),
        CopyResult::Occupied(_) => (OCCUPIED, exit::OCCUPIED),
        CopyResult::NotFound => (NOWHERE, exit::NOT_FOUND),
    }
}

/// Beside every answer of a Global that acknowledges before it syncs.
pub fn loss_note(loss: Duration) -> String {
    let ms = loss.as_millis();
    format!(
        "perhaps not durable yet: up to {ms} ms of changes may be lost by a crash of global (--sync relaxed)"
    )
}

/// The lines of a DEL, one a key.
pub fn delete_lines(reply: &DeleteReply) -> impl Iterator<Item = &'static str> {
    reply.removed.iter().map(|removed| if *removed { REMOVED } else { NOWHERE })
}

/// The line of a DEL by prefix.
pub fn prefix_line(done: &PrefixOutcome) -> String {
    match done.removed {
        0 => NOWHERE.into(),
        1 => "1 key removed (global and local)".to_owned(),
        n => format!("{n} keys removed (global and local)"),
    }
}

/// The line of one event of a watch.
pub fn event_line(event: &Event) -> String {
    let (revision, key) = (event.revision, escape(event.key.as_bytes()));
    match &event.happened {
        Happened::Bound(Entry { hash, size, .. }) => format!("{revision} set {key} blake3:{hash} {size} B"),
        Happened::Unbound(_) => format!("{revision} del {key}"),
    }
}

/// The lines of `dstore status`.
pub fn status_lines(status: &Status) -> Vec<String> {
    let mut rows = vec![
        ("tier".to_owned(), tier_name(status.tier).to_owned()),
        ("version".to_owned(), status.version.clone()),
        ("serving".to_owned(), if status.serving { "yes" } else { "no" }.to_owned()),
        ("revision".to_owned(), status.revision.to_string()),
        ("lease".to_owned(), format!("{:?}", status.lease)),
    ];
    rows.extend(status.facts.iter().cloned());
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let line = |(name, value): &(String, String)| {
        format!("{:width$}  {}", escape(name.as_bytes()), escape(value.as_bytes()))
    };
    rows.iter().map(line).collect()
}

/// A tier in one word.
pub(super) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Local => "local",
        Tier::Global => "global",
    }
}

/// The answer to `.help`.
pub const HELP: &str = "\
SET KEY VALUE   store a value; also PUT, INSERT, IN, I
GET KEY         read it; also SELECT, OUTPUT, OUT, O; --stale-ok[=TIME]: an old value will do
DEL KEY..       remove keys, all at once; also DELETE, REM, REMOVE, RM, D; --deadline TIME, --async
DEL --prefix P  remove all keys that begin with P, all at once; -y says that you mean it
WATCH [PREFIX]  tell what becomes of keys until Ctrl-C; --from REVISION, --count N
COPY KEY KEY    let the second key have the value of the first
RENAME KEY KEY  move a value to another key, in one step
.mode [MODE]    text, raw (GET writes the exact bytes) or json; without MODE tells which
.help  .version
.exit [CODE]    leave
A value is the rest of the line. Quote keys with blanks, and values to keep blanks around them:
'as it is' or \"with \\n \\t \\r \\\\ \\\" \\xHH\". Options --json and --raw (GET) go before the value.
`db:` means this Local answered, `global:` that Global was asked.";

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
