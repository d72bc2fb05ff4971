//! Names in order, a page at a time, each page as of one revision.
//!
//! Memtables are hash tables; the order of their names is made here, when somebody lists: what came since the
//! last look is sorted and joins the sorted runs. So a store that nobody lists pays a push for each new name.
//!
//! A page merges what the memtables say as of a moment with what the index holds. The index may move on
//! meanwhile: if it began to take another memtable, which may hold younger changes, the page is made again.

#[cfg(test)]
mod tests;

use super::Catalog;
use super::memtable::Memtable;
use super::overlay::Overlay;
use crate::change::decode_entry;
use crate::engine::Table;
use dstore_shared::{Entry, Error, Name, Result, Revision};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Sorted runs that are merged into one when there are more.
const RUNS: usize = 8;
/// Pages that are made in vain before it is told.
const ATTEMPTS: usize = 8;

/// Some names in byte order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The names and what they are bound to. There may be fewer than asked for, even none, and more to come.
    pub names: Vec<(Name, Entry)>,
    /// Go on after this one; `None` = these were the last.
    pub next: Option<Name>,
    /// The revision as of which all of them hold.
    pub revision: Revision,
}

/// The names of a memtable, in an order that is made when it is needed.
#[derive(Default, Debug)]
pub(super) struct Order {
    /// Came since the last look.
    tail: Mutex<Vec<Name>>,
    runs: Mutex<Vec<Arc<[Name]>>>,
}

impl Order {
    /// A name that the memtable has not had.
    pub(super) fn push(&self, name: &Name) {
        self.tail.lock().push(name.clone());
    }

    /// Sorts what came since the last look. Takes milliseconds for many names, and keeps no writer waiting.
    fn sort(&self) {
        let mut runs = self.runs.lock();
        let mut run = std::mem::take(&mut *self.tail.lock());
        if run.is_empty() {
            return;
        }
        if runs.len() >= RUNS {
            run.extend(runs.drain(..).flat_map(|run| run.to_vec()));
        }
        run.sort_unstable();
        runs.push(run.into());
    }

    /// Puts the first `limit` names of a range into `names`. Those that came since [`Order::sort`] are few.
    fn first(&self, range: &Range<'_>, limit: usize, names: &mut BTreeMap<Name, Option<Entry>>) -> bool {
        let mut more = false;
        for run in self.runs.lock().iter() {
            let from = run.partition_point(|name| !range.is_reached_by(name.as_bytes()));
            let within = run[from..].iter().take_while(|name| range.goes_on(name.as_bytes()));
            for (i, name) in within.take(limit + 1).enumerate() {
                more |= i == limit;
                names.insert(name.clone(), None);
            }
        }
        let tail = self.tail.lock();
        let within = |name: &&Name| range.is_reached_by(name.as_bytes()) && range.goes_on(name.as_bytes());
        names.extend(tail.iter().filter(within).map(|name| (name.clone(), None)));
        more
    }
}

/// Packed names with a prefix, after one of them.
struct Range<'a> {
    prefix: &'a [u8],
    after: Option<&'a [u8]>,
}

impl Range<'_> {
    /// Whether `name` is past where the range begins.
    fn is_reached_by(&self, name: &[u8]) -> bool {
        name >= self.prefix && self.after.is_none_or(|after| name > after)
    }

    /// Whether `name`, past the begin, is not past the end.
    fn goes_on(&self, name: &[u8]) -> bool {
        name.starts_with(self.prefix)
    }

    fn start(&self) -> Bound<&[u8]> {
        match self.after {
            Some(after) if after >= self.prefix => Bound::Excluded(after),
            _ => Bound::Included(self.prefix),
        }
    }
}

/// What the memtables say of the names of a range.
struct Shown {
    names: BTreeMap<Name, Option<Entry>>,
    /// They know more names, past this one.
    upto: Option<Name>,
    revision: Revision,
    /// How many memtables the index had begun to take.
    begun: u64,
}

impl Catalog {
    /// The first names, at most `limit`, that begin with the packed `prefix` and come after `after`, in byte
    /// order, as of one revision. May block on the index's disk.
    ///
    /// A name that is bound during all of a walk over the pages is on exactly one of them, whatever else is
    /// set and deleted meanwhile.
    ///
    /// # Errors
    /// As [`Catalog::entry`]; `Unavailable` if the store changes faster than it can be read.
    pub fn list(&self, prefix: &[u8], after: Option<&Name>, limit: usize) -> Result<Page> {
        let range = Range { prefix, after: after.map(Name::as_bytes) };
        let limit = limit.max(1);
        for _ in 0..ATTEMPTS {
            let orders: Vec<Arc<Order>> =
                self.layers().overlay.read().memtables().map(Memtable::order).collect();
            orders.iter().for_each(|order| order.sort());
            let shown = self.shown(&range, limit);
            let begun = shown.begun;
            let page = self.page(&range, limit, shown)?;
            if self.applier.begun() == begun {
                return Ok(page);
            }
        }
        Err(Error::unavailable("the store changes faster than it can be listed: try again"))
    }

    fn shown(&self, range: &Range<'_>, limit: usize) -> Shown {
        let overlay = self.layers().overlay.read();
        let mut names = BTreeMap::new();
        let mut more = false;
        for memtable in overlay.memtables() {
            more |= memtable.order().first(range, limit, &mut names);
        }
        more |= names.len() > limit;
        // Each memtable gave its first `limit` names, so the first `limit` of all are among them.
        let upto = if more { names.keys().nth(limit - 1).cloned() } else { None };
        if let Some(upto) = &upto {
            names.retain(|name, _| name <= upto);
        }
        for (name, entry) in &mut names {
            *entry = newest(&overlay, name);
        }
        Shown { names, upto, revision: overlay.head, begun: self.applier.begun() }
    }

    fn page(&self, range: &Range<'_>, limit: usize, shown: Shown) -> Result<Page> {
        let Shown { names, upto, revision, .. } = shown;
        let mut shown = names.into_iter().peekable();
        let mut page: Vec<(Name, Entry)> = Vec::new();
        let mut next = None;
        let mut failed = None;
        // One more than the page holds tells whether there are more.
        let mut give = |name: Name, entry: Entry, page: &mut Vec<(Name, Entry)>| {
            if page.len() == limit {
                next = page.last().map(|(name, _)| name.clone());
                return ControlFlow::Break(());
            }
            page.push((name, entry));
            ControlFlow::Continue(())
        };
        let mut each = |key: bytes::Bytes, value: bytes::Bytes| {
            if !range.goes_on(&key) || upto.as_ref().is_some_and(|upto| key[..] > *upto.as_bytes()) {
                return ControlFlow::Break(());
            }
            while let Some((name, entry)) = shown.next_if(|(name, _)| *name.as_bytes() < key[..]) {
                if let Some(entry) = entry {
                    give(name, entry, &mut page)?;
                }
            }
            if let Some((name, entry)) = shown.next_if(|(name, _)| *name.as_bytes() == key[..]) {
                return entry.map_or(ControlFlow::Continue(()), |entry| give(name, entry, &mut page));
            }
            match Name::from_packed(bytes::Bytes::copy_from_slice(&key))
                .and_then(|n| Ok((n, decode_entry(value)?)))
            {
                Ok((name, entry)) => give(name, entry, &mut page),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        };
        self.applier.engine.scan(Table::Names, range.start(), usize::MAX, &mut each)?;
        for (name, entry) in shown {
            let Some(entry) = entry else { continue };
            if give(name, entry, &mut page).is_break() {
                break;
            }
        }
        if let Some(e) = failed {
            return Err(e);
        }
        Ok(Page { names: page, next: next.or(upto), revision })
    }
}

fn newest(overlay: &Overlay, name: &Name) -> Option<Entry> {
    overlay.memtables().find_map(|memtable| memtable.names.get(name)).cloned().flatten()
}
