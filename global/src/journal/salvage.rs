//! Finds every batch of a journal that is whole, past whatever damage lies between, and reads them in order.
//!
//! Invariants: nothing on the disk is changed; a batch is taken only if its checksums hold under the salt of its
//! segment's header, and if no later origin voids it; of two copies of a batch the later segment's counts.
//! Memory holds one batch, or one window, and a place for each batch.

use super::format::{BLOCK, DATA_START};
use super::segment::{Bad, Reader, Role, Segment, name_of};
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::disk::Disk;
use std::io;
use std::path::Path;

/// Where a whole batch is.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: Revision,
    last: Revision,
    segment: usize,
    at: u64,
}

/// The whole batches of a journal.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    segments: Vec<Segment>,
    /// By first revision; of one revision the latest segment's first.
    places: Vec<Place>,
    /// What could not be read, in words.
    pub(crate) doubts: Vec<String>,
}

/// Looks at every live segment in `dir`.
///
/// # Errors
/// `Unavailable` if the directory cannot be listed. A segment that cannot be read is a doubt.
pub(crate) fn whole(disk: &dyn Disk, dir: &Path) -> Result<Whole> {
    let mut whole = Whole::default();
    if !disk.exists(dir).map_err(|e| crate::sealed::failed("look at", dir, e))? {
        whole.doubts.push("there is no journal: what came after the last checkpoint is lost".to_owned());
        return Ok(whole);
    }
    for entry in disk.list(dir).map_err(|e| crate::sealed::failed("list", dir, e))? {
        let Some((Role::Live, sequence)) = Role::parse(&entry.name) else { continue };
        match Segment::open(disk, dir.join(&entry.name), sequence) {
            Ok(segment) => whole.segments.push(segment),
            Err(refusal) => {
                let name = &entry.name;
                whole
                    .doubts
                    .push(format!("journal segment `{name}` is lost with all that it held: {refusal}"));
            }
        }
    }
    if whole.segments.is_empty() {
        whole
            .doubts
            .push("the journal has no segment: what came after the last checkpoint is lost".to_owned());
    }
    whole.segments.sort_by_key(|segment| segment.header.sequence);
    whole.find();
    Ok(whole)
}

impl Whole {
    fn find(&mut self) {
        let mut reader = Reader::default();
        let (mut limit, mut newest) = (Revision(u64::MAX), true);
        for (i, segment) in self.segments.iter().enumerate().rev() {
            if segment.is_cut() {
                let (name, bytes, length) = (segment.name(), segment.bytes, segment.header.length);
                self.doubts.push(format!("journal segment `{name}` has `{bytes}` bytes of `{length}`"));
            }
            if let Err(e) = scan(&mut reader, segment, i, limit, newest, &mut self.places, &mut self.doubts) {
                self.doubts
                    .push(format!("journal segment `{}` cannot be read to its end: {e}", segment.name()));
            }
            newest &= !self.places.iter().any(|place| place.segment == i);
            limit = limit.min(segment.header.origin.unwrap_or(limit));
        }
        self.places.sort_by_key(|place| (place.first, std::cmp::Reverse(place.segment)));
    }

    /// The first and the last revision that is whole.
    pub(crate) fn ends(&self) -> Option<(Revision, Revision)> {
        Some((self.places.first()?.first, self.places.iter().map(|place| place.last).max()?))
    }

    /// Hands over every batch that ends above `after`, in order, and before it every range of revisions that is
    /// missing there.
    ///
    /// # Errors
    /// `Unavailable` if a batch cannot be read again; those of `each` and `gap`.
    pub(crate) fn replay(
        &self,
        after: Revision,
        mut gap: impl FnMut(Revision, Revision) -> Result<()>,
        mut each: impl FnMut(Bytes) -> Result<()>,
    ) -> Result<()> {
        let (mut reader, mut head) = (Reader::default(), after);
        for place in &self.places {
            if place.last <= head {
                continue;
            }
            if place.first > head.next() {
                gap(head.next(), Revision(place.first.0 - 1))?;
            }
            let segment = &self.segments[place.segment];
            let read = reader.batch(segment, place.at).map_err(|e| again(segment, &e))?;
            let Ok((header, payload)) = read else { return Err(again(segment, &"it reads differently now")) };
            each(Bytes::copy_from_slice(payload))?;
            head = header.last;
        }
        Ok(())
    }
}

fn again(segment: &Segment, why: &dyn std::fmt::Display) -> Error {
    let name = name_of(&segment.path);
    Error::unavailable(format!("journal segment `{name}` cannot be read again, {why}: repair the disk"))
}

/// Notes every whole batch of a segment; `newest`: nothing follows it in the journal.
fn scan(
    reader: &mut Reader,
    segment: &Segment,
    index: usize,
    limit: Revision,
    newest: bool,
    places: &mut Vec<Place>,
    doubts: &mut Vec<String>,
) -> io::Result<()> {
    let mut at = DATA_START;
    loop {
        let bad = match reader.batch(segment, at)? {
            Ok((header, _)) => {
                if header.last <= limit {
                    places.push(Place { first: header.first, last: header.last, segment: index, at });
                }
                at += header.span();
                continue;
            }
            Err(Bad::End | Bad::Blank) if newest => return Ok(()),
            Err(bad) => bad,
        };
        let name = segment.name();
        let Some((next, _)) = reader.search(segment, at + BLOCK, Revision(0))? else {
            // Behind the last batch of a file that was used before lies what is stale.
            let begun = matches!(bad, Bad::Payload | Bad::Length) || !segment.header.recycled;
            if newest && begun {
                doubts.push(format!(
                        "journal segment `{name}` ends at offset `{at}` in a batch that is not whole: it was never \
                         acknowledged, unless it was damaged since"
                    ));
            }
            return Ok(());
        };
        doubts.push(format!("journal segment `{name}` is damaged at offset `{at}`: {bad}"));
        at = next;
    }
}
