//! Owns one connection: what came and was not used, what runs, what is still to be sent, in the order of the commands.
//!
//! ```text
//! read -> input -> parse -> may it run beside what runs? -> run -> reply at once, or a slot until it is there
//!                              no: it stays in the input          slots leave from the front -> output -> write
//! ```
//! Invariants: replies leave in the order of their commands. What reads runs beside what reads; a plain SET beside SETs
//! of other names; anything else by itself: so whoever sees a command's change sees those of the commands before it.
//! While [`SLOTS_MAX`] replies are outstanding, [`HELD_HIGH`] bytes under way or [`OUTPUT_HIGH`] unsent, nothing is
//! read. What is held is counted at the door, for all connections: see [`Connection::reserves`].

use super::client::Client;
use super::commands::Later;
use super::door::Door;
use super::output::Output;
use super::parse::{Limits, Parser};
use super::peers::{PUSHES_MAX, Peer};
use super::reply::{Reply, Version};
use super::slots::Slots;
use super::table::Class;
use super::tracking::INVALIDATE;
use super::unread::Unread;
use bytes::Bytes;
use dstore_shared::Moment;
use dstore_sys::ready::Stream;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Replies that are outstanding on one connection.
pub const SLOTS_MAX: usize = 128;
/// Unsent bytes above which nothing more is run.
pub const OUTPUT_HIGH: usize = 1 << 20;
/// Bytes held by commands under way, and by replies that wait for those before them, above which nothing more is run.
pub const HELD_HIGH: usize = 8 << 20;
/// Unsent bytes of a client that is told things and does not read them: it is disconnected.
const UNREAD_MAX: usize = 8 << 20;
/// Bytes a second, on average, below which a client that owes or is owed something is given up.
const RATE_MIN: u64 = 256;
/// Input that a connection may have without asking for room.
const INPUT_FREE: usize = 64 << 10;
/// There is no room for what it holds.
const FULL: Reply = Reply::error("OOM too many and too large commands are under way: try again later");
/// Reads in one turn: then it is another's.
const READS_MAX: usize = 8;

/// What a turn of a connection came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It waits for something.
    Waits,
    /// It has more to do, after the others.
    Again,
    /// It is over.
    Gone,
}

/// What a loop lends its connections.
pub struct Lent<'a> {
    /// What all connections share.
    pub door: &'a Arc<Door>,
    /// Where bytes are read into.
    pub scratch: &'a mut [u8],
    /// Memory for output.
    pub spare: &'a mut Vec<u8>,
    /// Memory for packed names.
    pub packed: &'a mut Vec<u8>,
    /// Takes a future of the slot, unless it is ready at once.
    pub begin: &'a mut dyn FnMut(Later, u64) -> Option<Reply>,
    /// Commands run.
    pub commands: &'a mut u64,
    /// Hits among them that were not counted elsewhere.
    pub hits: &'a mut u64,
    /// The time of the turn.
    pub now: Moment,
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent states of a socket")]
pub struct Connection {
    stream: Stream,
    /// What others see of it.
    pub peer: Arc<Peer>,
    pub(super) client: Client,
    pub(super) parser: Parser,
    input: Vec<u8>,
    /// The command at the beginning of the input was read, and may not run yet.
    pub(super) parked: Option<(usize, usize)>,
    pub(super) output: Output,
    pub(super) slots: Slots,
    /// Of what runs.
    pub(super) class: Class,
    /// The keys that are being bound, with their slots.
    pub(super) binding: Vec<(u64, Bytes)>,
    readable: bool,
    /// The client may have ended its side: only reading to the end tells.
    hung_up: bool,
    ended: bool,
    /// Nothing more is run; it ends when all is sent.
    pub(super) closing: bool,
    reserved: usize,
    /// It is told when there is room to write.
    watches_room: bool,
    /// What it was told unasked and did not take.
    unread: Unread,
    /// Bytes that came and went.
    moved: u64,
    /// Since when nothing moved that should.
    stuck: Option<(Moment, u64)>,
}

impl Connection {
    /// A connection that has just come.
    pub fn new(stream: Stream, peer: Arc<Peer>, door: &Door) -> Self {
        let known = door.config.password.is_none();
        Self {
            stream,
            peer,
            client: Client::new(door.first_namespace(), known),
            parser: Parser::new(if known { Limits::OPEN } else { Limits::STRANGER }),
            input: Vec::new(),
            parked: None,
            output: Output::default(),
            slots: Slots::default(),
            class: Class::Alone,
            binding: Vec::new(),
            readable: true,
            hung_up: false,
            ended: false,
            closing: false,
            reserved: 0,
            watches_room: false,
            unread: Unread::default(),
            moved: 0,
            stuck: None,
        }
    }

    /// The stream, to be told of its readiness.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Whether it is to be told when there is room to write, if that changed.
    pub fn wants_room(&mut self) -> Option<bool> {
        let wanted = !self.output.is_empty();
        (std::mem::replace(&mut self.watches_room, wanted) != wanted).then_some(wanted)
    }

    /// Notes readiness.
    #[inline]
    pub fn ready(&mut self, readable: bool, ended: bool) {
        self.readable |= readable || ended;
        self.hung_up |= ended;
    }

    /// Does what can be done now.
    #[inline]
    pub fn turn(&mut self, lent: &mut Lent<'_>) -> Fate {
        self.output.lend(lent.spare);
        let fate = self.work(lent);
        self.output.give_back(lent.spare);
        // Replies that nobody takes are held too.
        let unsent = self.output.own_len();
        if self.reserves(lent.door, unsent) {
            return fate;
        }
        // It hears why, if it takes what it is owed before.
        if !self.closing && self.slots.is_empty() {
            self.refuse(FULL, lent);
            let _ = self.send();
        }
        Fate::Gone
    }

    fn work(&mut self, lent: &mut Lent<'_>) -> Fate {
        for _ in 0..READS_MAX {
            if !self.input.is_empty() || self.parked.is_some() {
                self.run_input(lent);
            }
            let blocked = self.is_blocked(lent.door);
            if self.closing || blocked || !self.readable {
                match self.send() {
                    Err(_) => return Fate::Gone,
                    // What was blocked by unsent bytes alone goes on.
                    Ok(true) if blocked && !self.is_blocked(lent.door) && !self.closing => continue,
                    Ok(_) => return self.fate(),
                }
            }
            match self.stream.read(lent.scratch) {
                Ok(0) => {
                    (self.readable, self.ended) = (false, true);
                    return self.last_words();
                }
                Ok(n) => {
                    // Less than asked for means that there is no more: an edge tells of what comes later.
                    self.readable = n == lent.scratch.len() || self.hung_up;
                    self.take(n, lent);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    (self.readable, self.hung_up) = (false, false);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::Gone,
            }
        }
        match self.send() {
            Err(_) => Fate::Gone,
            // Commands that waited for replies to be taken go on, also if nothing more comes.
            Ok(_) if self.readable || !self.input.is_empty() => Fate::Again,
            Ok(_) => self.fate(),
        }
    }

    /// The client ended its side: it gets what it asked for before.
    fn last_words(&mut self) -> Fate {
        if self.parked.is_none() {
            self.closing = true;
        }
        if self.send().is_err() { Fate::Gone } else { self.fate() }
    }

    fn fate(&self) -> Fate {
        let over = (self.closing || self.ended) && self.slots.is_empty();
        if over && self.output.is_empty() && self.parked.is_none() { Fate::Gone } else { Fate::Waits }
    }

    /// Whether nothing more is run until something is done or sent. When memory gets scarce at the door, a connection
    /// has one command of some size under way.
    pub(super) fn is_blocked(&self, door: &Door) -> bool {
        let held = self.slots.held();
        self.parked.is_some()
            || self.slots.len() >= SLOTS_MAX
            || self.output.len() >= OUTPUT_HIGH
            || held >= HELD_HIGH
            || (held >= INPUT_FREE && door.is_scarce())
    }

    fn send(&mut self) -> io::Result<bool> {
        if self.output.is_empty() {
            return Ok(true);
        }
        let before = self.output.len();
        let sent = self.output.send(&mut self.stream);
        let taken = (before - self.output.len()) as u64;
        self.moved += taken;
        self.unread.take(taken);
        sent
    }

    /// Uses the `n` bytes that were read: where they are, if nothing waits before them.
    #[inline]
    fn take(&mut self, n: usize, lent: &mut Lent<'_>) {
        self.moved += n as u64;
        if self.input.is_empty() && self.parked.is_none() {
            let scratch = std::mem::take(&mut lent.scratch);
            let used = self.run(&scratch[..n], lent);
            if used < n && !self.closing {
                self.input.extend_from_slice(&scratch[used..n]);
            }
            lent.scratch = scratch;
        } else {
            self.input.extend_from_slice(&lent.scratch[..n]);
            self.run_input(lent);
        }
        self.account(lent);
    }

    fn run_input(&mut self, lent: &mut Lent<'_>) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.run(&input, lent);
        if self.closing || used == input.len() {
            // An idle connection keeps no memory.
            input = Vec::new();
        } else {
            input.drain(..used);
        }
        self.input = input;
    }

    /// Keeps the door's count of bytes that commands hold; without room the command is refused, and the connection ends.
    fn account(&mut self, lent: &mut Lent<'_>) {
        // The memory of the tail is lent until the end of the turn.
        let unsent = self.output.own_len_lent();
        if !self.reserves(lent.door, unsent) {
            self.refuse(FULL, lent);
        }
    }

    /// Takes room for what it holds now instead of what it held before. `false`: there is none.
    fn reserves(&mut self, door: &Door, unsent: usize) -> bool {
        let input = self.input.capacity() + self.parser.held();
        let queued = self.client.multi.as_ref().map_or(0, |multi| multi.bytes);
        let held = input + queued + self.slots.held() + unsent;
        let wanted = held.saturating_sub(INPUT_FREE);
        let fits = wanted == self.reserved || door.reserve(self.reserved, wanted);
        if fits {
            self.reserved = wanted;
        }
        fits
    }

    /// The last reply: what follows is not looked at.
    pub(super) fn refuse(&mut self, reply: Reply, lent: &mut Lent<'_>) {
        lent.door.stats.errors.fetch_add(1, Ordering::Relaxed);
        self.answer(reply);
        self.closing = true;
        self.parked = None;
        self.client.multi = None;
        self.input = Vec::new();
        self.parser = Parser::new(Limits::OPEN);
    }

    /// A future of a slot is done.
    pub fn completed(&mut self, number: u64, reply: Reply) {
        if !self.slots.complete(number, reply) {
            return;
        }
        self.binding.retain(|(slot, _)| *slot != number);
        while let Some((reply, wanted)) = self.slots.leave() {
            if wanted {
                reply.write(&mut self.output, self.client.version);
            }
        }
    }

    /// Sends something that was not asked for. `false`: it does not read what it is sent.
    pub fn push(&mut self, reply: &Reply) -> bool {
        self.peer.pushes.fetch_sub(1, Ordering::Relaxed);
        // Who speaks RESP2 and does not listen would take it for the reply of a command.
        if self.client.version == Version::Two && !self.client.channels.iter().any(|one| one == INVALIDATE) {
            return true;
        }
        let from = self.unread.taken + self.output.len() as u64;
        reply.write(&mut self.output, self.client.version);
        self.unread.put(from, self.unread.taken + self.output.len() as u64);
        if !self.slots.is_empty() {
            // What is outstanding may have been read before the change: it is told again behind that, so that the
            // client keeps nothing old that came after the first telling.
            self.slots.put_once(reply);
        }
        self.unread.bytes <= UNREAD_MAX as u64 && self.slots.len() <= SLOTS_MAX + PUSHES_MAX
    }

    /// Whether next to nothing moved for `patience` although something should: a command that does not come wholly, or
    /// bytes that are not taken, or a MULTI that keeps others' room without an EXEC. A byte now and then is not enough.
    pub fn is_stuck(&mut self, now: Moment, patience: Duration) -> bool {
        let partial = self.parser.is_within() || !self.input.is_empty();
        let hoards = self.client.multi.as_ref().is_some_and(|multi| multi.bytes > INPUT_FREE);
        let should = !self.output.is_empty() || ((partial || hoards) && self.slots.running() == 0);
        match self.stuck {
            Some((since, moved)) if should => {
                let long = now.since(since) >= patience;
                let much = self.moved - moved >= patience.as_secs() * RATE_MIN;
                if long && much {
                    self.stuck = Some((now, self.moved));
                }
                long && !much
            }
            _ => {
                self.stuck = should.then_some((now, self.moved));
                false
            }
        }
    }

    /// Gives back what it had of the door.
    pub fn leave(&mut self, door: &Door) {
        door.reserve(std::mem::take(&mut self.reserved), 0);
        door.end_tracking(&self.peer);
        door.peers.leave(&self.peer);
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
