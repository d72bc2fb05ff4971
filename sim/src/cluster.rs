//! A Global and its Locals as hosts of a simulated network, with clients inside the Locals.
//!
//! Each host has a clock of its own, off by up to the bound on its rate, and randomness of its own; each life
//! of a host draws anew. Global's disk outlives it as a crash leaves it.
//! Nothing here may run on a thread: the seed would not reach it.

mod changes;
mod client;
mod desk;
mod reads;
mod watcher;

use crate::check;
use crate::faults::Siege;
use crate::history::History;
use crate::linear::Value;
use crate::net::TurmoilNet;
use crate::plan::{Bug, Plan};
use crate::planted::{Lie, LyingDisk};
use client::Client;
use desk::{Embedded, Remote};
use dstore_client::ClientConfig;
use dstore_global::{EngineKind, Global, GlobalConfig};
use dstore_local::{Listen, Local, LocalConfig};
use dstore_proto::dial::Dial;
use dstore_shared::{Blob, BlobHash, Key, Moment, Name};
use dstore_sys::Sys;
use dstore_sys::clock::TokioClock;
use dstore_sys::disk::{Disk, SimDisk};
use dstore_sys::net::{Address, Net};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Blocking;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The name of Global's host.
pub const GLOBAL: &str = "global";
/// The name of the host of clients that are neither.
pub const WORKER: &str = "worker";
/// Bytes of changes that [`Bug::ForgetfulDisk`] may forget.
const REMEMBERED_BYTES: usize = 1 << 20;
/// How long a job that blocks takes where the disk is quick.
const QUICK: Duration = Duration::from_millis(1);
const PORT: u16 = 50_051;
const LOCAL_PORT: u16 = 50_052;
/// A node gives up on Global after that, so that clients try again while faults last.
const DEADLINE: Duration = Duration::from_millis(700);
/// In a whole network everybody must be served again within this.
const RECOVERED: Duration = Duration::from_secs(40);

/// What the clients are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Call at will.
    Work,
    /// End the call under way and begin no other.
    Settle,
    /// Each Local reads every key once.
    Look,
}

/// What the driver, the hosts and the clients of one run share.
#[derive(Clone)]
pub struct Cluster(Rc<State>);

struct State {
    plan: Plan,
    net: TurmoilNet,
    /// True time at the start of the present step.
    step: Cell<Duration>,
    phase: Cell<Phase>,
    disk: RefCell<SimDisk>,
    lives: RefCell<BTreeMap<String, u64>>,
    history: History,
    values: RefCell<BTreeMap<BlobHash, Value>>,
    value_next: Cell<Value>,
    /// Clients with a call under way.
    busy: Cell<usize>,
    looked: RefCell<BTreeMap<usize, Vec<Option<Value>>>>,
    violations: RefCell<Vec<String>>,
    troubles: RefCell<Vec<Trouble>>,
    /// Locals that stand still.
    paused: RefCell<BTreeSet<usize>>,
    stop_global: Notify,
    /// Global's process ended by itself.
    global_ended: Cell<bool>,
}

/// True time, as a host's runtime shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrueTime {
    began: Duration,
    origin: tokio::time::Instant,
}

impl TrueTime {
    pub(crate) fn now(&self) -> Duration {
        self.began + self.origin.elapsed()
    }
}

/// A time in which somebody is not served as usual.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// The Local; `None` = Global, and so everybody.
    pub local: Option<usize>,
    /// When it began.
    pub from: Duration,
    /// When what broke is whole again.
    pub whole: Duration,
    /// When its last traces are gone.
    pub to: Duration,
    /// How often a session may break by it.
    pub failures: u32,
}

impl Cluster {
    /// A cluster that has not begun.
    pub fn new(plan: Plan, net: TurmoilNet) -> Self {
        let cluster = Self(Rc::new(State {
            plan,
            net,
            step: Cell::default(),
            phase: Cell::new(Phase::Work),
            disk: RefCell::default(),
            lives: RefCell::default(),
            history: History::default(),
            values: RefCell::default(),
            value_next: Cell::new(1),
            busy: Cell::new(0),
            looked: RefCell::default(),
            violations: RefCell::default(),
            troubles: RefCell::default(),
            paused: RefCell::default(),
            stop_global: Notify::new(),
            global_ended: Cell::new(false),
        }));
        cluster.replace_disk(SimDisk::new());
        cluster
    }

    /// What the run was made from.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The network.
    pub fn net(&self) -> &TurmoilNet {
        &self.0.net
    }

    /// What the clients did.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// To be called before each step of the simulation.
    pub fn steps_at(&self, now: Duration) {
        self.0.step.set(now);
    }

    /// The siege that goes on, if any.
    pub(crate) fn siege(&self) -> Option<Siege> {
        let Plan { faults, keys, lease, .. } = &self.0.plan;
        faults.iter().find_map(|planned| planned.siege(self.0.step.get(), *keys, *lease))
    }

    /// Tells the clients what to do from now on.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.set(phase);
    }

    /// Whether no client has a call under way.
    pub fn is_quiet(&self) -> bool {
        self.0.busy.get() == 0
    }

    /// What each Local read in [`Phase::Look`]; complete when every Local has.
    pub fn looked(&self) -> BTreeMap<usize, Vec<Option<Value>>> {
        self.0.looked.borrow().clone()
    }

    /// Reports that something is wrong.
    pub fn accuse(&self, violation: impl Into<String>) {
        let at = self.0.step.get();
        self.0.violations.borrow_mut().push(format!("at {at:?}: {}", violation.into()));
    }

    /// What was reported.
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.borrow().clone()
    }

    /// Notes that somebody is not served as usual for a while.
    pub fn troubled(&self, trouble: Trouble) {
        self.0.troubles.borrow_mut().push(trouble);
    }

    /// All that was noted.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.0.troubles.borrow().clone()
    }

    /// The disk of Global's present life.
    pub fn disk(&self) -> SimDisk {
        self.0.disk.borrow().clone()
    }

    /// The disk that Global's next life finds.
    pub fn replace_disk(&self, disk: SimDisk) {
        if self.0.plan.bug == Some(Bug::ForgetfulDisk) {
            disk.record(REMEMBERED_BYTES);
        }
        *self.0.disk.borrow_mut() = disk;
    }

    /// Asks Global to stop in order.
    pub fn stop_global(&self) {
        self.0.stop_global.notify_one();
    }

    /// Whether Global's process ended by itself since the last call.
    pub fn take_global_ended(&self) -> bool {
        self.0.global_ended.replace(false)
    }

    /// Has a Local stand still, or go on.
    pub(crate) fn pause(&self, local: usize, stands: bool) {
        let mut paused = self.0.paused.borrow_mut();
        if stands {
            paused.insert(local)
        } else {
            paused.remove(&local)
        };
    }

    /// Whether a client's Local stands still.
    pub(crate) fn is_paused(&self, by: &str) -> bool {
        self.0.paused.borrow().iter().any(|local| by.starts_with(&format!("{}/", local_host(*local))))
    }

    /// The settings of Global, but for where it listens.
    pub(crate) fn global_config(&self) -> GlobalConfig {
        let plan = &self.0.plan;
        let mut config = GlobalConfig::new("/data");
        config.engine = EngineKind::Memory;
        config.lease = plan.lease;
        config.drain_timeout = plan.lease * 4;
        config.sync = plan.sync;
        config.sweep_grace = plan.sweep_grace;
        config.watch_bytes = plan.watch_bytes;
        config.min_free = plan.min_free;
        config.segment_bytes = plan.segment_bytes;
        config.checkpoint_bytes = plan.checkpoint_bytes;
        config
    }

    /// Global's disk as it sees it.
    fn global_disk(&self) -> Arc<dyn Disk> {
        let lie = match self.0.plan.bug {
            Some(Bug::LateSync) => Lie::LateSync,
            Some(Bug::NoDirSync) => Lie::NoDirSync,
            _ => return Arc::new(self.disk()),
        };
        Arc::new(LyingDisk::new(self.disk(), lie))
    }

    /// The software of Global's host.
    pub async fn run_global(self) -> turmoil::Result {
        let (sys, _) = self.machine(GLOBAL, self.global_disk());
        let mut config = self.global_config();
        config.listen = vec![Address::Tcp(format!("0.0.0.0:{PORT}"))];
        match Global::start(sys, config).await {
            Ok(global) => tokio::select! {
                biased;
                failed = global.failed() => tracing::info!(error = %failed, "global failed"),
                () = self.0.stop_global.notified() => {
                    if let Err(e) = global.stop().await {
                        tracing::info!(error = %e, "global did not stop cleanly");
                    }
                }
            },
            // A disk that fails may fail a start; a whole one must not.
            Err(e) if self.0.plan.breaks_disk() => tracing::info!(error = %e, "global did not start"),
            Err(e) => self.accuse(format!("global did not start: {e}")),
        }
        self.0.global_ended.set(true);
        std::future::pending().await
    }

    /// The software of a Local's host: the Local, its clients, and somebody who watches.
    pub async fn run_local(self, index: usize) -> turmoil::Result {
        let host = local_host(index);
        let plan = &self.0.plan;
        let (sys, time) = self.machine(&host, Arc::new(SimDisk::new()));
        let mut config = LocalConfig::new(Address::Tcp(format!("{GLOBAL}:{PORT}")));
        if plan.workers > 0 {
            let address = Address::Tcp(format!("0.0.0.0:{LOCAL_PORT}"));
            config.listen = vec![Listen { address, or_any: false }];
        }
        config.cache_bytes = plan.cache_bytes;
        config.negatives = plan.negatives;
        config.deadline = DEADLINE;
        config.back_off = (Duration::from_millis(5), Duration::from_millis(100));
        config.label.clone_from(&host);
        let rng = sys.rng.clone();
        let local = Local::start(sys.clone(), config).await.map_err(|e| e.to_string())?;
        for number in 0..plan.clients {
            let client = self.embedded(index, &number.to_string(), &local, time, rng.next_u64());
            tokio::task::spawn_local(client.run());
        }
        let watcher = watcher::Watcher {
            cluster: self.clone(),
            by: watcher_of(index),
            client: dstore_client::Client::over(&sys, Arc::new(local.node().clone()), client_config()),
            time,
            rng: SeededRng::new(rng.next_u64()),
        };
        tokio::task::spawn_local(watcher.run());
        while self.0.phase.get() != Phase::Look {
            tokio::time::sleep(Duration::from_millis(10)).await;
            for wrong in check::g7_memory::look(local.node(), self.0.plan.cache_bytes).await {
                self.accuse(format!("{host}: {wrong}"));
            }
        }
        self.look(index, &local, time).await;
        std::future::pending().await
    }

    fn embedded(
        &self,
        index: usize,
        name: &str,
        local: &Local,
        time: TrueTime,
        seed: u64,
    ) -> Client<Embedded> {
        let host = local_host(index);
        let (by, seeded) = (format!("{host}/{name}"), Arc::new(SeededRng::new(seed)));
        let desk = Embedded { host, node: local.node().clone() };
        Client::new(self.clone(), by, desk, time, seeded)
    }

    /// The software of a host of clients only: each calls every Local, and Global, over gRPC.
    pub async fn run_worker(self) -> turmoil::Result {
        let (sys, time) = self.machine(WORKER, Arc::new(SimDisk::new()));
        let hosts = (0..self.0.plan.locals).map(|index| (local_host(index), LOCAL_PORT));
        for number in 0..self.0.plan.workers {
            let connect = |(host, port): (String, u16)| {
                let address = Address::Tcp(format!("{host}:{port}"));
                let client = dstore_client::Client::connect(&sys, &address, client_config());
                (host, client)
            };
            let desk = Remote(hosts.clone().chain([(GLOBAL.to_owned(), PORT)]).map(connect).collect());
            let seeded = Arc::new(SeededRng::new(sys.rng.next_u64()));
            let client = Client::new(self.clone(), format!("{WORKER}/{number}"), desk, time, seeded);
            tokio::task::spawn_local(client.run());
        }
        std::future::pending().await
    }

    /// Reads every key until there is an answer: the network is whole. Then waits for the watcher.
    async fn look(&self, index: usize, local: &Local, time: TrueTime) {
        let client = self.embedded(index, "last", local, time, 0);
        let mut seen = Vec::new();
        let until = time.now() + RECOVERED;
        for key in 0..self.0.plan.keys {
            let value = loop {
                let mut value = client.get(key).await;
                if value.is_none() && self.0.plan.damages_files() {
                    // Its bytes are damaged for good; its name is not.
                    value = client.stat(key).await;
                }
                match value {
                    Some(value) => break value,
                    None if time.now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
                    None => return self.accuse(format!("{} is not served again", local_host(index))),
                }
            };
            if value.is_none() && local.node().hit(&name(key)).is_some() {
                self.accuse(format!("{} still holds key {key}, which is absent", local_host(index)));
            }
            seen.push(value);
        }
        let last = self.0.history.revision_max();
        while self.0.history.through(&watcher_of(index)).unwrap_or(0) < last {
            if time.now() > until {
                return self.accuse(format!("the watch at {} does not get on", local_host(index)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.0.looked.borrow_mut().insert(index, seen);
    }

    /// The outside, as this life of `host` sees it, and true time.
    fn machine(&self, host: &str, disk: Arc<dyn Disk>) -> (Sys, TrueTime) {
        self.machine_on(host, disk, Arc::new(self.0.net.seen_from(turmoil::lookup(host))))
    }

    /// The same on another network.
    pub(crate) fn machine_on(&self, host: &str, disk: Arc<dyn Disk>, net: Arc<dyn Net>) -> (Sys, TrueTime) {
        let plan = &self.0.plan;
        let life = *self.0.lives.borrow_mut().entry(host.to_owned()).and_modify(|n| *n += 1).or_insert(1);
        let of_host = crate::history::fnv(host.as_bytes()) ^ plan.seed;
        let (ppm, boot) = plan.clock(of_host, host);
        let began = self.0.step.get();
        let origin = tokio::time::Instant::now();
        let since_boot = Duration::from_nanos((began.as_nanos() * u128::from(ppm) / 1_000_000) as u64);
        let start = Moment::from_nanos((boot + since_boot).as_nanos() as u64);
        let rng = SeededRng::new(of_host.wrapping_add(life << 32));
        // The first draws of near seeds are alike enough to be told apart by nobody but us.
        rng.next_u64();
        // A disk may be slow in one life and quick in the next.
        let latency = if rng.next_u64().is_multiple_of(2) { plan.blocked } else { plan.blocked.min(QUICK) };
        let sys = Sys {
            clock: Arc::new(TokioClock::new(start, ppm)),
            rng: Arc::new(rng),
            net,
            disk,
            blocking: Blocking::Inline { latency },
        };
        (sys, TrueTime { began, origin })
    }

    /// A value that no call has used yet.
    fn new_value(&self) -> Value {
        let value = self.0.value_next.get();
        self.0.value_next.set(value + 1);
        self.0.values.borrow_mut().insert(Blob::hash(bytes_of(value)).id(), value);
        value
    }

    /// The value of a hash, if any has it.
    pub(crate) fn value_of(&self, hash: &BlobHash) -> Option<Value> {
        self.0.values.borrow().get(hash).copied()
    }
}

/// The name of the host of a Local.
pub fn local_host(index: usize) -> String {
    format!("local{index}")
}

fn watcher_of(index: usize) -> String {
    format!("{}/watch", local_host(index))
}

/// A client gives up about as soon as a node does.
fn client_config() -> ClientConfig {
    let ms = Duration::from_millis;
    ClientConfig {
        dial: Dial {
            connect: ms(300),
            call: ms(2_000),
            transfer_idle: ms(2_000),
            keepalive: ms(300),
            keepalive_timeout: ms(300),
            ..Dial::default()
        },
        deadline: ms(2_500),
        ..ClientConfig::default()
    }
}

/// What the keys of a key's kind begin with: every other key is of one kind.
fn prefix_of(key: usize) -> String {
    ["a/", "b/"][key % 2].to_owned()
}

fn key_of(key: usize) -> String {
    format!("{}{key}", prefix_of(key))
}

fn key(text: String) -> Key {
    Key::new(text).expect("a short key is valid")
}

/// The name of a key.
pub(crate) fn name(key: usize) -> Name {
    Name::of(key_of(key)).expect("a short key is valid")
}

/// The bytes of a value: most are small, some travel on their own, some have a file at Global.
pub(crate) fn bytes_of(value: Value) -> bytes::Bytes {
    let len: usize = match value % 16 {
        7 | 10 => 20_000,
        13 => 70_000,
        3 if value % 64 == 3 => 150_000,
        _ => 12,
    };
    value.to_le_bytes().repeat(len.div_ceil(4)).into()
}
