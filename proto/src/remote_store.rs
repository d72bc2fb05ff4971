//! A [`Store`] that is somewhere else: asks a node or Global over gRPC.
//!
//! Invariants: every call has a deadline; a whole blob is compared with its hash before its last piece is
//! passed on, a slice is as the node verified it; nothing is retried here.

use crate::bulk::{self, Receiving};
use crate::convert::{
    Packer, applied_from, apply_to, attributes_to, bound_from, create_namespace_to, detach,
    drop_namespace_to, held_from, millis_up, mode_to, names_to, namespaces_from, need, target_to,
};
use crate::dial::{Channel, Dial};
use crate::loss::{Labelled, Noted};
use crate::many::{self, same_length};
use crate::status::from_status;
use crate::store::{
    Body, BodyStream, DeleteReply, Found, FoundMany, ListQuery, Listing, Locals, SetOne, SetReply, Slice,
    Stat, StatMany, Status as TierStatus, Store, Target, Why, check_names, check_sets,
};
use crate::store_service::{DOWNLOAD, UPLOAD};
use crate::transfer;
use crate::watch::{WatchQuery, Watching};
use crate::watch_wire;
use crate::wire::store_client::StoreClient;
use crate::wire::{self};
use bytes::Bytes;
use dstore_shared::limits::UNARY_BYTES_MAX;
use dstore_shared::{
    Attributes, Blob, BlobHash, BlobHasher, CopyOutcome, Decision, DeleteMode, Entry, Error, Name, Namespace,
    NamespaceInfo, NamespaceOutcome, NamespaceSpec, Prefix, PrefixOutcome, RequestId, Result, Revision,
    Transaction, TransactionOutcome,
};
use futures_util::stream::{self, StreamExt};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Response, Status};

/// While a body has nothing to give, its receiver hears so many times in the idle deadline that it only waits.
const KEEP_ALIVES: u32 = 4;

/// Begins the message about an upload that may have been taken.
const UNANSWERED: &str = "the upload was sent and not answered";

/// A [`Store`] over a channel. Clones share the connection.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    client: StoreClient<Channel>,
    channel: Channel,
    frame: usize,
    call: Duration,
    idle: Duration,
    noted: Noted,
}

impl RemoteStore {
    /// A store over `channel`; nothing is sent yet.
    pub fn new(channel: Channel, dial: &Dial) -> Self {
        let client = StoreClient::new(channel.clone())
            .max_decoding_message_size(dial.frame_bytes)
            .max_encoding_message_size(dial.frame_bytes);
        Self {
            client,
            channel,
            frame: dial.frame_bytes,
            call: dial.call,
            idle: dial.transfer_idle,
            noted: Noted::default(),
        }
    }

    async fn unary<T: Labelled>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        let answer = in_time(self.call, call).await.map(Response::into_inner);
        answer.inspect(|answer| self.noted.note(answer))
    }

    /// As [`Self::unary`], of a change: without an answer it may have been made.
    async fn change<T: Labelled>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.change_within(self.call, call).await
    }

    async fn change_within<T: Labelled>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => {
                let answer = answer.map(Response::into_inner).map_err(|status| from_status(&status));
                answer.inspect(|answer| self.noted.note(answer))
            }
            Err(_) => Err(Error::unavailable(format!("outcome unknown: {}", silence(limit)))),
        }
    }

    /// `stale`: after so long an old value will do.
    async fn download(&self, target: Target, slice: Slice, stale: Option<Duration>) -> Result<Option<Found>> {
        let Slice { offset, len } = slice;
        let (stale_ok, wait_ms) = (stale.is_some(), stale.map_or(0, millis_up));
        let request = wire::GetRequest { target: Some(target_to(&target)), offset, len, stale_ok, wait_ms };
        let (channel, request) = (self.channel.clone(), stream::iter([request]));
        let (mut chunks, first) = in_time(self.call, async {
            let mut chunks: Receiving<wire::DownloadChunk> =
                bulk::call(channel, DOWNLOAD, request, self.frame).await?;
            let first = chunks.message().await?;
            Ok((chunks, first))
        })
        .await?;
        let wire::DownloadChunk { header, data } = need(first, "header")?;
        let header = need(header, "header")?;
        self.noted.note(&header);
        if !header.found {
            self.end(&mut chunks).await?;
            return Ok(None);
        }
        let entry: Entry = need(header.entry, "entry")?.try_into()?;
        if matches!(target, Target::Hash(hash) if hash != entry.hash) {
            return Err(Error::internal("another blob was sent than was asked for"));
        }
        let range = slice.within(entry.size)?;
        if range.end - range.start != header.len || data.len() as u64 > header.len {
            return Err(Error::internal("another slice was sent than was asked for"));
        }
        let whole = header.len == entry.size;
        let body = if data.len() as u64 == header.len {
            self.end(&mut chunks).await?;
            let data = detach(data);
            if whole { Body::Blob(Blob::verify(data, entry.hash)?) } else { Body::Bytes(data) }
        } else {
            let pieces = pieces(chunks, data, self.idle);
            let pieces = transfer::exactly(pieces, header.len);
            Body::Stream(if whole { verified(pieces, entry.hash) } else { pieces })
        };
        Ok(Some(Found { entry, from: need(header.from, "from")?.try_into()?, body }))
    }

    /// Waits for the answer's end, so that the call is not reset.
    async fn end(&self, chunks: &mut Receiving<wire::DownloadChunk>) -> Result<()> {
        match in_time(self.call, chunks.message()).await? {
            None => Ok(()),
            Some(_) => Err(Error::internal("more was sent than announced")),
        }
    }

    async fn upload(
        &self,
        id: RequestId,
        name: Option<Name>,
        body: Body,
        attributes: &Attributes,
    ) -> Result<SetReply> {
        let (size, hash) = match &body {
            Body::Blob(blob) => (Some(blob.size()), Bytes::copy_from_slice(blob.id().as_bytes())),
            Body::Bytes(bytes) => (Some(bytes.len() as u64), Bytes::new()),
            Body::Stream(_) => (None, Bytes::new()),
        };
        let binds = name.is_some();
        let id = name.as_ref().map(|_| Packer::new(64).request_id(&id));
        let ((ttl_ms, content_type), name) = (attributes_to(attributes), name.as_ref().map(Into::into));
        let header = wire::UploadHeader { id, name, size, hash, ttl_ms, content_type };
        let first = wire::UploadChunk { header: Some(header), data: Bytes::new() };
        let message = |data| wire::UploadChunk { header: None, data };
        let (channel, frame) = (self.channel.clone(), self.frame);
        let send = move |chunks| bulk::send(channel, UPLOAD, chunks, frame);
        let answer: Result<wire::SetResponse> = send_all(self.idle, first, body, message, send).await;
        let told = |e: Error| {
            let in_doubt = binds && e.message().starts_with(UNANSWERED);
            if in_doubt { Error::unavailable(format!("outcome unknown: {}", e.message())) } else { e }
        };
        let answer = answer.map_err(told)?;
        self.noted.note(&answer);
        answer.try_into()
    }
}

/// `call`, or `Unavailable` after `limit`.
pub(crate) async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|status| from_status(&status)),
        Err(_) => Err(Error::unavailable(silence(limit))),
    }
}

fn silence(limit: Duration) -> String {
    format!("no answer within `{limit:?}`: try again")
}

/// `first`, then the payload of each message, each in time.
fn pieces(chunks: Receiving<wire::DownloadChunk>, first: Bytes, idle: Duration) -> BodyStream {
    let rest = stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        match in_time(idle, chunks.message()).await {
            Ok(Some(chunk)) => Some((Ok(chunk.data), Some(chunks))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    });
    Box::pin(stream::iter([Ok(first)]).chain(rest))
}

/// The pieces of a whole blob; the last one only if all of them have `hash`.
fn verified(body: BodyStream, hash: BlobHash) -> BodyStream {
    let state = Some((body, BlobHasher::new(), None::<Bytes>));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut body, mut hasher, mut held) = state?;
        loop {
            match body.next().await {
                Some(Ok(piece)) => {
                    hasher.update(&piece);
                    if let Some(ready) = held.replace(piece) {
                        return Some((Ok(ready), Some((body, hasher, held))));
                    }
                }
                Some(Err(e)) => return Some((Err(e), None)),
                None if hasher.finish() == hash => return held.map(|last| (Ok(last), None)),
                None => {
                    let found = hasher.finish();
                    let e = Error::corrupt(format!(
                        "the bytes that came for blake3:{hash} are blake3:{found}: read it again"
                    ));
                    return Some((Err(e), None));
                }
            }
        }
    }))
}

/// Sends `first` and the pieces of `body` by `send`, and gives its answer. Ends with the error of `body`, or
/// `Unavailable` when the transport took nothing for `idle`, not counting what `body` takes to give; then the
/// call is reset, and the receiver knows that it is not whole.
pub(crate) async fn send_all<M, T, F>(
    idle: Duration,
    first: M,
    body: Body,
    message: fn(Bytes) -> M,
    send: impl FnOnce(transfer::Outgoing<M>) -> F,
) -> Result<T>
where
    M: Send + 'static,
    F: Future<Output = Result<T, Status>>,
{
    let sent = Arc::<transfer::Sent>::default();
    let (failed, failure) = oneshot::channel();
    let keep_alive = idle / KEEP_ALIVES;
    let chunks = transfer::outgoing(first, body.into_stream(), message, keep_alive, sent.clone(), failed);
    tokio::select! {
        biased;
        Ok(e) = failure => Err(e),
        answer = send(chunks) => answer.map_err(|s| from_status(&s)),
        () = sent.stalled(idle) => Err(Error::unavailable(if sent.is_whole() {
            format!("{UNANSWERED} within `{idle:?}`: try again")
        } else {
            format!("the upload did not move for `{idle:?}`: nothing was stored, try again")
        })),
    }
}

impl Store for RemoteStore {
    async fn get(&self, target: Target, slice: Slice) -> Result<Option<Found>> {
        self.download(target, slice, None).await
    }

    async fn get_stale(&self, target: Target, slice: Slice, wait: Duration) -> Result<Option<Found>> {
        self.download(target, slice, Some(wait)).await
    }

    async fn stat_stale(&self, target: Target, wait: Duration) -> Result<Option<Stat>> {
        let (target, wait_ms) = (Some(target_to(&target)), millis_up(wait));
        let request = wire::StatRequest { target, stale_ok: true, wait_ms };
        self.unary(self.client.clone().stat(request)).await?.try_into()
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
        attributes.check()?;
        let data = match &body {
            Body::Blob(blob) => Some(blob.bytes()),
            Body::Bytes(bytes) => Some(bytes),
            Body::Stream(_) => None,
        };
        let Some(data) = data.filter(|data| data.len() <= UNARY_BYTES_MAX) else {
            // Boxed: a long way that few go makes the future of all others no larger.
            return Box::pin(self.upload(id, name, body, &attributes)).await;
        };
        // Without a name it is no change, and needs no id.
        let Some(name) = name else {
            let request = wire::SetRequest { data: data.clone(), ..wire::SetRequest::default() };
            return self.unary(self.client.clone().set(request)).await?.try_into();
        };
        let (id, name) = (Some(Packer::new(64).request_id(&id)), Some((&name).into()));
        let (ttl_ms, content_type) = attributes_to(&attributes);
        let request = wire::SetRequest { id, name, data: data.clone(), ttl_ms, content_type };
        self.change(self.client.clone().set(request)).await?.try_into()
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
        attributes.check()?;
        let (id, name) = (Some(Packer::new(64).request_id(&id)), Some((&name).into()));
        let hash = Bytes::copy_from_slice(hash.as_bytes());
        let (ttl_ms, content_type) = attributes_to(&attributes);
        let request = wire::BindRequest { id, name, hash, size, ttl_ms, content_type };
        self.change(self.client.clone().bind(request)).await?.try_into()
    }

    async fn delete(&self, id: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
        self.delete_in(id, names, DeleteMode::Strict).await
    }

    async fn delete_in(&self, id: RequestId, names: Vec<Name>, mode: DeleteMode) -> Result<DeleteReply> {
        let id = Some(Packer::new(64).request_id(&id));
        let asked = names.len();
        let limit = self.call + mode.deadline().unwrap_or_default();
        let (mode, deadline_ms) = mode_to(mode);
        let request = wire::DeleteRequest { id, names: names_to(&names), mode, deadline_ms };
        let wire::DeleteResponse { removed, revision, stale_ms, .. } =
            self.change_within(limit, self.client.clone().delete(request)).await?;
        same_length(removed.len(), asked)?;
        let (revision, stale) = (dstore_shared::Revision(revision), bound_from(stale_ms));
        Ok(DeleteReply { removed, revision, stale })
    }

    async fn delete_prefix(&self, id: RequestId, prefix: Prefix) -> Result<PrefixOutcome> {
        let id = Some(Packer::new(64).request_id(&id));
        let (namespace, prefix) = (prefix.namespace().to_string(), prefix.bytes());
        let request = wire::DeletePrefixRequest { id, namespace, prefix };
        let done = self.change(self.client.clone().delete_prefix(request)).await?;
        Ok(PrefixOutcome { removed: done.removed, revision: dstore_shared::Revision(done.revision) })
    }

    async fn stat(&self, target: Target) -> Result<Option<Stat>> {
        let request = wire::StatRequest { target: Some(target_to(&target)), ..wire::StatRequest::default() };
        self.unary(self.client.clone().stat(request)).await?.try_into()
    }

    async fn exists(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let request = wire::ExistsRequest { names: names_to(&names) };
        let exists = self.unary(self.client.clone().exists(request)).await?.exists;
        same_length(exists.len(), names.len())?;
        Ok(exists)
    }

    async fn get_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        if names.is_empty() {
            return Ok(FoundMany { found: Vec::new(), revision: Revision(0) });
        }
        check_names(&names)?;
        let mut client = self.client.clone();
        let chunks = in_time(self.call, async { client.get_many(many::get_many_to(&names)).await }).await?;
        let found = many::read_found(chunks.into_inner(), names.len(), self.idle, &self.noted).await?;
        Ok(found)
    }

    async fn set_many(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        check_sets(&sets)?;
        let request = many::sets_to(&sets)?;
        let done = many::set_results_from(self.change(self.client.clone().set_many(request)).await?)?;
        same_length(done.len(), sets.len())?;
        Ok(done)
    }

    async fn copy(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.change(self.client.clone().copy(many::copy_to(&id, &from, &to))).await?.try_into()
    }

    async fn rename(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.change(self.client.clone().rename(many::copy_to(&id, &from, &to))).await?.try_into()
    }

    async fn stat_many(&self, names: Vec<Name>) -> Result<StatMany> {
        if names.is_empty() {
            return Ok(StatMany { stats: Vec::new(), revision: Revision(0) });
        }
        check_names(&names)?;
        let request = wire::StatManyRequest { names: names_to(&names) };
        let stats = many::stats_from(self.unary(self.client.clone().stat_many(request)).await?)?;
        same_length(stats.stats.len(), names.len())?;
        Ok(stats)
    }

    async fn apply(&self, id: RequestId, transaction: Transaction) -> Result<TransactionOutcome> {
        transaction.check()?;
        let asked = transaction.steps.len();
        let request = apply_to(&mut Packer::new(64), &id, &transaction);
        let done = applied_from(self.change(self.client.clone().apply(request)).await?)?;
        if let Decision::Done(steps) = &done.decision {
            same_length(steps.len(), asked)?;
        }
        Ok(done)
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        namespaces_from(self.unary(self.client.clone().namespaces(wire::NamespacesRequest {})).await?)
    }

    async fn create_namespace(
        &self,
        id: RequestId,
        namespace: Namespace,
        spec: NamespaceSpec,
    ) -> Result<NamespaceOutcome> {
        let request = create_namespace_to(&id, &namespace, spec);
        self.change(self.client.clone().create_namespace(request)).await?.try_into()
    }

    async fn drop_namespace(&self, id: RequestId, namespace: Namespace) -> Result<NamespaceOutcome> {
        let request = drop_namespace_to(&id, &namespace);
        self.change(self.client.clone().drop_namespace(request)).await?.try_into()
    }

    async fn list(&self, query: ListQuery) -> Result<Listing> {
        self.unary(self.client.clone().list(wire::ListRequest::from(&query))).await?.try_into()
    }

    async fn watch(&self, query: WatchQuery) -> Result<Watching> {
        watch_wire::begin(self.client.clone(), self.call, &query, &self.noted).await
    }

    fn loss(&self) -> Option<Duration> {
        self.noted.loss()
    }

    async fn locals(&self, name: Option<Name>) -> Result<Locals> {
        let request = wire::LocalsRequest { name: name.as_ref().map(Into::into) };
        self.unary(self.client.clone().locals(request)).await?.try_into()
    }

    async fn why(&self, name: Name) -> Result<Why> {
        let request = wire::WhyRequest { name: Some((&name).into()) };
        self.unary(self.client.clone().why(request)).await?.try_into()
    }

    async fn evict(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        let request = wire::EvictRequest { names: names_to(&names) };
        held_from(self.unary(self.client.clone().evict(request)).await?, names.len())
    }

    async fn pin(&self, names: Vec<Name>, keep: bool) -> Result<Vec<bool>> {
        let request = wire::PinRequest { names: names_to(&names), keep };
        held_from(self.unary(self.client.clone().pin(request)).await?, names.len())
    }

    async fn status(&self) -> Result<TierStatus> {
        self.unary(self.client.clone().status(wire::StatusRequest {})).await?.try_into()
    }
}
