//! SET, GET and DEL through two Locals.

use crate::boundaries::SIZES;
use crate::rig::{delete, get, global, local, machine, set, value};
use dstore_proto::store::{Store, Tier};
use dstore_shared::SetOutcome;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_set_at_one_local_is_read_at_another_and_gone_everywhere_after_a_delete() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);

    let stored = set(&a, "hi", "hello").await.expect("set");
    assert!(matches!(stored.outcome, SetOutcome::Stored(_)) && stored.from.cached, "{stored:?}");
    let known = a.node().status().await.expect("answered").revision;
    assert_eq!(known, stored.from.revision, "what a Local was told, it knows at once");
    let hit = get(&a, "hi").await.expect("answered").expect("found");
    assert_eq!(hit.from.tier, Tier::Local, "who SET it holds it");
    let filled = get(&b, "hi").await.expect("answered").expect("found");
    assert_eq!((filled.from.tier, filled.from.cached), (Tier::Global, true));
    assert_eq!(get(&b, "hi").await.expect("answered").expect("found").from.tier, Tier::Local);

    let other = set(&b, "hi", "other").await.expect("answered");
    assert!(matches!(other.outcome, SetOutcome::Occupied(_)), "{other:?}");
    let same = set(&b, "hi", "hello").await.expect("answered");
    assert!(matches!(same.outcome, SetOutcome::Unchanged(_)), "{same:?}");

    assert_eq!(delete(&b, &["hi", "nobody"]).await.expect("deleted"), [true, false]);
    assert!(value(&a, "hi").await.is_none() && value(&b, "hi").await.is_none());
    assert!(a.node().hit(&crate::rig::name("hi")).is_none());
    set(&a, "hi", "again").await.expect("set");
    assert_eq!(value(&b, "hi").await.as_deref(), Some(&b"again"[..]));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_boundary_size_go_through() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    for size in SIZES {
        let bytes: Vec<u8> = (0..size).map(|i| (i as u32).wrapping_mul(2_654_435_761) as u8).collect();
        let key = format!("size-{size}");
        let stored = set(&a, &key, bytes.clone()).await.unwrap_or_else(|e| panic!("size {size}: {e:?}"));
        assert!(matches!(stored.outcome, SetOutcome::Stored(_)), "size {size}: {stored:?}");
        assert_eq!(value(&b, &key).await.as_deref(), Some(&bytes[..]), "size {size}");
        assert_eq!(get(&b, &key).await.expect("ok").expect("found").from.tier, Tier::Local, "size {size}");
    }
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart_and_locals_return_by_themselves() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let first = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    set(&a, "small", "x").await.expect("set");
    set(&a, "large", vec![7; 3 << 20]).await.expect("set");
    set(&a, "gone", "y").await.expect("set");
    delete(&a, &["gone"]).await.expect("deleted");
    first.stop().await.expect("a clean stop");
    assert!(a.node().hit(&crate::rig::name("small")).is_none(), "a Local serves nothing after RETIRE");

    let second = global(&sys, dir.path(), LEASE).await;
    a.ready(crate::rig::SOON).await.expect("it returns");
    assert_eq!(value(&a, "small").await.as_deref(), Some(&b"x"[..]));
    assert_eq!(value(&a, "large").await.map(|v| v.len()), Some(3 << 20));
    assert!(value(&a, "gone").await.is_none());
    assert_eq!(delete(&a, &["small"]).await.expect("deleted"), [true]);
    a.stop().await;
    second.stop().await.expect("a clean stop");
}
