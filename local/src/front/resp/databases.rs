//! Sees to it that the namespaces of the settings are in the mode that the settings say.

use super::door::Door;
use dstore_proto::IdSource;
use dstore_proto::store::Store;
use dstore_shared::{Kind, Namespace, NamespaceMode, NamespaceResult, NamespaceSpec, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Creates what is not there, for as long as Global is away.
pub async fn create(door: Arc<Door>) {
    for database in door.config.databases.iter().filter(|database| database.replace) {
        while let Err(e) = create_one(&door, &database.namespace).await {
            if e.kind() != Kind::Unavailable {
                let namespace = &database.namespace;
                tracing::warn!(%namespace, error = %e, "a namespace for RESP cannot be created: it is as it is");
                break;
            }
            tokio::time::sleep(door.rng.jitter(PAUSE)).await;
        }
    }
    door.databases_ready.store(true, Ordering::Release);
}

async fn create_one(door: &Door, namespace: &Namespace) -> Result<()> {
    let known = door.node.namespaces().await?;
    if let Some(info) = known.iter().find(|info| info.namespace == *namespace) {
        if !info.spec.replaces() {
            tracing::warn!(%namespace, "a namespace for RESP is write-once: it was created so");
        }
        return Ok(());
    }
    let spec = NamespaceSpec { mode: NamespaceMode::Replace, ttl: None };
    let done = door.node.create_namespace(door.node.next_id()?, namespace.clone(), spec).await?;
    if done.result == NamespaceResult::NotEmpty {
        tracing::warn!(%namespace, "a namespace for RESP has names already: it stays write-once");
    }
    Ok(())
}
