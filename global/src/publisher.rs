//! The publisher: makes durable commits visible, frees their names and answers, in the order of revisions, while
//! the committer writes the next batch.
//!
//! Runs on a thread of its own (or in place, in simulation), so it may block. Invariants: it is given only what
//! is durable, or at the level `relaxed` what is written, and then it acknowledges nothing while older changes that it
//! acknowledged are overdue to be synced; visibility, the holders' bits, the freed names and the answer are one step under the shard's
//! lock (rule 8). It is the one caller of [`Catalog::show`] and [`Catalog::checkpoint`], so a checkpoint has
//! the outcomes of exactly what is visible. It decides nothing.

use crate::authority::Authority;
use crate::catalog::Catalog;
use crate::change::Commit;
use crate::checkpoint::Remembered;
use crate::committer::Done;
use crate::feed::Unbound;
use crate::journal::Syncer;
use crate::sessions::OpNo;
use dstore_shared::{Error, Outcome, Result, Revision};
use dstore_sys::tasks::{Blocking, Lane, LaneEnd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;

/// Ops that become visible under one hold of the shard's lock.
const SHOWN_TOGETHER: usize = 64;
/// Outcomes that are copied under one hold of the shard's lock: well below a millisecond, unless many are of DELs
/// of thousands of names.
const OUTCOMES_COPIED_TOGETHER: usize = 512;
/// Batches that may be durable and not visible: the committer waits when there are more.
const BATCHES: usize = 4;
/// A batch of so few decisions is published sooner than another thread is woken up.
const FEW: usize = 8;

/// Who is told.
pub(crate) enum To {
    Op(OpNo),
    Own(oneshot::Sender<Result<Done>>),
}

/// A decision that is durable as of `revision`.
pub(crate) struct Decided {
    pub to: To,
    pub done: Result<Done>,
    pub revision: Revision,
}

/// Something for the publisher.
pub(crate) enum Publication {
    Batch {
        commits: Vec<Commit>,
        decided: Vec<Decided>,
        /// What those names were bound to that the commits unbind, in their order.
        unbound: Vec<Unbound>,
        /// Journal time of the newest decision.
        at_ms: u64,
    },
    /// Write a checkpoint; tells how to wait for it.
    Checkpoint { to: oneshot::Sender<oneshot::Receiver<Result<Revision>>>, at_ms: u64 },
}

pub(crate) struct Publisher {
    authority: Weak<Authority>,
    catalog: Catalog,
    /// If what it is given may be written only, and not durable.
    syncer: Option<Arc<Syncer>>,
}

/// The committer's way to the publisher.
pub(crate) enum Publishing {
    /// On a thread of its own while there is much to do, else in place.
    Apart {
        lane: Lane<Publication>,
        publisher: Arc<Publisher>,
        /// Publications that the lane has and that are not done.
        waiting: Arc<AtomicUsize>,
    },
    InPlace(Publisher),
}

impl Publishing {
    /// Starts a publisher, and tells how to wait for its end: it comes after the way to it is dropped.
    pub(crate) fn start(
        blocking: Blocking,
        authority: Weak<Authority>,
        catalog: Catalog,
        syncer: Option<Arc<Syncer>>,
    ) -> (Self, Option<LaneEnd>) {
        let publisher = Publisher { authority, catalog, syncer };
        match blocking {
            Blocking::Threads => {
                let publisher = Arc::new(publisher);
                let waiting = Arc::<AtomicUsize>::default();
                let (to, done) = (publisher.clone(), waiting.clone());
                let work = move |given: &mut Vec<Publication>| {
                    for publication in given.drain(..) {
                        to.publish(publication);
                        done.fetch_sub(1, Ordering::Release);
                    }
                };
                let (lane, end) = Lane::start(blocking, "dstore-publish", (BATCHES, 1), work);
                (Self::Apart { lane, publisher, waiting }, Some(end))
            }
            Blocking::Inline { .. } => (Self::InPlace(publisher), None),
        }
    }

    /// Publishes, or hands over, waiting for room. There must be one caller: it alone adds to what waits, so
    /// when nothing does nobody else is publishing.
    pub(crate) fn publish(&self, publication: Publication) {
        match self {
            Self::Apart { lane, publisher, waiting } => {
                if publication.is_small() && waiting.load(Ordering::Acquire) == 0 {
                    return publisher.publish(publication);
                }
                waiting.fetch_add(1, Ordering::Relaxed);
                if lane.send_blocking(publication).is_err() {
                    publisher.fail();
                }
            }
            Self::InPlace(publisher) => publisher.publish(publication),
        }
    }
}

impl Publication {
    fn is_small(&self) -> bool {
        match self {
            Self::Batch { decided, .. } => decided.len() <= FEW,
            Self::Checkpoint { .. } => false,
        }
    }
}

impl Publisher {
    /// Its thread ended before whoever hands over to it: what is durable becomes visible no more.
    fn fail(&self) {
        if let Some(authority) = self.authority.upgrade() {
            authority.fail(&Error::internal("the publisher has ended: report this"));
        }
    }

    fn publish(&self, publication: Publication) {
        let Some(authority) = self.authority.upgrade() else { return };
        let at_ms = match publication {
            Publication::Batch { commits, decided, unbound, at_ms } => {
                self.catalog.make_room();
                if let Some(Err(e)) = self.syncer.as_ref().map(|syncer| syncer.admit()) {
                    fail_all(&authority, decided, &e);
                    return;
                }
                dstore_sys::failpoint!("global::publish::before_show");
                self.show(&authority, &commits, decided);
                dstore_sys::failpoint!("global::publish::after_show");
                // After they are visible: whoever is told of a change reads at least that change.
                authority.feed.append(&commits, &unbound);
                at_ms
            }
            Publication::Checkpoint { to, at_ms } => {
                // Whoever asked may have gone away.
                let _ = to.send(self.checkpoint(&authority, at_ms));
                return;
            }
        };
        if authority.failed().is_none() && self.catalog.checkpoint_due(authority.sys.clock.now()) {
            // The answer is not waited for: a checkpoint that fails leaves the one before.
            drop(self.checkpoint(&authority, at_ms));
        }
    }

    fn checkpoint(&self, authority: &Authority, at_ms: u64) -> oneshot::Receiver<Result<Revision>> {
        self.catalog.checkpoint(authority.sys.clock.now(), remembered(authority, at_ms))
    }

    fn show(&self, authority: &Authority, commits: &[Commit], decided: Vec<Decided>) {
        let mut rest = commits;
        let mut decided = decided.into_iter();
        loop {
            let step: Vec<Decided> = decided.by_ref().take(SHOWN_TOGETHER).collect();
            let Some(head) = step.last().map(|d| d.revision) else { break };
            let visible;
            (visible, rest) = rest.split_at(rest.partition_point(|commit| commit.revision <= head));
            authority.event(|m, now| {
                if !visible.is_empty()
                    && let Err(e) = self.catalog.show(visible)
                {
                    authority.fail(&e);
                }
                for Decided { to, done, revision } in step {
                    match to {
                        To::Op(op) => match done {
                            Ok(Done::Prefix(outcome, names)) => {
                                m.finish_prefix(now, op, Outcome::DeletePrefix(outcome), revision, &names);
                            }
                            Ok(Done::Changed(outcome, names)) => {
                                m.finish_changed(now, op, outcome, revision, &names);
                            }
                            Ok(Done::Undrained(work)) => m.drain_first(now, op, *work),
                            done => m.finish(now, op, &done.and_then(outcome_of), revision),
                        },
                        To::Own(to) => {
                            m.reached(revision);
                            // Whoever has gone away does not matter.
                            let _ = to.send(done);
                        }
                    }
                }
            });
        }
    }
}

/// The journal could not be synced: nobody knows whether the commits will be there after a restart.
fn fail_all(authority: &Authority, decided: Vec<Decided>, error: &Error) {
    authority.fail(error);
    let unknown = Error::unavailable(format!("outcome unknown: {}", error.message()));
    for Decided { to, .. } in decided {
        match to {
            To::Op(op) => authority.event(|m, _| m.fail(op, &unknown)),
            To::Own(to) => _ = to.send(Err(unknown.clone())),
        }
    }
}

/// Copies the outcomes bit by bit, so that leases, reads and changes go on meanwhile. It has all of what is
/// visible, because outcomes are noted by [`Publisher::show`] alone, which runs before or after this: between two
/// slices none comes, and none moves, since a birth does not change. Some may go, being too old or too many. One
/// that went before its slice is missing: a restart refuses its attempts as unknown (rule 26). One that went
/// after its slice is there all the same, and it is true: its attempts are answered after a restart (rule 26)
/// though they would have been refused before it (rule 25). Neither is ever executed again.
fn remembered(authority: &Authority, at_ms: u64) -> Vec<Remembered> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (slice, next) = authority.event(|m, _| m.outcomes(after, OUTCOMES_COPIED_TOGETHER));
        all.extend(slice.into_iter().map(|(id, outcome)| (id, outcome, at_ms)));
        if next.is_none() {
            return all;
        }
        after = next;
    }
}

fn outcome_of(done: Done) -> Result<Outcome> {
    match done {
        Done::Change(outcome) => Ok(outcome),
        _ => Err(Error::internal("an op came to something else than an outcome: report this")),
    }
}
