//! What commands do: one file for each family, and here what they share.
//!
//! A command runs in the event loop and either has its reply at once, or gives a future for it. What changes a name is
//! a [`Plan`]: steps of a transaction and how its outcome is told, so that a command means the same alone and in MULTI.

pub mod client;
pub mod command;
pub mod connection;
pub mod dstore;
pub mod expiry;
pub mod keys;
pub mod pubsub;
pub mod scan;
pub mod server;
pub mod strings;
pub mod transaction;

use super::args::Args;
use super::client::Client;
use super::door::Door;
use super::peers::Peer;
pub use super::plan::{Answer, Plan};
use super::reply::Reply;
use super::table::{self, Spec, Sub};
use dstore_shared::{Error, Key, Kind, Name, Namespace, Result};
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A reply that comes later.
pub type Later = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What a command gave.
pub enum Done {
    /// Its reply.
    Now(Reply),
    /// A future for it.
    Later(Later),
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self::Now(reply)
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(reply) => reply.fmt(f),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl Done {
    /// What `later` gives.
    pub fn later(later: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::Later(Box::pin(later))
    }
}

/// A reply, or one that says what is wrong.
pub type Answered<T = Done> = std::result::Result<T, Reply>;

/// How a command runs.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// So, alone; not within MULTI.
    Only(fn(&mut Call<'_>) -> Answered),
    /// So, and in MULTI at the time of EXEC: it neither waits nor changes names.
    Plain(fn(&mut Call<'_>) -> Answered),
    /// As steps of a transaction.
    Steps(fn(&Call<'_>) -> Answered<Plan>),
    /// Alone in the first way, which is quicker; in MULTI as steps.
    Both(fn(&mut Call<'_>) -> Answered, fn(&Call<'_>) -> Answered<Plan>),
}

/// A command that was called.
pub struct Call<'a> {
    /// What all connections share.
    pub door: &'a Arc<Door>,
    /// What others see of the connection.
    pub peer: &'a Arc<Peer>,
    /// What the connection remembers.
    pub client: &'a mut Client,
    /// The words, the name the first.
    pub args: Args<'a>,
    /// Which command it is.
    pub spec: &'static Spec,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({})", self.spec.name)
    }
}

impl Call<'_> {
    /// The name that a word is the key of, in the connection's namespace.
    pub fn name(&self, at: usize) -> Answered<Name> {
        self.name_in(&self.client.namespace, at)
    }

    /// The name that a word is the key of, in `namespace`.
    pub fn name_in(&self, namespace: &Namespace, at: usize) -> Answered<Name> {
        let key = Key::new(self.args.bytes(at)).map_err(|e| failure(&e))?;
        Ok(Name::new(namespace, &key))
    }

    /// All its keys.
    pub fn names(&self) -> Answered<Vec<Name>> {
        self.spec.key_places(self.args.len()).map(|at| self.name(at)).collect()
    }

    /// A word that is a whole number.
    pub fn number(&self, at: usize) -> Answered<i64> {
        number(self.args.get(at)).ok_or(NOT_INTEGER)
    }

    /// Its subcommand, if the table has it and it has the right number of words.
    pub fn sub(&self) -> Answered<&'static Sub> {
        let word = self.args.get(1);
        let Some(sub) = self.spec.subs.iter().find(|sub| word.eq_ignore_ascii_case(sub.name.as_bytes()))
        else {
            let (word, name) = (shown(word, 128), self.spec.name.to_uppercase());
            return Err(Reply::err(format!("unknown subcommand '{word}'. Try {name} HELP.")));
        };
        if !table::fits(sub.arity, self.args.len()) {
            return Err(wrong_arity(&format!("{}|{}", self.spec.name, sub.name)));
        }
        Ok(sub)
    }

    /// What HELP says of its subcommands.
    pub fn help(&self) -> Reply {
        let name = self.spec.name.to_uppercase();
        let head = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        let lines =
            self.spec.subs.iter().flat_map(|sub| [sub.name.to_uppercase(), format!("    {}", sub.summary)]);
        Reply::Array(std::iter::once(head).chain(lines).map(|text| Reply::Line(text.into())).collect())
    }
}

/// `ERR syntax error`.
pub const SYNTAX: Reply = Reply::error("ERR syntax error");
/// A pattern is longer than [`super::glob::PATTERN_MAX`].
pub const TOO_LONG: Reply = Reply::error("ERR the pattern is too long");
/// A word that should be a number is none.
pub const NOT_INTEGER: Reply = Reply::error("ERR value is not an integer or out of range");

/// A whole number as Redis reads it: digits without blanks, plus sign or leading zeros.
pub fn number(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let plain = match digits {
        [b'0'] => word.len() == 1,
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
        [] => false,
    };
    if !plain {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The error of a wrong number of words.
pub fn wrong_arity(name: &str) -> Reply {
    Reply::err(format!("wrong number of arguments for '{name}' command"))
}

/// The error of a command that the table does not have.
pub fn unknown_command(args: Args<'_>) -> Reply {
    let mut beginning = String::new();
    for arg in args.from(1) {
        if beginning.len() >= 128 {
            break;
        }
        let room = 128 - beginning.len();
        _ = write!(beginning, "'{}' ", shown(arg, room));
    }
    let name = shown(args.get(0), 128);
    Reply::err(format!("unknown command '{name}', with args beginning with: {beginning}"))
}

/// A word as it is shown in an error: up to a zero byte, as Redis does.
pub fn shown(word: &[u8], max: usize) -> String {
    let word = word.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(&word[..word.len().min(max)]).replace(['\r', '\n'], " ")
}

/// What a client is told of an error of dstore.
pub fn failure(e: &Error) -> Reply {
    let message = e.message();
    let text = match (e.kind(), e.occupied_by()) {
        (Kind::Occupied, Some(hash)) => format!("OCCUPIED Key occupied! (blake3:{hash})"),
        (Kind::Occupied, None) => format!("OCCUPIED Key occupied! {message}"),
        (Kind::Unavailable | Kind::Pending, _) => format!("TRYAGAIN {message}"),
        (Kind::Exhausted, _) => format!("OOM {message}"),
        (Kind::Denied, _) => format!("NOPERM {message}"),
        (Kind::Corrupt, _) => format!("CORRUPT {message}"),
        (Kind::Closed, _) => format!("CLOSED {message}"),
        _ => format!("ERR {message}"),
    };
    Reply::Error(text.into())
}

/// Runs steps alone: what only reads one name is answered from here if this Local holds it.
pub fn alone(call: &mut Call<'_>, plan: fn(&Call<'_>) -> Answered<Plan>) -> Answered {
    let plan = plan(call)?;
    if plan.steps.is_empty() && plan.guards.is_empty() {
        return match (plan.tell)(&[], 0) {
            Answer::Reply(reply) => Ok(reply.into()),
            _ => Err(failure(&Error::internal("a command without steps reads: report this"))),
        };
    }
    let names = if call.spec.has(table::flag::READONLY) { call.names()? } else { Vec::new() };
    let tracked = call.tracks(&names);
    call.started()?;
    let door = call.door.clone();
    let tracked = tracked.waits(&door);
    Ok(Done::later(async move {
        let reply = plan.run(&door).await;
        tracked.settle(&door, reply)
    }))
}

/// The reply of a result.
pub fn replied(result: Result<Reply>) -> Reply {
    result.unwrap_or_else(|e| failure(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_redis_does() {
        for (word, wanted) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1.0", None),
            ("1e3", None),
        ] {
            assert_eq!(number(word.as_bytes()), wanted, "{word}");
        }
    }

    #[test]
    fn each_kind_of_failure_has_its_code() {
        let text = |e: &Error| match failure(e) {
            Reply::Error(text) => text.into_owned(),
            other => panic!("{other:?}"),
        };
        let hash = dstore_shared::BlobHash::of(b"x");
        assert_eq!(text(&Error::occupied(hash)), format!("OCCUPIED Key occupied! (blake3:{hash})"));
        for (kind, code) in [
            (Kind::Unavailable, "TRYAGAIN"),
            (Kind::Exhausted, "OOM"),
            (Kind::Denied, "NOPERM"),
            (Kind::Invalid, "ERR"),
            (Kind::TooLarge, "ERR"),
            (Kind::Corrupt, "CORRUPT"),
            (Kind::Closed, "CLOSED"),
            (Kind::Internal, "ERR"),
        ] {
            assert_eq!(text(&Error::new(kind, "why")), format!("{code} why"));
        }
    }
}
