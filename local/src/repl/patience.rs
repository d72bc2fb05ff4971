//! How long a command waits: a note after 300 ms, an end after 5 s, at once on Ctrl-C.
//!
//! The 5 s are for the node. Time in which a command waits for its own input or for whoever reads its output
//! does not count, and a large upload gets more, so that it can reach the disk. The client tries again and ends
//! its calls by the same 5 s; what it would let go on as long as it moves, transfers, ends here.

use super::output::Output;
use super::session::Settings;
use dstore_proto::store::BodyStream;
use dstore_shared::{Error, Moment, Result};
use dstore_sys::Sys;
use futures_util::Stream;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

/// The two times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// After this a note says that the command waits.
    pub note_after: Duration,
    /// After this the command is given up.
    pub give_up_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // A person notices 300 ms; 5 s are longer than a restart of Global and a lease together.
        Self { note_after: Duration::from_millis(300), give_up_after: Duration::from_secs(5) }
    }
}

/// The client, whose 5 s begin a little later, gives up first: it knows what failed last.
const CLIENT_FIRST: Duration = Duration::from_millis(100);

/// An upload is given one second more for each of these: slow disks sync faster than that.
const UPLOAD_BYTES_PER_SECOND: u64 = 32 << 20;

/// Counts how often Ctrl-C was pressed.
pub type Interrupts = watch::Receiver<u64>;

/// Why a command has no answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(Error),
    /// It was not answered in time.
    Late,
    /// Ctrl-C.
    Interrupted,
    /// Standard output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The waiting of one command.
pub(super) struct Wait<'a> {
    sys: &'a Sys,
    patience: Patience,
    interrupts: &'a mut Interrupts,
    address: &'a str,
    began: Moment,
    noted: bool,
}

impl<'a> Wait<'a> {
    pub fn new(sys: &'a Sys, settings: &'a Settings, interrupts: &'a mut Interrupts) -> Self {
        interrupts.mark_unchanged();
        let (patience, address, began) = (settings.patience, &settings.address, sys.clock.now());
        Self { sys, patience, interrupts, address, began, noted: false }
    }

    /// Starts anew: the node has just shown that it is there.
    pub fn again(&mut self) {
        self.began = self.sys.clock.now();
    }

    /// The command asked for so much more time.
    pub fn longer(&mut self, more: Duration) {
        self.patience.give_up_after += more;
    }

    /// How long it has waited.
    pub fn elapsed(&self) -> Duration {
        self.sys.clock.now().since(self.began)
    }

    /// Writes a part of the answer; whoever reads it may be slow.
    pub async fn write(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Stop> {
        tokio::select! {
            written = output.bytes(bytes) => Ok(written?),
            () = pressed(self.interrupts) => Err(Stop::Interrupted),
        }
    }

    /// The answer of `task`, unless it takes too long or Ctrl-C is pressed; then `task` is dropped.
    pub async fn on<T>(
        &mut self,
        task: impl Future<Output = Result<T>>,
        upload: Option<&Upload>,
        output: &mut Output,
    ) -> Result<T, Stop> {
        let mut task = pin!(task);
        loop {
            let left = self.left(upload);
            if left.is_zero() {
                return Err(Stop::Late);
            }
            let (nap, pressed) = (self.nap(left), pressed(self.interrupts));
            tokio::select! {
                biased;
                answer = &mut task => return answer.map_err(Stop::Failed),
                () = pressed => return Err(Stop::Interrupted),
                () = tokio::time::sleep(nap) => {}
            }
            let waited = self.sys.clock.now().since(self.began);
            if !self.noted && waited >= self.patience.note_after && upload.is_none_or(|u| !u.starves()) {
                self.noted = true;
                let seconds = self.patience.give_up_after.as_secs_f32();
                output.note(&format!("waiting for {}, {seconds} s at most ..", self.address)).await;
            }
        }
    }

    fn left(&self, upload: Option<&Upload>) -> Duration {
        let (now, limit) = (self.sys.clock.now(), self.patience.give_up_after + CLIENT_FIRST);
        let Some(upload) = upload else { return (self.began + limit).since(now) };
        if upload.starves() {
            return limit;
        }
        let extra = Duration::from_secs(upload.taken() / UPLOAD_BYTES_PER_SECOND);
        (self.began.max(upload.fed_at()) + limit + extra).since(now)
    }

    fn nap(&self, left: Duration) -> Duration {
        let until_note = (self.began + self.patience.note_after).since(self.sys.clock.now());
        if self.noted || until_note.is_zero() { left } else { left.min(until_note) }
    }
}

/// Ends when Ctrl-C is pressed; never, if nobody listens for it.
pub(super) async fn pressed(interrupts: &mut Interrupts) {
    if interrupts.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How far the body of a SET has been taken.
#[derive(Clone, Debug)]
pub(super) struct Upload(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    fed_at: AtomicU64,
    taken: AtomicU64,
    starves: AtomicBool,
}

impl Upload {
    /// Watches `body`, and gives it back.
    pub fn watch(sys: &Sys, body: BodyStream) -> (Self, BodyStream) {
        let fed_at = AtomicU64::new(sys.clock.now().as_nanos());
        let progress = Progress { fed_at, taken: AtomicU64::new(0), starves: AtomicBool::new(false) };
        let upload = Self(Arc::new(progress));
        (upload.clone(), Box::pin(Watched { body, upload, sys: sys.clone() }))
    }

    /// The command waits for its own input.
    fn starves(&self) -> bool {
        self.0.starves.load(Ordering::Relaxed)
    }

    fn fed_at(&self) -> Moment {
        Moment::from_nanos(self.0.fed_at.load(Ordering::Relaxed))
    }

    fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }
}

struct Watched {
    body: BodyStream,
    upload: Upload,
    sys: Sys,
}

impl Stream for Watched {
    type Item = Result<bytes::Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.as_mut().poll_next(cx);
        let progress = &self.upload.0;
        progress.starves.store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(piece) = &polled {
            progress.fed_at.store(self.sys.clock.now().as_nanos(), Ordering::Relaxed);
            if let Some(Ok(piece)) = piece {
                progress.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
        polled
    }
}
