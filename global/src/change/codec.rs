//! The bytes of commits: what [`Payload`] writes and [`Commits`] reads.
//!
//! Numbers are little-endian. Every variable part has its length in front, every optional part a flag; a
//! flag, kind or version that is not known means "written by a newer dstore".

use super::{BlobMeta, Change, Commit, Place};
use bytes::Bytes;
use dstore_shared::{
    BlobHash, Born, ClientId, DeleteOutcome, Entry, Error, HistoryId, Name, Outcome, RequestId, Revision,
    SetOutcome,
};

const VERSION: u8 = 1;
const HAS_OUTCOME: u8 = 1;
const ENTRY_EXPIRES: u8 = 1;
const META_FILE: u8 = 1;
const META_CORRUPT: u8 = 1 << 1;
const META_UNNAMED: u8 = 1 << 2;
const REQUEST_ID_BYTES: usize = 16 + 8 + 16 + 8 + 8;
/// Length, version, flags, revision, time and number of changes.
const COMMIT_FIXED_BYTES: usize = 4 + 1 + 1 + 8 + 8 + 4;
/// Kind and length.
const CHANGE_HEAD_BYTES: usize = 1 + 4;
/// Values from here on are handed to the journal in place instead of being copied once more.
const GATHER_BYTES: usize = 4 << 10;

/// Why bytes are not commits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("they end at byte `{at}` where `{wanted}` more are due")]
    Short { at: usize, wanted: usize },
    #[error("`{left}` bytes are left over before byte `{at}`")]
    Left { at: usize, left: usize },
    #[error("the {what} at byte `{at}` is not valid")]
    Invalid { what: &'static str, at: usize },
    #[error("the {what} `{found}` at byte `{at}` is not known")]
    Newer { what: &'static str, found: u8, at: usize },
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        match damage {
            Damage::Newer { .. } => Error::invalid(format!(
                "stored bytes were written by a newer dstore, {damage}: use that version"
            )),
            _ => Error::corrupt(format!("stored bytes are damaged, {damage}: run `dstore check`")),
        }
    }
}

/// Commits on their way into the journal. Large values are kept as they are, not copied.
#[derive(Debug, Default)]
pub struct Payload {
    small: Vec<u8>,
    /// A value, and how many bytes of `small` come before it.
    gathered: Vec<(usize, Bytes)>,
    gathered_bytes: usize,
}

impl Payload {
    /// An empty payload.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a commit.
    pub fn push(&mut self, commit: &Commit) {
        self.u32(commit.encoded_len() - 4);
        self.small.push(VERSION);
        self.small.push(if commit.outcome.is_some() { HAS_OUTCOME } else { 0 });
        self.u64(commit.revision.0);
        self.u64(commit.at_ms);
        if let Some((id, outcome)) = &commit.outcome {
            put_request_id(&mut self.small, id);
            self.u32(outcome_len(outcome));
            put_outcome(&mut self.small, outcome);
        }
        self.u32(commit.changes.len());
        for change in &commit.changes {
            self.change(change);
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.small.len() + self.gathered_bytes
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty()
    }

    /// The bytes, in order, as slices for [`Journal::append`].
    ///
    /// [`Journal::append`]: crate::data_dir::OpenJournal
    pub fn slices(&self) -> Vec<&[u8]> {
        let mut slices = Vec::with_capacity(2 * self.gathered.len() + 1);
        let mut from = 0;
        for (to, value) in &self.gathered {
            slices.push(&self.small[from..*to]);
            slices.push(value);
            from = *to;
        }
        slices.push(&self.small[from..]);
        slices
    }

    /// Empties it for the next batch, keeping its memory.
    pub fn clear(&mut self) {
        self.small.clear();
        self.gathered.clear();
        self.gathered_bytes = 0;
    }

    fn change(&mut self, change: &Change) {
        self.small.push(change_kind(change));
        self.u32(change_len(change));
        match change {
            Change::Bind { name, entry } => {
                put_name(&mut self.small, name);
                put_entry(&mut self.small, entry);
            }
            Change::Unbind { name } => put_name(&mut self.small, name),
            Change::Blob { hash, meta } => {
                self.small.extend_from_slice(hash.as_bytes());
                put_meta(&mut self.small, meta);
            }
            Change::BlobGone { hash } | Change::InlineGone { hash } => {
                self.small.extend_from_slice(hash.as_bytes());
            }
            Change::Inline { hash, bytes } => {
                self.small.extend_from_slice(hash.as_bytes());
                self.value(bytes);
            }
        }
    }

    fn value(&mut self, bytes: &Bytes) {
        if bytes.len() < GATHER_BYTES {
            self.small.extend_from_slice(bytes);
        } else {
            self.gathered.push((self.small.len(), bytes.clone()));
            self.gathered_bytes += bytes.len();
        }
    }

    fn u32(&mut self, n: usize) {
        put_u32(&mut self.small, n);
    }

    fn u64(&mut self, n: u64) {
        self.small.extend_from_slice(&n.to_le_bytes());
    }
}

/// The commits of a journal batch, read one by one. Ends after the first error.
///
/// Inline values share the payload's memory.
#[derive(Debug)]
pub struct Commits(Reader);

impl Commits {
    /// Reads what a [`Payload`] wrote.
    pub fn of(payload: Bytes) -> Self {
        Self(Reader::new(payload))
    }
}

impl Iterator for Commits {
    /// A commit, or `Corrupt` for damaged bytes, `Invalid` for those of a newer dstore.
    type Item = dstore_shared::Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.left() == 0 {
            return None;
        }
        let read = read_commit(&mut self.0);
        if read.is_err() {
            self.0 = Reader::new(Bytes::new());
        }
        Some(read.map_err(Error::from))
    }
}

/// Takes bytes off the front of others, never more than there are.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Damage> {
        if n > self.left() {
            return Err(Damage::Short { at: self.bytes.len(), wanted: n - self.left() });
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    /// The next `n` bytes as a reader of their own.
    fn part(&mut self, n: usize) -> Result<Self, Damage> {
        let from = self.at;
        self.take(n)?;
        Ok(Self { bytes: self.bytes.slice(..self.at), at: from })
    }

    fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<usize, Damage> {
        Ok(u16::from_le_bytes(self.array()?) as usize)
    }

    pub(crate) fn u32(&mut self) -> Result<usize, Damage> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Damage> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    fn hash(&mut self) -> Result<BlobHash, Damage> {
        Ok(BlobHash::from_bytes(self.array()?))
    }

    /// Flags of which only those in `known` may be set.
    pub(crate) fn flags(&mut self, what: &'static str, known: u8) -> Result<u8, Damage> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(self.newer(what, flags)) }
    }

    /// An error about the byte just read.
    pub(crate) fn newer(&self, what: &'static str, found: u8) -> Damage {
        Damage::Newer { what, found, at: self.at - 1 }
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), Damage> {
        match self.left() {
            0 => Ok(()),
            left => Err(Damage::Left { at: self.bytes.len(), left }),
        }
    }
}

pub(super) fn commit_len(commit: &Commit) -> usize {
    let outcome =
        commit.outcome.as_ref().map_or(0, |(_, outcome)| REQUEST_ID_BYTES + 4 + outcome_len(outcome));
    let changes: usize = commit.changes.iter().map(|c| CHANGE_HEAD_BYTES + change_len(c)).sum();
    COMMIT_FIXED_BYTES + outcome + changes
}

fn read_commit(reader: &mut Reader) -> Result<Commit, Damage> {
    let len = reader.u32()?;
    let mut body = reader.part(len)?;
    let version = body.u8()?;
    if version != VERSION {
        return Err(body.newer("version of a commit", version));
    }
    let flags = body.flags("flags of a commit", HAS_OUTCOME)?;
    let (revision, at_ms) = (Revision(body.u64()?), body.u64()?);
    let outcome = if flags & HAS_OUTCOME == 0 { None } else { Some(read_answer(&mut body)?) };
    let n = body.u32()?;
    // A hostile count reserves no more than the bytes at hand could hold.
    let mut changes = Vec::with_capacity(n.min(body.left() / (CHANGE_HEAD_BYTES + 2)));
    for _ in 0..n {
        changes.push(read_change(&mut body)?);
    }
    body.end()?;
    Ok(Commit { revision, at_ms, outcome, changes })
}

fn read_answer(body: &mut Reader) -> Result<(RequestId, Outcome), Damage> {
    let id = read_request_id(body)?;
    let len = body.u32()?;
    let mut part = body.part(len)?;
    let outcome = read_outcome(&mut part)?;
    part.end()?;
    Ok((id, outcome))
}

const fn change_kind(change: &Change) -> u8 {
    match change {
        Change::Bind { .. } => 1,
        Change::Unbind { .. } => 2,
        Change::Blob { .. } => 3,
        Change::BlobGone { .. } => 4,
        Change::Inline { .. } => 5,
        Change::InlineGone { .. } => 6,
    }
}

fn change_len(change: &Change) -> usize {
    match change {
        Change::Bind { name, entry } => 2 + name.as_bytes().len() + entry_len(entry),
        Change::Unbind { name } => 2 + name.as_bytes().len(),
        Change::Blob { meta, .. } => 32 + meta_len(meta),
        Change::BlobGone { .. } | Change::InlineGone { .. } => 32,
        Change::Inline { bytes, .. } => 32 + bytes.len(),
    }
}

fn read_change(body: &mut Reader) -> Result<Change, Damage> {
    let kind = body.u8()?;
    if !(1..=6).contains(&kind) {
        return Err(body.newer("kind of a change", kind));
    }
    let len = body.u32()?;
    let mut part = body.part(len)?;
    let change = match kind {
        1 => Change::Bind { name: read_name(&mut part)?, entry: read_entry(&mut part)? },
        2 => Change::Unbind { name: read_name(&mut part)? },
        3 => Change::Blob { hash: part.hash()?, meta: read_meta(&mut part)? },
        4 => Change::BlobGone { hash: part.hash()? },
        5 => Change::Inline { hash: part.hash()?, bytes: part.rest() },
        _ => Change::InlineGone { hash: part.hash()? },
    };
    part.end()?;
    Ok(change)
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    let packed = name.as_bytes();
    let len = u16::try_from(packed.len()).expect("a packed name has at most 1,089 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(packed);
}

fn read_name(part: &mut Reader) -> Result<Name, Damage> {
    let len = part.u16()?;
    let at = part.at;
    // A name lives longer than the batch that it came in: it gets memory of its own.
    let packed = Bytes::copy_from_slice(part.take(len)?);
    Name::from_packed(packed).map_err(|_| Damage::Invalid { what: "name", at })
}

const fn entry_len(entry: &Entry) -> usize {
    1 + 32 + 8 + 8 + if entry.expires_at.is_some() { 8 } else { 0 }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(if entry.expires_at.is_some() { ENTRY_EXPIRES } else { 0 });
    out.extend_from_slice(entry.hash.as_bytes());
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.bind_rev.0.to_le_bytes());
    if let Some(at) = entry.expires_at {
        out.extend_from_slice(&at.to_le_bytes());
    }
}

fn read_entry(part: &mut Reader) -> Result<Entry, Damage> {
    let flags = part.flags("flags of an entry", ENTRY_EXPIRES)?;
    let (hash, size, bind_rev) = (part.hash()?, part.u64()?, Revision(part.u64()?));
    let expires_at = if flags & ENTRY_EXPIRES == 0 { None } else { Some(part.u64()?) };
    Ok(Entry { hash, size, bind_rev, expires_at })
}

const fn meta_len(meta: &BlobMeta) -> usize {
    1 + 8 + 8 + if meta.unnamed_since_ms.is_some() { 8 } else { 0 }
}

fn put_meta(out: &mut Vec<u8>, meta: &BlobMeta) {
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

fn read_meta(part: &mut Reader) -> Result<BlobMeta, Damage> {
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

fn outcome_len(outcome: &Outcome) -> usize {
    1 + match outcome {
        Outcome::Set(
            SetOutcome::Stored(entry) | SetOutcome::Unchanged(entry) | SetOutcome::Occupied(entry),
        ) => entry_len(entry),
        Outcome::Set(SetOutcome::NeedBlob) => 0,
        Outcome::Delete(deleted) => 8 + 4 + deleted.removed.len().div_ceil(8),
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
        Outcome::Delete(deleted) => {
            out.push(5);
            out.extend_from_slice(&deleted.revision.0.to_le_bytes());
            put_u32(out, deleted.removed.len());
            let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |b, (i, on)| b | u8::from(*on) << i);
            out.extend(deleted.removed.chunks(8).map(byte));
        }
    }
}

pub(crate) fn read_outcome(part: &mut Reader) -> Result<Outcome, Damage> {
    Ok(match part.u8()? {
        1 => Outcome::Set(SetOutcome::Stored(read_entry(part)?)),
        2 => Outcome::Set(SetOutcome::Unchanged(read_entry(part)?)),
        3 => Outcome::Set(SetOutcome::Occupied(read_entry(part)?)),
        4 => Outcome::Set(SetOutcome::NeedBlob),
        5 => Outcome::Delete(read_deleted(part)?),
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

fn put_u32(out: &mut Vec<u8>, n: usize) {
    let n = u32::try_from(n).expect("a batch is smaller than 4 GiB");
    out.extend_from_slice(&n.to_le_bytes());
}
