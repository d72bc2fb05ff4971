//! Streams of payload: how they are bounded in memory and in time.
//!
//! Invariants: no piece is longer than a chunk; a transfer of which no piece moves for its idle deadline
//! ends; one that ends early ends with an error, never as if it were whole.

use bytes::Bytes;
use dstore_shared::limits::CHUNK_BYTES;
use dstore_shared::{BlobHash, BlobHasher, Error, Result};
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::status::{from_status, to_status};
use crate::store::BodyStream;

/// Chunks that wait between a source and a slow reader.
const CHUNKS_AHEAD: usize = 2;

/// What a gRPC service answers a stream with.
pub(crate) type WireStream<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Pieces of at most a chunk, whatever the lengths that come in; empty ones are left out.
pub(crate) fn chunked(body: BodyStream) -> BodyStream {
    Box::pin(stream::unfold((body, Bytes::new()), |(mut body, mut rest)| async move {
        while rest.is_empty() {
            match body.next().await? {
                Ok(piece) => rest = piece,
                Err(e) => return Some((Err(e), (body, rest))),
            }
        }
        let piece = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some((Ok(piece), (body, rest)))
    }))
}

/// Exactly `len` bytes, or an error: `Internal` if there are others.
pub(crate) fn exactly(body: BodyStream, len: u64) -> BodyStream {
    let state = (body, Some(len));
    Box::pin(stream::unfold(state, |(mut body, left)| async move {
        let left = left?;
        match body.next().await {
            None if left == 0 => None,
            Some(Err(e)) => Some((Err(e), (body, None))),
            Some(Ok(piece)) if piece.len() as u64 <= left => {
                let left = left - piece.len() as u64;
                Some((Ok(piece), (body, Some(left))))
            }
            _ => Some((Err(Error::internal("a blob has another length than its entry says")), (body, None))),
        }
    }))
}

/// Sends `first`, then the pieces of `body`. Gives up a reader that takes nothing, or a body that gives
/// nothing, for `idle`; then the body is dropped and the stream ends with an error.
pub(crate) fn pump<M: Send + 'static>(
    tasks: &Tasks,
    idle: Duration,
    first: M,
    body: BodyStream,
    message: fn(Bytes) -> M,
) -> WireStream<M> {
    let rest = chunked(body).map(move |piece| piece.map(message));
    pump_all(tasks, idle, Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

/// As [`pump`], of messages that are made already.
pub(crate) fn pump_all<M: Send + 'static>(
    tasks: &Tasks,
    idle: Duration,
    mut messages: Pin<Box<dyn Stream<Item = Result<M>> + Send>>,
) -> WireStream<M> {
    let (out, mut pieces) = mpsc::channel::<Option<Result<M, Status>>>(CHUNKS_AHEAD);
    tasks.spawn("transfer", async move {
        loop {
            let piece = tokio::select! {
                biased;
                () = out.closed() => return,
                piece = tokio::time::timeout(idle, messages.next()) => match piece {
                    Ok(Some(piece)) => piece.map_err(|e| to_status(&e)),
                    Ok(None) => break,
                    Err(_) => Err(to_status(&stalled(idle))),
                },
            };
            let ends = piece.is_err();
            let sent = tokio::time::timeout(idle, out.send(Some(piece))).await;
            if ends || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        // Says that the end is the end.
        let _ = tokio::time::timeout(idle, out.send(None)).await;
    });
    let mut done = false;
    Box::pin(stream::poll_fn(move |cx| {
        if done {
            return Poll::Ready(None);
        }
        pieces.poll_recv(cx).map(|piece| {
            let piece = piece.unwrap_or_else(|| Some(Err(to_status(&stalled(idle)))));
            done = !matches!(piece, Some(Ok(_)));
            piece
        })
    }))
}

fn stalled(idle: Duration) -> Error {
    Error::unavailable(format!("the transfer did not move for `{idle:?}` and was given up: try again"))
}

/// What the receiver of an upload knows about it beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) size: Option<u64>,
    pub(crate) hash: Option<BlobHash>,
}

/// An upload as a body: `first`, then the payloads of `rest`. Ends with an error if the sender goes away,
/// stalls, or sends other bytes than it announced. The receiver gets a signal when it has ended.
pub(crate) fn upload<M: Send + 'static>(
    first: Bytes,
    rest: impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
    payload: fn(M) -> Bytes,
    expected: Expected,
    idle: Duration,
) -> (BodyStream, oneshot::Receiver<()>) {
    let (ended, end) = oneshot::channel();
    let upload =
        Upload { first: Some(first), rest, payload, check: Check::new(expected), idle, _ended: ended };
    (Box::pin(stream::unfold(Some(upload), |upload| async { upload?.next().await })), end)
}

struct Upload<M, R> {
    first: Option<Bytes>,
    rest: R,
    payload: fn(M) -> Bytes,
    check: Check,
    idle: Duration,
    /// Its drop is the signal.
    _ended: oneshot::Sender<()>,
}

impl<M, R: Stream<Item = Result<M, Status>> + Unpin> Upload<M, R> {
    async fn next(mut self) -> Option<(Result<Bytes>, Option<Self>)> {
        loop {
            let piece = match self.first.take() {
                Some(first) => first,
                None => match tokio::time::timeout(self.idle, self.rest.next()).await {
                    Ok(Some(Ok(message))) => (self.payload)(message),
                    Ok(Some(Err(status))) => {
                        let cause = from_status(&status);
                        let cut = Error::closed("the upload was cut off: send it again").caused_by(cause);
                        return Some((Err(cut), None));
                    }
                    Ok(None) => return self.check.at_end().err().map(|e| (Err(e), None)),
                    Err(_) => return Some((Err(stalled(self.idle)), None)),
                },
            };
            if let Err(e) = self.check.take(&piece) {
                return Some((Err(e), None));
            }
            if !piece.is_empty() {
                return Some((Ok(piece), Some(self)));
            }
        }
    }
}

/// Compares an upload with what was announced.
struct Check {
    expected: Expected,
    size: u64,
    hasher: Option<BlobHasher>,
}

impl Check {
    fn new(expected: Expected) -> Self {
        Self { expected, size: 0, hasher: expected.hash.map(|_| BlobHasher::new()) }
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.size += piece.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        match self.expected.size {
            Some(size) if self.size > size => Err(Error::invalid(format!(
                "the upload has more than the `{size}` bytes that it announced: announce its length or none"
            ))),
            _ => Ok(()),
        }
    }

    fn at_end(&self) -> Result<()> {
        let found = self.size;
        if let Some(size) = self.expected.size.filter(|size| *size != found) {
            return Err(Error::invalid(format!(
                "the upload ended after `{found}` of `{size}` bytes: send all of them"
            )));
        }
        let found = self.hasher.as_ref().map(BlobHasher::finish);
        match (self.expected.hash, found) {
            (Some(expected), Some(found)) if expected != found => Err(Error::corrupt(format!(
                "the upload should be blake3:{expected} but is blake3:{found}: send it again"
            ))),
            _ => Ok(()),
        }
    }
}

/// What a gRPC client sends as a stream. A type of its own, because rustc cannot prove that a future which
/// holds the bare box is `Send` (rust-lang/rust#100013).
pub(crate) struct Outgoing<M>(Pin<Box<dyn Stream<Item = M> + Send>>);

impl<M> Outgoing<M> {
    pub(crate) fn new(messages: impl Stream<Item = M> + Send + 'static) -> Self {
        Self(Box::pin(messages))
    }
}

impl<M> Stream for Outgoing<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// How far an upload has come, for whoever judges whether it moves.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    moved: AtomicU64,
    starves: AtomicBool,
    ended: AtomicBool,
}

impl Sent {
    /// The transport took all of the body.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Resolves when the transport took nothing for `idle`. Time in which it was the body that gave nothing
    /// does not count.
    pub(crate) async fn stalled(&self, idle: Duration) {
        let mut before = None;
        loop {
            let now = self.moved.load(Ordering::Relaxed);
            if before == Some(now) && !self.starves.load(Ordering::Relaxed) {
                return;
            }
            before = Some(now);
            tokio::time::sleep(idle).await;
        }
    }

    /// The next piece of `body`; an empty one when `body` gave none for a while.
    async fn next(&self, body: &mut BodyStream, keep_alive: Duration) -> Option<Result<Bytes>> {
        self.starves.store(true, Ordering::Relaxed);
        let next = tokio::time::timeout(keep_alive, body.next()).await;
        self.starves.store(false, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        let next = next.unwrap_or_else(|_| Some(Ok(Bytes::new())));
        self.ended.fetch_or(next.is_none(), Ordering::Relaxed);
        next
    }
}

/// `first`, then the pieces of `body`, and an empty one whenever `body` has given none for `keep_alive`: the
/// receiver is to know that it only waits. Counts in `sent`. When `body` fails its error goes to `failed`
/// and the stream waits for ever, so that the receiver cannot take it for whole: drop the call then.
pub(crate) fn outgoing<M: Send + 'static>(
    first: M,
    body: BodyStream,
    message: fn(Bytes) -> M,
    keep_alive: Duration,
    sent: Arc<Sent>,
    failed: oneshot::Sender<Error>,
) -> Outgoing<M> {
    let state = (chunked(body), failed, sent);
    let rest = stream::unfold(state, move |(mut body, failed, sent)| async move {
        match sent.next(&mut body, keep_alive).await? {
            Ok(piece) => Some((message(piece), (body, failed, sent))),
            Err(e) => {
                _ = failed.send(e);
                std::future::pending().await
            }
        }
    });
    Outgoing::new(stream::iter([first]).chain(rest))
}
