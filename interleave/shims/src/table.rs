//! `dashmap` over shuttle: a table in shards, each behind a lock that one row's guard holds.

use crate::locks::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Enough that two rows may be in different ones.
const SHARDS: usize = 2;

/// Not seeded, so that a schedule can be run again.
type Shard<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A concurrent table.
pub struct DashMap<K, V, S> {
    shards: Vec<RwLock<Shard<K, V>>>,
    hasher: PhantomData<S>,
}

impl<K: Eq + Hash + Clone, V, S> Default for DashMap<K, V, S> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(Shard::default())).collect();
        Self { shards, hasher: PhantomData }
    }
}

impl<K: Eq + Hash + Clone, V, S> DashMap<K, V, S> {
    /// An empty table.
    pub fn with_hasher_and_shard_amount(_: S, _: usize) -> Self {
        Self::default()
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &RwLock<Shard<K, V>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.shards[hasher.finish() as usize % SHARDS]
    }

    /// Reads a row in place.
    pub fn view<Q, T>(&self, key: &Q, read: impl FnOnce(&K, &V) -> T) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key).read();
        shard.get_key_value(key).map(|(key, value)| read(key, value))
    }

    /// A row to be read, held until the guard is dropped.
    pub fn get<Q>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key).read();
        let key = shard.get_key_value(key)?.0.clone();
        Some(Ref { shard, key })
    }

    /// A row to be changed, held until the guard is dropped.
    pub fn get_mut<Q>(&self, key: &Q) -> Option<RefMut<'_, K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key).write();
        let key = shard.get_key_value(key)?.0.clone();
        Some(RefMut { shard, key })
    }

    /// Whether there is such a row.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shard(key).read().contains_key(key)
    }

    /// Puts a row, and gives what it replaces.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        let shard = self.shard(&key);
        // What is replaced is dropped after the lock is let go.
        shard.write().insert(key, value)
    }

    /// Takes a row away.
    pub fn remove<Q>(&self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shard(key).write().remove_entry(key)
    }

    /// Takes a row away if it is `doomed`.
    pub fn remove_if<Q>(&self, key: &Q, doomed: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).write();
        let is_doomed = shard.get_key_value(key).is_some_and(|(key, value)| doomed(key, value));
        if is_doomed { shard.remove_entry(key) } else { None }
    }

    /// Changes all rows, shard by shard.
    pub fn alter_all(&self, mut change: impl FnMut(&K, V) -> V) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let rows = std::mem::take(&mut *shard);
            *shard = rows
                .into_iter()
                .map(|(key, value)| {
                    let value = change(&key, value);
                    (key, value)
                })
                .collect();
        }
    }

    /// Takes all rows away, shard by shard.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.write().clear();
        }
    }

    /// Nothing that anybody can see.
    pub fn shrink_to_fit(&self) {}

    /// Number of rows, shard by shard.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, V, S> fmt::Debug for DashMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DashMap")
    }
}

/// A row that is read.
pub struct Ref<'a, K, V> {
    shard: RwLockReadGuard<'a, Shard<K, V>>,
    key: K,
}

/// A row that is changed.
pub struct RefMut<'a, K, V> {
    shard: RwLockWriteGuard<'a, Shard<K, V>>,
    key: K,
}

const THERE: &str = "a row stays while its guard lives";

impl<K: Eq + Hash, V> Deref for Ref<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.shard.get(&self.key).expect(THERE)
    }
}

impl<K: Eq + Hash, V> Deref for RefMut<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.shard.get(&self.key).expect(THERE)
    }
}

impl<K: Eq + Hash, V> DerefMut for RefMut<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.shard.get_mut(&self.key).expect(THERE)
    }
}
