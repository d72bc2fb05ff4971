//! A disk that fills up under a whole Global, on a small file system of its own.
//!
//! Needs the right to mount one; where that is missing the tests say so and look at nothing. The same on a
//! simulated disk is in `global/src/full.rs`.

use crate::rig::{Daemon, client, client_with, dstore, name, noise, until};
use dstore_client::Client;
use dstore_shared::{BlobHash, Error, Kind, SetOutcome};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const MIN_FREE: &str = "48MiB";
const STORMERS: u64 = 4;
/// Refusals in a row after which the disk counts as full.
const REFUSALS: u32 = 20;

/// A file system of its own; gone when dropped.
struct Small {
    dir: TempDir,
}

impl Small {
    fn of(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", &size, "dstore-test"]).arg(dir.path()).output() {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir.path()).expect("mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes up all but about `leave` bytes, in a file that grows if it is there.
    fn fill(&self, file: &str, leave: u64) -> PathBuf {
        let path = self.dir.path().join(file);
        let mut filler = File::options().create(true).append(true).open(&path).expect("opened");
        let piece = vec![1; 64 << 10];
        while self.free() > leave && filler.write_all(&piece).is_ok() {}
        path
    }

    /// Takes up what a start, a sweep or a checkpoint gives up, until `node` says that the disk is full.
    async fn stays_full(&self, file: &str, leave: u64, node: &Client) -> PathBuf {
        let full = async || {
            self.fill(file, leave);
            space(node).await.starts_with("low: SETs")
        };
        until("it says so", full).await;
        self.dir.path().join(file)
    }

    fn global(&self, engine: &str) -> Daemon {
        let flags = ["global", "--listen", "127.0.0.1:0", "--data", "data", "--lease", "200ms"];
        let flags = [&flags[..], &["--min-free", MIN_FREE, "--engine", engine]].concat();
        Daemon::start(dstore(self.dir.path(), &flags), "global")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}

/// Values of each place they can have: in the index, in a file of one piece, in a larger file.
fn value(seed: u64) -> Vec<u8> {
    noise(seed, [100, 20 << 10, 100 << 10, 2 << 20][(seed % 4) as usize])
}

fn key(seed: u64) -> String {
    format!("k{seed}")
}

/// Sets until the disk is full; gives the seeds of what was acknowledged.
async fn storm(client: &Client, me: u64) -> Vec<u64> {
    let (mut stored, mut refusals) = (Vec::new(), 0);
    for n in 0.. {
        let seed = n * STORMERS + me;
        match set(client, seed).await {
            Ok(()) => {
                stored.push(seed);
                refusals = 0;
            }
            Err(e) => {
                assert_eq!(e.kind(), Kind::Exhausted, "{e:?}");
                refusals += 1;
                if refusals == REFUSALS {
                    break;
                }
            }
        }
    }
    stored
}

async fn set(client: &Client, seed: u64) -> Result<(), Error> {
    let reply = client.set(&name(key(seed)), value(seed)).await?;
    assert!(matches!(reply.outcome, SetOutcome::Stored(_)), "{reply:?}");
    Ok(())
}

async fn all_are_there(client: &Client, stored: &[u64]) {
    for seed in stored {
        let found = client.get(&name(key(*seed))).await.expect("answered").expect("acknowledged");
        assert!(BlobHash::of(&found.bytes) == BlobHash::of(&value(*seed)), "{seed}");
    }
}

/// Deletes the last of what is stored.
async fn deletes_go_on(client: &Client, stored: &mut Vec<u64>) {
    for seed in stored.split_off(stored.len() - 20) {
        let reply = client.delete(&[name(key(seed))]).await.expect("a DEL goes on");
        assert_eq!(reply.removed, [true], "{seed}");
        assert!(client.get(&name(key(seed))).await.expect("answered").is_none());
    }
}

async fn space(client: &Client) -> String {
    let facts = client.status().await.expect("answered").facts;
    facts.into_iter().find(|(name, _)| name == "space").expect("told").1
}

fn told(global: &Daemon, line: &str) -> usize {
    global.err().iter().filter(|told| told.contains(line)).count()
}

/// `leave`: bytes that nobody takes; sled writes some when it is opened.
async fn a_disk_that_fills_up(engine: &str, leave: u64) {
    let Some(small) = Small::of(600) else { return };
    // Somebody else's, so that it can go again.
    let other = small.fill("other", 330 << 20);
    let mut global = small.global(engine);
    let clients: Vec<_> = (0..STORMERS).map(|_| client_with(&global.at, Duration::from_secs(10))).collect();
    let storms = clients.iter().zip(0..).map(|(client, me)| storm(client, me));
    let mut stored = futures_util::future::join_all(storms).await.concat();
    stored.sort_unstable();
    eprintln!("{engine}: {} values stored, {} MiB free", stored.len(), small.free() >> 20);
    assert!(stored.len() > 50, "a storm: {}", stored.len());
    assert!(small.free() > 16 << 20, "what SETs leave is left: {}", small.free());
    let node = client(&global.at);
    assert!(space(&node).await.starts_with("low: "), "{}", space(&node).await);
    assert_eq!(told(&global, "disk space is low"), 1, "once, and not for each of them");
    assert!(node.status().await.expect("answered").serving, "it serves all the same");
    all_are_there(&node, &stored).await;
    deletes_go_on(&node, &mut stored).await;

    // Somebody else takes the rest, to the last byte: the reserve is used.
    let rest = small.fill("rest", leave);
    deletes_go_on(&node, &mut stored).await;
    assert_eq!(set(&node, 1 << 40).await.expect_err("full").kind(), Kind::Exhausted);
    all_are_there(&node, &stored).await;
    global.kill();
    let mut global = small.global(engine);
    let node = client(&global.at);
    all_are_there(&node, &stored).await;
    deletes_go_on(&node, &mut stored).await;
    // What the start gave up for its journal is taken, too: again, with nothing to give up any more.
    small.stays_full("more", leave, &node).await;
    assert_eq!(set(&node, 1 << 40).await.expect_err("full").kind(), Kind::Exhausted);
    global.kill();
    let global = small.global(engine);
    let node = client(&global.at);
    all_are_there(&node, &stored).await;
    deletes_go_on(&node, &mut stored).await;
    let more = small.stays_full("more", leave, &node).await;

    std::fs::remove_file(rest).expect("removed");
    std::fs::remove_file(more).expect("removed");
    std::fs::remove_file(other).expect("removed");
    for seed in (1 << 40)..(1 << 40) + 8 {
        until("SETs are taken by themselves", async || set(&node, seed).await.is_ok()).await;
        stored.push(seed);
    }
    until("it says so", async || space(&node).await == "enough").await;
    assert_eq!(told(&global, "disk space is back"), 1);
    all_are_there(&node, &stored).await;
    left_nothing_in_staging(small.dir.path()).await;
}

async fn left_nothing_in_staging(dir: &Path) {
    let staging = dir.join("data/blobs/staging");
    until("staging is empty", async || std::fs::read_dir(&staging).expect("there").count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_dels_reads_and_kills_go_well_and_sets_come_back_with_the_space_on_fjall() {
    a_disk_that_fills_up("fjall", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_dels_reads_and_kills_go_well_and_sets_come_back_with_the_space_on_sled() {
    a_disk_that_fills_up("sled", 4 << 20).await;
}
