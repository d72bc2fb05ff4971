//! One session: its two directions as one stream, and the listing of held names beside them.
//!
//! Invariants: frames of a Local are taken in by whoever sends it Global's, so a session needs no task of its own; no
//! ACK waits for a look at the disk. What frames mean is decided by the machine ([`crate::sessions`]).

use crate::authority::Authority;
use crate::mailbox::Receiver;
use crate::sessions::StreamId;
use dstore_proto::link::Frames;
use dstore_shared::frame::{Down, Listed, Up};
use dstore_shared::{Epoch, Error, Result};
use dstore_sys::net::BoxFuture;
use futures_util::stream::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Frames of one session that are taken in before others have their turn.
const TAKEN_AT_ONCE: usize = 64;

/// One batch of names that a Local holds.
struct Listing {
    epoch: Epoch,
    batch: u64,
    names: Vec<Listed>,
    last: bool,
}

/// A session's two directions as one: whoever takes the frames for the Local has those of the Local taken in.
///
/// So a session needs no task besides the one that sends its frames: ten thousand of them pay for each task twice, in
/// memory and at each renewal. A peer that reads nothing is read no further, once its window is full: its lease ends.
pub(super) struct SessionStream {
    authority: Arc<Authority>,
    id: StreamId,
    /// Gone when the Local's side has ended.
    up: Option<Frames<Up>>,
    frames: Receiver<Result<Down>>,
    listing: Listings,
}

/// SUMMARYs of one session, answered beside its other frames, so that no ACK waits for a look at the disk. A Local lists
/// one batch at a time; one that comes before the answer takes the place of the one before.
struct Listings {
    at_work: Option<BoxFuture<'static, ()>>,
    waiting: Option<Listing>,
}

impl Stream for SessionStream {
    type Item = Result<Down>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Down>>> {
        let this = &mut *self;
        this.take_in(cx);
        this.list(cx);
        this.frames.poll_take(cx)
    }
}

impl SessionStream {
    pub(super) fn new(
        authority: Arc<Authority>,
        id: StreamId,
        up: Frames<Up>,
        frames: Receiver<Result<Down>>,
    ) -> Self {
        let listing = Listings { at_work: None, waiting: None };
        Self { authority, id, up: Some(up), frames, listing }
    }

    /// Takes in what the Local has sent.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        for _ in 0..TAKEN_AT_ONCE {
            let Some(up) = &mut self.up else { return };
            match up.as_mut().poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => self.take_frame(frame),
                Poll::Ready(Some(Err(_)) | None) => {
                    self.up = None;
                    self.authority.close_stream(self.id);
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    fn take_frame(&mut self, frame: Up) {
        let (authority, id) = (&self.authority, self.id);
        match frame {
            // A second HELLO on a stream is a new stream's business.
            Up::Hello(_) => authority.close_stream(id),
            Up::Keep { epoch, n, acked } => {
                dstore_sys::failpoint!("global::lease::before_grant");
                authority.event(|m, now| m.keep(now, id, epoch, n, acked));
                dstore_sys::failpoint!("global::lease::after_grant");
            }
            Up::Ack { epoch, seq } => {
                dstore_sys::failpoint!("global::session::before_ack");
                authority.event(|m, now| m.ack(now, id, epoch, seq));
                dstore_sys::failpoint!("global::session::after_ack");
            }
            Up::Bye { epoch } => authority.event(|m, now| m.bye(now, id, epoch)),
            Up::Drop { epoch, names } => authority.event(|m, now| {
                for (name, reg_seq) in &names {
                    m.drop_name(now, id, epoch, name, *reg_seq);
                }
            }),
            Up::Summary { epoch, batch, names, last } => {
                self.listing.waiting = Some(Listing { epoch, batch, names, last });
            }
        }
    }

    /// Goes on with what was listed.
    fn list(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(at_work) = &mut self.listing.at_work {
                if at_work.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.listing.at_work = None;
            }
            let Some(listing) = self.listing.waiting.take() else { return };
            let (authority, id) = (self.authority.clone(), self.id);
            self.listing.at_work = Some(Box::pin(take_listing(authority, id, listing)));
        }
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.authority.close_stream(self.id);
    }
}

/// Answers a SUMMARY. Within the grace, and while the Local is slow, nobody is registered: it waits for the end of that,
/// instead of being refused.
async fn take_listing(authority: Arc<Authority>, id: StreamId, listing: Listing) {
    let Listing { epoch, batch, names, last } = listing;
    loop {
        let wait = authority.event(|m, now| m.listing_wait(now, epoch));
        if wait.is_zero() {
            break;
        }
        tokio::time::sleep(wait).await;
    }
    let refused = if names.is_empty() {
        Vec::new()
    } else {
        let looks = authority.clone();
        authority.sys.blocking.run(move || looks.register_listed(epoch, &names)).await
    };
    let pause = authority.event(|m, now| {
        m.summarized(now, id, epoch, batch, refused, last);
        m.listing_pause(epoch)
    });
    tokio::time::sleep(pause).await;
}

impl Authority {
    /// Makes it durable that "not found" answers may be leased, before the first one is (rule 29). False: they may
    /// not.
    pub(super) async fn expect_negatives(self: &Arc<Self>) -> bool {
        let authority = self.clone();
        let noted = self.sys.blocking.run(move || match authority.dir.upgrade() {
            Some(dir) => dir.persist_negatives(),
            None => Err(Error::unavailable("global is stopping")),
        });
        match noted.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a local wants to keep answers about absent names: it may not");
                false
            }
        }
    }

    /// Registers the names of a SUMMARY batch that are bound as the Local holds them; gives the others. Blocks.
    fn register_listed(&self, epoch: Epoch, listed: &[Listed]) -> Vec<u32> {
        self.listed.fetch_add(listed.len() as u64, Ordering::Relaxed);
        let refused = listed.iter().enumerate().filter(|(_, listed)| {
            let made = self.event(|m, now| m.begin_read(now, epoch, &listed.name, listed.reg_seq));
            let Some(made) = made else { return true };
            let same = matches!(self.look(&listed.name), Ok((Some(e), _)) if e.bind_rev == listed.bind_rev);
            self.event(|m, now| m.end_read(now, &listed.name, made, same)).is_none()
        });
        refused.map(|(i, _)| i as u32).collect()
    }
}
