//! Makes the segment with which a journal goes on after an unclean stop, or begins.
//!
//! Invariants: until its rename is durable the segment counts for nothing, and everything older counts on;
//! from then on it voids what earlier segments hold beyond its base. So a crash at any moment leaves one of both.

use super::JournalConfig;
use super::format::{self, BatchHeader, DATA_START, Place, SegmentHeader};
use super::segment::{Role, Segment};
use dstore_shared::Revision;
use dstore_sys::disk::{Disk, DiskFile, Open};
use std::io;

/// A segment that is being made.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    disk: &'a dyn Disk,
    config: &'a JournalConfig,
    file: Box<dyn DiskFile>,
    sequence: u64,
    salt: u64,
    base: Option<Revision>,
    buffer: Vec<u8>,
    at: u64,
    chain: u64,
}

impl<'a> Fresh<'a> {
    pub(super) fn begin(
        disk: &'a dyn Disk,
        config: &'a JournalConfig,
        sequence: u64,
        salt: u64,
    ) -> io::Result<Self> {
        let file = disk.open(&Role::New.path(&config.dir, sequence), Open::Create)?;
        let (buffer, at) = (Vec::new(), DATA_START);
        Ok(Self { disk, config, file, sequence, salt, base: None, buffer, at, chain: salt })
    }

    /// Removes what was made.
    pub(super) fn abandon(disk: &dyn Disk, config: &JournalConfig, sequence: u64) -> io::Result<()> {
        disk.remove(&Role::New.path(&config.dir, sequence))
    }

    /// Copies a batch.
    pub(super) fn copy(&mut self, header: &BatchHeader, payload: &[u8]) -> io::Result<()> {
        self.base.get_or_insert(Revision(header.first.0 - 1));
        let relaxed = self.config.relaxed.is_some();
        // It counts for nothing before all of it is durable.
        let durable = if relaxed { header.last } else { Revision(0) };
        let place = Place { salt: self.salt, offset: self.at, previous: self.chain, durable };
        self.chain = format::encode_batch(&mut self.buffer, place, (header.first, header.last), &[payload]);
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += header.span();
        Ok(())
    }

    /// Makes the segment durable and valid. `head` is the last revision, or where a new journal begins.
    pub(super) fn commit(self, head: Revision) -> io::Result<Segment> {
        let dir = &self.config.dir;
        let length = self.at - DATA_START + self.config.first_segment_bytes.max(DATA_START + format::BLOCK);
        let base = self.base.unwrap_or(head);
        let (sequence, salt) = (self.sequence, self.salt);
        let relaxed = self.config.relaxed.is_some();
        let header = SegmentHeader { sequence, salt, origin: Some(base), recycled: false, relaxed, length };
        self.file.preallocate(length)?;
        self.file.write_all_at(&header.encode(), 0)?;
        self.file.sync()?;
        let path = Role::Live.path(dir, sequence);
        dstore_sys::failpoint!("global::journal::rewritten");
        self.disk.rename(&Role::New.path(dir, sequence), &path)?;
        dstore_sys::failpoint!("global::journal::rewrite_renamed");
        self.disk.sync_dir(dir)?;
        Ok(Segment { path, file: self.file.into(), header, bytes: length })
    }
}
