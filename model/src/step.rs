//! What may happen next: one step, at one place.

use crate::planted::Planted;
use crate::scenario::{Kind, Scenario};
use crate::state::{Stage, State};
use dstore_shared::frame::{Down, Up};

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A caller begins an operation: the so many-th of its menu.
    Begin(usize, usize),
    /// A hit goes on.
    GoOn(usize),
    /// A caller asks again, at the other Local.
    Again(usize),
    /// The next frame of a stream arrives at Global.
    Up(u64),
    /// The next frame of a stream arrives at its Local.
    Down(u64),
    /// A request arrives at Global.
    Ask(usize),
    /// A reply arrives at its Local.
    Reply(usize),
    /// A read at Global looks at the index.
    Look(usize),
    /// It is confirmed and answered.
    Confirm(usize),
    /// A blob is there.
    Blob(usize, usize),
    /// Listed names are looked at.
    List(usize),
    /// What is drained is on the disk and visible.
    Show,
    /// With a planted bug: it is visible, and not on the disk.
    ShowEarly,
    /// A visible change is finished.
    Finish,
    /// Half a lease passes.
    Tick,
    /// A Local asks for a renewal.
    Keep(usize),
    /// A session stream breaks.
    Cut(u64),
    /// An end hears of it.
    LostAtGlobal(u64),
    /// The other one.
    LostAtLocal(u64),
    /// A Local opens a session stream.
    Connect(usize),
    /// A Local's request stream breaks, and another one opens.
    Break(usize),
    /// A Local opens a request stream to a Global that is back.
    Reopen(usize),
    /// A Local dies and begins a new life.
    Crash(usize),
    /// Global dies and is back; what is with the committer is on the disk or not.
    CrashGlobal(bool),
    /// A Local evicts a name.
    Evict(usize, usize),
}

impl State {
    /// Every step that may follow.
    pub(crate) fn steps(&self, into: &mut Vec<Step>) {
        if self.wrong.is_some() {
            return;
        }
        self.steps_of_callers(into);
        self.steps_of_streams(into);
        self.steps_of_global(into);
        for i in 0..2 {
            self.steps_of_local(i, into);
        }
        into.extend((0..self.asks.len()).map(Step::Ask));
        into.extend((0..self.replies.len()).map(Step::Reply));
        if self.left.ticks > 0 {
            into.push(Step::Tick);
        }
    }

    fn steps_of_callers(&self, into: &mut Vec<Step>) {
        let ops = &self.run.scenario.ops;
        for (i, call) in self.calls.iter().enumerate() {
            match call.stage {
                Stage::Idle => {
                    let earlier =
                        self.calls[..i].iter().zip(ops).filter(|(_, op)| op.client == ops[i].client);
                    if earlier.into_iter().all(|(call, _)| call.is_over()) {
                        into.extend((0..ops[i].menu.len()).map(|choice| Step::Begin(i, choice)));
                    }
                }
                Stage::Loaded(_) | Stage::Looked(..) => into.push(Step::GoOn(i)),
                Stage::Waiting | Stage::Lost
                    if self.left.retries > 0 && !matches!(call.kind, Kind::Get(_)) =>
                {
                    into.push(Step::Again(i));
                }
                _ => {}
            }
        }
    }

    fn steps_of_streams(&self, into: &mut Vec<Step>) {
        for stream in &self.streams {
            let id = stream.id;
            if stream.at_global && !stream.up.is_empty() {
                into.push(Step::Up(id));
            }
            if stream.at_local && !stream.down.is_empty() {
                into.push(Step::Down(id));
            }
            if self.left.cuts > 0 && !stream.cut && stream.at_global && stream.at_local {
                into.push(Step::Cut(id));
            }
            if stream.at_global && (stream.cut || !stream.at_local) {
                into.push(Step::LostAtGlobal(id));
            }
            if stream.at_local && (stream.cut || !stream.at_global) {
                into.push(Step::LostAtLocal(id));
            }
        }
    }

    fn steps_of_global(&self, into: &mut Vec<Step>) {
        let global = &self.global;
        if !global.queue.is_empty() {
            into.push(Step::Show);
            if self.is_planted(Planted::VisibleBeforeSync) && global.durable.is_none() {
                into.push(Step::ShowEarly);
            }
        }
        if !global.shown.is_empty() {
            into.push(Step::Finish);
        }
        for (i, read) in global.reads.iter().enumerate() {
            into.push(if read.looked { Step::Confirm(i) } else { Step::Look(i) });
        }
        for (i, (_, frame)) in global.listings.iter().enumerate() {
            if let Up::Summary { epoch, .. } = frame
                && self.is_listing_due(*epoch)
            {
                into.push(Step::List(i));
            }
        }
        if self.left.global_crashes > 0 {
            into.push(Step::CrashGlobal(false));
            if !global.queue.is_empty() {
                into.push(Step::CrashGlobal(true));
            }
        }
    }

    fn steps_of_local(&self, i: usize, into: &mut Vec<Step>) {
        let local = &self.locals[i];
        let has_session = self.run.scenario.sessions[i];
        if has_session && local.session.is_none() && self.left.hellos > 0 {
            into.push(Step::Connect(i));
        }
        if self.may_keep(i) {
            into.push(Step::Keep(i));
        }
        if local.broken {
            into.push(Step::Reopen(i));
        } else if self.left.breaks > 0 && self.has_requests(i) {
            into.push(Step::Break(i));
        }
        if self.left.crashes > 0 && has_session {
            into.push(Step::Crash(i));
        }
        into.extend((0..local.found.len()).map(|at| Step::Blob(i, at)));
        for key in 0..2 {
            if self.left.evictions > 0 && local.names.get(&self.run.names[key]).is_some() {
                into.push(Step::Evict(i, key));
            }
        }
    }

    /// One KEEP at a time, and one a tick: more of them tell Global nothing.
    fn may_keep(&self, i: usize) -> bool {
        let local = &self.locals[i];
        let stream = self.streams.iter().find(|stream| Some(stream.id) == local.session);
        local.m.is_open()
            && local.kept_at != self.ticks
            && stream.is_some_and(|stream| {
                !stream.up.iter().any(|frame| matches!(frame, Up::Keep { .. }))
                    && !stream.down.iter().any(|frame| matches!(frame, Down::Lease { .. }))
            })
    }

    fn has_requests(&self, i: usize) -> bool {
        let line = self.line(i);
        self.asks.iter().any(|(of, _)| *of == line)
            || self.replies.iter().any(|(of, _)| *of == line)
            || self.global.reads.iter().any(|read| read.to.line == line)
            || self.calls.iter().any(|call| call.local == i && call.stage == Stage::Waiting)
    }
}

impl Scenario {
    /// The state as it begins.
    pub fn begin(&self) -> State {
        State::new(crate::explore::run_of(self))
    }
}
