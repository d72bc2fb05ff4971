//! The calls of the admin port.

use super::report::{Report, TierReport};
use super::{exposition, json};
use axum::body::Body;
use dstore_local::front::http::{Hosts, refused_by_guard};
use dstore_proto::serve::{Door, Limits, OfConnection};
use dstore_shared::{Error, Result};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Connections at a time: probes, a scraper or two, some browsers.
const CONNECTIONS: usize = 64;
/// How long a report may take: longer is not ready.
const REPORT_MAX: Duration = Duration::from_secs(5);
/// The page, which asks for `/status.json` every two seconds, by its script.
const PAGE: &str = include_str!("page.html");
/// Its script.
const SCRIPT: &str = include_str!("page.js");
/// How it looks.
const STYLE: &str = include_str!("page.css");
/// It needs nothing from anywhere else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

type Reported = Pin<Box<dyn Future<Output = Result<Vec<TierReport>>> + Send>>;

/// Answers the calls.
pub struct AdminDoor {
    report: Box<dyn Fn() -> Reported + Send + Sync>,
    hosts: Hosts,
    /// Other machines may ask, by whatever name they know this one.
    is_open: bool,
    limits: Limits,
}

impl fmt::Debug for AdminDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminDoor")
    }
}

impl AdminDoor {
    /// A door that tells what `report` does.
    pub fn new<R: Report>(report: R, is_open: bool) -> Self {
        let report = Arc::new(report);
        let limits = Limits { connections: CONNECTIONS, fresh: CONNECTIONS, ..Limits::default() };
        Self {
            report: Box::new(move || {
                let report = report.clone();
                Box::pin(async move { report.report().await })
            }),
            hosts: Hosts::default(),
            is_open,
            limits,
        }
    }

    async fn tiers(&self) -> Result<Vec<TierReport>> {
        let late = |_| Error::unavailable("it takes too long to tell");
        tokio::time::timeout(REPORT_MAX, (self.report)()).await.map_err(late)?
    }

    async fn answer(&self, path: &str, query: &str) -> Response<Body> {
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.tiers().await {
                Ok(tiers) => ready(
                    &tiers,
                    query.split('&').any(|word| word == "verbose" || word.starts_with("verbose=")),
                ),
                Err(e) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", e.message())),
            },
            "/metrics" => match self.tiers().await {
                Ok(tiers) => {
                    let figures = tiers.iter().flat_map(|tier| &tier.figures);
                    of(StatusCode::OK, exposition::CONTENT_TYPE, exposition::text(figures))
                }
                Err(e) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", e.message())),
            },
            "/status.json" => match self.tiers().await {
                Ok(tiers) => of(StatusCode::OK, "application/json", json::status(&tiers).to_string()),
                Err(e) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", e.message())),
            },
            "/" => {
                let mut page = of(StatusCode::OK, "text/html; charset=utf-8", PAGE);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
                page
            }
            "/page.js" => of(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            "/page.css" => of(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            _ => text(StatusCode::NOT_FOUND, "there are / /livez /readyz?verbose /metrics /status.json\n"),
        }
    }
}

impl Door for AdminDoor {
    type Body = Body;
    const HTTP1: bool = true;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn call(self: Arc<Self>, request: Request<Incoming>, _of: OfConnection) -> Response<Body> {
        if !self.is_open
            && let Some(refused) = refused_by_guard(&request, &self.hosts, self.limits.header_bytes as usize)
        {
            return refused;
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed here\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        self.answer(request.uri().path(), request.uri().query().unwrap_or_default()).await
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.message()))
    }
}

/// `[+]what ok` and `[-]what why`, as Kubernetes' own servers write it.
fn ready(tiers: &[TierReport], verbose: bool) -> Response<Body> {
    let checks = || tiers.iter().flat_map(|tier| &tier.checks);
    let ok = checks().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut lines = String::new();
    for check in checks().filter(|check| verbose || !check.ok) {
        let (sign, said) = if check.ok { ("+", "ok") } else { ("-", check.why) };
        lines.extend(["[", sign, "]", check.name, " ", said, "\n"]);
    }
    text(status, format!("{lines}{}\n", if ok { "ok" } else { "not ready" }))
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    of(status, "text/plain; charset=utf-8", body)
}

fn of(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
