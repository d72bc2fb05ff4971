//! Room: for large values among small ones, for names of one value, where memory cannot be had, and where somebody else
//! decides what leaves.

use super::tests::{
    Daemon, Worker, attach, binding, bytes, check, daemon, daemon_in, daemon_of, hash, pin, read, set,
};
use super::*;
use crate::error::Miss;
use crate::layout::{PAGE_BYTES, bucket};
use crate::memory::Heap;

fn small(daemon: &mut Daemon, names: std::ops::Range<u32>) {
    for i in names {
        set(daemon, &i.to_be_bytes(), &bytes(u64::from(i), 100), 1).unwrap();
    }
}

fn uses_of(view: &Worker, key: &[u8]) {
    (0..4).for_each(|_| _ = read(view, key).unwrap());
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn values_of_nearly_a_quarter_of_the_data_find_room_among_200_000_small_ones() {
    const PAGES: u64 = 9_000;
    let mut daemon = daemon_of(PAGES, 1024);
    let (_page, view) = attach(&mut daemon);
    small(&mut daemon, 0..200_000);
    assert!(
        daemon.index.buckets() > 20_000 && daemon.stats().evicted > 0,
        "it is full: {:?}",
        daemon.stats()
    );
    let data = PAGES as usize * PAGE_BYTES;
    for (round, hundredths) in [20, 25, 23].into_iter().enumerate() {
        let len = data / 100 * hundredths - 4096;
        let key = [b"large".as_slice(), &[round as u8]].concat();
        let value = bytes(round as u64, len);
        set(&mut daemon, &key, &value, 1).unwrap_or_else(|why| panic!("{hundredths} of 100: {why:?}"));
        assert_eq!(read(&view, &key).unwrap().len(), len);
        small(&mut daemon, 300_000 + 5_000 * round as u32..305_000 + 5_000 * round as u32);
    }
    check(&daemon);
    let index = (0..daemon.index.buckets() / bucket::CHUNK as u64)
        .map(|chunk| daemon.header.load(header::DIRECTORY + chunk as usize, Relaxed));
    assert!(index.min().unwrap() > PAGES * 9 / 10, "the index lies together at the end");
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn one_large_value_among_very_many_small_ones_looks_at_each_once_and_not_at_all_for_each() {
    const ROWS: u32 = 60_000;
    let mut daemon = daemon_of(3_100, 1024);
    small(&mut daemon, 0..ROWS);
    let rows = daemon.stats().rows;
    let (in_queues, in_blocks) = (daemon.queues.looks(), daemon.space.looks.get());
    let evicted = set(&mut daemon, b"large", &bytes(1, 3_000_000), 1).unwrap().len();
    assert!(evicted > 10_000, "a good part of them went: {evicted}");
    let (in_queues, in_blocks) = (daemon.queues.looks() - in_queues, daemon.space.looks.get() - in_blocks);
    assert!(in_queues < 3 * rows, "{in_queues} looks in queues of {rows}");
    assert!(in_blocks < 2 * 3_100, "{in_blocks} looks at blocks");
    check(&daemon);
    // All that is left leaves in its turn, once.
    let (mut left, mut gone) = (0, Vec::new());
    while daemon.evict_next(&mut gone) {
        left += 1;
    }
    assert_eq!((left as u64, daemon.stats().names), (rows + 1 - evicted as u64, 0));
    assert_eq!(gone.len(), left);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn rows_that_leave_out_of_their_turn_and_places_that_are_used_again_keep_their_order() {
    let mut daemon = daemon_of(64, 1024);
    // Each leaves out of its turn and another one takes its place, over and over.
    for round in 0..2_000_u32 {
        let value = bytes(u64::from(round), 400);
        set(&mut daemon, &round.to_be_bytes(), &value, 1).unwrap();
        if round >= 8 && round % 3 != 0 {
            assert!(
                daemon.expel_hash(&hash(&bytes(u64::from(round - 8), 400)), &mut Vec::new()) || round > 8
            );
        }
        if round % 100 == 0 {
            check(&daemon);
        }
    }
    check(&daemon);
    let mut gone = Vec::new();
    while daemon.evict_next(&mut gone) {}
    let keys: Vec<u32> = gone.iter().map(|one| u32::from_be_bytes((&*one.key).try_into().unwrap())).collect();
    assert!(keys.is_sorted() && keys.len() > 40, "first in, first out: {keys:?}");
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn ten_thousand_names_of_one_value_share_few_rows_and_leave_few_at_a_time() {
    const NAMES: u32 = 10_000;
    let mut daemon = daemon_of(1_000, 1024);
    let (_page, view) = attach(&mut daemon);
    let value = bytes(7, 3_000);
    for i in 0..NAMES {
        assert_eq!(set(&mut daemon, &i.to_be_bytes(), &value, 1).unwrap(), []);
    }
    check(&daemon);
    let stats = daemon.stats();
    assert_eq!((stats.rows, stats.aliases), (40, 9_960), "256 names a row");
    assert!((0..NAMES).all(|i| read(&view, &i.to_be_bytes()).unwrap() == value));
    let (mut gone, mut steps) = (Vec::new(), 0);
    while daemon.evict_next(&mut gone) {
        assert!(gone.len() <= 1 + row::ALIASES_MAX, "{} names at once", gone.len());
        steps += gone.len();
        gone.clear();
    }
    assert_eq!(steps, NAMES as usize);
    assert_eq!((daemon.stats().rows, daemon.stats().aliases, daemon.stats().names), (0, 0, 0));
    check(&daemon);
}

#[test]
fn each_name_of_a_short_value_leaves_by_itself() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let value = bytes(7, 20);
    for i in 0..100_u32 {
        set(&mut daemon, &i.to_be_bytes(), &value, 1).unwrap();
    }
    assert_eq!((daemon.stats().rows, daemon.stats().aliases), (100, 0));
    let mut gone = Vec::new();
    for left in (0..50).rev() {
        assert!(daemon.evict_next(&mut gone) && gone.len() == 50 - left);
    }
    assert!((50..100_u32).all(|i| read(&view, &i.to_be_bytes()).unwrap() == value));
    assert_eq!(daemon.have(&hash(&value)), Some(20), "whichever was the first is gone, and others are there");
    // A copy that no name leads to is of no use while there are others.
    (50..99_u32).for_each(|i| _ = daemon.remove_if(&i.to_be_bytes(), |_| true).unwrap());
    assert_eq!((daemon.stats().rows, daemon.stats().names), (1, 1));
    daemon.remove_if(&99_u32.to_be_bytes(), |_| true).unwrap();
    assert_eq!((daemon.stats().rows, daemon.have(&hash(&value))), (1, Some(20)), "the last one stays");
    check(&daemon);
    // Damaged bytes go wherever they are.
    (0..10_u32).for_each(|i| _ = set(&mut daemon, &i.to_be_bytes(), &value, 1).unwrap());
    gone.clear();
    assert!(daemon.expel_hash(&hash(&value), &mut gone));
    assert_eq!((gone.len(), daemon.stats().rows, daemon.have(&hash(&value))), (10, 0, None));
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn a_name_that_is_asked_for_outlives_the_other_names_of_its_value() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let value = bytes(7, 3_000);
    for key in [b"first", b"often", b"never"] {
        set(&mut daemon, key, &value, 1).unwrap();
    }
    for i in 0..3_000_u32 {
        uses_of(&view, b"often");
        set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i) << 8, 1_000), 1).unwrap();
    }
    assert_eq!(read(&view, b"often").unwrap(), value);
    assert_eq!(read(&view, b"never"), Err(Miss::Absent));
    check(&daemon);
}

#[test]
fn where_no_more_memory_can_be_had_something_leaves_for_what_comes() {
    const PAGES: u64 = 2_000;
    let data = Heap::growing(PAGES as usize * PAGE_WORDS, 64 * PAGE_WORDS);
    let mut daemon = daemon_in(data, PAGES, 1024);
    let begun = daemon.stats();
    assert!(begun.resident < begun.bytes_max / 8, "{begun:?}");
    for i in 0..20_u32 {
        assert_eq!(set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i), 20_000), 1).unwrap(), []);
    }
    daemon.data.refuse(true);
    let mut evicted = 0;
    // The heap tells if a word is written that was not to be had.
    for i in 20..100_u32 {
        evicted += set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i), 20_000), 1).unwrap().len();
        check(&daemon);
    }
    let stats = daemon.stats();
    assert!(evicted > 60 && stats.resident < stats.bytes_max / 4, "{evicted} {stats:?}");
    assert!(stats.bytes <= stats.resident, "nothing that is not there counts as used: {stats:?}");
    // It is asked for again at the next sweep, and not for each insertion before.
    daemon.data.refuse(false);
    assert!(!set(&mut daemon, b"before", &bytes(1 << 40, 20_000), 1).unwrap().is_empty());
    daemon.sweep();
    assert_eq!(set(&mut daemon, b"behind", &bytes(1 << 41, 200_000), 1).unwrap(), []);
    assert!(daemon.stats().resident > stats.resident);
    check(&daemon);
}

#[test]
fn no_more_memory_is_used_than_was_allowed() {
    const PAGES: u64 = 2_000;
    let data = Heap::growing(PAGES as usize * PAGE_WORDS, 16 * PAGE_WORDS);
    let mut daemon = daemon_in(data, PAGES, 1024);
    daemon.leave_eviction();
    let allowed = daemon.resident() + (1 << 20);
    daemon.limit(allowed);
    let fits = (0..100_u32)
        .take_while(|i| set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(*i), 20_000), 1).is_ok());
    let fits = fits.count();
    assert!((40..52).contains(&fits), "{fits} times 20,000 bytes in a mebibyte");
    assert!(daemon.resident() <= allowed);
    daemon.limit(u64::MAX);
    set(&mut daemon, b"more", &bytes(1 << 40, 20_000), 1).unwrap();
    check(&daemon);
}

/// Does what a cache does that decides by itself: what stands in the way goes.
fn clear_obstacles(daemon: &mut Daemon, bytes: u64) {
    for obstacle in &daemon.obstacles(bytes).unwrap() {
        match obstacle {
            Obstacle::Value(hash) => _ = daemon.expel_hash(hash, &mut Vec::new()),
            Obstacle::Name(key) => _ = daemon.remove_if(key, |_| true),
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn who_decides_by_itself_what_leaves_is_told_what_stands_in_the_way() {
    let mut daemon = daemon();
    daemon.leave_eviction();
    let (_page, view) = attach(&mut daemon);
    let (mut i, mut cleared) = (0_u32, 0);
    while cleared < 40 {
        // All sorts: short ones under many names, long ones under many names, and others.
        let value = match i % 4 {
            0 => bytes(u64::from(i % 40), 50),
            1 => bytes(u64::from(i % 40) << 20, 5_000),
            2 => bytes(u64::from(i) << 40, 100),
            _ => bytes(u64::from(i) << 32, 40_000),
        };
        match set(&mut daemon, &i.to_be_bytes(), &value, 1) {
            Ok(evicted) => {
                assert_eq!(evicted, [], "nothing leaves by itself");
                assert_eq!(read(&view, &i.to_be_bytes()).unwrap(), value);
                i += 1;
            }
            Err(why) => {
                assert_eq!(why, Refusal::Full);
                // Nothing at all perhaps, where the index may take what is free from now on.
                clear_obstacles(&mut daemon, value.len() as u64 + 200);
                cleared += 1;
                check(&daemon);
            }
        }
    }
    assert!(!daemon.evict_next(&mut Vec::new()));
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn an_index_without_room_is_told_of_and_finds_some() {
    let mut daemon = daemon_of(512, 1024);
    daemon.leave_eviction();
    // Values take all there is while the index is small; then names come.
    let mut i = 0_u32;
    while set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i), 2_000), 1).is_ok() {
        i += 1;
    }
    let buckets = daemon.index.buckets();
    let mut short = 0;
    for i in 0..20_000_u32 {
        let mut times = 0;
        while let Err(why) = set(&mut daemon, &i.to_le_bytes(), &i.to_le_bytes(), 1) {
            assert_eq!(why, Refusal::Full, "{i}");
            short += u32::from(daemon.is_index_short());
            clear_obstacles(&mut daemon, 100);
            times += 1;
            assert!(times < 8, "{i}");
        }
    }
    check(&daemon);
    let stats = daemon.stats();
    assert!(short > 0 && stats.names > 12_000 && daemon.index.buckets() > buckets, "{short} {stats:?}");
    let lowest = (0..daemon.index.buckets() / bucket::CHUNK as u64)
        .map(|chunk| daemon.header.load(header::DIRECTORY + chunk as usize, Relaxed));
    assert!(lowest.min().unwrap() > 512 - 160, "it grew at the end");
}

#[test]
fn bytes_that_are_kept_stay_and_uses_are_told_once() {
    let mut daemon = daemon();
    daemon.leave_eviction();
    let (_page, view) = attach(&mut daemon);
    let value = bytes(1, 9_000);
    set(&mut daemon, b"first", &value, 1).unwrap();
    set(&mut daemon, b"alias", &value, 1).unwrap();
    uses_of(&view, b"alias");
    daemon.listen();
    assert_eq!((daemon.take_uses(&hash(&value)), daemon.take_uses(&hash(&value))), (3, 0));
    uses_of(&view, b"alias");
    daemon.listen();
    assert_eq!(daemon.take_uses(&hash(&value)), 3, "whoever was hot is heard again");
    let (at, len, alive) = daemon.keep(&hash(&value)).unwrap();
    let (_, _, again) = daemon.keep(&hash(&value)).unwrap();
    assert!(daemon.expel_hash(&hash(&value), &mut Vec::new()));
    drop(alive);
    daemon.sweep();
    for i in 0..60_u32 {
        let _ = set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i) << 8, 9_000), 1);
    }
    let mut back = vec![0; len];
    daemon.data.read(at, &mut back);
    assert_eq!((back, daemon.stats().limbo), (value, 1));
    drop(again);
    daemon.sweep();
    assert_eq!(daemon.stats().limbo, 0);
    check(&daemon);
}

#[test]
fn a_note_goes_with_its_name_and_with_no_other() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    let (long, short) = (bytes(1, 600), bytes(2, 60));
    let mut insert = |key: &[u8], note: &[u8], value: &[u8]| {
        daemon.insert(key, (&binding(value, 1), note), value, &mut Vec::new())
    };
    insert(b"first", b"text/plain", &long).unwrap();
    insert(b"alias", b"image/png", &long).unwrap();
    insert(b"plain", b"", &long).unwrap();
    insert(b"short", &[b'x'; 255], &short).unwrap();
    assert_eq!(insert(b"longer", &[b'x'; 256], &short), Err(Refusal::Note));
    for (key, note) in
        [(b"first", &b"text/plain"[..]), (b"alias", b"image/png"), (b"plain", b""), (b"short", &[b'x'; 255])]
    {
        assert_eq!(daemon.note(key).as_deref(), Some(note));
        assert!(read(&view, key).is_ok());
    }
    assert_eq!(daemon.note(b"longer"), None);
    // The same bytes with another note are another binding.
    let other = daemon.insert(b"alias", (&binding(&long, 2), b"image/gif"), &long, &mut Vec::new());
    assert_eq!((other, daemon.note(b"alias").as_deref()), (Ok(()), Some(&b"image/gif"[..])));
    let first = daemon.insert(b"first", (&binding(&long, 2), b"longer than it was"), &long, &mut Vec::new());
    assert_eq!((first, daemon.note(b"first").as_deref()), (Ok(()), Some(&b"longer than it was"[..])));
    assert_eq!((daemon.get(b"first").unwrap().binding.bind_rev, daemon.stats().rows), (2, 2));
    check(&daemon);
}

#[test]
#[cfg_attr(miri, ignore = "too long there")]
fn room_for_a_large_value_is_made_in_steps_and_the_insertion_then_finds_it() {
    let mut daemon = daemon_of(2_000, 1024);
    small(&mut daemon, 0..40_000);
    let (mut gone, mut steps) = (Vec::new(), 0);
    assert!(daemon.make_room(1_900_000, 0, &mut gone) && gone.is_empty());
    while daemon.make_room(1_900_000, 64, &mut gone) {
        assert!(gone.len() <= 64);
        (steps, gone) = (steps + 1, Vec::new());
        assert!(steps < 2_000);
    }
    assert!(steps > 50, "in {steps} steps");
    assert_eq!(set(&mut daemon, b"large", &bytes(1, 1_900_000), 1).unwrap(), []);
    // The same for small ones, and where there is room already.
    while daemon.make_room(100, 1, &mut gone) {}
    gone.clear();
    assert!(!daemon.make_room(100, 1, &mut gone) && gone.is_empty());
    check(&daemon);
}

#[test]
fn all_names_leave_at_once_and_their_bytes_stay() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    for i in 0..200_u32 {
        set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i % 20), 600), 1).unwrap();
    }
    assert_eq!((daemon.remove_all(), daemon.stats().names, daemon.stats().rows), (200, 0, 20));
    assert!((0..200_u32).all(|i| read(&view, &i.to_be_bytes()) == Err(Miss::Absent)));
    assert!((0..20).all(|i| daemon.have(&hash(&bytes(i, 600))).is_some()));
    check(&daemon);
    set(&mut daemon, b"again", &bytes(3, 600), 1).unwrap();
    assert_eq!((read(&view, b"again").unwrap(), daemon.remove_all()), (bytes(3, 600), 1));
}

#[test]
fn a_round_of_samples_has_every_row_once() {
    let mut daemon = daemon();
    let (_page, view) = attach(&mut daemon);
    for i in 0..100_u32 {
        let len = [30, 600, 5_000, 20_000][i as usize % 4];
        set(&mut daemon, &i.to_be_bytes(), &bytes(u64::from(i), len), 1).unwrap();
        set(&mut daemon, &(i + 1_000).to_be_bytes(), &bytes(u64::from(i), len), 1).unwrap();
    }
    let (held, _) = pin(&view, &3_u32.to_be_bytes()).unwrap();
    let pinned = hash(&bytes(3, 20_000));
    daemon.expel_hash(&pinned, &mut Vec::new());
    let (mut from, mut rows, mut rounds) = (0, Vec::new(), 0);
    loop {
        let (some, next) = daemon.sample(from, 50_000);
        rows.extend(some);
        rounds += 1;
        if next == 0 {
            break;
        }
        from = next;
    }
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len() as u64, daemon.stats().rows, "what is in limbo and aliases are not there");
    assert!(rounds > 5);
    // Any number is a place to begin at.
    for from in 0..PAGES_ODD {
        daemon.sample(from, 1);
    }
    assert_eq!(daemon.sample(u64::MAX, 1), (Vec::new(), 0));
    view.unpin(held);
}

const PAGES_ODD: u64 = 700;
