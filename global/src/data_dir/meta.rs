//! Owns the file `meta`: what must be known before anything else of the directory is touched.

use crate::change::Reader;
use crate::sealed::{self, Form, Part, SealedWriter};
use dstore_shared::{Error, HistoryId, Result, Revision};
use dstore_sys::disk::Disk;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "meta";
const HEAD: u8 = 1;
const ENGINE: u8 = 2;
const LINE: u8 = 3;
const NEGATIVES: u8 = 1;
const CLEAN: u8 = 1 << 1;
const ASYNC: u8 = 1 << 2;
const RELAXED: u8 = 1 << 3;

/// What the file says. It is replaced whole at every change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) history: HistoryId,
    pub(crate) boot: u64,
    pub(crate) lease_max: Duration,
    pub(crate) negatives_ever: bool,
    /// An asynchronous DEL was made since the last start after a clean stop (rule 27).
    pub(crate) async_dels: bool,
    pub(crate) clean: Option<Revision>,
    /// A boot that acknowledges before it syncs has begun and was not ended in order: what it acknowledged last may be
    /// lost, so no revision of it may be given again under the same history.
    pub(crate) relaxed: bool,
    /// The history that the directory began with, which its checkpoints bear; `None` while it is `history`.
    pub(crate) line: Option<HistoryId>,
    pub(crate) engine: String,
}

impl Meta {
    /// The one format that this dstore reads and writes.
    pub(crate) const FORMAT: u32 = Self::FORM.version;
    /// What kind of file it is.
    pub(crate) const FORM: Form = Form { magic: *b"dstoreME", version: 1 };

    /// That of a new directory.
    pub(crate) fn new(history: HistoryId, engine: String) -> Self {
        let (boot, lease_max) = (0, Duration::ZERO);
        Self {
            history,
            boot,
            lease_max,
            negatives_ever: false,
            async_dels: false,
            clean: None,
            relaxed: false,
            line: None,
            engine,
        }
    }

    /// The history that checkpoints bear: what they prove was durable, so no loss concerns it.
    pub(crate) fn line(&self) -> HistoryId {
        self.line.unwrap_or(self.history)
    }

    /// Reads the file in `dir`; `None` if there is none.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let mut meta = Self::new(HistoryId(0), String::new());
        let found = sealed::read(disk, &path, Self::FORM, |part| meta.take(&path, part))?;
        if found && meta.engine.is_empty() {
            return Err(Error::corrupt(format!(
                "`{}` names no engine: restore it from a backup",
                path.display()
            )));
        }
        Ok(found.then_some(meta))
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        dstore_sys::failpoint!("global::meta::before_write");
        let negatives = if self.negatives_ever { NEGATIVES } else { 0 };
        let clean = if self.clean.is_some() { CLEAN } else { 0 };
        let async_dels = if self.async_dels { ASYNC } else { 0 };
        let relaxed = if self.relaxed { RELAXED } else { 0 };
        let lease_max = u64::try_from(self.lease_max.as_nanos()).unwrap_or(u64::MAX);
        let mut writer = SealedWriter::create(disk, &dir.join(FILE), Self::FORM)?;
        writer.push(
            HEAD,
            &[
                &[negatives | clean | async_dels | relaxed],
                &self.history.0.to_le_bytes(),
                &self.boot.to_le_bytes(),
                &lease_max.to_le_bytes(),
                &self.clean.unwrap_or_default().0.to_le_bytes(),
            ],
        )?;
        writer.push(ENGINE, &[self.engine.as_bytes()])?;
        if let Some(line) = self.line {
            writer.push(LINE, &[&line.0.to_le_bytes()])?;
        }
        writer.seal()?.replace(None)?;
        dstore_sys::failpoint!("global::meta::after_write");
        Ok(())
    }

    fn take(&mut self, path: &Path, part: Part) -> Result<()> {
        let path = path.display();
        match part.tag {
            HEAD => {
                let mut head = Reader::new(part.bytes);
                let flags = head.flags("flags of `meta`", NEGATIVES | CLEAN | ASYNC | RELAXED)?;
                self.history = HistoryId(head.u128()?);
                self.boot = head.u64()?;
                self.lease_max = Duration::from_nanos(head.u64()?);
                let clean = Revision(head.u64()?);
                self.clean = (flags & CLEAN != 0).then_some(clean);
                self.negatives_ever = flags & NEGATIVES != 0;
                self.async_dels = flags & ASYNC != 0;
                self.relaxed = flags & RELAXED != 0;
                head.end()?;
            }
            ENGINE => {
                self.engine = String::from_utf8(part.bytes.to_vec())
                    .map_err(|_| Error::corrupt(format!("`{path}` is damaged: restore it from a backup")))?;
            }
            LINE => {
                let mut line = Reader::new(part.bytes);
                self.line = Some(HistoryId(line.u128()?));
                line.end()?;
            }
            tag => {
                return Err(Error::invalid(format!(
                    "`{path}` has a part `{tag}` of a newer dstore: use that version"
                )));
            }
        }
        Ok(())
    }
}
