//! A bounded queue between whoever makes something and the one task that takes it, for ten thousand of them.
//!
//! Owns what waits in it. An empty one has no buffer: a channel of tokio keeps room for 32, which for the frames
//! of a session is more than all else that Global knows of it. Invariants: never more than `max` wait; they are
//! taken in the order they were put; whoever puts never waits. It must never run foreign code under its lock.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    taker: Option<Waker>,
    /// No more comes, or nobody takes.
    ended: bool,
}

#[derive(Debug)]
struct Shared<T> {
    max: usize,
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    fn end(&self) {
        let taker = {
            let mut state = self.state.lock();
            state.ended = true;
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}

/// Puts. When it is dropped, what waits is taken, and then the queue ends.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Takes. When it is dropped, nothing more can be put.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A queue of at most `max`.
pub(crate) fn mailbox<T>(max: usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { waiting: VecDeque::new(), taker: None, ended: false });
    let shared = Arc::new(Shared { max, state });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts one; gives it back if the queue is full or nobody takes any more.
    pub fn put(&self, one: T) -> Result<(), T> {
        let taker = {
            let mut state = self.0.state.lock();
            if state.ended || state.waiting.len() >= self.0.max {
                return Err(one);
            }
            state.waiting.push_back(one);
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.wake();
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The next one; `None` when the sender is gone and all was taken.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state.lock();
        if let Some(one) = state.waiting.pop_front() {
            return Poll::Ready(Some(one));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        // What a burst needed is given back.
        state.waiting = VecDeque::new();
        if !state.taker.as_ref().is_some_and(|taker| taker.will_wake(cx.waker())) {
            state.taker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    #[cfg(test)]
    async fn take(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_take(cx)).await
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.ended = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_is_taken_in_order_and_no_more_than_fits() {
        let (sender, mut receiver) = mailbox(3);
        for n in 0..3 {
            assert_eq!(sender.put(n), Ok(()));
        }
        assert_eq!(sender.put(3), Err(3));
        assert_eq!(receiver.take().await, Some(0));
        assert_eq!(sender.put(4), Ok(()));
        drop(sender);
        assert_eq!((receiver.take().await, receiver.take().await), (Some(1), Some(2)));
        assert_eq!((receiver.take().await, receiver.take().await), (Some(4), None));
    }

    #[tokio::test]
    async fn nothing_can_be_put_for_nobody() {
        let (sender, receiver) = mailbox(3);
        assert_eq!(sender.put(1), Ok(()));
        drop(receiver);
        assert_eq!(sender.put(2), Err(2));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_one_more_and_by_the_end() {
        let (sender, mut receiver) = mailbox(1);
        let put = async {
            tokio::task::yield_now().await;
            assert_eq!(sender.put(7), Ok(()));
            tokio::task::yield_now().await;
            drop(sender);
        };
        let take = async { (receiver.take().await, receiver.take().await) };
        let ((), taken) = tokio::join!(put, take);
        assert_eq!(taken, (Some(7), None));
    }
}
