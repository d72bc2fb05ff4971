//! A journal that writes on before it syncs: what a crash takes is a suffix, and only of what was not synced.

use super::*;
use crate::journal::format::FORMAT_RELAXED;
use dstore_shared::Kind;
use dstore_sys::disk::{Call, Fault, Survival};

fn relaxed() -> JournalConfig {
    JournalConfig { relaxed: Some(Duration::from_millis(100)), first_segment_bytes: 40 << 10, ..config() }
}

fn open_relaxed(disk: &SimDisk, floors: Floors) -> Result<Open> {
    open_with(disk, disk.op_count() as u64, &relaxed(), floors)
}

fn begin_relaxed() -> (SimDisk, Journal) {
    let disk = new_disk();
    let journal = open_relaxed(&disk, Floors::default()).expect("an empty directory").journal;
    (disk, journal)
}

/// A disk whose journal holds batches of one revision and one block each, one to `durable` synced and the others up to
/// `written` not, and its segments. The image has everything.
fn half_synced(durable: u64, written: u64) -> (SimDisk, PathBuf) {
    let (disk, mut journal) = begin_relaxed();
    for revision in 1..=written {
        append(&mut journal, 1, 50).expect("appended");
        if revision == durable {
            assert_eq!(journal.sync().expect("synced"), Revision(durable));
        }
    }
    assert_eq!(journal.segments(), 1);
    drop(journal);
    let segment = segments(&disk).remove(0);
    (disk, segment)
}

/// The offset of the batch of a revision, each having a block.
fn offset(revision: u64) -> u64 {
    8192 + (revision - 1) * 4096
}

#[test]
fn a_relaxed_journal_loses_a_suffix_of_what_was_not_synced_and_nothing_else() {
    let (mut images, mut lost, mut kept_more, mut holes) = (0, 0, 0, 0);
    for seed in 0..12 {
        let rng = SeededRng::new(seed);
        let disk = new_disk();
        disk.record(64 << 20);
        let mut journal = open_with(&disk, seed, &relaxed(), Floors::default()).expect("opens").journal;
        let (mut durable, mut written) = (vec![(0, Revision(0))], vec![(0, Revision(0))]);
        for _ in 0..40 {
            if rng.next_u64().is_multiple_of(6) {
                let revision = journal.sync().expect("synced");
                durable.push((disk.op_count(), revision));
                continue;
            }
            let len = [0, 100, 4_032, 4_033, 9_000][(rng.next_u64() % 5) as usize];
            let before = journal.segments();
            let last = append(&mut journal, 1 + rng.next_u64() % 3, len).expect("appended");
            // The op that writes a batch makes it possible that it is found.
            written.push((disk.op_count(), last));
            if journal.segments() > before {
                let synced = journal.syncer().expect("relaxed").durable();
                durable.push((disk.op_count(), synced));
            }
        }
        let at = |notes: &[(usize, Revision)], op| notes.iter().rev().find(|(at, _)| *at <= op).unwrap().1;
        for op in disk.moments() {
            let (durable, written) = (at(&durable, op), at(&written, op));
            let next = Revision(written.0 + 3);
            for survival in [Survival::Any, Survival::Nothing] {
                let image = disk.crash_at(op, survival, seed ^ op as u64);
                let context = format!("seed {seed}, change {op}, {survival:?}");
                let floors = Floors { index: durable, ..Floors::default() };
                // At the other level, as at this one.
                let config = if op % 2 == 0 { relaxed() } else { config() };
                let open = open_with(&image, op as u64, &config, floors);
                let Open { mut journal, opened, batches } = open.unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_sound(&batches, Revision(0), &context);
                assert!(opened.head >= durable && opened.head <= next, "{context}: {:?}", opened.head);
                images += 1;
                lost += usize::from(opened.head < written);
                kept_more += usize::from(opened.head > durable);
                holes += usize::from(opened.torn.is_some_and(|torn| torn.reason.contains("cut with it")));
                append(&mut journal, 1, 10).expect("goes on");
                journal.sync().expect("synced");
                let head = journal.head();
                drop(journal);
                let later = image.crash(Survival::Nothing, 1);
                let again = open_with(&later, 3, &super::config(), Floors::default()).expect(&context);
                assert_eq!(again.opened.head, head, "{context}: what was lost does not come back");
                assert_sound(&again.batches, Revision(0), &context);
            }
        }
    }
    assert!(
        images > 500 && lost > 100 && kept_more > 50 && holes > 10,
        "{images} {lost} {kept_more} {holes}"
    );
}

#[test]
fn a_relaxed_journal_is_cut_at_its_first_hole_though_later_batches_are_whole() {
    let (disk, segment) = half_synced(2, 6);
    let image = disk.crash(Survival::Everything, 0);
    image.flip(&segment, offset(4) + 70, 1).expect("flipped");
    let floors = Floors { index: Revision(2), ..Floors::default() };
    let open = open_relaxed(&image, floors).expect("a hole in what was not synced");
    assert_eq!(open.opened.head, Revision(3));
    assert_sound(&open.batches, Revision(0), "before the hole");
    let torn = open.opened.torn.expect("it is reported").to_string();
    assert!(torn.contains("revision `4`") && torn.contains("up to revision `6`"), "{torn}");
    // An index that knows more is no loss that was agreed on.
    let image = disk.crash(Survival::Everything, 0);
    image.flip(&segment, offset(4) + 70, 1).expect("flipped");
    let floors = Floors { index: Revision(4), ..Floors::default() };
    assert_eq!(open_relaxed(&image, floors).expect_err("refused").kind(), Kind::Corrupt);
}

#[test]
fn damage_of_what_a_relaxed_journal_had_synced_is_refused() {
    let (disk, segment) = half_synced(4, 6);
    for revision in 1..=4 {
        let image = disk.crash(Survival::Everything, 0);
        image.flip(&segment, offset(revision) + 70, 1).expect("flipped");
        let e = open_relaxed(&image, Floors::default()).expect_err("it was durable");
        assert!(e.kind() == Kind::Corrupt && e.message().contains("is missing"), "{revision}: {e}");
    }
}

#[test]
fn a_hole_in_a_journal_that_is_not_relaxed_is_refused_as_ever() {
    let (disk, mut journal) = begin_relaxed();
    append(&mut journal, 1, 50).expect("appended");
    journal.sync().expect("synced");
    drop(journal);
    let mut journal = open(&disk).expect("strict again").journal;
    for _ in 0..3 {
        append(&mut journal, 1, 50).expect("appended");
    }
    drop(journal);
    let used = segments(&disk);
    let image = disk.crash(Survival::Nothing, 0);
    let strict = used.iter().find(|path| {
        let bytes = read(&image, path);
        bytes[20] & 5 == 1 && bytes[16] == 1
    });
    image.flip(strict.expect("a strict origin"), offset(2) + 70, 1).expect("flipped");
    for again in [open(&image), open_relaxed(&image, Floors::default())] {
        assert_eq!(again.expect_err("refused").kind(), Kind::Corrupt);
    }
}

#[test]
fn a_lost_first_batch_of_the_next_relaxed_segment_is_a_cut() {
    let (disk, mut journal) = begin_relaxed();
    while journal.segments() == 1 {
        append(&mut journal, 1, 50).expect("appended");
    }
    let left = journal.syncer().expect("relaxed").durable();
    assert_eq!(left.next(), journal.head(), "what is left is durable");
    append(&mut journal, 2, 50).expect("appended");
    let head = journal.head();
    drop(journal);
    let current = segments(&disk).remove(1);
    let image = disk.crash(Survival::Everything, 0);
    assert_eq!(open_relaxed(&image, Floors::default()).expect("whole").opened.head, head);
    let image = disk.crash(Survival::Everything, 0);
    image.flip(&current, 8192 + 3, 1).expect("flipped");
    let mut open = open_relaxed(&image, Floors::default()).expect("a cut");
    assert_eq!(open.opened.head, left);
    append(&mut open.journal, 1, 60).expect("goes on");
    open.journal.sync().expect("synced");
    drop(open);
    // With what was cut still lying there, or retired.
    for survival in [Survival::Nothing, Survival::Everything] {
        let later = image.crash(survival, 2);
        let again = super::open(&later).expect("opens");
        assert_eq!(again.opened.head, left.next());
        assert_eq!(again.batches.last().expect("it").payload.len(), 60, "not what was cut");
    }
}

#[test]
fn a_relaxed_segment_says_so_in_a_format_that_older_binaries_refuse() {
    let (disk, segment) = half_synced(1, 2);
    let bytes = read(&disk, &segment);
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    assert_eq!(bytes[16..24], [2, 0, 0, 0, 1 | 4, 0, 0, 0], "format 2; origin, relaxed");
    assert_eq!(FORMAT_RELAXED, 2);
    assert_eq!([1, 2].map(|r| u64_at(offset(r) as usize + 56)), [0, 1], "what was durable before each");
    // Whatever is stopped in order under `group` goes on in a segment of its own.
    let strict = open_with(&disk, 9, &config(), clean(Revision(2))).expect("opens");
    assert!(strict.opened.clean);
    drop(strict);
    let newest =
        segments(&disk).into_iter().map(|path| read(&disk, &path)).find(|b| b[16] == 1 && b[20] & 1 == 1);
    assert!(newest.is_some(), "a strict origin");
}

#[test]
fn a_failed_sync_of_a_relaxed_journal_ends_it_and_is_never_tried_again() {
    let (disk, mut journal) = begin_relaxed();
    append(&mut journal, 1, 50).expect("appended");
    journal.sync().expect("synced");
    append(&mut journal, 1, 50).expect("appended");
    disk.inject(Fault::next(Call::Sync).at(DIR));
    let e = journal.sync().expect_err("failed");
    assert!(e.kind() == Kind::Unavailable && e.message().contains("from revision `2` on"), "{e}");
    assert_eq!(journal.sync().expect_err("no second attempt").message(), e.message());
    assert_eq!(journal.syncer().expect("relaxed").durable(), Revision(1));
    append(&mut journal, 1, 50).expect_err("poisoned");
    assert!(journal.is_poisoned());
}

#[test]
fn nothing_is_admitted_while_what_was_acknowledged_is_overdue() {
    let disk = new_disk();
    let clock = Arc::new(clock::ManualClock::default());
    let sys = Sys { clock: clock.clone(), ..sys(&disk, 1) };
    let opened = Journal::open(&sys, &relaxed(), &Floors::default(), |_| Ok(()));
    let (mut journal, _) = opened.expect("opens");
    let syncer = journal.syncer().expect("relaxed").clone();
    append(&mut journal, 1, 50).expect("appended");
    clock.advance(Duration::from_millis(99));
    append(&mut journal, 1, 50).expect("appended");
    syncer.admit().expect("young");
    assert_eq!(syncer.durable(), Revision(0), "nothing was waited for");
    clock.advance(Duration::from_millis(1));
    syncer.admit().expect("after a sync");
    assert_eq!(syncer.durable(), Revision(2));
}
