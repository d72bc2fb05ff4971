//! One connection: HTTP within limits, from its first byte to its last.
//!
//! It ends when the peer goes, when no call came in time, when it has been idle, when the server stops, or
//! when the peer breaks the rules; and whatever ends it, its calls end with it.

use super::Limits;
use super::door::{Door, of_both, of_http2};
use super::gate::{Admitted, Shared};
use super::metered::{Impatient, Metered};
use super::patience::{Answer, Turns, while_taken};
use super::together::{Together, Within};
use crate::watch_wire::OfConnection;
use dstore_shared::Error;
use dstore_sys::net::BoxIo;
use dstore_sys::tasks::Tasks;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// How many calls a connection has begun and has now.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) begun: AtomicUsize,
    running: AtomicUsize,
    /// Its place among the connections without a call, given back with the first one.
    fresh: Mutex<Option<OwnedSemaphorePermit>>,
    /// Of the call that hyper hands over next.
    next: Mutex<Arc<Turns>>,
    pub(super) within: Within,
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Connection<D> {
    shared: Arc<Shared<D>>,
    calls: Arc<Calls>,
    watches: OfConnection,
    stop: CancellationToken,
}

impl<D: Door> Connection<D> {
    pub(super) fn new(shared: Arc<Shared<D>>, admitted: Admitted) -> Self {
        let Admitted { fresh, stop } = admitted;
        let (begun, running, fresh) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Some(fresh)));
        let watches = OfConnection::new(stop.clone());
        let (next, within) = (Mutex::default(), Within::default());
        let calls = Calls { begun, running, fresh, next, within };
        Self { shared, calls: Arc::new(calls), watches, stop }
    }

    /// Serves until the connection has ended.
    pub(super) async fn serve(&self, io: BoxIo) {
        let cut = CancellationToken::new();
        let _calls_end_with_the_connection = cut.clone().drop_guard();
        let limits = self.shared.door.limits();
        // h2 reads all that is there before it tells of a call, so the first one's data counts too.
        let allowance = limits.bytes_before_request + limits.connection_window_bytes as usize;
        let io = Metered::new(io, self.calls.clone(), allowance);
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            if self.shared.door.is_session(request.uri().path()) {
                self.calls.within.expect();
            }
            let turns = Arc::<Turns>::default();
            *self.calls.next.lock() = turns.clone();
            answer(self.shared.clone(), self.calls.clone(), turns, request, self.watches.clone())
        });
        let spawner = Spawner {
            tasks: self.shared.tasks.clone(),
            cut,
            calls: self.calls.clone(),
            taken: limits.answer_taken,
        };
        if D::HTTP1 {
            let io = TokioIo::new(Impatient::new(io, limits.answer_taken));
            // In a place of its own: a connection that speaks one version is not to be as large as one that speaks both.
            let served = async move {
                let http = of_both(limits, spawner);
                self.until_it_ends(http.serve_connection(io, service), auto::Connection::graceful_shutdown)
                    .await;
            };
            Box::pin(served).await;
        } else {
            let http = of_http2(limits, spawner).serve_connection(TokioIo::new(io), service);
            let together = Together::new(http, self.calls.clone());
            self.until_it_ends(together, |http| http.connection().graceful_shutdown()).await;
        }
    }

    /// `drain` lets `http` take no further call and end with the last one.
    async fn until_it_ends<H, E>(&self, http: H, drain: impl FnOnce(Pin<&mut H>))
    where
        H: Future<Output = Result<(), E>>,
        E: Display,
    {
        let limits = self.shared.door.limits();
        let mut http = pin!(http);
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
        drain(http.as_mut());
        if tokio::time::timeout(limits.drain, http).await.is_err() {
            tracing::debug!("a connection did not end in time and was cut");
        }
    }

    /// Returns when the first call did not come in time, or when the connection has been idle.
    async fn unused(&self, limits: &Limits) {
        let begun = || self.calls.begun.load(Ordering::Relaxed);
        let mut waited = Duration::ZERO;
        while begun() == 0 {
            let crowded = self.shared.crowd.fresh.available_permits() == 0;
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

/// Runs the calls of one connection, until it is cut; a session within the connection's own task.
#[derive(Clone, Debug)]
pub(super) struct Spawner {
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
struct Running<D> {
    shared: Arc<Shared<D>>,
    calls: Arc<Calls>,
}

impl<D: Door> Running<D> {
    /// `None` if the server has as many calls as it may.
    fn begin(shared: &Arc<Shared<D>>, calls: &Arc<Calls>) -> Option<Self> {
        if calls.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            calls.fresh.lock().take();
        }
        calls.running.fetch_add(1, Ordering::Relaxed);
        let all = shared.streams.fetch_add(1, Ordering::Relaxed);
        let running = Self { shared: shared.clone(), calls: calls.clone() };
        (all < shared.door.limits().streams).then_some(running)
    }
}

impl<D> Drop for Running<D> {
    fn drop(&mut self) {
        self.calls.running.fetch_sub(1, Ordering::Relaxed);
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer<D: Door>(
    shared: Arc<Shared<D>>,
    calls: Arc<Calls>,
    turns: Arc<Turns>,
    request: Request<Incoming>,
    of: OfConnection,
) -> Result<Response<Answer<D::Body, Running<D>>>, Infallible> {
    let Some(running) = Running::begin(&shared, &calls) else {
        let full = Error::exhausted("the server has as many calls as it may: try again")
            .retry_after(Duration::from_millis(100));
        return Ok(shared.door.refuse(&full).map(|body| Answer::new(body, turns, None)));
    };
    let response = shared.door.clone().call(request, of).await;
    Ok(response.map(|body| Answer::new(body, turns, Some(running))))
}
