//! The protocols under loom: every interleaving, and every value that the memory model lets a load have.
//!
//! The functions are the production ones. Only the words that a scenario is about are loom's; the others have fixed
//! values, so that the scenarios stay small enough to be tried to the end.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use crate::index::{self, Looked, Room, Writer, word_of};
use crate::layout::{Shape, bucket, header, row, worker};
use crate::memory::{Extent, Memory};
use crate::{Miss, pins, seqlock};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// Words of which some are loom's.
#[derive(Clone)]
struct Words(Arc<HashMap<usize, AtomicU64>>, Arc<HashMap<usize, u64>>);

impl Words {
    fn new(shared: &[(usize, u64)], fixed: &[(usize, u64)]) -> Self {
        let shared = shared.iter().map(|(at, word)| (*at, AtomicU64::new(*word))).collect();
        Self(Arc::new(shared), Arc::new(fixed.iter().copied().collect()))
    }
}

impl Memory for Words {
    // Trying again and again would be explored again and again.
    const TRIES: usize = 2;

    fn extent(&self) -> Extent {
        Extent::whole(usize::MAX / 16)
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        match self.0.get(&at) {
            Some(word) => word.load(order),
            None => self.1.get(&at).copied().unwrap_or(0),
        }
    }

    fn store(&self, at: usize, word: u64, order: Ordering) {
        if let Some(place) = self.0.get(&at) {
            place.store(word, order);
        }
    }

    fn claim(&self, at: usize, word: u64) -> bool {
        self.0.get(&at).is_some_and(|place| place.compare_exchange(0, word, Acquire, Relaxed).is_ok())
    }

    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, _: usize, _: usize) -> Option<&[u8]> {
        None
    }
}

fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 100_000;
    model.check(scenario);
}

/// An index of one bucket in use, at word 512, whose first slot leads to a row at unit 1000 with the key `k`.
const STATE: usize = 512;
const SLOT: usize = 513;
const ROW: u32 = 1000;
const HASH: u64 = 0;
/// The first word of the row's value.
const VALUE: usize = ROW as usize * 2 + row::HEAD + 1;

fn header() -> Words {
    Words::new(&[], &[(header::BUCKETS, 1024), (header::DIRECTORY, 1), (header::DIRECTORY + 1, 100)])
}

fn fixed_row() -> [(usize, u64); 2] {
    let key_at = word_of(ROW) + Shape::new(1, 8, false, false).key_at();
    [(word_of(ROW), Shape::new(1, 8, false, false).0), (key_at, u64::from(b'k'))]
}

fn find(data: &Words) -> index::Place {
    let writer = Writer::begin(&header(), 1);
    writer.find(&header(), data, HASH, b"k").expect("the name is there")
}

#[test]
fn a_reader_never_takes_half_a_change_for_whole() {
    explore(|| {
        let data = Words::new(&[(0, 0), (1, 0), (2, 0)], &[]);
        let writer = data.clone();
        let writes = thread::spawn(move || {
            for round in 1..=2 {
                seqlock::begin_change(&writer, 0);
                writer.store(1, round, Relaxed);
                writer.store(2, round, Relaxed);
                seqlock::end_change(&writer, 0, 0);
            }
        });
        if let Some(state) = seqlock::begin_read(&data, 0) {
            let (first, second) = (data.load(1, Relaxed), data.load(2, Relaxed));
            if seqlock::is_unchanged(&data, 0, state) {
                assert_eq!(first, second);
            }
        }
        writes.join().unwrap();
    });
}

#[test]
fn a_copy_is_never_of_a_place_that_is_used_again() {
    explore(|| {
        let data = Words::new(&[(STATE, 0), (SLOT, u64::from(ROW)), (VALUE, 1)], &fixed_row());
        let daemon = data.clone();
        let place = find(&daemon);
        let evicts = thread::spawn(move || {
            Writer::begin(&header(), 1).unlink(&daemon, place);
            // Small values are never pinned: their place is used again at once.
            daemon.store(VALUE, 2, Relaxed);
        });
        let read = |_, _| data.load(VALUE, Relaxed);
        match index::look(&header(), &data, (HASH, b"k"), read) {
            Looked::Found(value) => assert_eq!(value, 1, "another value was read as this one"),
            Looked::Absent | Looked::Busy | Looked::Unmapped => {}
        }
        evicts.join().unwrap();
    });
}

#[test]
fn a_name_that_is_being_linked_is_absent_or_whole() {
    explore(|| {
        let data = Words::new(&[(STATE, 0), (SLOT, 0), (VALUE, 9)], &fixed_row());
        let daemon = data.clone();
        let links = thread::spawn(move || {
            daemon.store(VALUE, 1, Relaxed);
            assert!(Writer::begin(&header(), 1).link(&header(), &daemon, (HASH, ROW), &mut NoRoom));
        });
        let read = |_, _| data.load(VALUE, Relaxed);
        if let Looked::Found(value) = index::look(&header(), &data, (HASH, b"k"), read) {
            assert_eq!(value, 1, "linked before it was written");
        }
        links.join().unwrap();
    });
}

/// What a pin protects: loom says if it is written while it is read, or without being behind the reading.
struct Bytes(UnsafeCell<u64>);

#[allow(unsafe_code)]
impl Bytes {
    fn read(&self) -> u64 {
        // SAFETY: loom lets threads take turns and reports what is not allowed.
        self.0.with(|bytes| unsafe { *bytes })
    }

    fn write(&self, value: u64) {
        // SAFETY: as above.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }
}

// SAFETY: loom's cell reports every access that is not ordered.
#[allow(unsafe_code)]
unsafe impl Sync for Bytes {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Send for Bytes {}

fn read_pinned(data: &Words, page: &Words, bytes: &Bytes) {
    let mut pinned = None;
    let pin = |unit, _| {
        if let Some(earlier) = pinned.take() {
            pins::release(page, earlier);
        }
        pinned = pins::publish(page, unit, 1);
    };
    let found = index::look(&header(), data, (HASH, b"k"), pin);
    if let (Looked::Found(()), Some(_)) = (found, pinned) {
        assert_eq!(bytes.read(), 1, "what is pinned was written over");
    }
    if let Some(pin) = pinned {
        pins::release(page, pin);
    }
}

fn pins_against_eviction(readers: usize) {
    explore(move || {
        let data = Words::new(&[(STATE, 0), (SLOT, u64::from(ROW))], &fixed_row());
        let place = find(&data);
        let pins: Vec<_> = (0..readers).map(|pin| (worker::PINS + pin, 0)).collect();
        let page = Words::new(&pins, &[]);
        let bytes = Arc::new(Bytes(UnsafeCell::new(1)));
        let started: Vec<_> = (0..readers)
            .map(|_| {
                let (data, page, bytes) = (data.clone(), page.clone(), Arc::clone(&bytes));
                thread::spawn(move || read_pinned(&data, &page, &bytes))
            })
            .collect();
        Writer::begin(&header(), 1).unlink(&data, place);
        // At once, and once more at a later sweep.
        for _ in 0..2 {
            if !pins::pinned(&page).any(|word| word as u32 == ROW) {
                bytes.write(2);
                break;
            }
        }
        started.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_pinned_place_is_not_used_again_before_it_is_let_go() {
    pins_against_eviction(1);
}

#[test]
fn two_threads_of_a_worker_pin_one_place() {
    pins_against_eviction(2);
}

/// A second user of a pin: what the first one read under it is read before the place is used again.
#[test]
fn a_pin_that_is_used_again_keeps_the_order_of_its_users() {
    explore(|| {
        let page = Words::new(&[(worker::PINS, 5)], &[]);
        let bytes = Arc::new(Bytes(UnsafeCell::new(1)));
        let (first, second) = ((page.clone(), Arc::clone(&bytes)), page.clone());
        let reads = thread::spawn(move || {
            first.1.read();
            pins::release(&first.0, worker::PINS);
        });
        let pins_again = thread::spawn(move || {
            if let Some(pin) = pins::publish(&second, 6, 1) {
                pins::release(&second, pin);
            }
        });
        if !pins::pinned(&page).any(|word| word as u32 == 5) {
            bytes.write(2);
        }
        reads.join().unwrap();
        pins_again.join().unwrap();
    });
}

/// A worker that was taken for a hoarder: pins that were there when it was told so hold, and no others.
#[test]
fn a_pin_that_the_revoker_did_not_see_protects_nothing_and_nobody_reads_under_it() {
    explore(|| {
        let data = Words::new(&[(STATE, 0), (SLOT, u64::from(ROW))], &fixed_row());
        let place = find(&data);
        let page = Words::new(&[(worker::PINS, 0), (worker::REVOKED, 0)], &[]);
        let bytes = Arc::new(Bytes(UnsafeCell::new(1)));
        let reader = (data.clone(), page.clone(), Arc::clone(&bytes));
        let reads = thread::spawn(move || read_pinned(&reader.0, &reader.1, &reader.2));
        let held = pins::revoke(&page);
        Writer::begin(&header(), 1).unlink(&data, place);
        // The daemon does not look at the page again: what it holds now it holds until it is gone.
        if !held.contains(&ROW) {
            bytes.write(2);
        }
        reads.join().unwrap();
    });
}

#[test]
fn what_is_removed_before_an_acknowledgement_is_not_read_behind_it() {
    const ACKNOWLEDGED: usize = 7;
    explore(|| {
        let data = Words::new(&[(STATE, 0), (SLOT, u64::from(ROW)), (ACKNOWLEDGED, 0)], &fixed_row());
        let daemon = data.clone();
        let place = find(&daemon);
        let invalidates = thread::spawn(move || {
            Writer::begin(&header(), 1).unlink(&daemon, place);
            daemon.fence(SeqCst);
            daemon.store(ACKNOWLEDGED, 1, Release);
        });
        let acknowledged = data.load(ACKNOWLEDGED, Acquire) == 1;
        let found = index::look(&header(), &data, (HASH, b"k"), |_, _| ());
        assert!(!acknowledged || found == Looked::Absent, "read after the DEL was acknowledged");
        invalidates.join().unwrap();
    });
}

#[test]
fn a_new_lease_never_serves_a_name_of_an_old_era() {
    explore(|| {
        let shared = [(header::VALID_UNTIL, 100), (header::ERA, 1)];
        let fixed = [(header::BUCKETS, 1024), (header::DIRECTORY, 1)];
        let header = Words::new(&shared, &fixed);
        let mut words = fixed_row().to_vec();
        let hash = crate::layout::hash(b"k", 42);
        let slot = STATE + bucket::of(hash as u32, 1024) as usize * bucket::WORDS + 1;
        words.extend([(word_of(ROW) + row::ERA, 1), (slot, bucket::slot(hash, ROW))]);
        let data = Words::new(&[], &words);
        let daemon = header.clone();
        let renews = thread::spawn(move || {
            daemon.store(header::ERA, 2, Release);
            daemon.fence(SeqCst);
            daemon.store(header::VALID_UNTIL, 200, Release);
        });
        let terms = crate::core::Terms {
            incarnation: [0; 2],
            seed: 42,
            data_bytes: 0,
            segment_bytes: 0,
            copy_max: 0,
            directory_words: 512,
            pin_bytes_max: 0,
        };
        let view = crate::view::View::new(header, data, Words::new(&[], &[]), terms);
        // Behind the old lease's end, before the new one's.
        let served = view.serve(b"k", |_| Ok(()), || 150);
        assert!(matches!(served, Err(Miss::Lapsed | Miss::Absent)), "{served:?}");
        renews.join().unwrap();
    });
}

struct NoRoom;

impl Room for NoRoom {
    fn bucket(&mut self) -> Option<u32> {
        None
    }

    fn give_back(&mut self, _: u32) {}
}

#[test]
fn a_name_is_found_while_its_chain_is_split() {
    // Bit 10 of the tag: it moves to bucket 1024, the first one of the second chunk, at page 100.
    const MOVES: u64 = 1024;
    const SECOND: usize = 100 * 512;
    explore(|| {
        let header =
            Words::new(&[(header::BUCKETS, 1024)], &[(header::DIRECTORY, 1), (header::DIRECTORY + 1, 100)]);
        let shared = [(STATE, 0), (SLOT, bucket::slot(MOVES, ROW)), (SECOND, 0), (SECOND + 1, 0)];
        let data = Words::new(&shared, &fixed_row());
        let daemon = (header.clone(), data.clone());
        let splits = thread::spawn(move || {
            assert!(Writer::begin(&header_of_1024(), 1).split(&daemon.0, &daemon.1, &mut NoRoom));
        });
        let found = index::look(&header, &data, (MOVES, b"k"), |unit, _| unit);
        assert!(matches!(found, Looked::Found(ROW) | Looked::Busy), "{found:?}");
        splits.join().unwrap();
    });
}

fn header_of_1024() -> Words {
    Words::new(&[], &[])
}
