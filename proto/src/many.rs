//! The calls about many names, on the wire: values packed into frames and unpacked, one failure beside the others.
//!
//! ```text
//! FoundMany -> frames: header, bytes if they are small, header, ... | a long value: header | piece | piece ..
//! ```
//! Invariants: headers are in the order of the request; what is unpacked is verified against its hash; the reader
//! holds at most what one call may give.

use crate::convert::{Packer, attributes_from, attributes_to, detach, names_to, need};
use crate::loss::Noted;
use crate::remote_store::in_time;
use crate::status;
use crate::store::{Body, BodyStream, Found, FoundMany, Provenance, SetOne, SetReply, Stat, StatMany, Tier};
use crate::transfer::{self, WireStream};
use crate::wire;
use bytes::{Bytes, BytesMut};
use dstore_shared::limits::{CARRIED_BYTES_MAX, CHUNK_BYTES, GET_MANY_BYTES_MAX};
use dstore_shared::{Blob, Entry, Error, Name, RequestId, Result, Revision};
use dstore_sys::tasks::Tasks;
use futures_util::stream::{self, StreamExt};
use std::time::Duration;
use tonic::Streaming;

/// What a header and the framing of a piece have at most.
const HEADER_BYTES: usize = 128;

/// Sends values, as [`transfer::pump`] does.
pub(crate) fn send_found(tasks: &Tasks, idle: Duration, all: FoundMany) -> WireStream<wire::GetManyChunk> {
    // A name that is not bound is nowhere held: Global said so.
    let from = Provenance::new(Tier::Global, false, all.revision);
    let packing = Packing { rest: all.found.into_iter(), next: None, body: None, from };
    let chunks = stream::unfold(Some(packing), |packing| async {
        let mut packing = packing?;
        match packing.chunk().await {
            Ok(pieces) if pieces.is_empty() => None,
            Ok(pieces) => Some((Ok(wire::GetManyChunk { pieces }), Some(packing))),
            Err(e) => Some((Err(e), None)),
        }
    });
    transfer::pump_all(tasks, idle, Box::pin(chunks))
}

/// What a piece takes besides its data.
fn header_len(piece: &wire::GetManyPiece) -> usize {
    let entry = piece.header.as_ref().and_then(|header| header.entry.as_ref());
    HEADER_BYTES + entry.map_or(0, |entry| entry.content_type.len())
}

struct Packing {
    rest: std::vec::IntoIter<Option<Found>>,
    /// Did not fit the chunk before.
    next: Option<wire::GetManyPiece>,
    /// Of the value whose header went last.
    body: Option<BodyStream>,
    /// Of a name that is not bound.
    from: Provenance,
}

impl Packing {
    /// The next pieces; none = that was all.
    async fn chunk(&mut self) -> Result<Vec<wire::GetManyPiece>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        loop {
            if let Some(body) = &mut self.body {
                if !pieces.is_empty() {
                    return Ok(pieces);
                }
                match body.next().await.transpose()? {
                    Some(data) => return Ok(vec![wire::GetManyPiece { header: None, data }]),
                    None => self.body = None,
                }
            }
            let piece = match self.next.take() {
                Some(piece) => piece,
                None => match self.rest.next() {
                    Some(found) => self.piece(found),
                    None => return Ok(pieces),
                },
            };
            let weight = header_len(&piece) + piece.data.len();
            if !pieces.is_empty() && bytes + weight > CHUNK_BYTES {
                self.next = Some(piece);
                return Ok(pieces);
            }
            bytes += weight;
            pieces.push(piece);
        }
    }

    /// A header, with the value if that is small; else its bytes follow.
    fn piece(&mut self, found: Option<Found>) -> wire::GetManyPiece {
        let Some(Found { entry, from, body }) = found else {
            let header =
                wire::DownloadHeader { from: Some(self.from.into()), ..wire::DownloadHeader::default() };
            return wire::GetManyPiece { header: Some(header), data: Bytes::new() };
        };
        let (len, entry) = (entry.size, Some(Packer::new(32).entry(&entry)));
        let header = wire::DownloadHeader { found: true, entry, from: Some(from.into()), len, loss_ms: 0 };
        let small = match &body {
            Body::Blob(blob) => Some(blob.bytes().clone()),
            Body::Bytes(bytes) => Some(bytes.clone()),
            Body::Stream(_) => None,
        };
        let small = small.filter(|data| data.len() as u64 == len && data.len() <= CARRIED_BYTES_MAX);
        if small.is_none() {
            let pieces = transfer::chunked(body.into_stream());
            self.body = Some(transfer::exactly(pieces, len));
        }
        wire::GetManyPiece { header: Some(header), data: small.unwrap_or_default() }
    }
}

/// Reads what [`send_found`] sent for `asked` names; every chunk comes within `idle`.
pub(crate) async fn read_found(
    mut chunks: Streaming<wire::GetManyChunk>,
    asked: usize,
    idle: Duration,
    noted: &Noted,
) -> Result<FoundMany> {
    let mut reading = Reading::of(asked);
    while let Some(chunk) = in_time(idle, chunks.message()).await? {
        noted.note(&chunk);
        reading.take(chunk)?;
    }
    reading.done()
}

/// A value whose bytes are coming.
struct Open {
    entry: Entry,
    from: Provenance,
    /// Short values come in one piece.
    whole: Option<Bytes>,
    gathered: BytesMut,
}

/// The values of one call, as their pieces come.
pub(crate) struct Reading {
    all: FoundMany,
    asked: usize,
    open: Option<Open>,
    bytes: u64,
}

impl Reading {
    /// Of `asked` names: of more than those nothing is kept.
    pub(crate) fn of(asked: usize) -> Self {
        let all = FoundMany { found: Vec::new(), revision: Revision(0) };
        Self { all, asked, open: None, bytes: 0 }
    }

    pub(crate) fn take(&mut self, chunk: wire::GetManyChunk) -> Result<()> {
        for wire::GetManyPiece { header, data } in chunk.pieces {
            if let Some(header) = header {
                self.close()?;
                self.header(header)?;
            }
            self.data(data)?;
        }
        Ok(())
    }

    /// All values, once nothing more comes.
    pub(crate) fn done(mut self) -> Result<FoundMany> {
        self.close()?;
        same_length(self.all.found.len(), self.asked)?;
        Ok(self.all)
    }

    fn header(&mut self, header: wire::DownloadHeader) -> Result<()> {
        let answers = self.all.found.len() + 1;
        if answers > self.asked {
            return same_length(answers, self.asked);
        }
        let from: Provenance = need(header.from, "from")?.try_into()?;
        self.all.revision = self.all.revision.max(from.revision);
        if !header.found {
            self.all.found.push(None);
            return Ok(());
        }
        let entry: Entry = need(header.entry, "entry")?.try_into()?;
        self.bytes = self.bytes.saturating_add(entry.size);
        if header.len != entry.size || self.bytes > GET_MANY_BYTES_MAX {
            return Err(Error::internal("more was sent than one call may give: report this"));
        }
        self.open = Some(Open { entry, from, whole: None, gathered: BytesMut::new() });
        Ok(())
    }

    fn data(&mut self, data: Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let more = || Error::internal("more was sent than announced");
        let open = self.open.as_mut().ok_or_else(more)?;
        let before = open.whole.take().unwrap_or_default();
        if (before.len() + open.gathered.len() + data.len()) as u64 > open.entry.size {
            return Err(more());
        }
        if data.len() as u64 == open.entry.size {
            open.whole = Some(detach(data));
        } else {
            open.gathered.extend_from_slice(&data);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { entry, from, whole, gathered }) = self.open.take() else { return Ok(()) };
        let bytes = whole.unwrap_or_else(|| gathered.freeze());
        if bytes.len() as u64 != entry.size {
            return Err(Error::unavailable("a value ended early: read it again"));
        }
        let body = Body::Blob(Blob::verify(bytes, entry.hash)?);
        self.all.found.push(Some(Found { entry, from, body }));
        Ok(())
    }
}

pub(crate) fn same_length(answers: usize, asked: usize) -> Result<()> {
    if answers == asked {
        return Ok(());
    }
    Err(Error::internal(format!("`{answers}` answers came for `{asked}` keys: report this")))
}

/// What is asked of `set_many`; its ids must follow one another.
pub(crate) fn sets_to(sets: &[SetOne]) -> Result<wire::SetManyRequest> {
    let first = sets.first().map(|one| one.id).unwrap_or_default();
    let follows =
        |(i, one): (usize, &SetOne)| one.id == RequestId { n: first.n.saturating_add(i as u64), ..first };
    if !sets.iter().enumerate().all(follows) {
        return Err(Error::invalid(
            "the ids of values that are set together must follow one another: count up",
        ));
    }
    // Less than a millisecond would travel as none.
    sets.iter().try_for_each(|one| one.attributes.check())?;
    let values = sets.iter().map(|one| {
        let (ttl_ms, content_type) = attributes_to(&one.attributes);
        let (name, data) = (Some((&one.name).into()), one.value.bytes().clone());
        wire::NamedValue { name, data, ttl_ms, content_type }
    });
    Ok(wire::SetManyRequest { id: Some(Packer::new(64).request_id(&first)), values: values.collect() })
}

/// Values that cannot be read: where each stands in its request, and why.
pub(crate) type Unread = Vec<(usize, Error)>;

/// One value as it came.
pub(crate) fn set_from(id: RequestId, value: wire::NamedValue) -> Result<SetOne> {
    let attributes = attributes_from(value.ttl_ms, &value.content_type)?;
    let name = need(value.name, "name")?.try_into()?;
    Ok(SetOne { id, name, value: Blob::hash(detach(value.data)), attributes })
}

/// What became of all values: `done` of those that could be read, and the others at their places.
pub(crate) fn merged(done: Vec<Result<SetReply>>, unread: Unread) -> Vec<Result<SetReply>> {
    let mut all = done;
    for (at, e) in unread {
        all.insert(at.min(all.len()), Err(e));
    }
    all
}

pub(crate) fn set_results_to(results: Vec<Result<SetReply>>) -> wire::SetManyResponse {
    use wire::set_one_result::Result as Wire;
    let result = |result: Result<SetReply>| match result {
        Ok(reply) => Wire::Set((&reply).into()),
        Err(e) => Wire::Failed(wire::SetFailure {
            detail: Some(status::detail(&e)),
            message: e.message().to_owned(),
        }),
    };
    let results = results.into_iter().map(|one| wire::SetOneResult { result: Some(result(one)) });
    wire::SetManyResponse { results: results.collect() }
}

pub(crate) fn set_results_from(done: wire::SetManyResponse) -> Result<Vec<Result<SetReply>>> {
    use wire::set_one_result::Result as Wire;
    let result = |one: wire::SetOneResult| match need(one.result, "result")? {
        Wire::Set(reply) => Ok(Ok(reply.try_into()?)),
        Wire::Failed(failed) => {
            Ok(Err(status::from_detail(&need(failed.detail, "detail")?, &failed.message)))
        }
    };
    done.results.into_iter().map(result).collect()
}

pub(crate) fn stats_to(all: &StatMany) -> wire::StatManyResponse {
    let stat = |stat: &Option<Stat>| stat.as_ref().map(Into::into).unwrap_or_default();
    wire::StatManyResponse {
        stats: all.stats.iter().map(stat).collect(),
        revision: all.revision.0,
        loss_ms: 0,
    }
}

pub(crate) fn stats_from(all: wire::StatManyResponse) -> Result<StatMany> {
    let stats = all.stats.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    Ok(StatMany { stats, revision: Revision(all.revision) })
}

pub(crate) fn copy_to(id: &RequestId, from: &Name, to: &Name) -> wire::CopyRequest {
    let id = Some(Packer::new(64).request_id(id));
    wire::CopyRequest { id, from: Some(from.into()), to: Some(to.into()) }
}

pub(crate) fn get_many_to(names: &[Name]) -> wire::GetManyRequest {
    wire::GetManyRequest { names: names_to(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_were_not_asked_for_are_refused_as_they_come() {
        let nowhere = || wire::GetManyPiece {
            header: Some(wire::DownloadHeader {
                from: Some(Provenance::new(Tier::Global, false, Revision(1)).into()),
                ..wire::DownloadHeader::default()
            }),
            data: Bytes::new(),
        };
        let chunk = |n| wire::GetManyChunk { pieces: (0..n).map(|_| nowhere()).collect() };
        let mut reading = Reading::of(2);
        assert!(reading.take(chunk(2)).is_ok());
        assert!(reading.take(chunk(1)).expect_err("a third").message().contains("`3` answers came for `2`"));
        assert!(Reading::of(2).done().is_err(), "too few");
        let mut reading = Reading::of(2);
        reading.take(chunk(2)).expect("as many as asked for");
        assert_eq!(reading.done().expect("all").found.len(), 2);
    }
}
