//! Calls that move payload: gRPC on the wire like all others, but payload is not copied on its way.
//!
//! tonic copies each message into the buffer that it sends, and out of the frames that it receives; at
//! gigabytes a second that is a third of the work above the kernel. Here a message's payload goes out as the
//! bytes it is, after a frame with all that precedes it, and comes in as the frame it came in.
//!
//! Invariants: what is on the wire is what tonic would read and write; a message is at most as long as the
//! limit, and so is what is held of one that is not complete; a stream ends after its first error, and is
//! whole only if its end says so.
//! Must never know what a payload is for.

use crate::codec;
use crate::dial::Channel;
use crate::shape::Shaped;
use crate::transfer::WireStream;
use crate::wire;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use dstore_sys::net::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::{Body as _, Frame};
use prost::encoding::{WireType, encode_key, encode_varint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Shorter parts are copied together: a frame each, or a part each of what is held, would cost more.
const SHORT: usize = 16 << 10;
/// The field that holds the payload, in every message that has one.
const PAYLOAD_FIELD: u32 = 2;

/// A message of a call that moves payload.
pub(crate) trait Parts: Shaped + Send + 'static {
    /// The payload, which is then no longer in the message.
    fn take_payload(&mut self) -> Bytes {
        Bytes::new()
    }
}

macro_rules! payload {
    ($($message:ident)*) => {
        $(impl Parts for wire::$message {
            fn take_payload(&mut self) -> Bytes {
                std::mem::take(&mut self.data)
            }
        })*
    };
}

payload! { StageChunk FetchChunk UploadChunk DownloadChunk }
impl Parts for wire::StageResponse {}
impl Parts for wire::FetchRequest {}
impl Parts for wire::SetResponse {}
impl Parts for wire::GetRequest {}

/// All of `message` up to its payload, and its payload if that is not short.
fn encode<M: Parts>(mut message: M) -> (Bytes, Bytes) {
    let payload = message.take_payload();
    let mut fields = BytesMut::with_capacity(message.encoded_len() + 16);
    message.encode_raw(&mut fields);
    if !payload.is_empty() {
        encode_key(PAYLOAD_FIELD, WireType::LengthDelimited, &mut fields);
        encode_varint(payload.len() as u64, &mut fields);
    }
    let own = if payload.len() < SHORT { payload.len() } else { 0 };
    let mut head = BytesMut::with_capacity(PREFIX + fields.len() + own);
    head.put_u8(0);
    head.put_u32((fields.len() + payload.len()) as u32);
    head.put_slice(&fields);
    if payload.len() < SHORT {
        head.put_slice(&payload);
        return (head.freeze(), Bytes::new());
    }
    (head.freeze(), payload)
}

/// Messages on their way out.
struct Sending<S> {
    messages: Option<S>,
    payload: Bytes,
    /// An answer says how it ended; a request just ends.
    is_answer: bool,
}

impl<M: Parts, S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static> Sending<S> {
    fn body(messages: S, is_answer: bool) -> Body {
        Body::new(Self { messages: Some(messages), payload: Bytes::new(), is_answer })
    }

    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.messages = None;
        if self.is_answer {
            let mut trailers = HeaderMap::new();
            return Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)));
        }
        (status.code() != Code::Ok).then_some(Err(status))
    }
}

impl<M: Parts, S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static> hyper::body::Body
    for Sending<S>
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let payload = std::mem::take(&mut self.payload);
        if !payload.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        Poll::Ready(match ready!(messages.poll_next_unpin(cx)) {
            Some(Ok(message)) => {
                let (head, payload) = encode(message);
                self.payload = payload;
                Some(Ok(Frame::data(head)))
            }
            Some(Err(status)) => self.end(status),
            None => self.end(Status::ok("")),
        })
    }
}

/// Bytes that have come and are not read yet, in the parts they came in.
#[derive(Default)]
struct Held {
    parts: VecDeque<Bytes>,
    len: usize,
    /// Short parts after those.
    short: BytesMut,
}

impl Held {
    fn push(&mut self, part: Bytes) {
        if part.len() < SHORT {
            self.short.extend_from_slice(&part);
        } else {
            self.close_short();
            self.len += part.len();
            self.parts.push_back(part);
        }
    }

    fn close_short(&mut self) {
        if !self.short.is_empty() {
            self.len += self.short.len();
            self.parts.push_back(self.short.split().freeze());
        }
    }

    /// Whether so many bytes are there; if so they can be read.
    fn has(&mut self, n: usize) -> bool {
        if self.len < n && self.len + self.short.len() >= n {
            self.close_short();
        }
        self.len >= n
    }

    fn is_empty(&self) -> bool {
        self.len + self.short.len() == 0
    }
}

impl Buf for Held {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(part) = self.parts.front_mut().filter(|_| n > 0) {
            let read = n.min(part.len());
            part.advance(read);
            n -= read;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
    }

    /// Without a copy if they lie in one part.
    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        match self.parts.front_mut() {
            Some(part) if part.len() >= n => {
                let bytes = part.split_to(n);
                self.len -= n;
                if part.is_empty() {
                    self.parts.pop_front();
                }
                bytes
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(n);
                bytes.put(self.take(n));
                bytes.freeze()
            }
        }
    }
}

/// Messages that come in. Its first error is its end.
pub(crate) struct Receiving<M> {
    body: Option<Body>,
    held: Held,
    /// Of the message that is coming, once its prefix was read.
    due: Option<usize>,
    len_max: usize,
    is_answer: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: Parts> Receiving<M> {
    fn new(body: Body, len_max: usize, is_answer: bool) -> Self {
        Self { body: Some(body), held: Held::default(), due: None, len_max, is_answer, message: PhantomData }
    }

    /// The next message; `None` at the end.
    ///
    /// # Cancel safety
    /// A cancelled call loses nothing.
    pub(crate) async fn message(&mut self) -> Result<Option<M>, Status> {
        self.next().await.transpose()
    }

    /// The message that has come, if it is complete.
    fn complete(&mut self) -> Result<Option<M>, Status> {
        if self.due.is_none() && self.held.has(PREFIX) {
            let compressed = self.held.get_u8() != 0;
            let len = self.held.get_u32() as usize;
            if compressed {
                return Err(Status::unimplemented("compressed messages are not read here: send them plain"));
            }
            if len > self.len_max {
                let max = self.len_max;
                return Err(Status::out_of_range(format!("a message of `{len}` bytes, at most `{max}`")));
            }
            self.due = Some(len);
        }
        let Some(len) = self.due.filter(|len| self.held.has(*len)) else { return Ok(None) };
        self.due = None;
        codec::read_pieces(&mut self.held, len).map(Some).map_err(|e| crate::status::to_status(&e))
    }

    /// What the end of the body means: `Ok` if it is whole.
    fn ended(&self, trailers: Option<&HeaderMap>) -> Result<(), Status> {
        if self.is_answer {
            let status = trailers.and_then(Status::from_header_map);
            let status = status.unwrap_or_else(|| Status::unavailable("the answer ended without a status"));
            if status.code() != Code::Ok {
                return Err(status);
            }
        }
        if self.due.is_some() || !self.held.is_empty() {
            return Err(Status::internal("the stream ended within a message"));
        }
        Ok(())
    }
}

impl<M: Parts> Stream for Receiving<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.body.is_none() {
            return Poll::Ready(None);
        }
        let end = loop {
            match self.complete() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => break Err(status),
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.held.push(data),
                Some(Ok(Err(other))) => break self.ended(other.trailers_ref()),
                Some(Err(status)) => break Err(status),
                None => break self.ended(None),
            }
        };
        self.body = None;
        Poll::Ready(end.err().map(Err))
    }
}

/// Sends `messages` to `path`, and gives the one that answers them.
pub(crate) async fn send<M: Parts, A: Parts>(
    channel: Channel,
    path: &'static str,
    messages: impl Stream<Item = M> + Send + Unpin + 'static,
    len_max: usize,
) -> Result<A, Status> {
    let mut answer = call(channel, path, messages, len_max).await?;
    let none = || Status::internal("the answer has no message");
    let message = answer.message().await?.ok_or_else(none)?;
    match answer.message().await? {
        None => Ok(message),
        Some(_) => Err(Status::internal("the answer has more than one message")),
    }
}

/// Sends `messages` to `path`, and gives those that answer them.
pub(crate) async fn call<M: Parts, A: Parts>(
    channel: Channel,
    path: &'static str,
    messages: impl Stream<Item = M> + Send + Unpin + 'static,
    len_max: usize,
) -> Result<Receiving<A>, Status> {
    let mut request = Request::new(Sending::body(messages.map(Ok), false));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let response = channel.oneshot(request).await.map_err(|e| Status::from_error(Box::new(e)))?;
    if let Some(status) = Status::from_header_map(response.headers()).filter(|s| s.code() != Code::Ok) {
        return Err(status);
    }
    if response.status() != http::StatusCode::OK {
        return Err(Status::unavailable(format!("the answer is HTTP {}", response.status())));
    }
    Ok(Receiving::new(response.into_body(), len_max, true))
}

/// What a service does with the calls that move payload.
pub(crate) trait Bulk: Send + Sync + 'static {
    /// Where `up` is called.
    const UP: &'static str;
    /// Where `down` is called.
    const DOWN: &'static str;
    type Piece: Parts;
    type Done: Parts;
    type Wanted: Parts;
    type Part: Parts;

    /// Takes a stream of payload.
    fn up(&self, pieces: Receiving<Self::Piece>) -> impl Future<Output = Result<Self::Done, Status>> + Send;

    /// Gives one.
    fn down(
        &self,
        wanted: Self::Wanted,
    ) -> impl Future<Output = Result<WireStream<Self::Part>, Status>> + Send;
}

/// A service whose bulk calls are served here, and all others by `rest`, which tonic generated.
pub(crate) struct WithBulk<G, S> {
    rest: G,
    service: Arc<S>,
    len_max: usize,
}

impl<G, S> WithBulk<G, S> {
    /// `len_max` bounds the messages that come in.
    pub(crate) fn new(rest: G, service: Arc<S>, len_max: usize) -> Self {
        Self { rest, service, len_max }
    }
}

impl<G: Clone, S> Clone for WithBulk<G, S> {
    fn clone(&self) -> Self {
        Self { rest: self.rest.clone(), service: self.service.clone(), len_max: self.len_max }
    }
}

impl<G: NamedService, S> NamedService for WithBulk<G, S> {
    const NAME: &'static str = G::NAME;
}

impl<G, S: Bulk> Service<Request<Body>> for WithBulk<G, S>
where
    G: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    G::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.rest.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (service, len_max) = (self.service.clone(), self.len_max);
        // What is compressed is refused as tonic does it.
        let is = |path| request.uri().path() == path && !request.headers().contains_key("grpc-encoding");
        if is(S::UP) {
            return Box::pin(async move {
                let done = service.up(Receiving::new(request.into_body(), len_max, false)).await;
                Ok(answer(done.map(|done| stream::iter([Ok(done)]))))
            });
        }
        if is(S::DOWN) {
            return Box::pin(async move {
                let mut wanted = Receiving::new(request.into_body(), len_max, false);
                let none = || Status::internal("the request has no message");
                let parts = async { service.down(wanted.message().await?.ok_or_else(none)?).await };
                Ok(answer(parts.await))
            });
        }
        Box::pin(self.rest.call(request))
    }
}

fn answer<M: Parts>(
    messages: Result<impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static, Status>,
) -> Response<Body> {
    match messages {
        Err(status) => status.into_http(),
        Ok(messages) => {
            let mut response = Response::new(Sending::body(messages, true));
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(header::CONTENT_TYPE, grpc);
            response
        }
    }
}

#[cfg(feature = "fuzzing")]
#[path = "bulk_fuzzing.rs"]
mod fuzzing;
#[cfg(feature = "fuzzing")]
pub(crate) use fuzzing::pieces_of;

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
