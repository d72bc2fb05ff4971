//! The plug is pulled at any moment of a directory's life, with the real journal on a simulated disk.

use super::{check, commit, config, outcomes};
use crate::change::Payload;
use crate::data_dir::{self, Opened};
use crate::engine::EngineKind;
use crate::journal::{self, Journal, JournalConfig};
use dstore_shared::{Moment, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, SimDisk, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Blocking;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/data/dstore";

fn open(disk: &SimDisk, seed: u64) -> Result<Opened<Journal>> {
    let blocking = Blocking::Inline { latency: Duration::ZERO };
    let (disk, rng) = (Arc::new(disk.clone()), Arc::new(SeededRng::new(seed)));
    let sys = Sys { disk, rng, blocking, ..Sys::real() };
    let config = config(Path::new(DIR), EngineKind::Memory);
    let opened = data_dir::open(&sys, &config, |dir, floors, replay| {
        let small = JournalConfig {
            segment_bytes: 64 << 10,
            first_segment_bytes: 32 << 10,
            spare_segments: 1,
            min_free_bytes: 0,
            ..JournalConfig::new(dir)
        };
        let floors =
            journal::Floors { checkpoint: floors.checkpoint, index: floors.index, clean: floors.clean };
        let (journal, found) = Journal::open(&sys, &small, &floors, |b| replay(b.first, b.last, b.payload))?;
        let torn = found.torn.map(|torn| torn.to_string());
        Ok((journal, data_dir::Found { head: found.head, torn }))
    })?;
    opened.dir.begin(Duration::ZERO)?;
    Ok(opened)
}

/// What was promised by the time that the disk had seen so many changes.
#[derive(Clone, Copy, Default, Debug)]
struct Promise {
    op: usize,
    acknowledged: u64,
    boot: u64,
    lease: Duration,
}

struct Life {
    disk: SimDisk,
    promises: Vec<Promise>,
}

impl Life {
    fn promise(&mut self, change: impl FnOnce(&mut Promise)) {
        let mut next = self.promises.last().copied().unwrap_or_default();
        next.op = self.disk.op_count();
        change(&mut next);
        self.promises.push(next);
    }

    fn at(&self, op: usize) -> Promise {
        self.promises.iter().rev().find(|p| p.op <= op).copied().unwrap_or_default()
    }

    /// One boot: some batches, checkpoints and trims, and now and then a clean stop.
    async fn boot(&mut self, rng: &SeededRng) {
        let mut opened = open(&self.disk, rng.next_u64()).expect("opened");
        self.promise(|p| p.boot = opened.boot);
        check(&opened);
        let lease = Duration::from_millis(rng.next_u64() % 1000);
        opened.dir.persist_lease_max(lease).unwrap();
        self.promise(|p| p.lease = p.lease.max(lease));
        for _ in 0..rng.next_u64() % 60 {
            self.batch(&mut opened, rng);
            if rng.next_u64().is_multiple_of(8) {
                let outcomes = outcomes(opened.catalog.head().0);
                let done = opened.catalog.checkpoint(Moment::ZERO, outcomes);
                if rng.next_u64().is_multiple_of(2) {
                    done.await.unwrap().unwrap();
                }
            }
            opened.journal.trim(opened.catalog.trim_below());
            tokio::task::yield_now().await;
        }
        if rng.next_u64().is_multiple_of(3) {
            opened.dir.mark_clean(opened.catalog.head()).unwrap();
            // No lease is outstanding.
            self.promise(|p| p.lease = Duration::ZERO);
        }
        let Opened { catalog, applier, journal, .. } = opened;
        drop((catalog, journal));
        applier.wait().await;
    }

    fn batch(&mut self, opened: &mut Opened<Journal>, rng: &SeededRng) {
        let head = opened.catalog.head().0;
        let batch: Vec<_> = (1..=1 + rng.next_u64() % 6).map(|i| commit(head + i)).collect();
        let mut payload = Payload::new();
        for commit in &batch {
            payload.push(commit);
        }
        let last = batch.last().expect("not empty").revision;
        opened.journal.append(Revision(head + 1), last, &payload.slices()).unwrap();
        self.promise(|p| p.acknowledged = last.0);
        opened.catalog.make_room();
        opened.catalog.show(&batch).unwrap();
    }

    /// Opens the directory as it was found after `op` changes, now and then with a damaged checkpoint, and
    /// pulls the plug once more while it opens.
    async fn crash(&self, op: usize, rng: &SeededRng, text: &str) {
        let promised = self.at(op);
        let image = self.disk.crash_at(op, Survival::Any, rng.next_u64());
        let (latest, old) = (Path::new(DIR).join("checkpoint"), Path::new(DIR).join("checkpoint.old"));
        if rng.next_u64().is_multiple_of(4) && [&latest, &old].iter().all(|p| image.exists(p).unwrap()) {
            image.flip(&latest, 30, 1).unwrap();
        }
        image.record(64 << 20);
        let (before, clean) = self.opens(&image, promised, rng, text).await;
        // Of a life that had ended in order nothing is outstanding.
        let promised = if clean { Promise { lease: Duration::ZERO, ..promised } } else { promised };
        let again = *image.moments().start() + rng.next_u64() as usize % (image.op_count() + 1);
        let image = image.crash_at(again.min(image.op_count()), Survival::Any, rng.next_u64());
        let (after, _) = self.opens(&image, promised, rng, text).await;
        assert!(before.min(after) > promised.boot, "{text}");
    }

    async fn opens(&self, image: &SimDisk, promised: Promise, rng: &SeededRng, text: &str) -> (u64, bool) {
        let opened =
            open(image, rng.next_u64()).unwrap_or_else(|e| panic!("{text}: {e}, promised {promised:?}"));
        let (head, torn) = (opened.catalog.head(), &opened.torn);
        assert!(
            head.0 >= promised.acknowledged,
            "{text}: lost, head {head}, torn {torn:?}, promised {promised:?}"
        );
        assert!(opened.boot > promised.boot, "{text}: boot {} again", opened.boot);
        assert!(opened.lease_max >= promised.lease, "{text}: lease {:?}", opened.lease_max);
        check(&opened);
        let Opened { catalog, applier, journal, boot, clean, .. } = opened;
        drop((catalog, journal));
        applier.wait().await;
        (boot, clean)
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_promised() {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let (first, n) = (number("DSTORE_SEED"), number("DSTORE_SEEDS"));
    let n = n.unwrap_or(if first.is_some() { 1 } else { 12 });
    let first = first.unwrap_or(1);
    let mut images = 0;
    for seed in first..first + n {
        println!("DSTORE_SEED={seed}");
        let rng = SeededRng::new(seed);
        let disk = SimDisk::new();
        disk.record(256 << 20);
        let mut life = Life { disk, promises: Vec::new() };
        for _ in 0..3 {
            life.boot(&rng).await;
        }
        let moments = life.disk.moments();
        assert_eq!(*moments.start(), 0, "the whole life was kept");
        for _ in 0..40 {
            let op = rng.next_u64() as usize % (moments.end() + 1);
            life.crash(op, &rng, &format!("seed {seed}, after {op} changes")).await;
            // And one within the recovery.
            images += 2;
        }
    }
    println!("{images} crash images of {n} directories");
    assert!(images >= 80 * n, "{images} crash images");
}
