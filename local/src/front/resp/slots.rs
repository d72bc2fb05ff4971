//! Owns the replies of one connection that are not sent yet, in the order of their commands, and counts what they hold:
//! of a command that is under way its words, of a reply that waits for those before it its bytes.
//!
//! Invariant: a reply leaves after all those that were outstanding when its command began.

use super::reply::Reply;
use std::collections::VecDeque;

/// A reply that is not sent yet.
#[derive(Debug)]
struct Slot {
    /// `None`: it is waited for.
    reply: Option<Reply>,
    /// The client did not want it.
    muted: bool,
    /// Bytes that it, or its command, holds.
    held: usize,
}

/// The replies of one connection that are not sent yet.
#[derive(Debug, Default)]
pub struct Slots {
    waiting: VecDeque<Slot>,
    /// The number of the first.
    first: u64,
    running: usize,
    held: usize,
}

impl Slots {
    /// Whether nothing is outstanding.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Commands that are under way.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Bytes that commands under way and replies that wait hold.
    #[inline]
    pub fn held(&self) -> usize {
        self.held
    }

    /// The number that the next one will have.
    pub fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// A command is under way that holds so many bytes.
    pub fn begin(&mut self, muted: bool, held: usize) {
        self.running += 1;
        self.held += held;
        self.waiting.push_back(Slot { reply: None, muted, held });
    }

    /// A reply that is known already waits for those before it.
    pub fn put(&mut self, reply: Reply) {
        let held = reply.held();
        self.held += held;
        self.waiting.push_back(Slot { reply: Some(reply), muted: false, held });
    }

    /// What is told unasked is told behind all that is outstanding: once, if nothing came since it was last put so.
    pub fn put_once(&mut self, reply: &Reply) {
        if self.waiting.back().is_none_or(|last| last.reply.as_ref() != Some(reply)) {
            self.put(reply.clone());
        }
    }

    /// The reply of a command that was under way. `false`: nobody waits for it.
    pub fn complete(&mut self, number: u64, reply: Reply) -> bool {
        let at = number.wrapping_sub(self.first) as usize;
        let Some(slot) = self.waiting.get_mut(at).filter(|slot| slot.reply.is_none()) else { return false };
        self.running -= 1;
        self.held -= slot.held;
        // The first leaves at once.
        slot.held = if at == 0 { 0 } else { reply.held() };
        self.held += slot.held;
        slot.reply = Some(reply);
        true
    }

    /// The first, if its reply is there, and whether the client wants it.
    pub fn leave(&mut self) -> Option<(Reply, bool)> {
        self.waiting.front()?.reply.as_ref()?;
        let Slot { reply, muted, held } = self.waiting.pop_front()?;
        self.held -= held;
        self.first += 1;
        reply.map(|reply| (reply, !muted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn value(len: usize) -> Reply {
        Reply::Bulk(Bytes::from(vec![7; len]))
    }

    #[test]
    fn replies_leave_in_the_order_of_their_commands_and_what_they_hold_is_counted_until_then() {
        let mut slots = Slots::default();
        slots.begin(false, 1000);
        slots.begin(true, 500);
        slots.put(value(10_000));
        assert!((11_500..11_700).contains(&slots.held()), "{}", slots.held());
        assert_eq!((slots.running(), slots.len(), slots.next()), (2, 3, 3));
        assert!(slots.complete(1, value(3000)) && slots.leave().is_none());
        assert!((14_000..14_300).contains(&slots.held()), "{}", slots.held());
        assert!(
            !slots.complete(1, Reply::OK) && !slots.complete(2, Reply::OK) && !slots.complete(9, Reply::OK)
        );
        assert!(slots.complete(0, Reply::OK));
        assert_eq!(slots.leave(), Some((Reply::OK, true)));
        assert_eq!(slots.leave(), Some((value(3000), false)), "it was not wanted");
        assert_eq!(slots.leave(), Some((value(10_000), true)));
        assert_eq!((slots.leave(), slots.held(), slots.running(), slots.next()), (None, 0, 0, 3));
        assert!(!slots.complete(0, Reply::OK), "a number is not used again");
    }

    #[test]
    fn what_is_told_unasked_waits_once_behind_what_is_outstanding() {
        let mut slots = Slots::default();
        slots.begin(false, 0);
        let push = Reply::Push(vec![Reply::word("k")]);
        slots.put_once(&push);
        slots.put_once(&push);
        slots.begin(false, 0);
        slots.put_once(&push);
        assert_eq!(slots.len(), 4, "again only behind what began later");
    }
}
