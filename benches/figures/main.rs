//! What a user feels, measured beside the peers on this machine in this very run: docs/BENCHMARKS.md.
//!
//! `cargo bench --bench figures [-- FILTER] [--turns N] [--seconds S] [--names N]`. One program for all suites:
//! each is a file, and linking one program is most of what a run costs on a small machine.

mod committer;
mod delete;
mod durable_set;
mod echo;
mod engines;
mod etcd;
mod harness;
mod lean;
mod messages;
mod miss;
mod names;
mod node;
mod place;
mod redis;
mod reopen;
mod resp;
mod sessions;
mod swarm;
mod transfer;
mod unary_get;

use harness::Plan;
use std::time::Duration;

/// The figures' first word, and how they are taken.
type Suite = (&'static str, fn(&Plan));

/// Suites in the order they run.
const SUITES: [Suite; 12] = [
    ("committer", committer::run),
    ("durable_set", durable_set::run),
    ("unary_get", unary_get::run),
    ("miss", miss::run),
    ("resolve", miss::run_link),
    ("delete", delete::run),
    ("resp", resp::run),
    ("transfer", transfer::run),
    ("reopen", reopen::run),
    ("sessions", sessions::run),
    ("names", names::run),
    ("engines", engines::run),
];

// The allocator of the binary.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let plan = plan();
    harness::header();
    for (name, run) in SUITES {
        if plan.wants(name) {
            run(&plan);
        }
    }
}

/// What the command line asks for; the process is a bare server instead if it says so.
fn plan() -> Plan {
    let mut plan = Plan { filter: None, turns: 3, span: Duration::from_millis(500), names: 1_000_000 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse::<f64>().ok()).expect("a number follows");
        match argument.as_str() {
            echo::ARGUMENT => echo::serve(number() as usize),
            "--turns" => plan.turns = number() as usize,
            "--seconds" => plan.span = Duration::from_secs_f64(number()),
            "--names" => plan.names = number() as u64,
            // Cargo's own.
            "--bench" => {}
            unknown if unknown.starts_with('-') => {
                eprintln!("{unknown}: there are --turns N, --seconds S and --names N");
                std::process::exit(2);
            }
            filter => plan.filter = Some(filter.to_owned()),
        }
    }
    plan
}
