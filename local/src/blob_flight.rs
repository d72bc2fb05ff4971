//! Owns the blob fetches that are under way: at most one for each hash, however many callers want the blob.
//!
//! Invariants: a fetch lives as long as somebody waits for it. Whoever waits drives it, so a caller that goes
//! away hands it over to the others, and the last one to go away ends it. What arrives has the hash that was
//! asked for. It must never decide what a blob's absence means, nor put anything into a cache.

use dstore_shared::{Blob, BlobHash, Error, Result};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bounds of [`BlobFlights`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlightLimits {
    /// Fetches under way at a time.
    pub flights_max: usize,
    /// Callers that wait for one fetch.
    pub waiters_max: usize,
}

impl Default for FlightLimits {
    fn default() -> Self {
        // As many as callers of a node. What they may hold in memory is bounded elsewhere, in bytes.
        Self { flights_max: 1024, waiters_max: 16 * 1024 }
    }
}

/// What a fetch came to.
#[derive(Clone, Debug)]
pub enum Landed {
    /// The blob.
    Here(Blob),
    /// There is no such blob.
    Gone,
    /// It may not be held in memory, or not now: read it as a stream.
    NoRoom,
}

/// After which a caller turned away may try again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

type Fetch = BoxFuture<'static, Result<Landed>>;

/// One fetch for each hash.
#[derive(Clone)]
pub struct BlobFlights(Arc<Inner>);

struct Inner {
    /// By hash: a number that tells the flight from an earlier one, and the flight.
    flights: Mutex<HashMap<BlobHash, (u64, WeakShared<Fetch>), foldhash::fast::RandomState>>,
    departures: AtomicU64,
    limits: FlightLimits,
}

impl BlobFlights {
    /// Nothing under way.
    pub fn new(limits: FlightLimits) -> Self {
        Self(Arc::new(Inner { flights: Mutex::default(), departures: AtomicU64::new(0), limits }))
    }

    /// The blob with `hash`: joins the fetch that is under way, or starts `fetch`. All who wait are told the
    /// same; a later call starts anew, so `fetch` itself should leave the blob where others look first.
    ///
    /// # Errors
    /// What `fetch` gives; `Corrupt` if its blob has another hash; `Exhausted` if too much is under way.
    ///
    /// # Cancel safety
    /// A caller that goes away costs the others nothing.
    pub async fn get<F>(&self, hash: BlobHash, fetch: impl FnOnce() -> F + Send + 'static) -> Result<Landed>
    where
        F: Future<Output = Result<Landed>> + Send + 'static,
    {
        self.board(hash, fetch)?.await
    }

    /// Fetches under way.
    pub fn len(&self) -> usize {
        self.0.flights.lock().len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn board<F>(&self, hash: BlobHash, fetch: impl FnOnce() -> F + Send + 'static) -> Result<Shared<Fetch>>
    where
        F: Future<Output = Result<Landed>> + Send + 'static,
    {
        let Inner { flights, limits, .. } = &*self.0;
        let mut flights = flights.lock();
        if let Some(flight) = flights.get(&hash).and_then(|(_, flight)| flight.upgrade()) {
            drop(flights); // before `flight` can be: it may be the last of its passengers
            let full = flight.strong_count().is_some_and(|waiting| waiting > limits.waiters_max);
            return if full { Err(exhausted("too many callers wait for this blob")) } else { Ok(flight) };
        }
        if flights.len() >= limits.flights_max {
            return Err(exhausted("too many blobs are being fetched"));
        }
        let landing =
            Landing { inner: Arc::clone(&self.0), hash, number: self.0.departures.fetch_add(1, Relaxed) };
        let number = landing.number;
        let flight = async move { landing.check(fetch().await?) }.boxed().shared();
        flights.insert(hash, (number, flight.downgrade().expect("a new flight is under way")));
        Ok(flight)
    }
}

/// Takes a flight off the board when it has ended, or when its last passenger went away.
struct Landing {
    inner: Arc<Inner>,
    hash: BlobHash,
    number: u64,
}

impl Landing {
    fn check(&self, landed: Landed) -> Result<Landed> {
        let (asked, got) = match &landed {
            Landed::Here(blob) if blob.id() != self.hash => (self.hash, blob.id()),
            _ => return Ok(landed),
        };
        Err(Error::corrupt(format!("asked for blob blake3:{asked}, got blake3:{got}: try again")))
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.inner.flights.lock();
        if flights.get(&self.hash).is_some_and(|(number, _)| *number == self.number) {
            flights.remove(&self.hash);
        }
    }
}

fn exhausted(what: &str) -> Error {
    Error::exhausted(format!("{what}: try again")).retry_after(RETRY_AFTER)
}

impl fmt::Debug for BlobFlights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobFlights({} under way)", self.len())
    }
}

#[cfg(test)]
#[path = "blob_flight_tests.rs"]
mod tests;
