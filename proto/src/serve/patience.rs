//! How long a call waits for its caller: for the whole of a request, and for an answer to be taken.
//!
//! Invariants: a request that is one message ends within its deadline, or the call does; of an answer at most a piece is
//! in the transport's hands before the caller takes the next; a call whose caller takes nothing is dropped, and all that
//! it held with it. A stream whose server has nothing to say is waited for: that is not the caller's doing.

use crate::DATA_FRAME_BYTES;
use crate::wrapped::Polled;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;

/// What may be left in the transport by a call that has ended.
const LITTLE: usize = 16 << 10;

/// A request. One that was aborted says so: tonic 0.14 takes a request that was reset with CANCEL for one that has ended
/// (`Streaming::poll_frame`), and half an upload would pass for a whole one.
pub(super) struct Received {
    request: Incoming,
    /// For all of it; a stream has none.
    deadline: Option<Duration>,
    /// Runs once it had to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Received {
    pub(super) fn new(request: Incoming, deadline: Option<Duration>) -> Self {
        Self { request, deadline, timer: None }
    }

    fn late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
        timer.as_mut().poll(cx).map(|()| {
            let late = format!("the request was not whole within `{deadline:?}`: send all of it");
            crate::status::to_status(&dstore_shared::Error::unavailable(late))
        })
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let Poll::Ready(frame) = Pin::new(&mut self.request).poll_frame(cx) else {
            return self.late(cx).map(|late| Some(Err(late)));
        };
        let gone = |e: hyper::Error| Status::aborted(format!("the caller went away: {e}"));
        Poll::Ready(frame.map(|frame| frame.map_err(gone)))
    }

    fn is_end_stream(&self) -> bool {
        self.request.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.request.size_hint()
    }
}

/// Whose turn it is in an answer, and how far it has come.
#[derive(Debug, Default)]
pub(super) struct Turns(AtomicU64);

impl Turns {
    /// A piece was given: it is the caller's turn until he asks for the next.
    fn give(&self) {
        self.0.fetch_add(2, Ordering::Relaxed);
        self.0.fetch_or(1, Ordering::Relaxed);
    }

    fn ask(&self) {
        self.0.fetch_and(!1, Ordering::Relaxed);
    }

    /// How many pieces he was given, if it is the caller's turn.
    fn of_caller(&self) -> Option<u64> {
        let turns = self.0.load(Ordering::Relaxed);
        (turns & 1 == 1).then_some(turns)
    }
}

/// Runs a call, until its caller has taken nothing of its answer for a whole `span`, and at most for two.
pub(super) async fn while_taken(call: impl Future, turns: Arc<Turns>, span: Duration) {
    let (mut call, mut before) = (pin!(call), None);
    loop {
        tokio::select! {
            biased;
            _ = &mut call => return,
            () = tokio::time::sleep(span) => {}
        }
        let now = turns.of_caller();
        if now.is_some() && now == before {
            tracing::debug!("an answer was not taken and was given up");
            return;
        }
        before = now;
    }
}

/// An answer, in pieces that fit a frame of HTTP/2; with it goes what is held while it runs.
pub(super) struct Answer<B, H> {
    inner: B,
    /// What is left of the piece that the answer gave.
    rest: Bytes,
    turns: Arc<Turns>,
    held: Option<H>,
}

impl<B, H> Answer<B, H> {
    /// `held` is dropped when all of `answer` was given, or the answer was dropped.
    pub(super) fn new(answer: B, turns: Arc<Turns>, held: Option<H>) -> Self {
        Self { inner: answer, rest: Bytes::new(), turns, held }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let all = self.rest.len();
        // Of much the last bit goes by itself: the transport asks for it, and so for the end, only when the caller has
        // room for all that went before; else the call would end with its answer in the transport, held for ever.
        let len = if all > LITTLE { all - LITTLE } else { all };
        Frame::data(self.rest.split_to(len.min(DATA_FRAME_BYTES as usize)))
    }
}

impl<B, H> Body for Answer<B, H>
where
    B: Body<Data = Bytes> + Unpin,
    H: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.turns.ask();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(failed)) => return Poll::Ready(Some(Err(failed))),
                None => {
                    self.held.take();
                    return Poll::Ready(None);
                }
            }
        }
        self.turns.give();
        Poll::Ready(Some(Ok(self.piece())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}
