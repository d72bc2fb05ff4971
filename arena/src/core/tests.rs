//! The arena on the heap: one process, no clock, and Miri may look.

use super::*;
use crate::error::Miss;
use crate::index::word_of;
use crate::layout::{PAGE_BYTES, bucket, worker};
use crate::memory::{Extent, Heap};
use crate::view::{Candidate, Pin, View};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) type Daemon = Core<Heap, Heap>;
pub(super) type Worker = View<Heap, Heap>;

const PAGES: u64 = if cfg!(miri) { 128 } else { 512 };

pub(super) fn daemon_of(pages: u64, copy_max: u64) -> Daemon {
    daemon_in(Heap::new(pages as usize * PAGE_WORDS), pages, copy_max)
}

pub(super) fn daemon_in(data: Heap, pages: u64, copy_max: u64) -> Daemon {
    let data_bytes = pages * PAGE_BYTES as u64;
    let terms = Terms {
        incarnation: [1, 2],
        seed: 42,
        data_bytes,
        segment_bytes: data_bytes,
        copy_max,
        directory_words: Terms::directory_words(data_bytes),
        pin_bytes_max: data_bytes,
    };
    let header = Heap::new(header::DIRECTORY + terms.directory_words as usize);
    let daemon = Core::begin(header, data, terms).unwrap();
    daemon.set_valid_until(u64::MAX);
    daemon
}

pub(super) fn daemon() -> Daemon {
    daemon_of(PAGES, 1024)
}

pub(super) fn attach(daemon: &mut Daemon) -> (Arc<Page<Heap>>, Worker) {
    let page = Arc::new(Page { id: 7, memory: Heap::new(worker::WORDS) });
    daemon.attach(&page, false);
    let view = View::new(daemon.header.clone(), daemon.data.clone(), page.memory.clone(), daemon.terms);
    (page, view)
}

pub(super) fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    for (i, part) in hash.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&xxhash_rust::xxh3::xxh3_64_with_seed(bytes, i as u64).to_le_bytes());
    }
    hash
}

pub(super) fn binding(bytes: &[u8], rev: u64) -> Binding {
    Binding { hash: hash(bytes), bind_rev: rev, registration: rev + 1000, era: 1, expiry: None }
}

/// Bytes of a length that any two keys have different ones of.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    seed.to_le_bytes().into_iter().cycle().zip(0..len).map(|(byte, i)| byte ^ (i / 8) as u8).collect()
}

pub(super) fn set(daemon: &mut Daemon, key: &[u8], value: &[u8], rev: u64) -> Result<Vec<Evicted>, Refusal> {
    let mut evicted = Vec::new();
    daemon.insert(key, (&binding(value, rev), &[]), value, &mut evicted).map(|()| evicted)
}

pub(super) fn read(view: &Worker, key: &[u8]) -> Result<Vec<u8>, Miss> {
    read_at(view, key, 0)
}

fn read_at(view: &Worker, key: &[u8], now: u64) -> Result<Vec<u8>, Miss> {
    let mut bytes = Vec::new();
    let copy = |candidate: &Candidate| {
        bytes.resize(candidate.meta.size as usize, 0);
        view.data.read(candidate.at, &mut bytes);
        if candidate.chain.holds(&view.data) {
            assert_eq!(hash(&bytes), candidate.meta.hash);
        }
        Ok(())
    };
    view.serve(key, copy, || now).map(|()| bytes)
}

/// Pins the value of `key`: the pin, and where the value is.
pub(super) fn pin(view: &Worker, key: &[u8]) -> Result<(Pin, usize), Miss> {
    let mut pinned = None;
    let take = |candidate: &Candidate| {
        pinned = Some((view.pin(candidate)?, candidate.at));
        Ok(())
    };
    view.serve(key, take, || 0)?;
    Ok(pinned.unwrap())
}

pub(super) fn check(daemon: &Daemon) {
    daemon.space.check();
    let seen = daemon.seen();
    let queued = daemon.queues.check(&seen);
    let limbo: u64 = daemon.limbo.iter().map(|unit| seen.charge(*unit)).sum();
    let stats = daemon.stats();
    assert!(stats.bytes <= stats.bytes_max && stats.resident <= stats.bytes_max, "{stats:?}");
    assert!(queued + limbo <= daemon.space.bytes());
    let aliases: Vec<u32> = daemon.aliases.values().flatten().copied().collect();
    assert_eq!(aliases.len(), daemon.aliases_held);
    assert!(daemon.aliases.values().all(|all| !all.is_empty() && all.len() <= row::ALIASES_MAX));
    // Every row and alias is where rows begin, and in a queue or in limbo; every row can be found.
    let rows: HashSet<u32> = daemon.space.rows_in(1, daemon.terms.pages()).collect();
    assert_eq!(rows.len(), daemon.rows_held + daemon.aliases_held + daemon.limbo.len());
    if !daemon.queues.is_idle() {
        assert_eq!(daemon.rows_held + daemon.aliases_held, daemon.queues.len());
    }
    for unit in rows.iter().filter(|unit| !daemon.limbo.contains(unit)) {
        let first = daemon.row_with(&daemon.hash_of(daemon.target(*unit))).unwrap();
        assert!(rows.contains(&first));
        let mut ring = daemon.twins.ring(first);
        assert!(ring.any(|one| one == daemon.target(*unit)), "a row that nobody finds");
    }
    assert_eq!(daemon.by_hash.len(), daemon.by_hash.iter().filter(|unit| rows.contains(unit)).count());
    assert!(!rows.contains(&0) && daemon.limbo.iter().all(|unit| !daemon.twins.has(*unit)));
}

#[test]
fn what_was_inserted_is_read_until_it_is_removed() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    for len in [0, 1, 7, 8, 9, 100, 1024, 1025, 4095, 4096, 4097, 8192, 70_000] {
        let (key, value) = (format!("key-{len}"), bytes(len as u64, len));
        assert_eq!(read(&view, key.as_bytes()), Err(Miss::Absent));
        set(&mut daemon, key.as_bytes(), &value, 3).unwrap();
        assert_eq!(read(&view, key.as_bytes()).unwrap(), value, "{len} bytes");
        let held = daemon.get(key.as_bytes()).unwrap();
        assert_eq!((held.binding, held.size), (binding(&value, 3), len as u64));
        assert_eq!(daemon.remove_if(key.as_bytes(), |_| true), Some(held));
        assert_eq!(read(&view, key.as_bytes()), Err(Miss::Absent));
        assert_eq!(daemon.have(&hash(&value)), Some(len as u64), "the bytes stay");
        check(&daemon);
    }
}

#[test]
fn keys_of_every_length_are_told_apart() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    for len in [1, 2, 7, 8, 9, 15, 16, 17, 1024, 2047] {
        set(&mut daemon, &vec![b'k'; len], &bytes(len as u64, 20), 1).unwrap();
    }
    for len in [1, 2, 7, 8, 9, 15, 16, 17, 1024, 2047] {
        assert_eq!(read(&view, &vec![b'k'; len]).unwrap(), bytes(len as u64, 20));
    }
    assert_eq!(read(&view, b"kkk"), Err(Miss::Absent));
    assert_eq!(set(&mut daemon, b"", b"x", 1), Err(Refusal::Key));
    assert_eq!(set(&mut daemon, &[0; 2048], b"x", 1), Err(Refusal::Key));
}

#[test]
fn nothing_is_served_without_a_lease_in_another_era_or_after_its_time() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let expiry = Some(Expiry { until: 50, expires_at: 7 });
    let mut evicted = Vec::new();
    daemon.insert(b"mortal", (&Binding { expiry, ..binding(b"m", 1) }, &[]), b"m", &mut evicted).unwrap();
    set(&mut daemon, b"a", b"value", 1).unwrap();
    daemon.set_valid_until(100);
    assert_eq!(read_at(&view, b"a", 99).unwrap(), b"value");
    assert_eq!(read_at(&view, b"a", 100), Err(Miss::Lapsed));
    assert_eq!(read_at(&view, b"mortal", 49).unwrap(), b"m");
    assert_eq!(read_at(&view, b"mortal", 50), Err(Miss::Absent));
    assert_eq!(daemon.get(b"mortal").unwrap().binding.expiry, expiry);
    daemon.set_era(2);
    assert_eq!(read_at(&view, b"a", 0), Err(Miss::Absent));
    assert!(!daemon.renew(b"a", 2, 5, 2), "another binding is not renewed");
    assert!(daemon.renew(b"a", 1, 5, 2));
    assert_eq!(read_at(&view, b"a", 0).unwrap(), b"value");
    let held = daemon.get(b"a").unwrap().binding;
    assert_eq!((held.era, held.registration), (2, 1001), "the later registration counts");
    daemon.set_valid_until(0);
    assert_eq!(read_at(&view, b"a", 0), Err(Miss::Lapsed));
}

#[test]
fn the_clock_is_read_behind_the_lookup_and_valid_until_before_it() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    set(&mut daemon, b"a", b"value", 1).unwrap();
    daemon.set_valid_until(100);
    // The clock passes the lease's end while the value is being read.
    let clock = std::cell::Cell::new(99);
    let late = |_: &Candidate| {
        clock.set(101);
        Ok(())
    };
    let served = view.serve(b"a", late, || clock.get());
    assert_eq!(served, Err(Miss::Lapsed));
    // The lease is renewed meanwhile, in a new epoch perhaps: the old one's end counts.
    clock.set(99);
    let raised = |_: &Candidate| {
        clock.set(101);
        daemon.set_valid_until(1000);
        Ok(())
    };
    assert_eq!(view.serve(b"a", raised, || clock.get()), Err(Miss::Lapsed));
}

#[test]
fn names_share_bytes_and_lose_them_together() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let value = bytes(1, 600);
    for i in 0..100_u32 {
        set(&mut daemon, &i.to_le_bytes(), &value, u64::from(i)).unwrap();
    }
    assert_eq!((daemon.stats().rows, daemon.stats().names), (1, 100));
    assert!((0..100_u32).all(|i| read(&view, &i.to_le_bytes()).unwrap() == value));
    daemon.remove_if(&0_u32.to_le_bytes(), |_| true).unwrap();
    daemon.remove_if(&50_u32.to_le_bytes(), |_| true).unwrap();
    assert_eq!(read(&view, &1_u32.to_le_bytes()).unwrap(), value, "the first name's row serves the others");
    set(&mut daemon, &0_u32.to_le_bytes(), &value, 200).unwrap();
    assert_eq!(daemon.get(&0_u32.to_le_bytes()).unwrap().binding.bind_rev, 200);
    let mut evicted = Vec::new();
    assert!(daemon.evict_next(&mut evicted));
    assert_eq!(evicted.len(), 99);
    assert!((0..100_u32).all(|i| read(&view, &i.to_le_bytes()) == Err(Miss::Absent)));
    assert_eq!((daemon.stats().rows, daemon.stats().names), (0, 0));
    assert!(!daemon.evict_next(&mut evicted));
    check(&daemon);
}

#[test]
fn a_name_is_bound_anew_in_one_step_and_its_old_bytes_stay() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    for rev in 0..20 {
        set(&mut daemon, b"k", &bytes(rev % 3, 300), rev).unwrap();
        assert_eq!(read(&view, b"k").unwrap(), bytes(rev % 3, 300));
    }
    assert_eq!((daemon.stats().names, daemon.stats().rows), (1, 3));
    check(&daemon);
}

#[test]
fn a_mismatch_an_oversize_value_and_a_full_arena_are_refused() {
    let mut daemon = daemon();
    set(&mut daemon, b"a", b"value", 1).unwrap();
    let mut evicted = Vec::new();
    assert_eq!(
        daemon.insert(b"b", (&binding(b"value", 1), &[]), b"longer", &mut evicted),
        Err(Refusal::Mismatch)
    );
    let large = vec![0; (PAGES as usize * PAGE_BYTES) / 4];
    assert_eq!(set(&mut daemon, b"c", &large, 1), Err(Refusal::Oversize));
    assert!(daemon.get(b"b").is_none() && daemon.get(b"c").is_none());
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn the_index_grows_and_every_name_is_found_and_listed() {
    const NAMES: u32 = 12_000;
    let mut daemon = daemon_of(1000, 1024);
    let (_page, view) = attach(&mut daemon);
    for i in 0..NAMES {
        assert_eq!(set(&mut daemon, &i.to_be_bytes(), &i.to_le_bytes(), 1).unwrap(), []);
    }
    assert!(daemon.index.buckets() > 1024, "it has grown");
    for i in 0..NAMES {
        assert_eq!(read(&view, &i.to_be_bytes()).unwrap(), i.to_le_bytes());
    }
    let (mut from, mut listed) = (Some(0), Vec::new());
    while let Some(at) = from {
        let (names, next) = daemon.names(at, 100);
        listed.extend(names.into_iter().map(|(key, _)| key));
        from = next;
    }
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), NAMES as usize);
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn keys_with_one_hash_fill_their_chain_and_are_refused_then() {
    let mut daemon = daemon();
    let tag = |key: &[u8]| layout::hash(key, 42) as u32 & 1023;
    let keys = (0_u64..).map(u64::to_be_bytes).filter(|key| tag(key) == 7);
    let mut refused = 0;
    for key in keys.take(70) {
        match set(&mut daemon, &key, &key, 1) {
            Ok(_) => assert!(daemon.get(&key).is_some()),
            Err(why) => {
                assert_eq!(why, Refusal::Crowded);
                assert!(daemon.get(&key).is_none());
                refused += 1;
            }
        }
    }
    assert_eq!(daemon.stats().names, (bucket::CHAIN_MAX * bucket::SLOTS) as u64);
    assert!(refused > 0);
    check(&daemon);
}

#[test]
fn a_pinned_row_keeps_its_place_until_it_is_let_go() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let value = bytes(1, 9000);
    set(&mut daemon, b"large", &value, 1).unwrap();
    let (held, at) = pin(&view, b"large").unwrap();
    let mut evicted = Vec::new();
    assert!(!daemon.evict_next(&mut evicted), "it is not evicted while it is read");
    assert!(daemon.expel_hash(&hash(&value), &mut evicted), "but it is not found any more if it must go");
    assert_eq!((evicted.len(), read(&view, b"large")), (1, Err(Miss::Absent)));
    assert_eq!(daemon.stats().limbo, 1);
    for i in 0..500_u64 {
        set(&mut daemon, &i.to_le_bytes(), &bytes(i + 2, 9000), 1).unwrap();
    }
    let mut back = vec![0; 9000];
    daemon.data.read(at, &mut back);
    assert_eq!(back, value, "what is pinned is not written over");
    check(&daemon);
    daemon.sweep();
    assert_eq!(daemon.stats().limbo, 1);
    view.unpin(held);
    let used = daemon.stats().bytes;
    daemon.sweep();
    assert_eq!((daemon.stats().limbo, daemon.stats().bytes), (0, used - 12288));
}

#[test]
fn a_worker_that_is_gone_pins_nothing() {
    let mut daemon = daemon();
    let (page, view) = attach(&mut daemon);
    let value = bytes(1, 9000);
    set(&mut daemon, b"large", &value, 1).unwrap();
    pin(&view, b"large").unwrap();
    daemon.expel_hash(&hash(&value), &mut Vec::new());
    assert_eq!((daemon.stats().limbo, daemon.stats().workers), (1, 1));
    drop(page);
    daemon.sweep();
    assert_eq!((daemon.stats().limbo, daemon.stats().workers), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn all_values_pinned_means_full_and_nothing_worse() {
    let mut daemon = daemon();
    let (page, view) = attach(&mut daemon);
    let mut pins = Vec::new();
    for i in 0.. {
        let (key, value) = (u64::to_le_bytes(i), bytes(i, 20_000));
        match set(&mut daemon, &key, &value, 1) {
            Ok(evicted) => assert_eq!(evicted, []),
            Err(why) => {
                assert_eq!(why, Refusal::Full);
                break;
            }
        }
        pins.push(pin(&view, &key).unwrap());
    }
    check(&daemon);
    pins.into_iter().for_each(|(pin, _)| view.unpin(pin));
    drop(page);
    set(&mut daemon, b"new", &bytes(9999, 20_000), 1).unwrap();
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn whatever_a_worker_writes_into_its_page_hurts_nobody_else() {
    let mut daemon = daemon();
    let (page, _) = attach(&mut daemon);
    let (_other_page, other) = attach(&mut daemon);
    let mut random = 1_u64;
    let mut held: HashMap<u32, Vec<u8>> = HashMap::new();
    for round in 0..40_u32 {
        for word in 0..worker::WORDS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Numbers of real places too, of rows, buckets and chunks.
            let small = random % (PAGES * 256);
            page.memory.store(word, if word % 2 == 0 { small } else { random }, Relaxed);
        }
        let value = bytes(u64::from(round), if round % 4 == 0 { 5000 } else { 200 });
        if let Ok(evicted) = set(&mut daemon, &round.to_le_bytes(), &value, 1) {
            held.insert(round, value);
            for gone in evicted {
                held.remove(&u32::from_le_bytes((&*gone.key).try_into().unwrap()));
            }
        }
        daemon.sweep();
        check(&daemon);
    }
    assert!(!held.is_empty());
    for (key, value) in held {
        assert_eq!(read(&other, &key.to_le_bytes()).unwrap(), value);
    }
}

#[test]
fn a_hoarder_is_told_of_and_its_pins_end_but_no_one_is_accused_who_changed_them() {
    let mut daemon = daemon();
    daemon.terms.pin_bytes_max = 30_000;
    let (page, view) = attach(&mut daemon);
    for i in 0..4_u8 {
        set(&mut daemon, &[i], &bytes(u64::from(i), 12_000), 1).unwrap();
    }
    let pin = |i: u8| pin(&view, &[i]).map(|(pin, _)| pin);
    let (first, second) = (pin(0).unwrap(), pin(1).unwrap());
    assert_eq!(pin(2).map(|_| ()), Err(Miss::PinBudget { held: 24_000, max: 30_000 }));
    daemon.sweep();
    view.unpin(first);
    view.unpin(second);
    pin(2).unwrap();
    pin(3).unwrap();
    assert_eq!(daemon.sweep(), [], "four values at two sweeps, never more than two at once");
    assert_eq!(daemon.sweep(), []);
    // One that does without the library.
    for unit in 0..PAGES as u32 * 256 {
        if daemon.space.kind(unit) == crate::space::Kind::Row {
            page.memory.store(worker::PINS + 100 + unit as usize % 50, u64::from(unit), Relaxed);
        }
    }
    // It bumps the upper halves of its pins all the while.
    assert_eq!(daemon.sweep(), []);
    for slot in worker::PINS..worker::PINS + worker::PINS_LEN {
        let word = page.memory.load(slot, Relaxed);
        page.memory.store(slot, if word as u32 == 0 { 0 } else { word + (1 << 32) }, Relaxed);
    }
    let hoarders = daemon.sweep();
    assert!(hoarders.len() == 1 && hoarders[0].worker == 7 && hoarders[0].bytes > 30_000, "{hoarders:?}");
    assert_eq!(daemon.sweep(), [], "told once");
    // What it held when it was told stays as it is until it is gone; more it cannot hold.
    let mut evicted = Vec::new();
    while daemon.evict_next(&mut evicted) {}
    assert_eq!(evicted, []);
    assert_eq!(pin(0).map(|_| ()), Err(Miss::PinBudget { held: 24_000, max: 0 }));
    set(&mut daemon, b"new", &bytes(9, 12_000), 1).unwrap();
    let unit = daemon.index.find(&daemon.header, &daemon.data, daemon.hash(b"new"), b"new").unwrap().unit;
    page.memory.store(worker::PINS + 200, u64::from(unit), Relaxed);
    assert!(daemon.evict_next(&mut evicted) && !daemon.evict_next(&mut evicted));
    assert!(daemon.expel_hash(&hash(&bytes(2, 12_000)), &mut evicted));
    daemon.sweep();
    assert_eq!((evicted.len(), daemon.stats().limbo), (2, 1));
    drop(page);
    daemon.sweep();
    while daemon.evict_next(&mut evicted) {}
    assert_eq!((evicted.len(), daemon.stats().limbo), (5, 0));
}

#[test]
fn twice_as_much_as_a_worker_may_hold_is_too_much_at_one_look() {
    let mut daemon = daemon();
    daemon.terms.pin_bytes_max = 10_000;
    let (page, _view) = attach(&mut daemon);
    for i in 0..2_u8 {
        set(&mut daemon, &[i], &bytes(u64::from(i), 12_000), 1).unwrap();
        let unit = daemon.index.find(&daemon.header, &daemon.data, daemon.hash(&[i]), &[i]).unwrap().unit;
        page.memory.store(worker::PINS + usize::from(i), u64::from(unit), Relaxed);
    }
    assert_eq!(daemon.sweep(), [Hoarder { worker: 7, bytes: 24_000 }]);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn who_holds_the_most_is_told_of_when_all_together_hold_half_and_nothing_else_finds_room() {
    let mut daemon = daemon();
    let (_small_page, small) = attach(&mut daemon);
    let large_page = Arc::new(Page { id: 8, memory: Heap::new(worker::WORDS) });
    daemon.attach(&large_page, false);
    let memory = large_page.memory.clone();
    let large = View::new(daemon.header.clone(), daemon.data.clone(), memory, daemon.terms);
    let mut last = 0;
    for i in 0_u64.. {
        if set(&mut daemon, &i.to_le_bytes(), &bytes(i, 20_000), 1).is_err() {
            last = i;
            break;
        }
        let view = if i % 4 == 0 { &small } else { &large };
        pin(view, &i.to_le_bytes()).unwrap();
    }
    let hoarders = daemon.sweep();
    assert_eq!(hoarders.iter().map(|one| one.worker).collect::<Vec<_>>(), [8]);
    assert!(pin(&small, &0_u64.to_le_bytes()).is_ok(), "the other may go on");
    assert!(matches!(pin(&large, &0_u64.to_le_bytes()), Err(Miss::PinBudget { max: 0, .. })));
    drop(large_page);
    set(&mut daemon, &last.to_le_bytes(), &bytes(last, 20_000), 1).unwrap();
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn a_value_that_is_read_again_outlives_those_that_are_not() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    set(&mut daemon, b"hot", &bytes(0, 500), 1).unwrap();
    for i in 0..4_000_u32 {
        assert!(read(&view, b"hot").is_ok(), "gone after {i}");
        set(&mut daemon, &i.to_le_bytes(), &bytes(u64::from(i) + 1, 500), 1).unwrap();
    }
    assert!(daemon.stats().evicted > 500);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn a_change_of_sizes_finds_room_among_what_was_there() {
    let mut daemon = daemon();
    for (round, len) in [100, 3000, 200_000, 40, 60_000, 1000].into_iter().enumerate() {
        let mut bytes_in = 0;
        for i in 0_u64.. {
            let key = [round as u64, i].map(u64::to_le_bytes).concat();
            set(&mut daemon, &key, &bytes((round as u64) << 32 | i, len), 1).unwrap();
            assert!(daemon.get(&key).is_some());
            bytes_in += len;
            if bytes_in > 3 << 20 || i > 4_000 {
                break;
            }
        }
        check(&daemon);
    }
}

/// Any changes whatever, beside a plain table that says what must be there.
#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn any_sequence_of_changes_leaves_what_it_says() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let mut held: HashMap<Vec<u8>, (u64, Vec<u8>)> = HashMap::new();
    let mut random = 0x1234_5678_9ABC_DEF1_u64;
    let mut draw = move |of: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % of
    };
    for rev in 0..3_000 {
        let key = format!("key-{}", draw(800)).into_bytes();
        match draw(10) {
            0..7 => {
                let len = [3, 100, 700, 2000, 5000, 30_000][draw(6) as usize];
                let value = bytes(draw(300), len);
                let evicted = match set(&mut daemon, &key, &value, rev) {
                    Ok(evicted) => evicted,
                    Err(why) => panic!("{why:?} at {rev}"),
                };
                evicted.iter().for_each(|gone| _ = held.remove(&*gone.key));
                held.insert(key.clone(), (rev, value));
            }
            7 => assert_eq!(daemon.remove_if(&key, |_| true).is_some(), held.remove(&key).is_some()),
            8 => {
                let rev = held.get(&key).map_or(rev, |(rev, _)| *rev);
                assert_eq!(daemon.renew(&key, rev, 1, 1), held.contains_key(&key));
            }
            _ => {
                let mut evicted = Vec::new();
                daemon.evict_next(&mut evicted);
                evicted.iter().for_each(|gone| _ = held.remove(&*gone.key));
            }
        }
        assert_eq!(read(&view, &key).ok(), held.get(&key).map(|(_, value)| value.clone()));
        if rev % 500 == 0 {
            check(&daemon);
            assert_eq!(daemon.stats().names, held.len() as u64);
        }
    }
    for (key, (rev, value)) in &held {
        assert_eq!(&read(&view, key).unwrap(), value);
        assert_eq!(daemon.get(key).unwrap().binding.bind_rev, *rev);
    }
}

#[test]
fn another_layout_and_another_beginning_are_refused_clearly() {
    let daemon = daemon();
    daemon.header.store(header::LAYOUT, 3, Relaxed);
    let why = Terms::read(&daemon.header).unwrap_err().to_string();
    assert!(why.contains("layout version 3, this reader knows 2"), "{why}");
    daemon.header.store(header::MAGIC, 0, Relaxed);
    assert!(matches!(Terms::read(&daemon.header), Err(Error::Foreign(_))));
}

#[test]
fn a_daemon_that_stops_in_the_middle_of_a_change_makes_readers_give_up() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    set(&mut daemon, b"a", b"value", 1).unwrap();
    let place = daemon.index.find(&daemon.header, &daemon.data, daemon.hash(b"a"), b"a").unwrap();
    index::Writer::change(&daemon.data, place, || assert_eq!(read(&view, b"a"), Err(Miss::Busy)));
    assert_eq!(read(&view, b"a").unwrap(), b"value");
    assert!(word_of(place.unit) > 0);
}

/// Reads a pinned value in place, as a plain slice: Miri says if anybody writes there meanwhile.
fn read_in_place(view: &Worker, key: u8) -> Option<bool> {
    let mut taken: Option<(Pin, usize, crate::Meta)> = None;
    let take = |candidate: &Candidate| {
        if let Some((earlier, ..)) = taken.take() {
            view.unpin(earlier);
        }
        taken = Some((view.pin(candidate)?, candidate.at, candidate.meta));
        Ok(())
    };
    let served = view.serve(&[key], take, || 0);
    let (pin, at, meta) = taken?;
    let right = served.is_ok().then(|| {
        // SAFETY: it is pinned, and was found linked behind that.
        #[allow(unsafe_code)]
        let bytes = unsafe { view.data.slice(at, meta.size as usize) }.unwrap();
        hash(bytes) == meta.hash && bytes[0] == key
    });
    view.unpin(pin);
    right
}

#[test]
fn readers_in_threads_see_only_whole_values_while_everything_changes() {
    const KEYS: u8 = 12;
    let (rounds, lens) = if cfg!(miri) { (4, [100, 200, 300]) } else { (300, [200, 9_000, 17_000]) };
    let mut daemon = daemon_of(64, 64);
    let workers: Vec<_> = (0..2).map(|_| attach(&mut daemon)).collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (_, view) in &workers {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    for key in 0..KEYS {
                        if let Ok(value) = read(view, &[key]) {
                            assert_eq!(value[0], key);
                        }
                        if let Some(right) = read_in_place(view, key) {
                            assert!(right, "what is pinned was written over");
                            seen.fetch_add(1, Relaxed);
                        }
                    }
                }
            });
        }
        for round in 0..rounds {
            for key in 0..KEYS {
                let mut value = bytes(u64::from(key) | round << 8, lens[(round as usize + key as usize) % 3]);
                value[0] = key;
                assert!(matches!(set(&mut daemon, &[key], &value, round), Ok(_) | Err(Refusal::Full)));
            }
            daemon.remove_if(&[round as u8 % KEYS], |_| true);
            // Places are used again at once.
            (0..KEYS / 2).for_each(|_| _ = daemon.evict_next(&mut Vec::new()));
            daemon.sweep();
        }
        while seen.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        done.store(true, Relaxed);
    });
    daemon.sweep();
    assert_eq!(daemon.stats().limbo, 0);
    check(&daemon);
}

/// Memory of which its beginning and its end are mapped at first, and all of it from some look at its words on.
struct Partly {
    all: Heap,
    first: usize,
    last: usize,
    looks_left: std::cell::Cell<usize>,
}

impl Memory for Partly {
    fn extent(&self) -> Extent {
        let left = self.looks_left.get();
        self.looks_left.set(left.saturating_sub(1));
        let all = self.all.extent();
        if left > 0 { Extent { low: self.first, high: self.last, end: all.end } } else { all }
    }

    fn load(&self, at: usize, order: std::sync::atomic::Ordering) -> u64 {
        if self.extent().has(at) { self.all.load(at, order) } else { 0 }
    }

    fn store(&self, _: usize, _: u64, _: std::sync::atomic::Ordering) {}

    fn claim(&self, _: usize, _: u64) -> bool {
        false
    }

    fn fence(&self, order: std::sync::atomic::Ordering) {
        self.all.fence(order);
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, _: usize, _: usize) -> Option<&[u8]> {
        None
    }
}

#[test]
fn a_segment_that_is_mapped_during_a_lookup_gives_the_value_or_unmapped_and_nothing_else() {
    let mut daemon = daemon();
    let value = bytes(1, 700);
    // The row, its key, its shape or its value lie behind what is mapped, and its alias before it.
    set(&mut daemon, b"first", &value, 1).unwrap();
    set(&mut daemon, b"alias", &value, 2).unwrap();
    let unit =
        |key: &[u8]| daemon.index.find(&daemon.header, &daemon.data, daemon.hash(key), key).unwrap().unit;
    let (row, alias) = (word_of(unit(b"first")), word_of(unit(b"alias")));
    let (mut served, mut unmapped) = (0, 0);
    // The index, at the end, is there in all of these but the last two.
    let end = daemon.data.extent().end;
    let index = end - bucket::CHUNK_PAGES * PAGE_WORDS;
    let edges = (row..row + 110).chain(alias..alias + 8).chain([512, 1024]).map(|first| (first, index));
    let edges = edges.chain([(end / 2, end), (end / 2, index + 8 * 500)]);
    for (first, last) in edges.step_by(if cfg!(miri) { 9 } else { 1 }) {
        for looks in 0..if cfg!(miri) { 20 } else { 260 } {
            for key in [&b"first"[..], b"alias"] {
                let data = Partly { all: daemon.data.clone(), first, last, looks_left: looks.into() };
                let view = View::new(daemon.header.clone(), data, daemon.header.clone(), daemon.terms);
                let mut read = Vec::new();
                let copy = |candidate: &Candidate| {
                    if !view.is_mapped(candidate) {
                        return Err(Miss::Unmapped);
                    }
                    read.resize(candidate.meta.size as usize, 0);
                    view.data.read(candidate.at, &mut read);
                    Ok(())
                };
                match view.serve(key, copy, || 0) {
                    Ok(()) => {
                        assert_eq!(read, value, "{first} {looks}");
                        served += 1;
                    }
                    Err(why) => {
                        assert_eq!(why, Miss::Unmapped, "{first} {looks}");
                        unmapped += 1;
                    }
                }
            }
        }
    }
    assert!(served > 0 && unmapped > 0);
}

#[test]
fn a_ring_whose_head_went_back_brings_nothing() {
    let page = Heap::new(worker::WORDS);
    let mut tails = [0; worker::RINGS];
    page.store(worker::HEADS, 10, Relaxed);
    let mut taken = 0;
    crate::pins::touched(&page, &mut tails, |_| taken += 1);
    assert_eq!((taken, tails[0]), (10, 10));
    page.store(worker::HEADS, 9, Relaxed);
    crate::pins::touched(&page, &mut tails, |_| taken += 1);
    assert_eq!((taken, tails[0]), (10, 9));
    page.store(worker::HEADS, 1 << 62, Relaxed);
    crate::pins::touched(&page, &mut tails, |_| taken += 1);
    assert_eq!(taken, 10 + worker::RING_LEN);
}
