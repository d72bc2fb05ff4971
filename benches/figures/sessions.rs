//! `sessions/<n>`: what so many attached Locals cost a Global process: memory, heartbeats, and a DEL that three of
//! them hold, or all. The Locals are light (`swarm`), in this process; the server is measured alone. Nothing is
//! pinned: server and Locals share the cores. The leases are those of `DSTORE_BENCH_LEASE`, else the server's own.

use crate::harness::{Plan, computed, median, serial, time};
use crate::node;
use crate::place;
use crate::swarm::Swarm;
use dstore_local::{Local, Node};
use dstore_proto::store::Store;
use dstore_shared::{Name, SetOutcome};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const SESSIONS: [usize; 3] = [3, 1_000, 10_000];
/// How long heartbeats are watched.
const WATCHED: Duration = Duration::from_secs(8);

pub fn run(plan: &Plan) {
    for n in SESSIONS {
        // A bound on how many, as `sessions/1000`, is a whole word here: 1000 is not 10000.
        let figure = format!("sessions/{n}");
        if plan.filter.as_ref().is_none_or(|f| *f == figure || figure.starts_with(&format!("{f}/"))) {
            attached(plan, &figure, n);
        }
    }
}

fn attached(plan: &Plan, figure: &str, n: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let lease = std::env::var("DSTORE_BENCH_LEASE").ok();
    let flags = lease.as_ref().map_or(vec![], |lease| vec!["--lease", lease.as_str()]);
    let (global, address) = place::global_anywhere(dir.path(), &flags);
    let (pid, plan) = (global.id(), plan.clone());
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let rt = rt.expect("threads can be started");
    let figure = figure.to_owned();
    place::run(&rt, async move {
        let local = node::local(address.clone()).await;
        // What the first DEL and the first session cost is not the sessions'.
        let warm = Swarm::attach(address.parse().expect("an address"), 3).await;
        dels(pid, local.node(), &warm, 3, 20).await;
        drop(warm);
        tokio::time::sleep(Duration::from_millis(500)).await;
        costs(&plan, &figure, n, pid, &local, &address).await;
        local.stop().await;
    });
}

async fn costs(plan: &Plan, figure: &str, n: usize, pid: u32, local: &Local, address: &str) {
    let (before, computed_before, began) = (resident(pid), computed(pid), Instant::now());
    let swarm = Swarm::attach(address.parse().expect("an address"), n).await;
    let (took, cost) = (began.elapsed(), computed(pid).saturating_sub(computed_before));
    println!(
        "{figure}: {n} sessions attached in {took:.2?}, {} of the server's processor each",
        each(cost, n)
    );

    tokio::time::sleep(Duration::from_secs(3)).await;
    let (here, there, leases) =
        (computed(std::process::id()), computed(pid), swarm.tally.leases.load(Relaxed));
    tokio::time::sleep(WATCHED).await;
    let share = |d: Duration| 100.0 * d.as_secs_f64() / WATCHED.as_secs_f64();
    println!(
        "{figure}: heartbeats: {:.1} % of a core at the server, {:.1} % here, {:.0} renewals/s; \
         {:.1} KiB resident a session ({:.1} MiB in all)",
        share(computed(pid).saturating_sub(there)),
        share(computed(std::process::id()).saturating_sub(here)),
        (swarm.tally.leases.load(Relaxed) - leases) as f64 / WATCHED.as_secs_f64(),
        resident(pid).saturating_sub(before) as f64 / n as f64,
        resident(pid) as f64 / 1024.0,
    );

    let rounds = (100 * plan.turns).max(1);
    let few = dels(pid, local.node(), &swarm, 3, rounds).await;
    println!("{figure}: DEL to 3 holders: {}", few.told());
    if n > 3 {
        let all = dels(pid, local.node(), &swarm, n, 3 * plan.turns).await;
        println!("{figure}: DEL to all {n}: {}", all.told());
    }
    let (began, computed_before) = (Instant::now(), computed(pid));
    swarm.cut(0..n / 2);
    swarm.until("they are cut", |tally| tally.attached.load(Relaxed) < n || n < 4).await;
    swarm.all_attached().await;
    println!(
        "{figure}: {} cut at once: all back after {:.2?}, {} of the server's processor each",
        n / 2,
        began.elapsed(),
        each(computed(pid).saturating_sub(computed_before), n / 2)
    );
    let t = &swarm.tally;
    let lapsed: usize = t.lapsed.iter().map(|l| l.load(Relaxed)).sum();
    println!(
        "{figure}: {lapsed} leases lapsed, {} streams lost, {} connections failed, {} ms left of the narrowest lease",
        t.lost.load(Relaxed),
        t.failed.load(Relaxed),
        t.narrowest_ms.load(Relaxed)
    );
    let full = resident(pid);
    drop(swarm);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let kib = |k: usize| k as f64 / 1024.0;
    println!(
        "{figure}: resident: {:.1} MiB before, {:.1} with all, {:.1} after they left",
        kib(before),
        kib(full),
        kib(resident(pid))
    );
}

fn each(all: Duration, n: usize) -> String {
    time(all.as_nanos() as f64 / n as f64)
}

/// How long DELs took: until the last holder was told, and until the answer.
struct Took {
    reached: Vec<f64>,
    done: Vec<f64>,
    /// Processor time meanwhile, of the server and of this process.
    server: Duration,
    here: Duration,
    /// Holders that were not waited for.
    untold: usize,
}

impl Took {
    fn told(&self) -> String {
        let at = |all: &[f64], part: f64| {
            let mut all = all.to_vec();
            all.sort_by(f64::total_cmp);
            time(all[((all.len() - 1) as f64 * part) as usize])
        };
        format!(
            "last one told after p50 {} p99 {}, done after p50 {} p99 {}; {} of the server's processor, {} here ({} rounds, {} not waited for)",
            time(median(self.reached.clone())),
            at(&self.reached, 0.99),
            time(median(self.done.clone())),
            at(&self.done, 0.99),
            each(self.server, self.done.len()),
            each(self.here, self.done.len()),
            self.done.len(),
            self.untold
        )
    }
}

/// DELs of names that the first `holders` of the swarm hold.
async fn dels(pid: u32, node: &Node, swarm: &Swarm, holders: usize, rounds: usize) -> Took {
    let me = std::process::id();
    let mut took = Took {
        reached: Vec::new(),
        done: Vec::new(),
        server: Duration::ZERO,
        here: Duration::ZERO,
        untold: 0,
    };
    for _ in 0..rounds {
        let name = Name::of(format!("held-{}", serial())).expect("a short key");
        let set = node::set(node, name.clone(), crate::harness::value(serial(), 100)).await;
        let SetOutcome::Stored(entry) = set.outcome else { panic!("it is new") };
        swarm.hold(0..holders, &[(name.packed().to_vec(), entry.bind_rev.0)]).await;
        let told = swarm.tally.told.load(Relaxed);
        let id = node.request_id().await.expect("global was reached");
        let (server, here) = (computed(pid), computed(me));
        let began = Instant::now();
        node.delete(id, vec![name]).await.expect("deleted");
        took.done.push(began.elapsed().as_nanos() as f64);
        took.server += computed(pid).saturating_sub(server);
        took.here += computed(me).saturating_sub(here);
        // Whoever lost its stream meanwhile is told again; whose lease ran out, because this process had no processor,
        // is not waited for.
        took.untold += holders.saturating_sub(swarm.tally.told.load(Relaxed) - told);
        let last = swarm.tally.last_told();
        took.reached.push(last.saturating_duration_since(began).as_nanos() as f64);
    }
    took
}

/// KiB of memory that a process has.
pub fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).expect("it runs")
}
