//! Watches, through both tiers and the client.

use crate::rig::{delete, global, global_at, local, machine, set};
use dstore_client::{Client, ClientConfig, Event, Happened, WatchQuery};
use dstore_proto::store::Store;
use dstore_proto::watch::{Seen, Watching};
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
    match event.happened {
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
    assert_eq!(ahead.kind(), Kind::Invalid);
    let other = WatchQuery { history: Some(HistoryId(1)), ..query(prefix, Some(1)) };
    assert_eq!(store.watch(other).await.expect_err("another history").kind(), Kind::TooOld);
    let same = WatchQuery { history: Some(now.history), ..query(prefix, Some(one.0)) };
    let mut same = store.watch(same).await.expect("the same history");
    assert_eq!(read(&mut same, gone).await, expected[1..]);
    // What it was bound to is told too, and how far it got though nothing happens.
    let seen = store.watch(query(prefix, Some(two.0))).await.expect("watched").batches.next().await;
    let removed = &seen.expect("it goes on").expect("no error").events[0];
    let Happened::Unbound(Some(was)) = removed.happened else { panic!("it was bound: {removed:?}") };
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
