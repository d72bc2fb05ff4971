//! Calls about many names at Global's own door: all of one revision, or one batch of the journal.

use super::{RESOLVES_MAX, at};
use crate::authority::{Asked, Responder};
use crate::host::Host;
use crate::sessions::Answered;
use dstore_proto::link::Fetch;
use dstore_proto::store::{
    Body, Found, FoundMany, SetOne, SetReply, Slice, Stat, StatMany, check_bytes, check_names, check_sets,
};
use dstore_shared::limits::CARRIED_BYTES_MAX;
use dstore_shared::{Blob, BlobHash, Command, Entry, Error, Name, Outcome, Result, Revision, SetOutcome};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::oneshot;

/// Bytes of values of one call that are read before the first is sent; the others are read when they are taken, so that
/// who asks and takes nothing costs no more than that.
const AT_HAND_MAX: u64 = 2 << 20;

impl Host {
    /// What each of `names` is bound to, all as of the revision given.
    pub(super) async fn look_many(&self, names: Vec<Name>) -> Result<(Revision, Vec<Option<Entry>>)> {
        let look = || {
            let (catalog, names) = (self.0.catalog.clone(), names.clone());
            self.0.sys.blocking.run(move || catalog.entries(&names))
        };
        let overdue = |(_, entries): &(Revision, Vec<Option<Entry>>)| {
            let over = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| self.0.is_overdue(entry));
            names.iter().zip(entries).filter(|(_, entry)| over(entry)).map(|(name, _)| name.clone()).collect()
        };
        self.0.look_live(look, overdue).await
    }

    pub(super) async fn found_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        check_names(&names)?;
        for _ in 0..RESOLVES_MAX {
            let (revision, entries) = self.look_many(names.clone()).await?;
            check_bytes(entries.iter().flatten())?;
            if let Some(found) = self.bodies(revision, entries).await? {
                return Ok(FoundMany { found, revision });
            }
        }
        Err(Error::unavailable("the values change faster than they can be read: try again"))
    }

    /// The values: small ones at hand as far as there is room, others opened when they are read. `None`: one was swept since the look.
    async fn bodies(
        &self,
        revision: Revision,
        entries: Vec<Option<Entry>>,
    ) -> Result<Option<Vec<Option<Found>>>> {
        let (mut found, mut at_hand) = (Vec::with_capacity(entries.len()), 0);
        for entry in entries {
            let body = match entry {
                None => None,
                Some(ref entry)
                    if entry.size <= CARRIED_BYTES_MAX as u64 && at_hand + entry.size <= AT_HAND_MAX =>
                {
                    at_hand += entry.size;
                    let Some(Fetch { body, .. }) = self.0.give_blob(entry.hash, Slice::ALL).await? else {
                        return Ok(None);
                    };
                    let bytes = Body::Stream(body).collect(entry.size).await?;
                    Some(Body::Blob(Blob::verify(bytes, entry.hash)?))
                }
                Some(ref entry) => Some(self.opened_later(entry.hash)),
            };
            let found_one =
                |(entry, body): (Entry, Body)| Found { from: self.of(&entry, revision), entry, body };
            found.push(entry.zip(body).map(found_one));
        }
        Ok(Some(found))
    }

    /// One of many values: a thousand of them are not opened at once.
    fn opened_later(&self, hash: BlobHash) -> Body {
        let authority = self.0.clone();
        let opened = stream::once(async move {
            match authority.give_blob(hash, Slice::ALL).await? {
                Some(Fetch { body, .. }) => Ok(body),
                None => {
                    Err(Error::unavailable("the value was deleted and swept while it was read: try again"))
                }
            }
        });
        Body::Stream(opened.try_flatten().boxed())
    }

    pub(super) async fn stats(&self, names: Vec<Name>) -> Result<StatMany> {
        check_names(&names)?;
        let (revision, entries) = self.look_many(names).await?;
        let stat = |entry: Option<Entry>| entry.map(|entry| Stat { from: self.of(&entry, revision), entry });
        Ok(StatMany { stats: entries.into_iter().map(stat).collect(), revision })
    }

    /// SETs that share a batch of the journal: those whose blob is carried with them.
    pub(super) async fn sets(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        check_sets(&sets)?;
        // One permit for all, so that two calls never wait for each other; then each has its part of it.
        let kib = |one: &SetOne| one.value.bytes().len().div_ceil(1024);
        let parts: Vec<usize> = sets.iter().map(kib).collect();
        let mut room = self.0.admit(parts.iter().sum::<usize>() * 1024).await;
        let mut staged = Vec::with_capacity(sets.len());
        for one in sets {
            staged.push(self.carried_or_staged(one).await);
        }
        let (mut asked, mut answers) = (Vec::new(), Vec::with_capacity(staged.len()));
        for (one, kib) in staged.into_iter().zip(parts) {
            let part = room.as_mut().and_then(|room| room.split(kib));
            answers.push(one.map(|(id, command)| {
                let (to, answer) = oneshot::channel();
                asked.push(Asked { id, command, caller: None, responder: Responder::Call(to, part) });
                answer
            }));
        }
        self.0.submit_all(asked);
        let mut done = Vec::with_capacity(answers.len());
        for answer in answers {
            done.push(match answer {
                Ok(answer) => told(answer.await),
                Err(e) => Err(e),
            });
        }
        Ok(done)
    }

    async fn carried_or_staged(&self, one: SetOne) -> Result<(dstore_shared::RequestId, Command)> {
        let SetOne { id, name, value, attributes } = one;
        let (hash, size) = (value.id(), value.size());
        let carried = if size <= CARRIED_BYTES_MAX as u64 {
            Some(value)
        } else {
            self.0.take_blob(Some(size), Body::Blob(value).into_stream()).await?;
            None
        };
        Ok((id, Command::Set { name, hash, size, carried, attributes }))
    }
}

fn told(answer: Result<Result<Answered>, oneshot::error::RecvError>) -> Result<SetReply> {
    let stopping = |_| Error::unavailable("outcome unknown: global is stopping; ask again");
    let Answered { outcome, .. } = answer.map_err(stopping)??;
    match outcome {
        Outcome::Set(SetOutcome::NeedBlob) => {
            Err(Error::unavailable("the blob was swept meanwhile: set it again"))
        }
        Outcome::Set(outcome) => {
            let revision = Outcome::Set(outcome.clone()).revision();
            Ok(SetReply { outcome, from: at(revision) })
        }
        _ => Err(Error::internal("a SET came to another change: report this")),
    }
}
