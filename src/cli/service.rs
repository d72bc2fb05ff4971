//! What systemd is told, if it asked: ready, alive, stopping (`sd_notify(3)`). Without `NOTIFY_SOCKET` nothing happens.
//!
//! Alive means that a report of every tier came within the time: it goes through the runtime and the locks that calls
//! need. Invariant: who cannot be told is no reason to end.

use super::sys;
use crate::admin::Tiers;
use dstore_sys::tasks::Tasks;
use sd_notify::NotifyState;
use std::time::Duration;

/// How often within its time the watchdog is fed.
const FEEDS: u32 = 3;

/// Tells of a server, for as long as it is there.
#[derive(Debug)]
pub struct Service(Tasks);

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!(error = %e, "systemd cannot be told how it is");
    }
}

impl Service {
    /// The server answers; from now on the watchdog is fed, if there is one.
    pub fn ready(tiers: Tiers) -> Self {
        tell(&[NotifyState::Ready]);
        let tasks = Tasks::new();
        if let Some(within) = sd_notify::watchdog_enabled() {
            tasks.spawn("watchdog", feed(tiers, within / FEEDS));
        }
        Self(tasks)
    }

    /// The server is ending: nothing is heard of it for so long.
    pub fn stopping(self) -> Stopping {
        tell(&[NotifyState::Stopping]);
        Stopping(self.0)
    }
}

/// The watchdog is fed until the server has ended: it may take its time.
#[derive(Debug)]
pub struct Stopping(Tasks);

impl Stopping {
    /// The server has ended.
    pub async fn end(self) {
        self.0.stop().await;
    }
}

async fn feed(tiers: Tiers, pause: Duration) {
    loop {
        if matches!(tokio::time::timeout(pause, tiers.is_alive()).await, Ok(true)) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::warn!("no report within the time of the watchdog");
        }
        tokio::time::sleep(sys().rng.jitter(pause)).await;
    }
}
