//! Transactions and namespaces.

use super::Client;
use super::patience::Attempts;
use dstore_proto::store::{Store, fitting};
use dstore_shared::{
    Namespace, NamespaceInfo, NamespaceOutcome, NamespaceSpec, Result, Transaction, TransactionOutcome,
};

impl<S: Store> Client<S> {
    /// Decides several reads and changes together: all of them, or none if a guard fails. Values that are too large to
    /// travel with it are stored first, without a name.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn apply(&self, transaction: Transaction) -> Result<TransactionOutcome> {
        let store = &*self.inner.store;
        let transaction =
            self.retry(Attempts::Transfers, || async { fitting(store, transaction.clone()).await }).await?;
        self.change(|id| store.apply(id, transaction.clone())).await
    }

    /// The namespaces that were created, and `default`.
    ///
    /// # Errors
    /// As [`Store::namespaces`].
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.retry(Attempts::Calls, || self.inner.store.namespaces()).await
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// As [`Store::create_namespace`].
    pub async fn create_namespace(
        &self,
        namespace: &Namespace,
        spec: NamespaceSpec,
    ) -> Result<NamespaceOutcome> {
        self.change(|id| self.inner.store.create_namespace(id, namespace.clone(), spec)).await
    }

    /// Forgets that a namespace was created; only of one without names.
    ///
    /// # Errors
    /// As [`Store::drop_namespace`].
    pub async fn drop_namespace(&self, namespace: &Namespace) -> Result<NamespaceOutcome> {
        self.change(|id| self.inner.store.drop_namespace(id, namespace.clone())).await
    }
}
