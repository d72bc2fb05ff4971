use super::*;
use dstore_shared::Kind;
use std::sync::atomic::AtomicUsize;
use tokio::sync::Notify;

fn flights() -> BlobFlights {
    BlobFlights::new(FlightLimits { flights_max: 2, waiters_max: 50 })
}

/// A source of one blob that counts its fetches and answers when told.
struct Source {
    blob: Blob,
    fetches: AtomicUsize,
    go: Notify,
}

impl Source {
    fn of(bytes: &'static [u8]) -> Arc<Self> {
        Arc::new(Self { blob: Blob::hash(bytes), fetches: AtomicUsize::new(0), go: Notify::new() })
    }

    async fn fetch(self: Arc<Self>) -> Result<Landed> {
        self.fetches.fetch_add(1, Relaxed);
        self.go.notified().await;
        Ok(Landed::Here(self.blob.clone()))
    }

    fn get(self: &Arc<Self>, flights: &BlobFlights) -> BoxFuture<'static, Result<Landed>> {
        let (flights, source) = (flights.clone(), Arc::clone(self));
        async move { flights.get(source.blob.id(), || source.fetch()).await }.boxed()
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Relaxed)
    }
}

#[tokio::test]
async fn fifty_callers_of_one_blob_make_one_fetch() {
    let (flights, source) = (flights(), Source::of(b"x"));
    let mut callers: Vec<_> = (0..50).map(|_| source.get(&flights)).collect();
    for caller in &mut callers {
        assert!(futures_util::poll!(caller).is_pending());
    }
    assert_eq!((flights.len(), source.fetches()), (1, 1));
    source.go.notify_one();
    for caller in callers {
        assert!(is(&caller.await, source.blob.id()));
    }
    assert!(flights.is_empty());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test]
async fn when_the_leader_goes_away_another_brings_the_same_fetch_home() {
    let (flights, source) = (flights(), Source::of(b"x"));
    let mut leader = source.get(&flights);
    assert!(futures_util::poll!(&mut leader).is_pending());
    let follower = tokio::task::LocalSet::new();
    let got = follower.run_until(async {
        let follower = tokio::task::spawn_local(source.get(&flights));
        tokio::task::yield_now().await;
        drop(leader);
        source.go.notify_one();
        follower.await.unwrap()
    });
    assert!(is(&got.await, source.blob.id()));
    assert_eq!(source.fetches(), 1, "the fetch was taken over, not begun again");
}

#[tokio::test]
async fn when_all_callers_go_away_the_fetch_ends_and_the_next_caller_begins_anew() {
    let (flights, source) = (flights(), Source::of(b"x"));
    let mut callers: Vec<_> = (0..3).map(|_| source.get(&flights)).collect();
    for caller in &mut callers {
        assert!(futures_util::poll!(caller).is_pending());
    }
    drop(callers);
    assert!(flights.is_empty(), "a fetch that nobody waits for is not kept");
    source.go.notify_one();
    source.get(&flights).await.unwrap();
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn all_who_wait_share_an_error_and_it_is_not_remembered() {
    let (flights, hash) = (flights(), BlobHash::of(b"x"));
    let failing = || async { Err(Error::unavailable("global is away: try again")) };
    let (a, b) = tokio::join!(flights.get(hash, failing), flights.get(hash, failing));
    for e in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!(e.kind(), Kind::Unavailable);
    }
    assert!(flights.get(hash, || async { Ok(Landed::Here(Blob::hash("x"))) }).await.is_ok());
}

#[tokio::test]
async fn another_blob_than_the_one_asked_for_is_corrupt() {
    let got = flights().get(BlobHash::of(b"x"), || async { Ok(Landed::Here(Blob::hash("y"))) }).await;
    assert_eq!(got.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn flights_and_waiters_are_bounded() {
    let flights = flights();
    let sources = [Source::of(b"1"), Source::of(b"2"), Source::of(b"3")];
    let mut first: Vec<_> = (0..50).map(|_| sources[0].get(&flights)).collect();
    for caller in &mut first {
        assert!(futures_util::poll!(caller).is_pending());
    }
    let refused = |source: &Arc<Source>| match source.get(&flights).now_or_never() {
        Some(Err(e)) => e.kind() == Kind::Exhausted && e.delay().is_some(),
        _ => false,
    };
    assert!(refused(&sources[0]), "the 51st waits for nothing");
    let mut second = sources[1].get(&flights);
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(refused(&sources[2]), "the third blob is one too many");
    drop(first.pop());
    assert!(futures_util::poll!(sources[0].get(&flights)).is_pending(), "a place is free again");
    drop(second);
    assert!(futures_util::poll!(sources[2].get(&flights)).is_pending(), "a flight is free again");
}

fn is(got: &Result<Landed>, hash: BlobHash) -> bool {
    matches!(got, Ok(Landed::Here(blob)) if blob.id() == hash)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_come_and_go_on_all_threads_never_strand_a_flight() {
    let flights = BlobFlights::new(FlightLimits::default());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..2_000_u32 {
        let flights = flights.clone();
        callers.spawn(async move {
            let bytes = (n % 5).to_le_bytes().to_vec();
            let hash = BlobHash::of(&bytes);
            let get = flights.get(hash, move || async move {
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
                Ok(Landed::Here(Blob::hash(bytes)))
            });
            if n % 3 == 0 {
                let impatient = async {
                    for _ in 0..n % 4 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! { got = get => is(&got, hash), () = impatient => true }
            } else {
                is(&get.await, hash)
            }
        });
    }
    while let Some(good) = callers.join_next().await {
        assert!(good.unwrap());
    }
    assert!(flights.is_empty());
}
