//! Global's own `Store`: for clients that ask it without a Local.

mod many;
mod standing;
#[cfg(test)]
mod tests;

use crate::authority::Responder;
use crate::catalog::Page;
use crate::committer::NamespaceChange;
use crate::host::Host;
use crate::sessions::Answered;
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::link::Fetch;
use dstore_proto::store::{
    Body, DeleteReply, Found, FoundMany, ListQuery, Listing, Locals, Provenance, SetOne, SetReply, Slice,
    Stat, StatMany, Status, Store, Target, Tier, Why, check_exists, fitting,
};
use dstore_proto::watch::{WatchQuery, Watching};
use dstore_shared::limits::{CARRIED_BYTES_MAX, LIST_BYTES_MAX, LIST_NAMES_MAX};
use dstore_shared::{
    Attributes, Blob, BlobHash, Command, CopyOutcome, DeleteMode, Entry, Error, Key, Name, Namespace,
    NamespaceInfo, NamespaceOutcome, NamespaceSpec, Outcome, Prefix, PrefixOutcome, RequestId, Result,
    Revision, SetOutcome, Transaction, TransactionOutcome,
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a listed name takes in a frame besides its key.
const LISTED_BYTES: usize = 80;
/// How often a name is resolved again because its blob was swept in between.
const RESOLVES_MAX: usize = 3;

impl Host {
    async fn look(&self, name: &Name) -> Result<(Option<Entry>, Revision)> {
        let overdue = |found: &(Option<Entry>, Revision)| {
            let over = found.0.as_ref().is_some_and(|entry| self.0.is_overdue(entry));
            if over { vec![name.clone()] } else { Vec::new() }
        };
        self.0.look_live(|| self.look_stored(name), overdue).await
    }

    /// What a name is bound to, its time over or not.
    async fn look_stored(&self, name: &Name) -> Result<(Option<Entry>, Revision)> {
        if let Some(entry) = self.0.catalog.entry_hot(name) {
            return Ok((entry, self.0.catalog.head()));
        }
        let (authority, name) = (self.0.clone(), name.clone());
        self.0.sys.blocking.run(move || authority.look(&name)).await
    }

    async fn change(&self, id: RequestId, command: Command) -> Result<Answered> {
        let room = match &command {
            Command::Set { carried: Some(blob), .. } => self.0.admit(blob.bytes().len()).await,
            Command::Apply(transaction) => self.0.admit(transaction.weight()).await,
            _ => None,
        };
        let (to, answer) = oneshot::channel();
        self.0.submit(id, command, None, Responder::Call(to, room));
        answer.await.map_err(|_| Error::unavailable("outcome unknown: global is stopping; ask again"))?
    }

    async fn change_namespace(&self, id: RequestId, change: NamespaceChange) -> Result<NamespaceOutcome> {
        let (to, answer) = oneshot::channel();
        self.0.submit_namespace(id, change, Responder::Call(to, None));
        let stopping = |_| Error::unavailable("outcome unknown: global is stopping; ask again");
        match answer.await.map_err(stopping)??.outcome {
            Outcome::Namespace(done) => Ok(done),
            _ => Err(Error::internal("a change of a namespace came to another: report this")),
        }
    }

    /// Where an answer about `entry` comes from.
    fn of(&self, entry: &Entry, revision: Revision) -> Provenance {
        match self.0.journal_for(Some(entry)) {
            0 => at(revision),
            journal_ms => at(revision).timed(journal_ms),
        }
    }

    /// SET, once the blob is there or goes with it.
    async fn decide(&self, id: RequestId, set: Command) -> Result<SetReply> {
        let Outcome::Set(outcome) = self.change(id, set).await?.outcome else {
            return Err(Error::internal("a SET came to another change: report this"));
        };
        let revision = match &outcome {
            SetOutcome::Stored(e) | SetOutcome::Unchanged(e) | SetOutcome::Occupied(e) => e.bind_rev,
            SetOutcome::NeedBlob => self.0.catalog.head(),
        };
        Ok(SetReply { outcome, from: at(revision) })
    }

    async fn blob_at(&self, entry: Entry, from: Provenance, slice: Slice) -> Result<Option<Found>> {
        let Some(Fetch { size, body, .. }) = self.0.give_blob(entry.hash, slice).await? else {
            return Ok(None);
        };
        let whole = slice == Slice::ALL && size <= CARRIED_BYTES_MAX as u64;
        let body = if whole {
            Body::Blob(Blob::verify(Body::Stream(body).collect(size).await?, entry.hash)?)
        } else {
            Body::Stream(body)
        };
        Ok(Some(Found { entry: Entry { size, ..entry }, from, body }))
    }
}

/// As many names as fit a frame.
fn fit_frame(page: Page) -> Listing {
    let (mut bytes, mut next) = (0, page.next.map(|name| name.key()));
    let mut names = Vec::with_capacity(page.names.len());
    for (name, entry) in page.names {
        let key = name.key();
        bytes += key.as_bytes().len() + entry.type_len() + LISTED_BYTES;
        if bytes > LIST_BYTES_MAX {
            next = names.last().map(|(key, _): &(Key, Entry)| key.clone());
            break;
        }
        names.push((key, entry));
    }
    Listing { names, next, from: at(page.revision) }
}

const fn at(revision: Revision) -> Provenance {
    Provenance::new(Tier::Global, false, revision)
}

const fn unnamed(hash: BlobHash, size: u64) -> Entry {
    Entry { hash, size, bind_rev: Revision(0), expires_at: None, content_type: None }
}

impl Store for Host {
    async fn get(&self, target: Target, slice: Slice) -> Result<Option<Found>> {
        let name = match target {
            Target::Name(name) => name,
            Target::Hash(hash) => return self.blob_at(unnamed(hash, 0), at(Revision(0)), slice).await,
        };
        let mut before = None;
        for _ in 0..RESOLVES_MAX {
            let (entry, head) = self.look(&name).await?;
            let Some(entry) = entry else { return Ok(None) };
            // No blob: it was deleted and swept since the look, so look again.
            if let Some(found) = self.blob_at(entry.clone(), self.of(&entry, head), slice).await? {
                return Ok(Some(found));
            }
            let hash = entry.hash;
            if before.replace(entry.clone()) == Some(entry) {
                tracing::error!(%hash, "a name is bound to a blob that is not there: delete the name");
                return Err(Error::corrupt(format!(
                    "the name is bound to blake3:{hash}, which is not there: delete the name and set it again"
                )));
            }
        }
        Err(Error::unavailable("the value changes faster than it can be read: try again"))
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
        let (hash, size, carried) = match body {
            Body::Blob(blob) if blob.size() <= CARRIED_BYTES_MAX as u64 => {
                (blob.id(), blob.size(), Some(blob))
            }
            Body::Bytes(bytes) if bytes.len() <= CARRIED_BYTES_MAX => {
                let blob = Blob::hash(bytes);
                (blob.id(), blob.size(), Some(blob))
            }
            body => {
                let (hash, size) = self.0.take_blob(None, body.into_stream()).await?;
                (hash, size, None)
            }
        };
        let Some(name) = name else {
            if let Some(blob) = carried {
                self.0.take_blob(Some(size), Body::Blob(blob).into_stream()).await?;
            }
            return Ok(SetReply { outcome: SetOutcome::Stored(unnamed(hash, size)), from: at(Revision(0)) });
        };
        let reply = self.decide(id, Command::Set { name, hash, size, carried, attributes }).await?;
        match reply.outcome {
            SetOutcome::NeedBlob => Err(Error::unavailable("the blob was swept meanwhile: set it again")),
            _ => Ok(reply),
        }
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
        self.decide(id, Command::Set { name, hash, size, carried: None, attributes }).await
    }

    async fn delete(&self, id: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
        self.delete_in(id, names, DeleteMode::Strict).await
    }

    async fn delete_in(&self, id: RequestId, names: Vec<Name>, mode: DeleteMode) -> Result<DeleteReply> {
        let Answered { outcome, stale, .. } = self.change(id, Command::Delete { names, mode }).await?;
        match outcome {
            Outcome::Delete(done) => {
                Ok(DeleteReply { removed: done.removed, revision: done.revision, stale })
            }
            _ => Err(Error::internal("a DEL came to another change: report this")),
        }
    }

    async fn delete_prefix(&self, id: RequestId, prefix: Prefix) -> Result<PrefixOutcome> {
        match self.change(id, Command::DeletePrefix { prefix }).await?.outcome {
            Outcome::DeletePrefix(done) => Ok(done),
            _ => Err(Error::internal("a DEL by prefix came to something else: report this")),
        }
    }

    async fn get_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        self.found_many(names).await
    }

    async fn set_many(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        self.sets(sets).await
    }

    async fn copy(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        match self.change(id, Command::Copy { from, to }).await?.outcome {
            Outcome::Copy(done) => Ok(done),
            _ => Err(Error::internal("a COPY came to another change: report this")),
        }
    }

    async fn rename(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        match self.change(id, Command::Rename { from, to }).await?.outcome {
            Outcome::Rename(done) => Ok(done),
            _ => Err(Error::internal("a RENAME came to another change: report this")),
        }
    }

    async fn apply(&self, id: RequestId, transaction: Transaction) -> Result<TransactionOutcome> {
        let transaction = fitting(self, transaction).await?;
        match self.change(id, Command::Apply(transaction)).await?.outcome {
            Outcome::Transaction(done) => Ok(Arc::unwrap_or_clone(done)),
            _ => Err(Error::internal("a transaction came to another change: report this")),
        }
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        let spec = NamespaceSpec::default();
        let mut all = self.0.catalog.namespaces();
        all.push(NamespaceInfo { namespace: Namespace::default(), spec, created: Revision(0) });
        all.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        Ok(all)
    }

    async fn create_namespace(
        &self,
        id: RequestId,
        namespace: Namespace,
        spec: NamespaceSpec,
    ) -> Result<NamespaceOutcome> {
        self.change_namespace(id, NamespaceChange::Create(namespace, spec)).await
    }

    async fn drop_namespace(&self, id: RequestId, namespace: Namespace) -> Result<NamespaceOutcome> {
        self.change_namespace(id, NamespaceChange::Drop(namespace)).await
    }

    async fn stat_many(&self, names: Vec<Name>) -> Result<StatMany> {
        self.stats(names).await
    }

    async fn exists(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        check_exists(&names)?;
        let (_, entries) = self.look_many(names).await?;
        Ok(entries.iter().map(Option::is_some).collect())
    }

    async fn stat(&self, target: Target) -> Result<Option<Stat>> {
        match target {
            Target::Name(name) => {
                let (entry, head) = self.look(&name).await?;
                Ok(entry.map(|entry| Stat { from: self.of(&entry, head), entry }))
            }
            Target::Hash(hash) => {
                let catalog = self.0.catalog.clone();
                let meta = self.0.sys.blocking.run(move || catalog.blob(&hash)).await?;
                Ok(meta.map(|meta| Stat { entry: unnamed(hash, meta.size), from: at(Revision(0)) }))
            }
        }
    }

    async fn list(&self, query: ListQuery) -> Result<Listing> {
        let ListQuery { namespace, prefix, after, limit } = query;
        let packed = Bytes::from([namespace.as_bytes(), &[0], &prefix].concat());
        let after = after.map(|key| Name::new(&namespace, &key));
        let look = || {
            let (catalog, packed, after) = (self.0.catalog.clone(), packed.clone(), after.clone());
            let list = move || catalog.list(&packed, after.as_ref(), limit.clamp(1, LIST_NAMES_MAX));
            self.0.sys.blocking.run(list)
        };
        let overdue = |page: &Page| {
            let over = page.names.iter().filter(|(_, entry)| self.0.is_overdue(entry));
            over.map(|(name, _)| name.clone()).collect()
        };
        let page = self.0.look_live(look, overdue).await?;
        let timed = page.names.iter().find(|(_, entry)| entry.expires_at.is_some());
        let from = timed.map_or(at(page.revision), |(_, entry)| self.of(entry, page.revision));
        Ok(Listing { from, ..fit_frame(page) })
    }

    async fn watch(&self, query: WatchQuery) -> Result<Watching> {
        self.0.feed.watch(&query, self.0.catalog.head())
    }

    fn loss(&self) -> Option<std::time::Duration> {
        self.0.sync.loss()
    }

    async fn locals(&self, name: Option<Name>) -> Result<Locals> {
        Ok(self.attached(name.as_ref()))
    }

    async fn why(&self, name: Name) -> Result<Why> {
        self.explained(&name).await
    }

    async fn status(&self) -> Result<Status> {
        let counts = self.0.counts();
        let (stopping, lease, slow) = self.0.event(|m, now| (m.is_retiring(), m.lease(), m.slow(now)));
        let catalog = self.0.catalog.counts();
        let blobs = self.0.blobs.stats();
        let space = self.0.space.clone();
        let (free, shortage) = self.0.sys.blocking.run(move || space.facts()).await;
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let facts = vec![
            fact("sessions", counts.sessions.to_string()),
            fact("wildcards", counts.wildcards.to_string()),
            fact("sessions_resumed", counts.resumed.to_string()),
            fact("resyncs", counts.resyncs.to_string()),
            fact("names_listed", self.0.listed().to_string()),
            fact("slow_locals", slow.to_string()),
            fact("registrations", counts.registrations.to_string()),
            fact("changes_waiting", counts.ops.to_string()),
            fact("outcomes", counts.outcomes.to_string()),
            fact("changes_remembered", counts.log.to_string()),
            fact("names", catalog.names.to_string()),
            fact("blobs_about", catalog.blobs.to_string()),
            fact("blobs_marked_corrupt", blobs.marked.to_string()),
            fact("watches", self.0.feed.watchers().to_string()),
            fact("watch_from", self.0.feed.reach().0.to_string()),
            fact("sync", sync_in_words(self.0.sync)),
            fact("space", shortage),
            fact("free_bytes", free.map_or_else(|| "unknown".to_owned(), |free| free.to_string())),
        ];
        Ok(Status {
            tier: Tier::Global,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serving: self.0.failed().is_none() && !stopping,
            born: Some(self.0.born()),
            revision: self.0.catalog.head(),
            lease,
            facts,
        })
    }
}

/// The level, and what it means if that is less than that everything acknowledged is durable.
fn sync_in_words(sync: crate::SyncLevel) -> String {
    match sync.loss() {
        None => sync.to_string(),
        Some(span) => {
            let span = span.as_millis();
            format!("relaxed: up to {span} ms of changes may be lost by a crash")
        }
    }
}

impl IdSource for Host {
    fn next_id(&self) -> Result<RequestId> {
        Ok(self.0.next_id())
    }
}
