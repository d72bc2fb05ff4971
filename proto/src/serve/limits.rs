//! What one server lets its peers use, each bound with its reason.

use dstore_shared::limits::FRAME_BYTES_MAX;
use std::time::Duration;

/// What one server lets its peers use. tonic's own defaults have no bounds.
///
/// What hostile peers can make a server hold before any call is `fresh * (bytes_before_request +
/// connection_window_bytes)`; after, at most `connections * connection_window_bytes` of data not yet read, `connections * header_bytes * streams_per_connection` of headers, and one frame a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time; one more is closed at once. 32,768: a Local has one, two once it asked something and
    /// four once it moved a large value and watches; so 10,000 Locals, and workers. Fewer if the process may not open as
    /// many files: a part of those is left to journal, index and blobs.
    pub connections: usize,
    /// Connections that have not begun a call. 4,096: one more is not accepted before one of them has begun a call or
    /// has ended, so that they wait in the kernel, which is a wait in order, and cost nothing here.
    pub fresh: usize,
    /// While so many are fresh, one that has not begun a call for this long is closed. 1 s: so whoever opens thousands
    /// and says nothing delays others by about that, and locks nobody out.
    pub first_request_crowded: Duration,
    /// Calls at a time on one connection; the peer waits for one more. 128: twice what a busy Local uses.
    pub streams_per_connection: u32,
    /// Calls at a time on all connections; one more is refused as `Exhausted`. 65,536: two for each of
    /// 10,000 Locals, and room for workers.
    pub streams: usize,
    /// Bytes of a call's headers, and of their table. 16 KiB: ours have under 300 B.
    pub header_bytes: u32,
    /// Bytes of one message. 1 MiB, which both tiers agree on.
    pub frame_bytes: usize,
    /// Bytes in flight for one call before the sender waits. 1 MiB: one frame.
    pub stream_window_bytes: u32,
    /// Bytes in flight on one connection before its senders wait. 2 MiB: two transfers side by side.
    pub connection_window_bytes: u32,
    /// Bytes of answers held for one call whose reader is slow. 512 KiB: two chunks.
    pub send_buffer_bytes: usize,
    /// Bytes read from a connection before its first call is there, besides what the connection's window lets
    /// a first call send at once. 64 KiB: four times the largest header.
    pub bytes_before_request: usize,
    /// From the beginning of a connection to its first call, handshake included. 10 s.
    pub first_request: Duration,
    /// A connection without a call for this long (at most twice as long) is told to go away. 5 min.
    pub idle: Duration,
    /// A request that is one message is to be whole within this, and a unary call is given up so long after that. 30 s:
    /// longer than any client of ours waits.
    pub handler: Duration,
    /// An answer of which the caller takes nothing for this long (at most twice as long) is given up. 60 s: longer than a
    /// transfer that stands still, which is told so.
    pub answer_taken: Duration,
    /// A transfer of which no piece moves for this long is given up. 30 s.
    pub transfer_idle: Duration,
    /// Between two pings to a silent peer. 20 s.
    pub keepalive: Duration,
    /// A ping that is not answered for this long ends the connection. 10 s.
    pub keepalive_timeout: Duration,
    /// Calls that a peer may begin and reset before they are accepted (rapid reset, CVE-2023-44487). 20.
    pub pending_resets: usize,
    /// Calls of one connection that may be reset for the peer's own errors. 256.
    pub error_resets: usize,
    /// Longest wait after a failed accept, as when out of descriptors; begins with 5 ms. 1 s.
    pub accept_backoff: Duration,
    /// How long calls may go on after a stop. 5 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            fresh: 4_096,
            first_request_crowded: Duration::from_secs(1),
            streams_per_connection: 128,
            streams: 65_536,
            header_bytes: 16 << 10,
            frame_bytes: FRAME_BYTES_MAX,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            send_buffer_bytes: 512 << 10,
            bytes_before_request: 64 << 10,
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            handler: Duration::from_secs(30),
            answer_taken: Duration::from_secs(60),
            transfer_idle: Duration::from_secs(30),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            pending_resets: 20,
            error_resets: 256,
            accept_backoff: Duration::from_secs(1),
            drain: Duration::from_secs(5),
        }
    }
}
