//! Flipped bytes, cut files, lost segments: a cut tail or a refusal, never another payload.

use super::*;
use crate::journal::format::{self, Place, SegmentHeader};
use dstore_shared::{Error, Kind};
use dstore_sys::disk::{Disk, Survival};

/// A disk with `batches` batches of `len` bytes, and its used segments.
fn disk_with(batches: usize, len: usize) -> (SimDisk, Vec<PathBuf>) {
    let (disk, mut journal) = begin();
    for _ in 0..batches {
        append(&mut journal, 1, len).expect("appended");
    }
    let used = journal.segments();
    drop(journal);
    let segments = segments(&disk).into_iter().take(used).collect();
    (disk, segments)
}

fn refused(open: Result<Open>) -> Error {
    let Err(e) = open else { panic!("opened: {:?}", open.map(|o| o.opened)) };
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    e
}

#[test]
fn a_flip_at_any_byte_gives_a_cut_tail_or_a_refusal_and_never_another_payload() {
    let (disk, segments) = disk_with(3, 50);
    let (mut cut, mut refusals) = (0, 0);
    let used = 8192..8192 + 3 * 4096;
    for at in (0..200).chain(4096..4300).chain(used.filter(|at| at % 4096 < 130 || at % 97 == 0)) {
        let image = disk.crash(Survival::Nothing, 0);
        image.flip(&segments[0], at, 1 << (at % 8)).expect("flipped");
        match open(&image) {
            Ok(open) => {
                assert_sound(&open.batches, Revision(0), &format!("byte {at}"));
                let last = 8192 + 2 * 4096..8192 + 2 * 4096 + 64 + 50;
                let expected = if last.contains(&at) { 2 } else { 3 };
                assert_eq!(open.batches.len(), expected, "byte {at}");
                assert_eq!(open.opened.torn.is_some(), expected == 2, "byte {at} is reported");
                cut += usize::from(expected == 2);
            }
            Err(e) => {
                assert!((8192..8192 + 2 * 4096).contains(&at), "byte {at}: {e}");
                refusals += 1;
            }
        }
        let image = disk.crash(Survival::Nothing, 0);
        image.flip(&segments[0], at, 1 << (at % 8)).expect("flipped");
        let floors = Floors { index: Revision(3), ..Floors::default() };
        if let Ok(open) = open_with(&image, 0, &config(), floors) {
            assert_eq!(open.batches.len(), 3, "byte {at}: an index that knows more forbids the cut");
        }
    }
    assert!(cut > 100 && refusals > 200, "{cut} {refusals}");
}

#[test]
fn a_file_cut_at_any_length_gives_a_prefix_or_a_refusal() {
    let (disk, segments) = disk_with(3, 5_000);
    let end = 8192 + 3 * 8192;
    let len = read(&disk, &segments[0]).len() as u64;
    assert!(segments.len() == 2 && len == 20 << 10, "the third batch is in a segment of its own");
    for (path, lens) in [(&segments[0], 0..len), (&segments[1], 0..end)] {
        for cut in lens.filter(|at| at % 512 < 2 || at % 4096 < 80) {
            let image = disk.crash(Survival::Nothing, 0);
            image.cut(path, cut).expect("cut");
            match open(&image) {
                Ok(open) => {
                    assert_sound(&open.batches, Revision(0), &format!("{} cut at {cut}", path.display()));
                    assert!(
                        open.batches.len() >= 3 || open.opened.torn.is_some(),
                        "cut at {cut} is reported"
                    );
                }
                Err(e) => assert!(matches!(e.kind(), Kind::Corrupt), "cut at {cut}: {e}"),
            }
            let image = disk.crash(Survival::Nothing, 0);
            image.cut(path, cut).expect("cut");
            if let Ok(open) = open_with(&image, 0, &config(), clean(Revision(3))) {
                assert_eq!(open.batches.len(), 3, "cut at {cut}: the clean mark forbids a shorter journal");
            }
        }
    }
}

#[test]
fn a_damaged_middle_is_refused_with_segment_and_offset_and_nothing_is_changed() {
    let (disk, segments) = disk_with(8, 5_000);
    let name = segments[1].file_name().expect("a name").to_string_lossy().into_owned();
    disk.flip(&segments[1], 8192 + 8192 + 64 + 7, 0x10).expect("flipped");
    let before: Vec<_> = disk.files().iter().map(|(path, _)| read(&disk, path)).collect();
    let e = refused(open(&disk));
    for part in [name.as_str(), "offset `16384`", "payload", "revision `3`", "`4`", "backup"] {
        assert!(e.message().contains(part), "`{part}` is not in: {e}");
    }
    let after: Vec<_> = disk.files().iter().map(|(path, _)| read(&disk, path)).collect();
    assert_eq!(before, after, "a refusal changes nothing");
    let open = open_with(&disk, 0, &config(), checkpoint(8)).expect("nobody needs what is damaged");
    assert!(open.batches.is_empty());
}

#[test]
fn the_first_and_the_only_segment_are_not_forgotten_when_their_header_is_damaged() {
    for at in [9, 40] {
        let (disk, segments) = disk_with(2, 100);
        disk.flip(&segments[0], at, 1).expect("flipped");
        assert_eq!(open(&disk).expect("the other copy").batches.len(), 2);
        let (disk, segments) = disk_with(2, 100);
        disk.flip(&segments[0], at, 1).expect("flipped");
        disk.flip(&segments[0], 4096 + at, 1).expect("flipped");
        let e = refused(open(&disk));
        assert!(e.message().contains("offset `0`"), "{e}");
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    for missing in 0..3 {
        let (disk, segments) = disk_with(7, 5_000);
        assert_eq!(segments.len(), 3);
        disk.remove(&segments[missing]).expect("removed");
        let floors = Floors { index: Revision(7), ..Floors::default() };
        refused(open_with(&disk, 0, &config(), floors));
    }
    let (disk, all) = disk_with(7, 5_000);
    for path in segments(&disk) {
        disk.remove(&path).expect("removed");
    }
    let e = refused(open_with(&disk, 0, &config(), checkpoint(7)));
    assert!(e.message().contains("no segment") && all.len() == 3, "{e}");
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let (disk, segments) = disk_with(7, 5_000);
    let other = PathBuf::from(DIR).join("00000000000000ff.journal");
    disk.rename(&segments[0], &other).expect("renamed");
    let e = refused(open(&disk));
    assert!(e.message().contains("misnamed"), "{e}");
}

#[test]
fn a_journal_behind_a_floor_is_refused_and_says_who_knows_more() {
    let (disk, _) = disk_with(3, 100);
    let cases = [
        (checkpoint(4), "the checkpoint"),
        (Floors { index: Revision(4), ..Floors::default() }, "the index"),
        (clean(Revision(4)), "the clean-shutdown mark"),
    ];
    for (floors, witness) in cases {
        let e = refused(open_with(&disk, 0, &config(), floors));
        assert!(e.message().contains(witness) && e.message().contains("`4`"), "{e}");
    }
    for floors in [checkpoint(3), Floors { index: Revision(3), ..Floors::default() }, clean(Revision(3))] {
        assert!(open_with(&disk, 0, &config(), floors).is_ok());
    }
}

#[test]
fn a_journal_that_begins_after_the_checkpoint_is_refused() {
    let (disk, mut journal) = begin();
    for _ in 0..20 {
        append(&mut journal, 1, 9_000).expect("appended");
        journal.trim(journal.head());
    }
    let oldest = journal.oldest();
    assert!(oldest > Revision(10));
    drop(journal);
    let e = refused(open_with(&disk, 0, &config(), checkpoint(oldest.0 - 2)));
    assert!(e.message().contains("begins after"), "{e}");
    let open = open_with(&disk, 0, &config(), checkpoint(oldest.0 - 1)).expect("exactly what is there");
    assert_eq!(open.opened.head, Revision(20));
}

#[test]
fn batches_of_another_journal_do_not_continue_this_one() {
    // Two journals, equal in revisions and sequences; the second segment of one is put into the other.
    let (a, segments_a) = disk_with(7, 5_000);
    let b = SimDisk::new();
    let mut other = open_with(&b, 99, &config(), Floors::default()).expect("opens").journal;
    for _ in 0..7 {
        append(&mut other, 1, 5_001).expect("appended");
    }
    drop(other);
    let foreign = read(&b, &segments_a[1]);
    a.remove(&segments_a[1]).expect("removed");
    let file = a.open(&segments_a[1], dstore_sys::disk::Open::Create).expect("created");
    file.write_all_at(&foreign, 0).expect("written");
    drop(file);
    refused(open(&a));
}

#[test]
fn a_batch_that_names_another_predecessor_is_refused() {
    let (disk, segments) = disk_with(2, 50);
    let bytes = read(&disk, &segments[0]);
    let salt = SegmentHeader::decode(&bytes).expect("a header").salt;
    let place = Place { salt, offset: 12_288, previous: 1, durable: Revision(0) };
    let mut batch = Vec::new();
    format::encode_batch(&mut batch, place, (Revision(2), Revision(2)), &[&payload(Revision(2), 50)]);
    let file = disk.open(&segments[0], dstore_sys::disk::Open::Write).expect("opens");
    file.write_all_at(&batch, 12_288).expect("written");
    let e = refused(open(&disk));
    assert!(e.message().contains("out of order") && e.message().contains("`12288`"), "{e}");
}

#[test]
fn a_disk_that_reads_differently_the_second_time_does_not_shorten_the_journal() {
    let disk = new_disk();
    let large = JournalConfig { segment_bytes: 8 << 20, first_segment_bytes: 8 << 20, ..config() };
    let mut journal = open_with(&disk, 1, &large, Floors::default()).expect("opens").journal;
    for _ in 0..4 {
        append(&mut journal, 1, 1 << 20).expect("appended");
    }
    drop(journal);
    let path = segments(&disk)[0].clone();
    for floors in [clean(Revision(4)), Floors::default()] {
        let disk = disk.crash(Survival::Nothing, 0);
        let opened = Journal::open(&sys(&disk, 2), &large, &floors, |batch| {
            if batch.first == Revision(1) {
                // Whichever segment is replayed: the copy, or the only one.
                let read = segments(&disk).into_iter().rfind(|p| read(&disk, p)[8192] != 0);
                disk.flip(&read.unwrap_or(path.clone()), 8192 + 3 * ((1 << 20) + 4096) + 100, 1)
                    .expect("flipped");
            }
            Ok(())
        });
        let Err(e) = opened else { panic!("opened with fewer batches than there are") };
        assert!(e.kind() == Kind::Unavailable && e.message().contains("read again"), "{e}");
    }
}

#[test]
fn random_damage_never_panics_and_never_invents() {
    for seed in 0..400 {
        let rng = SeededRng::new(seed);
        let (disk, segments) = disk_with(1 + (seed % 9) as usize, 3_000);
        let head = 1 + seed % 9;
        let path = &segments[(rng.next_u64() % segments.len() as u64) as usize];
        let len = read(&disk, path).len() as u64;
        for _ in 0..=seed % 40 {
            disk.flip(path, rng.next_u64() % len, rng.next_u64() as u8).expect("flipped");
        }
        if let Ok(open) = open(&disk) {
            assert_sound(&open.batches, Revision(0), &format!("seed {seed}"));
            assert!(open.opened.head.0 <= head, "seed {seed}");
            // One flip can cost one batch; more may hit all that follow, which is then no sign any more.
            assert!(
                seed % 40 > 0 || open.opened.head.0 + 1 >= head,
                "seed {seed}: cut more than the last batch"
            );
        }
    }
}
