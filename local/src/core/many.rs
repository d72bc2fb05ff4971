//! Questions and changes that go to Global together.

use super::{Changed, Core, Looked, Waiting, check_change};
use dstore_shared::frame::Resolved;
use dstore_shared::{Blob, Command, Name, RequestId, Result};
use tokio::sync::oneshot;

/// What comes of a change.
pub(crate) type ChangedLater = oneshot::Receiver<Result<Changed>>;

/// Many names on their way.
pub(crate) struct ReadMany {
    /// What all of them are bound to, as of one revision.
    pub resolved: oneshot::Receiver<Result<Vec<Resolved>>>,
    /// The value of each; none if nothing may be cached.
    pub values: Vec<oneshot::Receiver<Result<Looked>>>,
}

impl Core {
    /// GETs missed: resolve the names at one revision, with their blobs if they can be kept.
    ///
    /// # Errors
    /// `Exhausted` if too much is under way.
    pub fn read_many(&self, names: &[Name]) -> Result<ReadMany> {
        let (to, resolved) = oneshot::channel();
        let (waiters, values): (Vec<_>, Vec<_>) = names.iter().map(|_| oneshot::channel()).unzip();
        let each = waiters.into_iter().map(Waiting::Look).collect();
        let unused = self
            .event(|c, now| c.read_many(now, names, Waiting::Many(to), each))
            .map_err(|(error, _)| error)?;
        Ok(ReadMany { resolved, values: if unused.is_empty() { values } else { Vec::new() } })
    }

    /// Asks what `names` are bound to at one revision; nothing is kept. With `carry` small bytes come along.
    ///
    /// # Errors
    /// As [`Self::read_many`].
    pub fn look_many(
        &self,
        names: Vec<Name>,
        carry: bool,
    ) -> Result<oneshot::Receiver<Result<Vec<Resolved>>>> {
        let (to, resolved) = oneshot::channel();
        self.event(|c, _| c.look_many(names, carry, Waiting::Many(to))).map_err(|(e, _)| e)?;
        Ok(resolved)
    }

    /// Sends changes together, each as [`Self::change`] would.
    pub fn change_many(&self, changes: Vec<(RequestId, Command, Option<Blob>)>) -> Vec<Result<ChangedLater>> {
        self.event(|c, _| {
            let send = |(id, command, own)| {
                check_change(id, &command)?;
                let (to, answer) = oneshot::channel();
                c.change(id, command, own, Waiting::Change(to)).map_err(|(e, _)| e)?;
                Ok(answer)
            };
            changes.into_iter().map(send).collect()
        })
    }
}
