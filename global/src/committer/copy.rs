//! COPY and RENAME as the committer decides them: names move, bytes do not.
//!
//! Both names are the op's own until it is visible, so what the catalog says of them is what they are bound to.

use super::draft::Draft;
use super::{Committer, Done, Drained, Verdict, Work};
use crate::change::outcome_len;
use dstore_shared::{CopyOutcome, CopyResult, Entry, Name, Outcome, RequestId, Result, Revision};

impl Committer {
    /// Binds `to` to the blob of `from`, and if `unbinds` takes it from `from`, unless `to` is bound to another.
    pub(super) fn judge_copy(
        &mut self,
        id: RequestId,
        (from, to): (Name, Name),
        unbinds: bool,
        (drained, revision): (&Drained, Revision),
    ) -> Result<Verdict> {
        let mut draft = Draft::default();
        let source = self.row(&mut draft, &from)?.now.clone();
        let bound = self.row(&mut draft, &to)?.now.clone();
        let replaces = self.spec(&to).replaces();
        let result = match (source, bound) {
            (None, _) => CopyResult::NotFound,
            (Some(source), _) if from == to => CopyResult::Unchanged(source),
            // Where names are bound anew the same bytes of another type are another value, as for a SET.
            (Some(source), Some(other))
                if other.hash != source.hash || replaces && other.content_type != source.content_type =>
            {
                CopyResult::Occupied(other)
            }
            (Some(_), Some(same)) if !unbinds => CopyResult::Unchanged(same),
            (Some(source), bound) => {
                if unbinds {
                    self.row(&mut draft, &from)?.now = None;
                }
                let entry = bound.unwrap_or(Entry { bind_rev: revision, ..source });
                self.row(&mut draft, &to)?.now = Some(entry.clone());
                CopyResult::Done(entry)
            }
        };
        if draft.overtakes(drained) {
            let work = Work::Copy { id, from, to, unbinds, drained: Drained::All };
            return Ok(Verdict::of(Done::Undrained(Box::new(work)), Vec::new()));
        }
        let void = draft.void();
        let outcome = CopyOutcome { result, revision: if draft.changes() { revision } else { self.head } };
        let outcome = if unbinds { Outcome::Rename(outcome) } else { Outcome::Copy(outcome) };
        let taken = self.taken(draft, revision, outcome_len(&outcome))?;
        Ok(Verdict::of_draft(Done::Changed(outcome, void), taken))
    }
}
