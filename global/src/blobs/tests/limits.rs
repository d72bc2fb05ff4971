//! Nothing is taken beyond its limit, and memory stays flat.

use super::*;
use dstore_shared::Kind;
use dstore_sys::clock::ManualClock;
use std::sync::Arc;
use std::time::Duration;

async fn with(limits: BlobLimits) -> (TempDir, Blobs) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = Blobs::open(Sys::real(), dir.path().join("blobs"), limits).await.expect("opened");
    (dir, blobs)
}

#[tokio::test]
async fn a_blob_over_the_limit_is_refused_as_soon_as_it_is_known() {
    let (dir, blobs) = with(BlobLimits { blob_bytes_max: 100_000, ..limits() }).await;
    assert_eq!(blobs.stage(Some(100_001)).await.expect_err("announced").kind(), Kind::TooLarge);
    let mut staging = blobs.stage(None).await.expect("room");
    staging.write(bytes(100_000, 1)).await.expect("as much as allowed");
    assert_eq!(staging.write(bytes(1, 1)).await.expect_err("one more").kind(), Kind::TooLarge);
    assert!(staging.finish(None).await.is_err(), "what was refused is not stored cut");
    assert!(put(&blobs, &bytes(100_000, 1)).await.fresh);
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn uploads_and_their_bytes_are_bounded() {
    let (_dir, blobs) =
        with(BlobLimits { blob_bytes_max: 1000, staging_bytes_max: 1500, staging_files_max: 2, ..limits() })
            .await;
    let mut one = blobs.stage(None).await.expect("room");
    let two = blobs.stage(Some(1000)).await.expect("room");
    let refused = blobs.stage(None).await.expect_err("a third");
    assert_eq!(refused.kind(), Kind::Exhausted);
    assert!(refused.delay().is_some());
    one.write(bytes(500, 1)).await.expect("room");
    assert_eq!(one.write(bytes(1, 1)).await.expect_err("no room").kind(), Kind::Exhausted);
    drop(two);
    drop(one);
    blobs.stats();
    assert!(blobs.stage(Some(1000)).await.is_ok(), "what was dropped gives its share back");
}

#[tokio::test]
async fn an_upload_waits_in_line_for_its_place() {
    let (_dir, blobs) =
        with(BlobLimits { staging_files_max: 1, staging_wait: Duration::from_secs(60), ..limits() }).await;
    let one = blobs.stage(None).await.expect("room");
    let mut two = std::pin::pin!(blobs.stage(None));
    assert!(futures_util::poll!(two.as_mut()).is_pending());
    drop(one);
    assert!(two.await.is_ok(), "as soon as there is room");
}

#[tokio::test]
async fn an_upload_that_hardly_moves_gives_its_place_to_one_that_waits_and_only_then() {
    let (dir, clock) = (tempfile::tempdir().expect("a temporary directory"), Arc::<ManualClock>::default());
    let sys = Sys { clock: clock.clone(), ..Sys::real() };
    let limits = BlobLimits { staging_files_max: 2, staging_wait: Duration::from_secs(1), ..limits() };
    let blobs = Blobs::open(sys, dir.path().join("blobs"), limits).await.expect("opened");
    let (mut quick, mut trickle) =
        (blobs.stage(None).await.expect("room"), blobs.stage(None).await.expect("room"));
    quick.write(bytes(2 << 20, 1)).await.expect("taken");
    trickle.write(bytes(72 << 10, 2)).await.expect("taken");
    assert_eq!(blobs.stage(None).await.expect_err("both are in time").kind(), Kind::Exhausted);
    clock.advance(Duration::from_secs(20));
    trickle.write(bytes(1, 3)).await.expect("nobody waits");
    let leave = async move {
        trickle.evicted().await;
        let gone = trickle.write(bytes(1, 3)).await.expect_err("it lost its place");
        assert!(gone.kind() == Kind::Exhausted && gone.message().contains("other uploads wait"), "{gone}");
        assert!(trickle.finish(None).await.is_err(), "half a value is never stored");
    };
    let all = bytes(200_000, 4);
    let (third, ()) = futures_util::future::join(put(&blobs, &all), leave).await;
    assert!(third.fresh);
    assert_eq!(quick.finish(None).await.expect("it kept its place").size, 2 << 20);
}

#[tokio::test]
async fn a_full_disk_is_met_before_a_byte_is_written_and_goes_away() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let free = RealDisk.free_bytes(dir.path()).expect("known");
    let (full_dir, full) = with(BlobLimits { min_free_bytes: free * 2, ..limits() }).await;
    assert_eq!(full.stage(None).await.expect_err("full").kind(), Kind::Exhausted);
    assert_eq!(full.stats().staged_files, 0);
    assert_eq!(staging_of(&full_dir), Vec::<String>::new());
    let all = bytes(20_000, 1);
    let roomy = open_in(full_dir.path()).await;
    let hash = put(&roomy, &all).await.hash;
    assert_eq!(get(&full, hash, 20_000).await.expect("reads go on").expect("there"), all);
    assert!(full.unlink(hash, unknown).await.expect("room is made"));
}

#[tokio::test]
async fn other_bytes_than_announced_are_not_stored() {
    let (dir, blobs) = fresh().await;
    for size in [1000, 100_000, 3 << 20] {
        let mut staging = blobs.stage(None).await.expect("room");
        staging.write(bytes(size, 1)).await.expect("taken");
        let failure = staging.finish(Some(BlobHash::of(b"other"))).await.expect_err("other bytes");
        assert_eq!(Error::from(failure).kind(), Kind::Corrupt);
        assert!(blobs.contains(BlobHash::of(&bytes(size, 1))).await.expect("looked").is_none());
    }
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn memory_stays_flat_while_256_mib_go_in_and_out() {
    const SIZE: u64 = 256 << 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sizes = BlobLimits { blob_bytes_max: SIZE, ..limits() };
    let hash = {
        let blobs = Blobs::open(Sys::real(), dir.path().join("blobs"), sizes).await.expect("opened");
        let mut staging = blobs.stage(None).await.expect("room");
        let chunk = bytes(256 << 10, 1);
        for _ in 0..SIZE / chunk.len() as u64 {
            staging.write(chunk.clone()).await.expect("taken");
        }
        let staged = staging.finish(None).await.expect("stored");
        let peak = blobs.stats().buffered_bytes_peak;
        assert!((2 << 20..=3 << 20).contains(&peak), "staging held `{peak}` bytes");
        assert_eq!(blobs.stats().buffered_bytes, 0);
        staged.hash
    };
    let blobs = Blobs::open(Sys::real(), dir.path().join("blobs"), sizes).await.expect("opened");
    let mut read = blobs.read(hash, SIZE, Slice::ALL).await.expect("readable").expect("there");
    let mut seen = 0;
    while let Some(piece) = read.stream.next().await {
        seen += piece.expect("good").len() as u64;
    }
    assert_eq!(seen, SIZE);
    let peak = blobs.stats().buffered_bytes_peak;
    assert!((GROUP..=6 * GROUP).contains(&peak), "reading held `{peak}` bytes");
    drop(read);
    assert_eq!(blobs.stats().buffered_bytes, 0);
}

#[tokio::test]
async fn a_reader_that_does_not_read_on_holds_a_few_groups() {
    let (_dir, blobs) = fresh().await;
    let hash = put(&blobs, &bytes(16 << 20, 1)).await.hash;
    let before = blobs.stats().buffered_bytes;
    let mut read = blobs.read(hash, 16 << 20, Slice::ALL).await.expect("readable").expect("there");
    let first = read.stream.next().await.expect("a group").expect("good");
    let held = || blobs.stats().buffered_bytes - before;
    let reads_ahead = async {
        while held() < 2 * GROUP {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reads_ahead).await.expect("it reads ahead");
    // That it reads no further shows in time only.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!((2 * GROUP..=5 * GROUP).contains(&held()), "`{}` bytes", held());
    drop((first, read));
}
