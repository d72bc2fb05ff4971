//! Hostile peers of the tier link: sessions that lie, and request streams that are not read. What a real Local holds, and
//! what a change waits for, is what it would be without them.

use crate::hostile_peer::{DATA, END_HEADERS, Frame, HEADERS, Peer, call, frame, message, no_window};
use crate::rig::{Global, Local, name, noise, until};
use crate::swarm::wire::{Ack, Call, Down, DownFrame, Epoch, Hello, Keep, Listed, Summary, Up, UpFrame};
use dstore_client::{Address, Tier};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A session of whoever says what he likes.
struct Liar {
    io: TcpStream,
    call: Call,
    epoch: Option<Epoch>,
    heard: Vec<Down>,
}

impl Liar {
    /// Says HELLO and waits for the first LEASE.
    async fn attach(at: &Address, id: u8) -> Self {
        let io = TcpStream::connect(at.to_string()).await.expect("connected");
        let mut liar = Self { io, call: Call::begun(), epoch: None, heard: Vec::new() };
        liar.say(UpFrame::Hello(hello(id)), false).await;
        liar.until("the first lease", |f| matches!(f, DownFrame::Lease(_))).await.expect("it is granted");
        liar
    }

    async fn say(&mut self, frame: UpFrame, with_epoch: bool) {
        let epoch = self.epoch.clone().filter(|_| with_epoch);
        self.say_of(epoch, frame).await;
    }

    async fn say_of(&mut self, epoch: Option<Epoch>, frame: UpFrame) {
        self.call.say(&Up { epoch, frame: Some(frame) });
        let out = std::mem::take(&mut self.call.out);
        _ = self.io.write_all(&out).await;
    }

    /// Hears until `wanted` comes; `None` if the stream ends before.
    async fn until(&mut self, what: &str, wanted: impl Fn(&DownFrame) -> bool) -> Option<DownFrame> {
        let hears = async {
            loop {
                while !self.heard.is_empty() {
                    let down = self.heard.remove(0);
                    self.epoch = down.epoch.or(self.epoch.take());
                    if let Some(frame) = down.frame.filter(|frame| wanted(frame)) {
                        return Some(frame);
                    }
                }
                let mut bytes = [0; 4096];
                let n = self.io.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
                let heard = self.call.take(&bytes[..n])?;
                self.heard.extend(heard);
                let out = std::mem::take(&mut self.call.out);
                _ = self.io.write_all(&out).await;
            }
        };
        timeout(crate::hostile_peer::PATIENCE, hears).await.unwrap_or_else(|_| panic!("in time: {what}"))
    }

    /// Whether the stream ends.
    async fn is_ended(&mut self) -> bool {
        self.until("its end", |_| false).await.is_none()
    }
}

fn hello(id: u8) -> Hello {
    Hello {
        version: 2,
        local_id: vec![id; 16],
        incarnation: 1,
        last_epoch: None,
        history: vec![0; 16],
        label: format!("liar-{id}"),
    }
}

fn packed(key: &str) -> Vec<u8> {
    [b"default\0", key.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_the_future_and_of_others_release_no_change_early() {
    // A lease that no slow machine outlasts: what waits for the liar waits for its word.
    let global = Global::start(&["--lease", "10s"]);
    let local = Local::start(&global).await;
    let set = local.client.set(&name("held"), "value").await.expect("set");
    let dstore_shared::SetOutcome::Stored(entry) = set.outcome else { panic!("{set:?}") };
    local.holds("held").await;
    let mut liar = Liar::attach(&global.daemon.at, 1).await;
    let listed = Listed { name: packed("held"), bind_rev: entry.bind_rev.0, reg_seq: u64::MAX };
    liar.say(UpFrame::Summary(Summary { batch: u64::MAX, names: vec![listed], last: true }), true).await;
    let answer = liar.until("the listing", |f| matches!(f, DownFrame::Summarized(_))).await;
    assert!(matches!(answer, Some(DownFrame::Summarized(s)) if s.refused.is_empty()), "it holds the name");
    // Of INVs that were never sent; in the name of another session, of another boot, of another history.
    let own = liar.epoch.clone().expect("attached");
    for seq in [1, 1 << 40, u64::MAX] {
        liar.say(UpFrame::Ack(Ack { seq }), true).await;
        for counter in 0..4 {
            let other = Epoch { counter: own.counter.wrapping_sub(counter), ..own.clone() };
            liar.say_of(Some(other), UpFrame::Ack(Ack { seq })).await;
        }
        let boot = Epoch { boot: own.boot + 1, ..own.clone() };
        liar.say_of(Some(boot), UpFrame::Ack(Ack { seq })).await;
        liar.say_of(Some(Epoch { history: vec![9; 16], ..own.clone() }), UpFrame::Ack(Ack { seq })).await;
    }
    liar.say(UpFrame::Keep(Keep { n: u64::MAX, acked: u64::MAX }), true).await;
    let lease =
        liar.until("its lease", |f| matches!(f, DownFrame::Lease(lease) if lease.n == u64::MAX)).await;
    assert!(lease.is_some());

    let client = global.client();
    let deleting = tokio::spawn(async move { client.delete(&[name("held")]).await });
    let told = liar.until("the invalidation", |f| matches!(f, DownFrame::Inv(_))).await;
    let Some(DownFrame::Inv(inv)) = told else { panic!("{told:?}") };
    // Of another session again, and of a number below.
    let other = Epoch { counter: own.counter + 1, ..own.clone() };
    liar.say_of(Some(other), UpFrame::Ack(Ack { seq: inv.seq })).await;
    liar.say(UpFrame::Ack(Ack { seq: inv.seq - 1 }), true).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!deleting.is_finished(), "it was not acknowledged by whom it was told");
    assert!(
        local.get("held").await.is_none_or(|value| value.from.tier == Tier::Global),
        "no Local serves it"
    );
    liar.say(UpFrame::Ack(Ack { seq: inv.seq }), true).await;
    assert_eq!(deleting.await.expect("no panic").expect("deleted").removed, [true]);
    assert!(local.get("held").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_frames_out_of_order_end_their_stream_and_nobody_elses() {
    let global = Global::start(&["--lease", "1s"]);
    let local = Local::start(&global).await;
    local.client.set(&name("held"), "value").await.expect("set");
    local.holds("held").await;
    let at = &global.daemon.at;
    let mut peers = Vec::new();
    // No HELLO first; no frame at all in a message; a message that is none; a label without end; an unknown version.
    let keep = UpFrame::Keep(Keep { n: 1, acked: 0 });
    let long = Hello { label: "l".repeat(129), ..hello(2) };
    let newer = Hello { version: 99, ..hello(3) };
    let no_id = Hello { local_id: vec![1; 15], ..hello(4) };
    for first in [keep, UpFrame::Hello(long), UpFrame::Hello(no_id)] {
        let io = TcpStream::connect(at.to_string()).await.expect("connected");
        let mut liar = Liar { io, call: Call::begun(), epoch: None, heard: Vec::new() };
        liar.say(first, false).await;
        assert!(liar.is_ended().await);
        peers.push(liar);
    }
    // A newer version that also speaks ours would do; one that is only newer is refused by ours.
    let io = TcpStream::connect(at.to_string()).await.expect("connected");
    let mut liar = Liar { io, call: Call::begun(), epoch: None, heard: Vec::new() };
    liar.say(UpFrame::Hello(newer), false).await;
    assert!(liar.is_ended().await);
    // A second HELLO; a frame that was cut; 513 names; bytes that are no frame.
    for what in 0..4 {
        let mut liar = Liar::attach(at, 10 + what).await;
        match what {
            0 => liar.say(UpFrame::Hello(hello(10)), false).await,
            1 => {
                let cut = frame(DATA, 1, 1, &message(&[0x0a, 9])[..6]);
                _ = liar.io.write_all(&cut).await;
            }
            2 => {
                let listed = |i: u64| Listed { name: packed("held"), bind_rev: i, reg_seq: i };
                let names = (0..513).map(listed).collect();
                liar.say(UpFrame::Summary(Summary { batch: 1, names, last: true }), true).await;
            }
            _ => _ = liar.io.write_all(&frame(DATA, 0, 1, &message(&[0xff; 40]))).await,
        }
        assert!(liar.is_ended().await, "{what}");
    }
    local.serving().await;
    assert_eq!(local.get("held").await.expect("there").bytes, "value");
    // What the liars left is waited for no longer than a lease.
    assert_eq!(local.client.delete(&[name("held")]).await.expect("deleted").removed, [true]);
    until("their sessions are over", async || global.fact("sessions").await == 1).await;
    assert!(global.daemon.err().iter().all(|line| !line.contains("panicked")));
}

/// `RequestBatch` of `n` Resolves that want the bytes of `names` in turn.
fn resolves(names: &[String], n: usize) -> Vec<u8> {
    let mut batch = Vec::new();
    for i in 0..n {
        let packed = packed(&names[i % names.len()]);
        // Resolve { name, carry }, and Request { flight, resolve }.
        let resolve = [&[0x0a, packed.len() as u8][..], &packed, &[0x20, 1]].concat();
        let request = [&[0x08, 1, 0x22, resolve.len() as u8][..], &resolve].concat();
        batch.extend([&[0x0a, request.len() as u8][..], &request].concat());
    }
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_nobody_reads_take_bounded_memory_and_others_are_served() {
    let global = Global::start(&["--lease", "1s"]);
    let local = Local::start(&global).await;
    let names: Vec<String> = (0..400).map(|i| format!("carried-{i}")).collect();
    for (i, some) in names.iter().enumerate() {
        global.client().set(&name(some.clone()), noise(i as u64, 64 << 10)).await.expect("set");
    }
    let before = global.daemon.resident_kib();
    let held = join_all((0..2).map(async |_| {
        // A window of nothing, and two streams of requests.
        let mut peer = Peer::greet_with(&global.daemon.at, &no_window()).await;
        for stream in [1, 3] {
            let mut sent = frame(HEADERS, END_HEADERS, stream, &call("/dstore.v1.Link/Requests"));
            for _ in 0..32 {
                let batch = message(&resolves(&names, 250));
                for data in batch.chunks(16 << 10) {
                    sent.extend(frame(DATA, 0, stream, data));
                }
            }
            peer.say(&sent).await;
        }
        let begins = peer.until(|f: &Frame| f.kind == HEADERS).await;
        assert!(begins.is_some(), "it does not begin: {:?}", peer.told);
        peer
    }))
    .await;
    sleep(Duration::from_secs(1)).await;
    let more = global.daemon.resident_kib().saturating_sub(before) >> 10;
    eprintln!("{more} MiB more for replies that nobody reads");
    assert!(more <= 192, "`{more}` MiB more");
    local.client.set(&name("new"), "value").await.expect("others are served");
    assert_eq!(local.get("carried-7").await.expect("there").bytes.len(), 64 << 10);
    drop(held);
    assert!(global.daemon.err().iter().all(|line| !line.contains("panicked")));
}
