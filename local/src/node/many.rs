//! Many names in one call.
//!
//! ```text
//! get_many   hits, and what is missing resolved at one revision; then the hits looked at again:
//!            all as before  -> at the moment of that revision all of it was so
//!            one has changed -> again, a few times; then everything is resolved at Global at one revision
//! set_many   all changes sent together; each is decided, cached and answered by itself
//! ```
//! Invariant: the bindings that one answer tells were all true at one moment during the call. A hit before and
//! after, under a valid lease and with the same `bind_rev`, was true all the while.

use super::{Bound, Node, unknown};
use crate::blob_flight::Landed;
use crate::core::ReadMany;
use dstore_proto::store::{
    Body, Found, FoundMany, SetOne, SetReply, Stat, StatMany, Tier, check_bytes, check_names, check_sets,
};
use dstore_proto::store::{BodyStream, Slice};
use dstore_shared::frame::Resolved;
use dstore_shared::limits::CARRIED_BYTES_MAX;
use dstore_shared::{Blob, Command, CopyOutcome, Entry, Error, Name, Outcome, RequestId, Result, Revision};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// How often the hits may have changed before all names are resolved at Global.
const ATTEMPTS_MAX: usize = 4;
/// How often a blob may be swept between look and fetch.
const RESOLVES_MAX: usize = 3;
/// Values that are fetched side by side for one call.
const FETCHES: usize = 16;

/// What the node knows of names, and which it does not know.
struct Looked<T> {
    hits: Vec<Option<T>>,
    missing: Vec<Name>,
}

impl Node {
    pub(super) async fn found_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        check_names(&names)?;
        if names.is_empty() {
            return Ok(FoundMany { found: Vec::new(), revision: Revision(0) });
        }
        for _ in 0..ATTEMPTS_MAX {
            if let Some(found) = self.try_found_many(&names).await? {
                return Ok(found);
            }
        }
        self.found_at_global(&names).await
    }

    /// `None`: a binding has changed meanwhile.
    async fn try_found_many(&self, names: &[Name]) -> Result<Option<FoundMany>> {
        let Looked { hits, missing } = self.hits(names, |entry, blob| (entry, blob), |_| true);
        if missing.is_empty() {
            let entries = hits.iter().flatten().map(|(entry, _)| entry);
            let Some(revision) = self.still_hit(names, entries.map(Some)) else { return Ok(None) };
            return self.merged(hits, Vec::new(), revision).map(Some);
        }
        let ReadMany { resolved, values } = self.core.read_many(&missing)?;
        let resolved = self.answer(Ok(resolved)).await?;
        let hit_entries = hits.iter().map(|hit| hit.as_ref().map(|(entry, _)| entry));
        if self.still_hit(names, hit_entries.clone()).is_none() {
            return Ok(None);
        }
        check_bytes(hit_entries.flatten().chain(resolved.iter().filter_map(|r| r.entry.as_ref())))?;
        let revision = resolved.first().map_or(Revision(0), |first| first.head);
        let found = if values.is_empty() {
            self.bodies(&resolved).await?
        } else {
            let mut found = Vec::with_capacity(values.len());
            for ((name, value), resolved) in missing.iter().zip(values).zip(&resolved) {
                let looked = self.transfer(name, value, self.deadline).await?.ok_or_else(|| self.away())?;
                if looked.entry != resolved.entry {
                    return Ok(None);
                }
                found.push(resolved.entry.clone().map(|entry| {
                    let body = looked.blob.map_or_else(|| self.fetched_later(&entry), Body::Blob);
                    let from = self.of(&entry, (Tier::Global, looked.cached), revision);
                    Found { entry, from, body }
                }));
            }
            Some(found)
        };
        found.map(|found| self.merged(hits, found, revision)).transpose()
    }

    /// All of them as Global has them, at one revision; nothing is kept but blobs.
    async fn found_at_global(&self, names: &[Name]) -> Result<FoundMany> {
        for _ in 0..RESOLVES_MAX {
            let resolved = self.answer(self.core.look_many(names.to_vec(), true)).await?;
            check_bytes(resolved.iter().filter_map(|r| r.entry.as_ref()))?;
            let revision = resolved.first().map_or(Revision(0), |first| first.head);
            if let Some(found) = self.bodies(&resolved).await? {
                return Ok(FoundMany { found, revision });
            }
        }
        Err(Error::unavailable("the values change faster than they can be fetched: try again"))
    }

    /// The values of bindings that are not cached: carried, held, fetched, or streamed when they are read. `None`:
    /// one was swept since.
    async fn bodies(&self, resolved: &[Resolved]) -> Result<Option<Vec<Option<Found>>>> {
        let bodies = resolved.iter().cloned().map(|resolved| async move {
            let Some(entry) = resolved.entry else { return Ok(Some(None)) };
            let Some(body) = self.body(&entry, resolved.carried).await? else { return Ok(None) };
            let from = self.of(&entry, (Tier::Global, false), resolved.head);
            Ok(Some(Some(Found { entry, from, body })))
        });
        let found: Vec<Option<Option<Found>>> = stream::iter(bodies).buffered(FETCHES).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    async fn body(&self, entry: &Entry, carried: Option<Blob>) -> Result<Option<Body>> {
        let at_hand = carried.filter(|blob| blob.id() == entry.hash);
        if let Some(blob) = at_hand.or_else(|| self.core.cache.have(&entry.hash)) {
            return Ok(Some(Body::Blob(blob)));
        }
        if entry.size > CARRIED_BYTES_MAX as u64 {
            return Ok(Some(self.fetched_later(entry)));
        }
        Ok(match self.core.blob(entry.hash, Some(entry.size), None).await? {
            Landed::Here(blob) => Some(Body::Blob(blob)),
            Landed::NoRoom => Some(self.fetched_later(entry)),
            Landed::Gone => None,
        })
    }

    /// A value that is fetched when it is read: a thousand of them are not fetched at once.
    fn fetched_later(&self, entry: &Entry) -> Body {
        let (core, hash) = (self.core.clone(), entry.hash);
        let opened = stream::once(async move {
            match core.link.fetch(hash, Slice::ALL).await? {
                Some(fetched) => Ok(fetched.body),
                None => {
                    Err(Error::unavailable("the value was deleted and swept while it was read: try again"))
                }
            }
        });
        let body: BodyStream = Box::pin(opened.try_flatten());
        Body::Stream(body)
    }

    pub(super) async fn stats(&self, names: Vec<Name>) -> Result<StatMany> {
        check_names(&names)?;
        let (entries, revision) = self.entries(&names, |entry| entry.expires_at.is_none()).await?;
        let stat = |(entry, tier): (Entry, Tier)| {
            let from = self.of(&entry, (tier, tier == Tier::Local), revision);
            Stat { entry, from }
        };
        Ok(StatMany { stats: entries.into_iter().map(|entry| entry.map(stat)).collect(), revision })
    }

    /// What each of `names` is bound to, and who knew it, all as of one revision. Of what is held only what is
    /// `good` counts.
    pub(super) async fn entries(
        &self,
        names: &[Name],
        good: impl Fn(&Entry) -> bool,
    ) -> Result<(Vec<Option<(Entry, Tier)>>, Revision)> {
        for attempt in 0..=ATTEMPTS_MAX {
            let looked = if attempt < ATTEMPTS_MAX {
                self.hits(names, |entry, _| entry, &good)
            } else {
                Looked { hits: vec![None; names.len()], missing: names.to_vec() }
            };
            let Looked { hits, missing } = looked;
            let (resolved, head) = if missing.is_empty() {
                (Vec::new(), None)
            } else {
                let resolved = self.answer(self.core.look_many(missing, false)).await?;
                let head = resolved.first().map(|first| first.head);
                (resolved, head)
            };
            if let Some(newest) = self.still_hit(names, hits.iter().map(Option::as_ref)) {
                let mut resolved = resolved.into_iter().map(|r| r.entry.map(|entry| (entry, Tier::Global)));
                let entry = |hit: Option<Entry>| match hit {
                    Some(entry) => Some((entry, Tier::Local)),
                    None => resolved.next().flatten(),
                };
                return Ok((hits.into_iter().map(entry).collect(), head.unwrap_or(newest)));
            }
        }
        Err(Error::internal("names without a hit have changed: report this"))
    }

    fn hits<T>(
        &self,
        names: &[Name],
        keep: impl Fn(Entry, Blob) -> T,
        good: impl Fn(&Entry) -> bool,
    ) -> Looked<T> {
        let hit = |name: &Name| {
            let hit = self.core.hit(name.as_bytes()).filter(|hit| good(&hit.entry));
            hit.map(|hit| keep(hit.entry, hit.blob))
        };
        let hits: Vec<Option<T>> = names.iter().map(hit).collect();
        let missing = names.iter().zip(&hits).filter(|(_, hit)| hit.is_none()).map(|(name, _)| name.clone());
        Looked { missing: missing.collect(), hits }
    }

    /// The newest revision of the bindings that were hits before, if each still is what it was.
    fn still_hit<'a>(
        &self,
        names: &[Name],
        before: impl Iterator<Item = Option<&'a Entry>>,
    ) -> Option<Revision> {
        let mut newest = Revision(0);
        for (name, before) in names.iter().zip(before) {
            let Some(before) = before else { continue };
            if self.core.hit(name.as_bytes())?.entry != *before {
                return None;
            }
            newest = newest.max(before.bind_rev);
        }
        Some(newest)
    }

    pub(super) async fn sets(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        check_sets(&sets)?;
        let held: Vec<bool> = sets.iter().map(|one| self.core.hit(one.name.as_bytes()).is_some()).collect();
        let changes = sets.iter().map(|one| {
            let blob = Bound { attributes: one.attributes.clone(), ..Bound::whole(one.value.clone()) };
            let small = blob.size <= CARRIED_BYTES_MAX as u64;
            let command = blob.command(&one.name, blob.bytes.clone().filter(|_| small));
            (one.id, command, self.own(&blob))
        });
        let sent = self.core.change_many(changes.collect());
        let settled = sets.into_iter().zip(held).zip(sent).map(|((one, held), sent)| async move {
            let SetOne { id, name, value, attributes } = one;
            let blob = Bound { attributes, ..Bound::whole(value) };
            let changed = self.answer(sent).await.map_err(unknown)?;
            let changed = self.staged_if_needed(id, &name, &blob, changed).await?;
            self.told(&name, changed, held).await.and_then(super::store::needs_none)
        });
        Ok(join_all(settled).await)
    }

    /// A COPY or RENAME.
    pub(super) async fn copied(&self, id: RequestId, command: Command) -> Result<CopyOutcome> {
        let changed = self.answer(self.core.change(id, command, None)).await.map_err(unknown)?;
        match changed.outcome {
            Outcome::Copy(done) | Outcome::Rename(done) => Ok(done),
            _ => Err(Error::internal("global answered a COPY with another outcome: report this")),
        }
    }

    /// Hits, and in the gaps between them what was resolved.
    fn merged(
        &self,
        hits: Vec<Option<(Entry, Blob)>>,
        found: Vec<Option<Found>>,
        revision: Revision,
    ) -> Result<FoundMany> {
        check_bytes(hits.iter().flatten().map(|(entry, _)| entry))?;
        let mut found = found.into_iter();
        let each = |hit: Option<(Entry, Blob)>| match hit {
            Some((entry, blob)) => {
                let from = self.of(&entry, (Tier::Local, true), revision);
                Some(Found { entry, from, body: Body::Blob(blob) })
            }
            None => found.next().flatten(),
        };
        Ok(FoundMany { found: hits.into_iter().map(each).collect(), revision })
    }
}
