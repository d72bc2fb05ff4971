//! How fast the catalog is: printed, never judged. Run with
//! `cargo test --release -p dstore-global --features fjall figures -- --ignored --nocapture --test-threads 1`.

use super::*;
use crate::change::{Change, Payload, Place};
use crate::engine::{EngineKind, open};
use dstore_shared::{ClientId, Outcome, RequestId, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::rng::{Rng, SeededRng};

const BATCH: u64 = 64;

fn name(i: u64) -> Name {
    Name::of(format!("user/{:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).unwrap()
}

fn commit(i: u64, bytes: &Bytes) -> Commit {
    let hash = BlobHash::of(&i.to_le_bytes());
    let entry =
        Entry { hash, size: bytes.len() as u64, bind_rev: Revision(i), expires_at: None, content_type: None };
    let meta =
        BlobMeta { size: entry.size, refs: 1, place: Place::Inline, unnamed_since_ms: None, corrupt: false };
    let id = RequestId { client: ClientId(1), n: i, ..RequestId::default() };
    let changes = vec![
        Change::Bind { name: name(i), entry: entry.clone() },
        Change::Blob { hash, meta },
        Change::Inline { hash, bytes: bytes.clone() },
    ];
    let outcome = Some((id, Outcome::Set(SetOutcome::Stored(entry))));
    Commit { revision: Revision(i), at_ms: i, outcome, changes }
}

fn cpu_ms() -> u64 {
    let t = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = t.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

fn figures(kind: EngineKind, size: usize, commits: u64) {
    let dir = tempfile::tempdir().unwrap();
    let sys = Sys::real();
    let start = Start {
        engine: Arc::from(open(kind, &sys, dir.path()).unwrap()),
        files: Checkpoints::new(sys.disk.clone(), dir.path()),
        history: HistoryId(1),
        revision: Revision(0),
        previous: Revision(0),
        at_ms: 0,
        names: 0,
        namespaces: Vec::new(),
    };
    let (catalog, _end) = Catalog::start(start, &CatalogConfig::default(), Blocking::Threads);
    let rng = SeededRng::new(1);
    let value: Bytes = (0..=size / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect::<Vec<_>>().into();
    let batches: Vec<Vec<Commit>> = (0..commits / BATCH)
        .map(|b| (1..=BATCH).map(|i| commit(b * BATCH + i, &value.slice(..size))).collect())
        .collect();
    let (from, cpu) = (sys.clock.now(), cpu_ms());
    let mut payload = Payload::new();
    let (mut encoding, mut showing) = (Duration::ZERO, Duration::ZERO);
    for batch in batches {
        let t = sys.clock.now();
        payload.clear();
        for commit in &batch {
            payload.push(commit);
        }
        std::hint::black_box(payload.slices());
        let u = sys.clock.now();
        catalog.make_room();
        catalog.show(&batch).unwrap();
        encoding += u.since(t);
        showing += sys.clock.now().since(u);
        if kind == EngineKind::Fjall && catalog.checkpoint_due(sys.clock.now()) {
            drop(catalog.checkpoint(sys.clock.now(), vec![]));
        }
    }
    let shown = sys.clock.now().since(from);
    catalog.checkpoint(sys.clock.now(), vec![]).blocking_recv().unwrap().unwrap();
    let (all, cpu) = (sys.clock.now().since(from), cpu_ms() - cpu);
    let rate = |t: Duration| commits as f64 / t.as_secs_f64();
    let each = |t: Duration| t.as_secs_f64() * 1e6 / commits as f64;
    println!(
        "{kind} {size} B: shown {:.0}/s, indexed {:.0}/s; encode {:.2} us, show {:.2} us (with waiting), CPU {:.1} us a commit",
        rate(shown),
        rate(all),
        each(encoding),
        each(showing),
        cpu as f64 * 1e3 / commits as f64,
    );
    reads(&sys, &catalog, commits);
}

fn reads(sys: &Sys, catalog: &Catalog, commits: u64) {
    let rng = SeededRng::new(2);
    let time = |what: &str, n: u64, read: &mut dyn FnMut()| {
        let t = sys.clock.now();
        for _ in 0..n {
            read();
        }
        println!("  {what}: {:.0} ns", sys.clock.now().since(t).as_nanos() as f64 / n as f64);
    };
    let hot: Vec<Name> = (1..=1000.min(commits)).map(name).collect();
    for name in &hot {
        catalog.entry(name).unwrap();
    }
    let mut i = 0;
    time("entry_hot, 1,000 names", 2_000_000, &mut || {
        i = (i + 7) % hot.len();
        std::hint::black_box(catalog.entry_hot(&hot[i]));
    });
    time("entry, any (with making the name)", 200_000, &mut || {
        std::hint::black_box(catalog.entry(&name(rng.next_u64() % commits + 1)).unwrap());
    });
    time("entry, absent (with making the name)", 100_000, &mut || {
        std::hint::black_box(catalog.entry(&name(rng.next_u64() | 1 << 63)).unwrap());
    });
    time("blob, absent", 100_000, &mut || {
        std::hint::black_box(catalog.blob(&BlobHash::from_bytes([rng.next_u64() as u8; 32])).unwrap());
    });
}

#[cfg(feature = "fjall")]
#[test]
#[ignore = "prints figures"]
fn fjall_catalog_figures() {
    let only = std::env::var("DSTORE_SIZE").ok().map(|s| s.parse::<usize>().unwrap());
    for (size, commits) in [(100, 640_000), (4 << 10, 128_000), (16 << 10, 64_000), (64 << 10, 25_600)] {
        if only.is_none_or(|only| only == size) {
            figures(EngineKind::Fjall, size, commits);
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn memory_catalog_figures() {
    figures(EngineKind::Memory, 100, 640_000);
}
