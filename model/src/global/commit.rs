//! Global's committer: what is drained becomes durable and visible, then its names are free.

use super::Job;
use crate::planted::Planted;
use crate::scenario::Kind;
use crate::state::{Stage, State, value_of};
use dstore_shared::{Command, DeleteOutcome, Entry, Name, Outcome, Revision, SetOutcome};

impl State {
    /// Everything that is with the committer becomes durable and visible, in order.
    pub(crate) fn show(&mut self) {
        let queue = std::mem::take(&mut self.global().queue);
        for (op, job) in queue {
            let outcome = self.execute(&job);
            let head = self.global.head;
            self.global().shown.push((op, outcome, head));
        }
    }

    /// Makes a change: from now on readers see it.
    fn execute(&mut self, job: &Job) -> Outcome {
        let (outcome, visible) = self.outcome(&job.command);
        let before = self.global().durable.take().unwrap_or(self.global.visible.clone());
        let call = (job.id.client.0 as usize).wrapping_sub(1);
        let twice = self.calls.get_mut(call).is_some_and(|call| std::mem::replace(&mut call.executed, true));
        if twice {
            self.wrong("a change was made twice");
        }
        let global = self.global();
        if visible != before {
            global.head = global.head.next();
            global.outcomes.push((job.id, outcome.clone()));
            if let Command::Delete { names, .. } = &job.command {
                global.voided.push((global.head, names.clone()));
            }
        }
        self.see(&visible);
        outcome
    }

    /// With [`Planted::VisibleBeforeSync`]: readers see what is not on the disk yet.
    pub(crate) fn show_early(&mut self) {
        if !self.is_planted(Planted::VisibleBeforeSync) || self.global.durable.is_some() {
            return;
        }
        let Some((_, job)) = self.global.queue.first().cloned() else { return };
        let (_, visible) = self.outcome(&job.command);
        // What is decided when it is durable is decided by what was there before.
        let global = self.global();
        global.durable = Some(std::mem::replace(&mut global.visible, visible));
    }

    /// What readers see changes; whoever waits for a value might be told any that was true meanwhile.
    pub(crate) fn see(&mut self, visible: &[Option<Entry>; 2]) {
        self.global().visible.clone_from(visible);
        for call in &mut self.calls {
            if let Kind::Get(key) = call.kind
                && !matches!(call.stage, Stage::Idle | Stage::Done | Stage::Lost)
            {
                call.true_since |= 1 << value_of(visible[key].clone());
            }
        }
    }

    fn outcome(&self, command: &Command) -> (Outcome, [Option<Entry>; 2]) {
        let mut visible = self.global.durable.clone().unwrap_or(self.global.visible.clone());
        let (head, next) = (self.global.head, self.global.head.next());
        let outcome = match command {
            Command::Set { name, hash, size, .. } => {
                let entry =
                    Entry { hash: *hash, size: *size, bind_rev: next, expires_at: None, content_type: None };
                let held = &mut visible[self.key(name)];
                Outcome::Set(match held.clone() {
                    Some(held) if held.hash == *hash => SetOutcome::Unchanged(held),
                    Some(held) => SetOutcome::Occupied(held),
                    None => SetOutcome::Stored(held.insert(entry).clone()),
                })
            }
            Command::Delete { names, .. } => {
                let mut unbind = |name: &Name| visible[self.key(name)].take().is_some();
                let removed: Vec<bool> = names.iter().map(&mut unbind).collect();
                let revision: Revision = if removed.contains(&true) { next } else { head };
                Outcome::Delete(DeleteOutcome { removed, revision })
            }
            _ => unreachable!("callers of a model SET and DEL"),
        };
        (outcome, visible)
    }

    /// The first change that is visible is finished.
    pub(crate) fn finish(&mut self) {
        if self.global.shown.is_empty() {
            return;
        }
        let (op, outcome, head) = self.global().shown.remove(0);
        self.at_global(|m, now| m.finish(now, op, &Ok(outcome), head));
    }
}
