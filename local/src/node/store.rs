//! What a node offers: each call handed to its way through the node.

use super::{Bound, Node, WATCHES_MAX, away_for, unknown};
use crate::core::{Core, stopped};
use dstore_proto::store::{
    Body, DeleteReply, Found, FoundMany, ListQuery, Listing, Locals, Peek, Provenance, SetOne, SetReply,
    Slice, Stat, StatMany, Status, Store, Target, Tier, Why, check_exists, fitting,
};
use dstore_proto::watch::{WatchQuery, Watching};
use dstore_shared::limits::{DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX};
use dstore_shared::{
    Attributes, BlobHash, Command, CopyOutcome, DeleteMode, Entry, Error, Name, Namespace, NamespaceInfo,
    NamespaceOutcome, NamespaceSpec, Outcome, Prefix, PrefixOutcome, RequestId, Result, Revision, SetOutcome,
    Transaction, TransactionOutcome,
};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Store for Node {
    fn loss(&self) -> Option<Duration> {
        self.core.loss()
    }

    async fn get(&self, target: Target, slice: Slice) -> Result<Option<Found>> {
        match target {
            Target::Name(name) => self.get_name(name, slice, None).await,
            Target::Hash(hash) => self.get_hash(hash, slice).await,
        }
    }

    async fn get_stale(&self, target: Target, slice: Slice, wait: Duration) -> Result<Option<Found>> {
        match target {
            Target::Name(name) => self.get_name(name, slice, Some(wait)).await,
            // A blob cannot be stale.
            Target::Hash(hash) => self.get_hash(hash, slice).await,
        }
    }

    async fn stat_stale(&self, target: Target, wait: Duration) -> Result<Option<Stat>> {
        match target {
            Target::Name(name) => self.stat_name(name, Some(wait)).await,
            Target::Hash(hash) => self.stat_hash(hash).await,
        }
    }

    async fn set(&self, id: RequestId, name: Option<Name>, body: Body) -> Result<SetReply> {
        self.set_as(id, name, body, Attributes::default()).await
    }

    async fn set_as(
        &self,
        id: RequestId,
        name: Option<Name>,
        body: Body,
        attributes: Attributes,
    ) -> Result<SetReply> {
        let blob = self.take_in(body).await?;
        if let Some(name) = name {
            return self.decide(id, name, Bound { attributes, ..blob }).await.and_then(needs_none);
        }
        if let Some(bytes) = &blob.bytes {
            if !blob.staged {
                self.core.link.stage(Body::Blob(bytes.clone())).await?;
            }
            // Most likely a name is bound to it next, which is then held here.
            self.core.admit(bytes);
        }
        let entry = Entry {
            hash: blob.hash,
            size: blob.size,
            bind_rev: Revision(0),
            expires_at: None,
            content_type: None,
        };
        let from = Provenance::new(Tier::Global, false, Revision(0));
        Ok(SetReply { outcome: SetOutcome::Stored(entry), from })
    }

    async fn bind(&self, id: RequestId, name: Name, hash: BlobHash, size: u64) -> Result<SetReply> {
        self.bind_as(id, name, (hash, size), Attributes::default()).await
    }

    async fn bind_as(
        &self,
        id: RequestId,
        name: Name,
        (hash, size): (BlobHash, u64),
        attributes: Attributes,
    ) -> Result<SetReply> {
        let bytes = self.core.cache.have(&hash).filter(|blob| blob.size() == size);
        self.decide(id, name, Bound { hash, size, staged: true, bytes, attributes }).await
    }

    async fn delete(&self, id: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
        self.delete_in(id, names, DeleteMode::Strict).await
    }

    async fn delete_in(&self, id: RequestId, names: Vec<Name>, mode: DeleteMode) -> Result<DeleteReply> {
        check_delete(&names)?;
        // Global counts the mode's deadline from when it knows of the change.
        let limit = self.deadline.saturating_add(mode.deadline().unwrap_or_default());
        let answer = self.core.change(id, Command::Delete { names, mode }, None)?;
        let changed = match self.within(limit, answer).await? {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => Err(away_for(limit)),
        };
        let changed = changed.map_err(unknown)?;
        match changed.outcome {
            Outcome::Delete(done) => {
                let stale = changed.stale;
                Ok(DeleteReply { removed: done.removed, revision: done.revision, stale })
            }
            _ => Err(Error::internal("global answered a DEL with another outcome: report this")),
        }
    }

    async fn delete_prefix(&self, id: RequestId, prefix: Prefix) -> Result<PrefixOutcome> {
        let command = Command::DeletePrefix { prefix };
        match self.answer(self.core.change(id, command, None)).await.map_err(unknown)?.outcome {
            Outcome::DeletePrefix(done) => Ok(done),
            _ => Err(Error::internal("global answered a DEL by prefix with another outcome: report this")),
        }
    }

    async fn get_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        self.found_many(names).await
    }

    async fn set_many(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        self.sets(sets).await
    }

    async fn copy(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, Command::Copy { from, to }).await
    }

    async fn rename(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, Command::Rename { from, to }).await
    }

    async fn apply(&self, id: RequestId, transaction: Transaction) -> Result<TransactionOutcome> {
        let transaction = fitting(self, transaction).await?;
        let command = Command::Apply(transaction);
        match self.answer(self.core.change(id, command, None)).await.map_err(unknown)?.outcome {
            Outcome::Transaction(done) => Ok(Arc::unwrap_or_clone(done)),
            _ => Err(Error::internal("global answered a transaction with another outcome: report this")),
        }
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.in_time(self.core.link.namespaces()).await?.map_err(|_| self.away())?
    }

    async fn create_namespace(
        &self,
        id: RequestId,
        namespace: Namespace,
        spec: NamespaceSpec,
    ) -> Result<NamespaceOutcome> {
        let created = self.in_time(self.core.link.create_namespace(id, &namespace, spec)).await?;
        created.map_err(|_| self.away()).and_then(|done| done).map_err(unknown)
    }

    async fn drop_namespace(&self, id: RequestId, namespace: Namespace) -> Result<NamespaceOutcome> {
        let dropped = self.in_time(self.core.link.drop_namespace(id, &namespace)).await?;
        dropped.map_err(|_| self.away()).and_then(|done| done).map_err(unknown)
    }

    async fn stat_many(&self, names: Vec<Name>) -> Result<StatMany> {
        self.stats(names).await
    }

    async fn exists(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        check_exists(&names)?;
        let (entries, _) = self.entries(&names, |_| true).await?;
        Ok(entries.iter().map(Option::is_some).collect())
    }

    async fn stat(&self, target: Target) -> Result<Option<Stat>> {
        match target {
            Target::Name(name) => self.stat_name(name, None).await,
            Target::Hash(hash) => self.stat_hash(hash).await,
        }
    }

    /// A node knows a few names only, so Global is asked.
    async fn list(&self, query: ListQuery) -> Result<Listing> {
        self.core.link.list(&query).await
    }

    /// Changes are known to Global alone, so it is watched; a node passes on what it tells.
    async fn watch(&self, query: WatchQuery) -> Result<Watching> {
        let place = self.watches.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!(
                "a node has at most {WATCHES_MAX} watches: end one, or ask another node"
            ))
        })?;
        let begun = self.in_time(self.core.link.watch(&query)).await?.map_err(|_| self.away())?;
        let Watching { history, after, batches } = begun?;
        let batches = Box::pin(batches.inspect(move |_| _ = &place));
        Ok(Watching { history, after, batches })
    }

    async fn locals(&self, name: Option<Name>) -> Result<Locals> {
        self.in_time(self.core.link.locals(name.as_ref())).await?.map_err(|_| self.away())?
    }

    async fn why(&self, name: Name) -> Result<Why> {
        self.explain(&name).await
    }

    async fn evict(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        Ok(self.let_go(&names))
    }

    async fn pin(&self, names: Vec<Name>, keep: bool) -> Result<Vec<bool>> {
        Ok(self.hold(&names, keep))
    }

    fn peek(&self, name: &Name) -> Peek {
        self.core.peek(name)
    }

    async fn status(&self) -> Result<Status> {
        Ok(status_of(&self.core))
    }
}

/// What `status` tells.
pub(crate) fn status_of(core: &Core) -> Status {
    let (born, revision, lease, epoch) = core.standing();
    let [corrupt, arrivals] = [0, 1].map(|i| core.damage[i].load(Ordering::Relaxed));
    let (stats, (held, held_max)) = (core.cache.stats(), core.rooms.taken());
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        fact("session", epoch.map_or_else(|| "none".to_owned(), |e| format!("{e:?}"))),
        fact("names", stats.names.to_string()),
        fact("blobs", stats.blobs.to_string()),
        fact("cache_bytes", stats.bytes().to_string()),
        fact("cache_bytes_max", stats.bytes_max.to_string()),
        fact("names_evicted", stats.names_evicted.to_string()),
        fact("pinned", core.cache.pinned().to_string()),
        fact("absent", core.absences.as_ref().map_or(0, |a| a.len()).to_string()),
        fact("absent_hits", core.absent_hits().to_string()),
        fact("held_bytes", held.to_string()),
        fact("held_bytes_max", held_max.to_string()),
        fact("corrupt", corrupt.to_string()),
        fact("corrupt_arrivals", arrivals.to_string()),
    ];
    if let Some((at, workers)) = core.workers() {
        facts.push(fact("shm", at.to_owned()));
        facts.push(fact("shm_workers", workers.to_string()));
        facts.push(fact("shm_bytes", stats.shared_bytes.to_string()));
    }
    if let Some(loss) = core.loss() {
        let ms = loss.as_millis();
        facts.push(fact(
            "sync",
            format!("relaxed: up to {ms} ms of changes may be lost by a crash of global"),
        ));
    }
    Status {
        tier: Tier::Local,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        serving: core.is_serving(),
        born,
        revision,
        lease,
        facts,
    }
}

/// A SET whose bytes were just given: they were there, and are gone again.
pub(super) fn needs_none(reply: SetReply) -> Result<SetReply> {
    match reply.outcome {
        SetOutcome::NeedBlob => Err(Error::unavailable("the blob was swept meanwhile: set it again")),
        _ => Ok(reply),
    }
}

/// A DEL must fit a frame.
fn check_delete(names: &[Name]) -> Result<()> {
    let bytes: usize = names.iter().map(|name| name.as_bytes().len()).sum();
    if names.is_empty() {
        return Err(Error::invalid("a DEL names no key: name at least one"));
    }
    if names.len() > DELETE_NAMES_MAX || bytes > DELETE_NAME_BYTES_MAX {
        return Err(Error::too_large(format!(
            "a DEL of `{}` keys, `{bytes}` bytes: at most {DELETE_NAMES_MAX} keys of {DELETE_NAME_BYTES_MAX} bytes together; delete in several steps",
            names.len()
        )));
    }
    Ok(())
}
