//! Errors on the wire: which gRPC code each kind has, and what travels beside it.
//!
//! The kind, the delay and the occupying hash travel in `grpc-status-details-bin` as `ErrorDetail`, so
//! nothing is lost between two processes of dstore; the code alone tells a foreign client what to do.
//! A status without details, from a proxy or a foreign server, is read by its code.

use crate::wire::ErrorDetail;
use dstore_shared::{BlobHash, Error, Kind};
use prost::Message;
use std::error::Error as _;
use std::time::Duration;
use tonic::{Code, Status};

/// Longest message that travels: it is a header, percent-encoded, and must fit a peer's header limit.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest delay that is believed.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// The gRPC code of a kind.
pub fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::Occupied => Code::AlreadyExists,
        Kind::Invalid => Code::InvalidArgument,
        Kind::TooLarge => Code::OutOfRange,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unavailable => Code::Unavailable,
        Kind::Corrupt => Code::DataLoss,
        Kind::Closed => Code::Aborted,
        Kind::Pending => Code::DeadlineExceeded,
        Kind::TooOld => Code::FailedPrecondition,
        Kind::Internal => Code::Internal,
    }
}

/// The kind that a bare gRPC code stands for.
pub fn kind_of(code: Code) -> Kind {
    match code {
        Code::AlreadyExists => Kind::Occupied,
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::Unimplemented => {
            Kind::Invalid
        }
        Code::OutOfRange => Kind::TooLarge,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Unavailable | Code::DeadlineExceeded => Kind::Unavailable,
        Code::DataLoss => Kind::Corrupt,
        Code::Aborted | Code::Cancelled => Kind::Closed,
        Code::Ok | Code::Unknown | Code::Internal => Kind::Internal,
    }
}

/// An error as a status with details.
pub fn to_status(error: &Error) -> Status {
    with_code(code_of(error.kind()), error)
}

/// An error as a status with a code other than its kind's.
pub(crate) fn with_code(code: Code, error: &Error) -> Status {
    Status::with_details(code, cut(error.message()), detail(error).encode_to_vec().into())
}

/// What travels beside the message.
pub(crate) fn detail(error: &Error) -> ErrorDetail {
    ErrorDetail {
        kind: error.kind().to_string(),
        retry_after_ms: error.delay().map_or(0, |d| d.as_millis().max(1) as u64),
        occupied_by: error.occupied_by().map(|h| h.as_bytes().to_vec().into()).unwrap_or_default(),
    }
}

/// What the other side said, for a person.
fn told(message: &str) -> String {
    if message.is_empty() {
        "the other side gave no reason: look at its log".to_owned()
    } else {
        cut(message)
    }
}

fn cut(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

/// A status as an error.
pub fn from_status(status: &Status) -> Error {
    let detail = (!status.details().is_empty()).then(|| ErrorDetail::decode(status.details()));
    match detail {
        Some(Ok(detail)) if known(&detail.kind).is_some() => from_detail(&detail, status.message()),
        _ if is_transport(status) => {
            Error::unavailable(format!("the connection failed: {}", transport_cause(status)))
        }
        _ if status.code() == Code::Unimplemented => Error::invalid(format!(
            "the other side does not know this call, so it is an older dstore or no dstore: {}",
            cut(status.message())
        )),
        _ => Error::new(kind_of(status.code()), told(status.message())),
    }
}

/// A detail and its message as an error; an unknown kind is `Internal`.
pub(crate) fn from_detail(detail: &ErrorDetail, message: &str) -> Error {
    let kind = known(&detail.kind).unwrap_or(Kind::Internal);
    let error = match (kind, BlobHash::from_slice(&detail.occupied_by)) {
        (Kind::Occupied, Ok(hash)) => Error::occupied(hash),
        _ => Error::new(kind, told(message)),
    };
    match detail.retry_after_ms {
        0 => error,
        ms => error.retry_after(Duration::from_millis(ms).min(DELAY_MAX)),
    }
}

fn known(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.to_string() == name)
}

/// Whether this process made the status because the connection failed, rather than the other side.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

fn transport_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cut(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire_with_message_and_delay() {
        for kind in Kind::ALL {
            for delay in [None, Some(Duration::from_millis(1500))] {
                let mut error = Error::new(kind, "it is so: do this");
                if let Some(delay) = delay {
                    error = error.retry_after(delay);
                }
                let status = to_status(&error);
                assert_eq!(status.code(), code_of(kind));
                let back = from_status(&status);
                assert_eq!((back.kind(), back.message(), back.delay()), (kind, error.message(), delay));
            }
        }
    }

    #[test]
    fn an_occupied_name_tells_which_hash_it_holds() {
        let hash = BlobHash::of(b"other");
        let back = from_status(&to_status(&Error::occupied(hash)));
        assert_eq!((back.kind(), back.occupied_by()), (Kind::Occupied, Some(hash)));
    }

    #[test]
    fn a_bare_code_is_read_as_its_kind_except_where_foreign_servers_mean_another() {
        for kind in Kind::ALL {
            let back = from_status(&Status::new(code_of(kind), "x"));
            let expected = match kind {
                Kind::Pending => Kind::Unavailable,
                // Foreign servers mean much by it.
                Kind::TooOld => Kind::Invalid,
                kind => kind,
            };
            assert_eq!(back.kind(), expected, "{kind}");
        }
        for (code, kind) in [
            (Code::Unauthenticated, Kind::Denied),
            (Code::Unimplemented, Kind::Invalid),
            (Code::NotFound, Kind::Invalid),
            (Code::Cancelled, Kind::Closed),
            (Code::Unknown, Kind::Internal),
        ] {
            assert_eq!(from_status(&Status::new(code, "x")).kind(), kind, "{code:?}");
        }
    }

    #[test]
    fn hostile_details_are_read_as_if_there_were_none() {
        let unknown = ErrorDetail { kind: "Fire".into(), ..ErrorDetail::default() }.encode_to_vec();
        for details in [vec![0xff; 9], unknown, vec![0x0a, 0x7f]] {
            let status = Status::with_details(Code::Aborted, "x", details.into());
            assert_eq!(from_status(&status).kind(), Kind::Closed);
        }
        let detail = ErrorDetail { kind: "Exhausted".into(), retry_after_ms: u64::MAX, ..Default::default() };
        assert_eq!(from_detail(&detail, "x").delay(), Some(DELAY_MAX));
        let detail =
            ErrorDetail { kind: "Occupied".into(), occupied_by: vec![1; 5].into(), ..Default::default() };
        assert_eq!(from_detail(&detail, "x").occupied_by(), None);
    }

    #[test]
    fn an_error_that_came_without_a_word_says_so() {
        for code in [Code::Unavailable, Code::Internal, Code::Unknown] {
            assert!(from_status(&Status::new(code, "")).message().contains("gave no reason"));
        }
        let detail = ErrorDetail { kind: "Denied".into(), ..ErrorDetail::default() };
        assert!(from_detail(&detail, "").message().contains("gave no reason"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = to_status(&Error::invalid("é".repeat(2_000)));
        assert!(status.message().len() <= MESSAGE_BYTES_MAX && status.message().ends_with('é'));
    }
}
