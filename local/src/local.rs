//! A running Local: its session, its doors, its end.

use crate::coherence::Identity;
use crate::config::{Listen, LocalConfig};
use crate::core::Core;
use crate::figures::LocalReporter;
use crate::front::http::{Hosts, HttpDoor};
use crate::front::resp::{RespConfig, RespDoor, RespListeners};
use crate::front::shm::{ShmConfig, ShmDoor};
use crate::node::Node;
use crate::{audit, scrub, upstream};
use dstore_proto::dial::Dial;
use dstore_proto::link::LinkClient;
use dstore_proto::serve::{Gate, Limits, Routes, Serving};
use dstore_shared::{Error, Incarnation, Kind, LocalId, Result};
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener, connections_max};
use dstore_sys::ready::Acceptor;
use dstore_sys::tasks::Tasks;
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a stop waits for Global to take note of BYE: it would else wait for the end of the lease.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// How long a stop lets calls and transfers go on that are under way; longer ones are broken off.
const CALLS_MAX: Duration = Duration::from_millis(500);

/// Descriptors that a worker at the door to shared memory costs: its socket, its page, its process.
const FILES_A_WORKER: usize = 3;

/// A running Local.
pub struct Local {
    core: Arc<Core>,
    node: Node,
    doors: Vec<Serving>,
    http: Option<Gate<HttpDoor>>,
    resp: Option<RespDoor>,
    shm: Option<ShmDoor>,
    tasks: Tasks,
    /// Resolved when the last session has ended.
    goodbye: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Local({:?})", self.addresses())
    }
}

impl Local {
    /// Starts a Local. It needs no Global to start: until there is a session it answers no name from memory,
    /// and calls wait for Global up to their deadline.
    ///
    /// # Errors
    /// `Invalid` if an address cannot be listened on.
    pub async fn start(sys: Sys, config: LocalConfig) -> Result<Self> {
        // All of them before anything runs: what a start that fails has begun, nobody would end.
        let mut listeners = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            listeners.push(bind(&sys, listen).await?);
        }
        let http = match &config.http {
            Some(listen) => Some(bind(&sys, listen).await?),
            None => None,
        };
        let resp = RespListeners::bind(&sys, &config.resp).await?;
        let shm = match &config.shm {
            Some(shm) => bind_shm(&sys, shm).await?,
            None => None,
        };
        let tasks = Tasks::new();
        let link = LinkClient::new(&sys, &tasks, &config.global, &Dial::default());
        // A fresh identity each start: nothing of an earlier life is held, so nothing of it must be fenced.
        let identity = Identity {
            local_id: LocalId(sys.rng.next_u128()),
            incarnation: Incarnation(sys.clock.wall_ms()),
            label: config.label.clone(),
        };
        let share = share(connections_max(), &config);
        let limits = Limits { connections: Limits::default().connections.min(share), ..Limits::default() };
        let core =
            Core::new(sys.clone(), tasks.clone(), link, config.cache_bytes, config.negatives, identity);
        let node = Node::new(core.clone(), config.deadline);
        let mut doors = Vec::new();
        for listener in listeners {
            let door = open_door(&sys, &tasks, listener, &node, &limits).await;
            doors.push(door.inspect_err(|_| tasks.cancel())?);
        }
        let http = http.map(|listener| {
            let store = Arc::new(node.clone());
            let hosts = Hosts::new(config.http_hosts);
            let bounds = (&limits, config.http_bytes);
            let door = HttpDoor::new(store.clone(), store, sys.rng.clone(), &tasks, hosts, bounds);
            Gate::open(&sys, &tasks, listener, door)
        });
        let clients_max = config.resp.clients_max.min(share);
        let resp = RespDoor::open(&sys, &tasks, &node, RespConfig { clients_max, ..config.resp }, resp);
        let resp = resp.inspect_err(|_| tasks.cancel())?;
        let shm = config.shm.as_ref().zip(shm).map(|(config, acceptor)| {
            let config =
                ShmConfig { workers_max: config.workers_max.min(share / FILES_A_WORKER), ..config.clone() };
            ShmDoor::open(&node, &config, acceptor)
        });
        let shm = shm.transpose().inspect_err(|_| tasks.cancel())?;
        if let Some(door) = &shm {
            node.core().shows(door.path(), door.shown());
        }
        let (last, goodbye) = oneshot::channel();
        let sessions = upstream::keep_session(core.clone(), config.back_off);
        tasks.spawn("session", async move {
            sessions.await;
            let _ = last.send(());
        });
        tasks.spawn("requests", upstream::keep_requests(core.clone(), config.back_off));
        tasks.spawn("scrub", scrub::scrub(core.clone(), config.scrub_per_mille));
        tasks.spawn("audit", audit::audit(core.clone(), config.audits_a_minute));
        tasks.spawn("health", follow_lease(core.clone(), doors.iter().map(|d| d.health().clone()).collect()));
        Ok(Self { core, node, doors, http, resp, shm, tasks, goodbye })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.iter().map(|door| door.address().clone()).collect()
    }

    /// Where it serves HTTP, if it does.
    pub fn http_address(&self) -> Option<&Address> {
        self.http.as_ref().map(Gate::address)
    }

    /// Where it listens for RESP, in the order of the configuration.
    pub fn resp_addresses(&self) -> Vec<Address> {
        self.resp.as_ref().map_or_else(Vec::new, |door| door.addresses().to_vec())
    }

    /// Who tells how it does.
    pub fn reporter(&self) -> LocalReporter {
        LocalReporter::new(&self.core, self.resp.as_ref())
    }

    /// Where workers get at shared memory, if they can.
    pub fn shm_address(&self) -> Option<&Address> {
        self.shm.as_ref().map(ShmDoor::address)
    }

    /// The node, to be used in this process.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until the node serves names under a lease.
    ///
    /// # Errors
    /// `Unavailable` after `limit`, and as [`Self::refused`].
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let wait = async {
            loop {
                let moved = self.core.lease_moved();
                if self.core.is_serving() {
                    return;
                }
                moved.await;
            }
        };
        let late = |_| Error::unavailable(format!("no session with global within `{limit:?}`"));
        tokio::select! {
            biased;
            ready = tokio::time::timeout(limit, wait) => ready.map_err(late),
            why = self.refused() => Err(why),
        }
    }

    /// Why this Local will never serve: `Invalid` if at the address that it was given there is no Global, as when
    /// there is another Local. Waits for as long as it may serve. It is decided by the first who answers there; a
    /// Local that has ever had a session looks for another one.
    pub async fn refused(&self) -> Error {
        self.core.refused().await
    }

    /// Stops serving names, tells Global so, and ends every task. Takes about 5 s at most: what is under way gets
    /// half a second, during which Global answers; then it ends with an error, and whoever reads slowly has the
    /// rest of [`Limits::drain`] to take what was sent already.
    pub async fn stop(self) {
        self.core.leave();
        let http = async {
            if let Some(http) = &self.http {
                http.stop().await;
            }
        };
        let answered = async { tokio::join!(join_all(self.doors.iter().map(Serving::stop)), http) };
        // Side by side: a door lets nobody in from now on, and its connections drain from now on.
        let goodbye = tokio::time::timeout(GOODBYE_MAX, self.goodbye);
        let _ = tokio::join!(tokio::time::timeout(CALLS_MAX, answered), goodbye);
        if let Some(door) = self.resp {
            door.stop().await;
        }
        if let Some(door) = self.shm {
            door.stop().await;
        }
        self.tasks.stop().await;
    }
}

/// How many connections each listener may have, so that all of them together stay within `connections`: the files that
/// this process may open, less those of its other work. Equal parts, so that whoever fills one door leaves the others
/// theirs; the sockets of RESP count as one, as they do there.
fn share(connections: usize, config: &LocalConfig) -> usize {
    let listeners = config.listen.len()
        + usize::from(config.http.is_some())
        + usize::from(!config.resp.listen.is_empty())
        + usize::from(config.shm.is_some());
    connections / listeners.max(1)
}

async fn bind(sys: &Sys, listen: &Listen) -> Result<Box<dyn Listener>> {
    let mut listener = sys.net.listen(&listen.address).await;
    if listen.or_any && listener.is_err() {
        listener = sys.net.listen(&Address::Tcp("127.0.0.1:0".into())).await;
    }
    listener.map_err(|e| {
        let address = &listen.address;
        Error::invalid(format!(
            "cannot listen on `{address}`, {e}: stop what uses it, or choose another address"
        ))
        .caused_by(e)
    })
}

/// The listener for workers; none, which is told, if there is no such memory here, or nobody asked for it and it cannot be had.
async fn bind_shm(sys: &Sys, config: &ShmConfig) -> Result<Option<Acceptor>> {
    match ShmDoor::bind(sys, config).await {
        Ok(acceptor) => Ok(Some(acceptor)),
        Err(error) if config.is_default || error.kind() == Kind::Unavailable => {
            tracing::warn!(%error, "no shared memory for workers: they read over the socket");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn open_door(
    sys: &Sys,
    tasks: &Tasks,
    listener: Box<dyn Listener>,
    node: &Node,
    limits: &Limits,
) -> Result<Serving> {
    let store = Arc::new(node.clone());
    let routes = Routes::new(tasks, limits).store(store.clone(), store);
    // Before anybody can ask: nothing is served before there is a lease.
    routes.health().set(false).await;
    Serving::start(sys, tasks, listener, routes)
}

/// The standard health service says SERVING while there is a lease.
async fn follow_lease(core: Arc<Core>, doors: Vec<dstore_proto::serve::Health>) {
    let mut told = None;
    loop {
        let moved = core.lease_moved();
        let left = core.lease_left();
        let serving = !left.is_zero();
        let before = told.replace(serving);
        if before == Some(true) && !serving {
            core.served.lapses.fetch_add(1, Ordering::Relaxed);
        }
        if before != Some(serving) {
            for health in &doors {
                health.set(serving).await;
            }
        }
        if serving {
            let _ = tokio::time::timeout(left, moved).await;
        } else {
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_sys::net::MemoryNet;

    #[test]
    fn the_listeners_of_a_node_share_the_files_that_it_may_open() {
        let at = |name: &str| Listen { address: Address::Memory(name.into()), or_any: false };
        let mut config = LocalConfig::new(Address::Memory("global".into()));
        assert_eq!(share(768, &config), 768, "nobody listens");
        config.listen = vec![at("a")];
        assert_eq!(share(768, &config), 768);
        config.listen = vec![at("a"), at("b")];
        config.http = Some(at("http"));
        config.resp.listen = vec![at("resp"), at("socket")];
        let each = share(769, &config);
        let resp_counts_once = each * 4;
        assert_eq!((each, resp_counts_once), (192, 768), "together no more than there are");
        assert_eq!(share(3, &config), 0);
    }

    #[tokio::test]
    async fn a_start_that_finds_an_address_taken_leaves_nothing_behind() {
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let at = |name: &str| Address::Memory(name.into());
        let listen = |name| Listen { address: at(name), or_any: false };
        let config = LocalConfig { listen: vec![listen("a"), listen("b")], ..LocalConfig::new(at("global")) };
        let taken = sys.net.listen(&at("b")).await.expect("free");
        let e = Local::start(sys.clone(), config.clone()).await.expect_err("taken");
        assert!(e.message().contains("`memory:b`"), "{e}");
        assert!(sys.net.connect(&at("a")).await.is_err(), "nobody listens at the first address");
        drop(taken);
        Local::start(sys, config).await.expect("both are free").stop().await;
    }
}
