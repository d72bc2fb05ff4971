//! The bytes of commits: what [`Payload`] writes and [`Commits`] reads.
//!
//! Numbers are little-endian. Every variable part has its length in front, every optional part a flag; a
//! flag, kind or version that is not known means "written by a newer dstore".

use super::reader::{Damage, Reader};
use super::values::{
    REQUEST_ID_BYTES, entry_len, meta_len, namespace_len, outcome_len, put_entry, put_meta, put_name,
    put_namespace, put_outcome, put_request_id, put_text, put_u32, read_entry, read_meta, read_name,
    read_namespace, read_namespace_name, read_outcome, read_request_id,
};
use super::{Change, Commit};
use bytes::Bytes;
use dstore_shared::{Error, Outcome, RequestId, Revision};

const VERSION: u8 = 1;
const HAS_OUTCOME: u8 = 1;
/// Length, version, flags, revision, time and number of changes.
const COMMIT_FIXED_BYTES: usize = 4 + 1 + 1 + 8 + 8 + 4;
/// Kind and length.
const CHANGE_HEAD_BYTES: usize = 1 + 4;
/// Values from here on are handed to the journal in place instead of being copied once more.
const GATHER_BYTES: usize = 4 << 10;

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

    /// The bytes, in order, as slices: what the journal appends.
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
            Change::Bind { name, entry } | Change::Rebind { name, entry } => {
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
            Change::Namespace(info) => put_namespace(&mut self.small, info),
            Change::NamespaceGone { namespace } => put_text(&mut self.small, namespace.as_bytes()),
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
        Change::Rebind { .. } => 7,
        Change::Namespace(_) => 8,
        Change::NamespaceGone { .. } => 9,
    }
}

fn change_len(change: &Change) -> usize {
    match change {
        Change::Bind { name, entry } | Change::Rebind { name, entry } => {
            2 + name.as_bytes().len() + entry_len(entry)
        }
        Change::Unbind { name } => 2 + name.as_bytes().len(),
        Change::Blob { meta, .. } => 32 + meta_len(meta),
        Change::BlobGone { .. } | Change::InlineGone { .. } => 32,
        Change::Inline { bytes, .. } => 32 + bytes.len(),
        Change::Namespace(info) => namespace_len(info),
        Change::NamespaceGone { namespace } => 2 + namespace.as_bytes().len(),
    }
}

fn read_change(body: &mut Reader) -> Result<Change, Damage> {
    let kind = body.u8()?;
    if !(1..=9).contains(&kind) {
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
        6 => Change::InlineGone { hash: part.hash()? },
        7 => Change::Rebind { name: read_name(&mut part)?, entry: read_entry(&mut part)? },
        8 => Change::Namespace(read_namespace(&mut part)?),
        _ => Change::NamespaceGone { namespace: read_namespace_name(&mut part)? },
    };
    part.end()?;
    Ok(change)
}
