//! Deletes that are answered before they are drained, reads that may be stale, absent names that are kept: each
//! only where it was asked for, and saying so.

use crate::rig::{Global, Local, SLACK, dstore, fact, failed, name, target, timed, until};
use crate::wire::Flow;
use dstore_client::Tier;
use dstore_proto::store::SetReply;
use dstore_shared::{DeleteMode, Kind, Result, SetOutcome};
use rustix::process::Signal;
use std::process::Output;
use std::time::Duration;

/// A + D(1+rho) for D = 4 s: a busy machine may stand still for 2 s between the stop of a holder and a DEL.
const BOUND: Duration = Duration::from_millis(250 + 4020);
/// A holder that is gone was waited for: its lease was renewed every third of D, at the latest.
const WAITED: Duration = Duration::from_millis(500);
/// For what waits for nobody: less than any lease that is left.
const PROMPT: Duration = Duration::from_millis(1200);

/// Global, a writer, and a Local that holds `k` and stands still.
async fn holder_stopped() -> (Global, Local, Local) {
    let global = Global::start(&["--lease", "4s"]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    a.client.set(&name("k"), "old").await.expect("set");
    b.holds("k").await;
    b.daemon.signal(Signal::STOP);
    (global, a, b)
}

fn stored(reply: &Result<SetReply>) -> bool {
    matches!(reply, Ok(SetReply { outcome: SetOutcome::Stored(_), .. }))
}

fn run(local: &Local, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let at = local.daemon.at.to_string();
    dstore(dir.path(), &[args, &["--node", &at]].concat()).output().expect("it runs")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_delete_is_answered_at_once_and_a_set_after_it_waits_for_whoever_may_serve_the_old_value() {
    let (_global, a, b) = holder_stopped().await;
    let (deleted, took) = timed(a.client.delete_in(&[name("k")], DeleteMode::Async)).await;
    let deleted = deleted.expect("deleted");
    assert_eq!(deleted.removed, [true]);
    assert!(took < PROMPT, "nobody is waited for: {took:?}");
    let bound = deleted.stale.expect("the staleness is told");
    assert!(bound >= Duration::from_millis(500) && bound <= BOUND + Duration::from_millis(1), "{bound:?}");
    assert_eq!(a.get("k").await.map(|v| v.bytes), None, "it is gone for whoever asks Global");
    let (set, took) = timed(a.client.set(&name("k"), "new")).await;
    assert!(stored(&set), "{set:?}");
    assert!(took >= WAITED, "b may serve the old value until its lease ends: {took:?}");
    assert!(took < bound + SLACK, "and not longer than told: {took:?}");
    b.daemon.signal(Signal::CONT);
    b.serving().await;
    assert_eq!(b.get("k").await.expect("bound").bytes, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_delete_that_everybody_has_heard_of_leaves_nothing_stale() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    a.client.set(&name("k"), "old").await.expect("set");
    b.holds("k").await;
    let bound = a.client.delete_in(&[name("k")], DeleteMode::Async).await.expect("deleted").stale;
    let strict = a.client.delete(&[name("k")]).await.expect("deleted");
    assert_eq!(
        (strict.removed, strict.stale),
        (vec![false], None),
        "it is told of asynchronous ones: {bound:?}"
    );
    assert!(b.get("k").await.is_none(), "a strict op after it is as good as ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_a_set_waits_for_those_whom_an_async_delete_has_not_reached() {
    let (mut global, a, b) = holder_stopped().await;
    let bound = a.client.delete_in(&[name("k")], DeleteMode::Async).await.expect("deleted").stale;
    assert!(bound.is_some());
    global.daemon.kill();
    global.again();
    let (set, took) = timed(global.client().set(&name("k"), "new")).await;
    assert!(stored(&set), "{set:?}");
    assert!(took >= WAITED, "b's lease of before may run: {took:?}");
    b.daemon.signal(Signal::CONT);
    b.follow(&global).await;
    assert_eq!(b.get("k").await.expect("bound").bytes, "new");
    // A clean stop ends that: no lease is out.
    assert!(global.daemon.end(Signal::TERM).success());
    global.again();
    a.follow(&global).await;
    b.follow(&global).await;
    global.daemon.kill();
    global.again();
    let (set, took) = timed(global.client().set(&name("other"), "new")).await;
    assert!(stored(&set), "{set:?}");
    assert!(took < PROMPT, "no asynchronous DEL since: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_with_a_deadline_says_who_is_waited_for_and_the_same_request_later_is_done() {
    let (_global, a, b) = holder_stopped().await;
    let (names, limit) = ([name("k")], Duration::from_millis(100));
    let id = a.client.request_id().await.expect("an id");
    let (pending, took) = timed(a.client.delete_as(id, &names, DeleteMode::Deadline(limit))).await;
    let pending = failed(pending);
    assert_eq!(pending.kind(), Kind::Pending, "{pending}");
    assert!(pending.message().starts_with("waiting for `process "), "{pending}");
    assert!(took >= limit && took < PROMPT, "{took:?}");
    assert_eq!(a.get("k").await.expect("not durable yet").bytes, "old");
    let done = a.client.delete_as(id, &names, DeleteMode::Deadline(BOUND + SLACK)).await.expect("done");
    assert_eq!((done.removed, done.stale), (vec![true], None));
    let again = a.client.delete_as(id, &names, DeleteMode::Deadline(limit)).await.expect("as before");
    assert_eq!((again.removed, again.revision), (vec![true], done.revision), "made once");
    assert!(a.get("k").await.is_none());
    b.daemon.signal(Signal::CONT);
    b.serving().await;
    assert!(b.get("k").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_ends_a_pending_delete_with_code_8_and_takes_its_request_up_again() {
    let (_global, a, b) = holder_stopped().await;
    let pending = run(&a, &["del", "k", "--deadline", "100ms", "--json"]);
    assert_eq!(pending.status.code(), Some(8), "{pending:?}");
    let told = String::from_utf8_lossy(&pending.stderr).into_owned();
    assert!(told.contains("Pending: waiting for `process "), "{told}");
    let answer = json(&pending);
    assert_eq!(answer["error"]["kind"], "Pending");
    let request = answer["request"].as_str().expect("what to ask again with");
    let done = run(&a, &["del", "k", "--deadline", "10s", "--request", request, "--json"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(json(&done)["keys"][0]["removed"], true);
    b.daemon.signal(Signal::CONT);
    b.serving().await;
    a.client.set(&name("k"), "new").await.expect("set");
    b.holds("k").await;
    b.daemon.signal(Signal::STOP);
    let done = run(&a, &["del", "--async", "k"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "Key removed (global and local)\n");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && told.contains("others may read the old value for up to 4."), "{told}");
    b.daemon.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_value_is_given_only_without_lease_and_global_only_if_asked_for_and_with_its_age() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    let wait = Duration::from_millis(50);
    for key in ["k", "gone"] {
        a.client.set(&name(key), key).await.expect("set");
        b.holds(key).await;
    }
    a.client.delete(&[name("gone")]).await.expect("deleted");
    let fresh = b.client.get_stale(&name("k"), wait).await.expect("answered").expect("bound");
    assert_eq!((fresh.from.tier, fresh.from.stale_for), (Tier::Local, None), "under a lease it is right");
    b.wire.set(Flow::Held);
    until("the lease has run out", async || b.client.status().await.is_ok_and(|s| !s.serving)).await;
    let stale = b.client.get_stale(&name("k"), wait).await.expect("answered").expect("held");
    let age = stale.from.stale_for.expect("its age is told");
    assert!(stale.bytes == "k" && age < Duration::from_secs(10), "{age:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stat = b.client.stat_stale(&target("k"), wait).await.expect("answered").expect("held");
    assert!(stat.from.stale_for.expect("told") >= age + Duration::from_millis(300), "it grows");
    let impatient = crate::rig::client_with(&b.daemon.at, Duration::from_millis(700));
    assert_eq!(failed(impatient.get(&name("k")).await).kind(), Kind::Unavailable, "never by default");
    for unknown in ["gone", "never"] {
        let asked = impatient.get_stale(&name(unknown), wait).await;
        assert_eq!(failed(asked).kind(), Kind::Unavailable, "{unknown}: nothing old is known of it");
    }
    let shown = run(&b, &["get", "--stale-ok=50ms", "k"]);
    let told = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && shown.stdout == b"k" && told.contains("stale: global does not answer"));
    let shown = json(&run(&b, &["get", "--stale-ok=50ms", "--json", "k"]));
    assert!(shown["stale_ms"].as_u64().expect("a number") >= 300, "{shown}");
    // Deleted behind its back: it could not know, and says since when.
    a.client.delete(&[name("k")]).await.expect("deleted");
    assert!(b.client.get_stale(&name("k"), wait).await.expect("answered").is_some());
    b.wire.set(Flow::Through);
    b.serving().await;
    assert!(b.client.get_stale(&name("k"), wait).await.expect("answered").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_value_is_given_when_global_was_killed() {
    let mut global = Global::start(&[]);
    let b = Local::start(&global).await;
    b.client.set(&name("k"), "v").await.expect("set");
    b.holds("k").await;
    global.daemon.kill();
    until("the lease has run out", async || b.client.status().await.is_ok_and(|s| !s.serving)).await;
    let stale = b.client.get_stale(&name("k"), Duration::from_millis(50)).await.expect("answered");
    assert!(stale.expect("held").from.stale_for.is_some());
    let strict = run(&b, &["get", "k"]);
    assert_eq!(strict.status.code(), Some(4), "{strict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_name_is_answered_from_memory_and_a_set_elsewhere_is_seen_at_once() {
    let global = Global::start(&[]);
    let a = Local::start_with(&global, &["--negatives"]).await;
    let b = Local::start(&global).await;
    let hits = async || fact(&a.client.status().await.expect("answers"), "absent_hits");
    for round in 0..20 {
        let key = format!("k{round}");
        let before = hits().await;
        until("the absence is a hit", async || {
            assert!(a.get(&key).await.is_none());
            hits().await > before
        })
        .await;
        let (set, took) = timed(b.client.set(&name(key.clone()), "v")).await;
        assert!(stored(&set) && took < PROMPT, "{took:?} {set:?}");
        assert_eq!(a.get(&key).await.expect("it was acknowledged").bytes, "v", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_waits_for_a_silent_holder_of_an_absence_no_longer_than_its_term() {
    let global = Global::start(&["--lease", "10s"]);
    let a = Local::start_with(&global, &["--negatives"]).await;
    let b = Local::start(&global).await;
    let hits = async || fact(&a.client.status().await.expect("answers"), "absent_hits");
    until("the absence is a hit", async || {
        assert!(a.get("k").await.is_none());
        hits().await > 0
    })
    .await;
    assert!(a.get("k").await.is_none());
    a.daemon.signal(Signal::STOP);
    let (set, took) = timed(b.client.set(&name("k"), "v")).await;
    assert!(stored(&set), "{set:?}");
    assert!(took < Duration::from_millis(502) + SLACK, "far less than the lease of 10 s: {took:?}");
    a.daemon.signal(Signal::CONT);
    assert_eq!(a.get("k").await.expect("it was acknowledged").bytes, "v");
}
