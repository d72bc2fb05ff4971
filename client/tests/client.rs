//! A client against a small store, over every kind of connection.

#[path = "../../tests/boundaries/mod.rs"]
mod boundaries;
#[path = "../../proto/tests/fake/mod.rs"]
mod fake;

use boundaries::SIZES;
use bytes::Bytes;
use dstore_client::{
    Address, Body, Client, ClientConfig, Event, Happened, Seen, Slice, Target, Tier, Watch, WatchQuery,
};
use dstore_proto::RemoteStore;
use dstore_proto::dial::Dial;
use dstore_proto::serve::{Limits, Routes, Serving};
use dstore_shared::{BlobHash, Error, Kind, Name, Namespace, RequestId, Revision, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::clock::ManualClock;
use dstore_sys::net::MemoryNet;
use dstore_sys::tasks::Tasks;
use fake::{BORN, FakeStore, bytes_of, eventually};
use futures_util::stream;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct World {
    store: Arc<FakeStore>,
    sys: Sys,
    tasks: Tasks,
    at: Address,
    serving: Option<Serving>,
}

impl World {
    async fn at(at: Address) -> Self {
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let mut world = Self { store: Arc::default(), sys, tasks: Tasks::new(), at, serving: None };
        world.start().await;
        world
    }

    async fn memory() -> Self {
        Self::at(Address::Memory("node".into())).await
    }

    async fn start(&mut self) {
        let limits = Limits { drain: Duration::from_millis(10), ..Limits::default() };
        let listener = self.sys.net.listen(&self.at).await.expect("free");
        let n = AtomicU64::new(0);
        let ids = move || {
            Ok(RequestId { n: n.fetch_add(1, Ordering::SeqCst) + 1, born: BORN, ..Default::default() })
        };
        let routes = Routes::new(&self.tasks, &limits).store(self.store.clone(), Arc::new(ids));
        let serving = Serving::start(&self.sys, &self.tasks, listener, routes).expect("started");
        self.at = serving.address().clone();
        self.serving = Some(serving);
    }

    async fn stop(&mut self) {
        self.serving.take().expect("started").stop().await;
    }

    fn client(&self) -> Client {
        self.client_with(ClientConfig::default())
    }

    fn client_with(&self, config: ClientConfig) -> Client {
        Client::connect(&self.sys, &self.at, config)
    }
}

fn name(key: &str) -> Name {
    Name::of(key.to_owned()).expect("valid")
}

async fn all_sizes_go_in_and_out(world: &World) {
    let client = world.client();
    for streams in [false, true] {
        world.store.streams.store(streams, Ordering::SeqCst);
        for size in SIZES {
            let (bytes, name) = (bytes_of(size), name(&format!("{size} {streams}")));
            assert!(client.get(&name).await.expect("asked").is_none());
            let set = client.set(&name, bytes.clone()).await.expect("set");
            let SetOutcome::Stored(entry) = set.outcome else { panic!("{set:?}") };
            assert_eq!((entry.hash, entry.size), (BlobHash::of(&bytes), size as u64));
            let value = client.get(&name).await.expect("asked").expect("there");
            assert_eq!((&value.bytes, value.entry), (&bytes, entry.clone()), "{size}");
            let by_hash = client.get_hash(entry.hash).await.expect("asked").expect("there");
            assert_eq!((by_hash.bytes, by_hash.entry.bind_rev.0), (bytes.clone(), 0));
            let slice = Slice { offset: size as u64 / 3, len: Some(1 << 20) };
            let found = client.get_stream(&Target::Name(name.clone()), slice).await.expect("asked");
            let part = found.expect("there").body.collect(1 << 20).await.expect("read");
            assert_eq!(part, bytes.slice(size / 3..(size / 3 + (1 << 20)).min(size)));
        }
    }
}

#[tokio::test]
async fn values_of_all_sizes_go_in_and_out_in_memory() {
    all_sizes_go_in_and_out(&World::memory().await).await;
}

#[tokio::test]
async fn values_of_all_sizes_go_in_and_out_over_tcp() {
    all_sizes_go_in_and_out(&World::at(Address::Tcp("127.0.0.1:0".into())).await).await;
}

#[tokio::test]
async fn values_of_all_sizes_go_in_and_out_over_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    all_sizes_go_in_and_out(&World::at(Address::Unix(dir.path().join("s"))).await).await;
}

#[tokio::test]
async fn names_are_written_once_and_freed_by_deletes() {
    let world = World::memory().await;
    let client = world.client();
    let (a, b) = (name("a"), name("b"));
    assert!(matches!(client.set(&a, "1").await.expect("set").outcome, SetOutcome::Stored(_)));
    assert!(matches!(client.set(&a, "1").await.expect("set").outcome, SetOutcome::Unchanged(_)));
    let occupied = client.set(&a, "2").await.expect("set").outcome;
    assert!(matches!(occupied, SetOutcome::Occupied(e) if e.hash == BlobHash::of(b"1")));
    let put = client.put("nameless").await.expect("put").outcome;
    assert!(matches!(put, SetOutcome::Stored(e) if e.hash == BlobHash::of(b"nameless") && e.bind_rev.0 == 0));
    let long: Vec<Name> = (0..1_000).map(|n| name(&format!("{n}"))).chain([a.clone()]).collect();
    let exists = client.exists(&long).await.expect("asked");
    assert_eq!((exists.len(), exists.iter().filter(|e| **e).count(), exists[1_000]), (1_001, 1, true));
    let stat = client.stat(&Target::Name(a.clone())).await.expect("asked").expect("there");
    assert_eq!((stat.entry.size, stat.from.tier), (1, Tier::Global));
    let deleted = client.delete(&[a.clone(), b.clone()]).await.expect("deleted");
    assert_eq!(deleted.removed, [true, false]);
    assert!(client.stat(&Target::Name(a.clone())).await.expect("asked").is_none());
    assert_eq!(client.delete(&[]).await.expect_err("no name").kind(), Kind::Invalid);
    let status = client.status().await.expect("asked");
    assert_eq!((status.born, status.serving), (Some(BORN), true));
    assert_eq!(status.facts, [("engine".to_owned(), "fake".to_owned())]);
}

#[tokio::test]
async fn each_change_has_an_id_of_its_own_counted_from_one() {
    let world = World::memory().await;
    let client = world.client();
    for n in 0..5 {
        client.set(&name(&n.to_string()), "x").await.expect("set");
    }
    client.delete(&[name("0")]).await.expect("deleted");
    let ids = world.store.ids.lock().clone();
    assert_eq!(ids.iter().map(|id| id.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(ids.iter().all(|id| id.client == client.id() && id.born == BORN));
    assert_ne!(client.id(), world.client().id());
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_with_the_connection_is_made_once() {
    let mut world = World::memory().await;
    let client = world.client();
    for (size, key) in [(5, "small"), (2 << 20, "large")] {
        world.store.ids.lock().clear();
        world.store.unanswered.store(1, Ordering::SeqCst);
        let key = name(key);
        let set = client.set(&key, bytes_of(size));
        let restart = async {
            eventually("the change is made", || world.store.unanswered.load(Ordering::SeqCst) == 0).await;
            world.stop().await;
            world.start().await;
        };
        let (set, ()) = tokio::join!(set, restart);
        let outcome = set.expect("tried again").outcome;
        assert!(matches!(outcome, SetOutcome::Stored(_)), "{outcome:?}");
        let ids = world.store.ids.lock().clone();
        assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    }
}

#[tokio::test]
async fn a_read_is_tried_again_and_other_errors_are_not() {
    let world = World::memory().await;
    let client = world.client();
    client.set(&name("a"), "1").await.expect("set");
    world.store.failing.store(3, Ordering::SeqCst);
    let value = client.get(&name("a")).await.expect("tried again").expect("there");
    assert_eq!(value.bytes, "1");
    assert_eq!(world.store.failing.load(Ordering::SeqCst), 0);
    let past = Slice { offset: 2, len: None };
    let e = client.get_stream(&Target::Name(name("a")), past).await.expect_err("past the end");
    assert_eq!(e.kind(), Kind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_unavailable_by_the_deadline() {
    let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
    let client = Client::connect(&sys, &Address::Memory("nobody".into()), ClientConfig::default());
    let limit = Duration::from_millis(5_100);
    let get = tokio::time::timeout(limit, client.get(&name("a"))).await.expect("in time");
    let set = tokio::time::timeout(limit, client.set(&name("a"), "1")).await.expect("in time");
    for e in [get.expect_err("nobody"), set.expect_err("nobody")] {
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.message().contains("connection"), "{e}");
        assert!(!e.message().contains("outcome unknown"), "nothing was sent: {e}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_never_answered_says_that_its_outcome_is_unknown() {
    let world = World::memory().await;
    // A call's own deadline is as long: it must not be chance which of the two speaks.
    let client = world.client();
    world.store.unanswered.store(usize::MAX, Ordering::SeqCst);
    let set = tokio::time::timeout(Duration::from_secs(6), client.set(&name("a"), "1")).await;
    let e = set.expect("the deadline is 5 s").expect_err("no answer");
    assert_eq!(e.kind(), Kind::Unavailable);
    let at = &world.at;
    let told = format!("outcome unknown: no answer from `{at}` within 5 s, look before you repeat it");
    assert_eq!(e.message(), told);
    assert_eq!(world.store.names(), 1);
}

#[tokio::test]
async fn bytes_that_do_not_match_their_hash_are_never_given_out_whole() {
    let world = World::memory().await;
    let client = world.client();
    for (size, streams) in [(1, false), (1, true), (1 << 20, false), (1 << 20, true)] {
        let (key, bytes) = (name(&format!("{size}{streams}")), bytes_of(size));
        client.set(&key, bytes.clone()).await.expect("set");
        world.store.streams.store(streams, Ordering::SeqCst);
        world.store.damaged.store(true, Ordering::SeqCst);
        let e = client.get(&key).await.expect_err("damaged");
        assert_eq!(e.kind(), Kind::Corrupt, "{size} {streams}");
        if let Ok(Some(found)) = client.get_stream(&Target::Name(key), Slice::ALL).await {
            let pieces: Vec<_> = futures_util::StreamExt::collect(found.body.into_stream()).await;
            let (last, before) = pieces.split_last().expect("an end");
            assert_eq!(last.as_ref().expect_err("damaged").kind(), Kind::Corrupt);
            let passed: usize = before.iter().map(|p| p.as_ref().expect("good").len()).sum();
            assert!(passed < size);
        }
        world.store.damaged.store(false, Ordering::SeqCst);
        world.store.streams.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_stream_is_set_whole_or_not_at_all() {
    let world = World::memory().await;
    let client = world.client();
    let bytes = bytes_of((3 << 20) + 5);
    let whole = Body::Bytes(bytes.clone()).into_stream();
    let set = client.set_stream(Some(&name("whole")), whole).await.expect("set");
    assert!(matches!(set.outcome, SetOutcome::Stored(e) if e.hash == BlobHash::of(&bytes)));
    let store = world.store.clone();
    let fails = stream::once(async move {
        eventually("the upload has begun", || store.bodies.load(Ordering::SeqCst) == 2).await;
        Err(Error::closed("the source went away"))
    });
    let half = futures_util::StreamExt::chain(stream::iter([Ok(bytes_of(1 << 20))]), fails);
    let e = client.set_stream(Some(&name("half")), Box::pin(half)).await.expect_err("half");
    assert_eq!((e.kind(), e.message()), (Kind::Closed, "the source went away"));
    eventually("the store hears of it", || world.store.cut_bodies.load(Ordering::SeqCst) == 1).await;
    assert!(client.get(&name("half")).await.expect("asked").is_none());
    assert_eq!(world.store.names(), 1);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_stream_at_the_store() {
    let world = World::memory().await;
    let client = world.client();
    let size = 64 << 20;
    client.set(&name("a"), bytes_of(size)).await.expect("set");
    world.store.streams.store(true, Ordering::SeqCst);
    let found = client.get_stream(&Target::Name(name("a")), Slice::ALL).await.expect("asked").expect("there");
    let mut body = found.body.into_stream();
    assert!(futures_util::StreamExt::next(&mut body).await.expect("more").is_ok());
    assert_eq!(world.store.streaming.load(Ordering::SeqCst), 1);
    drop(body);
    eventually("the stream ends", || world.store.streaming.load(Ordering::SeqCst) == 0).await;
    let taken = world.store.streamed.load(Ordering::SeqCst);
    assert!(taken < 16 << 20, "a slow reader must slow the store: `{taken}` bytes were taken");
}

#[tokio::test]
async fn a_stream_outlives_the_client_that_began_it() {
    let world = World::memory().await;
    let client = world.client();
    let bytes = bytes_of(24 << 20);
    client.set(&name("a"), bytes.clone()).await.expect("set");
    let found = client.get_stream(&Target::Name(name("a")), Slice::ALL).await.expect("asked").expect("there");
    drop(client);
    assert_eq!(found.body.collect(1 << 30).await.expect("whole"), bytes);
    eventually("the connection ends after it", || {
        world.serving.as_ref().is_some_and(|s| s.counts().open == 0)
    })
    .await;
}

#[tokio::test]
async fn too_large_a_value_names_the_other_form() {
    let world = World::memory().await;
    let client = world.client_with(ClientConfig { get_bytes_max: 1_000, ..ClientConfig::default() });
    client.set(&name("a"), bytes_of(1_001)).await.expect("set");
    let e = client.get(&name("a")).await.expect_err("too large");
    assert!(e.kind() == Kind::TooLarge && e.message().contains("stream"), "{e}");
}

#[tokio::test]
async fn many_changes_at_once_each_have_one_id() {
    let world = World::memory().await;
    // Their deadlines begin together, and a loaded machine works them off one by one.
    let patient = ClientConfig { deadline: Duration::from_secs(60), ..ClientConfig::default() };
    let client = world.client_with(patient);
    let sets = (0..3_000).map(|n| {
        let client = client.clone();
        async move { client.set(&name(&n.to_string()), Bytes::from(n.to_string())).await }
    });
    let done = futures_util::future::try_join_all(sets).await.expect("set");
    assert!(done.iter().all(|reply| matches!(reply.outcome, SetOutcome::Stored(_))));
    let ids: HashSet<u64> = world.store.ids.lock().iter().map(|id| id.n).collect();
    assert_eq!(ids, (1..=3_000).collect());
}

#[tokio::test]
async fn a_client_works_over_any_store() {
    let store = Arc::new(FakeStore::default());
    let client = Client::over(&Sys::real(), store, ClientConfig::default());
    client.set(&name("a"), "1").await.expect("set");
    assert_eq!(client.get(&name("a")).await.expect("asked").expect("there").bytes, "1");
}

/// A body that takes eleven minutes by every clock.
fn slow_body(world: &World, clock: &Arc<ManualClock>, bytes: &Bytes) -> dstore_client::BodyStream {
    let (store, clock) = (world.store.clone(), clock.clone());
    let wait = stream::once(async move {
        clock.advance(Duration::from_secs(660));
        store.late_ms.fetch_add(660_000, Ordering::SeqCst);
        Ok(Bytes::new())
    });
    let (half, rest) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
    let pieces = |bytes| Body::Bytes(bytes).into_stream();
    Box::pin(futures_util::StreamExt::chain(futures_util::StreamExt::chain(pieces(half), wait), pieces(rest)))
}

#[tokio::test]
async fn an_upload_longer_than_an_id_lives_is_bound_at_its_end() {
    let clock = Arc::new(ManualClock::default());
    let mut world = World::memory().await;
    world.sys = Sys { clock: clock.clone(), ..world.sys };
    let client = world.client();
    for (key, size) in [("small", 5), ("large", 3 << 20)] {
        let bytes = bytes_of(size);
        let body = slow_body(&world, &clock, &bytes);
        let set = client.set_stream(Some(&name(key)), body).await.expect("set");
        assert!(
            matches!(set.outcome, SetOutcome::Stored(ref e) if e.hash == BlobHash::of(&bytes)),
            "{set:?}"
        );
        assert_eq!(client.get(&name(key)).await.expect("asked").expect("bound").bytes, bytes);
    }
    // A value in memory that a slow link takes as long for: the put is the upload.
    let begun = world.store.late_ms.load(Ordering::SeqCst);
    let staged = client.stage(slow_body(&world, &clock, &bytes_of(2 << 20))).await.expect("staged");
    assert_eq!(world.store.names(), 2, "staging binds nothing");
    clock.advance(Duration::from_secs(660));
    world.store.late_ms.store(begun + 2 * 660_000, Ordering::SeqCst);
    client.bind(&name("staged"), staged).await.expect("bound");
    assert_eq!(world.store.names(), 3);
}

#[tokio::test]
async fn a_staged_blob_is_bound_once_though_the_answer_was_lost() {
    let mut world = World::memory().await;
    let client = world.client();
    let staged = client.stage(Body::Bytes(bytes_of(2 << 20)).into_stream()).await.expect("staged");
    world.store.ids.lock().clear();
    world.store.unanswered.store(1, Ordering::SeqCst);
    let key = name("k");
    let bind = client.bind(&key, staged);
    let restart = async {
        eventually("the change is made", || world.store.unanswered.load(Ordering::SeqCst) == 0).await;
        world.stop().await;
        world.start().await;
    };
    let (bound, ()) = tokio::join!(bind, restart);
    assert!(matches!(bound.expect("tried again").outcome, SetOutcome::Stored(_)));
    let ids = world.store.ids.lock().clone();
    assert!(ids.len() == 2 && ids[0] == ids[1], "one id over all attempts: {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_may_wait_for_its_own_input_for_any_time() {
    let world = World::memory().await;
    let client = world.client();
    let bytes = bytes_of(3 << 20);
    // Less than a chunk, then nothing for far longer than either side's idle deadline.
    let parts = [0..(1 << 20) + 7, (1 << 20) + 7..(2 << 20), 2 << 20..3 << 20].map(|part| bytes.slice(part));
    let slow = stream::unfold(parts.into_iter(), |mut parts| async move {
        tokio::time::sleep(Duration::from_secs(200)).await;
        Some((Ok(parts.next()?), parts))
    });
    let set = client.set_stream(Some(&name("slow")), Box::pin(slow)).await.expect("set");
    assert!(matches!(set.outcome, SetOutcome::Stored(e) if e.hash == BlobHash::of(&bytes)));
    assert_eq!(world.store.cut_bodies.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_takes_ends_and_says_that_nothing_was_stored() {
    let world = World::memory().await;
    let client = world.client();
    world.store.deaf.store(true, Ordering::SeqCst);
    let body = Body::Bytes(bytes_of(32 << 20)).into_stream();
    let limit = 2 * Dial::default().transfer_idle + Duration::from_secs(1);
    let key = name("a");
    let set = tokio::time::timeout(limit, client.set_stream(Some(&key), body)).await;
    let e = set.expect("in time").expect_err("nobody takes it");
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(!e.message().contains("outcome unknown") && e.message().contains("nothing was stored"), "{e}");
    assert_eq!(world.store.names(), 0);
}

fn event(revision: u64, key: &str) -> Event {
    Event {
        revision: Revision(revision),
        at_ms: revision,
        key: name(key).key(),
        happened: Happened::Unbound(None),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a watch gives it")]
fn seen(events: &[(u64, &str)], through: u64) -> dstore_shared::Result<Seen> {
    let events = events.iter().map(|(revision, key)| event(*revision, key)).collect();
    Ok(Seen { events, through: Revision(through) })
}

fn watch_query(after: Option<u64>) -> WatchQuery {
    WatchQuery {
        namespace: Namespace::default(),
        prefix: Bytes::new(),
        after: after.map(Revision),
        history: None,
    }
}

/// What a watch gives until everything up to `through` has come.
async fn watched(watch: &mut Watch<RemoteStore>, through: u64) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    loop {
        let seen = watch.next().await.expect("it resumes");
        let of = |e: Event| (e.revision.0, String::from_utf8_lossy(e.key.as_bytes()).into_owned());
        all.extend(seen.events.into_iter().map(of));
        if seen.through.0 >= through {
            return all;
        }
    }
}

#[tokio::test]
async fn a_watch_that_is_cut_in_the_middle_of_a_revision_gives_the_rest_of_it_and_nothing_twice() {
    let world = World::memory().await;
    let scripts = [
        vec![seen(&[(2, "a")], 2), seen(&[(3, "b"), (3, "c")], 2)],
        // Cut before as much came as had been given, then after it.
        vec![seen(&[(3, "b")], 2)],
        vec![seen(&[(3, "b"), (3, "c")], 2), seen(&[(3, "d")], 2)],
        vec![],
        vec![seen(&[(3, "b"), (3, "c"), (3, "d"), (3, "e")], 3), seen(&[(4, "b")], 4)],
        vec![seen(&[], 6)],
    ];
    world.store.watches.lock().extend(scripts);
    let mut watch = world.client().watch(watch_query(Some(1)));
    assert_eq!(watch.position(), None);
    let all = watched(&mut watch, 6).await;
    let expected = [(2, "a"), (3, "b"), (3, "c"), (3, "d"), (3, "e"), (4, "b")];
    assert_eq!(all, expected.map(|(revision, key)| (revision, key.to_owned())));
    assert_eq!(watch.position(), Some((BORN.history, Revision(6))));
    let asked = world.store.asked.lock().clone();
    let after: Vec<u64> = asked.iter().map(|query| query.after.expect("a revision").0).collect();
    assert_eq!(after, [1, 2, 2, 2, 2, 4], "after all that was complete");
    assert!(asked[0].history.is_none() && asked[1..].iter().all(|q| q.history == Some(BORN.history)));
}

#[tokio::test]
async fn a_watch_from_now_on_stays_there_when_it_is_cut_before_anything_happened() {
    let world = World::memory().await;
    world.store.watches.lock().extend([vec![], vec![seen(&[(2, "a")], 2)]]);
    let mut watch = world.client().watch(watch_query(None));
    assert_eq!(watched(&mut watch, 2).await, [(2, "a".to_owned())]);
    let after: Vec<_> = world.store.asked.lock().iter().map(|query| query.after).collect();
    assert_eq!(after, [None, Some(Revision(1))], "what happened in between is not left out");
}

#[tokio::test]
async fn a_watch_gives_up_when_the_node_is_away_and_at_once_when_it_is_too_old() {
    let world = World::memory().await;
    let config = ClientConfig { deadline: Duration::from_millis(300), ..ClientConfig::default() };
    let old = dstore_proto::watch::too_old(Revision(1), Revision(7));
    world.store.watches.lock().extend([vec![seen(&[(2, "a")], 2), Err(old)], vec![seen(&[], 3)]]);
    let client = world.client_with(config);
    let mut watch = client.watch(watch_query(Some(1)));
    watch.next().await.expect("one");
    let e = watch.next().await.expect_err("too old");
    assert_eq!((e.kind(), world.store.asked.lock().len()), (Kind::TooOld, 1), "{e}");
    assert!(e.message().contains("`7`"), "{e}");
    assert_eq!(watch.position(), Some((BORN.history, Revision(2))), "from where to go on");
    watch.next().await.expect("another call asks again");
    world.store.failing.store(usize::MAX, Ordering::SeqCst);
    world.store.watches.lock().push_back(vec![]);
    let began = world.sys.clock.now();
    let e = watch.next().await.expect_err("away");
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(world.sys.clock.now().since(began) >= Duration::from_millis(300), "{e}");
}

#[tokio::test]
async fn the_end_of_a_server_ends_its_watches_at_once_and_they_go_on_at_the_next() {
    let mut world = World::memory().await;
    world.store.watches.lock().clear();
    let client = world.client();
    let mut watch = client.watch(watch_query(None));
    let store = world.store.clone();
    let restart = async {
        eventually("it is asked", || store.asked.lock().len() == 1).await;
        world.stop().await;
        store.watches.lock().push_back(vec![seen(&[], 9)]);
        world.start().await;
    };
    let (seen, ()) = tokio::join!(watch.next(), restart);
    assert_eq!(seen.expect("it resumes").through, Revision(9));
    let after = world.store.asked.lock().last().expect("asked").after;
    assert_eq!(after, Some(Revision(1)));
}
