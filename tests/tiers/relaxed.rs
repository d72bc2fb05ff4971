//! A Global that acknowledges before it syncs: every answer of either tier says so, over the wire and in process.

use crate::rig::{global_at, global_with, local_at, machine, name};
use dstore::SyncLevel;
use dstore_proto::RemoteStore;
use dstore_proto::dial::{Channel, Dial};
use dstore_proto::store::{Body, ListQuery, Slice, Store, Target};
use dstore_proto::watch::WatchQuery;
use dstore_shared::{ClientId, Namespace, RequestId};
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use std::time::Duration;

const LOSS: Duration = Duration::from_millis(50);

async fn id(store: &RemoteStore, n: u64) -> RequestId {
    let born = store.status().await.expect("answered").born.expect("known");
    RequestId { client: ClientId(7), n, born }
}

/// Calls everything that answers about data, and looks at the label after each call on a client that has none yet.
async fn every_answer_says(at: &Address, loss: Option<Duration>, first: u64) {
    let (sys, tasks) = (machine_of(at), Tasks::new());
    let dial = Dial::default();
    let fresh = || RemoteStore::new(Channel::new(&sys.0, &tasks, at, &dial), &dial);
    let ids = fresh();
    let mut n = first;
    macro_rules! says {
        ($what:literal, $store:ident => $call:expr) => {
            let $store = fresh();
            assert_eq!($store.loss(), None, "nothing was answered yet");
            let _answer = $call.await.expect($what);
            assert_eq!($store.loss(), loss, "{} at {at}", $what);
        };
    }
    let mut next = || {
        n += 1;
        n
    };
    let key = |k: &str| name(format!("{k}{first}"));
    let set = id(&ids, next()).await;
    says!("set", s => s.set(set, Some(key("a")), Body::Bytes("v".into())));
    let large = id(&ids, next()).await;
    says!("upload", s => s.set(large, Some(key("large")), Body::Bytes(vec![3; 3 << 20].into())));
    says!("get", s => s.get(Target::Name(key("a")), Slice::ALL));
    says!("get of nothing", s => s.get(Target::Name(key("none")), Slice::ALL));
    says!("stat", s => s.stat(Target::Name(key("a"))));
    says!("stat of nothing", s => s.stat(Target::Name(key("none"))));
    says!("get many", s => s.get_many(vec![key("a"), key("none")]));
    says!("stat many", s => s.stat_many(vec![key("a"), key("none")]));
    says!("exists", s => s.exists(vec![key("a")]));
    let copy = id(&ids, next()).await;
    says!("copy", s => s.copy(copy, key("a"), key("b")));
    let rename = id(&ids, next()).await;
    says!("rename", s => s.rename(rename, key("b"), key("c")));
    let delete = id(&ids, next()).await;
    says!("delete", s => s.delete(delete, vec![key("c")]));
    let query = ListQuery { namespace: Namespace::default(), prefix: "a".into(), after: None, limit: 10 };
    says!("list", s => s.list(query));
    let query =
        WatchQuery { namespace: Namespace::default(), prefix: "a".into(), after: None, history: None };
    says!("watch", s => s.watch(query));
    says!("status", s => s.status());
    let found = ids.get(Target::Name(key("a")), Slice::ALL).await.expect("answered").expect("found");
    assert_eq!(found.from.loss, loss, "in the provenance too");
    tasks.stop().await;
}

/// The machine that `every_answer_says` runs on: memory addresses belong to one.
fn machine_of(_: &Address) -> &'static (dstore_sys::Sys,) {
    static MACHINE: std::sync::OnceLock<(dstore_sys::Sys,)> = std::sync::OnceLock::new();
    MACHINE.get_or_init(|| (machine(),))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_either_tier_says_what_a_crash_of_global_may_take() {
    let door = Address::Memory("local".into());
    let (sys, dir) = (&machine_of(&door).0, tempfile::tempdir().expect("a directory"));
    let levels = [SyncLevel::Relaxed(LOSS), SyncLevel::Group];
    for (i, level) in levels.into_iter().enumerate() {
        let global = global_with(sys, dir.path(), |config| config.sync = level).await;
        let local = local_at(sys, &door).await;
        let first = 100 * (i as u64 + 1);
        every_answer_says(&global_at(), level.loss(), first).await;
        every_answer_says(&door, level.loss(), first + 50).await;
        assert_eq!(local.node().loss(), level.loss(), "in process");
        assert_eq!(global.store().loss(), level.loss(), "in process");
        let facts = local.node().status().await.expect("answered").facts;
        let told =
            facts.iter().any(|(name, value)| name == "sync" && value.contains("up to 50 ms of changes"));
        assert_eq!(told, level.loss().is_some(), "{facts:?}");
        local.stop().await;
        global.stop().await.expect("a clean stop");
    }
}
