//! Somebody who watches every name, and goes on from where he was: over broken connections, and over his own death.

use super::{Cluster, GLOBAL, Phase, TrueTime, key_of};
use crate::history::{Bound, Watched};
use crate::plan::Bug;
use dstore_client::{Client, Happened};
use dstore_proto::store::{ListQuery, Store};
use dstore_proto::watch::{Seen, WatchQuery};
use dstore_shared::{HistoryId, Kind, Namespace, Revision};
use dstore_sys::rng::{Rng, SeededRng};
use std::time::Duration;

/// After so many batches at most he begins again by himself.
const BATCHES_MAX: u64 = 30;
/// Before he tries again.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Watcher<S> {
    pub cluster: Cluster,
    pub by: String,
    pub client: Client<S>,
    pub time: TrueTime,
    pub rng: SeededRng,
}

impl<S: Store> Watcher<S> {
    pub async fn run(self) {
        loop {
            let (history, after) = self.position();
            let skipped = u64::from(self.cluster.0.plan.bug == Some(Bug::WatchOffByOne) && after > 0);
            let query = WatchQuery {
                namespace: Namespace::default(),
                prefix: bytes::Bytes::new(),
                after: Some(Revision(after + skipped)),
                history,
            };
            let mut watch = self.client.watch(query);
            let batches = 1 + self.rng.next_u64() % BATCHES_MAX;
            let mut has_begun = false;
            for _ in 0..batches {
                match watch.next().await {
                    Ok(seen) => {
                        let Some((history, _)) = watch.position() else { continue };
                        if !std::mem::replace(&mut has_begun, true) {
                            self.note(Watched::Begun { history: history.0, after });
                        }
                        self.seen(seen);
                    }
                    Err(e) if e.kind() == Kind::TooOld => {
                        self.begin_anew().await;
                        break;
                    }
                    Err(e) => {
                        if !self.cluster.0.plan.allows(e.kind()) {
                            self.cluster.accuse(format!("{}: {:?}: {e}", self.by, e.kind()));
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// The history that he knows, and up to where he was told everything.
    fn position(&self) -> (Option<HistoryId>, u64) {
        let told = self.cluster.0.history.last_begun(&self.by);
        (told.map(HistoryId), self.cluster.0.history.through(&self.by).unwrap_or(0))
    }

    fn note(&self, what: Watched) {
        self.cluster.0.history.watched(&self.by, what);
    }

    fn seen(&self, seen: Seen) {
        let mut events = Vec::new();
        for event in seen.events {
            let key =
                (0..self.cluster.0.plan.keys).find(|key| key_of(*key).as_bytes() == event.key.as_bytes());
            let Some(key) = key else {
                return self.cluster.accuse(format!("{}: told of {:?}", self.by, event.key));
            };
            let value = |entry: dstore_shared::Entry| {
                let value = self.cluster.value_of(&entry.hash);
                if value.is_none() {
                    self.cluster.accuse(format!("{}: told of {entry:?}, which nobody set", self.by));
                }
                value.unwrap_or(0)
            };
            let bound = match event.happened {
                Happened::Bound(entry) => Bound::To(value(entry)),
                Happened::Unbound(was) => Bound::NotAnyMore(was.map(value)),
            };
            events.push((event.revision.0, key, bound));
        }
        self.note(Watched::Batch { at: self.time.now(), events, through: seen.through.0 });
    }

    /// What he missed is forgotten: he lists, and watches after the list.
    async fn begin_anew(&self) {
        // After a start Global knows what its journal still has, which may be no more than is after the checkpoint.
        let has_started_again = self.cluster.0.lives.borrow().get(GLOBAL).is_some_and(|lives| *lives > 1);
        if self.cluster.0.plan.watch_bytes > 1 << 20 && !has_started_again {
            self.cluster.accuse(format!("{}: changes are forgotten before their time", self.by));
        }
        self.note(Watched::TooOld);
        let query = || ListQuery {
            namespace: Namespace::default(),
            prefix: bytes::Bytes::new(),
            after: None,
            limit: 1000,
        };
        loop {
            if let Ok(page) = self.client.store().list(query()).await {
                let after = page.from.revision.0;
                let history = self.cluster.0.history.last_begun(&self.by).unwrap_or(0);
                return self.note(Watched::Begun { history, after });
            }
            if self.cluster.0.phase.get() == Phase::Look {
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
