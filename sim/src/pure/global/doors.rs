//! What comes in at Global: frames of sessions, and requests with their answers.

use super::{Event, Job, Read, Responder};
use crate::pure::config::Planted;
use crate::pure::world::{self, World};
use dstore_global::sessions::{Caller, StreamId, Submission};
use dstore_shared::frame::{Answer, Ask, Reply, Request, Resolved, Up};
use dstore_shared::{Command, DeleteMode, Revision};

impl World {
    pub(super) fn frame_at_global(&mut self, stream: u64, frame: Up) {
        let now = self.global_now();
        let id = StreamId(stream);
        match frame {
            Up::Hello(hello) => {
                self.global.negatives |= hello.negatives;
                match self.machine().hello(now, id, &hello) {
                    Ok(epoch) => _ = self.global.epochs.insert(stream, epoch),
                    Err(_) => self.close(stream, true),
                }
            }
            Up::Keep { epoch, n, acked } => self.machine().keep(now, id, epoch, n, acked),
            Up::Ack { epoch, seq } => self.machine().ack(now, id, epoch, seq),
            Up::Summary { epoch, batch, names, last } => {
                let mut refused = Vec::new();
                for (i, listed) in (0..).zip(names) {
                    let made = self.machine().begin_read(now, epoch, &listed.name, listed.reg_seq);
                    let bound = self.global.visible.get(&listed.name).map(|e| e.bind_rev);
                    let equal = bound == Some(listed.bind_rev);
                    let held = made.and_then(|made| self.machine().end_read(now, &listed.name, made, equal));
                    if held.is_none() {
                        refused.push(i);
                    }
                }
                self.machine().summarized(now, id, epoch, batch, refused, last);
            }
            Up::Drop { epoch, names } => {
                for (name, reg_seq) in names {
                    self.machine().drop_name(now, id, epoch, &name, reg_seq);
                }
            }
            Up::Bye { epoch } => self.machine().bye(now, id, epoch),
        }
    }

    pub(super) fn ask(&mut self, stream: u64, request: Request) {
        let now = self.global_now();
        let responder = Responder { stream, flight: request.flight };
        let Request { epoch, reg_seq, .. } = request;
        match request.ask {
            Ask::Resolve { name, cache, .. } => {
                let first = self.planted(Planted::ReadBeforeRegistering);
                let made = if cache && !first {
                    self.machine().begin_read(now, epoch, &name, reg_seq)
                } else {
                    None
                };
                let (found, head) = (None, Revision(0));
                let read = Read { responder, epoch, name, reg_seq, made, found, head };
                self.global.next_read += 1;
                let no = self.global.next_read;
                self.global.process.as_mut().expect("global is up").reads.insert(no, read);
                self.soon(Event::Read(no));
            }
            Ask::Change { id, command } => {
                let (names, drains, mode) = match &command {
                    Command::Set { name, .. } => (vec![name.clone()], false, DeleteMode::Strict),
                    Command::Delete { names, mode } => (names.clone(), true, *mode),
                };
                let caller = (!drains && reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
                let job = Job { id, command };
                self.machine().submit(now, Submission { id, names, drains, mode, job, caller, responder });
            }
        }
    }

    /// Another thread goes on, at once or a little later.
    pub(super) fn soon(&mut self, event: Event) {
        let delay = if self.rng.chance(700) { 0 } else { self.rng.between(1, 3_000) * 1_000 };
        self.after(delay, world::Event::Global(self.global.boot, event));
    }

    pub(super) fn read(&mut self, no: u64) {
        let head = self.global.head;
        let process = self.global.process.as_mut().expect("global is up");
        if let Some(read) = process.reads.get_mut(&no) {
            read.found = self.global.visible.get(&read.name).copied();
            read.head = head;
            self.soon(Event::Answer(no));
        }
    }

    pub(super) fn answer_read(&mut self, no: u64) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        let Some(mut read) = process.reads.remove(&no) else { return };
        if self.planted(Planted::ReadBeforeRegistering) {
            read.made = self.machine().begin_read(now, read.epoch, &read.name, read.reg_seq);
        }
        let found = read.found.is_some();
        let undrained = self.planted(Planted::UndrainedPresence);
        let mut cacheable = read.made.and_then(|made| {
            let keeps = self.machine().keeps_absences(read.epoch);
            match found {
                true => self.machine().end_read(now, &read.name, made, true),
                // The Local may keep it, and nobody remembers that.
                false if undrained && keeps => {
                    let busy = self.machine().is_busy(&read.name);
                    self.machine().end_read(now, &read.name, made, false);
                    (!busy).then_some(read.epoch)
                }
                false => self.machine().end_absent(now, &read.name, made),
            }
        });
        if !found && cacheable.is_some() {
            read.head = self.machine().head();
        }
        if self.planted(Planted::AlwaysCacheable) && found {
            cacheable = Some(read.epoch);
        }
        let resolved = Resolved { entry: read.found, carried: None, cacheable, head: read.head };
        self.reply(read.responder, Answer::Resolved(resolved));
    }

    pub(super) fn reply(&mut self, to: Responder, answer: Answer) {
        let now = self.global_now();
        if self.net.of(to.stream).at_global {
            let born = self.machine().born(now);
            let reply = Reply { flight: to.flight, answer, born };
            self.send(to.stream, false, world::Event::Reply(to.stream, reply));
        }
    }
}
