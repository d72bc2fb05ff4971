//! The one table of commands: name, arity, flags, keys, group, summary, and what runs. It drives arity errors, what
//! may run beside what, `COMMAND`, `ACL CAT` and help.
//!
//! Invariant: the names are in order, lower case, each once.

use super::commands::{
    Run, client, command, connection, dstore, expiry, keys, pubsub, scan, server, strings, transaction,
};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Properties of a command, as `COMMAND INFO` calls them.
pub mod flag {
    /// Reads.
    pub const READONLY: u16 = 1;
    /// Changes.
    pub const WRITE: u16 = 1 << 1;
    /// Refused when there is no room.
    pub const DENYOOM: u16 = 1 << 2;
    /// For operators.
    pub const ADMIN: u16 = 1 << 3;
    /// Not in scripts.
    pub const NOSCRIPT: u16 = 1 << 4;
    /// Also while starting.
    pub const LOADING: u16 = 1 << 5;
    /// Also without a lease.
    pub const STALE: u16 = 1 << 6;
    /// Takes time that does not grow with the data.
    pub const FAST: u16 = 1 << 7;
    /// Also for who did not say who he is.
    pub const NO_AUTH: u16 = 1 << 8;
    /// About the connection.
    pub const CONNECTION: u16 = 1 << 9;
    /// Runs at once, and not later, within MULTI.
    pub const NO_QUEUE: u16 = 1 << 10;
    /// Publish and subscribe.
    pub const PUBSUB: u16 = 1 << 12;
    /// Walks over many keys.
    pub const SLOW: u16 = 1 << 13;
}
use flag::{
    ADMIN, CONNECTION, DENYOOM, FAST, LOADING, NO_AUTH, NO_QUEUE, NOSCRIPT, PUBSUB, READONLY, SLOW, STALE,
    WRITE,
};

/// What a command is.
#[derive(Debug)]
pub struct Spec {
    /// Lower case.
    pub name: &'static str,
    /// Words, the name included; negative: at least so many.
    pub arity: i32,
    /// Of [`flag`].
    pub flags: u16,
    /// First key, last key (negative: counted from the end), step; 0 = none.
    pub keys: (i32, i32, i32),
    /// As `COMMAND DOCS` calls it.
    pub group: &'static str,
    /// For people.
    pub summary: &'static str,
    /// What runs.
    pub run: Run,
    /// Its subcommands.
    pub subs: &'static [Sub],
}

/// A subcommand.
#[derive(Debug)]
pub struct Sub {
    /// Lower case.
    pub name: &'static str,
    /// As of a [`Spec`], both names counted.
    pub arity: i32,
    /// For people.
    pub summary: &'static str,
}

/// What may run at a time on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Beside others that read.
    Read,
    /// Beside others that bind other names.
    Bind,
    /// By itself.
    Alone,
}

impl Spec {
    /// Whether it has `flag`.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether `len` words are right.
    pub const fn takes(&self, len: usize) -> bool {
        fits(self.arity, len)
    }

    /// What may run beside it, with `len` words.
    pub fn class(&self, len: usize) -> Class {
        if self.has(WRITE) {
            return if self.name == "set" && len == 3 { Class::Bind } else { Class::Alone };
        }
        // Walks are long, and what they gather is large: one at a time.
        if self.has(CONNECTION | NO_QUEUE | ADMIN | SLOW) { Class::Alone } else { Class::Read }
    }

    /// The places of its keys among `len` words.
    pub fn key_places(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, last, step) = self.keys;
        let last = if last < 0 { i32::try_from(len).unwrap_or(i32::MAX) + last } else { last };
        let last = last.min(i32::try_from(len).unwrap_or(i32::MAX) - 1);
        let end = if first <= 0 { first } else { last + 1 };
        (first..end).step_by(usize::try_from(step.max(1)).unwrap_or(1)).map(|at| at as usize)
    }

    /// The categories of `ACL CAT`.
    pub fn categories(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        let mut add = |yes: bool, name| {
            if yes {
                all.push(name);
            }
        };
        add(self.has(WRITE), "write");
        add(self.has(READONLY) && self.keys.0 > 0 || self.name == "keys" || self.name == "scan", "read");
        add(self.group == "generic" && (self.has(WRITE) || self.has(READONLY)), "keyspace");
        add(self.group == "string", "string");
        add(self.has(ADMIN), "admin");
        add(self.has(ADMIN) || self.name == "keys", "dangerous");
        add(self.group == "connection", "connection");
        add(self.group == "transactions", "transaction");
        add(self.has(PUBSUB), "pubsub");
        add(self.has(FAST), "fast");
        add(!self.has(FAST), "slow");
        all
    }
}

/// Whether `len` words are right for `arity`.
pub const fn fits(arity: i32, len: usize) -> bool {
    if arity >= 0 { arity as usize == len } else { len >= arity.unsigned_abs() as usize }
}

/// The command of that name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    INDEX.get(&*lower).copied()
}

/// Longest name of a command.
const NAME_MAX: usize = 24;

static INDEX: LazyLock<HashMap<&'static [u8], &'static Spec, foldhash::fast::RandomState>> =
    LazyLock::new(|| TABLE.iter().map(|spec| (spec.name.as_bytes(), spec)).collect());

const NONE: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);
const READ: u16 = READONLY | FAST;
const CHANGE: u16 = WRITE | FAST;
const STORE: u16 = WRITE | DENYOOM;
const LINK: u16 = CONNECTION | NOSCRIPT | LOADING | STALE | FAST;

macro_rules! table {
    ($($name:literal $arity:literal $flags:expr, $keys:expr, $group:literal, $run:path, $summary:literal $(, $subs:expr)?;)*) => {
        /// Every command.
        pub static TABLE: &[Spec] = &[$(Spec {
            name: $name, arity: $arity, flags: $flags, keys: $keys, group: $group, summary: $summary, run: $run,
            subs: table!(@subs $($subs)?),
        }),*];
    };
    (@subs) => { &[] };
    (@subs $subs:expr) => { $subs };
}

table! {
    "acl" -2 ADMIN | NOSCRIPT | LOADING | STALE, NONE, "server", server::ACL, "Tells of users and categories.", ACL;
    "append" 3 STORE | FAST, ONE, "string", strings::APPEND, "Appends to a value, which it makes if there is none.";
    "auth" -2 LINK | NO_AUTH, NONE, "connection", connection::AUTH, "Says who the client is.";
    "client" -2 CONNECTION | NOSCRIPT | LOADING | STALE, NONE, "connection", client::CLIENT, "Tells of clients and sets what concerns this one.", CLIENT;
    "command" -1 LOADING | STALE, NONE, "server", command::COMMAND, "Tells of all commands.", COMMAND;
    "config" -2 ADMIN | NOSCRIPT | LOADING | STALE, NONE, "server", server::CONFIG, "Tells and sets the settings that clients ask for.", CONFIG;
    "copy" -3 STORE, TWO, "generic", keys::COPY, "Binds another key to the same value; no bytes move.";
    "dbsize" 1 READONLY | SLOW, NONE, "server", scan::DBSIZE, "Counts the keys.";
    "decr" 2 STORE | FAST, ONE, "string", strings::DECR, "Takes one from a number.";
    "decrby" 3 STORE | FAST, ONE, "string", strings::DECRBY, "Takes from a number.";
    "del" -2 WRITE, ALL, "generic", keys::DEL, "Unbinds keys, all at once: nobody reads them afterwards, anywhere.";
    "discard" 1 NOSCRIPT | LOADING | STALE | FAST | NO_QUEUE, NONE, "transactions", transaction::DISCARD, "Forgets what is queued.";
    "ds.evict" 2 FAST, ONE, "dstore", dstore::EVICT, "Lets this Local forget a key; nothing else changes.";
    "ds.get" 2 READ, NONE, "dstore", dstore::GET, "Reads a blob by its hash.";
    "ds.put" 2 STORE, NONE, "dstore", dstore::PUT, "Stores a blob without a key for an hour and gives its hash.";
    "ds.stat" 2 READ, ONE, "dstore", dstore::STAT, "Tells what a key is bound to.";
    "ds.view" -1 LINK, NONE, "dstore", dstore::VIEW, "Tells or sets whose keys KEYS, SCAN, DBSIZE and RANDOMKEY of this connection are of: GLOBAL or LOCAL.";
    "ds.why" 2 READ, ONE, "dstore", dstore::WHY, "Tells which tier answers a key, and why.";
    "echo" 2 LOADING | STALE | FAST, NONE, "connection", connection::ECHO, "Gives back what it got.";
    "exec" 1 NOSCRIPT | LOADING | STALE | NO_QUEUE, NONE, "transactions", transaction::EXEC, "Runs what is queued, all or nothing.";
    "exists" -2 READ, ALL, "generic", keys::EXISTS, "Counts those of the keys that are bound.";
    "expire" -3 CHANGE, ONE, "generic", expiry::EXPIRE, "Lets a key expire after seconds.";
    "expireat" -3 CHANGE, ONE, "generic", expiry::EXPIREAT, "Lets a key expire at a time in seconds.";
    "expiretime" 2 READ, ONE, "generic", expiry::EXPIRETIME, "Tells when a key expires, in seconds since 1970.";
    "get" 2 READ, ONE, "string", strings::GET, "Reads a value.";
    "getdel" 2 CHANGE, ONE, "string", strings::GETDEL, "Reads a value and unbinds its key.";
    "getex" -2 CHANGE, ONE, "string", strings::GETEX, "Reads a value and sets when its key expires.";
    "getrange" 4 READONLY, ONE, "string", strings::GETRANGE, "Reads a part of a value.";
    "getset" 3 STORE | FAST, ONE, "string", strings::GETSET, "Binds a key to a value and gives the value before.";
    "hello" -1 LINK | NO_AUTH, NONE, "connection", connection::HELLO, "Chooses the protocol, and says who the client is.";
    "incr" 2 STORE | FAST, ONE, "string", strings::INCR, "Adds one to a number.";
    "incrby" 3 STORE | FAST, ONE, "string", strings::INCRBY, "Adds to a number.";
    "info" -1 LOADING | STALE, NONE, "server", server::INFO, "Tells how the server is.";
    "keys" 2 READONLY | SLOW, NONE, "generic", scan::KEYS, "Lists the keys that a pattern fits.";
    "memory" -2 READONLY, NONE, "server", server::MEMORY, "Tells what a key takes.", MEMORY;
    "mget" -2 READ, ALL, "string", strings::MGET, "Reads several values, all as of one moment.";
    "mset" -3 STORE, PAIRS, "string", strings::MSET, "Binds several keys, all at once.";
    "msetnx" -3 STORE, PAIRS, "string", strings::MSETNX, "Binds several keys, all at once, if none is bound.";
    "multi" 1 NOSCRIPT | LOADING | STALE | FAST | NO_QUEUE, NONE, "transactions", transaction::MULTI, "Begins to queue commands.";
    "object" -2 READONLY, (2, 2, 1), "generic", keys::OBJECT, "Tells how a value is kept.", OBJECT;
    "persist" 2 CHANGE, ONE, "generic", expiry::PERSIST, "Lets a key not expire.";
    "pexpire" -3 CHANGE, ONE, "generic", expiry::PEXPIRE, "Lets a key expire after milliseconds.";
    "pexpireat" -3 CHANGE, ONE, "generic", expiry::PEXPIREAT, "Lets a key expire at a time in milliseconds.";
    "pexpiretime" 2 READ, ONE, "generic", expiry::PEXPIRETIME, "Tells when a key expires, in milliseconds since 1970.";
    "ping" -1 LOADING | STALE | FAST, NONE, "connection", connection::PING, "Answers PONG.";
    "psetex" 4 STORE, ONE, "string", strings::PSETEX, "Binds a key that expires after milliseconds.";
    "pttl" 2 READ, ONE, "generic", expiry::PTTL, "Tells how many milliseconds a key lives on.";
    "quit" -1 LINK | NO_AUTH | NO_QUEUE, NONE, "connection", connection::QUIT, "Ends the connection.";
    "randomkey" 1 READONLY | SLOW, NONE, "generic", scan::RANDOMKEY, "Gives some key.";
    "rename" 3 WRITE, TWO, "generic", keys::RENAME, "Moves a value to another key; no bytes move.";
    "renamenx" 3 CHANGE, TWO, "generic", keys::RENAMENX, "Moves a value to another key that is not bound.";
    "reset" 1 LINK | NO_AUTH | NO_QUEUE, NONE, "connection", connection::RESET, "Makes the connection as it was at its beginning.";
    "scan" -2 READONLY | SLOW, NONE, "generic", scan::SCAN, "Walks over the keys, a page at a time.";
    "select" 2 LINK, NONE, "connection", connection::SELECT, "Chooses the namespace, by its number.";
    "set" -3 STORE, ONE, "string", strings::SET, "Binds a key to a value.";
    "setex" 4 STORE, ONE, "string", strings::SETEX, "Binds a key that expires after seconds.";
    "setnx" 3 STORE | FAST, ONE, "string", strings::SETNX, "Binds a key that is not bound.";
    "strlen" 2 READ, ONE, "string", strings::STRLEN, "Tells how many bytes a value has.";
    "subscribe" -2 PUBSUB | CONNECTION | NOSCRIPT | LOADING | STALE, NONE, "pubsub", pubsub::SUBSCRIBE, "Listens to a channel; `__redis__:invalidate` tells invalidations.";
    "time" 1 LOADING | STALE | FAST, NONE, "server", server::TIME, "Tells the time.";
    "touch" -2 READ, ALL, "generic", keys::EXISTS, "Counts those of the keys that are bound.";
    "ttl" 2 READ, ONE, "generic", expiry::TTL, "Tells how many seconds a key lives on.";
    "type" 2 READ, ONE, "generic", keys::KIND, "Tells what kind of value a key has: string or none.";
    "unlink" -2 CHANGE, ALL, "generic", keys::DEL, "As DEL.";
    "unsubscribe" -1 PUBSUB | CONNECTION | NOSCRIPT | LOADING | STALE, NONE, "pubsub", pubsub::UNSUBSCRIBE, "Listens no more.";
    "unwatch" 1 NOSCRIPT | LOADING | STALE | FAST | CONNECTION, NONE, "transactions", transaction::UNWATCH, "Forgets the keys that EXEC would look at.";
    "wait" 3 CONNECTION | NOSCRIPT, NONE, "generic", server::WAIT, "Tells how many replicas have the changes: a change is durable when it is answered, and there is none.";
    "watch" -2 NOSCRIPT | LOADING | STALE | FAST | NO_QUEUE, ALL, "transactions", transaction::WATCH, "Lets EXEC run only if these keys are as they are now.";
}

macro_rules! subs {
    ($table:ident: $($name:literal $arity:literal $summary:literal;)*) => {
        static $table: &[Sub] = &[$(Sub { name: $name, arity: $arity, summary: $summary }),*];
    };
}

subs! { ACL:
    "cat" -2 "Lists the categories, or the commands of one.";
    "help" 2 "Lists the subcommands.";
    "list" 2 "Lists the users and what they may.";
    "users" 2 "Lists the users.";
    "whoami" 2 "Tells who the client is.";
}
subs! { CLIENT:
    "caching" 3 "Says whether the keys of the next command are tracked: YES or NO.";
    "getname" 2 "Tells the name of this client.";
    "getredir" 2 "Tells which client is told of invalidations.";
    "help" 2 "Lists the subcommands.";
    "id" 2 "Tells the number of this client.";
    "info" 2 "Tells of this client.";
    "kill" -3 "Ends clients.";
    "list" -2 "Tells of all clients.";
    "no-evict" 3 "Taken, and without effect.";
    "no-touch" 3 "Taken, and without effect.";
    "reply" 3 "Says whether this client wants replies: ON, OFF or SKIP.";
    "setinfo" 4 "Says which library this client is.";
    "setname" 3 "Says what this client is called.";
    "tracking" -3 "Says whether this client is told when what it read changes.";
    "trackinginfo" 2 "Tells how this client is told of changes.";
}
subs! { COMMAND:
    "count" 2 "Counts the commands.";
    "docs" -2 "Explains commands.";
    "getkeys" -3 "Tells the keys of a command.";
    "help" 2 "Lists the subcommands.";
    "info" -2 "Tells of commands.";
    "list" -2 "Lists the commands.";
}
subs! { CONFIG:
    "get" -3 "Tells settings.";
    "help" 2 "Lists the subcommands.";
    "resetstat" 2 "Counts anew.";
    "rewrite" 2 "Refused: settings are given at the start.";
    "set" -4 "Sets settings.";
}
subs! { MEMORY:
    "help" 2 "Lists the subcommands.";
    "usage" -3 "Tells how many bytes a key takes here.";
}
subs! { OBJECT:
    "encoding" 3 "Tells what Redis would call the form of a value.";
    "freq" 3 "Refused: uses are not counted so.";
    "help" 2 "Lists the subcommands.";
    "idletime" 3 "Tells 0.";
    "refcount" 3 "Tells 1.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_every_command_is_found_in_any_case() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        for spec in TABLE {
            assert_eq!(find(spec.name.to_uppercase().as_bytes()).map(|s| s.name), Some(spec.name));
            assert!(spec.subs.is_sorted_by(|a, b| a.name < b.name), "{}", spec.name);
            assert!(spec.summary.ends_with('.') && spec.arity != 0, "{}", spec.name);
            assert!(!(spec.has(WRITE) && spec.has(READONLY)), "{}", spec.name);
        }
        for unknown in [&b"nope"[..], b"", &[b'g'; 100], b"get "] {
            assert!(find(unknown).is_none());
        }
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let places = |name: &str, len| find(name.as_bytes()).expect(name).key_places(len).collect::<Vec<_>>();
        assert_eq!(places("get", 2), [1]);
        assert_eq!(places("mget", 4), [1, 2, 3]);
        assert_eq!(places("mset", 5), [1, 3]);
        assert_eq!(places("rename", 3), [1, 2]);
        assert_eq!(places("object", 3), [2]);
        assert_eq!(places("object", 2), [0; 0]);
        assert_eq!(places("ping", 1), [0; 0]);
    }

    #[test]
    fn what_reads_runs_beside_what_reads_and_what_changes_by_itself() {
        let class = |name: &str, len| find(name.as_bytes()).expect(name).class(len);
        assert_eq!(
            (class("get", 2), class("ping", 1), class("mget", 9)),
            (Class::Read, Class::Read, Class::Read)
        );
        assert_eq!((class("set", 3), class("set", 4)), (Class::Bind, Class::Alone));
        for alone in ["del", "hello", "multi", "exec", "select", "client", "incr"] {
            assert_eq!(class(alone, 2), Class::Alone, "{alone}");
        }
    }
}
