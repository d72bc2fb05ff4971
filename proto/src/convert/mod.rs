//! Between generated messages and the vocabulary of dstore, both ways.
//!
//! Reading is checked: a message that lacks a part, or has one out of its limits, is `Invalid` and says
//! which. What is read owns its bytes: a name or a small blob never keeps the frame it came in alive.

mod door;
#[cfg(test)]
mod golden;
mod request;
mod session;
mod standing;
#[cfg(test)]
mod tests;
mod transaction;
mod watch;

pub(crate) use door::{
    bound_from, millis_up, mode_from, mode_to, names_from, names_to, namespace_from, target_from, target_to,
    wait_from,
};
pub(crate) use request::{pack_replies, pack_requests, read_replies, read_requests};
pub(crate) use session::{down_from, down_to, up_from, up_to};
pub(crate) use standing::{held_from, name_from};
pub(crate) use transaction::{
    applied_from, applied_to, apply_to, create_namespace_to, drop_namespace_to, named_namespace,
    namespaces_from, namespaces_to, spec_from, transaction_from,
};
pub(crate) use watch::{history_from, watch_header};

use crate::wire;
use bytes::{Bytes, BytesMut};
use dstore_shared::{
    Attributes, Blob, BlobHash, Born, ClientId, ContentType, Entry, Epoch, Error, HistoryId, Name, RequestId,
    Result, Revision,
};
use std::time::Duration;

/// Largest payload that is copied out of its frame instead of keeping the frame alive.
const COPY_MAX: usize = dstore_shared::limits::CARRIED_BYTES_MAX;
/// Longest lease that is believed.
const LEASE_MAX: Duration = Duration::from_secs(3600);

/// Fills many short `bytes` fields from one allocation.
#[derive(Debug)]
pub(crate) struct Packer(BytesMut);

impl Packer {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(BytesMut::with_capacity(capacity))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }

    fn hash(&mut self, hash: BlobHash) -> Bytes {
        self.bytes(hash.as_bytes())
    }

    fn id(&mut self, id: u128) -> Bytes {
        self.bytes(&id.to_be_bytes())
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> wire::Entry {
        wire::Entry {
            hash: self.hash(entry.hash),
            size: entry.size,
            bind_rev: entry.bind_rev.0,
            expires_at: entry.expires_at.map_or(0, dstore_shared::End::get),
            content_type: type_to(entry.content_type.as_ref()),
        }
    }

    pub(crate) fn born(&mut self, born: Born) -> wire::Born {
        wire::Born { history: self.id(born.history.0), boot: born.boot, at_ms: born.at_ms }
    }

    fn epoch(&mut self, epoch: Epoch) -> Option<wire::Epoch> {
        let history = |packer: &mut Self| packer.id(epoch.history.0);
        (epoch != Epoch::default()).then(|| wire::Epoch {
            history: history(self),
            boot: epoch.boot,
            counter: epoch.counter,
        })
    }

    pub(crate) fn request_id(&mut self, id: &RequestId) -> wire::RequestId {
        wire::RequestId { client: self.id(id.client.0), n: id.n, born: Some(self.born(id.born)) }
    }
}

/// The part of a message that must be there.
pub(crate) fn need<T>(part: Option<T>, what: &str) -> Result<T> {
    part.ok_or_else(|| Error::invalid(format!("the message has no `{what}`: set it")))
}

fn id(bytes: &[u8], what: &str) -> Result<u128> {
    let n = bytes.len();
    bytes
        .try_into()
        .map(u128::from_be_bytes)
        .map_err(|_| Error::invalid(format!("`{what}` has 16 bytes, not `{n}`: send them all")))
}

/// A copy of bytes that are small, so that they do not keep a whole frame alive.
pub(crate) fn detach(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPY_MAX { Bytes::copy_from_slice(&bytes) } else { bytes }
}

fn packed_name(bytes: &[u8]) -> Result<Name> {
    Name::from_packed(Bytes::copy_from_slice(bytes))
}

/// Bytes that a peer sent beside the hash they should have.
fn carried(bytes: Bytes, hash: BlobHash, size: u64) -> Result<Blob> {
    if bytes.len() as u64 != size {
        let n = bytes.len();
        return Err(Error::invalid(format!(
            "`{n}` bytes were carried for a blob of `{size}`: send all of them"
        )));
    }
    Blob::verify(detach(bytes), hash)
}

fn lease(micros: u64) -> Result<Duration> {
    let lease = Duration::from_micros(micros);
    if lease > LEASE_MAX {
        return Err(Error::invalid(format!("a lease of `{lease:?}` is not believed: grant less")));
    }
    Ok(lease)
}

fn micros(lease: Duration) -> u64 {
    u64::try_from(lease.as_micros()).unwrap_or(u64::MAX)
}

/// A content type as it travels: empty = none.
pub(crate) fn type_to(content_type: Option<&ContentType>) -> String {
    content_type.map_or_else(String::new, ContentType::to_string)
}

/// What a SET says besides, as it travels.
pub(crate) fn attributes_to(attributes: &Attributes) -> (u64, String) {
    let ttl_ms = attributes.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    (ttl_ms, type_to(attributes.content_type.as_ref()))
}

/// What a SET says besides, within its limits.
pub(crate) fn attributes_from(ttl_ms: u64, content_type: &str) -> Result<Attributes> {
    let ttl = (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms));
    let attributes = Attributes { content_type: ContentType::optional(content_type)?, ttl };
    attributes.check()?;
    Ok(attributes)
}

impl TryFrom<wire::Entry> for Entry {
    type Error = Error;

    fn try_from(entry: wire::Entry) -> Result<Self> {
        Ok(Self {
            hash: BlobHash::from_slice(&entry.hash)?,
            size: entry.size,
            bind_rev: Revision(entry.bind_rev),
            expires_at: dstore_shared::End::new(entry.expires_at),
            content_type: ContentType::optional(&entry.content_type)?,
        })
    }
}

impl TryFrom<wire::Born> for Born {
    type Error = Error;

    fn try_from(born: wire::Born) -> Result<Self> {
        Ok(Self {
            history: HistoryId(id(&born.history, "born.history")?),
            boot: born.boot,
            at_ms: born.at_ms,
        })
    }
}

impl TryFrom<wire::Epoch> for Epoch {
    type Error = Error;

    fn try_from(epoch: wire::Epoch) -> Result<Self> {
        let history = HistoryId(id(&epoch.history, "epoch.history")?);
        Ok(Self { history, boot: epoch.boot, counter: epoch.counter })
    }
}

/// An epoch that may be missing, which is the default one: none.
fn epoch_or_none(epoch: Option<wire::Epoch>) -> Result<Epoch> {
    epoch.map_or(Ok(Epoch::default()), Epoch::try_from)
}

impl TryFrom<wire::RequestId> for RequestId {
    type Error = Error;

    fn try_from(request: wire::RequestId) -> Result<Self> {
        if request.n == 0 {
            return Err(Error::invalid("the request id has `n` = 0: count from 1"));
        }
        let client = ClientId(id(&request.client, "id.client")?);
        Ok(Self { client, n: request.n, born: need(request.born, "id.born")?.try_into()? })
    }
}
