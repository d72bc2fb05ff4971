//! What goes wrong, and when: one fault after the other, many at a time.

use super::config::Fault;
use super::rng::MS;
use super::world::{Event, World};
use super::{global, local};

impl World {
    pub fn next_fault(&mut self) {
        if self.is_calm() {
            return self.heal();
        }
        // A siege that every other fault breaks up proves nothing.
        let is_spared = self.siege().is_some() && self.rng.chance(800);
        if !self.cfg.faults.is_empty() && !is_spared {
            let fault = self.rng.weighed(&self.cfg.faults);
            self.strike(fault);
        }
        let pause = self.rng.between(10, 400) * MS;
        self.after(pause, Event::Fault);
    }

    fn strike(&mut self, fault: Fault) {
        let i = self.rng.below(self.locals.len());
        match fault {
            Fault::Cuts => self.cut_some(i),
            Fault::Stalls => {
                let long = self.rng.pick(&[5, 60, 600, 3_000]);
                let until = self.now + self.rng.between(1, long) * MS;
                // One way or both.
                let way = self.rng.between(0, 3);
                let link = &mut self.net.links[i];
                if way != 1 {
                    link.to_local = until;
                }
                if way != 2 {
                    link.to_global = until;
                }
            }
            Fault::LocalCrashes if self.rng.chance(300) => self.crash_local(i),
            Fault::LocalStops if self.rng.chance(300) => self.local_event(i, 0, local::Event::Leave),
            Fault::LocalPauses => {
                let long = self.rng.pick(&[3, 100, 3_000]);
                let pause = self.rng.between(1, long) * MS;
                self.locals[i].paused_until = self.now + pause;
                self.local_event(i, pause, local::Event::Wake);
            }
            Fault::GlobalCrashes if self.rng.chance(200) => self.crash_global(),
            Fault::GlobalStops if self.rng.chance(200) && !self.is_stopping() => self.stop_global(),
            Fault::GlobalPauses => {
                let long = self.rng.pick(&[3, 100, 1_000]);
                let pause = self.rng.between(1, long) * MS;
                self.global.paused_until = self.now + pause;
                self.after(pause, Event::Global(self.global.boot, global::Event::Wake));
            }
            Fault::Evictions => {
                let name = self.keys[self.rng.below(self.cfg.keys)].clone();
                self.local_event(i, 0, local::Event::Evict(name));
            }
            Fault::Sieges if self.besiege(i) => {}
            // These happen elsewhere, or not this time.
            _ => return,
        }
        self.struck[fault as usize] += 1;
        self.trace(fault as u64);
    }

    fn cut_some(&mut self, i: usize) {
        let mut streams = self.net.open_streams(Some(i));
        if self.rng.chance(500) && !streams.is_empty() {
            streams = vec![streams[self.rng.below(streams.len())]];
        } else {
            let long = self.rng.pick(&[20, 300, 3_000]);
            self.net.links[i].down_until = self.now + self.rng.between(1, long) * MS;
        }
        for stream in streams {
            self.cut(stream, false);
        }
    }

    fn heal(&mut self) {
        for link in &mut self.net.links {
            link.down_until = self.now;
            link.to_global = self.now;
            link.to_local = self.now;
        }
        // The twins of Locals stop for good.
        for twin in self.cfg.locals..self.locals.len() {
            self.crash_local(twin);
        }
    }
}
