//! The ways into this crate for bytes that a peer might send, for the fuzz targets: each function reads them as a
//! server or a client would, gives the error that the sender would be told, and panics if what was read does not
//! hold what every reading must.
//!
//! Only in builds with the feature `fuzzing`. It must never read anything in a way of its own.

use crate::bulk::pieces_of;
use crate::codec;
use crate::convert::{
    down_from, down_to, history_from, mode_from, mode_to, names_from, names_to, pack_replies, pack_requests,
    read_replies, read_requests, target_from, target_to, up_from, up_to, wait_from,
};
use crate::link;
use crate::many;
use crate::shape::Shaped;
use crate::status::{from_status, to_status};
use crate::store::{ListQuery, Listing, SetReply, Slice, Stat, Status};
use crate::watch::{Seen, WatchQuery};
use crate::wire;
use bytes::Bytes;
use dstore_shared::limits::{FRAME_BYTES_MAX, GET_MANY_BYTES_MAX};
use dstore_shared::{BlobHash, CopyOutcome, Name, RequestId, Result};
use http::{HeaderMap, HeaderValue};
use prost::Message;

/// A message that is read from `bytes`, as `from` makes sense of it; what is written of that reads back the same.
fn fixed_point<M: Shaped, T>(bytes: &[u8], from: fn(M) -> Result<T>, to: impl Fn(T) -> M) -> Result<()> {
    let first = to(from(codec::read::<M>(&mut &bytes[..])?)?).encode_to_vec();
    let again = from(codec::read::<M>(&mut &first[..]).expect("what is written can be read"));
    let second = to(again.expect("what is written makes sense")).encode_to_vec();
    assert!(first == second, "what is written reads back as something else");
    Ok(())
}

/// A frame of a session stream: what a Local says if the first byte is even, else what Global says.
pub fn session_frame(bytes: &[u8]) -> Result<()> {
    match bytes.split_first() {
        Some((which, bytes)) if which % 2 == 0 => fixed_point(bytes, up_from, up_to),
        Some((_, bytes)) => fixed_point(bytes, down_from, down_to),
        None => Ok(()),
    }
}

/// A batch of requests if the first byte is even, else of replies; cut for sending, each part fits a frame.
pub fn batch(bytes: &[u8]) -> Result<()> {
    match bytes.split_first() {
        Some((which, bytes)) if which % 2 == 0 => {
            let pack = |requests| pack_requests(requests).expect("what was read may be sent");
            fixed_point(bytes, read_requests, pack)?;
            let requests = read_requests(codec::read(&mut &bytes[..])?)?;
            let n = requests.len();
            let parts = link::cut(requests);
            assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), n);
            parts.into_iter().for_each(|part| assert!(pack(part).encoded_len() <= FRAME_BYTES_MAX));
            Ok(())
        }
        Some((_, bytes)) => {
            let pack = |replies| pack_replies(replies).expect("what was read may be sent");
            fixed_point(bytes, read_replies, pack)?;
            let replies = read_replies(codec::read(&mut &bytes[..])?)?;
            let n = replies.len();
            let parts = link::cut(replies);
            assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), n);
            parts.into_iter().for_each(|part| assert!(pack(part).encoded_len() <= FRAME_BYTES_MAX));
            Ok(())
        }
        None => Ok(()),
    }
}

/// A request of a client; the first byte says which.
pub fn request(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let read = &mut &bytes[..];
    match which {
        // Their own numbers, so that the others keep theirs.
        254 => return apply(bytes),
        255 => {
            let create: wire::CreateNamespaceRequest = codec::read(read)?;
            crate::convert::named_namespace(&create.namespace)?;
            crate::convert::spec_from(create.mode, create.ttl_ms)?;
            return Ok(());
        }
        _ => {}
    }
    match which % 13 {
        0 => {
            let get: wire::GetRequest = codec::read(read)?;
            let slice = Slice::from(&get);
            wait_from(get.stale_ok, get.wait_ms);
            for size in [0, 1, slice.offset, u64::MAX] {
                if let Ok(range) = slice.within(size) {
                    assert!(range.start <= range.end && range.end <= size);
                }
            }
            let target = target_from(get.target)?;
            assert_eq!(target_from(Some(target_to(&target)))?, target);
        }
        1 => {
            let set: wire::SetRequest = codec::read(read)?;
            set.id.map(RequestId::try_from).transpose()?;
            set.name.map(Name::try_from).transpose()?;
        }
        2 => {
            let del: wire::DeleteRequest = codec::read(read)?;
            let mode = mode_from(del.mode, del.deadline_ms)?;
            let (wire_mode, ms) = mode_to(mode);
            assert_eq!(mode_from(wire_mode, ms)?, mode);
            let names = names_from(del.names)?;
            assert_eq!(names_from(names_to(&names))?, names);
        }
        3 => {
            let del: wire::DeletePrefixRequest = codec::read(read)?;
            let namespace = crate::convert::namespace_from(&del.namespace)?;
            let prefix = dstore_shared::Prefix::new(&namespace, &del.prefix)?;
            assert_eq!(dstore_shared::Prefix::from_packed(prefix.as_bytes())?, prefix);
        }
        4 => {
            let stat: wire::StatRequest = codec::read(read)?;
            wait_from(stat.stale_ok, stat.wait_ms);
            target_from(stat.target)?;
        }
        5 => _ = names_from(codec::read::<wire::ExistsRequest>(read)?.names)?,
        6 => _ = names_from(codec::read::<wire::GetManyRequest>(read)?.names)?,
        7 => {
            let set: wire::SetManyRequest = codec::read(read)?;
            let id = set.id.map(RequestId::try_from).transpose()?.unwrap_or_default();
            for value in set.values {
                many::set_from(id, value)?;
            }
        }
        8 => {
            let copy: wire::CopyRequest = codec::read(read)?;
            for name in [copy.from, copy.to] {
                name.map(Name::try_from).transpose()?;
            }
        }
        9 => fixed_point(bytes, ListQuery::try_from, |query| wire::ListRequest::from(&query))?,
        10 => fixed_point(bytes, WatchQuery::try_from, |query| wire::WatchRequest::from(&query))?,
        11 => {
            let bind: wire::BindRequest = codec::read(read)?;
            bind.name.map(Name::try_from).transpose()?;
            BlobHash::from_slice(&bind.hash)?;
        }
        _ => _ = names_from(codec::read::<wire::StatManyRequest>(read)?.names)?,
    }
    Ok(())
}

/// A transaction that was read and is within its limits reads back as it was.
fn apply(bytes: &[u8]) -> Result<()> {
    let request: wire::ApplyRequest = codec::read(&mut &bytes[..])?;
    let transaction = crate::convert::transaction_from(request.transaction)?;
    let id = RequestId::default();
    let again = crate::convert::apply_to(&mut crate::convert::Packer::new(64), &id, &transaction);
    let back = crate::convert::transaction_from(again.transaction)?;
    assert_eq!(format!("{back:?}"), format!("{transaction:?}"));
    Ok(())
}

/// An answer of a node; the first byte says to what.
pub fn answer(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    match which % 9 {
        0 => fixed_point(bytes, SetReply::try_from, |reply| wire::SetResponse::from(&reply)),
        1 => fixed_point(bytes, CopyOutcome::try_from, |done| wire::CopyResponse::from(&done)),
        2 => fixed_point::<wire::StatResponse, _>(bytes, TryFrom::try_from, |stat: Option<Stat>| {
            stat.as_ref().map(Into::into).unwrap_or_default()
        }),
        3 => fixed_point(bytes, many::stats_from, |all| many::stats_to(&all)),
        4 => fixed_point(bytes, Listing::try_from, wire::ListResponse::from),
        5 => fixed_point(bytes, Seen::try_from, wire::WatchResponse::from),
        6 => fixed_point(bytes, Status::try_from, wire::StatusResponse::from),
        7 => fixed_point(bytes, many::set_results_from, many::set_results_to),
        _ => history_from(bytes).map(drop),
    }
}

/// The pieces of as many values as the first byte says, in chunks: each has its length in two bytes before it.
pub fn many_pieces(bytes: &[u8]) -> Result<()> {
    let Some((asked, bytes)) = bytes.split_first() else { return Ok(()) };
    let (mut rest, mut reading) = (bytes, many::Reading::of(usize::from(*asked)));
    while let Some((len, bytes)) = rest.split_first_chunk() {
        let (chunk, after) = bytes.split_at(usize::from(u16::from_le_bytes(*len)).min(bytes.len()));
        reading.take(codec::read(&mut &chunk[..])?)?;
        rest = after;
    }
    let all = reading.done()?;
    let size: u64 = all.found.iter().flatten().map(|found| found.entry.size).sum();
    assert!(size <= GET_MANY_BYTES_MAX && size <= bytes.len() as u64);
    Ok(())
}

/// The body of an upload: the first byte says how long the pieces are in which it arrives, and that changes nothing.
pub fn upload(bytes: &[u8]) -> Result<()> {
    let Some((piece, bytes)) = bytes.split_first() else { return Ok(()) };
    let read = |len: usize| {
        let (messages, end) = pieces_of::<wire::UploadChunk>(bytes, len.max(1), 4096);
        (messages, end.map_err(|status| from_status(&status)))
    };
    let (messages, end) = read(usize::from(*piece));
    let (whole, same) = read(bytes.len());
    let ends = |end: &Result<()>| end.as_ref().err().map(|e| (e.kind(), e.message().to_owned()));
    assert!(messages == whole && ends(&end) == ends(&same), "it depends on how the bytes arrive");
    end
}

/// A status with details: code, length of the message, message, details. Told on, it stays what it is.
pub fn status(bytes: &[u8]) -> Result<()> {
    let Some(([code, len], rest)) = bytes.split_first_chunk() else { return Ok(()) };
    let (message, details) = rest.split_at(usize::from(*len).min(rest.len()));
    let code = tonic::Code::from_i32(i32::from(code % 17));
    let text = String::from_utf8_lossy(message);
    let error = from_status(&tonic::Status::with_details(code, text, Bytes::copy_from_slice(details)));
    let told = from_status(&to_status(&error));
    let parts = |e: &dstore_shared::Error| (e.kind(), e.message().to_owned(), e.delay(), e.occupied_by());
    assert_eq!(parts(&told), parts(&error));
    // As it comes: in headers, where details are base64.
    let mut headers = HeaderMap::new();
    for (name, value) in [("grpc-message", message), ("grpc-status-details-bin", details)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    headers.insert("grpc-status", HeaderValue::from(i32::from(code)));
    crate::dial::drop_bad_details(&mut headers);
    let status = tonic::Status::from_header_map(&headers).expect("there is a code");
    if status.code() == tonic::Code::Ok { Ok(()) } else { Err(from_status(&status)) }
}
