use crate::catalog::tests::{bind, commit, entry, gated, name, plain};
use crate::catalog::{Catalog, CatalogConfig};
use crate::change::Change;
use dstore_shared::{Entry, Moment, Name, Revision};
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Walks over all pages.
fn walk(catalog: &Catalog, prefix: &Name, limit: usize) -> Vec<(Name, Entry)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = catalog.list(prefix.as_bytes(), after.as_ref(), limit).unwrap();
        assert!(page.names.len() <= limit);
        all.extend(page.names);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

#[test]
fn pages_give_what_one_map_would_wherever_the_names_are() {
    let rng = SeededRng::new(7);
    for (round, limit) in [(0, 1), (1, 3), (2, 10), (3, 1000)] {
        let config = CatalogConfig { memtable_bytes: 12_000, ..CatalogConfig::default() };
        let (rig, gate, _) = gated(&config);
        let mut model = BTreeMap::new();
        let mut closed = None;
        for revision in 1..=600 {
            let key = format!("{}/{:03}", rng.next_u64() % 3, rng.next_u64() % 300);
            let change = if rng.next_u64().is_multiple_of(3) {
                model.remove(&name(&key));
                Change::Unbind { name: name(&key) }
            } else {
                model.insert(name(&key), entry(revision));
                bind(&key, revision)
            };
            rig.catalog.show(&[commit(revision, vec![change])]).unwrap();
            match rng.next_u64() % 60 {
                // From here on memtables gather, frozen.
                0 if closed.is_none() => closed = Some(gate.lock()),
                1 => closed = None,
                2 if closed.is_none() => _ = rig.checkpoint(vec![]),
                3..6 => {
                    for prefix in ["", "1/", "2/1"] {
                        let prefix = name(&format!("{prefix}x"));
                        let prefix = Name::from_packed(prefix.packed().slice(..prefix.as_bytes().len() - 1));
                        let Ok(prefix) = prefix else { continue };
                        let want: Vec<_> = model
                            .iter()
                            .filter(|(name, _)| name.as_bytes().starts_with(prefix.as_bytes()))
                            .map(|(name, entry)| (name.clone(), entry.clone()))
                            .collect();
                        assert_eq!(walk(&rig.catalog, &prefix, limit), want, "round {round}");
                    }
                }
                _ => {}
            }
        }
        drop(closed);
    }
}

#[test]
fn a_page_is_of_one_revision_though_names_move_into_the_index() {
    let config = CatalogConfig { memtable_bytes: 20_000, pending_bytes: 60_000, ..CatalogConfig::default() };
    let (rig, _gate, _) = gated(&config);
    let names: Vec<String> = (0..20).map(|i| format!("{i:02}")).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for revision in 1..=3000 {
                // All of them, or none of them: and always something else.
                let mut changes: Vec<Change> = names
                    .iter()
                    .map(|key| match revision % 2 {
                        0 => Change::Unbind { name: name(key) },
                        _ => bind(key, revision),
                    })
                    .collect();
                changes.push(bind(&format!("other {}", revision % 500), revision));
                rig.catalog.make_room();
                rig.catalog.show(&[commit(revision, changes)]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut full = 0;
        while !done.load(Ordering::SeqCst) {
            let prefix = name("x").packed().slice(..name("x").as_bytes().len() - 1);
            let page = rig.catalog.list(&prefix, None, 20).unwrap();
            let of_all = |(name, _): &&(Name, Entry)| {
                !name.as_bytes().ends_with(b"other") && name.as_bytes().len() < 14
            };
            let found: Vec<_> = page.names.iter().filter(of_all).collect();
            if page.revision.0 % 2 == 0 {
                assert!(found.is_empty(), "at {}: {found:?}", page.revision);
            } else {
                full += 1;
                assert!(page.names.iter().all(|(_, entry)| entry.bind_rev <= page.revision));
                let wanted = if page.next.is_some() { 0 } else { 20 };
                assert!(found.len() >= wanted, "at {}: {}", page.revision, found.len());
                assert!(found.iter().all(|(_, entry)| entry.bind_rev == page.revision));
            }
        }
        assert!(full > 0);
    });
}

#[test]
fn what_stays_is_on_exactly_one_page_while_half_is_deleted() {
    let rig = plain();
    let key = |i: u64| format!("{i:05}");
    let all: Vec<Change> = (0..10_000).map(|i| bind(&key(i), 1)).collect();
    rig.catalog.show(&[commit(1, all)]).unwrap();
    rig.catalog.checkpoint(Moment::ZERO, vec![]).blocking_recv().unwrap().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for i in (1..10_000).step_by(2) {
                rig.catalog.show(&[commit(i + 1, vec![Change::Unbind { name: name(&key(i)) }])]).unwrap();
            }
        });
        let prefix = Name::from_packed(name("x").packed()).unwrap();
        let prefix = &prefix.as_bytes()[..prefix.as_bytes().len() - 1];
        let (mut seen, mut after) = (Vec::new(), None::<Name>);
        loop {
            let page = rig.catalog.list(prefix, after.as_ref(), 100).unwrap();
            seen.extend(page.names.into_iter().map(|(name, _)| name));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, none twice");
        let seen: BTreeSet<Name> = seen.into_iter().collect();
        assert!((0..10_000).step_by(2).all(|i| seen.contains(&name(&key(i)))), "none missing");
    });
    assert_eq!(rig.catalog.head(), Revision(10_000));
}
