//! Many names at one revision, for a Local that would hold them.
//!
//! ```text
//! all in memory:  one hold of the lock: look and register      -> one revision, nothing between
//! else:           register, look at all at one revision, rely  -> what came to be busy in between is not cached
//! ```
//! Invariant: every answer of one request holds as of the one revision that it tells.

use super::{Host, LOOKS_MAX};
use crate::authority::{Authority, Queued};
use dstore_shared::frame::{Answer, Reply, Resolved};
use dstore_shared::limits::{BATCH_BYTES_MAX, CARRIED_BYTES_MAX, GET_MANY_NAMES_MAX};
use dstore_shared::{Blob, BlobHash, Entry, Epoch, Error, FlightId, Name, RegSeq, Result};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// A resolve of many names on its way.
pub(super) struct ResolveMany {
    pub flight: FlightId,
    pub epoch: Epoch,
    /// The registration of the first name; each further one asks for one more.
    pub reg_seq: RegSeq,
    pub names: Vec<Name>,
    pub cache: bool,
    pub carry: bool,
    pub permit: mpsc::OwnedPermit<Queued>,
    /// A place among those whose answers are large, given back when the answer is taken to be sent.
    pub room: OwnedSemaphorePermit,
}

impl ResolveMany {
    fn each(&self) -> impl Iterator<Item = (&Name, RegSeq)> {
        // Whatever number a hostile Local begins with.
        let reg_seq = |i| RegSeq(self.reg_seq.0.saturating_add(i));
        self.names.iter().zip((0..).map(reg_seq))
    }

    /// Whether so many names are asked for that their types may not fit the answer: they are left out, and nothing of it
    /// may be kept.
    pub fn is_brief(&self) -> bool {
        self.names.len() > GET_MANY_NAMES_MAX
    }

    /// Journal time is read now, after the look: nothing is served longer than it lives.
    fn answer(self, looked: Result<Vec<Resolved>>, authority: &Authority) {
        let looked = looked.map(|mut all| {
            if self.is_brief() {
                all.iter_mut().filter_map(|r| r.entry.as_mut()).for_each(|entry| entry.content_type = None);
            }
            all
        });
        let mut entries = looked.iter().flatten().filter_map(|resolved| resolved.entry.as_ref());
        let journal_ms = authority.journal_for(entries.find(|entry| entry.expires_at.is_some()));
        let answer = looked.map_or_else(Answer::Failed, Answer::ResolvedMany);
        let reply = Reply { flight: self.flight, answer, born: authority.born(), journal_ms };
        self.permit.send(Queued { reply, _room: Some(self.room) });
    }
}

impl Host {
    pub(super) fn resolve_many(&self, asked: ResolveMany) {
        let authority = self.0.clone();
        let asked = ResolveMany { cache: asked.cache && !asked.is_brief(), ..asked };
        let hot = authority.look_hot(&asked);
        self.0.tasks.spawn("resolve", async move {
            authority.answer_many(asked, hot).await;
        });
    }
}

impl Authority {
    async fn answer_many(self: Arc<Self>, mut asked: ResolveMany, hot: Option<Vec<Resolved>>) {
        let mut looked = hot.map(Ok);
        for _ in 0..LOOKS_MAX {
            let reader = self.clone();
            let work = move || {
                let looked = looked.unwrap_or_else(|| reader.look_cold(&asked));
                let over = reader.overdue_of(&asked.names, looked.as_ref().ok());
                let carried = if over.is_empty() {
                    Some(looked.and_then(|looked| reader.carry(looked, asked.carry)))
                } else {
                    None
                };
                (asked, over, carried)
            };
            let (again, over, carried) = self.sys.blocking.run(work).await;
            if let Some(carried) = carried {
                return again.answer(carried, &self);
            }
            if let Err(e) = self.end_overdue(over).await {
                return again.answer(Err(e), &self);
            }
            (asked, looked) = (again, None);
        }
        asked.answer(Err(Error::unavailable("names run out faster than they can be read: try again")), &self);
    }

    /// Those of `names` whose time is over.
    fn overdue_of(&self, names: &[Name], looked: Option<&Vec<Resolved>>) -> Vec<Name> {
        let found = names.iter().zip(looked.into_iter().flatten());
        let over = found.filter(|(_, r)| r.entry.as_ref().is_some_and(|entry| self.is_overdue(entry)));
        over.map(|(name, _)| name.clone()).collect()
    }

    /// If memory knows all names: what they are bound to, registered, under one hold of the lock.
    fn look_hot(&self, asked: &ResolveMany) -> Option<Vec<Resolved>> {
        self.event(|m, now| {
            // Visible state changes under this lock only: this is one revision, and no name is registered in vain.
            let entries: Option<Vec<Option<Entry>>> =
                asked.names.iter().map(|name| self.catalog.entry_hot(name)).collect();
            let head = m.head();
            let looked = asked.each().zip(entries?).map(|((name, reg_seq), entry)| {
                let cacheable = entry.as_ref().filter(|_| asked.cache).and_then(|_| {
                    let made = m.begin_read(now, asked.epoch, name, reg_seq)?;
                    m.end_read(now, name, made, true)
                });
                Resolved { entry, carried: None, cacheable, head }
            });
            Some(looked.collect())
        })
    }

    /// As [`Self::look_hot`], with a look at the index between registration and reliance. Blocks.
    fn look_cold(&self, asked: &ResolveMany) -> Result<Vec<Resolved>> {
        let made: Vec<_> = self.event(|m, now| {
            let begin = |(name, reg_seq)| {
                asked.cache.then(|| m.begin_read(now, asked.epoch, name, reg_seq)).flatten()
            };
            asked.each().map(begin).collect()
        });
        let looked = self.catalog.entries(&asked.names);
        let cacheable: Vec<_> = self.event(|m, now| {
            let found = |i: usize| looked.as_ref().is_ok_and(|(_, entries)| entries[i].is_some());
            let end = |(i, (name, made)): (usize, (&Name, Option<_>))| m.end_read(now, name, made?, found(i));
            asked.names.iter().zip(made).enumerate().map(end).collect()
        });
        let (head, entries) = looked?;
        let resolved = entries.into_iter().zip(cacheable);
        Ok(resolved.map(|(entry, cacheable)| Resolved { entry, carried: None, cacheable, head }).collect())
    }

    /// Adds the bytes of small values, as many as fit a batch; one that is damaged is left to the fetch to tell.
    fn carry(self: &Arc<Self>, mut looked: Vec<Resolved>, carry: bool) -> Result<Vec<Resolved>> {
        let mut left = if carry { BATCH_BYTES_MAX } else { 0 };
        let mut read: HashMap<BlobHash, Blob> = HashMap::new();
        for resolved in &mut looked {
            let small = |entry: &Entry| entry.size <= CARRIED_BYTES_MAX.min(left) as u64;
            let Some(entry) = resolved.entry.as_ref().filter(|entry| small(entry)) else { continue };
            let blob = if let Some(blob) = read.get(&entry.hash) {
                blob.clone()
            } else {
                let Some(bytes) = self.catalog.inline(&entry.hash)? else { continue };
                let Ok(blob) = self.verified(bytes, entry.hash) else { continue };
                read.insert(entry.hash, blob.clone());
                blob
            };
            left -= blob.bytes().len();
            resolved.carried = Some(blob);
        }
        Ok(looked)
    }
}
