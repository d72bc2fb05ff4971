//! Values of every size go A -> Global -> B, with the same BLAKE3.

use crate::boundaries::SIZES;
use crate::rig::{Global, Local, fact, name, noise, target};
use bytes::Bytes;
use dstore_client::{BodyStream, Slice, Tier};
use dstore_shared::{BlobHash, BlobHasher, SetOutcome};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_boundary_size_go_through_three_processes() {
    let mut global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    for size in SIZES {
        let (key, value) = (format!("size-{size}"), noise(size as u64, size));
        let hash = BlobHash::of(&value);
        let stored = a.client.set(&name(&*key), value).await.unwrap_or_else(|e| panic!("{size}: {e:?}"));
        assert!(matches!(stored.outcome, SetOutcome::Stored(ref e) if e.hash == hash), "{size}: {stored:?}");
        let first = b.get(&key).await.unwrap_or_else(|| panic!("{size}: found"));
        assert_eq!((first.from.tier, first.entry.size), (Tier::Global, size as u64), "{size}");
        assert_eq!(BlobHash::of(&first.bytes), hash, "{size}");
        let again = b.get(&key).await.expect("found");
        assert_eq!((again.from.tier, BlobHash::of(&again.bytes)), (Tier::Local, hash), "{size}");
        let direct = global.client().get(&name(&*key)).await.expect("answered").expect("found");
        assert_eq!(BlobHash::of(&direct.bytes), hash, "{size}");
    }
    // And all of them are on disk.
    global.daemon.kill();
    global.again();
    let client = global.client();
    for size in SIZES {
        let value = client.get(&name(format!("size-{size}"))).await.expect("answered").expect("found");
        assert!(value.bytes == noise(size as u64, size), "{size}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_local_is_bounded_though_many_large_values_are_read_at_once() {
    const CACHE: u64 = 32 << 20;
    const VALUES: u64 = 48;
    // Nearly the largest that such a cache keeps.
    const LEN: usize = (8 << 20) - 4096;
    let global = Global::start(&[]);
    let b = Local::start_with(&global, &["--cache-bytes", "32MiB"]).await;
    let before = b.daemon.memory_peak();
    let writer = global.client();
    for i in 0..VALUES {
        writer.set(&name(format!("large-{i}")), noise(i, LEN)).await.expect("set");
    }
    let read = join_all((0..VALUES).map(async |i| {
        let found = b.client.get_stream(&target(&format!("large-{i}")), Slice::ALL).await;
        let mut body = found.expect("answered").expect("found").body.into_stream();
        let mut hasher = BlobHasher::new();
        while let Some(piece) = body.next().await {
            hasher.update(&piece.expect("a piece"));
        }
        assert_eq!(hasher.finish(), BlobHash::of(&noise(i, LEN)), "{i}");
    }));
    read.await;
    let grew = b.daemon.memory_peak().saturating_sub(before);
    eprintln!("{} MiB more at the most", grew >> 20);
    // What is held of large values is bounded, and of what is streamed a window of frames for each reader.
    let bound = CACHE + CACHE / 4 + VALUES * (3 << 19);
    assert!(grew < bound, "{grew} bytes more, {bound} at the most");
    let held = fact(&b.client.status().await.expect("answered"), "held_bytes");
    assert!(held > 0 && held <= CACHE, "what is not kept is given back: {held}");
}

const GIB: u64 = 1 << 30;
const PIECE: usize = 256 << 10;

/// A gibibyte that need not be held at once, and whose pieces all differ.
fn gibibyte() -> BodyStream {
    let pattern = Bytes::from(noise(3, PIECE));
    let piece = move |i: u64| {
        let mut piece = pattern.to_vec();
        piece[..8].copy_from_slice(&i.to_le_bytes());
        Ok(piece.into())
    };
    Box::pin(stream::iter((0..GIB / PIECE as u64).map(piece)))
}

async fn hash_of(mut body: BodyStream) -> BlobHash {
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece.expect("a piece");
        size += piece.len() as u64;
        hasher.update(&piece);
    }
    assert_eq!(size, GIB);
    BlobHash::from_bytes(*hasher.finalize().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a gibibyte each way"]
async fn a_gibibyte_goes_through_and_memory_stays_flat() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    let daemons = [("A", &a.daemon), ("Global", &global.daemon), ("B", &b.daemon)];
    let before = daemons.map(|(_, daemon)| daemon.memory_peak());
    let start = Instant::now();
    let stored = a.client.set_stream(Some(&name("large")), gibibyte()).await.expect("set");
    let SetOutcome::Stored(entry) = stored.outcome else { panic!("{stored:?}") };
    assert_eq!(entry.size, GIB);
    eprintln!("up: {:?}", start.elapsed());
    let start = Instant::now();
    let found = b.client.get_stream(&target("large"), Slice::ALL).await.expect("answered").expect("found");
    assert_eq!((found.entry.hash, found.from.cached), (entry.hash, false), "larger than it may keep");
    assert_eq!(hash_of(found.body.into_stream()).await, entry.hash);
    eprintln!("down: {:?}", start.elapsed());
    assert_eq!(hash_of(gibibyte()).await, entry.hash);
    for ((who, daemon), before) in daemons.into_iter().zip(before) {
        let grew = daemon.memory_peak().saturating_sub(before) >> 20;
        eprintln!("{who}: {} MiB before, {grew} MiB more at the most", before >> 20);
        // A window of frames, and at A what could have been a copy to keep: a quarter of its cache.
        assert!(grew < 96, "{who} grew by {grew} MiB for a value of 1,024 MiB");
    }
    let part = Slice { offset: GIB - 10, len: Some(100) };
    let end = b.client.get_stream(&target("large"), part).await.expect("answered").expect("found");
    let end = end.body.collect(100).await.expect("the end of it");
    assert_eq!(&end[..], &noise(3, PIECE)[PIECE - 10..]);
}
