//! The figures of the arena: hits from another process, capacity, hit ratios.
//!
//! `cargo bench -p dstore-arena [-- FILTER...]`: what has one of the words in its name. Each reader is a process of its
//! own, started from this very program, with its socket as standard input. Timings are medians of several runs.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a program that measures ends where it cannot")]

mod ratio;

use dstore_arena::{Arena, Binding, Config, Evicted, Reader, now, pass};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "DSTORE_ARENA_BENCH_ROLE";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return read(&role);
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the machine at the start: {}", load.trim());
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let figures: [(&str, fn()); 9] = [
        ("clock", clock),
        ("hot", hot),
        ("million", million),
        ("large", large),
        ("threshold", threshold),
        ("two_readers", two_readers),
        ("in_process", in_process),
        ("fill", fill),
        ("ratio", ratio::ratios),
    ];
    figures.into_iter().filter(|(name, _)| wanted(name)).for_each(|(_, figure)| figure());
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (i, part) in hash.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&xxhash_rust::xxh3::xxh3_64_with_seed(bytes, i as u64).to_le_bytes());
    }
    hash
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"user:0000000000\0";
    let (mut left, mut at) = (number, 14);
    while left > 0 {
        key[at] = b'0' + (left % 10) as u8;
        (left, at) = (left / 10, at - 1);
    }
    key
}

fn value(number: u64, len: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn set(arena: &mut Arena, number: u64, len: usize, evicted: &mut Vec<Evicted>) {
    let bytes = value(number, len);
    let binding = Binding { hash: hash(&bytes), bind_rev: 1, registration: 1, era: 0, expiry: None };
    arena.insert(&key(number), &binding, &bytes, evicted).unwrap();
}

fn arena(budget: u64, config: Config) -> Arena {
    // The largest value must be one that a worker can pin.
    let pin_bytes_max = config.pin_bytes_max.max(budget / 4);
    let config = Config { budget, segment_bytes: 256 << 20, pin_bytes_max, ..config };
    let arena = Arena::create(config).unwrap();
    arena.set_valid_until(u64::MAX);
    arena
}

fn filled(budget: u64, keys: u64, len: usize, config: Config) -> Arena {
    let mut arena = arena(budget, config);
    let mut evicted = Vec::new();
    (0..keys).for_each(|number| set(&mut arena, number, len, &mut evicted));
    assert!(evicted.is_empty(), "it has room for all");
    arena
}

/// What a reader does, as it is told in words.
fn read(role: &str) {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let reader = Reader::map(pass::receive(&socket).unwrap()).unwrap();
    let words: Vec<&str> = role.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    socket.write_all(b"r").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let nanos = match words[0] {
        "uniform" => gets(&reader, number(1), number(2), |random, keys| random % keys),
        "skewed" => gets(&reader, number(1), number(2), |random, keys| {
            if random % 100 < 94 { (random >> 8) % (keys / 100) } else { (random >> 8) % keys }
        }),
        "in_hand" => gets(&reader, number(1), number(2), |random, keys| random % keys),
        "every_byte" => every_byte(&reader, number(1), number(2)),
        _ => panic!("no such role"),
    };
    socket.write_all(&nanos.map(u64::to_le_bytes).concat()).unwrap();
}

/// Gets of one batch: short enough that most batches are not interrupted.
const BATCH: u64 = 10_000;

/// Picoseconds of a get: the median of many batches, and the best of them.
fn gets(reader: &Reader, keys: u64, count: u64, pick: impl Fn(u64, u64) -> u64) -> [u64; 2] {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    // The keys are made beforehand: their making is not what is timed.
    let order: Vec<[u8; 16]> = (0..count.min(1 << 20))
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            key(pick(random >> 24, keys))
        })
        .collect();
    let mut done = 0;
    let once = || {
        let begun = Instant::now();
        for at in done..done + BATCH {
            let value = reader.get(black_box(&order[at as usize % order.len()])).unwrap();
            black_box(value[0]);
        }
        done += BATCH;
        begun.elapsed().as_nanos() as u64 * 1000 / BATCH
    };
    median_and_best(std::iter::repeat_with(once).take((2 * count / BATCH) as usize).collect())
}

fn median_and_best(mut runs: Vec<u64>) -> [u64; 2] {
    // The first half warms the caches.
    let mut runs = runs.split_off(runs.len() / 2);
    runs.sort_unstable();
    [runs[runs.len() / 2], runs[0]]
}

fn every_byte(reader: &Reader, keys: u64, count: u64) -> [u64; 2] {
    let mut at = 0;
    let once = || {
        let begun = Instant::now();
        at += 1;
        let value = reader.get(&key(at % keys)).unwrap();
        let (words, _) = value.as_chunks::<8>();
        black_box(words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))));
        begun.elapsed().as_nanos() as u64 * 1000
    };
    median_and_best(std::iter::repeat_with(once).take(2 * count as usize).collect())
}

/// Has readers in processes of their own play a role at once; nanoseconds of each.
fn readers(arena: &mut Arena, role: &str, count: usize) -> Vec<[f64; 2]> {
    let started: Vec<_> = (0..count)
        .map(|_| {
            let (mut socket, theirs) = UnixStream::pair().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
            let child = Command::new(std::env::current_exe().unwrap())
                .env(ROLE, role)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()
                .unwrap();
            let (worker, descriptors) = arena.attach().unwrap();
            pass::send(&socket, &descriptors).unwrap();
            socket.read_exact(&mut [0]).unwrap();
            (child, socket, worker)
        })
        .collect();
    let mut started = started;
    started.iter_mut().for_each(|(_, socket, _)| socket.write_all(b"g").unwrap());
    started
        .into_iter()
        .map(|(mut child, mut socket, _worker)| {
            let mut nanos = [[0; 8]; 2];
            nanos.iter_mut().for_each(|one| socket.read_exact(one).unwrap());
            assert!(child.wait().unwrap().success());
            nanos.map(|one| u64::from_le_bytes(one) as f64 / 1000.0)
        })
        .collect()
}

fn show(name: &str, [median, best]: [f64; 2], goal: &str) {
    println!("{name:<44} {median:>12.1} ns, at best {best:>10.1}   {goal}");
}

fn clock() {
    let once = || {
        let begun = Instant::now();
        (0..BATCH).for_each(|_| _ = black_box(now()));
        begun.elapsed().as_nanos() as u64 * 1000 / BATCH
    };
    let runs = median_and_best(std::iter::repeat_with(once).take(200).collect());
    show("clock/boottime", runs.map(|one| one as f64 / 1000.0), "a part of every hit");
}

fn hot() {
    let mut arena = filled(64 << 20, 1000, 100, Config::default());
    let nanos = readers(&mut arena, "uniform 1000 2000000", 1)[0];
    show("get_hit/100B/1000_keys", nanos, "goal 80");
}

fn million() {
    for huge_pages in [false, true] {
        let config = Config { huge_pages, ..Config::default() };
        let begun = Instant::now();
        let mut arena = filled(512 << 20, 1_000_000, 100, config);
        let stats = arena.stats();
        let pages = if huge_pages { "huge" } else { "small" };
        println!(
            "filled a million in {:.2} s; {pages} pages; {}",
            begun.elapsed().as_secs_f64(),
            huge_in_use()
        );
        let nanos = readers(&mut arena, "skewed 1000000 2000000", 1)[0];
        show(&format!("get_hit/100B/1M_keys_94_of_100_on_1/{pages}"), nanos, "goal 200");
        let nanos = readers(&mut arena, "uniform 1000000 2000000", 1)[0];
        show(&format!("get_hit/100B/1M_keys_uniform/{pages}"), nanos, "goal 550");
        let each = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "per value of 100 B with a key of 16 B: shared {:.1} B more than key and value, private {:.1} B; goal 96",
            each(stats.bytes) - 116.0,
            each(stats.private)
        );
    }
}

/// What the whole machine has of shared memory in huge pages.
fn huge_in_use() -> String {
    let all = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let lines =
        all.lines().filter(|line| line.starts_with("ShmemHugePages") || line.starts_with("ShmemPmdMapped"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn large() {
    let pins = Config { pin_bytes_max: 1 << 30, ..Config::default() };
    let mut arena = filled(512 << 20, 16, 1 << 20, pins);
    show("get_hit/1MiB/slice_in_hand", readers(&mut arena, "in_hand 16 500000", 1)[0], "");
    show("get_hit/1MiB/every_byte", readers(&mut arena, "every_byte 16 2000", 1)[0], "");
    let mut arena = filled(1 << 30, 2, 64 << 20, pins);
    show("get_hit/64MiB/slice_in_hand", readers(&mut arena, "in_hand 2 500000", 1)[0], "");
    show("get_hit/64MiB/every_byte", readers(&mut arena, "every_byte 2 20", 1)[0], "");
}

/// Copied or pinned: where one begins to cost more than the other.
fn threshold() {
    for len in [256, 512, 1024, 2048, 4096, 8192] {
        for (how, copy_max) in [("copied", 64 << 10), ("pinned", 128)] {
            let mut arena = filled(128 << 20, 1000, len, Config { copy_max, ..Config::default() });
            let nanos = readers(&mut arena, "uniform 1000 500000", 1)[0];
            show(&format!("threshold/{len}B/{how}"), nanos, "");
        }
    }
}

fn two_readers() {
    let mut arena = filled(64 << 20, 1000, 100, Config::default());
    let one = readers(&mut arena, "uniform 1000 3000000", 1)[0];
    let two = readers(&mut arena, "uniform 1000 3000000", 2);
    let together: f64 = two.iter().map(|nanos| one[0] / nanos[0]).sum();
    println!("two readers do {together:.2} of one's gets   goal 1.9");
}

fn in_process() {
    let mut arena = filled(64 << 20, 1000, 100, Config::default());
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    let cache = quick_cache::sync::Cache::<[u8; 16], std::sync::Arc<[u8]>>::new(2000);
    (0..1000).for_each(|number| cache.insert(key(number), value(number, 100).into()));
    for threads in [1, 2] {
        let ours = timed(threads, |key| _ = black_box(reader.get(key).unwrap()[0]));
        let theirs = timed(threads, |key| {
            black_box(cache.get(key).unwrap()[0]);
            black_box(now());
        });
        show(&format!("in_process/arena/{threads}_threads"), ours, "");
        show(&format!("in_process/quick_cache_and_clock/{threads}_threads"), theirs, "");
        println!("of quick_cache's speed: {:.2}   goal {}", theirs[0] / ours[0], ["0.6", "2.0"][threads - 1]);
    }
}

/// Nanoseconds of one get, with so many threads at once: median and best.
fn timed(threads: usize, get: impl Fn(&[u8; 16]) + Sync) -> [f64; 2] {
    let keys: Vec<[u8; 16]> = (0..1000).map(|n| key(n * 7919 % 1000)).collect();
    let one_thread = || {
        let once = || {
            let begun = Instant::now();
            (0..BATCH).for_each(|at| get(&keys[at as usize % keys.len()]));
            begun.elapsed().as_nanos() as u64 * 1000 / BATCH
        };
        median_and_best(std::iter::repeat_with(once).take(400).collect())
    };
    let runs: Vec<[u64; 2]> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        started.into_iter().map(|one| one.join().unwrap()).collect()
    });
    [0, 1].map(|which| {
        runs.iter().map(|run| run[which]).sum::<u64>() as f64 / 1000.0 / (threads * threads) as f64
    })
}

fn fill() {
    for (len, keys, budget) in
        [(100, 400_000, 256 << 20), (4096, 40_000, 256 << 20), (1 << 20, 200, 256 << 20)]
    {
        let mut arena = arena(budget, Config::default());
        let mut evicted = Vec::new();
        let values: Vec<(Vec<u8>, [u8; 32])> =
            (0..keys.min(1000)).map(|number| (value(number, len), hash(&value(number, len)))).collect();
        let mut insert = |arena: &mut Arena, number: u64| {
            let (bytes, mut hash) = values[number as usize % values.len()].clone();
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let binding = Binding { hash, bind_rev: 1, registration: 1, era: 0, expiry: None };
            let begun = Instant::now();
            arena.insert(&key(number), &binding, &bytes, &mut evicted).unwrap();
            begun.elapsed()
        };
        let mut number = 0;
        let mut first = Duration::ZERO;
        while number < keys {
            first += insert(&mut arena, number);
            number += 1;
        }
        // Until it is full.
        while arena.stats().evicted == 0 {
            insert(&mut arena, number);
            number += 1;
        }
        let mut full = Duration::ZERO;
        for _ in 0..keys {
            full += insert(&mut arena, number);
            number += 1;
        }
        let rate = |time: Duration| keys as f64 / time.as_secs_f64();
        let mib = |time: Duration| rate(time) * len as f64 / f64::from(1 << 20);
        println!(
            "fill/{len}B: {:.0} k/s, {:.0} MiB/s; with eviction {:.0} k/s, {:.0} MiB/s",
            rate(first) / 1e3,
            mib(first),
            rate(full) / 1e3,
            mib(full)
        );
    }
}
