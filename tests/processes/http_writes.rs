//! Conditions, replacing, times to live and types, over HTTP at two Locals.

use crate::http::{Door, tag};
use crate::http_batch::{batch, statuses};
use crate::http_client::{Answer, Http};
use crate::replace::ns;
use crate::rig::{Global, noise, until};
use dstore_shared::BlobHash;
use futures_util::future::join_all;
use serde_json::json;

/// One Global with the namespace `cache` in replace mode, two Locals.
pub async fn two_doors() -> (Global, Door, Door) {
    let global = Global::start(&[]);
    let (one, two) = (Door::start(&global).await, Door::start(&global).await);
    assert_eq!(ns(&one.local, &["create", "cache", "--mode", "replace"]).0, Some(0));
    (global, one, two)
}

/// A status, and the kind of the problem or the tag of what is bound now.
pub fn told(answer: &Answer) -> (u16, String) {
    let what = if answer.status < 300 { answer.header("etag").to_owned() } else { answer.problem() };
    (answer.status, what)
}

pub fn revision(answer: &Answer) -> u64 {
    answer.header("x-dstore-revision").parse().expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_over_a_bound_name_of_a_replace_namespace_is_read_at_the_other_local_at_once() {
    let (_global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let path = "/v1/kv/cache/k";
    let mut last = 0;
    for round in 0..20u32 {
        let (value, large) = (format!("value {round}").into_bytes(), round % 5 == 4);
        let value = if large { value.repeat(20_000) } else { value };
        let put = if round % 2 == 0 { a.put(path, &value).await } else { b.put(path, &value).await };
        assert_eq!(told(&put), (if round == 0 { 201 } else { 204 }, tag(&value)), "{round}");
        assert_eq!(put.headers.contains_key("location"), round == 0, "{put:?}");
        assert!(revision(&put) > last, "{round}");
        last = revision(&put);
        for http in [&mut a, &mut b] {
            let got = http.get(path).await;
            assert_eq!((got.status, revision(&got)), (200, last));
            assert!(got.body == value, "{round}: an old value");
        }
    }
    let value = a.get(path).await.body;
    let same = b.put(path, &value).await;
    assert_eq!((same.status, revision(&same)), (204, last), "the same bytes change nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_of_puts_and_deletes_over_http_allow_what_rfc_9110_says() {
    let (_global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let (first, second, absent) = (tag(b"first"), tag(b"second"), tag(b"nobody"));
    for (namespace, replaces) in [("default", false), ("cache", true)] {
        let path = &format!("/v1/kv/{namespace}/c");
        let mut put = async |name: &str, given: &str, value: &[u8]| {
            told(&a.call("PUT", path, &[(name, given)], value).await)
        };
        let failed = || (412, "precondition".to_owned());
        assert_eq!(put("If-Match", "*", b"first").await, failed(), "nothing is bound");
        assert_eq!(put("If-Match", &first, b"first").await, failed());
        assert_eq!(put("If-None-Match", &first, b"first").await, (201, first.clone()));
        assert_eq!(put("If-None-Match", "*", b"first").await, failed(), "also of the same bytes");
        assert_eq!(put("If-None-Match", "*", b"second").await, failed());
        assert_eq!(put("If-None-Match", &first, b"second").await, failed());
        assert_eq!(put("If-Match", &absent, b"second").await, failed());
        assert_eq!(put("If-Match", &format!("W/{first}"), b"second").await, failed(), "weak is not strong");
        assert_eq!(put("If-Match", &first, b"first").await, (204, first.clone()));
        let other = put("If-Match", &format!("{absent}, {first}"), b"second").await;
        let (allowed, refused) = ((204, second.clone()), (409, "occupied".to_owned()));
        assert_eq!(other, if replaces { allowed } else { refused });
        let bound = if replaces { &second } else { &first };

        let gone = b.call("DELETE", path, &[("If-Match", &absent)], b"").await;
        assert_eq!(told(&gone), failed());
        assert_eq!(gone.header("etag"), *bound, "it says what is bound");
        assert_eq!(b.get(path).await.header("etag"), *bound, "and nothing was deleted");
        assert_eq!(b.call("DELETE", path, &[("If-None-Match", "*")], b"").await.status, 412);
        assert_eq!(b.call("DELETE", path, &[("If-Match", bound)], b"").await.status, 204);
        // Of what is not there there is nothing to read or delete, whatever is asked: 404 (RFC 9110, section 13.2.1).
        for method in ["GET", "HEAD", "DELETE"] {
            for (name, given) in [("If-Match", &**bound), ("If-Match", "*"), ("If-None-Match", "*")] {
                let answer = b.call(method, path, &[(name, given)], b"").await;
                assert_eq!(answer.status, 404, "{method} {name}: {given}");
                assert_eq!(answer.headers.contains_key("x-dstore-revision"), method == "DELETE");
            }
        }
        let part = [("If-Match", "*"), ("Range", "bytes=0-0")];
        assert_eq!(a.call("GET", path, &part, b"").await.status, 404);
    }
    let blob = format!("/v1/blob/{}", BlobHash::of(b"nobody"));
    assert_eq!(a.call("GET", &blob, &[("If-Match", "*")], b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_refused_by_a_binding_is_told_its_tag_and_whether_it_has_the_bytes_that_he_sent() {
    let (_global, one, _two) = two_doors().await;
    let mut http = one.http().await;
    for namespace in ["default", "cache"] {
        let path = &format!("/v1/kv/{namespace}/t");
        let first = http.put(path, b"first").await;
        let told = |answer: &Answer| (answer.header("etag").to_owned(), revision(answer));
        let expected = (tag(b"first"), revision(&first));
        let mut put =
            async |headers: &[(&str, &str)], value: &[u8]| http.call("PUT", path, headers, value).await;
        // As a repetition whose first answer was lost: it was done, and may as well have been another's doing.
        let (any, other) = (("If-None-Match", "*"), ("If-Match", &*tag(b"before")));
        for condition in [any, other] {
            for (value, same) in [(&b"first"[..], Some(true)), (b"second", None)] {
                let refused = put(&[condition], value).await;
                assert_eq!((refused.status, told(&refused)), (412, expected.clone()), "{condition:?}");
                assert_eq!(refused.json()["same"].as_bool(), same, "{condition:?}: {refused:?}");
            }
        }
        assert_eq!(put(&[], b"first").await.status, 204, "without a condition it is done");
        if namespace == "default" {
            let occupied = put(&[], b"second").await;
            assert_eq!((occupied.status, told(&occupied)), (409, expected.clone()));
        }
        for method in ["GET", "HEAD", "DELETE"] {
            let refused = http.call(method, path, &[other], b"").await;
            assert_eq!((refused.status, told(&refused)), (412, expected.clone()), "{method}");
        }
        let blob = format!("/v1/blob/{}", BlobHash::of(b"first"));
        let refused = http.call("GET", &blob, &[other], b"").await;
        assert_eq!((refused.status, refused.header("etag")), (412, &*tag(b"first")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_refused_by_its_condition_is_refused_before_it_is_sent_or_passed_on() {
    let (global, one, _two) = two_doors().await;
    let mut http = one.http().await;
    assert_eq!(http.put("/v1/kv/cache/e", b"v").await.status, 201);
    let head = |len: usize, more: &str| {
        let path = "PUT /v1/kv/cache/e HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n";
        format!("{path}Content-Length: {len}\r\n{more}\r\n").into_bytes()
    };
    // Who asks first need not send it.
    let mut asking = one.http().await;
    asking.send(&head(900_000_000, "Expect: 100-continue\r\n")).await;
    assert_eq!(told(&asking.answer(false).await), (412, "precondition".into()));
    // Who does not is answered before all of it was sent, and goes on when it is. Global gets nothing of it: what is passed
    // on could be read there by its hash.
    let value = noise(7, 3 << 20);
    let (first, rest) = value.split_at(2 << 20);
    http.send(&head(value.len(), "")).await;
    http.send(first).await;
    assert_eq!(told(&http.answer(false).await), (412, "precondition".into()));
    http.send(rest).await;
    assert_eq!(http.get("/v1/kv/cache/e").await.body, b"v", "on the same connection");
    let blob = format!("/v1/blob/{}", BlobHash::of(&value));
    assert_eq!((global.staged(), http.get(&blob).await.status), (0, 404));
    // What is not refused is passed on while it comes.
    let allowed =
        String::from_utf8(head(value.len(), "")).expect("text").replace("If-None-Match", "If-Match");
    http.send(allowed.as_bytes()).await;
    http.send(first).await;
    until("it is passed on", async || global.staged() == 1).await;
    http.send(rest).await;
    assert_eq!((http.answer(false).await.status, http.get(&blob).await.status), (204, 200));
}

/// Adds one to the number at `path`, again and again, each time only if it is still the one that was read.
async fn count(mut http: Http, path: &str, turns: u32) -> u32 {
    let mut refused = 0;
    for _ in 0..turns {
        loop {
            let read = http.get(path).await;
            let n: u64 = std::str::from_utf8(&read.body).expect("text").parse().expect("a number");
            // A number of its own for each value, so that no tag comes back.
            let next = (n + 1).to_string();
            let put = http.call("PUT", path, &[("If-Match", read.header("etag"))], next.as_bytes()).await;
            match put.status {
                204 => break,
                412 => refused += 1,
                status => panic!("{status}: {put:?}"),
            }
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_between_callers_that_put_over_http_what_they_read_with_if_match() {
    const CALLERS: u32 = 6;
    const TURNS: u32 = 12;
    let (_global, one, two) = two_doors().await;
    let path = "/v1/kv/cache/n";
    assert_eq!(one.http().await.put(path, b"0").await.status, 201);
    let mut callers = Vec::new();
    for i in 0..CALLERS {
        let door = if i % 2 == 0 { &one } else { &two };
        callers.push(tokio::spawn(count(door.http().await, path, TURNS)));
    }
    let refused: u32 = join_all(callers).await.into_iter().map(|one| one.expect("it counts")).sum();
    let total = one.http().await.get(path).await.body;
    assert_eq!(total, (CALLERS * TURNS).to_string().into_bytes(), "{refused} were refused meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_puts_over_http_with_if_none_match_any_one_binds_the_name() {
    let (_global, one, two) = two_doors().await;
    let mut callers = Vec::new();
    for i in 0..8 {
        callers.push((i, if i % 2 == 0 { one.http().await } else { two.http().await }));
    }
    for round in 0..15 {
        let path = &format!("/v1/kv/cache/only/{round}");
        let puts = callers.iter_mut().map(|(i, http)| async move {
            let value = format!("of {i}").into_bytes();
            let put = http.call("PUT", path, &[("If-None-Match", "*")], &value).await;
            (put.status, value)
        });
        let done = join_all(puts).await;
        let winners: Vec<_> = done.iter().filter(|(status, _)| *status == 201).collect();
        assert_eq!(winners.len(), 1, "{round}: {done:?}");
        assert!(done.iter().all(|(status, _)| matches!(status, 201 | 412)), "{done:?}");
        assert_eq!(two.http().await.get(path).await.body, winners[0].1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_live_that_is_put_over_http_is_told_and_kept() {
    const HOUR: u64 = 3_600_000;
    let (_global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let left =
        |answer: &Answer| answer.headers.get("x-dstore-ttl-ms").map(|left| left.parse().expect("a time"));
    let hour = |left: Option<u64>| left.is_some_and(|left| (HOUR / 2..=HOUR).contains(&left));
    for namespace in ["default", "cache"] {
        let path = &format!("/v1/kv/{namespace}/t");
        let put = a.call("PUT", path, &[("X-Dstore-TTL-Ms", "3600000")], b"v").await;
        assert!(put.status == 201 && hour(left(&put)), "{put:?}");
        for _ in 0..3 {
            let (got, head) = (b.get(path).await, b.call("HEAD", path, &[], b"").await);
            assert!(got.status == 200 && hour(left(&got)) && hour(left(&head)), "{got:?} {head:?}");
        }
        let page = b.get(&format!("/v1/kv/{namespace}?prefix=t")).await.json();
        assert!(page["names"][0]["expires_at_ms"].is_u64(), "{page}");
        // The same bytes again: a name that is bound for ever lives on, whatever it was before.
        let again = a.put(path, b"v").await;
        assert_eq!((again.status, hour(left(&again))), (204, namespace == "default"), "{namespace}");

        let short = a.call("PUT", &format!("{path}s"), &[("X-Dstore-TTL-Ms", "300")], b"v").await;
        assert_eq!(short.status, 201);
        until("its time is over", async || b.get(&format!("{path}s")).await.status == 404).await;
        assert_eq!(a.put(&format!("{path}s"), b"other").await.status, 201, "it is free again");
    }
    assert_eq!(left(&a.get("/v1/kv/cache/t").await), None);
    for bad in ["0", "-1", "1s", "", "1.5", "99999999999999999999"] {
        let put = a.call("PUT", "/v1/kv/cache/bad", &[("X-Dstore-TTL-Ms", bad)], b"v").await;
        assert_eq!(told(&put), (400, "invalid".into()), "{bad}");
    }
    assert_eq!(a.get("/v1/kv/cache/bad").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_type_that_is_put_over_http_is_served_at_the_other_local_and_runs_in_no_browser() {
    let (mut global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let long = "x".repeat(255);
    let html = "text/html; charset=utf-8";
    for namespace in ["default", "cache"] {
        let path = |key: &str| format!("/v1/kv/{namespace}/{key}");
        let page = b"<script>alert(1)</script>".repeat(4000);
        for (key, value, words) in [
            ("html", &b"<p>"[..], html),
            ("page", &page, html),
            ("empty", b"", "image/png"),
            ("long", b"v", &long),
        ] {
            let put = a.call("PUT", &path(key), &[("Content-Type", words)], value).await;
            assert_eq!(put.status, 201, "{key}: {put:?}");
            for _ in 0..2 {
                for method in ["GET", "HEAD"] {
                    let got = b.call(method, &path(key), &[], b"").await;
                    assert_eq!((got.status, got.header("content-type")), (200, words), "{method} {key}");
                    assert_eq!(got.header("x-content-type-options"), "nosniff");
                    assert!(got.header("content-security-policy").contains("sandbox"), "{got:?}");
                }
            }
        }
        let part = b.call("GET", &path("page"), &[("Range", "bytes=1-2")], b"").await;
        assert_eq!((part.status, part.header("content-type")), (206, html));
        let blob = b.get(&format!("/v1/blob/{}", BlobHash::of(b"<p>"))).await;
        assert_eq!(blob.header("content-type"), "application/octet-stream", "a type is its name's");
        for words in [&[][..], &[("Content-Type", "application/octet-stream")]] {
            let put = a.call("PUT", &path("none"), words, b"v").await;
            assert!(matches!(put.status, 201 | 204), "{put:?}");
            let got = b.get(&path("none")).await;
            assert_eq!(got.header("content-type"), "application/octet-stream");
            assert_eq!(got.header("content-security-policy"), "");
        }
        let listed = b.get(&format!("/v1/kv/{namespace}?prefix=html")).await.json();
        assert_eq!(listed["names"][0]["content_type"], html, "{listed}");
        for bad in ["", &*"x".repeat(256), "text/pl\u{e4}in", "text/\tplain"] {
            let put = a.call("PUT", &path("bad"), &[("Content-Type", bad)], b"v").await;
            assert_eq!(told(&put), (400, "invalid".into()), "{bad:?}");
        }
        assert_eq!(a.get(&path("bad")).await.status, 404);
    }
    // The same bytes of another type: where names are bound once, the type stays with the name.
    let again = [("Content-Type", "text/plain")];
    for (namespace, words) in [("default", html), ("cache", "text/plain")] {
        let path = format!("/v1/kv/{namespace}/html");
        assert_eq!(b.call("PUT", &path, &again, b"<p>").await.status, 204);
        assert_eq!(a.get(&path).await.header("content-type"), words, "{namespace}");
    }
    let step = json!({"op": "set", "key": "j", "value": "{}", "content_type": "application/json"});
    for (key, atomic) in [("j1", false), ("j2", true)] {
        let mut step = step.clone();
        step["key"] = json!(key);
        assert_eq!(statuses(&batch(&mut a, &json!([step]), atomic).await), [201]);
        assert_eq!(b.get(&format!("/v1/kv/default/{key}")).await.header("content-type"), "application/json");
    }
    global.daemon.kill();
    global.again();
    one.local.follow(&global).await;
    assert_eq!(a.get("/v1/kv/cache/html").await.header("content-type"), "text/plain", "it is durable");
}
