//! Whether what clients saw of all keys can be explained by one order of calls: linearizability.
//!
//! The search of Wing and Gong (1993) with Lowe's memory of states seen (2017), over all keys of a run at once, so
//! that half of a DEL of several keys, of a RENAME or of a read of many shows. Times are intervals: a call precedes
//! another only if it ended before the other began. A call without an answer may take effect at any time after it
//! began, or never. It must never answer "explained" without such an order in hand.
//!
//! Three things make it quick and cost nothing: a call that may come next and changes nothing is placed at once (in
//! any order that has it later it may as well be moved here); of the others those come first that Global gave the
//! smallest revision; and where the same answered calls came to the same values before, with some of the unknown ones
//! that were taken now and no others, it is not searched again, since whatever can follow now could have followed then.
//! Revisions are hints only: a wrong one makes the search longer, not another.

mod model;
#[cfg(test)]
mod tests;

pub use model::{Answer, Bind, KEYS_MAX, Keys, Op, State, Swap, Value, step};

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::time::Duration;

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
    /// What else the answer said, and what was asked for beside.
    pub told: Told,
}

/// What an answer said beside what it was about.
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the call or of its answer")]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Told {
    /// The revision that it tells of.
    pub revision: Option<u64>,
    /// It came from a node's memory, under its lease.
    pub is_hit: bool,
    /// Of a DEL: it need not wait for whoever may still read the old value.
    pub is_async: bool,
    /// Of a DEL: it may be answered as pending, and was asked about again.
    pub is_patient: bool,
    /// Of a read: an old value would do.
    pub may_be_stale: bool,
    /// Of a change: the key that it binds, or is about, lives for so long from the decision on.
    pub ttl: Option<Duration>,
    /// Of an asynchronous DEL: for so long others may read the old value; of a read: it may have been wrong for so
    /// long.
    pub stale: Option<Duration>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        write!(f, "{:>9.3} .. ", ms(self.begun))?;
        match (self.ended, self.answer) {
            (Some(ended), Some(answer)) => {
                write!(f, "{:>9.3} ms  {}: {:?} -> {answer:?}", ms(ended), self.by, self.op)?;
            }
            _ => write!(f, "        ? ms  {}: {:?} -> unknown", self.by, self.op)?,
        }
        if self.told != Told::default() {
            write!(f, "  {:?}", self.told)?;
        }
        Ok(())
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
    /// The values after it.
    pub state: State,
    /// The calls of which one should have come next.
    pub next: Vec<usize>,
}

impl Stuck {
    /// The story for a reader: the last calls of the order, and what does not fit behind them.
    pub fn tell(&self, calls: &[Call]) -> String {
        let mut text = format!(
            "{} calls fit; then the keys are {:?}. The last of them:\n",
            self.order.len(),
            self.state
        );
        for at in self.order.iter().rev().take(12).rev() {
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

/// Searches for an order of `calls`, with every key absent at first.
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

struct Search<'a> {
    calls: &'a [&'a Call],
    done: Vec<u64>,
    order: Vec<usize>,
    /// Calls with an answer that are not in `order` yet.
    due: usize,
    state: State,
    /// By the answered calls that are placed, and the values: which of the unknown ones were placed too.
    seen: HashMap<(Vec<u64>, State), Vec<Vec<u64>>>,
    /// Calls without an answer.
    unknown: Vec<u64>,
    best: Option<Stuck>,
}

/// A choice taken: the candidates at that point, the next one to try, and the state before.
struct Choice {
    candidates: Vec<usize>,
    tried: usize,
    before: State,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [&'a Call]) -> Self {
        Self {
            calls,
            done: vec![0; calls.len().div_ceil(64)],
            order: Vec::new(),
            due: calls.iter().filter(|call| call.answer.is_some()).count(),
            state: State::default(),
            seen: HashMap::new(),
            unknown: calls
                .chunks(64)
                .map(|some| {
                    some.iter().enumerate().map(|(i, call)| u64::from(call.answer.is_none()) << i).sum()
                })
                .collect(),
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
                let nowhere = Stuck { order: Vec::new(), state: State::default(), next: Vec::new() };
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
            let (before, is_forced) = (choice.before, choice.candidates.len() == 1);
            let call = self.calls[at];
            let Some(after) = step(self.state, call.op, call.answer) else { continue };
            // An unknown call that changes nothing need not be placed.
            if call.answer.is_none() && after == self.state {
                continue;
            }
            self.place(at, after);
            if is_forced || self.is_new() {
                choices.push(self.choice());
            } else {
                self.undo(before);
            }
        }
        Verdict::Undecided(steps_max)
    }

    /// Whether nothing that was searched before tells what comes of the calls that are placed.
    fn is_new(&mut self) -> bool {
        let part = |of_unknown: bool| {
            let both = self.done.iter().zip(&self.unknown);
            both.map(|(done, unknown)| done & if of_unknown { *unknown } else { !unknown })
                .collect::<Vec<u64>>()
        };
        let (answered, taken) = (part(false), part(true));
        let before = self.seen.entry((answered, self.state)).or_default();
        let is_within =
            |less: &Vec<u64>, more: &Vec<u64>| less.iter().zip(more).all(|(less, more)| less & !more == 0);
        if before.iter().any(|less| is_within(less, &taken)) {
            return false;
        }
        before.retain(|more| !is_within(&taken, more));
        before.push(taken);
        true
    }

    fn place(&mut self, at: usize, after: State) {
        self.done[at / 64] |= 1 << (at % 64);
        self.order.push(at);
        self.due -= usize::from(self.calls[at].answer.is_some());
        self.state = after;
    }

    fn undo(&mut self, before: State) {
        if let Some(at) = self.order.pop() {
            self.done[at / 64] &= !(1 << (at % 64));
            self.due += usize::from(self.calls[at].answer.is_some());
            self.state = before;
        }
    }

    /// The calls that may come next: none that began after another, still to come, had ended. If one of them changes
    /// nothing and agrees, it alone.
    fn choice(&mut self) -> Choice {
        let first = self.done.iter().position(|word| *word != u64::MAX).unwrap_or(self.done.len()) * 64;
        let ended = |at: usize| self.calls[at].answer.and(self.calls[at].ended).unwrap_or(Duration::MAX);
        let mut candidates = Vec::new();
        let mut earliest = Duration::MAX;
        // In order of beginning, so whoever begins after the earliest end ends the search.
        for at in first..self.calls.len() {
            if self.done[at / 64] & (1 << (at % 64)) != 0 {
                continue;
            }
            if self.calls[at].begun > earliest {
                break;
            }
            earliest = earliest.min(ended(at));
            candidates.push(at);
        }
        candidates.retain(|at| self.calls[*at].begun <= earliest);
        let changes_nothing = |at: &&usize| {
            let call = self.calls[**at];
            call.answer.is_some() && step(self.state, call.op, call.answer) == Some(self.state)
        };
        if let Some(at) = candidates.iter().find(changes_nothing).copied() {
            candidates = vec![at];
        }
        // Those last that may never have taken effect, as far as anybody was told.
        candidates.sort_by_key(|at| {
            let (revision, answer) = (self.calls[*at].told.revision, self.calls[*at].answer);
            (revision.is_none() && answer.is_none(), revision.unwrap_or(u64::MAX), ended(*at))
        });
        if self.best.as_ref().is_none_or(|best| best.order.len() < self.order.len()) {
            self.best =
                Some(Stuck { order: self.order.clone(), state: self.state, next: candidates.clone() });
        }
        Choice { candidates, tried: 0, before: self.state }
    }
}
