//! One thread with an event loop: connections that are its own, and the futures of their commands.
//!
//! ```text
//! wait -> what is ready: connections, letters -> each connection's turn -> futures that were woken -> wait
//! ```
//! Invariants: a connection belongs to one loop from its first byte to its last; a future is polled by its connection's
//! loop, so its reply needs no other thread. The loop waits for nothing but readiness. It must never hold a lock over
//! more than a few words.
//!
//! A panic is a mistake of ours, and must take no more with it than it must: the loop says so, closes its connections,
//! tells every client that tracks keys to forget them, and goes on. Nothing else is shared with what was unwound.

use super::commands::Later;
use super::connection::{Connection, Fate, Lent};
use super::door::Door;
use super::mail::{Alarm, Letter, Mailbox};
use super::reply::Reply;
use dstore_shared::Moment;
use dstore_sys::ready::{Acceptor, Poller, Stream};
use slab::Slab;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Tokens from here on are acceptors.
const ACCEPTORS: usize = usize::MAX / 2;
/// Connections taken at a time from one acceptor.
const ACCEPTS_MAX: usize = 1024;
/// How often is looked for connections that are stuck.
const SWEEP: Duration = Duration::from_secs(2);
/// How long acceptors rest when the process was found out of descriptors, and a loop after a panic.
const REST: Duration = Duration::from_millis(100);
/// Within which that is said once.
const SAID: Duration = Duration::from_secs(10);
/// Passed to a client for which there is no room.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// A command that is under way.
struct Running {
    number: u64,
    token: usize,
    /// The client's number: tokens are used again.
    client: u64,
    slot: u64,
    later: Later,
    waker: Waker,
}

/// A loop.
pub struct EventLoop {
    door: Arc<Door>,
    poller: Poller,
    mailbox: Arc<Mailbox>,
    /// Only the first loop has them; it gives connections to the others in turn.
    acceptors: Vec<Acceptor>,
    others: Vec<Arc<Mailbox>>,
    turn: usize,
    connections: Slab<Connection>,
    running: Slab<Running>,
    /// By connection: the places of its futures.
    places: Vec<Vec<usize>>,
    numbers: u64,
    again: Vec<usize>,
    letters: Vec<Letter>,
    /// Acceptors that may have more.
    waiting: Vec<usize>,
    /// Those that the process had no descriptor for.
    resting: Vec<usize>,
    rested: Moment,
    said: Option<Moment>,
    swept: Moment,
    scratch: Vec<u8>,
    spare: Vec<u8>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventLoop({} connections)", self.connections.len())
    }
}

impl EventLoop {
    /// A loop without connections.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(door: &Arc<Door>) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mailbox = Arc::new(Mailbox::new(poller.waker()));
        Ok(Self {
            door: door.clone(),
            poller,
            mailbox,
            acceptors: Vec::new(),
            others: Vec::new(),
            turn: 0,
            connections: Slab::new(),
            running: Slab::new(),
            places: Vec::new(),
            numbers: 0,
            again: Vec::new(),
            letters: Vec::new(),
            waiting: Vec::new(),
            resting: Vec::new(),
            rested: Moment::ZERO,
            said: None,
            swept: door.clock.now(),
            scratch: vec![0; READ_BYTES],
            spare: Vec::new(),
            packed: Vec::new(),
        })
    }

    /// Where it is told things.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Takes connections from `acceptors`, and gives them to all of `others` in turn, of which it is one.
    ///
    /// # Errors
    /// When the kernel has no room.
    pub fn accept(&mut self, mut acceptors: Vec<Acceptor>, others: Vec<Arc<Mailbox>>) -> io::Result<()> {
        for (at, acceptor) in acceptors.iter_mut().enumerate() {
            self.poller.add_acceptor(acceptor, ACCEPTORS + at)?;
        }
        (self.acceptors, self.others) = (acceptors, others);
        Ok(())
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            self.door.stats.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "a thread of the RESP door panicked: its connections are closed, it goes on: report this"
            );
            self.begin_anew();
            std::thread::sleep(REST);
        }
        self.close();
    }

    /// What was unwound may have left anything half done: nothing of it is used again.
    fn begin_anew(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.close())).is_err() {}
        (self.running, self.places) = (Slab::new(), Vec::new());
        (self.again, self.letters) = (Vec::new(), Vec::new());
        // What was told meanwhile may be lost.
        self.waiting = (0..self.acceptors.len()).collect();
        self.resting = Vec::new();
        self.door.tracking.all_gone();
        self.mailbox.remind();
    }

    fn serve(&mut self) {
        let mut ready = Vec::new();
        while !self.mailbox.is_stopped() {
            match self.poller.wait(Some(self.wait_max())) {
                Ok(told) => ready.extend(told),
                Err(e) => {
                    tracing::error!(error = %e, "the RESP door cannot wait for its clients: closing it");
                    return;
                }
            }
            let now = self.door.clock.now();
            self.go_on_taking(now);
            for event in ready.drain(..) {
                if event.token >= ACCEPTORS {
                    self.take_from(event.token - ACCEPTORS, now);
                } else if let Some(connection) = self.connections.get_mut(event.token) {
                    connection.ready(event.readable, event.ended);
                    self.turn_of(event.token, now);
                }
            }
            let mut letters = std::mem::take(&mut self.letters);
            self.mailbox.take(&mut letters);
            letters.drain(..).for_each(|letter| self.read_letter(letter, now));
            self.letters = letters;
            let again = std::mem::take(&mut self.again);
            again.into_iter().for_each(|token| self.turn_of(token, now));
            if now.since(self.swept) >= SWEEP {
                self.swept = now;
                self.sweep(now);
            }
        }
    }

    fn wait_max(&self) -> Duration {
        match () {
            () if !self.again.is_empty() || !self.waiting.is_empty() => Duration::ZERO,
            () if !self.resting.is_empty() => REST,
            () => SWEEP,
        }
    }

    /// Closes one after another, so that one that panics is closed too.
    fn close(&mut self) {
        while let Some(token) = self.connections.iter().next().map(|(token, _)| token) {
            let mut connection = self.connections.remove(token);
            connection.leave(&self.door);
        }
    }

    fn go_on_taking(&mut self, now: Moment) {
        if now >= self.rested {
            self.waiting.append(&mut self.resting);
        }
        for acceptor in std::mem::take(&mut self.waiting) {
            self.take_from(acceptor, now);
        }
    }

    fn take_from(&mut self, acceptor: usize, now: Moment) {
        if self.resting.contains(&acceptor) {
            return;
        }
        for _ in 0..ACCEPTS_MAX {
            let Some(taken) = self.acceptors.get(acceptor).map(Acceptor::accept) else { return };
            match taken {
                Ok(stream) => {
                    self.turn = (self.turn + 1) % self.others.len().max(1);
                    match self.others.get(self.turn) {
                        Some(other) if !Arc::ptr_eq(other, &self.mailbox) => {
                            other.put(Letter::Accepted(stream));
                        }
                        _ => self.welcome(stream, now),
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => return self.rest(acceptor, &e, now),
            }
        }
        // There may be more: an edge does not tell again.
        if !self.waiting.contains(&acceptor) {
            self.waiting.push(acceptor);
        }
    }

    /// Asks the acceptor again later, however often somebody comes until then.
    fn rest(&mut self, acceptor: usize, why: &io::Error, now: Moment) {
        if self.said.is_none_or(|said| now.since(said) >= SAID) {
            self.said = Some(now);
            tracing::warn!(error = %why, "RESP connections cannot be taken: raise the limit of descriptors");
        }
        self.resting.push(acceptor);
        self.rested = now + REST;
    }

    fn welcome(&mut self, mut stream: Stream, now: Moment) {
        let vacant = self.connections.vacant_key();
        let addresses = (stream.peer(), String::new());
        let door = &self.door;
        let max = door.config.clients_max;
        let Some(peer) = door.peers.enter(addresses, (&self.mailbox, vacant), now, max) else {
            door.stats.refused.fetch_add(1, Ordering::Relaxed);
            let _ = io::Write::write(&mut stream, FULL);
            return;
        };
        let mut connection = Connection::new(stream, peer, door);
        if let Err(e) = self.poller.add(connection.stream(), vacant) {
            tracing::warn!(error = %e, "a RESP connection cannot be watched");
            connection.leave(door);
            return;
        }
        self.connections.insert(connection);
        self.turn_of(vacant, now);
    }

    fn read_letter(&mut self, letter: Letter, now: Moment) {
        match letter {
            Letter::Accepted(stream) => self.welcome(stream, now),
            Letter::Awake(place, number) => self.poll(place, number, now),
            Letter::Push(peer, reply) => {
                if let Some(connection) = self.connection(peer.token, peer.id) {
                    let reads = connection.push(&reply);
                    if reads { self.turn_of(peer.token, now) } else { self.end(peer.token) }
                }
            }
            Letter::Kill(peer) => {
                if self.connection(peer.token, peer.id).is_some() {
                    self.end(peer.token);
                }
            }
        }
    }

    fn connection(&mut self, token: usize, client: u64) -> Option<&mut Connection> {
        self.connections.get_mut(token).filter(|connection| connection.peer.id == client)
    }

    /// Lets a connection do what it can.
    fn turn_of(&mut self, token: usize, now: Moment) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let client = connection.peer.id;
        let (running, numbers, mailbox) = (&mut self.running, &mut self.numbers, &self.mailbox);
        if self.places.len() <= token {
            self.places.resize_with(token + 1, Vec::new);
        }
        let places = &mut self.places[token];
        let mut begin =
            |later, slot| begin((running, places), numbers, mailbox, later, (token, client, slot));
        let (mut commands, mut hits) = (0, 0);
        let fate = connection.turn(&mut Lent {
            door: &self.door,
            scratch: &mut self.scratch,
            spare: &mut self.spare,
            packed: &mut self.packed,
            begin: &mut begin,
            commands: &mut commands,
            hits: &mut hits,
            now,
        });
        if commands > 0 {
            self.door.stats.commands.fetch_add(commands, Ordering::Relaxed);
            self.door.stats.hits.fetch_add(hits, Ordering::Relaxed);
        }
        let told = match connection.wants_room() {
            Some(wanted) => self.poller.want_room(connection.stream(), token, wanted),
            None => Ok(()),
        };
        match fate {
            Fate::Gone => self.end(token),
            _ if told.is_err() => self.end(token),
            Fate::Waits => {}
            Fate::Again => self.again.push(token),
        }
    }

    fn end(&mut self, token: usize) {
        if let Some(mut connection) = self.connections.try_remove(token) {
            connection.leave(&self.door);
            // What changes something goes on: only who waits for it is gone.
            for place in self.places.get_mut(token).map(std::mem::take).unwrap_or_default() {
                self.running.try_remove(place);
            }
        }
    }

    fn poll(&mut self, place: usize, number: u64, now: Moment) {
        let Some(running) = self.running.get_mut(place).filter(|running| running.number == number) else {
            return;
        };
        let Poll::Ready(reply) = running.later.as_mut().poll(&mut Context::from_waker(&running.waker)) else {
            return;
        };
        let Running { token, client, slot, .. } = self.running.remove(place);
        if let Some(places) = self.places.get_mut(token) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                // An idle connection keeps no memory.
                *places = Vec::new();
            }
        }
        if reply.is_error() {
            self.door.stats.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(connection) = self.connection(token, client) {
            connection.completed(slot, reply);
            self.turn_of(token, now);
        }
    }

    fn sweep(&mut self, now: Moment) {
        let patience = self.door.config.patience;
        let stuck: Vec<usize> = self
            .connections
            .iter_mut()
            .filter_map(|(token, connection)| connection.is_stuck(now, patience).then_some(token))
            .collect();
        for token in stuck {
            tracing::debug!(token, "a RESP client is stuck: disconnecting it");
            self.end(token);
        }
    }
}

/// Polls a future once; if it is not ready, keeps it.
fn begin(
    (running, places): (&mut Slab<Running>, &mut Vec<usize>),
    numbers: &mut u64,
    mailbox: &Arc<Mailbox>,
    mut later: Later,
    (token, client, slot): (usize, u64, u64),
) -> Option<Reply> {
    *numbers += 1;
    let number = *numbers;
    let alarm = Alarm { mailbox: mailbox.clone(), place: running.vacant_key(), number };
    let waker = Waker::from(Arc::new(alarm));
    match later.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(reply) => Some(reply),
        Poll::Pending => {
            let place = running.insert(Running { number, token, client, slot, later, waker });
            places.push(place);
            None
        }
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
