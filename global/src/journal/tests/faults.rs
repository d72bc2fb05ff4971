//! A disk that fails: the journal stops for ever, and what was acknowledged is there at the next open.

use super::*;
use dstore_shared::Kind;
use dstore_sys::disk::{Call, Fault, Survival};

fn assert_poisoned(disk: &SimDisk, mut journal: Journal, head: Revision, context: &str) {
    assert!(journal.is_poisoned(), "{context}");
    let ops = disk.op_count();
    for _ in 0..3 {
        let e = append(&mut journal, 1, 100).expect_err("poisoned");
        assert_eq!(e.kind(), Kind::Unavailable, "{context}");
        assert_eq!(
            journal.room(crate::journal::Class::Essential, 1).expect_err("poisoned").kind(),
            Kind::Unavailable
        );
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
fn a_failed_directory_fsync_while_a_segment_is_prepared_poisons() {
    for fault in [Fault::next(Call::SyncDir), Fault::next(Call::Rename), Fault::next(Call::Preallocate)] {
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
