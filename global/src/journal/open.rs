//! The order of steps by which a journal is opened.
//!
//! ```text
//! lock -> survey -> walk and judge (refuse?) -> fresh segment unless stopped cleanly -> replay -> spares
//! ```
//!
//! Invariants: nothing is changed before the judgement; nothing is replayed that is not durable.

use super::recovery::{Stale, Survey, Walk};
use super::refusal::Refusal;
use super::rewrite::Fresh;
use super::segment::Segment;
use super::spares::is_full;
use super::{Batch, Floors, JournalConfig, Torn};
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, Lock};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A journal that was read, and where it goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) lock: Arc<dyn Lock>,
    pub(super) current: Segment,
    /// Where the next batch goes, and what it names as predecessor.
    pub(super) at: u64,
    pub(super) chain: u64,
    pub(super) head: Revision,
    /// First revision of the current segment.
    pub(super) first: Revision,
    pub(super) old: Vec<Old>,
    pub(super) retired: Vec<Stale>,
    pub(super) next_sequence: u64,
    pub(super) created: bool,
    pub(super) clean: bool,
    pub(super) torn: Option<Torn>,
    pub(super) replayed: u64,
}

/// A segment that is only kept.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) stale: Stale,
    /// First revision; unknown if the segment's first batch is damaged.
    pub(super) first: Option<Revision>,
    pub(super) last: Revision,
}

/// Does all that precedes the first append.
pub(super) fn recover(
    sys: &Sys,
    config: &JournalConfig,
    floors: &Floors,
    mut replay: impl FnMut(Batch) -> Result<()>,
) -> Result<Recovered> {
    let disk = &*sys.disk;
    let lock = claim(disk, &config.dir)?;
    let mut survey = Survey::take(disk, &config.dir)?;
    let created = survey.segments.is_empty();
    let (mut clean, mut torn, mut head) = (false, None, Revision::default());
    if created {
        if let Some((witness, floor)) = floors.highest() {
            return Err(Refusal::Gone { dir: config.dir.display().to_string(), witness, floor }.into());
        }
        go_on(sys, config, &mut survey, floors.checkpoint, head)?;
    } else {
        let mut walk = Walk::after(&survey, floors.checkpoint)?;
        let end = walk.run(|_, _| Ok(()))?;
        torn = walk.judge(&end, floors)?;
        clean = walk.is_clean(&end, floors);
        head = end.head;
        survey.drop_unused(&end);
        // A segment is relaxed as a whole or not at all.
        let same =
            survey.segments.last().is_some_and(|s| s.segment.header.relaxed == config.relaxed.is_some());
        if !clean || !same {
            go_on(sys, config, &mut survey, floors.checkpoint, head)?;
        }
    }
    recall(config, &survey, floors.checkpoint, head, &mut replay)?;
    let mut replayed = 0;
    let end = Walk::after(&survey, floors.checkpoint)?.run(|header, payload| {
        if header.last > floors.checkpoint {
            replayed += 1;
        } else if !config.replays_again(header.last, head) {
            return Ok(());
        }
        let payload = Bytes::copy_from_slice(payload);
        replay(Batch { first: header.first, last: header.last, payload })
    })?;
    unchanged(end.head, head)?;
    let (at, chain, next_sequence) = (end.at, end.chain, survey.next_sequence);
    let (current, first, old, retired) = split(survey, head)?;
    let to = Recovered {
        lock,
        current,
        at,
        chain,
        head,
        first,
        old,
        retired,
        next_sequence,
        created,
        clean,
        torn,
        replayed,
    };
    Ok(to)
}

/// Replays what is kept in the segments before the one that holds the first revision after `checkpoint`, as far as
/// [`JournalConfig::replay_again`] asks for it. Nobody depends on it: what cannot be read is left out.
fn recall(
    config: &JournalConfig,
    survey: &Survey,
    checkpoint: Revision,
    head: Revision,
    replay: &mut impl FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let wanted = |last| config.replays_again(last, head);
    // Two segments of the full size.
    let before = Walk::before(survey, checkpoint, 2 * config.segment_bytes - 1, wanted)?;
    let Some(mut before) = before else { return Ok(()) };
    let mut failed = None;
    let read = before.run(|header, payload| {
        if !config.replays_again(header.last, head) {
            return Ok(());
        }
        let payload = Bytes::copy_from_slice(payload);
        replay(Batch { first: header.first, last: header.last, payload })
            .inspect_err(|e| failed = Some(e.clone()))
    });
    match (failed, read) {
        (Some(e), _) => Err(e),
        (None, Err(error)) => {
            tracing::warn!(%error, "old batches of the journal cannot be read: watches begin later");
            Ok(())
        }
        (None, Ok(_)) => Ok(()),
    }
}

/// Makes the directory if need be, and keeps others out of it.
fn claim(disk: &dyn Disk, dir: &Path) -> Result<Arc<dyn Lock>> {
    let failed = |e| failed(dir, e);
    disk.create_dir_all(dir).map_err(failed)?;
    let lock = disk.lock(&dir.join("LOCK")).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            let dir = dir.display();
            Error::unavailable(format!(
                "journal `{dir}` is in use: stop the other dstore or use another directory"
            ))
        }
        _ => failed(e),
    })?;
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(failed)?;
    }
    disk.sync_dir(dir).map_err(failed)?;
    Ok(lock.into())
}

/// Writes what follows `checkpoint` to a fresh segment, which the journal goes on in. On a full disk, files that
/// hold nothing are given up for it.
fn go_on(
    sys: &Sys,
    config: &JournalConfig,
    survey: &mut Survey,
    checkpoint: Revision,
    head: Revision,
) -> Result<()> {
    let disk = &*sys.disk;
    let salt = sys.rng.next_u64();
    remove(disk, survey.unfinished.drain(..)).map_err(|e| failed(&config.dir, e))?;
    let mut made = rewrite(disk, config, survey, salt, (checkpoint, head));
    if made.as_ref().is_err_and(|e| e.kind() == dstore_shared::Kind::Exhausted) {
        let empty = survey.void.drain(..).chain(survey.spares.drain(..)).map(|stale| stale.path);
        remove(disk, empty).map_err(|e| failed(&config.dir, e))?;
        made = rewrite(disk, config, survey, salt, (checkpoint, head));
    }
    let segment = made?;
    let base = segment.header.origin.unwrap_or(head);
    survey.add(segment, base);
    Ok(())
}

fn rewrite(
    disk: &dyn Disk,
    config: &JournalConfig,
    survey: &Survey,
    salt: u64,
    (checkpoint, head): (Revision, Revision),
) -> Result<Segment> {
    let failed = |e| failed(&config.dir, e);
    let fresh = Fresh::begin(disk, config, survey.next_sequence, salt).map_err(failed)?;
    let copied = copy(fresh, survey, checkpoint, head, &failed);
    if copied.is_err() {
        // Best effort: what stays is removed at the next open.
        let _ = Fresh::abandon(disk, config, survey.next_sequence);
    }
    copied
}

fn copy(
    mut fresh: Fresh<'_>,
    survey: &Survey,
    checkpoint: Revision,
    head: Revision,
    failed: &impl Fn(io::Error) -> Error,
) -> Result<Segment> {
    if !survey.segments.is_empty() {
        let end = Walk::after(survey, checkpoint)?.run(|header, payload| {
            if header.last > checkpoint { fresh.copy(header, payload).map_err(failed) } else { Ok(()) }
        })?;
        unchanged(end.head, head)?;
    }
    fresh.commit(head).map_err(failed)
}

/// Tells the segment that is appended to from those that are kept and those that can go.
fn split(mut survey: Survey, head: Revision) -> Result<(Segment, Revision, Vec<Old>, Vec<Stale>)> {
    let Some(last) = survey.segments.pop() else {
        return Err(Error::internal("a journal without a segment: report this"));
    };
    let first = last.first.unwrap_or(head.next());
    let mut next = first;
    let mut old: Vec<_> = survey
        .segments
        .iter()
        .rev()
        .map(|s| {
            let last = s.limit.min(Revision(next.0 - 1));
            next = s.first.unwrap_or(next);
            Old { stale: Stale::of(&s.segment), first: s.first, last }
        })
        .collect();
    old.reverse();
    survey.void.append(&mut survey.spares);
    Ok((last.segment, first, old, survey.void))
}

/// A disk that reads differently each time must not shorten the journal.
fn unchanged(now: Revision, before: Revision) -> Result<()> {
    if now == before {
        return Ok(());
    }
    let text = format!("journal ended at revision `{before}`, read again at `{now}`: repair the disk");
    Err(Error::unavailable(text))
}

fn remove(disk: &dyn Disk, paths: impl Iterator<Item = std::path::PathBuf>) -> io::Result<()> {
    for path in paths {
        disk.remove(&path)?;
    }
    Ok(())
}

fn failed(dir: &Path, error: io::Error) -> Error {
    let dir = dir.display();
    if is_full(&error) {
        return Error::exhausted(format!("no space to open the journal in `{dir}`: free some"))
            .caused_by(error);
    }
    Error::unavailable(format!("journal in `{dir}` cannot be opened: repair the disk or its permissions"))
        .caused_by(error)
}
