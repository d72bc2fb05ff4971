//! What every engine must do: one suite, run against each.
//!
//! A crash is played by copying the index's folder while the engine is open, which is what a killed process
//! leaves behind, and by redoing after it what the journal would hold.

use super::{Engine, EngineKind, Table, View, Write, discard, open};
use bytes::Bytes;
use dstore_shared::Revision;
use dstore_sys::Sys;
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

fn put(table: Table, key: &str, value: &str) -> Write {
    Write { table, key: key.to_owned().into(), value: Some(value.to_owned().into()) }
}

fn cut(table: Table, key: &str) -> Write {
    Write { table, key: key.to_owned().into(), value: None }
}

fn all(view: &(impl View + ?Sized), table: Table, start: Bound<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
    let mut found = Vec::new();
    view.scan(table, start, limit, &mut |k, v| {
        found.push((k, v));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn keys(view: &(impl View + ?Sized), table: Table) -> Vec<String> {
    let found = all(view, table, Bound::Unbounded, usize::MAX);
    found.into_iter().map(|(k, _)| String::from_utf8(k.to_vec()).unwrap()).collect()
}

fn value(view: &(impl View + ?Sized), table: Table, key: &str) -> Option<String> {
    view.get(table, key.as_bytes()).unwrap().map(|v| String::from_utf8(v.to_vec()).unwrap())
}

/// What a killed process leaves: all files as they are at one moment. The engine works on in the background, so
/// a copy during which a file came, went or changed is not one, and is made again.
#[expect(clippy::disallowed_methods, reason = "plays a crash behind the back of every seam")]
fn copy_dir(from: &Path, to: &Path) {
    for _ in 0..200 {
        let before = files_of(from);
        let all = before.keys().all(|file| {
            let target = to.join(file);
            std::fs::create_dir_all(target.parent().expect("below `to`")).unwrap();
            std::fs::copy(from.join(file), target).is_ok()
        });
        if all && files_of(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
        std::fs::create_dir_all(to).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the engine never rests");
}

/// Every file below a directory, with its length and the time of its last change.
fn files_of(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => {
                    let name = entry.path().strip_prefix(dir).expect("below `dir`").to_owned();
                    found.insert(name, (meta.len(), meta.modified().expect("a time")));
                }
                Err(_) => {} // gone meanwhile: the next look will differ
            }
        }
    }
    found
}

fn suite(kind: EngineKind) {
    for stored in [false, true] {
        reads_see_the_last_write_in_byte_order(kind, stored);
        a_snapshot_does_not_move(kind, stored);
    }
    a_checkpoint_survives_and_a_wipe_leaves_another_index(kind);
    redo_is_right_whatever_part_of_later_writes_survived(kind);
    writers_and_readers_do_not_disturb_each_other(kind);
    few_and_many_writes_follow_each_other(kind);
}

fn fresh(kind: EngineKind) -> (tempfile::TempDir, Box<dyn Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(kind, &Sys::real(), dir.path()).unwrap();
    (dir, engine)
}

fn apply(engine: &dyn Engine, writes: Vec<Write>, revision: u64, stored: bool) {
    engine.apply(writes, Revision(revision)).unwrap();
    if stored {
        assert_eq!(engine.checkpoint().unwrap(), Revision(revision));
    }
}

fn reads_see_the_last_write_in_byte_order(kind: EngineKind, stored: bool) {
    let (_dir, engine) = fresh(kind);
    assert_eq!((engine.kind(), engine.revision().unwrap()), (kind, Revision(0)));
    assert_eq!(value(&*engine, Table::Names, "a"), None);
    let writes = vec![
        put(Table::Names, "b", "1"),
        put(Table::Names, "a", "first"),
        put(Table::Blobs, "a", "other table"),
        put(Table::Names, "a\0", "2"),
        put(Table::Names, "\u{7f}", ""),
        cut(Table::Names, "absent"),
        put(Table::Names, "a", "last wins"),
        put(Table::Names, "gone", "x"),
        cut(Table::Names, "gone"),
        cut(Table::Names, "back"),
        put(Table::Names, "back", "x"),
    ];
    apply(&*engine, writes, 3, stored);
    assert_eq!(engine.revision().unwrap(), Revision(3));
    assert_eq!(value(&*engine, Table::Names, "a").as_deref(), Some("last wins"));
    assert_eq!(value(&*engine, Table::Blobs, "a").as_deref(), Some("other table"));
    assert_eq!(value(&*engine, Table::Names, "\u{7f}").as_deref(), Some(""), "an empty value is a value");
    assert_eq!(value(&*engine, Table::Names, "gone"), None);
    assert_eq!(keys(&*engine, Table::Names), ["a", "a\0", "b", "back", "\u{7f}"]);
    let from = |start, limit| all(&*engine, Table::Names, start, limit).len();
    assert_eq!(from(Bound::Included(b"a\0"), 2), 2);
    assert_eq!(from(Bound::Excluded(b"b"), 9), 2);
    assert_eq!(from(Bound::Included(b"\xff"), 9), 0);
    assert_eq!(from(Bound::Unbounded, 0), 0);
    let mut seen = 0;
    let stop = &mut |_, _| {
        seen += 1;
        ControlFlow::Break(())
    };
    engine.scan(Table::Names, Bound::Unbounded, 9, stop).unwrap();
    assert_eq!(seen, 1, "a scan ends when told");
    apply(&*engine, vec![cut(Table::Names, "a")], 4, stored);
    assert_eq!(value(&*engine, Table::Names, "a"), None);
    let large = Bytes::from(vec![7; 1 << 20]);
    let write = Write { table: Table::Inline, key: "large".into(), value: Some(large.clone()) };
    apply(&*engine, vec![write], 5, stored);
    assert_eq!(engine.get(Table::Inline, b"large").unwrap(), Some(large));
    assert!(engine.about(Table::Names) >= 4);
}

fn a_snapshot_does_not_move(kind: EngineKind, stored: bool) {
    let (_dir, engine) = fresh(kind);
    apply(&*engine, vec![put(Table::Names, "a", "1"), put(Table::Blobs, "b", "1")], 1, stored);
    let then = engine.snapshot().unwrap();
    apply(&*engine, vec![put(Table::Names, "a", "2"), cut(Table::Blobs, "b")], 2, stored);
    apply(&*engine, vec![put(Table::Names, "c", "3")], 3, stored);
    assert_eq!(value(&*then, Table::Names, "a").as_deref(), Some("1"));
    assert_eq!(
        (keys(&*then, Table::Names), keys(&*then, Table::Blobs)),
        (vec!["a".into()], vec!["b".into()])
    );
    assert_eq!(value(&*engine, Table::Names, "a").as_deref(), Some("2"));
    assert_eq!(value(&*engine, Table::Blobs, "b"), None);
}

/// An engine may store a few writes and many in different ways: the newer ones count, now and after a crash.
fn few_and_many_writes_follow_each_other(kind: EngineKind) {
    let (dir, engine) = fresh(kind);
    let many = |value: &str| {
        (0..2000).map(|i| put(Table::ALL[i % 4], &format!("{i:04}"), value)).collect::<Vec<_>>()
    };
    let mut revision = 0;
    let mut apply = |writes: Vec<Write>| {
        revision += 1;
        engine.apply(writes, Revision(revision)).unwrap();
    };
    let key = |i: usize| (Table::ALL[i % 4], format!("{i:04}"));
    apply(vec![put(Table::Names, "0000", "few"), put(Table::Blobs, "0001", "few")]);
    apply(many("many"));
    apply(vec![put(Table::Names, "0004", "later"), cut(Table::Blobs, "0005")]);
    let check = |engine: &dyn Engine| {
        for i in 0..2000 {
            let (table, key) = key(i);
            let want = match i {
                4 => Some("later"),
                5 => None,
                _ => Some("many"),
            };
            assert_eq!(value(engine, table, &key).as_deref(), want, "{kind} {i}");
        }
        assert_eq!(Table::ALL.map(|table| keys(engine, table).len()), [500, 499, 500, 500]);
    };
    check(&*engine);
    engine.checkpoint().unwrap();
    let crash = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), crash.path());
    check(&*open(kind, &Sys::real(), crash.path()).unwrap());
}

fn a_checkpoint_survives_and_a_wipe_leaves_another_index(kind: EngineKind) {
    let (dir, engine) = fresh(kind);
    let identity = engine.identity();
    for i in 1..=50 {
        let writes =
            vec![put(Table::Names, &format!("{i:03}"), "v"), put(Table::Inline, "same", &i.to_string())];
        engine.apply(writes, Revision(i)).unwrap();
    }
    assert_eq!(engine.checkpoint().unwrap(), Revision(50));
    let crash = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), crash.path());
    drop(engine);
    for dir in [dir.path(), crash.path()] {
        let engine = open(kind, &Sys::real(), dir).unwrap();
        assert_eq!((engine.identity(), engine.revision().unwrap()), (identity, Revision(50)));
        assert_eq!(keys(&*engine, Table::Names).len(), 50);
        assert_eq!(value(&*engine, Table::Inline, "same").as_deref(), Some("50"));
    }
    let engine = open(kind, &Sys::real(), dir.path()).unwrap().wipe().unwrap();
    let after = engine.identity();
    assert!(after != identity && keys(&*engine, Table::Names).is_empty());
    assert_eq!(engine.revision().unwrap(), Revision(0));
    engine.apply(vec![put(Table::Names, "new", "v")], Revision(1)).unwrap();
    engine.checkpoint().unwrap();
    drop(engine);
    let engine = open(kind, &Sys::real(), dir.path()).unwrap();
    assert_eq!((keys(&*engine, Table::Names), engine.identity()), (vec!["new".to_owned()], after));
    drop(engine);
    discard(kind, &Sys::real(), dir.path()).unwrap();
    discard(kind, &Sys::real(), dir.path()).unwrap();
    assert!(keys(&*open(kind, &Sys::real(), dir.path()).unwrap(), Table::Names).is_empty());
}

/// The state that batches 1..=n lead to.
type Model = BTreeMap<(Table, String), Option<String>>;

fn redo_is_right_whatever_part_of_later_writes_survived(kind: EngineKind) {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("DSTORE_SEED={seed}");
    let rng = SeededRng::new(seed);
    for round in 0..4 {
        let (dir, engine) = fresh(kind);
        let batches: Vec<Vec<Write>> = (0..60)
            .map(|_| {
                let write = |_| {
                    let table = Table::ALL[rng.next_u64() as usize % 4];
                    let key = format!("{}", rng.next_u64() % 12);
                    match rng.next_u64() % 3 {
                        0 => cut(table, &key),
                        _ => put(table, &key, &rng.next_u64().to_string()),
                    }
                };
                (0..=rng.next_u64() % 5).map(write).collect()
            })
            .collect();
        let checkpoint = rng.next_u64() as usize % 50;
        let crash = tempfile::tempdir().unwrap();
        let stop = checkpoint + 1 + rng.next_u64() as usize % (60 - checkpoint);
        for (i, batch) in batches[..stop].iter().enumerate() {
            engine.apply(batch.clone(), Revision(i as u64 + 1)).unwrap();
            if i + 1 == checkpoint {
                assert_eq!(engine.checkpoint().unwrap(), Revision(checkpoint as u64));
            }
        }
        copy_dir(dir.path(), crash.path());
        let again = open(kind, &Sys::real(), crash.path()).unwrap();
        // Any subset of the later writes may have survived: play one that no engine would leave by itself.
        let reached = again.revision().unwrap();
        for batch in &batches[checkpoint..] {
            let some: Vec<Write> =
                batch.iter().filter(|_| rng.next_u64().is_multiple_of(3)).cloned().collect();
            again.apply(some, reached.max(Revision(checkpoint as u64))).unwrap();
        }
        for (i, batch) in batches.iter().enumerate().skip(checkpoint) {
            again.apply(batch.clone(), Revision(i as u64 + 1)).unwrap();
        }
        let mut model = Model::new();
        for write in batches.iter().flatten() {
            let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
            model.insert((write.table, text(&write.key)), write.value.as_ref().map(text));
        }
        for ((table, key), want) in &model {
            assert_eq!(
                &value(&*again, *table, key),
                want,
                "{kind} seed {seed} round {round} {table:?} {key}"
            );
        }
        let live = model.values().filter(|v| v.is_some()).count();
        assert_eq!(Table::ALL.iter().map(|t| keys(&*again, *t).len()).sum::<usize>(), live);
    }
}

fn writers_and_readers_do_not_disturb_each_other(kind: EngineKind) {
    let (_dir, engine) = fresh(kind);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for i in 1..=500_u64 {
                let n = i.to_string();
                engine
                    .apply(vec![put(Table::Names, "a", &n), put(Table::Blobs, "b", &n)], Revision(i))
                    .unwrap();
                if i % 50 == 0 {
                    engine.checkpoint().unwrap();
                }
            }
        });
        for _ in 0..200 {
            let view = engine.snapshot().unwrap();
            assert_eq!(value(&*view, Table::Names, "a"), value(&*view, Table::Blobs, "b"), "half a batch");
        }
    });
    assert_eq!(value(&*engine, Table::Names, "a").as_deref(), Some("500"));
}

#[test]
fn the_memory_engine_keeps_the_contract() {
    suite(EngineKind::Memory);
}

#[cfg(feature = "fjall")]
#[test]
fn the_fjall_engine_keeps_the_contract() {
    suite(EngineKind::Fjall);
}

#[cfg(feature = "sled")]
#[test]
fn the_sled_engine_keeps_the_contract() {
    suite(EngineKind::Sled);
}

#[test]
fn an_engine_is_known_by_its_name() {
    for kind in [EngineKind::Memory, EngineKind::Fjall, EngineKind::Sled] {
        assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
    }
    assert!("rocksdb".parse::<EngineKind>().is_err());
}
