//! The loops that keep a Local in touch with Global: the session stream and the request stream.
//!
//! Each connects again for ever, with jittered and growing pauses, until the Local stops. They move frames
//! and decide nothing: what a frame means is the machine's.

use crate::core::Core;
use dstore_proto::link::{Frames, NotGlobal};
use dstore_shared::frame::{Down, Reply};
use dstore_shared::limits::BATCH_LEN_MAX;
use dstore_shared::{Error, Result};
use dstore_sys::net::Address;
use futures_util::StreamExt;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

/// Frames that are applied, and acknowledged, together.
const BURST: usize = 256;
/// Without any frame for so many lease terms the session stream is given up.
const SILENT_TERMS: u32 = 4;

/// A pause that grows with each failure.
struct BackOff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    fn reset(&mut self) {
        self.next = self.shortest;
    }

    async fn pause(&mut self, core: &Core) {
        let pause = core.sys.rng.jitter(self.next);
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}

/// Holds a session until the Local has left: it ends when Global has taken note of that; or when there is no
/// Global at the address, and never was.
pub(crate) async fn keep_session(core: Arc<Core>, back_off: (Duration, Duration)) {
    let (mut back_off, mut contact) = (BackOff::new(back_off), Contact::Untried);
    while let Some(ended) = one_session(&core, &mut contact).await {
        if core.leaving.is_cancelled() {
            break;
        }
        if contact == Contact::Made {
            back_off.reset();
        }
        if !contact.ever_made() && ended.source().is_some_and(<dyn std::error::Error>::is::<NotGlobal>) {
            core.refuse(ended);
            break;
        }
        contact.lost(&ended, core.link.address());
        core.session_lost();
        core.forget_abandoned();
        core.leaving.run_until_cancelled(back_off.pause(&core)).await;
    }
}

/// What the log was told of Global: each change once, however many attempts fail in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contact {
    /// It was not tried yet.
    Untried,
    /// There was never any, which was told.
    Absent,
    /// There is a session.
    Made,
    /// There was one; that it ended was told.
    Lost,
}

impl Contact {
    fn ever_made(self) -> bool {
        matches!(self, Self::Made | Self::Lost)
    }

    fn made(&mut self) {
        match std::mem::replace(self, Self::Made) {
            Self::Untried => tracing::debug!("a session with global has begun"),
            Self::Absent | Self::Lost => tracing::info!("global is back: a session has begun"),
            Self::Made => {}
        }
    }

    fn lost(&mut self, error: &Error, at: &Address) {
        match self {
            Self::Untried => {
                *self = Self::Absent;
                tracing::warn!(%at, %error, "global does not answer: not serving until it does");
            }
            Self::Made => {
                *self = Self::Lost;
                tracing::warn!(%at, %error, "the session with global ended; trying again");
            }
            Self::Absent | Self::Lost => tracing::debug!(%error, "no session with global; trying again"),
        }
    }
}

/// One session stream, from HELLO to its end; gives the reason, or `None` if no session may begin.
async fn one_session(core: &Core, contact: &mut Contact) -> Option<Error> {
    let mut queue = core.session_opened()?;
    let (sink, frames) = core.link.open_session();
    dstore_sys::failpoint!("local::session::opened");
    let up = async {
        while let Some(frame) = queue.recv().await {
            if let Err(e) = sink.send(frame).await {
                return e;
            }
        }
        Error::closed("the session has to begin anew")
    };
    // What is sent comes last: a full queue must keep neither invalidations nor renewals waiting.
    Some(tokio::select! {
        biased;
        e = take_frames(core, frames, contact) => e,
        never = renew(core) => match never {},
        e = up => e,
    })
}

async fn take_frames(core: &Core, frames: Frames<Down>, contact: &mut Contact) -> Error {
    let mut frames = frames.ready_chunks(BURST);
    loop {
        let (_, _, lease, _) = core.standing();
        let silence = (lease * SILENT_TERMS).max(Duration::from_secs(5));
        let burst = match tokio::time::timeout(silence, frames.next()).await {
            Ok(Some(burst)) => burst,
            Ok(None) => return Error::closed("global ended the session"),
            Err(_) => return Error::unavailable("global has been silent too long"),
        };
        let (good, end) = until_error(burst);
        dstore_sys::failpoint!("local::frames::arrived");
        core.session_frames(good);
        dstore_sys::failpoint!("local::frames::acknowledged");
        if core.is_welcome() {
            contact.made();
        }
        if let Some(e) = end {
            return e;
        }
    }
}

async fn renew(core: &Core) -> std::convert::Infallible {
    loop {
        // Each LEASE starts the wait anew, with its own term: the first may be far shorter than the default.
        let extended = core.lease_moved();
        let (_, _, lease, _) = core.standing();
        if tokio::time::timeout(core.sys.rng.jitter(lease / 3), extended).await.is_err() {
            core.keep();
        }
    }
}

/// Holds a request stream for as long as the Local lives.
pub(crate) async fn keep_requests(core: Arc<Core>, back_off: (Duration, Duration)) {
    let mut back_off = BackOff::new(back_off);
    loop {
        let answered = one_request_stream(&core).await;
        core.requests_lost();
        core.forget_abandoned();
        if answered {
            back_off.reset();
        }
        back_off.pause(&core).await;
    }
}

/// One request stream, from the first request to its end; whether it brought any reply.
async fn one_request_stream(core: &Core) -> bool {
    let mut queue = core.requests_opened();
    // What is queued goes together; nothing waits for more.
    let mut first = Vec::new();
    // A node that asks nothing costs Global no second connection.
    if queue.recv_many(&mut first, BATCH_LEN_MAX).await == 0 {
        return false;
    }
    let (sink, mut replies) = core.link.open_requests();
    dstore_sys::failpoint!("local::requests::opened");
    let up = async {
        let mut batch = first;
        loop {
            if sink.send(batch).await.is_err() {
                return;
            }
            batch = Vec::with_capacity(BATCH_LEN_MAX);
            if queue.recv_many(&mut batch, BATCH_LEN_MAX).await == 0 {
                return;
            }
        }
    };
    let mut answered = false;
    let down = async {
        while let Some(Ok(batch)) = replies.next().await {
            let batch: Vec<Reply> = batch;
            dstore_sys::failpoint!("local::replies::arrived");
            core.replies(batch);
            dstore_sys::failpoint!("local::replies::done");
            answered = true;
        }
    };
    tokio::select! {
        biased;
        () = down => {}
        () = up => {}
    }
    answered
}

/// The frames before the first error, and that error.
fn until_error<T>(burst: Vec<Result<T>>) -> (Vec<T>, Option<Error>) {
    let mut good = Vec::with_capacity(burst.len());
    for frame in burst {
        match frame {
            Ok(frame) => good.push(frame),
            Err(e) => return (good, Some(e)),
        }
    }
    (good, None)
}
