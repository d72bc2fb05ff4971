//! The calls of [`Disk`] and [`DiskFile`], as a simulated disk answers them.
//!
//! Each checks, strikes its fault if one waits, and then makes its change through `State::apply` alone.

use super::content::Content;
use super::fault::{EMFILE, ENOSPC};
use super::platters::{Inode, Op};
use super::{Call, SimDisk, State};
use crate::disk::{DirEntry, Disk, DiskFile, Lock, Open};
use std::io;
use std::path::{Path, PathBuf};

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = if how == Open::Create {
            state.parent_is_there(path)?;
            if state.live.names.contains_key(path) || state.live.is_dir(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.strike(Call::Create, path)?;
            state.create(path)
        } else {
            state.named(path)?
        };
        Ok(self.handle(&mut state, path, inode, how != Open::Read))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut missing: Vec<&Path> = path.ancestors().take_while(|a| !state.live.is_dir(a)).collect();
        while let Some(dir) = missing.pop() {
            if state.live.names.contains_key(dir) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.apply(&Op::MakeDir { path: dir.to_owned() });
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.named(from)?;
        state.parent_is_there(to)?;
        if state.live.is_dir(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.strike(Call::Rename, from)?;
        if from != to {
            let replaced = state.live.names.get(to).copied();
            state.apply(&Op::Rename { from: from.to_owned(), to: to.to_owned(), inode });
            state.release(replaced.unwrap_or(inode));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.named(path)?;
        state.strike(Call::Remove, path)?;
        state.apply(&Op::Remove { path: path.to_owned(), inode });
        state.release(inode);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.live.is_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let done = state.strike(Call::SyncDir, path);
        let path = path.to_owned();
        match &done {
            Ok(()) => state.apply(&Op::SyncDir { path }),
            // The directory could not even be opened: nothing is lost, and a later sync is a true one.
            Err(e) if e.raw_os_error() == Some(EMFILE) => {}
            Err(_) => state.apply(&Op::SyncDirFailed { path }),
        }
        done
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        if !state.live.is_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let files = state.live.names.iter().filter(|(p, _)| p.parent() == Some(path)).map(|(p, inode)| {
            let len = state.live.files.get(inode).map_or(0, Content::len);
            DirEntry { name: name(p), len, is_dir: false }
        });
        let dirs = state.live.dirs.iter().filter(|p| p.parent() == Some(path));
        let dirs = dirs.map(|p| DirEntry { name: name(p), len: 0, is_dir: true });
        let mut found: Vec<_> = files.chain(dirs).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        Ok(state.live.names.contains_key(path) || state.live.is_dir(path))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        let left = state.budget.map_or(1 << 50, |b| b.saturating_sub(state.used()));
        Ok(state.free.unwrap_or(left))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.parent_is_there(path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.live.names.contains_key(path) {
            state.create(path);
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) writable: bool,
}

impl SimFile {
    fn strike(&self, state: &mut State, call: Call) -> io::Result<()> {
        state.strike_file(call, self).map_or(Ok(()), |(error, _)| Err(error))
    }

    fn may_write(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        self.strike(&mut state, Call::Read)?;
        Ok(state.live.files.get(&self.inode).map_or(0, |f| f.read(buf, offset)))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.may_write()?;
        let mut state = self.disk.state();
        let (keep, failed) = if let Some((error, short)) = state.strike_file(Call::Write, self) {
            (short.min(buf.len()), Err(error))
        } else {
            let room = state.room(self.inode, offset + buf.len() as u64).saturating_sub(offset);
            let keep = buf.len().min(room as usize);
            (keep, if keep < buf.len() { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) })
        };
        if keep > 0 {
            state.apply(&Op::Write { inode: self.inode, offset, bytes: buf[..keep].into() });
        }
        failed
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let done = self.strike(&mut state, Call::Sync);
        let inode = self.inode;
        state.apply(&if done.is_ok() { Op::Sync { inode } } else { Op::SyncFailed { inode } });
        done
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().live.files.get(&self.inode).map_or(0, Content::len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        let mut state = self.disk.state();
        self.strike(&mut state, Call::Preallocate)?;
        let room = state.room(self.inode, len);
        let now = state.live.files.get(&self.inode).map_or(0, Content::len);
        if room.min(len) > now {
            state.apply(&Op::Grow { inode: self.inode, len: room.min(len) });
        }
        if room < len { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let left = state.handles.get(&self.inode).map_or(0, |n| n - 1);
        if left > 0 {
            state.handles.insert(self.inode, left);
            return;
        }
        state.handles.remove(&self.inode);
        state.release(self.inode);
    }
}
