//! A disk that fails: what is lost, and what goes on.

use super::*;
use dstore_shared::Kind;
use dstore_sys::disk::{DirEntry, Lock, Pages};
use parking_lot::Mutex;

/// The real disk, which fails when told and writes down what it was asked.
#[derive(Debug, Default)]
struct FaultyDisk(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    /// Calls with these words fail, until cleared.
    fail: Mutex<Vec<&'static str>>,
    /// What the disk says is free, if not the truth.
    free: Mutex<Option<u64>>,
    /// Removes do not come back while this is set.
    hold_removes: AtomicBool,
    /// `create`, `write`, `sync`, `rename`, `remove`, `sync_dir` and what they were asked, in order.
    calls: Mutex<Vec<String>>,
}

impl Faults {
    fn call(&self, call: &str, path: &Path) -> io::Result<()> {
        self.calls.lock().push(format!("{call} {}", path.display()));
        if self.fail.lock().contains(&call) {
            return Err(io::Error::other("as told"));
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        if how == Open::Create {
            self.0.call("create", path)?;
        }
        let file = RealDisk.open(path, how)?;
        Ok(Box::new(FaultyFile { file, path: path.to_owned(), faults: self.0.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.call("create_dir", path)?;
        RealDisk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.call("rename", to)?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.call("remove", path)?;
        while self.0.hold_removes.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.call("sync_dir", path)?;
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let told = *self.0.free.lock();
        told.map_or_else(|| RealDisk.free_bytes(path), Ok)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.faults.fail.lock().contains(&"read") && offset >= 4096 {
            return Err(io::Error::other("as told"));
        }
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.faults.call("write", &self.path)?;
        self.file.write_all_at(buf, offset)
    }
    fn write_parts_at(&self, parts: &[&[u8]], offset: u64, pages: Pages) -> io::Result<()> {
        self.faults.call("write", &self.path)?;
        self.file.write_parts_at(parts, offset, pages)
    }
    fn sync(&self) -> io::Result<()> {
        self.faults.call("sync", &self.path)?;
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }
}

async fn faulty() -> (TempDir, Blobs, Arc<Faults>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = FaultyDisk::default();
    let faults = disk.0.clone();
    let sys = Sys { disk: Arc::new(disk), ..Sys::real() };
    let blobs = Blobs::open(sys, dir.path().join("blobs"), limits()).await.expect("opened");
    (dir, blobs, faults)
}

#[tokio::test]
async fn a_failed_write_or_fsync_or_rename_costs_only_its_own_upload_and_is_not_tried_again() {
    for size in [20_000, 3 << 20] {
        for fault in ["create", "write", "sync", "rename"] {
            let (dir, blobs, faults) = faulty().await;
            let all = bytes(size, 1);
            faults.fail.lock().push(fault);
            let failure = put_in_pieces(&blobs, &all, 1 << 20).await.expect_err(fault);
            assert!(!failure.is_fatal(), "{fault}");
            assert_eq!(Error::from(failure).kind(), Kind::Unavailable, "{fault}");
            let tries = faults.calls.lock().iter().filter(|c| c.starts_with(&format!("{fault} "))).count();
            assert_eq!(tries, 1, "{fault} of {size}");
            assert!(blobs.contains(BlobHash::of(&all)).await.expect("looked").is_none());
            faults.fail.lock().clear();
            assert!(put(&blobs, &all).await.fresh, "{fault}: others go on");
            blobs.close().await;
            assert_eq!(staging_of(&dir), Vec::<String>::new(), "{fault}");
        }
    }
}

#[tokio::test]
async fn a_failed_directory_fsync_is_fatal_and_ends_all_changes_but_not_reads() {
    let (_dir, blobs, faults) = faulty().await;
    let old = bytes(20_000, 1);
    let old_hash = put(&blobs, &old).await.hash;
    let waiting = blobs.stage(None).await.expect("room");
    faults.fail.lock().push("sync_dir");
    let failure = put_in_pieces(&blobs, &bytes(20_000, 2), 1 << 20).await.expect_err("fatal");
    assert!(failure.is_fatal());
    faults.fail.lock().clear();
    assert!(blobs.is_poisoned());
    assert_eq!(blobs.stage(None).await.expect_err("poisoned").kind(), Kind::Unavailable);
    assert!(waiting.finish(None).await.is_err());
    assert_eq!(
        blobs.contains(BlobHash::of(&bytes(20_000, 2))).await.expect_err("poisoned").kind(),
        Kind::Unavailable
    );
    assert_eq!(blobs.unlink(old_hash).await.expect_err("poisoned").kind(), Kind::Unavailable);
    assert_eq!(get(&blobs, old_hash, 20_000).await.expect("reads go on").expect("there"), old);
}

#[tokio::test]
async fn a_fresh_directory_that_is_not_durable_is_fatal_before_a_blob_enters_it() {
    let (_dir, blobs, faults) = faulty().await;
    faults.fail.lock().push("sync_dir");
    let all = bytes(20_000, 1);
    assert!(put_in_pieces(&blobs, &all, 1 << 20).await.expect_err("fatal").is_fatal());
    assert!(!faults.calls.lock().iter().any(|c| c.starts_with("rename")));
    assert!(blobs.sync_all_dirs().await.expect_err("fatal").is_fatal());
}

#[tokio::test]
async fn a_file_is_durable_before_its_name_and_its_name_before_the_answer() {
    for size in [20_000, 300_000, 3 << 20] {
        let (dir, blobs, faults) = faulty().await;
        faults.calls.lock().clear();
        let hash = put(&blobs, &bytes(size, 1)).await.hash;
        let calls = std::mem::take(&mut *faults.calls.lock());
        let root = dir.path().join("blobs");
        let fan_out = root.join(&hash.to_string()[..2]);
        let at = |want: String| calls.iter().rposition(|c| c.starts_with(&want)).expect(&want);
        let last_write = calls.iter().rposition(|c| c.starts_with("write")).expect("a write");
        let order = [
            last_write,
            at("sync ".into()),
            at(format!("create_dir {}", fan_out.display())),
            calls.iter().position(|c| *c == format!("sync_dir {}", root.display())).expect("the root's sync"),
            at(format!("rename {}", fan_out.display())),
            at(format!("sync_dir {}", fan_out.display())),
        ];
        assert!(order.is_sorted(), "{calls:#?}");
        let pieces = calls.iter().filter(|c| c.starts_with("write")).count();
        assert!(pieces <= size.div_ceil(1 << 20) + 2, "pieces of at least 1 MiB: {calls:#?}");
        drop(put(&blobs, &bytes(size, 1)).await);
        let again = faults.calls.lock().iter().filter(|c| c.starts_with("sync")).count();
        assert_eq!(again, 0, "deduplication syncs nothing");
    }
}

#[tokio::test]
async fn after_an_unclean_stop_all_directories_can_be_synced() {
    let (dir, blobs, faults) = faulty().await;
    let hashes: Vec<BlobHash> = futures_util::future::join_all((0..5).map(|seed| {
        let blobs = blobs.clone();
        async move { put(&blobs, &bytes(20_000, seed)).await.hash }
    }))
    .await;
    faults.calls.lock().clear();
    blobs.sync_all_dirs().await.expect("synced");
    let calls = faults.calls.lock().clone();
    for hash in hashes {
        let want = format!("sync_dir {}", dir.path().join("blobs").join(&hash.to_string()[..2]).display());
        assert!(calls.contains(&want), "{want}");
    }
    assert_eq!(calls.last(), Some(&format!("sync_dir {}", dir.path().join("blobs").display())));
}

#[tokio::test]
async fn bytes_that_the_disk_cannot_read_are_damage() {
    let (_dir, blobs, faults) = faulty().await;
    let all = bytes(2 << 20, 1);
    let hash = put(&blobs, &all).await.hash;
    faults.fail.lock().push("read");
    assert_eq!(get(&blobs, hash, 2 << 20).await.expect_err("unreadable").kind(), Kind::Corrupt);
    assert!(blobs.is_marked(&hash));
    faults.fail.lock().clear();
    assert!(put(&blobs, &all).await.cleared_mark);
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_uploads_before_they_write_more() {
    let (dir, blobs, faults) = faulty().await;
    let mut staging = blobs.stage(None).await.expect("room");
    staging.write(bytes(4 << 20, 1)).await.expect("taken");
    let small = blobs.stage(Some(20_000)).await.expect("room");
    *faults.free.lock() = Some(20_000 - 1);
    let kind = |failure: Failure| Error::from(failure).kind();
    let writes = |faults: &Faults| faults.calls.lock().iter().filter(|c| c.starts_with("write")).count();
    let mut refused = None;
    for _ in 0..4 {
        let written = staging.write(bytes(2 << 20, 2)).await;
        refused = refused.or(written.err());
    }
    assert_eq!(refused.expect("refused").kind(), Kind::Exhausted);
    let before = writes(&faults);
    let mut small = small;
    small.write(bytes(20_000, 3)).await.expect("in memory");
    assert_eq!(kind(small.finish(None).await.expect_err("full")), Kind::Exhausted);
    assert_eq!(writes(&faults), before, "not a byte was written");
    drop(staging);
    *faults.free.lock() = None;
    assert!(put(&blobs, &bytes(20_000, 3)).await.fresh, "room returned");
    blobs.close().await;
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

impl Faults {
    /// Runs `asked` while an unlink is past the point of return, and lets that end a while later.
    async fn during_unlink<T>(&self, blobs: &Blobs, hash: BlobHash, asked: impl Future<Output = T>) -> T {
        self.calls.lock().clear();
        self.hold_removes.store(true, Ordering::SeqCst);
        let others = async {
            while !self.calls.lock().iter().any(|c| c.starts_with("remove")) {
                tokio::task::yield_now().await;
            }
            let release = async {
                // Whoever asks must wait for the unlink, and that nothing comes too early shows in time only.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                self.hold_removes.store(false, Ordering::SeqCst);
            };
            tokio::join!(asked, release).0
        };
        let (unlinked, answer) = tokio::join!(blobs.unlink(hash), others);
        assert!(unlinked.expect("no error"));
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deduplication_is_never_told_of_a_file_that_is_being_unlinked() {
    let (_dir, blobs, faults) = faulty().await;
    let all = bytes(20_000, 1);
    let hash = put(&blobs, &all).await.hash;
    let held = faults.during_unlink(&blobs, hash, blobs.contains(hash)).await;
    assert!(held.expect("looked").is_none());

    drop(put(&blobs, &all).await);
    let staged = faults.during_unlink(&blobs, hash, put(&blobs, &all)).await;
    assert!(staged.fresh);
    assert_eq!(get(&blobs, hash, 20_000).await.expect("readable").expect("pinned"), all);
}
