//! How many parts of a kind a message may have, checked on its bytes before it is built.
//!
//! The counts are those of `dstore_shared::limits`; a message within its shape takes memory in proportion
//! to its bytes. Fields that are not listed cost at most their own bytes.

use crate::wire;
use dstore_shared::limits::{
    BATCH_LEN_MAX, DELETE_NAMES_MAX, GET_MANY_NAMES_MAX, LIST_NAMES_MAX, NAMESPACES_MAX, SET_MANY_NAMES_MAX,
    SUMMARY_LEN_MAX, TRANSACTION_STEPS_MAX, WATCH_EVENTS_MAX,
};
use dstore_shared::{Error, Result};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

/// A field that may occur at most `max` times in the whole message, and what to count inside it.
#[derive(Debug)]
pub(crate) struct Field {
    tag: u32,
    max: usize,
    inside: Shape,
}

/// The fields to count.
pub(crate) type Shape = &'static [Field];

/// A message with a bound on its parts.
pub(crate) trait Shaped: Message + Default {
    /// The fields to count.
    const SHAPE: Shape;
}

const fn leaf(tag: u32, max: usize) -> Field {
    Field { tag, max, inside: &[] }
}

macro_rules! shapes {
    ($($message:ident: $shape:expr;)*) => {
        $(impl Shaped for wire::$message { const SHAPE: Shape = $shape; })*
    };
}

/// Names of all DELs, or of all resolves of many, of one batch: their bytes are limited by the frame, this limits their number.
const BATCH_NAMES_MAX: usize = 65_536;
/// Guards, or steps, of all transactions of one batch.
const BATCH_STEPS_MAX: usize = 16_384;
/// Steps of a read.
const HOPS_MAX: usize = 100;
/// Locals that one change waited for.
const WAITED_FOR_MAX: usize = 1_024;
/// Facts of a status.
const FACTS_MAX: usize = 1_024;

shapes! {
    GetRequest: &[];
    GetResponse: &[];
    DownloadChunk: &[];
    SetRequest: &[];
    UploadChunk: &[];
    BindRequest: &[];
    SetResponse: &[];
    DeleteRequest: &[leaf(2, DELETE_NAMES_MAX)];
    DeleteResponse: &[];
    DeletePrefixRequest: &[];
    DeletePrefixResponse: &[];
    StatRequest: &[];
    StatResponse: &[];
    ExistsRequest: &[leaf(1, DELETE_NAMES_MAX)];
    ExistsResponse: &[];
    GetManyRequest: &[leaf(1, GET_MANY_NAMES_MAX)];
    GetManyChunk: &[leaf(1, GET_MANY_NAMES_MAX)];
    SetManyRequest: &[leaf(2, SET_MANY_NAMES_MAX)];
    SetManyResponse: &[leaf(1, SET_MANY_NAMES_MAX)];
    CopyRequest: &[];
    CopyResponse: &[];
    StatManyRequest: &[leaf(1, GET_MANY_NAMES_MAX)];
    StatManyResponse: &[leaf(1, GET_MANY_NAMES_MAX)];
    ListRequest: &[];
    ListResponse: &[leaf(1, LIST_NAMES_MAX)];
    WatchRequest: &[];
    WatchResponse: &[leaf(2, WATCH_EVENTS_MAX)];
    ApplyRequest: &[Field {
        tag: 2,
        max: 1,
        inside: &[leaf(1, TRANSACTION_STEPS_MAX), leaf(2, TRANSACTION_STEPS_MAX)],
    }];
    ApplyResponse: &[leaf(1, TRANSACTION_STEPS_MAX)];
    NamespacesRequest: &[];
    NamespacesResponse: &[leaf(1, NAMESPACES_MAX + 1)];
    CreateNamespaceRequest: &[];
    DropNamespaceRequest: &[];
    NamespaceResponse: &[];
    LocalsRequest: &[];
    LocalsResponse: &[leaf(1, crate::store::LOCALS_TOLD_MAX)];
    WhyRequest: &[];
    WhyResponse: &[leaf(2, HOPS_MAX), Field { tag: 3, max: 1, inside: &[leaf(4, WAITED_FOR_MAX)] }];
    EvictRequest: &[leaf(1, GET_MANY_NAMES_MAX)];
    PinRequest: &[leaf(1, GET_MANY_NAMES_MAX)];
    HeldResponse: &[];
    StatusRequest: &[];
    StatusResponse: &[leaf(7, FACTS_MAX)];
    ErrorDetail: &[];
    SessionUp: &[
        Field { tag: 5, max: 1, inside: &[leaf(2, SUMMARY_LEN_MAX)] },
        Field { tag: 6, max: 1, inside: &[leaf(1, SUMMARY_LEN_MAX)] },
    ];
    SessionDown: &[];
    RequestBatch: &[Field {
        tag: 1,
        max: BATCH_LEN_MAX,
        inside: &[
            Field { tag: 6, max: BATCH_LEN_MAX, inside: &[leaf(2, BATCH_NAMES_MAX)] },
            Field { tag: 7, max: BATCH_LEN_MAX, inside: &[leaf(1, BATCH_NAMES_MAX)] },
            Field {
                tag: 11,
                max: BATCH_LEN_MAX,
                inside: &[Field {
                    tag: 2,
                    max: BATCH_LEN_MAX,
                    inside: &[leaf(1, BATCH_STEPS_MAX), leaf(2, BATCH_STEPS_MAX)],
                }],
            },
        ],
    }];
    ReplyBatch: &[Field {
        tag: 1,
        max: BATCH_LEN_MAX,
        inside: &[
            Field { tag: 7, max: BATCH_LEN_MAX, inside: &[leaf(1, BATCH_NAMES_MAX)] },
            Field { tag: 11, max: BATCH_LEN_MAX, inside: &[leaf(1, BATCH_STEPS_MAX)] },
        ],
    }];
    StageChunk: &[];
    StageResponse: &[];
    FetchRequest: &[];
    FetchChunk: &[];
}

/// Counts the parts of the message in `bytes`.
///
/// # Errors
/// `Invalid` if a field occurs too often or the bytes are no message.
pub(crate) fn check(shape: Shape, bytes: &[u8]) -> Result<()> {
    if shape.is_empty() {
        return Ok(());
    }
    // No shape nests deeper than four or has more than three fields a level.
    let mut counts = Counts::default();
    walk(shape, bytes, 0, &mut counts)
}

type Counts = [[usize; 3]; 4];

fn walk(shape: Shape, mut bytes: &[u8], depth: usize, counts: &mut Counts) -> Result<()> {
    let broken = |_| Error::invalid("the message cannot be read: speak dstore.v1");
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).map_err(broken)?;
        let len = match wire_type {
            WireType::Varint => {
                decode_varint(&mut bytes).map_err(broken)?;
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut bytes).map_err(broken)?,
            WireType::StartGroup | WireType::EndGroup => {
                return Err(Error::invalid("the message has a group: speak dstore.v1"));
            }
        };
        let part = usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len));
        let Some((part, rest)) = part else {
            return Err(Error::invalid("the message is cut short: send it again"));
        };
        bytes = rest;
        let listed = shape.iter().position(|f| f.tag == tag);
        if let (Some(at), WireType::LengthDelimited) = (listed, wire_type) {
            let Field { max, inside, .. } = shape[at];
            counts[depth][at] += 1;
            if counts[depth][at] > max {
                return Err(Error::too_large(format!(
                    "a message has more than `{max}` parts in its field `{tag}`: send fewer at a time"
                )));
            }
            if !inside.is_empty() {
                walk(inside, part, depth + 1, counts)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;

    #[test]
    fn a_frame_of_empty_submessages_is_refused_before_they_are_built() {
        let hostile = [0x0a, 0x00].repeat(1 << 19);
        let refused = crate::codec::read::<wire::RequestBatch>(&mut &hostile[..]).expect_err("too many");
        assert_eq!(refused.kind(), Kind::TooLarge);
        let names = [0x12, 0x00].repeat(DELETE_NAMES_MAX);
        assert!(crate::codec::read::<wire::DeleteRequest>(&mut &names[..]).is_ok());
        let names = [0x12, 0x00].repeat(DELETE_NAMES_MAX + 1);
        assert!(crate::codec::read::<wire::DeleteRequest>(&mut &names[..]).is_err());
    }

    #[test]
    fn nested_names_are_counted_over_all_parts_of_a_batch() {
        let del = wire::Del { id: None, names: vec![bytes::Bytes::new(); 60_000], ..wire::Del::default() };
        let ask = wire::request::Ask::Del(del);
        let request = wire::Request { ask: Some(ask), ..wire::Request::default() };
        let one = wire::RequestBatch { requests: vec![request.clone()] }.encode_to_vec();
        assert!(crate::codec::read::<wire::RequestBatch>(&mut &one[..]).is_ok());
        let two = wire::RequestBatch { requests: vec![request.clone(), request] }.encode_to_vec();
        assert!(crate::codec::read::<wire::RequestBatch>(&mut &two[..]).is_err());
    }
}
