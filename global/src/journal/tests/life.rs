//! Opening, appending, changing segments, trimming.

use super::*;
use crate::journal::Class;
use dstore_shared::Kind;
use dstore_sys::disk::Survival;

#[test]
fn what_was_appended_is_replayed_in_order_after_any_stop() {
    let (disk, mut journal) = begin();
    for len in [0, 1, 4_031, 4_032, 4_033, 12_000] {
        append(&mut journal, 2, len).expect("appended");
    }
    drop(journal);
    for floors in
        [Floors::default(), clean(Revision(12)), Floors { index: Revision(12), ..Floors::default() }]
    {
        let (opened, batches) = look(&disk, floors).expect("opens");
        assert_sound(&batches, Revision(0), "from the start");
        assert_eq!((opened.head, opened.oldest), (Revision(12), Revision(1)));
        assert_eq!((batches.len(), opened.replayed), (6, 6));
        assert_eq!((opened.clean, opened.torn), (floors.clean.is_some(), None));
        assert!(!opened.created);
    }
    let (_, batches) = look(&disk, checkpoint(9)).expect("opens");
    assert_sound(&batches, Revision(9), "after a checkpoint within a batch");
    assert_eq!(batches.iter().map(|b| b.first.0).collect::<Vec<_>>(), [9, 11]);
    let (_, batches) = look(&disk, checkpoint(12)).expect("opens");
    assert!(batches.is_empty());
}

#[test]
fn an_empty_directory_begins_at_revision_0_and_takes_the_size_it_was_told() {
    let (disk, journal) = begin();
    assert_eq!((journal.head(), journal.oldest(), journal.segments()), (Revision(0), Revision(1), 1));
    assert_eq!(journal.batch_bytes_max(), (32 << 10) - 8192 - 64);
    assert_eq!(journal.reserved_bytes(), (12 << 10) + 2 * (24 << 10));
    let lens: Vec<_> = disk.files().into_iter().map(|(_, len)| len).collect();
    assert_eq!(lens, [20 << 10, 32 << 10, 32 << 10, 0], "a first segment, two spares, the lock");
    let Err(e) = open(&disk) else { panic!("two journals in one directory") };
    assert!(e.kind() == Kind::Unavailable && e.message().contains("in use"), "{e}");
    drop(journal);
    let (opened, batches) = look(&disk, Floors::default()).expect("free again");
    assert!(!opened.created && batches.is_empty());
}

#[test]
fn a_clean_stop_goes_on_in_the_same_segment_and_an_unclean_one_in_a_fresh_one() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 10).expect("appended");
    drop(journal);
    let before = segments(&disk)[0].clone();
    let mut open = open_with(&disk, 2, &config(), clean(Revision(1))).expect("opens");
    assert!(open.opened.clean);
    append(&mut open.journal, 1, 10).expect("appended");
    drop(open);
    assert_eq!(segments(&disk)[0], before);
    let open = open_with(&disk, 3, &config(), Floors::default()).expect("opens");
    assert!(!open.opened.clean);
    assert_sound(&open.batches, Revision(0), "copied");
    assert!(!segments(&disk).contains(&before), "its batches were copied, so it goes");
}

#[test]
fn a_clean_mark_that_was_not_taken_away_is_only_a_floor() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 10).expect("appended");
    append(&mut journal, 1, 10).expect("appended");
    drop(journal);
    let open = open_with(&disk, 2, &config(), clean(Revision(1))).expect("opens");
    assert!(!open.opened.clean);
    assert_eq!((open.opened.head, open.batches.len()), (Revision(2), 2));
}

#[test]
fn a_batch_must_fit_and_follow() {
    let (disk, mut journal) = begin();
    let max = journal.batch_bytes_max();
    assert_eq!(append(&mut journal, 1, max + 1).expect_err("too large").kind(), Kind::TooLarge);
    append(&mut journal, 1, max).expect("exactly a segment");
    for (first, last) in [(1, 1), (3, 3), (2, 1), (0, 2)] {
        let e = journal.append(Revision(first), Revision(last), &[b"x"]).expect_err("out of order");
        assert_eq!(e.kind(), Kind::Internal, "{first}..={last}");
    }
    assert!(!journal.is_poisoned());
    journal.append(Revision(2), Revision(4), &[&payload(Revision(2), 9)]).expect("follows");
    drop(journal);
    assert_sound(&open(&disk).expect("opens").batches, Revision(0), "after refusals");
}

#[test]
fn segments_are_trimmed_and_used_again_round_and_round() {
    let (disk, mut journal) = begin();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..200 {
        append(&mut journal, 1, 9_000).expect("appended");
        let head = journal.head().0;
        journal.trim(Revision(head.saturating_sub(4)));
        assert!(journal.oldest().0 + 12 > head && journal.oldest().0 <= head.saturating_sub(4).max(1));
        assert!(disk.files().len() <= 8, "round {round}: {:?}", disk.files());
        seen.extend(segments(&disk));
        if round % 10 == 9 {
            let image = disk.crash(Survival::Any, round);
            let open = open_with(&image, round, &config(), checkpoint(head - 4)).expect("opens");
            assert_sound(&open.batches, Revision(head - 4), "recycled");
            assert_eq!(open.opened.head, Revision(head), "round {round}");
        }
    }
    assert!(seen.len() > 60, "each use has a sequence of its own");
    assert!(disk.files().iter().map(|(_, len)| len).sum::<u64>() <= 8 * (32 << 10));
}

#[test]
fn stale_batches_of_a_recycled_segment_never_pass() {
    // The salt generator is stuck, so that only the rule that a salt differs from the one before protects.
    #[derive(Debug)]
    struct Stuck;
    impl Rng for Stuck {
        fn next_u64(&self) -> u64 {
            7
        }
    }
    let disk = new_disk();
    let stuck = Sys { rng: Arc::new(Stuck), ..sys(&disk, 0) };
    let (mut journal, _) = Journal::open(&stuck, &config(), &Floors::default(), |_| Ok(())).expect("opens");
    // Batches of one block, so that stale ones stand exactly where new ones will.
    for _ in 0..40 {
        append(&mut journal, 1, 100).expect("appended");
        journal.trim(journal.head());
    }
    let head = journal.head();
    drop(journal);
    let recycled: Vec<_> = segments(&disk).iter().map(|path| read(&disk, path)).collect();
    let stale =
        recycled.iter().flat_map(|bytes| bytes.chunks(4096)).filter(|block| block.starts_with(b"dstoreB\n"));
    assert!(stale.count() > 6, "there are stale batches to be taken for valid ones");
    for floors in [checkpoint(head.0 - 1), Floors { index: head, ..checkpoint(head.0) }] {
        let mut batches = Vec::new();
        let image = disk.crash(Survival::Everything, 0);
        let stuck = Sys { disk: Arc::new(image), ..stuck.clone() };
        let opened = Journal::open(&stuck, &config(), &floors, |batch| {
            batches.push(batch);
            Ok(())
        });
        let (_, opened) = opened.expect("stale batches are no sign of damage");
        assert_eq!((opened.head, opened.torn), (head, None));
        assert_sound(&batches, floors.checkpoint, "recycled");
    }
}

#[test]
fn values_that_contain_a_valid_batch_never_pass_for_one() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 100).expect("appended");
    let image = read(&disk, &segments(&disk)[0]);
    let first_batch = &image[8192..12_288];
    // Every block of the value is a batch that is valid elsewhere in this very segment.
    let mut value = vec![0; 4096 - 64];
    value.extend(first_batch.repeat(3));
    let mut journal = {
        drop(journal);
        open_with(&disk, 1, &config(), clean(Revision(1))).expect("opens").journal
    };
    assert!(journal.append(Revision(2), Revision(2), &[&value]).is_ok());
    drop(journal);
    let path = segments(&disk)
        .into_iter()
        .find(|p| read(&disk, p).windows(8).filter(|w| *w == b"dstoreB\n").count() > 3);
    let path = path.expect("the segment with the value");
    // With its own header destroyed, the blocks within lie open to the search.
    let at = read(&disk, &path).chunks(4096).rposition(|b| b.starts_with(b"dstoreB\n")).expect("blocks")
        as u64
        - 3;
    disk.flip(&path, at * 4096, 1).expect("flipped");
    let open = open(&disk).expect("the blocks within are no later batches");
    assert_eq!(open.opened.head, Revision(1));
    assert!(open.opened.torn.is_some());
}

#[test]
fn an_oversized_journal_is_carried_over_whole() {
    let (disk, mut journal) = begin();
    for _ in 0..30 {
        append(&mut journal, 1, 9_000).expect("appended");
    }
    drop(journal);
    for seed in 0..3 {
        let image = disk.crash(Survival::Nothing, seed);
        let open = open_with(&image, seed, &config(), Floors::default()).expect("opens");
        assert_eq!(open.batches.len(), 30);
        assert_sound(&open.batches, Revision(0), "one large segment");
        assert_eq!(open.journal.segments(), 1, "the copied ones are void");
    }
    let (opened, _) = look(&disk, checkpoint(20)).expect("opens");
    assert_eq!(opened.oldest, Revision(1), "older ones stay until they are trimmed");
    let (_, batches) = look(&disk, Floors::default()).expect("opens");
    assert_sound(&batches, Revision(0), "over an origin");
    assert_eq!(batches.len(), 30);
    let large = disk.files().into_iter().filter(|(_, len)| *len > 32 << 10);
    assert_eq!(large.count(), 1, "only the one in use; those before it were not kept for another use");
}

#[test]
fn ordinary_batches_leave_the_reserved_segment_to_essential_ones() {
    let (disk, mut journal) = begin();
    disk.set_free_bytes(Some(0));
    let mut ordinary = 0;
    while journal.room(Class::Ordinary, 20_000).is_ok() {
        append(&mut journal, 1, 20_000).expect("room was promised");
        ordinary += 1;
    }
    assert!(ordinary > 0);
    let refused = journal.room(Class::Ordinary, 20_000).expect_err("full");
    assert_eq!(refused.kind(), Kind::Exhausted);
    journal.room(Class::Essential, 20_000).expect("the reserve");
    append(&mut journal, 1, 20_000).expect("room was promised");
    assert_eq!(journal.room(Class::Essential, 20_000).expect_err("used up").kind(), Kind::Exhausted);
    let head = journal.head();
    let e = append(&mut journal, 1, 20_000).expect_err("no segment");
    assert_eq!((e.kind(), journal.is_poisoned(), journal.head()), (Kind::Exhausted, false, head));
    // Trimming gives files back, without any new space.
    journal.trim(head);
    journal.room(Class::Essential, 20_000).expect("recycled");
    disk.set_free_bytes(None);
    let _ = journal.room(Class::Ordinary, 20_000);
    journal.room(Class::Ordinary, 20_000).expect("it recovers by itself");
    append(&mut journal, 1, 20_000).expect("appended");
}

#[test]
fn a_full_disk_does_not_keep_a_journal_from_opening_while_it_has_spares_to_give_up() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 9_000).expect("appended");
    drop(journal);
    let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
    disk.set_budget(Some(used));
    let open = open_with(&disk, 1, &config(), Floors::default()).expect("opens");
    assert_sound(&open.batches, Revision(0), "on a full disk");
    assert_eq!(open.opened.head, Revision(1));
    drop(open);
    disk.set_budget(Some(0));
    let Err(e) = super::open(&disk) else { return };
    assert_eq!(e.kind(), Kind::Exhausted);
    disk.set_budget(None);
    assert_sound(&super::open(&disk).expect("space is back").batches, Revision(0), "nothing was lost");
}

#[test]
fn a_wrong_configuration_is_refused() {
    let disk = new_disk();
    for wrong in [
        JournalConfig { segment_bytes: 8192, ..config() },
        JournalConfig { segment_bytes: 100_000, ..config() },
        JournalConfig { first_segment_bytes: 1, ..config() },
        JournalConfig { spare_segments: 0, ..config() },
    ] {
        let Err(e) = open_with(&disk, 0, &wrong, Floors::default()) else { panic!("accepted {wrong:?}") };
        assert_eq!(e.kind(), Kind::Invalid);
    }
    let smallest = JournalConfig { segment_bytes: 12_288, first_segment_bytes: 4096, ..config() };
    let mut open = open_with(&disk, 0, &smallest, Floors::default()).expect("the least");
    for _ in 0..5 {
        append(&mut open.journal, 1, 4_032).expect("a segment each");
    }
}

#[test]
fn an_error_of_the_replay_ends_the_opening() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 10).expect("appended");
    drop(journal);
    let stop = |_| Err(dstore_shared::Error::internal("the index is unwell"));
    let Err(e) = Journal::open(&sys(&disk, 1), &config(), &Floors::default(), stop) else { panic!("opened") };
    assert_eq!(e.message(), "the index is unwell");
    assert_eq!(open(&disk).expect("opens").batches.len(), 1);
}

/// The first revisions of what is replayed.
fn firsts(open: &Open) -> Vec<u64> {
    open.batches.iter().map(|batch| batch.first.0).collect()
}

#[test]
fn what_the_checkpoint_has_is_replayed_again_as_far_as_it_is_asked_for_and_kept() {
    let config = |replay_again| JournalConfig { replay_again, ..config() };
    let fill = |journal: &mut Journal| {
        while journal.segments() < 4 {
            append(journal, 2, 4_000).expect("appended");
        }
        journal.head()
    };
    let (disk, mut journal) = begin();
    let head = fill(&mut journal);
    drop(journal);
    for stopped in [clean(head), Floors::default()] {
        let floors = Floors { checkpoint: head, ..stopped };
        // Unclean stops make fresh segments; the old ones are kept all the same.
        let none = open_with(&disk, 7, &config(0), floors).expect("opens");
        assert!(none.batches.is_empty());
        drop(none);
        let few = open_with(&disk, 8, &config(5), floors).expect("opens");
        assert_eq!(firsts(&few), [head.0 - 5, head.0 - 3, head.0 - 1], "whole batches");
        assert_eq!(few.opened.replayed, 0, "the checkpoint has them");
        drop(few);
        let all = open_with(&disk, 9, &config(1000), floors).expect("opens");
        let (kept, last) = (firsts(&all), all.batches.last().expect("some").last);
        assert!(kept.is_sorted() && last == head && kept.len() > 5, "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[0] + 2 == pair[1]), "without a gap: {kept:?}");
        assert!(kept[0] > 1, "not all of the journal is read for it: {kept:?}");
    }
}

#[test]
fn damage_that_the_checkpoint_covers_is_left_out_of_what_is_replayed_again() {
    let config = JournalConfig { replay_again: 1000, ..config() };
    let (disk, mut journal) = begin();
    while journal.segments() < 3 {
        append(&mut journal, 1, 4_000).expect("appended");
    }
    append(&mut journal, 1, 4_000).expect("appended");
    let head = journal.head();
    drop(journal);
    let oldest = segments(&disk)[0].clone();
    let file = disk.open(&oldest, dstore_sys::disk::Open::Write).expect("it is there");
    file.write_all_at(&[0xff; 64], 8192 + 5000).expect("damaged");
    file.sync().expect("synced");
    drop(file);
    let floors = Floors { checkpoint: head, ..clean(head) };
    let open = open_with(&disk, 7, &config, floors).expect("opens as it would without");
    assert_eq!(open.opened.head, head);
    let replayed = firsts(&open);
    assert!(replayed.contains(&head.0) && !replayed.contains(&2), "{replayed:?}");
}
