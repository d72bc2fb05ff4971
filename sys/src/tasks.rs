//! Who runs what: async tasks with an owner, and a place for work that blocks.

use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns tasks: none outlives a call of [`Tasks::stop`]. Clones share the ownership.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// An owner of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the owner stops it (it is then dropped at its next await).
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            if token.run_until_cancelled(task).await.is_none() {
                tracing::trace!(task = name, "stopped");
            }
        });
    }

    /// Runs `task` to its end, whoever calls [`Tasks::stop`]; it must watch [`Tasks::token`] by itself.
    pub fn spawn_graceful(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// An owner whose tasks stop with this one's, and can be stopped before.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: self.tracker.clone(), token: self.token.child_token() }
    }

    /// Cancelled when the tasks should end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Whether [`Tasks::stop`] or [`Tasks::cancel`] was called.
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Tells every task to end, and returns at once.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Tells every task to end and waits for it. Not for a child: it would wait for its siblings.
    pub async fn stop(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({})", self.tracker.len())
    }
}

/// Where work runs that blocks on a disk or an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocking {
    /// On threads of their own.
    Threads,
    /// In place, after `latency` of tokio's (virtual) time: for simulation, where threads would escape the seed.
    Inline {
        /// How long each job seems to take.
        latency: Duration,
    },
}

impl Blocking {
    /// Runs `job` and gives its result.
    ///
    /// # Cancel safety
    /// With `Threads` a job that has begun runs to its end though the caller goes away.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Threads => match tokio::task::spawn_blocking(job).await {
                Ok(done) => done,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => std::future::pending().await, // the runtime is shutting down
            },
            Self::Inline { latency } => {
                tokio::time::sleep(latency).await;
                job()
            }
        }
    }
}

/// A bounded queue with one worker that blocks: it takes what has gathered, up to a limit, as one batch.
/// That is group commit: while a batch is on its way to the disk, the next one gathers.
pub struct Lane<J> {
    queue: mpsc::Sender<J>,
}

impl<J> Clone for Lane<J> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<J> fmt::Debug for Lane<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({} free)", self.queue.capacity())
    }
}

/// Tells when the worker of a [`Lane`] has ended.
#[derive(Debug)]
pub struct LaneEnd(tokio::sync::oneshot::Receiver<()>);

impl LaneEnd {
    /// Waits until every clone of the lane is gone and the last batch is done.
    pub async fn wait(self) {
        let _ = self.0.await;
    }

    /// As [`LaneEnd::wait`], for a thread that may block. Panics on an async one.
    pub fn wait_blocking(self) {
        let _ = self.0.blocking_recv();
    }
}

impl<J: Send + 'static> Lane<J> {
    /// Starts the worker. `work` gets between 1 and `batch_max` jobs at a time and must take them all.
    /// It ends when every clone of the lane is dropped and the queue is empty.
    pub fn start(
        blocking: Blocking,
        name: &'static str,
        (queue_len, batch_max): (usize, usize),
        mut work: impl FnMut(&mut Vec<J>) + Send + 'static,
    ) -> (Self, LaneEnd) {
        let (queue, mut jobs) = mpsc::channel(queue_len);
        let (ended, end) = tokio::sync::oneshot::channel();
        match blocking {
            Blocking::Threads => {
                let run = move || {
                    let mut batch = Vec::with_capacity(batch_max);
                    while jobs.blocking_recv_many(&mut batch, batch_max) > 0 {
                        work(&mut batch);
                        batch.clear();
                    }
                    drop(work);
                    let _ = ended.send(());
                };
                std::thread::Builder::new().name(name.into()).spawn(run).expect("a thread can be started");
            }
            Blocking::Inline { latency } => {
                tokio::spawn(async move {
                    let mut batch = Vec::with_capacity(batch_max);
                    while jobs.recv_many(&mut batch, batch_max).await > 0 {
                        tokio::time::sleep(latency).await;
                        work(&mut batch);
                        batch.clear();
                    }
                    let _ = ended.send(());
                });
            }
        }
        (Self { queue }, LaneEnd(end))
    }

    /// Hands a job over if there is room.
    ///
    /// # Errors
    /// Gives the job back if the queue is full or the worker has ended.
    pub fn try_send(&self, job: J) -> Result<(), J> {
        self.queue.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => job,
        })
    }

    /// Hands a job over, waiting for room.
    ///
    /// # Errors
    /// Gives the job back if the worker has ended.
    ///
    /// # Cancel safety
    /// A cancelled call has handed nothing over.
    pub async fn send(&self, job: J) -> Result<(), J> {
        self.queue.send(job).await.map_err(|e| e.0)
    }

    /// As [`Lane::send`], for a thread that may block, such as another lane's worker. Panics on an async one.
    ///
    /// # Errors
    /// Gives the job back if the worker has ended.
    pub fn send_blocking(&self, job: J) -> Result<(), J> {
        self.queue.blocking_send(job).map_err(|e| e.0)
    }
}

/// A thread of its own, for an event loop. It must watch by itself whether it shall end.
#[derive(Debug)]
pub struct Thread(tokio::sync::oneshot::Receiver<()>);

impl Thread {
    /// Starts `body` on a thread named `name`, within tokio's runtime: it may use timers and spawn tasks.
    ///
    /// # Errors
    /// When the process cannot have another thread.
    pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (ended, end) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let _within = runtime.enter();
            body();
            let _ = ended.send(());
        })?;
        Ok(Self(end))
    }

    /// Waits until it has ended, however it ended.
    pub async fn ended(self) {
        let _ = self.0.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_hands_over_what_gathered_while_it_worked() {
        let (seen, mut got) = mpsc::unbounded_channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (lane, end) = Lane::start(Blocking::Threads, "test", (16, 8), move |batch: &mut Vec<u32>| {
            seen.send(batch.clone()).expect("test is listening");
            wait.recv().expect("test is talking");
        });
        lane.send(0).await.expect("open");
        assert_eq!(got.recv().await, Some(vec![0]));
        for i in 1..=3 {
            lane.send(i).await.expect("open");
        }
        go.send(()).expect("worker is there");
        assert_eq!(got.recv().await, Some(vec![1, 2, 3]));
        go.send(()).expect("worker is there");
        drop(lane);
        end.wait().await;
    }

    #[tokio::test]
    async fn stopping_an_owner_ends_its_tasks() {
        let tasks = Tasks::new();
        tasks.spawn("forever", std::future::pending());
        tasks.stop().await;
        assert!(tasks.is_stopping());
    }
}
