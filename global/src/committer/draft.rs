//! What a change of several steps would make of names, before it is decided.
//!
//! Invariant: each name is looked at once, so all steps see one state, and each sees what those before it made of it.
//! A draft that is not taken costs nothing.

use super::{Committer, Drained, Verdict};
use crate::change::{BlobMeta, Change, Place};
use crate::feed::Unbound;
use crate::journal::Class;
use dstore_shared::{Blob, BlobHash, Entry, Error, Name, Result, Revision};
use std::collections::{BTreeMap, HashMap};

/// What a name was bound to, and is to be.
#[derive(Debug)]
pub(super) struct Row {
    pub name: Name,
    /// In the catalog, its time over or not.
    stored: Option<Entry>,
    pub now: Option<Entry>,
}

impl Row {
    /// Whether what holders have of the name would be wrong.
    fn voids(&self) -> bool {
        match (&self.stored, &self.now) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(was), Some(is)) => {
                (was.hash, &was.content_type) != (is.hash, &is.content_type) || is_longer(was, is)
            }
        }
    }
}

/// Whether `was` would be served longer than `is` may be.
fn is_longer(was: &Entry, is: &Entry) -> bool {
    #[cfg(feature = "faults")]
    if dstore_shared::planted::is_made(dstore_shared::planted::Mistake::UndrainedExpiry) {
        return false;
    }
    let end = |entry: &Entry| entry.expires_at.unwrap_or(dstore_shared::End::MAX);
    end(was) > end(is)
}

/// The bytes of a value.
pub(super) enum Bytes {
    /// They are inside the journal, or came with the change.
    Whole(Blob),
    /// They have a file of their own, which is not read here.
    InFile,
    /// They have another hash, which is noted.
    Damaged,
}

/// Names and blobs as a change would leave them.
#[derive(Debug, Default)]
pub(super) struct Draft {
    rows: Vec<Row>,
    places: HashMap<Name, usize>,
    /// Blobs that came with the change, or that it made.
    fresh: HashMap<BlobHash, Blob>,
}

impl Draft {
    /// A blob that the change brings.
    pub fn bring(&mut self, blob: Blob) {
        self.fresh.insert(blob.id(), blob);
    }

    /// Leaves every name as it was found: what is over is unbound all the same, since somebody may be told so.
    pub fn undo(&mut self, at_ms: u64) {
        self.fresh.clear();
        for row in &mut self.rows {
            row.now = row.stored.clone().filter(|entry| !entry.is_over(at_ms));
        }
    }

    /// Leaves the last of several names as it was.
    #[cfg(feature = "faults")]
    pub fn forget_last(&mut self) {
        if self.rows.iter().filter(|row| row.now != row.stored).count() > 1
            && let Some(row) = self.rows.iter_mut().rfind(|row| row.now != row.stored)
        {
            row.now.clone_from(&row.stored);
        }
    }

    /// A blob that the change brought or made.
    pub fn fresh(&self, hash: &BlobHash) -> Option<&Blob> {
        self.fresh.get(hash)
    }

    /// Whether any name is to be bound otherwise than it was.
    pub fn changes(&self) -> bool {
        self.rows.iter().any(|row| row.now != row.stored)
    }

    /// The names of which what is held, or believed to be absent, becomes void: not those that only live longer, whose
    /// holders go on.
    pub fn void(&self) -> Vec<Name> {
        let void = self.rows.iter().filter(|row| row.voids() || row.stored.is_none() && row.now.is_some());
        void.map(|row| row.name.clone()).collect()
    }

    /// Whether a name whose holders were not waited for is to be bound otherwise than they think.
    pub fn overtakes(&self, drained: &Drained) -> bool {
        self.rows.iter().any(|row| row.voids() && !drained.has(&row.name))
    }
}

impl Committer {
    /// The place of a name in the draft. A name whose time is over is not bound there.
    pub(super) fn row<'a>(&self, draft: &'a mut Draft, name: &Name) -> Result<&'a mut Row> {
        let place = if let Some(place) = draft.places.get(name) {
            *place
        } else {
            let stored = self.catalog.entry_once(name)?;
            let now = stored.clone().filter(|entry| !entry.is_over(self.at_ms));
            draft.rows.push(Row { name: name.clone(), stored, now });
            draft.places.insert(name.clone(), draft.rows.len() - 1);
            draft.rows.len() - 1
        };
        Ok(&mut draft.rows[place])
    }

    /// The changes that make the draft true. `revision` is theirs; `told` are the bytes that the outcome takes beside them.
    pub(super) fn taken(
        &mut self,
        draft: Draft,
        revision: Revision,
        told: usize,
    ) -> Result<(Vec<Change>, Vec<Unbound>)> {
        let Draft { rows, fresh, .. } = draft;
        let mut counts: BTreeMap<BlobHash, i64> = BTreeMap::new();
        // Also of names that stay as they are: bytes that came replace damaged ones.
        let named = rows.iter().filter_map(|row| Some(row.now.as_ref()?.hash));
        counts.extend(named.filter(|hash| fresh.contains_key(hash)).map(|hash| (hash, 0)));
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.now != row.stored).collect();
        if rows.is_empty() && counts.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        for row in &rows {
            if let Some(was) = &row.stored {
                *counts.entry(was.hash).or_default() -= 1;
            }
            if let Some(is) = &row.now {
                *counts.entry(is.hash).or_default() += 1;
            }
        }
        let (class, bytes) = weight(&rows, &fresh);
        self.room(class, bytes + told)?;
        let mut changes = self.blob_changes(&counts, &fresh)?;
        let mut unbound = Vec::new();
        for Row { name, stored, now } in rows {
            match (stored, now) {
                (None, Some(entry)) => changes.push(Change::Bind { name, entry }),
                (Some(_), Some(entry)) => changes.push(Change::Rebind { name, entry }),
                (Some(was), None) => {
                    changes.push(Change::Unbind { name: name.clone() });
                    unbound.push(Unbound { revision, name, was });
                }
                (None, None) => {}
            }
        }
        Ok((changes, unbound))
    }

    /// Counts of names, and the bytes of blobs that are not there yet. What a step made and a later one unbound is not
    /// counted, so it is not kept.
    fn blob_changes(
        &mut self,
        counts: &BTreeMap<BlobHash, i64>,
        fresh: &HashMap<BlobHash, Blob>,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::with_capacity(3 * counts.len());
        for (hash, more) in counts {
            let known = self.meta(hash)?;
            let healthy = known.filter(|meta| !meta.corrupt);
            let brought = if healthy.is_none() { fresh.get(hash) } else { None };
            if let Some(blob) = brought {
                changes.push(Change::Inline { hash: *hash, bytes: blob.bytes().clone() });
            }
            let refs = known.map_or(0, |meta| meta.refs).saturating_add_signed(*more);
            let unnamed_since_ms = (refs == 0).then_some(self.at_ms);
            let meta = match (brought, known) {
                // Its own size, whatever a step said.
                (Some(blob), _) => {
                    let (size, place) = (blob.size(), Place::Inline);
                    BlobMeta { size, refs, place, unnamed_since_ms, corrupt: false }
                }
                (None, Some(meta)) if *more != 0 => BlobMeta { refs, unnamed_since_ms, ..meta },
                // As many names as before; or, of a store that was salvaged, a blob that is not known.
                (None, _) => continue,
            };
            changes.push(Change::Blob { hash: *hash, meta });
        }
        Ok(changes)
    }

    /// The bytes of a value that the draft names.
    pub(super) fn value(&self, draft: &Draft, entry: &Entry) -> Result<Bytes> {
        if let Some(blob) = draft.fresh(&entry.hash) {
            return Ok(Bytes::Whole(blob.clone()));
        }
        let bytes = match self.fresh.get(&entry.hash) {
            Some((_, bytes)) => Some(bytes.clone()),
            None => self.catalog.inline(&entry.hash)?,
        };
        let Some(bytes) = bytes else { return Ok(Bytes::InFile) };
        if let Ok(blob) = Blob::verify(bytes, entry.hash) {
            return Ok(Bytes::Whole(blob));
        }
        if let Some(authority) = self.authority.upgrade() {
            authority.mark_soon(entry.hash);
        }
        Ok(Bytes::Damaged)
    }

    /// Whether a blob is at hand and whole, of this size.
    ///
    /// # Errors
    /// `Invalid` if it has another size.
    pub(super) fn has_blob(&mut self, draft: &Draft, hash: &BlobHash, size: u64) -> Result<bool> {
        let wrong = |known: u64| Error::invalid(format!("blake3:{hash} has `{known}` bytes, not `{size}`"));
        if let Some(blob) = draft.fresh(hash) {
            return if blob.size() == size { Ok(true) } else { Err(wrong(blob.size())) };
        }
        let known = self.meta(hash)?;
        let Some(meta) = known.filter(|meta| !meta.corrupt) else {
            if known.is_some()
                && let Some(authority) = self.authority.upgrade()
            {
                // So that the upload that follows replaces the file instead of finding it there.
                authority.blobs.restore_marks([*hash]);
            }
            return Ok(false);
        };
        if meta.size != size {
            return Err(wrong(meta.size));
        }
        Ok(true)
    }
}

/// What the changes take in the journal, and whether they make room in the store.
fn weight(rows: &[Row], fresh: &HashMap<BlobHash, Blob>) -> (Class, usize) {
    let row = |row: &Row| row.name.as_bytes().len() + row.now.as_ref().map_or(0, Entry::type_len) + 256;
    let names: usize = rows.iter().map(row).sum();
    if rows.iter().all(|row| row.now.is_none()) {
        return (Class::Essential, names);
    }
    (Class::Ordinary, names + fresh.values().map(|blob| blob.bytes().len()).sum::<usize>())
}

impl Verdict {
    /// Of a change that made the draft true, or had nothing to write.
    pub(super) fn of_draft(done: super::Done, (changes, unbound): (Vec<Change>, Vec<Unbound>)) -> Self {
        Self { unbound, ..Self::of(done, changes) }
    }
}
