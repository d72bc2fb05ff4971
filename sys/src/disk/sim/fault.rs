//! What can be made to go wrong on a simulated disk.

use std::io;
use std::path::Path;

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// [`DiskFile::read_at`](crate::disk::DiskFile::read_at).
    Read,
    /// [`DiskFile::write_all_at`](crate::disk::DiskFile::write_all_at).
    Write,
    /// [`DiskFile::preallocate`](crate::disk::DiskFile::preallocate).
    Preallocate,
    /// [`DiskFile::sync`](crate::disk::DiskFile::sync).
    Sync,
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir).
    SyncDir,
    /// [`Disk::open`](crate::disk::Disk::open) with [`Open::Create`](crate::disk::Open::Create).
    Create,
    /// [`Disk::rename`](crate::disk::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::disk::Disk::remove).
    Remove,
}

/// Makes a call fail: by default the next one of its kind, on any path, once, with EIO and without effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    call: Call,
    path: String,
    skip: usize,
    errno: i32,
    short: usize,
    lasting: bool,
}

const EIO: i32 = 5;
pub(super) const EMFILE: i32 = 24;
pub(super) const ENOSPC: i32 = 28;

impl Fault {
    /// The next `call` fails.
    pub fn next(call: Call) -> Self {
        Self { call, path: String::new(), skip: 0, errno: EIO, short: 0, lasting: false }
    }

    /// Only calls on paths that contain `part` count.
    #[must_use]
    pub fn at(mut self, part: impl Into<String>) -> Self {
        self.path = part.into();
        self
    }

    /// Lets `n` calls pass first.
    #[must_use]
    pub fn after(mut self, n: usize) -> Self {
        self.skip = n;
        self
    }

    /// A write, before it fails, leaves its first `bytes` bytes.
    #[must_use]
    pub fn short(mut self, bytes: usize) -> Self {
        self.short = bytes;
        self
    }

    /// Fails as a full disk does (ENOSPC).
    #[must_use]
    pub fn no_space(mut self) -> Self {
        self.errno = ENOSPC;
        self
    }

    /// Fails as a process with too many open files does (EMFILE): nothing was begun.
    #[must_use]
    pub fn no_handles(mut self) -> Self {
        self.errno = EMFILE;
        self
    }

    /// From then on every such call fails, until [`SimDisk::heal`](super::SimDisk::heal).
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }
}

/// The faults that wait for their call.
#[derive(Default, Debug)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The error that this call gets, and the bytes that it writes nevertheless.
    pub(super) fn strike(&mut self, call: Call, path: &Path) -> Option<(io::Error, usize)> {
        let hits = |f: &Fault| f.call == call && path.to_string_lossy().contains(f.path.as_str());
        let at = self.0.iter().position(hits)?;
        let fault = &mut self.0[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let struck = (io::Error::from_raw_os_error(fault.errno), fault.short);
        if !fault.lasting {
            self.0.remove(at);
        }
        Some(struck)
    }
}
