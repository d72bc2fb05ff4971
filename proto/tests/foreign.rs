//! A server as foreign clients, clumsy clients and hostile clients see it: plain tonic and plain bytes.

mod fake;

use bytes::Bytes;
use dstore_proto::dial::Dial;
use dstore_proto::serve::{Counts, Limits, Routes, Serving};
use dstore_proto::watch::{Event, Happened, Seen};
use dstore_shared::limits::UNARY_BYTES_MAX;
use dstore_shared::{BlobHash, ClientId, Key, RequestId, Revision};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::net::BoxFuture;
use dstore_sys::net::{BoxIo, Listener, MemoryNet};
use dstore_sys::tasks::Tasks;
use fake::{BORN, FakeStore, bytes_of, eventually};
use futures_util::{StreamExt, stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use wire::store_client::StoreClient;

/// The generated code names the codec of the crate that it is in.
mod codec {
    pub use tonic_prost::ProstCodec as WireCodec;
}

/// What a foreign client generates from the .proto files.
#[allow(clippy::all, clippy::pedantic, dead_code, reason = "generated")]
mod wire {
    tonic::include_proto!("dstore.v1");
}

struct World {
    store: Arc<FakeStore>,
    sys: Sys,
    tasks: Tasks,
    serving: Serving,
    /// Ids that it gave to changes without one.
    given: Arc<AtomicU64>,
}

impl World {
    async fn new(at: Address, limits: Limits) -> Self {
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let listener = sys.net.listen(&at).await.expect("free");
        Self::on(sys, listener, &limits)
    }

    fn on(sys: Sys, listener: Box<dyn Listener>, limits: &Limits) -> Self {
        let (store, tasks, given) =
            (Arc::new(FakeStore::default()), Tasks::new(), Arc::<AtomicU64>::default());
        let n = given.clone();
        let ids = move || {
            let n = n.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(RequestId { client: ClientId(77), n, born: BORN })
        };
        let routes = Routes::new(&tasks, limits).store(store.clone(), Arc::new(ids));
        let serving = Serving::start(&sys, &tasks, listener, routes).expect("started");
        Self { store, sys, tasks, serving, given }
    }

    async fn tcp(limits: Limits) -> Self {
        Self::new(Address::Tcp("127.0.0.1:0".into()), limits).await
    }

    async fn memory(limits: Limits) -> Self {
        Self::new(Address::Memory("node".into()), limits).await
    }

    /// A channel as any tonic user makes it.
    async fn foreign(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.serving.address())).expect("valid");
        endpoint.connect().await.expect("connected")
    }

    async fn bytes(&self) -> BoxIo {
        self.sys.net.connect(self.serving.address()).await.expect("connected")
    }

    fn counts(&self) -> Counts {
        self.serving.counts()
    }
}

fn name(key: &str) -> wire::Name {
    wire::Name { namespace: String::new(), key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn get(key: &str) -> wire::GetRequest {
    let target = Some(wire::Target { target: Some(wire::target::Target::Name(name(key))) });
    wire::GetRequest { target, offset: 0, len: None, ..wire::GetRequest::default() }
}

fn set(key: &str, data: Bytes) -> wire::SetRequest {
    wire::SetRequest { id: None, name: Some(name(key)), data, ..Default::default() }
}

#[tokio::test]
async fn a_foreign_client_sets_and_gets_without_ids() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    for size in [0, 1, UNARY_BYTES_MAX] {
        let key = size.to_string();
        let done = client.set(set(&key, bytes_of(size))).await.expect("set").into_inner();
        assert_eq!(done.result(), wire::SetResult::Stored);
        let got = client.get(get(&key)).await.expect("got").into_inner();
        assert!(got.found && got.data == bytes_of(size));
        let hash = got.entry.expect("an entry").hash;
        assert_eq!(hash, BlobHash::of(&bytes_of(size)).as_bytes()[..]);
    }
    let ids = world.store.ids.lock().clone();
    assert_eq!(ids.iter().map(|id| (id.client.0, id.n)).collect::<Vec<_>>(), [(77, 1), (77, 2), (77, 3)]);
    assert!(!client.get(get("nobody")).await.expect("asked").into_inner().found);
    let occupied = client.set(set("1", "other".into())).await.expect("an answer").into_inner();
    assert_eq!(occupied.result(), wire::SetResult::Occupied);
}

#[tokio::test]
async fn a_foreign_client_uploads_and_downloads_any_size_and_slice() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let bytes = bytes_of((4 << 20) + 1);
    let header = wire::UploadHeader {
        name: Some(name("big")),
        size: Some(bytes.len() as u64),
        hash: Bytes::copy_from_slice(BlobHash::of(&bytes).as_bytes()),
        ..Default::default()
    };
    let first = wire::UploadChunk { header: Some(header), data: bytes.slice(..1000) };
    let rest = bytes.slice(1000..);
    let rest: Vec<_> = rest.chunks(700_001).map(Bytes::copy_from_slice).collect();
    let rest = rest.into_iter().map(|data| wire::UploadChunk { header: None, data });
    let done = client.upload(stream::iter(std::iter::once(first).chain(rest))).await.expect("uploaded");
    assert_eq!(done.into_inner().result(), wire::SetResult::Stored);

    let refused = client.get(get("big")).await.expect_err("too large for Get");
    assert!(refused.code() == Code::OutOfRange && refused.message().contains("Download"), "{refused}");
    let slice = wire::GetRequest { offset: 5, len: Some(10), ..get("big") };
    assert_eq!(client.get(slice.clone()).await.expect("got").into_inner().data, bytes.slice(5..15));
    for (request, expected) in [(get("big"), bytes.clone()), (slice, bytes.slice(5..15))] {
        let mut chunks = client.download(request).await.expect("begun").into_inner();
        let (mut all, mut len) = (Vec::new(), None);
        while let Some(chunk) = chunks.message().await.expect("whole") {
            len = len.or(chunk.header.map(|header| header.len));
            all.extend_from_slice(&chunk.data);
        }
        assert_eq!((len, all), (Some(expected.len() as u64), expected.to_vec()));
    }
}

#[tokio::test]
async fn an_upload_without_an_id_gets_one_when_its_bytes_are_there() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let header = wire::UploadHeader { name: Some(name("a")), ..Default::default() };
    let first = wire::UploadChunk { header: Some(header), data: "123".into() };
    let last = wire::UploadChunk { header: None, data: "45".into() };
    let (store, given) = (world.store.clone(), world.given.clone());
    let last = stream::once(async move {
        eventually("the upload has begun", || store.bodies.load(Ordering::SeqCst) == 1).await;
        assert_eq!(given.load(Ordering::SeqCst), 0, "an id made now would be old at the end of a long body");
        last
    });
    let done = client.upload(stream::iter([first]).chain(Box::pin(last))).await.expect("uploaded");
    assert_eq!(done.into_inner().result(), wire::SetResult::Stored);
    assert_eq!(world.given.load(Ordering::SeqCst), 1);
    assert_eq!(client.get(get("a")).await.expect("got").into_inner().data, "12345");
}

#[tokio::test]
async fn what_was_stored_is_bound_by_its_hash() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let hash = Bytes::copy_from_slice(BlobHash::of(b"12345").as_bytes());
    let bind = |key: &str| wire::BindRequest {
        name: Some(name(key)),
        hash: hash.clone(),
        size: 5,
        ..Default::default()
    };
    let nothing = client.bind(bind("a")).await.expect("answered").into_inner();
    assert_eq!((nothing.result(), nothing.entry), (wire::SetResult::NeedBlob, None));
    assert_eq!(world.store.names(), 0);
    let header = wire::UploadHeader::default();
    let whole = wire::UploadChunk { header: Some(header), data: "12345".into() };
    let stored = client.upload(stream::iter([whole])).await.expect("stored").into_inner();
    assert_eq!(stored.entry.expect("an entry").bind_rev, 0);
    assert_eq!(world.store.names(), 0, "an upload without a name binds none");
    let bound = client.bind(bind("a")).await.expect("answered").into_inner();
    assert_eq!(bound.result(), wire::SetResult::Stored);
    assert_eq!(client.get(get("a")).await.expect("got").into_inner().data, "12345");
    assert_eq!(
        client.bind(bind("a")).await.expect("bound").into_inner().result(),
        wire::SetResult::Unchanged
    );
    let ids = world.store.ids.lock().len();
    for wrong in [
        wire::BindRequest { name: None, ..bind("b") },
        wire::BindRequest { hash: Bytes::from_static(b"short"), ..bind("b") },
        wire::BindRequest { ttl_ms: u64::MAX, ..bind("b") },
        wire::BindRequest { content_type: "a\n".into(), ..bind("b") },
    ] {
        assert_eq!(client.bind(wrong).await.expect_err("wrong").code(), Code::InvalidArgument);
    }
    assert_eq!((world.store.names(), world.store.ids.lock().len()), (1, ids));
}

#[tokio::test]
async fn an_upload_of_other_bytes_than_announced_is_refused() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let header = wire::UploadHeader { name: Some(name("a")), ..Default::default() };
    let hash = Bytes::copy_from_slice(BlobHash::of(b"other").as_bytes());
    let good = wire::UploadChunk { header: Some(header.clone()), data: "12345".into() };
    let with = |header| vec![wire::UploadChunk { header: Some(header), data: "12345".into() }];
    let cases = [
        (with(wire::UploadHeader { size: Some(4), ..header.clone() }), Code::InvalidArgument),
        (with(wire::UploadHeader { size: Some(6), ..header.clone() }), Code::InvalidArgument),
        (with(wire::UploadHeader { hash, ..header.clone() }), Code::DataLoss),
        (with(wire::UploadHeader { hash: "short".into(), ..header.clone() }), Code::InvalidArgument),
        (with(wire::UploadHeader { ttl_ms: u64::MAX, ..header.clone() }), Code::InvalidArgument),
        (with(wire::UploadHeader { content_type: "a".repeat(256), ..header.clone() }), Code::InvalidArgument),
        (vec![wire::UploadChunk { header: None, data: "12345".into() }], Code::InvalidArgument),
        (vec![], Code::InvalidArgument),
    ];
    for (chunks, code) in cases {
        let text = format!("{chunks:?}");
        let refused = client.upload(stream::iter(chunks)).await.expect_err(&text);
        assert_eq!(refused.code(), code, "{text}: {refused}");
        assert!(!refused.details().is_empty(), "every error has details");
    }
    assert_eq!(world.store.names(), 0);
    assert!(client.upload(stream::iter([good])).await.is_ok());
}

#[tokio::test]
async fn wrong_requests_are_refused_by_code_and_kind() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let long = "k".repeat(1025);
    for (request, code) in [
        (wire::GetRequest::default(), Code::InvalidArgument),
        (get(""), Code::InvalidArgument),
        (get(&long), Code::OutOfRange),
    ] {
        assert_eq!(client.get(request).await.expect_err("wrong").code(), code);
    }
    let id = Some(wire::RequestId { n: 0, ..Default::default() });
    let no_n = wire::SetRequest { id, ..set("a", "1".into()) };
    assert_eq!(client.set(no_n).await.expect_err("n = 0").code(), Code::InvalidArgument);
    let names = vec![name("a"); 10_001];
    let many = wire::DeleteRequest { names, ..wire::DeleteRequest::default() };
    assert_eq!(client.delete(many).await.expect_err("too many").code(), Code::OutOfRange);
    let none = wire::DeleteRequest::default();
    assert_eq!(client.delete(none).await.expect_err("none").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_and_the_connection_lives_on() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    for size in [UNARY_BYTES_MAX + 1, (1 << 20) - 40, 1 << 20, 4 << 20] {
        let refused = client.set(set("a", bytes_of(size))).await.expect_err("too large");
        assert_eq!(refused.code(), Code::OutOfRange, "{size}: {refused}");
    }
    assert!(client.set(set("a", "1".into())).await.is_ok());
    assert_eq!((world.counts().accepted, world.counts().open), (1, 1));
}

#[tokio::test]
async fn hostile_metadata_is_refused_and_the_connection_lives_on() {
    let world = World::tcp(Limits::default()).await;
    let mut client = StoreClient::new(world.foreign().await);
    let mut request = tonic::Request::new(get("a"));
    let large = "x".repeat(64 << 10).parse().expect("ascii");
    request.metadata_mut().insert("cookie", large);
    let refused = client.get(request).await.expect_err("64 KiB of headers");
    assert_ne!(refused.code(), Code::Ok, "{refused}");
    assert!(client.set(set("a", "1".into())).await.is_ok());
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else_in_both_versions() {
    let world = World::tcp(Limits::default()).await;
    let channel = world.foreign().await;
    let expected = [
        "dstore.v1.Store",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    macro_rules! listed {
        ($version:ident) => {{
            use pb::server_reflection_request::MessageRequest;
            use pb::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version as pb;
            let mut client = pb::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let asks = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("dstore.v1.Store".into()),
            ];
            let asks = asks
                .map(|ask| pb::ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
            let mut answers =
                client.server_reflection_info(stream::iter(asks)).await.expect("there").into_inner();
            let list = answers.next().await.expect("an answer").expect("good").message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = list else { panic!("{list:?}") };
            let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
            names.sort();
            let file = answers.next().await.expect("an answer").expect("good").message_response;
            assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
            names
        }};
    }
    let (v1, v1alpha) = (listed!(v1), listed!(v1alpha));
    for list in [v1, v1alpha] {
        assert!(list.iter().all(|name| expected.contains(&name.as_str())), "{list:?}");
        assert!(list.contains(&"dstore.v1.Store".to_owned()), "{list:?}");
    }
}

#[tokio::test]
async fn health_says_what_it_is_told_and_an_unknown_service_is_unimplemented() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::tcp(Limits::default()).await;
    let mut client = HealthClient::new(world.foreign().await);
    for (serving, expected) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        world.serving.health().set(serving).await;
        for service in ["", "dstore.v1.Store"] {
            let request = HealthCheckRequest { service: service.into() };
            let answer = client.check(request).await.expect("an answer").into_inner();
            assert_eq!(answer.status(), expected, "{service}");
        }
    }
    let mut link = wire::link_client::LinkClient::new(world.foreign().await);
    let refused = link.fetch(wire::FetchRequest::default()).await.expect_err("a node has no link");
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_and_its_place_is_free_again_later() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let world = World::memory(limits).await;
    let (a, _b, mut c) = (world.bytes().await, world.bytes().await, world.bytes().await);
    assert_eq!(c.read(&mut [0; 1]).await.expect("closed"), 0);
    eventually("one was refused", || world.counts().refused == 1).await;
    assert_eq!(world.counts().open, 2);
    drop(a);
    eventually("its place is free", || world.counts().open == 1).await;
    let mut d = world.bytes().await;
    // A server speaks first: its settings.
    assert_eq!(d.read(&mut [0; 1]).await.expect("open"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_call_is_closed_after_its_deadline_silent_or_not() {
    let world = World::memory(Limits::default()).await;
    let (mut silent, mut slow) = (world.bytes().await, world.bytes().await);
    slow.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let begun = tokio::time::Instant::now();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let end = async { tokio::join!(silent.read_to_end(&mut a), slow.read_to_end(&mut b)) };
    let ended = tokio::time::timeout(Duration::from_secs(60), end).await;
    assert!(ended.is_ok());
    assert_eq!(begun.elapsed().as_secs(), Limits::default().first_request.as_secs());
    assert_eq!(world.counts().open, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_connections_and_says_nothing_delays_others_and_locks_nobody_out() {
    let limits = Limits { fresh: 2, ..Limits::default() };
    let world = World::memory(limits).await;
    let mut silent = Vec::new();
    for _ in 0..9 {
        silent.push(world.bytes().await);
    }
    let at = world.serving.address();
    let channel = dstore_proto::dial::Channel::new(&world.sys, &world.tasks, at, &Dial::default());
    let mut client = StoreClient::new(channel);
    let begun = tokio::time::Instant::now();
    assert!(client.set(set("a", "1".into())).await.is_ok());
    // Two at a time, each for a second.
    let waited = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    let mut rest = Vec::new();
    for silent in &mut silent[..8] {
        assert!(silent.read_to_end(&mut rest).await.is_ok(), "it was closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_called_takes_no_place_of_those_that_have_not() {
    let limits = Limits { fresh: 1, ..Limits::default() };
    let world = World::memory(limits).await;
    let begun = tokio::time::Instant::now();
    let mut watches = Vec::new();
    for _ in 0..5 {
        let at = world.serving.address();
        let channel = dstore_proto::dial::Channel::new(&world.sys, &world.tasks, at, &Dial::default());
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        let watch = client.watch(tonic_health::pb::HealthCheckRequest::default()).await.expect("there");
        watches.push((client, watch));
    }
    assert_eq!(world.counts().open, 5);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_told_to_go_and_one_with_a_call_is_not() {
    let limits = Limits { idle: Duration::from_secs(100), ..Limits::default() };
    let world = World::memory(limits).await;
    let dial = Dial { keepalive: Duration::from_secs(5), ..Default::default() };
    let at = world.serving.address().clone();
    let channel = |tasks| dstore_proto::dial::Channel::new(&world.sys, tasks, &at, &dial);
    let mut idle = StoreClient::new(channel(&world.tasks));
    assert!(idle.set(set("a", "1".into())).await.is_ok());
    let mut watching = tonic_health::pb::health_client::HealthClient::new(channel(&world.tasks));
    let mut watch =
        watching.watch(tonic_health::pb::HealthCheckRequest::default()).await.expect("there").into_inner();
    assert!(watch.next().await.expect("a state").is_ok());
    assert_eq!(world.counts().open, 2);
    // That the one lives on shows in time only; the clock is virtual.
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(world.counts().open, 1, "the idle one is gone, the one that watches is not");
    world.serving.health().set(false).await;
    assert!(watch.next().await.expect("a state").is_ok());
    assert!(idle.set(set("b", "1".into())).await.is_ok(), "a channel connects again");
}

#[tokio::test]
async fn many_bytes_before_the_first_call_end_the_connection() {
    let world = World::memory(Limits::default()).await;
    let mut io = world.bytes().await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    // Frames of an unknown type are ignored, so only a count can end this.
    let frame = [&[0, 0x40, 0, 0xee, 0, 0, 0, 0, 0][..], &[0; 0x4000]].concat();
    let mut sent = 0;
    while io.write_all(&frame).await.is_ok() {
        sent += frame.len();
        assert!(sent < 4 << 20, "`{sent}` bytes were taken");
        tokio::task::yield_now().await;
    }
    eventually("the connection is closed", || world.counts().open == 0).await;
}

#[tokio::test]
async fn rubbish_and_http1_end_a_connection_and_nothing_else() {
    let world = World::memory(Limits::default()).await;
    for rubbish in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0xff; 200],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish here",
    ] {
        let mut io = world.bytes().await;
        let _ = io.write_all(rubbish).await;
        let mut answer = Vec::new();
        let read = io.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("closed");
    }
    eventually("all are closed", || world.counts().open == 0).await;
    let dial = Dial::default();
    let channel = dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &dial);
    assert!(StoreClient::new(channel).set(set("a", "1".into())).await.is_ok());
}

#[tokio::test]
async fn calls_over_the_servers_limit_are_refused_with_advice_to_wait() {
    let world = World::tcp(Limits { streams: 2, ..Limits::default() }).await;
    world.store.unanswered.store(2, Ordering::SeqCst);
    let channel = world.foreign().await;
    let hang = |key: &'static str| {
        let mut client = StoreClient::new(channel.clone());
        tokio::spawn(async move { client.set(set(key, "1".into())).await })
    };
    let (a, b) = (hang("a"), hang("b"));
    eventually("two calls run", || world.counts().streams == 2).await;
    let refused = StoreClient::new(channel.clone()).get(get("a")).await.expect_err("a third");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    a.abort();
    eventually("an aborted call has ended", || world.counts().streams == 1).await;
    assert!(StoreClient::new(channel).get(get("a")).await.is_ok());
    b.abort();
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_that_takes_too_long_is_given_up_by_the_server_and_by_the_callers_deadline() {
    let world = World::memory(Limits::default()).await;
    world.store.unanswered.store(2, Ordering::SeqCst);
    let channel =
        dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &Dial::default());
    let mut client = StoreClient::new(channel);
    let begun = tokio::time::Instant::now();
    let late = client.set(set("a", "1".into())).await.expect_err("late");
    assert!(late.code() == Code::Unavailable && late.message().contains("outcome unknown"), "{late}");
    assert_eq!(begun.elapsed().as_secs(), Limits::default().handler.as_secs());
    let begun = tokio::time::Instant::now();
    let mut request = tonic::Request::new(set("b", "1".into()));
    request.metadata_mut().insert("grpc-timeout", "1500m".parse().expect("ascii"));
    let late = client.set(request).await.expect_err("late");
    // tonic's client has the same deadline and may say so first.
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    assert_eq!(begun.elapsed().as_millis() / 100, 15);
    eventually("the call has ended", || world.counts().streams == 0).await;
}

/// A call of `path` that sends `messages` and then neither more nor an end.
async fn endless_call<M: prost::Message + Send + Sync + 'static>(
    world: &World,
    path: &'static str,
    messages: Vec<M>,
) -> tonic::Status {
    let channel =
        dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &Dial::default());
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let endless = stream::iter(messages).chain(stream::pending());
    let codec = tonic_prost::ProstCodec::<M, wire::GetResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = grpc.client_streaming(tonic::Request::new(endless), path, codec);
    let answer = tokio::time::timeout(Duration::from_secs(600), answer).await;
    answer.expect("it is given up").expect_err("it is not answered")
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_given_up() {
    let world = World::memory(Limits::default()).await;
    let limit = Limits::default().handler.as_secs();
    for path in ["/dstore.v1.Store/Get", "/dstore.v1.Store/Download", "/grpc.health.v1.Health/Check"] {
        for messages in [vec![], vec![get("a")]] {
            let begun = tokio::time::Instant::now();
            let status = endless_call(&world, path, messages).await;
            // What needs no more than the message may be answered at once.
            let took = begun.elapsed().as_secs();
            assert!(took <= limit, "{path}: {took} s");
            assert!(status.message().contains("whole") || took == 0, "{path}: {status}");
            eventually("the call has ended", || world.counts().streams == 0).await;
        }
    }
}

/// A client to which so many bytes of an answer may be sent before it takes them.
fn with_window(world: &World, stream_window_bytes: u32) -> StoreClient<dstore_proto::dial::Channel> {
    let dial = Dial { stream_window_bytes, ..Dial::default() };
    StoreClient::new(dstore_proto::dial::Channel::new(
        &world.sys,
        &world.tasks,
        world.serving.address(),
        &dial,
    ))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_given_up_and_its_memory_with_it() {
    let world = World::memory(Limits::default()).await;
    let mut client = with_window(&world, 1 << 20);
    client.set(set("a", bytes_of(UNARY_BYTES_MAX))).await.expect("set");
    // Nothing may be sent to it.
    let mut deaf = with_window(&world, 0);
    let asking = tokio::spawn(async move { deaf.get(get("a")).await });
    eventually("the call runs", || world.counts().streams == 1).await;
    // That it is not given up early shows in time only; the clock is virtual.
    tokio::time::sleep(Limits::default().answer_taken.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(world.counts().streams, 1, "whoever is slow is waited for");
    tokio::time::sleep(Limits::default().answer_taken + Duration::from_secs(2)).await;
    assert_eq!(world.counts().streams, 0);
    assert!(asking.await.expect("no panic").is_err());
    assert!(client.get(get("a")).await.is_ok(), "others are answered");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_reading_is_given_up() {
    let world = World::memory(Limits::default()).await;
    let channel =
        dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &Dial::default());
    let mut client = StoreClient::new(channel);
    let bytes = bytes_of(32 << 20);
    let header = wire::UploadHeader { name: Some(name("a")), ..Default::default() };
    let first = wire::UploadChunk { header: Some(header), data: Bytes::new() };
    let rest: Vec<_> = (0..32).map(|i| bytes.slice(i << 20..(i << 20) + (1 << 19))).collect();
    let rest = rest.into_iter().map(|data| wire::UploadChunk { header: None, data });
    client.upload(stream::iter(std::iter::once(first).chain(rest))).await.expect("uploaded");
    world.store.streams.store(true, Ordering::SeqCst);
    let mut chunks = client.download(get("a")).await.expect("begun").into_inner();
    assert!(chunks.message().await.expect("a header").is_some());
    // That it is not given up early shows in time only; the clock is virtual.
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(world.store.streaming.load(Ordering::SeqCst), 1);
    let rid = || world.store.streaming.load(Ordering::SeqCst) == 0;
    eventually("the store is rid of it", rid).await;
    let failed = loop {
        match chunks.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a transfer that was given up must not look whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
}

/// Fails so many accepts before it takes connections.
#[derive(Debug)]
struct OutOfDescriptors(u32, Box<dyn Listener>);

impl Listener for OutOfDescriptors {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        match self.0.checked_sub(1) {
            None => self.1.accept(),
            Some(left) => {
                self.0 = left;
                Box::pin(std::future::ready(Err(io::Error::from_raw_os_error(24)))) // EMFILE
            }
        }
    }

    fn address(&self) -> Address {
        self.1.address()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_accept_is_tried_again_after_a_growing_wait() {
    let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
    let listener = sys.net.listen(&Address::Memory("node".into())).await.expect("free");
    let begun = tokio::time::Instant::now();
    let world = World::on(sys, Box::new(OutOfDescriptors(12, listener)), &Limits::default());
    let mut io = world.bytes().await;
    assert_eq!(io.read(&mut [0; 1]).await.expect("open"), 1);
    assert_eq!(world.counts().failed_accepts, 12);
    // 5 ms doubling up to 1 s twelve times is 5.3 s; jitter takes up to half of it.
    let waited = begun.elapsed();
    assert!((Duration::from_millis(2_500)..Duration::from_millis(5_500)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn a_stopped_server_is_gone_and_its_address_is_free() {
    let world = World::tcp(Limits { drain: Duration::from_millis(100), ..Limits::default() }).await;
    let mut client = StoreClient::new(world.foreign().await);
    assert!(client.set(set("a", "1".into())).await.is_ok());
    tokio::time::timeout(Duration::from_secs(5), world.serving.stop()).await.expect("in time");
    assert_eq!(client.get(get("a")).await.expect_err("gone").code(), Code::Unavailable);
    assert_eq!(world.counts().open, 0);
    assert!(world.sys.net.listen(world.serving.address()).await.is_ok());
    world.tasks.stop().await;
}

/// A watch that tells as much as it can for ever.
fn endless(store: &FakeStore) {
    let events: Vec<Event> = (0..900)
        .map(|i| Event {
            revision: Revision(2),
            at_ms: 0,
            key: Key::new(format!("{i}{}", "k".repeat(500))).expect("valid"),
            happened: Happened::Unbound(None),
        })
        .collect();
    let seen = Seen { events, through: Revision(1) };
    store.watches.lock().push_back(vec![Ok(seen); 100]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_not_read_is_given_up() {
    let world = World::memory(Limits::default()).await;
    endless(&world.store);
    let channel =
        dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &Dial::default());
    let mut client = StoreClient::new(channel);
    let mut watch = client.watch(wire::WatchRequest::default()).await.expect("begun").into_inner();
    let header = watch.message().await.expect("a header").expect("a message").header.expect("a header");
    assert_eq!((&header.history[..], header.after), (&BORN.history.0.to_be_bytes()[..], 1));
    // The clock is virtual.
    tokio::time::sleep(Limits::default().transfer_idle * 2).await;
    let mut messages = 0;
    let ended = loop {
        match watch.message().await {
            Ok(Some(_)) => messages += 1,
            Ok(None) => panic!("a watch that was given up must not end as if all were told"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(ended.message().contains("not read"), "{ended}");
    assert!((1..20).contains(&messages), "what the windows held: {messages}");
    eventually("the call has ended", || world.counts().streams == 0).await;
}

#[tokio::test]
async fn a_watch_of_what_may_not_be_is_refused() {
    let world = World::memory(Limits::default()).await;
    let channel =
        dstore_proto::dial::Channel::new(&world.sys, &world.tasks, world.serving.address(), &Dial::default());
    let mut client = StoreClient::new(channel);
    let long = wire::WatchRequest { prefix: vec![0; 1025].into(), ..Default::default() };
    let history = wire::WatchRequest { history: vec![1; 15].into(), ..Default::default() };
    let namespace = wire::WatchRequest { namespace: "UPPER".into(), ..Default::default() };
    for refused in [long, history, namespace] {
        let status = client.watch(refused).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert!(world.store.asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_one_piece_that_nobody_takes_is_given_up_too() {
    let world = World::memory(Limits::default()).await;
    let mut client = with_window(&world, 1 << 20);
    client.set(set("a", bytes_of(200 << 10))).await.expect("set");
    // 1 KiB may be sent to it, and it takes none.
    let mut deaf = with_window(&world, 1 << 10);
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(deaf.download(get("a")).await.expect("begun").into_inner());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.counts().streams, 100, "each is a call as long as something of it is left");
    tokio::time::sleep(Limits::default().answer_taken * 3).await;
    assert_eq!(world.counts().streams, 0);
    for mut chunks in answers {
        let mut bytes = 0;
        let ended = loop {
            match chunks.message().await {
                Ok(Some(chunk)) => bytes += chunk.data.len(),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert!(!ended && bytes < 200 << 10, "{bytes} bytes were kept though nobody took them");
    }
}
