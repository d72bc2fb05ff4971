//! How fast the engines are: printed, never judged. Run with
//! `cargo test --release -p dstore-global --features fjall figures -- --ignored --nocapture --test-threads 1`.

use super::{Engine, EngineKind, Table, Write, open};
use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Name, Revision};
use dstore_sys::Sys;
use dstore_sys::rng::{Rng, SeededRng};
use std::time::Duration;

const BATCH: u64 = 64;

struct Figures {
    sys: Sys,
    engine: Box<dyn Engine>,
    rng: SeededRng,
    revision: u64,
    #[cfg_attr(not(feature = "fjall"), expect(dead_code, reason = "held for its files"))]
    dir: tempfile::TempDir,
}

impl Figures {
    fn new(kind: EngineKind) -> Self {
        let dir = match std::env::var("DSTORE_BENCH_DIR") {
            Ok(base) => tempfile::tempdir_in(base).unwrap(),
            Err(_) => tempfile::tempdir().unwrap(),
        };
        let sys = Sys::real();
        let engine = open(kind, &sys, dir.path()).unwrap();
        Self { sys, engine, rng: SeededRng::new(1), revision: 0, dir }
    }

    fn timed(&self, work: impl FnOnce()) -> Duration {
        let start = self.sys.clock.now();
        work();
        self.sys.clock.now().since(start)
    }

    fn name(i: u64) -> Name {
        // Spread, so that neighbours in time are not neighbours in the tree.
        Name::of(format!("user/{:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).unwrap()
    }

    fn hash(i: u64) -> BlobHash {
        BlobHash::of(&i.to_le_bytes())
    }

    fn batch(&mut self, size: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..BATCH {
            self.revision += 1;
            let (i, hash) = (self.revision, Self::hash(self.revision));
            let entry = Entry { hash, size: size as u64, bind_rev: Revision(i), expires_at: None };
            let mut value = vec![0; size];
            for chunk in value.chunks_exact_mut(8) {
                chunk.copy_from_slice(&self.rng.next_u64().to_le_bytes());
            }
            let key = Bytes::copy_from_slice(hash.as_bytes());
            let entry = crate::change::encode_entry(&entry);
            writes.push(Write { table: Table::Names, key: Self::name(i).packed(), value: Some(entry) });
            writes.push(Write { table: Table::Blobs, key: key.clone(), value: Some(vec![0; 17].into()) });
            writes.push(Write { table: Table::Inline, key, value: Some(value.into()) });
        }
        writes
    }

    fn apply(&mut self, size: usize, commits: u64) {
        let mut spent = Duration::ZERO;
        let mut worst = Duration::ZERO;
        let wall = self.sys.clock.now();
        for i in 0..commits / BATCH {
            let batch = self.batch(size);
            let revision = Revision(self.revision);
            let took = self.timed(|| self.engine.apply(batch, revision).unwrap());
            spent += took;
            worst = worst.max(took);
            if i % (1 + (64 << 20) / ((size as u64 + 300) * BATCH)) == 0 {
                self.engine.checkpoint().unwrap();
            }
        }
        let wall = self.sys.clock.now().since(wall);
        let rate = |t: Duration| commits as f64 / t.as_secs_f64();
        println!(
            "apply {size} B: {:.0} commits/s in apply ({:.1} us each, worst batch {worst:?}), {:.0}/s with checkpoints every 64 MiB and making the data",
            rate(spent),
            1e6 / rate(spent),
            rate(wall),
        );
        let took = self.timed(|| _ = self.engine.checkpoint().unwrap());
        println!("  last checkpoint {took:?}");
    }

    fn get(&self, what: &str, names: u64, hits: bool) {
        let n = 200_000_u64;
        let took = self.timed(|| {
            for _ in 0..n {
                let i = self.rng.next_u64() % names + 1 + if hits { 0 } else { 1 << 40 };
                let found = self.engine.get(Table::Names, Self::name(i).as_bytes()).unwrap();
                assert_eq!(found.is_some(), hits);
            }
        });
        let base = self.timed(|| {
            for _ in 0..n {
                std::hint::black_box(Self::name(self.rng.next_u64() % names));
            }
        });
        println!("get {what}: {:.2} us", took.saturating_sub(base).as_secs_f64() * 1e6 / n as f64);
    }
}

#[cfg(feature = "fjall")]
#[test]
#[ignore = "prints figures, takes a minute"]
fn fjall_figures() {
    let mut f = Figures::new(EngineKind::Fjall);
    f.apply(100, 1_000_000);
    f.get("hot (1,000 of 1 M names)", 1000, true);
    f.get("any of 1 M names", 1_000_000, true);
    f.get("absent", 1_000_000, false);
    let dir = f.dir;
    drop(f.engine);
    let start = f.sys.clock.now();
    let engine = open(EngineKind::Fjall, &f.sys, dir.path()).unwrap();
    println!("open 1 M names: {:?}", f.sys.clock.now().since(start));
    drop(engine);
    for (size, commits) in [(4 << 10, 300_000), (16 << 10, 100_000), (64 << 10, 40_000)] {
        Figures::new(EngineKind::Fjall).apply(size, commits);
    }
}

#[test]
#[ignore = "prints figures"]
fn memory_figures() {
    let mut f = Figures::new(EngineKind::Memory);
    f.apply(100, 1_000_000);
    f.get("hot (1,000 of 1 M names)", 1000, true);
    f.get("any of 1 M names", 1_000_000, true);
}
