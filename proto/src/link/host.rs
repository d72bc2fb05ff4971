//! Global's side of the tier link.

use super::{Frames, cut_all, frames, until_error};
use crate::bulk::{Bulk, Receiving};
use crate::convert::{down_to, pack_replies, read_requests, up_from};
use crate::serve::Limits;
use crate::status::{from_status, to_status, with_code};
use crate::store::{BodyStream, Slice};
use crate::transfer::{self, Expected, WireStream};
use crate::wire::{self, link_server};
use bytes::Bytes;
use dstore_shared::frame::{Down, Reply, Request, Up};
use dstore_shared::{BlobHash, Error, Result};
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, Stream, StreamExt};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Code, Response, Status, Streaming};

/// A blob that Global sends to a Local.
pub struct Fetch {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// [`Outline::encode`](dstore_shared::Outline::encode) of the whole blob; empty for a blob of one group.
    pub outline: Bytes,
    /// The bytes asked for. Pieces that are whole groups save the receiver a copy.
    pub body: BodyStream,
}

/// What Global offers to its Locals.
///
/// A call's future, or the streams it was given and gave, are dropped when the peer or its connection goes
/// away; only `stage` runs to its end, with a body that ends with an error.
pub trait LinkHost: Send + Sync + 'static {
    /// One session. The first frame of `up` is [`Up::Hello`], of the protocol version that this build speaks;
    /// the others are in the order they were sent. What is put into the stream that is returned is sent in its
    /// order; it is asked for a frame only when the connection can take one, so whoever fills it must bound
    /// what waits there.
    ///
    /// # Errors
    /// Refuses the session.
    fn session(&self, up: Frames<Up>) -> impl Future<Output = Result<Frames<Down>>> + Send;

    /// One stream of requests. Replies may come in any order and in batches of any length.
    ///
    /// # Errors
    /// Refuses the stream.
    fn requests(&self, up: Frames<Vec<Request>>) -> impl Future<Output = Result<Frames<Vec<Reply>>>> + Send;

    /// Stages a blob, whose length is `size` if it is known (then `body` has so many bytes or ends with an
    /// error), and tells its hash and length.
    ///
    /// # Errors
    /// `TooLarge`, `Exhausted`, `Unavailable`, or the error that ended `body`.
    fn stage(
        &self,
        size: Option<u64>,
        body: BodyStream,
    ) -> impl Future<Output = Result<(BlobHash, u64)>> + Send;

    /// A blob's bytes, `slice` of them, which begins and ends at a group's border or the blob's end.
    /// `Ok(None)`: there is no such blob.
    ///
    /// # Errors
    /// `Corrupt` if the blob is known to be damaged, `Invalid` for a slice past the end.
    fn fetch(&self, hash: BlobHash, slice: Slice) -> impl Future<Output = Result<Option<Fetch>>> + Send;
}

pub(crate) struct LinkService<H> {
    host: Arc<H>,
    tasks: Tasks,
    first: Duration,
    handler: Duration,
    idle: Duration,
}

impl<H: LinkHost> LinkService<H> {
    pub(crate) fn new(host: Arc<H>, tasks: Tasks, limits: &Limits) -> Self {
        let (first, handler, idle) = (limits.first_request, limits.handler, limits.transfer_idle);
        Self { host, tasks, first, handler, idle }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Error::unavailable("global does not answer in time: try again"));
        tokio::time::timeout(self.handler, call).await.unwrap_or_else(late)
    }

    async fn begin_session(&self, mut up: Streaming<wire::SessionUp>) -> Result<Frames<Down>, Status> {
        let first = tokio::time::timeout(self.first, up.message()).await;
        let refuse = |e: &Error| with_code(Code::FailedPrecondition, e);
        let first =
            first.map_err(|_| refuse(&Error::unavailable("no HELLO came in time: send it first")))??;
        let hello = match first.map(up_from) {
            Some(Ok(hello @ Up::Hello(_))) => hello,
            Some(Err(e)) => return Err(refuse(&e)),
            _ => return Err(refuse(&Error::invalid("a session begins with HELLO: send it first"))),
        };
        let up = until_error(stream::iter([Ok(hello)]).chain(frames(up, up_from)));
        self.within(self.host.session(up)).await.map_err(|e| to_status(&e))
    }

    async fn receive<C>(&self, mut chunks: C) -> Result<wire::StageResponse>
    where
        C: Stream<Item = Result<wire::StageChunk, Status>> + Send + Unpin + 'static,
    {
        let first = tokio::time::timeout(self.idle, chunks.next()).await;
        let first = first.map_err(|_| Error::unavailable("no data came: send it again"))?;
        let first = first.transpose().map_err(|s| from_status(&s))?.unwrap_or_default();
        let expected = Expected { size: first.size, hash: None };
        let (body, sent) = transfer::upload(first.data, chunks, |chunk| chunk.data, expected, self.idle);
        let (done, result) = oneshot::channel();
        let host = self.host.clone();
        self.tasks.spawn("stage", async move {
            _ = done.send(host.stage(expected.size, body).await);
        });
        _ = sent.await;
        let stopped = |_| Error::unavailable("global is stopping: stage it again");
        let (hash, size) = self.within(async { result.await.map_err(stopped)? }).await?;
        Ok(wire::StageResponse { hash: Bytes::copy_from_slice(hash.as_bytes()), size })
    }

    async fn send(&self, request: wire::FetchRequest) -> Result<WireStream<wire::FetchChunk>> {
        let hash = BlobHash::from_slice(&request.hash)?;
        let slice = Slice { offset: request.offset, len: request.len };
        let (header, body) = match self.within(self.host.fetch(hash, slice)).await? {
            None => (wire::FetchHeader::default(), None),
            Some(Fetch { size, outline, body }) => {
                let range = slice.within(size)?;
                let body = transfer::exactly(body, range.end - range.start);
                (wire::FetchHeader { found: true, size, outline }, Some(body))
            }
        };
        let first = wire::FetchChunk { header: Some(header), data: Bytes::new() };
        let Some(body) = body else { return Ok(Box::pin(stream::iter([Ok(first)]))) };
        let message = |data| wire::FetchChunk { header: None, data };
        Ok(transfer::pump(&self.tasks, self.idle, first, body, message))
    }
}

/// Where blobs are staged.
pub(crate) const STAGE: &str = "/dstore.v1.Link/Stage";
/// Where blobs are fetched.
pub(super) const FETCH: &str = "/dstore.v1.Link/Fetch";

impl<H: LinkHost> Bulk for LinkService<H> {
    const UP: &'static str = STAGE;
    const DOWN: &'static str = FETCH;
    type Piece = wire::StageChunk;
    type Done = wire::StageResponse;
    type Wanted = wire::FetchRequest;
    type Part = wire::FetchChunk;

    async fn up(&self, pieces: Receiving<wire::StageChunk>) -> Result<wire::StageResponse, Status> {
        self.receive(pieces).await.map_err(|e| to_status(&e))
    }

    async fn down(&self, wanted: wire::FetchRequest) -> Result<WireStream<wire::FetchChunk>, Status> {
        self.send(wanted).await.map_err(|e| to_status(&e))
    }
}

#[tonic::async_trait]
impl<H: LinkHost> link_server::Link for LinkService<H> {
    type SessionStream = WireStream<wire::SessionDown>;
    type RequestsStream = WireStream<wire::ReplyBatch>;
    type FetchStream = WireStream<wire::FetchChunk>;

    async fn session(
        &self,
        up: tonic::Request<Streaming<wire::SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let down = self.begin_session(up.into_inner()).await?;
        Ok(Response::new(Box::pin(down.map(|frame| frame.map(down_to).map_err(|e| to_status(&e))))))
    }

    async fn requests(
        &self,
        up: tonic::Request<Streaming<wire::RequestBatch>>,
    ) -> Result<Response<Self::RequestsStream>, Status> {
        let requests = frames(up.into_inner(), read_requests);
        let replies = self.within(self.host.requests(requests)).await.map_err(|e| to_status(&e))?;
        let replies = cut_all(replies).map(|batch| batch.and_then(pack_replies).map_err(|e| to_status(&e)));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn stage(
        &self,
        chunks: tonic::Request<Streaming<wire::StageChunk>>,
    ) -> Result<Response<wire::StageResponse>, Status> {
        self.receive(chunks.into_inner()).await.map(Response::new).map_err(|e| to_status(&e))
    }

    async fn fetch(
        &self,
        request: tonic::Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        self.send(request.into_inner()).await.map(Response::new).map_err(|e| to_status(&e))
    }
}
