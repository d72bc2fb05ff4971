//! Whether what clients saw of one key can be explained by one order of calls: linearizability.
//!
//! The search of Wing and Gong (1993) with Lowe's memory of states seen (2017), partitioned by key, which is
//! sound as linearizability is local (Herlihy and Wing, 1990). Times are intervals: a call precedes another
//! only if it ended before the other began. A call without an answer may take effect at any time after it
//! began, or never. For long histories of many keys; [`linear`](crate::linear) judges all keys of a run together. It must
//! never answer "explained" without such an order in hand.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::time::Duration;

/// A value, by number.
pub type Value = u32;

/// What a client asked of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Bind it to a value, unless it is bound to another.
    Set(Value),
    /// Read it.
    Get,
    /// Unbind it.
    Delete,
    /// Give away the value that it is bound to, this one: a RENAME to another key.
    Take(Value),
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// SET: it was absent and is bound now.
    Stored,
    /// SET: it was bound to this very value.
    Unchanged,
    /// SET: it is bound to another value, this one.
    Occupied(Value),
    /// GET: it is bound to this value.
    Found(Value),
    /// GET: it is not bound.
    Absent,
    /// DEL: whether it was bound.
    Removed(bool),
    /// RENAME: the value went to the other key.
    Taken,
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Who called.
    pub by: String,
    /// What was asked.
    pub op: Op,
    /// What came back; `None` = the outcome is unknown.
    pub answer: Option<Answer>,
    /// When it began, in true time.
    pub begun: Duration,
    /// When the answer came.
    pub ended: Option<Duration>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        write!(f, "{:>9.3} .. ", ms(self.begun))?;
        match (self.ended, self.answer) {
            (Some(ended), Some(answer)) => {
                write!(f, "{:>9.3} ms  {}: {:?} -> {answer:?}", ms(ended), self.by, self.op)
            }
            _ => write!(f, "        ? ms  {}: {:?} -> unknown", self.by, self.op),
        }
    }
}

/// What the search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is such an order.
    Explained,
    /// There is none. The calls that no order got past, with the longest one found.
    Impossible(Stuck),
    /// It gave up after so many steps.
    Undecided(usize),
}

/// Where the search came farthest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// The longest order found, as places in the history.
    pub order: Vec<usize>,
    /// The value after it.
    pub state: Option<Value>,
    /// The calls of which one should have come next.
    pub next: Vec<usize>,
}

impl Stuck {
    /// The story for a reader: the last calls of the order, and what does not fit behind them.
    pub fn tell(&self, calls: &[Call]) -> String {
        let mut text =
            format!("{} calls fit; then the key is {:?}. The last of them:\n", self.order.len(), self.state);
        for at in self.order.iter().rev().take(8).rev() {
            let _ = writeln!(text, "    {}", calls[*at]);
        }
        text += "  none of these can come next:\n";
        for at in &self.next {
            let _ = writeln!(text, "    {}", calls[*at]);
        }
        text
    }
}

/// Steps after which a search gives up.
const STEPS_MAX: usize = 2_000_000;

/// Searches for an order of `calls` of one key, which is absent at first.
pub fn check(calls: &[Call]) -> Verdict {
    check_within(calls, STEPS_MAX)
}

/// [`check`] with a bound of its own.
pub fn check_within(calls: &[Call], steps_max: usize) -> Verdict {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|at| (calls[*at].begun, calls[*at].ended.unwrap_or(Duration::MAX)));
    let sorted: Vec<&Call> = order.iter().map(|at| &calls[*at]).collect();
    let named = |at: Vec<usize>| at.into_iter().map(|i| order[i]).collect();
    match Search::new(&sorted).run(steps_max) {
        Verdict::Impossible(Stuck { order, state, next }) => {
            Verdict::Impossible(Stuck { order: named(order), state, next: named(next) })
        }
        verdict => verdict,
    }
}

/// The key after `op` found it as `before`, if that agrees with `answer`.
#[expect(clippy::option_option, reason = "no agreement, or the key after the call")]
fn step(before: Option<Value>, op: Op, answer: Option<Answer>) -> Option<Option<Value>> {
    let (told, after) = match (op, before) {
        (Op::Set(v), None) => (Answer::Stored, Some(v)),
        (Op::Set(v), Some(held)) if held == v => (Answer::Unchanged, before),
        (Op::Set(_), Some(held)) => (Answer::Occupied(held), before),
        (Op::Delete, _) => (Answer::Removed(before.is_some()), None),
        (Op::Take(v), Some(held)) if held == v => (Answer::Taken, None),
        (Op::Get | Op::Take(_), None) => (Answer::Absent, None),
        (Op::Get | Op::Take(_), Some(held)) => (Answer::Found(held), before),
    };
    answer.is_none_or(|answer| answer == told).then_some(after)
}

struct Search<'a> {
    calls: &'a [&'a Call],
    done: Vec<u64>,
    order: Vec<usize>,
    /// Calls with an answer that are not in `order` yet.
    due: usize,
    state: Option<Value>,
    seen: HashSet<(Vec<u64>, Option<Value>)>,
    best: Option<Stuck>,
}

/// A choice taken: the candidates at that point, the next one to try, and the state before.
struct Choice {
    candidates: Vec<usize>,
    tried: usize,
    before: Option<Value>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [&'a Call]) -> Self {
        Self {
            calls,
            done: vec![0; calls.len().div_ceil(64)],
            order: Vec::new(),
            due: calls.iter().filter(|call| call.answer.is_some()).count(),
            state: None,
            seen: HashSet::new(),
            best: None,
        }
    }

    fn run(mut self, steps_max: usize) -> Verdict {
        let mut choices = vec![self.choice()];
        for _ in 0..steps_max {
            if self.due == 0 {
                return Verdict::Explained;
            }
            let Some(choice) = choices.last_mut() else {
                let nowhere = Stuck { order: Vec::new(), state: None, next: Vec::new() };
                return Verdict::Impossible(self.best.unwrap_or(nowhere));
            };
            let Some(at) = choice.candidates.get(choice.tried).copied() else {
                choices.pop();
                // What led here is undone, unless this was the beginning.
                if let Some(parent) = choices.last() {
                    let before = parent.before;
                    self.undo(before);
                }
                continue;
            };
            choice.tried += 1;
            let call = self.calls[at];
            let Some(after) = step(self.state, call.op, call.answer) else { continue };
            // An unknown call that changes nothing need not be placed.
            if call.answer.is_none() && after == self.state {
                continue;
            }
            self.place(at, after);
            if self.seen.insert((self.done.clone(), self.state)) {
                choices.push(self.choice());
            } else {
                let before = choices.last().and_then(|choice| choice.before);
                self.undo(before);
            }
        }
        Verdict::Undecided(steps_max)
    }

    fn place(&mut self, at: usize, after: Option<Value>) {
        self.done[at / 64] |= 1 << (at % 64);
        self.order.push(at);
        self.due -= usize::from(self.calls[at].answer.is_some());
        self.state = after;
    }

    fn undo(&mut self, before: Option<Value>) {
        if let Some(at) = self.order.pop() {
            self.done[at / 64] &= !(1 << (at % 64));
            self.due += usize::from(self.calls[at].answer.is_some());
            self.state = before;
        }
    }

    /// The calls that may come next: none that began after another, still to come, had ended. Those with an
    /// answer first, as they must come some time.
    fn choice(&mut self) -> Choice {
        let open = |at: &usize| self.done[at / 64] & (1 << (at % 64)) == 0;
        let ended = |at: usize| self.calls[at].answer.and(self.calls[at].ended).unwrap_or(Duration::MAX);
        let mut candidates = Vec::new();
        let mut earliest = Duration::MAX;
        // In order of beginning, so whoever begins after the earliest end ends the search.
        for at in (0..self.calls.len()).filter(open) {
            if self.calls[at].begun > earliest {
                break;
            }
            earliest = earliest.min(ended(at));
            candidates.push(at);
        }
        candidates.retain(|at| self.calls[*at].begun <= earliest);
        candidates.sort_by_key(|at| (self.calls[*at].answer.is_none(), ended(*at)));
        if self.best.as_ref().is_none_or(|best| best.order.len() < self.order.len()) {
            self.best =
                Some(Stuck { order: self.order.clone(), state: self.state, next: candidates.clone() });
        }
        Choice { candidates, tried: 0, before: self.state }
    }
}

#[cfg(test)]
mod tests;
