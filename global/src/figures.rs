//! What Global tells whoever runs it, gathered when it is asked.
//!
//! Names and meanings are the table of docs/OPERATIONS.md, which a test holds against these. It must never walk what
//! grows with the store, nor name more Locals than [`AWAITED_MAX`].

use crate::authority::Authority;
use crate::global::Global;
use crate::host::Host;
use dstore_proto::store::{Status, Store};
use dstore_shared::figures::{Figure, Reading};
use dstore_shared::{Error, Result};
use std::sync::{Arc, Weak};

/// Locals that are told of one by one: those that changes waited for longest.
const AWAITED_MAX: usize = 20;

/// Tells how a Global does, for as long as it is there; it does not keep it from ending.
#[derive(Clone, Debug)]
pub struct GlobalReporter(Weak<Authority>);

impl Global {
    /// Who tells how it does.
    pub fn reporter(&self) -> GlobalReporter {
        GlobalReporter(Arc::downgrade(self.authority()))
    }
}

impl GlobalReporter {
    /// As `status` tells it, and in numbers.
    ///
    /// # Errors
    /// `Unavailable` when it has ended.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn report(&self) -> Result<(Status, Vec<Figure>)> {
        let authority = self.0.upgrade().ok_or_else(|| Error::unavailable("global has ended"))?;
        let status = Host(authority.clone()).status().await?;
        Ok((status, figures(&authority).await))
    }
}

async fn figures(authority: &Arc<Authority>) -> Vec<Figure> {
    let space = authority.space.clone();
    let (free, _) = authority.sys.blocking.run(move || space.facts()).await;
    let mut all = state(authority);
    all.extend(changes(authority));
    all.extend(locals(authority));
    all.extend(blobs(authority));
    if let Some(free) = free {
        all.push(Figure::level("dstore_global_disk_free_bytes", "Free bytes where the data are.", free));
    }
    all
}

fn state(authority: &Arc<Authority>) -> Vec<Figure> {
    let (retiring, lease) = authority.event(|m, _| (m.is_retiring(), m.lease()));
    let catalog = authority.catalog.counts();
    let failed = authority.failed().is_some();
    vec![
        Figure::gauge("dstore_global_serving", "1 if changes are taken.", u8::from(!failed && !retiring)),
        Figure::gauge(
            "dstore_global_failed",
            "1 if the disk failed: nothing can be stored any more.",
            u8::from(failed),
        ),
        Figure::level(
            "dstore_global_revision",
            "The newest revision that can be read.",
            authority.catalog.head().0,
        ),
        Figure::gauge("dstore_global_lease_seconds", "The lease length in force.", lease.as_secs_f64()),
        Figure::level("dstore_global_names", "Names that are bound.", catalog.names),
        Figure::level("dstore_global_blobs", "Blobs that are kept, about.", catalog.blobs),
        Figure::level(
            "dstore_global_unindexed_changes",
            "Changes that the index does not have yet.",
            catalog.pending as u64,
        ),
        Figure::level("dstore_global_watches", "Watches that are open.", authority.feed.watchers() as u64),
    ]
}

fn changes(authority: &Arc<Authority>) -> Vec<Figure> {
    let (counts, waits) = authority.event(|m, _| (m.counts(), m.waits().clone()));
    let figure = Figure::new;
    vec![
        Figure::level("dstore_global_changes_waiting", "Changes that are not answered.", counts.ops as u64),
        figure(
            "dstore_global_change_seconds",
            "From when a change has its names to itself to its answer.",
            Reading::Times(waits.changes),
        ),
        figure(
            "dstore_global_drain_seconds",
            "How long a change waits until no Local can serve the old value any more.",
            Reading::Times(waits.drains),
        ),
        figure(
            "dstore_global_holder_wait_seconds",
            "How long a change waits for one Local to drop names, or for the end of its lease.",
            Reading::Times(waits.holders),
        ),
        figure(
            "dstore_global_journal_write_seconds",
            "How long the journal takes to make a batch durable.",
            Reading::Times(authority.writes.times.read()),
        ),
        figure(
            "dstore_global_journal_batch_changes",
            "Changes that share an fsync.",
            Reading::Sizes(authority.writes.sizes.read()),
        ),
        Figure::level(
            "dstore_global_outcomes",
            "Outcomes that are remembered for requests that come again.",
            counts.outcomes as u64,
        ),
    ]
}

fn locals(authority: &Arc<Authority>) -> Vec<Figure> {
    let (counts, slow, awaited) =
        authority.event(|m, now| (m.counts(), m.slow(now), m.most_awaited(AWAITED_MAX)));
    let mut all = vec![
        Figure::level(
            "dstore_global_sessions",
            "Locals whose lease has not run out.",
            counts.sessions as u64,
        ),
        Figure::level(
            "dstore_global_sessions_unlisted",
            "Of them those that every DEL waits for, because what they hold is not known.",
            counts.wildcards as u64,
        ),
        Figure::level(
            "dstore_global_slow_locals",
            "Locals that keep nothing for now, because changes waited too long for them.",
            slow as u64,
        ),
        Figure::level(
            "dstore_global_registrations",
            "Names that Locals hold, counted at each.",
            counts.registrations as u64,
        ),
        Figure::counter(
            "dstore_global_sessions_resumed_total",
            "Locals that came back, were told what they had missed, and went on serving.",
            counts.resumed,
        ),
        Figure::counter(
            "dstore_global_resyncs_total",
            "Times that a Local fell behind and had to tell anew what it holds.",
            counts.resyncs,
        ),
        Figure::counter(
            "dstore_global_names_listed_total",
            "Names that Locals told they hold.",
            authority.listed(),
        ),
    ];
    for one in awaited {
        let of = |figure: Figure| {
            figure.of("local", one.label.clone()).of("id", format!("{:08x}", one.local.0 >> 96))
        };
        all.push(of(Figure::new(
            "dstore_global_local_wait_seconds_total",
            "For how long changes waited for a Local, of those that they waited for longest.",
            Reading::Seconds(one.waited.time),
        )));
        all.push(of(Figure::counter(
            "dstore_global_local_waits_total",
            "How often changes waited for a Local.",
            one.waited.times,
        )));
    }
    all
}

fn blobs(authority: &Arc<Authority>) -> Vec<Figure> {
    let stats = authority.blobs.stats();
    vec![
        Figure::counter(
            "dstore_global_blob_files_written_total",
            "Files of blobs that were moved in.",
            stats.placed_files,
        ),
        Figure::counter("dstore_global_blob_bytes_written_total", "Their bytes.", stats.placed_bytes),
        Figure::counter(
            "dstore_global_blob_files_removed_total",
            "Files of blobs that no name had any more.",
            stats.unlinked_files,
        ),
        Figure::counter(
            "dstore_global_uploads_known_total",
            "Uploads whose bytes were there already.",
            stats.dedup_hits,
        ),
        Figure::level("dstore_global_uploads", "Uploads under way.", stats.staged_files),
        Figure::counter(
            "dstore_global_corrupt_reads_total",
            "Reads that met damage: must be 0.",
            stats.corrupt_reads,
        ),
        Figure::level(
            "dstore_global_corrupt_blobs",
            "Blobs that are known to be damaged: must be 0; set them again.",
            stats.marked,
        ),
        Figure::level(
            "dstore_global_buffered_bytes",
            "Memory of uploads and reads under way.",
            stats.buffered_bytes,
        ),
    ]
}
