//! How fast the wire is by itself: the tier link and the door over loopback TCP, with stores that do nothing.
//!
//! Prints rates and percentiles; decides nothing. Run with `cargo bench -p dstore-proto`.

use bytes::Bytes;
use dstore_proto::RemoteStore;
use dstore_proto::dial::{Channel, Dial};
use dstore_proto::link::{Fetch, Frames, LinkClient, LinkHost};
use dstore_proto::serve::{Limits, Routes, Serving};
use dstore_proto::store::{
    Body, BodyStream, DeleteReply, Found, FoundMany, ListQuery, Listing, Provenance, SetOne, SetReply, Slice,
    Stat, StatMany, Status, Store, Target, Tier,
};
use dstore_proto::watch::{WatchQuery, Watching};
use dstore_shared::frame::{Answer, Ask, Down, Reply, Request, Resolved, Up};
use dstore_shared::{
    Blob, BlobHash, Born, CopyOutcome, Entry, Epoch, Error, FlightId, HistoryId, Name, OutlineBuilder,
    Prefix, PrefixOutcome, RegSeq, RequestId, Result, Revision,
};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EPOCH: Epoch = Epoch { history: HistoryId(7), boot: 1, counter: 1 };
const BORN: Born = Born { history: HistoryId(7), boot: 1, at_ms: 1_000 };

/// Answers everything with the same blob.
struct Null {
    blob: Blob,
    outline: Bytes,
}

impl Null {
    fn of(bytes: Bytes) -> Self {
        let mut outline = OutlineBuilder::new();
        outline.update(&bytes);
        Self { outline: outline.finish().1.encode(), blob: Blob::hash(bytes) }
    }

    fn entry(&self) -> Entry {
        Entry {
            hash: self.blob.id(),
            size: self.blob.size(),
            bind_rev: Revision(1),
            expires_at: None,
            content_type: None,
        }
    }
}

impl LinkHost for Null {
    async fn session(&self, _: Frames<Up>) -> Result<Frames<Down>> {
        Err(Error::invalid("not here"))
    }

    async fn requests(&self, up: Frames<Vec<Request>>) -> Result<Frames<Vec<Reply>>> {
        let entry = Some(self.entry());
        let answer = move |request: Request| {
            let entry = entry.clone();
            let found = Resolved { entry, carried: None, cacheable: Some(request.epoch), head: Revision(1) };
            Reply { flight: request.flight, answer: Answer::Resolved(found), born: BORN, journal_ms: 0 }
        };
        Ok(Box::pin(up.map(move |batch| Ok(batch?.into_iter().map(&answer).collect()))))
    }

    async fn stage(&self, _: Option<u64>, mut body: BodyStream) -> Result<(BlobHash, u64)> {
        let mut hasher = OutlineBuilder::new();
        while let Some(piece) = body.next().await {
            hasher.update(&piece?);
        }
        let size = hasher.size();
        Ok((hasher.finish().0, size))
    }

    async fn fetch(&self, _: BlobHash, _: Slice) -> Result<Option<Fetch>> {
        let body = Body::Blob(self.blob.clone()).into_stream();
        Ok(Some(Fetch { size: self.blob.size(), outline: self.outline.clone(), body }))
    }
}

impl Store for Null {
    async fn get(&self, _: Target, _: Slice) -> Result<Option<Found>> {
        let from = Provenance::new(Tier::Local, true, Revision(1));
        Ok(Some(Found { entry: self.entry(), from, body: Body::Blob(self.blob.clone()) }))
    }

    async fn set(&self, _: RequestId, _: Option<Name>, _: Body) -> Result<SetReply> {
        Err(Error::invalid("not here"))
    }

    async fn bind(&self, _: RequestId, _: Name, _: BlobHash, _: u64) -> Result<SetReply> {
        Err(Error::invalid("not here"))
    }

    async fn delete(&self, _: RequestId, _: Vec<Name>) -> Result<DeleteReply> {
        Err(Error::invalid("not here"))
    }

    async fn get_many(&self, _: Vec<Name>) -> Result<FoundMany> {
        Err(Error::invalid("not here"))
    }

    async fn set_many(&self, _: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        Err(Error::invalid("not here"))
    }

    async fn copy(&self, _: RequestId, _: Name, _: Name) -> Result<CopyOutcome> {
        Err(Error::invalid("not here"))
    }

    async fn rename(&self, _: RequestId, _: Name, _: Name) -> Result<CopyOutcome> {
        Err(Error::invalid("not here"))
    }

    async fn stat_many(&self, _: Vec<Name>) -> Result<StatMany> {
        Err(Error::invalid("not here"))
    }

    async fn exists(&self, _: Vec<Name>) -> Result<Vec<bool>> {
        Err(Error::invalid("not here"))
    }

    async fn delete_prefix(&self, _: RequestId, _: Prefix) -> Result<PrefixOutcome> {
        Err(Error::invalid("not here"))
    }

    async fn stat(&self, _: Target) -> Result<Option<Stat>> {
        Ok(None)
    }

    async fn list(&self, _: ListQuery) -> Result<Listing> {
        Err(Error::invalid("not here"))
    }

    async fn watch(&self, _: WatchQuery) -> Result<Watching> {
        Err(Error::invalid("not here"))
    }

    async fn status(&self) -> Result<Status> {
        Err(Error::invalid("not here"))
    }
}

async fn serve(sys: &Sys, tasks: &Tasks, bytes: Bytes) -> Result<Serving> {
    let listen = sys.net.listen(&Address::Tcp("127.0.0.1:0".into())).await;
    let listener = listen.map_err(|e| Error::unavailable(e.to_string()))?;
    let null = Arc::new(Null::of(bytes));
    let routes = Routes::new(tasks, &Limits::default());
    let ids = || Ok(RequestId { n: 1, born: BORN, ..RequestId::default() });
    Serving::start(sys, tasks, listener, routes.link(null.clone()).store(null, Arc::new(ids)))
}

/// Resolves per second over one stream, with `window` batches of `batch` requests in flight.
async fn resolves(link: &LinkClient, batch: usize, window: usize, total: usize) -> Result<()> {
    let (sink, mut replies) = link.open_requests();
    let names: Vec<Name> = (0..1_000).map(|n| Name::of(format!("user:{n:08}"))).collect::<Result<_>>()?;
    let ask = |n: usize| Request {
        flight: FlightId(n as u64),
        epoch: EPOCH,
        reg_seq: RegSeq(n as u64),
        ask: Ask::Resolve { name: names[n % names.len()].clone(), have: None, cache: true, carry: true },
    };
    let begun = Instant::now();
    let (mut sent, mut got) = (0, 0);
    while got < total {
        while sent < total && sent - got < batch * window {
            sink.send((sent..sent + batch).map(ask).collect()).await?;
            sent += batch;
        }
        got += replies.next().await.ok_or_else(|| Error::closed("the stream ended"))??.len();
    }
    let rate = got as f64 / begun.elapsed().as_secs_f64();
    println!("tier_link/resolve/{window} batches of {batch} in flight: {:.0} k/s", rate / 1e3);
    Ok(())
}

async fn gets(store: &RemoteStore, in_flight: usize, total: usize) -> Result<()> {
    let name = Name::of("user:1")?;
    let begun = Instant::now();
    let one = |_| async {
        let begun = Instant::now();
        store.get(Target::Name(name.clone()), Slice::ALL).await.map(|_| begun.elapsed())
    };
    let mut calls = futures_util::stream::iter(0..total).map(one).buffer_unordered(in_flight);
    let mut times = Vec::with_capacity(total);
    while let Some(time) = calls.next().await {
        times.push(time?);
    }
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    println!(
        "remote_store/get 100 B/{in_flight} in flight: {:.1} k/s, p50 {:.0} us, p99 {:.0} us",
        rate / 1e3,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

async fn bulk(link: &LinkClient, blob: &Blob) -> Result<()> {
    let rate = |begun: Instant| blob.size() as f64 / begun.elapsed().as_secs_f64() / 1e9;
    let begun = Instant::now();
    link.stage(Body::Blob(blob.clone())).await?;
    println!("tier_link/stage {} MiB, hashed: {:.2} GB/s", blob.size() >> 20, rate(begun));
    let begun = Instant::now();
    let fetched = link.fetch(blob.id(), Slice::ALL).await?.ok_or_else(|| Error::internal("not there"))?;
    let (mut body, mut size) = (fetched.body, 0);
    while let Some(piece) = body.next().await {
        size += piece?.len() as u64;
    }
    println!("tier_link/fetch {} MiB, verified: {:.2} GB/s", size >> 20, rate(begun));
    Ok(())
}

async fn all() -> Result<()> {
    let (sys, tasks) = (Sys::real(), Tasks::new());
    let small = serve(&sys, &tasks, Bytes::from_static(&[7; 100])).await?;
    let dial = Dial::default();
    let link = LinkClient::new(&sys, &tasks, small.address(), &dial);
    for (batch, window) in [(1, 64), (16, 8), (64, 8), (256, 4)] {
        resolves(&link, batch, window, batch.min(16) * 65_536).await?;
    }
    let store = RemoteStore::new(Channel::new(&sys, &tasks, small.address(), &dial), &dial);
    for in_flight in [1, 64] {
        gets(&store, in_flight, 20_000 * (in_flight.min(4))).await?;
    }
    let bytes = Bytes::from(vec![7; 512 << 20]);
    let large = serve(&sys, &tasks, bytes.clone()).await?;
    bulk(&LinkClient::new(&sys, &tasks, large.address(), &dial), &Blob::hash(bytes)).await?;
    tokio::time::timeout(Duration::from_secs(10), tasks.stop()).await.ok();
    Ok(())
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::internal(e.to_string()))?;
    runtime.block_on(all())
}
