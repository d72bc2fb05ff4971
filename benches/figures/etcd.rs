//! The peer etcd, started from the distribution's package, asked over gRPC (v3 `Put` and `Watch`) by tonic.

use crate::messages::{EtcdPut, EtcdWatch, EtcdWatchCreate, EtcdWatched, Ignored, call, channel};
use crate::place::{Process, free_port};
use bytes::Bytes;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

pub struct Etcd {
    pub process: Process,
    _dir: tempfile::TempDir,
    pub address: String,
}

impl Etcd {
    /// `None`, said on stderr, if it is not installed.
    pub fn start(core: usize) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let (client, peer) = (free_port(), free_port());
        let (at, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.stderr(Stdio::null()).arg("--data-dir").arg(dir.path());
        command.args(["--log-level", "error", "--quota-backend-bytes", "8589934592"]);
        command.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let Some(process) = Process::start(core, &mut command) else {
            eprintln!("etcd is not installed: its figures are left out");
            return None;
        };
        let address = format!("127.0.0.1:{client}");
        let began = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "etcd does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { process, _dir: dir, address })
    }
}

pub async fn put(channel: &Channel, key: String, value: impl Into<Bytes>) {
    let put = EtcdPut { key: key.into(), value: value.into() };
    let _: Ignored = call(channel, "/etcdserverpb.KV/Put", put).await;
}

/// Waits until etcd takes a Put: it listens before it has a leader.
pub async fn ready(address: &str) -> Channel {
    let channel = channel(address).await;
    put(&channel, "ready".into(), "yes").await;
    channel
}

/// A watch of all keys that begin with `prefix`, begun.
pub async fn watch(address: &str, prefix: &'static str) -> tonic::Streaming<EtcdWatched> {
    let channel = channel(address).await;
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    let create = EtcdWatchCreate { key: Bytes::from_static(prefix.as_bytes()), range_end: end.into() };
    let ask = futures_util::stream::iter([EtcdWatch { create: Some(create) }]);
    let ask = futures_util::StreamExt::chain(ask, futures_util::stream::pending());
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("it is connected");
    let codec = tonic_prost::ProstCodec::<EtcdWatch, EtcdWatched>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let mut answers =
        grpc.streaming(tonic::Request::new(ask), path, codec).await.expect("it watches").into_inner();
    while !answers.message().await.expect("it watches").expect("it goes on").created {}
    answers
}
