//! What must hold in every state.

use crate::state::{State, value_of};

impl State {
    /// I1, as a property of a state: what a Local may serve is what readers see at Global, or its name is busy, so
    /// that the change is not acknowledged yet.
    pub fn is_never_stale(&self) -> bool {
        self.servers().all(|i| {
            let local = &self.locals[i];
            self.run.names.iter().enumerate().all(|(key, name)| {
                let held = local.servable(name, false).map(|held| held.entry);
                held.is_none_or(|held| self.global.visible[key] == Some(held) || self.global.m.is_busy(name))
            })
        })
    }

    /// I4: Global waits for a Local for longer than it serves, also if the Local's clock is as slow and Global's as
    /// fast as they may be.
    pub fn is_waited_for_longer(&self) -> bool {
        let (global, now) = (&self.global.m, self.global_now());
        self.servers().all(|i| {
            let local = &self.locals[i];
            let (local_id, life) = local.who;
            let until = self.true_of_local(local.valid_until);
            let end = global.lease_end(local_id, life).filter(|end| *end > now);
            let grace = now + global.grace_left(now);
            let waits = end.into_iter().chain(global.in_grace(now).then_some(grace)).max();
            waits.is_some_and(|waits| until <= self.true_of_global(waits))
        })
    }

    /// I7: whoever may serve a name is registered for it or a wildcard, or the grace runs.
    pub fn is_registered(&self) -> bool {
        let (global, now) = (&self.global.m, self.global_now());
        self.servers().all(|i| {
            let local = &self.locals[i];
            let (local_id, life) = local.who;
            let mut servable = self.run.names.iter().filter(|name| local.servable(name, false).is_some());
            servable.all(|name| {
                global.in_grace(now) || global.is_busy(name) || global.would_wait_for(local_id, life, name)
            })
        })
    }

    /// G4: no drain takes longer than A + D(1+ρ).
    pub fn is_bounded(&self) -> bool {
        self.global.m.longest_drain(self.global_now()) <= self.global.m.drain_max()
    }

    /// What the last step has shown to be wrong: an answer that was not true during the call, a change made twice,
    /// a stream out of order.
    pub fn error(&self) -> Option<&'static str> {
        self.wrong
    }

    /// Locals whose lease is valid by their clock.
    fn servers(&self) -> impl Iterator<Item = usize> {
        let now = self.local_now();
        (0..2).filter(move |i| now < self.locals[*i].valid_until)
    }

    /// The value that a Local would serve; for traces.
    pub fn serves(&self, i: usize, key: usize) -> Option<u8> {
        let held = self.locals[i].servable(&self.run.names[key], false)?;
        (self.local_now() < self.locals[i].valid_until).then(|| value_of(Some(held.entry)))
    }
}
