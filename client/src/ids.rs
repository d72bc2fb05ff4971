//! Names for changes: who, the how many-eth, and when by Global's clock.
//!
//! Global remembers the outcomes of a client's last 1,024 requests. So `n` never runs more than that ahead
//! of the oldest change still in flight: an attempt can always be told from one that was forgotten.

use dstore_shared::limits::OUTCOMES_PER_CLIENT;
use dstore_shared::{Born, ClientId, Moment, RequestId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a reading of Global's clock is good for new changes. Global refuses what is older than ten
/// minutes, and what is of another boot; a second bounds how long a restart goes unnoticed.
const BORN_FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Ids {
    client: ClientId,
    flying: Mutex<Flying>,
    landed: Notify,
    born: Mutex<Option<(Born, Moment)>>,
    /// Held by who asks for Global's clock.
    pub(crate) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Flying {
    next: u64,
    now: BTreeSet<u64>,
}

impl Flying {
    /// So many numbers that follow one another; the first of them.
    fn take(&mut self, count: u64) -> Option<u64> {
        let (n, last) = (self.next, self.next + count - 1);
        if self.now.first().is_some_and(|oldest| last >= oldest + OUTCOMES_PER_CLIENT) {
            return None;
        }
        self.next = last + 1;
        self.now.extend(n..=last);
        Some(n)
    }
}

impl Ids {
    pub(crate) fn new(client: ClientId) -> Self {
        let flying = Mutex::new(Flying { next: 1, now: BTreeSet::new() });
        let (landed, born, asking) = (Notify::new(), Mutex::new(None), tokio::sync::Mutex::new(()));
        Self { client, flying, landed, born, asking }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Takes note of Global's clock, read at `now`.
    pub(crate) fn learn(&self, born: Born, now: Moment) {
        let mut known = self.born.lock();
        // An answer that is older than what is known tells nothing, not even that it is fresh.
        if known.is_none_or(|(known, _)| born == known || born.newer_than(&known)) {
            *known = Some((born, now));
        }
    }

    /// Global's clock as last read, and whether that is recent enough.
    pub(crate) fn born(&self, now: Moment) -> Option<(Born, bool)> {
        (*self.born.lock()).map(|(born, at)| (born, now.since(at) < BORN_FRESH))
    }

    /// Forgets Global's clock, because Global refused it.
    pub(crate) fn unlearn(&self) {
        *self.born.lock() = None;
    }

    /// Names for `count` changes, at least one and at most 1,024, waiting while too many are in flight. They follow
    /// one another, and are in flight until what is given is dropped.
    pub(crate) async fn next(&self, born: Born, count: u64) -> Named<'_> {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if let Some(n) = self.flying.lock().take(count) {
                return Named { ids: self, id: RequestId { client: self.client, n, born }, count };
            }
            landed.await;
        }
    }
}

/// Changes in flight.
#[derive(Debug)]
pub(crate) struct Named<'a> {
    ids: &'a Ids,
    /// Of the first of them.
    pub(crate) id: RequestId,
    count: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let mine = self.id.n..self.id.n + self.count;
        self.ids.flying.lock().now.retain(|n| !mine.contains(n));
        self.ids.landed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::HistoryId;

    #[tokio::test]
    async fn ids_count_from_one_and_never_run_1024_ahead_of_the_oldest_in_flight() {
        let ids = Ids::new(ClientId(7));
        let oldest = ids.next(Born::default(), 1).await;
        assert_eq!((oldest.id.client, oldest.id.n), (ClientId(7), 1));
        for n in 2..=OUTCOMES_PER_CLIENT {
            assert_eq!(ids.next(Born::default(), 1).await.id.n, n);
        }
        let next = ids.next(Born::default(), 1);
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending(), "1,025 would outrun the oldest");
        drop(oldest);
        assert_eq!(next.await.id.n, OUTCOMES_PER_CLIENT + 1);
    }

    #[test]
    fn globals_clock_goes_forward_only_and_grows_stale() {
        let ids = Ids::new(ClientId(7));
        let at = |ms: u64| Moment::from_nanos(ms * 1_000_000);
        let born = |boot, at_ms| Born { history: HistoryId(1), boot, at_ms };
        assert_eq!(ids.born(at(0)), None);
        ids.learn(born(1, 50), at(0));
        ids.learn(born(1, 40), at(500));
        assert_eq!(ids.born(at(999)), Some((born(1, 50), true)));
        assert_eq!(ids.born(at(1000)), Some((born(1, 50), false)));
        ids.learn(born(2, 3), at(1000));
        assert_eq!(ids.born(at(1001)), Some((born(2, 3), true)));
        ids.unlearn();
        assert_eq!(ids.born(at(1002)), None);
    }
}
