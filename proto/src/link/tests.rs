//! The tier link over real HTTP/2 within one process.

use super::*;
use crate::convert::pack_requests;
use crate::dial::{Channel, Dial};
use crate::serve::{Limits, Routes, Serving};
use crate::store::{Body, BodyStream, Slice};
use crate::wire;
use bytes::Bytes;
use dstore_shared::frame::{Down, Hello, Resolved, Up};
use dstore_shared::{
    BlobHash, Born, DeleteMode, Entry, Epoch, Error, FlightId, GROUP_BYTES, HistoryId, Key, Kind, Name,
    Namespace, OutlineBuilder, RegSeq, RequestId, Revision,
};
use dstore_sys::Sys;
use dstore_sys::net::{Address, MemoryNet};
use dstore_sys::tasks::Tasks;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const EPOCH: Epoch = Epoch { history: HistoryId(7), boot: 1, counter: 1 };

/// Answers every KEEP with a LEASE and every Resolve with an entry, and keeps what is staged.
#[derive(Default)]
struct Host {
    blobs: Mutex<HashMap<BlobHash, Bytes>>,
    damaged: Option<usize>,
    /// A byte of what is staged arrives as another.
    garbles: bool,
    uploads: AtomicUsize,
    cut_uploads: AtomicUsize,
    sessions: AtomicUsize,
}

fn lease(n: u64) -> Down {
    let (lease, through, born) = (Duration::from_secs(2), Revision(n), Born::default());
    Down::Lease { epoch: EPOCH, n, lease, through, born }
}

fn entry_of(name: &Name) -> Entry {
    Entry {
        hash: BlobHash::of(name.as_bytes()),
        size: 1,
        bind_rev: Revision(1),
        expires_at: None,
        content_type: None,
    }
}

fn answer(request: Request) -> Reply {
    let Ask::Resolve { name, cache, .. } = request.ask else { panic!("the test only resolves") };
    let (entry, cacheable) = (Some(entry_of(&name)), cache.then_some(request.epoch));
    let found = Resolved { entry, carried: None, cacheable, head: Revision(1) };
    Reply { flight: request.flight, answer: Answer::Resolved(found), born: Born::default(), journal_ms: 0 }
}

/// Counts the sessions whose streams are alive.
struct Alive(Arc<Host>);
impl Drop for Alive {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Shared(Arc<Host>);

impl LinkHost for Shared {
    async fn session(&self, mut up: Frames<Up>) -> Result<Frames<Down>> {
        let Some(Ok(Up::Hello(hello))) = up.next().await else { panic!("HELLO is first") };
        if hello.label == "unwelcome" {
            return Err(Error::new(Kind::Denied, "no").retry_after(Duration::from_secs(1)));
        }
        self.0.sessions.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(self.0.clone());
        let answers = up.filter_map(move |frame| {
            let _ = &alive;
            std::future::ready(match frame {
                Ok(Up::Keep { n, .. }) => Some(Ok(lease(n))),
                Ok(_) => None,
                Err(e) => Some(Err(e)),
            })
        });
        Ok(Box::pin(stream::iter([Ok(lease(0))]).chain(answers)))
    }

    async fn requests(&self, up: Frames<Vec<Request>>) -> Result<Frames<Vec<Reply>>> {
        Ok(Box::pin(up.map(|batch| Ok(batch?.into_iter().map(answer).collect()))))
    }

    async fn stage(&self, size: Option<u64>, body: BodyStream) -> Result<(BlobHash, u64)> {
        self.0.uploads.fetch_add(1, Ordering::SeqCst);
        let bytes = Body::Stream(body).collect(1 << 30).await;
        if bytes.is_err() {
            self.0.cut_uploads.fetch_add(1, Ordering::SeqCst);
        }
        let mut bytes = bytes?;
        if self.0.garbles {
            let mut other = bytes.to_vec();
            other[0] ^= 1;
            bytes = other.into();
        }
        assert!(size.is_none_or(|size| size == bytes.len() as u64));
        let hash = BlobHash::of(&bytes);
        let size = bytes.len() as u64;
        self.0.blobs.lock().insert(hash, bytes);
        Ok((hash, size))
    }

    async fn fetch(&self, hash: BlobHash, slice: Slice) -> Result<Option<Fetch>> {
        let Some(bytes) = self.0.blobs.lock().get(&hash).cloned() else { return Ok(None) };
        let mut builder = OutlineBuilder::new();
        builder.update(&bytes);
        let (size, outline) = (bytes.len() as u64, builder.finish().1.encode());
        let mut sent = bytes.to_vec();
        if let Some(at) = self.0.damaged {
            sent[at] ^= 1;
        }
        let range = slice.within(size)?;
        let sent = Bytes::from(sent).slice(range.start as usize..range.end as usize);
        Ok(Some(Fetch { size, outline, body: Body::Bytes(sent).into_stream() }))
    }
}

struct World {
    host: Arc<Host>,
    sys: Sys,
    tasks: Tasks,
    at: Address,
    serving: Serving,
}

impl World {
    async fn new(host: Host, limits: Limits) -> Self {
        let (host, tasks) = (Arc::new(host), Tasks::new());
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let at = Address::Memory("global".into());
        let listener = sys.net.listen(&at).await.expect("free");
        let routes = Routes::new(&tasks, &limits).link(Arc::new(Shared(host.clone())));
        let serving = Serving::start(&sys, &tasks, listener, routes).expect("started");
        Self { host, sys, tasks, at, serving }
    }

    fn link(&self) -> LinkClient {
        LinkClient::new(&self.sys, &self.tasks, &self.at, &Dial::default())
    }
}

fn hello(label: &str) -> Up {
    Up::Hello(Hello {
        local_id: dstore_shared::LocalId(1),
        incarnation: dstore_shared::Incarnation(1),
        last_epoch: None,
        history: HistoryId(0),
        applied_rev: Revision(0),
        label: label.into(),
        negatives: false,
    })
}

fn resolve(n: u64) -> Request {
    let name = Name::of(n.to_be_bytes().to_vec()).expect("valid");
    let ask = Ask::Resolve { name, have: None, cache: true, carry: true };
    Request { flight: FlightId(n), epoch: EPOCH, reg_seq: RegSeq(n), ask }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn a_session_carries_frames_both_ways_and_ends_with_its_local() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (up, mut down) = world.link().open_session();
    up.send(hello("a")).await.expect("open");
    assert!(matches!(down.next().await, Some(Ok(Down::Lease { n: 0, .. }))));
    for n in 1..=100 {
        up.send(Up::Keep { epoch: EPOCH, n, acked: 0 }).await.expect("open");
        assert!(matches!(down.next().await, Some(Ok(Down::Lease { n: m, .. })) if m == n), "lease {n}");
    }
    assert_eq!(world.host.sessions.load(Ordering::SeqCst), 1);
    drop((up, down));
    eventually("the session ends", || world.host.sessions.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_session_ends_when_either_half_is_dropped() {
    let world = World::new(Host::default(), Limits::default()).await;
    for drop_up in [true, false] {
        let (up, mut down) = world.link().open_session();
        up.send(hello("a")).await.expect("open");
        assert!(down.next().await.expect("open").is_ok());
        assert_eq!(world.host.sessions.load(Ordering::SeqCst), 1);
        let (mut up, mut down) = (Some(up), Some(down));
        if drop_up {
            up = None;
        } else {
            down = None;
        }
        eventually("the session ends", || world.host.sessions.load(Ordering::SeqCst) == 0).await;
        assert!(up.is_some() || down.is_some());
    }
}

#[tokio::test]
async fn a_refused_session_says_why_and_then_ends() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (up, mut down) = world.link().open_session();
    up.send(hello("unwelcome")).await.expect("open");
    let refused = down.next().await.expect("an answer").expect_err("refused");
    assert_eq!((refused.kind(), refused.delay()), (Kind::Denied, Some(Duration::from_secs(1))));
    assert!(down.next().await.is_none());
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_hello_or_with_another_version_is_refused() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (up, mut down) = world.link().open_session();
    up.send(Up::Keep { epoch: EPOCH, n: 1, acked: 0 }).await.expect("open");
    let refused = down.next().await.expect("an answer").expect_err("refused");
    assert!(refused.kind() == Kind::Invalid && refused.message().contains("HELLO"), "{refused}");

    let channel = Channel::new(&world.sys, &world.tasks, &world.at, &Dial::default());
    let hello = wire::Hello { version: 9, ..wire::Hello::default() };
    let frame = wire::SessionUp { epoch: None, frame: Some(wire::session_up::Frame::Hello(hello)) };
    let mut raw = wire::link_client::LinkClient::new(channel);
    let status = raw.session(stream::iter([frame])).await.expect_err("version 9");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("versions `9` to `9`"), "{status}");
    assert_eq!(world.host.sessions.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_without_hello_is_refused_after_its_deadline() {
    let world = World::new(Host::default(), Limits::default()).await;
    let link = LinkClient::new(
        &world.sys,
        &world.tasks,
        &world.at,
        &Dial { call: Duration::from_secs(60), ..Dial::default() },
    );
    let (_up, mut down) = link.open_session();
    let refused = down.next().await.expect("an answer").expect_err("refused");
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.message().contains("HELLO"), "{refused}");
}

#[tokio::test]
async fn requests_are_answered_over_one_stream_however_they_are_batched() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (sink, mut replies) = world.link().open_requests();
    let send = async {
        for batch in [1_u64, 255, 256, 257, 2_000] {
            sink.send((0..batch).map(resolve).collect()).await.expect("open");
        }
    };
    let receive = async {
        let mut flights = Vec::new();
        while flights.len() < 1 + 255 + 256 + 257 + 2_000 {
            for reply in replies.next().await.expect("open").expect("good") {
                let Answer::Resolved(found) = reply.answer else { panic!("a resolve was asked") };
                let name = Name::of(reply.flight.0.to_be_bytes().to_vec()).expect("valid");
                assert_eq!((found.entry, found.cacheable), (Some(entry_of(&name)), Some(EPOCH)));
                flights.push(reply.flight.0);
            }
        }
        flights
    };
    let ((), mut flights) = tokio::join!(send, receive);
    flights.sort_unstable();
    flights.dedup();
    assert_eq!(flights, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_go_out_though_nobody_asks_for_the_replies_yet() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (sink, replies) = world.link().open_requests();
    let send = async {
        for n in 0..100 {
            sink.send(vec![resolve(n)]).await.expect("open");
        }
    };
    tokio::time::timeout(Duration::from_secs(5), send).await.expect("100 batches fit the windows");
    assert_eq!(replies.take(100).filter(|batch| std::future::ready(batch.is_ok())).count().await, 100);
}

#[tokio::test]
async fn a_batch_too_large_for_a_frame_is_cut() {
    let world = World::new(Host::default(), Limits::default()).await;
    let (sink, mut replies) = world.link().open_requests();
    let long = |n: u64| Request {
        ask: Ask::Resolve {
            name: Name::of(vec![n as u8; 1024]).expect("valid"),
            have: None,
            cache: false,
            carry: false,
        },
        ..resolve(n)
    };
    let parts = cut((0..3_000).map(long).collect::<Vec<_>>());
    assert!(parts.len() >= 6, "{}", parts.len());
    assert!(parts.iter().all(|p| p.iter().map(Weight::weight).sum::<usize>() <= BATCH_BYTES_MAX));
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 3_000);
    let send = async { sink.send((0..3_000).map(long).collect()).await.expect("open") };
    let receive = async {
        let mut n = 0;
        while n < 3_000 {
            n += replies.next().await.expect("open").expect("good").len();
        }
        n
    };
    assert_eq!(tokio::join!(send, receive).1, 3_000);
}

/// Border cases of frames, groups and unary calls.
const SIZES: [usize; 10] = [
    0,
    1,
    GROUP_BYTES - 1,
    GROUP_BYTES,
    GROUP_BYTES + 1,
    (1 << 20) - 1,
    1 << 20,
    (4 << 20) - 1,
    (4 << 20) + 1,
    (10 << 20) + 7,
];

fn bytes_of(size: usize) -> Bytes {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn blobs_of_all_sizes_are_staged_and_fetched_whole_and_in_slices() {
    let world = World::new(Host::default(), Limits::default()).await;
    let link = world.link();
    for size in SIZES {
        let bytes = bytes_of(size);
        let staged = link.stage(Body::Blob(dstore_shared::Blob::hash(bytes.clone()))).await.expect("staged");
        assert_eq!(staged, (BlobHash::of(&bytes), size as u64));
        let slices = [
            Slice::ALL,
            Slice { offset: 0, len: Some(1) },
            Slice { offset: size as u64 / 2, len: None },
            Slice { offset: size as u64 / 3, len: Some(GROUP_BYTES as u64 + 3) },
            Slice { offset: size as u64, len: Some(5) },
            Slice { offset: 0, len: Some(u64::MAX) },
        ];
        for slice in slices {
            let range = slice.within(size as u64).expect("within");
            let fetched = link.fetch(staged.0, slice).await.expect("fetched").expect("there");
            assert_eq!(fetched.size, size as u64);
            let got = Body::Stream(fetched.body).collect(1 << 30).await.expect("verified");
            assert_eq!(got, bytes.slice(range.start as usize..range.end as usize), "{size} {slice:?}");
        }
        let past = Slice { offset: size as u64 + 1, len: None };
        assert_eq!(link.fetch(staged.0, past).await.err().expect("past the end").kind(), Kind::Invalid);
    }
    assert!(link.fetch(BlobHash::of(b"nobody"), Slice::ALL).await.expect("asked").is_none());
}

#[tokio::test]
async fn a_damaged_group_ends_a_fetch_and_only_what_is_before_it_was_passed_on() {
    let damaged = Some(2 * GROUP_BYTES + 5);
    let world = World::new(Host { damaged, ..Host::default() }, Limits::default()).await;
    let link = world.link();
    let bytes = bytes_of(4 * GROUP_BYTES);
    let (hash, _) = link.stage(Body::Bytes(bytes.clone())).await.expect("staged");
    let mut body = link.fetch(hash, Slice::ALL).await.expect("fetched").expect("there").body;
    let mut good = Vec::new();
    let failed = loop {
        match body.next().await.expect("an end") {
            Ok(piece) => good.extend_from_slice(&piece),
            Err(e) => break e,
        }
    };
    assert_eq!(failed.kind(), Kind::Corrupt);
    assert_eq!(good, bytes[..2 * GROUP_BYTES]);
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn a_value_that_global_received_otherwise_than_it_was_sent_is_refused_streamed_or_whole() {
    let world = World::new(Host { garbles: true, ..Host::default() }, Limits::default()).await;
    let link = world.link();
    let bytes = bytes_of(3 << 20);
    let pieces = stream::iter([Ok(bytes.slice(..1 << 20)), Ok(bytes.slice(1 << 20..))]);
    let blob = dstore_shared::Blob::hash(bytes.clone());
    for body in [Body::Blob(blob), Body::Bytes(bytes), Body::Stream(Box::pin(pieces))] {
        let refused = link.stage(body).await.expect_err("other bytes are there");
        assert_eq!(refused.kind(), Kind::Corrupt);
        assert!(refused.message().contains("stage it again"), "{refused}");
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_off_ends_with_an_error_at_the_host() {
    let world = World::new(Host::default(), Limits::default()).await;
    let link = world.link();
    let host = world.host.clone();
    let fails = stream::once(async move {
        eventually("the upload has begun", || host.uploads.load(Ordering::SeqCst) == 1).await;
        Err(Error::corrupt("the disk says no"))
    });
    let half = stream::iter([Ok(bytes_of(1 << 20))]).chain(fails);
    let failed = link.stage(Body::Stream(Box::pin(half))).await.expect_err("half");
    assert_eq!((failed.kind(), failed.message()), (Kind::Corrupt, "the disk says no"));
    eventually("the host hears of it", || world.host.cut_uploads.load(Ordering::SeqCst) == 1).await;

    let (part, parts) = mpsc::channel(1);
    let parts = stream::unfold(parts, |mut parts| async { parts.recv().await.map(|part| (part, parts)) });
    let task = tokio::spawn(async move { link.stage(Body::Stream(Box::pin(parts))).await });
    part.send(Ok(bytes_of(1000))).await.expect("open");
    eventually("the upload has begun", || world.host.uploads.load(Ordering::SeqCst) == 2).await;
    task.abort();
    eventually("the host hears of that too", || world.host.cut_uploads.load(Ordering::SeqCst) == 2).await;
    assert!(world.host.blobs.lock().is_empty());
}

#[tokio::test]
async fn stopping_ends_open_streams_within_the_drain_time() {
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let world = World::new(Host::default(), limits).await;
    let (up, mut down) = world.link().open_session();
    up.send(hello("a")).await.expect("open");
    assert!(down.next().await.expect("open").is_ok());
    let stopped = tokio::time::timeout(Duration::from_secs(2), world.serving.stop()).await;
    assert!(stopped.is_ok(), "a session that stays open must not hold the stop up");
    assert_eq!(world.host.sessions.load(Ordering::SeqCst), 0);
    let end = tokio::time::timeout(Duration::from_secs(2), down.next()).await.expect("an end");
    assert!(end.is_none_or(|frame| frame.is_err_and(|e| e.kind() == Kind::Unavailable)));
}

#[tokio::test]
async fn no_part_of_a_batch_has_more_names_than_may_be_read_however_short_they_are() {
    let namespace = Namespace::new(Bytes::from_static(b"n")).expect("valid");
    let short = Name::new(&namespace, &Key::new(Bytes::from_static(b"k")).expect("valid"));
    let del = |n: u64| {
        let command = Command::Delete { names: vec![short.clone(); 10_000], mode: DeleteMode::Strict };
        Request { ask: Ask::Change { id: RequestId::default(), command }, ..resolve(n) }
    };
    for part in cut((0..20).map(del).collect()) {
        let bytes = pack_requests(part).expect("packed").encode_to_vec();
        crate::codec::read::<wire::RequestBatch>(&mut &bytes[..]).expect("as many as may be read");
    }
}
