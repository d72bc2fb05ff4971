//! What comes in at Global: frames of sessions, and requests.

use super::{Job, Read, Responder};
use crate::planted::Planted;
use crate::seen::Seen;
use crate::state::{Line, State};
use dstore_global::sessions::{Caller, StreamId, Submission};
use dstore_shared::frame::{Answer, Ask, Down, Request, Resolved, Up};
use dstore_shared::{Command, DeleteMode, Epoch, RegSeq, RequestId};

impl State {
    pub(crate) fn frame_at_global(&mut self, stream: u64, frame: Up) {
        let (id, before) = (StreamId(stream), self.deletes_drained());
        match frame {
            Up::Hello(hello) => match self.at_global(|m, now| m.hello(now, id, &hello)) {
                Ok(epoch) => {
                    let local = self.stream_of(stream).map_or(0, |stream| stream.line.local);
                    self.global().sessions[local] = Some((id, epoch));
                }
                Err(_) => self.close(stream),
            },
            Up::Keep { epoch, n, acked } => {
                self.at_global(|m, now| m.keep(now, id, epoch, n, acked));
                self.note_refused(stream);
            }
            Up::Ack { epoch, seq } => self.at_global(|m, now| m.ack(now, id, epoch, seq)),
            Up::Summary { epoch, .. } => {
                self.global().listings.push((stream, frame));
                if self.is_listing_due(epoch) {
                    let last = self.global.listings.len() - 1;
                    self.listed(last);
                }
            }
            Up::Drop { epoch, names } => {
                for (name, reg_seq) in names {
                    self.at_global(|m, now| m.drop_name(now, id, epoch, &name, reg_seq));
                }
            }
            Up::Bye { epoch } => self.at_global(|m, now| m.bye(now, id, epoch)),
        }
        if self.deletes_drained() > before {
            self.note(Seen::DelByAck);
        }
    }

    /// DELs that wait for nobody any more.
    pub(crate) fn deletes_drained(&self) -> usize {
        let queue = self.global.queue.iter();
        queue.filter(|(_, job)| matches!(job.command, Command::Delete { .. })).count()
    }

    /// Global closes a stream: the Local hears of it after what was sent before.
    pub(crate) fn close(&mut self, stream: u64) {
        if let Some(stream) = self.stream_of(stream) {
            stream.at_global = false;
            stream.up.clear();
        }
    }

    /// Whether names that are listed in `epoch` can be looked at yet.
    pub(crate) fn is_listing_due(&self, epoch: Epoch) -> bool {
        self.global.m.listing_wait(self.global_now(), epoch).is_zero()
    }

    /// Judges a batch of listed names, each as a read.
    pub(crate) fn listed(&mut self, i: usize) {
        let (stream, frame) = self.global().listings.remove(i);
        let Up::Summary { epoch, batch, names, last } = frame else { return };
        let mut refused = Vec::new();
        for (i, listed) in (0..).zip(names) {
            let bound = self.global.visible[self.key(&listed.name)].as_ref().map(|entry| entry.bind_rev);
            let equal = bound == Some(listed.bind_rev);
            let held = self.at_global(|m, now| {
                let made = m.begin_read(now, epoch, &listed.name, listed.reg_seq)?;
                m.end_read(now, &listed.name, made, equal)
            });
            if held.is_none() {
                refused.push(i);
            }
        }
        if !refused.is_empty() {
            self.note(Seen::Refused);
        }
        self.at_global(|m, now| m.summarized(now, StreamId(stream), epoch, batch, refused, last));
    }

    fn note_refused(&mut self, stream: u64) {
        let changes = self.global.m.counts().ops > 0;
        let open = self.stream_of(stream).is_some_and(|s| {
            !s.cut && s.at_local && s.at_global && !matches!(s.down.back(), Some(Down::Lease { .. }))
        });
        if changes && open {
            self.note(Seen::RenewalRefused);
        }
    }

    pub(crate) fn ask_at_global(&mut self, line: Line, request: Request) {
        let to = Responder { line, flight: request.flight };
        let Request { epoch, reg_seq, .. } = request;
        match request.ask {
            Ask::Resolve { name, .. } => {
                let late = self.is_planted(Planted::ReadBeforeRegistering);
                let made = self
                    .at_global(|m, now| if late { None } else { m.begin_read(now, epoch, &name, reg_seq) });
                let read = Read { to, epoch, reg_seq, name, made, looked: false, found: None };
                let at = self.global.reads.partition_point(|other| other.to < to);
                self.global().reads.insert(at, read);
                if !self.run.scenario.split.reads {
                    self.look(at);
                    self.confirm(at);
                }
            }
            Ask::ResolveMany { .. } => self.wrong("a question about many names"),
            Ask::Change { id, command } => self.change(to, (epoch, reg_seq), id, command),
        }
    }

    fn change(&mut self, to: Responder, (epoch, reg_seq): (Epoch, RegSeq), id: RequestId, command: Command) {
        let (names, sets) = match &command {
            Command::Set { name, .. } => (vec![name.clone()], true),
            Command::Delete { names, .. } => (names.clone(), false),
            _ => return self.wrong("a command that no caller gives"),
        };
        let call = (id.client.0 as usize).wrapping_sub(1);
        let known = self.calls.get(call).is_some_and(|call| call.executed);
        if known {
            self.note(Seen::Duplicate);
        }
        let caller = (sets && reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
        let job = Job { id, command };
        let (drains, spared, mode) = (!sets, Vec::new(), DeleteMode::Strict);
        let change = Submission { id, names, drains, spared, mode, job, caller, responder: to };
        self.at_global(|m, now| m.submit(now, change));
    }

    /// A read looks at the index.
    pub(crate) fn look(&mut self, i: usize) {
        let key = self.key(&self.global.reads[i].name);
        let global = self.global();
        (global.reads[i].looked, global.reads[i].found) = (true, global.visible[key].clone());
    }

    /// A read is confirmed and answered.
    pub(crate) fn confirm(&mut self, i: usize) {
        let Read { to, epoch, reg_seq, name, made, found: entry, .. } = self.global().reads.remove(i);
        let late = self.is_planted(Planted::ReadBeforeRegistering);
        let mut cacheable = self.at_global(|m, now| {
            let made = if late { m.begin_read(now, epoch, &name, reg_seq) } else { made };
            m.end_read(now, &name, made?, entry.is_some())
        });
        if entry.is_some() && self.is_planted(Planted::AlwaysCacheable) {
            cacheable = Some(epoch);
        }
        if entry.is_some() && cacheable.is_none() {
            self.note(Seen::NotCacheable);
        }
        let head = self.global.head;
        self.reply(to, Answer::Resolved(Resolved { entry, carried: None, cacheable, head }));
    }
}
