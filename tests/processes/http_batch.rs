//! Batches over HTTP, by themselves and all or nothing, at two Locals.

use crate::http::Door;
use crate::http_client::{Answer, Http};
use crate::http_writes::{revision, told, two_doors};
use crate::rig::{Global, name, noise};
use dstore_shared::{BlobHash, Namespace, NamespaceMode, NamespaceResult, NamespaceSpec};
use futures_util::future::join_all;
use serde_json::{Value, json};

pub async fn batch(http: &mut Http, steps: &Value, atomic: bool) -> Answer {
    let text = if atomic { json!({"atomic": true, "steps": steps}) } else { json!({"steps": steps}) };
    http.call("POST", "/v1/batch", &[("Content-Type", "application/json")], text.to_string().as_bytes()).await
}

pub fn statuses(answer: &Answer) -> Vec<u64> {
    let json = answer.json();
    let results = json["results"].as_array().unwrap_or_else(|| panic!("results: {answer:?}"));
    results.iter().map(|result| result["status"].as_u64().expect("a status")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_carries_out_its_steps_in_order_and_tells_what_became_of_each() {
    let global = Global::start(&[]);
    let door = Door::start(&global).await;
    let mut http = door.http().await;
    let json_type = [("Content-Type", "application/json; charset=utf-8")];
    let batch = json!({"steps": [
        {"op": "get", "key": "a"},
        {"op": "set", "key": "a", "value": "text"},
        {"op": "set", "key_base64": "/w==", "namespace": "other", "value_base64": "AP8="},
        {"op": "set", "key": "a", "value": "other"},
        {"op": "get", "key": "a"},
        {"op": "get", "namespace": "other", "key_base64": "/w=="},
        {"op": "delete", "key": "a"},
        {"op": "delete", "key": "nothing"},
        {"op": "get", "key": "a"},
    ]});
    let answer = http.call("POST", "/v1/batch", &json_type, batch.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().expect("results").clone();
    let statuses: Vec<_> =
        results.iter().map(|result| result["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [404, 201, 201, 409, 200, 200, 204, 404, 404]);
    assert_eq!(results[3]["problem"]["hash"], BlobHash::of(b"text").to_string());
    assert_eq!((&results[4]["value"], &results[4]["key"]), (&json!("text"), &json!("a")));
    assert_eq!((&results[5]["value_base64"], &results[5]["namespace"]), (&json!("AP8="), &json!("other")));

    for (body, kind) in [
        ("", "invalid"),
        ("{\"steps\":[]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\"}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\",\"key\":\"a\",\"key_base64\":\"YQ==\"}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\",\"key\":\"a\",\"value\":\"b\"}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"set\",\"key\":\"a\"}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\",\"key\":\"a\",\"key_base64\":null}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"drop\",\"key\":\"a\"}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\",\"key\":\"a\",\"more\":1}]}", "invalid"),
        ("{\"steps\":[{\"op\":\"get\",\"key_base64\":\"!\"}]}", "invalid"),
    ] {
        assert_eq!(
            http.call("POST", "/v1/batch", &json_type, body.as_bytes()).await.problem(),
            kind,
            "{body}"
        );
    }
    let many = json!({"steps": vec![json!({"op": "get", "key": "a"}); 257]}).to_string();
    assert_eq!(http.call("POST", "/v1/batch", &json_type, many.as_bytes()).await.status, 413);
    // What a page of another origin may send without asking first.
    let plain = http.call("POST", "/v1/batch", &[("Content-Type", "text/plain")], b"{}").await;
    assert_eq!((plain.status, &*plain.problem()), (415, "media-type"));

    // More than an answer takes: the values that fit, and of the others what they are.
    for key in ["l1", "l2"] {
        assert_eq!(http.put(&format!("/v1/kv/default/{key}"), &vec![b'x'; 600 << 10]).await.status, 201);
    }
    let steps = json!({"steps": [{"op": "get", "key": "l1"}, {"op": "get", "key": "l2"}]}).to_string();
    let answer = http.call("POST", "/v1/batch", &json_type, steps.as_bytes()).await.json();
    assert_eq!(
        (&answer["results"][0]["status"], &answer["results"][1]["status"]),
        (&json!(200), &json!(413))
    );
    // What takes six bytes in JSON for one counts as it is written.
    assert_eq!(http.put("/v1/kv/default/control", &vec![1; 200 << 10]).await.status, 201);
    let steps = json!({"steps": [{"op": "get", "key": "control"}]}).to_string();
    for atomic in ["", "\"atomic\":true,"] {
        let steps = steps.replacen('{', &format!("{{{atomic}"), 1);
        let answer = http.call("POST", "/v1/batch", &json_type, steps.as_bytes()).await;
        assert!(answer.body.len() < 1 << 20, "{} bytes", answer.body.len());
        let result = &answer.json()["results"][0];
        assert_eq!((&result["status"], &result["size"]), (&json!(413), &json!(200 << 10)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_over_http_is_done_at_one_revision_or_not_at_all() {
    let (_global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let large = "x".repeat(100_000);
    let steps = json!([
        {"op": "get", "key": "one"},
        {"op": "set", "key": "one", "value": "1"},
        {"op": "set", "key_base64": "/w==", "namespace": "cache", "value": large},
        {"op": "get", "key": "one"},
        {"op": "delete", "key": "nothing"},
        {"op": "set", "key": "two", "value": "a"},
        {"op": "delete", "key": "two"},
        {"op": "set", "key": "two", "value": "b", "ttl_ms": 3_600_000},
    ]);
    let done = batch(&mut a, &steps, true).await;
    assert_eq!(statuses(&done), [404, 201, 201, 200, 404, 201, 204, 201], "{done:?}");
    let json = done.json();
    let at = json["revision"].as_u64().expect("a revision");
    assert_eq!(json["results"][3]["value"], "1", "a step sees what those before it did");
    for path in ["default/one", "cache/%FF", "default/two"] {
        let got = b.get(&format!("/v1/kv/{path}")).await;
        assert_eq!((got.status, revision(&got)), (200, at), "{path}: all of it is one change");
    }
    assert!(b.get("/v1/kv/default/two").await.headers.contains_key("x-dstore-ttl-ms"));

    // The third is occupied: nothing is done of what stands before it and after it.
    let steps = json!([
        {"op": "set", "key": "three", "value": "3"},
        {"op": "delete", "key": "two"},
        {"op": "set", "key": "one", "value": "other"},
        {"op": "set", "key": "four", "value": "4"},
    ]);
    let refused = batch(&mut b, &steps, true).await;
    assert_eq!(told(&refused), (409, "occupied".into()));
    let problem = refused.json();
    assert_eq!((&problem["step"], &problem["hash"]), (&json!(2), &json!(BlobHash::of(b"1").to_string())));
    for (key, status) in [("three", 404), ("four", 404), ("two", 200)] {
        assert_eq!(a.get(&format!("/v1/kv/default/{key}")).await.status, status, "{key}");
    }
    // By themselves the others are done.
    assert_eq!(statuses(&batch(&mut b, &steps, false).await), [201, 204, 409, 201]);

    // Conditions of several names, of which one does not hold.
    let expect = |one: u64, nobody: u64| {
        json!([
            {"op": "get", "key": "one", "if_revision": one},
            {"op": "set", "namespace": "cache", "key": "nobody", "value": "n", "if_revision": nobody},
        ])
    };
    for (one, nobody, step) in [(at + 1, 0, 0), (at, 1, 1), (0, 0, 0)] {
        let refused = batch(&mut a, &expect(one, nobody), true).await;
        assert_eq!((told(&refused), &refused.json()["step"]), ((412, "precondition".into()), &json!(step)));
    }
    assert_eq!(a.get("/v1/kv/cache/nobody").await.status, 404);
    assert_eq!(statuses(&batch(&mut a, &expect(at, 0), true).await), [200, 201]);
    // In replace mode a name is bound anew.
    let again = json!([{"op": "set", "namespace": "cache", "key": "nobody", "value": "m"}, {"op": "get", "namespace": "cache", "key": "nobody"}]);
    let done = batch(&mut b, &again, true).await;
    assert_eq!((statuses(&done), &done.json()["results"][1]["value"]), (vec![204, 200], &json!("m")));
    assert_eq!(
        told(&batch(&mut a, &json!([{"op": "get", "key": "one", "if_revision": at}]), false).await).0,
        400
    );
}

/// Moves one from a number to another, all or nothing, as long as the two are what was read.
async fn transfer(mut http: Http, turns: u32) {
    for turn in 0..turns {
        let (from, to) = if turn % 2 == 0 { ("left", "right") } else { ("right", "left") };
        loop {
            let get = |key: &str| json!({"op": "get", "namespace": "cache", "key": key});
            let read = batch(&mut http, &json!([get(from), get(to)]), true).await.json();
            let of = |i: usize| {
                let one = &read["results"][i];
                let n: i64 = one["value"].as_str().expect("text").parse().expect("a number");
                (n, one["revision"].as_u64().expect("a revision"))
            };
            let ((n, n_at), (m, m_at)) = (of(0), of(1));
            assert_eq!(n + m, 100, "nobody sees half of a batch");
            let set = |key: &str, n: i64, at: u64| json!({"op": "set", "namespace": "cache", "key": key, "value": n.to_string(), "if_revision": at});
            let done = batch(&mut http, &json!([set(from, n - 1, n_at), set(to, m + 1, m_at)]), true).await;
            match done.status {
                200 => break,
                412 => {}
                status => panic!("{status}: {done:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atomic_batches_over_http_of_several_callers_keep_a_sum() {
    let (_global, one, two) = two_doors().await;
    for (key, n) in [("left", "50"), ("right", "50")] {
        assert_eq!(one.http().await.put(&format!("/v1/kv/cache/{key}"), n.as_bytes()).await.status, 201);
    }
    let mut callers = Vec::new();
    for i in 0..4 {
        let door = if i % 2 == 0 { &one } else { &two };
        callers.push(tokio::spawn(transfer(door.http().await, 8)));
    }
    for caller in join_all(callers).await {
        caller.expect("it moves");
    }
    let mut http = two.http().await;
    for key in ["left", "right"] {
        assert_eq!(http.get(&format!("/v1/kv/cache/{key}")).await.body, b"50", "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_of_a_batch_over_http_tell_new_names_from_those_that_were_bound() {
    let (_global, one, _two) = two_doors().await;
    let mut http = one.http().await;
    let set = |value: &str| json!({"op": "set", "namespace": "cache", "key": "k", "value": value});
    let done = batch(&mut http, &json!([set("a"), set("b"), set("b"), set("c")]), false).await;
    assert_eq!(statuses(&done), [201, 204, 204, 204], "one after the other");
    assert_eq!(http.get("/v1/kv/cache/k").await.body, b"c", "the last one is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_that_cannot_fit_is_refused_before_any_of_its_values_is_stored() {
    let (_global, one, _two) = two_doors().await;
    let mut http = one.http().await;
    // Names that are conditions, too, travel twice: with 250 of the longest there is room for nothing.
    let large = "x".repeat(100_000);
    let mut steps = vec![json!({"op": "set", "key": "large", "value": large})];
    let long = |i: u32| format!("{i:01024}");
    steps.extend((0..255).map(|i| json!({"op": "get", "key": long(i), "if_revision": 0})));
    let refused = batch(&mut http, &Value::from(steps.clone()), true).await;
    assert_eq!(told(&refused), (413, "too-large".into()));
    let blob = format!("/v1/blob/{}", BlobHash::of(large.as_bytes()));
    assert_eq!(http.get(&blob).await.status, 404, "nothing was stored for it");
    // Without conditions there is room for all that a batch may have.
    steps.iter_mut().for_each(|step| _ = step.as_object_mut().expect("a step").remove("if_revision"));
    let done = batch(&mut http, &Value::from(steps), true).await;
    assert_eq!(statuses(&done), [&[201][..], &[404; 255]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_batch_over_a_namespace_that_becomes_write_once_is_done_or_not_at_all() {
    let (_global, one, two) = two_doors().await;
    let (mut a, mut b) = (one.http().await, two.http().await);
    let moody = || {
        json!([
            {"op": "set", "key": "beside", "value": "v"},
            {"op": "set", "namespace": "moody", "key": "k", "value": "1"},
            {"op": "set", "namespace": "moody", "key": "k", "value": "2"},
            {"op": "delete", "namespace": "moody", "key": "k"},
            {"op": "delete", "key": "beside"},
        ])
    };
    // Over what an earlier step bound: 204 in replace mode; otherwise the whole is refused, never that step alone.
    let client = crate::rig::client(&one.local.daemon.at);
    let changes = tokio::spawn(async move {
        let moody = Namespace::new("moody").expect("valid");
        let spec = NamespaceSpec { mode: NamespaceMode::Replace, ttl: None };
        for _ in 0..20 {
            let created = client.create_namespace(&moody, spec).await.expect("answered");
            let dropped = client.drop_namespace(&moody).await.expect("answered");
            assert_eq!((created.result, dropped.result), (NamespaceResult::Done, NamespaceResult::Done));
        }
    });
    let mut refused = 0;
    while !changes.is_finished() || refused == 0 {
        let answer = batch(&mut b, &moody(), true).await;
        match answer.status {
            200 => {
                assert_eq!(statuses(&answer), [201, 201, 204, 204, 204], "{answer:?}");
            }
            409 => {
                assert_eq!(answer.json()["step"], 2);
                assert_eq!(answer.json()["hash"], BlobHash::of(b"1").to_string());
                assert_eq!(a.get("/v1/kv/default/beside").await.status, 404, "nothing was done");
                refused += 1;
            }
            status => panic!("{status}: {answer:?}"),
        }
    }
    changes.await.expect("the namespace came and went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_of_a_batch_that_are_too_much_together_leave_those_that_fit() {
    let (_global, one, two) = two_doors().await;
    let mut http = one.http().await;
    let value = noise(1, 5 << 20);
    assert_eq!(http.put("/v1/kv/default/large0", &value).await.status, 201);
    for (key, value) in [("small", "s"), ("last", "l")] {
        assert_eq!(http.put(&format!("/v1/kv/default/{key}"), value.as_bytes()).await.status, 201);
    }
    // Together over the 64 MiB that one call gives.
    for i in 1..14 {
        let copied = one.local.client.copy(&name("large0"), &name(format!("large{i}"))).await;
        assert!(copied.is_ok(), "{copied:?}");
    }
    let get = |key: String| json!({"op": "get", "key": key});
    let mut steps = vec![get("small".into())];
    steps.extend((0..14).map(|i| get(format!("large{i}"))));
    steps.extend([get("nobody".into()), get("last".into())]);
    for door in [&one, &two] {
        let answer = batch(&mut door.http().await, &Value::from(steps.clone()), false).await;
        assert_eq!(statuses(&answer), [&[200][..], &[413; 14], &[404, 200]].concat());
        let results = &answer.json()["results"];
        assert_eq!((&results[0]["value"], &results[16]["value"]), (&json!("s"), &json!("l")));
        assert_eq!(
            (&results[3]["hash"], &results[3]["size"]),
            (&json!(BlobHash::of(&value).to_string()), &json!(5 << 20))
        );
    }
}
