//! Signals: a first one asks to end, a second one ends.

use super::{logging, screen};
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

    /// Waits until the process is asked to end: for servers. SIGHUP says so if they have a terminal, which has gone away
    /// then; else it has the log level read again, as daemons do.
    pub async fn end(&mut self) {
        let Self { interrupt, terminate, hang_up, .. } = self;
        let hung_up = async {
            while hang_up.recv().await.is_some() && !screen::had_terminal() {
                logging::read_again();
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = hung_up => {}
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
