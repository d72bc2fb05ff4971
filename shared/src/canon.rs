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
    /// A connection for requests.
    Line,
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

/// A state as it is being written down.
#[derive(Default, Debug)]
pub struct Canon {
    words: Vec<u64>,
    /// What only equality matters of, in the order of appearance.
    seen: Vec<(Sort, u64)>,
    /// Where ranks are to be put, and of what.
    ranked: Vec<(Sort, u64, usize)>,
}

/// Something that can be written down in this way.
pub trait Canonical {
    /// Writes all by which it decides.
    fn canon(&self, into: &mut Canon);
}

impl Canon {
    /// Writes a number as it is.
    #[inline]
    pub fn put(&mut self, word: impl Into<u64>) {
        self.words.push(word.into());
    }

    /// Writes how many follow.
    #[inline]
    pub fn count(&mut self, n: usize) {
        self.put(n as u64);
    }

    /// Writes whether there is something, and it as `write` does.
    #[inline]
    pub fn maybe<T>(&mut self, some: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.put(some.is_some());
        if let Some(some) = some {
            write(self, some);
        }
    }

    /// Writes bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.put(u64::from_le_bytes(*word)));
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.put(u64::from_le_bytes(word));
    }

    /// Writes how long it is until a moment; what is over is over.
    #[inline]
    pub fn left(&mut self, until: Moment, now: Moment) {
        self.put(until.since(now).as_nanos() as u64);
    }

    /// Writes a number of which only equality matters, as the place of its first appearance among its sort.
    #[inline]
    pub fn named(&mut self, sort: Sort, id: u64) {
        let mut place = 0;
        for (s, seen) in &self.seen {
            if *s == sort && *seen == id {
                return self.put(place);
            }
            place += u64::from(*s == sort);
        }
        self.seen.push((sort, id));
        self.put(place);
    }

    /// Writes an epoch: only equality matters.
    #[inline]
    pub fn epoch(&mut self, epoch: Epoch) {
        self.named(Sort::Epoch, epoch.boot << 32 | epoch.counter);
    }

    /// Writes a number of which the order matters, as its rank among all of its sort that are written.
    #[inline]
    pub fn ranked(&mut self, sort: Sort, n: u64) {
        self.ranked.push((sort, n, self.words.len()));
        self.words.push(0);
    }

    /// What was written.
    #[inline]
    pub fn words(mut self) -> Vec<u64> {
        self.ranked.sort_unstable();
        let (mut rank, mut last) = (0, None);
        for (sort, n, at) in self.ranked {
            rank = match last {
                Some((s, _)) if s != sort => 0,
                Some((_, m)) if m != n => rank + 1,
                _ => rank,
            };
            last = Some((sort, n));
            self.words[at] = rank;
        }
        self.words
    }
}

impl Canonical for Name {
    #[inline]
    fn canon(&self, into: &mut Canon) {
        into.bytes(self.as_bytes());
    }
}

impl Canonical for Entry {
    #[inline]
    fn canon(&self, into: &mut Canon) {
        into.bytes(self.hash.as_bytes());
        into.put(self.size);
        into.put(self.bind_rev.0);
        into.maybe(self.expires_at, |into, end| into.put(end.get()));
        into.maybe(self.content_type.as_ref(), |into, words| into.bytes(words.as_str().as_bytes()));
    }
}

impl Canonical for Outcome {
    #[inline]
    fn canon(&self, into: &mut Canon) {
        match self {
            Self::Set(SetOutcome::Stored(entry)) => (into.put(1u8), entry.canon(into)).1,
            Self::Set(SetOutcome::Unchanged(entry)) => (into.put(2u8), entry.canon(into)).1,
            Self::Set(SetOutcome::Occupied(entry)) => (into.put(3u8), entry.canon(into)).1,
            Self::Delete(done) => {
                into.put(4u8);
                into.count(done.removed.len());
                done.removed.iter().for_each(|removed| into.put(*removed));
                into.put(done.revision.0);
            }
            other => into.bytes(format!("{other:?}").as_bytes()),
        }
    }
}

impl<T: Canonical> Canonical for Option<T> {
    #[inline]
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
