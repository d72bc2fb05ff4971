use super::*;
use crate::disk::{Disk, Open};

fn path(s: &str) -> PathBuf {
    PathBuf::from(s)
}

/// A disk with `/d` durable in it.
fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.record(1 << 20);
    disk.create_dir_all(&path("/d")).expect("made");
    disk.sync_dir(&path("/")).expect("synced");
    disk
}

fn durable_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(&path(name), Open::Create).expect("created");
    file.write_all_at(bytes, 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(&path("/d")).expect("synced");
    file
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.read(&path(name), 1 << 20).ok()
}

const ALL: [Survival; 7] = [
    Survival::Nothing,
    Survival::Everything,
    Survival::Prefix,
    Survival::Writes,
    Survival::Sectors { bytes: 512 },
    Survival::Sectors { bytes: 4096 },
    Survival::Any,
];

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = disk();
    let file = durable_file(&disk, "/d/a", b"hello");
    file.write_all_at(&[7; 9_000], 100).expect("written");
    for survival in ALL {
        for seed in 0..50 {
            let image = disk.crash(survival, seed);
            let bytes = read(&image, "/d/a").expect("its name was synced");
            assert_eq!(&bytes[..5], b"hello", "{survival:?} {seed}");
            assert!(bytes[5..].iter().all(|b| [0, 7].contains(b)));
        }
    }
    assert_eq!(read(&disk.crash(Survival::Nothing, 0), "/d/a").expect("there").len(), 5);
    assert_eq!(read(&disk.crash(Survival::Everything, 0), "/d/a").expect("there").len(), 9_100);
}

#[test]
fn unsynced_writes_are_lost_kept_torn_and_reordered() {
    let disk = disk();
    let file = durable_file(&disk, "/d/a", &[0; 16_384]);
    file.write_all_at(&[1; 8_192], 0).expect("written");
    file.write_all_at(&[2; 8_192], 8_192).expect("written");
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let image = read(&disk.crash(Survival::Any, seed), "/d/a").expect("there");
        let whole = |part: &[u8], with: u8| {
            if part.iter().all(|b| *b == with) {
                "all"
            } else if part.contains(&with) {
                "some"
            } else {
                "none"
            }
        };
        seen.insert((whole(&image[..8_192], 1), whole(&image[8_192..], 2)));
        for sector in image.chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0]), "a sector is never torn, seed {seed}");
        }
    }
    for expected in [("none", "none"), ("all", "all"), ("none", "all"), ("all", "none"), ("some", "some")] {
        assert!(seen.contains(&expected), "{expected:?} is not among {seen:?}");
    }
    let pages = disk.crash(Survival::Sectors { bytes: 4096 }, 3);
    for page in read(&pages, "/d/a").expect("there").chunks(4096) {
        assert!(page.iter().all(|b| *b == page[0]));
    }
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let disk = disk();
    drop(durable_file(&disk, "/d/old", b"old"));
    let file = disk.open(&path("/d/new"), Open::Create).expect("created");
    file.write_all_at(b"new", 0).expect("written");
    file.sync().expect("synced");
    disk.rename(&path("/d/new"), &path("/d/old")).expect("renamed");
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        seen.insert(read(&disk.crash(Survival::Any, seed), "/d/old").expect("one or the other"));
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    disk.sync_dir(&path("/d")).expect("synced");
    for seed in 0..100 {
        let image = disk.crash(Survival::Any, seed);
        assert_eq!(read(&image, "/d/old").expect("synced"), b"new");
        assert!(read(&image, "/d/new").is_none());
    }
    disk.remove(&path("/d/old")).expect("removed");
    assert!(read(&disk, "/d/old").is_none());
    assert!(read(&disk.crash(Survival::Nothing, 0), "/d/old").is_some());
    assert!(read(&disk.crash(Survival::Everything, 0), "/d/old").is_none());
}

#[test]
fn a_file_that_was_moved_away_durably_is_not_brought_back_by_its_old_directory() {
    let disk = disk();
    disk.create_dir_all(&path("/d/old")).expect("made");
    disk.sync_dir(&path("/d")).expect("synced");
    let file = disk.open(&path("/d/old/a"), Open::Create).expect("created");
    file.sync().expect("synced");
    disk.rename(&path("/d/old/a"), &path("/d/a")).expect("renamed");
    disk.sync_dir(&path("/d")).expect("synced");
    for survival in ALL {
        assert_eq!(read(&disk.crash(survival, 1), "/d/old/a"), None, "{survival:?}");
    }
    disk.sync_dir(&path("/d/old")).expect("synced");
    for survival in ALL {
        let image = disk.crash(survival, 1);
        assert_eq!((read(&image, "/d/old/a"), read(&image, "/d/a")), (None, Some(vec![])), "{survival:?}");
    }
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_with_it() {
    let disk = SimDisk::new();
    disk.create_dir_all(&path("/a/b")).expect("made");
    let file = disk.open(&path("/a/b/f"), Open::Create).expect("created");
    file.sync().expect("synced");
    disk.sync_dir(&path("/a/b")).expect("synced");
    disk.sync_dir(&path("/a")).expect("synced");
    assert!(read(&disk.crash(Survival::Nothing, 0), "/a/b/f").is_none());
    disk.sync_dir(&path("/")).expect("synced");
    assert!(read(&disk.crash(Survival::Nothing, 0), "/a/b/f").is_some());
}

#[test]
fn any_moment_of_the_history_can_be_visited_and_replays_alike() {
    let disk = disk();
    let start = disk.op_count();
    let file = durable_file(&disk, "/d/a", b"1");
    let first = disk.op_count();
    file.write_all_at(b"2", 0).expect("written");
    file.sync().expect("synced");
    assert_eq!(disk.moments(), 0..=disk.op_count());
    assert!(read(&disk.crash_at(start, Survival::Everything, 0), "/d/a").is_none());
    assert_eq!(read(&disk.crash_at(first, Survival::Everything, 0), "/d/a").expect("there"), b"1");
    assert_eq!(read(&disk.crash_at(first + 1, Survival::Nothing, 0), "/d/a").expect("there"), b"1");
    assert_eq!(read(&disk.crash_at(first + 2, Survival::Nothing, 0), "/d/a").expect("there"), b"2");
    for seed in 0..20 {
        let images: Vec<_> = (0..2).map(|_| disk.crash_at(first + 1, Survival::Any, seed)).collect();
        assert_eq!(read(&images[0], "/d/a"), read(&images[1], "/d/a"));
        assert_eq!(read(&disk.crash(Survival::Any, seed), "/d/a").expect("there"), b"2");
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_there_and_may_still_be_lost() {
    let disk = disk();
    let file = durable_file(&disk, "/d/a", b"old");
    file.write_all_at(b"new", 0).expect("written");
    let next = disk.after_kill();
    assert_eq!(read(&next, "/d/a").expect("there"), b"new");
    assert_eq!(read(&next.crash(Survival::Nothing, 0), "/d/a").expect("there"), b"old");
    next.open(&path("/d/a"), Open::Write).expect("there").sync().expect("synced");
    assert_eq!(read(&next.crash(Survival::Nothing, 0), "/d/a").expect("there"), b"new");
    assert_eq!(read(&disk.crash(Survival::Nothing, 0), "/d/a").expect("there"), b"old", "another disk");
}

#[test]
fn a_walk_through_the_history_gives_the_images_of_its_moments() {
    let disk = disk();
    for n in 0..20_u8 {
        let name = format!("/d/{}", n % 3);
        let file = match n {
            0..3 => disk.open(&path(&name), Open::Create).expect("created"),
            _ => disk.open(&path(&name), Open::Write).expect("there"),
        };
        file.write_all_at(&[n + 1; 3_000], u64::from(n) * 700).expect("written");
        match n % 4 {
            0 => file.sync().expect("synced"),
            1 => disk.sync_dir(&path("/d")).expect("synced"),
            _ => {}
        }
    }
    let mut replay = disk.replay();
    for op in disk.moments() {
        for (survival, seed) in ALL.into_iter().zip(op as u64..) {
            let (walked, jumped) = (replay.crash_at(op, survival, seed), disk.crash_at(op, survival, seed));
            assert_eq!(walked.files(), jumped.files(), "{op} {survival:?}");
            for (file, _) in jumped.files() {
                let name = file.to_str().expect("text");
                assert_eq!(read(&walked, name), read(&jumped, name), "{op} {survival:?} {name}");
            }
        }
    }
}

#[test]
fn history_is_bounded_and_files_that_are_gone_cost_nothing() {
    let disk = disk();
    disk.record(100_000);
    for i in 0..5_000_u32 {
        let name = path(&format!("/d/{i}"));
        let file = disk.open(&name, Open::Create).expect("created");
        file.write_all_at(&[1; 1_000], 0).expect("written");
        disk.remove(&name).expect("removed");
    }
    let state = disk.state();
    let history = state.history.as_ref().expect("recording");
    assert!(history.bytes <= 100_000 && history.first > 0);
    assert!(state.live.files.is_empty());
    drop(state);
    let moments = disk.moments();
    assert!(moments.start() > &0 && !moments.is_empty());
    let _ = disk.crash_at(*moments.start(), Survival::Any, 1);
    disk.sync_dir(&path("/d")).expect("synced");
    assert_eq!(disk.crash(Survival::Everything, 0).files(), []);
}

#[test]
fn a_failed_sync_lies_from_then_on() {
    let disk = disk();
    let file = durable_file(&disk, "/d/a", b"old");
    file.write_all_at(b"new", 0).expect("written");
    disk.inject(Fault::next(Call::Sync));
    assert_eq!(file.sync().expect_err("injected").raw_os_error(), Some(5));
    file.sync().expect("a second sync says yes");
    assert_eq!(read(&disk, "/d/a").expect("there"), b"new", "the page cache shows it");
    assert_eq!(read(&disk.crash(Survival::Nothing, 0), "/d/a").expect("there"), b"old");
    file.write_all_at(b"NEW", 0).expect("written");
    file.sync().expect("synced");
    assert_eq!(read(&disk.crash(Survival::Nothing, 0), "/d/a").expect("there"), b"NEW");
}

#[test]
fn faults_strike_the_call_and_path_they_name() {
    let disk = disk();
    let (a, b) = (durable_file(&disk, "/d/a", b""), durable_file(&disk, "/d/b", b""));
    disk.inject(Fault::next(Call::Write).at("/b").after(1).short(2));
    a.write_all_at(b"1234", 0).expect("another file");
    b.write_all_at(b"1234", 0).expect("the one that may pass");
    b.write_all_at(b"5678", 4).expect_err("short");
    assert_eq!(read(&disk, "/d/b").expect("there"), b"123456");
    b.write_all_at(b"5678", 4).expect("struck once");
    disk.rename(&path("/d/b"), &path("/d/c")).expect("renamed");
    disk.inject(Fault::next(Call::Sync).at("/c"));
    b.sync().expect_err("by the name that it has now");
    disk.inject(Fault::next(Call::SyncDir).lasting());
    for _ in 0..2 {
        disk.sync_dir(&path("/d")).expect_err("lasting");
    }
    disk.heal();
    disk.sync_dir(&path("/d")).expect("healed");
    disk.flip(&path("/d/a"), 1, 0x40).expect("flipped");
    assert_eq!(read(&disk, "/d/a").expect("there"), b"1r34");
    disk.cut(&path("/d/a"), 1).expect("cut");
    assert_eq!(read(&disk, "/d/a").expect("there"), b"1");
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = disk();
    disk.set_budget(Some(10_000));
    let file = durable_file(&disk, "/d/a", &[1; 8_000]);
    assert_eq!(disk.free_bytes(&path("/d")).expect("free"), 2_000);
    let e = file.write_all_at(&[2; 4_000], 8_000).expect_err("full");
    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().expect("len"), 10_000, "as much as fitted was written");
    file.write_all_at(&[3; 4_000], 0).expect("no growth");
    file.preallocate(10_001).expect_err("full");
    disk.remove(&path("/d/a")).expect("removed");
    assert_eq!(disk.free_bytes(&path("/d")).expect("free"), 0, "an open file still has its bytes");
    drop(file);
    assert_eq!(disk.free_bytes(&path("/d")).expect("free"), 10_000);
    disk.set_free_bytes(Some(5));
    assert_eq!(disk.free_bytes(&path("/d")).expect("free"), 5);
}

#[test]
fn a_lock_is_exclusive_and_does_not_survive_a_crash() {
    let disk = disk();
    let held = disk.lock(&path("/d/LOCK")).expect("locked");
    assert_eq!(disk.lock(&path("/d/LOCK")).expect_err("held").kind(), io::ErrorKind::WouldBlock);
    assert!(disk.crash(Survival::Everything, 0).lock(&path("/d/LOCK")).is_ok());
    drop(held);
    assert!(disk.lock(&path("/d/LOCK")).is_ok());
}

#[test]
fn wrong_paths_and_modes_are_refused_as_the_real_disk_does() {
    let disk = disk();
    let kind = |e: io::Result<Box<dyn DiskFile>>| e.expect_err("refused").kind();
    assert_eq!(kind(disk.open(&path("/d/a"), Open::Write)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&path("/x/a"), Open::Create)), io::ErrorKind::NotFound);
    drop(durable_file(&disk, "/d/a", b"1"));
    assert_eq!(kind(disk.open(&path("/d/a"), Open::Create)), io::ErrorKind::AlreadyExists);
    let file = disk.open(&path("/d/a"), Open::Read).expect("there");
    assert_eq!(file.write_all_at(b"2", 0).expect_err("read only").kind(), io::ErrorKind::PermissionDenied);
    assert!(disk.list(&path("/x")).is_err() && disk.sync_dir(&path("/x")).is_err());
    let names: Vec<_> =
        disk.list(&path("/")).expect("list").into_iter().map(|e| (e.name, e.is_dir)).collect();
    assert_eq!(names, [("d".to_owned(), true)]);
}
