//! The RESP door as foreign clients meet it: real Locals, bytes over a Unix socket.

use crate::rig::{Global, Local, SOON, noise, until};
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const DOOR: &[&str] = &["--resp-socket", "resp.sock"];

/// A connection that speaks bytes.
struct Talk {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Talk {
    fn to(local: &Local) -> Self {
        let stream = UnixStream::connect(local.folder().join("resp.sock")).expect("the door is open");
        stream.set_read_timeout(Some(SOON)).expect("set");
        stream.set_write_timeout(Some(SOON)).expect("set");
        Self { stream, unread: Vec::new() }
    }

    fn send(&mut self, words: &[&[u8]]) {
        self.stream.write_all(&command(words)).expect("written");
    }

    /// One line, without its end.
    fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.unread[..end].to_vec();
                self.unread.drain(..end + 2);
                return line;
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let mut bytes = vec![0; 65_536];
        let n = self.stream.read(&mut bytes).expect("an answer in time");
        assert!(n > 0, "the connection ended: {}", self.unread.escape_ascii());
        self.unread.extend_from_slice(&bytes[..n]);
    }

    /// One reply as text: of arrays their parts in brackets.
    fn reply(&mut self) -> String {
        let line = self.line();
        let text = String::from_utf8_lossy(&line).into_owned();
        let number = || text[1..].parse::<i64>().expect("a length");
        match line[0] {
            b'$' if number() < 0 => "nil".into(),
            b'$' | b'=' => {
                let len = number() as usize;
                while self.unread.len() < len + 2 {
                    self.more();
                }
                let value = String::from_utf8_lossy(&self.unread[..len]).into_owned();
                self.unread.drain(..len + 2);
                value
            }
            b'_' => "nil".into(),
            b'*' | b'~' | b'>' | b'%' if number() < 0 => "none".into(),
            b'*' | b'~' | b'>' | b'%' => {
                let n = number() as usize * if line[0] == b'%' { 2 } else { 1 };
                let parts: Vec<String> = (0..n).map(|_| self.reply()).collect();
                format!("{}[{}]", if line[0] == b'>' { ">" } else { "" }, parts.join(" "))
            }
            b':' | b'+' => text[1..].to_owned(),
            _ => text,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(&words);
        self.reply()
    }

    /// Whether the other side ends it, without another word.
    fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => self.unread.is_empty() && rest.is_empty(),
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

async fn two() -> (Global, Local, Local) {
    let global = Global::start(&[]);
    let a = Local::start_with(&global, DOOR).await;
    let b = Local::start_with(&global, DOOR).await;
    (global, a, b)
}

/// In the namespace in replace mode, once it is there.
async fn replacing(local: &Local) -> Talk {
    let mut talk = Talk::to(local);
    assert_eq!(talk.ask("SELECT 1"), "OK");
    until("the namespace is there", async || talk.ask("EXISTS k").parse::<u32>().is_ok()).await;
    talk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_over_resp_is_read_at_another_node_and_a_bound_name_refuses_other_bytes() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (Talk::to(&a), Talk::to(&b));
    assert_eq!(a.ask("SET k v"), "OK");
    assert_eq!(a.ask("SET k v"), "OK", "identical bytes");
    assert!(a.ask("SET k other").starts_with("-OCCUPIED Key occupied! (blake3:"));
    assert_eq!(a.ask("SET k other NX"), "nil");
    assert_eq!(b.ask("GET k"), "v");
    assert_eq!(b.ask("MGET k nope"), "[v nil]");
    assert_eq!(b.ask("STRLEN k"), "1");
    assert_eq!(
        (b.ask("DEL k k nope"), a.ask("GET k"), b.ask("EXISTS k k")),
        ("1".into(), "nil".into(), "0".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replies_in_order_a_pipeline_sees_its_own_changes() {
    let (_global, a, _b) = two().await;
    let mut talk = replacing(&a).await;
    let mut bytes = Vec::new();
    for n in 0..500 {
        let n = n.to_string();
        bytes.extend(command(&[b"SET", b"n", n.as_bytes()]));
        bytes.extend(command(&[b"GET", b"n"]));
        bytes.extend(command(&[b"PING", n.as_bytes()]));
        bytes.extend(command(&[b"GET", format!("absent{n}").as_bytes()]));
    }
    let mut writer = talk.stream.try_clone().expect("cloned");
    let written = std::thread::spawn(move || writer.write_all(&bytes).expect("taken"));
    for n in 0..500 {
        let n = n.to_string();
        let replies = [talk.reply(), talk.reply(), talk.reply(), talk.reply()];
        assert_eq!(replies, ["OK", &n, &n, "nil"]);
    }
    written.join().expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_replaced_over_resp_is_what_every_later_get_at_any_node_returns() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    for n in 0..100 {
        assert_eq!(a.ask(&format!("SET k {n}")), "OK");
        assert_eq!(b.ask("GET k"), n.to_string());
        assert_eq!(b.ask("INCR k"), (n + 1).to_string());
        assert_eq!(a.ask("GET k"), (n + 1).to_string());
    }
    assert_eq!(a.ask("SET k v EX 1000"), "OK");
    assert!(b.ask("TTL k").parse::<i64>().is_ok_and(|left| (900..=1000).contains(&left)));
    assert_eq!(b.ask("PERSIST k"), "1");
    assert_eq!(a.ask("TTL k"), "-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_does_all_or_nothing_and_nothing_if_a_watched_key_changed() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    assert_eq!(a.ask("MULTI"), "OK");
    for line in ["SET x 1", "INCR x", "GET x", "MGET x y", "PING"] {
        assert_eq!(a.ask(line), "QUEUED");
    }
    assert_eq!(b.ask("GET x"), "nil", "nothing is done before EXEC");
    assert_eq!(a.ask("EXEC"), "[OK 2 2 [2 nil] PONG]");
    assert_eq!(a.ask("WATCH x y"), "OK");
    assert_eq!(b.ask("SET y 1"), "OK");
    assert_eq!((a.ask("MULTI"), a.ask("SET x 9")), ("OK".into(), "QUEUED".into()));
    assert_eq!(a.ask("EXEC"), "none");
    assert_eq!(b.ask("GET x"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_tracks_what_he_read_is_told_when_another_node_changes_it() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    assert_eq!(b.ask("SET k 1"), "OK");
    assert!(a.ask("HELLO 3").contains("proto 3"));
    assert_eq!(a.ask("CLIENT TRACKING ON"), "OK");
    // Until the node holds it, the reply is followed by the invalidation.
    until("the node holds the name", async || {
        let value = a.ask("GET k");
        assert_eq!(value, "1");
        if a.ask("PING") == "PONG" {
            return true;
        }
        assert_eq!(a.reply(), "PONG");
        false
    })
    .await;
    assert_eq!(b.ask("SET k 2"), "OK");
    assert_eq!(a.reply(), ">[invalidate [k]]");
    assert_eq!(a.ask("GET k"), "2");
    assert_eq!(b.ask("SET other 2"), "OK");
    assert_eq!(a.ask("GET absent"), "nil");
    assert_eq!(a.reply(), ">[invalidate [absent]]", "its change would not be heard of");
    assert_eq!(a.ask("CLIENT TRACKING OFF"), "OK");
    assert_eq!(a.ask("PING"), "PONG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_global_hits_are_served_while_the_lease_lives_and_then_clients_are_told_to_try_again() {
    let mut global = Global::start(&["--lease", "2s"]);
    let a = Local::start_with(&global, DOOR).await;
    let mut talk = Talk::to(&a);
    assert_eq!(talk.ask("SET k v"), "OK");
    a.holds("k").await;
    global.daemon.kill();
    let start = Instant::now();
    let first = talk.ask("GET k");
    assert!(first == "v" || first.starts_with("-TRYAGAIN"), "{first}");
    until("the lease ends", async || talk.ask("GET k").starts_with("-TRYAGAIN")).await;
    assert!(start.elapsed() > Duration::from_millis(500), "not before");
    assert!(talk.ask("SET k w").starts_with("-TRYAGAIN"));
    assert_eq!(talk.ask("PING"), "PONG");
    let alone = Local::lonely_with(&global.daemon.at, DOOR).await;
    assert!(Talk::to(&alone).ask("GET k").starts_with("-LOADING"));
    assert!(Talk::to(&alone).ask("INFO persistence").contains("loading:1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_go_both_ways_and_what_is_too_large_is_refused_at_its_header() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (Talk::to(&a), Talk::to(&b));
    let value = noise(7, 5 << 20);
    a.send(&[b"SET", b"large", &value]);
    assert_eq!(a.reply(), "OK");
    for talk in [&mut a, &mut b] {
        talk.send(&[b"GET", b"large"]);
        assert_eq!(talk.line(), format!("${}", value.len()).into_bytes());
        while talk.unread.len() < value.len() + 2 {
            talk.more();
        }
        assert!(talk.unread[..value.len()] == value, "the bytes are those that were set");
        talk.unread.clear();
    }
    a.stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999999\r\n").expect("written");
    assert_eq!(a.reply(), "-ERR Protocol error: invalid bulk length");
    assert!(a.ends());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_are_ended_and_others_are_served_on() {
    let (_global, a, _b) = two().await;
    let mut good = Talk::to(&a);
    assert_eq!(good.ask("SET k v"), "OK");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k w\r\n"] {
        let mut talk = Talk::to(&a);
        talk.stream.write_all(bytes).expect("written");
        assert!(talk.ends(), "without an answer");
    }
    let mut wrong = Talk::to(&a);
    wrong.stream.write_all(b"*1\r\n$x\r\n").expect("written");
    assert!(wrong.reply().starts_with("-ERR Protocol error"));
    assert!(wrong.ends());
    // One that reads nothing is not read from: what it is owed stays bounded.
    let mut deaf = Talk::to(&a);
    deaf.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set");
    let asked = command(&[b"PING", &[b'x'; 1000]]).repeat(1000);
    let mut sent = 0_u64;
    while let Ok(n) = deaf.stream.write(&asked) {
        sent += n as u64;
        assert!(sent < 64 << 20, "`{sent}` bytes were taken from a client that reads nothing");
    }
    assert_eq!(good.ask("GET k"), "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_cost_little_and_leave_with_the_node() {
    let (_global, mut a, _b) = two().await;
    let mut all: Vec<Talk> = (0..1000).map(|_| Talk::to(&a)).collect();
    for talk in &mut all {
        assert_eq!(talk.ask("PING"), "PONG");
    }
    let mut one = Talk::to(&a);
    assert!(one.ask("INFO clients").contains("connected_clients:1001"));
    all.truncate(10);
    until("they are forgotten", async || one.ask("INFO clients").contains("connected_clients:11")).await;
    assert!(a.daemon.end(Signal::TERM).success());
    assert!(one.ends());
}

/// Reads `key` until the node holds it; an invalidation that follows a reply is read too.
async fn read_until_held(talk: &mut Talk, key: &str, before: &str) {
    until("the node holds the name", async || {
        if !before.is_empty() {
            assert_eq!(talk.ask(before), "OK");
        }
        talk.ask(&format!("GET {key}"));
        let next = talk.ask("PING");
        if next == "PONG" {
            return true;
        }
        assert_eq!(talk.reply(), "PONG");
        false
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_loop_opt_in_and_broadcast_tell_what_they_say_and_nothing_else() {
    let (_global, a, b) = two().await;
    let (mut one, mut opted, mut all) = (replacing(&a).await, replacing(&a).await, replacing(&a).await);
    let mut other = replacing(&b).await;
    for talk in [&mut one, &mut opted, &mut all] {
        assert!(talk.ask("HELLO 3").contains("proto 3"));
    }
    assert_eq!(other.ask("MSET k 1 unread 1 p:k 1"), "OK");
    assert_eq!(one.ask("CLIENT TRACKING ON NOLOOP"), "OK");
    assert_eq!(opted.ask("CLIENT TRACKING ON OPTIN"), "OK");
    read_until_held(&mut one, "k", "").await;
    assert_eq!(one.ask("SET k 2"), "OK");
    assert_eq!(one.ask("PING"), "PONG", "its own change is not told");
    read_until_held(&mut one, "k", "").await;
    assert_eq!(opted.ask("GET k"), "2", "not asked for");
    assert_eq!(other.ask("SET k 3"), "OK");
    assert_eq!(one.reply(), ">[invalidate [k]]");
    assert_eq!(opted.ask("PING"), "PONG");
    read_until_held(&mut opted, "k", "CLIENT CACHING YES").await;
    assert_eq!(other.ask("SET k 4"), "OK");
    assert_eq!(opted.reply(), ">[invalidate [k]]");
    assert_eq!(all.ask("CLIENT TRACKING ON BCAST PREFIX p:"), "OK");
    // Its watch begins a moment later.
    all.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let mut bytes = [0; 4096];
    until("the watch has begun", async || {
        assert_eq!(
            (other.ask("SET p:k v"), other.ask("SET q v"), other.ask("SET p:k w")),
            ("OK".into(), "OK".into(), "OK".into())
        );
        match all.stream.read(&mut bytes) {
            Ok(n) => {
                all.unread.extend_from_slice(&bytes[..n]);
                true
            }
            Err(_) => false,
        }
    })
    .await;
    all.stream.set_read_timeout(Some(SOON)).expect("set");
    let told = all.reply();
    assert!(told.starts_with(">[invalidate [p:k"), "{told}");
    assert!(!told.contains('q'), "{told}");
}
