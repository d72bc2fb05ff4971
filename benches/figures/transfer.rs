//! `transfer/<leg>`: 1 GiB in one value. `set`: from one Local to Global, until it is on disk under its name.
//! `get`: from Global to a Local that cannot keep it, every group verified. Beside a bare file written and
//! fsynced, and read.

use crate::harness::{Contender, Plan, Turn, Unit, compare, serial};
use crate::node;
use crate::place::{self, PLACES};
use bytes::Bytes;
use dstore_local::Node;
use dstore_proto::store::{Body, Slice, Store, Target};
use futures_util::{StreamExt, stream};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

const BYTES: u64 = 1 << 30;
const PIECE: usize = 256 << 10;
/// A transfer takes as long as it takes: fewer turns.
const TURNS: usize = 3;

pub fn run(plan: &Plan) {
    let plan = Plan { turns: TURNS, ..plan.clone() };
    for place in PLACES {
        let dir = tempfile::tempdir().expect("a directory");
        let (global, address) = place::global(place.server, dir.path());
        let rt = place::runtime(place.here);
        let (a, b) = (place::run(&rt, node::local(address.clone())), place::run(&rt, node::local(address)));
        let (rt, bare) = (&rt, dir.path().join("bare"));
        let (from, to) = (a.node().clone(), b.node().clone());
        let contenders = vec![
            Contender::new("dstore", move |_| {
                let node = from.clone();
                place::run(rt, async move {
                    let turn = set(&node, "big").await;
                    let id = node.request_id().await.expect("global was reached");
                    node.delete(id, vec![node::named("big")]).await.expect("deleted");
                    turn
                })
            })
            .by(&global),
            Contender::new("bare file, fsynced", |_| place::on(place.server, || write(&bare))),
        ];
        compare(&plan, "transfer/set/1GiB", place.name, Unit::Bytes(BYTES), contenders);
        let from = a.node().clone();
        place::run(rt, async move { _ = set(&from, "kept").await });
        write(&bare);
        let contenders = vec![
            Contender::new("dstore", move |_| {
                let node = to.clone();
                place::run(rt, async move { get(&node, "kept").await })
            })
            .by(&global),
            Contender::new("bare file, read", |_| place::on(place.here, || read(&bare))),
        ];
        compare(&plan, "transfer/get/1GiB", place.name, Unit::Bytes(BYTES), contenders);
        place::run(rt, a.stop());
        place::run(rt, b.stop());
    }
}

fn one(began: Instant) -> Turn {
    let mut turn = Turn::begin();
    turn.note(began);
    turn.took = began.elapsed();
    turn
}

async fn set(node: &Node, key: &str) -> Turn {
    let mut first = vec![1; PIECE];
    first[..8].copy_from_slice(&serial().to_le_bytes());
    let rest = Bytes::from(vec![2; PIECE]);
    let rest = stream::repeat(rest).take(BYTES as usize / PIECE - 1);
    let body = stream::iter([Bytes::from(first)]).chain(rest).map(Ok);
    let id = node.request_id().await.expect("global was reached");
    let began = Instant::now();
    node.set(id, Some(node::named(key)), Body::Stream(Box::pin(body))).await.expect("it is set");
    one(began)
}

async fn get(node: &Node, key: &str) -> Turn {
    let began = Instant::now();
    let found = node.get(Target::Name(node::named(key)), Slice::ALL).await.expect("answered").expect("found");
    let mut body = found.body.into_stream();
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        bytes += piece.expect("whole").len() as u64;
    }
    assert_eq!(bytes, BYTES);
    one(began)
}

fn write(path: &Path) -> Turn {
    let piece = vec![3; PIECE];
    let began = Instant::now();
    let mut file = std::fs::File::create(path).expect("it can be made");
    for _ in 0..BYTES as usize / PIECE {
        file.write_all(&piece).expect("it can be written");
    }
    file.sync_all().expect("it can be synced");
    one(began)
}

fn read(path: &Path) -> Turn {
    let mut piece = vec![0; PIECE];
    let began = Instant::now();
    let mut file = std::fs::File::open(path).expect("it is there");
    for _ in 0..BYTES as usize / PIECE {
        file.read_exact(&mut piece).expect("it can be read");
    }
    one(began)
}
