//! Messages out of a body that is at hand, for the fuzz targets.

use super::{Parts, Receiving};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use hyper::body::Frame;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// A body that arrives at once, in pieces.
struct AtHand(VecDeque<Bytes>);

impl hyper::body::Body for AtHand {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// The messages in `bytes`, which arrive in pieces of `piece` bytes, and how their stream ends.
pub(crate) fn pieces_of<M: Parts>(
    bytes: &[u8],
    piece: usize,
    len_max: usize,
) -> (Vec<M>, Result<(), Status>) {
    let pieces = bytes.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect();
    let mut stream = Receiving::<M>::new(Body::new(AtHand(pieces)), len_max, false);
    let mut messages = Vec::new();
    while let Some(message) = stream.next().now_or_never().expect("everything is at hand") {
        match message {
            Ok(message) => messages.push(message),
            Err(status) => return (messages, Err(status)),
        }
    }
    (messages, Ok(()))
}
