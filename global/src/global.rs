//! A running Global: opened in order, served, stopped in order.
//!
//! ```text
//! start: lock, meta, checkpoint, index, journal (data_dir) -> blobs -> addresses bound -> boot number durable
//!        -> authority -> doors
//! stop:  health -> retire (no more grants, BYE or lease end) -> request streams -> doors -> tasks -> checkpoint -> journal -> clean mark
//! ```
//! Invariants: the clean mark is written only if no lease is outstanding and nothing can be committed any more;
//! a start consumes it when all that commonly fails has succeeded, and before anybody can connect.

use crate::authority::{Authority, Parts};
use crate::blobs::{BlobLimits, Blobs};
use crate::catalog::CatalogConfig;
use crate::committer::{Committer, Job};
use crate::config::GlobalConfig;
use crate::data_dir::{self, DataDir, DataDirConfig, Opened};
use crate::expiry;
use crate::feed::Feed;
use crate::host::Host;
use crate::journal::{Journal, JournalConfig, Syncer};
use crate::publisher::Publishing;
use crate::sessions::{Boot, Terms};
use crate::space::Space;
use crate::sweep;
use dstore_proto::IdSource;
use dstore_proto::serve::{Limits, Routes, Serving};
use dstore_proto::store::Store;
use dstore_shared::{Error, Moment, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener};
use dstore_sys::tasks::{Lane, LaneEnd, Tasks};
use std::sync::Arc;
use std::time::Duration;

/// Changes that wait for the committer, and how many it takes at once.
const COMMIT_QUEUE: (usize, usize) = (65_536 + 1024, 4096);
/// How often D is compared with the number of sessions.
const GROW_EVERY: Duration = Duration::from_secs(1);
/// How long to wait when a longer one could not be made durable.
const GROW_AGAIN: Duration = Duration::from_secs(60);
/// How often the free space is looked at when nothing else asks for it.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// Revisions that the feed knows after a start though the checkpoint has them: a watcher who was this far behind goes on
/// over an orderly restart. To read them takes some 10 ms.
const FEED_BEFORE_CHECKPOINT: u64 = 65_536;
/// How long a sleep for the next deadline may last: a lease granted meanwhile ends later than that.
const TICK_MAX: Duration = Duration::from_millis(500);

/// A running Global.
pub struct Global {
    authority: Arc<Authority>,
    doors: Vec<Serving>,
    tasks: Tasks,
    dir: Arc<DataDir>,
    /// Of committer, publisher and applier: each ends when the one before has.
    ends: Vec<LaneEnd>,
    drain_timeout: Duration,
}

impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Global({:?})", self.addresses())
    }
}

impl Global {
    /// Opens the data directory, recovers what was acknowledged, and serves.
    ///
    /// # Errors
    /// `Unavailable` if the directory is in use, `Invalid` if an address cannot be listened on, `Corrupt` or
    /// `Invalid` if the directory cannot be trusted; the message says what to do.
    pub async fn start(sys: Sys, config: GlobalConfig) -> Result<Self> {
        let opened = open(&sys, &config).await?;
        let limits = BlobLimits {
            blob_bytes_max: config.blob_bytes_max,
            min_free_bytes: config.min_free,
            ..BlobLimits::default()
        };
        let blobs = Blobs::open(sys.clone(), config.data.join("blobs"), limits).await?;
        if !opened.clean && !opened.fresh {
            blobs.sync_all_dirs().await.map_err(Error::from)?;
        }
        if let Some(torn) = &opened.torn {
            tracing::warn!(torn, "the journal had an unfinished end, which was cut off");
        }
        let listeners = bind(&sys, &config.listen).await?;
        if opened.lossy {
            tracing::warn!(
                history = %opened.history, head = %opened.catalog.head(),
                "it was used with `--sync relaxed` and not stopped in order: what was acknowledged last may be lost, so a \
                 new history begins"
            );
        }
        let relaxed = config.sync.loss().is_some();
        let opened = begin(&sys, opened, config.lease, relaxed).await?;
        let tasks = Tasks::new();
        let found = !opened.fresh;
        let (authority, dir, ends) = assemble(&sys, &config, &tasks, opened, blobs);
        let doors = match open_doors(&sys, &tasks, listeners, &authority) {
            Ok(doors) => doors,
            Err(e) => {
                // Else those that opened would serve for ever, and keep the directory locked.
                tasks.stop().await;
                return Err(e);
            }
        };
        tasks.spawn("tick", tick(authority.clone()));
        tasks.spawn("lease", grow_lease(authority.clone(), dir.clone()));
        if let Some(syncer) = authority.syncer.clone() {
            tasks.spawn("sync", sync_on_time(authority.clone(), syncer));
        }
        tasks.spawn("space", watch_space(authority.clone()));
        tasks.spawn("sweep", sweep::sweep(authority.clone()));
        tasks.spawn("mark", sweep::mark(authority.clone()));
        tasks.spawn("expiry", expiry::expire(authority.clone()));
        if found {
            tasks.spawn("adopt", sweep::adopt_orphans(authority.clone()));
        }
        let health = doors.iter().map(|door| door.health().clone()).collect::<Vec<_>>();
        let mut failure = authority.failure();
        tasks.spawn("health", async move {
            if failure.wait_for(Option::is_some).await.is_ok() {
                for health in health {
                    health.set(false).await;
                }
            }
        });
        Ok(Self { authority, doors, tasks, dir, ends, drain_timeout: config.drain_timeout })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.iter().map(|door| door.address().clone()).collect()
    }

    /// What it offers, to be used in this process without a connection. A stop ends only when this is dropped.
    pub fn store(&self) -> Arc<impl Store + IdSource + use<>> {
        Arc::new(Host(self.authority.clone()))
    }

    /// The authority, to be looked at.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Resolves, with the reason, when the store takes no changes any more: the process should end, non-zero.
    pub async fn failed(&self) -> Error {
        let mut failure = self.authority.failure();
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(|| Error::internal("it failed without a reason")),
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops in order. The next start needs no grace if every Local said goodbye or ran out of lease.
    ///
    /// # Errors
    /// Why the stop was not clean. Everything acknowledged is durable all the same.
    pub async fn stop(self) -> Result<()> {
        // First, so that a balancer looks elsewhere while leases run out.
        for door in &self.doors {
            door.health().set(false).await;
        }
        let quiet = retire(&self.authority, self.drain_timeout).await;
        dstore_sys::failpoint!("global::stop::retired");
        // What was asked is answered still; a Local asks the rest of the next Global.
        self.authority.readers.cancel();
        self.authority.feed.close();
        for door in &self.doors {
            let _ = tokio::time::timeout(self.drain_timeout, door.stop()).await;
        }
        self.tasks.stop().await;
        let failed = self.authority.failed();
        dstore_sys::failpoint!("global::stop::before_checkpoint");
        if failed.is_none() {
            // Without it the next start redoes more of the journal; nothing else.
            let _ = tokio::time::timeout(self.drain_timeout, self.authority.checkpoint()).await;
        }
        let head = self.authority.catalog.head();
        let synced = self.synced(head).await;
        // Their handlers hold the authority, which holds the journal and the index.
        drop(self.doors);
        drop(self.authority);
        let end = async {
            for end in self.ends {
                end.wait().await;
            }
        };
        let ended = tokio::time::timeout(self.drain_timeout, end).await.is_ok();
        dstore_sys::failpoint!("global::stop::before_clean_mark");
        match (failed.or(synced.err()), quiet && ended) {
            (Some(e), _) => Err(e),
            (None, true) => self.dir.mark_clean(head),
            (None, false) => {
                if ended {
                    self.dir.mark_synced()?;
                }
                Err(Error::unavailable("stopped with leases outstanding: the next start waits for them"))
            }
        }
    }
}

impl Global {
    /// Has everything up to `head`, the last revision, made durable; at once unless the level is `relaxed`.
    async fn synced(&self, head: Revision) -> Result<()> {
        if self.authority.syncer.is_none() {
            return Ok(());
        }
        let synced = tokio::time::timeout(self.drain_timeout, self.authority.sync_all()).await;
        match synced {
            Ok(Ok(durable)) if durable == head => Ok(()),
            Ok(Err(e)) => Err(e),
            Ok(Ok(_)) | Err(_) => Err(Error::unavailable(
                "stopped before everything was synced: the next start begins a new history",
            )),
        }
    }
}

/// Opens the data directory off the async threads.
async fn open(sys: &Sys, config: &GlobalConfig) -> Result<Opened<Journal>> {
    let catalog = CatalogConfig { checkpoint_bytes: config.checkpoint_bytes, ..CatalogConfig::default() };
    let dir = DataDirConfig { path: config.data.clone(), engine: config.engine, catalog };
    let (min_free, relaxed, sys) = (config.min_free, config.sync.loss(), sys.clone());
    let segment_bytes = config.segment_bytes;
    let blocking = sys.blocking;
    blocking
        .run(move || {
            data_dir::open(&sys, &dir, |path, floors, replay| {
                let defaults = JournalConfig::new(path);
                let config = JournalConfig {
                    min_free_bytes: min_free,
                    replay_again: FEED_BEFORE_CHECKPOINT,
                    relaxed,
                    segment_bytes,
                    first_segment_bytes: defaults.first_segment_bytes.min(segment_bytes),
                    ..defaults
                };
                let floors = crate::journal::Floors {
                    checkpoint: floors.checkpoint,
                    index: floors.index,
                    clean: floors.clean,
                };
                let replay = |batch: crate::journal::Batch| replay(batch.first, batch.last, batch.payload);
                let (journal, opened) = Journal::open(&sys, &config, &floors, replay)?;
                let head = journal.head();
                Ok((journal, data_dir::Found { head, torn: opened.torn.map(|torn| torn.to_string()) }))
            })
        })
        .await
}

/// Puts authority, committer and publisher together; those two know the authority weakly, so that all can end.
fn assemble(
    sys: &Sys,
    config: &GlobalConfig,
    tasks: &Tasks,
    opened: Opened<Journal>,
    blobs: Blobs,
) -> (Arc<Authority>, Arc<DataDir>, Vec<LaneEnd>) {
    let now = sys.clock.now();
    let grace =
        if opened.clean || opened.fresh { Duration::ZERO } else { opened.lease_max.max(config.lease) };
    let boot = Boot {
        history: opened.history,
        number: opened.boot,
        head: opened.catalog.head(),
        at: now,
        grace: crate::sessions::lengthened(grace),
        // A Local may hold a name whose SET is lost: no other SET of it may overtake its lease.
        all_wait: opened.negatives_ever || opened.async_dels || opened.lossy,
    };
    let dir = Arc::new(opened.dir);
    let catalog = opened.catalog.clone();
    let space = Arc::new(Space::new(sys, &config.data, config.min_free));
    let feed = Feed::new(opened.history, opened.feed, config.watch_bytes);
    let mut ends = Vec::new();
    let syncer = opened.journal.syncer().cloned();
    if let Some(syncer) = syncer.clone() {
        catalog.gate(Box::new(move |revision| syncer.ensure(revision)));
    }
    let authority = Arc::new_cyclic(|authority| {
        let (weak, visible) = (authority.clone(), catalog.clone());
        let (publishing, published) = Publishing::start(sys.blocking, weak, visible, syncer.clone());
        let rules = (config.sync, space.clone());
        let mut committer =
            Committer::new(authority.clone(), catalog.clone(), opened.journal, publishing, rules);
        let work = move |jobs: &mut Vec<Job>| committer.work(jobs);
        let (committer, committed) = Lane::start(sys.blocking, "dstore-commit", COMMIT_QUEUE, work);
        ends.push(committed);
        ends.extend(published);
        ends.push(opened.applier);
        Authority::new(Parts {
            sys: sys.clone(),
            tasks: tasks.clone(),
            catalog: opened.catalog,
            blobs,
            sweep_grace: config.sweep_grace,
            sync: config.sync,
            syncer: syncer.clone(),
            space,
            feed,
            committer,
            terms: Terms { loss: config.sync.loss(), ..Terms::for_lease(config.lease) },
            boot,
            outcomes: opened.outcomes.into_iter().map(|(id, outcome, _)| (id, outcome)).collect(),
            log: opened.log,
            dir: Arc::downgrade(&dir),
        })
    });
    let weak = Arc::downgrade(&authority);
    catalog.on_poison(Box::new(move |error| {
        if let Some(authority) = weak.upgrade() {
            authority.fail(&error);
        }
    }));
    (authority, dir, ends)
}

/// Takes all addresses. Whoever connects waits until [`open_doors`].
async fn bind(sys: &Sys, addresses: &[Address]) -> Result<Vec<Box<dyn Listener>>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = sys.net.listen(address).await.map_err(|e| {
            Error::unavailable(format!(
                "cannot listen on `{address}`: stop what uses it, or choose another address"
            ))
            .caused_by(e)
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Makes it durable that this boot goes on, before its first commit and its first grant.
async fn begin(
    sys: &Sys,
    opened: Opened<Journal>,
    lease: Duration,
    relaxed: bool,
) -> Result<Opened<Journal>> {
    sys.blocking
        .run(move || {
            dstore_sys::failpoint!("global::start::before_boot_number");
            opened.dir.begin_as(lease, relaxed)?;
            dstore_sys::failpoint!("global::start::after_boot_number");
            Ok(opened)
        })
        .await
}

fn open_doors(
    sys: &Sys,
    tasks: &Tasks,
    listeners: Vec<Box<dyn Listener>>,
    authority: &Arc<Authority>,
) -> Result<Vec<Serving>> {
    let host = Arc::new(Host(authority.clone()));
    let open = |listener| {
        let routes =
            Routes::new(tasks, &Limits::default()).store(host.clone(), host.clone()).link(host.clone());
        Serving::start(sys, tasks, listener, routes)
    };
    listeners.into_iter().map(open).collect()
}

/// Lets time pass for the machine: leases end on time, void registrations are swept bit by bit.
async fn tick(authority: Arc<Authority>) {
    loop {
        let (more, next, now) = authority.event(|m, now| (m.tick(now), m.next_deadline(), now));
        let until = next.unwrap_or(Moment::MAX).since(now).min(TICK_MAX);
        let until = if more { until.min(Duration::from_millis(1)) } else { until };
        authority.until_due(now, until).await;
    }
}

/// Lets D grow with the number of sessions: a length is durable before it is granted, or it is not granted
/// (rule 29).
async fn grow_lease(authority: Arc<Authority>, dir: Arc<DataDir>) {
    loop {
        if let Some(length) = authority.event(|m, _| m.lease_to_allow()) {
            let dir = dir.clone();
            match authority.sys.blocking.run(move || dir.persist_lease_max(length)).await {
                Ok(()) => authority.event(|m, _| m.allow_lease(length)),
                Err(error) => {
                    tracing::warn!(%error, "leases do not grow with the number of sessions");
                    tokio::time::sleep(GROW_AGAIN).await;
                }
            }
        }
        tokio::time::sleep(GROW_EVERY).await;
    }
}

/// Syncs a relaxed journal in time, for ever.
async fn sync_on_time(authority: Arc<Authority>, syncer: Arc<Syncer>) {
    loop {
        syncer.due().await;
        let sync = syncer.clone();
        if let Err(error) = authority.sys.blocking.run(move || sync.sync()).await {
            authority.fail(&error);
            return;
        }
    }
}

/// Looks at the disk now and then: so that a shortage is told, and its end noticed, when nobody asks for a change.
async fn watch_space(authority: Arc<Authority>) {
    loop {
        let (space, catalog) = (authority.space.clone(), authority.catalog.clone());
        let refused = authority.blobs.take_refusal();
        let look = move || {
            if let Some(wanted) = refused {
                space.refused(wanted);
            }
            space.watch();
            catalog.try_again();
        };
        authority.sys.blocking.run(look).await;
        tokio::time::sleep(SPACE_EVERY).await;
    }
}

/// Asks every Local to stop serving and waits until none may; true if so.
async fn retire(authority: &Authority, limit: Duration) -> bool {
    authority.event(super::sessions::Sessions::retire);
    let quiet = async {
        loop {
            let moved = authority.sessions_moved();
            let (quiet, next, now) = authority.event(|m, now| {
                // What has run out by now must end here: waiting for a time that has passed would spin.
                m.tick(now);
                (m.is_quiet(now), m.next_deadline(), now)
            });
            if quiet {
                return;
            }
            let until = next.unwrap_or(Moment::MAX).since(now).min(TICK_MAX);
            let _ = tokio::time::timeout(until, moved).await;
        }
    };
    tokio::time::timeout(limit, quiet).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineKind;
    use dstore_sys::net::MemoryNet;
    use std::path::Path;

    fn config(data: &Path, names: &[&str]) -> GlobalConfig {
        GlobalConfig {
            listen: names.iter().map(|name| Address::Memory((*name).into())).collect(),
            engine: EngineKind::Memory,
            min_free: 0,
            ..GlobalConfig::new(data)
        }
    }

    #[tokio::test]
    async fn a_start_that_finds_an_address_taken_leaves_the_clean_mark_and_every_address_free() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let start = |names: &[&str]| Global::start(sys.clone(), config(dir.path(), names));
        start(&["a"]).await.unwrap().stop().await.unwrap();
        let taken = sys.net.listen(&Address::Memory("b".into())).await.unwrap();
        for _ in 0..2 {
            let e = start(&["a", "b"]).await.expect_err("taken");
            assert!(e.message().contains("`memory:b`"), "{e}");
        }
        let first = sys.net.connect(&Address::Memory("a".into())).await;
        assert!(first.is_err(), "nobody listens at the first address");
        drop(taken);
        let mut global = start(&["a", "b"]).await.expect("neither the directory nor an address is held");
        let grace = global.authority().event(|m, now| m.grace_left(now));
        assert_eq!(grace, Duration::ZERO, "the stop before was clean");
        // Gone without a stop: leases may be out.
        global.tasks.stop().await;
        let ends = std::mem::take(&mut global.ends);
        drop(global);
        // The committer's thread holds the journal until it ends.
        for end in ends {
            end.wait().await;
        }
        let global = start(&["a"]).await.unwrap();
        assert!(global.authority().event(|m, now| m.grace_left(now)) > Duration::ZERO);
        global.stop().await.unwrap();
    }
}
