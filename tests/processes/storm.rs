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
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const WRITERS: usize = 8;
const KEYS: u64 = 12;
/// Longer than Global is ever away.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest time between a start and the next kill.
const PAUSE: Duration = Duration::from_millis(150);

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

/// Writers that never pause, their two Locals, and what they must find.
pub struct Storm {
    locals: [Local; 2],
    writers: Vec<Arc<Mutex<Writer>>>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
    /// What a failure is replayed by.
    what: String,
}

impl Storm {
    /// Begins one of `writers` at `global`; whatever is drawn comes from `rng`.
    pub async fn begin(global: &Global, writers: usize, rng: &SeededRng, what: String) -> Self {
        let locals = [Local::start(global).await, Local::start(global).await];
        let clients = [0, 1].map(|i| client_with(&locals[i].daemon.at, DEADLINE));
        let writers: Vec<_> = (0..writers)
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
        let tasks =
            writers.iter().map(|w| tokio::spawn(write(w.clone(), stop.clone(), counts.clone()))).collect();
        Self { locals, writers, stop, counts, tasks, what }
    }

    /// Changes that were acknowledged so far.
    pub fn made(&self) -> u64 {
        self.counts.made.load(Ordering::SeqCst)
    }

    /// A key of each writer.
    pub async fn some_keys(&self) -> Vec<String> {
        join_all(self.writers.iter().map(async |writer| writer.lock().await.slots[0].key.clone())).await
    }

    /// The Locals find the Global that was started again.
    pub fn point_to(&self, global: &Global) {
        for local in &self.locals {
            local.wire.point_to(&global.daemon.at);
        }
    }

    /// As [`Storm::point_to`]; then reads every key at both Locals while the writers wait.
    pub async fn is_whole(&mut self, global: &Global, when: &str) {
        self.point_to(global);
        for local in &self.locals {
            local.follow(global).await;
        }
        let wrong = verify(&self.writers).await;
        assert!(wrong.is_empty(), "{} {when}: {wrong:#?}", self.what);
        if let Some(ended) = self.tasks.iter().position(JoinHandle::is_finished) {
            panic!("{} {when}: {:?}", self.what, self.tasks.swap_remove(ended).await);
        }
    }

    /// Ends it, and looks once more. Gives the changes that were made, and those of which nobody knows.
    pub async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("it ended").unwrap_or_else(|wrong| panic!("{}: {wrong}", self.what));
        }
        let wrong = verify(&self.writers).await;
        assert!(wrong.is_empty(), "{} at the end: {wrong:#?}", self.what);
        (self.counts.made.load(Ordering::SeqCst), self.counts.unknown.load(Ordering::SeqCst))
    }
}

/// Draws from the seed that is given, or from any.
pub fn seeded(what: &str) -> (SeededRng, String) {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| dstore_sys::rng::OsRng.next_u64());
    eprintln!("{what}: DSTORE_SEED={seed}");
    (SeededRng::new(seed), format!("{what}, DSTORE_SEED={seed}"))
}

/// Kills Global `rounds` times, after at most `pause` each, with `least` changes in between. Every fourth time it is stopping, which is when it
/// writes a checkpoint.
async fn storm(engine: &'static str, rounds: u64, pause: Duration, least: u64) {
    let (rng, what) = seeded(engine);
    let begun = Instant::now();
    let mut global = Global::start(&["--engine", engine, "--lease", "100ms"]);
    let mut storm = Storm::begin(&global, WRITERS, &rng, what).await;
    let (file, mut checkpoints) = (global.data().join("checkpoint"), 0);
    let within = |part: u64| Duration::from_micros(rng.next_u64() % (part * pause.as_micros() as u64).max(1));
    for round in 0..rounds {
        let before = written(&file);
        // No event is waited for, here and below: any moment will do.
        tokio::time::sleep(within(1)).await;
        if round % 4 == 3 {
            global.daemon.signal(Signal::TERM);
            tokio::time::sleep(within(2)).await;
        }
        global.daemon.kill();
        checkpoints += u64::from(written(&file) != before);
        global.again();
        storm.is_whole(&global, &format!("round {round}")).await;
        if round % 100 == 99 {
            eprintln!("{engine}: {} kills in {:?}", round + 1, begun.elapsed());
        }
    }
    let (made, unknown) = storm.end().await;
    let rate = rounds as f64 * 60.0 / begun.elapsed().as_secs_f64();
    eprintln!(
        "{engine}: {rounds} kills, {made} changes, {unknown} unknown, {checkpoints} checkpoints, 0 losses, {rate:.0} a minute"
    );
    assert!(made > rounds * least, "a storm and not a breeze: {made} changes");
    assert!(checkpoints > 0, "some rounds wrote a checkpoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_on_fjall_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("fjall", 50, PAUSE, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_in_memory_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("memory", 50, PAUSE, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_of_a_global_on_sled_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    storm("sled", 50, PAUSE, 10).await;
}

/// `DSTORE_KILLS` of each engine that `DSTORE_ENGINES` names, one after another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: hundreds of kills, or as many as DSTORE_KILLS says"]
async fn hundreds_of_kills_lose_nothing_acknowledged_and_bring_nothing_deleted_back() {
    let given = |name| std::env::var(name).ok();
    let kills = given("DSTORE_KILLS").map_or(300, |n| n.parse().expect("a number"));
    let engines = given("DSTORE_ENGINES").unwrap_or_else(|| "fjall sled memory".into());
    for engine in ["fjall", "sled", "memory"] {
        if engines.split([' ', ',']).any(|wanted| wanted == engine) {
            storm(engine, kills, PAUSE / 3, 2).await;
        }
    }
}
