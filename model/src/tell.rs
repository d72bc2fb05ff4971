//! A step in words, for whoever reads a counterexample.

use crate::state::State;
use crate::step::Step;

impl State {
    /// What a step would be from here.
    pub(crate) fn tells(&self, step: Step) -> String {
        let stream = |id: u64| self.streams.iter().find(|stream| stream.id == id);
        match step {
            Step::Begin(call, choice) => {
                let (local, kind) = self.run.scenario.ops[call].menu[choice];
                format!("caller {call}: {kind:?} at local {local}")
            }
            Step::Up(id) => match stream(id).and_then(|s| Some((s.line.local, s.up.front()?))) {
                Some((local, frame)) => format!("global <- local {local}: {frame:?}"),
                None => format!("{step:?}"),
            },
            Step::Down(id) => match stream(id).and_then(|s| Some((s.line.local, s.down.front()?))) {
                Some((local, frame)) => format!("local {local} <- global: {frame:?}"),
                None => format!("{step:?}"),
            },
            Step::Ask(at) => {
                let (line, request) = &self.asks[at];
                format!("global <- local {}: {:?} {:?}", line.local, request.flight, request.ask)
            }
            Step::Reply(at) => {
                let (line, reply) = &self.replies[at];
                format!("local {} <- global: {:?} {:?}", line.local, reply.flight, reply.answer)
            }
            Step::Look(at) => format!("global looks at {:?}", self.global.reads[at].name),
            Step::Confirm(at) => format!("global confirms {:?}", self.global.reads[at].name),
            other => format!("{other:?}"),
        }
    }
}
