//! COPY and RENAME as the committer decides them: names move, bytes do not.
//!
//! Both names are the op's own until it is visible, so what the catalog says of them is what they are bound to.

use super::{Committer, Done, Verdict};
use crate::change::{BlobMeta, Change};
use crate::feed::Unbound;
use crate::journal::Class;
use dstore_shared::{CopyOutcome, CopyResult, Entry, Name, Outcome, Result, Revision};

impl Committer {
    /// Binds `to` to the blob of `from`, and if `unbinds` takes it from `from`, unless `to` is bound to another.
    pub(super) fn judge_copy(
        &mut self,
        (from, to): (&Name, &Name),
        unbinds: bool,
        revision: Revision,
    ) -> Result<Verdict> {
        let told = |result, revision, changes| {
            let outcome = CopyOutcome { result, revision };
            let outcome = if unbinds { Outcome::Rename(outcome) } else { Outcome::Copy(outcome) };
            Ok(Verdict::of(Done::Change(outcome), changes))
        };
        let head = self.head;
        let Some(source) = self.catalog.entry_once(from)? else {
            return told(CopyResult::NotFound, head, Vec::new());
        };
        if from == to {
            return told(CopyResult::Unchanged(source), head, Vec::new());
        }
        let bound = self.catalog.entry_once(to)?;
        match bound {
            Some(other) if other.hash != source.hash => {
                return told(CopyResult::Occupied(other), head, Vec::new());
            }
            Some(same) if !unbinds => return told(CopyResult::Unchanged(same), head, Vec::new()),
            _ => {}
        }
        // A RENAME takes no more room than a DEL, but binds: it is not what makes room on a full disk.
        self.room(Class::Ordinary, from.as_bytes().len() + to.as_bytes().len() + 256)?;
        let (mut changes, mut unbound) = (Vec::with_capacity(3), Vec::new());
        if unbinds {
            changes.push(Change::Unbind { name: from.clone() });
            unbound.push(Unbound { revision, name: from.clone(), was: source });
        }
        let entry = bound.unwrap_or(Entry { bind_rev: revision, ..source });
        if bound.is_none() {
            changes.push(Change::Bind { name: to.clone(), entry });
        }
        // Names of the blob: one more by a COPY, one less by a RENAME to one that it had already, else as many.
        let refs =
            |meta: &BlobMeta| meta.refs + u64::from(bound.is_none()) - u64::from(unbinds).min(meta.refs);
        if let Some(meta) = self.meta(&source.hash)?
            && refs(&meta) != meta.refs
        {
            changes.push(Change::Blob { hash: source.hash, meta: BlobMeta { refs: refs(&meta), ..meta } });
        }
        Ok(Verdict { unbound, ..told(CopyResult::Done(entry), revision, changes)? })
    }
}
