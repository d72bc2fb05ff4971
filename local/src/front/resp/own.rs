//! Owns what NOLOOP needs: which names a client is changing itself, and what it bound them to.
//!
//! ```text
//! begins: noted -> the change; what is heard of the name meanwhile waits -> ends: is the name as the client left it?
//!                                                    yes: nothing is told      no, or it is not known: the client is told
//! ```
//! Invariant: another client's change is never kept from a client. What is heard of a name tells not whose change it
//! was, so it is kept back only if the name is bound to what the client itself bound it to.

use super::commands::{Call, Run};
use super::door::Door;
use super::draft::Draft;
use super::plan::HASH_HERE_MAX;
use super::reply::Reply;
use super::table::flag;
use super::tracking::{Tracking, keys_of};
use dstore_proto::store::{Store, Target};
use dstore_shared::{BlobHash, Name, Step, When};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Names of one change that are looked at again; of more the client is told without a look.
const LOOKS_MAX: usize = 16;
/// Changes of one client with BCAST that are remembered until Global tells of them.
const WRITTEN_MAX: usize = 1024;

/// What a name was bound to; `None`: to nothing.
type Outcome = Option<BlobHash>;

/// Changes of clients with NOLOOP.
#[derive(Debug, Default)]
pub struct Own {
    /// Under way, by name.
    changes: HashMap<Name, Vec<Change>>,
    /// By client with BCAST: what it bound names to, until Global tells of it.
    written: HashMap<u64, Written>,
}

/// What a client bound names to, of each name in its order.
#[derive(Debug, Default)]
struct Written {
    names: HashMap<Name, VecDeque<Outcome>>,
    changes: usize,
}

impl Written {
    fn note(&mut self, name: &Name, outcome: Outcome) {
        // One that is forgotten is told to its writer.
        if self.changes >= WRITTEN_MAX
            && let Some(other) = self.names.keys().next().cloned()
        {
            self.forget(&other);
        }
        self.names.entry(name.clone()).or_default().push_back(outcome);
        self.changes += 1;
    }

    fn forget(&mut self, name: &Name) {
        self.changes -= self.names.remove(name).map_or(0, |outcomes| outcomes.len());
    }

    /// Whether a name became what the client made of it; what it did before has come or will not.
    fn take(&mut self, name: &Name, now: Outcome) -> bool {
        let Some(outcomes) = self.names.get_mut(name) else { return false };
        let Some(at) =
            outcomes.iter().position(|outcome| *outcome == now).filter(|at| at + 1 < outcomes.len())
        else {
            let is_last = outcomes.back() == Some(&now);
            self.forget(name);
            return is_last;
        };
        outcomes.drain(..=at);
        self.changes -= at + 1;
        true
    }
}

/// A change of a name that is under way.
#[derive(Debug)]
struct Change {
    client: u64,
    /// How many.
    times: usize,
    /// It was heard of the name meanwhile.
    heard: bool,
}

impl Own {
    /// Whether a client is changing a name itself: then it is told at the end of that, if at all.
    pub fn hears(&mut self, client: u64, name: &Name) -> bool {
        let changes = self.changes.get_mut(name);
        let own = changes.and_then(|changes| changes.iter_mut().find(|change| change.client == client));
        own.map(|own| own.heard = true).is_some()
    }

    /// Whether what Global tells of a name is what the client with BCAST did itself.
    pub fn is_echo(&mut self, client: u64, name: &Name, now: Outcome) -> bool {
        self.written.get_mut(&client).is_some_and(|written| written.take(name, now))
    }

    /// A client is told no more, or what it wrote may not have been heard of.
    pub fn leave(&mut self, client: u64) {
        self.written.remove(&client);
    }

    fn begin(&mut self, client: u64, names: &[Name]) {
        for name in names {
            let changes = self.changes.entry(name.clone()).or_default();
            match changes.iter_mut().find(|change| change.client == client) {
                Some(change) => change.times += 1,
                None => changes.push(Change { client, times: 1, heard: false }),
            }
        }
    }

    /// Gives the names that were heard of meanwhile.
    fn end(&mut self, client: u64, names: Vec<Name>) -> Vec<Name> {
        names.into_iter().filter(|name| self.end_one(client, name)).collect()
    }

    fn end_one(&mut self, client: u64, name: &Name) -> bool {
        let Some(changes) = self.changes.get_mut(name) else { return false };
        let Some(at) = changes.iter().position(|change| change.client == client) else { return false };
        changes[at].times -= 1;
        if changes[at].times > 0 {
            return false;
        }
        let heard = changes.swap_remove(at).heard;
        if changes.is_empty() {
            self.changes.remove(name);
        }
        heard
    }

    fn wrote(&mut self, client: u64, written: &HashMap<Name, Outcome>) {
        let known = self.written.entry(client).or_default();
        written.iter().for_each(|(name, outcome)| known.note(name, *outcome));
    }
}

/// Names that a client with NOLOOP changes itself. If it is dropped, the client is told of what was heard meanwhile.
#[derive(Debug)]
pub struct OwnChange {
    tracking: Arc<Tracking>,
    client: u64,
    names: Vec<Name>,
    written: HashMap<Name, Outcome>,
    broadcast: bool,
}

impl OwnChange {
    /// What a command is about to change, if its client is not to be told of that.
    pub fn of(call: &Call<'_>) -> Option<Self> {
        if !call.spec.has(flag::WRITE) || !is_wanted(call) {
            return None;
        }
        let steps = match call.spec.run {
            Run::Steps(plan) | Run::Both(_, plan) => {
                plan(call).map(|plan| if plan.guards.is_empty() { plan.steps } else { Vec::new() })
            }
            _ => Ok(Vec::new()),
        };
        let names = call.names().unwrap_or_default();
        Some(Self::begin(call, names, &steps.unwrap_or_default()))
    }

    /// As [`Self::of`], of the steps of an EXEC.
    pub fn of_steps(call: &Call<'_>, steps: &[Draft]) -> Option<Self> {
        let names = || steps.iter().flat_map(Draft::names).collect();
        is_wanted(call).then(|| Self::begin(call, names(), steps))
    }

    fn begin(call: &Call<'_>, names: Vec<Name>, steps: &[Draft]) -> Self {
        let (tracking, client) = (call.door.tracking.clone(), call.peer.id);
        let (mut written, broadcast) = (outcomes(steps), call.client.tracking.broadcast);
        if let Some(watches) = &call.client.watches {
            written.retain(|name, _| watches.covers(name));
        }
        let mut table = tracking.table.lock();
        table.own.begin(client, &names);
        if broadcast {
            table.own.wrote(client, &written);
        }
        drop(table);
        Self { tracking, client, names, written, broadcast }
    }

    /// The change is over: what was heard meanwhile is told, unless it was this change.
    pub async fn end(mut self, door: &Door, reply: &Reply) {
        let heard = self.tracking.table.lock().own.end(self.client, std::mem::take(&mut self.names));
        let written = std::mem::take(&mut self.written);
        let mut others = Vec::new();
        let proven = proves(reply);
        if !proven && self.broadcast {
            // What another did may have been taken for this change.
            self.unwrite(&written);
            others.extend(written.keys().cloned());
        }
        let look = proven && heard.len() <= LOOKS_MAX;
        for name in heard {
            if !look || !is_as_written(door, &name, &written).await {
                others.push(name);
            }
        }
        self.tell(&others);
    }

    /// It is not known what became of the change: Global may tell what another client did.
    fn unwrite(&self, written: &HashMap<Name, Outcome>) {
        if self.broadcast {
            let mut table = self.tracking.table.lock();
            if let Some(known) = table.own.written.get_mut(&self.client) {
                written.keys().for_each(|name| known.forget(name));
            }
        }
    }

    fn tell(&self, names: &[Name]) {
        if !names.is_empty() {
            self.tracking.tell(self.client, keys_of(names));
        }
    }
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return;
        }
        let heard = self.tracking.table.lock().own.end(self.client, names);
        let written = std::mem::take(&mut self.written);
        self.unwrite(&written);
        self.tell(&heard);
    }
}

/// Whether a reply tells that all that was to be changed is changed. Nil may mean so, and that nothing is.
fn proves(reply: &Reply) -> bool {
    match reply {
        Reply::Nil | Reply::NilArray => false,
        Reply::Array(parts) => !parts.iter().any(has_error),
        other => !other.is_error(),
    }
}

fn has_error(reply: &Reply) -> bool {
    match reply {
        Reply::Array(parts) => parts.iter().any(has_error),
        other => other.is_error(),
    }
}

fn is_wanted(call: &Call<'_>) -> bool {
    call.client.tracking.on && call.client.tracking.no_loop
}

/// What is known of the names of steps when they are done. Many bytes are not hashed for it: of them nothing is known.
fn outcomes(steps: &[Draft]) -> HashMap<Name, Outcome> {
    let (mut known, mut room) = (HashMap::new(), HASH_HERE_MAX);
    for step in steps {
        match step {
            Draft::Step(Step::Get { .. }) => {}
            Draft::Set { name, value, when: When::Always, .. } if value.len() <= room => {
                room -= value.len();
                _ = known.insert(name.clone(), Some(BlobHash::of(value)));
            }
            Draft::Step(Step::Delete { name }) => _ = known.insert(name.clone(), None),
            other => other.names().iter().for_each(|name| _ = known.remove(name)),
        }
    }
    known
}

async fn is_as_written(door: &Door, name: &Name, written: &HashMap<Name, Outcome>) -> bool {
    let Some(outcome) = written.get(name) else { return false };
    let stat = door.node.stat(Target::Name(name.clone())).await;
    stat.is_ok_and(|stat| stat.map(|stat| stat.entry.hash) == *outcome)
}
