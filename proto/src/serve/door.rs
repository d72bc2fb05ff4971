//! What stands behind a listener, and which HTTP it speaks.

use super::Limits;
use super::connection::Spawner;
use crate::watch_wire::OfConnection;
use bytes::Bytes;
use dstore_shared::Error;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What a body may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that are read of a connection of HTTP/1.1, and held for one that does not read, at a time: enough for a piece
/// on its way, and four times the largest header.
pub const HTTP1_BUFFER_BYTES: usize = 64 << 10;

/// What stands behind a listener: who answers its calls, and in which versions of HTTP.
pub trait Door: Send + Sync + fmt::Debug + 'static {
    /// What an answer consists of.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    /// Whether it speaks HTTP/1.1 too, or HTTP/2 alone.
    const HTTP1: bool;

    /// The bounds of its connections and calls.
    fn limits(&self) -> &Limits;

    /// Whether a call of `path` is what its connection is there for: it then runs within the connection's task.
    fn is_session(&self, _path: &str) -> bool {
        false
    }

    /// Answers a call; `of` is what its connection has of watches.
    fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        of: OfConnection,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers a call that is not looked at because of `error`.
    fn refuse(&self, error: &Error) -> Response<Self::Body>;
}

macro_rules! bound {
    ($http:expr, $limits:ident) => {
        $http
            .timer(TokioTimer::new())
            .max_concurrent_streams($limits.streams_per_connection)
            .max_header_list_size($limits.header_bytes)
            .initial_stream_window_size($limits.stream_window_bytes)
            .initial_connection_window_size($limits.connection_window_bytes)
            .max_frame_size(crate::DATA_FRAME_BYTES)
            .max_send_buf_size($limits.send_buffer_bytes)
            .max_pending_accept_reset_streams($limits.pending_resets)
            .max_local_error_reset_streams($limits.error_resets)
            .keep_alive_interval($limits.keepalive)
            .keep_alive_timeout($limits.keepalive_timeout)
    };
}

/// HTTP/2 within `limits`.
pub(super) fn of_http2(limits: &Limits, spawner: Spawner) -> http2::Builder<Spawner> {
    let mut http = http2::Builder::new(spawner);
    // No client of ours wants a date, and it would be the machine's: a simulation must not depend on that.
    http.auto_date_header(false);
    bound!(http, limits);
    http
}

/// HTTP/1.1, and HTTP/2 for who begins with its preface, within `limits`.
pub(super) fn of_both(limits: &Limits, spawner: Spawner) -> auto::Builder<Spawner> {
    let mut http = auto::Builder::new(spawner);
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.answer_taken)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    bound!(http.http2(), limits);
    http
}
