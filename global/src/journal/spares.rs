//! Keeps segments ready ahead of need, so that zeroing 64 MiB is never on the way of a commit.
//!
//! A worker on a thread of its own (in simulation: in place) makes new segments, takes retired ones back into
//! use under a new salt, and removes what is too many. Its jobs are done in order, each durably before the next.
//!
//! Invariants: a segment is handed out only when its zeros, its header and its name are durable; a file is
//! overwritten only when it has durably lost the name under which it was read; at most `spare_segments` are
//! ready or being made, and as many retired files kept.
//!
//! What fails on a file that nobody uses yet puts nothing in doubt that was acknowledged: the file is thrown away,
//! and another is tried after a pause. Only what may leave a *name* in doubt ends the journal: a rename or the
//! fsync of the directory. A directory that could not even be opened was not fsynced, so that is tried again too.

use super::JournalConfig;
use super::format::{DATA_START, SegmentHeader};
use super::recovery::Stale;
use super::segment::{Role, Segment};
use dstore_shared::Moment;
use dstore_sys::Sys;
use dstore_sys::clock::Clock;
use dstore_sys::disk::{Disk, Lock, Open};
use dstore_sys::rng::Rng;
use dstore_sys::tasks::{Blocking, Lane};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

/// Jobs that wait for the worker; more wait with us, one for each file that exists.
const JOBS_MAX: usize = 16;
/// Pauses after a segment could not be made: short, because SETs may be refused meanwhile; then longer, because
/// each attempt may write a whole segment.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

#[derive(Debug)]
enum Job {
    /// `reserve`: it would be the only one that is ready.
    Prepare {
        sequence: u64,
        salt: u64,
        reserve: bool,
    },
    Retire(Stale),
}

#[derive(Debug)]
enum Done {
    Ready(Segment),
    /// There is no space for another segment.
    Full,
    /// No segment was made, and nothing is in doubt.
    Hindered(io::Error),
    Retired,
    Failed(io::Error),
}

/// Whether a full disk, or a quota, is the reason.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the process or the machine has too many files open, so that nothing was even begun.
fn is_out_of_handles(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// The journal's side.
#[derive(Debug)]
pub(super) struct Spares {
    place: Place,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    ready: VecDeque<Segment>,
    retired: VecDeque<Stale>,
    /// Segments that the worker was asked for.
    preparing: usize,
    /// Jobs that the worker has, those included.
    outstanding: usize,
    target: usize,
    next_sequence: u64,
    full: bool,
    hindrance: Option<Hindrance>,
}

/// Why the last attempt to make a segment failed, and when the next is due.
#[derive(Debug)]
struct Hindrance {
    error: io::Error,
    pause: Duration,
    until: Moment,
}

#[derive(Debug)]
enum Place {
    Here(Box<Worker>),
    Thread { lane: Option<Lane<Job>>, done: Receiver<Done> },
}

impl Spares {
    /// Starts the worker. It holds `lock` until it has ended.
    pub(super) fn start(
        sys: &Sys,
        config: &JournalConfig,
        lock: Arc<dyn Lock>,
        next_sequence: u64,
        retired: impl IntoIterator<Item = Stale>,
    ) -> Self {
        let worker = Worker {
            disk: sys.disk.clone(),
            config: config.clone(),
            free: Vec::new(),
            unsettled: Vec::new(),
            unsynced: false,
            waiting: VecDeque::new(),
            nameless: None,
            rubbish: None,
            _lock: lock,
        };
        let place = match sys.blocking {
            Blocking::Inline { .. } => Place::Here(Box::new(worker)),
            Blocking::Threads => Place::thread(sys.blocking, worker),
        };
        Self {
            place,
            clock: sys.clock.clone(),
            rng: sys.rng.clone(),
            ready: VecDeque::new(),
            retired: retired.into_iter().collect(),
            preparing: 0,
            outstanding: 0,
            target: config.spare_segments,
            next_sequence,
            full: false,
            hindrance: None,
        }
    }

    /// Segments that can be taken at once.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether the last attempt to make a segment met a full disk.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Why the last attempt to make a segment failed, if not for a full disk, and how long until the next.
    pub(super) fn hindrance(&self) -> Option<(&io::Error, Duration)> {
        let hindrance = self.hindrance.as_ref()?;
        Some((&hindrance.error, hindrance.until.since(self.clock.now())))
    }

    /// A file whose batches nobody needs any more.
    pub(super) fn retire(&mut self, stale: Stale) {
        self.retired.push_back(stale);
    }

    /// Takes in what the worker has done and gives it what there is to do. Does not wait for a thread.
    ///
    /// # Errors
    /// The worker's failure, if it leaves a name in doubt: the journal must not go on.
    pub(super) fn pump(&mut self) -> io::Result<()> {
        self.collect()?;
        while let Some(stale) = self.retired.pop_front() {
            if let Some(Job::Retire(stale)) = self.hand_over(Job::Retire(stale))? {
                self.retired.push_front(stale);
                return Ok(());
            }
        }
        while self.ready.len() + self.preparing < self.target && self.may_try() {
            let reserve = self.ready.len() + self.preparing == 0;
            let job = Job::Prepare { sequence: self.next_sequence, salt: self.rng.next_u64(), reserve };
            self.preparing += 1;
            self.next_sequence += 1;
            if self.hand_over(job)?.is_some() {
                self.preparing -= 1;
                break;
            }
            if self.full {
                break; // one attempt at a time while there is no space
            }
        }
        Ok(())
    }

    fn may_try(&self) -> bool {
        self.hindrance.as_ref().is_none_or(|hindrance| self.clock.now() >= hindrance.until)
    }

    /// The next segment, waiting for one that is being made; `None` if none can be made now.
    ///
    /// # Errors
    /// As [`Spares::pump`].
    pub(super) fn take(&mut self) -> io::Result<Option<Segment>> {
        let mut refusals = 0;
        loop {
            self.pump()?;
            if let Some(segment) = self.ready.pop_front() {
                return Ok(Some(segment));
            }
            let Place::Thread { done, .. } = &self.place else { return Ok(None) };
            // Some of the answers may be older than the space that a retired file gave back.
            if self.outstanding == 0 || refusals > self.target {
                return Ok(None);
            }
            let done = done.recv().map_err(|_| gone())?;
            refusals += usize::from(matches!(done, Done::Full | Done::Hindered(_)));
            self.take_in(done)?;
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        loop {
            let Place::Thread { done, .. } = &self.place else { return Ok(()) };
            match done.try_recv() {
                Ok(done) => self.take_in(done)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(gone()),
            }
        }
    }

    fn take_in(&mut self, done: Done) -> io::Result<()> {
        self.outstanding -= 1;
        match done {
            Done::Ready(segment) => {
                self.preparing -= 1;
                self.full = false;
                if self.hindrance.take().is_some() {
                    tracing::info!("journal segments can be made again");
                }
                self.ready.push_back(segment);
            }
            Done::Full => {
                self.preparing -= 1;
                self.full = true;
            }
            Done::Hindered(error) => {
                self.preparing -= 1;
                self.hinder(error);
            }
            Done::Retired => {}
            Done::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn hinder(&mut self, error: io::Error) {
        let pause = match &self.hindrance {
            None => {
                tracing::warn!(%error, "no journal segment can be made: it is tried again");
                PAUSES.0
            }
            Some(before) => (before.pause * 2).min(PAUSES.1),
        };
        let until = self.clock.now() + self.rng.jitter(pause);
        self.hindrance = Some(Hindrance { error, pause, until });
    }

    /// Gives the job back if the worker has no room for it now.
    fn hand_over(&mut self, job: Job) -> io::Result<Option<Job>> {
        self.outstanding += 1;
        match &mut self.place {
            Place::Here(worker) => {
                let done = worker.work(job);
                self.take_in(done).map(|()| None)
            }
            Place::Thread { lane, .. } => {
                let back = lane.as_ref().and_then(|lane| lane.try_send(job).err());
                self.outstanding -= usize::from(back.is_some());
                Ok(back)
            }
        }
    }
}

impl Place {
    fn thread(blocking: Blocking, worker: Worker) -> Self {
        let (tell, done) = channel();
        let mut bench = Bench { worker, tell };
        let (lane, _) = Lane::start(blocking, "journal-spare", (JOBS_MAX, 1), move |jobs| bench.serve(jobs));
        Self::Thread { lane: Some(lane), done }
    }
}

/// The worker on its thread. Field order matters: who hears that `tell` is gone may rely on the lock being free.
#[derive(Debug)]
struct Bench {
    worker: Worker,
    tell: Sender<Done>,
}

impl Bench {
    fn serve(&mut self, jobs: &mut Vec<Job>) {
        for job in jobs.drain(..) {
            // A journal that is gone needs no answer; what was made is found at the next open.
            let _ = self.tell.send(self.worker.work(job));
        }
    }
}

impl Drop for Spares {
    /// Waits for the job at hand, so that nobody changes the directory once the journal is gone.
    fn drop(&mut self) {
        if let Place::Thread { lane, done } = &mut self.place {
            *lane = None;
            while done.recv().is_ok() {}
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that prepares journal segments has ended")
}

/// The side that writes.
#[derive(Debug)]
struct Worker {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    /// Files of the right length that can be used again.
    free: Vec<PathBuf>,
    /// As those, but that they lost their old name is not durable yet.
    unsettled: Vec<PathBuf>,
    /// Names were changed since the directory was synced: retirements are durable one after the other.
    unsynced: bool,
    /// Files that are still to be retired, oldest first.
    waiting: VecDeque<Stale>,
    /// A segment that is done but for the durability of its name.
    nameless: Option<Segment>,
    /// A file that could not be removed: it goes before another is made.
    rubbish: Option<PathBuf>,
    _lock: Arc<dyn Lock>,
}

/// How making a segment failed.
enum Unmade {
    /// Nothing is in doubt but a file that nobody uses.
    Hindered(io::Error),
    /// A name is.
    InDoubt(io::Error),
}

impl Worker {
    fn work(&mut self, job: Job) -> Done {
        match job {
            Job::Prepare { sequence, salt, reserve } => {
                self.prepare(sequence, salt, reserve).unwrap_or_else(|unmade| match unmade {
                    Unmade::Hindered(e) | Unmade::InDoubt(e) if is_full(&e) => Done::Full,
                    Unmade::Hindered(e) => Done::Hindered(e),
                    Unmade::InDoubt(e) => Done::Failed(e),
                })
            }
            Job::Retire(stale) => {
                self.waiting.push_back(stale);
                match self.retire_waiting() {
                    Err(e) if !is_full(&e) && !is_out_of_handles(&e) => Done::Failed(e),
                    _ => Done::Retired,
                }
            }
        }
    }

    fn prepare(&mut self, sequence: u64, salt: u64, reserve: bool) -> Result<Done, Unmade> {
        match self.retire_waiting() {
            Err(e) if is_out_of_handles(&e) => return Err(Unmade::Hindered(e)),
            retired => retired.map_err(Unmade::InDoubt)?,
        }
        if let Some(rubbish) = self.rubbish.take() {
            self.throw_away(rubbish).map_err(Unmade::Hindered)?;
        }
        if let Some(segment) = self.nameless.take() {
            return self.settle(segment).map(Done::Ready);
        }
        let reused = self.free.pop();
        if reused.is_none() {
            let free = self.disk.free_bytes(&self.config.dir).map_err(Unmade::Hindered)?;
            // What must stay free is there for the reserve, among others.
            let min_free = self.config.min_free_bytes / if reserve { 4 } else { 1 };
            if free < self.config.segment_bytes + min_free {
                return Ok(Done::Full);
            }
        }
        let path = reused.clone().unwrap_or_else(|| Role::New.path(&self.config.dir, sequence));
        let written = match &reused {
            Some(path) => self.recycle(path, sequence, salt),
            None => self.create(&path, sequence, salt),
        };
        match written {
            Ok(segment) => self.name(segment).map(Done::Ready),
            Err(e) if reused.is_some() && (is_full(&e) || is_out_of_handles(&e)) => {
                self.free.push(path);
                Err(Unmade::Hindered(e))
            }
            Err(e) => {
                // What a failed write or fsync left of it is not known, so it is not used again.
                let _ = self.throw_away(path);
                Err(Unmade::Hindered(e))
            }
        }
    }

    /// Removes a file of no use, or remembers it.
    fn throw_away(&mut self, path: PathBuf) -> io::Result<()> {
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                self.rubbish = Some(path);
                Err(e)
            }
            _ => Ok(()),
        }
    }

    fn create(&self, path: &Path, sequence: u64, salt: u64) -> io::Result<Segment> {
        let file = self.disk.open(path, Open::Create)?;
        let length = self.config.segment_bytes;
        file.preallocate(length)?;
        let relaxed = self.config.relaxed.is_some();
        let header = SegmentHeader { sequence, salt, origin: None, recycled: false, relaxed, length };
        write(Segment { path: path.to_owned(), file: file.into(), header, bytes: length })
    }

    fn recycle(&self, path: &Path, sequence: u64, mut salt: u64) -> io::Result<Segment> {
        let file = self.disk.open(path, Open::Write)?;
        let mut before = vec![0; DATA_START as usize];
        file.read_exact_at(&mut before, 0)?;
        if SegmentHeader::decode(&before).is_ok_and(|header| header.salt == salt) {
            salt = salt.wrapping_add(1); // the old batches must not be valid again
        }
        let length = self.config.segment_bytes;
        let relaxed = self.config.relaxed.is_some();
        let header = SegmentHeader { sequence, salt, origin: None, recycled: true, relaxed, length };
        write(Segment { path: path.to_owned(), file: file.into(), header, bytes: length })
    }

    /// Gives a written segment its name.
    fn name(&mut self, mut segment: Segment) -> Result<Segment, Unmade> {
        let path = Role::Live.path(&self.config.dir, segment.header.sequence);
        dstore_sys::failpoint!("global::journal::spare_written");
        self.disk.rename(&segment.path, &path).map_err(Unmade::InDoubt)?;
        dstore_sys::failpoint!("global::journal::spare_renamed");
        segment.path = path;
        self.settle(segment)
    }

    /// Makes the name of a segment durable.
    fn settle(&mut self, segment: Segment) -> Result<Segment, Unmade> {
        match self.sync_names() {
            Ok(()) => Ok(segment),
            Err(e) if is_out_of_handles(&e) => {
                self.nameless = Some(segment);
                Err(Unmade::Hindered(e))
            }
            Err(e) => Err(Unmade::InDoubt(e)),
        }
    }

    /// Makes all names durable.
    fn sync_names(&mut self) -> io::Result<()> {
        self.disk.sync_dir(&self.config.dir)?;
        self.unsynced = false;
        self.free.append(&mut self.unsettled);
        Ok(())
    }

    fn retire_waiting(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.sync_names()?;
        }
        while let Some(stale) = self.waiting.pop_front() {
            self.retire(&stale)?;
        }
        Ok(())
    }

    fn retire(&mut self, stale: &Stale) -> io::Result<()> {
        let spare = Role::Spare.path(&self.config.dir, stale.sequence);
        let kept = self.free.len() + self.unsettled.len();
        if stale.bytes != self.config.segment_bytes || kept >= self.config.spare_segments {
            self.disk.remove(&stale.path)?;
            dstore_sys::failpoint!("global::journal::retire_removed");
            self.unsynced = true;
            return self.sync_names();
        }
        if stale.path != spare {
            // What could not be renamed on a full disk is found at the next open.
            self.disk.rename(&stale.path, &spare)?;
        }
        dstore_sys::failpoint!("global::journal::retire_renamed");
        self.unsynced = true;
        self.unsettled.push(spare);
        self.sync_names()
    }
}

/// Writes the header, durably.
fn write(segment: Segment) -> io::Result<Segment> {
    segment.file.write_all_at(&segment.header.encode(), 0)?;
    segment.file.sync()?;
    Ok(segment)
}
