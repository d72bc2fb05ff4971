//! Damaged files: noticed, never served, never found "there already", healed by the same bytes.

use super::*;
use dstore_shared::Kind;

/// The damage is noticed by a read of everything, is not served, and the same bytes heal it.
async fn assert_noticed_and_healed(blobs: &Blobs, all: &Bytes, what: &str) {
    let (hash, size) = (BlobHash::of(all), all.len());
    let refused = get(blobs, hash, size).await.expect_err(what);
    assert_eq!(refused.kind(), Kind::Corrupt, "{what}");
    assert!(blobs.is_marked(&hash), "{what}");
    assert_eq!(blobs.next_mark().await, hash, "{what}");
    assert!(blobs.contains(hash).await.expect("looked").is_none(), "{what}: a marked blob is never there");
    let healed = put(blobs, all).await;
    assert!(healed.fresh && healed.cleared_mark, "{what}");
    assert!(!blobs.is_marked(&hash), "{what}");
    assert_eq!(get(blobs, hash, size).await.expect("healed").expect("there"), *all, "{what}");
    let again = put(blobs, all).await;
    assert!(!again.fresh && !again.cleared_mark, "{what}: a healed blob is there");
}

#[tokio::test]
async fn a_flip_in_any_region_is_noticed_and_healed_by_the_same_bytes() {
    let (dir, blobs) = fresh().await;
    for size in [1, 20_000, GROUP as usize, GROUP as usize + 1, (1 << 20) + 70_000] {
        let all = bytes(size, size as u64);
        put(&blobs, &all).await;
        let (len, data_end) = (4096 + size as u64 + format::outline_len(size as u64), 4096 + size as u64);
        let mut places = vec![0, 7, 8, 11, 12, 16, 23, 24, 55, 56, 63, 64, 67, 68, 2000, 4091, 4092, 4095];
        places.extend([4096, 4096 + size as u64 / 2, data_end - 1]);
        if len > data_end {
            places.extend([data_end, data_end + 31, data_end + 32, len - 1]);
        }
        for at in places {
            flip(&blobs, &BlobHash::of(&all), at);
            assert_noticed_and_healed(&blobs, &all, &format!("byte {at} of a blob of {size}")).await;
        }
    }
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_was_cut_or_grew_is_noticed_and_healed() {
    let (_dir, blobs) = fresh().await;
    for size in [0, 20_000, (1 << 20) + 70_000] {
        let all = bytes(size, 5);
        put(&blobs, &all).await;
        for by in [-1, 1, -32, -4096, -20_000, -(1 << 20), i64::MIN] {
            if size == 0 && by > i64::MIN && by < -4096 {
                continue;
            }
            resize(&blobs, &BlobHash::of(&all), by);
            assert_noticed_and_healed(&blobs, &all, &format!("{by} bytes of a blob of {size}")).await;
        }
    }
}

#[tokio::test]
async fn good_groups_before_the_damage_are_served_and_nothing_after_it() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(5 << 20, 1);
    let hash = put(&blobs, &all).await.hash;
    flip(&blobs, &hash, 4096 + 3 * GROUP + 5);
    let mut read =
        blobs.read(hash, 5 << 20, Slice::ALL).await.expect("header and outline are good").expect("there");
    for group in 0..3 {
        let piece = read.stream.next().await.expect("a group").expect("good");
        assert_eq!(piece, all.slice(group * GROUP as usize..(group + 1) * GROUP as usize));
    }
    let refused = read.stream.next().await.expect("an error").expect_err("the damaged group");
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(read.stream.next().await.is_none() && read.stream.next().await.is_none(), "the error ends it");
    let slice = Slice { offset: 4 * GROUP, len: Some(10) };
    let good = get_slice(&blobs, hash, 5 << 20, slice).await.expect("good").expect("there");
    assert_eq!(good, all[4 * GROUP as usize..4 * GROUP as usize + 10], "what verifies is served");
}

#[tokio::test]
async fn a_good_file_under_another_blob_s_name_is_not_that_blob() {
    let (_dir, blobs) = fresh().await;
    let (one, two) = (bytes(20_000, 1), bytes(20_000, 2));
    let (a, b) = (put(&blobs, &one).await.hash, put(&blobs, &two).await.hash);
    RealDisk.rename(&blobs.0.layout.blob(&a), &blobs.0.layout.blob(&b)).expect("renamed");
    assert!(blobs.contains(b).await.expect("looked").is_none());
    assert_noticed_and_healed(&blobs, &two, "another blob's file").await;
}

#[tokio::test]
async fn an_entry_of_another_size_is_noticed() {
    let (_dir, blobs) = fresh().await;
    let hash = put(&blobs, &bytes(20_000, 1)).await.hash;
    for size in [0, 19_999, 20_001, 1 << 40, u64::MAX] {
        let refused = blobs.read(hash, size, Slice::ALL).await.expect_err("another size");
        assert_eq!(refused.kind(), Kind::Corrupt);
    }
}

#[tokio::test]
async fn a_mark_from_the_journal_holds_until_the_bytes_are_set_again() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(20_000, 1);
    let hash = put(&blobs, &all).await.hash;
    blobs.restore_marks([hash]);
    assert!(blobs.contains(hash).await.expect("looked").is_none());
    assert_eq!(get(&blobs, hash, 20_000).await.expect("its bytes verify").expect("there"), all);
    let healed = put(&blobs, &all).await;
    assert!(healed.fresh && healed.cleared_mark);
    assert!(blobs.contains(hash).await.expect("looked").is_some());
    let stats = blobs.stats();
    assert_eq!((stats.healed, stats.marked, stats.corrupt_reads), (1, 0, 0));
}

#[tokio::test]
async fn a_reader_of_the_file_that_was_replaced_does_not_mark_the_new_one() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(8 << 20, 1);
    let hash = put(&blobs, &all).await.hash;
    flip(&blobs, &hash, 4096 + (8 << 20) - 1);
    let mut old = blobs.read(hash, 8 << 20, Slice::ALL).await.expect("header is good").expect("there");
    blobs.restore_marks([hash]);
    assert!(put(&blobs, &all).await.fresh);
    let mut last = old.stream.next().await.expect("a group");
    while let Some(piece) = old.stream.next().await {
        last = piece;
    }
    assert_eq!(last.expect_err("the old file is damaged").kind(), Kind::Corrupt);
    assert!(!blobs.is_marked(&hash));
}

#[tokio::test]
async fn a_newer_format_is_refused_and_never_replaced() {
    let (_dir, blobs) = fresh().await;
    let all = bytes(20_000, 1);
    let hash = put(&blobs, &all).await.hash;
    let file = RealDisk.open(&blobs.0.layout.blob(&hash), Open::Write).expect("the file");
    let mut page = [0; format::PAGE];
    file.read_exact_at(&mut page, 0).expect("a page");
    page[8] = 2;
    let checksum = format::crc(&page[..4092]).to_le_bytes();
    page[4092..].copy_from_slice(&checksum);
    file.write_all_at(&page, 0).expect("written");
    let newer = |e: Error| {
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.message().contains("start a newer dstore"), "{e}");
    };
    newer(get(&blobs, hash, 20_000).await.expect_err("newer"));
    newer(blobs.contains(hash).await.expect_err("newer"));
    newer(put_in_pieces(&blobs, &all, 1 << 20).await.expect_err("newer").into());
    assert!(!blobs.is_marked(&hash));
}
