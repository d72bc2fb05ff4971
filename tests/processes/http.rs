//! The HTTP door of real Locals, as callers that nobody here wrote use it: one Global, two Locals.

use crate::boundaries::SIZES;
use crate::http_client::Http;
use crate::rig::{Global, Local, SOON, name, noise, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dstore_client::Tier;
use dstore_shared::BlobHash;
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A Local with an HTTP door.
pub struct Door {
    pub local: Local,
    pub at: String,
}

impl Door {
    pub async fn start(global: &Global) -> Self {
        let mut local = Local::start_with(global, &["--http", "127.0.0.1:0"]).await;
        let at = local.daemon.also_at("HTTP");
        let at = at.strip_prefix("http://").expect("a URL").to_owned();
        Self { local, at }
    }

    pub async fn http(&self) -> Http {
        Http::to(&self.at).await
    }
}

pub fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", BlobHash::of(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_size_go_in_at_one_local_and_out_at_the_other_over_http() {
    let global = Global::start(&[]);
    let (one, two) = (Door::start(&global).await, Door::start(&global).await);
    let (mut put, mut get) = (one.http().await, two.http().await);
    for (i, size) in SIZES.into_iter().enumerate() {
        let (value, path) = (noise(i as u64, size), format!("/v1/kv/default/size/{size}"));
        // Every second one as who does not know its length sends it.
        let answer =
            if i % 2 == 0 { put.put(&path, &value).await } else { chunked(&mut put, &path, &value).await };
        assert_eq!(answer.status, 201, "{size}: {answer:?}");
        assert_eq!(answer.header("etag"), tag(&value));
        assert_eq!(answer.header("location"), format!("/v1/kv/default/size%2F{size}"));
        let revision = answer.header("x-dstore-revision").to_owned();
        let got = get.get(answer.header("location")).await;
        assert_eq!((got.status, got.header("content-length")), (200, &*size.to_string()));
        assert_eq!(got.header("x-dstore-revision"), revision);
        assert_eq!((got.header("etag"), got.header("x-dstore-tier")), (&*tag(&value), "global"));
        assert!(got.body == value, "{size}: other bytes");
        let head = get.call("HEAD", &path, &[], b"").await;
        assert_eq!(
            (head.status, head.header("content-length"), head.body.len()),
            (200, &*size.to_string(), 0)
        );
        let by_grpc = two.local.get(&format!("size/{size}")).await.expect("it is there");
        assert!(by_grpc.bytes == value, "{size}: the doors differ");
    }
    // Held now, and served from memory.
    let held = get.get("/v1/kv/default/size/16384").await;
    assert_eq!((held.status, held.header("x-dstore-tier")), (200, "local"));
    assert_eq!(held.header("cache-control"), "no-cache");
    assert_eq!(held.header("content-type"), "application/octet-stream");
    assert!(held.headers.keys().all(|name| !name.starts_with("access-control")), "{held:?}");
}

async fn chunked(http: &mut Http, path: &str, value: &[u8]) -> crate::http_client::Answer {
    http.send(
        format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
    )
    .await;
    for piece in value.chunks(50_001) {
        http.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    http.send(b"0\r\n\r\n").await;
    http.answer(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_name_refuses_other_bytes_over_http_until_it_is_deleted_and_is_then_gone_at_the_other_local()
{
    let global = Global::start(&[]);
    let (one, two) = (Door::start(&global).await, Door::start(&global).await);
    let (mut a, mut b) = (one.http().await, two.http().await);
    let path = "/v1/kv/default/k";
    assert_eq!(a.get(path).await.problem(), "not-found");
    assert_eq!(a.delete(path).await.problem(), "not-found");
    let stored = a.call("PUT", path, &[("If-None-Match", "*")], b"first").await;
    assert_eq!(stored.status, 201, "{stored:?}");

    let same = b.put(path, b"first").await;
    assert_eq!((same.status, same.header("etag")), (204, &*tag(b"first")));
    assert_eq!(same.headers.get("content-length"), None, "{same:?}");
    let other = b.put(path, b"second").await;
    assert_eq!((other.status, &*other.problem()), (409, "occupied"));
    assert_eq!(other.json()["hash"], BlobHash::of(b"first").to_string());
    assert_eq!(
        (other.header("etag"), other.header("x-dstore-revision")),
        (&*tag(b"first"), stored.header("x-dstore-revision"))
    );
    for value in [&b"first"[..], b"second"] {
        let only_new = b.call("PUT", path, &[("If-None-Match", "*")], value).await;
        assert_eq!((only_new.status, &*only_new.problem()), (412, "precondition"));
    }
    let packed = b.call("PUT", "/v1/kv/default/gz", &[("Content-Encoding", "gzip")], b"xx").await;
    assert_eq!((packed.status, &*packed.problem()), (415, "media-type"));
    let part = b.call("PUT", "/v1/kv/default/part", &[("Content-Range", "bytes 0-1/9")], b"xx").await;
    assert_eq!(part.status, 400);

    two.local.holds("k").await;
    assert_eq!(b.get(path).await.header("x-dstore-tier"), "local");
    let gone = a.delete(path).await;
    assert_eq!((gone.status, gone.headers.get("content-length")), (204, None));
    let after: u64 = gone.header("x-dstore-revision").parse().expect("a revision");
    assert!(after > stored.header("x-dstore-revision").parse().expect("a revision"));
    assert_eq!(b.get(path).await.status, 404, "what is deleted is read nowhere");
    assert_eq!(b.put(path, b"second").await.status, 201);
    assert_eq!(a.get(path).await.body, b"second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_conditions_and_ranges_are_answered_as_caches_and_downloads_expect() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    let (path, value) = ("/v1/kv/default/v", noise(1, 300_000));
    assert_eq!(http.put(path, &value).await.status, 201);
    let (mine, other) = (tag(&value), tag(b"other"));

    for (header, given, status) in [
        ("If-None-Match", &*mine, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", &*other, 200),
        ("If-Match", &*mine, 200),
        ("If-Match", &*other, 412),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = http.call(method, path, &[(header, given)], b"").await;
            assert_eq!(answer.status, status, "{method} {header}: {given}");
            if status == 304 {
                assert_eq!((answer.header("etag"), answer.header("cache-control")), (&*mine, "no-cache"));
            }
        }
    }
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-199", 100..200),
        ("bytes=299999-", 299_999..300_000),
        ("bytes=299000-999999999", 299_000..300_000),
        ("bytes=-10", 299_990..300_000),
        ("bytes=-999999999", 0..300_000),
    ] {
        let answer = http.call("GET", path, &[("Range", range), ("If-Range", &mine)], b"").await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {}-{}/300000", expected.start, expected.end - 1)
        );
        assert!(answer.body == value[expected], "{range}: other bytes");
    }
    for range in ["bytes=300000-", "bytes=-0"] {
        let answer = http.call("GET", path, &[("Range", range)], b"").await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */300000"));
        assert_eq!(answer.problem(), "range");
    }
    for (range, if_range) in [("bytes=1-2,4-5", &*mine), ("lines=1-2", &mine), ("bytes=0-0", &other)] {
        let answer = http.call("GET", path, &[("Range", range), ("If-Range", if_range)], b"").await;
        assert_eq!((answer.status, answer.body.len()), (200, value.len()), "{range}");
    }

    let blob = format!("/v1/blob/{}", BlobHash::of(&value));
    let whole = http.get(&blob).await;
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(whole.body == value && whole.header("etag") == mine);
    let part = http.call("GET", &blob, &[("Range", "bytes=7-9")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &value[7..10]));
    assert_eq!(http.call("GET", &blob, &[("If-None-Match", &mine)], b"").await.status, 304);
    assert_eq!(http.call("HEAD", &blob, &[], b"").await.header("content-length"), "300000");
    assert_eq!(http.get(&format!("/v1/blob/{}", BlobHash::of(b"nobody"))).await.problem(), "not-found");
    assert_eq!(http.get("/v1/blob/abc").await.problem(), "invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_the_type_of_several_ranges_is_given_as_a_whole_only() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    let (path, value) = ("/v1/kv/default/ranges", noise(3, 100_000));
    let words = "Multipart/ByteRanges; boundary=x";
    assert_eq!(http.call("PUT", path, &[("Content-Type", words)], &value).await.status, 201);
    for range in [&[][..], &[("Range", "bytes=0-9")], &[("Range", "bytes=999999-")]] {
        let got = http.call("GET", path, range, b"").await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, words),
            "a 206 would read as something else"
        );
        assert_eq!((got.header("accept-ranges"), got.header("content-range")), ("none", ""));
        assert!(got.body == value, "{range:?}: other bytes");
    }
    // Another multipart is a value like others, and so are the bytes by their hash.
    let other = [("Content-Type", "multipart/byteranges-not")];
    assert_eq!(http.call("PUT", "/v1/kv/default/other", &other, &value).await.status, 201);
    for path in ["/v1/kv/default/other", &format!("/v1/blob/{}", BlobHash::of(&value))] {
        let got = http.call("GET", path, &[("Range", "bytes=0-9")], b"").await;
        assert_eq!((got.status, got.header("accept-ranges"), &got.body[..]), (206, "bytes", &value[..10]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_names_that_grow_in_json_is_bounded_as_it_is_written() {
    const NAMES: usize = 400;
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    // Each has 6 KiB in JSON, so that a page has room for some 170 of them.
    let key = |i: usize| [format!("{i:03}").into_bytes(), vec![1; 1021]].concat();
    let all: Vec<_> = (0..NAMES)
        .map(|i| json!({"op": "set", "key_base64": STANDARD.encode(key(i)), "value": "v"}))
        .collect();
    for steps in all.chunks(200) {
        let text = json!({"steps": steps}).to_string();
        let json_type = [("Content-Type", "application/json")];
        assert_eq!(http.call("POST", "/v1/batch", &json_type, text.as_bytes()).await.status, 200);
    }
    let (mut listed, mut pages, mut more) = (Vec::new(), 0, String::new());
    loop {
        let page = http.get(&format!("/v1/kv/default?limit=1000{more}")).await;
        assert!(page.status == 200 && page.body.len() <= 1 << 20, "{} bytes", page.body.len());
        let json = page.json();
        let names = json["names"].as_array().expect("names");
        listed.extend(names.iter().map(|name| name["key"].as_str().expect("text").as_bytes().to_vec()));
        pages += 1;
        let Some(cursor) = json["cursor"].as_str() else { break };
        more = format!("&cursor={cursor}");
    }
    assert!(listed.iter().cloned().eq((0..NAMES).map(key)), "each name once, in order");
    assert!(pages >= 3, "{pages}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_any_bytes_are_set_read_listed_and_deleted_over_http() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    let all: Vec<u8> = (0..=255).collect();
    let keys: [&[u8]; 7] = [b"\0", b"a/b", b"a/", b"..", b"%", "größe".as_bytes(), &all];
    for key in keys {
        let mut path = "/v1/kv/bin.1/".to_owned();
        for byte in key {
            write!(path, "%{byte:02x}").expect("a string takes it");
        }
        let stored = http.put(&path, key).await;
        assert_eq!(stored.status, 201, "{key:?}: {stored:?}");
        let again = http.get(stored.header("location")).await;
        assert_eq!((again.status, &again.body[..]), (200, key), "the location names the key");
    }
    assert_eq!(http.get("/v1/kv/bin.1/a/b").await.body, b"a/b", "a slash may stand as itself");

    let mut listed = Vec::new();
    let mut path = "/v1/kv/bin.1?limit=3".to_owned();
    loop {
        let page = http.get(&path).await;
        let json = page.json();
        assert_eq!((page.status, page.header("content-type")), (200, "application/json"));
        for name in json["names"].as_array().expect("names") {
            let key = match name["key"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => STANDARD.decode(name["key_base64"].as_str().expect("bytes")).expect("base64"),
            };
            assert_eq!(name["hash"], BlobHash::of(&key).to_string());
            listed.push(key);
        }
        let Some(cursor) = json["cursor"].as_str() else { break };
        path = format!("/v1/kv/bin.1?limit=3&cursor={cursor}");
    }
    let mut expected = keys.map(<[u8]>::to_vec).to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    let page = http.get("/v1/kv/bin.1?prefix=a%2F").await.json();
    assert_eq!(page["names"].as_array().map(Vec::len), Some(2));
    for (path, kind) in [
        ("/v1/kv/bin.1/", "invalid"),
        ("/v1/kv/BIN/k", "invalid"),
        ("/v1/kv/bin.1/%g1", "invalid"),
        ("/v1/kv/bin.1/a?x=1", "invalid"),
        ("/v1/kv/bin.1?limit=0", "invalid"),
        ("/v1/kv/bin.1?limit=1001", "invalid"),
        ("/v1/kv/bin.1?cursor=%20", "invalid"),
        ("/v1/kv", "no-route"),
        ("/", "no-route"),
    ] {
        assert_eq!(http.get(path).await.problem(), kind, "{path}");
    }
    let long = format!("/v1/kv/default/{}", "k".repeat(1025));
    assert_eq!((http.get(&long).await.status, &*http.put(&long, b"").await.problem()), (413, "too-large"));
    let long = format!("/v1/kv/bin.1?prefix={}", "k".repeat(1025));
    assert_eq!(http.get(&long).await.problem(), "too-large");
    assert_eq!(http.delete("/v1/kv/bin.1/%00").await.status, 204);
    assert_eq!(http.get("/v1/kv/bin.1/%00").await.status, 404);
}

/// Reads events until `count` have come, each with its id, kind and data.
async fn events(http: &mut Http, count: usize) -> Vec<(Option<String>, String, serde_json::Value)> {
    let (mut all, mut text) = (Vec::new(), String::new());
    while all.len() < count {
        text += std::str::from_utf8(&http.chunk().await).expect("text");
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                let data = serde_json::from_str(data).expect("JSON");
                all.push((field("id").map(str::to_owned), kind.to_owned(), data));
            }
            text = rest.to_owned();
        }
    }
    all
}

async fn watch(door: &Door, query: &str, headers: &str) -> Http {
    let mut http = door.http().await;
    http.send(format!("GET /v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await;
    let (status, headers) = http.head().await;
    assert_eq!((status, &*headers["content-type"]), (200, "text/event-stream"), "{headers:?}");
    http
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_over_http_goes_on_after_the_last_event_that_was_seen() {
    let global = Global::start(&[]);
    let (one, two) = (Door::start(&global).await, Door::start(&global).await);
    let mut http = one.http().await;
    let mut watching = watch(&two, "prefix=w%2F&after=0", "").await;
    for i in 0..3 {
        assert_eq!(http.put(&format!("/v1/kv/default/w/{i}"), b"v").await.status, 201);
        assert_eq!(http.put(&format!("/v1/kv/default/other/{i}"), b"v").await.status, 201);
    }
    let seen = events(&mut watching, 2).await;
    assert_eq!(
        (&seen[0].1[..], &seen[0].2["key"], &seen[1].2["key"]),
        ("bound", &json!("w/0"), &json!("w/1"))
    );
    assert_eq!(seen[0].2["hash"], BlobHash::of(b"v").to_string());
    let last = seen[1].0.clone().expect("a whole revision has an id");
    watching.cut();
    let names = json!({"steps": [
        {"op": "delete", "key": "w/0"}, {"op": "delete", "key": "w/1"}, {"op": "delete", "key": "w/2"},
    ]});
    let json_type = [("Content-Type", "application/json")];
    http.call("POST", "/v1/batch", &json_type, names.to_string().as_bytes()).await;

    let mut again = watch(&two, "prefix=w%2F", &format!("Last-Event-ID: {last}\r\n")).await;
    let seen = events(&mut again, 4).await;
    let told: Vec<_> =
        seen.iter().map(|(_, kind, data)| (&kind[..], data["key"].as_str().expect("a key"))).collect();
    assert_eq!(told, [("bound", "w/2"), ("unbound", "w/0"), ("unbound", "w/1"), ("unbound", "w/2")]);
    let ids: Vec<_> = seen.iter().map(|(id, ..)| id.is_some()).collect();
    assert_eq!(ids, [true, false, false, true], "who resumes in the middle of a revision sees it again");

    let other = format!("/v1/watch?after={}", u64::MAX / 2);
    assert_eq!(http.get(&other).await.problem(), "too-old");
    let foreign = format!("{}-1", "0".repeat(32));
    let answer = http.call("GET", "/v1/watch", &[("Last-Event-ID", &foreign)], b"").await;
    assert_eq!((answer.status, &*answer.problem()), (410, "too-old"));
    assert_eq!(http.call("GET", "/v1/watch", &[("Last-Event-ID", "x")], b"").await.status, 400);

    // A node that stops ends its watches, and does not wait for who reads them.
    let mut two = two;
    assert!(two.local.daemon.end(Signal::TERM).success());
    assert!(again.rest().await.ends_with(b"0\r\n\r\n"), "the watch is ended, and not cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_2_without_tls_a_value_goes_in_and_out_and_a_cut_upload_stores_nothing() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let io = TokioIo::new(TcpStream::connect(&door.at).await.expect("connected"));
    let (mut http, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    let value = noise(3, 3 << 20);
    let request = |method: &str, path: &str, body: Pieces| {
        let uri = format!("http://{}{path}", door.at);
        hyper::Request::builder().method(method).uri(uri).body(body).expect("a request")
    };
    let pieces = || value.chunks(100_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let stored = http
        .send_request(request("PUT", "/v1/kv/default/two", Pieces::all(pieces())))
        .await
        .expect("answered");
    assert_eq!(stored.status(), 201);
    assert_eq!(stored.headers()["etag"], tag(&value));
    let mut got =
        http.send_request(request("GET", "/v1/kv/default/two", Pieces::all(vec![]))).await.expect("answered");
    assert_eq!(got.headers()["content-length"], value.len().to_string());
    let mut body = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(got.body_mut()).poll_frame(cx)).await {
        body.extend(frame.expect("it is whole").into_data().unwrap_or_default());
    }
    assert!(body == value, "other bytes");
    let gone = http
        .send_request(request("DELETE", "/v1/kv/default/two", Pieces::all(vec![])))
        .await
        .expect("answered");
    assert_eq!((gone.status().as_u16(), gone.headers().get("content-length")), (204, None));

    // Nobody could be told to go on: whoever waits for that is told to send without it.
    let mut waits = request("PUT", "/v1/kv/default/waits", Pieces::begun(vec![]));
    waits.headers_mut().insert("expect", "100-continue".parse().expect("valid"));
    let told =
        tokio::time::timeout(SOON, http.send_request(waits)).await.expect("at once").expect("answered");
    assert_eq!(told.status(), 417);
    // Refused while it is sent: the stream ends, and the connection goes on.
    let mut packed = request("PUT", "/v1/kv/default/packed", Pieces::begun(pieces()));
    packed.headers_mut().insert("content-encoding", "gzip".parse().expect("valid"));
    let told =
        tokio::time::timeout(SOON, http.send_request(packed)).await.expect("at once").expect("answered");
    assert_eq!(told.status(), 415);

    // Begun, and then given up: the stream is reset.
    let mut cut = Box::pin(http.send_request(request("PUT", "/v1/kv/default/half", Pieces::begun(pieces()))));
    tokio::select! {
        answer = &mut cut => panic!("half a value is answered: {answer:?}"),
        () = until("the upload has begun", async || global.staged() == 1) => {}
    }
    drop(cut);
    until("the upload is given up", async || global.staged() == 0).await;
    assert_eq!(door.http().await.get("/v1/kv/default/half").await.status, 404);
}

/// A body of pieces, perhaps without an end.
struct Pieces {
    left: std::vec::IntoIter<Bytes>,
    ends: bool,
}

impl Pieces {
    fn all(pieces: Vec<Bytes>) -> Self {
        Self { left: pieces.into_iter(), ends: true }
    }

    fn begun(pieces: Vec<Bytes>) -> Self {
        Self { left: pieces.into_iter(), ends: false }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.next() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.left.len() == 0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_global_is_away_http_says_so_and_when_to_come_again() {
    let mut global = Global::start(&["--lease", "200ms"]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    assert_eq!(http.put("/v1/kv/default/k", b"v").await.status, 201);
    global.daemon.kill();
    until("nothing is answered from memory", async || {
        let answer = http.get("/v1/kv/default/k").await;
        answer.status != 200
    })
    .await;
    let answer = http.get("/v1/kv/default/k").await;
    assert_eq!((answer.status, &*answer.problem()), (503, "unavailable"));
    assert!(answer.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    assert_eq!(
        http.get(&format!("/v1/blob/{}", BlobHash::of(b"v"))).await.body,
        b"v",
        "a blob cannot be stale"
    );
    global.again();
    door.local.follow(&global).await;
    assert_eq!(http.get("/v1/kv/default/k").await.body, b"v");
    let value = door.local.client.get(&name("k")).await.expect("answered").expect("there");
    assert_eq!(value.from.tier, Tier::Local);
}
