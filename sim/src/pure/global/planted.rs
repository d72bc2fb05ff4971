//! What planted bugs make of what goes into Global's machine and comes out of it.

use super::{Job, Responder};
use crate::pure::config::Config;
use crate::pure::planted::Planted;
use crate::pure::world::World;
use dstore_global::sessions::{Action, StreamId, Terms};
use dstore_shared::frame::{Down, Hello, Up};
use dstore_shared::{
    ClientId, Epoch, Incarnation, LocalId, Moment, Name, Outcome, Prefix, RegSeq, RequestId, Revision,
    SetOutcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the saboteur of a run has to remember.
#[derive(Debug, Default)]
pub(super) struct Sabotage {
    /// The session streams that were opened: by whom, and the epoch each got.
    sessions: BTreeMap<u64, (LocalId, Incarnation, Epoch)>,
    /// A WELCOME was sent on this stream, and no LEASE yet.
    greeted: Option<StreamId>,
    /// INVs of who asked for the change under way, to be acknowledged for it.
    spared: Option<(u64, Vec<(Epoch, u64)>)>,
    /// By request: how often its outcome was forgotten.
    forgotten: BTreeMap<(ClientId, u64), u128>,
    /// DELs by prefix under way.
    prefixes: Vec<(RequestId, Prefix)>,
    /// By Local and name: the newest registration that it asked for.
    newest: BTreeMap<(usize, Name), RegSeq>,
    /// Until when nothing is committed, unless all of these are back before.
    awaited: Option<(Moment, BTreeSet<(LocalId, Incarnation)>)>,
}

/// The terms of a run; with [`Planted::NeverOverdue`] an ack is never overdue.
pub(super) fn terms(cfg: &Config) -> Terms {
    let terms = Terms::for_lease(cfg.lease);
    if cfg.is_planted(Planted::NeverOverdue) {
        return Terms { ack_max: Duration::from_secs(3_600), ..terms };
    }
    terms
}

impl World {
    /// The machine is not told, or told of something else, that a stream broke.
    pub(super) fn hides_loss(&mut self, now: Moment, stream: u64) -> bool {
        if self.planted(Planted::ReleaseOnStreamLoss) {
            self.say_bye(now, stream);
        }
        self.planted(Planted::FenceReleases) || self.planted(Planted::ResumeReleases)
    }

    fn say_bye(&mut self, now: Moment, stream: u64) {
        if let Some((.., epoch)) = self.global.sabotage.sessions.remove(&stream) {
            self.machine().bye(now, StreamId(stream), epoch);
        }
    }

    /// Before a HELLO comes to the machine.
    pub(super) fn before_hello(&mut self, now: Moment, hello: &mut Hello) {
        if self.planted(Planted::ReplayOffByOne) {
            hello.applied_rev = hello.applied_rev.next().min(self.global.head);
        }
        let (resumes, fences) = (self.planted(Planted::ResumeReleases), self.planted(Planted::FenceReleases));
        if !resumes && !fences {
            return;
        }
        let sessions = &self.global.sabotage.sessions;
        let of_it = sessions.iter().filter(|(_, (local, ..))| *local == hello.local_id);
        let ended = of_it.filter(|(_, (_, incarnation, _))| {
            resumes && *incarnation == hello.incarnation || fences && *incarnation < hello.incarnation
        });
        for stream in ended.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.say_bye(now, stream);
        }
    }

    /// A session has begun.
    pub(super) fn after_hello(&mut self, now: Moment, stream: u64, hello: &Hello, epoch: Epoch) {
        if self.cfg.planted.is_none() {
            return;
        }
        let seat = (hello.local_id, hello.incarnation);
        self.global.sabotage.sessions.insert(stream, (seat.0, seat.1, epoch));
        if let Some((_, awaited)) = &mut self.global.sabotage.awaited {
            awaited.remove(&seat);
        }
        if self.planted(Planted::NoWildcard) {
            self.machine().summarized(now, StreamId(stream), epoch, u64::MAX, Vec::new(), true);
        }
    }

    /// What becomes of a frame of a Local.
    pub(super) fn doctored_up(&mut self, stream: u64, frame: Up) -> Up {
        match frame {
            Up::Summary { epoch, batch, names, .. } if self.planted(Planted::WildcardEndsEarly) => {
                Up::Summary { epoch, batch, names, last: true }
            }
            Up::Drop { epoch, names } if self.planted(Planted::DropUnnumbered) => {
                let local = self.net.of(stream).local;
                let newest = &self.global.sabotage.newest;
                let any = |(name, seq): (Name, RegSeq)| {
                    let seq = newest.get(&(local, name.clone())).copied().unwrap_or(seq);
                    (name, seq)
                };
                Up::Drop { epoch, names: names.into_iter().map(any).collect() }
            }
            frame => frame,
        }
    }

    /// Answers the KEEP of a session that has run out.
    pub(super) fn revive(&mut self, now: Moment, stream: u64, n: u64) {
        let Some((local, incarnation, epoch)) = self.global.sabotage.sessions.get(&stream).copied() else {
            return;
        };
        let m = self.machine();
        if n > 0 && m.lease_end(local, incarnation).is_none() {
            let (lease, through, born) = (m.lease(), m.head(), m.born(now));
            self.send_session(StreamId(stream), Down::Lease { epoch, n, lease, through, born });
        }
    }

    /// A registration was asked for.
    pub(super) fn note_registration(&mut self, stream: u64, name: &Name, reg_seq: RegSeq) {
        if self.planted(Planted::DropUnnumbered) {
            let local = self.net.of(stream).local;
            self.global.sabotage.newest.insert((local, name.clone()), reg_seq);
        }
    }

    /// Moves the first LEASE of a session to right behind its WELCOME.
    pub(super) fn reorder(&mut self, actions: &mut Vec<Action<Job, Responder>>) {
        if !self.planted(Planted::LeaseBeforeInvs) {
            return;
        }
        let welcome = actions.iter().position(|a| matches!(a, Action::Send(_, Down::Welcome { .. })));
        let lease = actions.iter().position(|a| matches!(a, Action::Send(_, Down::Lease { n: 0, .. })));
        if let (Some(welcome), Some(lease)) = (welcome, lease) {
            let lease = actions.remove(lease);
            actions.insert(welcome + 1, lease);
        }
    }

    /// What becomes of a frame to a Local; `None` = it is left out.
    pub(super) fn doctored(&mut self, to: StreamId, frame: Down) -> Option<Down> {
        let sabotage = &mut self.global.sabotage;
        match &frame {
            Down::Welcome { .. } => sabotage.greeted = Some(to),
            Down::Lease { .. } => sabotage.greeted = None,
            _ => {}
        }
        let greeted = sabotage.greeted == Some(to);
        if let (Some((spared, acks)), Down::Inv { epoch, seq, .. }) = (&mut sabotage.spared, &frame)
            && *spared == to.0
        {
            acks.push((*epoch, *seq));
        }
        match (self.cfg.planted, frame) {
            (Some(Planted::NoRepeatedInvs), Down::Inv { .. })
            | (Some(Planted::ForgetsPrefix), Down::InvPrefix { .. })
                if greeted =>
            {
                None
            }
            (Some(Planted::NoWildcard), Down::Summarized { batch: u64::MAX, .. }) => None,
            (Some(Planted::NoWildcard), Down::Welcome { epoch, head, resumption, lease, born, loss, .. }) => {
                Some(Down::Welcome { epoch, head, resumption, lease, born, list: false, loss })
            }
            (Some(Planted::CountsLess), Down::Lease { epoch, n, lease, through, born }) => {
                Some(Down::Lease { epoch, n, lease: lease * 6 / 5, through, born })
            }
            (Some(Planted::UptoOneLess), Down::Inv { epoch, seq, name, upto }) => {
                Some(Down::Inv { epoch, seq, name, upto: Revision(upto.0.saturating_sub(1)) })
            }
            (_, frame) => Some(frame),
        }
    }

    /// Who asks for a change on `stream` is not waited for by it.
    pub(super) fn spare(&mut self, stream: u64) {
        if self.planted(Planted::SparesRequester) {
            let local = self.net.of(stream).local;
            self.global.sabotage.spared = self.locals[local].session().map(|session| (session, Vec::new()));
        }
    }

    /// Acknowledges what the requester of a change has hardly been sent.
    pub(super) fn ack_for_the_spared(&mut self) {
        if let Some((stream, acks)) = self.global.sabotage.spared.take() {
            let now = self.global_now();
            for (epoch, seq) in acks {
                self.machine().ack(now, StreamId(stream), epoch, seq);
            }
        }
    }

    /// The id under which the machine knows a request.
    pub(super) fn known_as(&self, id: RequestId) -> RequestId {
        let times = self.global.sabotage.forgotten.get(&(id.client, id.n)).copied().unwrap_or(0);
        RequestId { client: ClientId(id.client.0 + (times << 64)), ..id }
    }

    /// An op has ended.
    pub(super) fn note_finished(&mut self, id: RequestId, outcome: &Outcome) {
        let sabotage = &mut self.global.sabotage;
        sabotage.prefixes.retain(|(of, _)| *of != id);
        let nothing = match outcome {
            Outcome::Set(set) => !matches!(set, SetOutcome::Stored(_)),
            Outcome::Delete(done) => !done.removed.contains(&true),
            _ => false,
        };
        if nothing && self.planted(Planted::ForgetsNoEffect) {
            *self.global.sabotage.forgotten.entry((id.client, id.n)).or_default() += 1;
        }
    }

    pub(super) fn note_prefix(&mut self, id: RequestId, prefix: &Prefix) {
        if self.planted(Planted::CachesUnderBusyPrefix) {
            self.global.sabotage.prefixes.push((id, prefix.clone()));
        }
    }

    /// Whether `name` is under a prefix that may be busy.
    pub(super) fn is_under_prefix(&self, name: &Name) -> bool {
        self.global.sabotage.prefixes.iter().any(|(_, prefix)| prefix.covers(name))
    }

    /// A process begins without a grace, and commits nothing until all of before are back.
    pub(super) fn await_all(&mut self, until: Moment) {
        let sessions = std::mem::take(&mut self.global.sabotage.sessions);
        let before = sessions.into_values().map(|(local, incarnation, _)| (local, incarnation));
        let lives = |seat: &(LocalId, Incarnation)| self.locals.iter().any(|l| l.up && l.identity() == *seat);
        let all = before.filter(lives).collect();
        self.global.sabotage.awaited = Some((until, all));
    }

    /// Whether those of before are still awaited.
    pub(super) fn awaits(&self, now: Moment) -> bool {
        let awaited = self.global.sabotage.awaited.as_ref();
        awaited.is_some_and(|(until, awaited)| now < *until && !awaited.is_empty())
    }

    /// The process is gone, and what belonged to it.
    pub(super) fn forget_sabotage(&mut self) {
        let sabotage = std::mem::take(&mut self.global.sabotage);
        // Who is awaited by the next process.
        self.global.sabotage.sessions = sabotage.sessions;
    }
}
