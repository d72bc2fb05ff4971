//! Directories of every engine, damaged in every way, and what a Global serves of what was salvaged.

use super::*;
use crate::inspect::{InspectConfig, Report, inspect};
use crate::{Global, GlobalConfig};
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::{
    Attributes, Blob, ContentType, Expiry, Key, Kind, Namespace, NamespaceMode, NamespaceSpec, Payload, Step,
    Transaction, When,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn engines() -> impl Iterator<Item = EngineKind> {
    EngineKind::ALL.into_iter().filter(|engine| engine.is_built_in())
}

/// What names must be bound to.
type Names = BTreeMap<String, Vec<u8>>;

/// A directory as a crash leaves it: some of it in a checkpoint, some in the journal only.
struct Rig {
    dir: TempDir,
    runtime: Runtime,
    /// What the checkpoint has.
    old: Names,
    /// What was set after it.
    new: Names,
    engine: EngineKind,
}

fn value(n: usize) -> Vec<u8> {
    let len = [10, 5000, 100_000, 3_000_000][n % 4];
    (0..len).map(|i: usize| (i.wrapping_mul(31) ^ n.wrapping_mul(7 + i / 251)) as u8).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { _ = fs::copy(&path, &to).expect("copied") }
    }
}

/// Every file's contents, in short.
fn contents(dir: &Path) -> BTreeMap<PathBuf, BlobHash> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let hash = BlobHash::of(&fs::read(&path).expect("read"));
            found.insert(path, hash);
        }
    }
    found
}

impl Rig {
    /// Twelve names in a checkpoint, then one of them deleted, twelve set.
    fn new(engine: EngineKind) -> Self {
        let (dir, runtime) = (tempfile::tempdir().expect("a directory"), Runtime::new().expect("a runtime"));
        let (mut old, mut new) = (Names::new(), Names::new());
        let live = dir.path().join("live");
        let config = GlobalConfig { engine, min_free: 0, ..GlobalConfig::new(&live) };
        runtime.block_on(async {
            let global = Global::start(Sys::real(), config.clone()).await.expect("started");
            for n in 0..12 {
                old.insert(set(&global, n).await, value(n));
            }
            global.stop().await.expect("a clean stop");
            let global = Global::start(Sys::real(), config).await.expect("started");
            for n in 12..24 {
                new.insert(set(&global, n).await, value(n));
            }
            let store = global.store();
            let id = store.next_id().expect("an id");
            store.delete(id, vec![Name::of("k1").expect("a key")]).await.expect("deleted");
            drop(store);
            copy(&live, &dir.path().join("data"));
            global.stop().await.expect("a clean stop");
        });
        old.remove("k1");
        Self { dir, runtime, old, new, engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, data: &Path) -> GlobalConfig {
        let drain_timeout = std::time::Duration::from_millis(500);
        GlobalConfig { engine: self.engine, min_free: 0, drain_timeout, ..GlobalConfig::new(data) }
    }

    fn all(&self) -> Names {
        self.old.clone().into_iter().chain(self.new.clone()).collect()
    }

    fn salvage(&self) -> Result<Salvaged> {
        salvage(
            &Sys::real(),
            &SalvageConfig {
                data: self.path("data"),
                to: self.path("out"),
                temp: self.dir.path().to_owned(),
                min_free: 0,
            },
        )
    }

    /// Salvages, which changes nothing in the source and makes a healthy directory; and gives what a Global serves
    /// there.
    fn salvaged(&self) -> (Salvaged, Names) {
        let before = contents(&self.path("data"));
        let salvaged = self.salvage().expect("salvaged");
        assert_eq!(contents(&self.path("data")), before, "the source was changed");
        let report = self.look("out");
        assert!(report.faults.is_empty() && report.mends.is_empty(), "not healthy: {report:#?}");
        assert!(fs::read_dir(self.dir.path()).expect("listed").all(|entry| {
            let name = entry.expect("an entry").file_name();
            ["live", "data", "out"].iter().any(|known| *known == name)
        }));
        let served = self.served("out");
        assert_eq!(salvaged.names as usize, served.len());
        (salvaged, served)
    }

    fn look(&self, dir: &str) -> Report {
        let config =
            InspectConfig { data: self.path(dir), temp: self.dir.path().to_owned(), deep: true, min_free: 0 };
        inspect(&Sys::real(), &config).expect("a data directory")
    }

    fn served(&self, dir: &str) -> Names {
        let config = self.config(&self.path(dir));
        self.runtime.block_on(async {
            let global = Global::start(Sys::real(), config).await.expect("started");
            let store = global.store();
            let mut served = Names::new();
            for n in 0..24 {
                let (key, target) =
                    (format!("k{n}"), Target::Name(Name::of(format!("k{n}")).expect("a key")));
                if let Some(found) = store.get(target, Slice::ALL).await.expect("answered") {
                    served.insert(key, found.body.collect(found.entry.size).await.expect("whole").to_vec());
                }
            }
            drop(store);
            // Leases of the damaged one are waited for, as long as its `meta` says.
            let _ = global.stop().await;
            served
        })
    }

    /// Files below `dir` of the damaged directory that hold something, by name.
    fn files(&self, dir: &str) -> Vec<PathBuf> {
        contents(&self.path("data").join(dir)).into_keys().filter(|path| !path.ends_with("LOCK")).collect()
    }

    fn blob(&self, n: usize) -> PathBuf {
        let text = BlobHash::of(&value(n)).to_string();
        self.path("data/blobs").join(&text[..2]).join(&text[2..])
    }

    /// Turns a bit in the payload of every batch that the journal has.
    fn damage_batches(&self) {
        for segment in self.look("data").segments.iter().filter(|segment| segment.batches > 0) {
            let path = self.path("data/journal").join(&segment.name);
            let bytes = fs::read(&path).expect("read");
            let starts = (8192..segment.used as usize).step_by(4096);
            starts
                .filter(|at| bytes[*at..].starts_with(b"dstoreB\n"))
                .for_each(|at| flip(&path, at as u64 + 100));
        }
    }

    /// The segment that has the batches after the checkpoint, and the offsets of these.
    fn batches(&self) -> (PathBuf, Vec<u64>) {
        let report = self.look("data");
        let segment = report.segments.iter().rev().find(|s| s.batches > 1).expect("one with batches").clone();
        let path = self.path("data/journal").join(&segment.name);
        let bytes = fs::read(&path).expect("read");
        let starts = (8192..segment.used as usize).step_by(4096);
        let offsets = starts.filter(|at| bytes[*at..].starts_with(b"dstoreB\n")).map(|at| at as u64);
        (path, offsets.collect())
    }
}

async fn set(global: &Global, n: usize) -> String {
    let (store, key) = (global.store(), format!("k{n}"));
    let name = Name::of(key.clone()).expect("a key");
    let body = Body::Bytes(Bytes::from(value(n)));
    store.set(store.next_id().expect("an id"), Some(name), body).await.expect("stored");
    key
}

/// What a name is said to be, and about how many hours it has to live.
type Said = (Option<String>, Option<u64>);

async fn said(global: &Global, name: &Name) -> Option<Said> {
    let stat = global.store().stat(Target::Name(name.clone())).await.expect("answered")?;
    let hours = stat.left().map(|left| left.as_secs().div_ceil(3_600));
    Some((stat.entry.content_type.map(|words| words.to_string()), hours))
}

/// Half of it in a checkpoint, half in the journal only, which is damaged in the second round.
#[test]
fn namespaces_times_to_live_types_and_transactions_go_over_whole_or_not_at_all() {
    for (engine, is_torn) in engines().flat_map(|engine| [(engine, false), (engine, true)]) {
        let mut rig = Rig::new(engine);
        let live = rig.path("typed");
        let space = Namespace::new("cache").expect("valid");
        let spec =
            NamespaceSpec { mode: NamespaceMode::Replace, ttl: Some(Duration::from_secs(100 * 3_600)) };
        let in_space = |key: &'static str| Name::new(&space, &Key::new(key).expect("valid"));
        let names =
            [Name::of("typed").expect("valid"), in_space("k"), in_space("twin a"), in_space("twin b")];
        let config = GlobalConfig { engine, min_free: 0, ..GlobalConfig::new(&live) };
        let hours = |n: u64| Some(Duration::from_secs(n * 3_600));
        rig.runtime.block_on(async {
            let global = Global::start(Sys::real(), config.clone()).await.expect("started");
            let (store, words) = (global.store(), |words: &str| ContentType::optional(words).expect("valid"));
            store
                .create_namespace(store.next_id().expect("an id"), space.clone(), spec)
                .await
                .expect("created");
            for (name, content_type, ttl) in
                [(&names[0], words("text/css"), hours(50)), (&names[1], words("image/png"), None)]
            {
                let (id, body) = (store.next_id().expect("an id"), Body::Bytes("1".into()));
                let attributes = Attributes { content_type, ttl };
                store.set_as(id, Some(name.clone()), body, attributes).await.expect("stored");
            }
            drop(store);
            global.stop().await.expect("a clean stop");
            let global = Global::start(Sys::real(), config).await.expect("started");
            let store = global.store();
            let twin = |name: &Name| Step::Set {
                name: name.clone(),
                value: Payload::carrying(Blob::hash("twin")).typed(words("a/b")),
                when: When::Always,
                expiry: Expiry::In(Duration::from_secs(7 * 3_600)),
            };
            let steps = vec![twin(&names[2]), twin(&names[3])];
            let both = Transaction::steps(steps);
            // Another is not due before the next minute: what follows is in the journal alone.
            global.authority().checkpoint().await.expect("written");
            store.apply(store.next_id().expect("an id"), both).await.expect("applied");
            drop(store);
            fs::remove_dir_all(rig.path("data")).expect("another takes its place");
            copy(&live, &rig.path("data"));
            global.stop().await.expect("a clean stop");
        });
        fs::remove_dir_all(&live).expect("nobody needs it");
        (rig.old, rig.new) = (Names::new(), Names::new());
        let report = rig.look("data");
        assert!(report.faults.is_empty(), "{engine}: {report:#?}");
        if is_torn {
            rig.damage_batches();
        }
        let _ = rig.salvage().expect("salvaged");
        let report = rig.look("out");
        assert!(report.faults.is_empty() && report.mends.is_empty(), "{engine}: {report:#?}");
        let config = rig.config(&rig.path("out"));
        rig.runtime.block_on(async {
            let global = Global::start(Sys::real(), config).await.expect("started");
            assert_eq!(said(&global, &names[0]).await, Some((Some("text/css".into()), Some(50))), "{engine}");
            assert_eq!(
                said(&global, &names[1]).await,
                Some((Some("image/png".into()), Some(100))),
                "{engine}"
            );
            let twins = [said(&global, &names[2]).await, said(&global, &names[3]).await];
            let twin = if is_torn { None } else { Some((Some("a/b".to_owned()), Some(7))) };
            assert_eq!(twins, [twin.clone(), twin], "{engine}: both or neither");
            let spaces = global.store().namespaces().await.expect("listed");
            assert!(spaces.iter().any(|info| info.namespace == space && info.spec == spec), "{engine}");
            let _ = global.stop().await;
        });
    }
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at as usize] ^= 0x40;
    fs::write(path, bytes).expect("written");
}

fn differing(served: &Names, all: &Names) -> BTreeSet<String> {
    for (key, value) in served {
        if let Some(is) = all.get(key) {
            assert!(value == is, "{key} has other bytes");
        }
    }
    let both = |names: &Names| names.keys().cloned().collect::<BTreeSet<_>>();
    both(served).symmetric_difference(&both(all)).cloned().collect()
}

#[test]
fn of_what_a_crash_leaves_nothing_is_lost() {
    for engine in engines() {
        let rig = Rig::new(engine);
        let (salvaged, served) = rig.salvaged();
        assert!(salvaged.loss.is_none(), "{engine}: {:?}", salvaged.loss);
        assert_eq!(differing(&served, &rig.all()), BTreeSet::new(), "{engine}");
        // The one that was deleted is there still, as it would be.
        assert_eq!((salvaged.values, salvaged.unnamed), (24, 1), "{engine}");
        let report = rig.look("data");
        assert_ne!(report.meta.expect("whole").history, salvaged.history, "no revision is given twice");
    }
}

#[test]
fn a_flipped_byte_amid_the_journal_loses_that_change_alone_and_says_so() {
    for engine in engines() {
        let rig = Rig::new(engine);
        let (segment, batches) = rig.batches();
        assert!(batches.len() > 8, "{batches:?}");
        // Past the checkpoint: what is before it is in the index too.
        flip(&segment, batches[batches.len() - 4] + 100);
        assert!(rig.look("data").faults.iter().any(|e| e.kind() == Kind::Corrupt), "{engine}");
        let (salvaged, served) = rig.salvaged();
        let lost = differing(&served, &rig.all());
        assert!(lost.len() <= 1, "{engine}: {lost:?}");
        assert!(lost.iter().all(|key| rig.new.contains_key(key)), "{engine}: {lost:?}");
        let loss = &salvaged.loss;
        assert!((1..=2).contains(&loss.revisions), "{engine}: {loss:?}");
        assert!(loss.told.iter().any(|line| line.contains("may be back")), "{engine}: {loss:?}");
        assert!(fs::read_to_string(rig.path("out/salvage.txt")).expect("a report").contains("are lost"));
    }
}

#[test]
fn lost_segments_lose_what_came_after_the_checkpoint_and_what_was_deleted_since_may_be_back() {
    for engine in engines() {
        let rig = Rig::new(engine);
        rig.files("journal").iter().for_each(|file| fs::remove_file(file).expect("removed"));
        let (salvaged, served) = rig.salvaged();
        let mut may_differ: BTreeSet<String> = rig.new.keys().cloned().collect();
        may_differ.insert("k1".into());
        let differ = differing(&served, &rig.all());
        // A checkpoint of its own may have had the first of them.
        assert!(differ.is_subset(&may_differ) && differ.len() >= 11, "{engine}: {differ:?}");
        assert_eq!(served["k1"], value(1), "{engine}: its DEL is lost");
        assert!(!salvaged.loss.is_none(), "{engine}");
        // The bytes of large ones were in files: they wait for a name.
        assert!((5..=6).contains(&salvaged.unnamed), "{engine}: {salvaged:?}");
    }
}

#[test]
fn a_lost_index_is_made_up_for_by_a_journal_that_reaches_back() {
    for engine in engines() {
        let rig = Rig::new(engine);
        fs::remove_dir_all(rig.path("data/index")).expect("removed");
        let (salvaged, served) = rig.salvaged();
        assert_eq!(differing(&served, &rig.all()), BTreeSet::new(), "{engine}");
        assert_eq!((salvaged.loss.names, salvaged.loss.revisions), (0, 0), "{engine}: {:?}", salvaged.loss);
        assert!(salvaged.loss.doubts > 0, "{engine}: it says that the index is lost");
    }
}

#[test]
fn a_lost_index_and_a_lost_segment_leave_what_the_others_hold() {
    for engine in engines() {
        let rig = Rig::new(engine);
        fs::remove_dir_all(rig.path("data/index")).expect("removed");
        let (segment, _) = rig.batches_of_segments().swap_remove(0);
        fs::remove_file(segment).expect("removed");
        let (salvaged, served) = rig.salvaged();
        assert!(served.len() < 23 && !salvaged.loss.is_none(), "{engine}: {served:?}");
        assert_eq!(differing(&served, &rig.all()).len(), 23 - served.len(), "{engine}: nothing else came up");
    }
}

impl Rig {
    /// Live segments that hold batches, oldest first, with how many.
    fn batches_of_segments(&self) -> Vec<(PathBuf, u64)> {
        let report = self.look("data");
        let held = report.segments.iter().filter(|s| s.batches > 0);
        held.map(|s| (self.path("data/journal").join(&s.name), s.batches)).collect()
    }
}

#[test]
fn a_damaged_or_missing_file_loses_its_value_and_names_it_and_no_other() {
    for engine in engines() {
        let rig = Rig::new(engine);
        flip(&rig.blob(3), 1_000_000);
        fs::remove_file(rig.blob(14)).expect("removed");
        let report = rig.look("data");
        let missing = report.missing.as_ref().expect("looked for");
        assert_eq!(missing.values, 1, "{engine}: {missing:?}");
        assert_eq!(missing.names, [(Name::of("k14").expect("a key"), BlobHash::of(&value(14)))], "{engine}");
        assert!(report.faults.iter().any(|e| e.message().contains("k14")), "{engine}: {:?}", report.faults);
        let (salvaged, served) = rig.salvaged();
        assert_eq!(differing(&served, &rig.all()), ["k14".to_owned(), "k3".to_owned()].into(), "{engine}");
        assert_eq!((salvaged.loss.names, salvaged.loss.values), (2, 1), "{engine}: {:?}", salvaged.loss);
        for key in ["k3", "k14"] {
            assert!(
                salvaged
                    .loss
                    .told
                    .iter()
                    .any(|line| line.contains(&format!("{:?}", Name::of(key).expect("a key")))),
                "{engine}: {key}"
            );
        }
    }
}

#[test]
fn without_meta_or_checkpoints_everything_is_there_and_the_doubt_is_told() {
    for engine in engines() {
        for damaged in [&["meta"][..], &["checkpoint"], &["checkpoint", "checkpoint.old"]] {
            let rig = Rig::new(engine);
            damaged.iter().filter(|file| rig.path("data").join(file).exists()).for_each(|file| {
                flip(&rig.path("data").join(file), 30);
            });
            let (salvaged, served) = rig.salvaged();
            assert_eq!(differing(&served, &rig.all()), BTreeSet::new(), "{engine} {damaged:?}");
            assert_eq!(salvaged.engine, engine, "{damaged:?}");
        }
    }
}

#[test]
fn the_first_start_of_what_was_salvaged_lets_every_change_wait_for_leases_of_before() {
    let rig = Rig::new(EngineKind::preferred());
    rig.salvage().expect("salvaged");
    rig.runtime.block_on(async {
        let global = Global::start(Sys::real(), rig.config(&rig.path("out"))).await.expect("started");
        let begun = std::time::Instant::now();
        // A name may be lost that a Local still serves, and an asynchronous delete may not have reached it.
        set(&global, 30).await;
        let waited = begun.elapsed();
        assert!(waited > std::time::Duration::from_secs(1), "it overtook leases of before: {waited:?}");
        set(&global, 31).await;
        global.stop().await.expect("a clean stop");
    });
}

#[test]
fn a_target_within_the_source_is_refused_and_nothing_is_written_there() {
    let rig = Rig::new(EngineKind::preferred());
    let before = contents(&rig.path("data"));
    let config = SalvageConfig {
        data: rig.path("data"),
        to: rig.path("data/out"),
        temp: rig.dir.path().to_owned(),
        min_free: 0,
    };
    let e = salvage(&Sys::real(), &config).expect_err("within the source");
    assert_eq!(e.kind(), Kind::Invalid);
    assert_eq!(contents(&rig.path("data")), before);
}

#[test]
fn a_place_that_is_taken_or_too_small_and_a_directory_in_use_are_refused_and_left_as_they_are() {
    let rig = Rig::new(EngineKind::preferred());
    fs::create_dir(rig.path("out")).expect("made");
    fs::write(rig.path("out/mine"), "mine").expect("written");
    assert_eq!(rig.salvage().expect_err("not empty").kind(), Kind::Invalid);
    assert_eq!(contents(&rig.path("out")).len(), 1);
    fs::remove_file(rig.path("out/mine")).expect("removed");
    let config = SalvageConfig {
        data: rig.path("data"),
        to: rig.path("out"),
        temp: rig.path(""),
        min_free: u64::MAX / 2,
    };
    assert_eq!(salvage(&Sys::real(), &config).expect_err("no room").kind(), Kind::Exhausted);
    assert_eq!(contents(&rig.path("out")).len(), 0, "nothing was begun");
    let elsewhere = SalvageConfig { data: rig.path("nowhere"), min_free: 0, ..config.clone() };
    assert_eq!(salvage(&Sys::real(), &elsewhere).expect_err("none").kind(), Kind::Invalid);
    let global =
        rig.runtime.block_on(Global::start(Sys::real(), rig.config(&rig.path("live")))).expect("started");
    let used = SalvageConfig { data: rig.path("live"), min_free: 0, ..config };
    assert_eq!(salvage(&Sys::real(), &used).expect_err("in use").kind(), Kind::Unavailable);
    rig.runtime.block_on(global.stop()).expect("a clean stop");
    assert!(rig.salvage().expect("an empty directory will do").loss.is_none());
}
