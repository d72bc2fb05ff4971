//! After a run: power is lost, a Global alone starts on what the disk kept, and time passes.
//!
//! What must then be there is what the Locals read last: every value under its name, with its bytes. When the time
//! of blobs without a name is over, a file must be there for each large value that has a name, and no other.
//! It must never touch the network of the simulation, which is over.

use crate::cluster::{Cluster, GLOBAL, bytes_of, name};
use crate::linear::Value;
use dstore_global::Global;
use dstore_proto::store::{Slice, Store, Target};
use dstore_shared::limits::INLINE_BYTES_MAX;
use dstore_shared::{Blob, Kind};
use dstore_sys::disk::SimDisk;
use dstore_sys::net::MemoryNet;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// For the rounds of the sweeper, and for whoever looks for files that nobody knows.
const SWEPT: Duration = Duration::from_secs(150);

/// Accuses of what is missing, and of what is left over.
pub(crate) fn run(cluster: &Cluster, image: &SimDisk) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(tokio::task::LocalSet::new().run_until(look(cluster, image))),
        Err(e) => cluster.accuse(format!("no runtime: {e}")),
    }
}

async fn look(cluster: &Cluster, image: &SimDisk) {
    let (sys, _) = cluster.machine_on(GLOBAL, Arc::new(image.clone()), Arc::new(MemoryNet::default()));
    let global = match Global::start(sys, cluster.global_config()).await {
        Ok(global) => global,
        Err(e) => return cluster.accuse(format!("G3: after a loss of power global did not start: {e}")),
    };
    let Some(last) = cluster.looked().into_values().next() else { return };
    let store = global.store();
    for (key, value) in last.iter().enumerate() {
        let got = store.get(Target::Name(name(key)), Slice::ALL).await;
        let got = match got {
            Ok(Some(found)) => Some((found.entry.hash, found.body.collect(1 << 20).await)),
            Ok(None) => None,
            Err(e) if is_damage(cluster, e.kind()) => continue,
            Err(e) => return cluster.accuse(format!("G3: key {key} is not read after a loss of power: {e}")),
        };
        match (value, got) {
            (None, None) => {}
            (Some(value), Some((hash, Ok(bytes)))) if bytes == bytes_of(*value) => {
                if cluster.value_of(&hash) != Some(*value) {
                    cluster.accuse(format!("G3: key {key} has the bytes of {value} under another hash"));
                }
            }
            (_, Some((_, Err(e)))) if is_damage(cluster, e.kind()) => {}
            (value, got) => cluster.accuse(format!(
                "G3: key {key} was {value:?} and is {:?} after a loss of power",
                got.map(|(hash, bytes)| (cluster.value_of(&hash), bytes.map(|bytes| bytes.len())))
            )),
        }
    }
    let plan = cluster.plan();
    if plan.hour || plan.sweep_grace < Duration::from_secs(1) {
        tokio::time::sleep(plan.sweep_grace + SWEPT).await;
        look_at_files(cluster, image, &last);
    }
    drop(store);
    if let Err(e) = global.stop().await {
        cluster.accuse(format!("G3: a whole Global did not stop in order: {e}"));
    }
}

fn is_damage(cluster: &Cluster, kind: Kind) -> bool {
    kind == Kind::Corrupt && cluster.plan().damages_files()
}

/// A file for each large value that has a name, and no other.
fn look_at_files(cluster: &Cluster, disk: &SimDisk, last: &[Option<Value>]) {
    if cluster.plan().damages_files() {
        return;
    }
    let large = last.iter().flatten().filter(|value| bytes_of(**value).len() > INLINE_BYTES_MAX);
    let wanted: BTreeSet<String> = large.map(|value| Blob::hash(bytes_of(*value)).id().to_string()).collect();
    let mut found = BTreeSet::new();
    for (path, _) in disk.files() {
        let Ok(within) = path.strip_prefix("/data/blobs") else { continue };
        if within.starts_with("staging") {
            continue;
        }
        // The directory is the hash's first byte.
        found.insert(within.to_string_lossy().replace('/', ""));
    }
    for file in found.difference(&wanted) {
        cluster.accuse(format!("G3: `{file}` of a blob without a name is there after its time"));
    }
    for hash in wanted.difference(&found) {
        cluster.accuse(format!("G3: the file of blake3:{hash} is gone, which has a name"));
    }
}
