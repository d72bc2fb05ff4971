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
use dstore_proto::watch::{Event, Happened, WatchQuery};
use dstore_shared::limits::KEY_BYTES_MAX;
use dstore_shared::{Name, Namespace, Result};
use dstore_sys::tasks::Tasks;
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Prefixes of one client.
const PREFIXES_MAX: usize = 16;
/// The pause before a watch begins anew.
const PAUSE: Duration = Duration::from_millis(500);

/// The watches of one client; they end with it.
#[derive(Debug)]
pub struct Watches {
    tasks: Tasks,
    prefixes: Vec<Bytes>,
    /// Where each is watched.
    namespaces: Vec<Namespace>,
}

impl Watches {
    /// The prefixes that are watched.
    pub fn prefixes(&self) -> &[Bytes] {
        &self.prefixes
    }

    /// Whether it is told of a name.
    pub fn covers(&self, name: &Name) -> bool {
        let (namespace, key) = (name.namespace(), name.key());
        let mut watched = self.namespaces.iter().zip(&self.prefixes);
        watched.any(|(there, prefix)| *there == namespace && key.as_bytes().starts_with(prefix))
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// The prefixes that are to be watched from now on; without any all names are.
///
/// # Errors
/// If there are too many, or two overlap.
pub fn check(call: &Call<'_>, mut prefixes: Vec<Bytes>) -> Answered<Vec<Bytes>> {
    let known = call.client.watches.as_ref().map_or(&[][..], Watches::prefixes);
    if prefixes.is_empty() && !known.iter().any(Bytes::is_empty) {
        prefixes.push(Bytes::new());
    }
    let many = prefixes.len() + known.len() > PREFIXES_MAX;
    if many || prefixes.iter().any(|prefix| prefix.len() > KEY_BYTES_MAX) {
        return Err(Reply::err(format!("at most {PREFIXES_MAX} prefixes of {KEY_BYTES_MAX} bytes")));
    }
    for (at, prefix) in prefixes.iter().enumerate() {
        let overlaps = |other: &&Bytes| other.starts_with(prefix) || prefix.starts_with(other);
        let existing = known.iter().find(overlaps).map(|other| ("an existing", other));
        let provided = || prefixes[..at].iter().find(overlaps).map(|other| ("another provided", other));
        if let Some((which, other)) = existing.or_else(provided) {
            let (one, other) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
            let (one, other) = if which == "an existing" { (one, other) } else { (other, one) };
            return Err(Reply::err(format!(
                "Prefix '{one}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
            )));
        }
    }
    Ok(prefixes)
}

/// The client is told of the changes of names with these prefixes, which were checked, too.
pub fn begin(call: &mut Call<'_>, prefixes: Vec<Bytes>) {
    let none = || Watches { tasks: call.door.tasks.child(), prefixes: Vec::new(), namespaces: Vec::new() };
    let watches = call.client.watches.get_or_insert_with(none);
    for prefix in prefixes {
        let (door, peer, namespace) = (call.door.clone(), call.peer.clone(), call.client.namespace.clone());
        watches.prefixes.push(prefix.clone());
        watches.namespaces.push(namespace.clone());
        watches.tasks.spawn("resp broadcast", async move { follow(&door, &peer, namespace, prefix).await });
    }
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
            // What this client wrote may have been among what was missed.
            door.tracking.forget_written(peer.id);
            door.tracking.tell(peer.id, Reply::Nil);
        }
        tokio::time::sleep(door.rng.jitter(PAUSE)).await;
    }
}

async fn watch(door: &Door, peer: &Arc<Peer>, namespace: &Namespace, prefix: &Bytes) -> Result<()> {
    let query =
        WatchQuery { namespace: namespace.clone(), prefix: prefix.clone(), after: None, history: None };
    let mut watching = door.node.watch(query).await?;
    while let Some(seen) = watching.batches.next().await {
        let seen = seen?;
        if !is_wanted(door, peer) {
            return Ok(());
        }
        let others = seen.events.into_iter().filter(|event| !is_echo(door, peer, namespace, event));
        let keys: Vec<Reply> = others.map(|event| Reply::Bulk(event.key.into_bytes())).collect();
        if !keys.is_empty() {
            door.tracking.tell(peer.id, Reply::Array(keys));
        }
    }
    Ok(())
}

/// Whether it is what a client with NOLOOP did itself.
fn is_echo(door: &Door, peer: &Peer, namespace: &Namespace, event: &Event) -> bool {
    let now = match &event.happened {
        Happened::Bound(entry) => Some(entry.hash),
        Happened::Unbound(_) => None,
    };
    door.tracking.is_echo(peer.id, &Name::new(namespace, &event.key), now)
}
