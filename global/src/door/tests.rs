//! Calls about many names at Global's door: how many batches of the journal, and what is counted of a blob.

use crate::{EngineKind, Global, GlobalConfig, SyncLevel};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, SetOne, Slice, Store, Target};
use dstore_proto::watch::{Happened, WatchQuery};
use dstore_shared::{Blob, BlobHash, CopyResult, Name, Namespace, RequestId, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::disk::SimDisk;
use dstore_sys::tasks::Blocking;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;

async fn start(disk: &SimDisk, engine: EngineKind) -> Global {
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let sys = Sys { blocking, disk: Arc::new(disk.clone()), ..Sys::real() };
    let config = GlobalConfig { engine, sync: SyncLevel::Group, min_free: 0, ..GlobalConfig::new("/data") };
    let global = Global::start(sys, config).await.expect("started");
    // The journal's spare segments are made meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    global
}

fn name(key: &str) -> Name {
    Name::of(key.to_owned()).unwrap()
}

fn sets(id: RequestId, n: usize) -> Vec<SetOne> {
    let one = |i: usize| SetOne {
        id: RequestId { n: id.n + i as u64, ..id },
        name: name(&format!("k{i}")),
        value: Blob::hash(format!("value {i}")),
        attributes: dstore_shared::Attributes::default(),
    };
    (0..n).map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn values_that_are_set_together_share_one_batch_of_the_journal() {
    let disk = SimDisk::new();
    let global = start(&disk, EngineKind::Memory).await;
    let store = global.store();
    let before = crate::sync_level::tests::batches(&disk).len();
    let done = store.set_many(sets(store.next_id().unwrap(), 200)).await.expect("answered");
    assert!(done.iter().all(|one| matches!(one.as_ref().unwrap().outcome, SetOutcome::Stored(_))));
    let batches = crate::sync_level::tests::batches(&disk);
    assert_eq!(
        (batches.len() - before, batches.last().map(|(_, last)| *last)),
        (1, Some(200)),
        "{batches:?}"
    );
    drop(store);
    global.stop().await.expect("a clean stop");
}

/// How many names the blob of `value` has, by what the index counts.
fn refs(global: &Global, value: &str) -> Option<u64> {
    global.authority().catalog.blob(&BlobHash::of(value.as_bytes())).expect("sound").map(|meta| meta.refs)
}

#[tokio::test(start_paused = true)]
async fn names_of_a_blob_are_counted_over_copies_renames_and_a_restart() {
    let disk = SimDisk::new();
    let mut global = start(&disk, EngineKind::Memory).await;
    let store = global.store();
    let id = || store.next_id().unwrap();
    store.set(id(), Some(name("a")), Body::Bytes("v".into())).await.expect("set");
    let copied = store.copy(id(), name("a"), name("b")).await.expect("answered");
    assert!(copied.is_fresh() && refs(&global, "v") == Some(2), "{copied:?}");
    store.rename(id(), name("a"), name("c")).await.expect("answered");
    assert_eq!(refs(&global, "v"), Some(2), "a RENAME is one less and one more");
    let merged = store.rename(id(), name("c"), name("b")).await.expect("answered");
    assert!(matches!(merged.result, CopyResult::Done(ref e) if e.bind_rev < merged.revision), "{merged:?}");
    assert_eq!(refs(&global, "v"), Some(1), "one name is left of two");
    assert_eq!(store.copy(id(), name("c"), name("d")).await.expect("answered").result, CopyResult::NotFound);
    let kept = store.rename(id(), name("b"), name("e")).await.expect("answered");
    drop(store);
    for round in 0..2 {
        global.stop().await.expect("a clean stop");
        global = start(&disk, EngineKind::Memory).await;
        assert_eq!(refs(&global, "v"), Some(1), "restart {round}");
        let store = global.store();
        let found = store.get(Target::Name(name("e")), Slice::ALL).await.expect("answered").expect("found");
        assert_eq!((Some(found.entry.bind_rev), found.entry.size), (Some(kept.revision), 1));
        let exists = store.exists(["a", "b", "c", "e"].map(name).into()).await.expect("answered");
        assert_eq!(exists, [false, false, false, true]);
    }
    let store = global.store();
    store.delete(store.next_id().unwrap(), vec![name("e")]).await.expect("deleted");
    assert_eq!(refs(&global, "v"), Some(0), "and the sweep takes it");
    drop(store);
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_told_what_a_rename_took_from_the_first_name_and_gave_the_second() {
    let disk = SimDisk::new();
    let global = start(&disk, EngineKind::Memory).await;
    let store = global.store();
    let id = || store.next_id().unwrap();
    store.set(id(), Some(name("a")), Body::Bytes("v".into())).await.expect("set");
    let was = store.stat(Target::Name(name("a"))).await.expect("answered").expect("found").entry;
    let (namespace, prefix) = (Namespace::default(), Bytes::new());
    let query = WatchQuery { namespace, prefix, after: None, history: None };
    let mut watching = store.watch(query).await.expect("a watch");
    store.rename(id(), name("a"), name("b")).await.expect("answered");
    let seen = watching.batches.next().await.expect("a batch").expect("told");
    let is = store.stat(Target::Name(name("b"))).await.expect("answered").expect("found").entry;
    let happened: Vec<_> = seen.events.iter().map(|event| event.happened.clone()).collect();
    assert_eq!(happened, [Happened::Unbound(Some(was)), Happened::Bound(is)]);
    drop((watching, store));
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn of_many_values_a_few_are_held_at_a_time_and_the_others_read_when_they_are_taken() {
    let disk = SimDisk::new();
    let global = start(&disk, EngineKind::Memory).await;
    let store = global.store();
    let value = |i: usize| vec![i as u8; 64 << 10];
    for i in 0..200 {
        let body = Body::Bytes(value(i).into());
        store.set(store.next_id().unwrap(), Some(name(&format!("k{i}"))), body).await.expect("set");
    }
    let all = store.get_many((0..200).map(|i| name(&format!("k{i}"))).collect()).await.expect("read");
    let held = all.found.iter().flatten().filter(|found| matches!(found.body, Body::Blob(_))).count();
    assert!((4..=64).contains(&held), "{held} of 200 values of 64 KiB are in memory before one is sent");
    for (i, found) in all.found.into_iter().enumerate() {
        let found = found.expect("bound");
        assert_eq!(found.body.collect(found.entry.size).await.expect("whole"), value(i), "k{i}");
    }
    drop(store);
    global.stop().await.expect("a clean stop");
}
