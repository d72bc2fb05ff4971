//! The bytes on disk, pinned by a file that was written by format 1.

use super::*;
use crate::journal::format::{FORMAT, FORMAT_RELAXED};
use dstore_shared::Kind;
use dstore_sys::disk::{Disk, Open as How};

const GOLDEN: &[u8] = include_bytes!("golden-v1.journal");
const NAME: &str = "0000000000000001.journal";

/// The journal whose only segment the golden file is.
fn write() -> SimDisk {
    let disk = new_disk();
    let small = JournalConfig { first_segment_bytes: 20 << 10, ..config() };
    let mut journal = open_with(&disk, 42, &small, Floors::default()).expect("opens").journal;
    journal.append(Revision(1), Revision(3), &[b"first ", b"batch"]).expect("appended");
    journal.append(Revision(4), Revision(4), &[&[0xab; 4100]]).expect("appended");
    drop(journal);
    disk
}

fn place(bytes: &[u8]) -> SimDisk {
    let disk = new_disk();
    disk.create_dir_all(Path::new(DIR)).expect("made");
    let file = disk.open(&Path::new(DIR).join(NAME), How::Create).expect("created");
    file.write_all_at(bytes, 0).expect("written");
    drop(file);
    disk
}

#[test]
fn this_binary_writes_the_bytes_of_format_1() {
    let now = read(&write(), &Path::new(DIR).join(NAME));
    if let Ok(path) = std::env::var("DSTORE_WRITE_GOLDEN") {
        #[expect(clippy::disallowed_methods, reason = "a developer asked for the fixture")]
        std::fs::write(path, &now).expect("written");
    }
    assert!(now == GOLDEN, "the format changed: raise FORMAT, keep reading 1, and add a fixture");
}

#[test]
fn this_binary_reads_a_journal_of_format_1() {
    let open = open(&place(GOLDEN)).expect("opens");
    let found: Vec<_> = open.batches.iter().map(|b| (b.first.0, b.last.0, b.payload.clone())).collect();
    assert_eq!(found, [(1, 3, "first batch".into()), (4, 4, vec![0xab; 4100].into())]);
}

#[test]
fn the_fields_stand_where_the_documentation_says() {
    let u64_at = |at: usize| u64::from_le_bytes(GOLDEN[at..at + 8].try_into().expect("eight"));
    let u32_at = |at: usize| u32::from_le_bytes(GOLDEN[at..at + 4].try_into().expect("four"));
    assert_eq!(GOLDEN.len(), 20 << 10);
    assert_eq!(GOLDEN[..64], GOLDEN[4096..4160], "two copies");
    assert_eq!((&GOLDEN[..8], u32_at(16), u32_at(20)), (&b"dstoreJ\n"[..], FORMAT, 1));
    let (sequence, salt, base, length) = (u64_at(24), u64_at(32), u64_at(40), u64_at(48));
    assert_eq!((sequence, base, length), (1, 0, 20 << 10));
    assert_eq!(salt, SeededRng::new(42).next_u64());
    let crc = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    assert_eq!(u64_at(8), crc(&GOLDEN[16..64]));
    for (at, previous, first, last, len) in [(8192, salt, 1, 3, 11), (12_288, u64_at(8200), 4, 4, 4100)] {
        let salted = |bytes: &[u8]| {
            let at = (at as u64).to_le_bytes();
            crc(&[&salt.to_le_bytes()[..], &at, bytes].concat())
        };
        assert_eq!(&GOLDEN[at..at + 8], b"dstoreB\n");
        assert_eq!(u64_at(at + 8), salted(&GOLDEN[at + 16..at + 64]));
        assert_eq!(u64_at(at + 16), salted(&GOLDEN[at + 64..at + 64 + len]));
        assert_eq!(
            [24, 32, 40, 48, 56].map(|field| u64_at(at + field)),
            [previous, first, last, len as u64, 0]
        );
    }
}

#[test]
fn a_journal_of_a_newer_format_is_refused_and_left_alone() {
    let mut newer = GOLDEN.to_vec();
    for copy in [0, 4096] {
        newer[copy + 16..copy + 20].copy_from_slice(&(FORMAT_RELAXED + 1).to_le_bytes());
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &newer[copy + 16..copy + 64]);
        newer[copy + 8..copy + 16].copy_from_slice(&checksum.to_le_bytes());
    }
    let disk = place(&newer);
    let Err(e) = open(&disk) else { panic!("a newer format was opened") };
    assert_eq!(e.kind(), Kind::Invalid);
    assert!(e.message().contains("newer"), "{e}");
    assert!(read(&disk, &Path::new(DIR).join(NAME)) == newer);
}
