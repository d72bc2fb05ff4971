//! What Global's readers see while commits become visible and memtables move into the index.
//!
//! ```text
//! publisher   shows commits, each of which binds or unbinds both names; every memtable is full at once
//! applier     writes frozen memtables to the index, brings the hot caches up to date, takes the memtables away
//! readers     a name; both names at one revision; a page
//! ```
//! The promise: whatever is read was so at a revision between the newest one shown before the read began and the newest
//! one that was begun before it ended; of two names and of a page, all of it at the revision that is told.

use crate::catalog::{Catalog, CatalogConfig, Start};
use crate::change::{Change, Commit};
use crate::checkpoint::Checkpoints;
use crate::engine::{EngineKind, open};
use dstore_shared::{BlobHash, Entry, HistoryId, Name, Revision};
use dstore_sys::Sys;
use dstore_sys::disk::SimDisk;
use dstore_sys::tasks::Blocking;
use shuttle::thread;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Commits.
const COMMITS: u64 = 7;
/// Reads of each kind.
const READS: usize = 4;
const HOT_BYTES: u64 = 64 << 10;

struct World {
    catalog: Catalog,
    names: [Name; 2],
    /// The newest commit whose showing was begun, and the newest that was shown.
    begun: AtomicU64,
    shown: AtomicU64,
}

/// One run. Gives how many memtables were indexed while it went on.
pub fn reads_while_commits_become_visible() -> u64 {
    let world = Arc::new(World::new());
    let run = |what: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || what(&world))
    };
    let threads = [run(World::read_one), run(World::read_both), run(World::read_page)];
    world.publish();
    for thread in threads {
        thread.join().expect("no thread panicked");
    }
    let indexed = world.catalog.indexed().0;
    while world.catalog.indexed() < Revision(COMMITS) {
        thread::yield_now();
    }
    for name in &world.names {
        let last = world.catalog.entry(name).expect("it can be read");
        assert_eq!(last, entry(COMMITS), "in the end");
    }
    indexed
}

/// What both names are bound to as of a revision.
fn entry(revision: u64) -> Option<Entry> {
    let bound = revision > 0 && !revision.is_multiple_of(3);
    let bind_rev = Revision(revision);
    bound.then(|| Entry {
        hash: BlobHash::of(&revision.to_le_bytes()),
        size: 8,
        bind_rev,
        expires_at: None,
        content_type: None,
    })
}

impl World {
    fn new() -> Self {
        let sys = Sys { disk: Arc::new(SimDisk::new()), ..Sys::real() };
        let dir = Path::new("/index");
        sys.disk.create_dir_all(dir).expect("a directory");
        let start = Start {
            engine: Arc::from(open(EngineKind::Memory, &sys, dir).expect("an index")),
            files: Checkpoints::new(sys.disk.clone(), dir),
            history: HistoryId(1),
            revision: Revision(0),
            previous: Revision(0),
            at_ms: 0,
            names: 0,
            namespaces: Vec::new(),
        };
        let config = CatalogConfig {
            // Each memtable is full at once.
            memtable_bytes: 0,
            hot_names_bytes: HOT_BYTES,
            hot_blobs_bytes: HOT_BYTES,
            hot_inline_bytes: HOT_BYTES,
            ..CatalogConfig::default()
        };
        let (catalog, _) = Catalog::start(start, &config, Blocking::Threads);
        let name = |key: &'static str| Name::of(key).expect("a valid key");
        Self { catalog, names: [name("a"), name("b")], begun: AtomicU64::new(0), shown: AtomicU64::new(0) }
    }

    fn publish(&self) {
        for revision in 1..=COMMITS {
            self.begun.store(revision, Ordering::SeqCst);
            let change = |name: &Name| match entry(revision) {
                Some(entry) => Change::Bind { name: name.clone(), entry },
                None => Change::Unbind { name: name.clone() },
            };
            let changes = self.names.iter().map(change).collect();
            let commit = Commit { revision: Revision(revision), at_ms: revision, outcome: None, changes };
            self.catalog.show(&[commit]).expect("the index is well");
            self.shown.store(revision, Ordering::SeqCst);
        }
    }

    /// Reads, and gives the revisions as of which it may be.
    fn reading<T>(&self, read: impl FnOnce() -> T) -> (T, RangeInclusive<u64>) {
        let from = self.shown.load(Ordering::SeqCst);
        let read = read();
        (read, from..=self.begun.load(Ordering::SeqCst))
    }

    fn read_one(&self) {
        for _ in 0..READS {
            let (read, of) = self.reading(|| self.catalog.entry(&self.names[0]).expect("it can be read"));
            assert!(of.clone().any(|revision| entry(revision) == read), "{read:?} as of {of:?}");
        }
    }

    fn read_both(&self) {
        for _ in 0..READS {
            let ((at, read), of) =
                self.reading(|| self.catalog.entries(&self.names).expect("they can be read"));
            assert!(of.contains(&at.0), "as of {at}, not within {of:?}");
            assert_eq!(read, [entry(at.0), entry(at.0)], "as of {at}");
        }
    }

    fn read_page(&self) {
        for _ in 0..READS {
            let (page, of) = self.reading(|| self.catalog.list(b"default\0", None, 10));
            // It says so if the index moves on all the time.
            let Ok(page) = page else { continue };
            assert!(of.contains(&page.revision.0), "as of {}, not within {of:?}", page.revision);
            let listed: Vec<Entry> = page.names.iter().map(|(_, entry)| entry.clone()).collect();
            let expected: Vec<Entry> =
                entry(page.revision.0).into_iter().flat_map(|e| [e.clone(), e]).collect();
            assert_eq!(listed, expected, "as of {}", page.revision);
        }
    }
}
