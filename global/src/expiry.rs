//! Ends the time of names: a name whose time is over is unbound by a committed change before anybody is told that it is
//! not there.
//!
//! ```text
//! now and then   names that are overdue, a batch at a time    -> committed
//! a read         finds a name that is overdue                 -> waits for that commit, looks again
//! ```
//! Time is journal time: the wall clock, or the newest that was journaled if that is later. So a clock that is set back
//! revives nothing. Invariant: of one name at most one such change is under way, however many wait for it.

use crate::authority::{Authority, Responder};
use crate::catalog::Hints;
use dstore_shared::{Entry, Error, Name, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Names that end in one change.
const BATCH: usize = 512;
/// How long a round waits for the next, if no name was overdue.
const ROUND: Duration = Duration::from_millis(500);
/// How often a read looks again because a name that it found had run out by then.
const LOOKS_MAX: usize = 8;

/// Names that are being ended, and how to wait for that.
#[derive(Debug, Default)]
pub(crate) struct Ending(Mutex<HashMap<Name, Arc<Ended>>>);

/// The end of some names. Those who wait are woken in the order in which they came, so that a simulation can be run
/// again: a watch channel draws lots.
#[derive(Debug, Default)]
struct Ended {
    over: Notify,
    came_to: OnceLock<Result<()>>,
}

impl Ended {
    async fn wait(&self) -> Result<()> {
        loop {
            let mut over = pin!(self.over.notified());
            // From here on nothing is missed.
            over.as_mut().enable();
            if let Some(came_to) = self.came_to.get() {
                return came_to.clone();
            }
            over.await;
        }
    }

    fn tell(&self, came_to: Result<()>) {
        // The first word counts.
        let _ = self.came_to.set(came_to);
        self.over.notify_waiters();
    }
}

/// Tells those who wait, also if it is dropped on its way.
struct Ender(Arc<Ended>);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.tell(Err(Error::unavailable("global is stopping: try again")));
    }
}

impl Authority {
    /// Whether the time of an entry is over now.
    pub(crate) fn is_overdue(&self, entry: &Entry) -> bool {
        entry.expires_at.is_some() && entry.is_over(self.journal_now())
    }

    /// Has names unbound whose time is over, and waits until that is visible.
    ///
    /// # Errors
    /// `Unavailable` if the store takes no changes.
    pub(crate) async fn end_overdue(self: &Arc<Self>, mut all: Vec<Name>) -> Result<()> {
        let mut waits = Vec::new();
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(BATCH));
            let mut names = std::mem::replace(&mut all, rest);
            let waiting = Arc::<Ended>::default();
            {
                let mut ending = self.ending.0.lock();
                names.retain(|name| match ending.get(name) {
                    Some(other) => {
                        waits.push(other.clone());
                        false
                    }
                    None => ending.insert(name.clone(), waiting.clone()).is_none(),
                });
            }
            if names.is_empty() {
                continue;
            }
            let ender = Ender(waiting.clone());
            waits.push(waiting);
            // Also for those who go away: others wait for it.
            let authority = self.clone();
            self.tasks.spawn("expire", async move {
                let ended = authority.end(names.clone()).await;
                let mut ending = authority.ending.0.lock();
                names.iter().for_each(|name| _ = ending.remove(name));
                drop(ending);
                ender.0.tell(ended);
            });
        }
        for wait in waits {
            wait.wait().await?;
        }
        Ok(())
    }

    async fn end(&self, names: Vec<Name>) -> Result<()> {
        let (to, answer) = oneshot::channel();
        self.submit_expiry(names, Responder::Call(to, None));
        // A store that failed leaves what waits for names unanswered.
        let mut failure = self.failure();
        tokio::select! {
            answer = answer => {
                answer.map_err(|_| Error::unavailable("global is stopping: try again"))??;
                Ok(())
            }
            Ok(failed) = failure.wait_for(Option::is_some) => {
                Err(failed.clone().unwrap_or_else(|| Error::unavailable("the store has failed")))
            }
        }
    }

    /// Looks until nothing that was found is overdue: `look` gives what it found, and `overdue` says which names of
    /// that are.
    ///
    /// # Errors
    /// As [`Self::end_overdue`], and what `look` fails with.
    pub(crate) async fn look_live<T, F>(
        self: &Arc<Self>,
        look: impl Fn() -> F,
        overdue: impl Fn(&T) -> Vec<Name>,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        for _ in 0..LOOKS_MAX {
            let found = look().await?;
            let over = overdue(&found);
            if over.is_empty() {
                return Ok(found);
            }
            self.end_overdue(over).await?;
        }
        Err(Error::unavailable("names run out faster than they can be read: try again"))
    }
}

/// Ends names for ever.
pub(crate) async fn expire(authority: Arc<Authority>) {
    let mut from = Hints::default();
    loop {
        let catalog = authority.catalog.clone();
        let now_ms = authority.journal_now();
        // A failed index has been reported by whoever met it first; it is asked again in the next round.
        let look = move || catalog.overdue(now_ms, BATCH, &from);
        let (names, next) = authority.sys.blocking.run(look).await.unwrap_or_default();
        let ended = if names.is_empty() { Ok(()) } else { authority.end_overdue(names).await };
        // Hints that are not true any more, however many, do not hide those behind them.
        from = if let (Some(next), Ok(())) = (next, ended) {
            next
        } else {
            tokio::time::sleep(authority.sys.rng.jitter(ROUND)).await;
            Hints::default()
        };
    }
}
