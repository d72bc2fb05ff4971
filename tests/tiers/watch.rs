//! Watches, through both tiers and the client.

use crate::rig::{delete, global, global_at, global_with, local, machine, set, value};
use dstore_client::{Client, ClientConfig, Event, Happened, WatchQuery};
use dstore_proto::store::{ListQuery, Store};
use dstore_proto::watch::{Seen, Watching};
use dstore_shared::limits::WATCHES_PER_CONNECTION;
use dstore_shared::{BlobHash, HistoryId, Kind, Namespace, Revision};
use futures_util::StreamExt;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(10);

fn query(prefix: &str, after: Option<u64>) -> WatchQuery {
    WatchQuery {
        namespace: Namespace::default(),
        prefix: prefix.to_owned().into(),
        after: after.map(Revision),
        history: None,
    }
}

fn told(event: &Event) -> String {
    let key = String::from_utf8_lossy(event.key.as_bytes()).into_owned();
    match &event.happened {
        Happened::Bound(entry) => {
            assert_eq!(entry.bind_rev, event.revision);
            format!("{} +{key}", event.revision)
        }
        Happened::Unbound(_) => format!("{} -{key}", event.revision),
    }
}

/// Reads until everything up to `through` has come.
async fn read(watching: &mut Watching, through: Revision) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let seen = tokio::time::timeout(SOON, watching.batches.next()).await.expect("soon");
        let Seen { events: more, through: upto } = seen.expect("it goes on").expect("no error");
        assert!(events.last().is_none_or(|_| upto >= watching.after));
        events.extend(more.iter().map(told));
        if upto >= through {
            return events;
        }
    }
}

/// What every store that offers watches keeps; `at` is where changes are made.
async fn contract(store: &impl Store, at: &dstore_local::Local, prefix: &str) {
    let key = |name: &str| format!("{prefix}/{name}");
    let began = set(at, &key("before"), "v").await.expect("set").from.revision;
    let mut now = store.watch(query(prefix, None)).await.expect("from now");
    assert!(now.after >= began);
    let one = set(at, &key("one"), "1").await.expect("set").from.revision;
    set(at, "elsewhere", "x").await.expect("set");
    let two = set(at, &key("two"), "2").await.expect("set").from.revision;
    delete(at, &["elsewhere"]).await.expect("deleted");
    delete(at, &[&key("one"), &key("nothing"), &key("two")]).await.expect("deleted");
    let gone = Revision(two.0 + 2);
    let expected = vec![
        format!("{one} +{prefix}/one"),
        format!("{two} +{prefix}/two"),
        format!("{gone} -{prefix}/one"),
        format!("{gone} -{prefix}/two"),
    ];
    assert_eq!(read(&mut now, gone).await, expected);

    let mut again = store.watch(query(prefix, Some(one.0 - 1))).await.expect("from a revision");
    assert_eq!((again.after, again.history), (Revision(one.0 - 1), now.history));
    assert_eq!(read(&mut again, gone).await, expected);
    let mut rest = store.watch(query(prefix, Some(one.0))).await.expect("after a revision");
    assert_eq!(read(&mut rest, gone).await, expected[1..]);
    let mut all = store.watch(query(prefix, Some(0))).await.expect("from the first");
    assert_eq!(read(&mut all, gone).await[1..], expected);

    let ahead = store.watch(query(prefix, Some(gone.0 + 1000))).await.expect_err("not reached");
    assert_eq!(ahead.kind(), Kind::TooOld);
    let other = WatchQuery { history: Some(HistoryId(1)), ..query(prefix, Some(1)) };
    assert_eq!(store.watch(other).await.expect_err("another history").kind(), Kind::TooOld);
    let same = WatchQuery { history: Some(now.history), ..query(prefix, Some(one.0)) };
    let mut same = store.watch(same).await.expect("the same history");
    assert_eq!(read(&mut same, gone).await, expected[1..]);
    // What it was bound to is told too, and how far it got though nothing happens.
    let seen = store.watch(query(prefix, Some(two.0))).await.expect("watched").batches.next().await;
    let removed = &seen.expect("it goes on").expect("no error").events[0];
    let Happened::Unbound(Some(ref was)) = removed.happened else { panic!("it was bound: {removed:?}") };
    assert_eq!((was.hash, was.bind_rev), (BlobHash::of(b"1"), one));
    let idle = tokio::time::timeout(SOON, now.batches.next()).await.expect("soon");
    let idle = idle.expect("it goes on").expect("no error");
    assert!(idle.events.is_empty() && idle.through >= gone, "{idle:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_offers_watches_keeps_the_contract() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    contract(&*global.store(), &a, "global").await;
    contract(a.node(), &a, "same").await;
    contract(b.node(), &a, "other").await;
    let client = Client::connect(&sys, &global_at(), ClientConfig::default());
    contract(&**client.store(), &a, "client").await;
    drop(client);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_a_restart_and_one_that_is_too_old_is_told() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let before = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    let client = Client::over(&sys, std::sync::Arc::new(a.node().clone()), ClientConfig::default());
    let mut watch = client.watch(query("k", Some(0)));
    let one = set(&a, "k1", "1").await.expect("set").from.revision;
    let two = set(&a, "k2", "2").await.expect("set").from.revision;
    let mut seen = Vec::new();
    while watch.position().is_none_or(|(_, through)| through < one) {
        seen.extend(watch.next().await.expect("no error").events.iter().map(told));
    }
    before.stop().await.expect("a clean stop, though somebody watches");
    let after = global(&sys, dir.path(), LEASE).await;
    let gone = tokio::time::timeout(SOON, async {
        loop {
            match delete(&a, &["k1"]).await {
                Ok(removed) => break assert_eq!(removed, [true]),
                Err(e) => assert!(matches!(e.kind(), Kind::Unavailable | Kind::Closed), "{e}"),
            }
        }
    });
    gone.await.expect("soon");
    while seen.len() < 3 {
        let more = tokio::time::timeout(SOON, watch.next()).await.expect("soon");
        seen.extend(more.expect("it goes on").events.iter().map(told));
    }
    assert_eq!(seen[..2], [format!("{one} +k1"), format!("{two} +k2")]);
    assert!(seen[2].ends_with(" -k1"), "{seen:?}");
    let (history, through) = watch.position().expect("something came");
    // Whoever goes on from another history, as after a restored backup, is told; and how to go on.
    let other = WatchQuery { history: Some(HistoryId(history.0 ^ 1)), ..query("k", Some(through.0)) };
    let e = client.watch(other).next().await.expect_err("another history");
    assert_eq!(e.kind(), Kind::TooOld);
    assert!(e.message().contains("list, then watch"), "{e}");
    drop((watch, client));
    a.stop().await;
    after.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_a_node_are_bounded_and_leave_room_for_calls() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    let mut all = Vec::new();
    for _ in 0..WATCHES_PER_CONNECTION {
        all.push(a.node().watch(query("k", None)).await.expect("there is room"));
    }
    let e = a.node().watch(query("k", None)).await.expect_err("one too many");
    assert_eq!(e.kind(), Kind::Exhausted, "{e}");
    // Who asks Global over one connection has as many.
    let client = Client::connect(&sys, &global_at(), ClientConfig::default());
    let mut direct = Vec::new();
    for _ in 0..WATCHES_PER_CONNECTION {
        direct.push(client.store().watch(query("k", None)).await.expect("there is room"));
    }
    let e = client.store().watch(query("k", None)).await.expect_err("one too many");
    assert_eq!(e.kind(), Kind::Exhausted, "{e}");
    // All are told, and calls are answered beside them.
    let revision = set(&b, "key", "v").await.expect("set").from.revision;
    assert!(client.list(&list("k")).await.expect("listed").names.len() == 1);
    assert!(value(&a, "key").await.is_some());
    for watching in all.iter_mut().chain(&mut direct) {
        assert_eq!(read(watching, revision).await, [format!("{revision} +key")]);
    }
    drop((all.pop(), direct.pop()));
    let again = tokio::time::timeout(SOON, async {
        while client.store().watch(query("k", None)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    again.await.expect("its place is free");
    a.node().watch(query("k", None)).await.expect("its place is free");
    drop((all, direct));
    let idle = async {
        while global
            .store()
            .status()
            .await
            .expect("told")
            .facts
            .iter()
            .any(|(name, n)| name == "watches" && n != "0")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, idle).await.expect("nothing is left of them");
    drop(client);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

fn list(prefix: &str) -> ListQuery {
    ListQuery { namespace: Namespace::default(), prefix: prefix.to_owned().into(), after: None, limit: 10 }
}

/// 18 MiB of events fit neither the windows of the wire nor what Global is told to remember.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_holds_up_nobody_and_is_told() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global_with(&sys, dir.path(), |config| config.watch_bytes = 4 << 20).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    let mut slow = a.node().watch(query("", Some(0))).await.expect("watched");
    let mut quick = a.node().watch(query("k/last", Some(0))).await.expect("watched");
    let long = "x".repeat(900);
    for round in 0..16 {
        let keys: Vec<String> = (0..500).map(|i| format!("k/{round}/{i}/{long}")).collect();
        let sets = keys.iter().map(|key| set(&b, key, "v"));
        futures_util::future::join_all(sets).await.into_iter().for_each(|done| _ = done.expect("set"));
        for some in keys.chunks(250) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            delete(&b, &names).await.expect("deleted");
        }
    }
    let last = set(&b, "k/last", "v").await.expect("set").from.revision;
    assert_eq!(read(&mut quick, last).await, [format!("{last} +k/last")], "others are not held up");
    let (mut events, mut through) = (0, Revision(0));
    let told = loop {
        match tokio::time::timeout(SOON, slow.batches.next())
            .await
            .expect("soon")
            .expect("it ends with an error")
        {
            Ok(seen) => {
                assert!(seen.through >= through);
                (events, through) = (events + seen.events.len(), seen.through);
            }
            Err(e) => break e,
        }
    };
    assert_eq!(told.kind(), Kind::TooOld, "{told}");
    assert!(events > 0 && through < last, "{events} until {through} of {last}");
    drop((slow, quick));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}
