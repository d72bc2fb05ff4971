//! How long a call is tried, how often, and under which id.
//!
//! Invariants: one deadline over all attempts of a call; one id over all attempts of a change; only what failed as
//! `Unavailable` is tried again, after a pause that grows and is jittered.

use super::{Client, IN_DOUBT};
use crate::config::ClientConfig;
use crate::ids::Named;
use dstore_proto::store::Store;
use dstore_shared::{Born, Error, Kind, RequestId, Result};
use std::future::Future;
use std::pin::{Pin, pin};
use tokio::time::Sleep;

impl<S: Store> Client<S> {
    /// Makes one change: one id for all attempts.
    pub(super) async fn change<T, F>(&self, attempt: impl Fn(RequestId) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let patience = pin!(self.patience());
        let (named, patience) = self.name_change(patience, 1).await?;
        let made = self.retry_until(patience, Attempts::Calls, || attempt(named.id)).await;
        self.noted(made.map_err(|e| e.map_or_else(|| self.in_doubt(), unknown)))
    }

    /// Makes a change under an id that is at hand.
    pub(super) async fn make<T, F>(
        &self,
        id: RequestId,
        patience: Pin<&mut Sleep>,
        attempt: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        tracing::trace!(n = id.n, "a change with an id of its own");
        let made = self.retry_until(patience, Attempts::Calls, attempt).await;
        self.noted(made.map_err(|e| e.map_or_else(|| self.in_doubt(), unknown)))
    }

    /// Names for changes, if there are any before patience ends: nothing has been changed yet.
    pub(super) async fn name_change<'a>(
        &self,
        mut patience: Pin<&'a mut Sleep>,
        count: u64,
    ) -> Result<(Named<'_>, Pin<&'a mut Sleep>)> {
        let born = self.born(patience.as_mut()).await?;
        let named = tokio::select! {
            biased;
            named = self.inner.ids.next(born, count) => named,
            () = &mut patience => {
                return Err(Error::unavailable("too many changes are in flight: nothing was changed, try again"));
            }
        };
        Ok((named, patience))
    }

    pub(super) fn patience(&self) -> Sleep {
        tokio::time::sleep(self.inner.config.deadline)
    }

    /// After a refused id the next one is made with a fresh reading of Global's clock.
    pub(super) fn noted<T>(&self, made: Result<T>) -> Result<T> {
        if made.as_ref().is_err_and(|e| e.kind() == Kind::Closed) {
            self.inner.ids.unlearn();
        }
        made
    }

    /// Global's clock: as last read if that is recent, else asked of the tier. One caller asks; others go on
    /// with an older reading if there is one.
    pub(super) async fn born(&self, mut patience: Pin<&mut Sleep>) -> Result<Born> {
        let ids = &self.inner.ids;
        let now = || self.inner.sys.clock.now();
        let _asking = match ids.born(now()) {
            Some((born, true)) => return Ok(born),
            Some((born, false)) => match ids.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(born),
            },
            None => tokio::select! {
                biased;
                asking = ids.asking.lock() => asking,
                () = &mut patience => return Err(self.no_answer()),
            },
        };
        if let Some((born, true)) = ids.born(now()) {
            return Ok(born);
        }
        let ask = || async {
            let status = self.ask_status().await?;
            status.born.ok_or_else(|| {
                let (node, seconds) = (&self.inner.node, self.inner.config.deadline.as_secs_f32());
                Error::unavailable(format!(
                    "`{node}` has not reached global, waited {seconds} s: see `dstore status`"
                ))
            })
        };
        let born = self.retry_until(patience, Attempts::Calls, ask).await;
        born.map_err(|e| e.unwrap_or_else(|| self.no_answer()))
    }

    pub(super) async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.inner.config.deadline;
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    /// As [`Client::retry_until`], with all of the deadline ahead.
    pub(super) async fn retry<T, F>(&self, attempts: Attempts, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let done = self.retry_until(pin!(self.patience()), attempts, attempt).await;
        done.map_err(|e| e.unwrap_or_else(|| self.no_answer()))
    }

    /// Tries until it is done, fails otherwise than as `Unavailable`, or patience ends: then gives the last
    /// failure, `None` if nothing was answered at all.
    pub(super) async fn retry_until<T, F>(
        &self,
        mut patience: Pin<&mut Sleep>,
        attempts: Attempts,
        attempt: impl Fn() -> F,
    ) -> Result<T, Option<Error>>
    where
        F: Future<Output = Result<T>>,
    {
        let ClientConfig { backoff_max, mut backoff, .. } = self.inner.config;
        let mut last = None;
        loop {
            let failed = tokio::select! {
                biased;
                done = attempt() => match done {
                    Err(e) if e.kind() == Kind::Unavailable => e,
                    done => return done.map_err(Some),
                },
                () = &mut patience, if attempts == Attempts::Calls => {
                    return Err(last);
                }
            };
            let wait = self.inner.sys.rng.jitter(failed.delay().unwrap_or_default().max(backoff));
            tracing::debug!(error = %failed, ?wait, "a call failed and is tried again");
            backoff = (backoff * 2).min(backoff_max);
            tokio::select! {
                biased;
                () = &mut patience => return Err(Some(failed)),
                () = tokio::time::sleep(wait) => last = Some(failed),
            }
        }
    }
}

/// What the deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempts {
    /// The whole of all attempts.
    Calls,
    /// The beginning of the last attempt: a transfer may take as long as it moves.
    Transfers,
}

/// A change that failed as `Unavailable` may have been made.
pub(super) fn unknown(e: Error) -> Error {
    if e.kind() != Kind::Unavailable || e.message().contains(IN_DOUBT) {
        return e;
    }
    let told = Error::unavailable(format!("{IN_DOUBT}: {}", e.message()));
    let told = e.delay().map_or(told.clone(), |delay| told.retry_after(delay));
    told.caused_by(e)
}
