//! CLIENT TRACKING with BCAST: every change of a name with a prefix is told, whether it was read or not.
//!
//! This Local hears by itself only of names that it holds, so Global is watched: the push comes after the change, as
//! Redis's does. When a watch breaks off, the client is told to forget everything, and the watch goes on behind the last
//! change that was told. One that cannot, as the first, begins with now: then the client is told to forget everything
//! once it has begun, since changes until then were not seen.

use super::commands::{Answered, Call};
use super::door::Door;
use super::peers::Peer;
use super::reply::Reply;
use bytes::Bytes;
use dstore_proto::store::Store;
use dstore_proto::watch::{Event, Happened, WatchQuery, Watching};
use dstore_shared::limits::KEY_BYTES_MAX;
use dstore_shared::{HistoryId, Kind, Name, Namespace, Result, Revision};
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

/// The watches of a client go on in another namespace.
pub fn select(call: &mut Call<'_>) {
    let Some(watches) = call.client.watches.take() else { return };
    let prefixes = watches.prefixes.clone();
    drop(watches);
    // What it wrote elsewhere is heard of no more.
    call.door.tracking.forget_written(call.peer.id);
    begin(call, prefixes);
}

/// How far a client was told.
type Place = Option<(HistoryId, Revision)>;

async fn follow(door: &Door, peer: &Arc<Peer>, namespace: Namespace, prefix: Bytes) {
    let mut place = None;
    while is_wanted(door, peer) {
        let begin = |query| door.node.watch(query);
        if let Err(e) = watch(door, peer, (&namespace, &prefix), &mut place, begin).await {
            tracing::debug!(client = peer.id, error = %e, "a broadcast watch ended");
            if !matches!(e.kind(), Kind::Unavailable | Kind::Pending | Kind::Exhausted) {
                // Perhaps there is no going on from there.
                place = None;
            }
        }
        forget_all(door, peer);
        tokio::time::sleep(door.rng.jitter(PAUSE)).await;
    }
}

fn forget_all(door: &Door, peer: &Peer) {
    if is_wanted(door, peer) {
        // What this client wrote may have been among what was missed.
        door.tracking.forget_written(peer.id);
        door.tracking.tell(peer.id, Reply::Nil);
    }
}

/// Tells a client what happens from `place` on, and keeps how far it was told there.
async fn watch<B: Future<Output = Result<Watching>>>(
    door: &Door,
    peer: &Arc<Peer>,
    (namespace, prefix): (&Namespace, &Bytes),
    place: &mut Place,
    begin: impl FnOnce(WatchQuery) -> B,
) -> Result<()> {
    let (history, after) = place.unzip();
    let mut watching =
        begin(WatchQuery { namespace: namespace.clone(), prefix: prefix.clone(), after, history }).await?;
    if after != Some(watching.after) || history != Some(watching.history) {
        forget_all(door, peer);
    }
    *place = Some((watching.history, watching.after));
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
        *place = Some((watching.history, seen.through));
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

#[cfg(test)]
mod tests {
    use super::super::config::RespConfig;
    use super::super::harness::Harness;
    use super::*;
    use dstore_proto::watch::Seen;
    use dstore_shared::{Error, Key};
    use futures_util::stream;

    fn seen(key: &str, through: u64) -> Seen {
        let key = Key::new(key.to_owned()).expect("valid");
        let (revision, happened) = (Revision(through), Happened::Unbound(None));
        Seen { events: vec![Event { revision, at_ms: 0, key, happened }], through: Revision(through) }
    }

    #[test]
    fn a_watch_goes_on_where_it_ended_and_if_it_cannot_the_client_forgets_all_after_it_began() {
        let harness = Harness::new(RespConfig::default(), true);
        let mut talk = harness.talk();
        assert!(talk.say(b"HELLO 3\r\nCLIENT TRACKING ON\r\n").starts_with(b"%7"));
        let (door, peer) = (harness.door(), talk.connection.peer.clone());
        let (namespace, prefix) = (door.first_namespace().clone(), Bytes::from_static(b"k"));
        let history = HistoryId(1);
        let told = || peer.pushes.swap(0, Ordering::Relaxed);
        let mut place = None;
        let mut round = |asked: Place, from: u64, batches: Vec<Result<Seen>>| {
            let begin = |query: WatchQuery| {
                assert_eq!(query.history.zip(query.after), asked);
                assert_eq!(told(), 0, "nothing is told before it has begun");
                let (after, batches) = (Revision(from), Box::pin(stream::iter(batches)));
                std::future::ready(Ok(Watching { history, after, batches }))
            };
            let watching = watch(door, &peer, (&namespace, &prefix), &mut place, begin);
            (harness.runtime().block_on(watching).is_ok(), told())
        };
        let broken = || Err(Error::unavailable("gone"));
        assert_eq!(
            round(None, 5, vec![Ok(seen("k1", 7)), broken()]),
            (false, 2),
            "also the first time: all, and k1"
        );
        let asked = Some((history, Revision(7)));
        assert_eq!(
            round(asked, 7, vec![Ok(seen("k2", 8)), Ok(seen("k3", 9))]),
            (true, 2),
            "nothing was missed"
        );
        let asked = Some((history, Revision(9)));
        assert_eq!(round(asked, 11, vec![broken()]), (false, 1), "it did not go on from there");
    }

    #[test]
    fn who_selects_another_database_is_told_of_that_one() {
        let harness = Harness::new(RespConfig::default(), true);
        let _within = harness.runtime().enter();
        let mut talk = harness.talk();
        assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
        assert_eq!(talk.say(b"CLIENT TRACKING ON BCAST PREFIX k\r\n"), b"+OK\r\n");
        let name = |talk: &super::super::harness::Talk<'_>| {
            Name::new(&talk.connection.client.namespace, &Key::new("k1").expect("valid"))
        };
        let first = name(&talk);
        assert_eq!(talk.say(b"SELECT 1\r\n"), b"+OK\r\n");
        let second = name(&talk);
        let watches = talk.connection.client.watches.as_ref().expect("it is told on");
        assert!(first != second && watches.covers(&second) && !watches.covers(&first));
        assert_eq!(watches.prefixes(), [Bytes::from_static(b"k")]);
    }
}
