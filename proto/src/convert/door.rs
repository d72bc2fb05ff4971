//! The messages of the `Store` service.

use super::{Packer, need};
use crate::store::{
    DeleteReply, ListQuery, Listing, Provenance, STALE_WAIT, SetReply, Slice, Stat, Status, Target, Tier,
};
use crate::wire;
use bytes::Bytes;
use dstore_shared::limits::{
    DELETE_DEADLINE_MAX, DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX, KEY_BYTES_MAX, LIST_NAMES_MAX,
};
use dstore_shared::{
    BlobHash, Born, CopyOutcome, CopyResult, DeleteMode, Error, Key, Name, Namespace, Result, Revision,
    SetOutcome,
};
use std::time::Duration;

impl TryFrom<wire::Name> for Name {
    type Error = Error;

    fn try_from(name: wire::Name) -> Result<Self> {
        Ok(Self::new(&namespace_from(&name.namespace)?, &Key::new(name.key)?))
    }
}

pub(crate) fn namespace_from(given: &str) -> Result<Namespace> {
    match given {
        "" => Ok(Namespace::default()),
        given => Namespace::new(Bytes::copy_from_slice(given.as_bytes())),
    }
}

impl From<&Name> for wire::Name {
    fn from(name: &Name) -> Self {
        Self { namespace: name.namespace().to_string(), key: name.key().into_bytes() }
    }
}

/// The names of one request, within the limits of a DEL.
pub(crate) fn names_from(names: Vec<wire::Name>) -> Result<Vec<Name>> {
    let n = names.len();
    if n == 0 {
        return Err(Error::invalid("the request names no key: name at least one"));
    }
    let bytes: usize = names.iter().map(|name| name.key.len() + name.namespace.len() + 1).sum();
    if n > DELETE_NAMES_MAX || bytes > DELETE_NAME_BYTES_MAX {
        return Err(Error::too_large(format!(
            "the request names `{n}` keys of `{bytes}` bytes: send at most {DELETE_NAMES_MAX} keys and \
             {DELETE_NAME_BYTES_MAX} bytes at a time"
        )));
    }
    names.into_iter().map(Name::try_from).collect()
}

pub(crate) fn names_to(names: &[Name]) -> Vec<wire::Name> {
    names.iter().map(wire::Name::from).collect()
}

pub(crate) fn target_from(target: Option<wire::Target>) -> Result<Target> {
    Ok(match need(target.and_then(|t| t.target), "target")? {
        wire::target::Target::Name(name) => Target::Name(name.try_into()?),
        wire::target::Target::Hash(hash) => Target::Hash(BlobHash::from_slice(&hash)?),
    })
}

pub(crate) fn target_to(target: &Target) -> wire::Target {
    let target = match target {
        Target::Name(name) => wire::target::Target::Name(name.into()),
        Target::Hash(hash) => wire::target::Target::Hash(Bytes::copy_from_slice(hash.as_bytes())),
    };
    wire::Target { target: Some(target) }
}

impl From<&wire::GetRequest> for Slice {
    fn from(request: &wire::GetRequest) -> Self {
        Self { offset: request.offset, len: request.len }
    }
}

/// Whole microseconds, at least one.
fn micros_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

impl From<Provenance> for wire::Provenance {
    fn from(from: Provenance) -> Self {
        let tier = wire::Tier::from(from.tier).into();
        let stale_ms = from.stale_for.map(millis_up);
        let loss_ms = from.loss.map_or(0, millis_up);
        let journal_ms = from.journal_ms.unwrap_or(0);
        let asked_us = from.asked_for.map_or(0, micros_up);
        Self { tier, cached: from.cached, revision: from.revision.0, stale_ms, loss_ms, journal_ms, asked_us }
    }
}

impl TryFrom<wire::Provenance> for Provenance {
    type Error = Error;

    fn try_from(from: wire::Provenance) -> Result<Self> {
        let tier = from.tier().try_into()?;
        let stale_for = from.stale_ms.map(Duration::from_millis);
        Ok(Self {
            tier,
            cached: from.cached,
            revision: Revision(from.revision),
            stale_for,
            loss: bound_from(from.loss_ms),
            journal_ms: (from.journal_ms > 0).then_some(from.journal_ms),
            asked_for: (from.asked_us > 0).then(|| Duration::from_micros(from.asked_us)),
        })
    }
}

impl From<Tier> for wire::Tier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Local => Self::Local,
            Tier::Global => Self::Global,
        }
    }
}

impl TryFrom<wire::Tier> for Tier {
    type Error = Error;

    fn try_from(tier: wire::Tier) -> Result<Self> {
        match tier {
            wire::Tier::Local => Ok(Self::Local),
            wire::Tier::Global => Ok(Self::Global),
            wire::Tier::Unspecified => Err(Error::invalid("the answer does not say which tier gave it")),
        }
    }
}

impl From<&SetReply> for wire::SetResponse {
    fn from(reply: &SetReply) -> Self {
        let (result, entry) = match &reply.outcome {
            SetOutcome::Stored(entry) => (wire::SetResult::Stored, Some(entry)),
            SetOutcome::Unchanged(entry) => (wire::SetResult::Unchanged, Some(entry)),
            SetOutcome::Occupied(entry) => (wire::SetResult::Occupied, Some(entry)),
            SetOutcome::NeedBlob => (wire::SetResult::NeedBlob, None),
        };
        let entry = entry.map(|e| Packer::new(32).entry(e));
        Self { result: result.into(), entry, from: Some(reply.from.into()) }
    }
}

impl TryFrom<wire::SetResponse> for SetReply {
    type Error = Error;

    fn try_from(reply: wire::SetResponse) -> Result<Self> {
        let result = reply.result();
        let entry = || need(reply.entry, "entry")?.try_into();
        let outcome = match result {
            wire::SetResult::Stored => SetOutcome::Stored(entry()?),
            wire::SetResult::Unchanged => SetOutcome::Unchanged(entry()?),
            wire::SetResult::Occupied => SetOutcome::Occupied(entry()?),
            wire::SetResult::NeedBlob => SetOutcome::NeedBlob,
            wire::SetResult::Unspecified => return Err(Error::invalid("the reply to a set has no result")),
        };
        Ok(Self { outcome, from: need(reply.from, "from")?.try_into()? })
    }
}

impl From<&CopyOutcome> for wire::CopyResponse {
    fn from(outcome: &CopyOutcome) -> Self {
        let (result, entry) = match &outcome.result {
            CopyResult::Done(entry) => (wire::CopyResult::Done, Some(entry)),
            CopyResult::Unchanged(entry) => (wire::CopyResult::Unchanged, Some(entry)),
            CopyResult::Occupied(entry) => (wire::CopyResult::Occupied, Some(entry)),
            CopyResult::NotFound => (wire::CopyResult::NotFound, None),
        };
        let entry = entry.map(|e| Packer::new(32).entry(e));
        Self { result: result.into(), entry, revision: outcome.revision.0, loss_ms: 0 }
    }
}

impl TryFrom<wire::CopyResponse> for CopyOutcome {
    type Error = Error;

    fn try_from(done: wire::CopyResponse) -> Result<Self> {
        let (result, revision) = (done.result(), Revision(done.revision));
        let entry = || need(done.entry, "entry")?.try_into();
        let result = match result {
            wire::CopyResult::Done => CopyResult::Done(entry()?),
            wire::CopyResult::Unchanged => CopyResult::Unchanged(entry()?),
            wire::CopyResult::Occupied => CopyResult::Occupied(entry()?),
            wire::CopyResult::NotFound => CopyResult::NotFound,
            wire::CopyResult::Unspecified => return Err(Error::invalid("the reply to a copy has no result")),
        };
        Ok(Self { result, revision })
    }
}

impl From<DeleteReply> for wire::DeleteResponse {
    fn from(reply: DeleteReply) -> Self {
        let stale_ms = reply.stale.map_or(0, millis_up);
        Self { removed: reply.removed, revision: reply.revision.0, stale_ms, loss_ms: 0 }
    }
}

/// A bound in whole milliseconds: never told shorter than it is.
pub(crate) fn millis_up(bound: Duration) -> u64 {
    u64::try_from(bound.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

/// What [`millis_up`] told; 0 = there is none.
pub(crate) fn bound_from(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

pub(crate) fn mode_to(mode: DeleteMode) -> (i32, u64) {
    let (mode, ms) = match mode {
        DeleteMode::Strict => (wire::DeleteMode::Unspecified, 0),
        DeleteMode::Deadline(limit) => {
            (wire::DeleteMode::Deadline, u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
        }
        DeleteMode::Async => (wire::DeleteMode::Async, 0),
    };
    (mode.into(), ms)
}

pub(crate) fn mode_from(mode: i32, deadline_ms: u64) -> Result<DeleteMode> {
    match wire::DeleteMode::try_from(mode) {
        Ok(wire::DeleteMode::Unspecified) => Ok(DeleteMode::Strict),
        Ok(wire::DeleteMode::Async) => Ok(DeleteMode::Async),
        Ok(wire::DeleteMode::Deadline) => {
            let limit = Duration::from_millis(deadline_ms);
            if limit > DELETE_DEADLINE_MAX {
                return Err(Error::invalid(format!(
                    "a deadline of `{limit:?}`: use at most {DELETE_DEADLINE_MAX:?}, and ask again with the same id"
                )));
            }
            Ok(DeleteMode::Deadline(limit))
        }
        // What is not known must not be taken for something weaker, nor for something stronger.
        Err(_) => Err(Error::invalid(format!("`{mode}` is no mode of a delete: ask a newer dstore"))),
    }
}

/// How long a read waits before an old value will do; `None` = it never does.
pub(crate) fn wait_from(stale_ok: bool, wait_ms: u64) -> Option<Duration> {
    stale_ok.then(|| bound_from(wait_ms).unwrap_or(STALE_WAIT))
}

impl From<&Stat> for wire::StatResponse {
    fn from(stat: &Stat) -> Self {
        let entry = Some(Packer::new(32).entry(&stat.entry));
        Self { found: true, entry, from: Some(stat.from.into()), loss_ms: 0 }
    }
}

impl TryFrom<wire::StatResponse> for Option<Stat> {
    type Error = Error;

    fn try_from(stat: wire::StatResponse) -> Result<Self> {
        if !stat.found {
            return Ok(None);
        }
        let from = need(stat.from, "from")?.try_into()?;
        Ok(Some(Stat { entry: need(stat.entry, "entry")?.try_into()?, from }))
    }
}

/// Tokens begin with it, so that later ones can be told from these.
const PAGE_TOKEN: u8 = 1;

fn token_to(after: Option<&Key>) -> Bytes {
    let token = |key: &Key| [&[PAGE_TOKEN][..], key.as_bytes()].concat().into();
    after.map_or_else(Bytes::new, token)
}

fn token_from(token: &Bytes) -> Result<Option<Key>> {
    let foreign = || Error::invalid("the page token is not one of a list: send `next` of the page before");
    match token.first() {
        None => Ok(None),
        Some(&PAGE_TOKEN) => Ok(Some(Key::new(token.slice(1..)).map_err(|_| foreign())?)),
        Some(_) => Err(foreign()),
    }
}

impl From<&ListQuery> for wire::ListRequest {
    fn from(query: &ListQuery) -> Self {
        Self {
            namespace: query.namespace.to_string(),
            prefix: query.prefix.clone(),
            page_token: token_to(query.after.as_ref()),
            limit: query.limit.clamp(1, LIST_NAMES_MAX) as u32,
        }
    }
}

impl TryFrom<wire::ListRequest> for ListQuery {
    type Error = Error;

    fn try_from(request: wire::ListRequest) -> Result<Self> {
        let n = request.prefix.len();
        if n > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a prefix of `{n}` bytes: no key is that long, use at most {KEY_BYTES_MAX}"
            )));
        }
        let limit = match request.limit as usize {
            0 => LIST_NAMES_MAX,
            limit => limit.min(LIST_NAMES_MAX),
        };
        let (namespace, after) = (namespace_from(&request.namespace)?, token_from(&request.page_token)?);
        Ok(Self { namespace, prefix: request.prefix, after, limit })
    }
}

impl From<Listing> for wire::ListResponse {
    fn from(listing: Listing) -> Self {
        let mut packer = Packer::new(32 * listing.names.len());
        let names = listing.names.iter();
        let names = names.map(|(key, entry)| wire::Listing {
            key: key.clone().into_bytes(),
            entry: Some(packer.entry(entry)),
        });
        Self {
            names: names.collect(),
            next: token_to(listing.next.as_ref()),
            from: Some(listing.from.into()),
        }
    }
}

impl TryFrom<wire::ListResponse> for Listing {
    type Error = Error;

    fn try_from(page: wire::ListResponse) -> Result<Self> {
        let names = page.names.into_iter();
        let names = names.map(|name| Ok((Key::new(name.key)?, need(name.entry, "entry")?.try_into()?)));
        let (next, from) = (token_from(&page.next)?, need(page.from, "from")?.try_into()?);
        Ok(Self { names: names.collect::<Result<_>>()?, next, from })
    }
}

impl From<Status> for wire::StatusResponse {
    fn from(status: Status) -> Self {
        Self {
            tier: wire::Tier::from(status.tier).into(),
            version: status.version,
            serving: status.serving,
            born: status.born.map(|b| Packer::new(16).born(b)),
            revision: status.revision.0,
            lease_ms: u64::try_from(status.lease.as_millis()).unwrap_or(u64::MAX),
            facts: status.facts.into_iter().map(|(name, value)| wire::Fact { name, value }).collect(),
            loss_ms: 0,
        }
    }
}

impl TryFrom<wire::StatusResponse> for Status {
    type Error = Error;

    fn try_from(status: wire::StatusResponse) -> Result<Self> {
        Ok(Self {
            tier: status.tier().try_into()?,
            version: status.version,
            serving: status.serving,
            born: status.born.map(Born::try_from).transpose()?,
            revision: Revision(status.revision),
            lease: Duration::from_millis(status.lease_ms),
            facts: status.facts.into_iter().map(|fact| (fact.name, fact.value)).collect(),
        })
    }
}
