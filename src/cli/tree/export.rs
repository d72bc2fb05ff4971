//! Keys into a tree of files. A key is untrusted: it names a file within the folder, or is skipped.
//!
//! Each file is written beside its place and moved there when its bytes are all there and have their hash, so a file of
//! the tree is never half a value. What was written is synced once, at the end.

use super::import::hash_of;
use super::{AT_ONCE, BATCH_NAMES, PART_BEGIN, PART_END, RemoteStore, Tally, io_error};
use bytes::Bytes;
use dstore_client::Client;
use dstore_proto::store::{ListQuery, Slice, Target};
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{BlobHash, BlobHasher, Entry, Error, Key, Kind, Name, Namespace, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// Values of one batch have at most so many bytes together; larger ones come by themselves.
const BATCH_VALUES_BYTES: u64 = 4 << 20;

/// Tells the files that are being written apart.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Tells them apart from those of other exports: a container gives every process the same id.
static OF_PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// A file that is being written; it goes unless it came to its place.
#[derive(Debug)]
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // It is not there any more if it came to its place.
        let _ = fs::remove_file(&self.0);
    }
}

/// A key that has a place.
#[derive(Clone)]
struct Placed {
    name: Name,
    entry: Entry,
    path: PathBuf,
}

/// Writes every key under `prefix` to `dir`.
pub async fn export(
    client: &Client<RemoteStore>,
    tally: &Arc<Tally>,
    (prefix, dir): (&Bytes, &Path),
    overwrite: bool,
) -> Result<()> {
    let at = |e: std::io::Error| {
        Error::invalid(format!("`{}` cannot be made, {e}: name another folder", dir.display()))
    };
    fs::create_dir_all(dir).map_err(at)?;
    let mut after = None;
    loop {
        let (namespace, prefix) = (Namespace::default(), prefix.clone());
        let begin = prefix.len();
        let page = client.list(&ListQuery { namespace, prefix, after, limit: LIST_NAMES_MAX }).await?;
        let batches = batches(tally, page.names, (dir, begin));
        stream::iter(batches)
            .map(|batch| async move { fetch(client, tally, (batch, dir), overwrite).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    tally.all_found.store(true, Ordering::Relaxed);
    let synced = File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.map_err(|e| io_error(&e, "synced"))
}

/// Cuts a page into what one call brings.
fn batches(tally: &Tally, names: Vec<(Key, Entry)>, (dir, begin): (&Path, usize)) -> Vec<Vec<Placed>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (key, entry) in names {
        let within = key.as_bytes().get(begin..).unwrap_or_default();
        let Some(path) = place(dir, within) else {
            tally.skip(key.as_bytes(), "it is no path within a folder");
            continue;
        };
        tally.found.fetch_add(1, Ordering::Relaxed);
        tally.found_bytes.fetch_add(entry.size, Ordering::Relaxed);
        if batch.len() >= BATCH_NAMES || bytes + entry.size > BATCH_VALUES_BYTES {
            bytes = 0;
            all.push(std::mem::take(&mut batch));
        }
        bytes += entry.size;
        batch.push(Placed { name: Name::new(&Namespace::default(), &key), entry, path });
    }
    all.push(batch);
    all.retain(|batch| !batch.is_empty());
    all
}

/// The file of a key: only plain parts, none of them empty, none that leads elsewhere.
fn place(dir: &Path, within: &[u8]) -> Option<PathBuf> {
    let plain = |part: &[u8]| {
        !part.is_empty() && part != b"." && part != b".." && !part.contains(&0) && part.len() <= 255
    };
    if within.is_empty() || !within.split(|b| *b == b'/').all(plain) {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(within));
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| dir.join(path))
}

async fn fetch(
    client: &Client<RemoteStore>,
    tally: &Arc<Tally>,
    (batch, dir): (Vec<Placed>, &Path),
    overwrite: bool,
) -> Result<()> {
    let (asked, counted) = (batch, tally.clone());
    let wanted = tokio::task::spawn_blocking(move || {
        asked.into_iter().filter(|one| wants(&counted, one, overwrite)).collect::<Vec<_>>()
    });
    let wanted = wanted.await.map_err(|e| Error::internal(format!("looking was lost, {e}: report this")))?;
    if let [one] = &wanted[..]
        && one.entry.size > BATCH_VALUES_BYTES
    {
        return fetch_large(client, tally, one, dir).await;
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let names: Vec<Name> = wanted.iter().map(|one| one.name.clone()).collect();
    let values = client.get_many(&names).await?.values;
    let (counted, dir) = (tally.clone(), dir.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        for (one, value) in wanted.iter().zip(values) {
            let key = one.name.key();
            let Some(value) = value else {
                counted.skip(key.as_bytes(), "it was deleted meanwhile");
                continue;
            };
            let done = write(&one.path, &dir, &mut |file| {
                file.write_all(&value.bytes)?;
                Ok(BlobHash::of(&value.bytes))
            });
            settle(&counted, one, value.entry.hash, value.bytes.len() as u64, done);
        }
    });
    written.await.map_err(|e| Error::internal(format!("writing was lost, {e}: report this")))
}

/// Whether the file is to be written: not if it has the value's bytes already.
fn wants(tally: &Tally, one: &Placed, overwrite: bool) -> bool {
    let (key, size) = (one.name.key(), one.entry.size);
    let Ok(found) = fs::symlink_metadata(&one.path) else { return true };
    if !found.is_file() {
        tally.fail(
            key.as_bytes(),
            &Error::new(Kind::Occupied, "something that is no file stands in its place"),
        );
        return false;
    }
    let same = found.len() == size && hash_of(&one.path).is_ok_and(|hash| hash == Some(one.entry.hash));
    if same {
        tally.was_there(size);
        return false;
    }
    if !overwrite {
        let e = Error::new(
            Kind::Occupied,
            "a file with other bytes stands in its place: use --overwrite to replace it",
        );
        tally.fail(key.as_bytes(), &e);
    }
    overwrite
}

async fn fetch_large(
    client: &Client<RemoteStore>,
    tally: &Arc<Tally>,
    one: &Placed,
    dir: &Path,
) -> Result<()> {
    let Some(found) = client.get_stream(&Target::Name(one.name.clone()), Slice::ALL).await? else {
        tally.skip(one.name.key().as_bytes(), "it was deleted meanwhile");
        return Ok(());
    };
    let (entry, mut pieces) = (found.entry, found.body.into_stream());
    let (to, mut from) = tokio::sync::mpsc::channel::<Bytes>(8);
    let (path, dir) = (one.path.clone(), dir.to_owned());
    let writing = tokio::task::spawn_blocking(move || {
        let (mut hasher, mut size) = (BlobHasher::default(), 0);
        let done = write(&path, &dir, &mut |file| {
            while let Some(piece) = from.blocking_recv() {
                file.write_all(&piece)?;
                hasher.update(&piece);
                size += piece.len() as u64;
            }
            Ok(std::mem::take(&mut hasher).finish())
        });
        (done, size)
    });
    let mut broken = None;
    while let Some(piece) = pieces.next().await {
        match piece {
            // A writer that has ended says why.
            Ok(piece) => {
                if to.send(piece).await.is_err() {
                    break;
                }
            }
            Err(e) => {
                broken = Some(e);
                break;
            }
        }
    }
    drop(to);
    let (done, size) =
        writing.await.map_err(|e| Error::internal(format!("writing was lost, {e}: report this")))?;
    match broken {
        Some(e) => {
            // It is not whole, so its hash is not right, and nothing came to its place.
            drop(done);
            tally.fail(one.name.key().as_bytes(), &e);
        }
        None => settle(tally, one, entry.hash, size, done),
    }
    Ok(())
}

/// Writes beside the place; gives where, and the hash of what was written.
fn write(
    path: &Path,
    dir: &Path,
    fill: &mut dyn FnMut(&mut File) -> std::io::Result<BlobHash>,
) -> std::io::Result<(Beside, BlobHash)> {
    let parent = path.parent().unwrap_or(dir);
    // A link that stands in the tree would lead elsewhere.
    let mut at = parent;
    while at != dir {
        if fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink()) {
            return Err(std::io::Error::other("a link stands in its path"));
        }
        at = at.parent().unwrap_or(dir);
    }
    fs::create_dir_all(parent)?;
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let beside = parent.join(format!("{PART_BEGIN}{:016x}-{n}{PART_END}", *OF_PROCESS));
    let mut file = File::create_new(&beside)?;
    let beside = Beside(beside);
    fill(&mut file).map(|hash| (beside, hash))
}

/// Moves what was written to its place, if it has the right hash.
fn settle(tally: &Tally, one: &Placed, hash: BlobHash, size: u64, done: std::io::Result<(Beside, BlobHash)>) {
    let key = one.name.key();
    let moved = match done {
        Ok((beside, own)) if own == hash => fs::rename(&beside.0, &one.path),
        Ok(_) => {
            tally.fail(
                key.as_bytes(),
                &Error::corrupt("what came does not have its hash: run the same command again"),
            );
            return;
        }
        Err(e) => Err(e),
    };
    match moved {
        Ok(()) => tally.moved(size),
        Err(e) => tally.fail(key.as_bytes(), &io_error(&e, "written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_place_within_the_folder_or_none() {
        let dir = Path::new("/t");
        for (key, path) in
            [("a", "/t/a"), ("a/b c", "/t/a/b c"), ("..a/.b", "/t/..a/.b"), ("\u{96ea}", "/t/\u{96ea}")]
        {
            assert_eq!(place(dir, key.as_bytes()), Some(PathBuf::from(path)), "{key}");
        }
        let long = "x".repeat(256);
        for key in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a\0b", &long] {
            assert_eq!(place(dir, key.as_bytes()), None, "{key:?}");
        }
    }
}
