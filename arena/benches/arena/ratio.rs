//! Hit ratios of the arena's eviction beside LRU, `quick_cache` and the optimum, on the same traces.
//!
//! All values are of one size, and every policy has room for as many as the arena turns out to have.

use dstore_arena::{Arena, Binding, Config, Reader};
use std::collections::{BTreeSet, HashMap};

const LEN: usize = 400;

/// What a trace asks for: keys by Zipf's law, and scans of keys that never come again.
fn trace(skew: f64, keys: usize, requests: u64, (period, scan): (u64, u64)) -> Vec<u64> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += 1.0 / (rank as f64).powf(skew);
            sum
        })
        .collect();
    let draw = |n: u64| {
        if n % period >= period - scan {
            return 1 << 40 | n;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = (random >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|one| *one < at) as u64
    };
    (0..requests).map(draw).collect()
}

/// Hits of 100.
fn percent(trace: &[u64], mut get: impl FnMut(u64) -> bool) -> f64 {
    trace.iter().filter(|key| get(**key)).count() as f64 * 100.0 / trace.len() as f64
}

fn ours(trace: &[u64], budget: u64) -> (f64, usize) {
    let mut arena = Arena::create(Config { budget, ..Config::default() }).unwrap();
    arena.set_valid_until(u64::MAX);
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    let mut evicted = Vec::new();
    let bytes = vec![7; LEN];
    let mut most = 0;
    let hits = percent(trace, |key| {
        if reader.get(&key.to_le_bytes()).is_ok() {
            return true;
        }
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        let binding = Binding { hash, bind_rev: 1, registration: 1, era: 0, expiry: None };
        arena.insert(&key.to_le_bytes(), &binding, &bytes, &mut evicted).unwrap();
        evicted.clear();
        most = arena.stats().rows as usize;
        false
    });
    (hits, most)
}

fn lru(trace: &[u64], room: usize) -> f64 {
    let (mut at, mut order): (HashMap<u64, usize>, BTreeSet<(usize, u64)>) =
        (HashMap::new(), BTreeSet::new());
    let mut time = 0;
    percent(trace, |key| {
        time += 1;
        let before = at.insert(key, time);
        order.insert((time, key));
        if let Some(before) = before {
            order.remove(&(before, key));
            return true;
        }
        if order.len() > room {
            let (_, oldest) = order.pop_first().unwrap();
            at.remove(&oldest);
        }
        false
    })
}

/// Belady: what is asked for again the latest leaves.
fn optimum(trace: &[u64], room: usize) -> f64 {
    let mut next = vec![usize::MAX; trace.len()];
    let mut last: HashMap<u64, usize> = HashMap::new();
    for (at, key) in trace.iter().enumerate().rev() {
        if let Some(later) = last.insert(*key, at) {
            next[at] = later;
        }
    }
    let (mut held, mut order): (HashMap<u64, usize>, BTreeSet<(usize, u64)>) =
        (HashMap::new(), BTreeSet::new());
    let mut at = 0;
    percent(trace, |key| {
        let again = next[at];
        at += 1;
        let before = held.insert(key, again);
        if let Some(before) = before {
            order.remove(&(before, key));
        }
        order.insert((again, key));
        if order.len() > room {
            let (_, latest) = order.pop_last().unwrap();
            held.remove(&latest);
        }
        before.is_some()
    })
}

fn quick(trace: &[u64], room: usize) -> f64 {
    let cache = quick_cache::unsync::Cache::<u64, ()>::new(room);
    let mut cache = cache;
    percent(trace, |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

pub fn ratios() {
    println!(
        "{:<34} {:>7} {:>7} {:>7} {:>12} {:>7}",
        "hits of 100", "room", "arena", "LRU", "quick_cache", "best"
    );
    for (name, skew, scan) in [
        ("zipf 0.8", 0.8, (1, 0)),
        ("zipf 1.0", 1.0, (1, 0)),
        ("zipf 1.2", 1.2, (1, 0)),
        ("zipf 1.0, half of it scans", 1.0, (20_000, 10_000)),
        ("zipf 1.0, a fifth of it scans", 1.0, (50_000, 10_000)),
        ("zipf 0.8, half of it scans", 0.8, (20_000, 10_000)),
    ] {
        let trace = trace(skew, 100_000, 600_000, scan);
        let (ours, room) = ours(&trace, 4 << 20);
        println!(
            "{name:<34} {room:>7} {ours:>7.2} {:>7.2} {:>12.2} {:>7.2}",
            lru(&trace, room),
            quick(&trace, room),
            optimum(&trace, room)
        );
    }
}
