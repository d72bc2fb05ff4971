//! A bare tonic server: no store, no limits, no deadlines; the floor of what a unary call costs.

use crate::messages::{Entry, GetRequest, GetResponse, Provenance};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::{Ready, ready};
use tonic::server::UnaryService;

/// Makes this program the server, for values of so many bytes as the next argument says.
pub const ARGUMENT: &str = "--serve-echo";

#[derive(Clone)]
struct Echo(GetResponse);

impl UnaryService<GetRequest> for Echo {
    type Response = GetResponse;
    type Future = Ready<Result<tonic::Response<GetResponse>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<GetRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

/// Serves until it is killed.
pub fn serve(size: usize) -> ! {
    let entry = Entry { hash: Bytes::from(vec![7; 32]), size: size as u64, bind_rev: 1_000 };
    let from = Provenance { tier: 1, cached: true, revision: 1_000 };
    let data = Bytes::from(crate::harness::value(1, size));
    let echo = Echo(GetResponse { found: true, entry: Some(entry), from: Some(from), data });
    let rt =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    rt.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        println!("listening on {}", listener.local_addr().expect("it is bound"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            _ = stream.set_nodelay(true);
            let echo = echo.clone();
            let service = hyper::service::service_fn(move |request| {
                let echo = echo.clone();
                async move {
                    let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
                    Ok::<_, Infallible>(grpc.unary(echo, request).await)
                }
            });
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // The client may go away.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
