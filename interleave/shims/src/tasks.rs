//! `dstore_sys::tasks` with lanes whose worker is one of shuttle's threads.

pub use dstore_sys::tasks::{Blocking, Tasks};

use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};

/// A bounded queue with one worker, which takes what has gathered as one batch.
pub struct Lane<J>(Arc<Shared<J>>);

/// Tells when the worker of a [`Lane`] has ended.
pub struct LaneEnd(Arc<End>);

#[derive(Default)]
struct End {
    ended: Mutex<bool>,
    moved: Condvar,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    moved: Condvar,
    max: usize,
}

struct State<J> {
    queue: VecDeque<J>,
    lanes: usize,
    ended: bool,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<J>>) -> MutexGuard<'a, State<J>> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What has gathered; nothing if nothing comes any more.
    fn take(&self, batch: &mut Vec<J>, batch_max: usize) {
        let mut state = self.lock();
        while state.queue.is_empty() && state.lanes > 0 {
            state = self.wait(state);
        }
        let n = state.queue.len().min(batch_max);
        batch.extend(state.queue.drain(..n));
        self.moved.notify_all();
    }
}

impl<J: Send + 'static> Lane<J> {
    /// Starts the worker, on a thread whatever `blocking` says.
    pub fn start(
        _: Blocking,
        name: &'static str,
        (queue_len, batch_max): (usize, usize),
        mut work: impl FnMut(&mut Vec<J>) + Send + 'static,
    ) -> (Self, LaneEnd) {
        let state = State { queue: VecDeque::new(), lanes: 1, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), moved: Condvar::new(), max: queue_len });
        let end = Arc::<End>::default();
        let (worker, ended) = (shared.clone(), end.clone());
        let run = move || {
            let mut batch = Vec::new();
            loop {
                worker.take(&mut batch, batch_max);
                if batch.is_empty() {
                    break;
                }
                work(&mut batch);
                batch.clear();
            }
            drop(work);
            worker.lock().ended = true;
            worker.moved.notify_all();
            *ended.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
            ended.moved.notify_all();
        };
        thread::Builder::new().name(name.into()).spawn(run).expect("a thread can be started");
        (Self(shared), LaneEnd(end))
    }

    /// Hands a job over if there is room.
    ///
    /// # Errors
    /// Gives the job back if the queue is full or the worker has ended.
    pub fn try_send(&self, job: J) -> Result<(), J> {
        let mut state = self.0.lock();
        if state.ended || state.queue.len() >= self.0.max {
            return Err(job);
        }
        state.queue.push_back(job);
        self.0.moved.notify_all();
        Ok(())
    }

    /// Hands a job over, waiting for room.
    ///
    /// # Errors
    /// Gives the job back if the worker has ended.
    pub fn send_blocking(&self, job: J) -> Result<(), J> {
        let mut state = self.0.lock();
        while !state.ended && state.queue.len() >= self.0.max {
            state = self.0.wait(state);
        }
        drop(state);
        self.try_send(job)
    }

    /// As [`Self::send_blocking`]: whoever waits is a thread of shuttle's all the same.
    ///
    /// # Errors
    /// As there.
    #[expect(clippy::unused_async, reason = "the real one is async")]
    pub async fn send(&self, job: J) -> Result<(), J> {
        self.send_blocking(job)
    }
}

impl<J> Clone for Lane<J> {
    fn clone(&self) -> Self {
        self.0.lock().lanes += 1;
        Self(self.0.clone())
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        self.0.lock().lanes -= 1;
        self.0.moved.notify_all();
    }
}

impl<J> fmt::Debug for Lane<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

impl fmt::Debug for LaneEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaneEnd")
    }
}

impl LaneEnd {
    /// Waits until every clone of the lane is gone and the last batch is done.
    pub fn wait_blocking(self) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            ended = self.0.moved.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`Self::wait_blocking`].
    #[expect(clippy::unused_async, reason = "the real one is async")]
    pub async fn wait(self) {
        self.wait_blocking();
    }
}
