//! What is told: a report of each tier that runs in this process.

use dstore_global::GlobalReporter;
use dstore_local::LocalReporter;
use dstore_proto::store::Status;
use dstore_shared::Result;
use dstore_shared::figures::{Figure, Reading};
use std::future::Future;

/// One thing without which a tier is not ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What it means if not.
    pub why: &'static str,
}

/// What one tier tells.
#[derive(Clone, Debug)]
pub struct TierReport {
    /// As `status` tells it.
    pub status: Status,
    /// In numbers.
    pub figures: Vec<Figure>,
    /// What it needs.
    pub checks: Vec<Check>,
}

/// Who can be asked how it does.
pub trait Report: Send + Sync + 'static {
    /// How it does now, tier by tier.
    fn report(&self) -> impl Future<Output = Result<Vec<TierReport>>> + Send;
}

fn is_set(figures: &[Figure], name: &str) -> bool {
    figures.iter().any(|figure| figure.name == name && figure.reading == Reading::Gauge(1.0))
}

fn of_global((status, figures): (Status, Vec<Figure>)) -> TierReport {
    let serving = is_set(&figures, "dstore_global_serving");
    let failed = is_set(&figures, "dstore_global_failed");
    let checks = vec![
        Check { name: "disk", ok: !failed, why: "the disk failed: nothing can be stored, it ends soon" },
        Check { name: "serving", ok: serving, why: "no changes are taken: it is ending" },
    ];
    TierReport { status, figures, checks }
}

fn of_local((status, figures): (Status, Vec<Figure>)) -> TierReport {
    let session = is_set(&figures, "dstore_local_session");
    let lease = "no lease: nothing is served from memory, every read asks global";
    let checks = vec![
        Check { name: "session", ok: session, why: "global is not reached" },
        Check { name: "lease", ok: status.serving, why: lease },
    ];
    TierReport { status, figures, checks }
}

/// The tiers of this process.
#[derive(Clone, Debug, Default)]
pub struct Tiers {
    /// The authority, if it runs here.
    pub global: Option<GlobalReporter>,
    /// The node, if it runs here.
    pub local: Option<LocalReporter>,
}

impl Tiers {
    /// Whether each of them can tell how it does, or has ended in order.
    pub async fn is_alive(&self) -> bool {
        let global = match &self.global {
            Some(global) => global.report().await.map(|_| ()),
            None => Ok(()),
        };
        let local = self.local.as_ref().map_or(Ok(()), |local| local.report().map(|_| ()));
        // Nobody but an end is what makes one refuse.
        global.and(local).is_ok()
    }
}

impl Report for Tiers {
    async fn report(&self) -> Result<Vec<TierReport>> {
        let mut all = Vec::new();
        if let Some(global) = &self.global {
            all.push(of_global(global.report().await?));
        }
        if let Some(local) = &self.local {
            all.push(of_local(local.report()?));
        }
        Ok(all)
    }
}
