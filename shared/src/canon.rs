//! A state written down so that states between which nothing that follows can tell are written alike.
//!
//! A model checker compares states by it. What only counts (epochs, streams, flights, registrations) would make every
//! state a new one: what is compared for equality alone is written as the place of its first appearance, what is
//! compared for order as its rank among its sort, and a moment as the time left until it.
//! It must never leave out what a machine decides by.

use crate::{Entry, Epoch, Incarnation, LocalId, Moment, Name, Outcome, SetOutcome};

/// Of what sort a number is: numbers of two sorts are never compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sort {
    /// A session of Global.
    Session,
    /// A session stream.
    Stream,
    /// An epoch.
    Epoch,
    /// A change on its way.
    Op,
    /// An unbroken registration.
    Generation,
    /// A count of changes that have finished.
    Finished,
    /// A flight of one life of a Local.
    Flight(u64),
    /// A registration of one life of a Local.
    Registration(u64),
    /// A KEEP of one life of a Local.
    Keep(u64),
}

impl Sort {
    /// Registrations of one life of a Local.
    pub fn registrations(local: LocalId, life: Incarnation) -> Self {
        Self::Registration(party(local, life))
    }

    /// Flights of one life of a Local.
    pub fn flights(local: LocalId, life: Incarnation) -> Self {
        Self::Flight(party(local, life))
    }

    /// KEEPs of one life of a Local.
    pub fn keeps(local: LocalId, life: Incarnation) -> Self {
        Self::Keep(party(local, life))
    }
}

fn party(local: LocalId, life: Incarnation) -> u64 {
    (local.0 as u64) << 32 | life.0
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Plain(u64),
    Ranked(Sort, u64),
}

/// A state as it is being written down.
#[derive(Default, Debug)]
pub struct Canon {
    words: Vec<Word>,
    seen: Vec<(Sort, u64)>,
}

/// Something that can be written down in this way.
pub trait Canonical {
    /// Writes all by which it decides.
    fn canon(&self, into: &mut Canon);
}

impl Canon {
    /// Writes a number as it is.
    pub fn put(&mut self, word: impl Into<u64>) {
        self.words.push(Word::Plain(word.into()));
    }

    /// Writes how many follow.
    pub fn len(&mut self, len: usize) {
        self.put(len as u64);
    }

    /// Writes whether there is something, and it as `write` does.
    pub fn maybe<T>(&mut self, some: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.put(some.is_some());
        if let Some(some) = some {
            write(self, some);
        }
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.put(u64::from_le_bytes(word));
        }
    }

    /// Writes how long it is until a moment; what is over is over.
    pub fn left(&mut self, until: Moment, now: Moment) {
        self.put(until.since(now).as_nanos() as u64);
    }

    /// Writes a number of which only equality matters, as the place of its first appearance among its sort.
    pub fn named(&mut self, sort: Sort, id: u64) {
        let known = self.seen.iter().filter(|(s, _)| *s == sort).position(|(_, seen)| *seen == id);
        let place = known.unwrap_or_else(|| {
            self.seen.push((sort, id));
            self.seen.iter().filter(|(s, _)| *s == sort).count() - 1
        });
        self.put(place as u64);
    }

    /// Writes an epoch: only equality matters.
    pub fn epoch(&mut self, epoch: Epoch) {
        self.named(Sort::Epoch, epoch.boot << 32 | epoch.counter);
    }

    /// Writes a number of which the order matters, as its rank among all of its sort that are written.
    pub fn ranked(&mut self, sort: Sort, n: u64) {
        self.words.push(Word::Ranked(sort, n));
    }

    /// What was written.
    pub fn words(self) -> Vec<u64> {
        let rank = |word: &Word| match word {
            Word::Ranked(sort, n) => Some((*sort, *n)),
            Word::Plain(_) => None,
        };
        let mut all: Vec<(Sort, u64)> = self.words.iter().filter_map(rank).collect();
        all.sort_unstable();
        all.dedup();
        let rank_of = |sort: Sort, n: u64| {
            let first = all.partition_point(|(s, _)| *s < sort);
            all.partition_point(|at| *at < (sort, n)) - first
        };
        let plain = |word: &Word| match word {
            Word::Plain(word) => *word,
            Word::Ranked(sort, n) => rank_of(*sort, *n) as u64,
        };
        self.words.iter().map(plain).collect()
    }
}

impl Canonical for Name {
    fn canon(&self, into: &mut Canon) {
        into.bytes(self.as_bytes());
    }
}

impl Canonical for Entry {
    fn canon(&self, into: &mut Canon) {
        into.bytes(self.hash.as_bytes());
        into.put(self.size);
        into.put(self.bind_rev.0);
        into.maybe(self.expires_at, Canon::put);
    }
}

impl Canonical for Outcome {
    fn canon(&self, into: &mut Canon) {
        match self {
            Self::Set(SetOutcome::Stored(entry)) => (into.put(1u8), entry.canon(into)).1,
            Self::Set(SetOutcome::Unchanged(entry)) => (into.put(2u8), entry.canon(into)).1,
            Self::Set(SetOutcome::Occupied(entry)) => (into.put(3u8), entry.canon(into)).1,
            Self::Delete(done) => {
                into.put(4u8);
                into.len(done.removed.len());
                done.removed.iter().for_each(|removed| into.put(*removed));
                into.put(done.revision.0);
            }
            other => into.bytes(format!("{other:?}").as_bytes()),
        }
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn canon(&self, into: &mut Canon) {
        into.maybe(self.as_ref(), |into, some| some.canon(into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Canon)) -> Vec<u64> {
        let mut canon = Canon::default();
        write(&mut canon);
        canon.words()
    }

    #[test]
    fn what_only_counts_is_written_alike_and_what_differs_is_not() {
        let named = |ids: [u64; 3]| written(|c| ids.iter().for_each(|id| c.named(Sort::Epoch, *id)));
        assert_eq!(named([7, 3, 7]), named([1, 9, 1]));
        assert_ne!(named([7, 3, 7]), named([7, 3, 3]));
        let ranked = |ids: [u64; 3]| written(|c| ids.iter().for_each(|id| c.ranked(Sort::Keep(1), *id)));
        assert_eq!(ranked([7, 3, 7]), ranked([2, 1, 2]));
        assert_ne!(ranked([7, 3, 7]), ranked([3, 7, 3]), "the order counts");
        let left = |until, now| written(|c| c.left(Moment::from_nanos(until), Moment::from_nanos(now)));
        assert_eq!(left(9, 5), left(7, 3));
        assert_eq!(left(2, 5), left(1, 9), "what is over is over");
        assert_ne!(left(9, 5), left(9, 6));
    }

    #[test]
    fn sorts_are_numbered_each_for_itself() {
        let both = written(|c| {
            c.named(Sort::Epoch, 5);
            c.named(Sort::Stream, 5);
            c.ranked(Sort::Flight(1), 8);
            c.ranked(Sort::Flight(2), 4);
        });
        assert_eq!(both, [0, 0, 0, 0]);
    }
}
