//! Sieges: a Local is cut off for longer than a lease, and callers fight over a name that it holds.
//!
//! ```text
//! callers there GET the name, callers elsewhere SET it -> cut -> DEL and SET elsewhere, GETs there -> whole
//! ```
//! A Local that serves a name for longer than it may is told from one that does not only by a change made
//! elsewhere in that time and a GET there after it: callers that choose at will seldom make both.

use super::config::Fault;
use super::history::What;
use super::rng::{MS, Time};
use super::world::{Event, World};

/// A Local cut off, and the name that is fought over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Siege {
    pub local: usize,
    key: usize,
    /// Before this all is whole, so that the Local comes to hold the name.
    cut_at: Time,
    /// Some time after the Local can be reached again.
    until: Time,
}

impl World {
    /// The siege that goes on, if any.
    pub fn siege(&self) -> Option<Siege> {
        self.siege.filter(|siege| self.now < siege.until)
    }

    fn lease_ns(&self) -> Time {
        u64::try_from(self.cfg.lease.as_nanos()).expect("a lease of some seconds")
    }

    /// Begins a siege of Local `i`; gives whether there was none.
    pub fn besiege(&mut self, i: usize) -> bool {
        if self.siege().is_some() {
            return false;
        }
        let key = self.rng.below(self.cfg.keys);
        let before = self.rng.between(20, 100) * MS;
        let lease = self.lease_ns();
        let cut = lease + self.rng.between(lease / 5, lease);
        let cut_at = self.now + before;
        self.siege = Some(Siege { local: i, key, cut_at, until: cut_at + cut + lease / 4 + 150 * MS });
        self.after(before, Event::Cut(i, cut));
        // Whoever waits for something else gives it up, or the siege would find nobody to fight.
        for c in 0..self.clients.len() {
            if self.clients[c].current.is_some() {
                self.done(c);
            }
        }
        true
    }

    /// The cut of a siege: both ways, with broken streams or with streams that stand still, or one way.
    pub fn cut_off(&mut self, i: usize, cut: Time) {
        if self.is_calm() {
            return;
        }
        let until = self.now + cut;
        let link = &mut self.net.links[i];
        match self.rng.between(0, 5) {
            0..=2 => {
                link.down_until = until;
                for stream in self.net.open_streams(Some(i)) {
                    self.cut(stream, false);
                }
            }
            3 => (link.to_global, link.to_local) = (until, until),
            4 => link.to_local = until,
            _ => link.to_global = until,
        }
        if !self.has(Fault::GlobalCrashes) {
            return;
        }
        if self.cfg.modes && self.rng.chance(500) {
            // A while after, when there are asynchronous DELs that the Local has not heard of.
            let soon = self.rng.between(self.lease_ns() / 50, self.lease_ns() / 3);
            self.after(soon, Event::Global(self.global.boot, super::global::Event::Crash));
        } else if self.rng.chance(300) {
            self.crash_global();
        }
    }

    /// What a caller does in a siege, and where: every other one reads at the Local, the others change the
    /// name elsewhere.
    pub fn fight(&mut self, c: usize) -> Option<(usize, What)> {
        let siege = self.siege()?;
        if self.rng.chance(100) {
            return None;
        }
        if c.is_multiple_of(2) {
            return Some((siege.local, What::Get(siege.key)));
        }
        let homes = self.homes();
        let home = (siege.local + 1 + self.rng.below(homes - 1)) % homes;
        let deletes = self.now >= siege.cut_at && self.rng.chance(600);
        let what = if deletes && self.cfg.prefixes && self.rng.chance(300) {
            self.under(siege.key)
        } else if deletes {
            What::Del(vec![siege.key])
        } else {
            let value = self.rng.between(4, 1 << 40);
            self.set(siege.key, value)
        };
        Some((home, what))
    }

    /// How long a caller thinks in a siege: little, measured by the lease, so that a Local that serves a
    /// hundredth too long is caught at it.
    pub fn haste(&mut self) -> Option<Time> {
        self.siege()?;
        let most = (self.lease_ns() / 50).max(2 * MS);
        Some(self.rng.between(MS / 5, most))
    }

    /// How long a caller waits for a GET in a siege: few go on for long, or nobody were left to ask again.
    pub fn patience(&mut self) -> Option<Time> {
        let haste = self.haste()?;
        Some(if self.rng.chance(200) { 2 * self.lease_ns() } else { 4 * haste })
    }

    /// How many of a thousand frames are long on their way over the link of Local `i`.
    pub fn slow_per_mille(&self, i: usize) -> u64 {
        if self.siege().is_some_and(|siege| siege.local == i) { 150 } else { 30 }
    }
}
