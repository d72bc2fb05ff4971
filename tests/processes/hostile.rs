//! Hostile peers at the doors of both tiers: whoever else asks is answered, memory stays within a bound, the hostile
//! connection is ended or held within limits, and nothing panics.
//!
//! The bounds of memory are those of one attack at a time, several connections each, and of the whole process: what it
//! had before, and what `serve::Limits` lets those connections hold, with the slack of an allocator.

use crate::hostile_peer::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Flooded, GOAWAY, HEADERS, PADDED, PATIENCE, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame, header, message,
    no_window, tls_hello, whole_call,
};
use crate::rig::{Daemon, Global, Local, client_with, name, noise, until};
use dstore_client::Address;
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Whoever is no part of an attack is answered within this, on a machine of two cores with tests beside it.
const SERVED: Duration = Duration::from_secs(60);
/// How long a flood goes on, unless it is ended.
const FLOOD: Duration = Duration::from_millis(700);
/// Connections of one attack.
const PEERS: usize = 4;
/// What one attack may add to a process, besides what its test allows: 2 MiB a connection, and an allocator's slack.
const SLACK_MIB: usize = 48;
/// A value that is not carried in one piece.
const LARGE: usize = 700 << 10;

const GET: &str = "/dstore.v1.Store/Get";
const UPLOAD: &str = "/dstore.v1.Store/Upload";

/// `GetRequest { target { name { key } } }`.
pub fn get(key: &str) -> Vec<u8> {
    let wrap = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    wrap(0x0a, &wrap(0x0a, &wrap(0x12, key.as_bytes())))
}

/// A Global, a Local that holds a name, and what they had before anybody attacked.
struct Siege {
    global: Global,
    local: Local,
}

impl Siege {
    async fn lay() -> Self {
        let global = Global::start(&["--lease", "500ms"]);
        let local = Local::start(&global).await;
        global.client().set(&name("known"), "value").await.expect("set");
        global.client().set(&name("large"), noise(1, LARGE)).await.expect("set");
        local.holds("known").await;
        local.holds("large").await;
        Self { global, local }
    }

    fn doors(&self) -> [(&'static str, &Daemon); 2] {
        [("global", &self.global.daemon), ("local", &self.local.daemon)]
    }

    /// Attacks each door, while others ask it and set at it; its memory may grow by `more_mib`.
    async fn bears(&self, attack: &str, more_mib: usize, waged: impl AsyncFn(Address)) {
        for (door, daemon) in self.doors() {
            let before = daemon.resident_kib();
            let (at, over) = (daemon.at.clone(), tokio_util::sync::CancellationToken::new());
            let asking = tokio::spawn(ask(at.clone(), over.clone()));
            let watching = tokio::spawn(most(daemon.id(), over.clone()));
            waged(at).await;
            over.cancel();
            let (answers, slowest) = asking.await.expect("others are answered");
            let most = watching.await.expect("it runs").max(daemon.resident_kib());
            let more = most.saturating_sub(before) >> 10;
            eprintln!("{attack} at {door}: {answers} answers, the slowest {slowest:?}; {more} MiB more");
            assert!(answers > 0, "{attack}: nobody was answered meanwhile");
            assert!(more <= more_mib + SLACK_MIB, "{attack} at {door}: `{more}` MiB more");
            is_calm(door, daemon);
        }
    }
}

fn is_calm(door: &str, daemon: &Daemon) {
    let panics: Vec<_> = daemon.err().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{door}: {panics:?}");
}

/// Asks and sets until it is over; gives how many answers came and how long the slowest took.
async fn ask(at: Address, over: tokio_util::sync::CancellationToken) -> (usize, Duration) {
    let client = client_with(&at, SERVED);
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    loop {
        let began = Instant::now();
        let value = client.get(&name("known")).await.expect("answered").expect("found");
        assert_eq!(value.bytes, "value");
        client.set(&name(format!("new-{answers}")), "new").await.expect("set");
        slowest = slowest.max(began.elapsed());
        answers += 1;
        if over.is_cancelled() {
            return (answers, slowest);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The most memory that a process has until it is over, in KiB.
async fn most(id: u32, over: tokio_util::sync::CancellationToken) -> usize {
    let mut most = 0;
    while !over.is_cancelled() {
        most = most.max(crate::daemon::resident_kib(id));
        sleep(Duration::from_millis(20)).await;
    }
    most
}

/// Several connections that flood at once.
async fn flooded(at: &Address, bytes: impl Fn(u32) -> Vec<u8>) -> Vec<Flooded> {
    let floods = (0..PEERS).map(async |_| Peer::greet(at).await.flood(FLOOD, &bytes).await);
    join_all(floods).await
}

fn repeated(one: &[u8], times: usize) -> Vec<u8> {
    one.repeat(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_never_comes_to_a_first_call_is_ended_and_nobody_waits_for_him() {
    let siege = Siege::lay().await;
    siege
        .bears("no first call", 0, async |at: Address| {
            // Nothing at all, half a greeting, a greeting a byte at a time, headers that do not end, a TLS handshake.
            let mut silent = join_all((0..100).map(|_| Peer::connect(&at))).await;
            for peer in &mut silent[20..] {
                peer.say(&PREFACE[..12]).await;
            }
            for peer in &mut silent[40..] {
                peer.say(&PREFACE[12..]).await;
            }
            for peer in &mut silent[60..] {
                peer.say(&frame(SETTINGS, 0, 0, &[])).await;
                peer.say(&frame(HEADERS, 0, 1, &call(GET)[..5])).await;
            }
            let ends = async |mut peer: Peer| {
                peer.is_ended().await;
            };
            let slow = async {
                let mut peer = Peer::connect(&at).await;
                for byte in PREFACE.iter().chain(&frame(SETTINGS, 0, 0, &[])) {
                    peer.say(&[*byte]).await;
                    sleep(Duration::from_millis(400)).await;
                }
                peer.is_ended().await;
            };
            let slow_headers = async {
                let mut peer = Peer::greet(&at).await;
                peer.say(&frame(HEADERS, 0, 1, &call(GET)[..2])).await;
                for byte in &call(GET)[2..30] {
                    peer.say(&frame(CONTINUATION, 0, 1, &[*byte])).await;
                    sleep(Duration::from_millis(400)).await;
                }
                peer.is_ended().await;
            };
            let hello = async {
                let mut peer = Peer::connect(&at).await;
                peer.say(&tls_hello()).await;
                peer.is_ended().await;
            };
            tokio::join!(join_all(silent.into_iter().map(ends)), slow, slow_headers, hello);
        })
        .await;
}

/// What breaks the rules of HTTP/2, and what it is.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let block = call(GET);
    let two_paths = [call(GET), header(b":path", b"/x")].concat();
    let begun = frame(HEADERS, END_HEADERS, 1, &block);
    vec![
        ("settings of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("a window beyond its limit", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a ping of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("a window update of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("window updates beyond the limit", repeated(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), 2)),
        ("a reset of what never began", frame(RST_STREAM, 0, 9, &[0; 4])),
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data of what never began", frame(DATA, 0, 5, b"x")),
        ("headers of an even stream", frame(HEADERS, END_HEADERS, 2, &block)),
        ("more padding than payload", frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0x83])),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block)),
        ("a frame amid headers", [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat()),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a frame of 16 MiB", vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]),
        ("headers that are none", frame(HEADERS, END_HEADERS, 1, &[0xff; 60])),
        ("a table of 4 GiB", frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f])),
        ("an index beyond the table", frame(HEADERS, END_HEADERS, 1, &[0xfe])),
        ("two paths", frame(HEADERS, END_HEADERS, 1, &two_paths)),
        ("no path", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x83, 0x86])),
        (
            "an upper-case header",
            frame(HEADERS, END_HEADERS, 1, &[block.clone(), header(b"Te", b"x")].concat()),
        ),
        ("a header of the connection", {
            frame(HEADERS, END_HEADERS, 1, &[block.clone(), header(b"connection", b"close")].concat())
        }),
        ("data after the end", [whole_call(GET, 1, &get("known")), frame(DATA, 0, 1, b"x")].concat()),
        ("a stream below one before", {
            let later = frame(HEADERS, END_HEADERS, 3, &block);
            [later, begun.clone()].concat()
        }),
        ("a priority of itself", [begun.clone(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])].concat()),
        ("more bytes than the window", {
            let data = frame(DATA, 0, 1, &vec![0; 16 << 10]);
            [begun, repeated(&data, 200)].concat()
        }),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_rules_of_http2_ends_its_call_or_its_connection_and_nothing_else() {
    let siege = Siege::lay().await;
    siege
        .bears("broken frames", 0, async |at: Address| {
            for (what, bytes) in broken() {
                let mut peer = Peer::greet(&at).await;
                peer.say(&bytes).await;
                let ends = |f: &crate::hostile_peer::Frame| {
                    // An answer to the call is an end, too: of what is well formed so far.
                    matches!(f.kind, GOAWAY | RST_STREAM) || f.kind == HEADERS
                };
                let ended = timeout(PATIENCE, peer.until(ends)).await;
                assert!(ended.is_ok(), "{what}: it is not ended");
            }
            // What is no HTTP/2 from its first byte on.
            for seed in 0..20 {
                let mut peer = Peer::connect(&at).await;
                peer.say(&noise(seed, 300)).await;
                peer.is_ended().await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_are_no_calls_are_ended_or_slowed_down() {
    let siege = Siege::lay().await;
    let ping = repeated(&frame(PING, 0, 0, &[7; 8]), 500);
    let settings = repeated(&frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), 500);
    let update = repeated(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]), 500);
    let priority = repeated(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), 500);
    let unknown = repeated(&frame(0xee, 0, 0, &[7; 100]), 50);
    siege
        .bears("pings, settings, priorities, unknown frames", 0, async |at: Address| {
            for flood in [&ping, &settings, &update, &priority, &unknown] {
                let floods = flooded(&at, |_| flood.clone()).await;
                assert!(floods.iter().all(|flood| flood.sent > 0));
            }
        })
        .await;
    let empty = repeated(&frame(DATA, 0, 1, &[]), 500);
    let short = repeated(&frame(DATA, 0, 1, b"x"), 500);
    let begun = |first: &[u8], n| if n == 0 { first.to_vec() } else { Vec::new() };
    siege
        .bears("data a byte at a time, or none", 0, async |at: Address| {
            let upload = frame(HEADERS, END_HEADERS, 1, &call(UPLOAD));
            for data in [&empty, &short] {
                let floods = flooded(&at, |n| [begun(&upload, n), data.clone()].concat()).await;
                assert!(floods.iter().all(|flood| flood.ended), "it is not ended");
            }
        })
        .await;
    let piece = frame(CONTINUATION, 0, 1, &header(b"a", &[b'b'; 60]));
    let giant = header(b"a", &vec![b'b'; 60 << 10]);
    siege
        .bears("headers without an end", 0, async |at: Address| {
            let open = frame(HEADERS, 0, 1, &call(GET));
            let floods = flooded(&at, |n| [begun(&open, n), repeated(&piece, 50)].concat()).await;
            assert!(floods.iter().all(|flood| flood.ended), "continuations are not ended");
            // One block of 60 KiB after another: each call is refused.
            let blocks = |n: u32| {
                let stream = 2 * n + 1;
                let whole = [call(GET), giant.clone()].concat();
                let mut out = Vec::new();
                let mut chunks = whole.chunks(16 << 10).peekable();
                let mut kind = HEADERS;
                while let Some(chunk) = chunks.next() {
                    let last = if chunks.peek().is_none() { END_HEADERS } else { 0 };
                    out.extend(frame(kind, last, stream, chunk));
                    kind = CONTINUATION;
                }
                out
            };
            let floods = flooded(&at, blocks).await;
            assert!(floods.iter().all(|flood| flood.sent > 1));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_reset_as_soon_as_they_begin_end_the_connection() {
    let siege = Siege::lay().await;
    // As CVE-2023-44487 has it, and with the answer under way; then resets that the server is made to send.
    let cancelled = |n: u32| {
        let streams = (0..100).map(|i| 2 * (100 * n + i) + 1);
        let one = |stream| {
            let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call(GET));
            [begun, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        };
        streams.flat_map(one).collect()
    };
    let provoked = |n: u32| {
        let streams = (0..100).map(|i| 2 * (100 * n + i) + 1);
        let one = |stream| {
            let begun = frame(HEADERS, END_HEADERS, stream, &call(GET));
            [begun, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        };
        streams.flat_map(one).collect()
    };
    siege
        .bears("calls that are cancelled", 0, async |at: Address| {
            let floods = flooded(&at, cancelled).await;
            assert!(floods.iter().all(|flood| flood.ended), "cancels are not ended");
            let floods = flooded(&at, provoked).await;
            assert!(floods.iter().all(|flood| flood.ended), "provoked resets are not ended");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_a_connection_may_have_are_refused_one_by_one() {
    let siege = Siege::lay().await;
    siege
        .bears("a thousand calls at once", 0, async |at: Address| {
            let peers = (0..PEERS).map(async |_| {
                let mut peer = Peer::greet(&at).await;
                // None has a message, so none can end.
                let calls = (0..200).flat_map(|i| frame(HEADERS, END_HEADERS, 2 * i + 1, &call(GET)));
                peer.say(&calls.collect::<Vec<_>>()).await;
                let refused = peer.until(|f| f.kind == RST_STREAM).await.expect("one is refused");
                // REFUSED_STREAM: nothing was done, try again; 128 run.
                assert_eq!((refused.reason(), refused.stream), (7, 2 * 128 + 1));
            });
            join_all(peers).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_take_no_more_memory_than_their_calls_may() {
    let siege = Siege::lay().await;
    let (peers, calls) = (4, 100);
    // Each call may hold a frame of 1 MiB, whatever its answer has.
    let bound = peers * calls;
    siege
        .bears("answers that are not read", bound, async |at: Address| {
            let held = (0..peers).map(async |_| {
                let mut peer = Peer::greet_with(&at, &no_window()).await;
                let calls = (0..calls as u32).flat_map(|i| whole_call(GET, 2 * i + 1, &get("large")));
                peer.say(&calls.collect::<Vec<_>>()).await;
                peer.until(|f| f.kind == HEADERS).await.expect("an answer begins");
                peer
            });
            let held = join_all(held).await;
            sleep(Duration::from_millis(500)).await;
            drop(held);
        })
        .await;
}

/// Begins an upload and sends more of it than is gathered in memory, but not its end.
async fn half_uploaded(at: &Address) -> Peer {
    // `UploadChunk { header {} }`, then four of 300 KiB.
    let data = message(&[&[0x12, 0x80, 0xe0, 0x12][..], &vec![5; 300 << 10]].concat());
    let sent = [message(&[0x0a, 0]), repeated(&data, 4)].concat();
    let frames =
        |bytes: &[u8]| bytes.chunks(16 << 10).flat_map(|data| frame(DATA, 0, 1, data)).collect::<Vec<_>>();
    let (within, beyond) = sent.split_at(1_000_000);
    let mut peer = Peer::greet(at).await;
    peer.say(&[frame(HEADERS, END_HEADERS, 1, &call(UPLOAD)), frames(within)].concat()).await;
    peer.until(|f| f.kind == WINDOW_UPDATE && f.stream == 1).await.expect("it is taken in");
    peer.say(&frames(beyond)).await;
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_do_not_end_are_held_and_leave_nothing_behind() {
    let siege = Siege::lay().await;
    siege
        .bears("uploads without an end", 2 * PEERS * 4, async |at: Address| {
            let held = join_all((0..2 * PEERS).map(|_| half_uploaded(&at))).await;
            until("they are staged", async || siege.global.staged() == 2 * PEERS).await;
            drop(held);
            until("they are gone", async || siege.global.staged() == 0).await;
        })
        .await;
}

/// Pipelined calls on each of some connections; gives how many were answered.
async fn pipelined(at: &Address, connections: usize, calls: u32) -> usize {
    let peers = (0..connections).map(async |_| {
        let mut peer = Peer::greet(at).await;
        let (mut begun, mut answered) = (0, 0);
        while answered < calls {
            let mut some = Vec::new();
            while begun < calls && begun - answered < 100 {
                some.extend(whole_call(GET, 2 * begun + 1, &get("known")));
                begun += 1;
            }
            // Room for answers: what came, in the connection's window.
            some.extend(frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 14).to_be_bytes()));
            peer.say(&some).await;
            for _ in 0..(begun - answered).min(50) {
                // Each answer is a DATA frame and two of headers; the last ends it.
                let ends = |f: &crate::hostile_peer::Frame| f.kind == DATA || f.kind == GOAWAY;
                let frame = peer.until(ends).await.expect("the connection lives");
                assert_eq!(frame.kind, DATA, "{:?}", frame.payload);
                answered += 1;
            }
        }
        answered as usize
    });
    join_all(peers).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_tiny_requests_without_a_pause_are_answered() {
    let siege = Siege::lay().await;
    siege
        .bears("tiny requests", 0, async |at: Address| assert_eq!(pipelined(&at, PEERS, 1_500).await, 6_000))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes in a debug build"]
async fn a_million_tiny_requests_are_answered() {
    let siege = Siege::lay().await;
    siege
        .bears("a million tiny requests", 0, async |at: Address| {
            assert_eq!(pipelined(&at, 10, 100_000).await, 1_000_000);
        })
        .await;
}
