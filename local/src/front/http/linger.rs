//! What is left of a request's body when the answer is there: read on for a while, and kept nowhere.
//!
//! A caller who is refused before he has sent all, and cut off while he sends, may find nothing but a broken pipe: what
//! arrives at a closed socket resets the connection, and the answer in it is lost. So the answer is given at once, and
//! what is left is read beside it. Invariants: what is read so is bounded in bytes and in time; a caller who waits to be
//! told to go on is not told so. Over HTTP/2 nothing is needed: the stream ends, and the connection goes on.

use super::guard;
use axum::body::Body;
use axum::http::{Request, Version};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes that are read on: as many as a caller may well send without looking for an answer.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// For so long, or as long as a body may stand still if that is less.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The body of a request, given back if it is dropped before its end.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
    /// The caller sends it when it is first asked for.
    is_awaited: bool,
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_awaited = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !self.is_awaited && !body.is_end_stream());
        if let (Some(left), Some(back)) = (left, self.back.take()) {
            // Nobody is there if the connection is over.
            _ = back.send(left);
        }
    }
}

/// A request, and where its body comes back to if it is not read to its end; a request without one has none.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Body>, Option<oneshot::Receiver<Incoming>>) {
    if request.version() == Version::HTTP_2 || request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let (back, left) = oneshot::channel();
    let is_awaited = guard::is_awaited(request.headers(), request.version());
    let lent = |body| Body::new(Lent { body: Some(body), back: Some(back), is_awaited });
    (request.map(lent), Some(left))
}

/// Reads on, for a while; `idle`: for how long a body may stand still.
pub(super) async fn read_on(mut left: Incoming, idle: Duration) {
    let mut bytes = 0;
    let all = async {
        while bytes <= BYTES_MAX {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut left).poll_frame(cx)).await;
            let Some(Ok(frame)) = frame else { return };
            bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
    };
    _ = tokio::time::timeout(TIME_MAX.min(idle), all).await;
}
