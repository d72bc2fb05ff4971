//! Refusals as problem documents (RFC 9457): one for each kind of error, and those that only HTTP has.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use dstore_shared::{BlobHash, Error, Kind};
use serde::Serialize;
use std::time::Duration;

/// What a problem is, as its `type` ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slug {
    /// An error of the store.
    Of(Kind),
    /// No such name or blob.
    NotFound,
    /// No such path.
    NoRoute,
    /// A path that does not take the method.
    Method,
    /// A condition of the request does not hold.
    Precondition,
    /// No byte of the range is there.
    Range,
    /// A body of another type or coding than is taken.
    MediaType,
    /// A host that this is not.
    Host,
    /// Another origin's page.
    Origin,
    /// Headers of too many bytes.
    Headers,
    /// A body that did not come.
    Slow,
    /// An expectation that is not met.
    Expectation,
}

impl Slug {
    fn name(self) -> &'static str {
        match self {
            Self::Of(Kind::Occupied) => "occupied",
            Self::Of(Kind::Invalid) => "invalid",
            Self::Of(Kind::TooLarge) => "too-large",
            Self::Of(Kind::Exhausted) => "exhausted",
            Self::Of(Kind::Denied) => "denied",
            Self::Of(Kind::Unavailable) => "unavailable",
            Self::Of(Kind::Corrupt) => "corrupt",
            Self::Of(Kind::Closed) => "closed",
            Self::Of(Kind::Pending) => "pending",
            Self::Of(Kind::TooOld) => "too-old",
            Self::Of(Kind::Internal) => "internal",
            Self::NotFound => "not-found",
            Self::NoRoute => "no-route",
            Self::Method => "method",
            Self::Precondition => "precondition",
            Self::Range => "range",
            Self::MediaType => "media-type",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Headers => "headers",
            Self::Slow => "slow",
            Self::Expectation => "expectation",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Of(Kind::Occupied) => "The key is bound to other bytes",
            Self::Of(Kind::Invalid) => "The request is wrong",
            Self::Of(Kind::TooLarge) => "Something is over its limit",
            Self::Of(Kind::Exhausted) => "A bounded resource is used up",
            Self::Of(Kind::Denied) => "Not allowed",
            Self::Of(Kind::Unavailable) => "Nobody can answer now",
            Self::Of(Kind::Corrupt) => "The bytes do not match their hash",
            Self::Of(Kind::Closed) => "The outcome is not known",
            Self::Of(Kind::Pending) => "Not durable yet",
            Self::Of(Kind::TooOld) => "What was asked from is remembered no more",
            Self::Of(Kind::Internal) => "A defect of dstore",
            Self::NotFound => "Not found",
            Self::NoRoute => "No such path",
            Self::Method => "The path does not take this method",
            Self::Precondition => "A condition of the request does not hold",
            Self::Range => "No byte of the range is there",
            Self::MediaType => "The body is of a type that is not taken",
            Self::Host => "This is not that host",
            Self::Origin => "Pages of other origins are not answered",
            Self::Headers => "The headers are too long",
            Self::Slow => "The body did not come",
            Self::Expectation => "What the request expects is not done here",
        }
    }
}

/// The status of a kind of error.
pub fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Occupied => StatusCode::CONFLICT,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Unavailable | Kind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Corrupt | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Pending => StatusCode::GATEWAY_TIMEOUT,
        Kind::TooOld => StatusCode::GONE,
    }
}

/// A refusal. Boxed, because it is seldom and every answer leaves room for one.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    slug: Slug,
    detail: String,
    delay: Option<Duration>,
    hash: Option<BlobHash>,
    same: bool,
    step: Option<usize>,
    headers: HeaderMap,
}

/// Its document.
#[derive(Serialize)]
pub struct Document {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// What the name is bound to are the very bytes that were sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    same: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
}

impl Problem {
    /// A refusal that only HTTP has; `detail` is lower case, without full stop, and ends with what to do.
    pub fn new(status: StatusCode, slug: Slug, detail: impl Into<String>) -> Self {
        let (detail, headers) = (detail.into(), HeaderMap::new());
        Self(Box::new(Inner {
            status,
            slug,
            detail,
            delay: None,
            hash: None,
            same: false,
            step: None,
            headers,
        }))
    }

    /// There is nothing by that name or hash.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Slug::NotFound, format!("{what}: it was never set, or was deleted"))
    }

    /// A condition does not hold; `hash` is what the name is bound to, if it is.
    pub fn precondition(detail: &str, hash: Option<BlobHash>) -> Self {
        let mut problem = Self::new(StatusCode::PRECONDITION_FAILED, Slug::Precondition, detail);
        problem.0.hash = hash;
        problem
    }

    /// The same, with a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The same, and what the name is bound to are the very bytes that were sent.
    #[must_use]
    pub fn of_same_bytes(mut self) -> Self {
        self.0.same = true;
        self
    }

    /// The same, of a step of a batch, counted from 0.
    #[must_use]
    pub fn of_step(mut self, step: usize) -> Self {
        self.0.step = Some(step);
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its document.
    pub fn document(&self) -> Document {
        let Inner { status, slug, detail, delay, hash, same, step, .. } = &*self.0;
        Document {
            r#type: format!("urn:dstore:problem:{}", slug.name()),
            title: slug.title(),
            status: status.as_u16(),
            detail: detail.clone(),
            retry_after_ms: delay.map(|delay| delay.as_millis().max(1) as u64),
            hash: hash.map(|hash| hash.to_string()),
            same: *same,
            step: *step,
        }
    }

    /// The response that tells it.
    pub fn into_response(self) -> Response {
        let text = serde_json::to_vec(&self.document()).expect("a document has only string keys");
        let Inner { status, delay, headers, .. } = *self.0;
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = delay {
            // Whole seconds, none of them too early.
            let seconds = delay.as_millis().div_ceil(1000).clamp(1, 3600) as u64;
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let waits = matches!(kind, Kind::Exhausted | Kind::Unavailable | Kind::Pending);
        let mut problem = Self::new(status_of(kind), Slug::Of(kind), error.message());
        // Whoever may come again is told when.
        problem.0.delay = error.delay().or(waits.then_some(Duration::from_secs(1)));
        problem.0.hash = error.occupied_by();
        problem
    }
}
