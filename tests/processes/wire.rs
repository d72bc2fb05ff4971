//! The network between a Local and Global: a forwarder that can hold, cut and count.

#![allow(dead_code, reason = "the soak has this file too, and uses other parts of it")]

use dstore_client::Address;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the wire does with what comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Passes it on.
    Through,
    /// Keeps it: neither end hears anything, as when cables are pulled or a firewall drops packets.
    Held,
    /// Ends every connection, and each new one at once.
    Cut,
}

/// A forwarder to one address, which may change.
pub struct Wire {
    /// Where it listens.
    pub at: Address,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    flow: watch::Sender<Flow>,
    to: watch::Sender<String>,
    down: AtomicU64,
    /// Full reads that are still to lose a bit.
    noise: AtomicU64,
}

impl Wire {
    pub async fn to(to: &Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = Address::Tcp(listener.local_addr().expect("bound").to_string());
        let shared = Arc::new(Shared {
            flow: watch::Sender::new(Flow::Through),
            to: watch::Sender::new(to.to_string()),
            down: AtomicU64::new(0),
            noise: AtomicU64::new(0),
        });
        let taking = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                tokio::spawn(forward(taking.clone(), here));
            }
        });
        Self { at, shared, task }
    }

    pub fn set(&self, flow: Flow) {
        self.shared.flow.send_replace(flow);
    }

    /// Connections go to `to` from now on; those that go elsewhere end. (A port that a killed Global had may
    /// be another test's by now.)
    pub fn point_to(&self, to: &Address) {
        self.shared.to.send_replace(to.to_string());
    }

    /// Turns a bit in each of the next `times` reads that are full, so amid something large.
    pub fn disturb(&self, times: u64) {
        self.shared.noise.store(times, Ordering::SeqCst);
    }

    /// Whether everything was disturbed that should be.
    pub fn is_calm(&self) -> bool {
        self.shared.noise.load(Ordering::SeqCst) == 0
    }

    /// Bytes that came from Global so far.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Flow::Cut);
    }
}

async fn forward(shared: Arc<Shared>, here: TcpStream) {
    let mut cut = shared.flow.subscribe();
    let mut moved = shared.to.subscribe();
    let to = moved.borrow_and_update().clone();
    let pass = async {
        let Ok(there) = TcpStream::connect(to).await else { return };
        let _ = (here.set_nodelay(true), there.set_nodelay(true));
        let ((mut from_local, mut to_local), (mut from_global, mut to_global)) =
            (here.into_split(), there.into_split());
        let (uncounted, calm) = (AtomicU64::new(0), AtomicU64::new(0));
        // Either end closes both.
        tokio::select! {
            () = pump(&shared.flow, &mut from_local, &mut to_global, (&uncounted, &calm)) => {}
            () = pump(&shared.flow, &mut from_global, &mut to_local, (&shared.down, &shared.noise)) => {}
        }
    };
    tokio::select! {
        () = pass => {}
        _ = cut.wait_for(|flow| *flow == Flow::Cut) => {}
        _ = moved.changed() => {}
    }
}

async fn pump(
    flow: &watch::Sender<Flow>,
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    (count, noise): (&AtomicU64, &AtomicU64),
) {
    let (mut flow, mut bytes) = (flow.subscribe(), vec![0; 64 << 10]);
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if flow.wait_for(|flow| *flow == Flow::Through).await.is_err() {
            return;
        }
        count.fetch_add(n as u64, Ordering::SeqCst);
        let less = |left: u64| left.checked_sub(1);
        if n == bytes.len() && noise.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            bytes[n / 2] ^= 4;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
