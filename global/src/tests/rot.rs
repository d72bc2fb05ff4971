//! Bytes that rot and files that are cut: no wrong byte is served, neighbours are readable, or the start refuses.
//!
//! The directories are small, and one of each kind: stopped in order, so that nothing whatever may be missing, and
//! crashed, where the last batch of the journal, if it is damaged, cannot be told from one that never was whole.

use super::given;
use super::images::served;
use super::life::{Bound, read, set, sys};
use crate::{EngineKind, Global, GlobalConfig};
use dstore_proto::IdSource;
use dstore_proto::store::Store;
use dstore_shared::{BlobHash, Kind};
use dstore_sys::disk::{Disk, SimDisk, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn config() -> GlobalConfig {
    GlobalConfig {
        engine: EngineKind::Memory,
        min_free: 0,
        segment_bytes: 64 << 10,
        drain_timeout: Duration::from_millis(100),
        ..GlobalConfig::new("/data")
    }
}

async fn start(disk: &SimDisk) -> dstore_shared::Result<Global> {
    Global::start(sys(disk, disk.op_count() as u64), config()).await
}

/// A directory, and what it holds.
struct Directory {
    disk: SimDisk,
    holds: Bound,
    /// What it held before its last batch, if that may be taken for one that was never whole.
    before: Option<Bound>,
    text: &'static str,
}

/// Two checkpoints, blobs with a file and in the index, and something in the journal only.
async fn directory(clean: bool) -> Directory {
    let disk = SimDisk::new();
    for life in 0..3_u8 {
        let global = start(&disk).await.expect("sound");
        let store = global.store();
        for (i, len) in [10, 2_000, 66_000].into_iter().enumerate() {
            let value = vec![life * 16 + i as u8 + 1; len];
            set(&*store, &format!("k{life}-{i}"), value.into()).await.expect("set").expect("free");
        }
        let id = store.next_id().expect("an id");
        let gone = super::life::name(&format!("k{life}-1"));
        let before = (life == 2 && !clean).then_some(served(&*store).await);
        store.delete(id, vec![gone]).await.expect("deleted");
        let holds = served(&*store).await;
        drop(store);
        if life == 2 && !clean {
            let disk = disk.crash(Survival::Nothing, 1);
            let _ = global.stop().await;
            return Directory { disk, holds, before, text: "crashed" };
        }
        global.stop().await.expect("nobody has a lease");
        if life == 2 {
            return Directory { disk, holds, before: None, text: "stopped" };
        }
    }
    unreachable!("the third life returns")
}

/// What damage came to.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    unharmed: usize,
    /// Some values are told to be damaged, and all others are served.
    told: usize,
    /// The last batch was taken for one that was never whole.
    torn: usize,
}

/// Starts on a damaged directory and reads all of it.
async fn judge(directory: &Directory, image: &SimDisk, damaged: &Path, tally: &mut Tally, text: &str) {
    let global = match start(image).await {
        Ok(global) => global,
        Err(e) => {
            assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{text}: {e:?}");
            tally.refused += 1;
            return;
        }
    };
    let store = global.store();
    let listed = tokio::time::timeout(Duration::from_secs(60), served(&*store)).await;
    let listed = listed.unwrap_or_else(|_| panic!("{text}: it hangs"));
    let torn = directory.before.as_ref() == Some(&listed);
    assert!(torn || listed == directory.holds, "{text}: {listed:?}");
    let mut told = 0;
    for (key, hash) in &listed {
        match read(&*store, key).await {
            Ok(found) => assert_eq!(found, Some(*hash), "{text}: `{key}`"),
            Err(e) => {
                assert_eq!(e.kind(), Kind::Corrupt, "{text}: `{key}`: {e:?}");
                assert!(is_of(damaged, *hash), "{text}: `{key}` is a neighbour: {e}");
                told += 1;
            }
        }
    }
    drop(store);
    let _ = global.stop().await;
    match (torn, told) {
        (true, _) => tally.torn += 1,
        (false, 0) => tally.unharmed += 1,
        (false, _) => tally.told += 1,
    }
}

/// Whether the file is the one of the blob.
fn is_of(file: &Path, hash: BlobHash) -> bool {
    let text = hash.to_string();
    file.ends_with(Path::new(&text[..2]).join(&text[2..]))
}

fn bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    disk.read(path, 64 << 20).expect("read")
}

/// Offsets at which a file is damaged: all of them, or `some` of its first 64 bytes, of the headers at the beginning
/// of each of its pages, and of the rest.
fn offsets(content: &[u8], rng: &SeededRng, some: Option<usize>) -> BTreeSet<u64> {
    let all = 0..content.len() as u64;
    let Some(some) = some else { return all.collect() };
    let page = |at: u64| content[at as usize / 4096 * 4096..].iter().take(96);
    let headers = all.clone().filter(|at| at % 4096 < 96 && page(*at).any(|b| *b != 0));
    let mut chosen = BTreeSet::new();
    for part in [all.clone().take(64).collect::<Vec<_>>(), headers.collect(), all.collect()] {
        chosen.extend((0..some).map(|_| part[rng.next_u64() as usize % part.len()]));
    }
    chosen
}

/// Damages every file at `some` places, or at all; gives how many directories were looked at.
async fn rot(directory: &Directory, some: Option<usize>) -> BTreeMap<String, Tally> {
    let rng = SeededRng::new(given("DSTORE_SEED", 3));
    let mut tallies = BTreeMap::new();
    for (path, len) in directory.disk.files() {
        if len == 0 {
            continue;
        }
        let content = bytes(&directory.disk, &path);
        let (mut flips, mut cuts) = (Tally::default(), Tally::default());
        for at in offsets(&content, &rng, some) {
            let image = directory.disk.crash(Survival::Everything, 0);
            let mask = 1 << (rng.next_u64() % 8);
            image.flip(&path, at, mask).expect("there");
            let text = format!("{}: {} byte {at} ^ {mask}", directory.text, path.display());
            judge(directory, &image, &path, &mut flips, &text).await;
        }
        for at in offsets(&content, &rng, some.map(|some| some / 2)) {
            let image = directory.disk.crash(Survival::Everything, 0);
            image.cut(&path, at).expect("there");
            let text = format!("{}: {} cut to {at} of {len}", directory.text, path.display());
            judge(directory, &image, &path, &mut cuts, &text).await;
        }
        let image = directory.disk.crash(Survival::Everything, 0);
        image.remove(&path).expect("there");
        image.sync_dir(path.parent().expect("in a folder")).expect("synced");
        let text = format!("{}: {} removed", directory.text, path.display());
        judge(directory, &image, &path, &mut cuts, &text).await;
        println!("{:9} {:>7} bytes {}: flipped {flips:?}, cut {cuts:?}", directory.text, len, short(&path));
        tallies.insert(format!("{} flipped", short(&path)), flips);
        tallies.insert(format!("{} cut", short(&path)), cuts);
    }
    tallies
}

fn short(path: &Path) -> String {
    let path: PathBuf = path.strip_prefix("/data").expect("in the directory").into();
    path.display().to_string().chars().take(28).collect()
}

fn images(tallies: &BTreeMap<String, Tally>) -> usize {
    tallies.values().map(|t| t.refused + t.unharmed + t.told + t.torn).sum()
}

#[tokio::test(start_paused = true)]
async fn a_rotten_byte_or_a_cut_file_is_refused_told_or_harmless() {
    for clean in [true, false] {
        let directory = directory(clean).await;
        let tallies = rot(&directory, Some(16)).await;
        let n = images(&tallies);
        println!("{}: {n} damaged directories", directory.text);
        assert!(n >= 300, "{n}");
        let refused: usize = tallies.values().map(|t| t.refused).sum();
        let told: usize = tallies.values().map(|t| t.told).sum();
        assert!(refused > 30 && told > 20, "{tallies:?}");
        assert_eq!(tallies.values().any(|t| t.torn > 0), !clean, "{tallies:?}");
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "long: every byte of two directories, for hours in a debug build"]
async fn every_byte_flipped_and_every_file_cut_at_every_length_is_refused_told_or_harmless() {
    for clean in [true, false] {
        let directory = directory(clean).await;
        let n = images(&rot(&directory, None).await);
        println!("{}: {n} damaged directories", directory.text);
    }
}
