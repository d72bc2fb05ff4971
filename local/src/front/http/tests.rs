//! The door of a node that has no Global: its bounds, and that it is what its description says.

use super::{Hosts, HttpDoor};
use crate::{Local, LocalConfig};
use dstore_proto::serve::{Gate, Limits};
use dstore_sys::Sys;
use dstore_sys::net::{Address, BoxIo, MemoryNet};
use dstore_sys::tasks::Tasks;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long enough for whatever must happen.
const SOON: Duration = Duration::from_secs(60);
/// Short enough to be waited for, where the limit itself is tried.
const SHORT: Duration = Duration::from_millis(100);

struct Rig {
    sys: Sys,
    gate: Gate<HttpDoor>,
    _local: Local,
}

impl Rig {
    async fn with(limits: Limits) -> Self {
        Self::of(limits, 256 << 20).await
    }

    /// With room for so many bytes.
    async fn of(limits: Limits, bytes_max: u64) -> Self {
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let config = LocalConfig::new(Address::Memory("nobody".into()));
        let local = Local::start(sys.clone(), config).await.expect("it needs no Global to start");
        let (node, tasks) = (Arc::new(local.node().clone()), Tasks::new());
        let door = HttpDoor::new(
            node.clone(),
            node,
            sys.rng.clone(),
            &tasks,
            Hosts::default(),
            (&limits, bytes_max),
        );
        let listener = sys.net.listen(&Address::Memory("http".into())).await.expect("free");
        Self { gate: Gate::open(&sys, &tasks, listener, door), sys, _local: local }
    }

    async fn connect(&self) -> BoxIo {
        self.sys.net.connect(&Address::Memory("http".into())).await.expect("it listens")
    }

    /// What is answered to `request`, until the connection ends.
    async fn told(&self, request: &str) -> String {
        let mut io = self.connect().await;
        io.write_all(request.as_bytes()).await.expect("sent");
        read_all(io).await
    }

    /// Waits until all of `n` connections were taken and are over.
    async fn ended(&self, n: u64) {
        let wait = async {
            while self.gate.counts().accepted < n || self.gate.counts().open > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the connection is ended");
    }
}

async fn read_all(mut io: BoxIo) -> String {
    let mut all = Vec::new();
    tokio::time::timeout(SOON, io.read_to_end(&mut all)).await.expect("it ends").expect("read");
    String::from_utf8(all).expect("text")
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let rig = Rig::with(Limits { transfer_idle: SHORT, ..Limits::default() }).await;
    for (path, kind) in [("kv/default/k", "text/plain"), ("batch", "application/json")] {
        let method = if path == "batch" { "POST" } else { "PUT" };
        let head = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 9\r\n\r\nabc"
        );
        let told = rig.told(&head).await;
        assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("urn:dstore:problem:slow"), "{told}");
        assert!(told.contains("connection: close\r\n"), "{told}");
    }
}

#[tokio::test]
async fn whoever_sends_too_slowly_and_goes_on_gets_his_answer() {
    let rig = Rig::with(Limits { handler: SHORT, ..Limits::default() }).await;
    let mut io = rig.connect().await;
    let head = "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    io.write_all(format!("{head}Content-Length: 1000000\r\n\r\n{{").as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    tokio::time::timeout(SOON, io.read_exact(&mut first)).await.expect("it is over").expect("read");
    assert_eq!(&first, b"HTTP/1.1 408");
    io.write_all(&vec![b' '; 999_999]).await.expect("he is not cut off");
    let told = read_all(io).await;
    assert!(told.contains("connection: close\r\n") && told.ends_with('}'), "{told}");
}

#[tokio::test]
async fn a_batch_that_is_not_whole_in_the_time_of_its_request_is_told_that_it_came_too_slowly() {
    let rig = Rig::with(Limits { handler: SHORT, transfer_idle: 10 * SHORT, ..Limits::default() }).await;
    let head = "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let told = rig.told(&format!("{head}Content-Length: 9\r\n\r\n{{")).await;
    assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("urn:dstore:problem:slow"), "{told}");
    assert!(!told.contains("retry-after"), "it was the caller's time: {told}");
}

#[tokio::test]
async fn whoever_is_refused_before_he_has_sent_all_gets_his_answer_and_goes_on() {
    let rig = Rig::with(Limits::default()).await;
    let body = vec![b'x'; 4 << 20];
    let vast = (dstore_shared::limits::BLOB_BYTES_MAX + 1).to_string();
    for (status, line, more) in [
        (415, "PUT /v1/kv/default/k", "Host: localhost\r\nContent-Encoding: gzip\r\n"),
        (400, "PUT /v1/kv/default/k", "Host: localhost\r\nX-Dstore-TTL-Ms: x\r\n"),
        (400, "PUT /v1/kv/default/k", "Host: localhost\r\nContent-Range: bytes 0-1/9\r\n"),
        (400, "PUT /v1/kv/NONE/k", "Host: localhost\r\n"),
        (421, "PUT /v1/kv/default/k", "Host: evil.example\r\n"),
        (403, "PUT /v1/kv/default/k", "Host: localhost\r\nOrigin: http://evil.example\r\n"),
        (417, "PUT /v1/kv/default/k", "Host: localhost\r\nExpect: foo\r\n"),
        (415, "POST /v1/batch", "Host: localhost\r\n"),
        (413, "POST /v1/batch", "Host: localhost\r\nContent-Type: application/json\r\n"),
        (404, "POST /nowhere", "Host: localhost\r\n"),
        (405, "DELETE /v1/batch", "Host: localhost\r\n"),
    ] {
        for chunked in [false, true] {
            let (framing, end) = if chunked {
                (format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()), "\r\n0\r\n\r\n")
            } else {
                (format!("Content-Length: {}\r\n\r\n", body.len()), "")
            };
            let mut io = rig.connect().await;
            let head = format!("{line} HTTP/1.1\r\n{more}{framing}");
            // All of it, before anything is read; then another request on the same connection.
            for part in [head.as_bytes(), &body, end.as_bytes()] {
                io.write_all(part).await.unwrap_or_else(|e| panic!("{head}: {e}"));
            }
            io.write_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await
                .expect("it goes on");
            let told = read_all(io).await;
            assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {told}");
            assert_eq!(
                told.matches("HTTP/1.1 404 ").count(),
                1 + usize::from(status == 404),
                "{head}: {told}"
            );
        }
    }
    // Who says that he sends more than there may be is told so.
    let told = Rig::with(Limits { transfer_idle: SHORT, ..Limits::default() })
        .await
        .told(&format!(
            "PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {vast}\r\n\r\n"
        ))
        .await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
}

#[tokio::test]
async fn what_is_read_on_of_a_refused_body_is_bounded_in_bytes_and_in_time() {
    let rig = Rig::with(Limits { transfer_idle: SHORT, ..Limits::default() }).await;
    let head = "PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n\
                Content-Length: 1073741824\r\n\r\n";
    // Nothing more comes.
    let told = rig.told(head).await;
    assert!(told.starts_with("HTTP/1.1 415 "), "{told}");
    // It does not end.
    let rig = Rig::with(Limits::default()).await;
    let mut io = rig.connect().await;
    io.write_all(head.as_bytes()).await.expect("sent");
    let (piece, mut sent) = (vec![0; 1 << 20], 0);
    let endless = async {
        while io.write_all(&piece).await.is_ok() {
            sent += piece.len() as u64;
        }
    };
    tokio::time::timeout(SOON, endless).await.expect("it is ended");
    let most = super::linger::BYTES_MAX;
    // Less on a machine that is late: then its time is over.
    assert!((1 << 20..most + (4 << 20)).contains(&sent), "{sent}");
    assert!(read_all(io).await.starts_with("HTTP/1.1 415 "), "he was told");
    // Who waits to be told to go on is refused, and told nothing else.
    let told = rig.told(&head.replacen("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1)).await;
    assert!(told.starts_with("HTTP/1.1 415 ") && !told.contains("HTTP/1.1 100 "), "{told}");
}

/// A batch of deletes of keys of 1,000 bytes, each of which takes six in JSON. Nobody is there to do it, and each is told
/// so with its key.
fn long_keys(steps: usize) -> String {
    let step = format!("{{\"op\":\"delete\",\"key\":\"{}\"}}", "\\u0001".repeat(1000));
    let body = format!("{{\"steps\":[{}]}}", vec![step; steps].join(","));
    format!(
        "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    )
}

#[tokio::test]
async fn answers_that_are_not_taken_keep_their_room_and_whoever_finds_none_is_told_to_come_again() {
    // Room for one such batch while it is worked on, and not beside the answer of another.
    let rig = Rig::of(Limits::default(), 2_800 << 10).await;
    let batch = long_keys(100);
    let mut slow = rig.connect().await;
    slow.write_all(batch.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    slow.read_exact(&mut first).await.expect("it is answered");
    assert_eq!(&first, b"HTTP/1.1 200");
    let closing = batch.replacen("Host", "Connection: close\r\nHost", 1);
    let told = rig.told(&closing).await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("retry-after: 1\r\n"), "{told}");
    // What takes less finds room beside it, and a read needs none.
    let small = long_keys(1).replacen("Host", "Connection: close\r\nHost", 1);
    assert!(rig.told(&small).await.starts_with("HTTP/1.1 200 "));
    // Once he is gone, his answer's room is back.
    drop(slow);
    tokio::time::timeout(SOON, async {
        while !rig.told(&closing).await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("there is room again");
}

#[tokio::test]
async fn lists_and_bodies_that_wait_take_their_room_too() {
    let rig = Rig::of(Limits::default(), 300 << 10).await;
    let list = "GET /v1/kv/default?limit=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(rig.told(list).await.starts_with("HTTP/1.1 429 "), "a page of it may be larger");
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut io = rig.connect().await;
        let head = "PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n";
        io.write_all(head.as_bytes()).await.expect("sent");
        held.push(io);
    }
    let last = "PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n";
    tokio::time::timeout(SOON, async {
        while !rig.told(&format!("{last}{}", "x".repeat(60_000))).await.starts_with("HTTP/1.1 429 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("those that wait have all of it");
}

#[tokio::test]
async fn all_steps_of_a_batch_together_have_the_time_of_one_call() {
    // There is no Global, so that each read would wait for its whole time. No machine needs as long to come to the first.
    let rig = Rig::with(Limits { handler: 20 * SHORT, ..Limits::default() }).await;
    let step = |op: &str| format!("{{\"op\":\"{op}\",\"key\":\"k\"}}");
    let steps = vec![[step("get"), step("delete")].join(","); 20].join(",");
    let body = format!("{{\"steps\":[{steps}]}}");
    let told = rig
        .told(&format!(
            "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    assert_eq!(told.matches("\"status\":503").count(), 40 * 2, "each step, and its problem: {told}");
    assert_eq!(told.matches("outcome unknown").count(), 1, "one used up the time: {told}");
    assert!(told.matches("not begun").count() >= 19, "no other was begun: {told}");
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_ended_and_his_answers_with_him() {
    let rig = Rig::with(Limits { answer_taken: SHORT, ..Limits::default() }).await;
    let mut io = rig.connect().await;
    let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    io.write_all(request.as_bytes()).await.expect("sent");
    rig.ended(1).await;
    let mut got = Vec::new();
    _ = io.read_to_end(&mut got).await;
    assert!(
        got.starts_with(b"HTTP/1.1 200 ") && got.len() < 100 * super::openapi::DOCUMENT.len(),
        "{}",
        got.len()
    );
}

#[tokio::test]
async fn a_connection_without_a_call_or_with_half_a_second_one_is_ended() {
    let rig = Rig::with(Limits { first_request: SHORT, answer_taken: SHORT, ..Limits::default() }).await;
    for (n, begun) in ["", "GET /v1/kv/default/", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].into_iter().enumerate()
    {
        let mut io = rig.connect().await;
        io.write_all(begun.as_bytes()).await.expect("sent");
        rig.ended(n as u64 + 1).await;
    }
    let mut io = rig.connect().await;
    io.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT").await.expect("sent");
    rig.ended(4).await;
    assert_eq!(read_all(io).await.matches("HTTP/1.1 404 ").count(), 1);
}

#[tokio::test]
async fn one_call_too_many_is_told_when_to_come_again() {
    let rig = Rig::with(Limits { streams: 0, ..Limits::default() }).await;
    let told =
        rig.told("GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("retry-after: 1\r\n"), "{told}");
    assert!(told.contains("\"retry_after_ms\":100"), "{told}");
}

#[tokio::test]
async fn a_stop_ends_connections_at_rest() {
    let rig = Rig::with(Limits::default()).await;
    let mut io = rig.connect().await;
    io.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    io.read_exact(&mut first).await.expect("answered");
    tokio::time::timeout(SOON, rig.gate.stop()).await.expect("it stops");
    assert_eq!(&first, b"HTTP/1.1 404");
    assert!(read_all(io).await.ends_with('}'), "the answer was whole");
}

#[tokio::test]
async fn the_paths_and_methods_that_are_described_are_there_and_no_others() {
    let rig = Rig::with(Limits { handler: SHORT, ..Limits::default() }).await;
    let document: Value = serde_json::from_str(super::openapi::DOCUMENT).expect("JSON");
    for (path, described) in document["paths"].as_object().expect("paths") {
        let methods = ["get", "head", "put", "post", "delete", "options", "patch", "trace"];
        let takes: BTreeSet<_> =
            methods.into_iter().filter(|method| described.get(method).is_some()).collect();
        let path = path.replace("{namespace}", "default").replace("{key}", "k").replace("{hash}", "0");
        for method in methods {
            let method_sent = method.to_uppercase();
            let told = rig
                .told(&format!(
                    "{method_sent} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            let refused = told.starts_with("HTTP/1.1 405 ");
            // What takes GET takes HEAD.
            let is_there = takes.contains(method) || method == "head" && takes.contains("get");
            assert_eq!(!refused, is_there, "{method} {path}: {told}");
            assert!(!told.contains("problem:no-route"), "{method} {path}: {told}");
            if refused {
                let allow =
                    told.lines().find_map(|line| line.strip_prefix("allow: ")).expect("it says which");
                let allowed: BTreeSet<_> = allow.split(',').map(|m| m.trim().to_lowercase()).collect();
                assert!(takes.iter().all(|method| allowed.contains(*method)), "{path}: {allow}");
            }
        }
    }
}
