//! The machine's own file system.

use super::{DirEntry, Disk, DiskFile, Lock, Open, Pages};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Parts in one call: `IOV_MAX` of Linux.
const PARTS_MAX: usize = 1024;
/// `RWF_DONTCACHE` of `<linux/fs.h>`, since Linux 6.14: written back at once, dropped from the page cache then.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => {}
            Open::Write => _ = options.write(true),
            Open::Create => _ = options.write(true).create_new(true),
        }
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Removed or renamed meanwhile: this says nothing about the directory.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(DirEntry { name, len: meta.len(), is_dir: meta.is_dir() });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut tries = LOCK_TRIES;
        while let Err(e) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            tries -= 1;
            if tries == 0 || e != Errno::WOULDBLOCK {
                return Err(e.into());
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(Box::new(RealLock(file)))
    }
}

/// A process that was killed holds its locks until it is gone, and one that starts a child until that runs: a few
/// milliseconds. So half a second is waited before a lock counts as held.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock for RealLock {}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn write_parts_at(&self, parts: &[&[u8]], mut offset: u64, pages: Pages) -> io::Result<()> {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        let mut flags = if pages == Pages::Pass { DONTCACHE } else { ReadWriteFlags::empty() };
        IoSlice::advance_slices(&mut rest, 0); // leaves out what is empty
        while !rest.is_empty() {
            match rustix::io::pwritev2(&self.0, &rest[..rest.len().min(PARTS_MAX)], offset, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                // An older kernel, or a file system that cannot.
                Err(Errno::OPNOTSUPP | Errno::INVAL) if flags == DONTCACHE => flags = ReadWriteFlags::empty(),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut at = self.len()?;
        if at < len {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), at, len - at) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        while at < len {
            let n = ZEROS.len().min((len - at) as usize);
            self.0.write_all_at(&ZEROS[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_file_that_goes_away_while_a_directory_is_listed_is_left_out_and_no_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (stays, goes, ended) =
            (dir.path().join("stays"), dir.path().join("goes"), AtomicBool::new(false));
        std::fs::write(&stays, "12345").expect("written");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::fs::write(&goes, "").expect("written");
                    std::fs::remove_file(&goes).expect("removed");
                }
            });
            let lists: io::Result<Vec<_>> = (0..20_000).map(|_| RealDisk.list(dir.path())).collect();
            ended.store(true, Ordering::Relaxed);
            for list in lists.expect("the directory is there") {
                assert_eq!(list.iter().filter(|entry| entry.name == "stays" && entry.len == 5).count(), 1);
            }
        });
        let gone = RealDisk.list(&dir.path().join("none")).expect_err("no directory");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_read_back_what_was_written_and_a_lock_is_exclusive() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let file = RealDisk.open(&path, Open::Create).expect("created");
        file.preallocate(100_000).expect("preallocated");
        file.write_all_at(b"hello", 99_000).expect("written");
        file.sync().expect("synced");
        assert_eq!(file.len().expect("len"), 100_000);
        assert_eq!(&RealDisk.read(&path, 1 << 20).expect("read")[99_000..99_005], b"hello");
        for pages in [Pages::Stay, Pages::Pass] {
            let mut parts = vec![&b"all"[..], b"", b"parts"];
            parts.resize(PARTS_MAX + 10, b"!");
            file.write_parts_at(&parts, 90_003, pages).expect("written");
            file.write_parts_at(&[], 0, pages).expect("nothing to do");
            file.write_parts_at(&[b""], 0, pages).expect("nothing to do");
            let read = RealDisk.read(&path, 1 << 20).expect("read");
            assert_eq!(&read[90_000..90_013], b"\0\0\0allparts!!");
            let written = 90_011 + PARTS_MAX + 7;
            assert_eq!((&read[written - 1..=written], read.len()), (&b"!\0"[..], 100_000), "{pages:?}");
            file.write_all_at(&[0; 2000], 90_000).expect("written");
        }
        assert!(RealDisk.read(&path, 10).is_err());
        assert!(RealDisk.open(&path, Open::Create).is_err());
        assert_eq!(RealDisk.list(dir.path()).expect("list").len(), 1);
        let lock = dir.path().join("LOCK");
        let held = RealDisk.lock(&lock).expect("locked");
        assert_eq!(RealDisk.lock(&lock).expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(RealDisk.lock(&lock).is_ok());
    }
}
