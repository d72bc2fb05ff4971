//! kill -9 of Global at random moments of a write storm, which never pauses for it.
//!
//! Each writer owns its keys, so that it knows what every one must be bound to; a change whose outcome is
//! unknown may have been made or not, and its key is then left alone. After each kill everything is read
//! at both Locals.

use crate::rig::{Global, Local, client_with, name, noise};
use dstore_client::Client;
use dstore_shared::{BlobHash, Error, Kind, SetOutcome};
use dstore_sys::rng::{Rng, SeededRng};
use futures_util::StreamExt;
use futures_util::future::join_all;
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

const WRITERS: usize = 8;
const KEYS: u64 = 12;
/// Longer than Global is ever away.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a key may be bound to: one thing, or two if a change's outcome is unknown.
#[derive(Clone, Debug)]
struct Slot {
    key: String,
    may_be: Vec<Option<BlobHash>>,
}

struct Writer {
    me: usize,
    rng: SeededRng,
    made: u64,
    slots: Vec<Slot>,
    left_alone: Vec<Slot>,
    /// Writes through the first, checks at the second.
    locals: [Client; 2],
}

impl Writer {
    fn fresh(&mut self) -> Slot {
        self.made += 1;
        Slot { key: format!("w{}-{}", self.me, self.made), may_be: vec![None] }
    }

    fn value(&mut self) -> Vec<u8> {
        self.made += 1;
        let len = match self.rng.next_u64() % 40 {
            0 => 100 << 10,
            1..=4 => 20 << 10,
            _ => 100,
        };
        noise((self.me as u64) << 32 | self.made, len)
    }

    /// One change, and a look at it through the other Local.
    async fn step(&mut self) -> Result<bool, String> {
        let at = (self.rng.next_u64() % KEYS) as usize;
        let Slot { key, may_be } = self.slots[at].clone();
        let before = may_be[0];
        let (changed, after) = if let Some(hash) = before {
            (self.delete(&key, hash).await?, None)
        } else {
            let value = self.value();
            let after = BlobHash::of(&value);
            (self.set(&key, value, after).await?, Some(after))
        };
        if changed {
            self.slots[at].may_be = vec![after];
            self.check(&key, after).await?;
        } else {
            let fresh = self.fresh();
            let unknown = Slot { key, may_be: vec![before, after] };
            self.slots[at] = fresh;
            self.left_alone.push(unknown);
        }
        Ok(changed)
    }

    async fn set(&self, key: &str, value: Vec<u8>, hash: BlobHash) -> Result<bool, String> {
        match self.locals[0].set(&name(key), value).await.map(|reply| reply.outcome) {
            Ok(SetOutcome::Stored(entry)) if entry.hash == hash => Ok(true),
            Ok(other) => Err(format!("SET of the free `{key}` came to {other:?}")),
            Err(e) => may_fail(key, &e),
        }
    }

    async fn delete(&self, key: &str, hash: BlobHash) -> Result<bool, String> {
        match self.locals[0].delete(&[name(key)]).await {
            Ok(reply) if reply.removed == [true] => Ok(true),
            Ok(_) => Err(format!("DEL found `{key}` unbound, but blake3:{hash} was acknowledged")),
            Err(e) => may_fail(key, &e),
        }
    }

    /// Nobody else writes `key`: so what was acknowledged is what is read, anywhere.
    async fn check(&self, key: &str, is: Option<BlobHash>) -> Result<(), String> {
        match hash_of(&self.locals[1], key).await {
            Ok(read) if read == is => Ok(()),
            Ok(read) => Err(format!("`{key}` is {read:?} after {is:?} was acknowledged")),
            Err(e) => may_fail(key, &e).map(|_| ()),
        }
    }
}

async fn hash_of(local: &Client, key: &str) -> Result<Option<BlobHash>, Error> {
    Ok(local.get(&name(key)).await?.map(|value| value.entry.hash))
}

/// Only a Global that is away, or does not know any more, may keep a change from being made.
fn may_fail(key: &str, e: &Error) -> Result<bool, String> {
    match e.kind() {
        Kind::Unavailable | Kind::Closed => Ok(false),
        _ => Err(format!("`{key}`: {e:?}")),
    }
}

struct Counts {
    made: AtomicU64,
    unknown: AtomicU64,
}

/// Writes until `stop`; gives what went wrong.
async fn write(writer: Arc<Mutex<Writer>>, stop: Arc<AtomicBool>, counts: Arc<Counts>) -> Result<(), String> {
    while !stop.load(Ordering::SeqCst) {
        // The lock is let go after each step, and is fair, so that a verification comes in between.
        let made = writer.lock().await.step().await?;
        if made { &counts.made } else { &counts.unknown }.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Reads every key at both Locals while the writers wait; what is not as it must be.
async fn verify(writers: &[Arc<Mutex<Writer>>]) -> Vec<String> {
    let held = join_all(writers.iter().map(|writer| writer.lock())).await;
    let reads = held.iter().flat_map(|writer| {
        let all = writer.slots.iter().chain(&writer.left_alone);
        all.flat_map(|slot| writer.locals.iter().map(move |local| (slot, local)))
    });
    let reads = reads.map(async |(slot, local)| match hash_of(local, &slot.key).await {
        Ok(read) if slot.may_be.contains(&read) => None,
        other => Some(format!("{slot:?} is {other:?}")),
    });
    futures_util::stream::iter(reads.collect::<Vec<_>>())
        .buffer_unordered(16)
        .filter_map(async |x| x)
        .collect()
        .await
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

async fn storm(engine: &'static str, rounds: u64) {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| dstore_sys::rng::OsRng.next_u64());
    eprintln!("{engine}: DSTORE_SEED={seed}");
    let rng = SeededRng::new(seed);
    let mut global = Global::start(&["--engine", engine, "--lease", "100ms"]);
    let locals = [Local::start(&global).await, Local::start(&global).await];
    let clients = [0, 1].map(|i| client_with(&locals[i].daemon.at, DEADLINE));
    let writers: Vec<_> = (0..WRITERS)
        .map(|me| {
            let pair = [clients[me % 2].clone(), clients[(me + 1) % 2].clone()];
            let rng = SeededRng::new(rng.next_u64());
            let mut writer =
                Writer { me, rng, made: 0, slots: Vec::new(), left_alone: Vec::new(), locals: pair };
            writer.slots = (0..KEYS).map(|_| writer.fresh()).collect();
            Arc::new(Mutex::new(writer))
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts { made: AtomicU64::new(0), unknown: AtomicU64::new(0) });
    let mut tasks: Vec<_> =
        writers.iter().map(|w| tokio::spawn(write(w.clone(), stop.clone(), counts.clone()))).collect();
    let (file, mut checkpoints) = (global.data().join("checkpoint"), 0);
    for round in 0..rounds {
        let before = written(&file);
        // No event is waited for, here and below: any moment will do.
        tokio::time::sleep(Duration::from_micros(rng.next_u64() % 150_000)).await;
        if round % 4 == 3 {
            // Killed while it stops, which is when it writes a checkpoint.
            global.daemon.signal(Signal::TERM);
            tokio::time::sleep(Duration::from_micros(rng.next_u64() % 300_000)).await;
        }
        global.daemon.kill();
        checkpoints += u64::from(written(&file) != before);
        global.again();
        for local in &locals {
            local.wire.point_to(&global.daemon.at);
        }
        for local in &locals {
            local.follow(&global).await;
        }
        let wrong = verify(&writers).await;
        assert!(wrong.is_empty(), "seed {seed} round {round}: {wrong:#?}");
        if let Some(ended) = tasks.iter().position(tokio::task::JoinHandle::is_finished) {
            panic!("seed {seed} round {round}: {:?}", tasks.swap_remove(ended).await);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("it ended").unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    let wrong = verify(&writers).await;
    assert!(wrong.is_empty(), "seed {seed} at the end: {wrong:#?}");
    let (made, unknown) = (counts.made.load(Ordering::SeqCst), counts.unknown.load(Ordering::SeqCst));
    eprintln!("{engine}: {rounds} kills, {made} changes, {unknown} unknown, {checkpoints} checkpoints");
    assert!(made > rounds * 10, "a storm and not a breeze: {made} changes");
    assert!(checkpoints > 0, "some rounds wrote a checkpoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_on_fjall_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("fjall", 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_in_memory_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("memory", 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_on_sled_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("sled", 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: seven hundred kills"]
async fn hundreds_of_kills_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("fjall", 300).await;
    storm("sled", 200).await;
    storm("memory", 200).await;
}
