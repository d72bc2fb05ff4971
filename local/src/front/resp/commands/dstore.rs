//! What only dstore has: blobs by their hash, and what this Local knows of a key.

use super::{Done, Reply, Run, replied};
use crate::front::resp::plan::hashed;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Stat, Store, Target, Tier};
use dstore_shared::{BlobHash, Entry, SetOutcome};

/// DS.PUT value
pub const PUT: Run = Run::Only(|call| {
    call.started()?;
    let (door, value) = (call.door.clone(), call.args.bytes(1));
    Ok(Done::later(async move {
        let put = async {
            let blob = hashed(&door, value).await;
            let done = door.node.set(door.node.next_id()?, None, Body::Blob(blob.clone())).await?;
            debug_assert!(matches!(done.outcome, SetOutcome::Stored(_)));
            Ok(Reply::text(blob.id().to_string()))
        };
        replied(put.await)
    }))
});

/// DS.GET hash
pub const GET: Run = Run::Only(|call| {
    let text = String::from_utf8_lossy(call.args.get(1)).into_owned();
    let hash: BlobHash =
        text.strip_prefix("blake3:").unwrap_or(&text).parse().map_err(|e| Reply::err(format!("{e}")))?;
    let door = call.door.clone();
    Ok(Done::later(async move {
        let get = async {
            Ok(match door.node.get(Target::Hash(hash), Slice::ALL).await? {
                Some(found) => Reply::Bulk(door.whole(found).await?),
                None => Reply::Nil,
            })
        };
        replied(get.await)
    }))
});

/// DS.STAT key
pub const STAT: Run = Run::Only(|call| {
    call.started()?;
    let (door, name) = (call.door.clone(), call.name(1)?);
    Ok(Done::later(async move {
        let stat = door.node.stat(Target::Name(name)).await;
        replied(stat.map(|stat| stat.map_or(Reply::NilArray, |stat| Reply::Map(told(&stat)))))
    }))
});

fn told(stat: &Stat) -> Vec<(Reply, Reply)> {
    let Entry { hash, size, bind_rev, expires_at, .. } = stat.entry;
    vec![
        (Reply::word("hash"), Reply::text(hash.to_string())),
        (Reply::word("size"), Reply::Int(size as i64)),
        (Reply::word("revision"), Reply::Int(bind_rev.0 as i64)),
        (Reply::word("expires_at_ms"), expires_at.map_or(Reply::Nil, |at| Reply::Int(at.get() as i64))),
        (Reply::word("tier"), tier(stat.from.tier)),
        (Reply::word("cached"), Reply::flag(stat.from.cached)),
    ]
}

fn tier(tier: Tier) -> Reply {
    Reply::word(match tier {
        Tier::Local => "local",
        Tier::Global => "global",
    })
}

/// DS.WHY key
pub const WHY: Run = Run::Only(|call| {
    let name = call.name(1)?;
    if !call.door.node.is_serving() {
        let why = "no lease: Global is asked, or the answer is TRYAGAIN";
        return Ok(Reply::Map(vec![
            (Reply::word("tier"), Reply::word("global")),
            (Reply::word("why"), Reply::word(why)),
        ])
        .into());
    }
    let held = call.door.node.hit_packed(name.as_bytes()).is_some();
    call.started()?;
    let door = call.door.clone();
    Ok(Done::later(async move {
        let stat = door.node.stat(Target::Name(name)).await;
        replied(stat.map(|stat| {
            let (tier, why) = match (&stat, held) {
                (None, _) => ("global", "the key is not bound"),
                (Some(_), true) => ("local", "held under a valid lease"),
                (Some(_), false) => ("global", "bound, and not held here: the next GET fetches it"),
            };
            let mut facts =
                vec![(Reply::word("tier"), Reply::word(tier)), (Reply::word("why"), Reply::word(why))];
            facts.extend(stat.iter().flat_map(told).filter(|(key, _)| *key != Reply::word("tier")));
            Reply::Map(facts)
        }))
    }))
});

/// DS.EVICT key
pub const EVICT: Run = Run::Only(|call| {
    let name = call.name(1)?;
    Ok(Reply::flag(call.door.node.forget(&name)).into())
});

/// DS.VIEW [GLOBAL | LOCAL]
pub const VIEW: Run = Run::Only(|call| {
    match () {
        () if call.args.len() == 1 => {
            return Ok(Reply::word(if call.client.local_view { "local" } else { "global" }).into());
        }
        () if call.args.is(1, "local") && call.args.len() == 2 => call.client.local_view = true,
        () if call.args.is(1, "global") && call.args.len() == 2 => call.client.local_view = false,
        () => return Err(super::SYNTAX),
    }
    Ok(Reply::OK.into())
});
