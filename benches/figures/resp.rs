//! `resp_get/<socket>/<size>/<connections>x<pipelined>`: GET of a value that `dstore local` holds, over its RESP door,
//! beside Redis. `resp_set/<size>/<connections>`: SET of a fresh name through it, beside Redis with an append-only file
//! that is synced before each answer. `resp_benchmark`: the same two by redis-benchmark.

use crate::harness::{Contender, Plan, SIZES, Unit, compare, serial, value};
use crate::lean::{Door, Load};
use crate::place::{self, PLACES, Place, Process};
use crate::redis::{Redis, command};
use std::process::Command;

const GET_SIZES: [(&str, usize); 4] =
    [("100B", 100), ("4KiB", 4 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20)];
const CONNECTIONS: [usize; 3] = [1, 16, 64];
const PIPELINED: [usize; 2] = [1, 16];

/// Both servers, each at a Unix socket and at a port.
struct Peers {
    local: Process,
    ours: [(&'static str, Door); 2],
    redis: Option<(Redis, [Door; 2])>,
    _global: Process,
    _dirs: [tempfile::TempDir; 2],
}

impl Peers {
    fn start(place: Place) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let (global, address) = place::global(place.server, dirs[0].path());
        let (socket, port) = (dirs[1].path().join("resp"), place::free_port());
        let at = format!("127.0.0.1:{port}");
        let local = place::local_with_resp(place.server, &address, &socket, &at);
        let ours = [("unix", Door::Unix(socket)), ("tcp", Door::Tcp(at))];
        ours.iter().for_each(|(_, door)| door.await_answer());
        let port = place::free_port();
        let redis = Redis::listening(place.server, "always", port).map(|redis| {
            let doors = [Door::Unix(redis.socket()), Door::Tcp(format!("127.0.0.1:{port}"))];
            (redis, doors)
        });
        Self { local, ours, redis, _global: global, _dirs: dirs }
    }

    /// The two contenders of a figure: each does `turn` on connections of its own.
    fn contend<'a, T>(
        &'a self,
        socket: usize,
        connections: usize,
        turn: impl Fn(Load) -> T,
    ) -> Vec<Contender<'a>>
    where
        T: FnMut(std::time::Duration) -> crate::harness::Turn + 'a,
    {
        let ours = Load::new(&self.ours[socket].1, connections);
        let mut all = vec![Contender::new("dstore", turn(ours)).by(&self.local)];
        if let Some((redis, doors)) = &self.redis {
            let its = Load::new(&doors[socket], connections);
            all.push(Contender::new("Redis", turn(its)).by(redis.process()));
        }
        all
    }
}

pub fn run(plan: &Plan) {
    for place in PLACES {
        let peers = Peers::start(place);
        place::on(place.here, || {
            gets(plan, place, &peers);
            sets(plan, place, &peers);
            if plan.wants("resp_benchmark") {
                benchmark(place, &peers);
            }
        });
    }
}

fn gets(plan: &Plan, place: Place, peers: &Peers) {
    for (label, size) in GET_SIZES {
        let (key, bytes) = (format!("hit-{label}"), value(size as u64, size));
        let (mut set, mut get) = (Vec::new(), Vec::new());
        command(&mut set, &[b"SET", key.as_bytes(), &bytes]);
        command(&mut get, &[b"GET", key.as_bytes()]);
        let mut reply = format!("${size}\r\n").into_bytes();
        reply.extend_from_slice(&bytes);
        reply.extend_from_slice(b"\r\n");
        for (at, (socket, _)) in peers.ours.iter().enumerate() {
            let doors = [Some(&peers.ours[at].1), peers.redis.as_ref().map(|(_, doors)| &doors[at])];
            for door in doors.into_iter().flatten() {
                let mut one = Load::new(door, 1);
                assert_eq!(one.ask(&set, 5), b"+OK\r\n");
                assert_eq!(one.ask(&get, reply.len()), reply);
            }
            for connections in CONNECTIONS {
                for depth in PIPELINED {
                    let figure = format!("resp_get/{socket}/{label}/{connections}x{depth}");
                    let contenders = peers.contend(at, connections, |mut load| {
                        let (get, reply) = (get.clone(), reply.clone());
                        move |span| load.drive(span, depth, &reply, |out| out.extend_from_slice(&get))
                    });
                    compare(plan, &figure, place.name, Unit::PerSecond, contenders);
                }
            }
        }
    }
}

fn sets(plan: &Plan, place: Place, peers: &Peers) {
    for (label, size) in SIZES {
        for connections in CONNECTIONS {
            let contenders = peers.contend(0, connections, |mut load| {
                let mut bytes = value(0, size);
                move |span| {
                    load.drive(span, 1, b"+OK\r\n", |out| {
                        let number = serial();
                        bytes[..8].copy_from_slice(&number.to_le_bytes());
                        command(out, &[b"SET", format!("k{number:015}").as_bytes(), &bytes]);
                    })
                }
            });
            compare(
                plan,
                &format!("resp_set/{label}/{connections}"),
                place.name,
                Unit::PerSecond,
                contenders,
            );
        }
    }
}

/// What the program of Redis's own package says of both.
fn benchmark(place: Place, peers: &Peers) {
    for (test, depth) in [("get", "1"), ("get", "16"), ("set", "1")] {
        let ours = Some(&peers.ours[0].1);
        let doors = [("dstore", ours), ("Redis", peers.redis.as_ref().map(|(_, doors)| &doors[0]))];
        for (who, door) in doors {
            let Some(Door::Unix(socket)) = door else { continue };
            let run = |test, flags: &[&str]| {
                let mut program = Command::new("redis-benchmark");
                program.arg("-s").arg(socket).args(["-t", test, "-d", "100", "--csv"]).args(flags);
                program.output().ok().and_then(|done| String::from_utf8(done.stdout).ok())
            };
            let told = if test == "get" {
                // Its GETs are of one name, which has to be there to be a hit.
                run("set", &["-n", "1", "-c", "1"]);
                run("get", &["-n", "400000", "-c", "64", "-P", depth])
            } else {
                // Write-once names: each SET has a name of its own, and may meet itself.
                run("set", &["-r", "100000000", "-n", "40000", "-c", "64", "-P", depth])
            };
            let line =
                told.as_deref().and_then(|told| told.lines().last()).unwrap_or("redis-benchmark is missing");
            println!(
                "resp_benchmark, {}: {test}, pipeline {depth}, 64 connections: {who}: {line}",
                place.name
            );
        }
    }
}
