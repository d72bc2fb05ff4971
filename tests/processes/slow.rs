//! A Local that hangs again and again keeps others waiting once.

use crate::rig::{Global, Local, SLACK, client_with, name, until};
use futures_util::future::join_all;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAMES: usize = 8_000;
/// 1,000 DELs a second.
const EVERY: Duration = Duration::from_millis(1);
/// A + D(1+rho) for D = 2 s.
const BOUND: Duration = Duration::from_millis(250 + 2010);
/// Less than what any lease would be waited for, more than a busy machine takes.
const PROMPT: Duration = Duration::from_secs(1);

/// When a DEL began, and how long it took.
type Taken = Arc<Mutex<Vec<(Instant, Duration)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_is_stopped_twice_under_a_thousand_deletes_a_second_delays_them_once() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    let keys: Vec<String> = (0..NAMES).map(|i| format!("name-{i}")).collect();
    for some in keys.chunks(200) {
        join_all(some.iter().map(async |key| a.client.set(&name(key), key.clone()).await.expect("set")))
            .await;
        join_all(some.iter().map(|key| b.get(key))).await;
    }
    a.client.set(&name("kept"), "kept").await.expect("set");
    b.holds("kept").await;
    let (taken, stop) = (Taken::default(), Arc::new(AtomicBool::new(false)));
    let storm = tokio::spawn(storm(global.daemon.at.clone(), keys, taken.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;

    b.daemon.signal(Signal::STOP);
    let stopped = Instant::now();
    until("its lease is waited out", async || global.fact("sessions").await == 1).await;
    let over = Instant::now();
    assert!(over - stopped < BOUND + SLACK, "{:?}", over - stopped);
    tokio::time::sleep(PROMPT).await;

    // It comes back, and hangs again as soon as it has a session.
    b.daemon.signal(Signal::CONT);
    until("it has a session", async || global.fact("sessions").await == 2).await;
    b.daemon.signal(Signal::STOP);
    // On a busy machine the other one may have been late, too.
    assert!((1..=2).contains(&global.fact("slow_locals").await));
    assert_eq!(global.fact("wildcards").await, 0, "nobody waits for it");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.store(true, Ordering::SeqCst);
    let made = storm.await.expect("no panic");
    b.daemon.signal(Signal::CONT);

    let taken = taken.lock().expect("nobody panics with it").clone();
    let during = taken.iter().filter(|(from, _)| *from >= stopped && *from < over);
    let longest = during.map(|(_, took)| *took).max().unwrap_or_default();
    assert!(longest > Duration::from_millis(500), "the holder was waited for: {longest:?}");
    assert!(longest < BOUND + SLACK, "and not longer than promised: {longest:?}");
    let settled = over + PROMPT / 2;
    let after: Vec<Duration> =
        taken.iter().filter(|(from, _)| *from >= settled).map(|(_, took)| *took).collect();
    let worst = after.iter().max().copied().unwrap_or_default();
    eprintln!(
        "{made} DELs; while it hung at most {longest:?}; of {} later ones at most {worst:?}",
        after.len()
    );
    assert!(after.len() > 500, "there were some: {}", after.len());
    assert!(worst < PROMPT, "a later DEL waited, too: {worst:?}");

    // Forgiven, it holds and is heard of as before.
    b.serving().await;
    b.holds("kept").await;
    until("it is not slow any more", async || global.fact("slow_locals").await == 0).await;
    assert_eq!(a.client.delete(&[name("kept")]).await.expect("deleted").removed, [true]);
    assert_eq!(b.get("kept").await.map(|value| value.entry), None);
}

/// A DEL every millisecond, until there is none left or `stop`; gives how many.
async fn storm(at: dstore_client::Address, keys: Vec<String>, taken: Taken, stop: Arc<AtomicBool>) -> usize {
    // Several connections: one has at most 128 calls at a time.
    let clients: Vec<_> = (0..24).map(|_| client_with(&at, Duration::from_secs(30))).collect();
    let (mut calls, began) = (tokio::task::JoinSet::new(), Instant::now());
    for (i, key) in keys.into_iter().enumerate() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        tokio::time::sleep((EVERY * i as u32).saturating_sub(began.elapsed())).await;
        let (client, taken) = (clients[i % clients.len()].clone(), taken.clone());
        calls.spawn(async move {
            let from = Instant::now();
            assert_eq!(client.delete(&[name(key)]).await.expect("deleted").removed, [true]);
            taken.lock().expect("nobody panics with it").push((from, from.elapsed()));
        });
    }
    let mut made = 0;
    while let Some(call) = calls.join_next().await {
        call.expect("no panic");
        made += 1;
    }
    made
}
