//! What breaks, and when: planned from a seed, carried out between the steps of a simulation.
//!
//! Invariant: when all has been carried out every host runs and every link is whole.

use crate::cluster::{Cluster, GLOBAL, Trouble, WORKER, local_host};
use crate::plan::Bug;
use dstore_sys::disk::{Call, Fault as DiskFault, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::BTreeMap;
use std::time::Duration;
use turmoil::Sim;

/// Changes of the disk that [`Bug::ForgetfulDisk`] takes back.
const FORGOTTEN: usize = 12;
/// After a fault has ended: for a session to be there again, and for leases and restart grace to run out.
const TRACES: Duration = Duration::from_millis(600);
/// As [`TRACES`], where a dead connection is found by keepalive only.
const SILENT_TRACES: Duration = Duration::from_secs(20);

/// How often a session may break, and a new one begin, while segments are lost.
const LOSSES: u32 = 3;

/// Something that breaks, and how long it stays so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Global loses power: its peers hear nothing, what was not synced is lost.
    PowerLoss,
    /// Global is killed: connections are closed, the disk is as it was.
    KillGlobal,
    /// Global stops in order.
    StopGlobal,
    /// Global's next sync of its journal fails; it ends and is started again.
    FailSync,
    /// A Local is killed.
    KillLocal(usize),
    /// Nothing gets through between Global and a Local; then their connections are reset.
    Partition(usize),
    /// As a partition, but nothing tells the two that their connections are dead.
    SilentPartition(usize),
    /// Nothing gets through from a Local to Global.
    DeafGlobal(usize),
    /// Nothing gets through from Global to a Local.
    DeafLocal(usize),
    /// All between Global and a Local is late by the whole length, as if one of them stood still.
    Delay(usize),
    /// Segments between Global and a Local are lost now and then; then their connections are reset.
    Loss(usize),
    /// All connections between Global and a Local are reset.
    Reset(usize),
    /// A connection between Global and a Local ends after so many more bytes, be it within a frame.
    CutAfter(usize, usize),
    /// The next long value between Global and a Local arrives with a bit turned.
    DamageOnWire(usize),
    /// Every segment between Global and a Local takes several times as long.
    Slow(usize),
    /// A Local stands still: nothing gets in or out, and its clients do nothing. Its clock goes on.
    Pause(usize),
    /// Global stands still: nothing gets in or out. Its clock goes on.
    PauseGlobal,
    /// The connections of the clients that are elsewhere to a Local stand still; then they are reset.
    PartitionWorker(usize),
    /// The next such call of Global's disk, on a path with that part, fails with EIO.
    FailCall(Call, &'static str),
    /// Global's disk is full.
    DiskFull,
    /// A bit of a blob's file turns on Global's disk.
    FlipBlob(u64),
}

/// The calls of the disk that fail, each with a part of the path.
const CALLS: &[(Call, &str)] = &[
    (Call::Write, "journal"),
    (Call::Preallocate, "journal"),
    (Call::SyncDir, "journal"),
    (Call::Create, "journal"),
    (Call::Read, "blobs"),
    (Call::Write, "blobs"),
    (Call::Sync, "blobs"),
    (Call::SyncDir, "blobs"),
    (Call::Create, "blobs"),
    (Call::Rename, "blobs"),
    (Call::Remove, "blobs"),
    (Call::Rename, ""),
    (Call::Sync, "checkpoint"),
];

impl Fault {
    /// Whether Global's disk may answer with errors.
    pub(crate) fn breaks_disk(self) -> bool {
        matches!(self, Self::FailSync | Self::FailCall(..) | Self::DiskFull)
    }

    /// Whether between Global and a Local nothing gets through, one way at least.
    pub(crate) fn isolates(self, local: usize) -> bool {
        match self {
            Self::PauseGlobal => true,
            Self::Partition(i)
            | Self::SilentPartition(i)
            | Self::DeafGlobal(i)
            | Self::DeafLocal(i)
            | Self::Delay(i)
            | Self::Pause(i) => i == local,
            _ => false,
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What breaks.
    pub fault: Fault,
}

/// A Local that is cut off for longer than a lease, and the key that is fought over meanwhile: the clients there
/// read it, the others change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Siege {
    pub local: usize,
    pub key: usize,
    /// Whether the Local is cut off already; before, it comes to hold the key.
    pub is_cut: bool,
}

/// For so long before a cut its Local comes to hold the key.
const BEFORE_CUT: Duration = Duration::from_millis(60);
/// Longer than [`TRACES`], so that the bound on DEL is looked at in a siege; and for calls that nobody answers
/// to reach their deadline.
const CALM_BEFORE_SIEGE: Duration = Duration::from_millis(750);

impl Planned {
    /// The siege that this makes at `now` in a cluster of `keys` keys and leases of `lease`. A cut that ends
    /// before the lease proves nothing of it.
    pub(crate) fn siege(&self, now: Duration, keys: usize, lease: Duration) -> Option<Siege> {
        let (Fault::Partition(local) | Fault::DeafGlobal(local) | Fault::DeafLocal(local)) = self.fault
        else {
            return None;
        };
        let lasts = self.at.saturating_sub(BEFORE_CUT)..self.at + self.lasts;
        let is_siege = self.lasts > lease && lasts.contains(&now);
        is_siege.then(|| Siege { local, key: self.at.as_millis() as usize % keys, is_cut: self.at <= now })
    }
}

/// What a fault occupies while it lasts: two faults on one would undo each other.
fn places(fault: Fault, locals: usize) -> Vec<Option<usize>> {
    match fault {
        Fault::PauseGlobal => (0..locals).map(Some).chain([None]).collect(),
        _ => vec![place(fault)],
    }
}

/// Who has trouble by it; `None` = Global, and so everybody.
fn place(fault: Fault) -> Option<usize> {
    match fault {
        Fault::PowerLoss
        | Fault::KillGlobal
        | Fault::StopGlobal
        | Fault::PauseGlobal
        | Fault::FailSync
        | Fault::FailCall(..)
        | Fault::DiskFull
        | Fault::FlipBlob(_) => None,
        Fault::KillLocal(i)
        | Fault::Partition(i)
        | Fault::SilentPartition(i)
        | Fault::DeafGlobal(i)
        | Fault::DeafLocal(i)
        | Fault::Delay(i)
        | Fault::Loss(i)
        | Fault::Reset(i)
        | Fault::CutAfter(i, _)
        | Fault::DamageOnWire(i)
        | Fault::Slow(i)
        | Fault::Pause(i)
        | Fault::PartitionWorker(i) => Some(i),
    }
}

/// How often each kind of fault is drawn in seeds that have it; [`draw`] says which is which.
const KINDS: [u64; 20] = [2, 2, 1, 1, 3, 4, 2, 2, 3, 2, 1, 3, 1, 1, 2, 1, 2, 1, 1, 1];

/// The kinds of faults that a seed has, by number, each as often as it weighs.
fn kinds(rng: &SeededRng) -> Vec<u64> {
    let below = |n: u64| rng.next_u64() % n;
    let mut kinds = Vec::new();
    for (kind, weight) in KINDS.into_iter().enumerate() {
        if below(2) == 0 {
            kinds.extend((0..weight).map(|_| kind as u64));
        }
    }
    if kinds.is_empty() { vec![5] } else { kinds }
}

/// A fault of a kind.
fn draw(rng: &SeededRng, kind: u64, local: usize) -> Fault {
    let below = |n: u64| rng.next_u64() % n;
    match kind {
        0 => Fault::PowerLoss,
        1 => Fault::KillGlobal,
        2 => Fault::StopGlobal,
        3 => Fault::FailSync,
        4 => Fault::KillLocal(local),
        5 => Fault::Partition(local),
        6 => Fault::DeafGlobal(local),
        7 => Fault::DeafLocal(local),
        8 => Fault::Delay(local),
        9 => Fault::Loss(local),
        10 => Fault::Reset(local),
        11 => Fault::CutAfter(
            local,
            [1 + below(200), 1 + below(5_000), 1 + below(100_000)][below(3) as usize] as usize,
        ),
        12 => Fault::DamageOnWire(local),
        13 => Fault::Slow(local),
        14 => Fault::Pause(local),
        15 => Fault::PartitionWorker(local),
        16 => {
            let (call, part) = CALLS[below(CALLS.len() as u64) as usize];
            Fault::FailCall(call, part)
        }
        17 => Fault::DiskFull,
        18 => Fault::PauseGlobal,
        _ => Fault::FlipBlob(rng.next_u64()),
    }
}

/// Draws the faults of a run.
pub(crate) fn plan(rng: &SeededRng, locals: usize, work: Duration, lease: Duration) -> Vec<Planned> {
    let below = |n: u64| rng.next_u64() % n;
    let mut free: BTreeMap<Option<usize>, Duration> = BTreeMap::new();
    let mut planned = Vec::new();
    let kinds = kinds(rng);
    let mut at = Duration::from_millis(100 + below(200));
    while at < work {
        let local = below(locals as u64) as usize;
        let fault = draw(rng, kinds[below(kinds.len() as u64) as usize], local);
        // Shorter than a lease, about as long, and much longer.
        let lasts =
            Duration::from_millis([10 + below(80), 90 + below(60), 150 + below(500)][below(3) as usize]);
        let places = places(fault, locals);
        if places.iter().all(|place| free.get(place).is_none_or(|until| *until <= at)) {
            let until = at + lasts + Duration::from_millis(50);
            free.extend(places.into_iter().map(|place| (place, until)));
            planned.push(Planned { at, lasts, fault });
        }
        at += Duration::from_millis(10 + below(400));
    }
    // In most runs a Local is cut off for longer than any lease, at a time at which nothing else breaks.
    if below(4) > 0 {
        let local = below(locals as u64) as usize;
        let fault = match below(4) {
            0..2 => Fault::Partition(local),
            2 => Fault::DeafLocal(local),
            _ => Fault::DeafGlobal(local),
        };
        let whole = free.values().copied().max().unwrap_or_default().max(work);
        let at = whole + CALM_BEFORE_SIEGE + Duration::from_millis(below(100));
        let lasts = lease * (16 + below(20) as u32) / 10;
        free.insert(place(fault), at + lasts + CALM_BEFORE_SIEGE);
        planned.push(Planned { at, lasts, fault });
    }
    // Costs many seconds of true time, so it is rare.
    if below(12) == 0 {
        let fault = Fault::SilentPartition(below(locals as u64) as usize);
        let quiet = free.get(&place(fault)).copied().unwrap_or_default().max(work / 2);
        planned.push(Planned { at: quiet, lasts: Duration::from_millis(50 + below(400)), fault });
    }
    planned
}

/// Carries faults out.
pub struct Nemesis {
    cluster: Cluster,
    /// What is to be done, in order.
    agenda: BTreeMap<(Duration, usize), Act>,
    next: usize,
    made: usize,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Begin(Fault),
    End(Fault),
}

impl Nemesis {
    /// For the faults of a cluster's plan.
    pub fn new(cluster: Cluster) -> Self {
        let mut agenda = BTreeMap::new();
        for (n, planned) in cluster.plan().faults.iter().enumerate() {
            let silent = matches!(planned.fault, Fault::SilentPartition(_));
            let traces = if silent { SILENT_TRACES } else { TRACES };
            let whole = planned.at + planned.lasts;
            let failures = if matches!(planned.fault, Fault::Loss(_)) { LOSSES } else { 1 };
            cluster.troubled(Trouble {
                local: place(planned.fault),
                from: planned.at,
                whole,
                to: whole + traces,
                failures,
            });
            agenda.insert((planned.at, 2 * n), Act::Begin(planned.fault));
            agenda.insert((planned.at + planned.lasts, 2 * n + 1), Act::End(planned.fault));
        }
        let next = 2 * agenda.len();
        Self { cluster, agenda, next, made: 0 }
    }

    /// Whether all is whole again, for good.
    pub fn is_done(&self) -> bool {
        self.agenda.is_empty()
    }

    /// Takes back what still waits to happen.
    pub fn rest(&self, sim: &Sim<'_>) {
        for local in 0..self.cluster.plan().locals {
            self.cluster.net().heal(sim.lookup(GLOBAL), sim.lookup(local_host(local)));
        }
    }

    /// Faults made.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Does what is due.
    pub fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.cluster.take_global_ended() {
            self.end_global(sim, Survival::Everything);
            self.reset_all(sim);
            let restarted = now + Duration::from_millis(20);
            self.cluster.troubled(Trouble {
                local: None,
                from: now,
                whole: restarted,
                to: restarted + TRACES,
                failures: 1,
            });
            self.next += 1;
            self.agenda.insert((restarted, self.next), Act::End(Fault::KillGlobal));
        }
        while let Some(due) = self.agenda.first_entry().filter(|due| due.key().0 <= now) {
            match due.remove() {
                Act::Begin(fault) => {
                    self.made += 1;
                    self.begin(sim, fault);
                }
                Act::End(fault) => self.end(sim, fault),
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        match fault {
            Fault::PowerLoss => self.end_global(sim, Survival::Any),
            Fault::KillGlobal => {
                self.end_global(sim, Survival::Everything);
                self.reset_all(sim);
            }
            Fault::StopGlobal => self.cluster.stop_global(),
            Fault::FailSync => self.cluster.disk().inject(DiskFault::next(Call::Sync).at("journal")),
            Fault::KillLocal(i) => {
                self.cluster.net().vanish(sim.lookup(local_host(i)));
                sim.crash(local_host(i));
                self.reset(sim, i);
                self.reset_worker(sim, &local_host(i));
            }
            Fault::Partition(i) | Fault::SilentPartition(i) => sim.partition(GLOBAL, local_host(i)),
            Fault::DeafGlobal(i) => sim.partition_oneway(local_host(i), GLOBAL),
            Fault::DeafLocal(i) => sim.partition_oneway(GLOBAL, local_host(i)),
            Fault::Delay(i) => sim.hold(GLOBAL, local_host(i)),
            Fault::Loss(i) => sim.set_link_fail_rate(GLOBAL, local_host(i), 0.02),
            Fault::Reset(i) => self.reset(sim, i),
            Fault::CutAfter(i, bytes) => {
                self.cluster.net().cut_after(sim.lookup(GLOBAL), sim.lookup(local_host(i)), bytes);
            }
            Fault::DamageOnWire(i) => {
                self.cluster.net().damage(sim.lookup(GLOBAL), sim.lookup(local_host(i)));
            }
            Fault::Slow(i) => {
                let latency = self.cluster.plan().latency_max * 4;
                sim.set_link_max_message_latency(GLOBAL, local_host(i), latency);
            }
            Fault::Pause(i) => {
                self.cluster.pause(i, true);
                sim.hold(GLOBAL, local_host(i));
            }
            Fault::PauseGlobal => self.each_peer(|peer| sim.hold(GLOBAL, peer)),
            Fault::PartitionWorker(i) => {
                if self.cluster.plan().workers > 0 {
                    sim.partition(WORKER, local_host(i));
                }
            }
            Fault::FailCall(call, part) => self.cluster.disk().inject(DiskFault::next(call).at(part)),
            Fault::DiskFull => {
                let disk = self.cluster.disk();
                let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
                disk.set_budget(Some(used + 4096));
            }
            Fault::FlipBlob(draw) => self.flip_blob(draw),
        }
    }

    /// Turns a bit of some blob's file, if there is one.
    fn flip_blob(&self, draw: u64) {
        let disk = self.cluster.disk();
        let is_blob = |path: &std::path::Path| {
            path.starts_with("/data/blobs") && !path.starts_with("/data/blobs/staging")
        };
        let blobs: Vec<_> =
            disk.files().into_iter().filter(|(path, len)| is_blob(path) && *len > 0).collect();
        if let Some((path, len)) = blobs.get(draw as usize % blobs.len().max(1)) {
            // The file was listed just now.
            let _ = disk.flip(path, (draw >> 16) % len, 1 << (draw % 8));
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        match fault {
            Fault::PowerLoss | Fault::KillGlobal => start_global(sim),
            // They end by themselves; damage waits for a long value, which is rare, until the work ends.
            Fault::StopGlobal
            | Fault::FailSync
            | Fault::Reset(_)
            | Fault::FlipBlob(_)
            | Fault::DamageOnWire(_) => {}
            Fault::CutAfter(i, _) => {
                self.cluster.net().heal(sim.lookup(GLOBAL), sim.lookup(local_host(i)));
            }
            Fault::Slow(i) => {
                sim.set_link_max_message_latency(GLOBAL, local_host(i), self.cluster.plan().latency_max);
            }
            Fault::Pause(i) => {
                self.cluster.pause(i, false);
                sim.release(GLOBAL, local_host(i));
            }
            Fault::PauseGlobal => self.each_peer(|peer| sim.release(GLOBAL, peer)),
            Fault::PartitionWorker(i) => {
                if self.cluster.plan().workers > 0 {
                    sim.repair(WORKER, local_host(i));
                    self.cluster.net().cut(sim.lookup(WORKER), sim.lookup(local_host(i)));
                }
            }
            Fault::FailCall(..) => self.cluster.disk().heal(),
            Fault::DiskFull => self.cluster.disk().set_budget(None),
            Fault::KillLocal(i) => sim.bounce(local_host(i)),
            Fault::SilentPartition(i) => sim.repair(GLOBAL, local_host(i)),
            Fault::Partition(i) | Fault::DeafGlobal(i) | Fault::DeafLocal(i) => {
                sim.repair(GLOBAL, local_host(i));
                self.reset(sim, i);
            }
            Fault::Delay(i) => sim.release(GLOBAL, local_host(i)),
            Fault::Loss(i) => {
                sim.set_link_fail_rate(GLOBAL, local_host(i), 0.0);
                sim.repair(GLOBAL, local_host(i));
                self.reset(sim, i);
            }
        }
    }

    /// Every host that calls Global.
    fn each_peer(&self, mut act: impl FnMut(String)) {
        (0..self.cluster.plan().locals).for_each(|local| act(local_host(local)));
        if self.cluster.plan().workers > 0 {
            act(WORKER.to_owned());
        }
    }

    fn reset(&self, sim: &Sim<'_>, local: usize) {
        self.cluster.net().cut(sim.lookup(GLOBAL), sim.lookup(local_host(local)));
    }

    fn reset_worker(&self, sim: &Sim<'_>, host: &str) {
        if self.cluster.plan().workers > 0 {
            self.cluster.net().cut(sim.lookup(WORKER), sim.lookup(host));
        }
    }

    fn reset_all(&self, sim: &Sim<'_>) {
        self.reset_worker(sim, GLOBAL);
        for index in 0..self.cluster.plan().locals {
            self.reset(sim, index);
        }
    }

    /// Global's process is no more. The image is taken first: what is dropped with the process writes nothing.
    fn end_global(&mut self, sim: &mut Sim<'_>, survival: Survival) {
        if !sim.is_host_running(GLOBAL) {
            return;
        }
        let seed = self.cluster.plan().seed.wrapping_add(sim.elapsed().as_millis() as u64);
        let disk = self.cluster.disk();
        let image = if self.cluster.plan().bug == Some(Bug::ForgetfulDisk) {
            disk.crash_at(
                disk.op_count().saturating_sub(FORGOTTEN).max(*disk.moments().start()),
                survival,
                seed,
            )
        } else {
            disk.crash(survival, seed)
        };
        self.cluster.net().vanish(sim.lookup(GLOBAL));
        sim.crash(GLOBAL);
        self.cluster.replace_disk(image);
        self.cluster.take_global_ended();
    }
}

fn start_global(sim: &mut Sim<'_>) {
    if !sim.is_host_running(GLOBAL) {
        sim.bounce(GLOBAL);
    }
}
