//! How a client reads: every byte that comes is compared with what was once set.

use super::client::Client;
use super::desk::Desk;
use super::{bytes_of, key_of, name, prefix_of};
use crate::linear::{Answer, Keys, Op, State, Value};
use crate::plan::Bug;
use bytes::Bytes;
use dstore_proto::store::{Body, Found, ListQuery, STALE_WAIT, Slice, Store, Target};
use dstore_shared::{Error, Namespace, Result};
use std::time::Duration;

/// Longer than any value.
const VALUE_BYTES_MAX: u64 = 1 << 20;

impl<D: Desk> Client<D> {
    /// Reads a key; `None` = no answer.
    pub async fn get(&self, key: usize) -> Option<Option<Value>> {
        self.read(key, Slice::ALL, None).await
    }

    pub async fn slice(&self, key: usize) {
        let slice = Slice { offset: self.below(12), len: Some(self.below(40_000)) };
        self.read(key, slice, None).await;
    }

    pub async fn stale(&self, key: usize) {
        self.read(key, Slice::ALL, Some(STALE_WAIT)).await;
    }

    async fn read(&self, key: usize, slice: Slice, stale: Option<Duration>) -> Option<Option<Value>> {
        let draw = self.draw();
        let begun = self.begin_read(Op::Get(key), draw);
        if self.cluster.0.plan.bug == Some(Bug::ClientCache)
            && let Some(cached) = self.cache.borrow().get(&key)
            && self.below(4) == 0
        {
            self.end(&begun, cached.map_or(Answer::Absent, Answer::Found));
            return Some(*cached);
        }
        let (store, target) = (self.desk.store(draw), Target::Name(name(key)));
        let got = match stale {
            Some(wait) => self.ended(store.get_stale(target, slice, wait)).await,
            None => self.ended(store.get(target, slice)).await,
        };
        self.cluster.0.history.say(&begun, |told| told.may_be_stale = stale.is_some());
        let value = match self.taken(got, slice).await {
            Ok(None) => None,
            Ok(Some((value, from))) => {
                self.say(&begun, from);
                Some(value)
            }
            Err(e) => {
                self.failed(&begun, &e);
                return None;
            }
        };
        self.end(&begun, value.map_or(Answer::Absent, Answer::Found));
        self.cache.borrow_mut().insert(key, value);
        Some(value)
    }

    /// The value that was found, its bytes read to the end and compared.
    async fn taken(
        &self,
        got: Result<Option<Found>>,
        slice: Slice,
    ) -> Result<Option<(Value, dstore_proto::store::Provenance)>> {
        let Some(Found { entry, from, body }) = got? else { return Ok(None) };
        let bytes = self.ended(body.collect(VALUE_BYTES_MAX)).await?;
        let Some(value) = self.known(&entry.hash) else { return Err(strange()) };
        let whole = bytes_of(value);
        let wanted = slice.within(whole.len() as u64)?;
        let wanted: Bytes = whole.slice(wanted.start as usize..wanted.end as usize);
        if bytes != wanted {
            self.cluster.accuse(format!("{}: value {value} came with other bytes", self.by));
        }
        Ok(Some((value, from)))
    }

    /// Reads what a key is bound to; `None` = no answer.
    pub async fn stat(&self, key: usize) -> Option<Option<Value>> {
        let draw = self.draw();
        let begun = self.begin_read(Op::Get(key), draw);
        let stat = match self.ended(self.desk.store(draw).stat(Target::Name(name(key)))).await {
            Ok(stat) => stat,
            Err(e) => {
                self.failed(&begun, &e);
                return None;
            }
        };
        let Some(stat) = stat else {
            self.end(&begun, Answer::Absent);
            return Some(None);
        };
        let value = self.known(&stat.entry.hash)?;
        self.say(&begun, stat.from);
        self.end(&begun, Answer::Found(value));
        Some(Some(value))
    }

    /// A value that was read by name is readable by its hash until it is swept.
    pub async fn hash(&self) {
        let draw = self.draw();
        let some = {
            let known = self.known.borrow();
            known.iter().nth(draw as usize % known.len().max(1)).map(|(hash, value)| (*hash, *value))
        };
        let Some((hash, value)) = some else { return };
        let got = self.ended(self.desk.store(draw).get(Target::Hash(hash), Slice::ALL)).await;
        match self.taken(got, Slice::ALL).await {
            Ok(Some(_)) => {}
            Ok(None) if self.cluster.0.plan.sweep_grace < Duration::from_secs(60) => {}
            Ok(None) => self.cluster.accuse(format!("{}: value {value} is gone before its time", self.by)),
            Err(e) => self.judge(&e),
        }
    }

    pub async fn get_many(&self, keys: Keys) {
        let draw = self.draw();
        let begun = self.begin_read(Op::Read(keys), draw);
        let names = keys.each().map(name).collect();
        let all = async {
            let many = self.ended(self.desk.store(draw).get_many(names)).await?;
            let mut state = State::default();
            for (key, found) in keys.each().zip(many.found) {
                let taken = self.taken(Ok(found), Slice::ALL).await?;
                state = state.with(key, taken.map(|(value, _)| value));
            }
            Ok((state, many.revision.0))
        };
        match all.await {
            Ok((state, revision)) => {
                self.cluster.0.history.say(&begun, |told| told.revision = Some(revision));
                self.end(&begun, Answer::All(state));
            }
            Err(e) => self.failed(&begun, &e),
        }
    }

    pub async fn stat_many(&self, keys: Keys) {
        let draw = self.draw();
        let begun = self.begin_read(Op::Read(keys), draw);
        let names = keys.each().map(name).collect();
        match self.ended(self.desk.store(draw).stat_many(names)).await {
            Ok(many) => {
                let mut state = State::default();
                for (key, stat) in keys.each().zip(many.stats) {
                    state = state.with(key, stat.and_then(|stat| self.known(&stat.entry.hash)));
                }
                self.cluster.0.history.say(&begun, |told| told.revision = Some(many.revision.0));
                self.end(&begun, Answer::All(state));
            }
            Err(e) => self.failed(&begun, &e),
        }
    }

    pub async fn exists(&self, keys: Keys) {
        let draw = self.draw();
        let begun = self.begin_read(Op::Exists(keys), draw);
        let names = keys.each().map(name).collect();
        match self.ended(self.desk.store(draw).exists(names)).await {
            Ok(bound) => {
                let bound = keys.each().zip(bound).filter(|(_, bound)| *bound).map(|(key, _)| key);
                self.end(&begun, Answer::Bound(Keys::of(bound)));
            }
            Err(e) => self.failed(&begun, &e),
        }
    }

    /// A page is what its names were bound to at one moment, and no name between them was bound.
    pub async fn list(&self) {
        let draw = self.draw();
        let plan = &self.cluster.0.plan;
        let prefix = [String::new(), prefix_of(0), prefix_of(1)][self.below(3) as usize].clone();
        let after = Some(self.below(2 * plan.keys as u64) as usize).filter(|key| *key < plan.keys);
        let under = |key: &usize| key_of(*key).starts_with(&prefix);
        let after = after.filter(under).map(key_of);
        let limit = 1 + self.below(plan.keys as u64 + 1) as usize;
        // Which keys it tells of is known at its end.
        let begun = self.begin_read(Op::Read(Keys::default()), draw);
        let query = ListQuery {
            namespace: Namespace::default(),
            prefix: prefix.clone().into(),
            after: after.clone().map(super::key),
            limit,
        };
        match self.ended(self.desk.store(draw).list(query)).await {
            Ok(page) => {
                let next = page.next.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
                let told = (0..plan.keys).filter(under).filter(|key| {
                    let key = key_of(*key);
                    after.as_ref().is_none_or(|after| key > *after)
                        && next.as_ref().is_none_or(|next| key <= *next)
                });
                let mut state = State::default();
                let mut told = Keys::of(told);
                for (key, entry) in page.names {
                    let at = (0..plan.keys).find(|at| key_of(*at).as_bytes() == key.as_bytes());
                    let Some(at) = at else {
                        return self.cluster.accuse(format!("{}: a list names {key:?}", self.by));
                    };
                    told = Keys(told.0 | Keys::one(at).0);
                    state = state.with(at, self.known(&entry.hash));
                }
                self.cluster.0.history.read_of(&begun, Op::Read(told), page.from.revision.0);
                self.end(&begun, Answer::All(state));
            }
            Err(e) => self.failed(&begun, &e),
        }
    }
}

/// A hash that nobody set was reported already.
fn strange() -> Error {
    Error::unavailable("a value that nobody set")
}

/// The bytes of a value, at once or piece by piece.
pub(super) fn body(value: Value, is_stream: bool) -> Body {
    let body = Body::Bytes(bytes_of(value));
    if is_stream { Body::Stream(body.into_stream()) } else { body }
}
