//! G6: nothing is silently weaker. What an asynchronous DEL removed is told only within the bound that was stated, and
//! never after a strict change of the name.

use crate::pure::history::{History, Lingering, Op, Told, What};
use crate::pure::rng::Time;
use dstore_shared::DeleteMode;

impl History {
    /// Whether a reader between `from` and `to` may be told that `key` is bound to `value`, though it is not:
    /// an asynchronous DEL removed it, the bound has not passed, and no strict change of the name that began
    /// after it was acknowledged before the reader began.
    pub fn may_linger(&self, key: usize, value: u64, from: Time, to: Time) -> bool {
        let is = |l: &&Lingering| l.key == key && l.value == value && l.from <= to;
        let open = |l: &&Lingering| l.until.is_none_or(|until| from <= until);
        let mut lingering = self.lingering.iter().filter(is).filter(open).peekable();
        lingering.peek().is_some() && lingering.any(|l| !self.is_overtaken(l, key, from))
    }

    fn is_overtaken(&self, l: &Lingering, key: usize, from: Time) -> bool {
        // Operations are in the order of their beginnings.
        let since = self.ops.partition_point(|op| op.from <= l.from);
        self.ops[since..].iter().any(|op| {
            let touches = match &op.what {
                What::Get(_) | What::Both(_) => false,
                What::Move { from, to, unbinds } => *to == key || *unbinds && *from == key,
                What::Set(k, _) | What::Replace(k, _) => *k == key,
                What::Del(keys) | What::DelPrefix(_, keys) => {
                    keys.contains(&key) && op.mode != DeleteMode::Async
                }
            };
            touches && op.answer.as_ref().is_some_and(|(at, _)| *at < from)
        })
    }

    /// Whether `op` told what an asynchronous DEL had removed, and was allowed to.
    pub fn excuses(&self, op: &Op) -> bool {
        let (What::Get(key), Some((to, Told::Got(Some(value))))) = (&op.what, &op.answer) else {
            return false;
        };
        !self.was(*key, op.from, *to, Some(*value)) && self.may_linger(*key, *value, op.from, *to)
    }
}
