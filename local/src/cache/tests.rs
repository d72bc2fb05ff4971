use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const ROOMY: CacheConfig = CacheConfig { bytes: 1 << 20 };

fn name(key: impl std::fmt::Display) -> Name {
    Name::of(format!("{key}")).unwrap()
}

fn blob(n: u64, size: usize) -> Blob {
    let mut bytes = vec![n as u8; size.max(8)];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    Blob::hash(bytes)
}

fn entry(blob: &Blob, rev: u64) -> Entry {
    Entry {
        hash: blob.id(),
        size: blob.size(),
        bind_rev: Revision(rev),
        expires_at: None,
        content_type: None,
    }
}

fn install(cache: &Cache, key: &str, blob: &Blob, rev: u64, reg: u64, era: u64) -> Admission {
    cache.install(&name(key), entry(blob, rev), blob, RegSeq(reg), era)
}

fn installed(admission: Admission) -> Evicted {
    match admission {
        Admission::Installed { evicted } => evicted,
        Admission::Refused(why) => panic!("refused: {why:?}"),
    }
}

fn rev_served(cache: &Cache, key: &str, era: u64) -> Option<u64> {
    cache.hit(name(key).as_bytes(), era).map(|hit| hit.entry.bind_rev.0)
}

/// Counts everything anew and compares with the books.
fn audit(cache: &Cache) {
    let stats = cache.stats();
    let (names, blobs) = (cache.names.all(), cache.blobs.all());
    let ledger = cache.ledger.lock();
    assert_eq!(stats.name_bytes, names.iter().map(|(.., charge)| charge).sum::<u64>());
    assert_eq!(stats.blob_bytes, blobs.iter().map(|(_, charge, _)| charge).sum::<u64>());
    assert_eq!((stats.blob_bytes, blobs.len()), ledger.eviction.recount());
    assert_eq!((stats.names, stats.blobs), (names.len() as u64, blobs.len() as u64));
    assert_eq!(stats.names, stats.names_installed - stats.names_removed - stats.names_evicted);
    assert_eq!(stats.blobs, stats.blobs_admitted - stats.blobs_evicted);
    assert!(stats.bytes() <= stats.bytes_max, "{stats:?}");
    assert_eq!(ledger.numbers.len(), blobs.len());
    let mut held: HashMap<_, Vec<usize>> = HashMap::new();
    for (name, hash, slot, _) in names {
        assert_eq!(ledger.slots.name(slot), &name);
        held.entry(hash).or_default().push(slot);
    }
    for (hash, _, mut holders) in blobs {
        let mut expected = held.remove(&hash).unwrap_or_default();
        holders.sort_unstable();
        expected.sort_unstable();
        assert_eq!(holders, expected);
    }
    assert!(held.is_empty(), "names without a resident blob: {held:?}");
}

#[test]
fn a_name_is_served_in_its_own_era_and_earlier_ones_and_comes_back_when_validated() {
    let (cache, x) = (Cache::new(ROOMY), blob(1, 100));
    installed(install(&cache, "k", &x, 5, 1, 1));
    let hit = cache.hit(name("k").as_bytes(), 1).unwrap();
    assert_eq!((hit.entry, hit.blob.bytes()), (entry(&x, 5), x.bytes()));
    assert!(cache.hit(name("k").as_bytes(), 2).is_none(), "a new era has begun");
    assert!(cache.stale_hit(name("k").as_bytes()).is_some());
    assert!(!cache.validate(&name("k"), Revision(4), RegSeq(2), 2), "that is another binding");
    assert_eq!(rev_served(&cache, "k", 2), None);
    assert!(cache.validate(&name("k"), Revision(5), RegSeq(2), 2));
    assert_eq!((rev_served(&cache, "k", 2), rev_served(&cache, "k", 1)), (Some(5), Some(5)));
    assert_eq!(rev_served(&cache, "k", 3), None);
    assert!(!cache.validate(&name("absent"), Revision(5), RegSeq(3), 2));
}

#[test]
fn rule_10_a_removal_spares_newer_bindings_only_and_takes_unservable_ones_too() {
    let (cache, x) = (Cache::new(ROOMY), blob(1, 100));
    installed(install(&cache, "k", &x, 5, 1, 1));
    assert!(!cache.remove_upto(&name("k"), Revision(4)));
    assert_eq!(rev_served(&cache, "k", 1), Some(5));
    assert!(cache.remove_upto(&name("k"), Revision(5)), "an equal revision is removed");
    assert!(!cache.remove_upto(&name("k"), Revision(5)), "it is gone");
    installed(install(&cache, "old", &x, 5, 2, 1));
    assert_eq!(rev_served(&cache, "old", 2), None);
    assert!(cache.remove_upto(&name("old"), Revision(9)), "whatever its era");
    assert!(!cache.validate(&name("old"), Revision(5), RegSeq(3), 2));
    audit(&cache);
}

#[test]
fn an_install_keeps_the_newer_binding_and_of_one_binding_the_newer_registration() {
    let (cache, x, y) = (Cache::new(ROOMY), blob(1, 100), blob(2, 100));
    installed(install(&cache, "k", &x, 5, 7, 1));
    let refused = install(&cache, "k", &y, 4, 8, 1);
    assert_eq!(refused, Admission::Refused(Refusal::Older(Revision(5))));
    assert_eq!(rev_served(&cache, "k", 1), Some(5));
    installed(install(&cache, "k", &x, 5, 6, 2));
    assert_eq!(rev_served(&cache, "k", 2), Some(5), "the newer era counts");
    let reg_seq = || cache.names.view(name("k").as_bytes(), |h| h.reg_seq).unwrap();
    assert_eq!(reg_seq(), RegSeq(7), "and so does the newer registration, though its reply came first");
    let longer = Entry { expires_at: dstore_shared::End::new(99), ..entry(&x, 5) };
    installed(cache.install(&name("k"), longer.clone(), &x, RegSeq(8), 2));
    assert_eq!(cache.hit(name("k").as_bytes(), 2).unwrap().entry, longer);
    installed(install(&cache, "k", &y, 6, 3, 2));
    assert_eq!(cache.hit(name("k").as_bytes(), 2).unwrap().blob.id(), y.id());
    assert_eq!(reg_seq(), RegSeq(3), "a newer binding has registrations of its own");
    audit(&cache);
}

#[test]
fn rule_19_a_refused_name_is_dropped_unless_it_was_installed_anew() {
    let (cache, x) = (Cache::new(ROOMY), blob(1, 100));
    installed(install(&cache, "refused", &x, 5, 1, 1));
    installed(install(&cache, "anew", &x, 5, 2, 1));
    installed(install(&cache, "anew", &x, 6, 3, 2));
    assert!(cache.drop_unvalidated(&name("refused"), 2));
    assert!(!cache.drop_unvalidated(&name("anew"), 2));
    assert_eq!((rev_served(&cache, "anew", 2), cache.stats().names), (Some(6), 1));
    audit(&cache);
}

#[test]
fn rule_31_blobs_outlive_their_names() {
    let (cache, x) = (Cache::new(ROOMY), blob(1, 100));
    installed(install(&cache, "a", &x, 5, 1, 1));
    installed(install(&cache, "b", &x, 6, 2, 1));
    assert_eq!((cache.stats().names, cache.stats().blobs), (2, 1), "one copy however many names");
    cache.remove_upto(&name("a"), Revision(5));
    cache.drop_all_names();
    assert_eq!((rev_served(&cache, "b", 1), cache.stale_hit(name("b").as_bytes()).is_none()), (None, true));
    assert_eq!(cache.have(&x.id()).unwrap().bytes(), x.bytes());
    assert!(cache.have(&blob(2, 100).id()).is_none());
    audit(&cache);
    installed(install(&cache, "b", &x, 2, 3, 2)); // another history may have smaller revisions
    assert_eq!((rev_served(&cache, "b", 2), cache.stats().blobs_admitted), (Some(2), 1));
    audit(&cache);
}

#[test]
fn an_evicted_blob_takes_its_names_along_and_stays_readable_for_who_has_it() {
    let cache = Cache::new(CacheConfig { bytes: 40_000 });
    let x = blob(0, 4_000);
    installed(install(&cache, "a", &x, 1, 1, 1));
    installed(install(&cache, "b", &x, 2, 2, 1));
    let in_hand = cache.have(&x.id()).unwrap();
    let mut evicted = Vec::new();
    for n in 1..40 {
        evicted.extend(installed(install(&cache, &n.to_string(), &blob(n, 4_000), 10 + n, 10 + n, 1)));
        audit(&cache);
    }
    evicted.sort();
    assert!(evicted.contains(&(name("a"), RegSeq(1))) && evicted.contains(&(name("b"), RegSeq(2))));
    assert!(evicted.iter().all(|(n, _)| cache.stale_hit(n.as_bytes()).is_none()));
    assert_eq!(evicted.len() as u64 + cache.stats().names, 41, "each name is held or was reported once");
    assert!(cache.have(&x.id()).is_none());
    assert_eq!(in_hand.bytes(), x.bytes());
}

#[test]
fn what_is_too_large_or_mislabelled_is_not_admitted_and_pushes_nothing_out() {
    let cache = Cache::new(CacheConfig { bytes: 40_000 });
    installed(install(&cache, "k", &blob(1, 4_000), 1, 1, 1));
    let max = cache.blob_bytes_max() as usize;
    assert_eq!(install(&cache, "k2", &blob(2, 10_001), 2, 2, 1), Admission::Refused(Refusal::Oversize));
    assert_eq!(cache.admit(&blob(2, 10_001)), Admission::Refused(Refusal::Oversize));
    let mislabelled = cache.install(&name("k3"), entry(&blob(3, 50), 3), &blob(4, 50), RegSeq(3), 1);
    assert_eq!(mislabelled, Admission::Refused(Refusal::Mismatch));
    assert_eq!((cache.stats().names, cache.stats().blobs, cache.stats().refused), (1, 1, 3));
    installed(install(&cache, "k2", &blob(2, max), 2, 4, 1));
    assert_eq!(install(&cache, "k", &blob(5, 20_000), 9, 5, 1), Admission::Refused(Refusal::Oversize));
    assert_eq!(rev_served(&cache, "k", 1), None, "a newer binding proves the one held dead");
    audit(&cache);
    let nothing = Cache::new(CacheConfig { bytes: 0 });
    assert_eq!(install(&nothing, "k", &blob(1, 8), 1, 1, 1), Admission::Refused(Refusal::Oversize));
}

#[test]
fn a_blob_of_very_many_names_loses_them_a_few_at_a_time() {
    let (cache, x) = (Cache::new(CacheConfig { bytes: 400_000 }), Blob::hash(""));
    let mut evicted = Vec::new();
    for n in 0..5_000 {
        let gone = installed(install(&cache, &n.to_string(), &x, n, n, 1));
        assert!(gone.len() <= SHED_MAX + 1);
        evicted.extend(gone);
    }
    audit(&cache);
    assert_eq!(evicted.len() as u64 + cache.stats().names, 5_000);
    let recent = (4_500..5_000).filter(|n| rev_served(&cache, &n.to_string(), 1).is_some()).count();
    assert!(recent > 150, "those that go are chosen among all, not the last: {recent}");
}

#[test]
fn room_for_a_large_blob_is_made_in_steps() {
    let cache = Cache::new(CacheConfig { bytes: 400_000 });
    for n in 0..1_000 {
        let _ = install(&cache, &n.to_string(), &blob(n, 100), n, n, 1);
    }
    let (mut gone, mut steps) = (0, 0);
    loop {
        let (evicted, more) = cache.make_room(90_000, 10);
        assert!(evicted.len() <= 10);
        (gone, steps) = (gone + evicted.len(), steps + 1);
        if !more {
            break;
        }
    }
    assert!(steps > 2, "{gone} in {steps}");
    audit(&cache);
    assert!(installed(cache.admit(&blob(9_999, 80_000))).is_empty());
    assert!(!cache.make_room(u64::MAX, 1_000).1);
    assert_eq!(cache.stats().bytes(), 0);
}

#[test]
fn a_listing_misses_no_stale_name_that_was_there_throughout() {
    let (cache, x) = (Cache::new(CacheConfig { bytes: 64 << 20 }), blob(1, 100));
    for n in 0..10_000 {
        installed(install(&cache, &n.to_string(), &x, n, n, 1));
    }
    let (mut at, mut listed) = (Some(Cursor::default()), HashMap::new());
    let mut churn = 0..5_000_u64;
    while let Some(from) = at {
        let batch = cache.stale_names(2, from, 100);
        assert!(batch.names.len() <= 100);
        for (name, rev) in batch.names {
            assert_eq!(listed.insert(name, rev), None, "listed once");
        }
        at = batch.next;
        for n in churn.by_ref().take(100) {
            // Of the even names some go and come back in the new era; new ones take slots that became free.
            cache.remove_upto(&name(2 * n), Revision(u64::MAX));
            installed(install(&cache, &(2 * n).to_string(), &x, 20_000 + n, n, 2));
            installed(install(&cache, &format!("new {n}"), &x, n, n, 2));
        }
    }
    for n in (0..10_000).filter(|n| n % 2 == 1) {
        assert_eq!(listed.get(&name(n)), Some(&Revision(n)), "name {n} was held throughout");
    }
    assert!(listed.values().all(|rev| rev.0 < 10_000), "a name of the new era is not listed");
    audit(&cache);
}

#[test]
fn a_long_scan_does_not_flush_the_hot_set() {
    let cache = Cache::new(CacheConfig { bytes: 2 << 20 });
    let get = |n: u64| {
        let hit = cache.hit(name(n).as_bytes(), 1).is_some();
        if !hit {
            installed(install(&cache, &n.to_string(), &blob(n, 100), 1, 1, 1));
        }
        hit
    };
    let hot = 0..1_000;
    for _ in 0..4 {
        hot.clone().for_each(|n| _ = get(n));
    }
    (1_000_000..1_050_000).for_each(|n| _ = get(n));
    let still = hot.clone().filter(|n| cache.hit(name(n).as_bytes(), 1).is_some()).count();
    audit(&cache);
    assert!(still >= 900, "{still} of 1000 hot names survived a scan of 50,000");
}

#[test]
fn a_hit_on_small_bytes_pins_no_frame() {
    let (cache, frame) = (Cache::new(ROOMY), bytes::Bytes::from(vec![7; 100_000]));
    let x = Blob::hash(frame.slice(100..200));
    let key = Name::from_packed([&b"default\0"[..], &frame[..10]].concat().into()).unwrap();
    installed(cache.install(&key, entry(&x, 1), &x, RegSeq(1), 1));
    drop(x);
    assert!(frame.is_unique());
    assert!(cache.hit(key.as_bytes(), 1).is_some());
}

/// One change, of a small world: 8 names, 12 blobs, few revisions.
#[derive(Clone, Debug)]
enum Step {
    Install { key: u8, blob: u8, rev: u64, reg: u64, era: u64 },
    Admit(u8),
    RemoveUpto(u8, u64),
    Validate { key: u8, rev: u64, reg: u64, era: u64 },
    DropUnvalidated(u8, u64),
    DropAll,
    MakeRoom(u64),
    Hit(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, rev, era) = (0..40_u8, 0..6_u64, 0..3_u64);
    prop_oneof![
        8 => (key.clone(), 0..60_u8, rev.clone(), 0..9_u64, era.clone())
            .prop_map(|(key, blob, rev, reg, era)| Step::Install { key, blob, rev, reg, era }),
        2 => (0..60_u8).prop_map(Step::Admit),
        3 => (key.clone(), rev.clone()).prop_map(|(k, r)| Step::RemoveUpto(k, r)),
        2 => (key.clone(), rev, 0..9_u64, era.clone())
            .prop_map(|(key, rev, reg, era)| Step::Validate { key, rev, reg, era }),
        1 => (key.clone(), era.clone()).prop_map(|(k, e)| Step::DropUnvalidated(k, e)),
        1 => Just(Step::DropAll),
        1 => (0..20_000_u64).prop_map(Step::MakeRoom),
        6 => (key, era).prop_map(|(k, e)| Step::Hit(k, e)),
    ]
}

/// Sizes from nothing to oversize.
fn sized(n: u8) -> Blob {
    blob(u64::from(n), [0, 100, 900, 3_000, 5_500][usize::from(n) % 5])
}

/// What the cache should hold: blob, revision, registration and era of each name.
type Model = HashMap<Name, (u8, u64, u64, u64)>;

fn apply(cache: &Cache, model: &mut Model, step: &Step) {
    match *step {
        Step::Install { key, blob, rev, reg, era } => {
            // One revision is one binding, so revision and blob go together.
            let (key, rev) = (name(key), rev * 60 + u64::from(blob));
            let x = sized(blob);
            let outcome = cache.install(&key, entry(&x, rev), &x, RegSeq(reg), era);
            let held = model.get(&key).copied();
            match (held, outcome) {
                (Some((_, newer, ..)), Admission::Refused(Refusal::Older(r))) => {
                    assert!(newer > rev && r.0 == newer);
                }
                (Some((b, same, g, e)), Admission::Installed { evicted }) if same == rev => {
                    assert!(evicted.is_empty());
                    model.insert(key, (b, same, g.max(reg), e.max(era)));
                }
                (held, Admission::Refused(Refusal::Oversize)) => {
                    assert!(held.is_none_or(|(_, older, ..)| older < rev) && x.size() > 3_000);
                    model.remove(&key);
                }
                (held, Admission::Installed { evicted }) => {
                    assert!(held.is_none_or(|(_, older, ..)| older < rev));
                    model.remove(&key);
                    forget(model, evicted);
                    model.insert(key, (blob, rev, reg, era));
                }
                (held, outcome) => panic!("{held:?} {outcome:?}"),
            }
        }
        Step::Admit(b) => {
            if let Admission::Installed { evicted } = cache.admit(&sized(b)) {
                forget(model, evicted);
                assert!(cache.have(&sized(b).id()).is_some());
            }
        }
        Step::RemoveUpto(k, r) => {
            let due = model.get(&name(k)).is_some_and(|held| held.1 <= r * 60);
            assert_eq!(cache.remove_upto(&name(k), Revision(r * 60)), due);
            model.retain(|n, _| !(due && *n == name(k)));
        }
        Step::Validate { key, rev, reg, era } => {
            let held = model.get_mut(&name(key));
            let rev = held.as_ref().map_or(rev, |h| if rev < 3 { h.1 } else { rev });
            let done = cache.validate(&name(key), Revision(rev), RegSeq(reg), era);
            match held {
                Some(held) if held.1 == rev => {
                    assert!(done);
                    (held.2, held.3) = (held.2.max(reg), held.3.max(era));
                }
                _ => assert!(!done),
            }
        }
        Step::DropUnvalidated(k, e) => {
            let due = model.get(&name(k)).is_some_and(|held| held.3 < e);
            assert_eq!(cache.drop_unvalidated(&name(k), e), due);
            model.retain(|n, _| !(due && *n == name(k)));
        }
        Step::DropAll => {
            cache.drop_all_names();
            model.clear();
        }
        Step::MakeRoom(bytes) => forget(model, cache.make_room(bytes, 5).0),
        Step::Hit(k, era) => {
            let expected = model.get(&name(k)).filter(|held| held.3 >= era);
            let hit = cache.hit(name(k).as_bytes(), era);
            let found = hit.map(|h| (h.blob.id(), h.entry.hash, h.entry.bind_rev.0));
            assert_eq!(found, expected.map(|held| (sized(held.0).id(), sized(held.0).id(), held.1)));
        }
    }
}

fn forget(model: &mut Model, evicted: Evicted) {
    for (name, reg_seq) in evicted {
        let held = model.remove(&name).expect("an evicted name was held");
        assert_eq!(held.2, reg_seq.0, "the registration that DROP must name");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn after_any_changes_the_books_are_right_and_the_names_are_those_of_the_model(
        steps in prop::collection::vec(step(), 1..250)
    ) {
        let (cache, mut model) = (Cache::new(CacheConfig { bytes: 20_000 }), Model::new());
        for step in steps {
            apply(&cache, &mut model, &step);
            audit(&cache);
            let held: HashMap<_, _> = cache.names.all().into_iter().map(|(n, hash, ..)| (n, hash)).collect();
            let expected: HashMap<_, _> = model.iter().map(|(n, h)| (n.clone(), sized(h.0).id())).collect();
            prop_assert_eq!(held, expected);
        }
    }
}

/// A value that tells the revision under which it was set.
fn self_describing(key: u64, rev: u64) -> Blob {
    let mut bytes = [key.to_le_bytes(), rev.to_le_bytes()].concat();
    bytes.resize(16 + (rev % 700) as usize, rev as u8);
    Blob::hash(bytes)
}

fn check_hit(key: u64, hit: &Hit) {
    assert_eq!((hit.blob.id(), hit.blob.size()), (hit.entry.hash, hit.entry.size));
    let expected = [key.to_le_bytes(), hit.entry.bind_rev.0.to_le_bytes()].concat();
    assert_eq!(hit.blob.bytes()[..16], expected, "the bytes are those of that name at that revision");
    assert_eq!(BlobHash::of(hit.blob.bytes()), hit.entry.hash);
}

#[test]
fn readers_never_see_bytes_that_are_not_the_entrys_nor_a_binding_removed_before_they_began() {
    const KEYS: u64 = 64;
    let cache = Cache::new(CacheConfig { bytes: 60_000 }); // holds about half: evictions never stop
    let removed: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let (done, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    let names: Vec<Name> = (0..KEYS).map(name).collect();
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (cache, removed, done, hits, names) = (&cache, &removed, &done, &hits, &names);
            scope.spawn(move || {
                let mut key = reader;
                while !done.load(Ordering::Acquire) {
                    key = (key * 5 + 7) % KEYS;
                    let floor = removed[key as usize].load(Ordering::Acquire);
                    if let Some(hit) = cache.hit(names[key as usize].as_bytes(), 1) {
                        check_hit(key, &hit);
                        assert!(hit.entry.bind_rev.0 > floor, "{hit:?} was removed up to {floor}");
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let writers = [0, 1].map(|half| {
            let (cache, removed, names) = (&cache, &removed, &names);
            scope.spawn(move || {
                for round in 1..=15_000_u64 {
                    // Each writer owns half of the names: what it removed nobody else brings back.
                    let key = (round * 7 + round / 64) % (KEYS / 2) * 2 + half;
                    let x = self_describing(key, round);
                    let _ = cache.install(&names[key as usize], entry(&x, round), &x, RegSeq(round), 1);
                    if round % 3 == 0 {
                        cache.remove_upto(&names[key as usize], Revision(round));
                        removed[key as usize].store(round, Ordering::Release);
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    audit(&cache);
    let (stats, hits) = (cache.stats(), hits.into_inner());
    assert!(hits > 1_000 && stats.names_evicted > 1_000, "{hits} hits, {stats:?}");
}

#[test]
fn a_round_of_samples_has_each_copy_once_and_an_expelled_one_goes_with_its_names() {
    let cache = Cache::new(ROOMY);
    let blobs: Vec<_> = (0..200).map(|n| blob(n, 100)).collect();
    for (n, blob) in blobs.iter().enumerate() {
        installed(install(&cache, &format!("a{n}"), blob, 1, 1, 0));
        installed(install(&cache, &format!("b{n}"), blob, 2, 2, 0));
    }
    let (mut seen, mut at, mut rounds) = (Vec::new(), 0, 0);
    loop {
        let (sample, next) = cache.sample(at, 1000);
        assert!(sample.len() <= 10, "{}", sample.len());
        seen.extend(sample.iter().map(Blob::id));
        rounds += 1;
        at = next;
        if at == 0 {
            break;
        }
    }
    seen.sort();
    let mut all: Vec<_> = blobs.iter().map(dstore_shared::Blob::id).collect();
    all.sort();
    assert_eq!(seen, all);
    assert!(rounds > 10, "{rounds}");
    let mut gone = cache.expel(&blobs[7].id());
    gone.sort_by_key(|(_, reg_seq)| *reg_seq);
    assert_eq!(gone, [(name("a7"), RegSeq(1)), (name("b7"), RegSeq(2))]);
    assert!(cache.have(&blobs[7].id()).is_none() && cache.hit(name("a7").as_bytes(), 0).is_none());
    assert!(cache.hit(name("b8").as_bytes(), 0).is_some(), "others stay");
    assert!(cache.expel(&blobs[7].id()).is_empty(), "there is none any more");
    audit(&cache);
    // Its place is taken again.
    installed(install(&cache, "c", &blob(1000, 100), 3, 3, 0));
    audit(&cache);
}

#[test]
fn the_names_under_a_prefix_are_removed_up_to_a_revision_and_the_books_are_right() {
    let cache = Cache::new(CacheConfig { bytes: 1 << 20 });
    let blob = Blob::hash("v");
    let keys = ["a", "a/1", "a/2", "a/3", "b/a/1", "aa"];
    for (i, k) in keys.iter().enumerate() {
        let entry = Entry {
            hash: blob.id(),
            size: 1,
            bind_rev: Revision(i as u64 + 1),
            expires_at: None,
            content_type: None,
        };
        let installed = cache.install(&name(k), entry, &blob, RegSeq(1), i as u64 % 2);
        assert_eq!(installed, Admission::Installed { evicted: Evicted::new() });
    }
    let prefix = Prefix::new(&dstore_shared::Namespace::default(), b"a/").unwrap();
    assert_eq!(cache.remove_prefix_upto(&prefix, Revision(3)), 2, "whatever their era");
    assert_eq!(cache.remove_prefix_upto(&prefix, Revision(3)), 0);
    let held = |k: &str| cache.stale_hit(name(k).as_bytes()).is_some();
    assert_eq!(keys.map(held), [true, false, false, true, true, true]);
    assert_eq!(cache.stats().names, 4);
    let all = Prefix::new(&dstore_shared::Namespace::default(), b"").unwrap();
    assert_eq!(cache.remove_prefix_upto(&all, Revision(100)), 4);
    assert_eq!((cache.stats().names, cache.stats().name_bytes), (0, 0));
    assert!(cache.have(&blob.id()).is_some(), "blobs stay");
}

#[test]
fn a_name_tells_until_when_it_is_served_and_a_newer_binding_another_end() {
    let (cache, x) = (Cache::new(ROOMY), Blob::hash("x"));
    let until = |ms: u64| Moment::from_nanos(ms * 1_000_000);
    let timed = |rev| Entry { expires_at: dstore_shared::End::new(99), ..entry(&x, rev) };
    let put = |rev, reg, end| cache.install_until(&name("k"), (timed(rev), end), &x, RegSeq(reg), 1);
    let end = || cache.hit(name("k").as_bytes(), 1).map(|hit| hit.until);
    let _ = put(5, 1, until(10));
    assert_eq!(end(), Some(until(10)));
    let _ = put(6, 2, until(20));
    assert_eq!(end(), Some(until(20)));
    let _ = put(6, 1, until(30));
    assert_eq!(end(), Some(until(20)), "of one binding the later registration counts");
    let _ = cache.install(&name("k"), timed(7), &x, RegSeq(3), 1);
    assert_eq!(end(), Some(Moment::ZERO), "without an end it is not served");
    let _ = cache.install(&name("k"), entry(&x, 8), &x, RegSeq(4), 1);
    assert_eq!(end(), Some(Moment::MAX));
}
