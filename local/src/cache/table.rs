//! The cache as the coherence machine sees it: a table of names.

use super::{Cache, Cursor};
use crate::coherence::NameTable;
use dstore_shared::{Name, Prefix, RegSeq, Revision};

/// Where a listing of stale names goes on.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    at: Cursor,
    done: bool,
}

impl NameTable for Cache {
    type Cursor = Listing;

    fn remove_upto(&self, name: &Name, upto: Revision) {
        #[cfg(feature = "faults")]
        if dstore_shared::planted::is_made(dstore_shared::planted::Mistake::KeepsInvalidated) {
            return;
        }
        Cache::remove_upto(self, name, upto);
    }

    fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) {
        Cache::remove_prefix_upto(self, prefix, upto);
    }

    fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool {
        Cache::validate(self, name, bind_rev, reg_seq, era) || self.hit(name.as_bytes(), era).is_some()
    }

    fn drop_unvalidated(&self, name: &Name, era: u64) {
        Cache::drop_unvalidated(self, name, era);
    }

    fn drop_all(&self) {
        self.drop_all_names();
    }

    fn stale(&self, era: u64, listing: &mut Listing, limit: usize) -> Vec<(Name, Revision)> {
        while !listing.done {
            let batch = self.stale_names(era, listing.at, limit);
            match batch.next {
                Some(next) => listing.at = next,
                None => listing.done = true,
            }
            if !batch.names.is_empty() {
                return batch.names;
            }
        }
        Vec::new()
    }
}
