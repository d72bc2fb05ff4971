//! What a person asks of a tier: who is attached, how a read goes, what is held.

use super::{Client, patience::Attempts};
use dstore_proto::store::{Locals, Store, Why};
use dstore_shared::{Name, Result};

impl<S: Store> Client<S> {
    /// Which Locals are attached to Global, and which of them may hold `name`.
    ///
    /// # Errors
    /// As [`Store::locals`].
    pub async fn locals(&self, name: Option<Name>) -> Result<Locals> {
        self.retry(Attempts::Calls, || self.inner.store.locals(name.clone())).await
    }

    /// How a read of `name` goes now. Asked once: what a second attempt would tell is another read.
    ///
    /// # Errors
    /// As [`Store::why`].
    pub async fn why(&self, name: &Name) -> Result<Why> {
        self.inner.store.why(name.clone()).await
    }

    /// Has the node forget what it holds of `names`; for each, whether that was anything.
    ///
    /// # Errors
    /// As [`Store::evict`].
    pub async fn evict(&self, names: &[Name]) -> Result<Vec<bool>> {
        self.retry(Attempts::Calls, || self.inner.store.evict(names.to_vec())).await
    }

    /// Has the node keep the values of `names` that it holds, or lets them leave again; for each, whether it is so.
    ///
    /// # Errors
    /// As [`Store::pin`].
    pub async fn pin(&self, names: &[Name], keep: bool) -> Result<Vec<bool>> {
        self.retry(Attempts::Calls, || self.inner.store.pin(names.to_vec(), keep)).await
    }
}
