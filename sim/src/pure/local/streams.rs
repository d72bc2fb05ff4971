//! A Local's streams: how they are opened and lost, and what comes on the one of its session.

use super::Event;
use crate::pure::net::Slot;
use crate::pure::planted::Planted;
use crate::pure::rng::MS;
use crate::pure::world::World;
use dstore_local::coherence::{Action, NameTable as _};
use dstore_shared::Revision;
use dstore_shared::frame::Down;

impl World {
    pub(super) fn connect(&mut self, i: usize, slot: Slot) {
        let now = self.local_now(i);
        let Some(stream) = self.open(i) else {
            let backoff = self.rng.between(5, 120) * MS;
            return self.local_event(i, backoff, Event::Connect(slot));
        };
        let local = &mut self.locals[i];
        match slot {
            Slot::Session => {
                local.session = Some(stream);
                local.m.connected(now);
            }
            Slot::Requests(n) => {
                local.requests[n] = Some(stream);
                local.m.send_again();
            }
        }
    }

    pub(super) fn lost_at_local(&mut self, i: usize, stream: u64) {
        let local = &mut self.locals[i];
        let slot = if local.session == Some(stream) {
            local.session = None;
            local.m.lost();
            Slot::Session
        } else if let Some(n) = local.requests.iter().position(|s| *s == Some(stream)) {
            local.requests[n] = None;
            Slot::Requests(n)
        } else {
            return;
        };
        let backoff = self.rng.between(1, 100) * MS;
        self.local_event(i, backoff, Event::Connect(slot));
    }

    pub(super) fn frame_at_local(&mut self, i: usize, stream: u64, frame: Down) {
        if self.locals[i].session != Some(stream) {
            return;
        }
        let now = self.local_now(i);
        let frame = self.misheard(i, frame);
        let deaf = self.planted(Planted::IgnoreResync) && matches!(frame, Down::Resync { .. });
        let outlives = self.planted(Planted::AbsenceOutlivesEpoch) && matches!(frame, Down::Welcome { .. });
        let local = &mut self.locals[i];
        let kept =
            local.absences.as_ref().filter(|_| outlives).map(|absences| (absences.clone(), absences.all()));
        local.m.down(now, frame, &local.names);
        if let Some((absences, kept)) = kept {
            for (name, absent) in kept {
                absences.hold(&name, absent);
            }
        }
        if deaf {
            for action in local.m.take_actions() {
                if !matches!(action, Action::Era(_)) {
                    self.carry_out(i, action);
                }
            }
        }
        if self.planted(Planted::AckBeforeRemoval) {
            self.local_event(i, 2 * MS, Event::RemoveLate);
        }
        if self.rng.chance(500) {
            self.locals[i].m.flush_ack();
        } else {
            let delay = self.rng.between(0, 1_000) * 1_000;
            self.local_event(i, delay, Event::FlushAck);
        }
    }

    /// What a planted bug makes of a frame.
    fn misheard(&mut self, i: usize, frame: Down) -> Down {
        match frame {
            Down::Welcome { .. } if self.planted(Planted::WelcomeServes) => {
                let until = self.local_now(i) + self.granted(i);
                let local = &mut self.locals[i];
                local.valid_until = local.valid_until.max(until);
                frame
            }
            Down::InvPrefix { epoch, seq, prefix, upto } if self.planted(Planted::PrefixPoisonsNobody) => {
                self.locals[i].names.remove_prefix_upto(&prefix, upto);
                Down::InvPrefix { epoch, seq, prefix, upto: Revision(0) }
            }
            frame => frame,
        }
    }
}
