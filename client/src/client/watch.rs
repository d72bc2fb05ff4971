//! A watch that goes on over broken connections and restarts: it resumes by itself after what it has given.
//!
//! Invariants: each event is given once and in order, also when a connection ends between two parts of one revision; it
//! gives up when the tier is away for the client's deadline, and says from where to go on.

use super::Client;
use dstore_proto::store::Store;
use dstore_proto::watch::{Event, Seen, WatchQuery, WatchStream, Watching};
use dstore_shared::{Error, HistoryId, Kind, Moment, Result, Revision};
use futures_util::StreamExt;
use std::fmt;

/// A watch, made by [`Client::watch`].
pub struct Watch<S> {
    client: Client<S>,
    /// What is asked for when a connection has to be made: after all that is complete.
    query: WatchQuery,
    batches: Option<WatchStream>,
    /// The revision of the newest event, unless it is complete.
    part: Option<Part>,
    failing_since: Option<Moment>,
}

/// A revision whose events did not all come yet.
#[derive(Clone, Copy, Debug)]
struct Part {
    revision: Revision,
    /// Its events that were given.
    given: usize,
    /// Its events that came over the present connection: the same in the same order over each.
    came: usize,
}

impl<S> fmt::Debug for Watch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {:?})", self.query, self.part)
    }
}

impl<S: Store> Client<S> {
    /// Watches what becomes of names, and goes on over broken connections. Begins when it is first read.
    pub fn watch(&self, query: WatchQuery) -> Watch<S> {
        Watch { client: self.clone(), query, batches: None, part: None, failing_since: None }
    }
}

impl<S: Store> Watch<S> {
    /// From where another watch would go on: the history, and the revision up to which everything was given. `None`
    /// as long as nothing came.
    pub fn position(&self) -> Option<(HistoryId, Revision)> {
        Some((self.query.history?, self.query.after?))
    }

    /// The next events, perhaps none: then `through` tells how far it has got. Waits as long as the tier is there.
    ///
    /// # Errors
    /// `TooOld` if what follows is forgotten, `Exhausted` if there are too many watches, `Unavailable` if the tier was
    /// away for the client's deadline. After any of them another call tries again from the same place.
    ///
    /// # Cancel safety
    /// A call that is dropped has taken nothing: the next one gives the same events.
    pub async fn next(&mut self) -> Result<Seen> {
        let mut backoff = self.client.inner.config.backoff;
        loop {
            let failed = match self.step().await {
                Ok(seen) => return Ok(seen),
                Err(e) => e,
            };
            self.batches = None;
            let (sys, config) = (&self.client.inner.sys, &self.client.inner.config);
            let now = sys.clock.now();
            let since = *self.failing_since.get_or_insert(now);
            let again = matches!(failed.kind(), Kind::Unavailable | Kind::Closed);
            if !again || now.since(since) >= config.deadline {
                self.failing_since = None;
                return Err(failed);
            }
            let wait = sys.rng.jitter(failed.delay().unwrap_or_default().max(backoff));
            tracing::debug!(error = %failed, ?wait, "a watch ended and is resumed");
            backoff = (backoff * 2).min(config.backoff_max);
            tokio::time::sleep(wait).await;
        }
    }

    /// One batch, over a connection that is made if need be.
    async fn step(&mut self) -> Result<Seen> {
        if self.batches.is_none() {
            // Seldom, and large: it would make every wait for a batch as large.
            let watch = Box::pin(self.client.inner.store.watch(self.query.clone()));
            let begun = Box::pin(self.client.in_time(watch)).await?;
            let Watching { history, after, batches } = begun;
            (self.query.history, self.query.after) = (Some(history), Some(after));
            self.part = self.part.map(|part| Part { came: 0, ..part });
            self.batches = Some(batches);
        }
        let ended = || Error::unavailable("the watch ended: watch again after what was seen");
        let Some(batches) = &mut self.batches else { return Err(ended()) };
        let seen = batches.next().await.unwrap_or_else(|| Err(ended()))?;
        self.failing_since = None;
        Ok(self.take(seen))
    }

    /// Notes what is complete, and leaves out what was given.
    fn take(&mut self, mut seen: Seen) -> Seen {
        seen.events.retain(|event| self.is_new(event));
        self.query.after = self.query.after.max(Some(seen.through));
        self.part = self.part.filter(|part| part.revision > seen.through);
        seen
    }

    fn is_new(&mut self, event: &Event) -> bool {
        let part = match &mut self.part {
            Some(part) if part.revision == event.revision => part,
            part => part.insert(Part { revision: event.revision, given: 0, came: 0 }),
        };
        part.came += 1;
        let new = part.came > part.given;
        part.given = part.given.max(part.came);
        new
    }
}
