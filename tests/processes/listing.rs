//! A million names listed at a real Global while half of them are deleted: what stays is listed exactly once, and the
//! list costs no memory that grows with it.

use crate::rig::{Global, name};
use dstore_client::Client;
use dstore_proto::store::ListQuery;
use dstore_shared::{Key, Namespace};
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a walk over all pages may cost Global in memory, however many names there are: pages, and what the index
/// keeps of the blocks that it read.
const WALK_KIB: usize = 64 << 10;

fn key(n: usize) -> String {
    format!("n{n:08}")
}

async fn fill(client: &Client, names: usize) {
    let sets = stream::iter(0..names).map(|n| async move {
        client.set(&name(key(n)), n.to_be_bytes().to_vec()).await.expect("set");
    });
    sets.buffer_unordered(256).for_each(|()| std::future::ready(())).await;
}

/// Lists all, a page at a time, and gives every key to `seen`.
async fn walk(client: &Client, mut seen: impl FnMut(&Key)) {
    let mut query =
        ListQuery { namespace: Namespace::default(), prefix: "n".into(), after: None, limit: 1_000 };
    loop {
        let page = client.list(&query).await.expect("listed");
        page.names.iter().for_each(|(key, _)| seen(key));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return,
        }
    }
}

fn number(key: &Key) -> usize {
    std::str::from_utf8(&key.as_bytes()[1..]).expect("a number").parse().expect("a number")
}

async fn list_while_half_is_deleted(names: usize) {
    let global = Global::start(&[]);
    let client = Arc::new(global.client());
    fill(&client, names).await;
    let (before, mut all) = (global.daemon.resident_kib(), 0);
    walk(&client, |key| {
        assert_eq!(number(key), all, "each name is listed, in order");
        all += 1;
    })
    .await;
    assert_eq!(all, names);
    let grown = global.daemon.resident_kib().saturating_sub(before);
    assert!(grown < WALK_KIB, "a list of {names} names cost {grown} KiB");

    let (deleter, gone) = (client.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = gone.clone();
    let deleting = tokio::spawn(async move {
        let odd: Vec<_> = (1..names).step_by(2).map(|n| name(key(n))).collect();
        for part in odd.chunks((names / 100).clamp(1, 5_000)) {
            let done = deleter.delete(part).await.expect("deleted");
            counted.fetch_add(done.removed.iter().filter(|removed| **removed).count(), Ordering::SeqCst);
        }
    });
    let (mut walks, mut caught) = (0, 0);
    loop {
        let last = deleting.is_finished();
        let (mut next, mut odd) = (0, 0);
        walk(&client, |key| {
            let n = number(key);
            if n.is_multiple_of(2) {
                assert_eq!(n, next, "a name that stays is listed once, in its place");
                next += 2;
            } else {
                assert!(n < next, "a name that is being deleted is in its place, too");
                odd += 1;
            }
        })
        .await;
        assert_eq!(next, names.next_multiple_of(2), "every name that stays is listed");
        walks += 1;
        caught += usize::from(odd > 0 && odd < names / 2);
        if last {
            assert_eq!(odd, 0, "what was deleted is listed no more");
            break;
        }
    }
    deleting.await.expect("no DEL failed");
    assert_eq!(gone.load(Ordering::SeqCst), names / 2);
    println!(
        "{names} names: a walk cost {grown} KiB; {walks} walks while half were deleted, {caught} in the middle of it"
    );
    assert!(caught > 0, "a walk met the deletes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_stay_are_listed_exactly_once_while_half_are_deleted() {
    list_while_half_is_deleted(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a million names: minutes"]
async fn a_million_names_are_listed_exactly_once_each_while_half_are_deleted() {
    list_while_half_is_deleted(1_000_000).await;
}
