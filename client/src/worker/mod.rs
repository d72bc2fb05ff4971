//! A worker's view of its node: one namespace, read from shared memory where that can be had.
//!
//! ```text
//! get    shared memory: lease, look, pin, look again, clock          no system call, no copy of what is large
//!        else the socket, as any client; what it brings is in shared memory the next time
//! others the socket
//! ```
//! Invariants: shared memory is an optimisation: whatever is the matter with it, the answer is the socket's. A value that
//! was got from it stays as it is until it is dropped. It is given back then, or when the process ends.
//! It must never answer from memory whose lease is over.

mod blocking;
mod shared;
mod value;

pub use blocking::BlockingWorker;
pub use shared::SharedMemory;
pub use value::Value;

use crate::{Client, ClientConfig};
use bytes::Bytes;
use dstore_proto::RemoteStore;
use dstore_proto::store::{DeleteReply, Found, SetReply, Slice, Stat, Target};
use dstore_proto::watch::WatchQuery;
use dstore_shared::{Error, Key, Name, Namespace, Result};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use shared::Shared;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A value of at most so many bytes is taken as it comes over the socket; for a larger one shared memory is looked at
/// again first, which has it by then as a rule.
const CARRIED_MAX: u64 = 64 << 10;

/// Where shared memory is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Attach {
    /// Beside the node's Unix socket, or where its status says.
    #[default]
    Found,
    /// At this socket.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// How a [`Worker`] is set up.
#[derive(Clone, Debug, Default)]
pub struct WorkerConfig {
    /// What it reads.
    pub namespace: Namespace,
    /// Where it asks for shared memory.
    pub attach: Attach,
    /// The client that it uses for everything else.
    pub client: ClientConfig,
}

/// A worker. Clones share the connection, the attachment and what it holds.
///
/// # Processes that fork
/// The child of a process that made a worker gets nothing from its parent's shared memory, and no answer from its parent's
/// connection, but `Unavailable` at once: it makes a worker of its own. Values that the parent got have no bytes in the
/// child.
#[derive(Clone)]
pub struct Worker {
    client: Client,
    namespace: Namespace,
    shared: Arc<Shared>,
    /// Who made it: its connection is served by tasks of that process.
    process: u32,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({}, {})", self.namespace, self.shared_memory())
    }
}

impl Worker {
    /// A worker of the node at `address`. Attaches to shared memory if that can be had now, and tries again later if not:
    /// [`Worker::shared_memory`] tells. Connects to the socket when it first needs that. Takes at most as long as a call
    /// where the node must be asked for the way, else at most a few times two seconds.
    pub async fn connect(sys: &Sys, address: &Address, config: WorkerConfig) -> Self {
        let client = Client::connect(sys, address, config.client);
        let shared = Shared::new(sys, config.namespace.clone(), config.attach, address, client.clone());
        let worker = Self { client, namespace: config.namespace, shared, process: std::process::id() };
        worker.shared.clone().attach().await;
        worker
    }

    /// The client that it uses for everything but reads from shared memory.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it reads from shared memory now, or why not.
    pub fn shared_memory(&self) -> SharedMemory {
        self.shared.standing()
    }

    /// The name of a key.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge`.
    pub fn name(&self, key: &[u8]) -> Result<Name> {
        Ok(Name::new(&self.namespace, &Key::new(Bytes::copy_from_slice(key))?))
    }

    /// The value of `key`, if it is in shared memory now. Not a system call; `None` says nothing about the key.
    #[inline]
    pub fn get_here(&self, key: &[u8]) -> Option<Value> {
        self.shared.get(key).ok()
    }

    /// The value of `key`; `None`: it is not bound.
    ///
    /// # Errors
    /// `Unavailable` if it is not in shared memory and the node does not answer; as [`Client::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        if let Some(value) = self.look(key).await {
            return Ok(Some(value));
        }
        self.ask(key, Slice::ALL).await
    }

    /// Part of the value of `key`; `None`: it is not bound.
    ///
    /// # Errors
    /// `Invalid` if the value ends before; as [`Worker::get`].
    pub async fn get_range(&self, key: &[u8], slice: Slice) -> Result<Option<Value>> {
        if let Some(value) = self.look(key).await {
            let range = slice.within(value.len() as u64)?;
            return Ok(Some(value.part(range.start as usize..range.end as usize)));
        }
        self.ask(key, slice).await
    }

    /// The values of several keys as they were bound at one moment; `None`: it is not bound.
    ///
    /// # Errors
    /// As [`Client::get_many`].
    pub async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        if let Some(all) = self.shared.get_all(keys) {
            return Ok(all.into_iter().map(Some).collect());
        }
        self.is_of_this_process()?;
        self.shared.tend();
        let names = keys.iter().map(|key| self.name(key)).collect::<Result<Vec<_>>>()?;
        let found = self.client.get_many(&names).await?;
        Ok(found.values.into_iter().map(|value| value.map(|value| Value::of(value.bytes))).collect())
    }

    /// Binds `key` to `bytes`, unless it is bound to others (in replace mode: in place of what it was bound to).
    ///
    /// # Errors
    /// As [`Client::set`].
    pub async fn set(&self, key: &[u8], bytes: impl Into<Bytes>) -> Result<SetReply> {
        self.is_of_this_process()?;
        self.client.set(&self.name(key)?, bytes).await
    }

    /// Unbinds keys, all at once. When it returns, no read anywhere gives what they were bound to.
    ///
    /// # Errors
    /// As [`Client::delete`].
    pub async fn delete(&self, keys: &[&[u8]]) -> Result<DeleteReply> {
        self.is_of_this_process()?;
        let names = keys.iter().map(|key| self.name(key)).collect::<Result<Vec<_>>>()?;
        self.client.delete(&names).await
    }

    /// What `key` is bound to, without its bytes.
    ///
    /// # Errors
    /// As [`Client::stat`].
    pub async fn stat(&self, key: &[u8]) -> Result<Option<Stat>> {
        self.is_of_this_process()?;
        self.client.stat(&Target::Name(self.name(key)?)).await
    }

    /// Watches what becomes of names. Begins when it is first read.
    pub fn watch(&self, query: WatchQuery) -> crate::Watch<RemoteStore> {
        self.client.watch(query)
    }

    /// Whether the tasks that serve the connection are here: a child does not have them, and would wait for ever.
    ///
    /// # Errors
    /// `Unavailable` in a child of the process that made it.
    fn is_of_this_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::unavailable("this worker was made by the process of which this is a child: connect anew"))
    }

    /// Looks in shared memory, and once more after what can be mended at once was.
    async fn look(&self, key: &[u8]) -> Option<Value> {
        let miss = match self.shared.get(key) {
            Ok(value) => return Some(value),
            Err(miss) => miss,
        };
        self.is_of_this_process().ok()?;
        if !self.shared.clone().mend(miss).await {
            return None;
        }
        self.shared.get(key).ok()
    }

    /// Asks the node. What is large is not taken from the socket if it is in shared memory by the time that it is answered.
    async fn ask(&self, key: &[u8], slice: Slice) -> Result<Option<Value>> {
        self.is_of_this_process()?;
        let target = Target::Name(self.name(key)?);
        if slice == Slice::ALL {
            let found = self.client.get_stream(&target, slice).await?;
            let Some(Found { entry, body, .. }) = found else { return Ok(None) };
            if entry.size > CARRIED_MAX
                && let Some(value) = self.look(key).await
            {
                return Ok(Some(value));
            }
            let max = self.client.get_bytes_max();
            if entry.size > max {
                let size = entry.size;
                return Err(Error::too_large(format!(
                    "the value has `{size}` bytes, over `{max}`: read it in parts"
                )));
            }
            if let Ok(bytes) = body.collect(entry.size).await {
                return Ok(Some(Value::of(bytes)));
            }
            // A stream that broke off is begun anew by the client itself.
            let value = self.client.get(&self.name(key)?).await?;
            return Ok(value.map(|value| Value::of(value.bytes)));
        }
        let Some(found) = self.client.get_stream(&target, slice).await? else { return Ok(None) };
        let range = slice.within(found.entry.size)?;
        Ok(Some(Value::of(found.body.collect(range.end - range.start).await?)))
    }
}
