//! The journal with its thread, on real files.

use super::*;
use crate::journal::Class;
use dstore_shared::Kind;

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { dir: dir.join("journal"), ..super::config() }
}

#[test]
fn segments_are_prepared_in_the_background_and_recycled_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = config(dir.path());
    let sys = Sys::real();
    let mut appended = Vec::new();
    for life in 0..3_u64 {
        let mut batches = Vec::new();
        let floors = checkpoint(appended.len().saturating_sub(5) as u64);
        let (mut journal, opened) = Journal::open(&sys, &config, &floors, |batch| {
            batches.push(batch);
            Ok(())
        })
        .expect("opens");
        assert_eq!((opened.created, opened.head.0), (life == 0, life * 60));
        assert_sound(&batches, floors.checkpoint, "real files");
        let other = Journal::open(&sys, &config, &Floors::default(), |_| Ok(()));
        assert_eq!(other.expect_err("in use").kind(), Kind::Unavailable);
        for _ in 0..60 {
            journal.room(Class::Ordinary, 9_000).expect("room");
            appended.push(append(&mut journal, 1, 9_000).expect("appended"));
            journal.trim(Revision(journal.head().0.saturating_sub(10)));
        }
    }
    let files = std::fs::read_dir(&config.dir).expect("listed").count();
    assert!(files <= 16, "{files} files: trimmed segments are used again or removed");
}

#[test]
fn a_burst_that_outruns_the_preparation_waits_for_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = JournalConfig { segment_bytes: 8 << 20, spare_segments: 1, ..config(dir.path()) };
    let (mut journal, _) =
        Journal::open(&Sys::real(), &config, &Floors::default(), |_| Ok(())).expect("opens");
    let large = journal.batch_bytes_max();
    for _ in 0..4 {
        append(&mut journal, 1, large).expect("appended");
    }
    assert_eq!((journal.head(), journal.segments()), (Revision(4), 5));
}

#[test]
fn a_journal_can_be_handed_to_the_thread_that_commits() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<Journal>();
}
