//! A Rust worker that embeds a Local: it reads from its own memory, and measures what such a hit costs it.
//!
//! A hit is one call that is not async and allocates nothing; it is as fresh as Global's answer would be. When the
//! lease is not valid the worker asks as usual, and the node asks Global.
//!
//! ```text
//! cargo run --release --example embedded_node                       with a Global of its own, in this process
//! cargo run --release --example embedded_node -- 127.0.0.1:50051    with one that runs
//! ```

use dstore::{
    Address, Client, ClientConfig, Global, GlobalConfig, Local, LocalConfig, MemoryNet, Name, Result, Sys,
};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 1_000;
const VALUE_BYTES: usize = 100;
/// Hits are timed by the round: reading the clock costs as much as a hit.
const ROUNDS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (global, at) = if let Some(address) = std::env::args().nth(1) {
        (None, address.parse()?)
    } else {
        let at = Address::Memory("global".into());
        let config = GlobalConfig { listen: vec![at.clone()], ..GlobalConfig::new(dir.path()) };
        (Some(Global::start(sys.clone(), config).await?), at)
    };

    let local = Local::start(sys.clone(), LocalConfig::new(at)).await?;
    local.ready(Duration::from_secs(10)).await?;
    let names = (0..KEYS).map(|i| Name::of(format!("embedded-{i}"))).collect::<Result<Vec<_>>>()?;
    let client = Client::over(&sys, Arc::new(local.node().clone()), ClientConfig::default());
    for name in &names {
        client.set(name, vec![b'x'; VALUE_BYTES]).await?;
        client.get(name).await?;
    }

    measure(&local, &names);

    assert_eq!(client.delete(&names).await?.removed.len(), KEYS);
    assert!(names.iter().all(|name| local.node().hit(name).is_none()), "a deleted name is not held");
    local.stop().await;
    match global {
        Some(global) => global.stop().await,
        None => Ok(()),
    }
}

/// Reads every name over and over, as a worker does between two requests.
fn measure(local: &Local, names: &[Name]) {
    let node = local.node();
    let mut per_hit = Histogram::<u64>::new(3).expect("three digits are allowed");
    let (mut hits, mut bytes) = (0_usize, 0_usize);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for name in names {
            if let Some((_, blob)) = node.hit(name) {
                hits += 1;
                bytes += blob.bytes().len();
            }
        }
        per_hit.saturating_record(began.elapsed().as_nanos() as u64 / names.len() as u64);
    }
    let asked = ROUNDS * names.len();
    assert!(hits > asked / 2, "only {hits} of {asked} reads were hits: was this machine paused?");
    assert_eq!(bytes, hits * VALUE_BYTES);
    let at = |quantile| per_hit.value_at_quantile(quantile);
    println!("{hits} of {asked} reads were hits in this process: {KEYS} names, {VALUE_BYTES} B each");
    println!("a hit: {} ns median, {} ns p99 (means of rounds of {KEYS})", at(0.5), at(0.99));
    if cfg!(debug_assertions) {
        println!("(built without optimisation: add --release for figures that mean something)");
    }
}
