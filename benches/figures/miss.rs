//! `miss/<in flight>`: GETs of names that the node does not hold and Global knows, through both tiers; beside a
//! Redis GET, which is what a cache across the network costs each time.
//! `resolve/link`: small resolves over one batched stream of the tier link, without a node.

use crate::harness::{Contender, Plan, Turn, Unit, compare, drive, serial, value};
use crate::node;
use crate::place::{self, PLACES, Place, Process};
use crate::redis::{Redis, command};
use dstore_proto::dial::Dial;
use dstore_proto::link::LinkClient;
use dstore_shared::frame::{Answer, Ask, Request};
use dstore_shared::{Epoch, FlightId, Name, RegSeq};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use futures_util::StreamExt;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Names that Global knows; a turn ends when its node has missed them all.
const NAMES: u64 = 30_000;
/// Resolves under way on the link, and in each batch at first.
const WINDOW: (u64, usize) = (2048, 128);
const BYTES: usize = 100;

pub fn run(plan: &Plan) {
    with_names(plan, misses_beside_gets);
}

pub fn run_link(plan: &Plan) {
    with_names(plan, link_beside_gets);
}

/// A Global that knows the names, and a Redis with the same.
struct Filled {
    place: Place,
    global: Process,
    address: String,
    redis: Option<Redis>,
    rt: Runtime,
}

fn with_names(plan: &Plan, figures: fn(&Plan, &Filled)) {
    for place in PLACES {
        let dir = tempfile::tempdir().expect("a directory");
        let (global, address) = place::global(place.server, dir.path());
        let rt = place::runtime(place.here);
        let setter = place::run(&rt, node::local(address.clone()));
        let node = setter.node().clone();
        place::run(
            &rt,
            drive(256, Duration::MAX, NAMES, move |n| {
                let node = node.clone();
                async move { _ = node::set(&node, node::name(n), value(n, BYTES)).await }
            }),
        );
        place::run(&rt, setter.stop());
        let redis = Redis::start(place.server, "everysec");
        if let Some(redis) = &redis {
            let (mut n, mut conns) = (0, redis.clients(64));
            conns.drive(Duration::from_secs(1), |out| {
                n = (n + 1) % NAMES;
                command(out, &[b"SET", format!("k{n:015}").as_bytes(), &value(n, BYTES)]);
            });
        }
        figures(plan, &Filled { place, global, address, redis, rt });
    }
}

fn misses_beside_gets(plan: &Plan, filled: &Filled) {
    let Filled { place, global, address, redis, rt } = filled;
    for in_flight in [1, 64] {
        let ours = Contender::new("dstore", move |span| misses(rt, address.clone(), in_flight, span));
        let mut contenders = vec![ours.by(global)];
        contenders.extend(redis.as_ref().map(|redis| gets(redis, *place, in_flight)));
        compare(plan, &format!("miss/{in_flight}"), place.name, Unit::PerSecond, contenders);
    }
}

fn link_beside_gets(plan: &Plan, filled: &Filled) {
    let Filled { place, global, address, redis, rt } = filled;
    let ours = Contender::new("dstore link", move |span| place::run(rt, resolves(address.clone(), span)));
    let mut contenders = vec![ours.by(global)];
    contenders.extend(redis.as_ref().map(|redis| gets(redis, *place, 64)));
    compare(plan, "resolve/link", place.name, Unit::PerSecond, contenders);
}

/// A fresh node each turn, so that every GET is a miss.
fn misses(rt: &Runtime, address: String, in_flight: usize, span: Duration) -> Turn {
    place::run(rt, async move {
        let local = node::local(address).await;
        let node = local.node().clone();
        let turn = drive(in_flight, span, NAMES, move |n| {
            let node = node.clone();
            async move {
                let found = node::get(&node, node::name(n)).await;
                assert_eq!(found.from.tier, dstore_proto::store::Tier::Global);
            }
        })
        .await;
        local.stop().await;
        turn
    })
}

fn gets(redis: &Redis, place: Place, in_flight: usize) -> Contender<'_> {
    let mut conns = redis.clients(in_flight);
    Contender::new("Redis GET", move |span| {
        place::on(place.here, || {
            conns.drive(span, |out| {
                let n = serial() % NAMES;
                command(out, &[b"GET", format!("k{n:015}").as_bytes()]);
            })
        })
    })
    .by(redis.process())
}

/// Keeps a window of resolves under way on one stream; what is answered together is followed together.
async fn resolves(address: String, span: Duration) -> Turn {
    let (sys, tasks) = (Sys::real(), Tasks::new());
    let link = LinkClient::new(&sys, &tasks, &Address::Tcp(address), &Dial::default());
    let (sink, mut replies) = link.open_requests();
    let names: Vec<Name> = (0..NAMES).map(node::name).collect();
    let (window, together) = WINDOW;
    let mut began = vec![Instant::now(); window as usize];
    let (mut turn, start) = (Turn::begin(), Instant::now());
    let ask = |flight: u64| {
        let name = names[(flight.wrapping_mul(7919) % NAMES) as usize].clone();
        let ask = Ask::Resolve { name, have: None, cache: false, carry: false };
        Request { flight: FlightId(flight), epoch: Epoch::default(), reg_seq: RegSeq(0), ask }
    };
    for first in (0..window).step_by(together) {
        let batch = (first..first + together as u64).map(ask).collect();
        sink.send(batch).await.expect("global listens");
    }
    let mut running = window;
    while running > 0 {
        let batch = replies.next().await.expect("it goes on").expect("answered");
        let now = Instant::now();
        let more = start.elapsed() < span;
        let mut next = Vec::with_capacity(batch.len());
        for reply in batch {
            let at = (reply.flight.0 % window) as usize;
            assert!(matches!(reply.answer, Answer::Resolved(r) if r.entry.is_some()), "it is bound");
            turn.note(began[at]);
            began[at] = now;
            if more {
                next.push(ask(reply.flight.0 + window));
            } else {
                running -= 1;
            }
        }
        if !next.is_empty() {
            sink.send(next).await.expect("global listens");
        }
    }
    turn.took = start.elapsed();
    tasks.stop().await;
    turn
}
