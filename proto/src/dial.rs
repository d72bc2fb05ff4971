//! Connecting: a gRPC channel over the [`Net`](dstore_sys::net::Net) seam.
//!
//! A channel connects when it is first used, and again after the connection failed; so a peer that is not
//! there yet costs each call an `Unavailable` and nothing else. It must never panic on what a peer sends.

use crate::wrapped::Wrapped;
use bytes::Bytes;
use dstore_shared::limits::FRAME_BYTES_MAX;
use dstore_sys::Sys;
use dstore_sys::net::{Address, BoxFuture, BoxIo};
use dstore_sys::tasks::Tasks;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::{Body as _, Frame};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::transport::{self, Endpoint};
use tower::Service;

/// How a client connects and how long it waits, each with its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// To connect. 2 s.
    pub connect: Duration,
    /// A whole unary call, its connecting included. 5 s.
    pub call: Duration,
    /// A transfer of which the other side moves no piece for this long is given up. 10 s: a disk that hangs is
    /// not waited for. Time in which an upload waits for its own input does not count.
    pub transfer_idle: Duration,
    /// Between two pings on a connection, idle or not. 10 s.
    pub keepalive: Duration,
    /// A ping that is not answered for this long ends the connection. 5 s.
    pub keepalive_timeout: Duration,
    /// Bytes of one message. 1 MiB, which both tiers agree on.
    pub frame_bytes: usize,
    /// Bytes of an answer's headers. 16 KiB.
    pub header_bytes: u32,
    /// Bytes in flight for one call before the sender waits. 1 MiB: one frame.
    pub stream_window_bytes: u32,
    /// Bytes in flight on one connection before its senders wait. 4 MiB: the peer is one that we chose.
    pub connection_window_bytes: u32,
    /// Calls that wait for the connection before the next caller waits outside. 1,024.
    pub queue: usize,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            call: Duration::from_secs(5),
            transfer_idle: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            frame_bytes: FRAME_BYTES_MAX,
            header_bytes: 16 << 10,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            queue: 1024,
        }
    }
}

/// A connection that is made when it is needed. Clones share it.
#[derive(Clone)]
pub struct Channel {
    inner: transport::Channel,
    address: Address,
}

impl Channel {
    /// A channel to `address`. `tasks` owns what it runs; when they stop, calls fail as `Unavailable`.
    pub fn new(sys: &Sys, tasks: &Tasks, address: &Address, dial: &Dial) -> Self {
        let endpoint = endpoint(address)
            .executor(Owned(tasks.clone()))
            .connect_timeout(dial.connect)
            .http2_keep_alive_interval(dial.keepalive)
            .keep_alive_timeout(dial.keepalive_timeout)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(dial.header_bytes)
            .initial_stream_window_size(dial.stream_window_bytes)
            .initial_connection_window_size(dial.connection_window_bytes)
            .max_frame_size(crate::DATA_FRAME_BYTES)
            .buffer_size(dial.queue);
        let (net, to) = (sys.net.clone(), address.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (net, to) = (net.clone(), to.clone());
            async move { net.connect(&to).await.map(TokioIo::new) as io::Result<TokioIo<BoxIo>> }
        });
        Self { inner: endpoint.connect_with_connector_lazy(connector), address: address.clone() }
    }

    /// Where it connects to.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.address)
    }
}

/// Only TCP has an authority worth telling; the connector ignores it anyway.
fn endpoint(address: &Address) -> Endpoint {
    let named = match address {
        Address::Tcp(host_port) => Endpoint::from_shared(format!("http://{host_port}")).ok(),
        Address::Unix(_) | Address::Memory(_) => None,
    };
    named.unwrap_or_else(|| Endpoint::from_static("http://localhost"))
}

/// Runs what a channel needs as tasks of an owner.
#[derive(Clone)]
struct Owned(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Owned {
    fn execute(&self, run: F) {
        self.0.spawn("connection", run);
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, transport::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (interest, lost) = oneshot::channel();
        let call = self.inner.call(request.map(|body| Body::new(outgoing(body, lost))));
        Box::pin(async move {
            let mut response = call.await?;
            drop_bad_details(response.headers_mut());
            Ok(response.map(|body| Body::new(checked(body, interest))))
        })
    }
}

/// A request that is reset when its answer was dropped. Without it hyper would wait for the next piece of the
/// request for ever, and the other side would not learn that nobody listens.
fn outgoing(
    body: Body,
    mut lost: oneshot::Receiver<Infallible>,
) -> impl hyper::body::Body<Data = Bytes, Error = tonic::Status> {
    Wrapped::new(body, move |body, cx| {
        if Pin::new(&mut lost).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(tonic::Status::cancelled("the caller went away"))));
        }
        body.poll_frame(cx)
    })
}

/// An answer whose trailers cannot make tonic panic; as long as it is held, the request goes on.
fn checked(
    body: Body,
    interest: oneshot::Sender<Infallible>,
) -> impl hyper::body::Body<Data = Bytes, Error = tonic::Status> {
    Wrapped::new(body, move |body, cx| {
        let _held = &interest;
        let mut frame = ready!(body.poll_frame(cx));
        if let Some(trailers) = frame.as_mut().and_then(|f| f.as_mut().ok()).and_then(Frame::trailers_mut) {
            drop_bad_details(trailers);
        }
        Poll::Ready(frame)
    })
}

/// tonic 0.14 panics when it reads a `grpc-status-details-bin` that is not base64
/// (`Status::from_header_map`), so one that might not be is not shown to it.
pub(crate) fn drop_bad_details(headers: &mut HeaderMap) {
    const DETAILS: &str = "grpc-status-details-bin";
    if headers.get_all(DETAILS).iter().any(|value| !is_base64(value.as_bytes())) {
        headers.remove(DETAILS);
    }
}

/// Whether `text` is canonical base64 (RFC 4648, section 4), padded or not.
fn is_base64(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let digits = &text[..text.len() - padding];
    let value = |b: &u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (due, spare_bits) = match digits.len() % 4 {
        0 => (0, 0),
        2 => (2, 0x0f),
        3 => (1, 0x03),
        _ => return false,
    };
    (padding == 0 || padding == due)
        && digits.iter().all(|b| value(b).is_some())
        && digits.last().and_then(value).is_none_or(|last| last & spare_bits == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_that_are_not_base64_never_reach_tonic() {
        for good in ["", "Zg", "Zg==", "Zm8", "Zm8=", "Zm9v", "+/+/"] {
            assert!(is_base64(good.as_bytes()), "{good}");
        }
        for bad in ["Z", "Zg=", "Zh", "Zm9", "Zm9v====", "Z-9v", "Zg==Zg==", "====", "Zm 9"] {
            assert!(!is_base64(bad.as_bytes()), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status-details-bin", http::HeaderValue::from_static("!!"));
        headers.insert("grpc-status", http::HeaderValue::from_static("3"));
        drop_bad_details(&mut headers);
        let status = tonic::Status::from_header_map(&headers).expect("a status");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}
