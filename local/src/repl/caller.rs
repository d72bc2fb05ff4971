//! Who asks: gives every change the id under which its outcome is kept.

use super::output::Output;
use super::patience::{Stop, Wait};
use dstore_proto::store::Store;
use dstore_shared::{Born, ClientId, Moment, RequestId, Result};
use dstore_sys::Sys;
use std::time::Duration;

/// Global's clock is asked for again after this. An id of an earlier boot of Global is refused, so this bounds
/// how long its restart goes unnoticed.
const BORN_TTL: Duration = Duration::from_secs(1);
/// How often a node is asked that has not heard from Global yet.
const BORN_POLL: Duration = Duration::from_millis(50);

/// The first caller of the changes of one session.
#[derive(Debug)]
pub(super) struct Caller {
    client: ClientId,
    n: u64,
    born: Option<(Born, Moment)>,
}

impl Caller {
    pub fn new(sys: &Sys) -> Self {
        Self { client: ClientId(sys.rng.next_u128()), n: 0, born: None }
    }

    /// The id of the next change.
    pub async fn next_id<S: Store>(
        &mut self,
        store: &S,
        sys: &Sys,
        wait: &mut Wait<'_>,
        output: &mut Output,
    ) -> Result<RequestId, Stop> {
        let fresh = |(_, at): &(Born, Moment)| sys.clock.now().since(*at) < BORN_TTL;
        let born = if let Some((born, _)) = self.born.filter(fresh) {
            born
        } else {
            let born = ask(store, wait, output).await?;
            self.born = Some((born, sys.clock.now()));
            born
        };
        self.n += 1;
        Ok(RequestId { client: self.client, n: self.n, born })
    }

    /// Forgets Global's clock: it turned out to be too old.
    pub fn forget_born(&mut self) {
        self.born = None;
    }
}

async fn ask<S: Store>(store: &S, wait: &mut Wait<'_>, output: &mut Output) -> Result<Born, Stop> {
    loop {
        let status = wait.on_any(|| store.status(), output).await?;
        if let Some(born) = status.born {
            wait.lacks = None;
            return Ok(born);
        }
        wait.lacks = Some("has not reached global");
        let nap = async {
            tokio::time::sleep(BORN_POLL).await;
            Ok(())
        };
        wait.on(nap, None, output).await?;
    }
}
