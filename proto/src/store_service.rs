//! A [`Store`] as the gRPC service `Store`: checks what comes in, sets the deadlines, cuts into frames.
//!
//! It decides nothing about data. Invariants: a unary call ends by the handler deadline; a transfer ends when
//! nothing moves; memory for a transfer is a few chunks whatever its length.

use crate::bulk::{Bulk, Receiving};
use crate::convert::{
    Packer, applied_to, attributes_from, detach, mode_from, name_from, named_namespace, names_from,
    namespace_from, namespaces_to, need, spec_from, target_from, transaction_from, wait_from,
};
use crate::loss::{Answer, Labelled, labelled_stream};
use crate::many;
use crate::serve::Limits;
use crate::status::{from_status, to_status};
use crate::store::{Body, Found, SetOne, SetReply, Slice, Stat, Store, check_names};
use crate::transfer::{self, Expected, WireStream};
use crate::watch_wire::{self, OfConnection};
use crate::wire::{self, store_server};
use bytes::Bytes;
use dstore_shared::limits::UNARY_BYTES_MAX;
use dstore_shared::{Attributes, Blob, BlobHash, Error, Name, Prefix, RequestId, Result, SetOutcome};
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, Stream, StreamExt};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

/// Names changes whose caller gave them no id.
pub trait IdSource: Send + Sync + 'static {
    /// The next id.
    ///
    /// # Errors
    /// `Unavailable` if Global's clock is not known yet.
    fn next_id(&self) -> Result<RequestId>;
}

impl<F: Fn() -> Result<RequestId> + Send + Sync + 'static> IdSource for F {
    fn next_id(&self) -> Result<RequestId> {
        self()
    }
}

pub(crate) struct StoreService<S> {
    store: Arc<S>,
    ids: Arc<dyn IdSource>,
    tasks: Tasks,
    handler: Duration,
    idle: Duration,
}

impl<S: Store> StoreService<S> {
    pub(crate) fn new(store: Arc<S>, ids: Arc<dyn IdSource>, tasks: Tasks, limits: &Limits) -> Self {
        Self { store, ids, tasks, handler: limits.handler, idle: limits.transfer_idle }
    }

    async fn within<T: Answer>(&self, call: impl Future<Output = Result<T>>) -> Result<Response<T>, Status> {
        let answer = self.in_time(call).await?;
        Ok(Response::new(answer.labelled(self.store.loss())))
    }

    /// As [`Self::within`], of a stream.
    async fn within_stream<T: Labelled + Send + 'static>(
        &self,
        call: impl Future<Output = Result<WireStream<T>>>,
    ) -> Result<Response<WireStream<T>>, Status> {
        let answer = self.in_time(call).await?;
        Ok(Response::new(labelled_stream(answer, self.store.loss())))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T, Status> {
        let limit = self.handler;
        let late =
            |_| Err(Error::unavailable(format!("no answer within `{limit:?}`: outcome unknown, try again")));
        let answer = tokio::time::timeout(limit, call).await.unwrap_or_else(late);
        answer.map_err(|e| to_status(&e))
    }

    fn id(&self, given: Option<wire::RequestId>) -> Result<RequestId> {
        given.map_or_else(|| self.ids.next_id(), RequestId::try_from)
    }

    async fn find(&self, request: wire::GetRequest, slice: Slice) -> Result<Option<Found>> {
        let target = target_from(request.target)?;
        match wait_from(request.stale_ok, request.wait_ms) {
            Some(wait) => self.store.get_stale(target, slice, wait).await,
            None => self.store.get(target, slice).await,
        }
    }

    async fn read(&self, request: wire::GetRequest) -> Result<wire::GetResponse> {
        let slice = Slice::from(&request);
        let Some(found) = self.find(request, slice).await? else {
            return Ok(wire::GetResponse::default());
        };
        let len = len_of(&found, slice)?;
        if len > UNARY_BYTES_MAX as u64 {
            return Err(Error::too_large(format!(
                "`{len}` bytes are too many for Get: use Download, or slices"
            )));
        }
        let (entry, from) = (Packer::new(32).entry(&found.entry), found.from.into());
        let data = found.body.collect(len).await?;
        if data.len() as u64 != len {
            return Err(Error::internal("a blob has another length than its entry says"));
        }
        Ok(wire::GetResponse { found: true, entry: Some(entry), from: Some(from), data, loss_ms: 0 })
    }

    async fn begin_download(&self, request: wire::GetRequest) -> Result<WireStream<wire::DownloadChunk>> {
        let slice = Slice::from(&request);
        let Some(found) = self.find(request, slice).await? else {
            let header = Some(wire::DownloadHeader::default());
            return Ok(one(wire::DownloadChunk { header, data: Bytes::new() }));
        };
        let len = len_of(&found, slice)?;
        let entry = Some(Packer::new(32).entry(&found.entry));
        let header =
            Some(wire::DownloadHeader { found: true, entry, from: Some(found.from.into()), len, loss_ms: 0 });
        // What is at hand and fits goes with the header: one message, as cheap as Get.
        let at_hand = match &found.body {
            Body::Blob(blob) => Some(blob.bytes()),
            Body::Bytes(bytes) => Some(bytes),
            Body::Stream(_) => None,
        };
        if let Some(data) = at_hand.filter(|b| b.len() as u64 == len && b.len() <= UNARY_BYTES_MAX) {
            return Ok(one(wire::DownloadChunk { header, data: data.clone() }));
        }
        let first = wire::DownloadChunk { header, data: Bytes::new() };
        let body = transfer::exactly(found.body.into_stream(), len);
        let message = |data| wire::DownloadChunk { header: None, data };
        Ok(transfer::pump(&self.tasks, self.idle, first, body, message))
    }

    async fn write(&self, request: wire::SetRequest) -> Result<wire::SetResponse> {
        let attributes = attributes_from(request.ttl_ms, &request.content_type)?;
        let n = request.data.len();
        if n > UNARY_BYTES_MAX {
            return Err(Error::too_large(format!("`{n}` bytes are too many for Set: use Upload")));
        }
        let name = request.name.map(Name::try_from).transpose()?;
        let id = if name.is_some() { self.id(request.id)? } else { RequestId::default() };
        let reply =
            self.store.set_as(id, name, Body::Blob(Blob::hash(detach(request.data))), attributes).await?;
        answer_set(&reply)
    }

    async fn bind_stored(&self, request: wire::BindRequest) -> Result<wire::SetResponse> {
        let attributes = attributes_from(request.ttl_ms, &request.content_type)?;
        let (name, hash) = (need(request.name, "name")?.try_into()?, BlobHash::from_slice(&request.hash)?);
        let id = self.id(request.id)?;
        let reply = self.store.bind_as(id, name, (hash, request.size), attributes).await?;
        Ok((&reply).into())
    }

    /// The values of a `SetMany`; one that cannot be read fails alone.
    fn sets(&self, request: wire::SetManyRequest) -> Result<(Vec<SetOne>, many::Unread)> {
        if request.values.is_empty() {
            return Err(Error::invalid("the request has no value: send at least one"));
        }
        let first = request.id.map(RequestId::try_from).transpose()?;
        let (mut sets, mut unread) = (Vec::with_capacity(request.values.len()), Vec::new());
        for (i, value) in request.values.into_iter().enumerate() {
            let id = match first {
                Some(first) => RequestId { n: first.n.saturating_add(i as u64), ..first },
                None => self.ids.next_id()?,
            };
            match many::set_from(id, value) {
                Ok(one) => sets.push(one),
                Err(e) => unread.push((i, e)),
            }
        }
        Ok((sets, unread))
    }

    fn copied(&self, request: wire::CopyRequest) -> Result<(RequestId, Name, Name)> {
        let (from, to) = (need(request.from, "from")?.try_into()?, need(request.to, "to")?.try_into()?);
        Ok((self.id(request.id)?, from, to))
    }

    /// The change runs in a task of its own: when the caller goes away the store gets a body that ends with
    /// an error, instead of being dropped in the middle of it.
    async fn receive<C>(&self, mut chunks: C) -> Result<wire::SetResponse>
    where
        C: Stream<Item = Result<wire::UploadChunk, Status>> + Send + Unpin + 'static,
    {
        let first = tokio::time::timeout(self.idle, chunks.next()).await;
        let first = first.map_err(|_| Error::unavailable("no header came: send it first"))?;
        let first = first.transpose().map_err(|s| from_status(&s))?;
        let (header, data) = first.map_or((None, Bytes::new()), |first| (first.header, first.data));
        let Some(header) = header else {
            return Err(Error::invalid("the upload does not begin with a header: send it first"));
        };
        let attributes = attributes_from(header.ttl_ms, &header.content_type)?;
        let hash = if header.hash.is_empty() { None } else { Some(BlobHash::from_slice(&header.hash)?) };
        let id = header.id.map(RequestId::try_from).transpose()?;
        let name = header.name.map(Name::try_from).transpose()?;
        let binds = name.is_some();
        let expected = Expected { size: header.size, hash };
        let (body, sent) = transfer::upload(data, chunks, |chunk| chunk.data, expected, self.idle);
        let (done, result) = oneshot::channel();
        let (store, ids) = (self.store.clone(), self.ids.clone());
        self.tasks.spawn("upload", async move {
            let named = name.map(|name| (name, attributes));
            _ = done.send(take_upload(&*store, &*ids, id, named, Body::Stream(body)).await);
        });
        Ok(answer_set(&self.finished(sent, result, binds).await?)?.labelled(self.store.loss()))
    }

    async fn finished<T>(
        &self,
        sent: oneshot::Receiver<()>,
        result: oneshot::Receiver<Result<T>>,
        binds: bool,
    ) -> Result<T> {
        let end = |what: &str| {
            let outcome = if binds { "outcome unknown, try again" } else { "send it again" };
            Error::unavailable(format!("{what}: {outcome}"))
        };
        // Each piece has its deadline; once all are there the change has its own.
        _ = sent.await;
        match tokio::time::timeout(self.handler, result).await {
            Ok(result) => result.map_err(|_| end("this tier is stopping"))?,
            Err(_) => Err(end("the upload takes long to be stored")),
        }
    }
}

/// An upload whose sender gave it no id is bound under one that is made when its bytes are there.
async fn take_upload<S: Store>(
    store: &S,
    ids: &dyn IdSource,
    id: Option<RequestId>,
    named: Option<(Name, Attributes)>,
    body: Body,
) -> Result<SetReply> {
    let (name, attributes) = match (id, named) {
        (Some(id), Some((name, attributes))) => return store.set_as(id, Some(name), body, attributes).await,
        (_, None) => return store.set(RequestId::default(), None, body).await,
        (None, Some(named)) => named,
    };
    let SetOutcome::Stored(entry) = store.set(RequestId::default(), None, body).await?.outcome else {
        return Err(Error::internal("a blob without a name was not stored: report this"));
    };
    let reply = store.bind_as(ids.next_id()?, name, (entry.hash, entry.size), attributes).await?;
    match reply.outcome {
        SetOutcome::NeedBlob => Err(Error::unavailable("the blob was swept meanwhile: set it again")),
        _ => Ok(reply),
    }
}

fn one<M: Send + 'static>(message: M) -> WireStream<M> {
    Box::pin(stream::iter([Ok(message)]))
}

/// How many bytes of it were asked for.
fn len_of(found: &Found, slice: Slice) -> Result<u64> {
    slice.within(found.entry.size).map(|range| range.end - range.start)
}

fn answer_set(reply: &SetReply) -> Result<wire::SetResponse> {
    match reply.outcome {
        SetOutcome::NeedBlob => Err(Error::internal("a store asked its user for a blob: report this")),
        _ => Ok(reply.into()),
    }
}

/// Where values are uploaded.
pub(crate) const UPLOAD: &str = "/dstore.v1.Store/Upload";
/// Where values are downloaded.
pub(crate) const DOWNLOAD: &str = "/dstore.v1.Store/Download";

impl<S: Store> Bulk for StoreService<S> {
    const UP: &'static str = UPLOAD;
    const DOWN: &'static str = DOWNLOAD;
    type Piece = wire::UploadChunk;
    type Done = wire::SetResponse;
    type Wanted = wire::GetRequest;
    type Part = wire::DownloadChunk;

    async fn up(&self, pieces: Receiving<wire::UploadChunk>) -> Result<wire::SetResponse, Status> {
        self.receive(pieces).await.map_err(|e| to_status(&e))
    }

    async fn down(&self, wanted: wire::GetRequest) -> Result<WireStream<wire::DownloadChunk>, Status> {
        self.within_stream(self.begin_download(wanted)).await.map(Response::into_inner)
    }
}

#[tonic::async_trait]
impl<S: Store> store_server::Store for StoreService<S> {
    type DownloadStream = WireStream<wire::DownloadChunk>;
    type GetManyStream = WireStream<wire::GetManyChunk>;
    type WatchStream = WireStream<wire::WatchResponse>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        self.within(self.read(request.into_inner())).await
    }

    async fn download(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        self.within_stream(self.begin_download(request.into_inner())).await
    }

    async fn set(&self, request: Request<wire::SetRequest>) -> Result<Response<wire::SetResponse>, Status> {
        self.within(self.write(request.into_inner())).await
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadChunk>>,
    ) -> Result<Response<wire::SetResponse>, Status> {
        self.receive(request.into_inner()).await.map(Response::new).map_err(|e| to_status(&e))
    }

    async fn get_many(
        &self,
        request: Request<wire::GetManyRequest>,
    ) -> Result<Response<Self::GetManyStream>, Status> {
        self.within_stream(async {
            let names = names_from(request.into_inner().names)?;
            let found = self.store.get_many(names).await?;
            Ok(many::send_found(&self.tasks, self.idle, found))
        })
        .await
    }

    async fn set_many(
        &self,
        request: Request<wire::SetManyRequest>,
    ) -> Result<Response<wire::SetManyResponse>, Status> {
        self.within(async {
            let (sets, unread) = self.sets(request.into_inner())?;
            let done = self.store.set_many(sets).await?;
            Ok(many::set_results_to(many::merged(done, unread)))
        })
        .await
    }

    async fn copy(
        &self,
        request: Request<wire::CopyRequest>,
    ) -> Result<Response<wire::CopyResponse>, Status> {
        self.within(async {
            let (id, from, to) = self.copied(request.into_inner())?;
            Ok((&self.store.copy(id, from, to).await?).into())
        })
        .await
    }

    async fn rename(
        &self,
        request: Request<wire::CopyRequest>,
    ) -> Result<Response<wire::CopyResponse>, Status> {
        self.within(async {
            let (id, from, to) = self.copied(request.into_inner())?;
            Ok((&self.store.rename(id, from, to).await?).into())
        })
        .await
    }

    async fn stat_many(
        &self,
        request: Request<wire::StatManyRequest>,
    ) -> Result<Response<wire::StatManyResponse>, Status> {
        self.within(async {
            let stats = self.store.stat_many(names_from(request.into_inner().names)?).await?;
            Ok(many::stats_to(&stats))
        })
        .await
    }

    async fn bind(&self, request: Request<wire::BindRequest>) -> Result<Response<wire::SetResponse>, Status> {
        self.within(self.bind_stored(request.into_inner())).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let request = request.into_inner();
        self.within(async {
            let names = names_from(request.names)?;
            let mode = mode_from(request.mode, request.deadline_ms)?;
            Ok(self.store.delete_in(self.id(request.id)?, names, mode).await?.into())
        })
        .await
    }

    async fn delete_prefix(
        &self,
        request: Request<wire::DeletePrefixRequest>,
    ) -> Result<Response<wire::DeletePrefixResponse>, Status> {
        let wire::DeletePrefixRequest { id, namespace, prefix } = request.into_inner();
        self.within(async {
            let prefix = Prefix::new(&namespace_from(&namespace)?, &prefix)?;
            let done = self.store.delete_prefix(self.id(id)?, prefix).await?;
            Ok(wire::DeletePrefixResponse { removed: done.removed, revision: done.revision.0, loss_ms: 0 })
        })
        .await
    }

    async fn stat(
        &self,
        request: Request<wire::StatRequest>,
    ) -> Result<Response<wire::StatResponse>, Status> {
        self.within(async {
            let request = request.into_inner();
            let target = target_from(request.target)?;
            let stat: Option<Stat> = match wait_from(request.stale_ok, request.wait_ms) {
                Some(wait) => self.store.stat_stale(target, wait).await?,
                None => self.store.stat(target).await?,
            };
            Ok(stat.as_ref().map(Into::into).unwrap_or_default())
        })
        .await
    }

    async fn exists(
        &self,
        request: Request<wire::ExistsRequest>,
    ) -> Result<Response<wire::ExistsResponse>, Status> {
        self.within(async {
            let exists = self.store.exists(names_from(request.into_inner().names)?).await?;
            Ok(wire::ExistsResponse { exists, loss_ms: 0 })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        self.within(async { Ok(self.store.list(request.into_inner().try_into()?).await?.into()) }).await
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let of = request.extensions().get::<OfConnection>().cloned();
        self.within_stream(async {
            let of = of.ok_or_else(|| Error::internal("a call without a connection: report this"))?;
            let place = of.enter()?;
            let watching = self.store.watch(request.into_inner().try_into()?).await?;
            Ok(watch_wire::send(&self.tasks, self.idle, of, place, watching))
        })
        .await
    }

    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let wire::ApplyRequest { id, transaction } = request.into_inner();
        self.within(async {
            let transaction = transaction_from(transaction)?;
            let done = self.store.apply(self.id(id)?, transaction).await?;
            Ok(applied_to(&mut Packer::new(32), &done))
        })
        .await
    }

    async fn namespaces(
        &self,
        _: Request<wire::NamespacesRequest>,
    ) -> Result<Response<wire::NamespacesResponse>, Status> {
        self.within(async { Ok(namespaces_to(self.store.namespaces().await?)) }).await
    }

    async fn create_namespace(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::NamespaceResponse>, Status> {
        let wire::CreateNamespaceRequest { id, namespace, mode, ttl_ms } = request.into_inner();
        self.within(async {
            let (namespace, spec) = (named_namespace(&namespace)?, spec_from(mode, ttl_ms)?);
            Ok(self.store.create_namespace(self.id(id)?, namespace, spec).await?.into())
        })
        .await
    }

    async fn drop_namespace(
        &self,
        request: Request<wire::DropNamespaceRequest>,
    ) -> Result<Response<wire::NamespaceResponse>, Status> {
        let wire::DropNamespaceRequest { id, namespace } = request.into_inner();
        self.within(async {
            let namespace = named_namespace(&namespace)?;
            Ok(self.store.drop_namespace(self.id(id)?, namespace).await?.into())
        })
        .await
    }

    async fn locals(
        &self,
        request: Request<wire::LocalsRequest>,
    ) -> Result<Response<wire::LocalsResponse>, Status> {
        self.within(async {
            let name = request.into_inner().name.map(Name::try_from).transpose()?;
            Ok(self.store.locals(name).await?.into())
        })
        .await
    }

    async fn why(&self, request: Request<wire::WhyRequest>) -> Result<Response<wire::WhyResponse>, Status> {
        self.within(async { Ok(self.store.why(name_from(request.into_inner().name)?).await?.into()) }).await
    }

    async fn evict(
        &self,
        request: Request<wire::EvictRequest>,
    ) -> Result<Response<wire::HeldResponse>, Status> {
        self.within(async {
            let names = names_from(request.into_inner().names)?;
            check_names(&names)?;
            Ok(wire::HeldResponse { done: self.store.evict(names).await?, loss_ms: 0 })
        })
        .await
    }

    async fn pin(&self, request: Request<wire::PinRequest>) -> Result<Response<wire::HeldResponse>, Status> {
        self.within(async {
            let wire::PinRequest { names, keep } = request.into_inner();
            let names = names_from(names)?;
            check_names(&names)?;
            Ok(wire::HeldResponse { done: self.store.pin(names, keep).await?, loss_ms: 0 })
        })
        .await
    }

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        self.within(async { Ok(self.store.status().await?.into()) }).await
    }
}
