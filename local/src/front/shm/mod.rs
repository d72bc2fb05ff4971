//! The door to shared memory: a Unix socket at which workers of this machine get the descriptors of a namespace's values.
//!
//! ```text
//! HELLO -> one version, one layout, one clock? -> arena of the namespace -> WELCOME, descriptors
//!       -> MORE -> further segments     ...     -> its socket or its process ends: its pins are gone
//! ```
//! A worker then reads without this door. Invariants: a worker is given the descriptors of the namespace that it asked for
//! and of no other; its pins count until its process has ended or has closed its socket, whatever becomes of the door; who
//! does not say HELLO in time is turned away; nothing is waited for.
//! What cannot be had here is told to the worker, which reads over the Local's other doors.

mod serve;

use crate::core::{Core, Shown};
use crate::node::Node;
use dstore_arena::{Arena, Config};
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::ready::{Acceptor, Poller, Waker};
use dstore_sys::tasks::Thread;
use serve::Attendance;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// By how much two readings of one clock, one behind the other, may differ at most.
const SAME_CLOCK: Duration = Duration::from_secs(1);

/// How shared memory is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShmConfig {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Nobody asked for it: the Local starts without it if it cannot be had.
    pub is_default: bool,
    /// Workers attached at a time.
    pub workers_max: usize,
}

impl ShmConfig {
    /// The defaults, at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        // Three descriptors and 36 KiB each: more than a machine has workers.
        Self { socket, is_default: false, workers_max: 1024 }
    }
}

/// An open door.
#[derive(Debug)]
pub(crate) struct ShmDoor {
    address: Address,
    shown: Arc<Shown>,
    waker: Waker,
    thread: Option<Thread>,
}

impl ShmDoor {
    /// Listens, if there is such memory here.
    ///
    /// # Errors
    /// `Invalid` if the socket cannot be listened at, `Unavailable` where there is no such memory.
    pub async fn bind(sys: &Sys, config: &ShmConfig) -> Result<Acceptor> {
        let probe = Arena::create(Config { budget: 1 << 20, ..Config::default() });
        probe.map_err(|e| Error::unavailable(e.to_string()))?;
        if sys.clock.now().since(Core::boot_time()).max(Core::boot_time().since(sys.clock.now())) > SAME_CLOCK
        {
            return Err(Error::unavailable("this node does not measure its lease by the machine's clock"));
        }
        let address = Address::Unix(config.socket.clone());
        let bound = sys.blocking.run(move || Acceptor::bind(&address)).await;
        bound.map_err(|e| {
            let socket = config.socket.display();
            Error::invalid(format!(
                "cannot listen for workers on `{socket}`, {e}: stop what uses it, or choose another with `--shm`"
            ))
            .caused_by(e)
        })
    }

    /// Serves who comes.
    ///
    /// # Errors
    /// `Exhausted` when the process is out of descriptors or threads.
    pub fn open(node: &Node, config: &ShmConfig, acceptor: Acceptor) -> Result<Self> {
        let lacks = |e: std::io::Error| {
            Error::exhausted(format!(
                "the door to shared memory cannot be opened, {e}: raise the limits of the process"
            ))
        };
        let address = acceptor.address().map_err(lacks)?;
        let poller = Poller::new().map_err(lacks)?;
        let (waker, shown) = (poller.waker(), Arc::<Shown>::default());
        let attendance =
            Attendance::new(node.core().clone(), poller, acceptor, config.workers_max, shown.clone());
        let attendance = attendance.map_err(lacks)?;
        let thread = Thread::start("shm", move || attendance.run()).map_err(lacks)?;
        Ok(Self { address, shown, waker, thread: Some(thread) })
    }

    /// The path of its socket.
    pub fn path(&self) -> String {
        match &self.address {
            Address::Unix(path) => path.display().to_string(),
            other => other.to_string(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What others see of it.
    pub fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    fn tell_stop(&self) {
        self.shown.is_stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ends every connection, and waits for that.
    pub async fn stop(mut self) {
        self.tell_stop();
        if let Some(thread) = self.thread.take() {
            thread.ended().await;
        }
    }
}

impl Drop for ShmDoor {
    fn drop(&mut self) {
        self.tell_stop();
    }
}
