//! The journal on a simulated disk. A payload is a function of its first revision, so that whatever is replayed
//! can be checked without remembering what was written.

mod crash;
mod damage;
mod faults;
mod golden;
mod life;
mod relaxed;
mod threads;

use super::{Batch, Floors, Journal, JournalConfig, Opened};
use dstore_shared::{Result, Revision};
use dstore_sys::disk::{Disk, SimDisk};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Blocking;
use dstore_sys::{Sys, clock, net};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/data/journal";

fn config() -> JournalConfig {
    JournalConfig {
        dir: DIR.into(),
        segment_bytes: 32 << 10,
        first_segment_bytes: 20 << 10,
        spare_segments: 2,
        min_free_bytes: 0,
        replay_again: 0,
        relaxed: None,
    }
}

fn sys(disk: &SimDisk, seed: u64) -> Sys {
    Sys {
        clock: Arc::new(clock::ManualClock::default()),
        rng: Arc::new(SeededRng::new(seed)),
        net: Arc::new(net::RealNet),
        disk: Arc::new(disk.clone()),
        blocking: Blocking::Inline { latency: Duration::ZERO },
    }
}

/// A journal, what `open` said, and what it replayed.
#[derive(Debug)]
struct Open {
    journal: Journal,
    opened: Opened,
    batches: Vec<Batch>,
}

fn open_with(disk: &SimDisk, seed: u64, config: &JournalConfig, floors: Floors) -> Result<Open> {
    let mut batches = Vec::new();
    let (journal, opened) = Journal::open(&sys(disk, seed), config, &floors, |batch| {
        batches.push(batch);
        Ok(())
    })?;
    Ok(Open { journal, opened, batches })
}

fn open(disk: &SimDisk) -> Result<Open> {
    open_with(disk, disk.op_count() as u64, &config(), Floors::default())
}

/// Opens and closes again.
fn look(disk: &SimDisk, floors: Floors) -> Result<(Opened, Vec<Batch>)> {
    open_with(disk, disk.op_count() as u64, &config(), floors).map(|open| (open.opened, open.batches))
}

/// A disk with a durable data directory, as Global makes it before it opens the journal.
fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).expect("made");
    disk.sync_dir(Path::new("/")).expect("synced");
    disk
}

/// A new journal on a new disk.
fn begin() -> (SimDisk, Journal) {
    let disk = new_disk();
    let journal = open(&disk).expect("an empty directory").journal;
    (disk, journal)
}

/// The payload of the batch that begins with `first`.
fn payload(first: Revision, len: usize) -> Vec<u8> {
    let rng = SeededRng::new(first.0);
    let mut bytes = first.0.to_le_bytes().to_vec();
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Appends a batch of `revisions` revisions.
fn append(journal: &mut Journal, revisions: u64, len: usize) -> Result<Revision> {
    let first = journal.head().next();
    let last = Revision(first.0 + revisions - 1);
    let bytes = payload(first, len);
    let (a, b) = bytes.split_at(len.min(bytes.len()) / 3);
    journal.append(first, last, &[a, b]).map(|()| last)
}

/// Fails unless the batches follow each other from after `checkpoint`, each with its own payload.
fn assert_sound(batches: &[Batch], checkpoint: Revision, context: &str) {
    let mut head = batches.first().map_or(checkpoint, |batch| Revision(batch.first.0 - 1));
    assert!(head <= checkpoint, "{context}: starts at {head}, not after {checkpoint}");
    for batch in batches {
        assert_eq!(batch.first, head.next(), "{context}: a gap");
        assert!(batch.last > checkpoint, "{context}: {batch:?} is before the checkpoint");
        assert_eq!(batch.payload, payload(batch.first, batch.payload.len()), "{context}: invented bytes");
        head = batch.last;
    }
}

/// The segment files, in order.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|e| e == "journal")).collect()
}

fn checkpoint(revision: u64) -> Floors {
    Floors { checkpoint: Revision(revision), ..Floors::default() }
}

fn clean(revision: Revision) -> Floors {
    Floors { clean: Some(revision), ..Floors::default() }
}

fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
    disk.read(path, 1 << 30).expect("a file of the test")
}
