//! Watches: every change of the names watched is told once, in the order of revisions, without a gap, not before it is
//! visible, and never as whole when it is not; what is forgotten is said to be.

use crate::pure::world::World;
use dstore_proto::watch::Happened;
use dstore_shared::{Name, Revision};

/// A change of one name, as Global made it visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pure) struct Became {
    pub revision: Revision,
    pub name: Name,
    pub value: Option<u64>,
    /// What it was bound to before.
    pub was: Option<u64>,
}

/// What a watcher is due to be told next.
#[derive(Clone, Copy, Debug)]
pub(in crate::pure) struct Due {
    /// The next change, of all that there were.
    pub next: usize,
    /// Everything that he watches up to here was told.
    pub through: Revision,
}

impl World {
    /// A watcher was told of a change.
    pub(in crate::pure) fn check_told(
        &mut self,
        w: usize,
        name: &Name,
        revision: Revision,
        happened: &Happened,
    ) {
        let watcher = &self.watchers[w];
        let prefix = watcher.prefix();
        let mut next = watcher.due.next;
        while self.became.get(next).is_some_and(|became| !prefix.covers(&became.name)) {
            next += 1;
        }
        let became = self.became.get(next).cloned();
        let fits = became.as_ref().is_some_and(|b| {
            let told = match happened {
                Happened::Bound(entry) => b.value == Some(crate::pure::local::value_of(entry.hash)),
                // What it was is not always known after a restart.
                Happened::Unbound(was) => {
                    let was = was.as_ref().map(|entry| crate::pure::local::value_of(entry.hash));
                    b.value.is_none() && (was.is_none() || was == b.was)
                }
            };
            told && b.name == *name && b.revision == revision
        });
        if !fits {
            self.violation(|| {
                format!("watches: {w} was told {name:?} {revision} {happened:?} and due was {became:?}")
            });
        }
        self.watchers[w].due.next = next + 1;
    }

    /// A watcher was told that everything up to `through` was told.
    pub(in crate::pure) fn check_through(&mut self, w: usize, through: Revision) {
        let Due { next, through: before } = self.watchers[w].due;
        let prefix = self.watchers[w].prefix();
        let due = self.became.get(next..).unwrap_or_default();
        let missing = due
            .iter()
            .take_while(|became| became.revision <= through)
            .find(|became| prefix.covers(&became.name))
            .cloned();
        let whole = due.iter().take_while(|became| became.revision <= through).count();
        let head = self.became.last().map_or(Revision(0), |became| became.revision).max(self.global.head());
        if missing.is_some() || through < before || through > head {
            self.violation(|| {
                format!("watches: {w} was told all up to {through} after {before}, head {head}, without {missing:?}")
            });
        }
        self.watchers[w].due = Due { next: next + whole, through };
    }
}
