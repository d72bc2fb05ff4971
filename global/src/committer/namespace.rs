//! Namespaces as the committer decides them.
//!
//! Nobody changes a name of the namespace meanwhile, and what was changed before is visible.

use super::{Committer, Done, NamespaceChange, Verdict};
use crate::change::Change;
use crate::journal::Class;
use dstore_shared::limits::NAMESPACES_MAX;
use dstore_shared::{
    Error, Namespace, NamespaceInfo, NamespaceOutcome, NamespaceResult, NamespaceSpec, Outcome, Prefix,
    Result, Revision,
};

/// Names that are asked for at once: a page of names that were just deleted is empty and not the last.
const PAGE: usize = 1000;
/// What a namespace takes in the journal, with room to spare.
const NAMESPACE_BYTES: usize = 256;

impl Committer {
    pub(super) fn judge_namespace(&mut self, change: NamespaceChange, revision: Revision) -> Result<Verdict> {
        match change {
            NamespaceChange::Create(namespace, spec) => self.judge_create(namespace, spec, revision),
            NamespaceChange::Drop(namespace) => self.judge_drop(namespace, revision),
        }
    }

    fn judge_create(
        &mut self,
        namespace: Namespace,
        spec: NamespaceSpec,
        revision: Revision,
    ) -> Result<Verdict> {
        let known = self.catalog.namespaces();
        if let Some(info) = known.iter().find(|info| info.namespace == namespace) {
            let same = info.spec == spec;
            let result = if same { NamespaceResult::Unchanged } else { NamespaceResult::Differs };
            return Ok(self.told(result));
        }
        // What was bound write-once stays so.
        if spec != NamespaceSpec::default() && !self.is_empty(&namespace)? {
            return Ok(self.told(NamespaceResult::NotEmpty));
        }
        if known.len() >= NAMESPACES_MAX {
            return Err(Error::exhausted(format!(
                "there are `{NAMESPACES_MAX}` namespaces already: drop one, or use one that is there"
            )));
        }
        self.room(Class::Ordinary, NAMESPACE_BYTES)?;
        let info = NamespaceInfo { namespace, spec, created: revision };
        Ok(done(revision, Change::Namespace(info)))
    }

    fn judge_drop(&mut self, namespace: Namespace, revision: Revision) -> Result<Verdict> {
        if !self.catalog.namespaces().iter().any(|info| info.namespace == namespace) {
            return Ok(self.told(NamespaceResult::NotFound));
        }
        if !self.is_empty(&namespace)? {
            return Ok(self.told(NamespaceResult::NotEmpty));
        }
        self.room(Class::Essential, NAMESPACE_BYTES)?;
        Ok(done(revision, Change::NamespaceGone { namespace }))
    }

    fn is_empty(&self, namespace: &Namespace) -> Result<bool> {
        let all = Prefix::new(namespace, b"")?;
        let mut after = None;
        loop {
            let page = self.catalog.list(all.as_bytes(), after.as_ref(), PAGE)?;
            after = page.next;
            if !page.names.is_empty() || after.is_none() {
                return Ok(page.names.is_empty());
            }
        }
    }

    fn told(&self, result: NamespaceResult) -> Verdict {
        let outcome = NamespaceOutcome { result, revision: self.head };
        Verdict::of(Done::Change(Outcome::Namespace(outcome)), Vec::new())
    }
}

fn done(revision: Revision, change: Change) -> Verdict {
    let outcome = NamespaceOutcome { result: NamespaceResult::Done, revision };
    Verdict::of(Done::Change(Outcome::Namespace(outcome)), vec![change])
}
