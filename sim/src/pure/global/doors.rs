//! What comes in at Global: frames of sessions, and requests with their answers.

use super::{Asked, Event, Job, Read, Responder};
use crate::pure::planted::Planted;
use crate::pure::rng::MS;
use crate::pure::world::{self, World};
use dstore_global::sessions::Registration;
use dstore_global::sessions::{Caller, StreamId, Submission};
use dstore_shared::frame::{Answer, Ask, Reply, Request, Resolved, Up};
use dstore_shared::{Command, DeleteMode, Epoch, Name, RegSeq, RequestId, Revision};

impl World {
    pub(super) fn frame_at_global(&mut self, stream: u64, frame: Up) {
        let now = self.global_now();
        let frame = self.doctored_up(stream, frame);
        let id = StreamId(stream);
        match frame {
            Up::Hello(mut hello) => {
                self.before_hello(now, &mut hello);
                self.global.negatives |= hello.negatives;
                match self.machine().hello(now, id, &hello) {
                    Ok(epoch) => {
                        self.global.epochs.insert(stream, epoch);
                        self.after_hello(now, stream, &hello, epoch);
                    }
                    Err(_) => self.close(stream, true),
                }
            }
            Up::Keep { epoch, n, acked } => {
                self.machine().keep(now, id, epoch, n, acked);
                if self.planted(Planted::KeepRevives) {
                    self.revive(now, stream, n);
                }
            }
            Up::Ack { epoch, seq } => self.machine().ack(now, id, epoch, seq),
            Up::Summary { epoch, batch, names, last } => {
                let wait = self.machine().listing_wait(now, epoch);
                if !wait.is_zero() {
                    let later = self.global.clock.time_of(now + wait).saturating_sub(self.now).max(MS);
                    let again = Event::Frame(stream, Up::Summary { epoch, batch, names, last });
                    return self.after(later, world::Event::Global(self.global.boot, again));
                }
                let mut refused = Vec::new();
                for (i, listed) in (0..).zip(names) {
                    let made = self.machine().begin_read(now, epoch, &listed.name, listed.reg_seq);
                    let bound = self.global.visible.get(&listed.name).map(|e| e.bind_rev);
                    let unchecked = self.planted(Planted::SummaryUnchecked) && bound.is_some();
                    let equal = unchecked || bound == Some(listed.bind_rev);
                    self.note_registration(stream, &listed.name, listed.reg_seq);
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
        let responder = Responder { stream, flight: request.flight };
        let Request { epoch, reg_seq, .. } = request;
        match request.ask {
            Ask::Resolve { name, cache, .. } => {
                self.note_registration(stream, &name, reg_seq);
                self.begin_read((responder, epoch), vec![(name, reg_seq)], cache, false);
            }
            Ask::ResolveMany { names, cache, .. } => {
                let asked = names.into_iter().zip(reg_seq.0..).map(|(name, seq)| (name, RegSeq(seq)));
                self.begin_read((responder, epoch), asked.collect(), cache, true);
            }
            Ask::Change { id, command } => self.change(responder, (epoch, reg_seq), id, command),
        }
    }

    fn change(
        &mut self,
        responder: Responder,
        (epoch, reg_seq): (Epoch, RegSeq),
        id: RequestId,
        command: Command,
    ) {
        let now = self.global_now();
        self.spare(responder.stream);
        let (mut names, drains, spared, mode) = self.wanted(id, &command);
        let mut wanted = None;
        if let Command::DeletePrefix { prefix } = &command {
            if self.planted(Planted::PrefixTakesWhatIsThere) {
                names = self.global.visible.keys().filter(|name| prefix.covers(name)).cloned().collect();
            } else {
                wanted = Some(prefix.clone());
            }
            self.note_prefix(id, prefix);
        }
        let sets = matches!(command, Command::Set { .. });
        if let Command::Set { name, .. } = &command {
            self.note_registration(responder.stream, name, reg_seq);
        }
        let caller = (sets && reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
        let caller = caller.filter(|_| !self.planted(Planted::UnqueuedSet));
        let (known, job) = (self.known_as(id), Job { id, command, responder, drained: drains });
        let change = Submission { id: known, names, drains, spared, mode, job, caller, responder };
        match wanted {
            Some(prefix) => self.machine().submit_prefix(now, prefix, change),
            None => self.machine().submit(now, change),
        }
    }

    /// The names that a change wants, whether it drains, the names that it spares, and when it is answered.
    fn wanted(&self, id: RequestId, command: &Command) -> (Vec<Name>, bool, Vec<Name>, DeleteMode) {
        let (strict, none) = (DeleteMode::Strict, Vec::new());
        match command {
            Command::Set { .. } if self.planted(Planted::UnqueuedSet) => {
                // A name of its own, which nobody else wants.
                let name = Name::of(format!("set {:?} {}", id.client, id.n)).expect("a short key");
                (vec![name], false, none, strict)
            }
            // Whether it is likely to bind a name anew is guessed, and the guess may be wrong either way.
            Command::Set { name, .. } => {
                let guess =
                    self.cfg.replaces && (self.global.visible.contains_key(name) || id.n.is_multiple_of(3));
                let drains = guess && !id.n.is_multiple_of(5) && !self.planted(Planted::UndrainedReplace);
                (vec![name.clone()], drains, none, strict)
            }
            Command::Delete { names, mode } => {
                (names.clone(), !self.planted(Planted::UndrainedDelete), none, *mode)
            }
            Command::Copy { from, to } => (vec![from.clone(), to.clone()], false, vec![to.clone()], strict),
            Command::Rename { from, to } => {
                let drains = !self.planted(Planted::UndrainedRename);
                (vec![from.clone(), to.clone()], drains, vec![to.clone()], strict)
            }
            Command::Apply(_) => unreachable!("no client here applies transactions"),
            Command::DeletePrefix { .. } => {
                (Vec::new(), !self.planted(Planted::UndrainedPrefix), none, strict)
            }
        }
    }

    fn begin_read(
        &mut self,
        (responder, epoch): (Responder, Epoch),
        names: Vec<(Name, RegSeq)>,
        cache: bool,
        is_many: bool,
    ) {
        let now = self.global_now();
        let registers = cache && !self.planted(Planted::ReadBeforeRegistering);
        let mut asked = Vec::new();
        for (name, reg_seq) in names {
            let made = if registers { self.machine().begin_read(now, epoch, &name, reg_seq) } else { None };
            asked.push(Asked { name, reg_seq, made, found: None });
        }
        let read = Read { responder, epoch, asked, head: Revision(0), is_many };
        self.global.next_read += 1;
        let no = self.global.next_read;
        self.global.process.as_mut().expect("global is up").reads.insert(no, read);
        self.soon(Event::Read(no));
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
            for asked in &mut read.asked {
                asked.found = self.global.visible.get(&asked.name).cloned();
            }
            read.head = head;
            if self.planted(Planted::PiecemealReads) {
                // Long enough that something changes in between.
                let delay = self.rng.between(1, 30) * MS;
                return self.after(delay, world::Event::Global(self.global.boot, Event::Answer(no)));
            }
            self.soon(Event::Answer(no));
        }
    }

    pub(super) fn answer_read(&mut self, no: u64) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        let Some(mut read) = process.reads.remove(&no) else { return };
        let mut resolved = Vec::new();
        for asked in &mut read.asked {
            if self.planted(Planted::ReadBeforeRegistering) {
                asked.made = self.machine().begin_read(now, read.epoch, &asked.name, asked.reg_seq);
            }
            // The last of many is read later than the others.
            if self.planted(Planted::PiecemealReads) && !resolved.is_empty() {
                asked.found = self.global.visible.get(&asked.name).cloned();
            }
            let found = asked.found.is_some();
            let made = asked.made;
            let is_many = read.is_many;
            let mut cacheable =
                made.and_then(|made| self.end_read(&asked.name, read.epoch, made, found, is_many));
            if !found && cacheable.is_some() {
                read.head = self.machine().head();
            }
            let under = || self.planted(Planted::CachesUnderBusyPrefix) && self.is_under_prefix(&asked.name);
            if found && (self.planted(Planted::AlwaysCacheable) || under()) {
                cacheable = Some(read.epoch);
            }
            resolved.push(Resolved { entry: asked.found.clone(), carried: None, cacheable, head: read.head });
        }
        let answer = match resolved.pop() {
            Some(one) if !read.is_many => Answer::Resolved(one),
            last => Answer::ResolvedMany(resolved.into_iter().chain(last).collect()),
        };
        self.reply(read.responder, answer);
    }

    fn end_read(
        &mut self,
        name: &Name,
        epoch: Epoch,
        made: Registration,
        found: bool,
        is_many: bool,
    ) -> Option<Epoch> {
        let now = self.global_now();
        let undrained = self.planted(Planted::UndrainedPresence);
        let keeps = self.machine().keeps_absences(epoch) && !is_many;
        match found {
            // The Local may keep it, and nobody remembers that.
            false if undrained && keeps => {
                let busy = self.machine().is_busy(name);
                self.machine().end_read(now, name, made, false);
                (!busy).then_some(epoch)
            }
            false if keeps => self.machine().end_absent(now, name, made),
            found => self.machine().end_read(now, name, made, found),
        }
    }

    pub(super) fn reply(&mut self, to: Responder, answer: Answer) {
        let now = self.global_now();
        if self.net.of(to.stream).at_global {
            let born = self.machine().born(now);
            let reply = Reply { flight: to.flight, answer, born, journal_ms: 0 };
            self.send(to.stream, false, world::Event::Reply(to.stream, reply));
        }
    }
}
