//! A Local's side of the tier link.

use super::host::{FETCH, STAGE};
use super::{Frames, NotGlobal, cut, frames, frames_or};
use crate::bulk::{self, Receiving};
use crate::convert::{
    create_namespace_to, down_from, drop_namespace_to, namespaces_from, pack_requests, read_replies, up_to,
};
use crate::dial::{Channel, Dial};
use crate::loss::Noted;
use crate::remote_store::{in_time, send_all};
use crate::status::from_status;
use crate::store::{Body, BodyStream, ListQuery, Listing, Locals, Slice, Why};
use crate::transfer::Outgoing;
use crate::watch::{WatchQuery, Watching};
use crate::watch_wire;
use crate::wire;
use crate::wire::link_client::LinkClient as Grpc;
use crate::wire::store_client::StoreClient;
use bytes::{Bytes, BytesMut};
use dstore_shared::frame::{Down, Reply, Request, Up};
use dstore_shared::limits::WATCHES_PER_CONNECTION;
use dstore_shared::{
    BlobHash, BlobHasher, Error, GROUP_BYTES, Name, Namespace, NamespaceInfo, NamespaceOutcome,
    NamespaceSpec, Outline, RequestId, Result,
};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, Stream, TryStreamExt};
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Response, Status, Streaming};

/// Session frames that wait to be sent before their sender waits.
const UP_AHEAD: usize = 64;
/// Batches of requests that wait to be sent before their sender waits.
const BATCHES_AHEAD: usize = 16;
/// Bytes of a watch that may come before they are read.
const WATCH_WINDOW_BYTES: u32 = 128 << 10;
const GROUP: u64 = GROUP_BYTES as u64;

/// What a Local asks of Global: four connections, made when first used, so that neither requests nor bulk
/// delay the session, and watches take no place of calls.
#[derive(Clone, Debug)]
pub struct LinkClient {
    session: Grpc<Channel>,
    requests: Grpc<Channel>,
    /// Global's own `Store`, on the connection of the requests.
    store: StoreClient<Channel>,
    /// Global's own `Store`, for watches, which last: on a connection of its own.
    watches: StoreClient<Channel>,
    bulk: Channel,
    frame: usize,
    tasks: Tasks,
    address: Address,
    call: Duration,
    idle: Duration,
}

impl LinkClient {
    /// A link to the Global at `address`; nothing is sent yet. `tasks` owns its connections.
    pub fn new(sys: &Sys, tasks: &Tasks, address: &Address, dial: &Dial) -> Self {
        let channel = || Channel::new(sys, tasks, address, dial);
        let limited = |channel| {
            Grpc::new(channel)
                .max_decoding_message_size(dial.frame_bytes)
                .max_encoding_message_size(dial.frame_bytes)
        };
        let grpc = || limited(channel());
        let (session, bulk, frame) = (grpc(), channel(), dial.frame_bytes);
        let asked = channel();
        let requests = limited(asked.clone());
        let store = StoreClient::new(asked).max_decoding_message_size(frame);
        // A watch that is not read must not keep the others from what they wait for.
        let narrow = Dial {
            stream_window_bytes: WATCH_WINDOW_BYTES,
            connection_window_bytes: WATCH_WINDOW_BYTES * (WATCHES_PER_CONNECTION as u32 + 1),
            ..dial.clone()
        };
        let watches =
            StoreClient::new(Channel::new(sys, tasks, address, &narrow)).max_decoding_message_size(frame);
        let (tasks, address, call, idle) = (tasks.clone(), address.clone(), dial.call, dial.transfer_idle);
        Self { session, requests, store, watches, bulk, frame, tasks, address, call, idle }
    }

    /// Where Global is to be.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Opens a session stream, on which HELLO must be sent first. Returns at once; if the call fails, that is
    /// the stream's first item; it is `Invalid` and caused by [`NotGlobal`] if no sessions are served there.
    /// Dropping either half ends it.
    pub fn open_session(&self) -> (UpSink, Frames<Down>) {
        let (sink, queue) = mpsc::channel(UP_AHEAD);
        let mut client = self.session.clone();
        let open = async move { client.session(queued(queue)).await };
        let address = self.address.clone();
        let frames = frames_or(self.opened(open), down_from, move |status| {
            if status.code() == Code::Unimplemented { not_global(&address) } else { from_status(status) }
        });
        (UpSink(sink), frames)
    }

    /// Opens a stream of requests. As [`LinkClient::open_session`].
    pub fn open_requests(&self) -> (RequestSink, Frames<Vec<Reply>>) {
        let (sink, queue) = mpsc::channel(BATCHES_AHEAD);
        let mut client = self.requests.clone();
        let open = async move { client.requests(queued(queue)).await };
        (RequestSink(sink), frames(self.opened(open), read_replies))
    }

    /// The messages of a call, which begins now, whether or not they are asked for, and must begin in time.
    fn opened<M: Send + 'static>(
        &self,
        open: impl Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
        let limit = self.call;
        let (mut opened, answer) = oneshot::channel();
        self.tasks.spawn("open", async move {
            let late = |_| Err(Status::unavailable(format!("global does not answer within `{limit:?}`")));
            tokio::select! {
                biased;
                () = opened.closed() => {}
                answer = tokio::time::timeout(limit, open) => {
                    _ = opened.send(answer.unwrap_or_else(late).map(Response::into_inner));
                }
            }
        });
        let stopped = |_| Err(Status::unavailable("this process is stopping"));
        stream::once(async move { answer.await.unwrap_or_else(stopped) }).try_flatten()
    }

    /// Stages a blob at Global, where it is kept for the sweep grace, and gives its hash and length.
    ///
    /// # Errors
    /// `Unavailable`, `TooLarge`, `Exhausted`, `Corrupt` if Global received other bytes, or what ended `body`.
    ///
    /// # Cancel safety
    /// Dropping it aborts the upload; Global keeps nothing of it.
    pub async fn stage(&self, body: Body) -> Result<(BlobHash, u64)> {
        let (size, expected) = match &body {
            Body::Blob(blob) => (Some(blob.size()), Some(blob.id())),
            Body::Bytes(bytes) => (Some(bytes.len() as u64), None),
            Body::Stream(_) => (None, None),
        };
        let sent = Arc::<Mutex<BlobHasher>>::default();
        let hasher = sent.clone();
        let body = match body {
            Body::Blob(blob) => Body::Blob(blob),
            // Of what nobody knows the hash yet, both ends hash what they see.
            body => Body::Stream(Box::pin(body.into_stream().inspect_ok(move |piece| {
                hasher.lock().update(piece);
            }))),
        };
        let first = wire::StageChunk { size, data: Bytes::new() };
        let message = |data| wire::StageChunk { size: None, data };
        let (channel, frame) = (self.bulk.clone(), self.frame);
        let send = move |chunks| bulk::send(channel, STAGE, chunks, frame);
        let staged: wire::StageResponse = send_all(self.idle, first, body, message, send).await?;
        let hash = BlobHash::from_slice(&staged.hash)?;
        if expected.unwrap_or_else(|| sent.lock().finish()) != hash {
            return Err(Error::corrupt(format!("global received blake3:{hash} instead: stage it again")));
        }
        Ok((hash, staged.size))
    }

    /// A page of Global's names.
    ///
    /// # Errors
    /// `Unavailable` if Global does not answer in time, and what [`Store::list`](crate::store::Store::list)
    /// gives.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        let mut store = self.store.clone();
        let page = in_time(self.call, async { store.list(wire::ListRequest::from(query)).await }).await?;
        page.into_inner().try_into()
    }

    /// Global's namespaces.
    ///
    /// # Errors
    /// As [`Store::namespaces`](crate::store::Store::namespaces).
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        let mut store = self.store.clone();
        let told = in_time(self.call, async { store.namespaces(wire::NamespacesRequest {}).await }).await?;
        namespaces_from(told.into_inner())
    }

    /// The Locals that are attached to Global.
    ///
    /// # Errors
    /// As [`Store::locals`](crate::store::Store::locals).
    pub async fn locals(&self, name: Option<&Name>) -> Result<Locals> {
        let (mut store, request) = (self.store.clone(), wire::LocalsRequest { name: name.map(Into::into) });
        in_time(self.call, async { store.locals(request).await }).await?.into_inner().try_into()
    }

    /// How Global reads a name now.
    ///
    /// # Errors
    /// As [`Store::why`](crate::store::Store::why).
    pub async fn why(&self, name: &Name) -> Result<Why> {
        let (mut store, request) = (self.store.clone(), wire::WhyRequest { name: Some(name.into()) });
        in_time(self.call, async { store.why(request).await }).await?.into_inner().try_into()
    }

    /// Creates a namespace at Global.
    ///
    /// # Errors
    /// As [`Store::create_namespace`](crate::store::Store::create_namespace).
    pub async fn create_namespace(
        &self,
        id: RequestId,
        namespace: &Namespace,
        spec: NamespaceSpec,
    ) -> Result<NamespaceOutcome> {
        let (mut store, request) = (self.store.clone(), create_namespace_to(&id, namespace, spec));
        let done = in_time(self.call, async { store.create_namespace(request).await }).await?;
        done.into_inner().try_into()
    }

    /// Drops a namespace at Global.
    ///
    /// # Errors
    /// As [`Store::drop_namespace`](crate::store::Store::drop_namespace).
    pub async fn drop_namespace(&self, id: RequestId, namespace: &Namespace) -> Result<NamespaceOutcome> {
        let (mut store, request) = (self.store.clone(), drop_namespace_to(&id, namespace));
        let done = in_time(self.call, async { store.drop_namespace(request).await }).await?;
        done.into_inner().try_into()
    }

    /// Watches Global's names.
    ///
    /// # Errors
    /// As [`Store::watch`](crate::store::Store::watch).
    pub async fn watch(&self, query: &WatchQuery) -> Result<Watching> {
        watch_wire::begin(self.watches.clone(), self.call, query, &Noted::default()).await
    }

    /// Fetches a blob or a slice of it. `Ok(None)`: Global has no such blob. What is asked of Global is
    /// widened to whole groups, so that each can be verified before any of it is passed on.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt` if bytes do not match, `Invalid` for a slice past the end. After the header
    /// such errors end the body.
    pub async fn fetch(&self, hash: BlobHash, slice: Slice) -> Result<Option<Fetched>> {
        let offset = slice.offset - slice.offset % GROUP;
        let end = slice.len.and_then(|len| slice.offset.checked_add(len)).map(|end| end.div_ceil(GROUP));
        let len = end.and_then(|groups| groups.checked_mul(GROUP)).map(|end| end - offset);
        let request = wire::FetchRequest { hash: Bytes::copy_from_slice(hash.as_bytes()), offset, len };
        let (channel, request) = (self.bulk.clone(), stream::iter([request]));
        let (chunks, first) = in_time(self.call, async {
            let mut chunks: Receiving<wire::FetchChunk> =
                bulk::call(channel, FETCH, request, self.frame).await?;
            let first = chunks.message().await?;
            Ok((chunks, first))
        })
        .await?;
        let header = crate::convert::need(first.and_then(|chunk| chunk.header), "header")?;
        if !header.found {
            return Ok(None);
        }
        let outline = Outline::verify(&header.outline, header.size, hash)?;
        let wanted = slice.within(header.size)?;
        let groups =
            Groups { chunks, outline: outline.clone(), hash, next: offset / GROUP, rest: BytesMut::new() };
        let body = groups.verified(wanted, self.idle);
        Ok(Some(Fetched { size: header.size, outline, body }))
    }
}

/// A blob that is being fetched.
pub struct Fetched {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// Of the whole blob; verified, unless the blob has one group.
    pub outline: Outline,
    /// The bytes asked for, each verified. A stream that ends early ends with an error.
    pub body: BodyStream,
}

/// Takes whole groups from a stream of chunks.
struct Groups {
    chunks: Receiving<wire::FetchChunk>,
    outline: Outline,
    hash: BlobHash,
    next: u64,
    rest: BytesMut,
}

impl Groups {
    /// The bytes `wanted`, group by group.
    fn verified(self, wanted: std::ops::Range<u64>, idle: Duration) -> BodyStream {
        Box::pin(stream::unfold(Some(self), move |groups| {
            let wanted = wanted.clone();
            async move {
                let mut groups = groups?;
                let start = groups.next * GROUP;
                // An empty blob has one group too: its hash is checked all the same.
                if start >= wanted.end && (groups.outline.size() > 0 || groups.next > 0) {
                    return None;
                }
                match groups.group(idle).await {
                    Err(e) => Some((Err(e), None)),
                    Ok(group) => {
                        let from = wanted.start.saturating_sub(start).min(group.len() as u64) as usize;
                        let to = (wanted.end - start).min(group.len() as u64) as usize;
                        Some((Ok(group.slice(from.min(to)..to)), Some(groups)))
                    }
                }
            }
        }))
    }

    /// The next group, verified.
    async fn group(&mut self, idle: Duration) -> Result<Bytes> {
        let due = (self.outline.size().saturating_sub(self.next * GROUP)).min(GROUP) as usize;
        let mut whole = Bytes::new();
        while whole.is_empty() && self.rest.len() < due {
            let ended = || Error::unavailable("the fetch ended early: fetch it again");
            let piece = in_time(idle, self.chunks.message()).await?.ok_or_else(ended)?.data;
            if self.rest.is_empty() && piece.len() == due {
                whole = piece; // the common case, without a copy
            } else if self.rest.len() + piece.len() > due + GROUP_BYTES {
                return Err(Error::invalid("a fetch has longer pieces than a group: report this"));
            } else {
                self.rest.extend_from_slice(&piece);
            }
        }
        let group = if whole.is_empty() { self.rest.split_to(due).freeze() } else { whole };
        if !self.outline.matches(self.next, &group, self.hash) {
            let (next, hash) = (self.next, self.hash);
            return Err(Error::corrupt(format!(
                "group `{next}` of blake3:{hash} is damaged: set the value again"
            )));
        }
        self.next += 1;
        Ok(group)
    }
}

fn queued<M: Send + 'static>(mut queue: mpsc::Receiver<M>) -> Outgoing<M> {
    Outgoing::new(stream::poll_fn(move |cx| queue.poll_recv(cx)))
}

/// Sends session frames in order.
#[derive(Clone, Debug)]
pub struct UpSink(mpsc::Sender<wire::SessionUp>);

impl UpSink {
    /// Hands a frame over, waiting while 64 are waiting.
    ///
    /// # Errors
    /// `Closed` when the stream has ended.
    ///
    /// # Cancel safety
    /// A cancelled call has handed nothing over.
    pub async fn send(&self, frame: Up) -> Result<()> {
        self.0.send(up_to(frame)).await.map_err(|_| ended())
    }

    /// Hands a frame over if there is room.
    ///
    /// # Errors
    /// `Exhausted` when 64 are waiting, `Closed` when the stream has ended.
    pub fn try_send(&self, frame: Up) -> Result<()> {
        self.0.try_send(up_to(frame)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::exhausted("the session stream is full"),
            mpsc::error::TrySendError::Closed(_) => ended(),
        })
    }
}

/// Sends batches of requests.
#[derive(Clone, Debug)]
pub struct RequestSink(mpsc::Sender<wire::RequestBatch>);

impl RequestSink {
    /// Hands a batch of any length over, waiting while 16 are waiting. It is packed here, by the caller, and
    /// cut if it does not fit a frame.
    ///
    /// # Errors
    /// `Closed` when the stream has ended; `TooLarge` if a request carries more bytes than may travel with
    /// one: then that request's part of the batch and what follows is not sent.
    ///
    /// # Cancel safety
    /// A cancelled call may have handed over the first parts of a batch that had to be cut, never a part of a
    /// request.
    pub async fn send(&self, batch: Vec<Request>) -> Result<()> {
        for part in cut(batch) {
            self.0.send(pack_requests(part)?).await.map_err(|_| ended())?;
        }
        Ok(())
    }
}

fn not_global(address: &Address) -> Error {
    Error::invalid(format!(
        "`{address}` is not a Global, perhaps a Local: give the address of a `dstore global`"
    ))
    .caused_by(NotGlobal)
}

fn ended() -> Error {
    Error::closed("the stream to global has ended: open another")
}
