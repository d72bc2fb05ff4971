//! A watch on the wire: both ends of the call `Watch`.
//!
//! Invariants: a watch is sent no faster than it is read, and given up when it is not read; whoever reads gives up
//! one from which nothing comes; a connection has at most [`WATCHES_PER_CONNECTION`] of them.

use crate::convert::need;
use crate::dial::Channel;
use crate::loss::Noted;
use crate::remote_store::in_time;
use crate::status::to_status;
use crate::transfer::WireStream;
use crate::watch::{Seen, WatchQuery, WatchStream, Watching};
use crate::wire;
use crate::wire::store_client::StoreClient;
use dstore_shared::limits::{WATCH_SILENCE, WATCHES_PER_CONNECTION};
use dstore_shared::{Error, Result, Revision};
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Messages that wait between a watch and a slow reader.
const AHEAD: usize = 2;

/// What the watches of one connection share; travels with each of its calls.
#[derive(Clone, Debug)]
pub struct OfConnection {
    slots: Arc<Semaphore>,
    /// Cancelled when the server stops.
    stop: CancellationToken,
}

impl OfConnection {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { slots: Arc::new(Semaphore::new(WATCHES_PER_CONNECTION)), stop }
    }

    /// Cancelled when the connection is to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// A place for one more watch.
    ///
    /// # Errors
    /// `Exhausted` if there are as many as there may be.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!(
                "a connection has at most {WATCHES_PER_CONNECTION} watches: end one, or open another connection"
            ))
        })
    }
}

/// Sends a watch until it ends, the reader goes away or takes nothing for `idle`, or the server stops.
pub(crate) fn send(
    tasks: &Tasks,
    idle: Duration,
    of: OfConnection,
    place: OwnedSemaphorePermit,
    watching: Watching,
) -> WireStream<wire::WatchResponse> {
    let (out, queue) = mpsc::channel(AHEAD);
    tasks.spawn("watch", async move {
        let _place = place;
        let Watching { history, after, mut batches } = watching;
        let mut next: Result<wire::WatchResponse> = Ok(crate::convert::watch_header(history, after));
        loop {
            let ends = next.is_err();
            let sent = tokio::time::timeout(idle, out.send(next.map_err(|e| to_status(&e)))).await;
            if ends || !matches!(sent, Ok(Ok(()))) {
                return;
            }
            next = tokio::select! {
                biased;
                () = out.closed() => return,
                () = of.stop.cancelled() => Err(stopping()),
                seen = batches.next() => seen.unwrap_or_else(|| Err(stopping())).map(Into::into),
            };
        }
    });
    let given_up = move || {
        to_status(&Error::unavailable(format!(
            "the watch was not read for `{idle:?}` and was ended: watch again after what was seen"
        )))
    };
    let state = Some(queue);
    Box::pin(stream::unfold(state, move |queue| async move {
        let mut queue = queue?;
        match queue.recv().await {
            Some(Ok(message)) => Some((Ok(message), Some(queue))),
            Some(Err(status)) => Some((Err(status), None)),
            None => Some((Err(given_up()), None)),
        }
    }))
}

fn stopping() -> Error {
    Error::unavailable("this tier is stopping: watch again after what was seen")
}

/// Begins a watch at the other end of a channel.
///
/// # Errors
/// As [`Store::watch`](crate::store::Store::watch); `Unavailable` if it does not begin within `call`.
pub(crate) async fn begin(
    mut client: StoreClient<Channel>,
    call: Duration,
    query: &WatchQuery,
    noted: &Noted,
) -> Result<Watching> {
    let request = wire::WatchRequest::from(query);
    let (messages, first) = in_time(call, async move {
        let mut messages = client.watch(request).await?.into_inner();
        let first = messages.message().await?;
        Ok((messages, first))
    })
    .await?;
    let header = need(first.and_then(|first| first.header), "header")?;
    noted.note(&header);
    let history = crate::convert::history_from(&header.history)?;
    let after = Revision(header.after);
    if query.after.is_some_and(|asked| asked != after) {
        return Err(Error::internal("another watch was begun than was asked for: report this"));
    }
    Ok(Watching { history, after, batches: received(messages) })
}

/// The batches of a watch, until its first error; silence is one.
fn received(messages: Streaming<wire::WatchResponse>) -> WatchStream {
    Box::pin(stream::unfold(Some(messages), |messages| async {
        let mut messages = messages?;
        match in_time(WATCH_SILENCE, messages.message()).await {
            Ok(Some(message)) => match Seen::try_from(message) {
                Ok(seen) => Some((Ok(seen), Some(messages))),
                Err(e) => Some((Err(e), None)),
            },
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    }))
}
