//! A connection and its session as one task.
//!
//! Each call of a connection is a task of its own, as hyper wants it, but a session: of those there are ten thousand, one
//! on each connection, and what a task costs in memory, and a renewal in passing on between tasks, is most of what
//! they cost. Invariants: the session is polled after whatever the connection brought, and the connection after whatever
//! the session gave it to send; a wake from within is no new turn of the scheduler; which of the two was not woken is
//! not polled, so that a frame each way costs one poll of each. At most one session of a connection is treated so.

use super::connection::Calls;
use dstore_sys::net::BoxFuture;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Turns of one poll before others have theirs.
const TURNS: usize = 8;

/// The call that runs within the connection's task.
#[derive(Default)]
pub(super) struct Within {
    /// The next call that hyper hands over is it.
    expected: AtomicBool,
    call: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Within({:?})", self.expected)
    }
}

impl Within {
    /// The next call that hyper hands over shall run here.
    pub fn expect(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    /// Takes the call that was expected; gives any other back.
    pub fn take_in<F: Future<Output: Send> + Send + 'static>(&self, call: F) -> Option<F> {
        if !self.expected.swap(false, Ordering::Relaxed) {
            return Some(call);
        }
        let mut place = self.call.lock();
        if place.is_some() {
            return Some(call);
        }
        *place = Some(Box::pin(async move { _ = call.await }));
        None
    }
}

/// A connection and the call within it.
pub(super) struct Together<H> {
    http: Pin<Box<H>>,
    call: Option<BoxFuture<'static, ()>>,
    calls: Arc<Calls>,
    nudge: Arc<Nudge>,
    http_waker: Waker,
    call_waker: Waker,
}

impl<H: Future> Together<H> {
    pub fn new(http: H, calls: Arc<Calls>) -> Self {
        let nudge = Arc::new(Nudge::default());
        let http_waker = Arc::new(OfHttp(nudge.clone())).into();
        let call_waker = Arc::new(OfCall(nudge.clone())).into();
        Self { http: Box::pin(http), call: None, calls, nudge, http_waker, call_waker }
    }

    /// The connection itself; whatever is done with it is followed by a poll.
    pub fn connection(self: Pin<&mut Self>) -> Pin<&mut H> {
        let this = self.get_mut();
        this.nudge.wanted.fetch_or(HTTP, Ordering::SeqCst);
        this.http.as_mut()
    }

    /// Polls whichever of the two was woken, the connection first.
    fn turn(&mut self, woken: u8) -> Poll<H::Output> {
        let mut begins = false;
        if woken & HTTP != 0 {
            let cx = &mut Context::from_waker(&self.http_waker);
            if let Poll::Ready(ended) = self.http.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if self.call.is_none() {
                self.call = self.calls.within.call.lock().take();
                begins = self.call.is_some();
            }
        }
        // What the connection brought is taken in the same turn.
        let brought = self.nudge.wanted.fetch_and(!CALL, Ordering::SeqCst);
        if (begins || (woken | brought) & CALL != 0)
            && let Some(call) = &mut self.call
            && call.as_mut().poll(&mut Context::from_waker(&self.call_waker)).is_ready()
        {
            self.call = None;
        }
        Poll::Pending
    }
}

impl<H: Future> Future for Together<H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<H::Output> {
        self.nudge.outer.register(cx.waker());
        for _ in 0..TURNS {
            // From here on a wake is seen by the look at the end.
            let woken = self.nudge.wanted.swap(INSIDE, Ordering::SeqCst);
            let turn = self.turn(woken);
            let before = self.nudge.wanted.fetch_and(!INSIDE, Ordering::SeqCst);
            if turn.is_ready() || before & (HTTP | CALL) == 0 {
                return turn;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The connection is to be polled.
const HTTP: u8 = 1;
/// The call is to be polled.
const CALL: u8 = 2;
/// The task is at it: it looks again by itself.
const INSIDE: u8 = 4;

/// Who is to be polled; wakes the task, unless it is at it.
#[derive(Debug)]
struct Nudge {
    wanted: AtomicU8,
    outer: AtomicWaker,
}

impl Default for Nudge {
    fn default() -> Self {
        Self { wanted: AtomicU8::new(HTTP | CALL), outer: AtomicWaker::new() }
    }
}

impl Nudge {
    fn want(&self, who: u8) {
        let before = self.wanted.fetch_or(who, Ordering::SeqCst);
        // Who is wanted already has woken the task, or it looks again.
        if before & (who | INSIDE) == 0 {
            self.outer.wake();
        }
    }
}

/// Wakes for the connection.
#[derive(Debug)]
struct OfHttp(Arc<Nudge>);

/// Wakes for the call within it.
#[derive(Debug)]
struct OfCall(Arc<Nudge>);

impl Wake for OfHttp {
    fn wake(self: Arc<Self>) {
        self.0.want(HTTP);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.want(HTTP);
    }
}

impl Wake for OfCall {
    fn wake(self: Arc<Self>) {
        self.0.want(CALL);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.want(CALL);
    }
}
