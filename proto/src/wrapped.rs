//! A message body that somebody has a say in: each poll for a frame goes through a closure.
//!
//! Invariant: length and end are those of the body inside, so the closure must neither add data nor take any.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// What a poll for a frame gives.
pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// A body, and what stands between it and whoever takes its frames.
pub(crate) struct Wrapped<B, F> {
    body: B,
    poll: F,
}

impl<B, F> Wrapped<B, F>
where
    F: FnMut(Pin<&mut B>, &mut Context<'_>) -> Polled + Unpin,
{
    /// `body`, polled by `poll`.
    pub fn new(body: B, poll: F) -> Self {
        Self { body, poll }
    }
}

impl<B, F> Body for Wrapped<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: FnMut(Pin<&mut B>, &mut Context<'_>) -> Polled + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let Self { body, poll } = &mut *self;
        poll(Pin::new(body), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
