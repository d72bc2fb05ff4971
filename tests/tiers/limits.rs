//! Values over the largest size that Global takes.

use crate::rig::{global_with, local, machine, name, set, value};
use bytes::Bytes;
use dstore_local::Local;
use dstore_proto::store::{Body, Store};
use dstore_shared::{BlobHash, Kind};
use futures_util::stream;
use std::path::Path;

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
