//! What a person is told of the tiers: who is attached and holds a key, how a GET goes, who made a DEL wait; and what a
//! node is told to keep and to forget. All of it through a node's door, over the wire.

use crate::rig::{SOON, delete, get, global, global_at, local_at, machine, name, set, value};
use dstore::{Client, ClientConfig, Tier};
use dstore_local::{Listen, Local, LocalConfig};
use dstore_proto::store::{Peek, Store};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use std::time::Duration;

async fn labelled(sys: &Sys, label: &str) -> (Local, Client) {
    let at = Address::Memory(label.to_owned());
    let listen = vec![Listen { address: at.clone(), or_any: false }];
    let config = LocalConfig { listen, label: label.to_owned(), ..LocalConfig::new(global_at()) };
    let local = Local::start(sys.clone(), config).await.expect("local starts");
    local.ready(SOON).await.expect("a session");
    let client = Client::connect(sys, &at, ClientConfig::default());
    (local, client)
}

#[tokio::test]
async fn who_holds_a_key_and_who_made_its_del_wait_is_told_by_name() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let _global = global(&sys, dir.path(), Duration::from_secs(10)).await;
    let ((a, to_a), (b, to_b)) = (labelled(&sys, "node a").await, labelled(&sys, "node b").await);
    set(&a, "k", "v").await.expect("set");
    assert_eq!(value(&b, "k").await.as_deref(), Some(&b"v"[..]));
    let locals = to_a.locals(Some(name("k"))).await.expect("told");
    let mut told: Vec<_> = locals.told.iter().map(|l| (l.label.as_str(), l.holds)).collect();
    told.sort_unstable();
    assert_eq!((locals.count, told), (2, vec![("node a", Some(true)), ("node b", Some(true))]));
    assert!(locals.told.iter().all(|l| l.lease_left > Duration::ZERO && !l.wildcard && !l.slow));
    assert_eq!(to_b.locals(None).await.expect("told").told[0].holds, None);

    assert!(to_b.why(&name("k")).await.expect("told").drained.is_none(), "nothing has waited");
    delete(&a, &["k"]).await.expect("deleted");
    let why = to_a.why(&name("k")).await.expect("told");
    let drained = why.drained.expect("both had to acknowledge it");
    assert!(why.entry.is_none() && drained.revision.0 > 0 && drained.for_whom.len() == 1, "{drained:?}");
    assert!(["node a", "node b"].contains(&drained.for_whom[0].as_str()), "{drained:?}");
    assert!(to_a.locals(Some(name("k"))).await.expect("told").told.iter().all(|l| l.holds == Some(false)));
    assert!(to_a.why(&name("other")).await.expect("told").drained.is_none(), "of this key only");
}

#[tokio::test]
async fn an_explanation_names_each_hop_and_changes_nothing() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let _global = global(&sys, dir.path(), Duration::from_secs(30)).await;
    let (a, to_a) = labelled(&sys, "node a").await;
    let (_b, to_b) = labelled(&sys, "node b").await;
    let large = vec![7_u8; 300_000];
    set(&a, "k", large.clone()).await.expect("set");
    let steps = |why: &dstore_proto::store::Why| {
        why.hops.iter().map(|hop| (hop.tier, hop.step.clone())).collect::<Vec<_>>()
    };
    let held = to_a.why(&name("k")).await.expect("told");
    assert_eq!(steps(&held), [(Tier::Local, "lookup".to_owned())]);
    for _ in 0..2 {
        let why = to_b.why(&name("k")).await.expect("told");
        let all = [
            (Tier::Local, "lookup"),
            (Tier::Local, "resolve"),
            (Tier::Global, "lookup"),
            (Tier::Global, "disk"),
            (Tier::Global, "hash check"),
            (Tier::Local, "RPC"),
            (Tier::Local, "fetch"),
            (Tier::Local, "hash check"),
        ]
        .map(|(tier, step)| (tier, step.to_owned()));
        assert_eq!(steps(&why), all, "and it is not held by being asked about");
        assert_eq!(why.entry.as_ref().map(|entry| entry.size), Some(300_000));
        let checked = why.hops.iter().filter(|hop| hop.step == "hash check");
        assert!(checked.clone().all(|hop| hop.told == "right" && hop.took > Duration::ZERO), "{why:?}");
        assert_eq!(checked.count(), 2);
    }
    assert!(to_b.why(&name("nope")).await.expect("told").entry.is_none());
}

#[tokio::test]
async fn a_node_forgets_and_keeps_what_it_is_told_to() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let _global = global(&sys, dir.path(), Duration::from_secs(30)).await;
    let (a, to_a) = labelled(&sys, "node a").await;
    set(&a, "k", "value").await.expect("set");
    set(&a, "same", "value").await.expect("set");
    assert_eq!(a.node().peek(&name("k")), Peek::Held(5));
    assert_eq!(to_a.store().peek(&name("k")), Peek::Unknown, "a connection knows nothing by itself");
    let found = get(&a, "k").await.expect("answered").expect("bound");
    assert_eq!((found.from.tier, found.from.asked_for), (Tier::Local, None));

    let names = [name("k"), name("nope")];
    assert_eq!(to_a.pin(&names, true).await.expect("told"), [true, false]);
    assert_eq!(
        to_a.evict(&names).await.expect("told"),
        [true, false],
        "also what is pinned, if that is said"
    );
    assert_eq!(to_a.pin(&names[..1], false).await.expect("told"), [false]);
    assert_eq!((a.node().peek(&name("k")), a.node().peek(&name("same"))), (Peek::Absent, Peek::Held(5)));
    let found = get(&a, "k").await.expect("answered").expect("it is bound as before");
    assert_eq!(found.from.tier, Tier::Global);
    assert!(found.from.asked_for.is_some_and(|time| time > Duration::ZERO));
    assert_eq!(to_a.pin(&[name("k")], true).await.expect("told"), [true]);
    delete(&a, &["k"]).await.expect("deleted");
    assert!(value(&a, "k").await.is_none(), "a pin outlives no DEL");
    assert_eq!(to_a.pin(&[name("k")], false).await.expect("told"), [false]);
}

#[tokio::test]
async fn global_has_nothing_to_forget_and_nobody_is_asked_in_vain() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), Duration::from_secs(2)).await;
    let store = global.store();
    assert!(store.evict(vec![name("k")]).await.is_err() && store.pin(vec![name("k")], true).await.is_err());
    assert_eq!(store.locals(None).await.expect("told").count, 0);
    let (_a, to_a) = labelled(&sys, "node a").await;
    let at = Address::Memory("second".into());
    let second = local_at(&sys, &at).await;
    second.stop().await;
    let many: Vec<_> = (0..1001).map(|n| name(format!("k{n}"))).collect();
    assert!(to_a.evict(&many).await.is_err(), "there is a bound");
}
