//! A job that was set going at once and is waited for later.
//!
//! A future does nothing before it is polled; read-ahead and hashing behind the caller's back must.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// A job under way, or its result.
pub(super) enum Started<T> {
    Done(T),
    Going(BoxFuture<'static, T>),
}

impl<T> Started<T> {
    /// Polls `job` once. Who waits polls again, so no wake-up is lost.
    pub(super) fn new(job: impl Future<Output = T> + Send + 'static) -> Self {
        let mut job = job.boxed();
        match (&mut job).now_or_never() {
            Some(done) => Self::Done(done),
            None => Self::Going(job),
        }
    }

    /// The result.
    pub(super) async fn wait(self) -> T {
        match self {
            Self::Done(done) => done,
            Self::Going(job) => job.await,
        }
    }
}
