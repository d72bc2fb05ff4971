//! How fast each upload comes, and which one has to go when another waits for its place.
//!
//! An upload is late when its sender took more time for its bytes than [`GRACE`] and [`RATE_MIN`] give it.
//! Only time in which the store waits for the sender counts: a slow disk makes nobody late. A late upload
//! goes on for as long as nobody waits for its place.
//! Must never end an upload whose bytes are all there.

use dstore_shared::{Error, Moment, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What every sender is given, however little it sends: longer than a connection is slow for a moment.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes a second that keep a place for ever: half a megabit. Whoever wants to hold all of 128 places has to
/// send 8 MiB/s.
const RATE_MIN: u64 = 64 << 10;

/// The uploads under way.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<Uploads>);

#[derive(Debug, Default)]
struct Uploads {
    next: u64,
    now: BTreeMap<u64, Arc<Pace>>,
}

/// The pace of one upload.
#[derive(Debug)]
pub(super) struct Pace {
    number: u64,
    progress: Mutex<Progress>,
    evicted: CancellationToken,
}

#[derive(Debug)]
struct Progress {
    /// Since when the store waits for the sender; `None` while it does not.
    waits_since: Option<Moment>,
    waited: Duration,
    received: u64,
}

impl Paces {
    /// An upload begins.
    pub(super) fn begin(&self, now: Moment) -> Arc<Pace> {
        let progress = Progress { waits_since: Some(now), waited: Duration::ZERO, received: 0 };
        let mut uploads = self.0.lock();
        let number = uploads.next;
        uploads.next += 1;
        let pace = Pace { number, progress: Mutex::new(progress), evicted: CancellationToken::new() };
        let pace = Arc::new(pace);
        uploads.now.insert(number, pace.clone());
        pace
    }

    /// It has ended.
    pub(super) fn end(&self, pace: &Pace) {
        self.0.lock().now.remove(&pace.number);
    }

    /// Ends the upload that is latest at `now`; `false` if none is late.
    pub(super) fn evict_one(&self, now: Moment) -> bool {
        let uploads = self.0.lock();
        let going = uploads.now.values().filter(|pace| !pace.evicted.is_cancelled());
        let latest = going.filter_map(|pace| Some((pace.late_by(now)?, pace))).max_by_key(|(late, _)| *late);
        if let Some((late, pace)) = latest {
            tracing::info!(?late, "a slow upload gives its place to one that waits");
            pace.evicted.cancel();
        }
        latest.is_some()
    }
}

impl Pace {
    /// `bytes` more have come at `now`; the store is busy with them.
    pub(super) fn received(&self, bytes: u64, now: Moment) {
        let mut progress = self.progress.lock();
        progress.received += bytes;
        if let Some(since) = progress.waits_since.take() {
            progress.waited += now.since(since);
        }
    }

    /// The store waits for the sender from `now` on.
    pub(super) fn waits(&self, now: Moment) {
        self.progress.lock().waits_since = Some(now);
    }

    /// # Errors
    /// `Exhausted` if its place was given away.
    pub(super) fn check(&self) -> Result<()> {
        if self.evicted.is_cancelled() {
            return Err(Error::exhausted(format!(
                "other uploads wait and this one came at less than `{RATE_MIN}` bytes a second: send it again later"
            )));
        }
        Ok(())
    }

    /// Resolves when its place was given away.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }

    fn late_by(&self, now: Moment) -> Option<Duration> {
        let progress = self.progress.lock();
        let waited = progress.waited + now.since(progress.waits_since?);
        let given = GRACE + Duration::from_secs_f64(progress.received as f64 / RATE_MIN as f64);
        waited.checked_sub(given).filter(|late| !late.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_latest_goes_first_and_who_keeps_the_pace_stays() {
        let paces = Paces::default();
        let all = [0, 5, 640, 1_000].map(|kib| {
            let pace = paces.begin(at(0));
            pace.received(kib << 10, at(1));
            pace.waits(at(1));
            pace
        });
        let gone = || all.each_ref().map(|pace| pace.check().is_err());
        assert!(!paces.evict_one(at(10)), "all are within their grace");
        assert!(paces.evict_one(at(15)));
        assert_eq!(gone(), [true, false, false, false]);
        assert!(paces.evict_one(at(15)) && !paces.evict_one(at(15)));
        assert_eq!(gone(), [true, true, false, false], "640 KiB give ten seconds more");
        assert!(paces.evict_one(at(21)) && !paces.evict_one(at(21)));
        paces.end(&all[3]);
        assert!(!paces.evict_one(at(1_000)), "what has ended is not ended again");
    }

    #[test]
    fn time_in_which_the_store_is_busy_does_not_count() {
        let paces = Paces::default();
        let pace = paces.begin(at(0));
        pace.received(1, at(9));
        assert!(!paces.evict_one(at(1_000)), "the disk is slow, not the sender; or all bytes are there");
        pace.waits(at(1_000));
        assert!(!paces.evict_one(at(1_001)) && paces.evict_one(at(1_002)));
    }
}
