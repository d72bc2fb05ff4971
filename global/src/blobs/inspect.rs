//! Looks at the files of blobs without changing them.
//!
//! Invariants: one directory's names and one piece of a file are in memory; at most [`BAD_MAX`] files are named.

use super::format::{Header, PAGE, crc, outline_len};
use super::layout::Layout;
use dstore_shared::BlobHash;
use dstore_sys::disk::{Disk, Open};
use std::io;
use std::path::{Path, PathBuf};

/// Damaged files that are named; more are counted.
pub const BAD_MAX: usize = 100;
/// What is read at once.
const PIECE: u64 = 1 << 20;

/// A file that is not the blob that it is called after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadBlob {
    /// The file, from `blobs/` on.
    pub file: PathBuf,
    /// How it shows.
    pub reason: String,
}

/// The blobs of a data directory.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BlobFacts {
    /// Blob files.
    pub files: u64,
    /// Their bytes, header and outline included.
    pub bytes: u64,
    /// Files in the blobs' folders that are no blobs. They are left alone.
    pub foreign: u64,
    /// Whether every byte was read, or the headers only.
    pub deep: bool,
    /// Damaged files.
    pub bad: u64,
    /// The first hundred of them.
    pub named: Vec<BadBlob>,
    /// Uploads that were under way; removed at the next start.
    pub staged: u64,
    /// Their bytes.
    pub staged_bytes: u64,
}

/// Looks at every file in `root`; with `deep` at every byte.
///
/// # Errors
/// Those of listing a directory.
pub(crate) fn inspect(disk: &dyn Disk, root: &Path, deep: bool) -> io::Result<BlobFacts> {
    let mut facts = BlobFacts { deep, ..BlobFacts::default() };
    if !disk.exists(root)? {
        return Ok(facts);
    }
    let layout = Layout::at(root.to_owned());
    if disk.exists(&layout.staging())? {
        for left in disk.list(&layout.staging())? {
            if !left.is_dir {
                facts.staged += 1;
                facts.staged_bytes += left.len;
            }
        }
    }
    for first in layout.present(disk)? {
        for entry in disk.list(&layout.dir(first))? {
            let Some(hash) = Layout::hash_of(first, &entry.name).filter(|_| !entry.is_dir) else {
                facts.foreign += 1;
                continue;
            };
            facts.files += 1;
            facts.bytes += entry.len;
            let path = layout.blob(&hash);
            let Err(reason) = look(disk, &path, &hash, deep) else { continue };
            facts.bad += 1;
            if facts.named.len() < BAD_MAX {
                let file = path.strip_prefix(root).unwrap_or(&path).to_owned();
                facts.named.push(BadBlob { file, reason });
            }
        }
    }
    Ok(facts)
}

/// Whether the file is the blob with `hash`; why not, if it is not.
fn look(disk: &dyn Disk, path: &Path, hash: &BlobHash, deep: bool) -> Result<(), String> {
    let failed = |e: io::Error| format!("it cannot be read, {e}");
    let file = disk.open(path, Open::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    if len < PAGE as u64 {
        return Err(format!("it has `{len}` bytes, fewer than a header"));
    }
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, 0).map_err(failed)?;
    let header = Header::decode(&page).map_err(|e| e.to_string())?;
    if header.hash != *hash {
        return Err(format!("it is blake3:{}", header.hash));
    }
    if header.file_len() != len {
        return Err(format!("it has `{len}` bytes and should have `{}`", header.file_len()));
    }
    if !deep {
        return Ok(());
    }
    let mut hasher = blake3::Hasher::new();
    let mut piece = Vec::new();
    let mut at = PAGE as u64;
    while at < header.outline_at() {
        piece.resize(PIECE.min(header.outline_at() - at) as usize, 0);
        file.read_exact_at(&mut piece, at).map_err(failed)?;
        hasher.update(&piece);
        at += piece.len() as u64;
    }
    if hasher.finalize().as_bytes() != hash.as_bytes() {
        return Err("its bytes do not match its hash".to_owned());
    }
    let mut outline = vec![0; outline_len(header.size) as usize];
    file.read_exact_at(&mut outline, at).map_err(failed)?;
    if crc(&outline) != header.outline_crc {
        return Err("its outline does not match its checksum".to_owned());
    }
    Ok(())
}
