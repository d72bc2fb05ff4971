//! Watchers at every door: each must be told the same changes in the same order, without a gap, and what they add up to
//! must be what is read at the end.
//!
//! Invariants: what a watcher was told is folded into one number at each revision, and the numbers of all watchers at
//! that revision are the same; a name is bound only if it was not, and unbound only if it was.

use crate::told::Told;
use dstore_client::{Client, Event, Happened, ListQuery, WatchQuery};
use dstore_shared::{BlobHash, HistoryId, Kind, Namespace, Revision};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Revisions whose numbers are kept.
const REVISIONS_MAX: usize = 200_000;
/// What the keys that are watched begin with.
const PREFIX: &str = "s/";

/// The numbers that watchers came to at each revision.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<u64, u64>>);

impl Ledger {
    /// Whether `number` is what others came to; also if nobody did yet.
    fn agrees(&self, revision: Revision, number: u64) -> bool {
        let mut numbers = self.0.lock().expect("nobody panics with it");
        let agrees = *numbers.entry(revision.0).or_insert(number) == number;
        if numbers.len() > REVISIONS_MAX {
            numbers.pop_first();
        }
        agrees
    }

    fn at(&self, revision: Revision) -> Option<u64> {
        self.0.lock().expect("nobody panics with it").get(&revision.0).copied()
    }
}

/// A watcher at a door.
pub struct Watcher {
    name: String,
    client: Client,
    ledger: Arc<Ledger>,
    told: Arc<Told>,
    position: Option<(HistoryId, Revision)>,
    /// Events whose revision is not complete yet.
    part: Vec<Event>,
    /// What all events so far come to; `None` after some were missed, until another watcher tells.
    number: Option<u64>,
    /// Changes up to here are perhaps in `bound` already.
    repeated_until: Revision,
    bound: HashMap<Vec<u8>, BlobHash>,
    events: u64,
}

impl Watcher {
    pub fn new((name, client): (String, Client), ledger: Arc<Ledger>, told: Arc<Told>) -> Self {
        Self {
            name,
            client,
            ledger,
            told,
            position: None,
            part: Vec::new(),
            number: Some(0),
            repeated_until: Revision(0),
            bound: HashMap::new(),
            events: 0,
        }
    }

    /// Watches until it has seen everything up to `end`, once that is told, and gives what is bound then.
    pub async fn watch(
        mut self,
        end: tokio::sync::watch::Receiver<Option<Revision>>,
        give_up: CancellationToken,
    ) -> HashMap<Vec<u8>, BlobHash> {
        let seen_all = |through: Revision| end.borrow().is_some_and(|end| through >= end);
        while !give_up.is_cancelled() {
            let mut watch = self.client.watch(self.query());
            let failed = loop {
                match give_up.run_until_cancelled(watch.next()).await {
                    None => break None,
                    Some(Err(e)) => break Some(e),
                    Some(Ok(seen)) => {
                        self.take(seen.events, seen.through);
                        if seen_all(seen.through) {
                            self.told.add("watched", self.events);
                            return self.bound;
                        }
                    }
                }
            };
            self.position = watch.position().or(self.position);
            // The next watch tells anew of what was not complete.
            self.part.clear();
            match failed {
                Some(e) if e.kind() == Kind::TooOld => {
                    self.told.count("watches too old");
                    self.list().await;
                }
                Some(e) if matches!(e.kind(), Kind::Unavailable | Kind::Exhausted) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some(e) => {
                    self.told.accuse(format!("the watch at {} came to {e:?}", self.name));
                    break;
                }
                None => {}
            }
        }
        self.told.accuse(format!("the watch at {} did not see the end, but {:?}", self.name, self.position));
        self.bound
    }

    fn query(&self) -> WatchQuery {
        let (history, after) = match self.position {
            Some((history, after)) => (Some(history), after),
            None => (None, Revision(0)),
        };
        WatchQuery { namespace: Namespace::default(), prefix: PREFIX.into(), after: Some(after), history }
    }

    fn take(&mut self, events: Vec<Event>, through: Revision) {
        self.part.extend(events);
        let whole = self.part.iter().take_while(|event| event.revision <= through).count();
        let whole: Vec<Event> = self.part.drain(..whole).collect();
        for together in whole.chunk_by(|a, b| a.revision == b.revision) {
            for event in together {
                self.apply(event);
            }
            self.compare(together[0].revision);
        }
    }

    fn apply(&mut self, event: &Event) {
        self.events += 1;
        let key = event.key.as_bytes().to_vec();
        let fits = match &event.happened {
            Happened::Bound(entry) => self.bound.insert(key, entry.hash).is_none_or(|was| was == entry.hash),
            Happened::Unbound(was) => {
                let known = self.bound.remove(&key);
                known.is_some() && was.as_ref().is_none_or(|was| known == Some(was.hash))
            }
        };
        if !fits && event.revision > self.repeated_until {
            self.told
                .accuse(format!("the watch at {} tells {event:?}, which does not fit before it", self.name));
        }
        let mut hasher = DefaultHasher::new();
        let after = match &event.happened {
            Happened::Bound(entry) => Some(entry.hash),
            Happened::Unbound(_) => None,
        };
        (self.number, event.revision.0, event.key.as_bytes(), after.map(|hash| *hash.as_bytes()))
            .hash(&mut hasher);
        self.number = self.number.map(|_| hasher.finish());
    }

    fn compare(&mut self, revision: Revision) {
        match self.number {
            Some(number) if !self.ledger.agrees(revision, number) => {
                let name = &self.name;
                self.told.accuse(format!(
                    "the watch at {name} was told other changes up to {revision} than others"
                ));
                // Said once.
                self.number = None;
            }
            Some(_) => {}
            None => self.number = self.ledger.at(revision),
        }
    }

    /// What is bound now, instead of what was not told. Pages are of different revisions: what happened between them is
    /// told of once more.
    async fn list(&mut self) {
        let (mut bound, mut after) = (HashMap::new(), None);
        let (mut first, mut last) = (None, Revision(0));
        loop {
            let query =
                ListQuery { namespace: Namespace::default(), prefix: PREFIX.into(), after, limit: 1000 };
            let Ok(page) = self.client.list(&query).await else { return };
            last = last.max(page.from.revision);
            let first = *first.get_or_insert(page.from.revision);
            bound.extend(page.names.iter().map(|(key, entry)| (key.as_bytes().to_vec(), entry.hash)));
            after = page.next;
            if after.is_none() {
                (self.bound, self.number, self.repeated_until) = (bound, None, last);
                self.position = self.position.map(|(history, _)| (history, first));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_client::{Address, ClientConfig};
    use dstore_shared::{Entry, Key};
    use dstore_sys::Sys;

    fn watcher(ledger: &Arc<Ledger>, told: &Arc<Told>) -> Watcher {
        let nowhere = Address::Memory("nowhere".into());
        let client = Client::connect(&Sys::real(), &nowhere, ClientConfig::default());
        Watcher::new(("a".into(), client), ledger.clone(), told.clone())
    }

    fn event(revision: u64, key: &'static str, bound: bool) -> Event {
        let revision = Revision(revision);
        let entry = Entry {
            hash: BlobHash::of(b"v"),
            size: 1,
            bind_rev: revision,
            expires_at: None,
            content_type: None,
        };
        let happened = if bound { Happened::Bound(entry) } else { Happened::Unbound(None) };
        Event { revision, at_ms: 0, key: Key::new(key).unwrap(), happened }
    }

    fn violations(first: &[Event], second: &[Event]) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _in_it = runtime.enter();
        let (ledger, told) = (Arc::<Ledger>::default(), Arc::new(Told::new()));
        for events in [first, second] {
            watcher(&ledger, &told).take(events.to_vec(), Revision(100));
        }
        told.violations()
    }

    #[test]
    fn a_gap_and_a_repetition_are_found_and_the_same_story_is_not() {
        let story =
            [event(1, "s/a", true), event(2, "s/b", true), event(3, "s/a", false), event(3, "s/b", false)];
        assert_eq!(violations(&story, &story), 0);
        assert_ne!(violations(&story, &story[..3]), 0, "half of a revision");
        assert_ne!(violations(&story, &story[1..]), 0, "the first is missing");
        let twice =
            [story[0].clone(), story[1].clone(), story[2].clone(), story[3].clone(), story[3].clone()];
        assert_ne!(violations(&story, &twice), 0);
    }

    #[test]
    fn a_revision_counts_when_it_is_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _in_it = runtime.enter();
        let (ledger, told) = (Arc::<Ledger>::default(), Arc::new(Told::new()));
        let mut watcher = watcher(&ledger, &told);
        watcher.take(vec![event(1, "s/a", true), event(2, "s/b", true)], Revision(1));
        assert_eq!((watcher.bound.len(), watcher.part.len()), (1, 1));
        watcher.take(vec![event(2, "s/c", true)], Revision(2));
        assert_eq!((watcher.bound.len(), watcher.part.len(), told.violations()), (3, 0, 0));
    }
}
