//! `engines/<names>`: the index engines side by side, without anything above them. As Global uses them: batches of 64
//! changes, each a name, what is known of its blob, and 100 B of value. `--names` says how many names there are.

use crate::harness::{Plan, time};
use bytes::Bytes;
use dstore_global::engine::{Engine, EngineKind, Table, Write, open};
use dstore_shared::{BlobHash, Name, Revision};
use dstore_sys::Sys;
use dstore_sys::rng::{Rng, SeededRng};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::time::{Duration, Instant};

const BATCH: u64 = 64;
const BYTES: usize = 100;
/// Batches that are each made durable.
const DURABLE: u64 = 100;
/// Changes between two checkpoints otherwise: about 64 MiB.
const CHECKPOINT: u64 = 200_000;
const GETS: u64 = 100_000;

pub fn run(plan: &Plan) {
    println!(
        "| engine | durable batches of 64 | changes/s, a checkpoint each 200 k | get of 1,000 hot | get of any | get of none | scan, names/s | space a name | reopen |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for kind in EngineKind::ALL {
        if kind.is_built_in() {
            row(kind, plan.names);
        }
    }
}

fn row(kind: EngineKind, names: u64) {
    let (sys, dir) = (Sys::real(), tempfile::tempdir().expect("a directory"));
    let engine = open(kind, &sys, dir.path()).expect("a new index");
    let mut load = Load { engine, rng: SeededRng::new(1), revision: 0 };
    let changes = load.changes(names - DURABLE * BATCH, false);
    let durable = load.changes(DURABLE * BATCH, true);
    let (hot, any, none) = (load.gets(1_000, true), load.gets(names, true), load.gets(names, false));
    let (scanned, scan) = load.scan();
    assert!(scanned >= names - BATCH, "{scanned} of {names}");
    let space = space(dir.path());
    drop(load.engine);
    let began = Instant::now();
    let again = open(kind, &sys, dir.path()).expect("it opens again");
    let name = name(names / 2);
    assert!(
        again.get(Table::Names, name.as_bytes()).expect("read").is_some(),
        "what was checkpointed is there"
    );
    let reopen = began.elapsed();
    println!(
        "| {kind} | {} | {:.0} k | {} | {} | {} | {:.0} k | {:.0} B | {} |",
        told(durable / DURABLE as u32),
        (names - DURABLE * BATCH) as f64 / changes.as_secs_f64() / 1e3,
        told(hot),
        told(any),
        told(none),
        scanned as f64 / scan.as_secs_f64() / 1e3,
        space as f64 / names as f64,
        told(reopen)
    );
}

fn told(took: Duration) -> String {
    time(took.as_nanos() as f64)
}

/// Bytes on disk.
fn space(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("it is read");
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() { space(&entry.path()) } else { meta.blocks() * 512 }
    };
    std::fs::read_dir(dir).expect("a directory").map(of).sum()
}

/// Spread, so that neighbours in time are not neighbours in the tree.
fn name(i: u64) -> Name {
    Name::of(format!("user/{:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).expect("a short key")
}

struct Load {
    engine: Box<dyn Engine>,
    rng: SeededRng,
    revision: u64,
}

impl Load {
    fn batch(&mut self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(3 * BATCH as usize);
        for _ in 0..BATCH {
            self.revision += 1;
            let hash = BlobHash::of(&self.revision.to_le_bytes());
            let value: Vec<u8> = (0..BYTES).map(|_| self.rng.next_u64() as u8).collect();
            let key = Bytes::copy_from_slice(hash.as_bytes());
            let mut write =
                |table, key, value: Vec<u8>| writes.push(Write { table, key, value: Some(value.into()) });
            write(Table::Names, name(self.revision).packed(), vec![7; 50]);
            write(Table::Blobs, key.clone(), vec![0; 17]);
            write(Table::Inline, key, value);
        }
        writes
    }

    /// Time in the engine.
    fn changes(&mut self, n: u64, durable: bool) -> Duration {
        let mut spent = Duration::ZERO;
        for i in 0..n.div_ceil(BATCH) {
            let (batch, checkpoint) = (self.batch(), durable || i % (CHECKPOINT / BATCH) == 0);
            let began = Instant::now();
            self.engine.apply(batch, Revision(self.revision)).expect("applied");
            if checkpoint {
                self.engine.checkpoint().expect("durable");
            }
            spent += began.elapsed();
        }
        spent
    }

    /// Of each get, in the middle.
    fn gets(&mut self, names: u64, there: bool) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..GETS {
            let name = name(self.rng.next_u64() % names + 1 + if there { 0 } else { 1 << 40 });
            let began = Instant::now();
            let found = self.engine.get(Table::Names, name.as_bytes()).expect("read");
            spent += began.elapsed();
            assert_eq!(found.is_some(), there);
        }
        spent / GETS as u32
    }

    /// All names, in pages of 1,000 of one snapshot.
    fn scan(&self) -> (u64, Duration) {
        let began = Instant::now();
        let view = self.engine.snapshot().expect("a snapshot");
        let (mut n, mut last) = (0, Bytes::new());
        loop {
            let before = n;
            let start = last.clone();
            view.scan(Table::Names, Bound::Excluded(&start), 1_000, &mut |key, _| {
                n += 1;
                last = key;
                ControlFlow::Continue(())
            })
            .expect("scanned");
            if n == before {
                return (n, began.elapsed());
            }
        }
    }
}
