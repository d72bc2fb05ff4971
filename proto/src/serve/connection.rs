//! One connection: HTTP/2 within limits, from its first byte to its last.
//!
//! It ends when the peer goes, when no call came in time, when it has been idle, when the server stops, or
//! when the peer breaks the rules; and whatever ends it, its calls end with it.

use super::patience::{Answer, Received, Turns, while_taken};
use super::together::{Together, Within};
use super::{Limits, Shared};
use crate::watch_wire::OfConnection;
use dstore_shared::Error;
use dstore_sys::net::BoxIo;
use dstore_sys::tasks::Tasks;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// How many calls a connection has begun and has now.
#[derive(Debug)]
pub(super) struct Calls {
    begun: AtomicUsize,
    running: AtomicUsize,
    /// Its place among the connections without a call, given back with the first one.
    fresh: Mutex<Option<OwnedSemaphorePermit>>,
    /// Of the call that hyper hands over next.
    next: Mutex<Arc<Turns>>,
    pub(super) within: Within,
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    watches: OfConnection,
    stop: CancellationToken,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, fresh: OwnedSemaphorePermit, stop: CancellationToken) -> Self {
        let (begun, running, fresh) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Some(fresh)));
        let watches = OfConnection::new(stop.clone());
        let (next, within) = (Mutex::default(), Within::default());
        let calls = Calls { begun, running, fresh, next, within };
        Self { shared, calls: Arc::new(calls), watches, stop }
    }

    /// Serves until the connection has ended.
    pub(super) async fn serve(self, io: BoxIo) {
        let cut = CancellationToken::new();
        let _calls_end_with_the_connection = cut.clone().drop_guard();
        let limits = self.shared.routes.limits();
        // h2 reads all that is there before it tells of a call, so the first one's data counts too.
        let allowance = limits.bytes_before_request + limits.connection_window_bytes as usize;
        let io = Metered { io, calls: self.calls.clone(), allowance };
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(self.watches.clone());
            if super::routes::is_session(request.uri().path()) {
                self.calls.within.expect();
            }
            let turns = Arc::<Turns>::default();
            *self.calls.next.lock() = turns.clone();
            answer(self.shared.clone(), self.calls.clone(), turns, request)
        });
        let spawner = Spawner {
            tasks: self.shared.tasks.clone(),
            cut,
            calls: self.calls.clone(),
            taken: limits.answer_taken,
        };
        let http = builder(limits, spawner).serve_connection(TokioIo::new(io), service);
        let mut http = pin!(Together::new(http, self.calls.clone()));
        tokio::select! {
            biased;
            ended = &mut http => {
                if let Err(e) = ended {
                    tracing::debug!(error = %e, "a connection failed");
                }
                return;
            }
            () = self.unused(limits) => {}
            () = self.stop.cancelled() => {}
        }
        if self.calls.begun.load(Ordering::Relaxed) == 0 {
            return;
        }
        http.as_mut().connection().graceful_shutdown();
        if tokio::time::timeout(limits.drain, http).await.is_err() {
            tracing::debug!("a connection did not end in time and was cut");
        }
    }

    /// Returns when the first call did not come in time, or when the connection has been idle.
    async fn unused(&self, limits: &Limits) {
        let begun = || self.calls.begun.load(Ordering::Relaxed);
        let mut waited = Duration::ZERO;
        while begun() == 0 {
            let crowded = self.shared.fresh.available_permits() == 0;
            if waited >= limits.first_request || crowded && waited >= limits.first_request_crowded {
                return;
            }
            let left = limits.first_request.saturating_sub(waited);
            let step = left.min(limits.first_request_crowded).max(Duration::from_millis(1));
            tokio::time::sleep(step).await;
            waited += step;
        }
        let mut seen = begun();
        loop {
            tokio::time::sleep(limits.idle).await;
            if self.calls.running.load(Ordering::Relaxed) == 0 && begun() == seen {
                return;
            }
            seen = begun();
        }
    }
}

fn builder(limits: &Limits, spawner: Spawner) -> http2::Builder<Spawner> {
    let mut http = http2::Builder::new(spawner);
    // No client of ours wants a date, and it would be the machine's: a simulation must not depend on that.
    http.auto_date_header(false)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(crate::DATA_FRAME_BYTES)
        .max_send_buf_size(limits.send_buffer_bytes)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.error_resets)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive_timeout);
    http
}

/// Runs the calls of one connection, until it is cut; a session within the connection's own task.
#[derive(Clone, Debug)]
struct Spawner {
    tasks: Tasks,
    cut: CancellationToken,
    calls: Arc<Calls>,
    taken: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, call: F) {
        let Some(call) = self.calls.within.take_in(call) else { return };
        let (cut, turns, taken) = (self.cut.clone(), self.calls.next.lock().clone(), self.taken);
        let call = while_taken(call, turns, taken);
        self.tasks.spawn_graceful(async move { _ = cut.run_until_cancelled(call).await });
    }
}

/// Counts a call while it runs, its answer's last byte included.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
}

impl Running {
    /// `None` if the server has as many calls as it may.
    fn begin(shared: &Arc<Shared>, calls: &Arc<Calls>) -> Option<Self> {
        if calls.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            calls.fresh.lock().take();
        }
        calls.running.fetch_add(1, Ordering::Relaxed);
        let all = shared.streams.fetch_add(1, Ordering::Relaxed);
        let running = Self { shared: shared.clone(), calls: calls.clone() };
        (all < shared.routes.limits().streams).then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.running.fetch_sub(1, Ordering::Relaxed);
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    turns: Arc<Turns>,
    request: Request<Incoming>,
) -> Result<Response<Answer<Running>>, Infallible> {
    let Some(running) = Running::begin(&shared, &calls) else {
        let full = Error::exhausted("the server has as many calls as it may: try again")
            .retry_after(Duration::from_millis(100));
        let response = crate::status::to_status(&full).into_http();
        return Ok(response.map(|body| Answer::new(body, turns, None)));
    };
    let deadline = deadline_of(request.headers());
    let whole = (!super::routes::is_stream(request.uri().path())).then(|| shared.routes.limits().handler);
    let call = shared.routes.call(request.map(|body| Body::new(Received::new(body, whole))));
    let response = match deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            tonic::Status::deadline_exceeded("the deadline that the caller set has passed").into_http()
        }),
    };
    Ok(response.map(|body| Answer::new(body, turns, Some(running))))
}

/// The caller's `grpc-timeout`, as the gRPC specification writes it: up to eight digits and a unit.
fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Refuses a peer that sends much before its first call is there.
struct Metered {
    io: BoxIo,
    calls: Arc<Calls>,
    allowance: usize,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.calls.begun.load(Ordering::Relaxed) == 0 {
            let read = buf.filled().len() - before;
            match self.allowance.checked_sub(read) {
                Some(left) => self.allowance = left,
                None => return Poll::Ready(Err(io::Error::other("too many bytes before the first call"))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_deadline_is_read_as_grpc_writes_it() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            deadline_of(&headers)
        };
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        for bad in ["", "S", "5", "-5S", "123456789S", "5s", "+1S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
