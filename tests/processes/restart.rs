//! Global ends and starts again: after a kill it waits for leases that it cannot know, after an orderly stop
//! for nothing; Locals list what they hold and serve it again without a transfer.

use crate::rig::{Global, Local, SLACK, client_with, fact, name, noise, timed, until};
use crate::wire::Flow;
use dstore_client::Tier;
use futures_util::future::join_all;
use rustix::process::Signal;
use std::time::Duration;

/// So long that a machine which stands still for seconds changes nothing, where times are compared.
const LONG: &str = "6s";
/// D(1+rho) for that.
const GRACE: Duration = Duration::from_millis(6030);
/// For what waits for nobody: less than any lease that is left.
const PROMPT: Duration = Duration::from_millis(1200);
const LARGE: usize = 2 << 20;

async fn holding(keys: usize, lease: &'static str) -> (Global, Local, Local, Vec<String>) {
    let global = Global::start(&["--lease", lease]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    let keys: Vec<String> = (0..keys).map(|i| format!("name-{i}")).collect();
    for some in keys.chunks(64) {
        join_all(some.iter().map(async |key| a.client.set(&name(key), key.clone()).await.expect("set")))
            .await;
        join_all(some.iter().map(|key| b.holds(key))).await;
    }
    a.client.set(&name("large"), noise(1, LARGE)).await.expect("set");
    b.holds("large").await;
    (global, a, b, keys)
}

/// Everything is a hit at `b`, though next to nothing came over the wire since it had received `since` bytes.
async fn hits_without_transfer(b: &Local, keys: &[String], since: u64) {
    b.holds("large").await;
    for key in keys {
        b.holds(key).await;
        assert_eq!(b.get(key).await.expect("found").bytes, key.as_bytes());
    }
    assert!(b.get("large").await.expect("found").bytes == noise(1, LARGE));
    let came = b.wire.down() - since;
    assert!(came < LARGE as u64 / 4, "{came} bytes came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_a_delete_waits_for_leases_of_the_life_before_and_holders_are_hit_again() {
    let (mut global, a, b, keys) = holding(600, LONG).await;
    global.daemon.kill();
    let came = b.wire.down();
    let start = std::time::Instant::now();
    global.again();
    // `b` stays where it is, alone, with a lease of the Global before: it may serve until that has run out.
    b.wire.set(Flow::Cut);
    a.follow(&global).await;
    let set = a.client.set(&name("new"), "new").await;
    set.expect("a SET of a free name waits for nobody");
    assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    let deleted = a.client.delete(&[name("name-0")]).await.expect("deleted");
    let took = start.elapsed();
    assert_eq!(deleted.removed, [true]);
    assert!(took + Duration::from_millis(100) >= GRACE, "the grace was kept: {took:?}");
    assert!(took < GRACE + SLACK, "{took:?}");
    let brief = client_with(&b.daemon.at, Duration::from_millis(300));
    assert!(brief.get(&name("name-0")).await.is_err(), "it is alone, so it does not know");
    b.wire.set(Flow::Through);
    b.follow(&global).await;
    assert_eq!(b.get("name-0").await.map(|value| value.entry), None);
    hits_without_transfer(&b, &keys[1..], came).await;
    until("no session is a wildcard", async || global.fact("wildcards").await == 0).await;
    let (deleted, took) = timed(a.client.delete(&[name("name-1")])).await;
    assert!(deleted.expect("deleted").removed == [true] && took < PROMPT, "{took:?}");
    assert_eq!(b.get("name-1").await.map(|value| value.entry), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_stop_the_next_start_deletes_at_once() {
    let (mut global, a, b, keys) = holding(64, "2s").await;
    for signal in [Signal::TERM, Signal::INT] {
        let (ended, took) = timed(async { global.daemon.end(signal) }).await;
        assert_eq!(ended.code(), Some(0), "{:?}", global.daemon.err());
        assert!(took < PROMPT, "Locals said goodbye: {took:?}");
        let brief = client_with(&b.daemon.at, Duration::from_millis(300));
        assert!(brief.get(&name("large")).await.is_err(), "nobody serves while Global is away");
        let start = std::time::Instant::now();
        global.again();
        a.follow(&global).await;
        let key = format!("{signal:?}");
        a.client.set(&name(&*key), "x").await.expect("set");
        assert_eq!(a.client.delete(&[name(key)]).await.expect("deleted").removed, [true]);
        assert!(start.elapsed() < PROMPT + Duration::from_millis(500), "no grace: {:?}", start.elapsed());
        let came = b.wire.down();
        b.follow(&global).await;
        hits_without_transfer(&b, &keys, came).await;
    }
    let log = global.daemon.err().join("\n");
    assert!(!log.contains("unfinished end"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_slept_past_its_lease_lists_what_it_holds_and_is_hit_again_without_transfer() {
    // More names than one SUMMARY lists.
    let (global, a, b, keys) = holding(1200, "2s").await;
    b.daemon.signal(Signal::STOP);
    until("its session is over", async || global.fact("sessions").await == 1).await;
    let came = b.wire.down();
    let deleted = a.client.delete(&[name("name-3")]).await.expect("deleted");
    assert_eq!(deleted.removed, [true]);
    b.daemon.signal(Signal::CONT);
    until("its session is back", async || global.fact("sessions").await == 2).await;
    until("no session is a wildcard", async || global.fact("wildcards").await == 0).await;
    assert_eq!(b.get("name-3").await.map(|value| value.entry), None);
    let rest: Vec<String> = keys.into_iter().filter(|key| key != "name-3").collect();
    // Registered by the listing alone: not one of them was asked for since.
    assert!(global.fact("registrations").await >= rest.len() as u64);
    hits_without_transfer(&b, &rest, came).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_with_clients_and_calls_under_way_end_with_0_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut global = Global::start(&["--lease", "500ms"]);
        let mut local = Local::start(&global).await;
        local.client.set(&name("k"), "v").await.expect("set");
        let asker = local.client.clone();
        let asking = tokio::spawn(async move {
            // Until it is told that nobody is there any more.
            while let Ok(found) = asker.get(&name("k")).await {
                assert_eq!(found.expect("it was set").bytes, "v");
            }
        });
        local.holds("k").await;
        let status = local.client.status().await.expect("answered");
        assert_eq!((status.tier, fact(&status, "names")), (Tier::Local, 1));
        for daemon in [&mut local.daemon, &mut global.daemon] {
            let (ended, took) = timed(async { daemon.end(signal) }).await;
            assert_eq!(ended.code(), Some(0), "{:?}", daemon.err());
            assert!(took < PROMPT, "nothing keeps it: {took:?}");
        }
        asking.abort();
        assert!(asking.await.is_err_and(|e| e.is_cancelled()), "its patience is longer than this test's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_global_stops_health_and_status_say_so_and_changes_are_refused_at_once() {
    let mut global = Global::start(&[]);
    let local = Local::start(&global).await;
    local.client.set(&name("k"), "v").await.expect("set");
    // Its goodbye does not arrive, so Global waits for the end of its lease.
    local.wire.set(Flow::Held);
    assert_eq!(crate::start::health(&global.daemon.at).await, 1);
    global.daemon.signal(Signal::TERM);
    until("health tells", async || crate::start::health(&global.daemon.at).await == 2).await;
    let client = client_with(&global.daemon.at, Duration::from_millis(200));
    assert!(!client.status().await.expect("it answers still").serving);
    assert_eq!(client.get(&name("k")).await.expect("reads go on").expect("found").bytes, "v");
    for (what, failed) in [
        ("a SET", client.set(&name("l"), "w").await.map(|_| ())),
        ("a large SET", client.set(&name("l"), noise(2, LARGE)).await.map(|_| ())),
        ("a DEL", client.delete(&[name("k")]).await.map(|_| ())),
    ] {
        let e = failed.expect_err(what);
        assert!(e.message().contains("global is stopping"), "{what}: {e}");
    }
    assert_eq!(global.daemon.end(Signal::CONT).code(), Some(0), "{:?}", global.daemon.err());
    global.again();
    let client = global.client();
    assert_eq!(client.get(&name("k")).await.expect("answered").expect("found").bytes, "v");
    assert!(client.get(&name("l")).await.expect("answered").is_none(), "what was refused was not done");
}
