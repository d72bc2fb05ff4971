//! `unary_get/<size>/<connections>x<in flight on each>`: gRPC `Get` of a name that `dstore local` holds, beside a
//! bare tonic server, a process too, that answers the same message with the same message.

use crate::harness::{Contender, Plan, Turn, Unit, compare, drive, value};
use crate::messages::{GetRequest, GetResponse, call, channel};
use crate::place::{self, PLACES, Process};
use crate::{echo, node};
use std::process::Command;
use std::time::Duration;
use tonic::transport::Channel;

const SHAPES: [(usize, usize); 3] = [(1, 1), (1, 64), (64, 1)];
const SIZES: [(&str, usize); 3] = [("100B", 100), ("4KiB", 4 << 10), ("64KiB", 64 << 10)];
const GET: &str = "/dstore.v1.Store/Get";

pub fn run(plan: &Plan) {
    for place in PLACES {
        let dir = tempfile::tempdir().expect("a directory");
        let (_global, global) = place::global(place.server, dir.path());
        let (local, address) = place::local(place.server, &global);
        let rt = place::runtime(place.here);
        let setter = place::run(&rt, node::local(global));
        for (label, size) in SIZES {
            let (node, key) = (setter.node().clone(), format!("hit-{label}"));
            let (at, asked) = (address.clone(), key.clone());
            place::run(&rt, async move {
                node::set(&node, node::named(&asked), value(size as u64, size)).await;
                let channel = channel(&at).await;
                for tier in [2, 1] {
                    let got: GetResponse = call(&channel, GET, GetRequest::of(&asked)).await;
                    assert_eq!(got.from.map(|from| from.tier), Some(tier), "missed, then held");
                }
            });
            let program = std::env::current_exe().expect("this program has a path");
            let mut command = Command::new(program);
            command.args([echo::ARGUMENT, &size.to_string()]);
            let mut bare = Process::start(place.server, &mut command).expect("this program can be run");
            let bare_at = bare.told();
            for (connections, calls) in SHAPES {
                let connect = |address: String| {
                    place::run(&rt, async move {
                        let mut channels = Vec::new();
                        for _ in 0..connections {
                            channels.push(channel(&address).await);
                        }
                        channels
                    })
                };
                let (ours, its) = (connect(address.clone()), connect(bare_at.clone()));
                let turn = |channels: Vec<Channel>| {
                    let (rt, key) = (&rt, key.clone());
                    move |span| ask(rt, &channels, calls, &key, size, span)
                };
                let contenders = vec![
                    Contender::new("dstore", turn(ours)).by(&local),
                    Contender::new("bare tonic", turn(its)).by(&bare),
                ];
                let figure = format!("unary_get/{label}/{connections}x{calls}");
                compare(plan, &figure, place.name, Unit::PerSecond, contenders);
            }
        }
        place::run(&rt, setter.stop());
    }
}

fn ask(
    rt: &tokio::runtime::Runtime,
    channels: &[Channel],
    calls: usize,
    key: &str,
    size: usize,
    span: Duration,
) -> Turn {
    let (channels, request) = (channels.to_vec(), GetRequest::of(key));
    place::run(rt, async move {
        drive(channels.len() * calls, span, u64::MAX, move |n| {
            let (channel, request) = (channels[n as usize % channels.len()].clone(), request.clone());
            async move {
                let got: GetResponse = call(&channel, GET, request).await;
                assert!(got.found && got.data.len() == size);
            }
        })
        .await
    })
}
