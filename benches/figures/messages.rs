//! The few gRPC messages that the peers speak, written by hand, and one way to call them all.

use bytes::Bytes;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

#[derive(Clone, PartialEq, Message)]
pub struct Name {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct Target {
    #[prost(message, optional, tag = "1")]
    pub name: Option<Name>,
}

/// `dstore.v1.GetRequest`; the bare echo takes the same.
#[derive(Clone, PartialEq, Message)]
pub struct GetRequest {
    #[prost(message, optional, tag = "1")]
    pub target: Option<Target>,
}

impl GetRequest {
    pub fn of(key: &str) -> Self {
        let key = Bytes::copy_from_slice(key.as_bytes());
        Self { target: Some(Target { name: Some(Name { namespace: String::new(), key }) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub hash: Bytes,
    #[prost(uint64, tag = "2")]
    pub size: u64,
    #[prost(uint64, tag = "3")]
    pub bind_rev: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Provenance {
    #[prost(int32, tag = "1")]
    pub tier: i32,
    #[prost(bool, tag = "2")]
    pub cached: bool,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// `dstore.v1.GetResponse`; the bare echo gives the same.
#[derive(Clone, PartialEq, Message)]
pub struct GetResponse {
    #[prost(bool, tag = "1")]
    pub found: bool,
    #[prost(message, optional, tag = "2")]
    pub entry: Option<Entry>,
    #[prost(message, optional, tag = "3")]
    pub from: Option<Provenance>,
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct EtcdPut {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// An answer that is not looked into.
#[derive(Clone, PartialEq, Message)]
pub struct Ignored {}

/// `etcdserverpb.WatchRequest`, with a `WatchCreateRequest` only.
#[derive(Clone, PartialEq, Message)]
pub struct EtcdWatch {
    #[prost(message, optional, tag = "1")]
    pub create: Option<EtcdWatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EtcdWatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// `etcdserverpb.WatchResponse`, as far as it is looked into.
#[derive(Clone, PartialEq, Message)]
pub struct EtcdWatched {
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Ignored>,
}

pub async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

/// One unary call.
pub async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> A
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("it is connected");
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(request), path, codec).await.expect("it answers").into_inner()
}
