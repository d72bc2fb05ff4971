//! How a transaction whose values are large is made to fit.

use super::{Body, Store};
use dstore_shared::limits::{CARRIED_BYTES_MAX, TRANSACTION_BYTES_MAX};
use dstore_shared::{Blob, RequestId, Result, SetOutcome, Step, Transaction};

/// The same transaction within its limits, as far as values go: those that are too large to travel with it, or to
/// travel together, are stored at `store` without a name, for an hour, and named by their hash. One that cannot be made
/// to fit is refused before anything is stored.
///
/// # Errors
/// As [`Transaction::check`]; as [`Store::set`], and then no name was changed.
pub async fn fitting<S: Store>(store: &S, mut transaction: Transaction) -> Result<Transaction> {
    transaction.check_apart()?;
    let mut weight = transaction.weight();
    for step in &mut transaction.steps {
        let Step::Set { value, .. } = step else { continue };
        let Some(len) = value.carried.as_ref().map(|blob| blob.bytes().len()) else { continue };
        if (len > CARRIED_BYTES_MAX || weight > TRANSACTION_BYTES_MAX)
            && let Some(blob) = value.carried.take()
        {
            store_apart(store, blob).await?;
            weight -= len;
        }
    }
    transaction.check()?;
    Ok(transaction)
}

async fn store_apart<S: Store>(store: &S, blob: Blob) -> Result<()> {
    let stored = store.set(RequestId::default(), None, Body::Blob(blob)).await?;
    match stored.outcome {
        SetOutcome::Stored(_) => Ok(()),
        _ => Err(dstore_shared::Error::internal("a blob without a name was not stored: report this")),
    }
}
