//! A life of a whole Global on a simulated disk: what it was asked, when that was acknowledged, and what every
//! revision left bound.
//!
//! Everything is drawn from the seed: values of every size, SET, DEL in all forms, COPY, RENAME, transactions, blobs that are
//! deduplicated, swept and come back, checkpoints, stops in order, and kills on a machine that goes on. Segments and
//! checkpoints are small, so that journals change segments, are trimmed and reuse what was trimmed.

use crate::{EngineKind, Global, GlobalConfig, SyncLevel};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::{
    Blob, BlobHash, ContentType, CopyResult, Decision, DeleteMode, Error, Expiry, Guard, Moment, Name,
    Namespace, Payload, Prefix, Result, Revision, SetOutcome, Step, Transaction, When,
};
use dstore_sys::Sys;
use dstore_sys::clock::TokioClock;
use dstore_sys::disk::{SimDisk, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Blocking;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What names are bound to.
pub(super) type Bound = BTreeMap<String, BlobHash>;

const NAMES: u64 = 20;
/// How many of them are under the prefix that is deleted as a whole.
const UNDER_PREFIX: u64 = 6;
/// Sizes of values, with how often each is drawn: four are carried and kept in the index, the others have files, the
/// last three with an outline, and the last in more than one piece.
const SIZES: [(u64, usize); 8] =
    [(1, 0), (6, 30), (4, 3_000), (2, 40_000), (4, 70_000), (1, 262_145), (1, 300_000), (1, 1_100_000)];

/// What a simulated machine gives to a Global.
pub(super) fn sys(disk: &SimDisk, seed: u64) -> Sys {
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let clock = Arc::new(TokioClock::new(Moment::from_nanos(1_000_000_000), 1_000_000));
    let (disk, rng) = (Arc::new(disk.clone()), Arc::new(SeededRng::new(seed)));
    Sys { blocking, clock, disk, rng, ..Sys::real() }
}

/// How the Global of a life with `seed` is set up.
pub(super) fn config(seed: u64) -> GlobalConfig {
    GlobalConfig {
        engine: EngineKind::Memory,
        sync: SyncLevel::DURABLE[(seed % 2) as usize],
        min_free: 0,
        // Every other life sweeps at once.
        sweep_grace: if seed % 4 < 2 { Duration::ZERO } else { Duration::from_secs(3600) },
        segment_bytes: 256 << 10,
        checkpoint_bytes: 150_000,
        ..GlobalConfig::new("/data")
    }
}

/// Starts the Global of a life with `seed` on `disk`. What it draws itself comes from `draw`, which must be another
/// at each start: identities of callers are among it.
pub(super) async fn start(disk: &SimDisk, seed: u64, draw: u64) -> Result<Global> {
    Global::start(sys(disk, draw), config(seed)).await
}

/// One disk's part of a life: from a start, or a kill, to the next kill.
pub(super) struct Span {
    pub(super) disk: SimDisk,
    /// After so many changes of the disk, everything up to the revision was acknowledged.
    pub(super) acknowledged: Vec<(usize, Revision)>,
    /// Nothing was ever written beyond it.
    pub(super) newest: Revision,
}

impl Span {
    /// What was acknowledged when the disk had seen `op` changes.
    pub(super) fn promised(&self, op: usize) -> Revision {
        self.acknowledged
            .iter()
            .rev()
            .find(|(at, _)| *at <= op)
            .map_or(Revision(0), |(_, revision)| *revision)
    }
}

/// What became of a change: its revision, and what it bound and unbound.
type Effect = (Revision, Vec<(String, Option<BlobHash>)>);

/// A life that was lived.
pub(super) struct Life {
    pub(super) seed: u64,
    pub(super) spans: Vec<Span>,
    /// What revisions changed, in order, and in which span; those of Global's own work are not there, and may be used
    /// again after a kill.
    effects: Vec<(usize, Effect)>,
    now: Bound,
    rng: SeededRng,
    made: u64,
    /// Values that were stored once, to be stored again.
    values: Vec<Bytes>,
    pub(super) changes: usize,
}

/// What is asked for.
enum Ask {
    Set(String, Bytes),
    Delete(Vec<String>, DeleteMode),
    DeletePrefix,
    Copy(String, String),
    Rename(String, String),
    /// Both or neither: the first is unbound, the second bound to a value and a type, and both were as they were.
    Apply(String, String, Bytes),
}

impl Life {
    /// Lives `steps` steps. `born` is told of each disk before anything happens on it.
    pub(super) async fn live(seed: u64, steps: usize, mut born: impl FnMut(&SimDisk)) -> Self {
        let disk = SimDisk::new();
        disk.record(256 << 20);
        born(&disk);
        let span = Span { disk: disk.clone(), acknowledged: Vec::new(), newest: Revision(0) };
        let mut life = Self {
            seed,
            spans: vec![span],
            effects: Vec::new(),
            now: Bound::new(),
            rng: SeededRng::new(seed),
            made: 0,
            values: Vec::new(),
            changes: 0,
        };
        let mut global = start(&disk, seed, life.rng.next_u64()).await.expect("a new directory");
        for _ in 0..steps {
            match life.draw(16) {
                0 => {
                    global.stop().await.expect("nobody has a lease");
                    global = life.start().await;
                }
                1 => {
                    life.half_an_upload(&global).await;
                    // Of the process, or of the machine.
                    let next = match life.draw(2) {
                        0 => life.span().disk.after_kill(),
                        _ => life.span().disk.crash(Survival::Any, life.rng.next_u64()),
                    };
                    life.seen_newest(global.authority().catalog.head());
                    let _ = global.stop().await;
                    next.record(256 << 20);
                    born(&next);
                    let promised = life.span().acknowledged.last().map_or(Revision(0), |(_, r)| *r);
                    let acknowledged = vec![(next.op_count(), promised)];
                    life.spans.push(Span { disk: next, acknowledged, newest: promised });
                    global = life.start().await;
                }
                2 => _ = global.authority().checkpoint().await.expect("written"),
                _ => life.step(&global).await,
            }
            let pause = life.draw(120);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            life.seen_newest(global.authority().catalog.head());
        }
        global.stop().await.expect("nobody has a lease");
        life
    }

    async fn start(&self) -> Global {
        start(&self.span().disk, self.seed, self.rng.next_u64()).await.expect("it is sound")
    }

    fn draw(&self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    fn span(&self) -> &Span {
        self.spans.last().expect("there is always one")
    }

    fn seen_newest(&mut self, head: Revision) {
        let span = self.spans.last_mut().expect("there is always one");
        span.newest = span.newest.max(head);
    }

    /// What is bound as of `revision` in a span.
    pub(super) fn state(&self, span: usize, revision: Revision) -> Bound {
        let mut bound = Bound::new();
        let until =
            self.effects.iter().take_while(|(at, (r, _))| *at < span || (*at == span && *r <= revision));
        for (name, value) in until.flat_map(|(_, (_, effect))| effect) {
            match value {
                Some(hash) => _ = bound.insert(name.clone(), *hash),
                None => _ = bound.remove(name),
            }
        }
        bound
    }

    /// An upload that has no name yet, as far as it comes in a few milliseconds.
    async fn half_an_upload(&mut self, global: &Global) {
        let (store, within) = (global.store(), Duration::from_micros(self.draw(9_000)));
        let id = store.next_id().expect("an id");
        let bytes = self.noise(70_000);
        self.values.push(bytes.clone());
        let upload = store.set(id, None, Body::Bytes(bytes));
        let _ = tokio::time::timeout(within, upload).await;
    }

    /// Some changes at a time, of different names.
    async fn step(&mut self, global: &Global) {
        let asks = self.asks();
        let store = &*global.store();
        let done = join_all(asks.into_iter().map(|ask| carry_out(store, ask))).await;
        let mut effects: Vec<Effect> =
            done.into_iter().filter_map(|done| done.expect("a sound disk")).collect();
        effects.sort_by_key(|(revision, _)| *revision);
        for (revision, effect) in effects {
            for (name, value) in &effect {
                match value {
                    Some(hash) => _ = self.now.insert(name.clone(), *hash),
                    None => _ = self.now.remove(name),
                }
            }
            self.effects.push((self.spans.len() - 1, (revision, effect)));
            self.changes += 1;
            let span = self.spans.last_mut().expect("there is always one");
            let promised = span.acknowledged.last().map_or(Revision(0), |(_, r)| *r).max(revision);
            span.acknowledged.push((span.disk.op_count(), promised));
        }
    }

    fn asks(&mut self) -> Vec<Ask> {
        if self.draw(20) == 0 {
            return vec![Ask::DeletePrefix];
        }
        let mut names: Vec<String> = (0..NAMES).map(key).collect();
        let mut asks = Vec::new();
        for _ in 0..=self.draw(4) {
            let name = names.swap_remove(self.draw(names.len() as u64) as usize);
            let other = names.swap_remove(self.draw(names.len() as u64) as usize);
            let ask = match (self.now.contains_key(&name), self.draw(10)) {
                (false, _) => Ask::Set(name, self.value()),
                (true, 0) if !self.now.contains_key(&other) => Ask::Apply(name, other, self.noise(3_000)),
                (true, 0..3) => Ask::Rename(name, other),
                (true, 3..5) => Ask::Copy(name, other),
                (true, 5) => Ask::Delete(vec![name], DeleteMode::Async),
                (true, 6) => Ask::Delete(vec![name, other], DeleteMode::Strict),
                (true, _) => Ask::Delete(vec![name], DeleteMode::Strict),
            };
            asks.push(ask);
        }
        asks
    }

    fn value(&mut self) -> Bytes {
        if !self.values.is_empty() && self.draw(4) == 0 {
            return self.values[self.draw(self.values.len() as u64) as usize].clone();
        }
        let mut at = self.draw(SIZES.iter().map(|(often, _)| often).sum());
        let size = SIZES.iter().find(|(often, _)| {
            let here = at < *often;
            at = at.saturating_sub(*often);
            here
        });
        let bytes = self.noise(size.expect("below the sum").1);
        self.values.push(bytes.clone());
        bytes
    }

    /// Bytes that no other value has.
    fn noise(&mut self, len: usize) -> Bytes {
        self.made += 1;
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.made.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes.into()
    }
}

fn key(n: u64) -> String {
    if n < UNDER_PREFIX { format!("p/{n}") } else { format!("k{n}") }
}

pub(super) fn name(key: &str) -> Name {
    Name::of(key.to_owned()).expect("a valid key")
}

/// What the change came to; `None` if it changed nothing.
async fn carry_out<S: Store + IdSource>(store: &S, ask: Ask) -> Result<Option<Effect>> {
    let id = store.next_id()?;
    match ask {
        Ask::Set(key, value) => set(store, &key, value).await,
        Ask::Delete(keys, mode) => {
            let names = keys.iter().map(|key| name(key)).collect();
            let done = store.delete_in(id, names, mode).await?;
            let gone = keys.into_iter().zip(&done.removed).filter(|(_, removed)| **removed);
            let effect: Vec<_> = gone.map(|(key, _)| (key, None)).collect();
            Ok((!effect.is_empty()).then_some((done.revision, effect)))
        }
        Ask::DeletePrefix => {
            let prefix = Prefix::new(&Namespace::default(), b"p/")?;
            let done = store.delete_prefix(id, prefix).await?;
            let effect = (0..UNDER_PREFIX).map(|n| (key(n), None)).collect();
            Ok((done.removed > 0).then_some((done.revision, effect)))
        }
        Ask::Apply(from, to, value) => {
            let said = ContentType::new("text/plain")?;
            let payload = Payload::carrying(Blob::hash(value)).typed(Some(said));
            let set =
                Step::Set { name: name(&to), value: payload, when: When::Absent, expiry: Expiry::Clear };
            let guards = vec![Guard { name: name(&to), bind_rev: None }];
            let transaction = Transaction::guarded(guards, vec![Step::Delete { name: name(&from) }, set]);
            let done = store.apply(id, transaction).await?;
            let Decision::Done(steps) = done.decision else { return Ok(None) };
            let bound = steps[1].entry.as_ref().map(|entry| entry.hash);
            Ok(Some((done.revision, vec![(from, None), (to, bound)])))
        }
        Ask::Copy(from, to) => {
            let done = store.copy(id, name(&from), name(&to)).await?;
            Ok(match done.result {
                CopyResult::Done(entry) => Some((done.revision, vec![(to, Some(entry.hash))])),
                _ => None,
            })
        }
        Ask::Rename(from, to) => {
            let done = store.rename(id, name(&from), name(&to)).await?;
            Ok(match done.result {
                CopyResult::Done(entry) => Some((done.revision, vec![(from, None), (to, Some(entry.hash))])),
                _ => None,
            })
        }
    }
}

/// SET, again if the blob was swept between its upload and its name.
pub(super) async fn set<S: Store + IdSource>(store: &S, key: &str, value: Bytes) -> Result<Option<Effect>> {
    for _ in 0..100 {
        let reply = store.set(store.next_id()?, Some(name(key)), Body::Bytes(value.clone())).await;
        return match reply {
            Ok(reply) => Ok(match reply.outcome {
                SetOutcome::Stored(entry) => Some((entry.bind_rev, vec![(key.to_owned(), Some(entry.hash))])),
                _ => None,
            }),
            Err(e) if e.message().contains("swept meanwhile") => continue,
            Err(e) => Err(e),
        };
    }
    Err(Error::unavailable("swept a hundred times"))
}

/// The value of a name, verified byte by byte against what the name is bound to.
pub(super) async fn read<S: Store>(store: &S, key: &str) -> Result<Option<BlobHash>> {
    let Some(found) = store.get(Target::Name(name(key)), Slice::ALL).await? else { return Ok(None) };
    let bytes = found.body.collect(2 << 20).await?;
    assert_eq!(BlobHash::of(&bytes), found.entry.hash, "`{key}`: other bytes than it is bound to");
    Ok(Some(found.entry.hash))
}
