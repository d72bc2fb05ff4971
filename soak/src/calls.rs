//! One call of each kind: made, noted, and what it told.

use crate::board::{Board, Open, Register};
use crate::shelf::Shelf;
use crate::told::Told;
use crate::values::Values;
use bytes::Bytes;
use dstore_client::{Client, ListQuery, SetReply, Stat, Value};
use dstore_shared::{
    BlobHash, CopyOutcome, CopyResult, Entry, Error, Key, Kind, Name, Namespace, Result, SetOutcome,
};
use dstore_sim::register::{self, Answer, Op};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What all callers share.
#[derive(Debug)]
pub struct Ground {
    pub board: Board,
    pub shelf: Shelf,
    pub values: Values,
    pub told: Arc<Told>,
}

/// Somebody at a door.
pub struct At<'a> {
    pub ground: &'a Ground,
    pub client: &'a Client,
    pub by: &'a str,
}

impl At<'_> {
    fn begin(&self, slot: usize, op: Op) -> Open {
        self.ground.board.begin(slot, self.by, op, self.ground.told.now())
    }

    /// Notes how long a call took, or why it failed; `None` if it did.
    fn done<T>(&self, kind: &'static str, begun: Instant, done: Result<T>) -> Option<T> {
        let told = &self.ground.told;
        match done {
            Ok(done) => {
                told.answered(kind, begun.elapsed());
                Some(done)
            }
            Err(e) => {
                told.failed(kind);
                told.count(format!("error {}", e.kind()));
                // These say that it may work later, or that nobody remembers; nothing else may come of such calls.
                if !matches!(e.kind(), Kind::Unavailable | Kind::Closed | Kind::Exhausted) {
                    told.accuse(format!("{}: {kind} came to {e:?}", self.by));
                }
                None
            }
        }
    }

    /// The number of what a name is bound to.
    fn number(&self, name: &Name, hash: &BlobHash) -> Option<register::Value> {
        let number = self.ground.values.number(hash);
        if number.is_none() {
            self.ground.told.accuse(format!("{}: {name:?} is bound to {hash:?}, which nobody set", self.by));
        }
        number
    }

    /// The bytes must be those that were set.
    fn found(&self, name: &Name, entry: &Entry, bytes: &[u8]) -> Option<Answer> {
        let number = self.number(name, &entry.hash)?;
        if !self.ground.values.are(bytes, number) || entry.size != bytes.len() as u64 {
            let (told, len) = (&self.ground.told, bytes.len());
            told.accuse(format!("{}: {name:?} gives {len} wrong bytes for {entry:?}", self.by));
        }
        Some(Answer::Found(number))
    }

    fn read(&self, open: Open, value: Option<&Value>, now: Duration) -> Option<Answer> {
        let answer = match value {
            Some(value) => self.found(&open.register.name, &value.entry, &value.bytes)?,
            None => Answer::Absent,
        };
        open.answer(answer, now);
        Some(answer)
    }

    fn told_of(&self, open: Open, entry: Option<&Entry>, now: Duration) {
        let answer = match entry {
            Some(entry) => self.number(&open.register.name, &entry.hash).map(Answer::Found),
            None => Some(Answer::Absent),
        };
        if let Some(answer) = answer {
            open.answer(answer, now);
        }
    }

    /// What was read of whom, if it was answered.
    pub async fn get(&self, slot: usize) -> Option<(Arc<Register>, Answer)> {
        self.get_of(self.begin(slot, Op::Get)).await
    }

    /// Reads a register; the call is noted already.
    pub async fn get_of(&self, open: Open) -> Option<(Arc<Register>, Answer)> {
        let register = open.register.clone();
        let begun = Instant::now();
        let got = self.client.get(&register.name).await;
        let now = self.ground.told.now();
        let value = self.done("get", begun, got)?;
        Some((register, self.read(open, value.as_ref(), now)?))
    }

    /// SETs a value that was never set, or `again` one that was. Gives its number.
    pub async fn set(&self, slot: usize, again: Option<register::Value>) -> register::Value {
        let (number, bytes) = match again {
            Some(number) => (number, self.ground.values.again(number)),
            None => self.ground.values.fresh(),
        };
        let open = self.begin(slot, Op::Set(number));
        let begun = Instant::now();
        let set = self.client.set(&open.register.name, bytes).await;
        let now = self.ground.told.now();
        if let Some(reply) = self.done("set", begun, set) {
            self.was_set(open, &reply, now);
        }
        number
    }

    fn was_set(&self, open: Open, reply: &SetReply, now: Duration) {
        match &reply.outcome {
            SetOutcome::Stored(_) => open.answer(Answer::Stored, now),
            SetOutcome::Unchanged(_) => open.answer(Answer::Unchanged, now),
            SetOutcome::Occupied(entry) => {
                if let Some(by) = self.number(&open.register.name, &entry.hash) {
                    open.answer(Answer::Occupied(by), now);
                }
            }
            SetOutcome::NeedBlob => self.ground.told.accuse(format!("{}: a SET came to {reply:?}", self.by)),
        }
    }

    pub async fn set_many(&self, slots: &[usize]) {
        let (mut open, mut values) = (Vec::new(), Vec::new());
        for slot in slots {
            let (number, bytes) = self.ground.values.fresh();
            let one = self.begin(*slot, Op::Set(number));
            values.push((one.register.name.clone(), bytes));
            open.push(one);
        }
        let begun = Instant::now();
        let replies = self.client.set_many(&values).await;
        let now = self.ground.told.now();
        for (open, reply) in open.into_iter().zip(replies) {
            if let Some(reply) = self.done("set many", begun, reply) {
                self.was_set(open, &reply, now);
            }
        }
    }

    pub async fn delete(&self, slots: &[usize]) {
        let kind = if slots.len() == 1 { "del" } else { "del many" };
        let open: Vec<Open> = slots.iter().map(|slot| self.begin(*slot, Op::Delete)).collect();
        let names: Vec<Name> = open.iter().map(|open| open.register.name.clone()).collect();
        let begun = Instant::now();
        let deleted = self.client.delete(&names).await;
        let now = self.ground.told.now();
        if let Some(reply) = self.done(kind, begun, deleted) {
            for (open, removed) in open.into_iter().zip(reply.removed) {
                open.answer(Answer::Removed(removed), now);
            }
        }
    }

    /// COPY; or RENAME, if it unbinds the first.
    pub async fn transfer(&self, [from, to]: [usize; 2], unbinds: bool) {
        let from = self.begin(from, if unbinds { Op::Delete } else { Op::Get });
        let to = self.begin(to, Op::Get);
        let since = self.ground.told.now();
        // Until the answer tells otherwise, which it never does if this call is given up.
        let (source, target) = (from.register.clone(), to.register.clone());
        target.may_receive(&source, since);
        let (a, b) = (from.register.name.clone(), to.register.name.clone());
        let begun = Instant::now();
        let (kind, done) = if unbinds {
            ("rename", self.client.rename(&a, &b).await)
        } else {
            ("copy", self.client.copy(&a, &b).await)
        };
        let now = self.ground.told.now();
        if let Some(outcome) = self.done(kind, begun, done) {
            self.transferred((from, to), unbinds, &outcome, now);
            target.has_received(&source, since);
        }
    }

    fn transferred(&self, (from, to): (Open, Open), unbinds: bool, outcome: &CopyOutcome, now: Duration) {
        match &outcome.result {
            CopyResult::Done(entry) => {
                let Some(number) = self.number(&to.register.name, &entry.hash) else { return };
                if unbinds {
                    from.answer_as(Op::Take(number), Answer::Taken, now);
                } else {
                    from.answer(Answer::Found(number), now);
                }
                let fresh = if outcome.is_fresh() { Answer::Stored } else { Answer::Unchanged };
                to.answer_as(Op::Set(number), fresh, now);
            }
            CopyResult::Unchanged(entry) => {
                let Some(number) = self.number(&to.register.name, &entry.hash) else { return };
                from.answer_as(Op::Get, Answer::Found(number), now);
                to.answer(Answer::Found(number), now);
            }
            CopyResult::Occupied(entry) => {
                from.forget();
                self.told_of(to, Some(entry), now);
            }
            CopyResult::NotFound => {
                from.answer_as(Op::Get, Answer::Absent, now);
                to.forget();
            }
        }
    }

    pub async fn get_many(&self, slots: &[usize]) {
        let open: Vec<Open> = slots.iter().map(|slot| self.begin(*slot, Op::Get)).collect();
        let names: Vec<Name> = open.iter().map(|open| open.register.name.clone()).collect();
        let begun = Instant::now();
        let got = self.client.get_many(&names).await;
        let now = self.ground.told.now();
        if let Some(values) = self.done("get many", begun, got) {
            for (open, value) in open.into_iter().zip(values.values) {
                self.read(open, value.as_ref(), now);
            }
        }
    }

    pub async fn stat_many(&self, slots: &[usize]) {
        let open: Vec<Open> = slots.iter().map(|slot| self.begin(*slot, Op::Get)).collect();
        let names: Vec<Name> = open.iter().map(|open| open.register.name.clone()).collect();
        let begun = Instant::now();
        let got = self.client.stat_many(&names).await;
        let now = self.ground.told.now();
        if let Some(all) = self.done("stat many", begun, got) {
            for (open, stat) in open.into_iter().zip(all.stats) {
                self.told_of(open, stat.map(|Stat { entry, .. }| entry).as_ref(), now);
            }
        }
    }

    /// Lists the names of a slot: its present register is among them, or not.
    pub async fn list(&self, slot: usize) {
        let open = self.begin(slot, Op::Get);
        let key = open.register.name.key();
        let prefix = Bytes::from(Board::prefix(slot));
        let query = ListQuery { namespace: Namespace::default(), prefix, after: None, limit: 1000 };
        let begun = Instant::now();
        let listed = self.client.list(&query).await;
        let now = self.ground.told.now();
        let Some(page) = self.done("list", begun, listed) else { return };
        if !page.names.is_sorted_by(|(a, _), (b, _)| a.as_bytes() < b.as_bytes()) {
            self.ground.told.accuse(format!("{}: a page is out of order: {:?}", self.by, page.names));
        }
        let entry = page.names.iter().find(|(listed, _): &&(Key, Entry)| *listed == key);
        match (entry, page.next) {
            (Some((_, entry)), _) => self.told_of(open, Some(entry), now),
            (None, None) => open.answer(Answer::Absent, now),
            (None, Some(_)) => open.forget(),
        }
    }

    pub async fn shelf(&self, draw: u64) {
        let Some(kept) = self.ground.shelf.any(draw) else { return };
        let begun = Instant::now();
        let checked: Result<(), Error> = kept.check(self.client, self.by, &self.ground.told).await;
        self.done("get, shelf", begun, checked);
    }
}
