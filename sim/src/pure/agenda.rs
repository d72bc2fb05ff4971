//! What is planned, in the order in which it happens: by time, then by when it was planned.

use super::rng::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events to come.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    /// Time, number, and place.
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    /// Apart from the heap, which moves what is in it.
    places: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), planned: 0 }
    }
}

impl<E> Agenda<E> {
    pub fn plan(&mut self, at: Time, event: E) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1)
                .expect("fewer than four billion events are planned at a time")
        });
        self.places[place as usize] = Some(event);
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, place)));
    }

    pub fn next(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.places[place as usize].take().expect("a planned event is in its place");
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_of_one_time_in_the_order_of_their_planning() {
        let mut agenda = Agenda::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            agenda.plan(at, event);
        }
        assert_eq!(agenda.next(), Some((1, 'a')));
        agenda.plan(5, 'e');
        let rest: String = std::iter::from_fn(|| agenda.next()).map(|(_, event)| event).collect();
        assert_eq!(rest, "bcde");
    }
}
