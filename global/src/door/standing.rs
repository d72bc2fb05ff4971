//! What Global tells a person: its Locals, and how it reads a name.

use super::Host;
use crate::sessions::{Drain, Standing};
use dstore_proto::store::{Attached, Drained, Hop, LOCALS_TOLD_MAX, Locals, Slice, Tier, Why};
use dstore_shared::{BlobHash, BlobHasher, Moment, Name, Result};
use futures_util::StreamExt;
use std::time::Duration;

/// Bytes of a value that an explanation reads: enough to tell a slow disk, few enough to be in nobody's way.
const READ_BYTES_MAX: u64 = 16 << 20;

impl Host {
    pub(super) fn attached(&self, name: Option<&Name>) -> Locals {
        let (mut all, now) = self.0.event(|machine, now| (machine.standings(now, name), now));
        all.sort_by(|a, b| (b.holds, b.behind, &a.label).cmp(&(a.holds, a.behind, &b.label)));
        let count = all.len() as u64;
        all.truncate(LOCALS_TOLD_MAX);
        Locals { told: all.into_iter().map(|one| told(one, now)).collect(), count }
    }

    /// Reads the name and its value for the sake of the times.
    pub(super) async fn explained(&self, name: &Name) -> Result<Why> {
        let clock = self.0.sys.clock.clone();
        let began = clock.now();
        let (entry, head) = self.look(name).await?;
        let looked = clock.now().since(began);
        let (drain, now) = self.0.event(|machine, now| (machine.drain_of(name), now));
        let drained = drain.map(|drain| drained(drain, now));
        let Some(entry) = entry else {
            let hops =
                vec![Hop::new(Tier::Global, "lookup", looked, format!("no such key, as of revision {head}"))];
            return Ok(Why { entry: None, hops, drained });
        };
        let bound = entry.bind_rev;
        let mut hops = vec![Hop::new(Tier::Global, "lookup", looked, format!("bound at revision {bound}"))];
        hops.extend(self.read_for_its_times(entry.hash, entry.size).await?);
        Ok(Why { entry: Some(entry), hops, drained })
    }

    async fn read_for_its_times(&self, hash: BlobHash, size: u64) -> Result<Vec<Hop>> {
        let clock = self.0.sys.clock.clone();
        let whole = size <= READ_BYTES_MAX;
        let slice = Slice { offset: 0, len: Some(size.min(READ_BYTES_MAX)) };
        let began = clock.now();
        let fetch = if whole {
            self.0.give_blob(hash, Slice::ALL).await?
        } else {
            self.0.give_blob(hash, slice).await?
        };
        let Some(mut fetch) = fetch else {
            let took = clock.now().since(began);
            return Ok(vec![Hop::new(
                Tier::Global,
                "disk",
                took,
                "the value is not there: it was deleted meanwhile",
            )]);
        };
        let (mut hasher, mut hashing, mut bytes) = (BlobHasher::default(), Duration::ZERO, 0_u64);
        while let Some(piece) = fetch.body.next().await {
            let piece = piece?;
            let before = clock.now();
            hasher.update(&piece);
            hashing += clock.now().since(before);
            bytes += piece.len() as u64;
        }
        let right = match (whole, hasher.finish() == hash) {
            (true, true) => "right",
            (true, false) => "WRONG: run `dstore check --deep`",
            (false, _) => "of the beginning; the whole is compared when it is read",
        };
        let reading = clock.now().since(began).saturating_sub(hashing);
        Ok(vec![
            Hop::new(Tier::Global, "disk", reading, format!("{bytes} B read")),
            Hop::new(Tier::Global, "hash check", hashing, right),
        ])
    }
}

fn told(one: Standing, now: Moment) -> Attached {
    Attached {
        label: one.label,
        id: one.local,
        lease_left: one.lease_end.since(now),
        behind: one.behind,
        wildcard: one.wildcard,
        slow: one.slow,
        holds: one.holds,
    }
}

fn drained(drain: Drain, now: Moment) -> Drained {
    let ago = now.since(drain.at);
    let waited = if drain.revision.0 == 0 { ago } else { drain.waited };
    Drained { revision: drain.revision, ago, waited, for_whom: drain.for_whom }
}
