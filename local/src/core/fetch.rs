//! From a binding that Global told to its bytes: held, carried, fetched once for all who wait, or too many to keep.
//!
//! ```text
//! found     too large to keep           -> complete, without bytes
//!           carried, or held already    -> complete
//!           else blob: one flight a hash -> room in memory -> verify -> admit -> complete
//!                no room in time        -> complete, without bytes: whoever asked streams it
//!                swept meanwhile        -> resolve_again, a few times
//! complete  lock -> install, if the machine says so -> unlock -> tell who waited
//! ```
//! Invariants: no byte is told or kept that was not verified; a name is installed within an event of the machine
//! only. A fetch never holds the machine's lock.

use super::waiting::Looked;
use super::{Core, stopped};
use crate::blob_flight::Landed;
use crate::cache::{Admission, Evicted};
use crate::rooms::Room;
use dstore_proto::link::Fetched;
use dstore_proto::store::Slice;
use dstore_shared::{Blob, BlobHash, Entry, Error, FlightId, Kind, Name, Result};
use futures_util::StreamExt;
use std::sync::atomic::Ordering;

/// How often a name is resolved again because its blob was swept before it could be fetched.
const RESOLVES_MAX: usize = 3;

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
            match core.blob(entry.hash, Some(entry.size), Some(&name)).await {
                Ok(Landed::Here(blob)) => core.complete(flight, &name, entry, Some(&blob)),
                Ok(Landed::NoRoom) => core.complete(flight, &name, entry, None),
                Ok(Landed::Gone) => core.resolve_again(flight, &name).await,
                Err(error) => core.give_up(flight, &error),
            }
        });
    }

    /// A blob by its hash, and its size if that is known: held, or fetched once for all who want it, verified,
    /// and kept if it fits, where workers will find `name`, if it is about to be held under that.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`, `Exhausted` if too much is under way.
    pub async fn blob(&self, hash: BlobHash, size: Option<u64>, name: Option<&Name>) -> Result<Landed> {
        if let Some(blob) = self.cache.have(&hash) {
            return Ok(Landed::Here(blob));
        }
        let Some(core) = self.myself.upgrade() else { return Err(stopped()) };
        let name = name.cloned();
        self.blobs.get(hash, move || async move { core.bring(hash, size, name).await }).await
    }

    /// Fetches a blob into memory, once there is room for it.
    async fn bring(&self, hash: BlobHash, size: Option<u64>, name: Option<Name>) -> Result<Landed> {
        let fits = |size| size <= self.cache.blob_bytes_max();
        let mut room = None;
        if let Some(size) = size.filter(|size| fits(*size)) {
            let Some(found) = self.rooms.take(size).await else { return Ok(Landed::NoRoom) };
            room = Some(found);
        }
        // What was damaged on its way is whole the second time.
        match self.bring_once(hash, name.as_ref(), &mut room).await {
            Err(e) if e.kind() == Kind::Corrupt => {
                self.damage[1].fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%hash, error = %e, "a value arrived damaged: it is fetched again");
                self.bring_once(hash, name.as_ref(), &mut room).await
            }
            landed => landed,
        }
    }

    async fn bring_once(
        &self,
        hash: BlobHash,
        name: Option<&Name>,
        room: &mut Option<Room>,
    ) -> Result<Landed> {
        let fits = |size| size <= self.cache.blob_bytes_max();
        dstore_sys::failpoint!("local::fetch::before");
        let Some(fetched) = self.link.fetch(hash, Slice::ALL).await? else { return Ok(Landed::Gone) };
        let size = fetched.size;
        if !fits(size) {
            return Ok(Landed::NoRoom);
        }
        // Nobody knew the size before: then it is streamed rather than that its stream stays open, waiting.
        if room.as_ref().is_none_or(|room| room.bytes() < size) {
            *room = self.rooms.try_take(size);
        }
        if room.is_none() {
            return Ok(Landed::NoRoom);
        }
        let bytes = gather(fetched).await?;
        let Some(room) = room.take() else { return Ok(Landed::NoRoom) };
        let blob = Blob::verify(room.hold(bytes), hash)?;
        dstore_sys::failpoint!("local::fetch::arrived");
        if let Some(staged) = name.and_then(|name| self.stage(name, &blob)) {
            return Ok(Landed::Here(staged));
        }
        self.admit(&blob);
        Ok(Landed::Here(blob))
    }

    /// Drops a copy that was found damaged, unless another has its place by now.
    pub fn expel(&self, found: &Blob) {
        let hash = found.id();
        self.event(|c, _| {
            let same = self.cache.have(&hash).is_some_and(|kept| kept.bytes().as_ptr() == found.bytes().as_ptr());
            if same {
                self.damage[0].fetch_add(1, Ordering::Relaxed);
                let names = self.cache.expel(&hash);
                tracing::error!(%hash, names = names.len(), "a kept value was damaged: it is fetched again; check the memory");
                c.dropped(names);
            }
        });
    }

    /// Damages the copy that a name is served from.
    #[cfg(feature = "faults")]
    pub fn damage_copy(&self, name: &Name) -> bool {
        let era = self.published.era.load(Ordering::Acquire);
        self.event(|_, _| self.cache.damage(name, era))
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
                    let landed = match &looked.entry {
                        Some(entry) => self.blob(entry.hash, Some(entry.size), Some(name)).await,
                        None => Ok(Landed::NoRoom),
                    };
                    let blob = match landed {
                        Ok(Landed::Here(blob)) => Some(blob),
                        Ok(Landed::NoRoom) => None,
                        Ok(Landed::Gone) | Err(_) => continue,
                    };
                    outcome = Ok(Looked { blob, ..looked });
                    break;
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
        dstore_sys::failpoint!("local::install::before");
        let staged = blob.and_then(|blob| self.stage(name, blob));
        let blob = staged.as_ref().or(blob);
        let (waiters, cached) = self.event(|c, _| {
            let mut evicted = Evicted::new();
            let until = c.until(flight);
            let done = c.complete(flight, |reg_seq, era| {
                blob.is_some_and(|blob| {
                    self.install(name, (entry.clone(), until), blob, (reg_seq, era), &mut evicted)
                })
            });
            c.dropped(evicted);
            done
        });
        dstore_sys::failpoint!("local::install::after");
        let head = entry.bind_rev;
        let looked = Looked { entry: Some(entry), blob: blob.cloned(), cached, head };
        for waiter in waiters {
            waiter.tell(&looked);
        }
    }
}

/// The bytes of a fetch, in memory of the very size.
async fn gather(mut fetched: Fetched) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(fetched.size as usize);
    while let Some(piece) = fetched.body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}
