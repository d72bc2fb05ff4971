//! The feed: what became of names, in the order of revisions, for as long as it is remembered; and who watches it.
//!
//! ```text
//! publisher --append--> log (chunks; the oldest go when it is full) --read at his own pace--> each watcher
//! ```
//!
//! Invariants: an event is told only when a read shows at least what it tells; the log has no gap above its floor; a
//! revision is appended in one step; a watcher holds nothing but a place in the log, so one that does not keep up costs
//! nothing and is told `TooOld` when the log has moved past him. It must never hold up the publisher: that waits at
//! most until those who read the log's open end, a chunk at most, have copied what they want of it.

mod log;
#[cfg(test)]
mod tests;

pub use log::{After, Chunk, Limits, Log, Part, Place, Room, Unbound, Wanted};

use crate::change::Commit;
use dstore_proto::watch::{Seen, WatchQuery, Watching, not_reached, other_history, too_old};
use dstore_shared::limits::WATCH_PROGRESS;
use dstore_shared::{Error, HistoryId, Result, Revision};
use futures_util::stream;
use parking_lot::RwLock;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Watchers at a time; one more is refused.
pub(crate) const WATCHERS_MAX: usize = 4096;
/// For each watcher there is, every watcher lets so much time pass between two looks at what is new: all of them
/// together look at most 100,000 times a second, and a few are told at once.
const PACE: Duration = Duration::from_micros(10);
/// Chunks that one look goes through before others have their turn.
const CHUNKS_A_LOOK: usize = 16;

/// The log of a running Global, and its watchers.
#[derive(Debug)]
pub(crate) struct Feed {
    log: RwLock<Log>,
    /// Wakes watchers in the order in which they wait, so that a simulation can be run again: a watch channel draws lots.
    news: Notify,
    watchers: AtomicUsize,
    closed: AtomicBool,
    history: HistoryId,
}

impl Feed {
    /// A feed that goes on from what `log` knows, and remembers `bytes`.
    pub(crate) fn new(history: HistoryId, mut log: Log, bytes: usize) -> Arc<Self> {
        drop(log.limit(bytes));
        Arc::new(Self {
            log: RwLock::new(log),
            news: Notify::new(),
            watchers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            history,
        })
    }

    /// Ends every watch, and those that come: Global stops.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    /// Tells of commits that are visible, the next in the order of revisions. To be called by the publisher alone.
    pub(crate) fn append(&self, commits: &[Commit], unbound: &[Unbound]) {
        if commits.is_empty() {
            return;
        }
        let gone = {
            let mut log = self.log.write();
            log.append(commits, unbound);
            log.evict()
        };
        // Dropped after the lock is let go.
        drop(gone);
        if self.watchers.load(Ordering::SeqCst) > 0 {
            self.news.notify_waiters();
        }
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    /// What a watch may begin after, and the bytes of what is remembered.
    pub(crate) fn reach(&self) -> (Revision, usize) {
        let log = self.log.read();
        (log.floor(), log.bytes())
    }

    /// Begins a watch; `head` is the newest visible revision.
    ///
    /// # Errors
    /// `TooOld` or `Exhausted` as [`Store::watch`](dstore_proto::store::Store::watch).
    pub(crate) fn watch(self: &Arc<Self>, query: &WatchQuery, head: Revision) -> Result<Watching> {
        if let Some(asked) = query.history.filter(|asked| *asked != self.history) {
            return Err(other_history(asked, self.history));
        }
        let watcher = Watcher::enter(self)?;
        // What was acknowledged is visible, and perhaps not in the log yet: it is not of "from now on".
        let (at, floor) = (query.after.unwrap_or(head), self.log.read().floor());
        if at < floor {
            return Err(too_old(at, floor));
        }
        if at > head {
            return Err(not_reached(at, head));
        }
        let wanted = Wanted {
            prefix: [query.namespace.as_bytes(), &[0], &query.prefix].concat().into(),
            key_at: query.namespace.as_bytes().len() + 1,
        };
        let reader = Reader { place: Place::after(at), wanted, watcher, through: at, ended: false };
        let batches = Box::pin(stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Some((next, reader))
        }));
        Ok(Watching { history: self.history, after: at, batches })
    }
}

/// Counts a watcher while there is one.
#[derive(Debug)]
struct Watcher(Arc<Feed>);

impl Watcher {
    fn enter(feed: &Arc<Feed>) -> Result<Self> {
        let watcher = Self(feed.clone());
        if feed.watchers.fetch_add(1, Ordering::SeqCst) < WATCHERS_MAX {
            return Ok(watcher);
        }
        Err(Error::exhausted(format!(
            "global has at most {WATCHERS_MAX} watches: end one, or try again later"
        )))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One watcher's place in the log.
struct Reader {
    place: Place,
    wanted: Wanted,
    watcher: Watcher,
    through: Revision,
    ended: bool,
}

impl Reader {
    /// The next events; or how far it has got, when nothing happened for a while. `None` after an error.
    async fn next(&mut self) -> Option<Result<Seen>> {
        if self.ended {
            return None;
        }
        let mut progress = pin!(tokio::time::sleep(WATCH_PROGRESS));
        let mut due = false;
        let feed = self.watcher.0.clone();
        loop {
            // Before the look, so that what comes after it wakes.
            let mut news = pin!(feed.news.notified());
            news.as_mut().enable();
            let seen = match self.look().await.and_then(|seen| self.going_on(seen)) {
                Ok(seen) => seen,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            };
            self.through = seen.through;
            if due || !seen.events.is_empty() {
                return Some(Ok(seen));
            }
            let pace = PACE * u32::try_from(self.watcher.0.watchers()).unwrap_or(u32::MAX);
            tokio::time::sleep(pace).await;
            due = tokio::select! {
                biased;
                () = &mut progress => true,
                () = news => false,
            };
        }
    }

    fn going_on(&self, seen: Seen) -> Result<Seen> {
        // What is there is told first.
        if seen.events.is_empty() && self.watcher.0.closed.load(Ordering::SeqCst) {
            return Err(Error::unavailable("global is stopping: watch again after what was seen"));
        }
        Ok(seen)
    }

    /// Goes through what is new: to the end, or until a batch is full.
    async fn look(&mut self) -> Result<Seen> {
        let mut seen = Seen { events: Vec::new(), through: self.through };
        let mut room = Log::batch();
        loop {
            for _ in 0..CHUNKS_A_LOOK {
                let part =
                    self.watcher.0.log.read().part(&mut self.place, &self.wanted, &mut room, &mut seen)?;
                match part {
                    Part::Whole(chunk, next) => {
                        if !chunk.read(&mut self.place, &self.wanted, &mut room, &mut seen, next) {
                            return Ok(seen);
                        }
                    }
                    Part::End => return Ok(seen),
                }
            }
            tokio::task::yield_now().await;
        }
    }
}
