//! A disk that fails: the journal stops for ever, and what was acknowledged is there at the next open.

use super::*;
use crate::journal::Class;
use dstore_shared::Kind;
use dstore_sys::disk::{Call, Fault, Survival};
use std::time::Duration;

fn assert_poisoned(disk: &SimDisk, mut journal: Journal, head: Revision, context: &str) {
    assert!(journal.is_poisoned(), "{context}");
    let ops = disk.op_count();
    for _ in 0..3 {
        let e = append(&mut journal, 1, 100).expect_err("poisoned");
        assert_eq!(e.kind(), Kind::Unavailable, "{context}");
        assert_eq!(journal.room(Class::Essential, 1).expect_err("poisoned").kind(), Kind::Unavailable);
    }
    journal.trim(Revision(u64::MAX));
    assert_eq!((disk.op_count(), journal.head()), (ops, head), "{context}: nothing is retried");
    drop(journal);
}

#[test]
fn a_failed_write_or_fsync_poisons_and_its_batch_is_all_or_nothing() {
    let faults = [
        Fault::next(Call::Sync),
        Fault::next(Call::Write),
        Fault::next(Call::Write).short(1_000),
        Fault::next(Call::Write).short(4_096),
        Fault::next(Call::Write).short(9_000).no_space(),
        Fault::next(Call::Sync).no_space(),
    ];
    for fault in faults {
        let context = format!("{fault:?}");
        let (disk, mut journal) = begin();
        append(&mut journal, 1, 100).expect("appended");
        disk.inject(fault.at(".journal"));
        let e = append(&mut journal, 1, 10_000).expect_err("injected");
        assert_eq!(e.kind(), Kind::Unavailable, "{context}");
        assert!(e.message().contains("outcome unknown"), "{context}: {e}");
        assert_poisoned(&disk, journal, Revision(1), &context);
        for (seed, survival) in (0..20).map(|seed| (seed, Survival::Any)).chain([(0, Survival::Everything)]) {
            let image = disk.crash(survival, seed);
            let open = open(&image).expect("opens");
            assert_sound(&open.batches, Revision(0), &context);
            let head = open.opened.head;
            assert!((1..=2).contains(&head.0), "{context}: {head}");
            // Whatever was replayed once stays, though the kernel may have lied about the first fsync.
            drop(open.journal);
            let later = super::open(&image.crash(Survival::Nothing, 0)).expect("opens");
            assert_eq!(later.opened.head, head, "{context}: what was shown must not vanish");
        }
        // The process dies, the machine goes on: the same disk, page cache and all.
        let open = super::open(&disk).expect("opens");
        let head = open.opened.head;
        drop(open);
        let later = super::open(&disk.crash(Survival::Nothing, 0)).expect("opens");
        assert_eq!(later.opened.head, head, "{context}: what was shown must not vanish");
    }
}

#[test]
fn a_failed_rename_or_directory_fsync_while_a_segment_is_prepared_poisons() {
    for fault in [Fault::next(Call::SyncDir), Fault::next(Call::Rename)] {
        let context = format!("{fault:?}");
        let (disk, mut journal) = begin();
        disk.inject(fault);
        let mut head = Revision(0);
        while let Ok(next) = append(&mut journal, 1, 9_000) {
            head = next;
            assert!(head.0 < 10, "{context}: the fault was never met");
        }
        assert_poisoned(&disk, journal, head, &context);
        let open = open(&disk.crash(Survival::Nothing, 0)).expect("opens");
        assert_eq!(open.opened.head, head, "{context}");
        assert_sound(&open.batches, Revision(0), &context);
    }
}

/// A journal with a clock of the test's, that has used no spare yet.
fn begin_at(clock: &Arc<clock::ManualClock>) -> (SimDisk, Journal) {
    let disk = new_disk();
    let sys = Sys { clock: clock.clone(), ..sys(&disk, 1) };
    let (journal, _) = Journal::open(&sys, &config(), &Floors::default(), |_| Ok(())).expect("opens");
    (disk, journal)
}

#[test]
fn what_fails_on_a_segment_that_nobody_uses_yet_is_tried_again_and_nothing_is_lost() {
    let faults = [
        Fault::next(Call::Create).no_handles(),
        Fault::next(Call::Create),
        Fault::next(Call::Preallocate),
        Fault::next(Call::Sync).at(".new"),
        Fault::next(Call::Write).at(".new").short(100),
        Fault::next(Call::SyncDir).no_handles(),
    ];
    for (fault, recycled) in faults.iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        let context = format!("{fault:?}, recycled segments: {recycled}");
        let clock = Arc::new(clock::ManualClock::default());
        let (disk, mut journal) = begin_at(&clock);
        let mut appended = 0;
        if recycled {
            for _ in 0..20 {
                appended = append(&mut journal, 1, 9_000).expect("appended").0;
                journal.trim(Revision(appended.saturating_sub(3)));
            }
        }
        let before = disk.files().len();
        disk.inject(fault.clone().lasting());
        // What was ready is used up, the last of it by essential batches only.
        while journal.room(Class::Ordinary, 9_000).is_ok() {
            appended = append(&mut journal, 1, 9_000).expect("there is room").0;
            assert!(appended < 100, "{context}: the fault was never met");
        }
        let refused = journal.room(Class::Ordinary, 9_000).expect_err("refused");
        assert_eq!(refused.kind(), Kind::Unavailable, "{context}: {refused}");
        assert!(refused.delay().is_some() && !refused.message().contains("unknown"), "{context}: {refused}");
        journal.room(Class::Essential, 9_000).expect("one is in reserve");
        while let Ok(last) = append(&mut journal, 1, 9_000) {
            appended = last.0;
        }
        assert!(!journal.is_poisoned(), "{context}");
        assert_eq!(journal.head(), Revision(appended), "{context}");
        // Attempts are rare, and leave nothing behind.
        let ops = disk.op_count();
        for _ in 0..1_000 {
            assert!(append(&mut journal, 1, 9_000).is_err(), "{context}");
            clock.advance(Duration::from_millis(10));
        }
        assert!(disk.op_count() - ops < 80, "{context}: {} calls in 10 s", disk.op_count() - ops);
        let new =
            disk.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "new")).count();
        assert!(new == 0 && disk.files().len() <= before + 4, "{context}: {:?}", disk.files());
        disk.heal();
        clock.advance(Duration::from_secs(10));
        for _ in 0..20 {
            appended = append(&mut journal, 1, 9_000).unwrap_or_else(|e| panic!("{context}: {e}")).0;
        }
        drop(journal);
        for seed in 0..20 {
            let open = open_with(&disk.crash(Survival::Any, seed), seed, &config(), Floors::default());
            if recycled {
                // The batches that were trimmed are gone, and no checkpoint is told of.
                let floors = checkpoint(appended - 10);
                let open =
                    open_with(&disk.crash(Survival::Any, seed), seed, &config(), floors).expect("opens");
                assert_eq!(open.opened.head, Revision(appended), "{context}");
                continue;
            }
            let open = open.unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_sound(&open.batches, Revision(0), &context);
            assert_eq!(open.opened.head, Revision(appended), "{context}");
        }
    }
}

#[test]
fn a_process_without_file_handles_retires_segments_later_and_goes_on() {
    let clock = Arc::new(clock::ManualClock::default());
    let (disk, mut journal) = begin_at(&clock);
    for _ in 0..8 {
        append(&mut journal, 1, 9_000).expect("appended");
    }
    let before = disk.files().len();
    disk.inject(Fault::next(Call::SyncDir).no_handles().lasting());
    for below in 2..=6 {
        journal.trim(Revision(below));
        assert!(!journal.is_poisoned());
        for seed in 0..20 {
            // One that was retired is not gone before an older one.
            let image = disk.crash(Survival::Any, seed);
            let open = open_with(&image, seed, &config(), checkpoint(6)).expect("opens");
            assert_eq!(open.opened.head, Revision(8));
        }
    }
    assert_eq!(disk.files().len(), before - 1, "the oldest, and no other before that is durable");
    disk.heal();
    let mut head = Revision(0);
    for _ in 0..30 {
        clock.advance(Duration::from_secs(10));
        head = append(&mut journal, 1, 9_000).expect("appended");
        journal.trim(Revision(head.0 - 3));
    }
    assert!(disk.files().len() < 10, "what was retired is used again: {:?}", disk.files());
    drop(journal);
    for seed in 0..20 {
        let image = disk.crash(Survival::Any, seed);
        let open = open_with(&image, seed, &config(), checkpoint(head.0 - 3)).expect("opens");
        assert_eq!(open.opened.head, head);
    }
}

#[test]
fn a_full_disk_met_while_preparing_does_not_poison_and_leaves_no_rubbish() {
    let (disk, mut journal) = begin();
    let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
    disk.set_budget(Some(used + 10_000));
    disk.set_free_bytes(Some(1 << 40)); // statvfs lies; the preallocation meets the truth
    let mut appended = 0;
    while append(&mut journal, 1, 9_000).is_ok() {
        appended += 1;
    }
    assert!(appended >= 4 && !journal.is_poisoned());
    assert!(disk.files().iter().all(|(path, _)| path.extension().is_none_or(|e| e != "new")));
    disk.set_budget(None);
    append(&mut journal, 1, 9_000).expect("space is back");
    drop(journal);
    assert_eq!(open(&disk).expect("opens").batches.len(), appended + 1);
}

#[test]
fn a_fault_at_any_call_of_opening_loses_nothing() {
    let calls = [
        Call::Read,
        Call::Write,
        Call::Preallocate,
        Call::Sync,
        Call::SyncDir,
        Call::Create,
        Call::Rename,
        Call::Remove,
    ];
    let mut failures = 0;
    for call in calls {
        for nth in 0..12 {
            let (disk, mut journal) = begin();
            for _ in 0..5 {
                append(&mut journal, 1, 9_000).expect("appended");
            }
            drop(journal);
            disk.inject(Fault::next(call).after(nth));
            let opened = open(&disk);
            failures += usize::from(opened.is_err());
            drop(opened);
            disk.heal();
            for image in [disk.crash(Survival::Any, nth as u64), disk] {
                let open = open(&image).unwrap_or_else(|e| panic!("{call:?} {nth}: {e}"));
                assert_sound(&open.batches, Revision(0), &format!("{call:?} {nth}"));
                assert_eq!(open.opened.head, Revision(5), "{call:?} {nth}");
            }
        }
    }
    assert!(failures > 20, "only {failures} faults were felt");
}
