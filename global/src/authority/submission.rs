//! What the sessions machine is told of a change: which names it wants, whom it waits for, when it is answered.
//!
//! Whom it waits for is what is likely: the committer sends back what must wait for more
//! ([`drain_first`](crate::sessions::Sessions::drain_first)). So nothing here is needed for it to be right.

use super::{Authority, Responder};
use crate::committer::{Drained, NamespaceChange, Work};
use crate::sessions::{Caller, Submission};
use dstore_shared::limits::{DELETE_DEADLINE_MAX, DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX};
use dstore_shared::{
    Attributes, BlobHash, Command, DeleteMode, Error, ExpireWhen, Expiry, Name, Namespace, Payload, Prefix,
    RequestId, Result, Step, Transaction, When, check_ttl,
};
use std::collections::HashSet;
use std::time::Duration;

/// Whether a change may be taken.
///
/// # Errors
/// `Invalid` or `TooLarge`.
pub(super) fn check(command: &Command) -> Result<()> {
    match command {
        Command::Delete { names, mode } => {
            check_mode(*mode)?;
            let bytes: usize = names.iter().map(|name| name.as_bytes().len()).sum();
            if names.is_empty() {
                return Err(Error::invalid("a DEL names no key: name at least one"));
            }
            if names.len() > DELETE_NAMES_MAX || bytes > DELETE_NAME_BYTES_MAX {
                return Err(Error::too_large("too many keys for one DEL: delete in several steps"));
            }
        }
        Command::Set { hash, size, carried, attributes, .. } => {
            if carried.as_ref().is_some_and(|blob| (blob.id(), blob.size()) != (*hash, *size)) {
                return Err(Error::invalid("a SET carries another blob than it names: report this"));
            }
            attributes.check()?;
        }
        Command::Apply(transaction) => transaction.check()?,
        Command::DeletePrefix { .. } | Command::Copy { .. } | Command::Rename { .. } => {}
    }
    Ok(())
}

/// Whether a namespace may be created or dropped so.
///
/// # Errors
/// `Invalid`.
pub(super) fn check_namespace(change: &NamespaceChange) -> Result<()> {
    let (NamespaceChange::Create(namespace, _) | NamespaceChange::Drop(namespace)) = change;
    if *namespace == Namespace::default() {
        return Err(Error::invalid("`default` is write-once and always there: use another namespace"));
    }
    match change {
        NamespaceChange::Create(_, spec) => spec.ttl.map_or(Ok(()), check_ttl),
        NamespaceChange::Drop(_) => Ok(()),
    }
}

/// Names that a change wants, and those of them whose holders need not be waited for.
#[derive(Default)]
struct Wanted {
    drained: Vec<Name>,
    spared: Vec<Name>,
}

impl Wanted {
    fn add(&mut self, name: &Name, drains: bool) {
        if drains { &mut self.drained } else { &mut self.spared }.push(name.clone());
    }

    /// All names, whether any is drained, and those that are not.
    fn sorted(self) -> (Vec<Name>, bool, Vec<Name>) {
        let drained: HashSet<&Name> = self.drained.iter().collect();
        let spared: Vec<Name> = self.spared.iter().filter(|name| !drained.contains(name)).cloned().collect();
        let drains = !self.drained.is_empty();
        (self.drained.into_iter().chain(spared.iter().cloned()).collect(), drains, spared)
    }
}

impl Authority {
    /// What the machine is told of a change: the prefix or the names that it wants, and whom it waits for.
    pub(super) fn submission(
        &self,
        id: RequestId,
        command: Command,
        caller: Option<Caller>,
        responder: Responder,
    ) -> (Option<Prefix>, Submission<Work, Responder>) {
        let (mut spared, mut wanted, mut mode) = (Vec::new(), None, DeleteMode::Strict);
        // What stays in memory must not keep the frame that it came in.
        let (names, drains, job) = match command {
            Command::Set { name, hash, size, carried, attributes } => {
                let Attributes { content_type, ttl } = attributes;
                let (name, carried) = (name.compact(), carried.map(|blob| blob.compact()));
                let expiry = ttl.map_or(Expiry::Keep, Expiry::In);
                let drains = self.rebinds(&name) || self.set_shortens(&name, &hash, expiry);
                let drained = Drained::of(drains, &[]);
                let value = Payload { hash, size, carried, content_type };
                (vec![name.clone()], drains, Work::Set { id, name, value, ttl, drained })
            }
            Command::Delete { names, mode: asked } => {
                mode = asked;
                let names: Vec<Name> = names.iter().map(Name::compact).collect();
                (names.clone(), true, Work::Delete { id, names, asynchronous: asked == DeleteMode::Async })
            }
            Command::DeletePrefix { prefix } => {
                wanted = Some(prefix.clone());
                (Vec::new(), true, Work::DeletePrefix { id, prefix })
            }
            Command::Copy { from, to } => {
                let (from, to) = (from.compact(), to.compact());
                spared.push(to.clone());
                let drained = Drained::None;
                let names = vec![from.clone(), to.clone()];
                (names, false, Work::Copy { id, from, to, unbinds: false, drained })
            }
            Command::Rename { from, to } => {
                let (from, to) = (from.compact(), to.compact());
                spared.push(to.clone());
                let drained = Drained::of(from != to, &spared);
                let names = vec![from.clone(), to.clone()];
                (names, from != to, Work::Copy { id, from, to, unbinds: true, drained })
            }
            Command::Apply(transaction) => {
                let transaction = transaction.compact();
                let (names, drains, rest) = self.wanted(&transaction).sorted();
                spared = rest;
                let drained = Drained::of(drains, &spared);
                (names, drains, Work::Apply { id, transaction, drained })
            }
        };
        let caller = caller.filter(|_| wanted.is_none());
        (wanted, Submission { id, names, drains, spared, mode, job, caller, responder })
    }

    /// Whether a SET of the name is likely to bind it to something else.
    fn rebinds(&self, name: &Name) -> bool {
        self.catalog.namespace(&name.namespace()).replaces() && self.may_be_bound(name)
    }

    /// Whether memory does not know that a name is not bound.
    fn may_be_bound(&self, name: &Name) -> bool {
        !matches!(self.catalog.entry_hot(name), Some(None))
    }

    fn wanted(&self, transaction: &Transaction) -> Wanted {
        let mut wanted = Wanted::default();
        transaction.guards.iter().for_each(|guard| wanted.add(&guard.name, false));
        for step in &transaction.steps {
            match step {
                Step::Get { name } => wanted.add(name, false),
                Step::Set { name, value, when, expiry } => {
                    let sooner = || self.rebinds(name) || self.set_shortens(name, &value.hash, *expiry);
                    wanted.add(name, *when != When::Absent && sooner());
                }
                Step::Delete { name } => wanted.add(name, true),
                Step::Expire { name, expiry, when } => wanted.add(name, self.shortens(name, *expiry, *when)),
                Step::Add { name, .. } | Step::Append { name, .. } => wanted.add(name, self.rebinds(name)),
                Step::Copy { from, to, replace } => {
                    wanted.add(from, false);
                    wanted.add(to, *replace && self.rebinds(to));
                }
                Step::Rename { from, to, only_absent } => {
                    wanted.add(from, from != to);
                    wanted.add(to, !only_absent && self.rebinds(to));
                }
            }
        }
        wanted
    }

    /// Whether a SET of the bytes of `hash` is likely to have a name that is bound to them live less long. What memory
    /// does not know is not waited for: the committer sends back what it finds must be.
    fn set_shortens(&self, name: &Name, hash: &BlobHash, expiry: Expiry) -> bool {
        matches!(self.catalog.entry_hot(name), Some(Some(entry)) if entry.hash == *hash)
            && self.shortens(name, expiry, ExpireWhen::Always)
    }

    /// Whether a name is likely to live less long.
    fn shortens(&self, name: &Name, expiry: Expiry, when: ExpireWhen) -> bool {
        #[cfg(feature = "faults")]
        if dstore_shared::planted::is_made(dstore_shared::planted::Mistake::UndrainedExpiry) {
            return false;
        }
        let end = match (expiry, when) {
            (Expiry::Clear | Expiry::Keep, _) | (_, ExpireWhen::Greater) => return false,
            (Expiry::At(end), _) => end,
            (Expiry::In(ttl), _) => self.journal_now().saturating_add(millis(ttl)),
        };
        match self.catalog.entry_hot(name) {
            Some(Some(entry)) => entry.expires_at.is_none_or(|had| end < had.get()),
            Some(None) => false,
            None => true,
        }
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

fn check_mode(mode: DeleteMode) -> Result<()> {
    if mode.deadline().is_some_and(|limit| limit > DELETE_DEADLINE_MAX) {
        return Err(Error::invalid(format!(
            "a deadline of a DEL is at most {DELETE_DEADLINE_MAX:?}: ask again with the same id instead"
        )));
    }
    Ok(())
}
