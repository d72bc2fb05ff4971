//! The bytes of names, entries, outcomes and what is known of blobs: inside commits, in the index, and in
//! checkpoints.

use super::reader::{Damage, Reader};
use super::{BlobMeta, Place};
use bytes::Bytes;
use dstore_shared::{
    Born, ClientId, CopyOutcome, CopyResult, DeleteOutcome, Entry, HistoryId, Name, Outcome, PrefixOutcome,
    RequestId, Revision, SetOutcome,
};

const ENTRY_EXPIRES: u8 = 1;
const META_FILE: u8 = 1;
const META_CORRUPT: u8 = 1 << 1;
const META_UNNAMED: u8 = 1 << 2;
pub(super) const REQUEST_ID_BYTES: usize = 16 + 8 + 16 + 8 + 8;

pub(super) fn put_name(out: &mut Vec<u8>, name: &Name) {
    let packed = name.as_bytes();
    let len = u16::try_from(packed.len()).expect("a packed name has at most 1,089 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(packed);
}

pub(super) fn read_name(part: &mut Reader) -> Result<Name, Damage> {
    let len = part.u16()?;
    let at = part.at;
    // A name lives longer than the batch that it came in: it gets memory of its own.
    let packed = Bytes::copy_from_slice(part.take(len)?);
    Name::from_packed(packed).map_err(|_| Damage::Invalid { what: "name", at })
}

pub(super) const fn entry_len(entry: &Entry) -> usize {
    1 + 32 + 8 + 8 + if entry.expires_at.is_some() { 8 } else { 0 }
}

pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(if entry.expires_at.is_some() { ENTRY_EXPIRES } else { 0 });
    out.extend_from_slice(entry.hash.as_bytes());
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.bind_rev.0.to_le_bytes());
    if let Some(at) = entry.expires_at {
        out.extend_from_slice(&at.to_le_bytes());
    }
}

pub(super) fn read_entry(part: &mut Reader) -> Result<Entry, Damage> {
    let flags = part.flags("flags of an entry", ENTRY_EXPIRES)?;
    let (hash, size, bind_rev) = (part.hash()?, part.u64()?, Revision(part.u64()?));
    let expires_at = if flags & ENTRY_EXPIRES == 0 { None } else { Some(part.u64()?) };
    Ok(Entry { hash, size, bind_rev, expires_at })
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

pub(super) fn outcome_len(outcome: &Outcome) -> usize {
    1 + match outcome {
        Outcome::Set(
            SetOutcome::Stored(entry) | SetOutcome::Unchanged(entry) | SetOutcome::Occupied(entry),
        ) => entry_len(entry),
        Outcome::Set(SetOutcome::NeedBlob) => 0,
        Outcome::DeletePrefix(_) => 8 + 8,
        Outcome::Delete(deleted) => 8 + 4 + deleted.removed.len().div_ceil(8),
        Outcome::Copy(copied) | Outcome::Rename(copied) => copied_len(copied),
    }
}

const fn copied_len(copied: &CopyOutcome) -> usize {
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
        Outcome::Copy(copied) => put_copied(out, 6, copied),
        Outcome::Rename(copied) => put_copied(out, 7, copied),
    }
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
