//! Labels answers with what a crash of Global may take of them, at one place for every call.
//!
//! Invariant: an answer of a store that may lose what it answers never goes out without its label.

use crate::convert::{bound_from, millis_up};
use crate::transfer::WireStream;
use crate::wire;
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An answer that carries the label.
pub(crate) trait Labelled {
    /// Notes it: `ms` is not 0.
    fn label(&mut self, ms: u64);
    /// What it says; 0 = it is durable. Of a message that is only a part: what its part says, if any.
    fn loss_ms(&self) -> Option<u64>;
}

/// Messages with a field of their own, and perhaps where they came from.
macro_rules! labelled {
    ($($message:ident)*) => {
        $(impl Labelled for wire::$message {
            fn label(&mut self, ms: u64) {
                self.loss_ms = ms;
            }

            fn loss_ms(&self) -> Option<u64> {
                Some(self.loss_ms)
            }
        })*
    };
    (from: $($message:ident)*) => {
        $(impl Labelled for wire::$message {
            fn label(&mut self, ms: u64) {
                self.loss_ms = ms;
                self.from.iter_mut().for_each(|from| from.loss_ms = ms);
            }

            fn loss_ms(&self) -> Option<u64> {
                Some(self.loss_ms)
            }
        })*
    };
    (only: $($message:ident)*) => {
        $(impl Labelled for wire::$message {
            fn label(&mut self, ms: u64) {
                self.from.iter_mut().for_each(|from| from.loss_ms = ms);
            }

            fn loss_ms(&self) -> Option<u64> {
                self.from.as_ref().map(|from| from.loss_ms)
            }
        })*
    };
}

labelled! { LocalsResponse WhyResponse HeldResponse ApplyResponse NamespacesResponse NamespaceResponse ExistsResponse CopyResponse DeleteResponse DeletePrefixResponse StatusResponse WatchHeader }
labelled! { from: GetResponse DownloadHeader StatResponse }
labelled! { only: SetResponse ListResponse }

impl Labelled for wire::StatManyResponse {
    fn label(&mut self, ms: u64) {
        self.loss_ms = ms;
        self.stats.iter_mut().for_each(|stat| stat.label(ms));
    }

    fn loss_ms(&self) -> Option<u64> {
        Some(self.loss_ms)
    }
}

impl Labelled for wire::SetManyResponse {
    fn label(&mut self, ms: u64) {
        for one in &mut self.results {
            if let Some(wire::set_one_result::Result::Set(set)) = &mut one.result {
                set.label(ms);
            }
        }
    }

    fn loss_ms(&self) -> Option<u64> {
        self.results.iter().find_map(|one| match &one.result {
            Some(wire::set_one_result::Result::Set(set)) => set.loss_ms(),
            _ => None,
        })
    }
}

impl Labelled for wire::DownloadChunk {
    fn label(&mut self, ms: u64) {
        self.header.iter_mut().for_each(|header| header.label(ms));
    }

    fn loss_ms(&self) -> Option<u64> {
        self.header.as_ref().and_then(Labelled::loss_ms)
    }
}

impl Labelled for wire::GetManyChunk {
    fn label(&mut self, ms: u64) {
        self.pieces.iter_mut().filter_map(|piece| piece.header.as_mut()).for_each(|header| header.label(ms));
    }

    fn loss_ms(&self) -> Option<u64> {
        self.pieces.iter().find_map(|piece| piece.header.as_ref()).and_then(Labelled::loss_ms)
    }
}

impl Labelled for wire::WatchResponse {
    fn label(&mut self, ms: u64) {
        self.header.iter_mut().for_each(|header| header.label(ms));
    }

    fn loss_ms(&self) -> Option<u64> {
        self.header.as_ref().and_then(Labelled::loss_ms)
    }
}

/// A unary answer, or a stream of them.
pub(crate) trait Answer: Sized {
    /// The answer of a store of which a crash may take the changes of so long.
    fn labelled(self, loss: Option<Duration>) -> Self;
}

impl<M: Labelled> Answer for M {
    fn labelled(mut self, loss: Option<Duration>) -> Self {
        if let Some(loss) = loss {
            self.label(millis_up(loss));
        }
        self
    }
}

/// A stream whose messages are labelled.
pub(crate) fn labelled_stream<M: Labelled + Send + 'static>(
    stream: WireStream<M>,
    loss: Option<Duration>,
) -> WireStream<M> {
    if loss.is_none() {
        return stream;
    }
    Box::pin(stream.map(move |message| message.map(|message| message.labelled(loss))))
}

/// What the newest answer said, for whoever asks a store that is elsewhere. Clones share it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Noted(Arc<AtomicU64>);

impl Noted {
    /// Notes what `answer` says.
    pub(crate) fn note(&self, answer: &impl Labelled) {
        if let Some(ms) = answer.loss_ms() {
            self.0.store(ms, Ordering::Relaxed);
        }
    }

    pub(crate) fn loss(&self) -> Option<Duration> {
        bound_from(self.0.load(Ordering::Relaxed))
    }
}
