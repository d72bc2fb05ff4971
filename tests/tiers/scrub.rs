//! Memory that decays under what a Local keeps.

use super::rig::{SOON, get, global, global_at, machine, name, set, value};
use dstore_local::{Local, LocalConfig};
use dstore_proto::store::{Store, Tier};
use std::time::{Duration, Instant};

async fn fact(local: &Local, name: &str) -> String {
    let facts = local.node().status().await.expect("answered").facts;
    facts.into_iter().find(|(fact, _)| fact == name).expect("told").1
}

async fn start(sys: &dstore_sys::Sys, scrub_per_mille: u32) -> Local {
    let config = LocalConfig { scrub_per_mille, ..LocalConfig::new(global_at()) };
    let local = Local::start(sys.clone(), config).await.expect("local starts");
    local.ready(SOON).await.expect("a session");
    local
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_value_that_decays_is_dropped_and_counted_and_the_next_get_fetches_it_again() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), Duration::from_secs(2)).await;
    let local = start(&sys, 1000).await;
    let values = [vec![1; 100], vec![2; 90_000], vec![3; 6_000_000]];
    let keys = ["small", "medium", "large"];
    for (key, value) in keys.iter().zip(&values) {
        set(&local, key, value.clone()).await.expect("set");
    }
    for (key, whole) in keys.iter().zip(&values) {
        assert!(value(&local, key).await.as_ref() == Some(whole));
        let found = get(&local, key).await.expect("answered").expect("found");
        assert_eq!(found.from.tier, Tier::Local, "{key} is kept");
        assert!(local.node().damage(&name(*key)), "{key} is kept");
        let since = Instant::now();
        // From the moment that it is found out, nobody is given it.
        while value(&local, key).await.as_ref() != Some(whole) {
            assert!(since.elapsed() < SOON, "{key}: nobody notices");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(fact(&local, "corrupt").await, "3");
    assert_eq!(
        (fact(&local, "names").await, fact(&local, "blobs").await),
        ("3".into(), "3".into()),
        "kept anew"
    );
    local.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_is_told_not_to_look_does_not() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), Duration::from_secs(2)).await;
    let local = start(&sys, 0).await;
    set(&local, "k", vec![1; 100]).await.expect("set");
    assert_eq!(value(&local, "k").await, Some(vec![1; 100]));
    assert!(local.node().damage(&name("k")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let decayed = value(&local, "k").await.expect("found");
    assert!(decayed != vec![1; 100], "a hit does not hash: the damage is real");
    assert_eq!(fact(&local, "corrupt").await, "0");
    local.stop().await;
    global.stop().await.expect("a clean stop");
}
