//! Which services a server has, and how a call finds its handler.
//!
//! Health and reflection are always there. A handler is found by the service part of the path.

use super::door::Door;
use super::patience::Received;
use super::{Limits, OfConnection};
use crate::bulk::WithBulk;
use crate::link::{LinkHost, LinkService, STAGE};
use crate::store::Store;
use crate::store_service::{IdSource, StoreService, UPLOAD};
use crate::wire;
use crate::wire::link_server::LinkServer;
use crate::wire::store_server::StoreServer;
use dstore_shared::{Error, Result};
use dstore_sys::net::BoxFuture;
use dstore_sys::tasks::Tasks;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Service, ServiceExt};

type Handler = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The services of one server.
pub struct Routes {
    handlers: HashMap<&'static str, Handler>,
    health: HealthReporter,
    limits: Limits,
    tasks: Tasks,
}

impl Routes {
    /// No service but health, whose answer is SERVING until [`Health::set`] says otherwise. `tasks` owns
    /// what the services run.
    pub fn new(tasks: &Tasks, limits: &Limits) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        let (limits, tasks) = (limits.clone(), tasks.child());
        Self { handlers: HashMap::new(), health, limits, tasks }.with(service)
    }

    /// The bounds that the services keep, which are also the server's.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves `store`; `ids` names changes whose caller gave them no id.
    #[must_use]
    pub fn store<S: Store>(self, store: Arc<S>, ids: Arc<dyn IdSource>) -> Self {
        let frame = self.limits.frame_bytes;
        let service = Arc::new(StoreService::new(store, ids, self.tasks.clone(), &self.limits));
        let grpc = StoreServer::from_arc(service.clone());
        let grpc = grpc.max_decoding_message_size(frame).max_encoding_message_size(frame);
        self.with(WithBulk::new(grpc, service, frame))
    }

    /// Serves the tier link of `host`.
    #[must_use]
    pub fn link<H: LinkHost>(self, host: Arc<H>) -> Self {
        let frame = self.limits.frame_bytes;
        let service = Arc::new(LinkService::new(host, self.tasks.clone(), &self.limits));
        let grpc = LinkServer::from_arc(service.clone());
        let grpc = grpc.max_decoding_message_size(frame).max_encoding_message_size(frame);
        self.with(WithBulk::new(grpc, service, frame))
    }

    /// Tells and sets whether the services serve.
    pub fn health(&self) -> Health {
        let services = self.handlers.keys().copied().filter(|name| name.starts_with("dstore.")).collect();
        Health { reporter: self.health.clone(), services }
    }

    fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let handler = move |request| -> BoxFuture<'static, Response<Body>> {
            let answer = service.clone().oneshot(request);
            Box::pin(async move {
                match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            })
        };
        self.handlers.insert(S::NAME, Arc::new(handler));
        self
    }

    /// Adds reflection over all services that are there now.
    pub(super) fn complete(self) -> Result<Self> {
        let builder = || {
            let all = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            self.handlers.keys().fold(all, |b, name| b.with_service_name(*name))
        };
        let broken = |e| Error::internal("the descriptors cannot be read: report this").caused_by(e);
        let v1 = builder().build_v1().map_err(broken)?;
        let v1alpha = builder().build_v1alpha().map_err(broken)?;
        Ok(self.with(v1).with(v1alpha))
    }

    /// Handles one call; an unknown service is UNIMPLEMENTED.
    fn handle(&self, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let service = request.uri().path().strip_prefix('/').and_then(|p| p.split_once('/'));
        match service.and_then(|(name, _)| self.handlers.get(name)) {
            Some(handler) => handler(request),
            None => Box::pin(std::future::ready(
                tonic::Status::unimplemented("no such service here: ask reflection for the list").into_http(),
            )),
        }
    }
}

impl Door for Routes {
    type Body = Body;
    const HTTP1: bool = false;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn is_session(&self, path: &str) -> bool {
        is_session(path)
    }

    async fn call(self: Arc<Self>, mut request: Request<Incoming>, of: OfConnection) -> Response<Body> {
        request.extensions_mut().insert(of);
        let deadline = deadline_of(request.headers());
        let whole = (!is_stream(request.uri().path())).then_some(self.limits.handler);
        let call = self.handle(request.map(|body| Body::new(Received::new(body, whole))));
        match deadline {
            None => call.await,
            Some(deadline) => tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
                tonic::Status::deadline_exceeded("the deadline that the caller set has passed").into_http()
            }),
        }
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        crate::status::to_status(error).into_http()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

/// Whether a call of `path` is a session of the tier link.
fn is_session(path: &str) -> bool {
    path == "/dstore.v1.Link/Session"
}

/// Whether the request of a call of `path` is a stream, which lasts as long as its caller likes; every other is one
/// message.
fn is_stream(path: &str) -> bool {
    let ours = [UPLOAD, STAGE, "/dstore.v1.Link/Requests"];
    ours.contains(&path) || is_session(path) || path.starts_with("/grpc.reflection.")
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

/// What the standard health service answers.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// Sets SERVING or `NOT_SERVING` for the server and each of its services; who watches is told.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
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
