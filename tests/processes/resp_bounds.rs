//! Clients of the RESP door that want too much, and a door that runs short: others are served on.

use crate::resp_talk::{DOOR, Talk, command, replacing, two};
use crate::rig::{Global, Local, noise, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use std::io::Write;
use std::time::{Duration, Instant};

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

/// As many as a process may have descriptors for, with room for what other tests have open. Daemons that are started
/// from now on may have as many.
fn idle_connections() -> usize {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).expect("up to the hard limit");
    let max = limits.maximum.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    // A node gives its doors equal parts of its own.
    let n = (max / 20 * 9).min(10_000);
    if n < 10_000 {
        println!("{n} connections instead of 10,000: the hard limit of descriptors is {max}");
    }
    n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_leave_with_the_node() {
    let n = idle_connections();
    let global = Global::start(&[]);
    let mut a = Local::start_with(&global, DOOR).await;
    let mut one = Talk::to(&a);
    assert_eq!(one.ask("PING"), "PONG");
    let before = a.daemon.resident_kib();
    let mut all: Vec<Talk> = (0..n).map(|_| Talk::to(&a)).collect();
    for talk in &mut all {
        assert_eq!(talk.ask("PING"), "PONG");
    }
    assert!(one.ask("INFO clients").contains(&format!("connected_clients:{}", n + 1)));
    let each = (a.daemon.resident_kib().saturating_sub(before) << 10) / n;
    println!("{n} idle connections, {each} bytes each");
    assert!(each < 8192, "`{each}` bytes for an idle connection");
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(one.ask("PING"), "PONG");
    }
    println!("100 PINGs beside them in {:?}", start.elapsed());
    all.truncate(10);
    until("they are forgotten", async || one.ask("INFO clients").contains("connected_clients:11")).await;
    assert!(a.daemon.end(Signal::TERM).success());
    assert!(one.ends());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_what_he_is_told_is_disconnected() {
    let (_global, a, b) = two().await;
    let (mut deaf, mut other, mut watching) = (replacing(&a).await, replacing(&b).await, Talk::to(&a));
    assert!(deaf.ask("HELLO 3").contains("proto 3"));
    assert_eq!(deaf.ask("CLIENT TRACKING ON BCAST"), "OK");
    let keys: Vec<String> = (0..400).map(|n| format!("{n:01000}")).collect();
    let words: Vec<&[u8]> =
        std::iter::once(&b"MSET"[..]).chain(keys.iter().flat_map(|key| [key.as_bytes(), b"v"])).collect();
    let unset: Vec<&[u8]> = std::iter::once(&b"DEL"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    // 400 KB each time; 8 MiB may wait, and what the socket takes.
    for round in 0..100 {
        other.send(if round % 2 == 0 { &words } else { &unset });
        let reply = other.reply();
        assert!(["OK", "400"].contains(&reply.as_str()), "{reply}");
        if watching.ask("INFO clients").contains("connected_clients:1\r") {
            return;
        }
        assert!(round < 99, "40 MB are kept for a client that reads nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_clients_wait_the_log_says_so_once_and_they_are_served_when_there_are_some() {
    let global = Global::start(&[]);
    let a = Local::start_with(&global, DOOR).await;
    let mut one = Talk::to(&a);
    assert_eq!(one.ask("PING"), "PONG");
    let id = Pid::from_raw(i32::try_from(a.daemon.id()).expect("small")).expect("it runs");
    let limits = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir(format!("/proc/{}/fd", a.daemon.id())).expect("it runs").count() as u64;
    let few = Rlimit { current: Some(open + 2), ..limits };
    prlimit(Some(id), Resource::Nofile, few).expect("set");
    let mut more: Vec<Talk> = (0..20).map(|_| Talk::to(&a)).collect();
    let refused = || a.daemon.err().iter().filter(|line| line.contains("cannot be taken")).count();
    until("the log says so", async || refused() > 0).await;
    // Each of these wakes the loop.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(one.ask("PING"), "PONG");
    }
    // Once in ten seconds, and the machine may have been asleep for some.
    assert!(refused() <= 3, "{:?}", a.daemon.err());
    prlimit(Some(id), Resource::Nofile, limits).expect("set");
    for talk in &mut more {
        assert_eq!(talk.ask("PING"), "PONG");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_loop_is_said_closes_its_connections_and_the_door_stays_open() {
    let global = Global::start(&[]);
    let flags = &["--resp-socket", "resp.sock", "--resp-threads", "1"];
    let mut a =
        Local::begin_with(&global, flags, "local::resp::dispatch=4*off->1*panic").await.expect("it runs");
    a.serving().await;
    let (mut one, mut other) = (Talk::to(&a), Talk::to(&a));
    assert_eq!(other.ask("PING"), "PONG");
    for _ in 0..3 {
        assert_eq!(one.ask("PING"), "PONG");
    }
    one.send(&[b"PING"]);
    assert!(one.ends() && other.ends(), "both were of that loop");
    let mut next = Talk::to(&a);
    assert_eq!(next.ask("SET k v"), "OK");
    assert_eq!(next.ask("GET k"), "v");
    let info = next.ask("INFO");
    assert!(info.contains("thread_panics:1\r") && info.contains("connected_clients:1\r"), "{info}");
    assert!(info.contains("request_bytes:0\r"), "{info}");
    assert!(a.daemon.err().iter().any(|line| line.contains("panicked")), "{:?}", a.daemon.err());
    assert!(a.daemon.end(Signal::TERM).success());
}
