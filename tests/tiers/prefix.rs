//! DEL by prefix, through both tiers.

use crate::rig::{delete, get, global, local, machine, set, value};
use dstore_local::Local;
use dstore_proto::store::{ListQuery, Store};
use dstore_shared::{Kind, Namespace, Prefix, PrefixOutcome, Result};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);

fn prefix(bytes: &str) -> Prefix {
    Prefix::new(&Namespace::default(), bytes.as_bytes()).expect("valid")
}

async fn delete_prefix(local: &Local, bytes: &str) -> Result<PrefixOutcome> {
    let id = local.node().request_id().await?;
    local.node().delete_prefix(id, prefix(bytes)).await
}

async fn listed(local: &Local) -> usize {
    let query = ListQuery { namespace: Namespace::default(), prefix: "".into(), after: None, limit: 1000 };
    local.node().list(query).await.expect("listed").names.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_names_under_a_prefix_are_gone_everywhere_and_no_others() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    for key in ["p", "p/1", "p/2", "p/2/x", "q/1"] {
        set(&a, key, key).await.expect("set");
        assert!(value(&b, key).await.is_some());
    }
    let id = a.node().request_id().await.expect("an id");
    let done = a.node().delete_prefix(id, prefix("p/")).await.expect("deleted");
    assert_eq!(done.removed, 3);
    for local in [&a, &b] {
        for key in ["p/1", "p/2", "p/2/x"] {
            assert!(local.node().hit(&crate::rig::name(key)).is_none());
            assert!(get(local, key).await.expect("answered").is_none(), "{key}");
        }
        for key in ["p", "q/1"] {
            assert_eq!(value(local, key).await.as_deref(), Some(key.as_bytes()));
        }
    }
    let again = set(&b, "p/1", "new").await.expect("set");
    assert_eq!(again.from.revision.0, done.revision.0 + 1, "one revision");
    // The same request is answered and not made again.
    assert_eq!(a.node().delete_prefix(id, prefix("p/")).await.expect("answered"), done);
    assert_eq!(value(&a, "p/1").await.as_deref(), Some(&b"new"[..]));
    assert_eq!(delete_prefix(&b, "nothing").await.expect("deleted").removed, 0);
    assert_eq!(delete_prefix(&b, "").await.expect("deleted").removed, 3);
    assert_eq!(listed(&a).await, 0);
    // And it lasts.
    set(&a, "kept", "v").await.expect("set");
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
    let global = crate::rig::global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    assert_eq!(listed(&a).await, 1);
    a.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_half_of_a_delete_by_prefix() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (Arc::new(local(&sys).await), Arc::new(local(&sys).await));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [&a, &b, &b]
        .into_iter()
        .map(|local| {
            let (local, done) = (local.clone(), done.clone());
            tokio::spawn(async move {
                let mut seen = 0;
                while !done.load(Ordering::SeqCst) {
                    // The second is set last, and what is set tells its round.
                    let second = value(&local, "half/2").await;
                    let first = value(&local, "half/1").await;
                    let third = value(&local, "half/2").await;
                    if first.is_none() && second.is_some() {
                        assert_ne!(third, second, "one is gone, and the other of its round is not");
                    }
                    seen += usize::from(second.is_some());
                    // Hits wait for nothing.
                    tokio::task::yield_now().await;
                }
                seen
            })
        })
        .collect();
    for round in 0..60 {
        set(&a, "half/1", format!("{round}")).await.expect("set");
        set(&a, "half/2", format!("{round}")).await.expect("set");
        let (value_a, value_b) = tokio::join!(value(&a, "half/1"), value(&b, "half/2"));
        assert!(value_a.is_some() && value_b.is_some());
        let deleter = if round % 2 == 0 { &a } else { &b };
        assert_eq!(delete_prefix(deleter, "half/").await.expect("deleted").removed, 2, "round {round}");
        for key in ["half/1", "half/2"] {
            let (gone_a, gone_b) = tokio::join!(value(&a, key), value(&b, key));
            assert!(gone_a.is_none() && gone_b.is_none(), "round {round}: {key}");
        }
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.expect("it saw no half") > 0, "it looked while they were there");
    }
    for local in [a, b] {
        Arc::into_inner(local).expect("nobody else has it").stop().await;
    }
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_and_deletes_that_race_with_deletes_by_prefix_all_end_and_add_up() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let locals = [Arc::new(local(&sys).await), Arc::new(local(&sys).await)];
    let tasks = (0..6).map(|me| {
        let local = locals[me % 2].clone();
        tokio::spawn(async move {
            let (mut stored, mut removed) = (0, 0);
            for round in 0..40 {
                let key = format!("r/{}/{}", me % 3, round % 7);
                if round % 5 == 4 {
                    removed += delete_prefix(&local, ["r/", "r/0", "r/1/", "r/2/3"][round % 4])
                        .await
                        .expect("done")
                        .removed;
                } else if round % 5 == 3 {
                    let gone = delete(&local, &[&key, "r/0/0"]).await.expect("deleted");
                    removed += gone.iter().filter(|gone| **gone).count() as u64;
                } else {
                    let reply = set(&local, &key, format!("{me} {round}")).await.expect("set");
                    stored += u64::from(matches!(reply.outcome, dstore_shared::SetOutcome::Stored(_)));
                }
            }
            (stored, removed)
        })
    });
    let (mut stored, mut removed) = (0, 0);
    for task in futures_util::future::join_all(tasks).await {
        let (more, less) = task.expect("it ended");
        (stored, removed) = (stored + more, removed + less);
    }
    assert_eq!(stored - removed, listed(&locals[0]).await as u64, "{stored} stored, {removed} removed");
    removed += delete_prefix(&locals[1], "").await.expect("deleted").removed;
    assert_eq!((stored, listed(&locals[0]).await), (removed, 0));
    for local in locals {
        Arc::into_inner(local).expect("nobody else has it").stop().await;
    }
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_longer_than_a_key_is_refused() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let e = Prefix::new(&Namespace::default(), &[b'k'; 1025]).expect_err("too long");
    assert_eq!(e.kind(), Kind::TooLarge);
    let a = local(&sys).await;
    let long = Prefix::new(&Namespace::default(), &[b'k'; 1024]).expect("as long as a key");
    let id = a.node().request_id().await.expect("an id");
    assert_eq!(a.node().delete_prefix(id, long).await.expect("deleted").removed, 0);
    a.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_delete_by_prefix_may_remove_is_refused_whole_and_less_goes_at_once() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    // 16 MiB are 16,257 names of this length, with their namespace.
    let key = |i: usize| format!("{i:05}{}", "k".repeat(1019));
    let sets = stream::iter((0..16_300).map(key)).map(async |key| set(&a, &key, "v").await.expect("set"));
    sets.buffer_unordered(512).for_each(async |_| ()).await;
    let e = delete_prefix(&a, "").await.expect_err("too many bytes");
    assert_eq!(e.kind(), Kind::TooLarge);
    assert!(e.message().contains("list and delete"), "{e}");
    assert!(value(&a, &key(16_299)).await.is_some(), "nothing was removed");
    let some: Vec<String> = (0..60).map(key).collect();
    delete(&a, &some.iter().map(String::as_str).collect::<Vec<_>>()).await.expect("deleted");
    let done = delete_prefix(&a, "").await.expect("deleted");
    assert_eq!((done.removed, listed(&a).await), (16_240, 0));
    assert!(value(&a, &key(16_299)).await.is_none());
    a.stop().await;
    global.stop().await.expect("a clean stop");
}
