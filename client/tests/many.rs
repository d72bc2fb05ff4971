//! Calls about many names, through a client over gRPC.

#[path = "../../proto/tests/fake/mod.rs"]
mod fake;

use bytes::Bytes;
use dstore_client::{Address, Client, ClientConfig};
use dstore_proto::serve::{Limits, Routes, Serving};
use dstore_shared::{CopyResult, Kind, Name, RequestId, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::net::MemoryNet;
use dstore_sys::tasks::Tasks;
use fake::{FakeStore, bytes_of};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct World {
    store: Arc<FakeStore>,
    client: Client,
    tasks: Tasks,
    serving: Serving,
}

impl World {
    async fn new() -> Self {
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let (store, tasks, at) = (Arc::<FakeStore>::default(), Tasks::new(), Address::Memory("node".into()));
        let limits = Limits { drain: Duration::from_millis(10), ..Limits::default() };
        let listener = sys.net.listen(&at).await.expect("free");
        let routes = Routes::new(&tasks, &limits)
            .store(store.clone(), Arc::new(|| Ok::<_, dstore_shared::Error>(RequestId::default())));
        let serving = Serving::start(&sys, &tasks, listener, routes).expect("started");
        let client = Client::connect(&sys, &at, ClientConfig::default());
        Self { store, client, tasks, serving }
    }

    async fn end(self) {
        self.serving.stop().await;
        self.tasks.stop().await;
    }
}

fn name(key: impl Into<String>) -> Name {
    Name::of(key.into()).expect("valid")
}

fn values(n: usize, len: usize) -> Vec<(Name, Bytes)> {
    (0..n).map(|i| (name(format!("k{i}")), Bytes::from(vec![i as u8; len + i]))).collect()
}

fn is_stored(reply: &dstore_shared::Result<dstore_client::SetReply>) -> bool {
    reply.as_ref().is_ok_and(|reply| matches!(reply.outcome, SetOutcome::Stored(_)))
}

#[tokio::test]
async fn values_are_set_together_under_ids_that_follow_one_another_over_all_attempts() {
    let world = World::new().await;
    // Of the first attempt, one value fails.
    world.store.failing.store(1, Ordering::SeqCst);
    let done = world.client.set_many(&values(5, 10)).await;
    assert!(done.iter().all(is_stored), "{done:?}");
    let ids: Vec<u64> = world.store.ids.lock().iter().map(|id| id.n).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5], "again under the same ids");
    world.client.set_many(&values(1, 99)).await;
    assert_eq!(world.store.ids.lock().last().map(|id| id.n), Some(6), "numbers are not used twice");
    world.end().await;
}

#[tokio::test]
async fn more_values_than_fit_a_call_go_in_several_and_large_ones_by_themselves() {
    let world = World::new().await;
    let mut all = values(300, 5_000);
    all.push((name("large"), bytes_of(1 << 20)));
    all.push((name("k0"), Bytes::from("another value")));
    let done = world.client.set_many(&all).await;
    assert_eq!(done.len(), 302);
    assert!(done[..301].iter().all(is_stored));
    assert!(matches!(&done[301], Ok(reply) if matches!(reply.outcome, SetOutcome::Occupied(_))));
    let names: Vec<Name> = all[..301].iter().map(|(name, _)| name.clone()).collect();
    for streams in [false, true] {
        world.store.streams.store(streams, Ordering::SeqCst);
        let got = world.client.get_many(&names).await.expect("answered");
        assert_eq!(got.values.len(), 301);
        for (got, (_, value)) in got.values.iter().zip(&all) {
            assert_eq!(got.as_ref().map(|got| &got.bytes), Some(value));
        }
    }
    let stats = world.client.stat_many(&[name("k1"), name("nobody")]).await.expect("answered");
    assert_eq!(
        stats.stats.iter().map(|s| s.as_ref().map(|s| s.entry.size)).collect::<Vec<_>>(),
        [Some(5_001), None]
    );
    world.end().await;
}

#[tokio::test]
async fn damaged_bytes_of_one_of_many_are_corrupt_and_not_passed_on() {
    let world = World::new().await;
    world.client.set_many(&values(3, 100)).await;
    world.store.damaged.store(true, Ordering::SeqCst);
    for streams in [false, true] {
        world.store.streams.store(streams, Ordering::SeqCst);
        let e = world.client.get_many(&[name("k0"), name("k1")]).await.expect_err("damaged");
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_copy_and_a_rename_keep_their_id_over_all_attempts() {
    let world = World::new().await;
    world.client.set(&name("a"), "v").await.expect("set");
    world.store.failing.store(2, Ordering::SeqCst);
    let copied = world.client.copy(&name("a"), &name("b")).await.expect("answered");
    assert!(matches!(copied.result, CopyResult::Done(_)) && copied.is_fresh());
    let renamed = world.client.rename(&name("b"), &name("c")).await.expect("answered");
    assert!(matches!(renamed.result, CopyResult::Done(_)));
    assert_eq!(
        world.client.rename(&name("b"), &name("d")).await.expect("answered").result,
        CopyResult::NotFound
    );
    let ids: Vec<u64> = world.store.ids.lock().iter().map(|id| id.n).collect();
    assert_eq!(ids, [1, 2, 2, 2, 3, 4]);
    assert_eq!(world.client.exists(&["a", "b", "c"].map(name)).await.expect("answered"), [true, false, true]);
    world.end().await;
}
