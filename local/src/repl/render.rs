//! The exact texts of the REPL language: a result in, lines out. Pure; nothing here knows a terminal.
//!
//! One row of the table in the design is one constant or function here, and one row of the tests. They are a
//! promise to scripts: change none of them.

use super::command::What;
use super::escape::escape;
use super::exit;
use super::pretty::size;
use dstore_proto::store::{DeleteReply, Provenance, SetReply, Status, Tier};
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{BlobHash, CopyResult, Entry, PrefixOutcome, Revision, SetOutcome};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The lines of the table; values escaped to one line.
    #[default]
    Text,
    /// As text, but JSON is indented, text of several lines has a place of its own, and what is no text is shown as
    /// hexadecimal digits: for a person.
    Pretty,
    /// GET writes the exact bytes and nothing else; every other line goes to standard error.
    Raw,
    /// As text, but values are hexadecimal digits.
    Hex,
    /// One JSON object a command.
    Json,
    /// One JSON object a command, and of lists one a row.
    Jsonl,
    /// Lists and values as comma-separated values (RFC 4180), with a header.
    Csv,
}

const MODES: [(Mode, &str); 7] = [
    (Mode::Text, "text"),
    (Mode::Pretty, "pretty"),
    (Mode::Raw, "raw"),
    (Mode::Hex, "hex"),
    (Mode::Json, "json"),
    (Mode::Jsonl, "jsonl"),
    (Mode::Csv, "csv"),
];

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MODES.iter().find(|(mode, _)| mode == self).map_or("text", |(_, word)| word))
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        MODES.iter().find(|(_, word)| *word == text).map(|(mode, _)| *mode).ok_or(())
    }
}

/// What a person is told of an answer: tier, size, the beginning of the hash, revision, and which tier took how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footer {
    /// Which tier gave it.
    pub tier: Tier,
    /// Bytes of the value.
    pub size: u64,
    /// Which bytes.
    pub hash: Option<BlobHash>,
    /// As of which revision.
    pub revision: Revision,
    /// From the command to its answer.
    pub took: Duration,
    /// The part of it in which the node waited for Global, if it said so.
    pub at_global: Option<Duration>,
}

impl Footer {
    /// Of an answer about `entry`.
    pub fn of(entry: &Entry, from: Provenance, took: Duration) -> Self {
        let (size, hash) = (entry.size, Some(entry.hash));
        Self { tier: from.tier, size, hash, revision: from.revision, took, at_global: from.asked_for }
    }
}

impl fmt::Display for Footer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", tier_name(self.tier), size(self.size))?;
        if let Some(hash) = &self.hash {
            write!(f, ", blake3:{}..", hash.fmt_short())?;
        }
        if self.revision.0 > 0 {
            write!(f, ", revision {}", self.revision)?;
        }
        write!(f, ", {}", short_time(self.took))?;
        match self.at_global {
            Some(global) => {
                let local = self.took.saturating_sub(global);
                write!(f, " ({} local, {} global)", short_time(local), short_time(global.min(self.took)))
            }
            None => Ok(()),
        }
    }
}

/// A time for people who look at steps: `49 ns`, `1.9 µs`, `12.00 ms`.
pub fn short_time(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
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
pub fn around_value(what: &What, from: Provenance) -> (String, &'static str) {
    let (tier, after) = match (from.tier, from.cached) {
        (Tier::Local, _) => ("db", ""),
        (Tier::Global, true) => ("global", FILLED),
        (Tier::Global, false) => ("global", ""),
    };
    (format!("{tier}: {} -> ", named(what)), after)
}

/// What was asked about, on one line.
pub fn named(what: &What) -> String {
    match what {
        What::Key(key) => escape(key.as_bytes()),
        What::Hash(hash) => format!("@{hash}"),
    }
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

/// The same above a prompt, where a person looks.
pub fn short_event_line(event: &Event) -> String {
    let (revision, key) = (event.revision, escape(event.key.as_bytes()));
    match &event.happened {
        Happened::Bound(entry) => {
            format!("{revision} set {key} {}, blake3:{}..", size(entry.size), entry.hash.fmt_short())
        }
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

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
