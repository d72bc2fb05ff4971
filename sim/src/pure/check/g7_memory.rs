//! G7: memory is bounded: what each machine keeps is within its bounds, and nothing is kept for what is gone.

use crate::pure::world::World;

impl World {
    pub(super) fn check_bounds(&mut self) {
        let mut wrong = Vec::new();
        if let Some(process) = &self.global.process {
            wrong.extend(process.m.leaks().into_iter().map(|leak| format!("G7: global: {leak}")));
            let (log, max) = (process.feed.events(), self.cfg.events_max + crate::pure::watch::CHUNK);
            if log > max {
                wrong.push(format!("G7: the feed remembers {log} events, more than {max}"));
            }
        }
        for (i, local) in self.locals.iter().enumerate().filter(|(_, local)| local.up) {
            wrong.extend(local.m.leaks().into_iter().map(|leak| format!("G7: local {i}: {leak}")));
            let max = self.cfg.queue_max;
            if let Some(len) = self.net.longest_queue(i).filter(|len| *len > max) {
                wrong.push(format!("G7: {len} frames wait for local {i}, more than {max}"));
            }
        }
        for wrong in wrong {
            self.violation(|| wrong);
        }
    }
}
