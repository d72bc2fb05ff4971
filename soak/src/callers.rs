//! The load: callers that make one call after the other, of all kinds, at every door, until they are told to stop.

use crate::board::Register;
use crate::calls::{At, Ground};
use crate::fleet::Fleet;
use dstore_client::Client;
use dstore_sim::register::{Answer, Op, Value};
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One call in so many is given up while it runs: its outcome is then unknown.
const GIVEN_UP: u64 = 300;
/// One read in so many is answered from memory by a caller that is made to be wrong.
const STALE: u64 = 20;
/// Values that a caller may set again.
const RECENT: usize = 8;

/// A caller.
pub struct Caller {
    ground: Arc<Ground>,
    rng: SeededRng,
    name: String,
    /// Every door, the one that it prefers first.
    doors: Vec<(String, Client)>,
    /// Values that it set lately.
    recent: VecDeque<Value>,
    /// It is made to be wrong: then this is what it read last.
    wrong: bool,
    stale: Option<(Arc<Register>, Answer)>,
}

impl Caller {
    pub fn new(ground: Arc<Ground>, fleet: &Fleet, me: u32, rng: SeededRng, wrong: bool) -> Self {
        let mut doors = fleet.doors();
        let locals = doors.len() - 1;
        doors[..locals].rotate_left(me as usize % locals);
        let name = format!("caller-{me}");
        Self { ground, rng, name, doors, recent: VecDeque::new(), wrong, stale: None }
    }

    /// Calls until `stop`.
    pub async fn call(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if self.rng.next_u64().is_multiple_of(GIVEN_UP) {
                let patience = Duration::from_micros(self.rng.next_u64() % 20_000);
                if tokio::time::timeout(patience, self.step()).await.is_err() {
                    self.ground.told.count("given up");
                }
            } else {
                self.step().await;
            }
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    /// A slot; the first ones are hotter.
    fn slot(&self) -> usize {
        let n = self.ground.board.len() as u64;
        self.below(n).min(self.below(n)) as usize
    }

    /// Different slots, two to four.
    fn slots(&self) -> Vec<usize> {
        let mut slots: Vec<usize> = (0..2 + self.below(3)).map(|_| self.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    fn pair(&self) -> [usize; 2] {
        let n = self.ground.board.len();
        let from = self.slot();
        [from, (from + 1 + self.below(n as u64 - 1) as usize) % n]
    }

    async fn step(&mut self) {
        let last = self.doors.len() - 1;
        let door = match self.below(20) {
            0 => last,
            1..=4 => self.below(last as u64) as usize,
            _ => 0,
        };
        let by = format!("{}@{}", self.name, self.doors[door].0);
        if self.answers_from_memory(&by) {
            return;
        }
        let ground = self.ground.clone();
        let at = At { ground: &ground, client: &self.doors[door].1, by: &by };
        match self.below(100) {
            0..=43 => {
                self.stale = at.get(self.slot()).await;
            }
            44..=61 => {
                let set = at.set(self.slot(), self.again()).await;
                self.recent.push_front(set);
                self.recent.truncate(RECENT);
            }
            62..=73 => at.delete(&[self.slot()]).await,
            74..=76 => at.delete(&self.slots()).await,
            77..=81 => at.transfer(self.pair(), true).await,
            82..=83 => at.transfer(self.pair(), false).await,
            84..=88 => at.get_many(&self.slots()).await,
            89..=90 => at.stat_many(&self.slots()).await,
            91 => at.set_many(&self.slots()).await,
            92..=93 => at.list(self.slot()).await,
            _ => at.shelf(self.rng.next_u64()).await,
        }
    }

    /// Now and then a value that was set before.
    fn again(&self) -> Option<Value> {
        self.recent.get(self.below(8 * RECENT as u64) as usize).copied()
    }

    /// The mistake that is made on purpose.
    fn answers_from_memory(&mut self, by: &str) -> bool {
        if !self.wrong || self.below(STALE) > 0 {
            return false;
        }
        let Some((register, answer)) = self.stale.take() else { return false };
        let now = self.ground.told.now();
        Register::begin(&register, by, Op::Get, now).answer(answer, now);
        true
    }
}
