//! `reopen/<names>`: from the start of a process whose predecessor was killed with `kill -9` to its first answer.
//! Beside Redis with the same names in its append-only file.

use crate::harness::{Contender, Plan, Turn, Unit, compare, drive, value};
use crate::place;
use crate::redis::{Redis, command};
use crate::{messages, node};
use std::path::Path;
use std::time::{Duration, Instant};

const BYTES: usize = 100;
/// SETs under way while the store is filled.
const IN_FLIGHT: usize = 1024;

pub fn run(plan: &Plan) {
    let names = plan.names;
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path(), names);
    let mut contenders = vec![Contender::new("dstore, fjall", |_| open(dir.path(), names))];
    let redis = Redis::start(1, "no").map(|redis| {
        let (mut n, mut conns) = (0, redis.clients(64));
        while n < names {
            conns.drive(Duration::from_millis(100), |out| {
                n += 1;
                command(out, &[b"SET", format!("k{n:015}").as_bytes(), &value(n, BYTES)]);
            });
        }
        // What it has not written by itself after a while is lost, as the name of this setting says.
        std::thread::sleep(Duration::from_secs(2));
        redis.kill()
    });
    if let Some(dir) = redis {
        let mut dir = Some(dir);
        contenders.push(Contender::new("Redis AOF", move |_| {
            let mut turn = Turn::begin();
            let began = Instant::now();
            let redis = Redis::start_in(1, "no", dir.take().expect("the last turn gave it back"))
                .expect("it is installed");
            let reply = redis.connect().ask(&[b"GET", b"k000000000000007"]);
            turn.note(began);
            turn.took = began.elapsed();
            assert!(reply.starts_with(b"$100"), "{}", reply.escape_ascii());
            dir = Some(redis.kill());
            turn
        }));
    }
    compare(plan, &format!("reopen/{names}"), "split", Unit::PerSecond, contenders);
}

fn fill(dir: &Path, names: u64) {
    let (global, address) = place::global(1, dir);
    let rt = place::runtime(0);
    let local = place::run(&rt, node::local(address));
    let node = local.node().clone();
    let began = Instant::now();
    place::run(
        &rt,
        drive(IN_FLIGHT, Duration::MAX, names, move |n| {
            let node = node.clone();
            async move { _ = node::set(&node, node::name(n), value(n, BYTES)).await }
        }),
    );
    eprintln!("{names} names set in {:.1?}", began.elapsed());
    global.kill();
    drop(rt);
}

fn open(dir: &Path, names: u64) -> Turn {
    let rt = place::runtime(0);
    let mut turn = Turn::begin();
    let began = Instant::now();
    let (global, address) = place::global(1, dir);
    place::run(&rt, async move {
        let channel = messages::channel(&address).await;
        let request = messages::GetRequest::of(&format!("k{:015}", names / 2));
        let got: messages::GetResponse = messages::call(&channel, "/dstore.v1.Store/Get", request).await;
        assert_eq!(got.data.len(), BYTES);
    });
    turn.note(began);
    turn.took = began.elapsed();
    global.kill();
    turn
}
