//! Directories that stopped in many ways and were damaged in many ways, with the real journal on a simulated disk.

use super::*;
use crate::change::{Commit, Payload};
use crate::data_dir::Opened;
use crate::journal::{Journal, JournalConfig};
use dstore_shared::Kind;
use dstore_shared::Moment;
use dstore_sys::disk::{Open, SimDisk, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Blocking;

const DIR: &str = "/data/dstore";

fn sys(disk: &SimDisk) -> Sys {
    let blocking = Blocking::Inline { latency: Duration::ZERO };
    Sys { disk: Arc::new(disk.clone()), rng: Arc::new(SeededRng::new(7)), blocking, ..Sys::real() }
}

/// A start, as `Global` does it.
fn open(disk: &SimDisk, segment_bytes: u64) -> Result<Opened<Journal>> {
    let sys = sys(disk);
    let config =
        DataDirConfig { path: DIR.into(), engine: EngineKind::Memory, catalog: CatalogConfig::default() };
    data_dir::open(&sys, &config, |dir, floors, replay| {
        let small = JournalConfig {
            segment_bytes,
            first_segment_bytes: segment_bytes - 8192,
            spare_segments: 1,
            min_free_bytes: 0,
            ..JournalConfig::new(dir)
        };
        let floors =
            journal::Floors { checkpoint: floors.checkpoint, index: floors.index, clean: floors.clean };
        let (journal, found) = Journal::open(&sys, &small, &floors, |b| replay(b.first, b.last, b.payload))?;
        Ok((journal, data_dir::Found { head: found.head, torn: found.torn.map(|t| t.to_string()) }))
    })
}

async fn close(opened: Opened<Journal>, clean: bool) {
    if clean {
        opened.dir.mark_clean(opened.catalog.head()).unwrap();
    }
    let Opened { catalog, applier, journal, .. } = opened;
    drop((catalog, journal));
    applier.wait().await;
}

fn commit(i: u64) -> Commit {
    Commit { revision: Revision(i), at_ms: 1_000 + i, outcome: None, changes: Vec::new() }
}

fn append(opened: &mut Opened<Journal>, n: u64) {
    for _ in 0..n {
        let next = commit(opened.catalog.head().0 + 1);
        let mut payload = Payload::new();
        payload.push(&next);
        opened.journal.append(next.revision, next.revision, &payload.slices()).unwrap();
        opened.catalog.show(&[next]).unwrap();
    }
}

async fn checkpoint(opened: &Opened<Journal>) {
    opened.catalog.checkpoint(Moment::ZERO, Vec::new()).await.unwrap().unwrap();
}

/// Two checkpoints, at revisions 3 and 6, then three more batches, in segments that hold few; a journal that
/// reaches back to revision 1 unless it is trimmed.
async fn lived(clean: bool, trimmed: bool) -> SimDisk {
    let disk = SimDisk::new();
    let mut opened = open(&disk, 24 << 10).unwrap();
    opened.dir.begin(Duration::from_secs(2)).unwrap();
    for _ in 0..2 {
        append(&mut opened, 3);
        checkpoint(&opened).await;
    }
    append(&mut opened, 3);
    if trimmed {
        opened.journal.trim(opened.catalog.trim_below());
    }
    close(opened, clean).await;
    disk
}

/// What the check says; nothing was changed by it.
fn check(disk: &SimDisk) -> Result<Report> {
    let config = InspectConfig { data: DIR.into(), temp: "/tmp".into(), deep: true, min_free: 0 };
    let (ops, files) = (disk.op_count(), disk.files());
    let report = inspect(&sys(disk), &config);
    assert_eq!((disk.op_count(), disk.files()), (ops, files), "something was changed");
    report
}

fn explained(disk: &SimDisk) -> Report {
    check(disk).expect("a data directory")
}

/// The live segments, oldest first.
fn segments(disk: &SimDisk) -> Vec<SegmentFacts> {
    explained(disk).segments.into_iter().filter(|s| s.batches > 0).collect()
}

fn in_journal(name: &str) -> PathBuf {
    Path::new(DIR).join("journal").join(name)
}

fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

#[tokio::test]
async fn a_directory_that_was_stopped_cleanly_is_healthy() {
    let report = explained(&lived(true, false).await);
    assert_eq!(report.verdict(), Verdict::Healthy, "{report:#?}");
    assert!(report.locked && report.notes.is_empty(), "{report:#?}");
    let meta = report.meta.expect("whole");
    assert_eq!((meta.boot, meta.clean, &meta.engine[..]), (1, Some(Revision(9)), "memory"));
    assert_eq!(meta.lease_max, Duration::from_secs(2));
    let revisions: Vec<_> = report
        .checkpoints
        .iter()
        .map(|c| c.found.as_ref().expect("there").as_ref().expect("whole").revision.0)
        .collect();
    assert_eq!(revisions, [6, 3]);
    let index = report.index.expect("looked at");
    assert!(index.proven && index.found.is_ok_and(|(_, revision)| revision == Revision(6)));
    let judged = report.journal.expect("judged");
    assert_eq!((judged.head, judged.clean, judged.replayed, judged.torn), (Revision(9), true, 3, None));
    let live: Vec<_> = report.segments.iter().filter(|s| s.batches > 0).collect();
    assert_eq!(live.iter().map(|s| s.batches).sum::<u64>(), 9);
    assert_eq!((live[0].first, live.last().unwrap().last), (Some(Revision(1)), Some(Revision(9))));
    assert!(report.segments.iter().all(|s| s.faults.is_empty() && s.unusable.is_none()));
}

#[tokio::test]
async fn a_killed_directory_is_healthy_and_says_that_it_was_not_stopped() {
    let disk = lived(false, false).await.crash(Survival::Everything, 1);
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Healthy, "{report:#?}");
    assert!(report.notes.iter().any(|n| n.starts_with("not stopped cleanly")), "{:?}", report.notes);
    assert_eq!(report.journal.expect("judged").head, Revision(9));
}

#[tokio::test]
async fn a_torn_tail_is_told_and_mends() {
    let disk = lived(false, false).await;
    let last = segments(&disk).pop().unwrap();
    disk.flip(&in_journal(&last.name), last.used - 4096 + 70, 1).unwrap();
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Mends, "{report:#?}");
    let judged = report.journal.expect("judged");
    assert_eq!(judged.head, Revision(8));
    let torn = judged.torn.expect("torn");
    assert_eq!((torn.segment, torn.offset, torn.revision), (last.name, last.used - 4096, Revision(9)));
    assert_eq!(open(&disk, 24 << 10).expect("a start mends it").catalog.head(), Revision(8));
}

#[tokio::test]
async fn a_damaged_batch_in_the_middle_is_named_and_not_healthy() {
    let disk = lived(false, false).await;
    let needed = segments(&disk).into_iter().find(|s| s.last > Some(Revision(7))).unwrap();
    disk.flip(&in_journal(&needed.name), 8192 + 70, 1).unwrap();
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Damaged, "{report:#?}");
    let named = report.segments.iter().find(|s| s.name == needed.name).unwrap();
    assert_eq!((named.faults.len(), named.faults[0].offset), (1, 8192), "{named:?}");
    assert!(report.faults[0].message().contains(&needed.name), "{:?}", report.faults);
    assert_eq!(open(&disk, 24 << 10).expect_err("refused").kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_missing_segment_is_not_healthy() {
    let disk = lived(false, false).await;
    let last = segments(&disk).pop().unwrap();
    disk.remove(&in_journal(&last.name)).unwrap();
    // What was acknowledged in it is known to nobody else, unless it was checkpointed or the stop was clean.
    let clean = lived(true, false).await;
    clean.remove(&in_journal(&segments(&clean).pop().unwrap().name)).unwrap();
    let report = explained(&clean);
    assert_eq!(report.verdict(), Verdict::Damaged, "{report:#?}");
    assert!(report.faults[0].message().contains("clean-shutdown mark"), "{:?}", report.faults);
    assert!(open(&clean, 24 << 10).is_err());
    let (seen, start) = (explained(&disk).verdict(), open(&disk, 24 << 10));
    assert_eq!(matches!(seen, Verdict::Healthy | Verdict::Mends), start.is_ok(), "{seen:?}");
}

#[tokio::test]
async fn another_index_mends_only_if_the_journal_reaches_back() {
    for trimmed in [false, true] {
        let disk = lived(true, trimmed).await;
        disk.remove(&file("index/memory")).unwrap();
        let report = explained(&disk);
        let index = report.index.clone().expect("looked at");
        assert!(!index.proven);
        let reaches = report.segments.iter().any(|s| s.first == Some(Revision(1)));
        let expected = if reaches { Verdict::Mends } else { Verdict::Damaged };
        assert_eq!(report.verdict(), expected, "{report:#?}");
        assert_eq!(open(&disk, 24 << 10).is_ok(), reaches);
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let disk = lived(true, false).await;
    disk.flip(&file("checkpoint"), 30, 1).unwrap();
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Mends, "{report:#?}");
    assert!(matches!(report.checkpoints[0].found, Some(Err(_))));
    assert_eq!(report.journal.expect("judged").replayed, 6);
    disk.flip(&file("checkpoint.old"), 30, 1).unwrap();
    assert_eq!(explained(&disk).verdict(), Verdict::Damaged);
}

#[tokio::test]
async fn no_directory_an_empty_one_and_one_in_use_are_refused() {
    let disk = SimDisk::new();
    assert_eq!(check(&disk).expect_err("none").kind(), Kind::Invalid);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    assert_eq!(check(&disk).expect_err("empty").kind(), Kind::Invalid);
    let opened = open(&disk, 24 << 10).unwrap();
    let error = check(&disk).expect_err("in use");
    assert!(error.message().contains("in use"), "{error}");
    close(opened, true).await;
    assert_eq!(explained(&disk).verdict(), Verdict::Healthy);
}

#[tokio::test]
async fn a_damaged_blob_is_named_and_a_staged_one_goes() {
    let disk = lived(true, false).await;
    let root = file("blobs");
    let blobs = crate::blobs::Blobs::open(sys(&disk), root.clone(), crate::blobs::BlobLimits::default());
    let blobs = blobs.await.unwrap();
    let mut staging = blobs.stage(Some(300_000)).await.unwrap();
    staging.write(Bytes::from(vec![7; 300_000])).await.unwrap();
    staging.finish(None).await.unwrap();
    drop(blobs);
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Healthy, "{report:#?}");
    let facts = report.blobs.expect("listed");
    assert_eq!((facts.files, facts.bad), (1, 0));
    let path = disk.files().into_iter().find(|(p, len)| p.starts_with(&root) && *len > 300_000).unwrap().0;
    disk.flip(&path, 4096 + 1000, 1).unwrap();
    disk.open(&root.join("staging/left"), Open::Create).unwrap().write_all_at(b"left", 0).unwrap();
    let report = explained(&disk);
    assert_eq!(report.verdict(), Verdict::Damaged, "{report:#?}");
    let facts = report.blobs.expect("listed");
    assert_eq!((facts.bad, facts.staged, facts.staged_bytes), (1, 1, 4));
    assert!(path.ends_with(&facts.named[0].file), "{facts:?}");
    assert_eq!(report.mends.len(), 1);
    let shallow = crate::blobs::inspect(&disk, &root, false).unwrap();
    assert_eq!(shallow.bad, 0, "the headers are whole");
    disk.flip(&path, 30, 1).unwrap();
    assert_eq!(crate::blobs::inspect(&disk, &root, false).unwrap().bad, 1);
}

/// Every byte is looked at; a start is tried wherever a byte may say something, and at some of the others.
#[tokio::test]
async fn any_byte_changed_never_panics_and_what_a_start_refuses_is_not_healthy() {
    let seed = 11;
    let rng = SeededRng::new(seed);
    for (clean, trimmed) in [(true, true), (false, false)] {
        let disk = lived(clean, trimmed).await;
        let (mut flips, mut starts, mut refused) = (0, 0, 0);
        for (path, len) in disk.files() {
            for offset in 0..len {
                let near = offset % 4096 < 160;
                if !near && !rng.next_u64().is_multiple_of(64) {
                    continue;
                }
                flips += 1;
                let text = format!("seed {seed}, {}, byte {offset}", path.display());
                let mask = 1 << (rng.next_u64() % 8);
                disk.flip(&path, offset, mask).unwrap();
                let seen = check(&disk).unwrap_or_else(|e| panic!("{text}: {e}")).verdict();
                if len < 4096 || rng.next_u64().is_multiple_of(4) {
                    starts += 1;
                    let image = disk.crash(Survival::Everything, 1);
                    let good = matches!(seen, Verdict::Healthy | Verdict::Mends);
                    match open(&image, 24 << 10) {
                        Ok(opened) => {
                            assert!(good, "{text}: starts, but is {seen:?}");
                            close(opened, false).await;
                        }
                        Err(e) => {
                            refused += 1;
                            assert!(!good, "{text}: {e}, but is {seen:?}");
                        }
                    }
                }
                disk.flip(&path, offset, mask).unwrap();
            }
        }
        assert_eq!(explained(&disk).verdict(), Verdict::Healthy, "every flip was undone");
        assert!(
            flips > 1000 && starts > 300 && refused > 50,
            "{flips} flips, {starts} starts, {refused} refused"
        );
    }
}
