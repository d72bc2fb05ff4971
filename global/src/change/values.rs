//! The bytes of names, entries, outcomes and what is known of blobs: inside commits, in the index, and in
//! checkpoints.

use super::reader::{Damage, Reader};
use super::{BlobMeta, Place};
use bytes::Bytes;
use dstore_shared::{
    Born, ClientId, ContentType, CopyOutcome, CopyResult, Decision, DeleteOutcome, Entry, HistoryId, Name,
    Namespace, NamespaceInfo, NamespaceMode, NamespaceOutcome, NamespaceResult, NamespaceSpec, Outcome,
    PrefixOutcome, RequestId, Revision, SetOutcome, StepOutcome, StepResult, TransactionOutcome,
};
use std::sync::Arc;
use std::time::Duration;

const ENTRY_EXPIRES: u8 = 1;
/// Flag 2 is kept for references.
const ENTRY_TYPE: u8 = 1 << 2;
const SPACE_REPLACES: u8 = 1;
const SPACE_TTL: u8 = 1 << 1;
const STEP_OLD: u8 = 1;
const STEP_ENTRY: u8 = 1 << 1;
const STEP_NUMBER: u8 = 1 << 2;
const META_FILE: u8 = 1;
const META_CORRUPT: u8 = 1 << 1;
const META_UNNAMED: u8 = 1 << 2;
pub(super) const REQUEST_ID_BYTES: usize = 16 + 8 + 16 + 8 + 8;

pub(super) fn put_name(out: &mut Vec<u8>, name: &Name) {
    put_text(out, name.as_bytes());
}

/// Bytes of a name or of a namespace, with their length in front.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let len = u16::try_from(text.len()).expect("a packed name has at most 1,089 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text);
}

pub(super) fn namespace_len(info: &NamespaceInfo) -> usize {
    2 + info.namespace.as_bytes().len() + 1 + 8 + if info.spec.ttl.is_some() { 8 } else { 0 }
}

pub(crate) fn put_namespace(out: &mut Vec<u8>, info: &NamespaceInfo) {
    put_text(out, info.namespace.as_bytes());
    let replaces = if info.spec.replaces() { SPACE_REPLACES } else { 0 };
    out.push(replaces | if info.spec.ttl.is_some() { SPACE_TTL } else { 0 });
    out.extend_from_slice(&info.created.0.to_le_bytes());
    if let Some(ttl) = info.spec.ttl {
        out.extend_from_slice(&u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
    }
}

pub(crate) fn read_namespace(part: &mut Reader) -> Result<NamespaceInfo, Damage> {
    let namespace = read_namespace_name(part)?;
    let flags = part.flags("flags of a namespace", SPACE_REPLACES | SPACE_TTL)?;
    let created = Revision(part.u64()?);
    let mode = if flags & SPACE_REPLACES == 0 { NamespaceMode::WriteOnce } else { NamespaceMode::Replace };
    let ttl = if flags & SPACE_TTL == 0 { None } else { Some(Duration::from_millis(part.u64()?)) };
    Ok(NamespaceInfo { namespace, spec: NamespaceSpec { mode, ttl }, created })
}

pub(super) fn read_namespace_name(part: &mut Reader) -> Result<Namespace, Damage> {
    let len = part.u16()?;
    let at = part.at;
    let name = Bytes::copy_from_slice(part.take(len)?);
    Namespace::new(name).map_err(|_| Damage::Invalid { what: "namespace", at })
}

pub(super) fn read_name(part: &mut Reader) -> Result<Name, Damage> {
    let len = part.u16()?;
    let at = part.at;
    // A name lives longer than the batch that it came in: it gets memory of its own.
    let packed = Bytes::copy_from_slice(part.take(len)?);
    Name::from_packed(packed).map_err(|_| Damage::Invalid { what: "name", at })
}

pub(super) fn entry_len(entry: &Entry) -> usize {
    let content_type = entry.content_type.as_ref().map_or(0, |words| 1 + words.len());
    1 + 32 + 8 + 8 + if entry.expires_at.is_some() { 8 } else { 0 } + content_type
}

pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let typed = if entry.content_type.is_some() { ENTRY_TYPE } else { 0 };
    out.push(typed | if entry.expires_at.is_some() { ENTRY_EXPIRES } else { 0 });
    out.extend_from_slice(entry.hash.as_bytes());
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.bind_rev.0.to_le_bytes());
    if let Some(at) = entry.expires_at {
        out.extend_from_slice(&at.get().to_le_bytes());
    }
    if let Some(words) = &entry.content_type {
        out.push(u8::try_from(words.len()).expect("a content type has at most 255 bytes"));
        out.extend_from_slice(words.as_str().as_bytes());
    }
}

pub(super) fn read_entry(part: &mut Reader) -> Result<Entry, Damage> {
    let flags = part.flags("flags of an entry", ENTRY_EXPIRES | ENTRY_TYPE)?;
    let (hash, size, bind_rev) = (part.hash()?, part.u64()?, Revision(part.u64()?));
    let expires_at = if flags & ENTRY_EXPIRES == 0 { None } else { Some(read_end(part)?) };
    let content_type = if flags & ENTRY_TYPE == 0 { None } else { Some(read_type(part)?) };
    Ok(Entry { hash, size, bind_rev, expires_at, content_type })
}

fn read_end(part: &mut Reader) -> Result<dstore_shared::End, Damage> {
    let at = part.at;
    dstore_shared::End::new(part.u64()?).ok_or(Damage::Invalid { what: "end of a name's time", at })
}

fn read_type(part: &mut Reader) -> Result<ContentType, Damage> {
    let at = part.at;
    let len = usize::from(part.u8()?);
    let words = std::str::from_utf8(part.take(len)?).ok().and_then(|words| ContentType::new(words).ok());
    words.ok_or(Damage::Invalid { what: "content type", at })
}

pub(super) const fn meta_len(meta: &BlobMeta) -> usize {
    1 + 8 + 8 + if meta.unnamed_since_ms.is_some() { 8 } else { 0 }
}

pub(super) fn put_meta(out: &mut Vec<u8>, meta: &BlobMeta) {
    let file = if meta.place == Place::File { META_FILE } else { 0 };
    let corrupt = if meta.corrupt { META_CORRUPT } else { 0 };
    let unnamed = if meta.unnamed_since_ms.is_some() { META_UNNAMED } else { 0 };
    out.push(file | corrupt | unnamed);
    out.extend_from_slice(&meta.size.to_le_bytes());
    out.extend_from_slice(&meta.refs.to_le_bytes());
    if let Some(since) = meta.unnamed_since_ms {
        out.extend_from_slice(&since.to_le_bytes());
    }
}

pub(super) fn read_meta(part: &mut Reader) -> Result<BlobMeta, Damage> {
    let flags = part.flags("flags of a blob", META_FILE | META_CORRUPT | META_UNNAMED)?;
    let (size, refs) = (part.u64()?, part.u64()?);
    let unnamed_since_ms = if flags & META_UNNAMED == 0 { None } else { Some(part.u64()?) };
    let place = if flags & META_FILE == 0 { Place::Inline } else { Place::File };
    Ok(BlobMeta { size, refs, place, unnamed_since_ms, corrupt: flags & META_CORRUPT != 0 })
}

pub(crate) fn put_request_id(out: &mut Vec<u8>, id: &RequestId) {
    out.extend_from_slice(&id.client.0.to_le_bytes());
    out.extend_from_slice(&id.n.to_le_bytes());
    out.extend_from_slice(&id.born.history.0.to_le_bytes());
    out.extend_from_slice(&id.born.boot.to_le_bytes());
    out.extend_from_slice(&id.born.at_ms.to_le_bytes());
}

pub(crate) fn read_request_id(body: &mut Reader) -> Result<RequestId, Damage> {
    let (client, n) = (ClientId(body.u128()?), body.u64()?);
    let born = Born { history: HistoryId(body.u128()?), boot: body.u64()?, at_ms: body.u64()? };
    Ok(RequestId { client, n, born })
}

/// Bytes of an outcome.
pub(crate) fn outcome_len(outcome: &Outcome) -> usize {
    1 + match outcome {
        Outcome::Set(
            SetOutcome::Stored(entry) | SetOutcome::Unchanged(entry) | SetOutcome::Occupied(entry),
        ) => entry_len(entry),
        Outcome::Set(SetOutcome::NeedBlob) => 0,
        Outcome::DeletePrefix(_) => 8 + 8,
        Outcome::Delete(deleted) => 8 + 4 + deleted.removed.len().div_ceil(8),
        Outcome::Copy(copied) | Outcome::Rename(copied) => copied_len(copied),
        Outcome::Transaction(done) => 8 + 8 + 1 + decision_len(&done.decision),
        Outcome::Namespace(_) => 8 + 1,
    }
}

fn decision_len(decision: &Decision) -> usize {
    4 + match decision {
        Decision::Done(steps) => steps.iter().map(step_len).sum(),
        Decision::Refused(_, step) => step_len(step),
        Decision::Aborted(_) => 0,
        Decision::NeedBlobs(steps) => 4 * steps.len(),
    }
}

fn step_len(step: &StepOutcome) -> usize {
    let entry = |entry: &Option<Entry>| entry.as_ref().map_or(0, entry_len);
    1 + 1 + entry(&step.old) + entry(&step.entry) + if step.number.is_some() { 8 } else { 0 }
}

fn copied_len(copied: &CopyOutcome) -> usize {
    8 + 1
        + match &copied.result {
            CopyResult::Done(entry) | CopyResult::Unchanged(entry) | CopyResult::Occupied(entry) => {
                entry_len(entry)
            }
            CopyResult::NotFound => 0,
        }
}

pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    let mut entry = |kind, entry| {
        out.push(kind);
        put_entry(out, entry);
    };
    match outcome {
        Outcome::Set(SetOutcome::Stored(e)) => entry(1, e),
        Outcome::Set(SetOutcome::Unchanged(e)) => entry(2, e),
        Outcome::Set(SetOutcome::Occupied(e)) => entry(3, e),
        Outcome::Set(SetOutcome::NeedBlob) => out.push(4),
        Outcome::DeletePrefix(PrefixOutcome { removed, revision }) => {
            out.push(8);
            out.extend_from_slice(&revision.0.to_le_bytes());
            out.extend_from_slice(&removed.to_le_bytes());
        }
        Outcome::Delete(deleted) => {
            out.push(5);
            out.extend_from_slice(&deleted.revision.0.to_le_bytes());
            put_u32(out, deleted.removed.len());
            let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |b, (i, on)| b | u8::from(*on) << i);
            out.extend(deleted.removed.chunks(8).map(byte));
        }
        Outcome::Transaction(done) => put_transaction(out, done),
        Outcome::Namespace(NamespaceOutcome { result, revision }) => {
            out.push(10);
            out.extend_from_slice(&revision.0.to_le_bytes());
            out.push(result.number());
        }
        Outcome::Copy(copied) => put_copied(out, 6, copied),
        Outcome::Rename(copied) => put_copied(out, 7, copied),
    }
}

fn put_transaction(out: &mut Vec<u8>, done: &TransactionOutcome) {
    out.push(9);
    out.extend_from_slice(&done.revision.0.to_le_bytes());
    out.extend_from_slice(&done.at_ms.to_le_bytes());
    match &done.decision {
        Decision::Done(steps) => {
            out.push(1);
            put_u32(out, steps.len());
            steps.iter().for_each(|step| put_step(out, step));
        }
        Decision::Aborted(guard) => {
            out.push(2);
            put_u32(out, *guard);
        }
        Decision::NeedBlobs(steps) => {
            out.push(3);
            put_u32(out, steps.len());
            steps.iter().for_each(|step| put_u32(out, *step));
        }
        Decision::Refused(at, step) => {
            out.push(4);
            put_u32(out, *at);
            put_step(out, step);
        }
    }
}

fn put_step(out: &mut Vec<u8>, step: &StepOutcome) {
    out.push(step.result.number());
    let old = if step.old.is_some() { STEP_OLD } else { 0 };
    let entry = if step.entry.is_some() { STEP_ENTRY } else { 0 };
    out.push(old | entry | if step.number.is_some() { STEP_NUMBER } else { 0 });
    step.old.iter().chain(&step.entry).for_each(|entry| put_entry(out, entry));
    if let Some(number) = step.number {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn read_transaction(part: &mut Reader) -> Result<TransactionOutcome, Damage> {
    let (revision, at_ms) = (Revision(part.u64()?), part.u64()?);
    let kind = part.u8()?;
    if !(1..=4).contains(&kind) {
        return Err(part.newer("decision of a transaction", kind));
    }
    let n = part.u32()?;
    // A hostile count reserves no more than the bytes at hand could hold.
    let room = |part: &Reader, least: usize| n.min(part.left() / least);
    let decision = match kind {
        1 => {
            let mut steps = Vec::with_capacity(room(part, 2));
            for _ in 0..n {
                steps.push(read_step(part)?);
            }
            Decision::Done(steps)
        }
        2 => Decision::Aborted(n),
        4 => Decision::Refused(n, read_step(part)?),
        _ => {
            let mut steps = Vec::with_capacity(room(part, 4));
            for _ in 0..n {
                steps.push(part.u32()?);
            }
            Decision::NeedBlobs(steps)
        }
    };
    Ok(TransactionOutcome { decision, revision, at_ms })
}

fn read_step(part: &mut Reader) -> Result<StepOutcome, Damage> {
    let number = part.u8()?;
    let Some(result) = StepResult::of_number(number) else {
        return Err(part.newer("result of a step", number));
    };
    let flags = part.flags("flags of a step", STEP_OLD | STEP_ENTRY | STEP_NUMBER)?;
    let old = if flags & STEP_OLD == 0 { None } else { Some(read_entry(part)?) };
    let entry = if flags & STEP_ENTRY == 0 { None } else { Some(read_entry(part)?) };
    let number = if flags & STEP_NUMBER == 0 { None } else { Some(part.u64()?.cast_signed()) };
    Ok(StepOutcome { result, old, entry, number })
}

fn put_copied(out: &mut Vec<u8>, kind: u8, copied: &CopyOutcome) {
    out.push(kind);
    out.extend_from_slice(&copied.revision.0.to_le_bytes());
    let (result, entry) = match &copied.result {
        CopyResult::Done(entry) => (1, Some(entry)),
        CopyResult::Unchanged(entry) => (2, Some(entry)),
        CopyResult::Occupied(entry) => (3, Some(entry)),
        CopyResult::NotFound => (4, None),
    };
    out.push(result);
    if let Some(entry) = entry {
        put_entry(out, entry);
    }
}

fn read_copied(part: &mut Reader) -> Result<CopyOutcome, Damage> {
    let revision = Revision(part.u64()?);
    let result = match part.u8()? {
        1 => CopyResult::Done(read_entry(part)?),
        2 => CopyResult::Unchanged(read_entry(part)?),
        3 => CopyResult::Occupied(read_entry(part)?),
        4 => CopyResult::NotFound,
        result => return Err(part.newer("result of a copy", result)),
    };
    Ok(CopyOutcome { result, revision })
}

pub(crate) fn read_outcome(part: &mut Reader) -> Result<Outcome, Damage> {
    Ok(match part.u8()? {
        1 => Outcome::Set(SetOutcome::Stored(read_entry(part)?)),
        2 => Outcome::Set(SetOutcome::Unchanged(read_entry(part)?)),
        3 => Outcome::Set(SetOutcome::Occupied(read_entry(part)?)),
        4 => Outcome::Set(SetOutcome::NeedBlob),
        5 => Outcome::Delete(read_deleted(part)?),
        6 => Outcome::Copy(read_copied(part)?),
        7 => Outcome::Rename(read_copied(part)?),
        8 => {
            let (revision, removed) = (Revision(part.u64()?), part.u64()?);
            Outcome::DeletePrefix(PrefixOutcome { removed, revision })
        }
        9 => Outcome::Transaction(Arc::new(read_transaction(part)?)),
        10 => {
            let (revision, number) = (Revision(part.u64()?), part.u8()?);
            let Some(result) = NamespaceResult::of_number(number) else {
                return Err(part.newer("result about a namespace", number));
            };
            Outcome::Namespace(NamespaceOutcome { result, revision })
        }
        kind => return Err(part.newer("kind of an outcome", kind)),
    })
}

fn read_deleted(part: &mut Reader) -> Result<DeleteOutcome, Damage> {
    let (revision, n) = (Revision(part.u64()?), part.u32()?);
    let bits = part.take(n.div_ceil(8))?;
    let removed = (0..n).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect();
    Ok(DeleteOutcome { removed, revision })
}

/// The value of a name in the index.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = Vec::with_capacity(entry_len(entry));
    put_entry(&mut out, entry);
    out.into()
}

/// Reads what [`encode_entry`] wrote.
pub(crate) fn decode_entry(bytes: Bytes) -> dstore_shared::Result<Entry> {
    let mut reader = Reader::new(bytes);
    let entry = read_entry(&mut reader)?;
    reader.end()?;
    Ok(entry)
}

/// The value of a blob in the index.
pub(crate) fn encode_meta(meta: &BlobMeta) -> Bytes {
    let mut out = Vec::with_capacity(meta_len(meta));
    put_meta(&mut out, meta);
    out.into()
}

/// Reads what [`encode_meta`] wrote.
pub(crate) fn decode_meta(bytes: Bytes) -> dstore_shared::Result<BlobMeta> {
    let mut reader = Reader::new(bytes);
    let meta = read_meta(&mut reader)?;
    reader.end()?;
    Ok(meta)
}

pub(super) fn put_u32(out: &mut Vec<u8>, n: usize) {
    let n = u32::try_from(n).expect("a batch is smaller than 4 GiB");
    out.extend_from_slice(&n.to_le_bytes());
}
