//! What a node tells a person: how it would read a name, and what it holds. EVICT and PIN.

use super::Node;
use dstore_proto::store::{Hop, Slice, Tier, Why};
use dstore_shared::{BlobHash, BlobHasher, Name, Result};
use futures_util::StreamExt;
use std::time::Duration;

/// Bytes of a value that an explanation fetches.
const FETCH_BYTES_MAX: u64 = 16 << 20;

impl Node {
    /// How a read of `name` goes now: the steps of [`Node::get_name`](super::Node), made for their times. Nothing comes to
    /// be held by it.
    pub(super) async fn explain(&self, name: &Name) -> Result<Why> {
        let clock = self.core.sys.clock.clone();
        let began = clock.now();
        let hit = self.core.hit(name.as_bytes());
        let looked = clock.now().since(began);
        if let Some(hit) = hit {
            let lease = self.core.lease_left().as_secs_f64();
            let told = format!("held, under a lease of {lease:.2} s more: answered here");
            let hops = vec![Hop::new(Tier::Local, "lookup", looked, told)];
            return Ok(Why { entry: Some(hit.entry), hops, drained: None });
        }
        let mut hops = vec![Hop::new(Tier::Local, "lookup", looked, self.missed(name))];
        let began = clock.now();
        let resolved = self.answer(self.core.look(name)).await?;
        let resolving = clock.now().since(began);
        hops.push(Hop::new(Tier::Local, "resolve", resolving, "queued, sent in a batch, answered by global"));
        let began = clock.now();
        let why = self.in_time(self.core.link.why(name)).await?.map_err(|_| self.away())??;
        let asked = clock.now().since(began);
        let there: Duration = why.hops.iter().map(|hop| hop.took).sum();
        hops.extend(why.hops);
        let way = asked.saturating_sub(there);
        hops.push(Hop::new(Tier::Local, "RPC", way, "to global and back, without what global did"));
        if let Some(entry) = &resolved.entry {
            hops.extend(self.explain_bytes(entry.hash, entry.size).await?);
        }
        Ok(Why { entry: resolved.entry, hops, drained: why.drained })
    }

    /// Why it is not answered here.
    fn missed(&self, name: &Name) -> String {
        match (self.core.cache.stale_hit(name.as_bytes()), self.core.is_serving()) {
            (Some(_), false) => "held, but there is no lease: global is asked",
            (Some(_), true) => "held, but not confirmed since the lease was renewed: global is asked",
            (None, true) => "not held: global is asked",
            (None, false) => "not held, and there is no lease: global is asked",
        }
        .to_owned()
    }

    async fn explain_bytes(&self, hash: BlobHash, size: u64) -> Result<Vec<Hop>> {
        let clock = self.core.sys.clock.clone();
        if self.core.cache.have(&hash).is_some() {
            return Ok(vec![Hop::new(
                Tier::Local,
                "bytes",
                Duration::ZERO,
                "held here, whatever the key: not fetched",
            )]);
        }
        let whole = size <= FETCH_BYTES_MAX;
        let slice = if whole { Slice::ALL } else { Slice { offset: 0, len: Some(FETCH_BYTES_MAX) } };
        let began = clock.now();
        let fetched = self.core.link.fetch(hash, slice).await?;
        let Some(mut fetched) = fetched else {
            let took = clock.now().since(began);
            return Ok(vec![Hop::new(Tier::Local, "fetch", took, "deleted meanwhile")]);
        };
        let (mut hasher, mut hashing, mut bytes) = (BlobHasher::default(), Duration::ZERO, 0_u64);
        while let Some(piece) = fetched.body.next().await {
            let piece = piece?;
            let before = clock.now();
            hasher.update(&piece);
            hashing += clock.now().since(before);
            bytes += piece.len() as u64;
        }
        let taking = clock.now().since(began).saturating_sub(hashing);
        let right = match (whole, hasher.finish() == hash) {
            (true, true) => "right",
            (true, false) => "WRONG: what came is not what was asked for",
            (false, _) => "of the beginning",
        };
        Ok(vec![
            Hop::new(Tier::Local, "fetch", taking, format!("{bytes} B came")),
            Hop::new(Tier::Local, "hash check", hashing, right),
        ])
    }

    /// Forgets the copies of `names`; for each, whether there was one.
    pub(super) fn let_go(&self, names: &[Name]) -> Vec<bool> {
        names.iter().map(|name| self.core.evict(name)).collect()
    }

    /// Keeps what is held of `names`, or lets it leave again.
    pub(super) fn hold(&self, names: &[Name], keep: bool) -> Vec<bool> {
        let pin = |name: &Name| {
            let hit = self.core.hit(name.as_bytes());
            hit.is_some_and(|hit| self.core.cache.pin(name, &hit.entry.hash))
        };
        let one = |name: &Name| if keep { pin(name) } else { self.core.cache.unpin(name) };
        names.iter().map(one).collect()
    }
}
