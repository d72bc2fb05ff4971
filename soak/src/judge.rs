//! Judges registers that nobody calls about any more, while the run goes on, and puts them on the shelf.
//!
//! Invariant: a register is judged once, with all of its calls; what is put on the shelf is known.

use crate::board::Register;
use crate::calls::{At, Ground};
use dstore_client::Client;
use dstore_shared::BlobHash;
use dstore_sim::register::{Answer, Call, Op, Verdict, check};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two looks at the board.
const EVERY: Duration = Duration::from_millis(100);
/// Registers that are judged at a time.
const AT_ONCE: usize = 16;
/// Attempts to read a register at last.
const READS_MAX: usize = 8;

/// Who judges.
pub struct Judge {
    pub ground: Arc<Ground>,
    pub doors: Vec<(String, Client)>,
}

impl Judge {
    /// Judges until `stop`; then everything that is left, each read once more at every door.
    pub async fn sit(self, stop: CancellationToken) {
        let judge = Arc::new(self);
        let (mut waiting, mut trials): (Vec<Arc<Register>>, _) = (Vec::new(), JoinSet::new());
        loop {
            let ending = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
            waiting.extend(judge.ground.board.retire(ending));
            let (still, busy) = waiting.into_iter().partition::<Vec<_>, _>(|register| register.is_still());
            waiting = busy;
            for register in still {
                while trials.len() >= AT_ONCE {
                    trials.join_next().await;
                }
                trials.spawn(judge.clone().try_one(register, ending));
            }
            while trials.try_join_next().is_some() {}
            if ending && waiting.is_empty() {
                break;
            }
            if ending {
                tokio::time::sleep(EVERY).await;
            }
        }
        while trials.join_next().await.is_some() {}
    }

    async fn try_one(self: Arc<Self>, register: Arc<Register>, everywhere: bool) {
        let doors = if everywhere { self.doors.len() } else { 1 };
        let first = register.name.as_bytes().iter().map(|b| usize::from(*b)).sum::<usize>();
        for n in 0..doors {
            self.read(&register, first + n).await;
        }
        let (calls, known) = register.story();
        let judged = calls.clone();
        let verdict = tokio::task::spawn_blocking(move || check(&judged)).await;
        let told = &self.ground.told;
        told.add("calls judged", calls.len() as u64);
        match verdict {
            Ok(Verdict::Explained) => told.count("names judged"),
            Ok(Verdict::Undecided(_)) => told.count("names undecided"),
            Ok(Verdict::Impossible(stuck)) => {
                let all: Vec<String> = calls.iter().map(ToString::to_string).collect();
                let all = all.join("\n");
                let name = &register.name;
                let story = stuck.tell(&calls);
                told.accuse(format!("{name:?} is not linearizable: {story}  all of its calls:\n{all}"));
            }
            Err(e) => told.accuse(format!("the search failed: {e}")),
        }
        if known {
            self.keep(&register, &calls).await;
        }
    }

    /// Reads it until it is answered.
    async fn read(&self, register: &Arc<Register>, door: usize) {
        let (name, client) = &self.doors[door % self.doors.len()];
        let by = format!("judge@{name}");
        let at = At { ground: &self.ground, client, by: &by };
        for _ in 0..READS_MAX {
            let open = Register::begin(register, &by, Op::Get, self.ground.told.now());
            if at.get_of(open).await.is_some() {
                return;
            }
        }
        self.ground.told.accuse(format!("{:?} could not be read at {name} at all", register.name));
    }

    /// Puts it on the shelf as it was read last.
    async fn keep(&self, register: &Register, calls: &[Call]) {
        let is = match calls.last() {
            Some(Call { op: Op::Get, answer: Some(Answer::Found(number)), .. }) => {
                Some(BlobHash::of(&self.ground.values.again(*number)))
            }
            Some(Call { op: Op::Get, answer: Some(Answer::Absent), .. }) => None,
            _ => return,
        };
        if let Some(old) = self.ground.shelf.keep(register.name.clone(), is) {
            self.ground.shelf.unbind(old, &self.doors[0].1, &self.ground.told).await;
        }
    }
}
