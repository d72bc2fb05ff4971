//! What is stored is read back, once, and can be removed.

use super::*;
use futures_util::FutureExt;

#[tokio::test]
async fn every_boundary_size_is_read_back_as_it_was_also_after_a_restart() {
    let (dir, blobs) = fresh().await;
    for size in SIZES {
        let bytes = bytes(size, size as u64);
        let staged = put(&blobs, &bytes).await;
        assert_eq!((staged.hash, staged.size), (BlobHash::of(&bytes), size as u64));
        assert!(staged.fresh && !staged.cleared_mark);
        let read = get(&blobs, staged.hash, size).await.expect("readable").expect("there");
        assert_eq!(BlobHash::of(&read), staged.hash, "size {size}");
        let len = RealDisk.open(&blobs.0.layout.blob(&staged.hash), Open::Read).and_then(|f| f.len());
        let outline = if size as u64 <= GROUP { 0 } else { (size as u64).div_ceil(GROUP) * 32 };
        assert_eq!(len.expect("len"), 4096 + size as u64 + outline, "size {size}");
    }
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
    let reopened = open_in(dir.path()).await;
    for size in SIZES {
        let hash = BlobHash::of(&bytes(size, size as u64));
        assert_eq!(reopened.contains(hash).await.expect("looked").expect("there").size, size as u64);
        assert!(get(&reopened, hash, size).await.expect("readable").is_some());
    }
}

#[tokio::test]
async fn the_size_of_the_pieces_does_not_matter() {
    let (_dir, blobs) = fresh().await;
    let size = (3 << 20) + 5;
    for (seed, piece) in
        [1 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, size].into_iter().enumerate()
    {
        let bytes = bytes(size, seed as u64 + 100);
        let staged = put_in_pieces(&blobs, &bytes, piece).await.expect("stored");
        assert_eq!(
            get(&blobs, staged.hash, size).await.expect("readable").expect("there"),
            bytes,
            "piece {piece}"
        );
    }
}

#[tokio::test]
async fn a_slice_is_exactly_what_was_asked_for() {
    let (_dir, blobs) = fresh().await;
    let group = GROUP;
    for size in [0, 1, 1000, group - 1, group, group + 1, 5 * group + 7] {
        let all = bytes(size as usize, size);
        let hash = put(&blobs, &all).await.hash;
        let ends = [0, 1, 999, group - 1, group, group + 1, 2 * group, 5 * group + 6, 5 * group + 7];
        for start in ends.into_iter().filter(|s| *s <= size) {
            for len in [None, Some(0), Some(1), Some(group), Some(group + 2), Some(u64::MAX)] {
                let slice = Slice { offset: start, len };
                let end = len.map_or(size, |len| start.saturating_add(len).min(size));
                let read =
                    get_slice(&blobs, hash, size as usize, slice).await.expect("readable").expect("there");
                assert!(read == all[start as usize..end as usize], "{slice:?} of {size}");
            }
        }
        let past = Slice { offset: size + 1, len: None };
        let refused = get_slice(&blobs, hash, size as usize, past).await.expect_err("past the end");
        assert_eq!(refused.kind(), dstore_shared::Kind::Invalid);
    }
}

#[tokio::test]
async fn the_outline_of_a_read_lets_others_verify_each_group() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(1_000_000, 3);
    let hash = put(&blobs, &all).await.hash;
    let read = blobs
        .read(hash, 1_000_000, Slice { offset: 300_000, len: Some(1) })
        .await
        .expect("ok")
        .expect("there");
    assert_eq!((read.size, read.range), (1_000_000, 300_000..300_001));
    assert!(dstore_shared::Outline::verify(&read.outline.encode(), 1_000_000, hash).is_ok());
    assert!(read.outline.matches(3, &all[3 * GROUP as usize..], hash));
}

#[tokio::test]
async fn what_is_not_there_is_nobody_s_error() {
    let (_dir, blobs) = fresh().await;
    let hash = BlobHash::of(b"nowhere");
    assert!(blobs.contains(hash).await.expect("looked").is_none());
    assert!(get(&blobs, hash, 7).await.expect("looked").is_none());
    assert!(blobs.unlink(hash, unknown).await.expect("nothing to do"));
    assert_eq!(blobs.stats(), BlobStats { buffered_bytes_peak: 0, ..BlobStats::default() });
}

#[tokio::test]
async fn the_same_bytes_are_stored_once() {
    let (dir, blobs) = fresh().await;
    for size in [40_000, 3 << 20] {
        let all = bytes(size, 9);
        let first = put(&blobs, &all).await;
        let again = put(&blobs, &all).await;
        assert!(first.fresh && !again.fresh);
        assert_eq!(first.hash, again.hash);
    }
    blobs.close().await;
    let stats = blobs.stats();
    assert_eq!((stats.placed_files, stats.dedup_hits, stats.staged_files), (2, 2, 0));
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_uploads_of_the_same_bytes_at_once_make_one_file() {
    let (dir, blobs) = fresh().await;
    for size in [30_000, (2 << 20) + 9] {
        let all = bytes(size, 11);
        let uploads = (0..16).map(|_| put(&blobs, &all));
        let staged = futures_util::future::join_all(uploads).await;
        assert_eq!(staged.iter().filter(|s| s.fresh).count(), 1);
        assert_eq!(get(&blobs, staged[0].hash, size).await.expect("readable").expect("there"), all);
    }
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let (dir, blobs) = fresh().await;
    let all = bytes(5 << 20, 1);
    let hash = BlobHash::of(&all);
    for written in [0, 1000, 1 << 20, 3 << 20] {
        let mut staging = blobs.stage(Some(5 << 20)).await.expect("room");
        staging.write(all.slice(..written)).await.expect("taken");
        drop(staging);
    }
    // Cancelled in the middle of a call: at whatever point it was.
    for polls in 0..6 {
        let mut upload = Box::pin(put_in_pieces(&blobs, &all, 1 << 20));
        for _ in 0..polls {
            if tokio::time::timeout(std::time::Duration::from_micros(300), &mut upload).await.is_ok() {
                break;
            }
        }
    }
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
    assert_eq!(blobs.stats().staged_bytes, 0);
    assert_eq!(blobs.stats().buffered_bytes, 0);
    let other = open_in(dir.path()).await;
    // Only a call that was cancelled after its last step may have stored the blob, and then whole.
    if other.contains(hash).await.expect("looked").is_some() {
        assert_eq!(get(&other, hash, 5 << 20).await.expect("readable").expect("there"), all);
    }
}

#[tokio::test]
async fn an_interrupted_write_is_never_continued() {
    let (_dir, blobs) = fresh().await;
    let mut staging = blobs.stage(None).await.expect("room");
    {
        let mut write = Box::pin(staging.write(bytes(8 << 20, 1)));
        assert!((&mut write).now_or_never().is_none(), "eight pieces do not go at once");
    }
    let refused = staging.write(bytes(1, 1)).await.expect_err("torn");
    assert_eq!(refused.kind(), dstore_shared::Kind::Closed);
    let refused = staging.finish(None).await.expect_err("torn");
    assert_eq!(Error::from(refused).kind(), dstore_shared::Kind::Closed);
}

#[tokio::test]
async fn what_a_crash_left_in_staging_is_gone_at_the_next_start() {
    let (dir, blobs) = fresh().await;
    let mut staging = blobs.stage(None).await.expect("room");
    staging.write(bytes(4 << 20, 1)).await.expect("taken");
    while staging_of(&dir).is_empty() {
        tokio::task::yield_now().await; // pieces are written behind the caller's back
    }
    let reopened = open_in(dir.path()).await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
    drop(staging);
    assert!(put(&reopened, &bytes(20_000, 1)).await.fresh);
}

#[tokio::test]
async fn a_pinned_blob_is_not_unlinked_and_another_is() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(20_000, 1);
    let staged = put(&blobs, &all).await;
    assert!(!blobs.unlink(staged.hash, unknown).await.expect("refused, no error"), "pinned by its upload");
    let hash = staged.hash;
    drop(staged);
    let held = blobs.contains(hash).await.expect("looked").expect("there");
    assert!(!blobs.unlink(hash, unknown).await.expect("refused, no error"), "pinned by deduplication");
    drop(held);
    let read = blobs.read(hash, 20_000, Slice::ALL).await.expect("readable").expect("there");
    drop(read);
    assert!(blobs.unlink(hash, unknown).await.expect("removed"));
    assert!(blobs.contains(hash).await.expect("looked").is_none());
    assert!(get(&blobs, hash, 20_000).await.expect("looked").is_none());
    let stats = blobs.stats();
    assert_eq!((stats.unlinked_files, stats.unlinked_bytes, stats.pinned), (1, 24_096, 0));
    assert!(put(&blobs, &all).await.fresh, "and it can be set again");
}

#[tokio::test]
async fn a_long_read_pins_until_it_is_dropped() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(3 << 20, 1);
    let hash = put(&blobs, &all).await.hash;
    let mut read = blobs.read(hash, 3 << 20, Slice::ALL).await.expect("readable").expect("there");
    read.stream.next().await.expect("a group").expect("good");
    assert!(!blobs.unlink(hash, unknown).await.expect("refused, no error"));
    drop(read);
    while blobs.stats().pinned > 0 {
        tokio::task::yield_now().await; // jobs that had begun run to their end
    }
    assert!(blobs.unlink(hash, unknown).await.expect("removed"));
}

#[tokio::test]
async fn a_walk_lists_what_nothing_knows() {
    let (dir, blobs) = fresh().await;
    let known = put(&blobs, &bytes(20_000, 1)).await.hash;
    let orphan = put(&blobs, &bytes(20_000, 2)).await.hash;
    let pinned = put(&blobs, &bytes(20_000, 3)).await;
    let beside = dir.path().join("blobs").join(&known.to_string()[..2]).join("README");
    RealDisk.open(&beside, Open::Create).expect("created");
    let walk = blobs.walk(move |hash| *hash == known, std::time::Duration::ZERO);
    let walked: Vec<Walked> = walk.map(|w| w.expect("listed")).collect().await;
    let orphans: Vec<BlobHash> = walked.iter().flat_map(|w| w.orphans.clone()).collect();
    assert_eq!(orphans, [orphan]);
    assert_eq!(walked.iter().map(|w| w.files).sum::<u64>(), 3);
    assert_eq!(walked.iter().map(|w| w.bytes).sum::<u64>(), 3 * 24_096);
    assert_eq!(walked.iter().map(|w| w.foreign).sum::<u64>(), 1);
    drop(pinned);
}

/// The bytes of format 1, written down: whoever changes them makes old stores unreadable.
#[tokio::test]
async fn a_golden_file_of_format_1_is_written_and_read() {
    let (dir, blobs) = fresh().await;
    let all = Bytes::from((0..600_000_u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    let staged = put(&blobs, &all).await;
    let path = blobs.0.layout.blob(&staged.hash);
    assert!(path.ends_with(GOLDEN_PATH), "{}", path.display());
    let file = RealDisk.read(&path, 1 << 20).expect("the file");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
    assert_eq!(hex(&file[..68]), GOLDEN_HEADER);
    assert!(file[68..4092].iter().all(|b| *b == 0));
    assert_eq!(hex(&file[4092..4096]), GOLDEN_CHECKSUM);
    assert_eq!(file[4096..604_096], all);
    assert_eq!(hex(&file[604_096..]), GOLDEN_OUTLINE);

    drop(staged);
    let unhex = |text: &str| -> Vec<u8> {
        let digits = (0..text.len()).step_by(2);
        digits.map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
    };
    let mut golden = unhex(GOLDEN_HEADER);
    golden.resize(4092, 0);
    golden.extend(unhex(GOLDEN_CHECKSUM));
    golden.extend_from_slice(&all);
    golden.extend(unhex(GOLDEN_OUTLINE));
    let other = tempfile::tempdir().expect("a temporary directory");
    let store = open_in(other.path()).await;
    let path = other.path().join("blobs").join(GOLDEN_PATH);
    RealDisk.create_dir_all(path.parent().expect("a parent")).expect("made");
    RealDisk.open(&path, Open::Create).and_then(|f| f.write_all_at(&golden, 0)).expect("written");
    let hash = BlobHash::of(&all);
    assert_eq!(get(&store, hash, 600_000).await.expect("readable").expect("there"), all);
    drop(dir);
}

// Computed a second time by a program of its own, from the papers on BLAKE3 and CRC-32C.
const GOLDEN_PATH: &str = "5a/87d7360a75bf0ee79f9ba8c5c4904ad4f60d8579da8d150979400a618c7e93";
const GOLDEN_HEADER: &str = concat!(
    "6473746f7265424c0100000000000000c027090000000000",
    "5a87d7360a75bf0ee79f9ba8c5c4904ad4f60d8579da8d150979400a618c7e93",
    "600000000000000080e9f706"
);
const GOLDEN_CHECKSUM: &str = "3e444962";
const GOLDEN_OUTLINE: &str = concat!(
    "69febc864103726f98eba5f7437ed4da193c9d6cb02d46036729c1ea9dc3ffad",
    "fbdad66a00633e69d549ba33eea2a863640581ce5e5f58b15125cc71f674a33c",
    "299b8218a2413dcf13b05179e60b11b4685ce1c3c36cfb609b04a52141653c79"
);

#[tokio::test]
async fn it_works_as_well_where_nothing_runs_on_threads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blocking = dstore_sys::tasks::Blocking::Inline { latency: std::time::Duration::from_micros(10) };
    let sys = Sys { blocking, ..Sys::real() };
    let blobs = Blobs::open(sys, dir.path().join("blobs"), limits()).await.expect("opened");
    for size in [0, 20_000, (3 << 20) + 1] {
        let all = bytes(size, 1);
        let hash = put(&blobs, &all).await.hash;
        assert_eq!(get(&blobs, hash, size).await.expect("readable").expect("there"), all);
        assert!(blobs.unlink(hash, unknown).await.expect("removed"));
    }
    let mut staging = blobs.stage(None).await.expect("room");
    staging.write(bytes(3 << 20, 2)).await.expect("taken");
    drop(staging);
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}
