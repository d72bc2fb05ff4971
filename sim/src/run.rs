//! One run: a cluster made from a seed, its faults, and the judgement.
//!
//! ```text
//! work under faults -> everything whole again -> calls end -> every Local reads every key -> judge
//! ```
//! Invariant: in the process `dstore-sim` equal plans give equal reports.

use crate::check::g2_one_order::UNDECIDED;
use crate::check::{self, Evidence};
use crate::cluster::{Cluster, GLOBAL, Phase, WORKER, local_host};
use crate::epilogue;
use crate::faults::Nemesis;
use crate::net::TurmoilNet;
pub use crate::plan::{Bug, Plan};
use dstore_sys::disk::Survival;
use std::cell::RefCell;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

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
    /// Values that arrived with a bit turned.
    pub damaged: u64,
    /// What was wrong.
    pub violations: Vec<String>,
    /// Whether no order of its calls was found within the steps that a search has; other judges found nothing wrong.
    pub is_undecided: bool,
    /// Digest of all that was seen, of every turn of the network, and of how often the disk was changed: equal for
    /// equal runs.
    pub trace: u64,
    /// How long it took, in true (virtual) time.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, ops, unknown, faults, damaged, violations, is_undecided, trace, took } = self;
        let wrong = violations.len();
        write!(
            f,
            "seed={seed} ops={ops} unknown={unknown} faults={faults} damaged={damaged} took={took:?} violations={wrong} trace={trace:016x}"
        )?;
        if *is_undecided {
            write!(f, " undecided")?;
        }
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

/// Tokio numbers the tasks of a process, and drops those of a runtime that ends in an order that hangs on the last
/// bits of their numbers (1.5x: four lists). So each run begins at a number with the same bits.
const TASKS_ALIGNED: u64 = 64;

fn align_tasks() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    for _ in 0..TASKS_ALIGNED {
        let number = runtime.spawn(async {}).id().to_string();
        if number.parse::<u64>().is_ok_and(|number| number.is_multiple_of(TASKS_ALIGNED)) {
            return;
        }
    }
}

/// Runs a plan. One run at a time in a process, or runs are not repeated exactly.
pub fn run(plan: &Plan) -> Report {
    watch_panics();
    align_tasks();
    PANICS.with_borrow_mut(Vec::clear);
    #[cfg(feature = "planted")]
    dstore_shared::planted::make(plan.bug.and_then(Bug::mistake));
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
    if plan.workers > 0 {
        let shared = cluster.clone();
        sim.host(WORKER, move || shared.clone().run_worker());
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
            nemesis.rest(&sim);
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
    // Before hosts are dropped: their tasks go in no order, and may still change the disk.
    let trace = trace(&cluster);
    // As power would leave it, were it lost now.
    let image = cluster.disk().crash(Survival::Any, plan.seed);
    // Hosts may still write down what happens while they are dropped.
    drop(sim);
    if cluster.violations().is_empty() {
        epilogue::run(&cluster, &image);
    }
    judge(&cluster);
    report(&cluster, nemesis.made(), took, trace)
}

/// Judges what was seen.
fn judge(cluster: &Cluster) {
    let looked = cluster.looked();
    if looked.len() < cluster.plan().locals && cluster.violations().is_empty() {
        cluster.accuse(format!("only {} Locals were served within {RUN_MAX:?}", looked.len()));
    }
    let evidence = Evidence {
        plan: cluster.plan(),
        calls: cluster.history().calls(),
        watches: cluster.history().watches(),
        troubles: cluster.troubles(),
        looked,
    };
    for wrong in check::judge(&evidence) {
        cluster.accuse(wrong);
    }
    for panic in PANICS.take() {
        cluster.accuse(format!("a panic: {panic}"));
    }
}

/// A digest of all that was seen and done.
fn trace(cluster: &Cluster) -> u64 {
    let disk = cluster.disk().op_count() as u64;
    cluster.history().digest() ^ cluster.net().trace() ^ disk.rotate_left(32)
}

fn report(cluster: &Cluster, faults: usize, took: Duration, trace: u64) -> Report {
    let history = cluster.history();
    let calls = history.calls();
    let (undecided, violations): (Vec<_>, Vec<_>) =
        cluster.violations().into_iter().partition(|violation| violation.contains(UNDECIDED));
    Report {
        seed: cluster.plan().seed,
        ops: history.answered(),
        unknown: calls.iter().filter(|call| call.answer.is_none()).count(),
        faults,
        damaged: cluster.net().damaged(),
        is_undecided: !undecided.is_empty() && violations.is_empty(),
        violations,
        trace,
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
