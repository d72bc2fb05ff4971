//! `delete/<holders>`: from a DEL to its answer, when each of so many Locals that hold the name has dropped it
//! and the change is on disk; beside Redis (AOF always, from a DEL until as many `CLIENT TRACKING` clients have
//! read the push and the caller its answer) and etcd (from a put until as many watchers have the event).

use crate::etcd::{self, Etcd};
use crate::harness::{Contender, Plan, Turn, Unit, compare, serial, value};
use crate::node;
use crate::place::{self, PLACES};
use crate::redis::{Conn, Redis};
use dstore_local::Node;
use dstore_proto::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOLDERS: [usize; 2] = [1, 3];

pub fn run(plan: &Plan) {
    for place in PLACES {
        let dir = tempfile::tempdir().expect("a directory");
        let (global, address) = place::global(place.server, dir.path());
        let rt = place::runtime(place.here);
        let (redis, etcd) = (Redis::start(place.server, "always"), Etcd::start(place.server));
        for holders in HOLDERS {
            let rt = &rt;
            let locals: Vec<_> =
                (0..=holders).map(|_| place::run(rt, node::local(address.clone()))).collect();
            let nodes: Vec<Node> = locals.iter().map(|local| local.node().clone()).collect();
            let mut contenders = vec![
                Contender::new("dstore", move |span| place::run(rt, ours(nodes.clone(), span))).by(&global),
            ];
            if let Some(redis) = &redis {
                let mut conns: Vec<Conn> = (0..=holders).map(|_| redis.connect()).collect();
                for conn in &mut conns[1..] {
                    conn.ask(&[b"HELLO", b"3"]);
                    conn.ask(&[b"CLIENT", b"TRACKING", b"ON"]);
                }
                contenders.push(
                    Contender::new("Redis AOF always, tracking", move |span| {
                        place::on(place.here, || pushes(&mut conns, span))
                    })
                    .by(redis.process()),
                );
            }
            if let Some(etcd) = &etcd {
                let address = etcd.address.clone();
                let (caller, watchers) = place::run(rt, async move {
                    let caller = etcd::ready(&address).await;
                    let mut watchers = Vec::new();
                    for _ in 0..holders {
                        watchers.push(etcd::watch(&address, "w").await);
                    }
                    (caller, watchers)
                });
                let watchers = Arc::new(tokio::sync::Mutex::new(watchers));
                contenders.push(
                    Contender::new("etcd, watch", move |span| {
                        let (caller, watchers) = (caller.clone(), watchers.clone());
                        place::run(rt, async move { events(&caller, &mut watchers.lock().await, span).await })
                    })
                    .by(&etcd.process),
                );
            }
            compare(plan, &format!("delete/{holders}_holders"), place.name, Unit::PerSecond, contenders);
            for local in locals {
                place::run(rt, local.stop());
            }
        }
    }
}

/// The first node deletes what all others hold.
async fn ours(nodes: Vec<Node>, span: Duration) -> Turn {
    let (mut turn, start) = (Turn::begin(), Instant::now());
    while start.elapsed() < span {
        let n = serial();
        let name = node::name(n);
        node::set(&nodes[1], name.clone(), value(n, 100)).await;
        for node in &nodes[1..] {
            node::get(node, name.clone()).await;
            assert!(node.hit(&name).is_some(), "it holds the name");
        }
        let id = nodes[0].request_id().await.expect("global was reached");
        let began = Instant::now();
        let done = nodes[0].delete(id, vec![name.clone()]).await.expect("deleted");
        turn.note(began);
        turn.took += began.elapsed();
        assert!(done.removed[0] && nodes.iter().all(|node| node.hit(&name).is_none()));
    }
    turn
}

fn pushes(conns: &mut [Conn], span: Duration) -> Turn {
    let (mut turn, start) = (Turn::begin(), Instant::now());
    let (caller, holders) = conns.split_first_mut().expect("there is a caller");
    while start.elapsed() < span {
        let n = serial();
        let key = format!("k{n:015}");
        caller.ask(&[b"SET", key.as_bytes(), &value(n, 100)]);
        for holder in &mut *holders {
            assert!(holder.ask(&[b"GET", key.as_bytes()]).starts_with(b"$100"));
        }
        let began = Instant::now();
        caller.send(&[b"DEL", key.as_bytes()]);
        for holder in &mut *holders {
            assert!(holder.reply().starts_with(b">2"));
        }
        assert_eq!(caller.reply(), b":1\r\n");
        turn.note(began);
        turn.took += began.elapsed();
    }
    turn
}

async fn events(
    caller: &tonic::transport::Channel,
    watchers: &mut [tonic::Streaming<crate::messages::EtcdWatched>],
    span: Duration,
) -> Turn {
    let (mut turn, start) = (Turn::begin(), Instant::now());
    while start.elapsed() < span {
        let n = serial();
        let began = Instant::now();
        let put = etcd::put(caller, format!("w{n:015}"), value(n, 100));
        let seen = async {
            for watcher in &mut *watchers {
                let event = watcher.message().await.expect("it watches").expect("it goes on");
                assert_eq!(event.events.len(), 1);
            }
        };
        tokio::join!(put, seen);
        turn.note(began);
        turn.took += began.elapsed();
    }
    turn
}
