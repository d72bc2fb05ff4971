//! Owns which client read which names: numbers of clients at each name, in order.
//!
//! Pure. Invariants: a client is noted at a name once; there are at most [`NAMES_MAX`] names, and [`NOTES_MAX`] notes of
//! all names together: beyond either a name drawn by chance is forgotten, and whoever noted it is given back.

use dstore_shared::Name;
use std::collections::HashMap;

/// Names that are noted at a time, as in Redis.
const NAMES_MAX: usize = 1_000_000;
/// Notes at a time, of all names together; each takes 8 bytes.
const NOTES_MAX: usize = 8_000_000;

/// Who read which names.
#[derive(Debug)]
pub struct Readers {
    names: HashMap<Name, Noted, foldhash::fast::RandomState>,
    /// All names in no order, so that one can be drawn.
    order: Vec<Name>,
    notes: usize,
    dice: u64,
    max: (usize, usize),
}

#[derive(Debug)]
struct Noted {
    /// Its place in the order.
    place: usize,
    /// Clients, in the order of their numbers.
    clients: Vec<u64>,
}

impl Default for Readers {
    fn default() -> Self {
        Self::bounded(NAMES_MAX, NOTES_MAX)
    }
}

impl Readers {
    fn bounded(names: usize, notes: usize) -> Self {
        let order = Vec::new();
        Self { names: HashMap::default(), order, notes: 0, dice: 0x9E37_79B9_7F4A_7C15, max: (names, notes) }
    }

    /// Names that are noted.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Notes that `client` reads `name`. Clients that are not `known` any more are forgotten now and then.
    pub fn note(&mut self, name: &Name, client: u64, known: impl Fn(u64) -> bool) {
        let noted = if let Some(noted) = self.names.get_mut(name) {
            noted
        } else {
            let name = name.compact();
            let place = self.order.len();
            self.order.push(name.clone());
            self.names.entry(name).or_insert(Noted { place, clients: Vec::new() })
        };
        if noted.clients.binary_search(&client).is_ok() {
            return;
        }
        if noted.clients.len() == noted.clients.capacity() {
            let before = noted.clients.len();
            noted.clients.retain(|client| known(*client));
            self.notes -= before - noted.clients.len();
        }
        if let Err(at) = noted.clients.binary_search(&client) {
            noted.clients.insert(at, client);
            self.notes += 1;
        }
    }

    /// A name to forget, if there is no room for another note.
    pub fn surplus(&mut self) -> Option<Name> {
        if self.names.len() < self.max.0 && self.notes < self.max.1 {
            return None;
        }
        // xorshift64*: whose name it is need not be a secret.
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        let drawn = (u128::from(self.dice) * self.order.len() as u128) >> 64;
        self.order.get(drawn as usize).cloned()
    }

    /// Forgets a name; gives who read it.
    pub fn forget(&mut self, name: &Name) -> Vec<u64> {
        let Some(Noted { place, clients }) = self.names.remove(name) else { return Vec::new() };
        self.notes -= clients.len();
        self.order.swap_remove(place);
        if let Some(moved) = self.order.get(place).and_then(|moved| self.names.get_mut(moved)) {
            moved.place = place;
        }
        clients
    }

    /// Forgets that a client read a name.
    pub fn forget_one(&mut self, name: &Name, client: u64) {
        let Some(noted) = self.names.get_mut(name) else { return };
        if let Ok(at) = noted.clients.binary_search(&client) {
            noted.clients.remove(at);
            self.notes -= 1;
        }
        if noted.clients.is_empty() {
            self.forget(name);
        }
    }

    /// Forgets all names.
    pub fn clear(&mut self) {
        *self = Self::bounded(self.max.0, self.max.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> Name {
        Name::of(format!("k{n}")).expect("valid")
    }

    #[test]
    fn a_client_is_noted_once_and_given_back_once() {
        let mut readers = Readers::default();
        for client in [3, 1, 2, 3, 1] {
            readers.note(&name(1), client, |_| true);
        }
        readers.note(&name(2), 9, |_| true);
        readers.forget_one(&name(1), 2);
        assert_eq!((readers.len(), readers.notes), (2, 3));
        assert_eq!(readers.forget(&name(1)), [1, 3]);
        assert_eq!(readers.forget(&name(1)), [0; 0]);
        readers.forget_one(&name(2), 9);
        assert_eq!((readers.len(), readers.notes, readers.order.len()), (0, 0, 0));
    }

    #[test]
    fn names_and_notes_have_a_bound_each() {
        for (max, clients) in [((100, 1_000_000), 1), ((1_000_000, 1000), 50)] {
            let mut readers = Readers::bounded(max.0, max.1);
            let mut told = 0;
            for n in 0..1000 {
                for client in 0..clients {
                    while let Some(victim) = readers.surplus() {
                        told += readers.forget(&victim).len();
                    }
                    readers.note(&name(n), client, |_| true);
                    assert!(readers.len() <= max.0 && readers.notes <= max.1);
                }
            }
            assert_eq!(told + readers.notes, 1000 * clients as usize, "whoever is forgotten is given back");
            assert_eq!(readers.order.len(), readers.len());
            for (place, name) in readers.order.iter().enumerate() {
                assert_eq!(readers.names[name].place, place);
            }
        }
    }

    #[test]
    fn clients_that_are_gone_do_not_pile_up_at_a_name() {
        let mut readers = Readers::default();
        for client in 0..100_000 {
            readers.note(&name(1), client, |other| other + 2 > client);
        }
        assert!(readers.notes <= 16, "{}", readers.notes);
    }
}
