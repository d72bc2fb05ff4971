//! `dstore get` into a file, and of a part of a value.
//!
//! Invariants: a new file, and one that is replaced, is there whole or not at all: it is written beside its place,
//! synced, and moved there in one step. One that is continued grows in place, and what was added stays there when the
//! transfer breaks off, for the next attempt to go on from. Only what is asked for is moved.

use super::client::once_to;
use super::screen;
use crate::config::{Existing, Node, OutFile};
use dstore_local::repl::{Mode, Output, exit};
use dstore_proto::store::Slice;
use dstore_shared::{Error, Key, Kind};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// `dstore get KEY` with `--offset`, `--len` or `--out`.
pub async fn download(node: Node, key: Key, slice: Slice, out: Option<OutFile>, mode: Mode) -> u8 {
    let Some(OutFile { path, how }) = out else {
        return super::client::part(node, key, slice, mode).await;
    };
    let sink = match Sink::open(&path, how) {
        Ok(sink) => sink,
        Err(e) => return refused(&path, &e),
    };
    let slice = Slice { offset: slice.offset + sink.length, ..slice };
    let written = match sink.file.try_clone() {
        Ok(file) => {
            let file = Box::new(tokio::fs::File::from_std(file));
            let output = Output::new(file, Box::new(tokio::io::stderr()), screen::of_process());
            once_to(node, Mode::Raw, output, async |session| session.read(&key, slice).await).await
        }
        Err(e) => Err(e),
    };
    match written {
        Ok(exit::OK) => match sink.keep() {
            Ok(()) => exit::OK,
            Err(e) => refused(&path, &e),
        },
        Ok(code) => code,
        Err(e) => refused(&path, &e),
    }
}

/// Says why the file cannot be written, and gives the exit code.
fn refused(path: &Path, e: &io::Error) -> u8 {
    let (kind, advice) = match e.kind() {
        io::ErrorKind::AlreadyExists => (Kind::Occupied, "remove it, or use --truncate or --append"),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            (Kind::Invalid, "correct --out")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (Kind::Denied, "check owner and permissions")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Kind::Exhausted, "free some space"),
        _ => (Kind::Internal, "check its disk"),
    };
    let path = path.display();
    let error = Error::new(kind, format!("`{path}` cannot be written, {e}: {advice}"));
    screen::complain(&error, exit::of(kind))
}

/// A file that a value is written to.
pub(super) struct Sink {
    pub(super) file: File,
    /// Bytes that it had.
    length: u64,
    /// What is written, and where it goes, if that is elsewhere.
    beside: Option<(PathBuf, PathBuf, Existing)>,
    /// It was made for this, and goes if nothing is written to it.
    made: Option<PathBuf>,
}

impl Sink {
    /// Begins a file.
    pub(super) fn open(path: &Path, how: Existing) -> io::Result<Self> {
        let found = fs::metadata(path);
        match (how, &found) {
            (Existing::Refused, _) if path.symlink_metadata().is_ok() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Existing::Continued, _) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                let length = file.metadata()?.len();
                let made = found.is_err().then(|| path.to_owned());
                return Ok(Self { file, length, beside: None, made });
            }
            // A device or a pipe is written to, not replaced.
            (Existing::Replaced, Ok(meta)) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(path)?;
                return Ok(Self { file, length: 0, beside: None, made: None });
            }
            _ => {}
        }
        // The file that a link leads to is replaced, not the link.
        let place = if found.is_ok() { fs::canonicalize(path)? } else { path.to_owned() };
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let beside = place.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        let sink = Self { file, length: 0, beside: Some((beside, place, how)), made: None };
        if let Ok(meta) = found {
            sink.file.set_permissions(meta.permissions())?;
        }
        Ok(sink)
    }

    /// What was written stays, durably.
    pub(super) fn keep(mut self) -> io::Result<()> {
        self.made = None;
        let Some((beside, place, how)) = &self.beside else { return synced(&self.file) };
        self.file.sync_all()?;
        match how {
            Existing::Refused => put(beside, place)?,
            _ => fs::rename(beside, place)?,
        }
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = File::open(folder);
        self.beside = None;
        // One that may be written and not read cannot be synced by us.
        folder.map_or(Ok(()), |folder| folder.sync_all())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((beside, ..)) = &self.beside {
            let _ = fs::remove_file(beside);
        }
        if let Some(made) =
            self.made.take().filter(|_| self.file.metadata().is_ok_and(|meta| meta.len() == 0))
        {
            let _ = fs::remove_file(made);
        }
    }
}

/// A pipe or a device has nothing to be synced.
fn synced(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
}

/// Moves a file to a place where there is none.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can: a link is as exclusive.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
