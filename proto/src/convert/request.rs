//! Batches of requests and replies of the tier link.
//!
//! A batch costs a handful of allocations to pack, however many requests are in it: this is the path of
//! every miss.

use super::transaction::{applied_from, applied_to, apply_to, transaction_from};
use super::{
    Packer, attributes_from, attributes_to, bound_from, carried, epoch_or_none, millis_up, mode_from,
    mode_to, need, packed_name,
};
use crate::{status, wire};
use bytes::Bytes;
use dstore_shared::frame::{Answer, Ask, Reply, Request, Resolved};
use dstore_shared::limits::{BATCH_LEN_MAX, CARRIED_BYTES_MAX, DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX};
use dstore_shared::{
    Blob, BlobHash, Command, DeleteOutcome, Entry, Epoch, Error, FlightId, Name, Outcome, Prefix,
    PrefixOutcome, RegSeq, RequestId, Result, Revision, SetOutcome,
};
use std::sync::Arc;

/// Bytes of hashes and identities of one request or reply.
const SHORT_FIELDS: usize = 96;

pub(crate) fn pack_requests(requests: Vec<Request>) -> Result<wire::RequestBatch> {
    few(requests.len())?;
    let mut packer = Packer::new(requests.len() * SHORT_FIELDS);
    let requests = requests.into_iter().map(|r| request_to(&mut packer, r)).collect::<Result<_>>()?;
    Ok(wire::RequestBatch { requests })
}

pub(crate) fn read_requests(batch: wire::RequestBatch) -> Result<Vec<Request>> {
    few(batch.requests.len())?;
    batch.requests.into_iter().map(request_from).collect()
}

pub(crate) fn pack_replies(replies: Vec<Reply>) -> Result<wire::ReplyBatch> {
    few(replies.len())?;
    let mut packer = Packer::new(replies.len() * SHORT_FIELDS);
    Ok(wire::ReplyBatch { replies: replies.into_iter().map(|r| reply_to(&mut packer, r)).collect() })
}

pub(crate) fn read_replies(batch: wire::ReplyBatch) -> Result<Vec<Reply>> {
    few(batch.replies.len())?;
    batch.replies.into_iter().map(reply_from).collect()
}

fn few(n: usize) -> Result<()> {
    if n > BATCH_LEN_MAX {
        return Err(Error::too_large(format!("a batch has `{n}` parts: send at most {BATCH_LEN_MAX}")));
    }
    Ok(())
}

fn request_to(packer: &mut Packer, request: Request) -> Result<wire::Request> {
    use wire::request::Ask as Wire;
    let ask = match request.ask {
        Ask::Resolve { name, have, cache, carry } => {
            let have = have.map(|h| packer.hash(h)).unwrap_or_default();
            Wire::Resolve(wire::Resolve { name: name.packed(), have, cache, carry })
        }
        Ask::Change { id, command: Command::Set { name, hash, size, carried, attributes } } => {
            let (ttl_ms, content_type) = attributes_to(&attributes);
            Wire::Put(wire::Put {
                id: Some(packer.request_id(&id)),
                name: name.packed(),
                hash: packer.hash(hash),
                size,
                carried: carried.as_ref().map(carry).transpose()?,
                ttl_ms,
                content_type,
            })
        }
        Ask::Change { id, command: Command::Delete { names, mode } } => {
            let names = names.iter().map(Name::packed).collect();
            let (mode, deadline_ms) = mode_to(mode);
            Wire::Del(wire::Del { id: Some(packer.request_id(&id)), names, mode, deadline_ms })
        }
        Ask::ResolveMany { names, cache, carry } => {
            let names = names.iter().map(Name::packed).collect();
            Wire::ResolveMany(wire::ResolveMany { names, cache, carry })
        }
        Ask::Change { id, command: Command::Copy { from, to } } => {
            Wire::Copy(copy_to(packer, &id, &from, &to))
        }
        Ask::Change { id, command: Command::Rename { from, to } } => {
            Wire::Rename(copy_to(packer, &id, &from, &to))
        }
        Ask::Change { id, command: Command::DeletePrefix { prefix } } => {
            Wire::DelPrefix(wire::DelPrefix { id: Some(packer.request_id(&id)), prefix: prefix.packed() })
        }
        Ask::Change { id, command: Command::Apply(transaction) } => {
            Wire::Apply(apply_to(packer, &id, &transaction))
        }
    };
    let epoch = packer.epoch(request.epoch);
    Ok(wire::Request { flight: request.flight.0, epoch, reg_seq: request.reg_seq.0, ask: Some(ask) })
}

fn copy_to(packer: &mut Packer, id: &RequestId, from: &Name, to: &Name) -> wire::Copy {
    wire::Copy { id: Some(packer.request_id(id)), from: from.packed(), to: to.packed() }
}

/// The two names of a COPY or RENAME, and its id.
fn copy_from(copy: wire::Copy) -> Result<(RequestId, Name, Name)> {
    Ok((need(copy.id, "id")?.try_into()?, packed_name(&copy.from)?, packed_name(&copy.to)?))
}

fn carry(blob: &Blob) -> Result<Bytes> {
    if blob.size() > CARRIED_BYTES_MAX as u64 {
        let n = blob.size();
        return Err(Error::too_large(format!(
            "a blob of `{n}` bytes cannot be carried by a request: stage it first"
        )));
    }
    Ok(blob.bytes().clone())
}

fn request_from(request: wire::Request) -> Result<Request> {
    use wire::request::Ask as Wire;
    let ask = match need(request.ask, "ask")? {
        Wire::Resolve(wire::Resolve { name, have, cache, carry }) => {
            let have = if have.is_empty() { None } else { Some(BlobHash::from_slice(&have)?) };
            Ask::Resolve { name: packed_name(&name)?, have, cache, carry }
        }
        Wire::Put(put) => {
            let hash = BlobHash::from_slice(&put.hash)?;
            let carried = put.carried.map(|bytes| carried_from(bytes, hash, put.size)).transpose()?;
            let attributes = attributes_from(put.ttl_ms, &put.content_type)?;
            let (name, size) = (packed_name(&put.name)?, put.size);
            let command = Command::Set { name, hash, size, carried, attributes };
            Ask::Change { id: need(put.id, "id")?.try_into()?, command }
        }
        Wire::Del(del) => {
            check_names(&del.names)?;
            let names = del.names.iter().map(|n| packed_name(n)).collect::<Result<_>>()?;
            let mode = mode_from(del.mode, del.deadline_ms)?;
            Ask::Change { id: need(del.id, "id")?.try_into()?, command: Command::Delete { names, mode } }
        }
        Wire::ResolveMany(wire::ResolveMany { names, cache, carry }) => {
            check_names(&names)?;
            let names = names.iter().map(|n| packed_name(n)).collect::<Result<_>>()?;
            Ask::ResolveMany { names, cache, carry }
        }
        Wire::Copy(copy) => {
            let (id, from, to) = copy_from(copy)?;
            Ask::Change { id, command: Command::Copy { from, to } }
        }
        Wire::Rename(copy) => {
            let (id, from, to) = copy_from(copy)?;
            Ask::Change { id, command: Command::Rename { from, to } }
        }
        Wire::DelPrefix(del) => {
            let command = Command::DeletePrefix { prefix: Prefix::from_packed(&del.prefix)? };
            Ask::Change { id: need(del.id, "id")?.try_into()?, command }
        }
        Wire::Apply(apply) => {
            let command = Command::Apply(transaction_from(apply.transaction)?);
            Ask::Change { id: need(apply.id, "id")?.try_into()?, command }
        }
    };
    let (flight, reg_seq) = (FlightId(request.flight), RegSeq(request.reg_seq));
    Ok(Request { flight, epoch: epoch_or_none(request.epoch)?, reg_seq, ask })
}

fn carried_from(bytes: Bytes, hash: BlobHash, size: u64) -> Result<Blob> {
    if bytes.len() > CARRIED_BYTES_MAX {
        let n = bytes.len();
        return Err(Error::too_large(format!(
            "`{n}` bytes were carried: at most {CARRIED_BYTES_MAX} travel beside a name"
        )));
    }
    carried(bytes, hash, size)
}

/// A DEL or a resolve of many names at least one name, and no more than the limits.
fn check_names(names: &[Bytes]) -> Result<()> {
    let bytes: usize = names.iter().map(Bytes::len).sum();
    match names.len() {
        0 => Err(Error::invalid("the request names no key: name at least one")),
        n if n > DELETE_NAMES_MAX => {
            Err(Error::too_large(format!("the request names `{n}` keys: name at most {DELETE_NAMES_MAX}")))
        }
        _ if bytes > DELETE_NAME_BYTES_MAX => Err(Error::too_large(format!(
            "the request has `{bytes}` bytes of keys: send at most {DELETE_NAME_BYTES_MAX} at a time"
        ))),
        _ => Ok(()),
    }
}

fn reply_to(packer: &mut Packer, reply: Reply) -> wire::Reply {
    use wire::reply::Answer as Wire;
    let answer = match reply.answer {
        Answer::Resolved(resolved) => Wire::Resolved(resolved_to(packer, resolved)),
        Answer::ResolvedMany(all) => {
            let resolved = all.into_iter().map(|resolved| resolved_to(packer, resolved)).collect();
            Wire::ResolvedMany(wire::ResolvedMany { resolved })
        }
        Answer::Changed { outcome: Outcome::Copy(outcome), .. } => Wire::Copied((&outcome).into()),
        Answer::Changed { outcome: Outcome::Rename(outcome), .. } => Wire::Renamed((&outcome).into()),
        Answer::Changed { outcome: Outcome::Set(outcome), cacheable, .. } => {
            let (result, entry) = match &outcome {
                SetOutcome::Stored(entry) => (wire::PutResult::Stored, Some(entry)),
                SetOutcome::Unchanged(entry) => (wire::PutResult::Unchanged, Some(entry)),
                SetOutcome::Occupied(entry) => (wire::PutResult::Occupied, Some(entry)),
                SetOutcome::NeedBlob => (wire::PutResult::NeedBlob, None),
            };
            Wire::Set(wire::SetDone {
                result: result.into(),
                entry: entry.map(|e| packer.entry(e)),
                cacheable: cacheable.and_then(|e| packer.epoch(e)),
            })
        }
        Answer::Changed { outcome: Outcome::Delete(outcome), stale, .. } => {
            let (removed, revision) = (outcome.removed, outcome.revision.0);
            Wire::Deleted(wire::DeleteResponse {
                removed,
                revision,
                stale_ms: stale.map_or(0, millis_up),
                loss_ms: 0,
            })
        }
        Answer::Changed { outcome: Outcome::DeletePrefix(PrefixOutcome { removed, revision }), .. } => {
            Wire::PrefixDeleted(wire::DeletePrefixResponse { removed, revision: revision.0, loss_ms: 0 })
        }
        Answer::Changed { outcome: Outcome::Transaction(outcome), .. } => {
            Wire::Applied(applied_to(packer, &outcome))
        }
        // Nobody asks for it on this stream.
        Answer::Changed { outcome: Outcome::Namespace(_), .. } => {
            Wire::Failed(failed_to(&Error::internal("a change came to the outcome of another: report this")))
        }
        Answer::Failed(error) => Wire::Failed(failed_to(&error)),
    };
    let (born, journal_ms) = (Some(packer.born(reply.born)), reply.journal_ms);
    wire::Reply { flight: reply.flight.0, born, journal_ms, answer: Some(answer) }
}

fn failed_to(error: &Error) -> wire::Failed {
    wire::Failed { detail: Some(status::detail(error)), message: error.message().to_owned() }
}

fn resolved_to(packer: &mut Packer, resolved: Resolved) -> wire::Resolved {
    wire::Resolved {
        entry: resolved.entry.as_ref().map(|e| packer.entry(e)),
        carried: resolved.carried.map(|blob| blob.bytes().clone()),
        cacheable: resolved.cacheable.and_then(|e| packer.epoch(e)),
        head: resolved.head.0,
    }
}

/// A reply whose carried bytes are damaged fails alone; the others of its batch are good.
fn reply_from(reply: wire::Reply) -> Result<Reply> {
    use wire::reply::Answer as Wire;
    let answer = match need(reply.answer, "answer")? {
        Wire::Resolved(resolved) => match resolved_from(resolved) {
            Ok(resolved) => Answer::Resolved(resolved),
            Err(e) => Answer::Failed(e),
        },
        Wire::Set(done) => Answer::Changed {
            outcome: Outcome::Set(set_outcome(&done, done.entry.clone())?),
            cacheable: done.cacheable.map(Epoch::try_from).transpose()?,
            stale: None,
        },
        Wire::Deleted(wire::DeleteResponse { removed, revision, stale_ms, .. }) => {
            let revision = Revision(revision);
            if removed.len() > DELETE_NAMES_MAX {
                return Err(Error::too_large("a reply answers more keys than a delete may name"));
            }
            let outcome = Outcome::Delete(DeleteOutcome { removed, revision });
            Answer::Changed { outcome, cacheable: None, stale: bound_from(stale_ms) }
        }
        Wire::ResolvedMany(wire::ResolvedMany { resolved }) => {
            match resolved.into_iter().map(resolved_from).collect() {
                Ok(all) => Answer::ResolvedMany(all),
                Err(e) => Answer::Failed(e),
            }
        }
        Wire::Copied(done) => copied(Outcome::Copy(done.try_into()?)),
        Wire::Renamed(done) => copied(Outcome::Rename(done.try_into()?)),
        Wire::PrefixDeleted(wire::DeletePrefixResponse { removed, revision, .. }) => {
            let outcome = PrefixOutcome { removed, revision: Revision(revision) };
            Answer::Changed { outcome: Outcome::DeletePrefix(outcome), cacheable: None, stale: None }
        }
        Wire::Applied(done) => copied(Outcome::Transaction(Arc::new(applied_from(done)?))),
        Wire::Failed(failed) => {
            Answer::Failed(status::from_detail(&need(failed.detail, "detail")?, &failed.message))
        }
    };
    let born = need(reply.born, "born")?.try_into()?;
    Ok(Reply { flight: FlightId(reply.flight), answer, born, journal_ms: reply.journal_ms })
}

fn copied(outcome: Outcome) -> Answer {
    Answer::Changed { outcome, cacheable: None, stale: None }
}

fn resolved_from(resolved: wire::Resolved) -> Result<Resolved> {
    let entry = resolved.entry.map(Entry::try_from).transpose()?;
    let blob = match (resolved.carried, &entry) {
        (None, _) => None,
        (Some(bytes), Some(entry)) => Some(carried(bytes, entry.hash, entry.size)?),
        (Some(_), None) => return Err(Error::invalid("a reply carries bytes but names no entry")),
    };
    let cacheable = resolved.cacheable.map(Epoch::try_from).transpose()?;
    Ok(Resolved { entry, carried: blob, cacheable, head: Revision(resolved.head) })
}

fn set_outcome(done: &wire::SetDone, entry: Option<wire::Entry>) -> Result<SetOutcome> {
    let entry = || need(entry, "entry")?.try_into();
    Ok(match done.result() {
        wire::PutResult::Stored => SetOutcome::Stored(entry()?),
        wire::PutResult::Unchanged => SetOutcome::Unchanged(entry()?),
        wire::PutResult::Occupied => SetOutcome::Occupied(entry()?),
        wire::PutResult::NeedBlob => SetOutcome::NeedBlob,
        wire::PutResult::Unspecified => return Err(Error::invalid("the reply to a set has no result")),
    })
}
