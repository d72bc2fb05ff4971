//! Calls about many names.

use super::patience::{Attempts, unknown};
use super::{Client, Value};
use bytes::Bytes;
use dstore_proto::store::{Found, FoundMany, SetOne, SetReply, StatMany, Store};
use dstore_shared::limits::{GET_MANY_BYTES_MAX, SET_MANY_BYTES_MAX, SET_MANY_NAMES_MAX};
use dstore_shared::{Attributes, Blob, CopyOutcome, Kind, Name, RequestId, Result, Revision};
use parking_lot::Mutex;
use std::pin::pin;

/// The values of several names, all bound so at one moment.
#[derive(Clone, Debug)]
pub struct Values {
    /// Of each name, in the order of the call; `None` = it is not bound.
    pub values: Vec<Option<Value>>,
    /// The revision as of which all of it holds.
    pub revision: Revision,
}

impl<S: Store> Client<S> {
    /// Reads the values of names as they were bound at one moment.
    ///
    /// # Errors
    /// As [`Store::get_many`].
    pub async fn get_many(&self, names: &[Name]) -> Result<Values> {
        self.retry(Attempts::Transfers, || async {
            let FoundMany { found, revision } =
                self.in_time(self.inner.store.get_many(names.to_vec())).await?;
            let mut values = Vec::with_capacity(found.len());
            for found in found {
                values.push(match found {
                    Some(Found { entry, from, body }) => {
                        Some(Value { bytes: body.collect(GET_MANY_BYTES_MAX).await?, entry, from })
                    }
                    None => None,
                });
            }
            Ok(Values { values, revision })
        })
        .await
    }

    /// Stores values under their names, each by itself, and gives what became of each. They go in as few calls as
    /// they fit; each value has an id of its own over all attempts, so that it is set once. A value that is too
    /// large for such a call goes by itself.
    ///
    /// # Errors
    /// Of each value as [`Store::set`].
    pub async fn set_many(&self, values: &[(Name, Bytes)]) -> Vec<Result<SetReply>> {
        let mut done = Vec::with_capacity(values.len());
        let mut rest = values;
        while let Some((name, value)) = rest.first() {
            let n = fitting(rest);
            if n == 0 {
                done.push(self.set(name, value.clone()).await);
                rest = &rest[1..];
                continue;
            }
            match self.set_together(&rest[..n]).await {
                Ok(results) => done.extend(results),
                Err(e) => done.extend((0..n).map(|_| Err(e.clone()))),
            }
            rest = &rest[n..];
        }
        done
    }

    /// One call; tried again while any of its values failed as `Unavailable`.
    async fn set_together(&self, values: &[(Name, Bytes)]) -> Result<Vec<Result<SetReply>>> {
        let patience = pin!(self.patience());
        let (named, patience) = self.name_change(patience, values.len() as u64).await?;
        let id = |i: usize| RequestId { n: named.id.n + i as u64, ..named.id };
        let set = |(i, (name, value)): (usize, &(Name, Bytes))| SetOne {
            id: id(i),
            name: name.clone(),
            value: Blob::hash(value.clone()),
            attributes: Attributes::default(),
        };
        let sets: Vec<SetOne> = values.iter().enumerate().map(set).collect();
        // The newest answers, if patience ends while one of them is not final.
        let last = Mutex::new(None);
        let attempt = || async {
            let results = self.inner.store.set_many(sets.clone()).await?;
            let again =
                results.iter().filter_map(|r| r.as_ref().err()).find(|e| e.kind() == Kind::Unavailable);
            match again.cloned() {
                Some(e) => {
                    *last.lock() = Some(results);
                    Err(e)
                }
                None => Ok(results),
            }
        };
        let made = self.retry_until(patience, Attempts::Calls, attempt).await;
        let made = match (made, last.into_inner()) {
            (Ok(results), _) | (Err(_), Some(results)) => Ok(results),
            (Err(e), None) => Err(e.map_or_else(|| self.in_doubt(), unknown)),
        };
        let made = made.map(|results| results.into_iter().map(|r| self.noted(r.map_err(unknown))).collect());
        self.noted(made)
    }

    /// Binds `to` to the blob that `from` is bound to, unless `to` is bound to another. No bytes move.
    ///
    /// # Errors
    /// As [`Store::copy`].
    pub async fn copy(&self, from: &Name, to: &Name) -> Result<CopyOutcome> {
        self.change(|id| self.inner.store.copy(id, from.clone(), to.clone())).await
    }

    /// As [`Client::copy`], and unbinds `from` in the same step.
    ///
    /// # Errors
    /// As [`Store::rename`].
    pub async fn rename(&self, from: &Name, to: &Name) -> Result<CopyOutcome> {
        self.change(|id| self.inner.store.rename(id, from.clone(), to.clone())).await
    }

    /// What each of `names` is bound to, all at one moment, without the bytes.
    ///
    /// # Errors
    /// As [`Store::stat_many`].
    pub async fn stat_many(&self, names: &[Name]) -> Result<StatMany> {
        self.retry(Attempts::Calls, || self.inner.store.stat_many(names.to_vec())).await
    }
}

/// How many of the first values fit one call.
fn fitting(values: &[(Name, Bytes)]) -> usize {
    let mut bytes = 0;
    let fits = |(name, value): &&(Name, Bytes)| {
        bytes += name.as_bytes().len() + value.len();
        bytes <= SET_MANY_BYTES_MAX
    };
    values.iter().take(SET_MANY_NAMES_MAX).take_while(fits).count()
}
