//! What callers over HTTP may not do: other hosts and origins, half requests, too much of anything, and answers that
//! nobody reads. Whatever they do, the next caller is served.

use crate::http::Door;
use crate::http_client::Http;
use crate::rig::{Daemon, Global, SOON, client, dstore, name, noise, until};
use dstore_client::WatchQuery;
use dstore_shared::{Namespace, Revision};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;

async fn works(door: &Door) {
    let mut http = door.http().await;
    let status = http.get("/v1/kv/default/absent").await.status;
    assert_eq!(status, 404, "the next caller is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_hosts_and_pages_of_other_origins_are_refused_over_http() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let with = async |host: &str, more: &str, method: &str| {
        let mut http = door.http().await;
        http.send(format!("{method} /v1/kv/default/k HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").as_bytes())
            .await;
        http.answer(method == "HEAD").await
    };
    for host in ["localhost", "127.0.0.1:1234", "[::1]:80", "10.1.2.3"] {
        assert_eq!(with(host, "", "GET").await.status, 404, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:50380", ""] {
        let answer = with(host, "", "GET").await;
        assert_eq!((answer.status, &*answer.problem()), (421, "host"), "{host}");
    }
    let mut http = door.http().await;
    http.send(b"GET /v1/kv/default/k HTTP/1.1\r\n\r\n").await;
    assert_eq!(http.answer(false).await.status, 400);
    let origin = "Origin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\n";
    for method in ["GET", "DELETE", "OPTIONS"] {
        let answer = with("localhost", origin, method).await;
        assert_eq!((answer.status, &*answer.problem()), (403, "origin"), "{method}");
        assert!(answer.headers.keys().all(|name| !name.starts_with("access-control")), "{answer:?}");
    }
    for method in ["OPTIONS", "POST", "PATCH", "TRACE"] {
        let answer = with("localhost", "", method).await;
        assert_eq!((answer.status, &*answer.problem()), (405, "method"), "{method}");
        assert!(answer.header("allow").contains("PUT"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_over_http_is_refused_before_it_is_sent() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    // Who asks first is told to go on, or not to.
    http.send(b"PUT /v1/kv/default/e HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(http.answer(false).await.status, 100);
    http.send(b"ok").await;
    assert_eq!(http.answer(false).await.status, 201);
    let vast = "PUT /v1/kv/default/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741825\r\nExpect: 100-continue\r\n\r\n";
    http.send(vast.as_bytes()).await;
    let answer = http.answer(false).await;
    assert_eq!((answer.status, &*answer.problem()), (413, "too-large"));

    let mut http = door.http().await;
    let answer = http.call("GET", "/v1/kv/default/k", &[("X-Long", &"x".repeat(17 << 10))], b"").await;
    assert_eq!((answer.status, &*answer.problem()), (431, "headers"));
    let mut http = door.http().await;
    http.send(
        &[&b"GET /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nX: "[..], &vec![b'x'; 200 << 10]].concat(),
    )
    .await;
    assert_eq!(http.head().await.0, 431, "no more than a buffer is read of it");
    works(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_all_before_he_reads_is_told_why_he_is_refused() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let value = noise(1, 8 << 20);
    let mut http = door.http().await;
    for (given, status) in
        [(("Content-Encoding", "gzip"), 415), (("Host", "evil.example"), 400), (("Expect", "foo"), 417)]
    {
        let refused = http.call("PUT", "/v1/kv/default/k", &[given], &value).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    assert_eq!(http.get("/v1/kv/default/k").await.status, 404, "on the same connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_cut_over_http_stores_nothing() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    // Within what is gathered, and beyond it; with a length and without one.
    for (i, len) in [10, 60 << 10, 200 << 10, 3 << 20].into_iter().enumerate() {
        for (framing, body) in [
            (format!("Content-Length: {}", len + 1), vec![b'x'; len]),
            (
                "Transfer-Encoding: chunked".into(),
                [format!("{len:x}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat(),
            ),
            (
                "Transfer-Encoding: chunked".into(),
                [format!("{:x}\r\n", len + 1).as_bytes(), &vec![b'x'; len]].concat(),
            ),
        ] {
            let mut http = door.http().await;
            http.send(
                format!("PUT /v1/kv/default/cut{i} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")
                    .as_bytes(),
            )
            .await;
            http.send(&body).await;
            http.cut();
        }
    }
    until("the uploads are given up", async || global.staged() == 0).await;
    let mut http = door.http().await;
    let page = http.get("/v1/kv/default").await.json();
    assert_eq!(page["names"].as_array().map(Vec::len), Some(0), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_http_port_ends_its_connection_and_nothing_else() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    for rubbish in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\xff\xff\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut http = Http::to(&door.at).await;
        http.send(rubbish).await;
        // Whatever it is told, it is told to go.
        let told = http.rest().await;
        assert!(told.len() < 4096, "{}: {}", rubbish.escape_ascii(), told.escape_ascii());
    }
    works(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_all_at_once_are_answered_in_their_order() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    let pair = |i: usize| {
        let path = format!("/v1/kv/default/p{i} HTTP/1.1\r\nHost: localhost\r\n");
        format!("PUT {path}Content-Length: 3\r\n\r\n{i:03}GET {path}\r\n")
    };
    let all: Vec<_> = (0..200).map(pair).collect();
    http.send(all.concat().as_bytes()).await;
    for i in 0..200 {
        assert_eq!(http.answer(false).await.status, 201, "{i}");
        assert_eq!(http.answer(false).await.body, format!("{i:03}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_over_http_have_places_of_their_own_and_one_more_is_told_so() {
    const PLACES: usize = 75;
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let watch = async || {
        let mut http = door.http().await;
        http.send(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        http
    };
    let mut watching = Vec::new();
    for _ in 0..PLACES {
        let mut http = watch().await;
        assert_eq!(http.head().await.0, 200);
        watching.push(http);
    }
    let refused = tokio::time::timeout(SOON, async { watch().await.answer(false).await });
    let refused = refused.await.expect("one more has an end");
    assert_eq!((refused.status, &*refused.problem()), (429, "exhausted"));
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    assert!(refused.json()["detail"].as_str().expect("text").contains("at most 75 watches"));
    // Others of the node's places are left to its other doors.
    let query = WatchQuery {
        namespace: Namespace::default(),
        prefix: bytes::Bytes::new(),
        after: Some(Revision(0)),
        history: None,
    };
    let mut other = door.local.client.watch(query);
    assert_eq!(door.http().await.put("/v1/kv/default/k", b"v").await.status, 201);
    let seen = tokio::time::timeout(SOON, other.next()).await.expect("in time");
    assert!(seen.is_ok(), "it is told: {seen:?}");
    watching.pop().expect("it watches").cut();
    until("a place is free", async || watch().await.head().await.0 == 200).await;
    works(&door).await;
}

/// Connections that say nothing, until there are `n` or the other side takes no more.
async fn idle(at: &str, n: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..n {
        let connected = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(at)).await;
        let Ok(Ok(stream)) = connected else { break };
        all.push(stream);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_fills_two_doors_of_a_node_leaves_the_third_the_files_that_are_its_own() {
    const FILES: usize = 240;
    let global = Global::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let at = global.daemon.at.to_string();
    let flags =
        ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--global", &at];
    let plain = dstore(dir.path(), &[]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]);
    command.arg(plain.get_program()).arg("local").args(flags).env_clear().current_dir(dir.path());
    command.env("HOME", dir.path()).env("DSTORE_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut local = Daemon::start(command, "local");
    let resp = local.also_at("RESP");
    let http = local.also_at("HTTP");
    let http = http.strip_prefix("http://").expect("a URL");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", local.id())).expect("it runs").count();
    let client = client(&local.at);
    until("it serves", async || client.status().await.is_ok_and(|s| s.serving)).await;
    let before = files();
    // Each may have 60 of the 180 that are for connections.
    let held = (idle(http, 200).await, idle(&resp, 200).await);
    for i in 0..20 {
        let other = crate::rig::client(&local.at);
        other.set(&name(format!("k{i}")), noise(i, 200_000)).await.expect("the third door is open");
        let now = files();
        assert!(now <= before + 2 * 60 + 40, "{now} of {FILES} files, {before} before");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(held);
    assert!(local.err().iter().all(|line| !line.contains("could not be accepted")), "{:?}", local.err());
}
