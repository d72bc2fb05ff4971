//! What goes wrong: processes are killed, ended and stopped, wires are cut and held, one by one and together.
//!
//! Invariant: whatever a fault does, it undoes before it ends; so when all have ended everything is whole.

use crate::fleet::{Fleet, Local, Process};
use crate::told::Told;
use crate::wire::{Flow, Wire};
use dstore_sys::rng::{Rng, SeededRng};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest pause between the beginnings of two faults.
const PAUSE_MAX_MS: u64 = 2500;
/// Faults at a time.
const AT_ONCE: usize = 3;

/// A fault of one process or wire.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillGlobal,
    EndGlobal,
    StopGlobal,
    KillLocal(usize),
    EndLocal(usize),
    StopLocal(usize),
    /// Connections end, and there are no new ones.
    Cut(usize),
    /// Neither end hears anything.
    Hold(usize),
    /// Cut again and again.
    Flap(usize),
    /// Callers lose their connections.
    CutDoor(usize),
}

impl Fault {
    fn of(draw: u64, locals: usize) -> Self {
        // The first Local is never killed, so that what sessions leave behind in a process would show.
        let any = (draw >> 8) as usize % locals;
        let mortal = 1 + (draw >> 8) as usize % (locals - 1);
        match draw % 20 {
            0..=2 => Self::KillGlobal,
            3 => Self::EndGlobal,
            4..=5 => Self::StopGlobal,
            6..=8 => Self::KillLocal(mortal),
            9 => Self::EndLocal(mortal),
            10..=12 => Self::StopLocal(any),
            13..=14 => Self::Cut(any),
            15..=17 => Self::Hold(any),
            18 => Self::Flap(any),
            _ => Self::CutDoor(any),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::KillGlobal => "kill -9 of global",
            Self::EndGlobal => "end of global",
            Self::StopGlobal => "stop of global",
            Self::KillLocal(_) => "kill -9 of a local",
            Self::EndLocal(_) => "end of a local",
            Self::StopLocal(_) => "stop of a local",
            Self::Cut(_) => "cut",
            Self::Hold(_) => "silence",
            Self::Flap(_) => "flapping wire",
            Self::CutDoor(_) => "cut of a door",
        }
    }
}

/// Who makes faults.
pub struct Nemesis {
    pub fleet: Arc<Fleet>,
    pub told: Arc<Told>,
    pub rng: SeededRng,
}

impl Nemesis {
    /// Makes faults until `stop`, and waits until all are undone.
    pub async fn rage(self, stop: CancellationToken) {
        let mut under_way = JoinSet::new();
        loop {
            let pause = Duration::from_millis(self.rng.next_u64() % PAUSE_MAX_MS);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            while under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            while under_way.try_join_next().is_some() {}
            let fault = Fault::of(self.rng.next_u64(), self.fleet.locals.len());
            let (fleet, told, draw) = (self.fleet.clone(), self.told.clone(), self.rng.next_u64());
            under_way.spawn(async move {
                if let Err(e) = make(fault, &fleet, &told, draw).await {
                    told.accuse(e);
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

async fn make(fault: Fault, fleet: &Fleet, told: &Told, draw: u64) -> Result<(), String> {
    let for_ms = |max: u64| Duration::from_millis((draw >> 8) % max);
    match fault {
        Fault::KillGlobal | Fault::EndGlobal => {
            let Ok(mut daemon) = fleet.global.daemon.try_lock() else { return Ok(()) };
            begins(told, fault, &fleet.global.name, for_ms(1000));
            if matches!(fault, Fault::KillGlobal) {
                fleet.global.kill(&mut daemon);
            } else {
                fleet.global.end(&mut daemon).await?;
            }
            tokio::time::sleep(for_ms(1000)).await;
            fleet.global_lives(&mut daemon).await?;
            told.note("global lives again");
        }
        Fault::KillLocal(n) | Fault::EndLocal(n) => {
            let process = &fleet.locals[n].process;
            let Ok(mut daemon) = process.daemon.try_lock() else { return Ok(()) };
            begins(told, fault, &process.name, for_ms(1500));
            if matches!(fault, Fault::KillLocal(_)) {
                process.kill(&mut daemon);
            } else {
                process.end(&mut daemon).await?;
            }
            tokio::time::sleep(for_ms(1500)).await;
            process.live(&mut daemon).await?;
            told.note(format!("{} lives again", process.name));
        }
        Fault::StopGlobal => stand_still(fault, &fleet.global, told, for_ms(2500)).await,
        Fault::StopLocal(n) => stand_still(fault, &fleet.locals[n].process, told, for_ms(4000)).await,
        Fault::Cut(n) => disturb(fault, n, &fleet.locals[n].wire, told, (Flow::Cut, for_ms(3000), 1)).await,
        Fault::Hold(n) => disturb(fault, n, &fleet.locals[n].wire, told, (Flow::Held, for_ms(4000), 1)).await,
        Fault::Flap(n) => {
            let times = 3 + (draw % 6) as u32;
            disturb(fault, n, &fleet.locals[n].wire, told, (Flow::Cut, for_ms(300), times)).await;
        }
        Fault::CutDoor(n) => {
            let Local { process, .. } = &fleet.locals[n];
            disturb(fault, n, &process.front, told, (Flow::Cut, for_ms(1500), 1)).await;
        }
    }
    Ok(())
}

fn begins(told: &Told, fault: Fault, of: &str, lasts: Duration) {
    told.count(format!("fault {}", fault.name()));
    told.note(format!("{}: {of}, {lasts:?}", fault.name()));
}

/// SIGSTOP, and SIGCONT after a while.
async fn stand_still(fault: Fault, process: &Process, told: &Told, lasts: Duration) {
    let Ok(daemon) = process.daemon.try_lock() else { return };
    let Some(daemon) = &*daemon else { return };
    begins(told, fault, &process.name, lasts);
    daemon.signal(Signal::STOP);
    tokio::time::sleep(lasts).await;
    daemon.signal(Signal::CONT);
    told.note(format!("{} goes on", process.name));
}

/// Disturbs a wire a number of times. Two at once on one wire overlap: the first to end makes it whole.
async fn disturb(
    fault: Fault,
    local: usize,
    wire: &Wire,
    told: &Told,
    (flow, lasts, times): (Flow, Duration, u32),
) {
    begins(told, fault, &format!("local-{}", local + 1), lasts * times);
    for _ in 0..times {
        wire.set(flow);
        tokio::time::sleep(lasts).await;
        wire.set(Flow::Through);
        tokio::time::sleep(lasts / 2).await;
    }
    told.note(format!("the wire of local-{} is whole", local + 1));
}
