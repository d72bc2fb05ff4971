//! The HTTP door: names and blobs as resources, for whoever speaks HTTP/1.1 or HTTP/2 without TLS.
//!
//! ```text
//! call      guard (Host, Origin, bytes of headers) -> route -> one of:
//! read      GET, HEAD of a name or blob: conditions, ranges, the bytes as they come
//! write     PUT: up to 64 KiB gathered and SET, more streamed to Global and then bound; DELETE
//! list      GET of a namespace          batch     POST of several steps
//! watch     server-sent events          openapi   what there is
//! ```
//! Invariants: every refusal of the door is a problem document (RFC 9457); no answer may be kept by a cache unless it is
//! asked for again first, but blobs by hash; bodies pass piece by piece, and no more of one is held than a value that
//! travels with its command may have; no answer lets another origin read it. It must never answer a name by itself: what
//! is right is the store's to say.

mod batch;
mod body;
mod conditions;
mod guard;
mod json;
mod list;
mod openapi;
mod problem;
mod read;
#[cfg(test)]
mod tests;
pub mod url;
mod watch;
mod write;

#[cfg(feature = "fuzzing")]
pub use conditions::fuzzing;
pub use guard::Hosts;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use dstore_proto::IdSource;
use dstore_proto::serve::{Door, Limits, OfConnection};
use dstore_proto::store::{Store, Tier};
use dstore_shared::{Error, Result};
use dstore_sys::tasks::Tasks;
use hyper::body::Incoming;
use problem::{Problem, Slug};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// Which tier knew the answer: `local` or `global`.
const X_TIER: HeaderName = HeaderName::from_static("x-dstore-tier");
/// The revision that the answer tells of.
const X_REVISION: HeaderName = HeaderName::from_static("x-dstore-revision");
/// For so many milliseconds a crash of Global may take what the answer tells of.
const X_LOSS: HeaderName = HeaderName::from_static("x-dstore-loss-ms");

/// What a handler gives.
type Answered = Result<Response, Problem>;

/// The door, to be opened with [`Gate::open`](dstore_proto::serve::Gate::open).
pub struct HttpDoor {
    router: Router,
    hosts: Hosts,
    limits: Limits,
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
    tasks: Tasks,
    handler: Duration,
    idle: Duration,
}

impl<S: Store> Desk<S> {
    /// What `call` gives, within the deadline of a call.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late =
            |_| Err(Error::unavailable(format!("no answer within `{:?}`: outcome unknown", self.handler)));
        tokio::time::timeout(self.handler, call).await.unwrap_or_else(late)
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
    /// A door to `store`; `ids` names its changes, `tasks` owns its uploads, `hosts` are the names it answers to.
    pub fn new<S: Store>(
        store: Arc<S>,
        ids: Arc<dyn IdSource>,
        tasks: &Tasks,
        hosts: Hosts,
        limits: &Limits,
    ) -> Self {
        let (handler, idle) = (limits.handler, limits.transfer_idle);
        let desk = Arc::new(Desk { store, ids, tasks: tasks.clone(), handler, idle });
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
        Self { router, hosts, limits: limits.clone() }
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
        if let Err(refused) = guard::check(&request, &self.hosts, self.limits.header_bytes as usize) {
            return refused.into_response();
        }
        let mut request = request.map(Body::new);
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

    fn refuse(&self, error: &Error) -> hyper::Response<Body> {
        Problem::from(error.clone()).into_response()
    }
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
