//! A copy of the index that may be opened: fjall and sled cannot open theirs without writing to it.
//!
//! Invariants: the copy is in a folder of its own outside of the data directory, and goes with the value; it is
//! begun only if there is room for it. fjall's tables are not copied but linked to: it writes a table once, to a
//! name that must not exist, so it can remove a link and never write through one. What it may open to
//! write is copied.

use crate::engine::EngineKind;
use crate::sealed::failed;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, Open};
use std::path::{Path, PathBuf};

/// Deeper folders than an engine has.
const DEPTH_MAX: usize = 8;
const PIECE: usize = 1 << 20;
/// Left free beside the copy: opening writes a little, fjall a log of 64 MiB (a hole, in most file systems).
const MARGIN: u64 = 64 << 20;
/// fjall's folder of tables.
const TABLES: &str = "tables";

/// A folder that is removed with its contents when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Copies what `engine` keeps in `data`/index to a fresh folder in `temp`.
    ///
    /// # Errors
    /// `Exhausted` without room for it, `Unavailable` or `Denied` if something cannot be read or written.
    pub(super) fn of_index(sys: &Sys, engine: EngineKind, data: &Path, temp: &Path) -> Result<Self> {
        let disk = &*sys.disk;
        let scratch = Self(temp.join(format!("dstore-check-{:032x}", sys.rng.next_u128())));
        let from = data.join("index").join(engine.to_string());
        let bytes = if exists(disk, &from)? { weigh(disk, &from, DEPTH_MAX)? } else { 0 };
        let free = disk.free_bytes(temp).map_err(|e| failed("look at", temp, e))?;
        if free < bytes.saturating_add(MARGIN) {
            let temp = temp.display();
            return Err(Error::exhausted(format!(
                "the index is looked at in a copy of `{bytes}` bytes, and `{temp}` has `{free}`: set TMPDIR to a \
                 folder with more room"
            )));
        }
        let to = scratch.0.join("index").join(engine.to_string());
        disk.create_dir_all(&to).map_err(|e| failed("make", &to, e))?;
        if exists(disk, &from)? {
            let from = std::fs::canonicalize(&from).map_err(|e| failed("look at", &from, e))?;
            copy(disk, &from, &to, DEPTH_MAX)?;
        } else {
            // As a start finds it: without the engine's folder.
            let _ = std::fs::remove_dir(&to);
        }
        Ok(scratch)
    }

    /// The folder, laid out as a data directory that has nothing but an index.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in a folder for what is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk.exists(path).map_err(|e| failed("look at", path, e))
}

fn weigh(disk: &dyn Disk, dir: &Path, depth: usize) -> Result<u64> {
    let mut bytes = 0_u64;
    for entry in disk.list(dir).map_err(|e| failed("list", dir, e))? {
        let path = dir.join(&entry.name);
        bytes = bytes.saturating_add(match entry.is_dir {
            true if entry.name == TABLES || depth == 0 => 0,
            true => weigh(disk, &path, depth - 1)?,
            false => entry.len,
        });
    }
    Ok(bytes)
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path, depth: usize) -> Result<()> {
    disk.create_dir_all(to).map_err(|e| failed("make", to, e))?;
    let link = from.file_name().is_some_and(|name| name == TABLES);
    for entry in disk.list(from).map_err(|e| failed("list", from, e))? {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        match (entry.is_dir, link) {
            (true, _) if depth == 0 => {}
            (true, _) => copy(disk, &from, &to, depth - 1)?,
            (false, true) => {
                std::os::unix::fs::symlink(&from, &to).map_err(|e| failed("link to", &from, e))?;
            }
            (false, false) => copy_file(disk, &from, &to)?,
        }
    }
    Ok(())
}

fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let source = disk.open(from, Open::Read).map_err(|e| failed("open", from, e))?;
    let target = disk.open(to, Open::Create).map_err(|e| failed("create", to, e))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let n = source.read_at(&mut piece, at).map_err(|e| failed("read", from, e))?;
        if n == 0 {
            break;
        }
        target.write_all_at(&piece[..n], at).map_err(|e| failed("write", to, e))?;
        at += n as u64;
    }
    Ok(())
}
