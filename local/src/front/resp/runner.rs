//! Runs the commands of one connection: which may run now, how each is answered.
//!
//! It must never wait: what is not known at once becomes a future, and its reply a slot.

use super::args::Args;
use super::client::{Client, Replies};
use super::commands::{self, Call, Done, Run};
use super::connection::{Connection, Lent};
use super::own::OwnChange;
use super::parse::{Limits, Parser, Step, Wrong};
use super::reply::{self, Reply, Version};
use super::table::{self, Class, Spec, flag};
use std::sync::atomic::Ordering;

impl Connection {
    /// Runs commands from `input`; gives how many bytes are done with.
    pub(super) fn run(&mut self, input: &[u8], lent: &mut Lent<'_>) -> usize {
        // Out of the way, so that its arguments can be looked at while the rest changes.
        let mut parser = std::mem::replace(&mut self.parser, Parser::new(Limits::OPEN));
        let used = self.run_all(&mut parser, input, lent);
        if !self.closing {
            self.parser = parser;
        }
        used
    }

    fn run_all(&mut self, parser: &mut Parser, input: &[u8], lent: &mut Lent<'_>) -> usize {
        let mut at = 0;
        if let Some((from, end)) = self.parked.take() {
            if !self.run_one(parser, input, (from, end), lent) {
                return 0;
            }
            at = end;
        }
        while !self.closing && !self.is_blocked(lent.door) {
            let input = &input[at..];
            match parser.next(input) {
                Ok(Step::Command { from, end }) => {
                    if !self.run_one(parser, input, (from, end), lent) {
                        return at;
                    }
                    at += end;
                }
                Ok(Step::Nothing(used)) => at += used,
                Ok(Step::More(used)) => return at + used,
                Err(Wrong::Http) => {
                    tracing::warn!(peer = self.peer.address, "HTTP on the RESP port: closing the connection");
                    self.closing = true;
                }
                Err(wrong) => self.refuse(Reply::err(format!("Protocol error: {wrong}")), lent),
            }
        }
        at
    }

    /// Runs the command that was read, or parks it. Whether it was run.
    #[inline]
    fn run_one(
        &mut self,
        parser: &mut Parser,
        input: &[u8],
        place: (usize, usize),
        lent: &mut Lent<'_>,
    ) -> bool {
        let args = parser.args(&input[place.0..]);
        if self.is_quick_get(args, lent) {
            return true;
        }
        let known = self.client.known;
        if !self.dispatch(args, lent) {
            self.parked = Some(place);
            return false;
        }
        parser.forget();
        if known != self.client.known {
            parser.set_limits(if self.client.known { Limits::OPEN } else { Limits::STRANGER });
        }
        true
    }

    /// A GET of what this Local holds, with nothing before it: no future, no allocation.
    #[inline]
    fn is_quick_get(&mut self, args: Args<'_>, lent: &mut Lent<'_>) -> bool {
        let plain = self.slots.is_empty() && args.len() == 2 && args.is(0, "get") && self.client.is_plain();
        if !plain {
            return false;
        }
        lent.packed.clear();
        lent.packed.extend_from_slice(&self.client.prefix);
        lent.packed.extend_from_slice(args.get(1));
        let Some(hit) = lent.door.node.hit_packed(lent.packed) else { return false };
        *lent.commands += 1;
        *lent.hits += 1;
        reply::bulk(&mut self.output, hit.blob.bytes());
        true
    }

    /// Whether a command may run beside what runs.
    fn may_run(&self, class: Class, args: Args<'_>) -> bool {
        match (self.slots.running(), class) {
            // What runs by itself may change how replies are written: those before it are written first.
            (0, Class::Alone) => self.slots.is_empty(),
            (0, _) => true,
            (_, Class::Alone) => false,
            (_, Class::Read) => self.class == Class::Read,
            (_, Class::Bind) => {
                self.class == Class::Bind && !self.binding.iter().any(|(_, key)| key == args.get(1))
            }
        }
    }

    /// Runs a command. `false`: it may not run yet.
    fn dispatch(&mut self, args: Args<'_>, lent: &mut Lent<'_>) -> bool {
        let Some(spec) = table::find(args.get(0)) else {
            *lent.commands += 1;
            self.reject(commands::unknown_command(args), lent);
            return true;
        };
        dstore_sys::failpoint!("local::resp::dispatch");
        let class = if self.client.multi.is_some() { Class::Alone } else { spec.class(args.len()) };
        if !self.may_run(class, args) {
            return false;
        }
        *lent.commands += 1;
        self.peer.used(lent.now, spec);
        if let Some(refusal) = self.refusal(spec, args) {
            self.reject(refusal, lent);
            return true;
        }
        let queued = |client: &Client| client.multi.as_ref().map_or(0, |multi| multi.bytes);
        let before = queued(&self.client);
        let mut call = Call { door: lent.door, peer: &self.peer, client: &mut self.client, args, spec };
        let done = run_now(&mut call);
        // What is queued is looked at when EXEC runs it.
        if spec.name != "client" && self.client.multi.is_none() {
            self.client.tracking.caching = None;
        }
        let is_later = matches!(done, Done::Later(_));
        if class == Class::Bind && is_later {
            self.binding.push((self.slots.next(), args.bytes(1)));
        }
        // EXEC runs what MULTI queued.
        let held = if is_later { args.held() + before.saturating_sub(queued(&self.client)) } else { 0 };
        self.finish(done, (class, held), lent);
        true
    }

    /// Why a command is not even looked at.
    fn refusal(&self, spec: &Spec, args: Args<'_>) -> Option<Reply> {
        if !spec.takes(args.len()) {
            return Some(commands::wrong_arity(spec.name));
        }
        if !self.client.known && !spec.has(flag::NO_AUTH) {
            return Some(Reply::error("NOAUTH Authentication required."));
        }
        let listens = !self.client.channels.is_empty() && self.client.version == Version::Two;
        let allowed = ["ping", "subscribe", "unsubscribe", "quit", "reset"];
        if listens && !allowed.contains(&spec.name) {
            return Some(Reply::err(format!(
                "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                 context",
                spec.name
            )));
        }
        None
    }

    /// Answers a command that was not run; EXEC will be refused too.
    fn reject(&mut self, reply: Reply, lent: &mut Lent<'_>) {
        if let Some(multi) = &mut self.client.multi {
            multi.refuse();
        }
        self.finish(Done::Now(reply), (Class::Read, 0), lent);
    }

    /// Answers, now or later: then the command holds so many bytes until it is done.
    fn finish(&mut self, done: Done, (class, held): (Class, usize), lent: &mut Lent<'_>) {
        let said_nothing = matches!(&done, Done::Now(Reply::Several(none)) if none.is_empty());
        let muted = self.client.replies != Replies::On;
        if self.client.replies == Replies::SkipNext && !said_nothing {
            self.client.replies = Replies::On;
        }
        self.closing |= self.client.closing;
        let reply = match done {
            Done::Now(reply) => Some(reply),
            Done::Later(later) => (lent.begin)(later, self.slots.next()),
        };
        let Some(reply) = reply else {
            self.class = class;
            self.slots.begin(muted, held);
            return;
        };
        if reply.is_error() {
            lent.door.stats.errors.fetch_add(1, Ordering::Relaxed);
        }
        let slot = self.slots.next();
        self.binding.retain(|(other, _)| *other != slot);
        if !muted {
            self.answer(reply);
        }
    }

    /// Writes a reply, after those before it.
    pub(super) fn answer(&mut self, reply: Reply) {
        if self.slots.is_empty() {
            reply.write(&mut self.output, self.client.version);
        } else {
            self.slots.put(reply);
        }
    }
}

/// Runs a command that may run, or queues it.
fn run_now(call: &mut Call<'_>) -> Done {
    if call.client.multi.is_some() && !call.spec.has(flag::NO_QUEUE) {
        return Done::Now(commands::transaction::queue(call));
    }
    let own = OwnChange::of(call);
    let done = match call.spec.run {
        Run::Only(run) | Run::Plain(run) | Run::Both(run, _) => run(call),
        Run::Steps(plan) => commands::alone(call, plan),
    };
    match (done.unwrap_or_else(Done::Now), own) {
        (Done::Later(later), Some(own)) => {
            let door = call.door.clone();
            Done::later(async move {
                let reply = later.await;
                own.end(&door, &reply).await;
                reply
            })
        }
        (done, _) => done,
    }
}
