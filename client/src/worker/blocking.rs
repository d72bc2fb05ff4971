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
/// Clones share all of it.
#[derive(Clone, Debug)]
pub struct BlockingWorker {
    worker: Worker,
    runtime: Arc<Runtime>,
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
        Ok(Self { worker, runtime: Arc::new(runtime) })
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
            None => self.runtime.block_on(self.worker.get(key)),
        }
    }

    /// As [`Worker::get_range`].
    ///
    /// # Errors
    /// As there.
    pub fn get_range(&self, key: &[u8], slice: Slice) -> Result<Option<Value>> {
        self.runtime.block_on(self.worker.get_range(key, slice))
    }

    /// As [`Worker::get_many`].
    ///
    /// # Errors
    /// As there.
    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.runtime.block_on(self.worker.get_many(keys))
    }

    /// As [`Worker::set`].
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, key: &[u8], bytes: impl Into<Bytes>) -> Result<SetReply> {
        self.runtime.block_on(self.worker.set(key, bytes))
    }

    /// As [`Worker::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, keys: &[&[u8]]) -> Result<DeleteReply> {
        self.runtime.block_on(self.worker.delete(keys))
    }

    /// As [`Worker::stat`].
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, key: &[u8]) -> Result<Option<Stat>> {
        self.runtime.block_on(self.worker.stat(key))
    }
}
