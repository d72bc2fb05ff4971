//! What workers find, beside what the cache holds.

use super::*;
use crate::cache::{Admission, CacheConfig};
use dstore_arena::{Miss, Reader};
use dstore_shared::{Key, Prefix};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Enough for an arena, and soon full.
const SMALL: CacheConfig = CacheConfig { bytes: 2 << 20 };
/// Enough for several.
const ROOMY: CacheConfig = CacheConfig { bytes: 12 << 20 };

fn namespace(name: &str) -> Namespace {
    Namespace::new(name.to_owned()).unwrap()
}

fn name(space: &str, key: &str) -> Name {
    Name::new(&namespace(space), &Key::new(key.to_owned()).unwrap())
}

/// Bytes that tell what they are of.
fn blob(of: u64, size: usize) -> Blob {
    let mut bytes = vec![of as u8; size.max(8)];
    bytes[..8].copy_from_slice(&of.to_le_bytes());
    Blob::hash(bytes)
}

fn entry(blob: &Blob, rev: u64) -> Entry {
    let (hash, size) = (blob.id(), blob.size());
    Entry { hash, size, bind_rev: Revision(rev), expires_at: None, content_type: None }
}

fn put(cache: &Cache, name: &Name, blob: &Blob, rev: u64, era: u64) -> Evicted {
    let (staged, mut gone) = cache.stage(name, blob);
    match cache.install(name, entry(blob, rev), staged.as_ref().unwrap_or(blob), RegSeq(rev), era) {
        Admission::Installed { evicted } => {
            gone.extend(evicted);
            gone
        }
        Admission::Refused(why) => panic!("refused: {why:?}"),
    }
}

/// A worker in this process, under a lease without end.
fn worker(cache: &Cache, space: &str) -> (Reader, u64) {
    cache.publish_valid_until(Moment::MAX);
    let attached = cache.attach(&namespace(space)).unwrap();
    (Reader::map(attached.descriptors).unwrap(), attached.worker)
}

fn get(reader: &Reader, key: &str) -> Result<Vec<u8>, Miss> {
    reader.get(key.as_bytes()).map(|value| value.to_vec())
}

/// Brings all that is held to a namespace's arena.
fn shelve(cache: &Cache, space: &str) {
    let mut next = Some(Cursor::default());
    while let Some(at) = next {
        next = cache.shelve(&namespace(space), at).1;
    }
}

/// Every name that a worker can find is held, and held so; every byte counts once.
fn audit(cache: &Cache) -> u64 {
    let mut published = 0;
    let mut ledger = cache.ledger.lock();
    let Ledger { shelves, .. } = &mut *ledger;
    for (namespace, Shelf { arena, .. }) in &mut shelves.all {
        let (mut next, mut seen) = (Some(0), 0);
        while let Some(at) = next {
            let (names, behind) = arena.names(at, 64);
            next = behind;
            for (key, found) in names {
                let name = Name::new(namespace, &Key::new(key.into_vec()).unwrap());
                let held = |held: &crate::cache::names::Held| {
                    (held.entry(), held.until, held.reg_seq, held.era, held.blob.clone())
                };
                let (entry, until, reg_seq, era, blob) =
                    cache.names.view(name.as_bytes(), held).unwrap_or_else(|| panic!("{name:?} is not held"));
                let bound = Bound { name: &name, entry: &entry, until, reg_seq, era };
                assert_eq!((found.binding, found.size), (bound.binding(), blob.size()), "{name:?}");
                assert!(arena.have(entry.hash.as_bytes()).is_some());
                seen += 1;
            }
        }
        assert_eq!(seen, arena.stats().names);
        published += seen;
        for (hash, ..) in cache.blobs.all() {
            if let Some(resident) = cache.blobs.get(&hash).filter(|one| !one.is_shared()) {
                assert_eq!(resident.blob().id(), hash);
            }
        }
        assert!(arena.stats().rows <= cache.blobs.len() as u64, "no bytes that the cache does not know");
    }
    let stats = cache.in_use(&ledger);
    assert!(stats <= cache.bytes_max, "{stats} of {}", cache.bytes_max);
    published
}

#[test]
fn a_name_is_found_by_workers_from_its_installation_to_its_removal_and_its_bytes_exist_once() {
    let cache = Cache::new(SMALL);
    let (reader, _) = worker(&cache, "x");
    for (n, size) in [(1, 100), (2, 600), (3, 100_000)] {
        let (key, value) = (format!("k{n}"), blob(n, size));
        put(&cache, &name("x", &key), &value, n, 0);
        let found = reader.get(key.as_bytes()).unwrap();
        assert_eq!(&*found, &value.bytes()[..]);
        assert_eq!((found.meta().bind_rev, &found.meta().hash), (n, value.id().as_bytes()));
        let held = cache.hit(name("x", &key).as_bytes(), 0).unwrap().blob;
        assert_ne!(held.bytes().as_ptr(), value.bytes().as_ptr());
        assert!(cache.blobs.get(&value.id()).unwrap().is_shared(), "the doors serve those bytes too");
        assert_eq!(held.bytes(), value.bytes());
    }
    let before = cache.stats();
    assert!(before.blob_bytes < 10_000 && before.shared_bytes > 100_000, "{before:?}");
    assert_eq!(audit(&cache), 3);
    assert!(cache.remove_upto(&name("x", "k1"), Revision(1)));
    assert_eq!(get(&reader, "k1"), Err(Miss::Absent));
    assert!(cache.drop_unvalidated(&name("x", "k2"), 1));
    assert_eq!((get(&reader, "k2"), get(&reader, "k3").is_ok()), (Err(Miss::Absent), true));
    cache.drop_all_names();
    assert_eq!((get(&reader, "k3"), audit(&cache)), (Err(Miss::Absent), 0));
    // The bytes are still there: bound again, they are not copied again.
    put(&cache, &name("x", "k3"), &blob(3, 100_000), 9, 0);
    assert_eq!(cache.stats().shared_bytes, before.shared_bytes);
    assert!(get(&reader, "k3").is_ok());
    let prefix = Prefix::new(&namespace("x"), b"k").unwrap();
    assert_eq!(cache.remove_prefix_upto(&prefix, Revision(9)), 1);
    assert_eq!(get(&reader, "k3"), Err(Miss::Absent));
}

#[test]
fn era_lease_and_end_of_a_name_are_those_of_the_cache() {
    let cache = Cache::new(ROOMY);
    cache.publish_era(1);
    let (reader, _) = worker(&cache, "x");
    let (key, value) = (name("x", "k"), blob(1, 2_000));
    put(&cache, &key, &value, 5, 1);
    assert!(get(&reader, "k").is_ok());
    cache.publish_era(2);
    assert_eq!(get(&reader, "k"), Err(Miss::Absent), "of an older era");
    assert!(cache.validate(&key, Revision(5), RegSeq(6), 2));
    assert!(get(&reader, "k").is_ok(), "validated");
    cache.publish_valid_until(Moment::ZERO);
    assert_eq!(get(&reader, "k"), Err(Miss::Lapsed));
    // An arena made while there is no lease has none, and the newest era.
    let (other, _) = {
        let attached = cache.attach(&namespace("y")).unwrap();
        (Reader::map(attached.descriptors).unwrap(), attached.worker)
    };
    put(&cache, &name("y", "k"), &value, 7, 2);
    put(&cache, &name("y", "old"), &value, 7, 1);
    assert_eq!(get(&other, "k"), Err(Miss::Lapsed));
    cache.publish_valid_until(Moment::MAX);
    assert_eq!((get(&other, "k").is_ok(), get(&other, "old")), (true, Err(Miss::Absent)));
    // A time that is over; the same binding, told again with a later end; and one that is held and not to be served.
    let ends = dstore_shared::End::new(99);
    let timed = |until, reg| {
        let entry = Entry { expires_at: ends, ..entry(&value, 8) };
        let _ = cache.install_until(&key, (entry, until), &value, RegSeq(reg), 2);
        audit(&cache);
        get(&reader, "k")
    };
    assert_eq!(timed(Moment::from_nanos(1), 10), Err(Miss::Absent));
    assert!(timed(Moment::from_nanos(u64::MAX - 1), 11).is_ok());
    assert!(timed(Moment::from_nanos(1), 9).is_ok(), "an older registration changes nothing");
    assert_eq!(timed(Moment::ZERO, 12), Err(Miss::Absent));
}

#[test]
fn a_worker_gets_its_namespace_and_what_was_held_before_it_came() {
    let cache = Cache::new(ROOMY);
    let same = blob(1, 3_000);
    for space in ["x", "y"] {
        put(&cache, &name(space, "same"), &same, 1, 0);
        put(&cache, &name(space, space), &blob(2, 200), 2, 0);
    }
    let (x, number) = worker(&cache, "x");
    assert_eq!(get(&x, "same"), Err(Miss::Absent), "not brought there yet");
    shelve(&cache, "x");
    assert_eq!(get(&x, "same").unwrap(), same.bytes()[..]);
    assert!(get(&x, "x").is_ok());
    assert_eq!((get(&x, "y"), audit(&cache)), (Err(Miss::Absent), 2));
    let of_y = cache.hit(name("y", "same").as_bytes(), 0).unwrap().blob;
    assert!(cache.blobs.get(&same.id()).unwrap().is_shared());
    assert_eq!(of_y.bytes(), same.bytes(), "names of other namespaces follow the bytes");
    let (y, _) = worker(&cache, "y");
    shelve(&cache, "y");
    assert_eq!((get(&y, "same").unwrap().len(), audit(&cache)), (3_000, 4));
    // It leaves with the hash, wherever that is.
    let gone = cache.expel(&same.id());
    assert_eq!((gone.len(), get(&x, "same"), get(&y, "same")), (2, Err(Miss::Absent), Err(Miss::Absent)));
    audit(&cache);
    // Nobody reads `x` and nothing is there: its memory goes.
    cache.drop_all_names();
    for hash in cache.blobs.all().into_iter().map(|(hash, ..)| hash) {
        cache.expel(&hash);
    }
    cache.detach(&namespace("x"), number);
    drop(of_y);
    assert!(cache.sweep().is_empty());
    assert_eq!(cache.ledger.lock().shelves.all.len(), 1, "`y` has a worker");
}

#[test]
fn bytes_that_somebody_reads_stay_and_what_finds_no_place_is_kept_outside() {
    let cache = Cache::new(ROOMY);
    let (reader, number) = worker(&cache, "x");
    let value = blob(1, 1_800_000);
    put(&cache, &name("x", "read"), &value, 1, 0);
    let pinned = reader.get(b"read").unwrap();
    let served = cache.hit(name("x", "read").as_bytes(), 0).unwrap().blob;
    assert!(pinned.is_in_place());
    for n in 2..200 {
        put(&cache, &name("x", &format!("k{n}")), &blob(n, 180_000), n, 0);
        audit(&cache);
    }
    assert!(cache.hit(name("x", "read").as_bytes(), 0).is_none(), "it left");
    assert_eq!((&*pinned, served.bytes()), (&value.bytes()[..], value.bytes()));
    // All that lies there is read: a value finds no place, and is kept outside; one that is too large for that is not.
    let all: Vec<_> = (2..200).filter_map(|n| reader.get(format!("k{n}").as_bytes()).ok()).collect();
    assert!(all.len() > 20, "{}", all.len());
    let outside = blob(500, 600_000);
    put(&cache, &name("x", "outside"), &outside, 500, 0);
    assert_eq!(cache.hit(name("x", "outside").as_bytes(), 0).unwrap().blob.bytes(), outside.bytes());
    assert_eq!(get(&reader, "outside"), Err(Miss::Absent));
    audit(&cache);
    let too_large = blob(501, 2_000_000);
    assert!(cache.stage(&name("x", "large"), &too_large).0.is_none());
    let refused = cache.install(&name("x", "large"), entry(&too_large, 501), &too_large, RegSeq(501), 0);
    assert_eq!(refused, Admission::Refused(crate::cache::Refusal::Oversize));
    audit(&cache);
    drop((pinned, served, all, reader));
    assert!(!cache.sweep().is_empty(), "it held more than half");
    cache.detach(&namespace("x"), number);
    let (reader, _) = worker(&cache, "x");
    put(&cache, &name("x", "large"), &too_large, 600, 0);
    assert_eq!(get(&reader, "large").unwrap(), too_large.bytes()[..]);
    audit(&cache);
}

#[test]
fn bytes_that_a_door_is_still_sending_stay_though_no_worker_has_pinned_them() {
    let cache = Cache::new(SMALL);
    let (_reader, _) = worker(&cache, "x");
    let (mut sending, mut sent) = (Vec::new(), Vec::new());
    for n in 0..600 {
        let value = blob(n, if n % 2 == 0 { 100 } else { 9_000 });
        put(&cache, &name("x", &format!("k{n}")), &value, n + 1, 0);
        if n % 20 < 2 {
            sending.push(cache.hit(name("x", &format!("k{n}")).as_bytes(), 0).unwrap().blob);
            sent.push(value);
        }
    }
    let gone = sending.iter().filter(|blob| cache.have(&blob.id()).is_none()).count();
    assert!(gone > 20, "{gone} left the cache");
    for (blob, value) in sending.iter().zip(&sent) {
        assert_eq!(blob.bytes(), value.bytes());
    }
    audit(&cache);
}

#[test]
fn a_large_value_is_copied_before_the_lock_is_taken_and_never_under_it() {
    let cache = Cache::new(ROOMY);
    let (reader, _) = worker(&cache, "x");
    let value = blob(1, 1_000_000);
    let put_unstaged = |key: &str, rev| {
        let _ = cache.install(&name("x", key), entry(&value, rev), &value, RegSeq(rev), 0);
        get(&reader, key).is_ok()
    };
    assert!(!put_unstaged("outside", 1), "it is held, and outside");
    assert!(cache.hit(name("x", "outside").as_bytes(), 0).is_some());
    let before = cache.stats();
    let (staged, evicted) = cache.stage(&name("x", "k"), &value);
    let staged = staged.unwrap();
    assert_eq!((staged.bytes(), staged.id(), evicted.len()), (value.bytes(), value.id(), 0));
    assert!(cache.stats().blob_bytes < before.blob_bytes - 900_000, "it has its home there now");
    assert!(put_unstaged("k", 2), "its bytes are there");
    shelve(&cache, "x");
    assert!(get(&reader, "outside").is_ok(), "so are those of whoever was outside");
    let again = cache.stage(&name("x", "k2"), &blob(1, 1_000_000)).0.unwrap();
    assert_eq!(again.bytes().as_ptr(), staged.bytes().as_ptr(), "they are there: nothing is left to compare");
    assert!(cache.stage(&name("x", "k"), &value.damaged()).0.is_none(), "others are there under that hash");
    assert!(cache.stage(&name("y", "k"), &blob(2, 1_000_000)).0.is_none(), "nobody attached to that one");
    assert!(cache.stage(&name("x", "small"), &blob(3, 1_000)).0.is_none());
    audit(&cache);
}

#[test]
fn room_for_a_large_value_is_looked_for_a_few_times_and_not_for_each_that_goes() {
    let cache = Cache::new(ROOMY);
    let (_reader, _) = worker(&cache, "x");
    (0..5_000).for_each(|n| _ = put(&cache, &name("x", &format!("k{n}")), &blob(n, 100), n + 1, 0));
    let (held, mut looks, mut evicted) = (cache.stats().blobs, 0, Evicted::new());
    let place = 1_000_000 + PLACE_SLACK;
    let none = cache.in_arena(&mut cache.ledger.lock(), &name("x", "large"), place, 0, &mut evicted, |_| {
        looks += 1;
        Err::<(), _>(Refusal::Full)
    });
    assert!(none.is_none());
    let went = held - cache.stats().blobs;
    assert!(went > 2_000, "{went} of {held} went, in vain");
    assert!(looks < 60, "{looks}");
    audit(&cache);
}

#[test]
fn a_large_value_with_more_names_than_can_share_it_is_written_once_and_the_others_are_outside() {
    let cache = Cache::new(ROOMY);
    let (reader, _) = worker(&cache, "x");
    let value = blob(1, 100_000);
    let key = |n: u64| format!("k{n}");
    (0..300).for_each(|n| _ = put(&cache, &name("x", &key(n)), &value, n + 1, 0));
    let found = (0..300).filter(|n| reader.get(key(*n).as_bytes()).is_ok()).count();
    assert_eq!(found as u64, audit(&cache));
    assert_eq!(found, 255, "the row that was written has no name of its own");
    assert!((0..300).all(|n| cache.hit(name("x", &key(n)).as_bytes(), 0).is_some()), "the doors serve all");
    let rows = cache.ledger.lock().shelves.all[&namespace("x")].arena.stats().rows;
    assert_eq!(rows, 1);
    // One that cannot be renewed in its place is not written either: it goes.
    let ends = Entry { expires_at: dstore_shared::End::new(1), ..entry(&value, 1) };
    let _ = cache.install_until(&name("x", &key(0)), (ends, Moment::MAX), &value, RegSeq(1_000), 0);
    assert_eq!((get(&reader, &key(0)), found as u64 - 1), (Err(Miss::Absent), audit(&cache)));
}

#[test]
fn a_decayed_copy_in_shared_memory_is_not_led_to_again() {
    let cache = Cache::new(SMALL);
    let (reader, _) = worker(&cache, "x");
    let value = blob(1, 5_000);
    put(&cache, &name("x", "a"), &value.damaged(), 1, 0);
    assert_ne!(get(&reader, "a").unwrap(), value.bytes()[..], "as a defect of the memory leaves it");
    // The bytes come whole, and are not those that lie there.
    let gone = put(&cache, &name("x", "b"), &value, 2, 0);
    assert_eq!(gone, [(name("x", "a"), RegSeq(1))], "what was bound to them is fetched anew");
    assert!(cache.hit(name("x", "a").as_bytes(), 0).is_none());
    let held = cache.hit(name("x", "b").as_bytes(), 0).unwrap().blob;
    assert_eq!(held.bytes(), value.bytes(), "the doors serve what came");
    assert_eq!(get(&reader, "b"), Err(Miss::Absent));
    assert_eq!(get(&reader, "a"), Err(Miss::Absent));
    audit(&cache);
}

#[test]
fn what_a_person_pins_stays_in_shared_memory_and_what_he_lets_go_leaves_it() {
    let cache = Cache::new(ROOMY);
    let (reader, _) = worker(&cache, "x");
    let (pinned, let_go) = (blob(1, 50_000), blob(2, 50_000));
    put(&cache, &name("x", "pinned"), &pinned, 1, 0);
    put(&cache, &name("x", "let go"), &let_go, 2, 0);
    assert!(cache.pin(&name("x", "pinned"), &pinned.id()));
    assert!(cache.remove_upto(&name("x", "let go"), Revision(2)));
    cache.let_go(&let_go.id());
    assert!(cache.have(&let_go.id()).is_none());
    audit(&cache);
    for n in 0..40 {
        put(&cache, &name("x", &format!("k{n}")), &blob(10 + n, 1_500_000), 10 + n, 0);
        assert_eq!(get(&reader, "pinned").unwrap(), pinned.bytes()[..], "whatever comes");
        audit(&cache);
    }
    assert!(get(&reader, "k39").is_ok() && get(&reader, "k0").is_err());
}

#[test]
fn what_workers_use_is_what_stays() {
    let cache = Cache::new(SMALL);
    let (reader, _) = worker(&cache, "x");
    for n in 0..20 {
        put(&cache, &name("x", &format!("hot{n}")), &blob(n, 2_000), n + 1, 0);
    }
    for n in 0..3_000_u64 {
        if n % 20 == 0 {
            for hot in 0..20 {
                let _ = get(&reader, &format!("hot{hot}"));
            }
            cache.sweep();
        }
        put(&cache, &name("x", &format!("scan{n}")), &blob(1_000 + n, 2_000), n + 100, 0);
    }
    let hot = (0..20).filter(|n| get(&reader, &format!("hot{n}")).is_ok()).count();
    assert!(hot >= 18, "{hot} of 20 hot values survived a scan");
    assert!(get(&reader, "scan10").is_err());
    audit(&cache);
}

#[test]
fn a_cache_too_small_for_an_arena_says_so_and_namespaces_are_bounded() {
    let e = Cache::new(CacheConfig { bytes: 1 << 20 }).attach(&namespace("x")).unwrap_err();
    assert!(e.to_string().contains("1 MiB is the least"), "{e}");
    let cache = Cache::new(CacheConfig { bytes: 256 << 20 });
    for n in 0..SHELVES_MAX {
        assert!(cache.attach(&namespace(&format!("n{n}"))).unwrap().is_first);
    }
    assert!(!cache.attach(&namespace("n0")).unwrap().is_first);
    let e = cache.attach(&namespace("more")).unwrap_err();
    assert!(matches!(e, NotShelved::TooMany), "{e}");
}

#[test]
fn a_namespace_that_was_first_leaves_room_for_another() {
    let cache = Cache::new(CacheConfig { bytes: 64 << 20 });
    let (first, _) = worker(&cache, "x");
    for n in 0..200 {
        put(&cache, &name("x", &format!("k{n}")), &blob(n, 500_000), n, 0);
    }
    let (second, _) = worker(&cache, "y");
    let value = blob(1_000, 1_000_000);
    put(&cache, &name("y", "k"), &value, 1_000, 0);
    assert_eq!(get(&second, "k").unwrap(), value.bytes()[..]);
    let held = (0..200).filter(|n| get(&first, &format!("k{n}")).is_ok()).count();
    assert!(held > 70, "{held} are still there");
    audit(&cache);
}

/// Steps of a generator that needs no more.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn after_any_changes_workers_find_names_that_the_cache_holds_and_no_others() {
    for seed in 1..=2 {
        let mut dice = seed;
        let cache = Cache::new(ROOMY);
        let mut workers = Vec::new();
        let mut published = 0;
        for step in 1..=500_u64 {
            let space = ["x", "y", "z"][next(&mut dice) as usize % 3];
            let key = name(space, &format!("k{}", next(&mut dice) % 40));
            let size = [10, 400, 600, 5_000, 300_000, 1_200_000][next(&mut dice) as usize % 6];
            let value = blob(next(&mut dice) % 60, size);
            match next(&mut dice) % 16 {
                0 => _ = cache.remove_upto(&key, Revision(step)),
                1 => _ = cache.validate(&key, Revision(step - 1), RegSeq(step), step / 100),
                2 => _ = cache.drop_unvalidated(&key, step / 100),
                3 => _ = cache.admit(&value),
                4 => _ = cache.expel(&value.id()),
                5 if step % 7 == 0 => cache.drop_all_names(),
                6 => {
                    let prefix = Prefix::new(&namespace(space), b"k1").unwrap();
                    cache.remove_prefix_upto(&prefix, Revision(step));
                }
                7 => _ = cache.forget(&key),
                8 if workers.len() < 12 => {
                    if let Ok(attached) = cache.attach(&namespace(space)) {
                        workers.push((space, (Reader::map(attached.descriptors).unwrap(), attached.worker)));
                    }
                }
                9 => shelve(&cache, space),
                10 => _ = cache.sweep(),
                11 => _ = cache.make_room(value.size(), 5),
                12 if !workers.is_empty() => {
                    let (space, (reader, id)) = workers.swap_remove(next(&mut dice) as usize % workers.len());
                    drop(reader);
                    cache.detach(&namespace(space), id);
                }
                die => {
                    let (reg_seq, era) = (RegSeq(step), step / 100);
                    let staged = (die > 13).then(|| cache.stage(&key, &value).0).flatten();
                    let value = staged.unwrap_or(value);
                    let _ = cache.install(&key, entry(&value, step), &value, reg_seq, era);
                }
            }
            published += audit(&cache);
        }
        assert!(published > 400, "seed {seed}: {published}");
    }
}

#[test]
fn workers_never_see_bytes_of_another_name_nor_a_binding_removed_before_they_began() {
    const KEYS: u64 = 64;
    let cache = Cache::new(SMALL);
    let (reader, _) = worker(&cache, "x");
    let sized = |key: u64, rev: u64| {
        let mut bytes = [key.to_le_bytes(), rev.to_le_bytes()].concat();
        bytes.resize(16 + (rev % 60) as usize * 700, rev as u8);
        Blob::hash(bytes)
    };
    let removed: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let (done, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for start in 0..2 {
            let (reader, removed, done, hits) = (&reader, &removed, &done, &hits);
            scope.spawn(move || {
                let mut key = start;
                while !done.load(Ordering::Acquire) {
                    key = (key * 5 + 7) % KEYS;
                    let floor = removed[key as usize].load(Ordering::Acquire);
                    let Ok(value) = reader.get(format!("k{key}").as_bytes()) else { continue };
                    let rev = value.meta().bind_rev;
                    assert_eq!(value[..16], [key.to_le_bytes(), rev.to_le_bytes()].concat());
                    assert!(
                        value[16..].iter().all(|byte| *byte == rev as u8),
                        "all bytes are of that binding"
                    );
                    assert!(rev > floor, "`k{key}` at {rev} was removed up to {floor}");
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=2_000_u64 {
            let key = (round * 7 + round / 64) % KEYS;
            put(&cache, &name("x", &format!("k{key}")), &sized(key, round), round, 0);
            if round % 3 == 0 {
                cache.remove_upto(&name("x", &format!("k{key}")), Revision(round));
                removed[key as usize].store(round, Ordering::Release);
            }
            if round % 50 == 0 {
                cache.sweep();
            }
        }
        done.store(true, Ordering::Release);
    });
    audit(&cache);
    let (stats, hits) = (cache.stats(), hits.into_inner());
    assert!(hits > 100 && stats.names_evicted > 50, "{hits} hits, {stats:?}");
}
