//! One run: a cluster made from a seed, its faults, and the judgement.
//!
//! ```text
//! work under faults -> everything whole again -> calls end -> every Local reads every key -> judge
//! ```
//! Invariant: equal plans give equal reports.

use crate::cluster::{Cluster, GLOBAL, Phase, local_host};
use crate::faults::{Nemesis, Planned};
use crate::linear::{self, Call, Op, Verdict};
use crate::net::TurmoilNet;
use dstore_sys::rng::{Rng, SeededRng};
use std::cell::RefCell;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

/// A mistake made on purpose, which a run must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Clients keep what they read, and at times answer from it.
    ClientCache,
    /// A Local's clock runs at half speed: it serves names long after its lease has ended.
    SlowClock,
    /// Global's disk forgets, at a crash, also some of what was synced.
    ForgetfulDisk,
}

/// What a run is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Number of Locals.
    pub locals: usize,
    /// Clients in each Local.
    pub clients: usize,
    /// Number of keys.
    pub keys: usize,
    /// Lease length D.
    pub lease: Duration,
    /// How long clients work, in true time.
    pub work: Duration,
    /// Longest time that a segment is on its way.
    pub latency_max: Duration,
    /// What breaks, in order of time.
    pub faults: Vec<Planned>,
    /// A mistake made on purpose.
    pub bug: Option<Bug>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = SeededRng::new(seed ^ 0x5eed_0000);
        let mut plan = Self::calm(seed);
        plan.locals = 2 + rng.next_u64() as usize % 2;
        plan.latency_max = Duration::from_millis([2, 5, 10, 25][rng.next_u64() as usize % 4]);
        plan.faults = crate::faults::plan(&rng, plan.locals, plan.work, plan.lease);
        plan
    }

    /// Two Locals, a quick network, and nothing breaks.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            locals: 2,
            clients: 2,
            keys: 3,
            lease: Duration::from_millis(100),
            work: Duration::from_millis(1500),
            latency_max: Duration::from_millis(2),
            faults: Vec::new(),
            bug: None,
        }
    }

    /// Whether Global's disk may fail.
    pub(crate) fn breaks_disk(&self) -> bool {
        self.faults.iter().any(Planned::breaks_disk)
    }

    /// How fast a host's clock runs, in millionths of true speed, and what it shows at the beginning.
    pub(crate) fn clock(&self, of_host: u64, host: &str) -> (u64, Duration) {
        let rng = SeededRng::new(of_host);
        let ppm = 995_000 + rng.next_u64() % 10_001;
        let boot = Duration::from_millis(rng.next_u64() % 1_000_000);
        let halved = self.bug == Some(Bug::SlowClock) && host != GLOBAL;
        (if halved { ppm / 2 } else { ppm }, boot)
    }
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Calls that were answered.
    pub ops: usize,
    /// Calls whose outcome stayed unknown.
    pub unknown: usize,
    /// Faults that were made.
    pub faults: usize,
    /// What was wrong.
    pub violations: Vec<String>,
    /// Digest of all that happened: equal for equal runs.
    pub trace: u64,
    /// How long it took, in true (virtual) time.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, ops, unknown, faults, violations, trace, took } = self;
        let wrong = violations.len();
        write!(
            f,
            "seed={seed} ops={ops} unknown={unknown} faults={faults} took={took:?} violations={wrong} trace={trace:016x}"
        )?;
        for violation in violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// Longest run, in true time: more means that something waits for ever.
const RUN_MAX: Duration = Duration::from_secs(120);
/// After the last call, for what was begun to end at Global.
const SETTLED: Duration = Duration::from_millis(500);
/// A commit: an append and a sync of the journal, each as long as a job that blocks, and turns of the committer.
const COMMIT_MAX: Duration = Duration::from_millis(3);

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    watch_panics();
    PANICS.with_borrow_mut(Vec::clear);
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .simulation_duration(RUN_MAX * 2)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.latency_max.max(Duration::from_millis(1)))
        .tcp_capacity(1024)
        .build();
    let net = TurmoilNet::new(sim.lookup(GLOBAL));
    let cluster = Cluster::new(plan.clone(), net);
    let shared = cluster.clone();
    sim.host(GLOBAL, move || shared.clone().run_global());
    for index in 0..plan.locals {
        let shared = cluster.clone();
        sim.host(local_host(index), move || shared.clone().run_local(index));
    }
    let mut nemesis = Nemesis::new(cluster.clone());
    let mut quiet_since = None;
    while sim.elapsed() < RUN_MAX {
        let now = sim.elapsed();
        cluster.steps_at(now);
        nemesis.act(&mut sim, now);
        if let Err(e) = sim.step() {
            cluster.accuse(format!("a host ended: {e}"));
            break;
        }
        if now < plan.work || !nemesis.is_done() {
            continue;
        }
        if quiet_since.is_none() {
            cluster.enter(Phase::Settle);
        }
        if cluster.is_quiet() && *quiet_since.get_or_insert(now) + SETTLED < now {
            cluster.enter(Phase::Look);
        }
        if cluster.looked().len() == plan.locals || !cluster.violations().is_empty() {
            break;
        }
    }
    let took = sim.elapsed();
    // Hosts may still write down what happens while they are dropped.
    drop(sim);
    judge(&cluster);
    report(&cluster, nemesis.made(), took)
}

/// Judges what the clients saw.
fn judge(cluster: &Cluster) {
    let looked = cluster.looked();
    if looked.len() < cluster.plan().locals && cluster.violations().is_empty() {
        cluster.accuse(format!("only {} Locals were served within {RUN_MAX:?}", looked.len()));
    }
    let mut views = looked.values();
    if let Some(first) = views.next()
        && views.any(|view| view != first)
    {
        cluster.accuse(format!("the Locals disagree at the end: {looked:?}"));
    }
    for (key, calls) in cluster.history().by_key() {
        match linear::check(&calls) {
            Verdict::Explained => {}
            Verdict::Impossible(stuck) => {
                cluster.accuse(format!("key {key} is not linearizable: {}", stuck.tell(&calls)));
            }
            Verdict::Undecided(steps) => {
                cluster.accuse(format!("key {key}: no verdict in {steps} steps over {} calls", calls.len()));
            }
        }
    }
    judge_deletes(cluster);
    for panic in PANICS.take() {
        cluster.accuse(format!("a panic: {panic}"));
    }
}

fn judge_deletes(cluster: &Cluster) {
    let calls: Vec<Call> = cluster.history().by_key().into_values().flatten().collect();
    for call in &calls {
        // A DEL of two keys waits for what is ahead on either, and that for more: every change counts.
        let meets = |other: &&Call| {
            other.op != Op::Get
                && Some(other.begun) <= call.ended
                && other.ended.is_none_or(|ended| call.begun <= ended)
        };
        let ahead = calls.iter().filter(meets).count().saturating_sub(1) as u32;
        if let (Some(bound), Some(ended)) = (delete_bound(cluster, call, ahead), call.ended) {
            let took = ended.saturating_sub(call.begun);
            if took > bound {
                cluster.accuse(format!("a DEL took {took:?}, longer than {bound:?}: {call}"));
            }
        }
    }
}

/// How long a DEL may take (G4); `None` for other calls, and where the caller or Global is in trouble.
///
/// Each failure of a Local costs a drain of at most `A + D(1+ρ)` by Global's clock, which may itself be slow by
/// ρ: `(A + D(1+ρ)) / (1-ρ)`; and nobody is waited for later than that after what failed is whole again.
/// Failures count once, but for losses, each of which may break a session that has just begun anew.
///
/// Else a DEL takes four ways of the network (to Global, INV, ack, reply) and two waits for a commit, the one
/// under way and its own. What changes the same key goes first, each with two ways and a commit. A step of the
/// simulation is a millisecond, and each way may cost another.
fn delete_bound(cluster: &Cluster, call: &Call, ahead: u32) -> Option<Duration> {
    let plan = cluster.plan();
    let ended = call.ended.filter(|_| call.op == Op::Delete)?;
    let from = |local: usize| call.by.starts_with(&format!("{}/", local_host(local)));
    let drain = (plan.lease.min(Duration::from_secs(1)) / 4 + plan.lease * 1005 / 1000) * 1000 / 995;
    let mut drains = Duration::ZERO;
    for trouble in cluster.troubles() {
        let is_elsewhere = trouble.local.is_some_and(|local| !from(local));
        let to = if is_elsewhere { trouble.whole + drain } else { trouble.to };
        let both = ended.min(to).checked_sub(call.begun.max(trouble.from));
        match both {
            Some(both) if is_elsewhere => drains += both.min(drain * trouble.failures),
            Some(_) => return None,
            None => {}
        }
    }
    let way = plan.latency_max + Duration::from_millis(1);
    Some(drains + way * (4 + 2 * ahead) + COMMIT_MAX * (2 + ahead))
}

fn report(cluster: &Cluster, faults: usize, took: Duration) -> Report {
    let history = cluster.history();
    let calls = history.by_key();
    Report {
        seed: cluster.plan().seed,
        ops: history.answered(),
        unknown: calls.values().flatten().filter(|call| call.answer.is_none()).count(),
        faults,
        violations: cluster.violations(),
        trace: history.digest() ^ cluster.net().trace(),
        took,
    }
}

thread_local! {
    /// Panics of this thread's run. A panic in a task of the product would otherwise end that task only.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes panics for the run of their thread.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
}
