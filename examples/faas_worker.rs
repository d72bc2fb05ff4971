//! A function host: a node, and workers that share one large value through it. Each tells how long it took until the first
//! byte was in its hands and until it had read all of them, and what memory it has by then.
//!
//! ```text
//! cargo run --release --example faas_worker [-- WORKERS MIB]
//! ```
//! The workers are processes of their own; what they share is the node's memory, which each maps and none copies: that is
//! what the proportional part of their memory (PSS) shows. The same over the socket stands beside it.

use dstore::worker::{Attach, Worker, WorkerConfig};
use dstore::{
    Address, Client, ClientConfig, Error, Global, GlobalConfig, Listen, Local, LocalConfig, MemoryNet, Name,
    Result, ShmConfig, Sys,
};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MODEL: &str = "model";

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--worker", socket, how] => work(socket, how).await,
        [] => host(4, 256).await,
        [workers, mib] => host(number(workers)?, number(mib)?).await,
        _ => Err(Error::invalid("write nothing, or a number of workers and of MiB")),
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::invalid(format!("`{text}` is no number")))
}

/// The node, with the model in its memory.
async fn host(workers: usize, mib: usize) -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
    let at = Address::Memory("global".into());
    let config = GlobalConfig { listen: vec![at.clone()], ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(sys.clone(), config).await?;
    let socket = dir.path().join("node");
    let listen = Listen { address: Address::Unix(socket.clone()), or_any: false };
    let local = LocalConfig {
        listen: vec![listen],
        shm: Some(ShmConfig::new(dir.path().join("node.shm"))),
        cache_bytes: (6 * mib as u64) << 20,
        ..LocalConfig::new(at)
    };
    let local = Local::start(sys.clone(), local).await?;
    local.ready(Duration::from_secs(10)).await?;
    // A worker that comes first has the namespace's memory made.
    let first = Worker::connect(&Sys::real(), &Address::Unix(socket.clone()), WorkerConfig::default()).await;
    println!("shared memory: {}", first.shared_memory());
    let client = Client::over(&sys, Arc::new(local.node().clone()), ClientConfig::default());
    let model: Vec<u8> = (0..mib << 20).map(|i| ((i * 31) >> 7) as u8).collect();
    client.set(&Name::of(MODEL)?, model).await?;
    client.get(&Name::of(MODEL)?).await?;

    println!("{workers} workers, a model of {mib} MiB");
    println!("{:<16} {:>14} {:>14} {:>12} {:>12}", "", "first byte", "every byte", "PSS", "private");
    for how in ["shared", "socket"] {
        run_workers(&socket, how, workers)?;
    }
    drop(first);
    local.stop().await;
    global.stop().await
}

fn run_workers(socket: &Path, how: &str, workers: usize) -> Result<()> {
    let failed = |e: std::io::Error| Error::internal(format!("a worker: {e}")).caused_by(e);
    let this = std::env::current_exe().map_err(failed)?;
    let socket = socket.to_string_lossy().into_owned();
    let spawn = |_| Command::new(&this).args(["--worker", &socket, how]).spawn();
    let children = (0..workers).map(spawn).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    for mut child in children {
        child.wait().map_err(failed)?;
    }
    Ok(())
}

/// One worker.
async fn work(socket: &str, how: &str) -> Result<()> {
    let attach = if how == "shared" { Attach::Found } else { Attach::Off };
    let config = WorkerConfig {
        attach,
        client: ClientConfig { get_bytes_max: 1 << 30, ..ClientConfig::default() },
        ..WorkerConfig::default()
    };
    let worker = Worker::connect(&Sys::real(), &Address::Unix(socket.into()), config).await;
    let began = Instant::now();
    let model = worker.get(MODEL.as_bytes()).await?;
    let model = model.ok_or_else(|| Error::internal("the model is gone"))?;
    let first = std::hint::black_box(model.first().copied());
    let first_byte = began.elapsed();
    let sum = model.iter().fold(u64::from(first.is_some()), |sum, byte| sum + u64::from(*byte));
    std::hint::black_box(sum);
    let every_byte = began.elapsed();
    let how = if model.is_in_place() { "shared memory" } else { "socket" };
    let (pss, private) = memory();
    println!("{how:<16} {first_byte:>14.1?} {every_byte:>14.1?} {pss:>8} KiB {private:>8} KiB");
    Ok(())
}

/// KiB of memory that this process has, shared pages counted by their part; and those that are its own.
fn memory() -> (u64, u64) {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("Pss:"), field("Private_Dirty:"))
}
