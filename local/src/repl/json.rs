//! Answers as JSON, one object a line. Pure.
//!
//! Bytes that are UTF-8 stand in `key` and `value`; others stand, base64-encoded (RFC 4648), in `key_base64` and
//! `value_base64`. `exit` is the code that the command alone would end `dstore` with. Fields may be added.

use super::command::{Refused, What};
use super::escape::is_active;
use super::exit;
use super::options::request_word;
use super::render::tier_name;
use dstore_proto::store::{DeleteReply, Provenance, SetReply, Status};
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{CopyOutcome, CopyResult, Entry, Error, Key, PrefixOutcome, RequestId, SetOutcome};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

#[derive(Serialize, Default)]
struct Answer<'a> {
    command: &'a str,
    #[serde(flatten)]
    key: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(flatten)]
    value: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// A GET's answer may have been wrong, or a DEL's old values be read by others, for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_ms: Option<u64>,
    /// Of a DEL that is pending: what `--request` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    exit: u8,
}

impl Answer<'_> {
    fn line(&self) -> String {
        printable(&serde_json::to_string(self).expect("an answer has only string keys"))
    }

    fn of_entry(mut self, entry: &Entry, from: Provenance) -> Self {
        self.hash = Some(entry.hash.to_string());
        self.size = Some(entry.size);
        self.tier = Some(tier_name(from.tier));
        self.cached = Some(from.cached);
        self.revision = Some(from.revision.0);
        self.stale_ms = from.stale_for.map(millis_up);
        self
    }
}

/// The answer, with what a crash of Global may take of it.
pub fn labelled(answer: String, loss: Option<Duration>) -> String {
    match (loss, answer.strip_suffix('}')) {
        (Some(loss), Some(open)) => format!("{open},\"loss_ms\":{}}}", millis_up(loss)),
        _ => answer,
    }
}

/// Of a GET that found `value`.
pub fn found(what: &What, value: &[u8], entry: &Entry, from: Provenance) -> String {
    let value = bytes_field("value", value);
    let key = what.key().map(key_field).unwrap_or_default();
    Answer { command: "get", key, outcome: Some("found"), value, ..Answer::default() }
        .of_entry(entry, from)
        .line()
}

/// Of a GET or STAT that found nothing.
pub fn nowhere(command: &str, what: &What) -> String {
    let (key, exit) = (what.key().map(key_field).unwrap_or_default(), exit::NOT_FOUND);
    let hash = match what {
        What::Hash(hash) => Some(hash.to_string()),
        What::Key(_) => None,
    };
    Answer { command, key, hash, outcome: Some("not_found"), exit, ..Answer::default() }.line()
}

/// Of a SET.
pub fn set(key: &Key, reply: &SetReply) -> String {
    let (outcome, entry, exit) = match &reply.outcome {
        SetOutcome::Stored(entry) => ("stored", Some(entry), exit::OK),
        SetOutcome::Unchanged(entry) => ("unchanged", Some(entry), exit::OK),
        SetOutcome::Occupied(entry) => ("occupied", Some(entry), exit::OCCUPIED),
        SetOutcome::NeedBlob => ("need_blob", None, exit::SOFTWARE),
    };
    let answer =
        Answer { command: "set", key: key_field(key), outcome: Some(outcome), exit, ..Answer::default() };
    match entry {
        Some(entry) => answer.of_entry(entry, reply.from).line(),
        None => answer.line(),
    }
}

/// Of a COPY or RENAME.
pub fn copy(command: &str, (from, to): (&Key, &Key), done: &CopyOutcome) -> String {
    let (outcome, entry, exit) = match &done.result {
        CopyResult::Done(entry) => ("done", Some(entry), exit::OK),
        CopyResult::Unchanged(entry) => ("unchanged", Some(entry), exit::OK),
        CopyResult::Occupied(entry) => ("occupied", Some(entry), exit::OCCUPIED),
        CopyResult::NotFound => ("not_found", None, exit::NOT_FOUND),
    };
    Answer {
        command,
        key: key_field(from),
        outcome: Some(outcome),
        value: bytes_field("to", to.as_bytes()),
        hash: entry.map(|entry| entry.hash.to_string()),
        size: entry.map(|entry| entry.size),
        revision: Some(done.revision.0),
        exit,
        ..Answer::default()
    }
    .line()
}

/// Of a DEL.
pub fn delete(keys: &[Key], reply: &DeleteReply) -> String {
    let one = |(key, removed): (&Key, &bool)| {
        let mut fields = key_field(key);
        fields.insert("removed".into(), Value::Bool(*removed));
        Value::Object(fields)
    };
    let exit = if reply.removed.contains(&false) { exit::NOT_FOUND } else { exit::OK };
    let keys = Some(keys.iter().zip(&reply.removed).map(one).collect());
    let revision = Some(reply.revision.0);
    let stale_ms = reply.stale.map(millis_up);
    Answer { command: "del", keys, revision, stale_ms, exit, ..Answer::default() }.line()
}

/// Of a DEL by prefix.
pub fn delete_prefix(prefix: &[u8], done: &PrefixOutcome) -> String {
    let mut fields = bytes_field("prefix", prefix);
    fields.insert("command".into(), json!("del"));
    fields.insert("removed".into(), json!(done.removed));
    fields.insert("revision".into(), json!(done.revision.0));
    fields.insert("exit".into(), json!(if done.removed == 0 { exit::NOT_FOUND } else { exit::OK }));
    printable(&Value::Object(fields).to_string())
}

/// Of one event of a watch.
pub fn event(event: &Event) -> String {
    let (kind, entry) = match &event.happened {
        Happened::Bound(entry) => ("set", Some(entry)),
        Happened::Unbound(was) => ("del", was.as_ref()),
    };
    let mut fields = key_field(&event.key);
    fields.insert("command".into(), json!("watch"));
    fields.insert("kind".into(), json!(kind));
    if let Some(entry) = entry {
        fields.insert("hash".into(), json!(entry.hash.to_string()));
        fields.insert("size".into(), json!(entry.size));
    }
    fields.insert("revision".into(), json!(event.revision.0));
    fields.insert("at_ms".into(), json!(event.at_ms));
    printable(&Value::Object(fields).to_string())
}

/// Of a status.
pub fn status(status: &Status) -> String {
    let facts: Map<String, Value> =
        status.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let answer = json!({
        "command": "status",
        "tier": tier_name(status.tier),
        "version": status.version,
        "serving": status.serving,
        "revision": status.revision.0,
        "lease_ms": status.lease.as_millis() as u64,
        "facts": facts,
        "exit": if status.serving { exit::OK } else { exit::UNREACHABLE },
    });
    printable(&answer.to_string())
}

/// JSON leaves DEL, C1 and the characters that turn a line's direction as they are; a terminal obeys them.
pub fn printable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_active(c) {
            write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes what is written");
        } else {
            out.push(c);
        }
    }
    out
}

/// Of a dot word that tells something.
pub fn text(command: &str, text: &str) -> String {
    Answer { command, text: Some(text), ..Answer::default() }.line()
}

/// A bound in whole milliseconds, never told shorter than it is.
fn millis_up(bound: Duration) -> u64 {
    u64::try_from(bound.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Of a command whose answer is `object`.
pub fn answer(command: &str, object: Value, code: u8) -> String {
    let mut fields = Map::new();
    fields.insert("command".into(), json!(command));
    if let Value::Object(object) = object {
        fields.extend(object.into_iter().filter(|(_, value)| !value.is_null()));
    }
    fields.insert("exit".into(), json!(code));
    line(&Value::Object(fields))
}

/// One object on one line.
pub fn line(object: &Value) -> String {
    printable(&object.to_string())
}

/// The fields of `row` that `header` names, as a line of RFC 4180.
pub fn csv(header: &[&str], row: &Value) -> String {
    let field = |name: &&str| match (&row[*name], &row[format!("{name}_base64")]) {
        (Value::Null, Value::String(text)) => field(&format!("base64:{text}")),
        (Value::Null, _) => String::new(),
        (Value::String(text), _) => field(text),
        (other, _) => other.to_string(),
    };
    header.iter().map(field).collect::<Vec<_>>().join(",")
}

/// One field of a line of comma-separated values. What a terminal would obey is escaped.
pub fn field(text: &str) -> String {
    let shown = super::escape::escape(text.as_bytes());
    if shown.contains([',', '"', ' ']) { format!("\"{}\"", shown.replace('"', "\"\"")) } else { shown }
}

/// Puts the key into `object`.
pub fn put_key(object: &mut Value, key: &Key) {
    put_bytes(object, "key", key.as_bytes());
}

/// Puts the key or hash into `object`.
pub fn put_what(object: &mut Value, what: &What) {
    if let What::Key(key) = what {
        put_key(object, key);
    }
}

/// Puts bytes into `object`.
pub fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    if let Value::Object(fields) = object {
        fields.extend(bytes_field(name, bytes));
    }
}

/// Of a command that failed; `key` if it has one, `request` if it goes on.
pub fn failed(command: &str, key: Option<&Key>, request: Option<&RequestId>, error: &Error) -> String {
    let key = key.map(key_field).unwrap_or_default();
    Answer {
        command,
        key,
        request: request.map(request_word),
        error: Some(error_object(error)),
        exit: exit::of(error.kind()),
        ..Answer::default()
    }
    .line()
}

/// Of a line that is no command.
pub fn refused(refused: &Refused) -> String {
    failed("", None, None, refused.error())
}

fn error_object(error: &Error) -> Value {
    let mut fields = Map::new();
    fields.insert("kind".into(), json!(error.kind().to_string()));
    fields.insert("message".into(), json!(error.message()));
    if let Some(delay) = error.delay() {
        fields.insert("retry_after_ms".into(), json!(delay.as_millis() as u64));
    }
    Value::Object(fields)
}

fn key_field(key: &Key) -> Map<String, Value> {
    bytes_field("key", key.as_bytes())
}

fn bytes_field(name: &str, bytes: &[u8]) -> Map<String, Value> {
    let (name, text) = match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.to_owned()),
        Err(_) => (format!("{name}_base64"), base64(bytes)),
    };
    Map::from_iter([(name, Value::String(text))])
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let used = digit <= three.len();
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if used { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
