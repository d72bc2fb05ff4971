//! Connections within one process: the two tiers of solo mode, and tests.

use super::{Address, BoxFuture, BoxIo, Listener, Net, RealNet};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes in flight each way before a writer waits.
const PIPE_BYTES: usize = 256 << 10;
/// Connections not yet accepted.
const BACKLOG: usize = 128;

type Listeners = Arc<Mutex<HashMap<String, mpsc::Sender<BoxIo>>>>;

/// `memory:` addresses within this value and its clones; any other address goes to the machine.
#[derive(Clone, Debug, Default)]
pub struct MemoryNet {
    listeners: Listeners,
}

impl Net for MemoryNet {
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let Address::Memory(name) = to else { return RealNet.connect(to).await };
            let listener = self.listeners.lock().get(name).cloned();
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (here, there) = tokio::io::duplex(PIPE_BYTES);
            listener.ok_or_else(refused)?.send(Box::new(there)).await.map_err(|_| refused())?;
            Ok(Box::new(here) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let Address::Memory(name) = at else { return RealNet.listen(at).await };
            let mut listeners = self.listeners.lock();
            if listeners.get(name).is_some_and(|l| !l.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (connect, connections) = mpsc::channel(BACKLOG);
            listeners.insert(name.clone(), connect);
            Ok(Box::new(MemoryListener { name: name.clone(), connections }) as Box<dyn Listener>)
        })
    }
}

#[derive(Debug)]
struct MemoryListener {
    name: String,
    connections: mpsc::Receiver<BoxIo>,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(
            async move { self.connections.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) },
        )
    }

    fn address(&self) -> Address {
        Address::Memory(self.name.clone())
    }
}
