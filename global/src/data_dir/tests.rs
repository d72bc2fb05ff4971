//! The journal here is a plain file, so that what is tested is the directory and not the journal.

mod crash;

use super::*;
use crate::change::{BlobMeta, Change, Commit, Commits, Payload, Place};
use crate::engine::{Table, Write};
use dstore_shared::{BlobHash, ClientId, Entry, Moment, Name, Outcome, RequestId, SetOutcome};
use dstore_sys::disk::{DiskFile, Open, RealDisk};
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use tempfile::TempDir;

/// Batches one after another in a file: length, first, last, payload.
#[derive(Debug)]
struct FakeJournal {
    file: Box<dyn DiskFile>,
    at: u64,
    head: Revision,
}

impl FakeJournal {
    fn open(dir: &Path, _: Floors, replay: Replay<'_>) -> Result<(Self, Found)> {
        RealDisk.create_dir_all(dir).unwrap();
        let path = dir.join("log");
        let how = if RealDisk.exists(&path).unwrap() { Open::Write } else { Open::Create };
        let file = RealDisk.open(&path, how).unwrap();
        let bytes = Bytes::from(RealDisk.read(&path, 1 << 30).unwrap());
        let (mut at, mut head) = (0, Revision(0));
        while let Some(header) = bytes.get(at..at + 20) {
            let len = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
            let first = u64::from_le_bytes(header[4..12].try_into().unwrap());
            let last = u64::from_le_bytes(header[12..].try_into().unwrap());
            if at + 20 + len > bytes.len() {
                break;
            }
            replay(Revision(first), Revision(last), bytes.slice(at + 20..at + 20 + len))?;
            (at, head) = (at + 20 + len, Revision(last));
        }
        Ok((Self { file, at: at as u64, head }, Found { head, torn: None }))
    }

    fn append(&mut self, commits: &[Commit]) {
        let mut payload = Payload::new();
        for commit in commits {
            payload.push(commit);
        }
        let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
        bytes.extend(commits[0].revision.0.to_le_bytes());
        self.head = commits.last().unwrap().revision;
        bytes.extend(self.head.0.to_le_bytes());
        bytes.extend(payload.slices().concat());
        self.file.write_all_at(&bytes, self.at).unwrap();
        self.at += bytes.len() as u64;
        self.file.sync().unwrap();
    }
}

fn config(path: &Path, engine: EngineKind) -> DataDirConfig {
    let catalog =
        CatalogConfig { memtable_bytes: 4000, checkpoint_bytes: 30_000, ..CatalogConfig::default() };
    DataDirConfig { path: path.to_owned(), engine, catalog }
}

fn try_open(path: &Path, engine: EngineKind) -> Result<Opened<FakeJournal>> {
    let opened = open(&Sys::real(), &config(path, engine), |dir, floors, replay| {
        FakeJournal::open(&dir, floors, replay)
    })?;
    opened.dir.begin(Duration::ZERO)?;
    Ok(opened)
}

fn open_memory(path: &Path) -> Opened<FakeJournal> {
    try_open(path, EngineKind::Memory).expect("opened")
}

/// What revision `i` does: the same in every run, so that the state at any head is known.
fn commit(i: u64) -> Commit {
    let name = Name::of(format!("key/{}", i * 7919 % 97)).unwrap();
    let bytes = Bytes::from(i.to_le_bytes().repeat(1 + (i % 60) as usize));
    let hash = BlobHash::of(&bytes);
    let entry =
        Entry { hash, size: bytes.len() as u64, bind_rev: Revision(i), expires_at: None, content_type: None };
    let meta =
        BlobMeta { size: entry.size, refs: 1, place: Place::Inline, unnamed_since_ms: None, corrupt: false };
    let changes = match i % 5 {
        0 => vec![Change::Unbind { name }],
        _ => vec![
            Change::Bind { name, entry: entry.clone() },
            Change::Blob { hash, meta },
            Change::Inline { hash, bytes },
        ],
    };
    let outcome = Some((id(i), Outcome::Set(SetOutcome::Stored(entry))));
    Commit { revision: Revision(i), at_ms: 1_000_000 + i, outcome, changes }
}

fn id(i: u64) -> RequestId {
    RequestId { client: ClientId(5), n: i, ..RequestId::default() }
}

fn write(opened: &mut Opened<FakeJournal>, upto: u64) {
    while opened.journal.head.0 < upto {
        let next = commit(opened.journal.head.0 + 1);
        opened.journal.append(std::slice::from_ref(&next));
        opened.catalog.show(&[next]).unwrap();
    }
}

fn checkpoint(opened: &Opened<FakeJournal>) -> Revision {
    let done = opened.catalog.checkpoint(Moment::ZERO, outcomes(opened.journal.head.0));
    done.blocking_recv().unwrap().unwrap()
}

/// A directory that was checkpointed at one revision, and lost its process at a later one.
fn crashed(checkpointed: u64, head: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    write(&mut opened, checkpointed);
    checkpoint(&opened);
    write(&mut opened, head);
    drop_unclean(opened);
    dir
}

/// All outcomes up to `head`.
fn outcomes(head: u64) -> Vec<Remembered> {
    let outcome = |i| {
        let (id, outcome) = commit(i).outcome.unwrap();
        (id, outcome, 1_000_000 + i)
    };
    (1..=head).map(outcome).collect()
}

/// Everything is as commits 1 to the head left it.
fn check<J>(opened: &Opened<J>) {
    let head = opened.catalog.head().0;
    assert_eq!(opened.journal_time, if head == 0 { 0 } else { 1_000_000 + head });
    let mut names = BTreeMap::new();
    for i in 1..=head {
        for change in commit(i).changes {
            match change {
                Change::Bind { name, entry } => _ = names.insert(name, Some(entry)),
                Change::Unbind { name } => _ = names.insert(name, None),
                Change::Inline { hash, bytes } => {
                    assert_eq!(opened.catalog.inline(&hash).unwrap(), Some(bytes), "inline of {i} at {head}");
                }
                _ => {}
            }
        }
    }
    for (name, entry) in names {
        assert_eq!(opened.catalog.entry(&name).unwrap(), entry, "{name:?} at {head}");
    }
    let outcomes: Vec<u64> = opened.outcomes.iter().map(|(id, _, _)| id.n).collect();
    assert_eq!(outcomes, (1..=head).collect::<Vec<_>>());
}

/// Closes as a process that was killed would: nothing is said, nothing is waited for but the index's lock.
fn drop_unclean(opened: Opened<FakeJournal>) {
    let Opened { catalog, applier, dir, .. } = opened;
    drop((catalog, dir));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(applier.wait());
}

fn boot_of(path: &Path) -> u64 {
    Meta::load(&RealDisk, path).unwrap().unwrap().boot
}

#[test]
fn every_open_has_a_new_boot_number_and_a_clean_mark_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let first = open_memory(&path);
    assert_eq!((first.boot, first.fresh, first.clean, first.rebuilt), (1, true, false, false));
    assert_eq!((first.lease_max, first.negatives_ever), (Duration::ZERO, false));
    let history = first.history;
    first.dir.persist_lease_max(Duration::from_secs(3)).unwrap();
    first.dir.persist_lease_max(Duration::from_secs(2)).unwrap();
    first.dir.persist_negatives().unwrap();
    drop_unclean(first);
    let mut second = open_memory(&path);
    assert_eq!((second.boot, second.fresh, second.clean), (2, false, false));
    assert_eq!((second.lease_max, second.negatives_ever), (Duration::from_secs(3), true));
    assert_eq!(second.history, history);
    write(&mut second, 10);
    second.dir.mark_clean(Revision(10)).unwrap();
    drop_unclean(second);
    let third = open_memory(&path);
    assert_eq!((third.boot, third.clean), (3, true));
    check(&third);
    third.dir.persist_lease_max(Duration::from_secs(1)).unwrap();
    drop_unclean(third);
    let fourth = open_memory(&path);
    assert_eq!((fourth.boot, fourth.clean), (4, false), "the mark was consumed");
    assert_eq!(fourth.lease_max, Duration::from_secs(1), "longer leases ended with the clean stop");
    fourth.dir.mark_clean(Revision(10)).unwrap();
    drop_unclean(fourth);
    let refused = open::<()>(&Sys::real(), &config(&path, EngineKind::Memory), |_, floors, _| {
        assert_eq!(floors.clean, Some(Revision(10)));
        Err(Error::corrupt("planted"))
    });
    assert!(refused.is_err());
    assert!(open_memory(&path).clean, "an open that failed consumes nothing");
}

#[test]
fn a_start_that_ends_before_it_begins_consumes_neither_the_mark_nor_a_boot_number() {
    let dir = tempfile::tempdir().unwrap();
    let open_only = || {
        open(&Sys::real(), &config(dir.path(), EngineKind::Memory), |dir, floors, replay| {
            FakeJournal::open(&dir, floors, replay)
        })
    };
    for _ in 0..2 {
        let opened = open_only().unwrap();
        assert_eq!((opened.boot, opened.fresh), (1, true));
        drop_unclean(opened);
    }
    let mut first = open_memory(dir.path());
    write(&mut first, 10);
    first.dir.mark_clean(Revision(10)).unwrap();
    drop_unclean(first);
    for _ in 0..2 {
        let opened = open_only().unwrap();
        assert_eq!((opened.boot, opened.clean), (2, true));
        drop_unclean(opened);
    }
    // From here on a crash is one, and the lease that may have been granted is waited for.
    let begun = open_only().unwrap();
    begun.dir.begin(Duration::from_secs(7)).unwrap();
    drop_unclean(begun);
    let next = open_only().unwrap();
    assert_eq!((next.boot, next.clean, next.lease_max), (3, false, Duration::from_secs(7)));
}

#[test]
fn a_mark_that_is_not_the_head_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    write(&mut opened, 5);
    opened.dir.persist_lease_max(Duration::from_secs(3)).unwrap();
    opened.dir.persist_async_dels().unwrap();
    opened.dir.mark_clean(Revision(4)).unwrap();
    drop_unclean(opened);
    for _ in 0..2 {
        let next = open_memory(dir.path());
        assert!(!next.clean && next.async_dels, "what may be outstanding is not forgotten");
        assert_eq!(next.lease_max, Duration::from_secs(3));
        drop_unclean(next);
    }
}

#[test]
fn a_second_dstore_is_told_which_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let held = open_memory(dir.path());
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("in use");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains(&dir.path().display().to_string()), "{error}");
    assert!(error.message().contains("in use by another dstore"), "{error}");
    drop_unclean(held);
    open_memory(dir.path());
}

#[test]
fn another_engine_is_refused_by_both_names() {
    let dir = tempfile::tempdir().unwrap();
    drop_unclean(open_memory(dir.path()));
    let error = try_open(dir.path(), EngineKind::Fjall).expect_err("another engine");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.message().contains("`memory`") && error.message().contains("`fjall`"), "{error}");
    assert_eq!(boot_of(dir.path()), 1);
}

#[test]
fn an_unusable_directory_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    RealDisk.open(&file, Open::Create).unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = try_open(&path, EngineKind::Memory).expect_err("a file");
        assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
        assert!(error.message().contains("--data"), "{error}");
    }
    let orphan = dir.path().join("orphan");
    RealDisk.create_dir_all(&orphan.join("journal")).unwrap();
    let error = try_open(&orphan, EngineKind::Memory).expect_err("no meta");
    assert!(error.kind() == Kind::Corrupt && error.message().contains("`meta`"), "{error}");
    let damaged = dir.path().join("damaged");
    drop_unclean(open_memory(&damaged));
    RealDisk.open(&damaged.join("meta"), Open::Write).unwrap().write_all_at(b"x", 40).unwrap();
    assert_eq!(try_open(&damaged, EngineKind::Memory).expect_err("damaged").kind(), Kind::Corrupt);
    let newer = dir.path().join("newer");
    drop_unclean(open_memory(&newer));
    let form = sealed_form(2);
    crate::sealed::SealedWriter::create(&RealDisk, &newer.join("meta"), form)
        .and_then(|w| w.seal()?.replace(None))
        .unwrap();
    let error = try_open(&newer, EngineKind::Memory).expect_err("newer");
    assert!(error.kind() == Kind::Invalid && error.message().contains("newer dstore"), "{error}");
}

fn sealed_form(version: u32) -> crate::sealed::Form {
    crate::sealed::Form { magic: *b"dstoreME", version }
}

fn index_is_ahead(path: &Path, revision: u64) {
    let index = engine::open(EngineKind::Memory, &Sys::real(), &path.join("index")).unwrap();
    let write = Write { table: Table::Names, key: "x".into(), value: None };
    index.apply(vec![write], Revision(revision)).unwrap();
    index.checkpoint().unwrap();
}

#[test]
fn an_index_behind_the_journal_is_caught_up_and_one_ahead_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    write(&mut opened, 30);
    assert_eq!(checkpoint(&opened), Revision(30));
    write(&mut opened, 70);
    drop_unclean(opened);
    let opened = open_memory(dir.path());
    check(&opened);
    drop_unclean(opened);
    index_is_ahead(dir.path(), 71);
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("ahead");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().contains("`71`") && error.message().contains("`70`"), "{error}");
    assert_eq!(boot_of(dir.path()), 2, "a refused open changes nothing");
    index_is_ahead(dir.path(), 70);
    check(&open_memory(dir.path()));
}

fn damage_index(path: &Path) {
    let file = RealDisk.open(&path.join("index/memory"), Open::Write).unwrap();
    file.write_all_at(b"damage", 60).unwrap();
}

#[test]
fn an_index_that_cannot_be_opened_is_rebuilt_from_the_whole_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    write(&mut opened, 50);
    checkpoint(&opened);
    checkpoint(&opened);
    assert_eq!(opened.catalog.trim_below(), Revision(51));
    write(&mut opened, 60);
    drop_unclean(opened);
    damage_index(dir.path());
    let opened = open_memory(dir.path());
    assert!(opened.rebuilt);
    check(&opened);
    assert_eq!(opened.catalog.trim_below(), Revision(0), "nothing may go until two checkpoints prove it");
    drop_unclean(opened);
    // The rebuilt index was in memory only: the old checkpoint must not vouch for what is on disk now.
    let mut opened = open_memory(dir.path());
    assert!(opened.rebuilt);
    write(&mut opened, 65);
    assert_eq!(checkpoint(&opened), Revision(65));
    assert_eq!(opened.catalog.trim_below(), Revision(0));
    drop_unclean(opened);
    let opened = open_memory(dir.path());
    assert!(!opened.rebuilt);
    check(&opened);
}

#[test]
fn a_checkpoint_vouches_for_no_index_but_its_own() {
    let dir = crashed(50, 60);
    // As far as the checkpoint and further, but another index: such as a rebuild that was cut short.
    engine::discard(EngineKind::Memory, &Sys::real(), &dir.path().join("index")).unwrap();
    index_is_ahead(dir.path(), 55);
    let opened = open_memory(dir.path());
    assert!(opened.rebuilt);
    check(&opened);
}

/// Leaves only the batches after `revision` in the journal, as trimming would.
fn trim(path: &Path, revision: u64) {
    let log = path.join("journal/log");
    let mut kept = Vec::new();
    FakeJournal::open(&path.join("journal"), Floors::default(), &mut |first, _, payload| {
        if first.0 > revision {
            kept.extend(Commits::of(payload).map(Result::unwrap));
        }
        Ok(())
    })
    .unwrap();
    RealDisk.remove(&log).unwrap();
    let (mut journal, _) =
        FakeJournal::open(&path.join("journal"), Floors::default(), &mut |_, _, _| Ok(())).unwrap();
    for commit in &kept {
        journal.append(std::slice::from_ref(commit));
    }
}

#[test]
fn an_index_that_the_journal_cannot_rebuild_is_refused_and_left_alone() {
    let dir = crashed(50, 60);
    trim(dir.path(), 40);
    check(&open_memory(dir.path()));
    let index = dir.path().join("index/memory");
    let whole = RealDisk.read(&index, 1 << 20).unwrap();
    damage_index(dir.path());
    let damaged = RealDisk.read(&index, 1 << 20).unwrap();
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("cannot be rebuilt");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().contains("does not reach back to 1"), "{error}");
    assert_eq!(RealDisk.read(&index, 1 << 20).unwrap(), damaged);
    // Another index than the checkpoint proves is no better.
    RealDisk.remove(&index).unwrap();
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("another index");
    assert!(error.message().contains("not the one that `checkpoint` proves"), "{error}");
    RealDisk.open(&index, Open::Create).unwrap().write_all_at(&whole, 0).unwrap();
    check(&open_memory(dir.path()));
}

#[test]
fn a_journal_with_a_gap_is_refused() {
    let dir = crashed(20, 30);
    trim(dir.path(), 21);
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("gap");
    assert!(error.kind() == Kind::Corrupt && error.message().contains("missing"), "{error}");
    trim(dir.path(), 30);
    let error = try_open(dir.path(), EngineKind::Memory).expect_err("shorter than the checkpoint");
    assert!(error.message().contains("lost acknowledged writes"), "{error}");
}

#[test]
fn outcomes_are_kept_for_their_window() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    write(&mut opened, 10);
    checkpoint(&opened);
    let late = Commit { at_ms: 1_000_005 + 600_000, ..commit(11) };
    opened.journal.append(std::slice::from_ref(&late));
    opened.catalog.show(&[late]).unwrap();
    drop_unclean(opened);
    let opened = open_memory(dir.path());
    let left: Vec<u64> = opened.outcomes.iter().map(|(id, _, _)| id.n).collect();
    assert_eq!(left, [5, 6, 7, 8, 9, 10, 11]);
}

#[cfg(feature = "fjall")]
#[test]
fn fjall_dropped_without_a_checkpoint_is_redone() {
    dropped_without_a_checkpoint_is_redone(EngineKind::Fjall, "fjall/keyspaces");
}

#[cfg(feature = "sled")]
#[test]
fn sled_dropped_without_a_checkpoint_is_redone() {
    dropped_without_a_checkpoint_is_redone(EngineKind::Sled, "sled");
}

#[cfg(any(feature = "fjall", feature = "sled"))]
fn dropped_without_a_checkpoint_is_redone(engine: EngineKind, files: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (boot, checkpointed) in [(1, false), (2, true), (3, false), (4, false)] {
        let mut opened = try_open(dir.path(), engine).unwrap();
        assert_eq!((opened.boot, opened.rebuilt), (boot, false));
        check(&opened);
        let head = opened.journal.head.0;
        write(&mut opened, head + 100);
        if checkpointed {
            checkpoint(&opened);
        }
        drop_unclean(opened);
    }
    // A folder that lost its files is not an index.
    std::fs::remove_dir_all(dir.path().join("index").join(files)).unwrap();
    let opened = try_open(dir.path(), engine).unwrap();
    assert!(opened.rebuilt);
    check(&opened);
}

/// The child of [`killed_at_any_moment`]: writes until it is killed, and says what is acknowledged.
#[test]
#[ignore = "run by killed_at_any_moment as a process of its own"]
fn storm() {
    let Ok(path) = std::env::var("DSTORE_STORM_DIR") else { return };
    let engine = std::env::var("DSTORE_STORM_ENGINE").unwrap().parse().unwrap();
    let mut opened = try_open(Path::new(&path), engine).unwrap();
    let rng = SeededRng::new(opened.boot);
    let outcome = |c: &Commit| c.outcome.clone().map(|(id, outcome)| (id, outcome, c.at_ms));
    let mut outcomes: Vec<Remembered> = opened.outcomes.clone();
    let mut out = std::io::stdout();
    loop {
        let head = opened.journal.head.0;
        let batch: Vec<_> = (1..=1 + rng.next_u64() % 8).map(|i| commit(head + i)).collect();
        opened.journal.append(&batch);
        outcomes.extend(batch.iter().filter_map(outcome));
        opened.catalog.show(&batch).unwrap();
        writeln!(out, "ack {}", opened.journal.head).unwrap();
        if opened.catalog.checkpoint_due(Moment::ZERO) {
            drop(opened.catalog.checkpoint(Moment::ZERO, outcomes.clone()));
        }
    }
}

fn killed_at_any_moment(engine: EngineKind) {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("DSTORE_SEED={seed}");
    let rng = SeededRng::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut boots = 0;
    for round in 0..10 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "data_dir::tests::storm", "--ignored", "--nocapture"])
            .env("DSTORE_STORM_DIR", dir.path())
            .env("DSTORE_STORM_ENGINE", engine.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ack = |line: String| line.strip_prefix("ack ").and_then(|n| n.parse::<u64>().ok());
        let mut acked = lines.by_ref().find_map(ack).unwrap_or(0);
        // No event is waited for: any moment will do.
        std::thread::sleep(Duration::from_micros(rng.next_u64() % 40_000));
        child.kill().unwrap();
        child.wait().unwrap();
        acked = acked.max(lines.filter_map(ack).last().unwrap_or(0));
        let opened = try_open(dir.path(), engine).unwrap();
        println!("round {round}: acknowledged {acked}, head {}, boot {}", opened.journal.head, opened.boot);
        assert!(acked > 0 && opened.journal.head.0 >= acked);
        assert!(opened.boot >= boots + 2 && !opened.clean && !opened.rebuilt, "{opened:?}");
        boots = opened.boot;
        check(&opened);
        drop_unclean(opened);
    }
}

#[test]
fn a_killed_process_with_the_memory_engine_loses_nothing_acknowledged() {
    killed_at_any_moment(EngineKind::Memory);
}

#[cfg(feature = "sled")]
#[test]
fn a_killed_process_with_the_sled_engine_loses_nothing_acknowledged() {
    killed_at_any_moment(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn a_killed_process_with_the_fjall_engine_loses_nothing_acknowledged() {
    killed_at_any_moment(EngineKind::Fjall);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "another journal is put there behind its back")]
fn feed_and_log_go_back_as_far_as_the_journal_was_read_and_have_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_memory(dir.path());
    assert_eq!((opened.feed.floor(), opened.feed.head()), (Revision(0), Revision(0)));
    let commits: Vec<Commit> = (1..=40).map(commit).collect();
    for batch in commits.chunks(7) {
        opened.journal.append(batch);
        opened.catalog.show(batch).unwrap();
    }
    // The checkpoint is in the middle of a batch, as far as the journal is concerned.
    let checkpoint = opened.catalog.checkpoint(Moment::from_nanos(1), Vec::new());
    let checkpoint = checkpoint.blocking_recv().unwrap().unwrap();
    drop(opened);
    assert_eq!(checkpoint, Revision(40));
    let opened = open_memory(dir.path());
    assert_eq!((opened.feed.floor(), opened.feed.head()), (Revision(0), Revision(40)));
    let (floor, voided) = opened.log.into_parts();
    let voided: Vec<u64> = voided.map(|(revision, _)| revision.0).collect();
    assert_eq!((floor.0, voided), (0, (1..=40).filter(|i| i % 5 == 0).collect()), "what Locals missed, too");
    drop((opened.catalog, opened.journal, opened.dir));
    // A journal that begins later.
    let path = dir.path().join("journal/log");
    let bytes = std::fs::read(&path).unwrap();
    let first = 20 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    std::fs::write(&path, &bytes[first..]).unwrap();
    let opened = open_memory(dir.path());
    assert_eq!((opened.feed.floor(), opened.feed.head()), (Revision(7), Revision(40)));
}

#[test]
fn asynchronous_dels_are_remembered_over_crashes_and_not_over_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let first = open_memory(&path);
    assert!(!first.async_dels);
    first.dir.persist_async_dels().unwrap();
    drop_unclean(first);
    let second = open_memory(&path);
    assert!(second.async_dels, "a drain may have been cut short");
    drop_unclean(second);
    let mut third = open_memory(&path);
    assert!(third.async_dels, "and its leases may still run");
    write(&mut third, 10);
    third.dir.mark_clean(Revision(10)).unwrap();
    drop_unclean(third);
    let fourth = open_memory(&path);
    assert!(fourth.clean);
    drop_unclean(fourth);
    assert!(!open_memory(&path).async_dels, "nobody served anything at the clean stop");
}

#[test]
fn after_a_loss_every_change_waits_over_a_second_crash_too() {
    let dir = tempfile::tempdir().unwrap();
    let open_only = || {
        open(&Sys::real(), &config(dir.path(), EngineKind::Memory), |dir, floors, replay| {
            FakeJournal::open(&dir, floors, replay)
        })
        .unwrap()
    };
    let relaxed = open_only();
    relaxed.dir.begin_as(Duration::ZERO, true).unwrap();
    let before = relaxed.history;
    drop_unclean(relaxed);
    let second = open_only();
    assert!(second.lossy && second.history != before);
    second.dir.begin(Duration::ZERO).unwrap();
    let after = second.history;
    drop_unclean(second);
    // The leases of the first life may still run, and what they are of may be lost.
    let third = open_only();
    assert!(!third.lossy && third.async_dels && third.history == after);
    drop_unclean(third);
}
