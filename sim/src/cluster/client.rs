//! A client: calls at random, tries again under the same id, and has everything written down.
//!
//! What each call is, `reads.rs` and `changes.rs` say.

use super::desk::Desk;
use super::{Cluster, Phase, TrueTime, local_host};
use crate::faults::Siege;
use crate::history::Begun;
use crate::linear::{Answer, Keys, Op, Value};
use crate::plan::Deed;
use dstore_proto::store::Provenance;
use dstore_proto::store::Tier;
use dstore_shared::{BlobHash, Error, Kind, Result};
use dstore_sys::rng::{Rng, SeededRng};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// No call may take longer: a node has a deadline, and a transfer an idle one.
const FOREVER: Duration = Duration::from_secs(30);
/// Longest pause between two calls in a siege, in milliseconds.
const HASTE_MS: u64 = 6;
/// How long a GET at a besieged Local is waited for: a hit takes no time, and who misses must ask again.
const SIEGE_GET_MAX: Duration = Duration::from_millis(20);
/// After every so many-eth GET its name is read again at once, so many times at most: hits are where a cache can lie.
const BURST: (u64, u64) = (3, 6);

pub(super) struct Client<D> {
    pub cluster: Cluster,
    pub by: String,
    pub desk: D,
    pub time: TrueTime,
    pub rng: Arc<SeededRng>,
    /// For [`Bug::ClientCache`](crate::plan::Bug::ClientCache).
    pub cache: RefCell<BTreeMap<usize, Option<Value>>>,
    /// Values that were read by name.
    pub known: RefCell<BTreeMap<BlobHash, Value>>,
}

impl<D: Desk> Client<D> {
    pub fn new(cluster: Cluster, by: String, desk: D, time: TrueTime, rng: Arc<SeededRng>) -> Self {
        Self { cluster, by, desk, time, rng, cache: RefCell::default(), known: RefCell::default() }
    }

    pub async fn run(self) {
        let think = self.cluster.0.plan.think_ms;
        loop {
            let think = if self.cluster.siege().is_some() { HASTE_MS } else { think };
            tokio::time::sleep(Duration::from_millis(self.below(think) + 1)).await;
            if self.cluster.0.phase.get() == Phase::Work && !self.cluster.is_paused(&self.by) {
                let _under_way = Busy::new(&self.cluster);
                self.call().await;
            }
        }
    }

    pub fn draw(&self) -> u64 {
        self.rng.next_u64()
    }

    pub fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    async fn call(&self) {
        if let Some(siege) = self.cluster.siege()
            && self.below(10) > 0
        {
            return self.fight(siege).await;
        }
        let plan = &self.cluster.0.plan;
        let keys = plan.keys as u64;
        let key = self.below(keys) as usize;
        let other = (key + 1 + self.below(keys - 1) as usize) % keys as usize;
        match plan.deeds[self.below(plan.deeds.len() as u64) as usize] {
            Deed::Get => self.get_again(key).await,
            Deed::Stat => _ = self.stat(key).await,
            Deed::Slice => self.slice(key).await,
            Deed::Stale => self.stale(key).await,
            Deed::Hash => self.hash().await,
            Deed::GetMany => self.get_many(self.some()).await,
            Deed::StatMany => self.stat_many(self.some()).await,
            Deed::Exists => self.exists(self.some()).await,
            Deed::List => self.list().await,
            Deed::Set => self.set(key).await,
            Deed::SetMany => self.set_many([key, other]).await,
            Deed::Copy => self.copy(key, other, false).await,
            Deed::Rename => self.copy(key, other, true).await,
            Deed::Delete => self.delete(Keys::one(key)).await,
            Deed::DeleteTwo => self.delete(Keys::of([key, other])).await,
            Deed::DeletePrefix => self.delete_prefix(key).await,
            Deed::DeleteAsync => self.delete_async(Keys::one(key)).await,
            Deed::SetBrief => self.set_brief(key).await,
            Deed::Brief => self.brief(key).await,
            Deed::Swap => self.swap(key, other).await,
            Deed::DeletePatient => self.delete_patient(Keys::of([key, other])).await,
        }
    }

    /// At least two keys.
    fn some(&self) -> Keys {
        let all = (1_u64 << self.cluster.0.plan.keys) - 1;
        let keys = Keys((self.draw() & all) as u8);
        if keys.each().count() < 2 { Keys(all as u8) } else { keys }
    }

    async fn get_again(&self, key: usize) {
        let again = if self.below(BURST.0) == 0 { 1 + self.below(BURST.1) } else { 1 };
        for _ in 0..again {
            if self.get(key).await.is_none() {
                return;
            }
        }
    }

    /// At the besieged Local reads the key, elsewhere changes it.
    async fn fight(&self, siege: Siege) {
        if self.by.starts_with(&format!("{}/", local_host(siege.local))) {
            // A GET that is given up has told nothing.
            let _ = tokio::time::timeout(SIEGE_GET_MAX, self.get(siege.key)).await;
        } else if siege.is_cut && self.below(3) > 0 {
            self.delete(Keys::one(siege.key)).await;
        } else {
            self.set(siege.key).await;
        }
    }

    /// Every call ends.
    pub async fn ended<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(FOREVER, call).await.unwrap_or_else(|_| {
            self.cluster.accuse(format!("{}: a call did not end within {FOREVER:?}", self.by));
            Err(Error::unavailable("it hangs"))
        })
    }

    /// Faults are told by the kinds that the plan allows, and no others.
    pub fn judge(&self, error: &Error) {
        if !self.cluster.0.plan.allows(error.kind()) {
            self.cluster.accuse(format!("{}: {:?}: {error}", self.by, error.kind()));
        }
    }

    /// The value of a hash.
    pub fn known(&self, hash: &BlobHash) -> Option<Value> {
        let value = self.cluster.value_of(hash);
        if let Some(value) = value {
            self.known.borrow_mut().insert(*hash, value);
        } else {
            self.cluster.accuse(format!("{}: blake3:{hash} was never set", self.by));
        }
        value
    }

    /// A read begins, at the tier that `draw` names.
    pub fn begin_read(&self, op: Op, draw: u64) -> Begun {
        let host = self.desk.host(draw);
        let by = if self.by.starts_with(host) { self.by.clone() } else { format!("{}@{host}", self.by) };
        self.cluster.0.history.begin(&by, op, self.time.now())
    }

    pub fn begin(&self, op: Op) -> Begun {
        self.cluster.0.history.begin(&self.by, op, self.time.now())
    }

    pub fn end(&self, begun: &Begun, answer: Answer) {
        self.cluster.0.history.end(begun, answer, self.time.now());
    }

    /// What else an answer says.
    pub fn say(&self, begun: &Begun, from: Provenance) {
        if from.loss.is_some() {
            self.cluster.accuse(format!("{}: an answer says that it may be lost", self.by));
        }
        self.cluster.0.history.say(begun, |told| {
            told.is_hit = from.tier == Tier::Local && from.stale_for.is_none();
            told.stale = from.stale_for;
        });
    }

    /// A call that failed told nothing.
    pub fn failed(&self, begun: &Begun, error: &Error) {
        if error.kind() != Kind::Pending {
            self.judge(error);
        }
        self.cluster.0.history.forget(begun);
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
