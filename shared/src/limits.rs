//! Every bound that both tiers must agree on, each with its reason.

use std::time::Duration;

/// Names on a page of a list: with the longest keys it still fits a frame with room to spare.
pub const LIST_NAMES_MAX: usize = 1000;
/// Bytes of keys and entries on a page of a list.
pub const LIST_BYTES_MAX: usize = 512 << 10;
/// Events in one message of a watch.
pub const WATCH_EVENTS_MAX: usize = 1000;
/// Bytes of keys and entries in one message of a watch: it must fit a frame.
pub const WATCH_BYTES_MAX: usize = 512 << 10;
/// A watch tells how far it has got at least so often, also if nothing happens.
pub const WATCH_PROGRESS: Duration = Duration::from_secs(2);
/// A watch from which nothing came for so long is given up by whoever reads it: five times the promise.
pub const WATCH_SILENCE: Duration = Duration::from_secs(10);
/// Watches on one connection: one more is refused. Leaves room for other calls among the streams of a connection.
pub const WATCHES_PER_CONNECTION: usize = 100;
/// Longest key in bytes: long enough for a path or a digest, short enough to keep a million in memory.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest namespace name in bytes: it is repeated in every packed name.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Longest content type in bytes: well over any that is registered, and a page of a list with as many as fits stays
/// within a frame.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Default largest blob: 1 GiB.
pub const BLOB_BYTES_MAX: u64 = 1 << 30;
/// Largest gRPC message in either direction: bounds what one frame can make a peer buffer.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Payload bytes of one chunk of a stream: leaves room for a chunk's header within a frame, and is one
/// group of a blob's [`Outline`](crate::Outline), so that each chunk can be verified by itself.
pub const CHUNK_BYTES: usize = crate::GROUP_BYTES;
/// Largest value that travels inside a batched request or reply; larger ones go over the bulk connection.
pub const CARRIED_BYTES_MAX: usize = 64 << 10;
/// Largest value that Global keeps inside its index instead of in a file of its own. A file and its rename
/// reach about 2,000 durable SETs a second at 64 KiB, the journal ten times that; docs/decisions/0002.
pub const INLINE_BYTES_MAX: usize = CARRIED_BYTES_MAX;
/// Largest value that unary `Get` and `Set` accept; larger ones are streamed.
pub const UNARY_BYTES_MAX: usize = 768 << 10;
/// Names in one DEL of several keys.
pub const DELETE_NAMES_MAX: usize = 10_000;
/// Bytes of names in one DEL of several keys: the command must fit a frame.
pub const DELETE_NAME_BYTES_MAX: usize = 512 << 10;
/// Names whose values are read in one call: their bindings, with the longest keys, fit a frame of the tier link.
/// Whether more are bound can be asked ([`DELETE_NAMES_MAX`]).
pub const GET_MANY_NAMES_MAX: usize = 1000;
/// Bytes of all values that are read in one call: a client holds them at once.
pub const GET_MANY_BYTES_MAX: u64 = 64 << 20;
/// Names that are SET in one call: far fewer than the outcomes kept for a client, so that others of its changes
/// go on beside it.
pub const SET_MANY_NAMES_MAX: usize = 256;
/// Bytes of names and values that are SET in one call: they fit a frame.
pub const SET_MANY_BYTES_MAX: usize = UNARY_BYTES_MAX;
/// Names that one DEL by prefix removes: beyond it, list and delete in several steps.
pub const PREFIX_NAMES_MAX: usize = 100_000;
/// Bytes of their keys: with what is known of their blobs the commit must fit a segment of the journal.
pub const PREFIX_KEY_BYTES_MAX: usize = 16 << 20;
/// Longest time after which a DEL may ask to be answered as pending: a call is ended by its server after 30 s.
pub const DELETE_DEADLINE_MAX: Duration = Duration::from_secs(20);
/// How long a Local that keeps "not found" answers may serve one, from the moment at which it asked.
pub const ABSENCE_TERM: Duration = Duration::from_millis(500);
/// "Not found" answers that a Local keeps at a time: with the longest names some 12 MiB.
pub const ABSENCES_MAX: usize = 10_000;
/// Guards and steps of one transaction: its outcome fits a frame, and deciding it does not hold up others for long.
pub const TRANSACTION_STEPS_MAX: usize = 1000;
/// Bytes of names and carried values of one transaction: it fits a batch of the tier link.
pub const TRANSACTION_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Longest value that an APPEND makes: it is read and written whole, inside the journal.
pub const APPEND_BYTES_MAX: usize = 512 << 10;
/// Longest time to live: a hundred years, so that no sum of times overflows.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Namespaces that may be created: all are kept in memory and in every checkpoint.
pub const NAMESPACES_MAX: usize = 1000;
/// Requests or replies in one batch of the tier link.
pub const BATCH_LEN_MAX: usize = 256;
/// Payload bytes after which a batch of the tier link is cut.
pub const BATCH_BYTES_MAX: usize = 512 << 10;
/// Names in one SUMMARY or DROP frame.
pub const SUMMARY_LEN_MAX: usize = 512;
/// How long the outcome of a request is remembered.
pub const OUTCOME_TTL: Duration = Duration::from_secs(600);
/// Outcomes remembered for one client; also the largest number of its requests that may be in flight.
pub const OUTCOMES_PER_CLIENT: u64 = 1024;
/// Default lease length D.
pub const LEASE: Duration = Duration::from_secs(2);
/// Bound ρ on the error of a clock's rate, in parts per thousand.
pub const CLOCK_RATE_ERROR_PER_MILLE: u64 = 5;
