//! Copies blob files that are whole from one store to another that nobody uses yet.
//!
//! Invariants: a copy has its name only if every byte was read and has the hash; memory holds one piece. The source is
//! only read.

use super::format::{Header, PAGE, crc, outline_len};
use super::layout::Layout;
use crate::sealed::failed;
use dstore_shared::{BlobHash, Result};
use dstore_sys::disk::{Disk, DiskFile, Open};
use std::io;
use std::path::{Path, PathBuf};

const PIECE: u64 = 1 << 20;

/// Hands over every file in `root` that is called as a blob; of folders that cannot be listed, the reason.
///
/// # Errors
/// Those of `each`.
pub(crate) fn each_file(
    disk: &dyn Disk,
    root: &Path,
    each: &mut impl FnMut(Result<(PathBuf, BlobHash), String>) -> Result<()>,
) -> Result<()> {
    let layout = Layout::at(root.to_owned());
    let unlisted =
        |dir: &Path, e: io::Error| Err(format!("the blobs in `{}` cannot be listed, {e}", dir.display()));
    let present = match layout.present(disk) {
        Ok(present) => present,
        // None was stored yet, or all are lost: their names will tell.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return each(unlisted(root, e)),
    };
    for first in present {
        let dir = layout.dir(first);
        let entries = match disk.list(&dir) {
            Ok(entries) => entries,
            Err(e) => {
                each(unlisted(&dir, e))?;
                continue;
            }
        };
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            if let Some(hash) = Layout::hash_of(first, &entry.name) {
                each(Ok((dir.join(&entry.name), hash)))?;
            }
        }
    }
    Ok(())
}

/// Whether there is a file for the blob in `root`; one that cannot be looked at counts as there.
pub(crate) fn has_file(disk: &dyn Disk, root: &Path, hash: &BlobHash) -> bool {
    disk.exists(&Layout::at(root.to_owned()).blob(hash)).unwrap_or(true)
}

/// Copies the file at `path`, if it is the whole blob with `hash`, into the store at `root` of another disk, durably.
/// Gives its size, or why it is not whole.
///
/// # Errors
/// Those of writing.
pub(crate) fn copy_whole(
    from: &dyn Disk,
    path: &Path,
    hash: &BlobHash,
    to: &dyn Disk,
    root: &Path,
) -> Result<Result<u64, String>> {
    let layout = Layout::at(root.to_owned());
    let (folder, target) = (layout.dir(hash.as_bytes()[0]), layout.blob(hash));
    let staged = layout.staged(0, 0);
    for dir in [&folder, &layout.staging()] {
        to.create_dir_all(dir).map_err(|e| failed("make", dir, e))?;
    }
    let (source, header) = match open(from, path, hash) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let file = to.open(&staged, Open::Create).map_err(|e| failed("create", &staged, e))?;
    let copied = copy(&*source, header, |bytes, at| {
        file.write_all_at(bytes, at).map_err(|e| failed("write", &staged, e))
    })?;
    if let Err(why) = copied {
        drop(file);
        to.remove(&staged).map_err(|e| failed("remove", &staged, e))?;
        return Ok(Err(why));
    }
    file.sync().map_err(|e| failed("sync", &staged, e))?;
    to.rename(&staged, &target).map_err(|e| failed("rename", &staged, e))?;
    for dir in [&folder, root] {
        to.sync_dir(dir).map_err(|e| failed("sync", dir, e))?;
    }
    Ok(Ok(header.size))
}

fn open(disk: &dyn Disk, path: &Path, hash: &BlobHash) -> Result<(Box<dyn DiskFile>, Header), String> {
    let unread = |e: io::Error| format!("its file cannot be read, {e}");
    let file = disk.open(path, Open::Read).map_err(unread)?;
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, 0).map_err(unread)?;
    let header = Header::decode(&page).map_err(|e| format!("its file is damaged, {e}"))?;
    if header.hash != *hash {
        return Err(format!("its file is blake3:{}", header.hash));
    }
    Ok((file, header))
}

/// Passes the whole file on, and says whether it was whole.
fn copy(
    source: &dyn DiskFile,
    header: Header,
    mut write: impl FnMut(&[u8], u64) -> Result<()>,
) -> Result<Result<(), String>> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE as usize];
    write(&header.encode(), 0)?;
    let mut at = PAGE as u64;
    while at < header.outline_at() {
        let n = PIECE.min(header.outline_at() - at) as usize;
        if let Err(e) = source.read_exact_at(&mut piece[..n], at) {
            return Ok(Err(format!("its file cannot be read, {e}")));
        }
        hasher.update(&piece[..n]);
        write(&piece[..n], at)?;
        at += n as u64;
    }
    if hasher.finalize().as_bytes() != header.hash.as_bytes() {
        return Ok(Err("its bytes do not match its hash".to_owned()));
    }
    let mut left = outline_len(header.size) as usize;
    let mut outline = Vec::with_capacity(left);
    while left > 0 {
        let n = left.min(PIECE as usize);
        if let Err(e) = source.read_exact_at(&mut piece[..n], at) {
            return Ok(Err(format!("its outline cannot be read, {e}")));
        }
        outline.extend_from_slice(&piece[..n]);
        write(&piece[..n], at)?;
        (at, left) = (at + n as u64, left - n);
    }
    Ok(if crc(&outline) == header.outline_crc {
        Ok(())
    } else {
        Err("its outline does not match its checksum".to_owned())
    })
}
