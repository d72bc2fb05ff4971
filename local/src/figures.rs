//! What a Local tells whoever runs it, gathered when it is asked.
//!
//! Names and meanings are the table of docs/OPERATIONS.md, which a test holds against these. It must never walk what
//! grows with the cache, nor tell anything of single names.

use crate::core::Core;
use crate::front::resp::{RespDoor, Stats};
use dstore_proto::store::Status;
use dstore_shared::figures::{Figure, Reading};
use dstore_shared::{Error, Result};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Tells how a Local does, for as long as it is there; it does not keep it from ending.
#[derive(Clone)]
pub struct LocalReporter {
    core: Weak<Core>,
    resp: Option<Arc<Stats>>,
}

impl fmt::Debug for LocalReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalReporter")
    }
}

impl LocalReporter {
    pub(crate) fn new(core: &Arc<Core>, resp: Option<&RespDoor>) -> Self {
        Self { core: Arc::downgrade(core), resp: resp.map(|door| door.stats().clone()) }
    }

    /// As `status` tells it, and in numbers.
    ///
    /// # Errors
    /// `Unavailable` when it has ended.
    pub fn report(&self) -> Result<(Status, Vec<Figure>)> {
        let core = self.core.upgrade().ok_or_else(|| Error::unavailable("the node has ended"))?;
        Ok((crate::node::status_of(&core), of(&core, self.resp.as_deref())))
    }
}

fn of(core: &Core, resp: Option<&Stats>) -> Vec<Figure> {
    let mut all = reads(core, resp);
    all.extend(session(core));
    all.extend(cache(core));
    all.extend(trust(core));
    all
}

fn reads(core: &Core, resp: Option<&Stats>) -> Vec<Figure> {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let misses = core.served.misses();
    let by_tier = |tier: &str, count| {
        Figure::counter(
            "dstore_local_reads_total",
            "GETs of one name by the tier that knew the answer.",
            count,
        )
        .of("tier", tier)
    };
    let hits = load(&core.served.hits) + resp.map_or(0, |stats| load(&stats.hits));
    let mut all = vec![
        by_tier("local", hits + core.absent_hits()),
        by_tier("global", misses.count()),
        Figure::new(
            "dstore_local_miss_seconds",
            "How long a read takes for which Global is asked.",
            Reading::Times(misses),
        ),
    ];
    if let Some(stats) = resp {
        all.push(Figure::counter(
            "dstore_local_resp_commands_total",
            "Commands of Redis clients.",
            load(&stats.commands),
        ));
        all.push(Figure::counter(
            "dstore_local_resp_errors_total",
            "Replies to them that were errors.",
            load(&stats.errors),
        ));
        all.push(Figure::counter(
            "dstore_local_resp_refused_total",
            "Redis clients for which there was no room.",
            load(&stats.refused),
        ));
        all.push(Figure::counter(
            "dstore_local_resp_panics_total",
            "Threads of the RESP door that failed and went on: must be 0.",
            load(&stats.panics),
        ));
    }
    all
}

fn session(core: &Core) -> Vec<Figure> {
    let (_, revision, lease, epoch) = core.standing();
    vec![
        Figure::gauge(
            "dstore_local_serving",
            "1 if names are served from memory: the lease is valid.",
            u8::from(core.is_serving()),
        ),
        Figure::gauge(
            "dstore_local_session",
            "1 if there is a session with Global.",
            u8::from(epoch.is_some()),
        ),
        Figure::gauge(
            "dstore_local_lease_left_seconds",
            "For how long names can be served if Global is not heard of again.",
            core.lease_left().as_secs_f64(),
        ),
        Figure::gauge("dstore_local_lease_seconds", "The lease length in force.", lease.as_secs_f64()),
        Figure::counter(
            "dstore_local_lease_lapses_total",
            "Times that the lease ran out or was given up: until the next one every read asks Global.",
            core.served.lapses.load(Ordering::Relaxed),
        ),
        Figure::level(
            "dstore_local_revision",
            "The newest revision of Global that was heard of.",
            revision.0,
        ),
    ]
}

fn cache(core: &Core) -> Vec<Figure> {
    let (stats, (held, held_max)) = (core.cache.stats(), core.rooms.taken());
    vec![
        Figure::level("dstore_local_cache_bytes", "Memory of names and values.", stats.bytes()),
        Figure::level("dstore_local_cache_bytes_max", "The most that it may be.", stats.bytes_max),
        Figure::level("dstore_local_names", "Names that are held.", stats.names),
        Figure::level("dstore_local_blobs", "Values that are held, each once.", stats.blobs),
        Figure::counter(
            "dstore_local_names_installed_total",
            "Names that came to be held.",
            stats.names_installed,
        ),
        Figure::counter(
            "dstore_local_names_removed_total",
            "Names that were deleted, bound anew, or dropped with a session.",
            stats.names_removed,
        ),
        Figure::counter(
            "dstore_local_names_evicted_total",
            "Names that went for want of room.",
            stats.names_evicted,
        ),
        Figure::counter(
            "dstore_local_blobs_evicted_total",
            "Values that went for want of room.",
            stats.blobs_evicted,
        ),
        Figure::counter(
            "dstore_local_refused_total",
            "Values that were not kept: too large, or older than what is known.",
            stats.refused,
        ),
        Figure::level(
            "dstore_local_held_bytes",
            "Memory of values that are held or on their way to somebody.",
            held as u64,
        ),
        Figure::level("dstore_local_held_bytes_max", "The most that it may be.", held_max as u64),
    ]
}

fn trust(core: &Core) -> Vec<Figure> {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let audit = &core.audit;
    vec![
        Figure::counter(
            "dstore_local_corrupt_total",
            "Values that were damaged in this node's memory, and fetched again: must be 0.",
            load(&core.damage[0]),
        ),
        Figure::counter(
            "dstore_local_corrupt_arrivals_total",
            "Values that arrived damaged, and were fetched again.",
            load(&core.damage[1]),
        ),
        Figure::counter(
            "dstore_local_audits_total",
            "Hits about which Global was asked afterwards.",
            load(&audit.audits),
        ),
        Figure::counter(
            "dstore_local_audits_changed_total",
            "Of them those whose name was bound otherwise by then, as it may be.",
            load(&audit.changed),
        ),
        Figure::counter(
            "dstore_local_audits_suspect_total",
            "Of them those that were served still when Global had told otherwise, as an asynchronous DEL may leave it.",
            load(&audit.suspects),
        ),
        Figure::counter(
            "dstore_local_stale_serves_total",
            "Of them those that nothing explains: must be 0.",
            load(&audit.stale),
        ),
    ]
}
