//! The names that are called about now, each with all calls about it.
//!
//! ```text
//! slot -> register: calls, calls, ... -> retired when it has had enough -> nobody calls -> judged
//! ```
//! Invariants: a register has at most about [`CALLS_MAX`] calls, so that it can be judged and forgotten while the run
//! goes on; a call is noted before it is made and answered after it was; who leaves a call without an answer leaves
//! it as one that may take effect at any later time, or never.

use dstore_shared::Name;
use dstore_sim::register::{Answer, Call, Op, Value};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Calls after which a register is retired.
const CALLS_MAX: usize = 160;
/// Time after which it is.
const AGE_MAX: Duration = Duration::from_secs(15);

/// All registers that are called about.
#[derive(Debug)]
pub struct Board {
    slots: Vec<Mutex<Arc<Register>>>,
    made: AtomicU64,
}

/// One name and what was asked of it.
#[derive(Debug)]
pub struct Register {
    pub name: Name,
    begun: Instant,
    state: Mutex<State>,
    seen: Arc<Mutex<Seen>>,
}

/// The values that a name was perhaps bound to.
#[derive(Debug, Default)]
struct Seen {
    values: HashSet<Value>,
    /// Names of which it may have got one, by a COPY or RENAME whose answer is not known, and since when.
    from: Vec<(Duration, Arc<Mutex<Seen>>)>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` = it told nothing and did nothing.
    calls: Vec<Option<Call>>,
    open: usize,
}

/// A call under way. Dropped without an answer, its outcome is unknown.
#[derive(Debug)]
pub struct Open {
    pub register: Arc<Register>,
    at: usize,
}

impl Board {
    pub fn new(slots: usize) -> Self {
        let board = Self { slots: Vec::new(), made: AtomicU64::new(0) };
        let slots = (0..slots).map(|slot| Mutex::new(board.fresh(slot))).collect();
        Self { slots, ..board }
    }

    fn fresh(&self, slot: usize) -> Arc<Register> {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let key = format!("{}{made:08}", Self::prefix(slot));
        Arc::new(Register {
            name: Name::of(key).expect("a valid key"),
            begun: Instant::now(),
            state: Mutex::default(),
            seen: Arc::default(),
        })
    }

    /// What the keys of a slot begin with.
    pub fn prefix(slot: usize) -> String {
        format!("s/{slot:03}/")
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Notes a call of `op` about the register of a slot.
    pub fn begin(&self, slot: usize, by: &str, op: Op, now: Duration) -> Open {
        let register = self.slots[slot].lock().expect("nobody panics with it");
        Register::begin(&register, by, op, now)
    }

    /// Takes registers away that have had enough, or all of them.
    pub fn retire(&self, all: bool) -> Vec<Arc<Register>> {
        let mut retired = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let mut register = slot.lock().expect("nobody panics with it");
            if all || register.has_enough() {
                retired.push(std::mem::replace(&mut *register, self.fresh(at)));
            }
        }
        retired
    }
}

impl Register {
    /// As [`Board::begin`], about one that may be retired.
    pub fn begin(register: &Arc<Self>, by: &str, op: Op, now: Duration) -> Open {
        if let Op::Set(value) | Op::Take(value) = op {
            register.see(value);
        }
        let mut state = register.state.lock().expect("nobody panics with it");
        state.open += 1;
        let call = Call { by: by.to_owned(), op, answer: None, begun: now, ended: None };
        state.calls.push(Some(call));
        Open { register: register.clone(), at: state.calls.len() - 1 }
    }

    fn see(&self, value: Value) {
        self.seen.lock().expect("nobody panics with it").values.insert(value);
    }

    fn has_enough(&self) -> bool {
        let calls = self.state.lock().expect("nobody panics with it").calls.len();
        calls >= CALLS_MAX || calls > 0 && self.begun.elapsed() > AGE_MAX
    }

    /// Whether nobody calls.
    pub fn is_still(&self) -> bool {
        self.state.lock().expect("nobody panics with it").open == 0
    }

    /// From `since` on a value of `from` may come here.
    pub fn may_receive(&self, from: &Self, since: Duration) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.from.push((since, from.seen.clone()));
    }

    /// What [`Self::may_receive`] told of is known now.
    pub fn has_received(&self, from: &Self, since: Duration) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        let known = |(at, of): &(Duration, Arc<Mutex<Seen>>)| *at == since && Arc::ptr_eq(of, &from.seen);
        if let Some(at) = seen.from.iter().position(known) {
            seen.from.swap_remove(at);
        }
    }

    /// The calls to be judged; whether what became of all changes is known.
    pub fn story(&self) -> (Vec<Call>, bool) {
        let state = self.state.lock().expect("nobody panics with it");
        // A read without an answer tells nothing.
        let tells = |call: &&Call| call.op != Op::Get || call.answer.is_some();
        let mut calls: Vec<Call> = state.calls.iter().flatten().filter(tells).cloned().collect();
        let told: HashSet<Value> = calls.iter().filter_map(|call| call.answer).filter_map(value_of).collect();
        let arrivals = self.seen.lock().expect("nobody panics with it").from.clone();
        for (since, from) in &arrivals {
            let mut theirs = HashSet::new();
            gather(from, &mut theirs, &mut Vec::new());
            calls.extend(told.intersection(&theirs).map(|value| Call {
                by: "a copy or rename".into(),
                op: Op::Set(*value),
                answer: None,
                begun: *since,
                ended: None,
            }));
        }
        let known = arrivals.is_empty() && calls.iter().all(|call| call.answer.is_some());
        (calls, known)
    }
}

/// All that a name may have been bound to, over the names that it may have got values of.
fn gather(of: &Arc<Mutex<Seen>>, values: &mut HashSet<Value>, met: &mut Vec<*const Mutex<Seen>>) {
    if met.contains(&Arc::as_ptr(of)) {
        return;
    }
    met.push(Arc::as_ptr(of));
    let from = {
        let seen = of.lock().expect("nobody panics with it");
        values.extend(&seen.values);
        seen.from.clone()
    };
    for (_, from) in &from {
        gather(from, values, met);
    }
}

fn value_of(answer: Answer) -> Option<Value> {
    match answer {
        Answer::Found(value) | Answer::Occupied(value) => Some(value),
        _ => None,
    }
}

impl Open {
    fn with(&self, change: impl FnOnce(&mut Option<Call>)) {
        let mut state = self.register.state.lock().expect("nobody panics with it");
        change(&mut state.calls[self.at]);
    }

    /// The answer came.
    pub fn answer(self, answer: Answer, now: Duration) {
        if let Some(value) = value_of(answer) {
            self.register.see(value);
        }
        self.with(|call| {
            if let Some(call) = call {
                (call.answer, call.ended) = (Some(answer), Some(now));
            }
        });
    }

    /// The answer came, and tells what the call was to this register.
    pub fn answer_as(self, op: Op, answer: Answer, now: Duration) {
        if let Op::Set(value) | Op::Take(value) = op {
            self.register.see(value);
        }
        self.with(|call| {
            if let Some(call) = call {
                call.op = op;
            }
        });
        self.answer(answer, now);
    }

    /// The call did nothing here and told nothing.
    pub fn forget(self) {
        self.with(|call| *call = None);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.register.state.lock().expect("nobody panics with it").open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_sim::register::{Verdict, check};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_register_is_retired_when_it_has_had_enough_and_still_when_nobody_calls() {
        let board = Board::new(2);
        assert!(board.retire(false).is_empty());
        let open = board.begin(0, "a", Op::Get, ms(0));
        for _ in 0..CALLS_MAX {
            board.begin(0, "b", Op::Get, ms(1)).answer(Answer::Absent, ms(2));
        }
        let retired = board.retire(false);
        assert_eq!(retired.len(), 1);
        assert!(!retired[0].is_still());
        drop(open);
        assert!(retired[0].is_still());
        let (calls, known) = retired[0].story();
        assert_eq!((calls.len(), known), (CALLS_MAX, true), "the read without an answer tells nothing");
        assert_eq!(board.retire(true).len(), 2);
    }

    #[test]
    fn a_value_may_arrive_by_a_rename_without_an_answer_and_no_other_may() {
        for (arrived, fits) in [(7, true), (8, false)] {
            let board = Board::new(2);
            board.begin(0, "a", Op::Set(7), ms(0)).answer(Answer::Stored, ms(1));
            let (from, to) = (board.begin(0, "a", Op::Delete, ms(2)), board.begin(1, "a", Op::Get, ms(2)));
            to.register.may_receive(&from.register, ms(2));
            to.forget();
            drop(from);
            board.begin(1, "b", Op::Get, ms(5)).answer(Answer::Found(arrived), ms(6));
            let stories: Vec<_> = board.retire(true).iter().map(|register| register.story()).collect();
            assert!(stories.iter().all(|(_, known)| !known));
            assert_eq!(check(&stories[0].0), Verdict::Explained);
            assert_eq!(check(&stories[1].0) == Verdict::Explained, fits, "{arrived}");
        }
    }
}
