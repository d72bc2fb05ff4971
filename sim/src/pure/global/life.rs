//! The lives of Global's process: how each starts, stops in order, and dies.

use super::{Event, HISTORY, Process};
use crate::pure::planted::Planted;
use crate::pure::rng::MS;
use crate::pure::world::{self, World};
use dstore_global::change::Change;
use dstore_global::sessions::{Boot, Sessions};
use dstore_shared::{Name, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

impl World {
    pub(in crate::pure) fn start_global(&mut self) {
        let clean = std::mem::take(&mut self.global.clean) || self.planted(Planted::SkipGrace);
        if self.planted(Planted::ForgetLeaseGrown) {
            self.global.lease_max = self.cfg.lease;
        }
        let mut grace = if clean { Duration::ZERO } else { self.global.grace() };
        let now = self.global_now();
        self.global.boot += 1;
        self.global.paused_until = 0;
        self.global.async_dels &= !clean && !self.planted(Planted::ForgottenAsync);
        if self.planted(Planted::GraceEndsEarly) && !clean {
            self.await_all(now + grace);
            grace = Duration::ZERO;
        }
        let all_wait = self.global.negatives || self.global.async_dels;
        let (number, head) = (self.global.boot, self.global.head);
        let number = if self.planted(Planted::BootReused) { 1 } else { number };
        let boot = Boot { history: HISTORY, number, head, at: now, grace, all_wait };
        let mut m = Sessions::new(self.global.terms.clone(), boot);
        for (id, outcome) in &self.global.outcomes {
            m.restore_outcome(*id, outcome.clone());
        }
        let (floor, told) = self.redone();
        m.restore_log(told, self.voided_after(floor));
        let feed = self.feed_after(floor);
        let (reads, queue) = (BTreeMap::new(), VecDeque::new());
        let (failed, retiring, allowing, tick_at) = (false, false, false, None);
        let granted = self.cfg.lease;
        self.global.process = Some(Process {
            m,
            reads,
            queue,
            batch: None,
            failed,
            feed,
            grace,
            granted,
            retiring,
            allowing,
            tick_at,
        });
        self.check_recovered();
        self.after_global();
    }

    /// From where on the journal is redone: after the latest checkpoint, which is anywhere. And what is told of it.
    fn redone(&mut self) -> (Revision, Revision) {
        let (head, oldest) = (self.global.head, self.global.forgotten);
        let back = self.rng.pick(&[0, 5, 50, u64::MAX]);
        let floor = Revision(head.0 - self.rng.between(0, back.min(head.0 - oldest.0)));
        (floor, if self.planted(Planted::ForgetFloor) { Revision(0) } else { floor })
    }

    /// What became void after `floor`, as the journal tells.
    fn voided_after(&self, floor: Revision) -> Vec<(Revision, Vec<Name>)> {
        let commits = self.global.commits.iter().filter(|commit| commit.revision > floor);
        let voided = commits.map(|commit| {
            let unbound = commit.changes.iter().filter_map(|change| match change {
                Change::Unbind { name } | Change::Rebind { name, .. } => Some(name.clone()),
                _ => None,
            });
            (commit.revision, unbound.collect::<Vec<_>>())
        });
        voided.filter(|(_, names)| !names.is_empty()).collect()
    }

    /// The process is gone; of what it appended, the disk has a prefix.
    pub(in crate::pure) fn crash_global(&mut self) {
        let Some(mut process) = self.global.process.take() else { return };
        let batch = process.batch.take();
        let appended = batch.map_or(Vec::new(), |b| b.records);
        let kept = if appended.is_empty() { 0 } else { self.rng.between(0, appended.len() as u64) };
        if let Some(before) = self.global.before.take() {
            self.global.visible = before;
        }
        for record in appended.into_iter().take(kept as usize) {
            self.show(&record, true);
        }
        // Nobody is granted anything more.
        let until = self.now + self.longest_lingering();
        self.history.bounded(self.now, None, until);
        self.forget_sabotage();
        for stream in self.net.open_streams(None) {
            self.net.of(stream).at_global = false;
            self.cut(stream, self.is_calm());
        }
        self.global.inbox.clear();
        let most = self.rng.pick(&[30, 300, 1_500]);
        let away = self.rng.between(5, most) * MS;
        self.after(away, world::Event::GlobalStarts);
    }

    pub(in crate::pure) fn stop_global(&mut self) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        process.retiring = true;
        process.m.retire(now);
        self.after_global();
        self.after(10 * MS, world::Event::Global(self.global.boot, Event::Quiet));
    }

    pub(super) fn look_whether_quiet(&mut self) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        process.m.tick(now);
        let idle = process.batch.is_none() && process.queue.is_empty() && process.m.counts().ops == 0;
        let quiet = process.m.is_quiet(now) || self.cfg.is_planted(Planted::StopsWithLeases);
        if quiet && idle {
            self.global.clean = true;
            return self.crash_global();
        }
        self.after(10 * MS, world::Event::Global(self.global.boot, Event::Quiet));
    }

    pub(in crate::pure) fn is_stopping(&self) -> bool {
        self.global.process.as_ref().is_none_or(|p| p.retiring || p.failed)
    }
}
