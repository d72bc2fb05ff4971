//! A connection and its session as one task.
//!
//! Each call of a connection is a task of its own, as hyper wants it, but a session: of those there are ten thousand, one
//! on each connection, and what a task costs in memory, and a renewal in passing on between tasks, is most of what
//! they cost. Invariants: the session is polled after whatever the connection brought, and the connection after whatever
//! the session gave it to send; a wake from within is no new turn of the scheduler. At most one session of a connection
//! is treated so.

use super::connection::Calls;
use dstore_sys::net::BoxFuture;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    waker: Waker,
}

impl<H: Future> Together<H> {
    pub fn new(http: H, calls: Arc<Calls>) -> Self {
        let nudge = Arc::new(Nudge::default());
        Self { http: Box::pin(http), call: None, calls, waker: nudge.clone().into(), nudge }
    }

    /// The connection itself.
    pub fn connection(self: Pin<&mut Self>) -> Pin<&mut H> {
        self.get_mut().http.as_mut()
    }

    fn turn(&mut self) -> Poll<H::Output> {
        let cx = &mut Context::from_waker(&self.waker);
        if let Poll::Ready(ended) = self.http.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if self.call.is_none() {
            self.call = self.calls.within.call.lock().take();
        }
        if self.call.as_mut().is_some_and(|call| call.as_mut().poll(cx).is_ready()) {
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
            self.nudge.inside.store(true, Ordering::SeqCst);
            // Read, too: what was done before a wake that this forgets is seen by the turn.
            self.nudge.again.swap(false, Ordering::SeqCst);
            let turn = self.turn();
            self.nudge.inside.store(false, Ordering::SeqCst);
            if turn.is_ready() || !self.nudge.again.load(Ordering::SeqCst) {
                return turn;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Wakes the task, unless it is at it: then it takes another turn.
#[derive(Debug, Default)]
struct Nudge {
    inside: AtomicBool,
    again: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: whoever leaves looks for `again` after it said that it is no longer inside.
        self.again.store(true, Ordering::SeqCst);
        if !self.inside.load(Ordering::SeqCst) {
            self.outer.wake();
        }
    }
}
