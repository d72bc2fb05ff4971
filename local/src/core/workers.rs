//! Workers that read the node's values in shared memory: their coming, and what is brought there for them.

use super::Core;
use crate::cache::{Attached, Cursor, NotShelved};
use dstore_shared::{Blob, FlightId, Moment, Name, Namespace};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Between two steps of bringing what is held: others want the cache too.
const PAUSE: Duration = Duration::from_millis(1);

/// What others see of the door.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// It is to end.
    pub is_stopped: AtomicBool,
    /// Workers attached.
    pub workers: AtomicUsize,
}

impl Core {
    /// The clock by which workers judge the lease.
    pub fn boot_time() -> Moment {
        Moment::from_nanos(dstore_arena::now())
    }

    /// Attaches a worker to a namespace. If it is the first, what is held of it is brought to where workers find it; they
    /// ask over the socket meanwhile.
    ///
    /// # Errors
    /// Why it has to read over the socket.
    pub fn attach(&self, namespace: &Namespace) -> Result<Attached, NotShelved> {
        let mut attached = self.cache.attach(namespace)?;
        let evicted = std::mem::take(&mut attached.evicted);
        self.event(|c, _| c.dropped(evicted));
        if attached.is_first
            && let Some(core) = self.myself.upgrade()
        {
            let namespace = namespace.clone();
            self.tasks.spawn("shelve", async move {
                let mut next = Some(Cursor::default());
                while let Some(at) = next {
                    let (evicted, behind) = core.cache.shelve(&namespace, at);
                    core.event(|c, _| c.dropped(evicted));
                    next = behind;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Ok(attached)
    }

    /// Copies a large value to where workers will find it, before the machine's lock is taken to install it.
    pub fn stage(&self, name: &Name, blob: &Blob) -> Option<Blob> {
        let (staged, evicted) = self.cache.stage(name, blob);
        if !evicted.is_empty() {
            self.event(|c, _| c.dropped(evicted));
        }
        staged
    }

    /// The same of what a SET binds.
    pub(super) fn stage_own(&self, flight: FlightId) -> Option<Blob> {
        let own = self.machine.lock().coherence.own_of(flight);
        own.and_then(|(name, blob)| self.stage(&name, &blob))
    }

    /// From now on status tells of the door to shared memory.
    pub fn shows(&self, at: String, shown: &Arc<Shown>) {
        // There is one such door in a Local's life.
        let _ = self.shm.set((at, shown.clone()));
    }

    /// Where workers attach, and how many are.
    pub fn workers(&self) -> Option<(&str, usize)> {
        self.shm.get().map(|(at, shown)| (at.as_str(), shown.workers.load(Ordering::Relaxed)))
    }

    /// Takes in what workers said, and tells who holds more than it may.
    pub fn sweep_workers(&self) {
        for (namespace, hoarder) in self.cache.sweep() {
            let (worker, bytes) = (hoarder.worker, hoarder.bytes);
            tracing::warn!(%namespace, worker, bytes, "a worker holds more values than it may: it can hold no further ones, and copies instead");
        }
    }
}
