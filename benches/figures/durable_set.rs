//! `durable_set/<size>/<in flight>`: SETs of fresh names by tasks that embed a Local, answered when Global has
//! them on disk; beside Redis (`appendonly yes`, `appendfsync always`, a connection for each in flight) and etcd.

use crate::etcd::{self, Etcd};
use crate::harness::{Contender, Plan, SIZES, Unit, compare, drive, value};
use crate::place::{self, PLACES};
use crate::redis::Redis;
use crate::{messages, node};

const IN_FLIGHT: [usize; 3] = [1, 16, 64];
/// Calls that share a connection to etcd.
const CALLS_PER_CHANNEL: usize = 16;

pub fn run(plan: &Plan) {
    for place in PLACES {
        let dir = tempfile::tempdir().expect("a directory");
        let (global, address) = place::global(place.server, dir.path());
        let rt = place::runtime(place.here);
        let local = place::run(&rt, node::local(address));
        let (redis, etcd) = (Redis::start(place.server, "always"), Etcd::start(place.server));
        let channels: Vec<_> = etcd
            .iter()
            .flat_map(|etcd| {
                let most = IN_FLIGHT[2] / CALLS_PER_CHANNEL;
                let address = etcd.address.clone();
                place::run(&rt, async move {
                    etcd::ready(&address).await;
                    let mut channels = Vec::new();
                    for _ in 0..most {
                        channels.push(messages::channel(&address).await);
                    }
                    channels
                })
            })
            .collect();
        for (label, size) in SIZES {
            for in_flight in IN_FLIGHT {
                let (node, rt) = (local.node().clone(), &rt);
                let mut contenders = vec![
                    Contender::new("dstore", move |span| {
                        let node = node.clone();
                        place::run(
                            rt,
                            drive(in_flight, span, u64::MAX, move |n| {
                                let node = node.clone();
                                async move { _ = node::set(&node, node::name(n), value(n, size)).await }
                            }),
                        )
                    })
                    .by(&global),
                ];
                if let Some(redis) = &redis {
                    let mut clients = redis.clients(in_flight);
                    contenders.push(
                        Contender::new("Redis AOF always", move |span| {
                            place::on(place.here, || clients.set(span, size))
                        })
                        .by(redis.process()),
                    );
                }
                if let Some(etcd) = &etcd {
                    let channels = channels[..in_flight.div_ceil(CALLS_PER_CHANNEL)].to_vec();
                    contenders.push(Contender::new("etcd", move |span| {
                        let channels = channels.clone();
                        place::run(rt, drive(in_flight, span, u64::MAX, move |n| {
                            let channel = channels[n as usize % channels.len()].clone();
                            async move { etcd::put(&channel, format!("k{n:015}"), value(n, size)).await }
                        }))
                    }).by(&etcd.process));
                }
                compare(
                    plan,
                    &format!("durable_set/{label}/{in_flight}"),
                    place.name,
                    Unit::PerSecond,
                    contenders,
                );
            }
        }
        place::run(&rt, local.stop());
    }
}
