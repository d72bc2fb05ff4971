//! The auditor: asks Global now and then whether what this Local serves is right, though the rules say that it is.
//!
//! ```text
//! a hit, drawn as it happens -> Global is asked for the name -> another blob, or none?
//!     -> is the old one still served, now that Global has told? -> a suspect
//!        -> after the longest time that an asynchronous DEL may leave it -> still? -> stale: counted, told
//! ```
//! Why that is sound, without comparing clocks: what Global tells is visible there, and nothing is before every Local
//! that could serve the old binding has dropped it, or its lease is over (docs/PROTOCOL.md). So a hit *behind* Global's
//! answer that shows an older binding than that answer is one that must not be; only an asynchronous DEL is visible
//! before, for a bounded time. Invariants: an audit installs and registers nothing, and changes nothing but counts; a hit
//! that is not drawn costs one load more. It must never be why something is served or not.

use crate::core::Core;
use dstore_shared::{Entry, Name, Result, Revision};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long Global may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// An asynchronous DEL may leave old values for less than so many leases.
const LEASES: u32 = 3;

/// What was drawn, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The next hit is to be drawn.
    wanted: AtomicBool,
    drawn: Mutex<Option<Box<[u8]>>>,
    /// Hits that were looked after, with an answer.
    pub audits: AtomicU64,
    /// Of them those whose name was bound otherwise by then, here as at Global.
    pub changed: AtomicU64,
    /// Of them those that were served still when Global had told otherwise: an asynchronous DEL may do that.
    pub suspects: AtomicU64,
    /// Of them those that no asynchronous DEL explains: must be 0.
    pub stale: AtomicU64,
}

/// What an audit found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Right,
    Changed,
    /// Bound so, at this revision.
    Old(Revision),
}

impl Audit {
    /// A hit: drawn, if one is wanted.
    #[inline]
    pub fn see(&self, name: &[u8]) {
        if self.wanted.load(Ordering::Relaxed) {
            self.draw(name);
        }
    }

    #[cold]
    fn draw(&self, name: &[u8]) {
        if self.wanted.swap(false, Ordering::Relaxed) {
            *self.drawn.lock() = Some(name.into());
        }
    }

    fn want(&self) -> Option<Name> {
        let drawn = self.drawn.lock().take();
        self.wanted.store(true, Ordering::Relaxed);
        drawn.and_then(|packed| Name::from_packed(packed.into_vec().into()).ok())
    }
}

/// Looks after hits for ever, `a_minute` of them at the most.
pub(crate) async fn audit(core: Arc<Core>, a_minute: u32) {
    let Some(pause) = Duration::from_secs(60).checked_div(a_minute) else { return };
    loop {
        tokio::time::sleep(core.sys.rng.jitter(pause)).await;
        let Some(name) = core.audit.want() else { continue };
        // A Global that is away is no finding.
        let Ok(verdict) = look(&core, &name).await else { continue };
        core.audit.audits.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Right => {}
            Verdict::Changed => _ = core.audit.changed.fetch_add(1, Ordering::Relaxed),
            Verdict::Old(binding) => suspect(&core, &name, binding).await,
        }
    }
}

async fn suspect(core: &Core, name: &Name, binding: Revision) {
    core.audit.suspects.fetch_add(1, Ordering::Relaxed);
    let (_, _, lease, _) = core.standing();
    tokio::time::sleep(lease * LEASES).await;
    // The very same: another one may be old for an asynchronous DEL of its own.
    if matches!(look(core, name).await, Ok(Verdict::Old(still)) if still == binding) {
        core.audit.stale.fetch_add(1, Ordering::Relaxed);
        tracing::error!(?name, "an audit found a stale value being served: stop this node, and report this");
    }
}

/// Compares what is served with what Global tells.
async fn look(core: &Core, name: &Name) -> Result<Verdict> {
    let before = held(core, name);
    let looked = tokio::time::timeout(ANSWER_MAX, core.look(name)?).await;
    let looked = match looked {
        Ok(Ok(looked)) => looked?,
        Ok(Err(_)) | Err(_) => {
            return Err(dstore_shared::Error::unavailable("global did not answer an audit"));
        }
    };
    // Only now: behind what Global told.
    let after = held(core, name);
    Ok(judge((before, after), looked.entry.as_ref(), looked.head))
}

fn held(core: &Core, name: &Name) -> Option<Entry> {
    core.hit_unseen(name.as_bytes()).map(|hit| hit.entry)
}

fn judge((before, after): (Option<Entry>, Option<Entry>), told: Option<&Entry>, head: Revision) -> Verdict {
    let same = |held: &Entry| told.is_some_and(|told| told.hash == held.hash);
    match &after {
        // Bound behind the answer: that does not tell of it.
        Some(held) if !same(held) && held.bind_rev <= head => Verdict::Old(held.bind_rev),
        _ if before.is_some_and(|held| !same(&held)) => Verdict::Changed,
        _ => Verdict::Right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::BlobHash;

    fn entry(value: &[u8], revision: u64) -> Entry {
        Entry {
            hash: BlobHash::of(value),
            size: value.len() as u64,
            bind_rev: Revision(revision),
            expires_at: None,
            content_type: None,
        }
    }

    #[test]
    fn only_an_older_binding_that_is_served_behind_the_answer_is_old() {
        let (old, new) = (entry(b"old", 5), entry(b"new", 9));
        let judged = |before: &[&Entry], after: &[&Entry], told: &[&Entry], head| {
            let one = |all: &[&Entry]| all.first().map(|entry| (*entry).clone());
            judge((one(before), one(after)), told.first().copied(), Revision(head))
        };
        assert_eq!(judged(&[&old], &[&old], &[&old], 7), Verdict::Right);
        assert_eq!(judged(&[&old], &[&old], &[&new], 9), Verdict::Old(Revision(5)), "replaced");
        assert_eq!(judged(&[&old], &[&old], &[], 9), Verdict::Old(Revision(5)), "deleted");
        assert_eq!(judged(&[&old], &[], &[], 9), Verdict::Changed, "dropped in time");
        assert_eq!(judged(&[&old], &[&new], &[&new], 9), Verdict::Changed);
        assert_eq!(judged(&[&old], &[&new], &[&old], 8), Verdict::Right, "bound behind the answer");
        assert_eq!(judged(&[], &[], &[], 9), Verdict::Right, "evicted");
    }

    #[test]
    fn a_hit_is_drawn_only_when_one_is_wanted_and_once() {
        let audit = Audit::default();
        let name = Name::of("k").expect("valid");
        audit.see(name.as_bytes());
        assert_eq!(audit.want(), None, "nothing was wanted");
        audit.see(name.as_bytes());
        audit.see(b"another");
        assert_eq!(audit.want(), Some(name), "the first behind the wish");
        assert_eq!(audit.want(), None, "once");
    }
}
