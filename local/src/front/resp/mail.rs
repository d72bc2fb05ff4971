//! Owns what other threads tell an event loop: connections to take, futures to look at, pushes to send, an end.
//!
//! Invariant: who puts something in wakes the loop, unless it was woken and has not looked yet. What is in it is bounded
//! by whoever puts it in: connections by their limit, wakes by the futures, pushes by [`super::peers::PUSHES_MAX`].

use super::peers::Peer;
use super::reply::Reply;
use dstore_sys::ready::{Stream, Waker};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

/// What an event loop is told.
#[derive(Debug)]
pub enum Letter {
    /// A connection to take.
    Accepted(Stream),
    /// A future may be ready: its place and its number.
    Awake(usize, u64),
    /// To be sent to a client, unasked.
    Push(Arc<Peer>, Reply),
    /// To be ended.
    Kill(Arc<Peer>),
}

/// The letters to one event loop.
#[derive(Debug)]
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    told: AtomicBool,
    /// Not a letter: letters may be lost with what a panic unwinds.
    stopped: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// An empty one, whose loop `waker` wakes.
    pub fn new(waker: Waker) -> Self {
        Self {
            letters: Mutex::default(),
            told: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            waker,
        }
    }

    /// Tells the loop something.
    pub fn put(&self, letter: Letter) {
        self.letters.lock().push(letter);
        if !self.told.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// The loop may have been woken and not have looked: it is woken again.
    pub fn remind(&self) {
        self.told.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Tells the loop to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the loop is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes all letters, in their order, in exchange for an empty list.
    pub fn take(&self, empty: &mut Vec<Letter>) {
        // Before the look: what is put in later wakes anew.
        if self.told.swap(false, Ordering::AcqRel) {
            std::mem::swap(&mut *self.letters.lock(), empty);
        }
    }
}

/// Wakes one future of a loop.
#[derive(Debug)]
pub struct Alarm {
    /// The loop's.
    pub mailbox: Arc<Mailbox>,
    /// The future's place.
    pub place: usize,
    /// Its number, since places are used again.
    pub number: u64,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.put(Letter::Awake(self.place, self.number));
    }
}
