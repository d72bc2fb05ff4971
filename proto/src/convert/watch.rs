//! The messages of a watch.

use super::{Packer, id, need};
use crate::watch::{Event, Happened, Seen, WatchQuery};
use crate::wire;
use bytes::Bytes;
use dstore_shared::limits::KEY_BYTES_MAX;
use dstore_shared::{Error, HistoryId, Key, Result, Revision};

pub(crate) fn watch_header(history: HistoryId, after: Revision) -> wire::WatchResponse {
    let history = Packer::new(16).id(history.0);
    let header = Some(wire::WatchHeader { history, after: after.0, loss_ms: 0 });
    wire::WatchResponse { header, events: Vec::new(), through: after.0 }
}

pub(crate) fn history_from(bytes: &[u8]) -> Result<HistoryId> {
    id(bytes, "history").map(HistoryId)
}

impl From<&WatchQuery> for wire::WatchRequest {
    fn from(query: &WatchQuery) -> Self {
        Self {
            namespace: query.namespace.to_string(),
            prefix: query.prefix.clone(),
            after: query.after.map(|after| after.0),
            history: query.history.map_or_else(Bytes::new, |history| Packer::new(16).id(history.0)),
        }
    }
}

impl TryFrom<wire::WatchRequest> for WatchQuery {
    type Error = Error;

    fn try_from(request: wire::WatchRequest) -> Result<Self> {
        let n = request.prefix.len();
        if n > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a prefix of `{n}` bytes: no key is that long, use at most {KEY_BYTES_MAX}"
            )));
        }
        let history = (!request.history.is_empty()).then(|| history_from(&request.history)).transpose()?;
        Ok(Self {
            namespace: super::door::namespace_from(&request.namespace)?,
            // A watch lives long: it must not keep the frame that it came in.
            prefix: Bytes::copy_from_slice(&request.prefix),
            after: request.after.map(Revision),
            history,
        })
    }
}

impl From<Seen> for wire::WatchResponse {
    fn from(seen: Seen) -> Self {
        let mut packer = Packer::new(32 * seen.events.len());
        let events = seen.events.into_iter().map(|event| {
            let (kind, entry) = match &event.happened {
                Happened::Bound(entry) => (wire::WatchKind::Bound, Some(entry)),
                Happened::Unbound(entry) => (wire::WatchKind::Unbound, entry.as_ref()),
            };
            wire::WatchEvent {
                revision: event.revision.0,
                at_ms: event.at_ms,
                kind: kind.into(),
                entry: entry.map(|entry| packer.entry(entry)),
                key: event.key.into_bytes(),
            }
        });
        Self { header: None, events: events.collect(), through: seen.through.0 }
    }
}

impl TryFrom<wire::WatchResponse> for Seen {
    type Error = Error;

    fn try_from(message: wire::WatchResponse) -> Result<Self> {
        let events = message.events.into_iter().map(Event::try_from).collect::<Result<_>>()?;
        Ok(Self { events, through: Revision(message.through) })
    }
}

impl TryFrom<wire::WatchEvent> for Event {
    type Error = Error;

    fn try_from(event: wire::WatchEvent) -> Result<Self> {
        let kind = event.kind();
        let entry = event.entry.map(TryInto::try_into).transpose()?;
        let happened = match kind {
            wire::WatchKind::Bound => Happened::Bound(need(entry, "entry")?),
            wire::WatchKind::Unbound => Happened::Unbound(entry),
            wire::WatchKind::Unspecified => {
                return Err(Error::invalid("an event does not say what happened: speak dstore.v1"));
            }
        };
        let (revision, key) = (Revision(event.revision), Key::new(super::detach(event.key))?);
        Ok(Self { revision, at_ms: event.at_ms, key, happened })
    }
}
