use super::*;
use crate::change::{Change, Place};
use crate::engine::{EngineKind, View, Write, open};
use dstore_sys::Sys;
use dstore_sys::rng::{Rng, SeededRng};
use parking_lot::Mutex;
use std::sync::atomic::AtomicBool;

pub(in crate::catalog) struct Rig {
    sys: Sys,
    dir: tempfile::TempDir,
    pub(in crate::catalog) catalog: Catalog,
    _end: LaneEnd,
}

fn rig(engine: impl FnOnce(Box<dyn Engine>) -> Arc<dyn Engine>, config: &CatalogConfig) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let sys = Sys::real();
    let engine = engine(open(EngineKind::Memory, &sys, dir.path()).unwrap());
    let start = Start {
        engine,
        files: Checkpoints::new(sys.disk.clone(), dir.path()),
        history: HistoryId(1),
        revision: Revision(0),
        previous: Revision(0),
        at_ms: 0,
        names: 0,
        namespaces: Vec::new(),
    };
    let (catalog, end) = Catalog::start(start, config, Blocking::Threads);
    Rig { sys, dir, catalog, _end: end }
}

pub(in crate::catalog) fn plain() -> Rig {
    rig(Arc::from, &CatalogConfig::default())
}

impl Rig {
    /// Waits until everything shown is indexed and gives the checkpoint's revision.
    pub(in crate::catalog) fn checkpoint(&self, outcomes: Vec<Remembered>) -> Revision {
        self.catalog.checkpoint(self.sys.clock.now(), outcomes).blocking_recv().unwrap().unwrap()
    }
}

pub(in crate::catalog) fn name(key: &str) -> Name {
    Name::of(key.to_owned()).unwrap()
}

pub(in crate::catalog) fn entry(revision: u64) -> Entry {
    Entry {
        hash: BlobHash::of(&revision.to_le_bytes()),
        size: 8,
        bind_rev: Revision(revision),
        expires_at: None,
        content_type: None,
    }
}

/// A hint outlives a name that lives for ever by now, until a commit is later than it.
#[test]
fn however_many_hints_of_ends_are_not_true_any_more_the_name_behind_them_is_found() {
    let rig = plain();
    let ends = |i: u64, end: u64| Entry { expires_at: dstore_shared::End::new(end), ..entry(i) };
    let named = |i: u64| name(&format!("{i:05}"));
    let n = 10 * 512;
    let at = |revision: u64, changes| Commit { at_ms: 1, ..commit(revision, changes) };
    let timed = (0..n).map(|i| Change::Bind { name: named(i), entry: ends(1, 1_000 + i) });
    let last = Change::Bind { name: name("last"), entry: ends(1, 9_000) };
    rig.catalog.show(&[at(1, timed.chain([last]).collect())]).unwrap();
    rig.checkpoint(vec![]);
    let for_ever = (0..n).map(|i| Change::Rebind { name: named(i), entry: entry(2) });
    rig.catalog.show(&[at(2, for_ever.collect())]).unwrap();
    let (mut found, mut from, mut looks) = (Vec::new(), Some(Hints::default()), 0);
    while let Some(place) = from {
        let (names, next) = rig.catalog.overdue(10_000, 512, &place).unwrap();
        found.extend(names);
        (from, looks) = (next, looks + 1);
        assert!(looks < 100, "it goes round");
    }
    assert_eq!(found, [name("last")]);
    assert!(looks > 1, "as many hints as one look takes are before it");
}

pub(in crate::catalog) fn bind(key: &str, revision: u64) -> Change {
    Change::Bind { name: name(key), entry: entry(revision) }
}

pub(in crate::catalog) fn commit(revision: u64, changes: Vec<Change>) -> Commit {
    Commit { revision: Revision(revision), at_ms: revision * 10, outcome: None, changes }
}

fn meta(unnamed_since_ms: Option<u64>) -> BlobMeta {
    let refs = u64::from(unnamed_since_ms.is_none());
    BlobMeta { size: 5, refs, place: Place::Inline, unnamed_since_ms, corrupt: false }
}

/// An engine whose applies wait at a gate, or fail.
#[derive(Debug)]
struct Gated {
    inner: Box<dyn Engine>,
    gate: Arc<Mutex<()>>,
    broken: Arc<AtomicBool>,
}

impl View for Gated {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(table, key)
    }
    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        limit: usize,
        each: crate::engine::Each<'_>,
    ) -> Result<()> {
        self.inner.scan(table, start, limit, each)
    }
}

impl Engine for Gated {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }
    fn identity(&self) -> u128 {
        self.inner.identity()
    }
    fn snapshot(&self) -> Result<Box<dyn View>> {
        self.inner.snapshot()
    }
    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        let _open = self.gate.lock();
        assert!(revision != Revision(666), "planted panic");
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("planted failure"));
        }
        self.inner.apply(writes, revision)
    }
    fn revision(&self) -> Result<Revision> {
        self.inner.revision()
    }
    fn checkpoint(&self) -> Result<Revision> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("planted failure"));
        }
        self.inner.checkpoint()
    }
    fn wipe(self: Box<Self>) -> Result<Box<dyn Engine>> {
        self.inner.wipe()
    }
    fn about(&self, table: Table) -> u64 {
        self.inner.about(table)
    }
}

pub(in crate::catalog) fn gated(config: &CatalogConfig) -> (Rig, Arc<Mutex<()>>, Arc<AtomicBool>) {
    let (gate, broken) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let (g, b) = (gate.clone(), broken.clone());
    (rig(|inner| Arc::new(Gated { inner, gate: g, broken: b }), config), gate, broken)
}

#[test]
fn what_was_shown_is_read_back_before_and_after_it_is_indexed() {
    let (rig, gate, _) = gated(&CatalogConfig::default());
    let catalog = &rig.catalog;
    let closed = gate.lock();
    let (small, large) = (Bytes::from_static(b"hello"), Bytes::from(vec![1; 64 << 10]));
    let (s, l) = (BlobHash::of(&small), BlobHash::of(&large));
    assert_eq!(catalog.entry_hot(&name("a")), None, "not known before it was asked");
    assert_eq!(catalog.entry(&name("a")).unwrap(), None);
    assert_eq!(catalog.entry_hot(&name("a")), Some(None), "absence is remembered");
    assert_eq!(catalog.inline(&l).unwrap(), None);
    let changes = vec![
        bind("a", 1),
        bind("b", 1),
        Change::Blob { hash: s, meta: meta(None) },
        Change::Inline { hash: s, bytes: small.clone() },
        Change::Inline { hash: l, bytes: large.clone() },
    ];
    catalog.show(&[commit(1, changes), commit(2, vec![Change::Unbind { name: name("b") }])]).unwrap();
    let check = || {
        assert_eq!((catalog.head(), catalog.journal_time()), (Revision(2), 20));
        assert_eq!(catalog.entry(&name("a")).unwrap(), Some(entry(1)));
        assert_eq!(catalog.entry_hot(&name("b")), Some(None));
        assert_eq!(catalog.blob(&s).unwrap(), Some(meta(None)));
        assert_eq!(catalog.blob(&l).unwrap(), None);
        assert_eq!(catalog.inline(&s).unwrap(), Some(small.clone()));
        assert_eq!(catalog.inline(&l).unwrap(), Some(large.clone()));
        let (at, entries) = catalog.entries(&[name("a"), name("b"), name("c")]).unwrap();
        assert_eq!((at, entries), (Revision(2), vec![Some(entry(1)), None, None]));
    };
    check();
    assert_eq!((catalog.indexed(), catalog.counts().pending), (Revision(0), 5));
    drop(closed);
    assert_eq!(rig.checkpoint(vec![]), Revision(2));
    assert_eq!((catalog.indexed(), catalog.counts().pending), (Revision(2), 0));
    assert_eq!(catalog.counts().pending_bytes, 0);
    assert_eq!(catalog.inline_hot(&s), Some(small.clone()));
    check();
    catalog.show(&[commit(3, vec![Change::InlineGone { hash: s }, Change::BlobGone { hash: s }])]).unwrap();
    assert_eq!((catalog.inline(&s).unwrap(), catalog.blob(&s).unwrap()), (None, None));
    rig.checkpoint(vec![]);
    assert_eq!((catalog.inline(&s).unwrap(), catalog.blob(&s).unwrap()), (None, None));
}

/// Readers that miss, ask the index and keep the answer race with commits of the same few names, while tiny
/// hot caches evict all the time. Each name's `bind_rev` only grows, so a reader that ever sees less than
/// was visible before its read began has read something resurrected.
#[test]
fn a_read_never_gives_less_than_was_visible_when_it_began() {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    println!("DSTORE_SEED={seed}");
    let config = CatalogConfig {
        hot_names_bytes: 2000,
        pending_bytes: 3000,
        memtable_bytes: 600,
        ..CatalogConfig::default()
    };
    let rig = rig(Arc::from, &config);
    let names: Vec<Name> = (0..24).map(|i| name(&i.to_string())).collect();
    let newest: Vec<AtomicU64> = names.iter().map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    let rev = |e: Option<Entry>| e.map_or(0, |e| e.bind_rev.0);
    std::thread::scope(|threads| {
        for reader in 0..3 {
            let (rig, names, newest, done) = (&rig, &names, &newest, &done);
            threads.spawn(move || {
                let rng = SeededRng::new(seed + reader);
                while !done.load(Ordering::Relaxed) {
                    let i = rng.next_u64() as usize % names.len();
                    let least = newest[i].load(Ordering::SeqCst);
                    let read = match rng.next_u64() % 3 {
                        0 => rig.catalog.entry_hot(&names[i]),
                        1 => Some(rig.catalog.entries(&names[i..=i]).unwrap().1[0].clone()),
                        _ => Some(rig.catalog.entry(&names[i]).unwrap()),
                    };
                    let Some(read) = read.map(rev) else { continue };
                    assert!(read >= least, "seed {seed}: `{i}` was at {least}, read {read}");
                }
            });
        }
        let rng = SeededRng::new(seed ^ 0xff);
        for revision in 1..=30_000 {
            let i = rng.next_u64() as usize % names.len();
            let change = Change::Bind { name: names[i].clone(), entry: entry(revision) };
            rig.catalog.make_room();
            rig.catalog.show(&[commit(revision, vec![change])]).unwrap();
            newest[i].store(revision, Ordering::SeqCst);
        }
        done.store(true, Ordering::Relaxed);
    });
    rig.checkpoint(vec![]);
    for (name, newest) in names.iter().zip(newest) {
        assert_eq!(rev(rig.catalog.entry(name).unwrap()), newest.into_inner());
    }
}

#[test]
fn all_names_of_a_commit_become_visible_in_one_step() {
    let config = CatalogConfig { hot_names_bytes: 4000, ..CatalogConfig::default() };
    let rig = rig(Arc::from, &config);
    let names: Vec<Name> = (0..64).map(|i| name(&i.to_string())).collect();
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for revision in 1..=4000 {
                let bind = |name: &Name| Change::Bind { name: name.clone(), entry: entry(revision) };
                let all = names.iter().map(bind).collect();
                rig.catalog.make_room();
                rig.catalog.show(&[commit(revision, all)]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let (at, entries) = rig.catalog.entries(&names).unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
            for e in &entries {
                assert_eq!(e.as_ref().map_or(Revision(0), |e| e.bind_rev), at, "{entries:?}");
            }
        }
    });
    assert!(seen.into_inner() > 10);
}

#[test]
fn a_committer_waits_while_too_much_is_not_indexed() {
    let config = CatalogConfig { pending_bytes: 10_000, ..CatalogConfig::default() };
    let (rig, gate, _) = gated(&config);
    let closed = gate.lock();
    let shown = AtomicU64::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for revision in 1..=200 {
                rig.catalog.make_room();
                rig.catalog.show(&[commit(revision, vec![bind(&revision.to_string(), revision)])]).unwrap();
                shown.store(revision, Ordering::SeqCst);
            }
        });
        while rig.catalog.counts().pending_bytes <= 10_000 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        let stuck = shown.load(Ordering::SeqCst);
        assert!(stuck < 50, "{stuck}");
        assert!(rig.catalog.counts().pending_bytes < 11_000);
        drop(closed);
    });
    assert_eq!(rig.checkpoint(vec![]), Revision(200));
    assert_eq!(rig.catalog.counts().names, 200);
}

#[test]
fn a_failed_index_poisons_once_and_releases_who_waits() {
    for panics in [false, true] {
        let config = CatalogConfig { pending_bytes: 100, ..CatalogConfig::default() };
        let (rig, gate, broken) = gated(&config);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        rig.catalog.on_poison(Box::new(move |e| tell.lock().push(e)));
        let closed = gate.lock();
        let first = if panics { 666 } else { 1 };
        rig.catalog.show(&[commit(first, vec![bind("a", first)])]).unwrap();
        broken.store(true, Ordering::SeqCst);
        let asked = rig.catalog.checkpoint(Moment::ZERO, vec![]);
        let (after, seen) = std::thread::scope(|threads| {
            let waiting = threads.spawn(|| {
                rig.catalog.make_room();
                rig.catalog.show(&[commit(first + 1, vec![bind("b", first + 1)])])
            });
            drop(closed);
            (waiting.join().unwrap(), asked.blocking_recv())
        });
        assert!(after.is_err() && seen.is_err(), "{after:?} {seen:?}");
        while told.lock().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(told.lock().len(), 1);
        assert!(rig.catalog.poison().is_some());
        // What is committed stays readable.
        assert_eq!(rig.catalog.entry(&name("a")).unwrap(), Some(entry(first)));
        assert_eq!(rig.catalog.entry(&name("b")).unwrap(), Some(entry(first + 1)));
        let tell = told.clone();
        rig.catalog.on_poison(Box::new(move |e| tell.lock().push(e)));
        assert_eq!(told.lock().len(), 2, "who asks late is told at once");
    }
}

/// Another attempt after a failed sync would find nothing to sync, and vouch for what was lost.
#[test]
fn an_index_that_failed_to_sync_is_asked_no_more() {
    let (rig, _gate, broken) = gated(&CatalogConfig::default());
    rig.catalog.show(&[commit(1, vec![bind("a", 1)])]).unwrap();
    assert_eq!(rig.checkpoint(vec![]), Revision(1));
    broken.store(true, Ordering::SeqCst);
    let failed = rig.catalog.checkpoint(Moment::ZERO, vec![]);
    assert!(failed.blocking_recv().map_or(true, |answer| answer.is_err()));
    while rig.catalog.poison().is_none() {
        std::thread::yield_now();
    }
    broken.store(false, Ordering::SeqCst);
    let again = rig.catalog.checkpoint(Moment::ZERO, vec![]);
    assert!(again.blocking_recv().is_err(), "not tried again");
    assert_eq!((rig.catalog.checkpointed(), rig.catalog.trim_below()), (Revision(1), Revision(0)));
    assert!(rig.catalog.show(&[commit(2, vec![bind("b", 2)])]).is_err());
    assert_eq!(rig.catalog.entry(&name("b")).unwrap(), Some(entry(2)), "what is committed stays readable");
}

#[test]
fn a_checkpoint_is_due_by_bytes_or_by_time_and_covers_exactly_the_head() {
    let config = CatalogConfig {
        checkpoint_bytes: 5000,
        checkpoint_every: Duration::from_secs(60),
        ..CatalogConfig::default()
    };
    let rig = rig(Arc::from, &config);
    let catalog = &rig.catalog;
    let at = |s: u64| Moment::from_nanos(s * 1_000_000_000);
    assert!(!catalog.checkpoint_due(at(1000)), "nothing was committed");
    let outcome = (
        dstore_shared::RequestId::default(),
        dstore_shared::Outcome::Set(dstore_shared::SetOutcome::NeedBlob),
        7,
    );
    let files = || Checkpoints::new(rig.sys.disk.clone(), rig.dir.path()).load().unwrap().unwrap();
    catalog.show(&[commit(1, vec![bind("a", 1)])]).unwrap();
    assert!(catalog.checkpoint_due(at(1000)));
    let done = catalog.checkpoint(at(1000), vec![outcome.clone()]);
    assert_eq!(done.blocking_recv().unwrap().unwrap(), Revision(1));
    assert_eq!((catalog.checkpointed(), catalog.trim_below()), (Revision(1), Revision(0)));
    let file = files();
    assert_eq!((file.revision, file.previous, file.at_ms), (Revision(1), Revision(0), 10));
    assert_eq!((file.outcomes, file.history), (vec![outcome], HistoryId(1)));
    catalog.show(&[commit(2, vec![bind("a", 2)])]).unwrap();
    assert!(!catalog.checkpoint_due(at(1059)));
    for revision in 3..30 {
        catalog.show(&[commit(revision, vec![bind("a", revision)])]).unwrap();
    }
    assert!(catalog.checkpoint_due(at(1001)), "enough bytes");
    let done = catalog.checkpoint(at(1001), vec![]);
    catalog.show(&[commit(30, vec![bind("a", 30)])]).unwrap();
    assert_eq!(done.blocking_recv().unwrap().unwrap(), Revision(29), "not what came after");
    assert_eq!(files().previous, Revision(1));
    assert_eq!((catalog.checkpointed(), catalog.trim_below()), (Revision(29), Revision(2)));
}

#[test]
fn a_name_counts_once_and_not_when_it_was_removed() {
    let rig = plain();
    let names = |changes: Vec<Change>, revision| {
        rig.catalog.show(&[commit(revision, changes)]).unwrap();
        rig.catalog.counts().names
    };
    assert_eq!(names(vec![bind("a", 1), bind("b", 1)], 1), 2);
    assert_eq!(names(vec![bind("a", 2)], 2), 2);
    assert_eq!(names(vec![Change::Unbind { name: name("a") }], 3), 1);
    assert_eq!(names(vec![Change::Unbind { name: name("a") }], 4), 1);
    rig.checkpoint(vec![]);
    assert_eq!(rig.catalog.counts().names, 1);
}

#[test]
fn blobs_without_a_name_are_found_oldest_first_until_named_or_gone() {
    let rig = plain();
    let catalog = &rig.catalog;
    let hash = |i: u8| BlobHash::of(&[i]);
    let blob = |i, since| Change::Blob { hash: hash(i), meta: meta(since) };
    catalog
        .show(&[commit(1, vec![blob(1, Some(30)), blob(2, Some(10)), blob(3, None), blob(4, Some(20))])])
        .unwrap();
    rig.checkpoint(vec![]);
    assert_eq!(catalog.unnamed(9, 10).unwrap(), []);
    assert_eq!(catalog.unnamed(29, 10).unwrap(), [hash(2), hash(4)]);
    assert_eq!(catalog.unnamed(30, 10).unwrap(), [hash(2), hash(4), hash(1)]);
    assert_eq!(catalog.unnamed(30, 1).unwrap(), [hash(2)]);
    let later = vec![blob(2, None), Change::BlobGone { hash: hash(4) }, blob(1, Some(40))];
    catalog.show(&[commit(50, later)]).unwrap();
    assert_eq!(catalog.unnamed(30, 10).unwrap(), [], "before the change is indexed, too");
    rig.checkpoint(vec![]);
    assert_eq!(catalog.unnamed(100, 10).unwrap(), [hash(1)]);
    rig.checkpoint(vec![]);
    assert_eq!(catalog.applier.engine.about(Table::Unnamed), 1, "outdated hints are removed");
}

#[tokio::test]
async fn where_blocking_is_simulated_the_index_follows_without_threads() {
    let dir = tempfile::tempdir().unwrap();
    let sys = Sys::real();
    let start = Start {
        engine: Arc::from(open(EngineKind::Memory, &sys, dir.path()).unwrap()),
        files: Checkpoints::new(sys.disk.clone(), dir.path()),
        history: HistoryId(1),
        revision: Revision(0),
        previous: Revision(0),
        at_ms: 0,
        names: 0,
        namespaces: Vec::new(),
    };
    let config = CatalogConfig { pending_bytes: 5000, ..CatalogConfig::default() };
    let inline = Blocking::Inline { latency: Duration::from_millis(1) };
    let (catalog, end) = Catalog::start(start, &config, inline);
    for revision in 1..=100 {
        catalog.make_room();
        catalog.show(&[commit(revision, vec![bind(&revision.to_string(), revision)])]).unwrap();
        assert!(catalog.counts().pending_bytes < 6000, "back-pressure does the work in place");
    }
    assert!((Revision(50)..Revision(100)).contains(&catalog.indexed()));
    let done = catalog.checkpoint(Moment::ZERO, vec![]);
    assert_eq!(done.await.unwrap().unwrap(), Revision(100));
    drop(catalog);
    end.wait().await;
}
