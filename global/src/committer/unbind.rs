//! DEL, DEL by prefix and the end of a time to live as the committer decides them: names go, and blobs lose them.
//!
//! The names are the op's own until it is visible, so what the catalog says of them is what they are bound to.

use super::{Committer, Done, Verdict};
use crate::change::{BlobMeta, Change};
use crate::feed::Unbound;
use crate::journal::Class;
use dstore_shared::limits::{PREFIX_KEY_BYTES_MAX, PREFIX_NAMES_MAX};
use dstore_shared::{
    BlobHash, DeleteOutcome, Entry, Error, Name, Outcome, Prefix, PrefixOutcome, Result, Revision,
};
use std::collections::HashMap;

/// Names that are asked for at once when those under a prefix are looked for.
const PREFIX_PAGE: usize = 10_000;

impl Committer {
    pub(super) fn judge_delete(&mut self, names: &[Name], revision: Revision) -> Result<Verdict> {
        let mut bound: HashMap<&Name, Option<Entry>> = HashMap::with_capacity(names.len());
        for name in names {
            if !bound.contains_key(name) {
                bound.insert(name, self.catalog.entry_once(name)?);
            }
        }
        // One whose time is over goes too, but it was not there any more.
        let there = |entry: &Entry| !entry.is_over(self.at_ms);
        let removed: Vec<bool> = names.iter().map(|name| bound[name].as_ref().is_some_and(there)).collect();
        let mut gone = Vec::new();
        for name in names {
            if let Some(entry) = bound.get_mut(name).and_then(Option::take) {
                gone.push((name.clone(), entry));
            }
        }
        self.unbind_told(gone, removed, revision)
    }

    /// Unbinds names; what is told of it may leave out those whose time was over.
    fn unbind_told(
        &mut self,
        gone: Vec<(Name, Entry)>,
        removed: Vec<bool>,
        revision: Revision,
    ) -> Result<Verdict> {
        let at = if gone.is_empty() { self.head } else { revision };
        let outcome = Outcome::Delete(DeleteOutcome { removed, revision: at });
        let names = gone.iter().map(|(name, _)| name.clone()).collect();
        self.unbind(gone, revision, Done::Changed(outcome, names))
    }

    /// Those of the names whose time is over, by journal time: a clock that was set back revives nothing.
    pub(super) fn judge_expire(&mut self, names: &[Name], revision: Revision) -> Result<Verdict> {
        let mut gone = Vec::new();
        for name in names {
            if let Some(entry) = self.catalog.entry_once(name)?.filter(|entry| entry.is_over(self.at_ms)) {
                gone.push((name.clone(), entry));
            }
        }
        self.unbind_told(gone, vec![false; names.len()], revision)
    }

    /// What is under the prefix is visible: every op that changed any of it has finished, and none has begun since.
    pub(super) fn judge_delete_prefix(&mut self, prefix: &Prefix, revision: Revision) -> Result<Verdict> {
        let (mut gone, mut bytes, mut after) = (Vec::new(), 0, None);
        loop {
            let page = self.catalog.list(prefix.as_bytes(), after.as_ref(), PREFIX_PAGE)?;
            bytes += page.names.iter().map(|(name, _)| name.as_bytes().len()).sum::<usize>();
            gone.extend(page.names);
            if gone.len() > PREFIX_NAMES_MAX || bytes > PREFIX_KEY_BYTES_MAX {
                return Err(Error::too_large(format!(
                    "there are more than {PREFIX_NAMES_MAX} names, or {PREFIX_KEY_BYTES_MAX} bytes of them, under \
                     the prefix: list and delete them in several steps"
                )));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let at = if gone.is_empty() { self.head } else { revision };
        let names = gone.iter().map(|(name, _)| name.clone()).collect();
        let removed = gone.iter().filter(|(_, entry)| !entry.is_over(self.at_ms)).count() as u64;
        let done = Done::Prefix(PrefixOutcome { removed, revision: at }, names);
        self.unbind(gone, revision, done)
    }

    /// The changes that unbind names, and of their blobs.
    fn unbind(&mut self, gone: Vec<(Name, Entry)>, revision: Revision, done: Done) -> Result<Verdict> {
        if gone.is_empty() {
            return Ok(Verdict::of(done, Vec::new()));
        }
        self.room(Class::Essential, gone.iter().map(|(name, _)| name.as_bytes().len() + 128).sum())?;
        let mut metas: HashMap<BlobHash, BlobMeta> = HashMap::new();
        let (mut changes, mut unbound) = (Vec::with_capacity(2 * gone.len()), Vec::with_capacity(gone.len()));
        for (name, entry) in gone {
            let meta = match metas.get(&entry.hash) {
                Some(meta) => Some(*meta),
                None => self.meta(&entry.hash)?,
            };
            if let Some(mut meta) = meta {
                meta.refs = meta.refs.saturating_sub(1);
                meta.unnamed_since_ms = (meta.refs == 0).then_some(self.at_ms);
                metas.insert(entry.hash, meta);
            }
            changes.push(Change::Unbind { name: name.clone() });
            unbound.push(Unbound { revision, name, was: entry });
        }
        let mut metas: Vec<_> = metas.into_iter().collect();
        metas.sort_by_key(|(hash, _)| *hash);
        changes.extend(metas.into_iter().map(|(hash, meta)| Change::Blob { hash, meta }));
        Ok(Verdict { unbound, ..Verdict::of(done, changes) })
    }

    /// Once in a life; a start after a crash then lets every change wait for the grace.
    pub(super) fn expect_async_dels(&mut self) -> Result<()> {
        if !self.async_dels {
            let gone = || Error::unavailable("global is stopping: try again");
            let authority = self.authority.upgrade().ok_or_else(gone)?;
            authority.dir.upgrade().ok_or_else(gone)?.persist_async_dels()?;
            dstore_sys::failpoint!("global::delete::async_noted");
            self.async_dels = true;
        }
        Ok(())
    }
}
