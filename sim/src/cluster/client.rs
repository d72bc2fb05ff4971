//! A client of a node: calls at random, tries again under the same id, and writes down what it saw.

use super::{Cluster, Phase, TrueTime, bytes_of, local_host, name, whole};
use crate::faults::Siege;
use crate::history::Begun;
use crate::linear::{Answer, Op, Value};
use crate::run::Bug;
use dstore_local::Node;
use dstore_proto::store::{Body, Store, Target};
use dstore_shared::{Error, Kind, Result, SetOutcome};
use dstore_sys::rng::{Rng, SeededRng};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How often a change is tried under one id before its outcome counts as unknown.
const ATTEMPTS: usize = 4;
/// No call may take longer: a node has a deadline, and a transfer an idle one.
const FOREVER: Duration = Duration::from_secs(30);
/// Longest pause between two calls of a client, in milliseconds.
const THINK_MS: u64 = 30;
/// The same in a siege.
const HASTE_MS: u64 = 6;
/// How long a GET at a besieged Local is waited for: a hit takes no time, and who misses must ask again.
const SIEGE_GET_MAX: Duration = Duration::from_millis(20);

pub(super) struct Client {
    cluster: Cluster,
    by: String,
    node: Node,
    time: TrueTime,
    rng: Arc<SeededRng>,
    /// For [`Bug::ClientCache`].
    cache: RefCell<BTreeMap<usize, Option<Value>>>,
}

impl Client {
    pub fn new(cluster: Cluster, by: String, node: Node, time: TrueTime, rng: Arc<SeededRng>) -> Self {
        Self { cluster, by, node, time, rng, cache: RefCell::default() }
    }

    pub async fn run(self) {
        loop {
            let think = if self.cluster.siege().is_some() { HASTE_MS } else { THINK_MS };
            tokio::time::sleep(Duration::from_millis(self.below(think) + 1)).await;
            if self.cluster.0.phase.get() == Phase::Work {
                let _under_way = Busy::new(&self.cluster);
                self.call().await;
            }
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    async fn call(&self) {
        if let Some(siege) = self.cluster.siege()
            && self.below(10) > 0
        {
            return self.fight(siege).await;
        }
        let keys = self.cluster.0.plan.keys as u64;
        let key = self.below(keys) as usize;
        match self.below(20) {
            0..10 => _ = self.get(key).await,
            10 => self.stat(key).await,
            11..17 => self.set(key).await,
            17..19 => self.delete(&[key]).await,
            _ => {
                let other = (key + 1 + self.below(keys - 1) as usize) % keys as usize;
                self.delete(&[key, other]).await;
            }
        }
    }

    /// At the besieged Local reads the key, elsewhere changes it.
    async fn fight(&self, siege: Siege) {
        if self.by.starts_with(&format!("{}/", local_host(siege.local))) {
            // A GET that is given up has told nothing.
            let _ = tokio::time::timeout(SIEGE_GET_MAX, self.get(siege.key)).await;
        } else if siege.is_cut && self.below(3) > 0 {
            self.delete(&[siege.key]).await;
        } else {
            self.set(siege.key).await;
        }
    }

    /// Reads a key; `None` = no answer.
    pub async fn get(&self, key: usize) -> Option<Option<Value>> {
        let begun = self.begin(key, Op::Get);
        if self.cluster.0.plan.bug == Some(Bug::ClientCache)
            && let Some(cached) = self.cache.borrow().get(&key)
            && self.below(4) == 0
        {
            self.read(&begun, *cached);
            return Some(*cached);
        }
        let (target, slice) = whole(key);
        let got = self.ended(self.node.get(target, slice)).await;
        let value = match got {
            Ok(None) => None,
            Ok(Some(found)) => {
                let body = found.body.collect(1 << 20).await;
                let bytes = match body {
                    Ok(bytes) => bytes,
                    Err(e) => {
                        self.judge(&e);
                        self.cluster.0.history.forget(&begun);
                        return None;
                    }
                };
                let value = self.known(&found.entry.hash)?;
                if bytes != bytes_of(value) {
                    self.cluster.accuse(format!("{}: key {key} gave bytes of another value", self.by));
                }
                Some(value)
            }
            Err(e) => {
                self.judge(&e);
                self.cluster.0.history.forget(&begun);
                return None;
            }
        };
        self.read(&begun, value);
        self.cache.borrow_mut().insert(key, value);
        Some(value)
    }

    async fn stat(&self, key: usize) {
        let begun = self.begin(key, Op::Get);
        match self.ended(self.node.stat(Target::Name(name(key)))).await {
            Ok(None) => self.read(&begun, None),
            Ok(Some(stat)) => {
                if let Some(value) = self.known(&stat.entry.hash) {
                    self.read(&begun, Some(value));
                }
            }
            Err(e) => {
                self.judge(&e);
                self.cluster.0.history.forget(&begun);
            }
        }
    }

    async fn set(&self, key: usize) {
        let fresh = self.below(5) > 0;
        let value = if fresh { self.cluster.new_value() } else { 1 + self.below(8) as Value };
        let value = if value < self.cluster.0.value_next.get() { value } else { self.cluster.new_value() };
        let Ok(id) = self.ended(self.node.request_id()).await else { return };
        let begun = self.begin(key, Op::Set(value));
        let set = || self.node.set(id, Some(name(key)), Body::Bytes(bytes_of(value)));
        let Some(reply) = self.insist(set).await else { return };
        let answer = match reply.outcome {
            SetOutcome::Stored(_) => Some(Answer::Stored),
            SetOutcome::Unchanged(_) => Some(Answer::Unchanged),
            SetOutcome::Occupied(entry) => self.known(&entry.hash).map(Answer::Occupied),
            SetOutcome::NeedBlob => None,
        };
        if let Some(answer) = answer {
            self.end(&begun, answer);
        }
    }

    async fn delete(&self, keys: &[usize]) {
        let Ok(id) = self.ended(self.node.request_id()).await else { return };
        let begun: Vec<Begun> = keys.iter().map(|key| self.begin(*key, Op::Delete)).collect();
        let names: Vec<_> = keys.iter().map(|key| name(*key)).collect();
        let Some(reply) = self.insist(|| self.node.delete(id, names.clone())).await else { return };
        if reply.removed.len() != keys.len() {
            self.cluster.accuse(format!("{}: a DEL of {} keys answered {:?}", self.by, keys.len(), reply));
            return;
        }
        for (begun, removed) in begun.iter().zip(reply.removed) {
            self.end(begun, Answer::Removed(removed));
        }
    }

    /// Tries a change again under its id; `None` = its outcome stays unknown.
    async fn insist<T, F: Future<Output = Result<T>>>(&self, change: impl Fn() -> F) -> Option<T> {
        for attempt in 0..ATTEMPTS {
            match self.ended(change()).await {
                Ok(reply) => return Some(reply),
                Err(e) => {
                    self.judge(&e);
                    if e.kind() == Kind::Closed {
                        return None;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
        }
        None
    }

    /// Every call ends.
    async fn ended<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(FOREVER, call).await.unwrap_or_else(|_| {
            self.cluster.accuse(format!("{}: a call did not end within {FOREVER:?}", self.by));
            Err(Error::unavailable("it hangs"))
        })
    }

    /// Faults of the network and of processes are `Unavailable` or `Closed`, and nothing else.
    fn judge(&self, error: &Error) {
        if !matches!(error.kind(), Kind::Unavailable | Kind::Closed) {
            self.cluster.accuse(format!("{}: {:?}: {error}", self.by, error.kind()));
        }
    }

    fn known(&self, hash: &dstore_shared::BlobHash) -> Option<Value> {
        let value = self.cluster.value_of(hash);
        if value.is_none() {
            self.cluster.accuse(format!("{}: blake3:{hash} was never set", self.by));
        }
        value
    }

    fn begin(&self, key: usize, op: Op) -> Begun {
        self.cluster.0.history.begin(&self.by, key, op, self.time.now())
    }

    fn end(&self, begun: &Begun, answer: Answer) {
        self.cluster.0.history.end(begun, answer, self.time.now());
    }

    fn read(&self, begun: &Begun, value: Option<Value>) {
        self.end(begun, value.map_or(Answer::Absent, Answer::Found));
    }
}

/// Counts a call under way, also one that dies with its host.
struct Busy(Cluster);

impl Busy {
    fn new(cluster: &Cluster) -> Self {
        cluster.0.busy.set(cluster.0.busy.get() + 1);
        Self(cluster.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.set(self.0.0.busy.get() - 1);
    }
}
