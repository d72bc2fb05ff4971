//! `names/<n>`: what so many names cost a Global process in memory, what it costs that Locals hold them, and how fast
//! they are listed, also while half of them are deleted. `--names` says how many. A test asserts what must hold of such a
//! list; here it is timed.

use crate::harness::{Plan, drive, value};
use crate::node;
use crate::place;
use crate::sessions::resident;
use crate::swarm::Swarm;
use dstore_local::Node;
use dstore_proto::store::{ListQuery, Store};
use dstore_shared::{Key, Name, Namespace};
use std::time::{Duration, Instant};

const BYTES: usize = 100;
/// SETs under way while the store is filled.
const IN_FLIGHT: usize = 1024;
/// Names that a light Local holds.
const HELD: usize = 500;
/// Names of one DEL.
const DELETED: usize = 5_000;

pub fn run(plan: &Plan) {
    let names = plan.names;
    let dir = tempfile::tempdir().expect("a directory");
    let (global, address) = place::global_anywhere(dir.path(), &[]);
    let pid = global.id();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let rt = rt.expect("threads can be started");
    place::run(&rt, async move {
        let local = node::local(address.clone()).await;
        let node = local.node().clone();
        node::set(&node, node::named("first"), value(0, BYTES)).await;
        let before = resident(pid);
        fill(&node, names).await;
        // What was written is on its way to the index for a while.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let filled = resident(pid);
        println!(
            "names/{names}: {:.0} B resident a name, caches of the index and of hot names included",
            per(filled, before, names)
        );

        let (all, took) = walk(&node).await;
        assert_eq!(all.len() as u64, names + 1, "each is listed");
        println!(
            "names/{names}: listed at {:.0} k/s, {} KiB more resident",
            rate(all.len(), took),
            resident(pid).saturating_sub(filled)
        );
        holdings(&address, pid, &all).await;

        let deleted: Vec<Name> = (0..names).step_by(2).map(|n| node::name(n + 1)).collect();
        let half = deleted.len();
        let began = Instant::now();
        let deleting = tokio::spawn({
            let node = node.clone();
            async move {
                for part in deleted.chunks(DELETED) {
                    let id = node.request_id().await.expect("global was reached");
                    node.delete(id, part.to_vec()).await.expect("deleted");
                }
                began.elapsed()
            }
        });
        let (listed, took) = walk(&node).await;
        let deleting = deleting.await.expect("no DEL failed");
        println!(
            "names/{names}: listed at {:.0} k/s while half were deleted in {deleting:.2?} ({:.0} k/s)",
            rate(listed.len(), took),
            rate(half, deleting)
        );
        local.stop().await;
    });
}

async fn fill(node: &Node, names: u64) {
    let (began, to) = (Instant::now(), node.clone());
    let set = move |n| {
        let node = to.clone();
        async move { _ = node::set(&node, node::name(n), value(n, BYTES)).await }
    };
    drive(IN_FLIGHT, Duration::MAX, names, set).await;
    eprintln!("{names} names set in {:.1?}", began.elapsed());
}

/// What it costs that each name is held once, and twice, by Locals that are there already.
async fn holdings(address: &str, pid: u32, all: &[(Key, u64)]) {
    let parts: Vec<Vec<(Vec<u8>, u64)>> = all
        .chunks(HELD)
        .take(2_000)
        .map(|part| part.iter().map(|(key, rev)| (packed(key), *rev)).collect())
        .collect();
    let swarm = Swarm::attach(address.parse().expect("an address"), parts.len()).await;
    let held: usize = parts.iter().map(Vec::len).sum();
    for times in 1..=2 {
        let (before, began) = (resident(pid), Instant::now());
        for (part, names) in parts.iter().enumerate() {
            let who = (part + times - 1) % parts.len();
            swarm.hold(who..who + 1, names).await;
        }
        println!(
            "names: {held} held once more, by {} Locals: {:.0} B resident a holding, {:.0} k/s",
            parts.len(),
            per(resident(pid), before, held as u64),
            rate(held, began.elapsed())
        );
    }
}

fn packed(key: &Key) -> Vec<u8> {
    Name::new(&Namespace::default(), key).packed().to_vec()
}

fn per(after: usize, before: usize, n: u64) -> f64 {
    (after.saturating_sub(before) << 10) as f64 / n as f64
}

/// Thousands a second.
fn rate(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64() / 1e3
}

/// All names and their revisions, page by page.
async fn walk(node: &Node) -> (Vec<(Key, u64)>, Duration) {
    let (mut all, began) = (Vec::new(), Instant::now());
    let mut query =
        ListQuery { namespace: Namespace::default(), prefix: bytes::Bytes::new(), after: None, limit: 1_000 };
    loop {
        let page = node.list(query.clone()).await.expect("listed");
        all.extend(page.names.into_iter().map(|(key, entry)| (key, entry.bind_rev.0)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return (all, began.elapsed()),
        }
    }
}
