//! A Local that loses its session and comes back: what it holds, it goes on serving.

use crate::rig::{Global, Local, SLACK, name, noise, timed, until};
use crate::wire::Flow;
use dstore_client::{ClientConfig, Tier};
use dstore_sys::Sys;
use futures_util::StreamExt;
use futures_util::future::join_all;
use std::future::Future;
use std::time::Duration;

/// Long enough that a busy machine does not make a short cut a long one.
const LONG_LEASE: [&str; 2] = ["--lease", "8s"];
const LARGE: usize = 4 << 20;
const KEYS: usize = 300;

fn keys() -> Vec<String> {
    (0..KEYS).map(|i| format!("name-{i}")).collect()
}

/// Global, a writer, and a Local that holds a large value and some names.
async fn holding(flags: &[&'static str]) -> (Global, Local, Local) {
    let global = Global::start(flags);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    a.client.set(&name("large"), noise(1, LARGE)).await.expect("set");
    let keys = keys();
    for some in keys.chunks(50) {
        join_all(some.iter().map(async |key| a.client.set(&name(key), key.clone()).await.expect("set")))
            .await;
        join_all(some.iter().map(|key| b.holds(key))).await;
    }
    b.holds("large").await;
    (global, a, b)
}

/// Every one of `keys` is answered by the Local itself.
async fn all_are_hits(b: &Local, keys: &[String]) {
    for some in keys.chunks(50) {
        for (key, value) in some.iter().zip(join_all(some.iter().map(|key| b.get(key))).await) {
            let value = value.expect("bound");
            assert_eq!((&value.bytes[..], value.from.tier), (key.as_bytes(), Tier::Local), "{key}");
        }
    }
}

async fn resumed(global: &Global) {
    until("the session is resumed", async || global.fact("sessions_resumed").await >= 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_cut_off_for_less_than_its_lease_goes_on_serving_without_a_listing_or_a_transfer() {
    let (global, _a, b) = holding(&LONG_LEASE).await;
    let (listed, came) = (global.fact("names_listed").await, b.wire.down());
    b.wire.set(Flow::Cut);
    all_are_hits(&b, &keys()).await;
    b.wire.set(Flow::Through);
    resumed(&global).await;
    all_are_hits(&b, &keys()).await;
    let large = b.get("large").await.expect("bound");
    assert!(large.bytes == noise(1, LARGE) && large.from.tier == Tier::Local);
    assert_eq!(global.fact("names_listed").await, listed, "nothing was listed");
    assert_eq!(global.fact("wildcards").await, 0);
    let came = b.wire.down() - came;
    assert!(came < 64 << 10, "no value came: {came} bytes did");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_deleted_during_a_short_cut_is_gone_after_it_and_the_delete_ends_when_the_local_is_back() {
    let (global, a, b) = holding(&LONG_LEASE).await;
    b.wire.set(Flow::Cut);
    let config = ClientConfig { deadline: Duration::from_secs(30), ..ClientConfig::default() };
    let writer = dstore_client::Client::connect(&Sys::real(), &a.daemon.at, config);
    let deleting = tokio::spawn(async move { writer.delete(&[name("name-7")]).await });
    until("the change waits", async || global.fact("changes_waiting").await == 1).await;
    assert!(!deleting.is_finished(), "its holder has not answered and may serve it still");
    let before = b.get("name-7").await;
    assert!(before.is_some(), "it is bound as long as the delete is not answered");
    b.wire.set(Flow::Through);
    let (deleted, took) = timed(deleting).await;
    assert_eq!(deleted.expect("no panic").expect("deleted").removed, [true]);
    assert!(took < Duration::from_secs(4) + SLACK, "the lease was not waited for: {took:?}");
    assert_eq!(b.get("name-7").await.map(|value| value.entry), None);
    let others: Vec<String> = keys().into_iter().filter(|key| key != "name-7").collect();
    all_are_hits(&b, &others).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_cut_what_was_deleted_meanwhile_is_gone_and_the_rest_is_served_before_it_is_listed() {
    let (global, a, b) = holding(&[]).await;
    let listed = global.fact("names_listed").await;
    b.wire.set(Flow::Cut);
    until("its session is over", async || global.fact("sessions").await == 1).await;
    let (deleted, took) = timed(a.client.delete(&[name("name-7"), name("large")])).await;
    assert_eq!(deleted.expect("deleted").removed, [true, true]);
    assert!(took < Duration::from_secs(1), "nobody is waited for: {took:?}");
    let came = b.wire.down();
    b.wire.set(Flow::Through);
    resumed(&global).await;
    b.serving().await;
    for gone in ["name-7", "large"] {
        assert_eq!(b.get(gone).await.map(|value| value.entry), None, "{gone}");
    }
    let others: Vec<String> = keys().into_iter().filter(|key| key != "name-7").collect();
    all_are_hits(&b, &others).await;
    let came = b.wire.down() - came;
    assert!(came < 64 << 10, "no value came: {came} bytes did");
    until("no session is a wildcard", async || global.fact("wildcards").await == 0).await;
    assert!(global.fact("names_listed").await >= listed + others.len() as u64);
    // It is registered for what it listed, and heard of as before.
    assert_eq!(a.client.delete(&[name("name-8")]).await.expect("deleted").removed, [true]);
    assert_eq!(b.get("name-8").await.map(|value| value.entry), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_crash_of_global_a_local_keeps_what_it_holds_and_drops_what_was_deleted_while_it_was_away() {
    let (mut global, a, b) = holding(&[]).await;
    b.wire.set(Flow::Cut);
    until("its session is over", async || global.fact("sessions").await == 1).await;
    assert_eq!(a.client.delete(&[name("name-7")]).await.expect("deleted").removed, [true]);
    global.daemon.kill();
    global.again();
    b.wire.set(Flow::Through);
    for local in [&a, &b] {
        local.follow(&global).await;
    }
    assert!(global.fact("sessions_resumed").await >= 2, "the journal tells what they missed");
    assert_eq!(b.get("name-7").await.map(|value| value.entry), None);
    let others: Vec<String> = keys().into_iter().filter(|key| key != "name-7").collect();
    all_are_hits(&b, &others).await;
    until("no session is a wildcard", async || global.fact("wildcards").await == 0).await;
}

/// What both tiers took for `what`, and how long that was.
async fn cpu_of(global: &Global, b: &Local, what: impl Future<Output = ()>) -> (Duration, Duration) {
    let before = global.daemon.cpu() + b.daemon.cpu();
    let ((), took) = timed(what).await;
    ((global.daemon.cpu() + b.daemon.cpu()).saturating_sub(before), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: tells what it costs to come back with a million names; DSTORE_NAMES = how many"]
async fn what_it_costs_to_come_back_with_a_million_names() {
    let names = std::env::var("DSTORE_NAMES").map_or(1_000_000, |n| n.parse().expect("a number"));
    let global = Global::start(&["--lease", "4s"]);
    let a = Local::start(&global).await;
    let b = Local::start_with(&global, &["--cache-bytes", "2GiB"]).await;
    let value = noise(1, 20_000);
    futures_util::stream::iter(0..names)
        .map(async |i: u64| b.client.set(&name(format!("name-{i}")), value.clone()).await.expect("set"))
        .buffer_unordered(100)
        .for_each(async |_| {})
        .await;
    let held = crate::rig::fact(&b.client.status().await.expect("status"), "names");
    assert_eq!(held, names);
    let is_hit = async |i: u64| {
        let value = b.get(&format!("name-{i}")).await.expect("bound");
        value.from.tier == Tier::Local
    };

    let (listed, came) = (global.fact("names_listed").await, b.wire.down());
    let again = async {
        b.wire.set(Flow::Cut);
        tokio::time::sleep(Duration::from_millis(100)).await;
        b.wire.set(Flow::Through);
        until("resumed", async || b.client.status().await.is_ok_and(|s| s.serving)).await;
        until("resumed", async || global.fact("sessions_resumed").await == 1).await;
    };
    let (cpu, took) = cpu_of(&global, &b, again).await;
    assert!(is_hit(7).await && is_hit(names - 1).await);
    assert_eq!(global.fact("names_listed").await, listed);
    let came = b.wire.down() - came;
    eprintln!("{names} names, within the lease: {cpu:?} of both tiers' CPU in {took:?}, {came} bytes came");

    b.wire.set(Flow::Cut);
    until("its session is over", async || global.fact("sessions").await == 1).await;
    let gone: Vec<_> = (0..1000).map(|i| name(format!("name-{i}"))).collect();
    a.client.delete(&gone).await.expect("deleted");
    let came = b.wire.down();
    let again = async {
        b.wire.set(Flow::Through);
        until("serving", async || b.client.status().await.is_ok_and(|s| s.serving)).await;
    };
    let (cpu, took) = cpu_of(&global, &b, again).await;
    assert!(is_hit(1000).await && is_hit(names - 1).await);
    assert_eq!(b.get("name-7").await.map(|value| value.entry), None);
    let bytes = b.wire.down() - came;
    eprintln!("{names} names, 1000 deleted meanwhile, too late: {cpu:?} in {took:?}, {bytes} bytes came");
    let done = async {
        while global.fact("wildcards").await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (cpu, took) = cpu_of(&global, &b, done).await;
    let bytes = b.wire.down() - came;
    eprintln!("{names} names listed behind that: {cpu:?} in {took:?}, {bytes} bytes came");
}
