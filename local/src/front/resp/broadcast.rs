//! CLIENT TRACKING with BCAST: every change of a name with a prefix is told, whether it was read or not.
//!
//! This Local hears by itself only of names that it holds, so Global is watched: the push comes after the change, as
//! Redis's does. A watch that falls behind or breaks off begins anew after the client was told to forget everything.

use super::commands::{Answered, Call};
use super::door::Door;
use super::peers::Peer;
use super::reply::Reply;
use bytes::Bytes;
use dstore_proto::store::Store;
use dstore_proto::watch::WatchQuery;
use dstore_shared::limits::KEY_BYTES_MAX;
use dstore_shared::{Namespace, Result};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Prefixes of one client.
const PREFIXES_MAX: usize = 16;
/// The pause before a watch begins anew.
const PAUSE: Duration = Duration::from_millis(500);

/// The client is told of the changes of names with these prefixes; none = of all.
pub fn begin(call: &Call<'_>, mut prefixes: Vec<Bytes>) -> Answered<()> {
    if prefixes.is_empty() {
        prefixes.push(Bytes::new());
    }
    if prefixes.len() > PREFIXES_MAX || prefixes.iter().any(|prefix| prefix.len() > KEY_BYTES_MAX) {
        return Err(Reply::err(format!("at most {PREFIXES_MAX} prefixes of {KEY_BYTES_MAX} bytes")));
    }
    for (at, prefix) in prefixes.iter().enumerate() {
        if let Some(other) = prefixes[..at].iter().find(|o| o.starts_with(prefix) || prefix.starts_with(o)) {
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Err(Reply::err(format!(
                "Prefix '{}' overlaps with another provided prefix '{}'. Prefixes for a single client must not overlap.",
                shown(other),
                shown(prefix)
            )));
        }
    }
    for prefix in prefixes {
        let (door, peer, namespace) = (call.door.clone(), call.peer.clone(), call.client.namespace.clone());
        call.door.tasks.spawn("resp broadcast", async move { follow(&door, &peer, namespace, prefix).await });
    }
    Ok(())
}

fn is_wanted(door: &Door, peer: &Peer) -> bool {
    peer.tracks.load(Ordering::Relaxed) && door.peers.find(peer.id).is_some()
}

async fn follow(door: &Door, peer: &Arc<Peer>, namespace: Namespace, prefix: Bytes) {
    while is_wanted(door, peer) {
        if let Err(e) = watch(door, peer, &namespace, &prefix).await {
            tracing::debug!(client = peer.id, error = %e, "a broadcast watch ended");
        }
        if is_wanted(door, peer) {
            door.tracking.tell(peer, Reply::Nil);
        }
        tokio::time::sleep(door.rng.jitter(PAUSE)).await;
    }
}

async fn watch(door: &Door, peer: &Arc<Peer>, namespace: &Namespace, prefix: &Bytes) -> Result<()> {
    let query =
        WatchQuery { namespace: namespace.clone(), prefix: prefix.clone(), after: None, history: None };
    let mut watching = door.node.watch(query).await?;
    while let Some(seen) = watching.batches.next().await {
        let keys: Vec<Reply> =
            seen?.events.into_iter().map(|event| Reply::Bulk(event.key.into_bytes())).collect();
        if !is_wanted(door, peer) {
            return Ok(());
        }
        if !keys.is_empty() {
            door.tracking.tell(peer, Reply::Array(keys));
        }
    }
    Ok(())
}
