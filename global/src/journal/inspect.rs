//! Looks at a journal without changing it: what each file holds, and what an open would make of it.
//!
//! Invariants: judged by the code that an open judges with; memory holds one batch or one window, and at
//! most [`FAULTS_MAX`] faults a segment.

use super::format::{BLOCK, DATA_START};
use super::recovery::{Survey, Walk};
use super::refusal::Refusal;
use super::segment::{Bad, Reader, Role, Segment};
use super::{Batch, Floors, Torn};
use bytes::Bytes;
use dstore_shared::{Result, Revision};
use dstore_sys::disk::{DirEntry, Disk};
use std::path::Path;

/// Faults of one segment that are told one by one.
pub const FAULTS_MAX: usize = 100;

/// What a file of the journal is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentRole {
    /// It continues the one before.
    Continues,
    /// The journal goes on in it after this revision; what earlier segments hold beyond is void.
    Origin(Revision),
    /// Nothing in it counts any more.
    Void,
    /// It waits for its next use.
    Spare,
    /// It was being made.
    Unfinished,
    /// Its header is not whole, so that nobody knows.
    Unknown,
}

/// A batch that is not whole although whole ones follow it in the same segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchFault {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// The revision that it should begin with, if the batch before is whole.
    pub revision: Option<Revision>,
    /// How it shows.
    pub reason: String,
}

/// One file of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFacts {
    /// Its name.
    pub name: String,
    /// Its place in the order of segments.
    pub sequence: u64,
    /// What it is there for.
    pub role: SegmentRole,
    /// Whether the file was used before, so that stale batches may follow the live ones.
    pub recycled: bool,
    /// Whether changes in it were acknowledged before they were durable.
    pub relaxed: bool,
    /// Length of the file.
    pub bytes: u64,
    /// First revision of its whole batches.
    pub first: Option<Revision>,
    /// Last revision of its whole batches.
    pub last: Option<Revision>,
    /// Whole batches.
    pub batches: u64,
    /// Bytes up to the end of the last whole batch, headers included.
    pub used: u64,
    /// What is wrong with the file as a whole.
    pub unusable: Option<String>,
    /// The first hundred batches that are damaged in its middle.
    pub faults: Vec<BatchFault>,
}

/// What an open would find.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The last revision.
    pub head: Revision,
    /// What would be cut off the end.
    pub torn: Option<Torn>,
    /// Whether it ends where a clean stop left it.
    pub clean: bool,
    /// Batches after the checkpoint.
    pub replayed: u64,
}

/// Describes every file of the journal in `dir`, in order of sequence. Reads live segments whole.
///
/// # Errors
/// `Unavailable` if the directory cannot be listed or a file cannot be read.
pub(crate) fn describe(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentFacts>> {
    let listed = list(disk, dir)?;
    let void: Vec<u64> =
        Survey::take(disk, dir).map(|s| s.void.iter().map(|v| v.sequence).collect()).unwrap_or_default();
    let mut reader = Reader::default();
    let mut found = Vec::new();
    for entry in listed {
        let Some((role, sequence)) = Role::parse(&entry.name) else { continue };
        let mut facts = facts(&entry, role, sequence);
        if role == Role::Live {
            look_into(disk, &dir.join(&entry.name), &mut reader, &mut facts)?;
            if void.contains(&sequence) {
                facts.role = SegmentRole::Void;
            }
        }
        found.push(facts);
    }
    found.sort_by_key(|facts| facts.sequence);
    Ok(found)
}

/// Says what an open with `floors` would do, and replays as it would.
///
/// # Errors
/// Those with which it would refuse, and those of `replay`.
pub(crate) fn judge(
    disk: &dyn Disk,
    dir: &Path,
    floors: &Floors,
    mut replay: impl FnMut(Batch) -> Result<()>,
) -> Result<Judged> {
    let survey = if is_there(disk, dir)? { Some(Survey::take(disk, dir)?) } else { None };
    let Some(survey) = survey.filter(|survey| !survey.segments.is_empty()) else {
        return match floors.highest() {
            Some((witness, floor)) => {
                Err(Refusal::Gone { dir: dir.display().to_string(), witness, floor }.into())
            }
            None => Ok(Judged { head: Revision(0), torn: None, clean: false, replayed: 0 }),
        };
    };
    let mut walk = Walk::after(&survey, floors.checkpoint)?;
    let end = walk.run(|_, _| Ok(()))?;
    let torn = walk.judge(&end, floors)?;
    let clean = walk.is_clean(&end, floors);
    let mut replayed = 0;
    Walk::after(&survey, floors.checkpoint)?.run(|header, payload| {
        if header.last <= floors.checkpoint {
            return Ok(());
        }
        replayed += 1;
        let payload = Bytes::copy_from_slice(payload);
        replay(Batch { first: header.first, last: header.last, payload })
    })?;
    Ok(Judged { head: end.head, torn, clean, replayed })
}

fn is_there(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    Ok(disk.exists(dir).map_err(|source| unreadable(dir, source))?)
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    if !is_there(disk, dir)? {
        return Ok(Vec::new());
    }
    Ok(disk.list(dir).map_err(|source| unreadable(dir, source))?)
}

fn unreadable(path: &Path, source: std::io::Error) -> Refusal {
    Refusal::Unreadable { segment: path.display().to_string(), source }
}

fn facts(entry: &DirEntry, role: Role, sequence: u64) -> SegmentFacts {
    let role = match role {
        Role::Live => SegmentRole::Unknown,
        Role::New => SegmentRole::Unfinished,
        Role::Spare => SegmentRole::Spare,
    };
    SegmentFacts {
        name: entry.name.clone(),
        sequence,
        role,
        recycled: false,
        relaxed: false,
        bytes: entry.len,
        first: None,
        last: None,
        batches: 0,
        used: 0,
        unusable: None,
        faults: Vec::new(),
    }
}

fn look_into(disk: &dyn Disk, path: &Path, reader: &mut Reader, facts: &mut SegmentFacts) -> Result<()> {
    let segment = match Segment::open(disk, path.to_owned(), facts.sequence) {
        Ok(segment) => segment,
        Err(refusal) => {
            facts.unusable = Some(refusal.to_string());
            return Ok(());
        }
    };
    facts.role = match segment.header.origin {
        Some(base) => SegmentRole::Origin(base),
        None => SegmentRole::Continues,
    };
    (facts.recycled, facts.relaxed) = (segment.header.recycled, segment.header.relaxed);
    facts.used = DATA_START;
    if segment.is_cut() {
        facts.unusable = Some(format!("it has `{}` bytes of `{}`", segment.bytes, segment.header.length));
    }
    Ok(scan(reader, &segment, facts).map_err(|source| unreadable(path, source))?)
}

/// Reads every batch that is whole, over those that are not.
fn scan(reader: &mut Reader, segment: &Segment, facts: &mut SegmentFacts) -> std::io::Result<()> {
    let mut at = DATA_START;
    let mut whole_before = true;
    loop {
        let reason = match reader.batch(segment, at)? {
            Ok((header, _)) => {
                facts.first = facts.first.or(Some(header.first));
                facts.last = Some(header.last);
                facts.batches += 1;
                at += header.span();
                facts.used = at;
                whole_before = true;
                continue;
            }
            Err(Bad::End) => return Ok(()),
            Err(bad) => bad,
        };
        let Some((next, _)) = reader.search(segment, at + BLOCK, Revision(0))? else { return Ok(()) };
        if facts.faults.len() < FAULTS_MAX {
            let revision = facts.last.filter(|_| whole_before).map(Revision::next);
            facts.faults.push(BatchFault { offset: at, revision, reason: reason.to_string() });
        }
        (at, whole_before) = (next, false);
    }
}
