//! The HTTP door: names and blobs as resources, for whoever speaks HTTP/1.1 or HTTP/2 without TLS.
//!
//! ```text
//! call      guard (Host, Origin, bytes of headers) -> route -> one of:
//! read      GET, HEAD of a name or blob: conditions, ranges, the bytes as they come
//! write     PUT: up to 64 KiB gathered and sent with the change, more streamed to Global and then bound; DELETE;
//!           conditions are guards of the change, so that Global judges them in the same step
//! list      GET of a namespace          batch     POST of several steps, by themselves or all or none
//! watch     server-sent events          openapi   what there is
//! ```
//! Invariants: every refusal of the door is a problem document (RFC 9457); no answer may be kept by a cache unless it is
//! asked for again first, but blobs by hash; bodies pass piece by piece, and no more of one is held than a value that
//! travels with its command may have; what all requests and their answers hold together has room in one place, which is
//! given back when the last byte has gone; all that one request asks of the store ends by one deadline; no answer lets
//! another origin read it. It must never answer a name by itself, nor change one because of what it read: what is right is the
//! store's to say.

mod attributes;
mod batch;
mod body;
mod conditions;
mod guard;
mod json;
mod linger;
mod list;
mod openapi;
mod problem;
mod read;
#[cfg(test)]
mod slow_tests;
#[cfg(test)]
mod tests;
mod until;
pub mod url;
mod watch;
mod write;
mod written;

#[cfg(feature = "fuzzing")]
pub use conditions::fuzzing;
pub use guard::Hosts;

use crate::rooms::{Room, Rooms};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use dstore_proto::IdSource;
use dstore_proto::serve::{Door, Limits, OfConnection};
use dstore_proto::store::{Store, Tier};
use dstore_shared::{Error, Result};
use dstore_sys::rng::Rng;
use dstore_sys::tasks::Tasks;
use hyper::body::Incoming;
use problem::{Problem, Slug};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use until::Until;

/// Which tier knew the answer: `local` or `global`.
const X_TIER: HeaderName = HeaderName::from_static("x-dstore-tier");
/// The revision that the answer tells of.
const X_REVISION: HeaderName = HeaderName::from_static("x-dstore-revision");
/// Of a PUT how long the name is to live, of an answer how long it has left at least, in milliseconds.
const X_TTL: HeaderName = HeaderName::from_static("x-dstore-ttl-ms");
/// For so many milliseconds a crash of Global may take what the answer tells of.
const X_LOSS: HeaderName = HeaderName::from_static("x-dstore-loss-ms");

/// How often a change is tried whose names are changed by others meanwhile.
const ATTEMPTS: u32 = 12;
/// Between the first two of such attempts.
const PAUSE: Duration = Duration::from_millis(1);
/// How often that is doubled: to 64 ms.
const PAUSES_DOUBLED: u32 = 6;

/// When a request comes again that found no room.
const NO_ROOM_DELAY: Duration = Duration::from_secs(1);

/// Why a call is not answered at all, if it is not: another host, a page of another origin, too long headers.
pub fn refused_by_guard<B: hyper::body::Body>(
    request: &hyper::Request<B>,
    hosts: &Hosts,
    header_bytes: usize,
) -> Option<Response> {
    guard::check(request, hosts, header_bytes).err().map(Problem::into_response)
}

/// What a handler gives.
type Answered = Result<Response, Problem>;

/// The door, to be opened with [`Gate::open`](dstore_proto::serve::Gate::open).
pub struct HttpDoor {
    router: Router,
    hosts: Hosts,
    limits: Limits,
    tasks: Tasks,
}

impl fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpDoor({:?})", self.hosts)
    }
}

/// What the handlers work with.
struct Desk<S> {
    store: Arc<S>,
    ids: Arc<dyn IdSource>,
    rng: Arc<dyn Rng>,
    tasks: Tasks,
    handler: Duration,
    idle: Duration,
    /// Places of watches.
    watches: Arc<Semaphore>,
    /// Room for what requests and answers hold, but for values that the node has room for anyway.
    rooms: Rooms,
}

impl<S: Store> Desk<S> {
    /// Room for `bytes`, as soon as there is any. Who has some already must not wait for more, but take it at once or not.
    ///
    /// # Errors
    /// `Exhausted` if there is none in time.
    async fn room(&self, bytes: u64) -> Result<Room> {
        match self.rooms.try_take(bytes) {
            Some(room) => Ok(room),
            None => self.rooms.take(bytes).await.ok_or_else(no_room),
        }
    }

    /// Until when a request that begins now, or whose body is there now, is answered.
    fn until(&self) -> Until {
        Until::after(self.handler)
    }

    /// Waits a little, longer after each of several attempts.
    async fn pause(&self, attempts: u32) {
        tokio::time::sleep(self.rng.jitter(PAUSE * 2u32.pow(attempts.min(PAUSES_DOUBLED)))).await;
    }

    /// The answer, with what a crash of Global may take of what it tells.
    fn labelled(&self, answered: Answered) -> Response {
        let mut response = answered.unwrap_or_else(Problem::into_response);
        if let Some(loss) = self.store.loss() {
            let ms = u64::try_from(loss.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            response.headers_mut().insert(X_LOSS, ms.into());
        }
        response
    }
}

/// Makes a handler of a method of the desk.
macro_rules! handler {
    ($desk:ident, $handle:path) => {{
        let desk = $desk.clone();
        move |request: Request| {
            let desk = desk.clone();
            async move { desk.labelled($handle(&*desk, request).await) }
        }
    }};
}

impl HttpDoor {
    /// A door to `store`; `ids` names its changes, `rng` spreads what is tried again, `tasks` owns its uploads, `hosts`
    /// are the names it answers to. Its requests and answers hold at most `bytes_max` bytes together.
    pub fn new<S: Store>(
        store: Arc<S>,
        ids: Arc<dyn IdSource>,
        rng: Arc<dyn Rng>,
        tasks: &Tasks,
        hosts: Hosts,
        (limits, bytes_max): (&Limits, u64),
    ) -> Self {
        let (handler, idle) = (limits.handler, limits.transfer_idle);
        let watches = Arc::new(Semaphore::new(watch::WATCHES_MAX));
        let (rooms, tasks) = (Rooms::new(bytes_max), tasks.clone());
        let desk = Arc::new(Desk { store, ids, rng, tasks: tasks.clone(), handler, idle, watches, rooms });
        let values = put(handler!(desk, write::put))
            .delete(handler!(desk, write::delete))
            .get(handler!(desk, read::get_name))
            .head(handler!(desk, read::head_name));
        let blobs = get(handler!(desk, read::get_blob)).head(handler!(desk, read::head_blob));
        let router = Router::new()
            .route("/v1/kv/{namespace}/{*key}", values)
            .route("/v1/kv/{namespace}/", any(no_key))
            .route("/v1/kv/{namespace}", get(handler!(desk, list::list)))
            .route("/v1/blob/{hash}", blobs)
            .route("/v1/batch", post(handler!(desk, batch::batch)))
            .route("/v1/watch", get(handler!(desk, watch::watch)))
            .route("/openapi.json", get(openapi::document))
            .fallback(nothing_here)
            .method_not_allowed_fallback(not_so);
        Self { router, hosts, limits: limits.clone(), tasks }
    }

    async fn answer(&self, mut request: Request, of: OfConnection) -> Response {
        if let Err(refused) = guard::check(&request, &self.hosts, self.limits.header_bytes as usize) {
            return refused.into_response();
        }
        if request.uri().path() == watch::PATH {
            request.extensions_mut().insert(of);
        }
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        if response.status() == StatusCode::NO_CONTENT {
            // RFC 9110, section 8.6: no length where no content can be.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        response
    }
}

impl Door for HttpDoor {
    type Body = Body;
    const HTTP1: bool = true;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn call(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        of: OfConnection,
    ) -> hyper::Response<Body> {
        let (request, left) = linger::lend(request);
        let mut response = self.answer(request, of).await;
        if let Some(Ok(left)) = left.map(|mut left| left.try_recv()) {
            if response.status() == StatusCode::REQUEST_TIMEOUT {
                // Whoever is too slow is not waited for with his next request (RFC 9110, section 15.5.9).
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            self.tasks.spawn("http linger", linger::read_on(left, self.limits.transfer_idle));
        }
        response
    }

    fn refuse(&self, error: &Error) -> hyper::Response<Body> {
        Problem::from(error.clone()).into_response()
    }
}

fn no_room() -> Error {
    Error::exhausted("requests and answers under way hold all the room of the HTTP door: try again")
        .retry_after(NO_ROOM_DELAY)
}

async fn no_key() -> Response {
    Problem::from(Error::invalid("the key is empty: a key has 1 to 1024 bytes")).into_response()
}

async fn nothing_here() -> Response {
    Problem::new(
        StatusCode::NOT_FOUND,
        Slug::NoRoute,
        "no such path here: `/openapi.json` tells which there are",
    )
    .into_response()
}

async fn not_so() -> Response {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Slug::Method,
        "the path does not take this method: the header `Allow` tells which it takes",
    )
    .into_response()
}

fn tier_value(tier: Tier) -> HeaderValue {
    HeaderValue::from_static(match tier {
        Tier::Local => "local",
        Tier::Global => "global",
    })
}
