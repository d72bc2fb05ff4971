//! The calls. What happens when one fails is in `patience.rs`.

mod many;
mod patience;
mod standing;
mod transaction;
mod watch;

pub use watch::Watch;

use crate::config::ClientConfig;
use crate::ids::Ids;
use bytes::{Bytes, BytesMut};
use dstore_proto::RemoteStore;
use dstore_proto::dial::Channel;
use dstore_proto::store::{
    Body, BodyStream, DeleteReply, Found, ListQuery, Listing, Provenance, SetReply, Slice, Stat, Status,
    Store, Target,
};
use dstore_shared::limits::{CHUNK_BYTES, UNARY_BYTES_MAX};
use dstore_shared::{
    Attributes, Blob, BlobHash, ClientId, DeleteMode, Entry, Error, Name, Prefix, PrefixOutcome, RequestId,
    Result, SetOutcome,
};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, StreamExt};
pub use many::Values;
use patience::Attempts;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Begins the message about a change that may have been made.
const IN_DOUBT: &str = "outcome unknown";

/// The deadline of a client decides: that of one call, if it is not shorter, ends this much later.
const OWN_DEADLINE_FIRST: Duration = Duration::from_secs(1);

/// A value that was read whole.
#[derive(Clone, Debug)]
pub struct Value {
    /// The bytes.
    pub bytes: Bytes,
    /// Hash and size; `bind_rev` of the name, 0 if it was asked for by hash.
    pub entry: Entry,
    /// Which tier knew it.
    pub from: Provenance,
}

/// A value that is ready to be bound to a name: see [`Client::stage`].
#[derive(Clone, Debug)]
pub struct Staged(Ready);

#[derive(Clone, Debug)]
enum Ready {
    /// It goes with the change.
    Carried(Blob),
    /// The tier has it, for a grace.
    Stored { hash: BlobHash, size: u64 },
}

impl Staged {
    fn of(bytes: Bytes) -> Self {
        Self(Ready::Carried(Blob::hash(bytes)))
    }
}

/// A client of anything that is a [`Store`], by default of a node over gRPC. Clones share the connection and
/// the identity.
///
/// Reads and changes that fail as `Unavailable` are tried again until the deadline. A change keeps its id
/// over all attempts, so it is made once; if the deadline passes, `Unavailable` says that the outcome is
/// unknown.
///
/// # Cancel safety
/// A read that is dropped has done nothing. A change that is dropped may have been made, or be made yet.
#[derive(Debug)]
pub struct Client<S = RemoteStore> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Client<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

#[derive(Debug)]
struct Inner<S> {
    store: Arc<S>,
    sys: Sys,
    ids: Ids,
    config: ClientConfig,
    /// What messages call the node.
    node: String,
    /// Owns the connection; nothing if the store is not ours.
    tasks: Tasks,
}

impl<S> Drop for Inner<S> {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Client {
    /// A client of the tier at `address`. Connects when it is first used, and again when it must.
    pub fn connect(sys: &Sys, address: &Address, config: ClientConfig) -> Self {
        let (tasks, mut dial) = (Tasks::new(), config.dial.clone());
        if dial.call >= config.deadline {
            dial.call = config.deadline + OWN_DEADLINE_FIRST;
        }
        let store = RemoteStore::new(Channel::new(sys, &tasks, address, &dial), &dial);
        Self::with(sys, Arc::new(store), address.to_string(), config, tasks)
    }
}

impl<S: Store> Client<S> {
    /// A client of `store`, in this process or elsewhere.
    pub fn over(sys: &Sys, store: Arc<S>, config: ClientConfig) -> Self {
        Self::with(sys, store, "the node".into(), config, Tasks::new())
    }

    fn with(sys: &Sys, store: Arc<S>, node: String, config: ClientConfig, tasks: Tasks) -> Self {
        let id = config.client_id.unwrap_or_else(|| ClientId(sys.rng.next_u128()));
        let node = config.node.clone().unwrap_or(node);
        let inner = Inner { store, sys: sys.clone(), ids: Ids::new(id), config, node, tasks };
        Self { inner: Arc::new(inner) }
    }

    /// Who this client is.
    pub fn id(&self) -> ClientId {
        self.inner.ids.client()
    }

    /// What runs beside its calls, for as long as it lives.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// The largest value that it gathers in memory.
    pub(crate) fn get_bytes_max(&self) -> u64 {
        self.inner.config.get_bytes_max
    }

    /// What it talks to.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// As of the newest answer: a crash of Global may take the changes of its last so long, because it runs with
    /// `--sync relaxed`. `None` = what is answered is durable.
    pub fn loss(&self) -> Option<Duration> {
        self.inner.store.loss()
    }

    /// The error of a read that was not answered within the deadline.
    pub fn no_answer(&self) -> Error {
        Error::unavailable(format!("{}: see `dstore status`", self.silence()))
    }

    /// The error of a change that was sent and not answered within the deadline: it may have been made.
    pub fn in_doubt(&self) -> Error {
        Error::unavailable(format!("{IN_DOUBT}: {}, look before you repeat it", self.silence()))
    }

    fn silence(&self) -> String {
        let Inner { node, config, .. } = &*self.inner;
        format!("no answer from `{node}` within {} s", config.deadline.as_secs_f32())
    }

    /// Reads the value of a name, whole. `Ok(None)`: the name is not bound.
    ///
    /// # Errors
    /// `TooLarge` beyond `get_bytes_max`; as [`Store::get`].
    pub async fn get(&self, name: &Name) -> Result<Option<Value>> {
        self.read(&Target::Name(name.clone()), None).await
    }

    /// Reads a blob by its hash, whole. `Ok(None)`: there is no such blob.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_hash(&self, hash: BlobHash) -> Result<Option<Value>> {
        self.read(&Target::Hash(hash), None).await
    }

    async fn read(&self, target: &Target, stale: Option<Duration>) -> Result<Option<Value>> {
        self.retry(Attempts::Transfers, || async {
            let Some(found) = self.begin(target, Slice::ALL, stale).await? else { return Ok(None) };
            let Found { entry, from, body } = found;
            if entry.size > self.inner.config.get_bytes_max {
                let (n, max) = (entry.size, self.inner.config.get_bytes_max);
                return Err(Error::too_large(format!(
                    "the value has `{n}` bytes, over `{max}`: read it as a stream"
                )));
            }
            let bytes = body.collect(entry.size).await?;
            Ok(Some(Value { bytes, entry, from }))
        })
        .await
    }

    /// Begins to read a value or a slice of it. Beginning is retried; a stream that fails later is not.
    ///
    /// # Errors
    /// As [`Store::get`]; such an error may also end the stream.
    pub async fn get_stream(&self, target: &Target, slice: Slice) -> Result<Option<Found>> {
        self.stream_in(target, slice, None).await
    }

    async fn stream_in(
        &self,
        target: &Target,
        slice: Slice,
        stale: Option<Duration>,
    ) -> Result<Option<Found>> {
        let mut found = self.retry(Attempts::Calls, || self.begin(target, slice, stale)).await?;
        if let Some(Found { body: Body::Stream(stream), .. }) = &mut found {
            // The connection ends with the last client; a stream that is still read keeps it.
            let (empty, client) = (Box::pin(stream::empty()), self.clone());
            let rest = std::mem::replace(stream, empty);
            *stream = Box::pin(rest.inspect(move |_| _ = &client));
        }
        Ok(found)
    }

    async fn begin(&self, target: &Target, slice: Slice, stale: Option<Duration>) -> Result<Option<Found>> {
        let (store, target) = (&self.inner.store, target.clone());
        match stale {
            Some(wait) => self.in_time(store.get_stale(target, slice, wait)).await,
            None => self.in_time(store.get(target, slice)).await,
        }
    }

    /// Binds a name to `bytes`, unless it is bound to others.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub async fn set(&self, name: &Name, bytes: impl Into<Bytes>) -> Result<SetReply> {
        self.bind(name, self.stage_bytes(bytes).await?).await
    }

    /// As [`Client::set`], and says of what type the value is and how long the name lives.
    ///
    /// # Errors
    /// As [`Store::set_as`].
    pub async fn set_as(
        &self,
        name: &Name,
        bytes: impl Into<Bytes>,
        attributes: &Attributes,
    ) -> Result<SetReply> {
        self.bind_as(name, self.stage_bytes(bytes).await?, attributes).await
    }

    /// Makes `bytes` ready to be bound, as [`Client::stage`] does, tried again while the tier is away.
    ///
    /// # Errors
    /// As [`Store::set`]. No name is changed, whatever happens.
    pub async fn stage_bytes(&self, bytes: impl Into<Bytes>) -> Result<Staged> {
        let bytes = bytes.into();
        if bytes.len() <= UNARY_BYTES_MAX {
            return Ok(Staged::of(bytes));
        }
        stored(&Box::pin(self.put_blob(Blob::hash(bytes))).await?)
    }

    /// Stores `bytes` without a name; they stay for a grace (one hour) unless a name is bound to them.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<SetReply> {
        self.put_blob(Blob::hash(bytes)).await
    }

    /// Stores what `body` gives, under `name` if there is one: [`Client::stage`], then [`Client::bind`].
    ///
    /// # Errors
    /// As these two.
    pub async fn set_stream(&self, name: Option<&Name>, body: BodyStream) -> Result<SetReply> {
        match name {
            Some(name) => self.bind(name, self.stage(body).await?).await,
            None => self.put_stream(body).await,
        }
    }

    /// Makes what `body` gives ready to be bound: gathers it if it is small, else stores it without a name. One
    /// attempt only, since a stream is read once. No name is changed, whatever happens.
    ///
    /// # Errors
    /// As [`Store::set`], or what ended `body`.
    pub async fn stage(&self, body: BodyStream) -> Result<Staged> {
        let (head, rest) = gather(body).await?;
        let Some(rest) = rest else { return Ok(Staged::of(head.concat().into())) };
        // A stream is read once: see that somebody is there before it begins.
        self.born(pin!(self.patience())).await?;
        let body = stream::iter(head.into_iter().map(Ok)).chain(rest);
        stored(&self.put_stream(Box::pin(body)).await?)
    }

    /// Binds a name to what was staged, unless it is bound to others. The id of the change is made here, so
    /// staging may have taken any time.
    ///
    /// # Errors
    /// As [`Store::bind`]; `Unavailable` if the blob is not there anymore: stage it again.
    pub async fn bind(&self, name: &Name, staged: Staged) -> Result<SetReply> {
        self.bind_as(name, staged, &Attributes::default()).await
    }

    /// As [`Client::bind`], and says of what type the value is and how long the name lives.
    ///
    /// # Errors
    /// As [`Client::bind`] and [`Store::bind_as`].
    pub async fn bind_as(&self, name: &Name, staged: Staged, attributes: &Attributes) -> Result<SetReply> {
        let (store, said) = (&self.inner.store, || attributes.clone());
        match staged.0 {
            Ready::Carried(blob) => {
                let set = |id| store.set_as(id, Some(name.clone()), Body::Blob(blob.clone()), said());
                // Boxed: it is large, and would be in every future that a SET is a part of.
                Box::pin(self.change(set)).await
            }
            Ready::Stored { hash, size } => {
                let bind = |id| store.bind_as(id, name.clone(), (hash, size), said());
                let reply = Box::pin(self.change(bind)).await?;
                match reply.outcome {
                    SetOutcome::NeedBlob => Err(Error::unavailable(
                        "nothing was changed, the blob was swept meanwhile or is damaged: set it again",
                    )),
                    _ => Ok(reply),
                }
            }
        }
    }

    async fn put_blob(&self, blob: Blob) -> Result<SetReply> {
        let small = blob.bytes().len() <= UNARY_BYTES_MAX;
        let attempts = if small { Attempts::Calls } else { Attempts::Transfers };
        let put = || self.inner.store.set(RequestId::default(), None, Body::Blob(blob.clone()));
        self.retry(attempts, put).await
    }

    async fn put_stream(&self, body: BodyStream) -> Result<SetReply> {
        self.inner.store.set(RequestId::default(), None, Body::Stream(body)).await
    }

    /// Unbinds names, all at once. When it returns, no GET anywhere returns what they were bound to.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn delete(&self, names: &[Name]) -> Result<DeleteReply> {
        self.change(|id| self.inner.store.delete(id, names.to_vec())).await
    }

    /// Unbinds all names under a prefix, all at once. When it returns, no GET anywhere returns what they were bound to.
    ///
    /// # Errors
    /// As [`Store::delete_prefix`].
    pub async fn delete_prefix(&self, prefix: &Prefix) -> Result<PrefixOutcome> {
        self.change(|id| self.inner.store.delete_prefix(id, prefix.clone())).await
    }

    /// As [`Client::delete`], answered when `mode` says.
    ///
    /// # Errors
    /// As [`Store::delete_in`]. To ask again after `Pending`, make the id with [`Client::request_id`] and use
    /// [`Client::delete_as`].
    pub async fn delete_in(&self, names: &[Name], mode: DeleteMode) -> Result<DeleteReply> {
        let more = mode.deadline().unwrap_or_default();
        let patience = pin!(tokio::time::sleep(self.inner.config.deadline.saturating_add(more)));
        let (named, patience) = self.name_change(patience, 1).await?;
        self.make(named.id, patience, || self.inner.store.delete_in(named.id, names.to_vec(), mode)).await
    }

    /// An id for a change that is to be asked about again. It is good for ten minutes, until Global starts again,
    /// and for 1,024 further changes of this client.
    ///
    /// # Errors
    /// `Unavailable` if Global's clock cannot be learnt within the deadline.
    pub async fn request_id(&self) -> Result<RequestId> {
        let (named, _) = self.name_change(pin!(self.patience()), 1).await?;
        Ok(named.id)
    }

    /// As [`Client::delete_in`], under an id that was made before: attempts under one id are one change. May be
    /// called again, by anybody, until it is answered otherwise than as `Pending`.
    ///
    /// # Errors
    /// As [`Store::delete_in`].
    pub async fn delete_as(&self, id: RequestId, names: &[Name], mode: DeleteMode) -> Result<DeleteReply> {
        let more = mode.deadline().unwrap_or_default();
        let patience = pin!(tokio::time::sleep(self.inner.config.deadline.saturating_add(more)));
        self.make(id, patience, || self.inner.store.delete_in(id, names.to_vec(), mode)).await
    }

    /// Reads the value of a name, whole; an old one will do if the node has no lease and Global does not answer
    /// within `wait`: then `from.stale_for` says how long it may have been wrong.
    ///
    /// # Errors
    /// As [`Store::get_stale`]; `TooLarge` beyond `get_bytes_max`.
    pub async fn get_stale(&self, name: &Name, wait: Duration) -> Result<Option<Value>> {
        self.read(&Target::Name(name.clone()), Some(wait)).await
    }

    /// As [`Client::get_stream`], with the leave of [`Client::get_stale`].
    ///
    /// # Errors
    /// As [`Store::get_stale`]; such an error may also end the stream.
    pub async fn get_stream_stale(
        &self,
        target: &Target,
        slice: Slice,
        wait: Duration,
    ) -> Result<Option<Found>> {
        self.stream_in(target, slice, Some(wait)).await
    }

    /// As [`Client::stat`], with the leave of [`Client::get_stale`].
    ///
    /// # Errors
    /// As [`Store::stat_stale`].
    pub async fn stat_stale(&self, target: &Target, wait: Duration) -> Result<Option<Stat>> {
        self.retry(Attempts::Calls, || self.inner.store.stat_stale(target.clone(), wait)).await
    }

    /// What a name is bound to, or whether a blob is there, without its bytes.
    ///
    /// # Errors
    /// As [`Store::stat`].
    pub async fn stat(&self, target: &Target) -> Result<Option<Stat>> {
        self.retry(Attempts::Calls, || self.inner.store.stat(target.clone())).await
    }

    /// Whether each of `names` is bound.
    ///
    /// # Errors
    /// As [`Store::exists`].
    pub async fn exists(&self, names: &[Name]) -> Result<Vec<bool>> {
        self.retry(Attempts::Calls, || self.inner.store.exists(names.to_vec())).await
    }

    /// A page of names in byte order, as of one revision.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        self.retry(Attempts::Calls, || self.inner.store.list(query.clone())).await
    }

    /// How the tier is.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    pub async fn status(&self) -> Result<Status> {
        self.retry(Attempts::Calls, || self.ask_status()).await
    }

    async fn ask_status(&self) -> Result<Status> {
        let status = self.inner.store.status().await?;
        if let Some(born) = status.born {
            self.inner.ids.learn(born, self.inner.sys.clock.now());
        }
        Ok(status)
    }
}

/// What became of a blob without a name.
fn stored(put: &SetReply) -> Result<Staged> {
    match put.outcome {
        SetOutcome::Stored(Entry { hash, size, .. }) => Ok(Staged(Ready::Stored { hash, size })),
        _ => Err(Error::internal("a blob without a name was not stored: report this")),
    }
}

/// The pieces of a body that fits a message; or a little more, and the rest.
async fn gather(mut body: BodyStream) -> Result<(Vec<Bytes>, Option<BodyStream>)> {
    let (mut head, mut len) = (Vec::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        len += piece.len();
        // Many small pieces cost more to keep than their bytes.
        match head.last_mut() {
            Some(last) if BytesMut::len(last) + piece.len() <= CHUNK_BYTES => last.extend_from_slice(&piece),
            _ => head.push(BytesMut::from(piece)),
        }
        if len > UNARY_BYTES_MAX {
            return Ok((frozen(head), Some(body)));
        }
    }
    Ok((frozen(head), None))
}

fn frozen(pieces: Vec<BytesMut>) -> Vec<Bytes> {
    pieces.into_iter().map(BytesMut::freeze).collect()
}
