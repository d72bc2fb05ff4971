//! Owns the form of files that are written whole and replaced atomically: `meta`, `checkpoint` and the
//! memory engine's index.
//!
//! Invariants: a file is complete or refused, because every block's checksum covers the one before and an
//! empty block ends the file; a reader or writer holds one block in memory, never the file; a file of a newer
//! version is refused by that name and not as damage. Nothing here may write over a file in place.
//!
//! The layout is in docs/STORAGE.md.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use dstore_shared::{Error, Kind, Result};
use dstore_sys::disk::{Disk, DiskFile, Open};
use std::io;
use std::path::{Path, PathBuf};

/// A block is written once it has this many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// A longer block is not ours: a longest record is an index value or the outcome of a DEL of 10,000 names.
const BLOCK_BYTES_MAX: usize = 64 << 20;
const HEADER_BYTES: usize = 24;

/// What kind of file it is, and the newest version of it that this dstore knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

/// A tagged run of bytes in a sealed file.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) tag: u8,
    pub(crate) bytes: Bytes,
}

/// Writes a sealed file beside its place, and then puts it there.
#[derive(Debug)]
pub(crate) struct SealedWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    at: u64,
    block: Vec<u8>,
    crc: u64,
}

impl<'a> SealedWriter<'a> {
    /// Begins a file that will be `path`.
    pub(crate) fn create(disk: &'a dyn Disk, path: &Path, form: Form) -> Result<Self> {
        let beside = beside(path);
        if disk.exists(&beside).map_err(|e| failed("look at", &beside, e))? {
            disk.remove(&beside).map_err(|e| failed("remove", &beside, e))?;
        }
        let file = disk.open(&beside, Open::Create).map_err(|e| failed("create", &beside, e))?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&form.magic);
        header.extend_from_slice(&form.version.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let crc = checksum(0, &[&header]);
        header.extend_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, 0).map_err(|e| failed("write", &beside, e))?;
        let block = Vec::with_capacity(BLOCK_BYTES + (64 << 10));
        Ok(Self { disk, path: path.to_owned(), file, at: HEADER_BYTES as u64, block, crc })
    }

    /// Appends a part, given in pieces.
    pub(crate) fn push(&mut self, tag: u8, pieces: &[&[u8]]) -> Result<()> {
        let len: usize = pieces.iter().map(|p| p.len()).sum();
        let len = u32::try_from(len).map_err(|_| Error::too_large("a part of a file is over 4 GiB"))?;
        self.block.push(tag);
        self.block.extend_from_slice(&len.to_le_bytes());
        for piece in pieces {
            self.block.extend_from_slice(piece);
        }
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Ends the file and makes its contents durable; it is not in its place yet.
    pub(crate) fn seal(mut self) -> Result<Sealed<'a>> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        self.flush()?;
        dstore_sys::failpoint!("global::sealed::before_fsync");
        self.file.sync().map_err(|e| failed("sync", &self.path, e))?;
        dstore_sys::failpoint!("global::sealed::after_fsync");
        Ok(Sealed { disk: self.disk, path: self.path })
    }

    fn flush(&mut self) -> Result<()> {
        let len = (self.block.len() as u32).to_le_bytes();
        self.crc = checksum(self.crc, &[&len, &self.block]);
        let mut head = [0; 12];
        head[..4].copy_from_slice(&len);
        head[4..].copy_from_slice(&self.crc.to_le_bytes());
        let write = |bytes: &[u8], at| self.file.write_all_at(bytes, at);
        write(&head, self.at)
            .and_then(|()| write(&self.block, self.at + head.len() as u64))
            .map_err(|e| failed("write", &self.path, e))?;
        self.at += (head.len() + self.block.len()) as u64;
        self.block.clear();
        Ok(())
    }
}

/// A durable file beside its place.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl Sealed<'_> {
    /// Puts the file in its place, durably. What was there is lost, or kept as `previous`.
    pub(crate) fn replace(self, previous: Option<&Path>) -> Result<()> {
        let Self { disk, path } = self;
        if let Some(previous) = previous
            && disk.exists(&path).map_err(|e| failed("look at", &path, e))?
        {
            disk.rename(&path, previous).map_err(|e| failed("rename", &path, e))?;
            dstore_sys::failpoint!("global::checkpoint::between_renames");
        }
        disk.rename(&beside(&path), &path).map_err(|e| failed("rename", &path, e))?;
        dstore_sys::failpoint!("global::sealed::renamed");
        let dir = path.parent().unwrap_or(Path::new("."));
        disk.sync_dir(dir).map_err(|e| failed("sync", dir, e))
    }
}

/// Hands every part of the file to `each`, in order. `false` if there is no file.
///
/// # Errors
/// `Corrupt` for a damaged or cut file, after `each` may have seen parts of it; `Invalid` for a newer one.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    form: Form,
    mut each: impl FnMut(Part) -> Result<()>,
) -> Result<bool> {
    if !disk.exists(path).map_err(|e| failed("look at", path, e))? {
        return Ok(false);
    }
    let mut file = Blocks::open(disk, path, form)?;
    while let Some(mut block) = file.next()? {
        while !block.is_empty() {
            let part = split_part(&mut block).ok_or_else(|| damaged(path, "a part is cut"))?;
            each(part)?;
        }
    }
    Ok(true)
}

fn split_part(block: &mut Bytes) -> Option<Part> {
    let (tag, len) = (*block.first()?, block.get(1..5)?);
    let end = 5 + u32::from_le_bytes(len.try_into().ok()?) as usize;
    let bytes = (end <= block.len()).then(|| block.split_to(end).slice(5..))?;
    Some(Part { tag, bytes })
}

struct Blocks<'a> {
    path: &'a Path,
    file: Box<dyn DiskFile>,
    len: u64,
    at: u64,
    crc: u64,
}

impl<'a> Blocks<'a> {
    fn open(disk: &dyn Disk, path: &'a Path, form: Form) -> Result<Self> {
        let file = disk.open(path, Open::Read).map_err(|e| failed("open", path, e))?;
        let len = file.len().map_err(|e| failed("read", path, e))?;
        let mut blocks = Self { path, file, len, at: 0, crc: 0 };
        let header: [u8; HEADER_BYTES] = blocks.take(HEADER_BYTES)?[..].try_into().expect("as many as asked");
        let crc = checksum(0, &[&header[..16]]);
        if header[16..] != crc.to_le_bytes() || header[..8] != form.magic {
            return Err(damaged(path, "its header is not valid"));
        }
        let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        if version > form.version {
            let (path, known) = (path.display(), form.version);
            return Err(Error::invalid(format!(
                "`{path}` has format `{version}`, this dstore knows `{known}`: use the newer dstore"
            )));
        }
        blocks.crc = crc;
        Ok(blocks)
    }

    /// The next block; `None` at the proper end.
    fn next(&mut self) -> Result<Option<Bytes>> {
        let head = self.take(12)?;
        let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        if len > BLOCK_BYTES_MAX {
            return Err(damaged(self.path, "a block is too long"));
        }
        let block = self.take(len)?;
        self.crc = checksum(self.crc, &[&head[..4], &block]);
        if head[4..] != self.crc.to_le_bytes() {
            return Err(damaged(self.path, "a checksum is wrong"));
        }
        match (len, self.at == self.len) {
            (0, true) => Ok(None),
            (0, false) => Err(damaged(self.path, "bytes follow its end")),
            _ => Ok(Some(block.into())),
        }
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>> {
        if n as u64 > self.len - self.at {
            return Err(damaged(self.path, "it is cut"));
        }
        let mut bytes = vec![0; n];
        self.file.read_exact_at(&mut bytes, self.at).map_err(|e| failed("read", self.path, e))?;
        self.at += n as u64;
        Ok(bytes)
    }
}

fn checksum(seed: u64, pieces: &[&[u8]]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&seed.to_le_bytes());
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn damaged(path: &Path, why: &str) -> Error {
    let path = path.display();
    Error::corrupt(format!("`{path}` is damaged, {why}: restore it from a backup"))
}

/// The error of a failed access of `path`.
pub(crate) fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    let text = format!("cannot {doing} `{}`, {e}", path.display());
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::exhausted(format!("{text}: free some space"))
        }
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::Denied, format!("{text}: check owner and permissions"))
        }
        _ => Error::unavailable(format!("{text}: check the disk")),
    }
    .caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_sys::disk::RealDisk;

    const FORM: Form = Form { magic: *b"dstoreTT", version: 3 };

    fn write(path: &Path, form: Form, parts: &[(u8, Vec<u8>)]) {
        let mut writer = SealedWriter::create(&RealDisk, path, form).expect("created");
        for (tag, bytes) in parts {
            let (a, b) = bytes.split_at(bytes.len() / 2);
            writer.push(*tag, &[a, b]).expect("pushed");
        }
        writer.seal().expect("sealed").replace(None).expect("placed");
    }

    type Parts = Vec<(u8, Vec<u8>)>;

    fn read_all(path: &Path) -> Result<Option<Parts>> {
        let mut parts = Vec::new();
        let found = read(&RealDisk, path, FORM, |p| {
            parts.push((p.tag, p.bytes.to_vec()));
            Ok(())
        })?;
        Ok(found.then_some(parts))
    }

    #[test]
    fn a_file_of_many_blocks_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read_all(&path).unwrap(), None);
        for n in [0, 1, BLOCK_BYTES - 5, BLOCK_BYTES - 4, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            let parts = vec![(1, vec![7; n]), (2, vec![]), (255, vec![1; 100])];
            write(&path, FORM, &parts);
            assert_eq!(read_all(&path).unwrap(), Some(parts), "{n}");
        }
        assert_eq!(RealDisk.list(dir.path()).unwrap().len(), 1, "nothing is left beside");
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_anywhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, FORM, &[(1, vec![7; 40]), (2, vec![])]);
        let good = RealDisk.read(&path, 1 << 20).unwrap();
        let put = |bytes: &[u8]| {
            let _ = RealDisk.remove(&path);
            RealDisk.open(&path, Open::Create).unwrap().write_all_at(bytes, 0).unwrap();
        };
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            put(&bad);
            assert_eq!(read_all(&path).expect_err("changed").kind(), Kind::Corrupt, "byte {i}");
            put(&good[..i]);
            assert_eq!(read_all(&path).expect_err("cut").kind(), Kind::Corrupt, "byte {i}");
        }
        put(&[&good[..], &[0]].concat());
        assert_eq!(read_all(&path).expect_err("longer").kind(), Kind::Corrupt);
        put(&good);
        assert!(read_all(&path).unwrap().is_some());
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, Form { version: 4, ..FORM }, &[]);
        let error = read_all(&path).expect_err("newer");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().contains("use the newer dstore"), "{error}");
    }
}
