//! From a binding that Global told to its bytes: held, carried, fetched once for all who wait, or too many to keep.
//!
//! ```text
//! found     too large to keep           -> complete, without bytes
//!           carried, or held already    -> complete
//!           else blob: one flight a hash -> verify -> admit -> complete
//!                swept meanwhile        -> resolve_again, a few times
//! complete  lock -> install, if the machine says so -> unlock -> tell who waited
//! ```
//! Invariants: no byte is told or kept that was not verified; a name is installed within an event of the machine
//! only. A fetch never holds the machine's lock.

use super::waiting::Looked;
use super::{Core, stopped};
use crate::cache::{Admission, Evicted};
use dstore_proto::store::{Body, Slice};
use dstore_shared::{Blob, BlobHash, Entry, Error, FlightId, Name, Result};

/// How often a name is resolved again because its blob was swept before it could be fetched.
const RESOLVES_MAX: usize = 3;
/// Marks, within a blob flight, that Global has no such blob.
const GONE: &str = "global has no such blob";

impl Core {
    /// Whether `name` is resolved and its blob on the way; that transfer has an idle deadline of its own.
    pub fn is_fetching(&self, name: &Name) -> bool {
        self.machine.lock().coherence.is_found(name)
    }

    /// A binding was found: its blob came along, is held already, is on its way, or is too large to be kept.
    pub(super) fn found(&self, flight: FlightId, name: Name, entry: Entry, carried: Option<Blob>) {
        let carried = carried.filter(|blob| blob.id() == entry.hash);
        if entry.size > self.cache.blob_bytes_max() {
            return self.complete(flight, &name, entry, None);
        }
        if let Some(blob) = carried.or_else(|| self.cache.have(&entry.hash)) {
            return self.complete(flight, &name, entry, Some(&blob));
        }
        let Some(core) = self.myself.upgrade() else { return };
        self.tasks.spawn("fetch", async move {
            match core.blob(entry.hash).await {
                Ok(Some(blob)) => core.complete(flight, &name, entry, Some(&blob)),
                Ok(None) => core.resolve_again(flight, &name).await,
                Err(error) => core.give_up(flight, &error),
            }
        });
    }

    /// A blob by its hash: held, or fetched once for all who want it, verified, and kept if it fits.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`, `TooLarge` beyond what the cache may keep; `Ok(None)` = Global has none.
    pub async fn blob(&self, hash: BlobHash) -> Result<Option<Blob>> {
        if let Some(blob) = self.cache.have(&hash) {
            return Ok(Some(blob));
        }
        let Some(core) = self.myself.upgrade() else { return Err(stopped()) };
        let fetch = move || async move {
            let Some(fetched) = core.link.fetch(hash, Slice::ALL).await? else {
                return Err(Error::closed(GONE));
            };
            if fetched.size > core.cache.blob_bytes_max() {
                return Err(Error::too_large("the blob does not fit the cache: read it as a stream"));
            }
            let bytes = Body::Stream(fetched.body).collect(fetched.size).await?;
            let blob = Blob::verify(bytes, hash)?;
            core.admit(&blob);
            Ok(blob)
        };
        match self.blobs.get(hash, fetch).await {
            Ok(blob) => Ok(Some(blob)),
            Err(e) if e.message() == GONE => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Keeps a copy that no name holds, if it fits.
    pub fn admit(&self, blob: &Blob) {
        if let Admission::Installed { evicted } = self.cache.admit(blob) {
            self.event(|c, _| c.dropped(evicted));
        }
    }

    /// A blob was swept between the look at its name and its fetch, so the name is bound otherwise by now.
    async fn resolve_again(&self, flight: FlightId, name: &Name) {
        let mut outcome =
            Err(Error::unavailable("the value changes faster than it can be fetched: try again"));
        for _ in 0..RESOLVES_MAX {
            let Ok(answer) = self.look(name) else { break };
            match answer.await {
                Ok(Ok(looked)) => {
                    if let Some(entry) = looked.entry {
                        if let Ok(Some(blob)) = self.blob(entry.hash).await {
                            outcome = Ok(Looked { blob: Some(blob), ..looked });
                            break;
                        }
                    } else {
                        outcome = Ok(looked);
                        break;
                    }
                }
                Ok(Err(e)) => {
                    outcome = Err(e);
                    break;
                }
                Err(_) => break,
            }
        }
        for waiter in self.event(|c, _| c.failed(flight)) {
            match &outcome {
                Ok(looked) => waiter.tell(looked),
                Err(e) => waiter.fail(e),
            }
        }
    }

    /// The name of a flight is resolved and its blob at hand, or too large to be kept.
    fn complete(&self, flight: FlightId, name: &Name, entry: Entry, blob: Option<&Blob>) {
        let (waiters, cached) = self.event(|c, _| {
            let mut evicted = Evicted::new();
            let done = c.complete(flight, |reg_seq, era| {
                blob.is_some_and(|blob| self.install(name, entry, blob, (reg_seq, era), &mut evicted))
            });
            c.dropped(evicted);
            done
        });
        let looked = Looked { entry: Some(entry), blob: blob.cloned(), cached, head: entry.bind_rev };
        for waiter in waiters {
            waiter.tell(&looked);
        }
    }
}
