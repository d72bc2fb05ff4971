//! Values over the largest size that Global takes.

use crate::rig::{global_at, global_with, local, machine, name, set, value};
use bytes::Bytes;
use dstore_local::Local;
use dstore_proto::RemoteStore;
use dstore_proto::dial::{Channel, Dial};
use dstore_proto::store::{Body, Store};
use dstore_shared::limits::DELETE_DEADLINE_MAX;
use dstore_shared::{BlobHash, DeleteMode, Kind, RequestId, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::clock::ManualClock;
use dstore_sys::tasks::Tasks;
use futures_util::{StreamExt, stream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MAX: usize = 1 << 20;

fn staged(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("blobs/staging")).expect("it is there").count()
}

async fn set_stream(local: &Local, key: &str, len: usize) -> dstore_shared::Result<()> {
    let id = local.node().request_id().await?;
    let pieces = (0..len).step_by(1000).map(move |at| Ok(Bytes::from(vec![7; 1000.min(len - at)])));
    let body = Body::Stream(Box::pin(stream::iter(pieces.collect::<Vec<_>>())));
    local.node().set(id, Some(name(key)), body).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_over_the_largest_size_is_too_large_and_leaves_nothing() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global_with(&sys, dir.path(), |config| config.blob_bytes_max = MAX as u64).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    for len in [MAX + 1, 3 * MAX] {
        let whole = set(&a, "large", vec![7; len]).await.expect_err("refused");
        let streamed = set_stream(&a, "large", len).await.expect_err("refused");
        assert_eq!((whole.kind(), streamed.kind()), (Kind::TooLarge, Kind::TooLarge), "{len}");
        assert!(whole.message().contains(&MAX.to_string()), "it tells the limit: {whole}");
        assert!(value(&b, "large").await.is_none());
    }
    set(&a, "whole", vec![7; MAX]).await.expect("the largest is taken");
    set_stream(&a, "streamed", MAX).await.expect("the largest is taken");
    for key in ["whole", "streamed"] {
        let read = value(&b, key).await.expect("found");
        assert_eq!((read.len(), BlobHash::of(&read)), (MAX, BlobHash::of(&vec![7; MAX])));
    }
    assert_eq!(staged(dir.path()), 0);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

/// A body of which this much comes, and then nothing.
fn half(bytes: usize) -> Body {
    let first = stream::iter([Ok(Bytes::from(vec![7; bytes]))]);
    Body::Stream(Box::pin(first.chain(stream::pending())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_uploads_do_not_keep_others_out() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let clock = Arc::<ManualClock>::default();
    let global = global_with(&Sys { clock: clock.clone(), ..sys.clone() }, dir.path(), |_| {}).await;
    let (tasks, refused) = (Tasks::new(), Arc::<AtomicUsize>::default());
    let dial = Dial::default();
    let client = || RemoteStore::new(Channel::new(&sys, &tasks, &global_at(), &dial), &dial);
    // More than there are places, over more connections than one.
    for store in [client(), client()] {
        for _ in 0..72 {
            let (store, refused) = (store.clone(), refused.clone());
            tasks.spawn("half", async move {
                let e = store.set(RequestId::default(), None, half(72 << 10)).await.expect_err("never whole");
                assert_eq!(e.kind(), Kind::Exhausted, "{e}");
                refused.fetch_add(1, Ordering::SeqCst);
            });
        }
    }
    // Those that wait in vain are told; all places are held then.
    while refused.load(Ordering::SeqCst) < 16 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    clock.advance(Duration::from_secs(30));
    let body = Body::Bytes(vec![8; 200_000].into()).into_stream();
    let stored = client().set(RequestId::default(), None, Body::Stream(body)).await.expect("it gets a place");
    assert!(matches!(stored.outcome, SetOutcome::Stored(entry) if entry.size == 200_000));
    // One of the slow ones went for it, and hears of it.
    while refused.load(Ordering::SeqCst) < 17 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tasks.cancel();
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_global_would_not_read_is_refused_at_the_local_and_disturbs_nobody() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global_with(&sys, dir.path(), |_| {}).await;
    let a = local(&sys).await;
    let id = a.node().request_id().await.expect("an id");
    for limit in [DELETE_DEADLINE_MAX + Duration::from_millis(1), Duration::MAX] {
        let mode = DeleteMode::Deadline(limit);
        let asked = a.node().delete_in(id, vec![name("k")], mode);
        let refused = tokio::time::timeout(Duration::from_secs(1), asked).await.expect("at once");
        assert_eq!(refused.expect_err("too long").kind(), Kind::Invalid, "{limit:?}");
    }
    let none = RequestId { n: 0, ..id };
    let refused = tokio::time::timeout(Duration::from_secs(1), a.node().delete(none, vec![name("k")]));
    assert_eq!(refused.await.expect("at once").expect_err("no number").kind(), Kind::Invalid);
    set(&a, "other", "v").await.expect("requests go on");
    a.stop().await;
    global.stop().await.expect("a clean stop");
}
