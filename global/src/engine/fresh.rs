//! Owns the writes of an engine that are in memory only: a sorted layer over what the engine has stored.
//!
//! Invariants: a key here hides the same key below, also when it says "removed". Clones share the tables; the
//! first write after a clone copies the written table once.

use super::{Each, Table, Write};
use bytes::Bytes;
use dstore_shared::Result;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// What a key and its place cost besides their bytes.
const OVERHEAD_BYTES: usize = 120;
/// Keys of the layer that a scan looks at under one lock.
const PAGE: usize = 1024;

/// Keys in order; `None` = removed.
pub(super) type Sorted = BTreeMap<Bytes, Option<Bytes>>;

/// The layer.
#[derive(Clone, Default, Debug)]
pub(super) struct Fresh {
    tables: [Arc<Sorted>; 4],
    bytes: usize,
}

impl Fresh {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a write over.
    pub(super) fn put(&mut self, write: Write) {
        let new = write.value.as_ref().map_or(0, Bytes::len);
        let cost = OVERHEAD_BYTES + write.key.len();
        match Arc::make_mut(&mut self.tables[write.table.number()]).insert(write.key, write.value) {
            Some(old) => self.bytes = self.bytes + new - old.map_or(0, |v| v.len()),
            None => self.bytes += cost + new,
        }
    }

    /// `Some(None)` = removed, `None` = ask below.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        self.table(table).get(key)
    }

    /// The keys of a table.
    pub(super) fn table(&self, table: Table) -> &Sorted {
        &self.tables[table.number()]
    }

    fn range(&self, table: Table, start: Bound<&[u8]>) -> btree_map::Range<'_, Bytes, Option<Bytes>> {
        self.table(table).range::<[u8], _>((start, Bound::Unbounded))
    }
}

/// Some of a layer's keys from a start on.
#[derive(Default, Debug)]
pub(super) struct Page {
    keys: Sorted,
    /// There may be further keys of the layer after this one.
    upto: Option<Bytes>,
}

impl Page {
    /// The page of several layers, of which an earlier one hides a later one.
    pub(super) fn of(layers: &[&Fresh], table: Table, start: Bound<&[u8]>) -> Self {
        let mut page = Self::default();
        for layer in layers {
            for (key, value) in layer.range(table, start).take(PAGE) {
                page.keys.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        if page.keys.len() >= PAGE {
            // Each layer was read at least up to the first `PAGE` keys of all.
            let upto = page.keys.keys().nth(PAGE - 1).cloned();
            if let Some(upto) = &upto {
                page.keys.split_off(upto).into_iter().next().map(|(k, v)| page.keys.insert(k, v));
            }
            page.upto = upto;
        }
        page
    }
}

/// Scans layers over what is below them: `page` gives the layers' keys from a start on, `below` the stored
/// ones up to an end.
pub(super) fn scan<I: Iterator<Item = Result<(Bytes, Bytes)>>>(
    start: Bound<&[u8]>,
    limit: usize,
    each: Each<'_>,
    page: impl Fn(Bound<&[u8]>) -> Page,
    below: impl Fn(Bound<&[u8]>, Bound<&[u8]>) -> I,
) -> Result<()> {
    let mut start = start.map(Bytes::copy_from_slice);
    let mut left = limit;
    while left > 0 {
        let Page { keys, upto } = page(start.as_ref().map(|b| &b[..]));
        let end = upto.as_ref().map_or(Bound::Unbounded, |b| Bound::Included(&b[..]));
        let stored = below(start.as_ref().map(|b| &b[..]), end);
        if merge(keys, stored, &mut left, each)? == ControlFlow::Break(()) {
            return Ok(());
        }
        match upto {
            Some(upto) => start = Bound::Excluded(upto),
            None => return Ok(()),
        }
    }
    Ok(())
}

fn merge(
    keys: Sorted,
    stored: impl Iterator<Item = Result<(Bytes, Bytes)>>,
    left: &mut usize,
    each: Each<'_>,
) -> Result<ControlFlow<()>> {
    let mut keys = keys.into_iter().peekable();
    let mut give = |key, value| {
        *left -= 1;
        if each(key, value) == ControlFlow::Break(()) || *left == 0 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    for pair in stored {
        let (key, value) = pair?;
        while let Some((fresh, value)) = keys.next_if(|(fresh, _)| *fresh < key) {
            if value.is_some_and(|value| give(fresh, value).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        let (key, value) = match keys.next_if(|(fresh, _)| *fresh == key) {
            Some((_, None)) => continue,
            Some((key, Some(value))) => (key, value),
            None => (key, value),
        };
        if give(key, value).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    for (key, value) in keys {
        if value.is_some_and(|value| give(key, value).is_break()) {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_sys::rng::{Rng, SeededRng};

    #[test]
    fn a_scan_over_layers_gives_what_one_map_would() {
        let rng = SeededRng::new(5);
        for round in 0..60 {
            let space = if round % 2 == 0 { 40 } else { 9000 };
            let key = || Bytes::from(format!("{:05}", rng.next_u64() % space));
            let mut below = BTreeMap::new();
            let mut layers = [Fresh::default(), Fresh::default()];
            let mut model = BTreeMap::new();
            for depth in [2, 1, 0] {
                for _ in 0..rng.next_u64() % (space * 2) {
                    let value =
                        (!rng.next_u64().is_multiple_of(3)).then(|| Bytes::from(rng.next_u64().to_string()));
                    let key = key();
                    model.insert(key.clone(), value.clone());
                    match layers.get_mut(depth) {
                        Some(layer) => layer.put(Write { table: Table::Blobs, key, value }),
                        None => _ = value.map(|value| below.insert(key, value)),
                    }
                }
                if depth == 2 {
                    model =
                        below.iter().map(|(k, v): (&Bytes, &Bytes)| (k.clone(), Some(v.clone()))).collect();
                }
            }
            let (start, limit) = (key(), if round % 3 == 0 { 7 } else { usize::MAX });
            let mut found = Vec::new();
            let each = &mut |k, v| {
                found.push((k, v));
                ControlFlow::Continue(())
            };
            let page = |from: Bound<&[u8]>| Page::of(&[&layers[0], &layers[1]], Table::Blobs, from);
            let stored = |from: Bound<&[u8]>, to: Bound<&[u8]>| {
                let range = below.range::<[u8], _>((from, to));
                range.map(|(k, v)| Ok((k.clone(), v.clone()))).collect::<Vec<_>>().into_iter()
            };
            scan(Bound::Excluded(&start), limit, each, page, stored).unwrap();
            let want: Vec<_> = model
                .into_iter()
                .filter(|(k, _)| *k > start)
                .filter_map(|(k, v)| Some((k, v?)))
                .take(limit)
                .collect();
            assert_eq!(found, want, "round {round}");
        }
    }

    #[test]
    fn the_bytes_of_a_layer_count_a_key_once() {
        let mut fresh = Fresh::default();
        let mut put = |value: Option<&'static [u8]>| {
            fresh.put(Write { table: Table::Names, key: "k".into(), value: value.map(Bytes::from_static) });
            fresh.bytes()
        };
        assert_eq!([put(Some(b"12345")), put(Some(b"1")), put(None), put(Some(b"12"))], [126, 122, 121, 123]);
    }
}
