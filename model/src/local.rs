//! A Local: its machine, its table of names, and hits as a node makes them.

mod names;

use crate::happen::Said;
use crate::planted::Planted;
use crate::scenario::{Kind, Scenario};
use crate::seen::Seen;
use crate::state::{Call, Caller, Stage, State, identity, value_of};
use dstore_local::coherence::{Action, Bounds, Coherence, Identity};
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::frame::{Answer, Down, Reply};
use dstore_shared::{
    Entry, Epoch, FlightId, Incarnation, LocalId, Moment, Name, Outcome, RegSeq, SetOutcome,
};
pub(crate) use names::{Held, Names};

/// One life of a Local.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub m: Coherence<Names, Caller>,
    pub names: Names,
    pub who: (LocalId, Incarnation),
    pub life: u64,
    /// As hits see them.
    pub valid_until: Moment,
    pub era: u64,
    /// Its session stream.
    pub session: Option<u64>,
    /// Counts its connections for requests.
    pub connection: u64,
    /// The present one is broken.
    pub broken: bool,
    /// Bindings that were found, and whose blobs are on their way.
    pub found: Vec<(FlightId, Name, Entry)>,
    /// When it made its last KEEP.
    pub kept_at: u64,
}

impl Local {
    pub fn new(scenario: &Scenario, i: usize, life: u64) -> Self {
        let who = identity(scenario, i, life);
        let (local_id, incarnation) = who;
        let identity = Identity { local_id, incarnation, label: String::new() };
        Self {
            m: Coherence::new(identity, Bounds::default()),
            names: Names::new(scenario.planted),
            who,
            life,
            valid_until: Moment::ZERO,
            era: 0,
            session: None,
            connection: (i as u64) << 48 | life << 32,
            broken: false,
            found: Vec::new(),
            kept_at: 0,
        }
    }

    /// What a hit would find: the value and the moment until which it may be told.
    pub fn servable(&self, name: &Name, any_era: bool) -> Option<Held> {
        self.names.get(name).filter(|held| held.era >= self.era || any_era)
    }

    pub fn canon(&self, now: Moment, ticks: u64, answerable: &[u64], into: &mut Canon) {
        self.m.canon(now, answerable, into);
        let (local, life) = self.who;
        let held = self.names.all();
        into.count(held.len());
        for (name, held) in held {
            name.canon(into);
            held.entry.canon(into);
            into.ranked(Sort::registrations(local, life), held.reg_seq.0);
            into.put(held.era >= self.era);
            into.put(held.era >= self.m.era());
        }
        into.left(self.valid_until, now);
        into.put(self.life);
        into.maybe(self.session, |into, stream| into.named(Sort::Stream, stream));
        into.put(self.broken);
        into.count(self.found.len());
        for (flight, _, _) in &self.found {
            into.ranked(Sort::flights(local, life), flight.0);
        }
        into.put(self.kept_at == ticks);
    }
}

impl State {
    /// Gives a Local's machine an event, and carries out what it wants.
    pub(crate) fn at_local<T>(&mut self, i: usize, event: impl FnOnce(&mut Local, Moment) -> T) -> T {
        let now = self.local_now();
        let result = event(self.local(i), now);
        loop {
            let actions = self.local(i).m.take_actions();
            if actions.is_empty() {
                return result;
            }
            for action in actions {
                self.carry_out_local(i, action);
            }
        }
    }

    fn carry_out_local(&mut self, i: usize, action: Action<Caller>) {
        match action {
            Action::ValidUntil(until) => self.local(i).valid_until = until,
            Action::Era(era) => self.local(i).era = era,
            Action::Send(frame) => {
                let session = self.locals[i].session;
                let stream = session.and_then(|id| self.stream_of(id));
                if let Some(stream) = stream.filter(|stream| !stream.cut && stream.at_global) {
                    stream.up.push_back(frame);
                }
            }
            Action::Ask(request) => {
                if !self.locals[i].broken {
                    let line = self.line(i);
                    let at = self.asks.partition_point(|(l, r)| (*l, r.flight) < (line, request.flight));
                    self.asks.insert(at, (line, request));
                }
            }
            Action::Found(flight, entry, _) => {
                let Some(name) = self.locals[i].m.name_of(flight) else {
                    return self.wrong("a binding without a name was found");
                };
                self.local(i).found.push((flight, name, entry));
                if !self.run.scenario.split.fills {
                    let last = self.locals[i].found.len() - 1;
                    self.complete(i, last);
                }
            }
            Action::Tell(waiting, entry, _) => self.tell(&waiting, Said::Value(value_of(entry))),
            Action::TellMany(..) => self.wrong("an answer about many names"),
            Action::Refused(..) => self.wrong("a caller was refused"),
            Action::Reconnect(why) => self.wrong(why),
        }
    }

    /// The blob of a binding is there.
    pub(crate) fn complete(&mut self, i: usize, at: usize) {
        let poisoned_too = self.is_planted(Planted::InstallPoisoned);
        let era = self.locals[i].m.era();
        let (flight, name, entry) = self.local(i).found.remove(at);
        let (waiting, installed) = self.at_local(i, |local, _| {
            let names = &local.names;
            local.m.complete(flight, |reg_seq, era| {
                names.install(name.clone(), Held { entry: entry.clone(), reg_seq, era });
                true
            })
        });
        if poisoned_too && !installed {
            self.local(i).names.install(name, Held { entry: entry.clone(), reg_seq: RegSeq(0), era });
        }
        self.note(if installed { Seen::Install } else { Seen::NotInstalled });
        self.tell(&waiting, Said::Value(value_of(Some(entry))));
    }

    pub(crate) fn frame_at_local(&mut self, i: usize, frame: Down) {
        let holds = !self.locals[i].names.all().is_empty();
        self.note_welcome(&frame, holds);
        self.at_local(i, |local, now| {
            local.m.down(now, frame, &local.names);
            local.m.flush_ack();
        });
    }

    pub(crate) fn reply_at_local(&mut self, i: usize, reply: Reply) {
        match reply.answer {
            Answer::Resolved(resolved) => self.at_local(i, |local, now| {
                local.m.saw(reply.born);
                local.m.resolved(now, reply.flight, resolved);
            }),
            Answer::ResolvedMany(_) => self.wrong("an answer about many names"),
            Answer::Changed { outcome, cacheable, .. } => self.changed(i, reply.flight, &outcome, cacheable),
            Answer::Failed(_) => {
                let waiting = self.at_local(i, |local, _| local.m.failed(reply.flight));
                self.tell(&waiting, Said::Failed);
            }
        }
    }

    fn changed(&mut self, i: usize, flight: FlightId, outcome: &Outcome, cacheable: Option<Epoch>) {
        let (waiting, installed) = self.at_local(i, |local, _| {
            let names = &local.names;
            local.m.changed(flight, outcome, cacheable, |name, entry, _, reg_seq, era| {
                names.install(name.clone(), Held { entry: entry.clone(), reg_seq, era });
                true
            })
        });
        if installed {
            self.note(Seen::Install);
        }
        let effect = match outcome {
            Outcome::Set(SetOutcome::Stored(_)) => true,
            Outcome::Delete(done) => done.removed.contains(&true),
            _ => false,
        };
        self.tell(&waiting, Said::Changed(effect));
    }

    /// A GET is begun: a hit, or a question to Global.
    pub(crate) fn get(&mut self, call: usize) {
        let (i, valid_until) = (self.calls[call].local, self.locals[self.calls[call].local].valid_until);
        if self.run.scenario.split.hits {
            self.calls[call].stage = Stage::Loaded(valid_until);
            return;
        }
        match self.lookup(call) {
            Some(value) if self.may_serve(valid_until) => self.hit(call, value),
            _ => self.miss(i, call),
        }
    }

    /// What the Local holds for a GET; not whether it may be told.
    pub(crate) fn lookup(&self, call: usize) -> Option<u8> {
        let Call { local, kind, .. } = self.calls[call];
        let Kind::Get(key) = kind else { return None };
        let any_era = self.is_planted(Planted::IgnoreEra);
        let held = self.locals[local].servable(&self.run.names[key], any_era)?;
        Some(value_of(Some(held.entry)))
    }

    pub(crate) fn may_serve(&self, valid_until: Moment) -> bool {
        self.local_now() < valid_until || self.is_planted(Planted::ServePastLease)
    }

    pub(crate) fn hit(&mut self, call: usize, value: u8) {
        self.note(Seen::Hit);
        self.tell(&[Caller(call)], Said::Value(value));
    }

    pub(crate) fn miss(&mut self, i: usize, call: usize) {
        self.calls[call].stage = Stage::Waiting;
        self.note(Seen::Miss);
        let Kind::Get(key) = self.calls[call].kind else { return };
        let name = self.run.names[key].clone();
        if self.at_local(i, |local, now| local.m.read(now, &name, None, Caller(call))).is_err() {
            self.wrong("a read was refused");
        }
    }
}
