//! Worker processes that read a Local's values from shared memory. This test is such a process itself; those that are killed
//! are made of it.

use crate::rig::{Global, Local, name, noise, until};
use dstore_client::worker::{Attach, SharedMemory, Worker, WorkerConfig};
use dstore_sys::Sys;

/// A Local at which workers attach.
async fn local(global: &Global) -> Local {
    Local::start_with(global, &["--shm", "shm.sock"]).await
}

fn config(local: &Local) -> WorkerConfig {
    WorkerConfig { attach: Attach::At(local.folder().join("shm.sock")), ..WorkerConfig::default() }
}

async fn worker_of(local: &Local, config: WorkerConfig) -> Worker {
    Worker::connect(&Sys::real(), &local.daemon.at, config).await
}

async fn worker(local: &Local) -> Worker {
    let worker = worker_of(local, config(local)).await;
    assert!(matches!(worker.shared_memory(), SharedMemory::Attached { .. }), "{}", worker.shared_memory());
    worker
}

/// Waits until the worker finds `key` in shared memory, and gives what it finds.
async fn found_here(worker: &Worker, key: &str) -> Vec<u8> {
    let mut found = None;
    until("the worker finds the key in shared memory", async || {
        // What is missing comes by a read.
        let _ = worker.get(key.as_bytes()).await;
        found = worker.get_here(key.as_bytes()).map(|value| value.to_vec());
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn a_value_set_at_one_local_is_read_in_shared_memory_at_another_until_it_is_deleted() {
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let worker = worker(&b).await;
    let values = [("tiny", noise(1, 100)), ("page", noise(2, 5_000)), ("large", noise(3, 3 << 20))];
    for (key, value) in &values {
        a.client.set(&name(*key), value.clone()).await.expect("set");
    }
    for (key, value) in &values {
        assert!(worker.get_here(key.as_bytes()).is_none(), "nobody has asked for it at this Local");
        let first = worker.get(key.as_bytes()).await.expect("answered").expect("it is bound");
        assert_eq!(&*first, &value[..]);
        let again = worker.get_here(key.as_bytes()).expect("the first read brought it there");
        assert_eq!(&*again, &value[..]);
        assert_eq!(again.is_in_place(), value.len() > 512, "small ones are copied");
    }
    let kept = worker.get_here(b"large").expect("it is there");
    for (key, _) in &values {
        a.client.delete(&[name(*key)]).await.expect("deleted");
        assert!(worker.get_here(key.as_bytes()).is_none(), "an acknowledged DEL is seen at once");
        assert!(worker.get(key.as_bytes()).await.expect("answered").is_none());
    }
    assert_eq!(&*kept, &values[2].1[..], "who has it keeps it");
    // Bound anew, it is another value.
    a.client.set(&name("large"), "another").await.expect("set");
    assert_eq!(found_here(&worker, "large").await, b"another");
}
