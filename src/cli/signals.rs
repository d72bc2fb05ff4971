//! Signals: a first one asks to end, a second one ends.

use dstore_local::repl::Interrupts;
use dstore_shared::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The signals that this process listens to.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    pressed: watch::Sender<u64>,
}

/// Exit code of a process that was asked to end by SIGTERM or SIGHUP, as shells number it.
pub const TERMINATED: u8 = 143;

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Error::internal(format!("signals cannot be listened to, {e}: report it")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            pressed: watch::Sender::new(0),
        })
    }

    /// Counts Ctrl-C for a session.
    pub fn interrupts(&self) -> Interrupts {
        self.pressed.subscribe()
    }

    /// Waits until the process is asked to end, by any signal: for servers.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            () = end_of_session(&mut self.terminate, &mut self.hang_up) => {}
        }
    }

    /// Waits until the process is asked to end; Ctrl-C only cancels a command: for sessions.
    pub async fn end_of_session(&mut self) {
        let Self { interrupt, terminate, hang_up, pressed } = self;
        let counting = async {
            while interrupt.recv().await.is_some() {
                pressed.send_modify(|n| *n += 1);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = counting => {}
            () = end_of_session(terminate, hang_up) => {}
        }
    }
}

async fn end_of_session(terminate: &mut Signal, hang_up: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}
