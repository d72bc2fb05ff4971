//! Makes a relaxed journal durable: beside the committer, on time, and whenever somebody needs it.
//!
//! Invariants: `durable` grows only after an fsync that began when all of it was written; a file is left only when
//! nothing in it waits; a failed fsync is never tried again, and everybody who asks after it is told.
//! It must never write.

use dstore_shared::{Error, Moment, Result, Revision};
use dstore_sys::clock::Clock;
use dstore_sys::disk::DiskFile;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The sync of a relaxed journal. Its methods block on the disk, unless they say otherwise.
#[derive(Debug)]
pub(crate) struct Syncer {
    clock: Arc<dyn Clock>,
    within: Duration,
    state: Mutex<State>,
    /// One sync at a time.
    turn: Mutex<()>,
    /// Something is to be synced that nobody has heard of.
    dirty: Notify,
}

#[derive(Debug)]
struct State {
    file: Arc<dyn DiskFile>,
    written: Revision,
    durable: Revision,
    /// When the oldest batch was written that no sync has begun for.
    waits_since: Option<Moment>,
    /// When the oldest batch was written that the sync under way is for.
    syncs_since: Option<Moment>,
    failed: Option<Error>,
}

impl Syncer {
    /// Of a journal that is durable up to `head`, and goes on in `file`.
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        within: Duration,
        file: Arc<dyn DiskFile>,
        head: Revision,
    ) -> Arc<Self> {
        let (written, durable) = (head, head);
        let state = State { file, written, durable, waits_since: None, syncs_since: None, failed: None };
        Arc::new(Self {
            clock,
            within,
            state: Mutex::new(state),
            turn: Mutex::default(),
            dirty: Notify::new(),
        })
    }

    /// A batch up to `last` was written. Does not block.
    pub(super) fn wrote(&self, last: Revision) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.written = last;
        if state.waits_since.is_none() {
            state.waits_since = Some(now);
            self.dirty.notify_one();
        }
    }

    /// The journal goes on in `file`; what it leaves is made durable first.
    ///
    /// # Errors
    /// As [`Syncer::sync`].
    pub(super) fn go_on_in(&self, file: Arc<dyn DiskFile>) -> Result<()> {
        self.sync()?;
        self.state.lock().file = file;
        Ok(())
    }

    /// Everything up to here is durable. Does not block.
    pub(crate) fn durable(&self) -> Revision {
        self.state.lock().durable
    }

    /// Why nothing will be durable any more, if so. Does not block.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.state.lock().failed.clone()
    }

    /// Waits until something is to be synced, and until it is time for it.
    pub(crate) async fn due(&self) {
        loop {
            let since = self.state.lock().waits_since;
            let Some(since) = since else {
                self.dirty.notified().await;
                continue;
            };
            // Half of the time is left for the fsync.
            let due = (since + self.within / 2).since(self.clock.now());
            tokio::time::sleep(due).await;
            return;
        }
    }

    /// Makes durable what is written.
    ///
    /// # Errors
    /// `Unavailable` if an fsync failed, this one or one before: what was acknowledged and not durable is in doubt
    /// until the journal is opened again.
    pub(crate) fn sync(&self) -> Result<Revision> {
        let _turn = self.turn.lock();
        let (file, written) = {
            let mut state = self.state.lock();
            if let Some(e) = &state.failed {
                return Err(e.clone());
            }
            if state.durable == state.written {
                return Ok(state.durable);
            }
            state.syncs_since = state.waits_since.take();
            (state.file.clone(), state.written)
        };
        dstore_sys::failpoint!("global::relaxed::before_fsync");
        let synced = file.sync();
        dstore_sys::failpoint!("global::relaxed::after_fsync");
        let mut state = self.state.lock();
        state.syncs_since = None;
        match synced {
            Ok(()) => {
                state.durable = written;
                Ok(written)
            }
            Err(e) => Err(state.fail(&e)),
        }
    }

    /// Returns when everything up to `revision` is durable.
    ///
    /// # Errors
    /// As [`Syncer::sync`].
    pub(crate) fn ensure(&self, revision: Revision) -> Result<()> {
        if self.durable() < revision { self.sync().map(drop) } else { Ok(()) }
    }

    /// To be called before anything is acknowledged: waits for the disk if what was acknowledged and is not durable
    /// is too old, so that all that a crash can take was acknowledged within one span of time.
    ///
    /// # Errors
    /// As [`Syncer::sync`].
    pub(crate) fn admit(&self) -> Result<()> {
        let (since, failed) = {
            let state = self.state.lock();
            (state.syncs_since.or(state.waits_since), state.failed.clone())
        };
        if let Some(e) = failed {
            return Err(e);
        }
        if since.is_some_and(|since| self.clock.now().since(since) >= self.within) {
            self.sync()?;
        }
        Ok(())
    }
}

impl State {
    fn fail(&mut self, error: &io::Error) -> Error {
        let (first, last) = (self.durable.next(), self.written);
        tracing::error!(
            %first, %last, %error,
            "the journal could not be synced: changes of these revisions were acknowledged and may be lost"
        );
        let error = Error::unavailable(format!(
            "the journal takes no more writes (it could not be synced: `{error}`; what was acknowledged from \
             revision `{first}` on may be lost): restart dstore when the disk is sound"
        ));
        self.failed = Some(error.clone());
        error
    }
}
