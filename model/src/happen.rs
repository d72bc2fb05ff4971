//! A step happens.

use crate::planted::Planted;
use crate::scenario::Kind;
use crate::seen::Seen;
use crate::state::{Caller, HISTORY, Line, Stage, State, Stream, value_of};
use crate::step::Step;
use dstore_global::sessions::StreamId;
use dstore_shared::{Blob, BlobHash, Born, ClientId, Command, DeleteMode, RequestId};
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

/// What a Local would keep of its own SET: values are told apart by their hashes.
static OWN: LazyLock<Blob> = LazyLock::new(|| Blob::hash(""));

/// What a caller is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// The value of a name; 0 = none.
    Value(u8),
    /// A change was made, or there was nothing to change.
    Changed(bool),
    /// It was refused.
    Failed,
}

impl State {
    /// The state after a step.
    pub(crate) fn after(&self, step: Step) -> Self {
        let mut next = self.clone();
        next.happen(step);
        if next.calls.iter().all(crate::state::Call::is_over) {
            next.note(Seen::Ended);
        }
        next
    }

    fn happen(&mut self, step: Step) {
        match step {
            Step::Begin(call, choice) => self.begin(call, choice),
            Step::GoOn(call) => self.go_on(call),
            Step::Again(call) => self.ask_again(call),
            Step::Up(stream) => {
                if let Some(frame) = self.stream_of(stream).and_then(|stream| stream.up.pop_front()) {
                    self.frame_at_global(stream, frame);
                }
            }
            Step::Down(stream) => {
                if let Some((i, frame)) = self
                    .stream_of(stream)
                    .and_then(|stream| Some((stream.line.local, stream.down.pop_front()?)))
                {
                    self.frame_at_local(i, frame);
                }
            }
            Step::Ask(at) => {
                let (line, request) = self.asks.remove(at);
                self.ask_at_global(line, request);
            }
            Step::Reply(at) => {
                let (line, reply) = self.replies.remove(at);
                self.reply_at_local(line.local, reply);
            }
            Step::Look(at) => self.look(at),
            Step::Confirm(at) => self.confirm(at),
            Step::Blob(i, at) => self.complete(i, at),
            Step::List(at) => self.listed(at),
            Step::Show => {
                self.show();
                if !self.run.scenario.split.finishes {
                    while !self.global.shown.is_empty() {
                        self.finish();
                    }
                }
            }
            Step::ShowEarly => self.show_early(),
            Step::Finish => self.finish(),
            Step::Tick => self.tick(),
            Step::Keep(i) => {
                self.local(i).kept_at = self.ticks;
                self.at_local(i, |local, now| local.m.keep(now));
            }
            Step::Cut(stream) => {
                self.left.cuts -= 1;
                if let Some(stream) = self.stream_of(stream) {
                    stream.cut = true;
                }
            }
            Step::LostAtGlobal(stream) => self.lost_at_global(stream),
            Step::LostAtLocal(stream) => self.lost_at_local(stream),
            Step::Connect(i) => self.connect(i),
            Step::Break(i) => {
                self.left.breaks -= 1;
                self.reopen(i);
            }
            Step::Reopen(i) => self.reopen(i),
            Step::Crash(i) => self.crash_local(i),
            Step::CrashGlobal(kept) => {
                self.left.global_crashes -= 1;
                self.crash_global(kept);
            }
            Step::Evict(i, key) => self.evict(i, key),
        }
        self.forget_streams();
    }

    // ---- callers

    fn begin(&mut self, call: usize, choice: usize) {
        let run = self.run.clone();
        let (local, kind) = run.scenario.ops[call].menu[choice];
        let born = Born { history: HISTORY, boot: self.global.boot, at_ms: 0 };
        let id = RequestId { client: ClientId(call as u128 + 1), n: 1, born };
        let started = &mut self.calls[call];
        (started.local, started.kind, started.id) = (local, kind, id);
        if let Kind::Get(key) = kind {
            // Of what is not on the disk nobody may be told.
            let durable = self.global.durable.clone().unwrap_or(self.global.visible.clone());
            self.calls[call].true_since = 1 << value_of(durable[key].clone());
            return self.get(call);
        }
        self.change_at(local, call);
    }

    fn change_at(&mut self, i: usize, call: usize) {
        self.calls[call].stage = Stage::Waiting;
        let id = self.calls[call].id;
        let name = |key: usize| self.run.names[key].clone();
        let command = match self.calls[call].kind {
            Kind::Set(key, value) => Command::Set {
                name: name(key),
                hash: BlobHash::from_bytes([value; 32]),
                size: 1,
                carried: None,
                attributes: dstore_shared::Attributes::default(),
            },
            Kind::Del(keys) => {
                let names = (0..2).filter(|key| keys >> key & 1 == 1).map(name).collect();
                Command::Delete { names, mode: DeleteMode::Strict }
            }
            Kind::Get(_) => return,
        };
        let own = (self.run.scenario.own && matches!(command, Command::Set { .. })).then(|| OWN.clone());
        if self.at_local(i, |local, _| local.m.change(id, command, own, Caller(call))).is_err() {
            self.wrong("a change was refused");
        }
    }

    fn ask_again(&mut self, call: usize) {
        self.left.retries -= 1;
        let other = 1 - self.calls[call].local;
        self.calls[call].local = other;
        if self.is_planted(Planted::RestampRetries) {
            self.calls[call].id.n += 1;
        }
        self.change_at(other, call);
    }

    fn go_on(&mut self, call: usize) {
        match self.calls[call].stage {
            Stage::Loaded(valid_until) => match self.lookup(call) {
                Some(value) => self.calls[call].stage = Stage::Looked(valid_until, value),
                None => self.miss(self.calls[call].local, call),
            },
            Stage::Looked(valid_until, value) if self.may_serve(valid_until) => self.hit(call, value),
            Stage::Looked(..) => self.miss(self.calls[call].local, call),
            _ => {}
        }
    }

    /// Callers are told something: it must have been true during the call.
    pub(crate) fn tell(&mut self, waiting: &[Caller], said: Said) {
        for Caller(at) in waiting {
            let Some(call) = self.calls.get_mut(*at) else { continue };
            if matches!(call.stage, Stage::Done | Stage::Lost) {
                continue;
            }
            let lie = match said {
                Said::Value(value) => call.true_since >> value & 1 == 0,
                Said::Changed(effect) => effect && !call.executed,
                Said::Failed => false,
            };
            call.stage = Stage::Done;
            if lie {
                self.wrong("a caller was told what was not true during the call");
            }
        }
    }

    // ---- time and streams

    fn tick(&mut self) {
        let (before, grace) = (self.deletes_drained(), self.global.m.in_grace(self.global_now()));
        self.ticks += 1;
        if self.left.ticks < u8::MAX {
            self.left.ticks -= 1;
        }
        self.at_global(|m, now| while m.tick(now) {});
        if self.deletes_drained() > before {
            self.note(if grace { Seen::DelByGrace } else { Seen::DelByExpiry });
        }
    }

    fn lost_at_global(&mut self, id: u64) {
        self.close(id);
        let local = self.stream_of(id).map_or(0, |stream| stream.line.local);
        if self.is_planted(Planted::ReleaseOnStreamLoss)
            && let Some((stream, epoch)) = self.global.sessions[local].filter(|(stream, _)| stream.0 == id)
        {
            self.at_global(|m, now| m.bye(now, stream, epoch));
        }
        self.at_global(|m, _| m.stream_lost(StreamId(id)));
    }

    fn lost_at_local(&mut self, id: u64) {
        let Some(stream) = self.stream_of(id) else { return };
        stream.at_local = false;
        stream.down.clear();
        let i = stream.line.local;
        self.local(i).session = None;
        self.at_local(i, |local, _| local.m.lost());
    }

    fn connect(&mut self, i: usize) {
        self.left.hellos -= 1;
        let id = self.next_stream;
        self.next_stream += 1;
        let line = self.line(i);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let stream = Stream { id, line, up, down, cut: false, at_global: true, at_local: true };
        let at = self.streams.partition_point(|other| (other.line.local, other.id) < (i, id));
        self.streams.insert(at, stream);
        self.local(i).session = Some(id);
        self.at_local(i, |local, now| local.m.connected(now));
    }

    /// What was asked on the old line may still arrive; nothing comes back on it.
    fn reopen(&mut self, i: usize) {
        self.drop_replies(self.line(i));
        let local = self.local(i);
        (local.connection, local.broken) = (local.connection + 1, false);
        self.at_local(i, |local, _| local.m.send_again());
    }

    fn drop_replies(&mut self, line: Line) {
        self.replies.retain(|(of, _)| *of != line);
    }

    fn crash_local(&mut self, i: usize) {
        self.left.crashes -= 1;
        let local = &self.locals[i];
        if self.local_now() < local.valid_until && !local.names.all().is_empty() {
            self.note(Seen::CrashHolding);
        }
        self.drop_replies(self.line(i));
        for stream in self.streams.iter_mut().filter(|stream| stream.line.local == i) {
            (stream.at_local, stream.cut) = (false, true);
            stream.down.clear();
        }
        for call in self.calls.iter_mut().filter(|call| call.local == i) {
            if !matches!(call.stage, Stage::Idle | Stage::Done) {
                call.stage = Stage::Lost;
            }
        }
        let run = self.run.clone();
        let life = self.locals[i].life + 1;
        self.locals[i] = Arc::new(crate::local::Local::new(&run.scenario, i, life));
    }

    /// A stream that no end takes for open is no more.
    pub(crate) fn forget_streams(&mut self) {
        self.streams.retain(|stream| stream.at_global || stream.at_local);
    }

    fn evict(&mut self, i: usize, key: usize) {
        self.left.evictions -= 1;
        let name = self.run.names[key].clone();
        let evicted = self.local(i).names.evict(&name);
        if let Some(reg_seq) = evicted {
            self.at_local(i, |local, _| local.m.dropped(vec![(name, reg_seq)]));
        }
    }

    // ---- what was before

    /// Connects who has a session, and does what was done before, each to its end.
    pub(crate) fn prepare(&mut self) {
        let run = self.run.clone();
        let has_session = |i: &usize| run.scenario.sessions[*i];
        // The newer of two processes comes when the older holds what it may hold.
        let (first, last) = if run.scenario.twins { (0..1, 1..2) } else { (0..2, 2..2) };
        for i in first.filter(has_session) {
            self.connect(i);
            self.settle();
        }
        for (local, kind) in &run.scenario.before {
            // Numbered from the end, so that callers' own requests are not met again.
            self.calls.push(crate::state::Call::idle((*local, *kind)));
            let at = self.calls.len() - 1;
            let born = Born { history: HISTORY, boot: self.global.boot, at_ms: 0 };
            self.calls[at].id = RequestId { client: ClientId(u128::from(u32::MAX) + at as u128), n: 1, born };
            (self.calls[at].true_since, self.calls[at].executed) = (u8::MAX, true);
            match kind {
                Kind::Get(_) => self.get(at),
                _ => self.change_at(*local, at),
            }
            self.settle();
        }
        for i in last.filter(has_session) {
            self.connect(i);
            self.settle();
        }
    }

    /// Lets arrive what is on its way.
    fn settle(&mut self) {
        loop {
            let mut steps = Vec::new();
            self.steps(&mut steps);
            let goes_on = |step: &&Step| {
                matches!(
                    step,
                    Step::Up(_)
                        | Step::Down(_)
                        | Step::Ask(_)
                        | Step::Reply(_)
                        | Step::Look(_)
                        | Step::Confirm(_)
                        | Step::Blob(..)
                        | Step::List(_)
                        | Step::Show
                        | Step::Finish
                        | Step::GoOn(_)
                )
            };
            let Some(step) = steps.iter().find(goes_on).copied() else { return };
            self.happen(step);
        }
    }
}
