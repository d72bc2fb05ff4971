//! What a client is told without a Global: a golden table of replies.

use super::config::RespConfig;
use super::harness::{Harness, Talk, after_reply};
use std::fmt::Write;

fn command(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        write!(bytes, "${}\r\n{word}\r\n", word.len()).expect("a string takes it");
    }
    bytes.into_bytes()
}

fn said(talk: &mut Talk<'_>, line: &str) -> String {
    String::from_utf8_lossy(&talk.say(&command(line))).into_owned()
}

/// Lines, and what each is answered by one connection after another; `...` stands for anything.
fn check(harness: &Harness, table: &[(&str, &str)]) {
    let mut talk = harness.talk();
    for (line, wanted) in table {
        let got = said(&mut talk, line);
        match wanted.strip_suffix("...") {
            Some(beginning) => assert!(got.starts_with(beginning), "{line}: {got:?}"),
            None => assert_eq!(got, *wanted, "{line}"),
        }
    }
}

#[test]
fn replies_are_those_of_redis() {
    check(&Harness::new(RespConfig::default(), true), REPLIES);
}

const REPLIES: &[(&str, &str)] = &[
    ("PING", "+PONG\r\n"),
    ("ping hi", "$2\r\nhi\r\n"),
    ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
    ("ECHO x", "$1\r\nx\r\n"),
    ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
    ("nope a b", "-ERR unknown command 'nope', with args beginning with: 'a' 'b' \r\n"),
    ("NOPE", "-ERR unknown command 'NOPE', with args beginning with: \r\n"),
    ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
    ("SET k", "-ERR wrong number of arguments for 'set' command\r\n"),
    ("SET k v NX XX", "-ERR syntax error\r\n"),
    ("SET k v EX", "-ERR syntax error\r\n"),
    ("SET k v EX 0", "-ERR invalid expire time in 'set' command\r\n"),
    ("SET k v EX x", "-ERR value is not an integer or out of range\r\n"),
    ("SET k v EX 1 PX 1", "-ERR syntax error\r\n"),
    ("SET k v EX 1 KEEPTTL", "-ERR syntax error\r\n"),
    ("SETEX k -1 v", "-ERR invalid expire time in 'setex' command\r\n"),
    ("EXPIRE k x", "-ERR value is not an integer or out of range\r\n"),
    ("EXPIRE k 1 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"),
    ("EXPIRE k 1 GT LT", "-ERR GT and LT options at the same time are not compatible\r\n"),
    ("EXPIRE k 1 ZZ", "-ERR Unsupported option ZZ\r\n"),
    ("MSET a", "-ERR wrong number of arguments for 'mset' command\r\n"),
    ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
    ("INCRBY k x", "-ERR value is not an integer or out of range\r\n"),
    ("DECRBY k -9223372036854775808", "-ERR decrement would overflow\r\n"),
    ("GETEX k EX 1 PERSIST", "-ERR syntax error\r\n"),
    ("COPY a a", "-ERR source and destination objects are the same\r\n"),
    ("SCAN x", "-ERR invalid cursor\r\n"),
    ("SCAN 0 MATCH", "-ERR syntax error\r\n"),
    ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
    ("SELECT x", "-ERR invalid DB index\r\n"),
    ("SELECT 99", "-ERR DB index is out of range\r\n"),
    ("SELECT 1", "+OK\r\n"),
    ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
    ("CLIENT NOPE", "-ERR unknown subcommand 'NOPE'. Try CLIENT HELP.\r\n"),
    ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
    ("CLIENT GETNAME", "$-1\r\n"),
    ("CLIENT SETNAME me", "+OK\r\n"),
    ("CLIENT GETNAME", "$2\r\nme\r\n"),
    ("CLIENT NO-EVICT on", "+OK\r\n"),
    ("CLIENT NO-EVICT maybe", "-ERR syntax error\r\n"),
    ("CLIENT TRACKING on", "-ERR ..."),
    (
        "CLIENT CACHING yes",
        "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled\r\n",
    ),
    ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
    ("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n"),
    (
        "AUTH x",
        "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n",
    ),
    ("AUTH default x", "+OK\r\n"),
    ("AUTH me x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
    ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
    ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
    ("HELLO 2 NOPE", "-ERR Syntax error in HELLO option 'NOPE'\r\n"),
    (
        "HELLO 3",
        "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:3\r\n...",
    ),
    ("CLIENT TRACKINGINFO", "%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n..."),
    ("CLIENT TRACKING on BCAST OPTIN", "-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n"),
    ("CLIENT TRACKING on OPTIN OPTOUT", "-ERR You can't specify both OPTIN mode and OPTOUT mode\r\n"),
    ("CLIENT TRACKING on PREFIX a", "-ERR PREFIX option requires BCAST mode to be enabled\r\n"),
    ("CLIENT TRACKING on REDIRECT 99", "-ERR The client ID you want redirect to does not exist\r\n"),
    ("CLIENT TRACKING on OPTIN", "+OK\r\n"),
    ("CLIENT CACHING yes", "+OK\r\n"),
    ("CLIENT TRACKING off", "+OK\r\n"),
    ("CONFIG GET save", "%1\r\n$4\r\nsave\r\n$0\r\n\r\n"),
    ("CONFIG SET nope 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nope'\r\n"),
    ("CONFIG RESETSTAT", "+OK\r\n"),
    ("COMMAND GETKEYS MSET a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ("COMMAND GETKEYS PING", "-ERR The command has no key arguments\r\n"),
    ("COMMAND GETKEYS NOPE", "-ERR Invalid command specified\r\n"),
    ("COMMAND INFO nope", "*1\r\n_\r\n"),
    ("ACL WHOAMI", "$7\r\ndefault\r\n"),
    ("WAIT 0 0", ":0\r\n"),
    ("WAIT 0 -1", "-ERR timeout is negative\r\n"),
    ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
    ("MULTI", "+OK\r\n"),
    ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
    ("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n"),
    ("PING", "+QUEUED\r\n"),
    ("ECHO hi", "+QUEUED\r\n"),
    ("EXEC", "*2\r\n+PONG\r\n$2\r\nhi\r\n"),
    ("MULTI", "+OK\r\n"),
    ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
    ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
    ("MULTI", "+OK\r\n"),
    ("SET a 1", "+QUEUED\r\n"),
    ("DISCARD", "+OK\r\n"),
    ("RESET", "+RESET\r\n"),
    ("CLIENT GETNAME", "$-1\r\n"),
    ("CLIENT REPLY OFF", ""),
    ("PING", ""),
    ("CLIENT REPLY ON", "+OK\r\n"),
    ("CLIENT REPLY SKIP", ""),
    ("PING", ""),
    ("PING", "+PONG\r\n"),
    ("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
    (
        "GET k",
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
    ),
    ("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
    ("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"),
    ("DS.VIEW", "$6\r\nglobal\r\n"),
    ("DS.VIEW local", "+OK\r\n"),
    ("DBSIZE", ":0\r\n"),
    ("DS.EVICT k", ":0\r\n"),
    ("DS.GET x", "-ERR a hash is 64 hex digits\r\n"),
    ("INFO nothing", "$0\r\n\r\n"),
    ("INFO persistence", "$58\r\n# Persistence\r\nloading:0\r\nasync_loading:0\r\naof_enabled:1\r\n\r\n"),
    ("QUIT", "+OK\r\n"),
];

#[test]
fn every_command_answers_one_reply_whatever_it_is_given() {
    let harness = Harness::new(RespConfig::default(), true);
    for spec in super::table::TABLE.iter().filter(|spec| !["subscribe", "unsubscribe"].contains(&spec.name)) {
        for words in 0..5 {
            let mut talk = harness.talk();
            let line = [&[spec.name][..], &["1"; 5][..words]].concat().join(" ");
            let bytes = talk.say(&command(&line));
            assert_eq!(after_reply(&bytes), Some(&b""[..]), "{line}: {}", bytes.escape_ascii());
        }
        for sub in spec.subs.iter().filter(|sub| sub.name != "reply") {
            for words in 0..4 {
                let mut talk = harness.talk();
                let line = [&[spec.name, sub.name][..], &["on"; 4][..words]].concat().join(" ");
                let bytes = talk.say(&command(&line));
                assert_eq!(after_reply(&bytes), Some(&b""[..]), "{line}: {}", bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn a_stranger_gets_nothing_but_the_way_in() {
    let config = RespConfig { password: Some("secret".into()), ..RespConfig::default() };
    let harness = Harness::new(config, true);
    check(
        &harness,
        &[
            ("GET k", "-NOAUTH Authentication required.\r\n"),
            ("PING", "-NOAUTH Authentication required.\r\n"),
            ("HELLO 3", "-NOAUTH HELLO must be called ..."),
            ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("HELLO 3 AUTH default wrong", "-WRONGPASS ..."),
            ("AUTH default secret", "+OK\r\n"),
            ("PING", "+PONG\r\n"),
            ("RESET", "+RESET\r\n"),
            ("PING", "-NOAUTH Authentication required.\r\n"),
            ("HELLO 3 AUTH default secret SETNAME me", "%7\r\n..."),
            ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ],
    );
    let mut stranger = harness.talk();
    assert_eq!(
        stranger.say(b"*2\r\n$3\r\nGET\r\n$99999\r\n"),
        b"-ERR Protocol error: invalid bulk length\r\n"
    );
    assert!(stranger.is_closing());
}

#[test]
fn while_global_was_never_reached_what_needs_it_is_told_so() {
    let harness = Harness::new(RespConfig::default(), false);
    let loading = "-LOADING ...";
    check(
        &harness,
        &[
            ("GET k", loading),
            ("SET k v", loading),
            ("DEL k", loading),
            ("KEYS *", loading),
            ("TTL k", loading),
            ("PING", "+PONG\r\n"),
            ("INFO persistence", "$58\r\n# Persistence\r\nloading:1\r\n..."),
        ],
    );
}

#[test]
fn http_gets_no_answer_and_a_protocol_error_is_the_last_one() {
    let harness = Harness::new(RespConfig::default(), true);
    for line in
        ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n", "Host: localhost\r\n"]
    {
        let mut talk = harness.talk();
        assert_eq!(talk.say(line.as_bytes()), b"", "{line}");
        assert!(talk.is_closing(), "{line}");
    }
    let mut talk = harness.talk();
    assert_eq!(
        talk.say(b"PING\r\n*1\r\n:1\r\nPING\r\n"),
        b"+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n"
    );
    assert!(talk.is_closing());
}

#[test]
fn answers_that_ask_nobody_are_bounded_however_often_they_are_asked_for_at_once() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    assert_eq!(said(&mut talk, "MULTI"), "+OK\r\n");
    for _ in 0..1000 {
        assert_eq!(said(&mut talk, "COMMAND DOCS"), "+QUEUED\r\n");
    }
    let replies = said(&mut talk, "EXEC");
    assert!(replies.starts_with("*1000\r\n*") && replies.len() < 32 << 20, "`{}` bytes", replies.len());
    assert!(replies.contains("-OOM the replies of this transaction are too large"));
    let many = " get".repeat(2000);
    for line in ["COMMAND DOCS", "COMMAND INFO", "CLIENT KILL", "CLIENT LIST ID"] {
        let reply = said(&mut talk, &format!("{line}{many}"));
        assert!(reply.starts_with("-ERR at most 1024 "), "{line}: {reply}");
    }
    let long = "x".repeat(2000);
    for line in ["CLIENT SETNAME", "CLIENT SETINFO lib-name", "CLIENT SETINFO lib-ver", "HELLO 3 SETNAME"] {
        let reply = said(&mut talk, &format!("{line} {long}"));
        assert!(reply.starts_with("-ERR what a client says of itself"), "{line}: {reply}");
    }
}
