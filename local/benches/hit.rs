//! What a hit costs: `get_hit/<keys>/<threads>`, 100-byte values, against `quick_cache` and a bare `DashMap`.
//!
//! Ours does what a node does on a hit: loads `valid_until` and the era, looks the name up, reads
//! `CLOCK_BOOTTIME`. The peers look the same names up in the same order and clone the same value. Each
//! measurement runs all of them in turn, and the table of ratios at the end is of the medians of the rounds.
//! Run with `cargo bench -p dstore-local --bench hit`.

use criterion::{BenchmarkId, Criterion, Throughput};
use dashmap::DashMap;
use dstore_local::cache::{Admission, Cache, CacheConfig};
use dstore_shared::{Blob, Entry, Moment, Name, RegSeq, Revision};
use dstore_sys::clock::{BootClock, Clock};
use quick_cache::sync::Cache as QuickCache;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const VALUE_BYTES: usize = 100;
/// Lookups between two looks at the stopwatch.
const ROUND: usize = 1 << 14;

/// A cache under its lease, as a node has it.
struct Node {
    cache: Cache,
    valid_until: AtomicU64,
    era: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Node {
    fn get(&self, packed: &[u8]) -> Option<Blob> {
        let valid_until = self.valid_until.load(Ordering::Acquire);
        let hit = self.cache.hit(packed, self.era.load(Ordering::Acquire))?;
        (self.clock.now() < Moment::from_nanos(valid_until)).then_some(hit.blob)
    }
}

/// Names in an order without pattern: what a CPU could guess would flatter all of them.
fn names(count: usize) -> Vec<Name> {
    let mut names: Vec<Name> =
        (0..count).map(|n| Name::of(format!("user:{n:08}")).expect("a short key")).collect();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for at in (1..count).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        names.swap(at, (seed % (at as u64 + 1)) as usize);
    }
    names
}

fn blob(n: usize) -> Blob {
    let mut bytes = vec![0; VALUE_BYTES];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    Blob::hash(bytes).compact()
}

fn node(names: &[Name]) -> Node {
    let cache = Cache::new(CacheConfig { bytes: 4 << 30 });
    for (n, name) in names.iter().enumerate() {
        let blob = blob(n);
        let entry = Entry { hash: blob.id(), size: blob.size(), bind_rev: Revision(1), expires_at: None };
        let admission = cache.install(name, entry, &blob, RegSeq(1), 1);
        assert!(matches!(admission, Admission::Installed { evicted } if evicted.is_empty()));
    }
    Node { cache, valid_until: AtomicU64::new(u64::MAX), era: AtomicU64::new(1), clock: Arc::new(BootClock) }
}

/// Time that `threads` need for `rounds` rounds each: the slowest one's.
fn time(threads: usize, rounds: u64, names: &[Name], get: &(impl Fn(&[u8]) -> bool + Sync)) -> Duration {
    let run = |thread: usize| {
        let mut at = thread * names.len() / threads;
        let begun = BootClock.now();
        for _ in 0..rounds * ROUND as u64 {
            assert!(get(black_box(names[at].as_bytes())));
            at += 1;
            if at == names.len() {
                at = 0;
            }
        }
        BootClock.now().since(begun)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mine = run(0);
        others.into_iter().map(|other| other.join().expect("no thread failed")).fold(mine, Duration::max)
    })
}

/// Nanoseconds a lookup of every round, by what was measured.
type Figures = BTreeMap<(usize, usize, &'static str), Vec<f64>>;

fn measure(
    c: &mut Criterion,
    figures: &mut Figures,
    (who, threads): (&'static str, usize),
    names: &[Name],
    get: impl Fn(&[u8]) -> bool + Sync,
) {
    let mut group = c.benchmark_group(format!("get_hit/{}_keys/{threads}_threads", names.len()));
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements((ROUND * threads) as u64));
    group.bench_function(BenchmarkId::from_parameter(who), |b| {
        b.iter_custom(|rounds| {
            let took = time(threads, rounds, names, &get);
            let each = took.as_nanos() as f64 / (rounds as f64 * ROUND as f64);
            figures.entry((names.len(), threads, who)).or_default().push(each);
            took
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().without_plots();
    let mut figures = Figures::new();
    for count in [1_000, 1_000_000] {
        let names = names(count);
        let node = node(&names);
        let quick = QuickCache::new(count * 2);
        let dash = DashMap::with_hasher(foldhash::fast::RandomState::default());
        for (n, name) in names.iter().enumerate() {
            quick.insert(name.clone(), blob(n));
            dash.insert(name.clone(), blob(n));
        }
        for threads in [1, 2] {
            let c = &mut criterion;
            measure(c, &mut figures, ("dstore", threads), &names, |packed| node.get(packed).is_some());
            measure(c, &mut figures, ("quick_cache", threads), &names, |packed| {
                quick.get(packed).map(black_box).is_some()
            });
            measure(c, &mut figures, ("dashmap", threads), &names, |packed| {
                dash.get(packed).map(|found| black_box(found.value().clone())).is_some()
            });
        }
    }
    criterion.final_summary();
    report(&mut figures);
}

fn median(figures: &mut Figures, what: (usize, usize, &'static str)) -> f64 {
    let Some(rounds) = figures.get_mut(&what) else { return f64::NAN };
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn report(figures: &mut Figures) {
    println!(
        "| keys | threads | dstore, lease checked | quick_cache | DashMap | quick_cache : dstore | DashMap : dstore |"
    );
    println!("|---|---|---|---|---|---|---|");
    for keys in [1_000, 1_000_000] {
        for threads in [1, 2] {
            let [ours, quick, dash] =
                ["dstore", "quick_cache", "dashmap"].map(|who| median(figures, (keys, threads, who)));
            println!(
                "| {keys} | {threads} | {ours:.1} ns | {quick:.1} ns | {dash:.1} ns | {:.2} | {:.2} |",
                quick / ours,
                dash / ours
            );
        }
    }
}
