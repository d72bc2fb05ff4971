//! A tree of files into keys: walked on a thread, small files in batches, large ones streamed, several at a time.

use super::{AT_ONCE, BATCH_BYTES, BATCH_NAMES, PART_BEGIN, PART_END, RemoteStore, Tally, folder, io_error};
use bytes::Bytes;
use dstore_client::Client;
use dstore_local::repl::body;
use dstore_shared::limits::BLOB_BYTES_MAX;
use dstore_shared::{BlobHash, BlobHasher, Error, Key, Kind, Name, Namespace, Result, SetOutcome};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Files of at most so many bytes go in batches.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Batches that wait to be sent.
const AHEAD: usize = 16;
/// Bytes read of a file at a time, to hash it.
const READ_BYTES: usize = 256 << 10;
/// Folders within folders.
const DEPTH_MAX: usize = 256;

/// A file that is to be stored.
struct Found {
    path: PathBuf,
    name: Name,
    size: u64,
}

/// Stores every file under `dir`.
pub async fn import(
    client: &Client<RemoteStore>,
    tally: &Arc<Tally>,
    dir: &Path,
    prefix: &Bytes,
) -> Result<()> {
    folder(dir)?;
    let (to, batches) = mpsc::channel(AHEAD);
    let walk = Walk {
        root: dir.to_owned(),
        prefix: prefix.clone(),
        tally: tally.clone(),
        to,
        batch: Vec::new(),
        bytes: 0,
    };
    let walking = tokio::task::spawn_blocking(move || walk.run());
    let batches = stream::unfold(batches, |mut batches| async { Some((batches.recv().await?, batches)) });
    let sent = batches
        .map(|batch| async move { store(client, tally, batch).await })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await;
    // A walk that nobody takes files from ends.
    let _ = walking.await;
    sent.map(|_| ())
}

/// Finds the files, in the order of their names within each folder.
struct Walk {
    root: PathBuf,
    prefix: Bytes,
    tally: Arc<Tally>,
    to: mpsc::Sender<Vec<Found>>,
    batch: Vec<Found>,
    bytes: u64,
}

impl Walk {
    fn run(mut self) {
        let root = self.root.clone();
        let _ = self.folder(&root, 0);
        let _ = self.send();
        self.tally.all_found.store(true, Ordering::Relaxed);
    }

    /// `None`: nobody takes files any more.
    fn folder(&mut self, dir: &Path, depth: usize) -> Option<()> {
        let listed = fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = match listed {
            Ok(entries) if depth < DEPTH_MAX => entries,
            Ok(_) => {
                self.tally.skip(self.shown(dir), "folders lie too deep in folders");
                return Some(());
            }
            Err(e) => {
                self.tally.fail(self.shown(dir), &io_error(&e, "read"));
                return Some(());
            }
        };
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => self.folder(&path, depth + 1)?,
                Ok(meta) if meta.is_file() && is_part(&entry.file_name()) => {
                    self.tally.skip(self.shown(&path), "it is a part that an export left");
                }
                Ok(meta) if meta.is_file() => self.file(path, meta.len())?,
                Ok(meta) => self.tally.skip(self.shown(&path), kind_of(&meta)),
                Err(e) => self.tally.fail(self.shown(&path), &io_error(&e, "looked at")),
            }
        }
        Some(())
    }

    fn file(&mut self, path: PathBuf, size: u64) -> Option<()> {
        let key = Key::new([&self.prefix[..], self.shown(&path)].concat());
        let name = match key {
            Ok(key) => Name::new(&Namespace::default(), &key),
            Err(e) => {
                self.tally.fail(self.shown(&path), &e);
                return Some(());
            }
        };
        if size > BLOB_BYTES_MAX {
            let e = Error::too_large(format!("it has `{size}` bytes, a value at most `{BLOB_BYTES_MAX}`"));
            self.tally.fail(self.shown(&path), &e);
            return Some(());
        }
        self.tally.found.fetch_add(1, Ordering::Relaxed);
        self.tally.found_bytes.fetch_add(size, Ordering::Relaxed);
        let small = size <= SMALL_BYTES_MAX;
        // What one call carries: values with their names.
        if !small || self.batch.len() >= BATCH_NAMES || self.bytes + size > BATCH_BYTES {
            self.send()?;
        }
        self.bytes += size + name.as_bytes().len() as u64;
        self.batch.push(Found { path, name, size });
        if small { Some(()) } else { self.send() }
    }

    fn send(&mut self) -> Option<()> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Some(()) } else { self.to.blocking_send(batch).ok() }
    }

    /// The path within the tree.
    fn shown<'a>(&self, path: &'a Path) -> &'a [u8] {
        path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes()
    }
}

/// What it is, if it is no file and no folder.
fn kind_of(meta: &fs::Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_symlink() {
        "a link, which is not followed"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}

/// Stores a batch: small files together, or one large one.
async fn store(client: &Client<RemoteStore>, tally: &Tally, batch: Vec<Found>) -> Result<()> {
    let names: Vec<Name> = batch.iter().map(|file| file.name.clone()).collect();
    let stats = client.stat_many(&names).await?.stats;
    let mut fresh = Vec::new();
    for (file, stat) in batch.into_iter().zip(stats) {
        match stat {
            None => fresh.push(file),
            Some(stat) => compare(tally, file, stat.entry.size, stat.entry.hash).await,
        }
    }
    match <[Found; 1]>::try_from(fresh) {
        Ok([file]) if file.size > SMALL_BYTES_MAX => store_large(client, tally, file).await,
        Ok([file]) => store_small(client, tally, vec![file]).await,
        Err(files) if files.is_empty() => Ok(()),
        Err(files) => store_small(client, tally, files).await,
    }
}

/// The key is there: with the same bytes, or with others.
async fn compare(tally: &Tally, file: Found, size: u64, hash: BlobHash) {
    let path = file.path.clone();
    let same = if file.size == size {
        tokio::task::spawn_blocking(move || hash_of(&path))
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)))
    } else {
        Ok(None)
    };
    match same {
        Ok(Some(own)) if own == hash => tally.was_there(size),
        Ok(_) => {
            let e = Error::new(
                Kind::Occupied,
                "the key has another value: delete it first, or use another --prefix",
            );
            tally.fail(file.name.key().as_bytes(), &e);
        }
        Err(e) => tally.fail(file.path.as_os_str().as_bytes(), &io_error(&e, "read")),
    }
}

/// The hash of a file's bytes.
pub(super) fn hash_of(path: &Path) -> std::io::Result<Option<BlobHash>> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, BlobHasher::default(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hasher.finish())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

async fn store_small(client: &Client<RemoteStore>, tally: &Tally, files: Vec<Found>) -> Result<()> {
    let read = tokio::task::spawn_blocking(move || {
        let read = |file: Found| {
            let bytes = fs::read(&file.path);
            (file, bytes)
        };
        files.into_iter().map(read).collect::<Vec<_>>()
    });
    let read = read.await.map_err(|e| Error::internal(format!("reading was lost, {e}: report this")))?;
    let mut values: Vec<(Name, Bytes)> = Vec::with_capacity(read.len());
    for (file, bytes) in read {
        match bytes {
            // It grew since it was found; the next run has it.
            Ok(bytes) if bytes.len() as u64 > SMALL_BYTES_MAX => {
                let e = Error::unavailable("it grew while it was read: run the same command again");
                tally.fail(file.path.as_os_str().as_bytes(), &e);
            }
            Ok(bytes) => values.push((file.name, bytes.into())),
            Err(e) => tally.fail(file.path.as_os_str().as_bytes(), &io_error(&e, "read")),
        }
    }
    let replies = client.set_many(&values).await;
    for ((name, bytes), reply) in values.iter().zip(replies) {
        let size = bytes.len() as u64;
        judge(tally, name, BlobHash::of(bytes), size, reply.map(|reply| reply.outcome))?;
    }
    Ok(())
}

async fn store_large(client: &Client<RemoteStore>, tally: &Tally, file: Found) -> Result<()> {
    let opened = match tokio::fs::File::open(&file.path).await {
        Ok(opened) => opened,
        Err(e) => {
            tally.fail(file.path.as_os_str().as_bytes(), &io_error(&e, "read"));
            return Ok(());
        }
    };
    let seen = Arc::new(Mutex::new((BlobHasher::default(), 0_u64)));
    let noted = seen.clone();
    let bytes = body(Box::new(opened)).inspect_ok(move |piece| {
        let mut noted = noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        noted.0.update(piece);
        noted.1 += piece.len() as u64;
    });
    let reply = client.set_stream(Some(&file.name), Box::pin(bytes)).await;
    let (hash, size) = {
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (std::mem::take(&mut seen.0).finish(), seen.1)
    };
    judge(tally, &file.name, hash, size, reply.map(|reply| reply.outcome))
}

/// Whether what was stored is what was read. An error of the node ends everything: what follows would fail too.
fn judge(tally: &Tally, name: &Name, hash: BlobHash, size: u64, outcome: Result<SetOutcome>) -> Result<()> {
    let key = name.key();
    match outcome {
        Ok(SetOutcome::Stored(entry)) if entry.hash == hash => tally.moved(size),
        Ok(SetOutcome::Unchanged(entry)) if entry.hash == hash => tally.was_there(size),
        Ok(SetOutcome::Stored(_) | SetOutcome::Unchanged(_)) => {
            tally.fail(
                key.as_bytes(),
                &Error::corrupt("other bytes were stored than were read: check the memory"),
            );
        }
        Ok(SetOutcome::Occupied(_) | SetOutcome::NeedBlob) => {
            let e = Error::new(
                Kind::Occupied,
                "the key has another value: delete it first, or use another --prefix",
            );
            tally.fail(key.as_bytes(), &e);
        }
        Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Exhausted | Kind::Denied | Kind::Closed) => {
            return Err(e);
        }
        Err(e) => tally.fail(key.as_bytes(), &e),
    }
    Ok(())
}

/// Whether it is what an export was writing when it was killed.
fn is_part(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(PART_BEGIN.as_bytes()) && name.ends_with(PART_END.as_bytes())
}
