//! A worker for programs that do not wait for futures: each call blocks its thread until it is answered.

use super::{SharedMemory, Value, Worker, WorkerConfig};
use bytes::Bytes;
use dstore_proto::store::{DeleteReply, SetReply, Slice, Stat};
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// As a [`Worker`], with a thread of its own for what goes over the socket. Not for an async thread, which it would block.
/// Clones share all of it. The child of the process that made it has no such thread: see [`Worker`].
#[derive(Clone, Debug)]
pub struct BlockingWorker {
    worker: Worker,
    threads: Arc<Threads>,
}

/// The thread, which is of one process.
#[derive(Debug)]
struct Threads {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    process: u32,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Its end would be waited for by who has no threads that could end.
            std::mem::forget(self.runtime.take());
        }
    }
}

impl BlockingWorker {
    /// As [`Worker::connect`].
    ///
    /// # Errors
    /// `Exhausted` if the process cannot have another thread.
    pub fn connect(sys: &Sys, address: &Address, config: WorkerConfig) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| {
            Error::exhausted(format!("no thread for a worker, {e}: raise the limits of the process"))
        })?;
        let worker = runtime.block_on(Worker::connect(sys, address, config));
        let process = std::process::id();
        Ok(Self { worker, threads: Arc::new(Threads { runtime: Some(runtime), process }) })
    }

    /// Waits for an answer, in the process whose thread brings it.
    fn wait<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.worker.is_of_this_process()?;
        let runtime = self.threads.runtime.as_ref();
        runtime.ok_or_else(|| Error::unavailable("this worker has ended: connect anew"))?.block_on(answer)
    }

    /// The same for futures.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// As [`Worker::shared_memory`].
    pub fn shared_memory(&self) -> SharedMemory {
        self.worker.shared_memory()
    }

    /// As [`Worker::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        match self.worker.get_here(key) {
            Some(value) => Ok(Some(value)),
            None => self.wait(self.worker.get(key)),
        }
    }

    /// As [`Worker::get_range`].
    ///
    /// # Errors
    /// As there.
    pub fn get_range(&self, key: &[u8], slice: Slice) -> Result<Option<Value>> {
        self.wait(self.worker.get_range(key, slice))
    }

    /// As [`Worker::get_many`].
    ///
    /// # Errors
    /// As there.
    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.wait(self.worker.get_many(keys))
    }

    /// As [`Worker::set`].
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, key: &[u8], bytes: impl Into<Bytes>) -> Result<SetReply> {
        self.wait(self.worker.set(key, bytes))
    }

    /// As [`Worker::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, keys: &[&[u8]]) -> Result<DeleteReply> {
        self.wait(self.worker.delete(keys))
    }

    /// As [`Worker::stat`].
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, key: &[u8]) -> Result<Option<Stat>> {
        self.wait(self.worker.stat(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Attach;
    use dstore_shared::Kind;

    #[test]
    fn a_worker_of_another_process_answers_at_once_that_it_cannot() {
        let config = WorkerConfig { attach: Attach::Off, ..WorkerConfig::default() };
        let nowhere = Address::Unix("/nowhere/at-all.sock".into());
        let made = BlockingWorker::connect(&Sys::real(), &nowhere, config).unwrap();
        // As a child finds it: its own number is another.
        let process = made.worker.process + 1;
        let theirs = BlockingWorker { worker: Worker { process, ..made.worker.clone() }, ..made.clone() };
        let refused = [
            theirs.get(b"k").map(|_| ()),
            theirs.get_range(b"k", Slice::ALL).map(|_| ()),
            theirs.get_many(&[b"k"]).map(|_| ()),
            theirs.set(b"k", "v").map(|_| ()),
            theirs.delete(&[b"k"]).map(|_| ()),
            theirs.stat(b"k").map(|_| ()),
        ];
        for answer in refused {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.message().contains("connect anew"), "{error}");
        }
        let runtime = made.threads.runtime.as_ref().unwrap();
        let error = runtime.block_on(theirs.worker.get(b"k")).unwrap_err();
        assert!(error.message().contains("connect anew"), "also who waits for the future: {error}");
    }
}
