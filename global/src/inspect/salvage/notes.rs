//! What a salvage could not copy, counted and written down.
//!
//! Invariants: everything is counted; at most [`LINES_MAX`] lines are kept, and the report says if there are more.

use crate::sealed::failed;
use dstore_shared::{BlobHash, Entry, Name, Result, Revision};
use dstore_sys::disk::{Disk, Open};
use std::path::Path;

/// Lines that are kept in memory until they are written: each has a name of up to 1 KiB.
const LINES_MAX: usize = 100_000;
/// Lines that are told besides.
const TOLD_MAX: usize = 20;
/// The report in the target's folder.
pub(super) const FILE: &str = "salvage.txt";

/// What was lost, or may be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Loss {
    /// Names whose value is not whole.
    pub names: u64,
    /// Values of which something is there that is not whole.
    pub values: u64,
    /// Revisions that are missing in the journal: what they bound is missing, what they unbound may be back.
    pub revisions: u64,
    /// Other doubts.
    pub doubts: u64,
    /// The first of them all, in words.
    pub told: Vec<String>,
}

impl Loss {
    /// Whether everything was copied, as far as can be known.
    pub fn is_none(&self) -> bool {
        (self.names, self.values, self.revisions, self.doubts) == (0, 0, 0, 0)
    }
}

#[derive(Default)]
pub(super) struct Notes {
    loss: Loss,
    lines: Vec<String>,
    untold: u64,
}

impl Notes {
    pub(super) fn doubt(&mut self, line: String) {
        self.loss.doubts += 1;
        self.line(line);
    }

    pub(super) fn gap(&mut self, from: Revision, to: Revision) {
        self.loss.revisions += to.0 - from.0 + 1;
        self.line(format!(
            "revisions {from} to {to} are lost: what they bound is missing, what they deleted may be back"
        ));
    }

    pub(super) fn value(&mut self, hash: &BlobHash, why: &str) {
        self.loss.values += 1;
        self.line(format!("value blake3:{hash} is lost: {why}"));
    }

    pub(super) fn name(&mut self, name: &Name, entry: &Entry) {
        self.loss.names += 1;
        let Entry { hash, size, bind_rev, .. } = entry;
        self.line(format!(
            "name {name:?} is lost, bound at revision {bind_rev} to blake3:{hash} of {size} bytes: its value is not \
             there whole"
        ));
    }

    fn line(&mut self, line: String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.untold += 1;
        }
    }

    pub(super) fn loss(&self) -> Loss {
        Loss { told: self.lines.iter().take(TOLD_MAX).cloned().collect(), ..self.loss.clone() }
    }

    /// Writes the report into the target's folder.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, source: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let mut text = format!("salvaged from {}\n", source.display());
        if self.lines.is_empty() {
            text.push_str("nothing was lost\n");
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        if self.untold > 0 {
            let more = format!("and {} more\n", self.untold);
            text.push_str(&more);
        }
        let file = disk.open(&path, Open::Create).map_err(|e| failed("create", &path, e))?;
        let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.sync());
        written.and_then(|()| disk.sync_dir(dir)).map_err(|e| failed("write", &path, e))
    }
}
