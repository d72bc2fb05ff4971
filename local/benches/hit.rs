//! What a hit costs: `get_hit/<keys>/<threads>`, 100-byte values, against `quick_cache` and a bare `DashMap`.
//!
//! Ours does what a node does on a hit: loads `valid_until` and the era, looks the name up, reads
//! `CLOCK_BOOTTIME`. The peers look the same names up in the same order and clone the same value. Each
//! figure of criterion's stands alone; the table at the end compares medians of turns in which all ran.
//! Run with `cargo bench -p dstore-local --bench hit`.

use criterion::{BenchmarkId, Criterion, Throughput};
use dashmap::DashMap;
use dstore_local::cache::{Admission, Cache, CacheConfig};
use dstore_shared::{Blob, Entry, Moment, Name, RegSeq, Revision};
use dstore_sys::clock::{BootClock, Clock};
use dstore_sys::rng::{Rng, SeededRng};
use quick_cache::sync::Cache as QuickCache;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const VALUE_BYTES: usize = 100;
/// Lookups between two looks at the stopwatch.
const ROUND: usize = 1 << 14;

/// Turns that each contender has in the table; odd.
const TURNS: usize = 31;

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

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|n| Name::of(format!("user:{n:08}")).expect("a short key")).collect()
}

/// The names as callers ask for them: in an order that no processor guesses and no table was filled in, each
/// a copy of its own, since it has just come in by a request.
fn questions(names: &[Name]) -> Vec<Name> {
    let mut order: Vec<&Name> = names.iter().collect();
    let rng = SeededRng::new(7);
    for at in (1..order.len()).rev() {
        order.swap(at, (rng.next_u64() % (at as u64 + 1)) as usize);
    }
    order.into_iter().map(Name::compact).collect()
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
        let entry = Entry {
            hash: blob.id(),
            size: blob.size(),
            bind_rev: Revision(1),
            expires_at: None,
            content_type: None,
        };
        let admission = cache.install(name, entry, &blob, RegSeq(1), 1);
        assert!(matches!(admission, Admission::Installed { evicted } if evicted.is_empty()));
    }
    Node { cache, valid_until: AtomicU64::new(u64::MAX), era: AtomicU64::new(1), clock: Arc::new(BootClock) }
}

/// Time that `threads` need for `rounds` rounds each: the slowest one's.
fn time(threads: usize, rounds: u64, names: &[Name], get: Get<'_>) -> Duration {
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

/// A way to look a packed name up; false = it was not found.
type Get<'a> = &'a (dyn Fn(&[u8]) -> bool + Sync);

fn measure(c: &mut Criterion, threads: usize, names: &[Name], contenders: &[(&str, Get<'_>)]) {
    let mut group = c.benchmark_group(format!("get_hit/{}_keys/{threads}_threads", names.len()));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements((ROUND * threads) as u64));
    for (who, get) in contenders {
        group.bench_function(BenchmarkId::from_parameter(who), |b| {
            b.iter_custom(|rounds| time(threads, rounds, names, *get));
        });
    }
    group.finish();
}

/// A line of the table: medians of nanoseconds a lookup, over `TURNS` in which each contender ran once.
fn compare(threads: usize, names: &[Name], contenders: &[(&str, Get<'_>); 3]) -> String {
    let rounds = if names.len() > 10_000 { 8 } else { 64 };
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..TURNS {
        for (figures, (_, get)) in figures.iter_mut().zip(contenders) {
            let took = time(threads, rounds, names, *get);
            figures.push(took.as_nanos() as f64 / (rounds as f64 * ROUND as f64));
        }
    }
    let [ours, quick, dash] = figures.map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures[TURNS / 2]
    });
    let (keys, to_quick, to_dash) = (names.len(), quick / ours, dash / ours);
    format!(
        "| {keys} | {threads} | {ours:.0} ns | {quick:.0} ns | {dash:.0} ns | {to_quick:.2} | {to_dash:.2} |"
    )
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().without_plots();
    let mut table = Vec::new();
    for count in [1_000, 1_000_000] {
        let names = names(count);
        let node = node(&names);
        let quick = QuickCache::new(count * 2);
        let dash = DashMap::with_hasher(foldhash::fast::RandomState::default());
        for (n, name) in names.iter().enumerate() {
            quick.insert(name.compact(), blob(n));
            dash.insert(name.compact(), blob(n));
        }
        let names = questions(&names);
        let contenders: [(&str, Get<'_>); 3] = [
            ("dstore", &|packed| node.get(packed).map(black_box).is_some()),
            ("quick_cache", &|packed| quick.get(packed).map(black_box).is_some()),
            ("dashmap", &|packed| dash.get(packed).map(|found| black_box(found.value().clone())).is_some()),
        ];
        for threads in [1, 2] {
            measure(&mut criterion, threads, &names, &contenders);
            table.push(compare(threads, &names, &contenders));
        }
    }
    criterion.final_summary();
    println!("| keys | threads | dstore | quick_cache | DashMap | of quick_cache's speed | of DashMap's |");
    println!("|---|---|---|---|---|---|---|");
    println!("{}", table.join("\n"));
}
