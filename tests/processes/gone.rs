//! A Local that is killed, stopped, cut off or unheard of while names that it holds are deleted elsewhere.
//!
//! The leases are the default ones: a DEL waits at most `A + D(1+rho)` for a holder that does not answer.

use crate::rig::{Global, Local, SLACK, client_with, dstore, name, noise, target, timed, until};
use crate::wire::Flow;
use dstore_client::{Slice, Tier};
use dstore_shared::Kind;
use futures_util::future::join_all;
use rustix::process::Signal;
use std::time::Duration;

/// A + D(1+rho) for D = 2 s.
const BOUND: Duration = Duration::from_millis(250 + 2010);
/// A holder that is gone was waited for: its lease was renewed every third of D, at the latest.
const WAITED: Duration = Duration::from_millis(500);
const LARGE: usize = 4 << 20;
/// For what waits for nobody: less than any lease that is left.
const PROMPT: Duration = Duration::from_millis(1200);
/// For what must not be answered at all.
const BRIEFLY: Duration = Duration::from_millis(300);

/// How a Local goes away, and how it comes back.
struct Way {
    leave: fn(&mut Local),
    come_back: fn(&mut Local),
}

const STOPPED: Way = Way {
    leave: |local| local.daemon.signal(Signal::STOP),
    come_back: |local| local.daemon.signal(Signal::CONT),
};
const CUT: Way =
    Way { leave: |local| local.wire.set(Flow::Cut), come_back: |local| local.wire.set(Flow::Through) };
const HELD: Way =
    Way { leave: |local| local.wire.set(Flow::Held), come_back: |local| local.wire.set(Flow::Through) };

/// Global, a writer, and a Local that holds `large`, `kept`, `gone-0` and `gone-1`.
async fn holding() -> (Global, Local, Local) {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    a.client.set(&name("large"), noise(1, LARGE)).await.expect("set");
    for key in ["kept", "gone-0", "gone-1"] {
        a.client.set(&name(key), key).await.expect("set");
    }
    for key in ["large", "kept", "gone-0", "gone-1"] {
        b.holds(key).await;
    }
    (global, a, b)
}

/// Deletes what an unreachable Local holds: the first DEL waits for its lease, later ones for nothing.
async fn delete_without(a: &Local) {
    let (deleted, took) = timed(a.client.delete(&[name("gone-0")])).await;
    assert_eq!(deleted.expect("deleted").removed, [true]);
    assert!(took >= WAITED, "the holder was waited for, since it might serve: {took:?}");
    assert!(took < BOUND + SLACK, "and not longer than promised: {took:?}");
    let (deleted, took) = timed(a.client.delete(&[name("gone-1"), name("large")])).await;
    assert_eq!(deleted.expect("deleted").removed, [true, true]);
    assert!(took < PROMPT, "a later DEL is not delayed: {took:?}");
}

async fn comes_back(way: Way) {
    let (global, a, mut b) = holding().await;
    (way.leave)(&mut b);
    delete_without(&a).await;
    // Asked while it is away, answered when it is back: nothing deleted may slip through in between.
    let early = client_with(&b.daemon.at, Duration::from_secs(30));
    let asking = ["gone-0", "gone-1", "large"].map(|key| {
        let early = early.clone();
        tokio::spawn(async move { early.get(&name(key)).await.map(|value| value.map(|v| v.entry)) })
    });
    // That nobody answers shows in time only.
    tokio::time::sleep(BRIEFLY).await;
    assert!(!asking.iter().any(tokio::task::JoinHandle::is_finished), "nobody is there to answer");
    let came = b.wire.down();
    (way.come_back)(&mut b);
    for asked in asking {
        // A call of its own patience may end as unavailable; the value it must not give.
        if let Ok(answer) = asked.await.expect("it ended") {
            assert_eq!(answer, None, "deleted before it came back");
        }
    }
    b.serving().await;
    for key in ["gone-0", "gone-1", "large"] {
        assert_eq!(b.get(key).await.map(|value| value.entry), None, "{key}");
    }
    b.holds("kept").await;
    // The bytes stayed, whatever became of their name.
    a.client.set(&name("other"), noise(1, LARGE)).await.expect("set");
    let value = b.get("other").await.expect("found");
    assert!(value.bytes == noise(1, LARGE) && value.from.tier == Tier::Global);
    let came = b.wire.down() - came;
    assert!(came < LARGE as u64 / 4, "the copy was still there: {came} bytes came");
    until("no session is a wildcard", async || global.fact("wildcards").await == 0).await;
    let (deleted, took) = timed(a.client.delete(&[name("kept"), name("other")])).await;
    assert_eq!(deleted.expect("deleted").removed, [true, true]);
    assert!(took < PROMPT, "who is back answers at once: {took:?}");
    assert!(b.get("kept").await.is_none() && b.get("other").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_was_stopped_and_goes_on_never_serves_what_was_deleted_meanwhile() {
    comes_back(STOPPED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_was_cut_off_and_returns_never_serves_what_was_deleted_meanwhile() {
    comes_back(CUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_whose_packets_were_dropped_never_serves_what_was_deleted_meanwhile() {
    comes_back(HELD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_was_killed_delays_one_delete_and_begins_empty() {
    let (_global, a, mut b) = holding().await;
    b.daemon.kill();
    delete_without(&a).await;
    b.again().await;
    for key in ["gone-0", "gone-1", "large"] {
        assert_eq!(b.get(key).await.map(|value| value.entry), None, "{key}");
    }
    let kept = b.get("kept").await.expect("found");
    assert_eq!((&kept.bytes[..], kept.from.tier), (&b"kept"[..], Tier::Global));
    b.holds("kept").await;
}

/// A goodbye that was lost would be waited for so long that no busy machine explains it.
const LONG_LEASE: [&str; 2] = ["--lease", "8s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_ends_in_order_delays_no_delete() {
    let global = Global::start(&LONG_LEASE);
    let a = Local::start(&global).await;
    a.client.set(&name("large"), noise(1, LARGE)).await.expect("set");
    for round in 0..16 {
        let mut b = Local::start(&global).await;
        a.client.set(&name("k"), "v").await.expect("set");
        b.holds("k").await;
        let busy = round % 2 == 1;
        if busy {
            // A call that is under way when it ends: somebody reads slowly, and longer than such calls may take.
            let large = b.client.get_stream(&target("large"), Slice::ALL).await.expect("answered");
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(large);
            });
        }
        assert_eq!(b.daemon.end(Signal::TERM).code(), Some(0));
        let (deleted, took) = timed(a.client.delete(&[name("k")])).await;
        assert_eq!(deleted.expect("deleted").removed, [true]);
        assert!(took < PROMPT, "round {round}, busy: {busy}: it said goodbye: {took:?}");
        assert_eq!(global.fact("sessions").await, 1, "and did not come back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tiers_in_one_process_end_without_waiting_for_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..10 {
        let key = format!("SET k{round} v; GET k{round}; DEL k{round}");
        let script = dstore(dir.path(), &[&LONG_LEASE[..], &["-c", &key]].concat()).output();
        let (ended, took) = timed(async { script.expect("dstore runs") }).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(took < PROMPT + SLACK, "round {round}: Global waited for the Local's lease: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_reading_holds_an_end_up_for_five_seconds_at_most() {
    let global = Global::start(&[]);
    let mut local = Local::start(&global).await;
    local.client.set(&name("large"), noise(1, LARGE)).await.expect("set");
    let _unread = local.client.get_stream(&target("large"), Slice::ALL).await.expect("answered");
    let (ended, took) = timed(async { local.daemon.end(Signal::TERM) }).await;
    assert_eq!(ended.code(), Some(0), "{:?}", local.daemon.err());
    eprintln!("ended after {took:?}");
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
}

/// 1,000 names, deleted in one go and in ten, while `way` keeps their holder away.
async fn a_thousand_names(way: Way) {
    let global = Global::start(&[]);
    let (a, mut b) = (Local::start(&global).await, Local::start(&global).await);
    let keys: Vec<String> = (0..1000).map(|i| format!("name-{i}")).collect();
    for some in keys.chunks(100) {
        join_all(some.iter().map(async |key| a.client.set(&name(key), key.clone()).await.expect("set")))
            .await;
        join_all(some.iter().map(|key| b.holds(key))).await;
    }
    (way.leave)(&mut b);
    let (first, rest) = keys.split_at(500);
    let names = |keys: &[String]| keys.iter().map(name).collect::<Vec<_>>();
    let deleted = a.client.delete(&names(first)).await.expect("deleted");
    assert_eq!(deleted.removed, [true; 500]);
    for some in rest.chunks(50) {
        assert_eq!(a.client.delete(&names(some)).await.expect("deleted").removed, [true; 50]);
    }
    // It cannot know yet, so it must not say anything; what it says later must be right.
    let brief = client_with(&b.daemon.at, BRIEFLY);
    let asked = join_all(keys.iter().step_by(50).map(async |key| brief.get(&name(key)).await)).await;
    for answer in asked {
        assert_eq!(answer.expect_err("nobody knows").kind(), Kind::Unavailable);
    }
    (way.come_back)(&mut b);
    for some in keys.chunks(100) {
        for value in join_all(some.iter().map(|key| b.get(key))).await {
            assert_eq!(value.map(|value| value.entry), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_a_thousand_names_deleted_during_a_partition_is_served_after_it() {
    a_thousand_names(CUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_a_thousand_names_deleted_while_packets_were_dropped_is_served_after_it() {
    a_thousand_names(HELD).await;
}
