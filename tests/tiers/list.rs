//! Lists of names, through both tiers.

use crate::rig::{delete, global, local, machine, name, set};
use dstore_proto::store::{ListQuery, Listing, Store, Tier};
use dstore_shared::Namespace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);

fn query(prefix: &str, limit: usize) -> ListQuery {
    ListQuery { namespace: Namespace::default(), prefix: prefix.to_owned().into(), after: None, limit }
}

/// Walks over all pages; gives the keys, and how many pages there were.
async fn walk(store: &impl Store, mut query: ListQuery) -> (Vec<String>, usize) {
    let (mut keys, mut pages) = (Vec::new(), 0);
    loop {
        let Listing { names, next, from } = store.list(query.clone()).await.expect("listed");
        assert!(names.len() <= query.limit && from.tier == Tier::Global);
        assert!(names.iter().all(|(_, entry)| entry.bind_rev <= from.revision));
        keys.extend(names.into_iter().map(|(key, _)| String::from_utf8_lossy(key.as_bytes()).into_owned()));
        pages += 1;
        let Some(next) = next else { return (keys, pages) };
        assert!(query.after.as_ref().is_none_or(|after| next > *after), "it goes on");
        query.after = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_set_at_one_local_are_listed_in_byte_order_at_another() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    let long = "z".repeat(1024);
    for key in ["b/2", "a", "b/10", "b", "c\u{1F600}", &long] {
        set(&a, key, "v").await.expect("set");
    }
    let all = ["a", "b", "b/10", "b/2", "c\u{1F600}", &long];
    for limit in [1, 2, 1000] {
        assert_eq!(walk(b.node(), query("", limit)).await.0, all);
        assert_eq!(walk(&*global.store(), query("b/", limit)).await.0, ["b/10", "b/2"]);
    }
    assert_eq!(walk(b.node(), query("nothing", 5)).await, (vec![], 1));
    delete(&b, &["b", "b/10"]).await.expect("deleted");
    assert_eq!(walk(a.node(), query("b", 10)).await.0, ["b/2"], "what was deleted is listed no more");
    let namespace = Namespace::new("other").expect("valid");
    assert_eq!(walk(a.node(), ListQuery { namespace, ..query("", 10) }).await.0, Vec::<String>::new());
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_the_longest_keys_fits_a_frame() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    let keys: Vec<String> = (0..1100).map(|i| format!("{i:04}{}", "k".repeat(1020))).collect();
    let sets = keys.iter().map(|key| set(&a, key, "v"));
    for done in futures_util::future::join_all(sets).await {
        done.expect("set");
    }
    let (listed, pages) = walk(a.node(), query("", 1000)).await;
    assert_eq!((listed, pages), (keys, 3));
    a.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_lists_half_of_a_delete() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, Arc::new(local(&sys).await));
    let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::clone(&b));
    let stop = done.clone();
    let watch = tokio::spawn(async move {
        let mut both = 0;
        while !stop.load(Ordering::SeqCst) {
            let (keys, pages) = walk(seen.node(), query("both/", 10)).await;
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            // The first is set first, and both are deleted at once.
            assert!(matches!(keys[..], [] | ["both/1"] | ["both/1", "both/2"]), "half of a delete: {keys:?}");
            assert_eq!(pages, 1);
            both += usize::from(keys.len() == 2);
        }
        both
    });
    for round in 0..50 {
        set(&a, "both/1", format!("{round}")).await.expect("set");
        set(&a, "both/2", format!("{round}")).await.expect("set");
        let id = a.node().request_id().await.expect("an id");
        a.node().delete(id, vec![name("both/1"), name("both/2")]).await.expect("deleted");
        let left = walk(b.node(), query("both/", 10)).await.0;
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    done.store(true, Ordering::SeqCst);
    assert!(watch.await.expect("it ended") > 0, "it looked while there were two");
    a.stop().await;
    Arc::into_inner(b).expect("nobody else has it").stop().await;
    global.stop().await.expect("a clean stop");
}
