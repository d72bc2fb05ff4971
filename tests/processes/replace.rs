//! Names that are bound anew while they are bound: what was acknowledged through one Local is what the other answers.

use crate::rig::{Global, Local, client, dstore, until};
use dstore_client::{Client, Target};
use dstore_shared::{
    Blob, Decision, Expiry, Guard, Key, Name, Namespace, Payload, SetOutcome, Step, Transaction, When,
};
use futures_util::future::join_all;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ROUNDS: u64 = 150;

fn of(key: &str) -> Name {
    let namespace = Namespace::new("cache").expect("valid");
    Name::new(&namespace, &Key::new(key.to_owned()).expect("valid"))
}

/// `dstore ns` at a node.
pub fn ns(local: &Local, args: &[&str]) -> (Option<i32>, String) {
    let (dir, at) = (tempfile::tempdir().expect("a directory"), local.daemon.at.to_string());
    let all = [&["ns"], args, &["--node", &at]].concat();
    let Output { status, stdout, stderr } = dstore(dir.path(), &all).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

async fn number(client: &Client, key: &str) -> u64 {
    let value = client.get(&of(key)).await.expect("answered").expect("bound");
    std::str::from_utf8(&value.bytes).expect("text").parse().expect("a number")
}

/// Reads until told to stop; gives how often. No read is behind what was acknowledged before it began.
async fn reads(at: &Local, acknowledged: &AtomicU64, stop: &AtomicBool) -> u64 {
    let (client, mut reads, mut newest) = (client(&at.daemon.at), 0, 0);
    while !stop.load(Ordering::Acquire) {
        let before = acknowledged.load(Ordering::Acquire);
        let seen = number(&client, "k").await;
        assert!(seen >= before, "{seen} was read after {before} was acknowledged");
        assert!(seen >= newest, "{seen} was read after {newest}");
        (newest, reads) = (seen, reads + 1);
    }
    reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_acknowledged_through_one_local_is_what_the_other_answers() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    assert_eq!(
        ns(&a, &["create", "cache", "--mode", "replace"]),
        (Some(0), "Namespace created (cache: replace)\n".into())
    );
    a.client.set(&of("k"), "0").await.expect("set");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let write = async {
        for n in 1..=ROUNDS {
            let (writer, other) = if n % 2 == 0 { (&a.client, &b.client) } else { (&b.client, &a.client) };
            let set = writer.set(&of("k"), n.to_string()).await.expect("answered");
            assert!(matches!(set.outcome, SetOutcome::Stored(_)), "{set:?}");
            acknowledged.store(n, Ordering::Release);
            assert_eq!((number(other, "k").await, number(writer, "k").await), (n, n));
        }
        stop.store(true, Ordering::Release);
    };
    let readers = [&a, &b, &a, &b].map(|local| reads(local, &acknowledged, &stop));
    let ((), read) = tokio::join!(write, join_all(readers));
    eprintln!("{ROUNDS} SETs, {read:?} reads beside them");
    assert!(read.iter().all(|n| *n > 0));
}

/// One that sets a name to what it read plus one, guarded by the binding it read, and tries again if that is gone.
async fn add_guarded(client: &Client, turns: u64) {
    for _ in 0..turns {
        loop {
            let read = client.get(&of("n")).await.expect("answered").expect("bound");
            let n: u64 = std::str::from_utf8(&read.bytes).expect("text").parse().expect("a number");
            // Of a name without a time to live what a GET tells is as good as what a Stat does.
            assert_eq!(read.entry.expires_at, None);
            let value = Payload::carrying(Blob::hash((n + 1).to_string()));
            let guard = Guard { name: of("n"), bind_rev: Some(read.entry.bind_rev) };
            let set = Step::Set { name: of("n"), value, when: When::Always, expiry: Expiry::Clear };
            let transaction =
                Transaction::guarded(vec![guard], vec![set, Step::Add { name: of("sum"), by: 1 }]);
            match client.apply(transaction).await.expect("answered").decision {
                Decision::Done(_) => break,
                Decision::Aborted(0) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarded_transactions_through_two_locals_lose_no_update_and_outlive_a_kill() {
    let mut global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    assert_eq!(ns(&b, &["create", "cache", "--mode", "replace"]).0, Some(0));
    a.client.set(&of("n"), "0").await.expect("set");
    let writers: Vec<Client> = [&a, &b, &a, &b].map(|local| client(&local.daemon.at)).into();
    join_all(writers.iter().map(|writer| add_guarded(writer, 15))).await;
    for local in [&a, &b] {
        assert_eq!((number(&local.client, "n").await, number(&local.client, "sum").await), (60, 60));
    }
    let hour = Expiry::In(Duration::from_secs(3600));
    let value = Payload::carrying(Blob::hash("v"));
    let timed = Step::Set { name: of("timed"), value, when: When::Always, expiry: hour };
    a.client.apply(Transaction::of(timed)).await.expect("applied");
    global.daemon.kill();
    global.again();
    for local in [&a, &b] {
        local.follow(&global).await;
        assert_eq!((number(&local.client, "n").await, number(&local.client, "sum").await), (60, 60));
    }
    let left = b.client.stat(&Target::Name(of("timed"))).await.expect("answered").expect("bound").left();
    assert!(left.is_some_and(|left| left > Duration::from_secs(1800)), "{left:?}");
    until("a SET goes on", async || a.client.set(&of("n"), "61").await.is_ok()).await;
    assert_eq!(number(&b.client, "n").await, 61);

    let listed = ns(&a, &["ls"]);
    assert_eq!(listed, (Some(0), "cache\treplace\ndefault\twrite-once\n".into()));
    let (code, told) = ns(&a, &["stat", "cache"]);
    assert!(code == Some(0) && told.starts_with("cache\treplace\t3 keys\tcreated at revision "), "{told}");
    let (code, told) = ns(&a, &["drop", "cache"]);
    assert!(code == Some(2) && told.contains("`-y`"), "nobody was asked: {told}");
    let dropped = ns(&b, &["drop", "cache", "-y"]);
    assert_eq!(dropped, (Some(0), "Namespace dropped (cache: 3 keys)\n".into()));
    assert_eq!(ns(&b, &["drop", "cache", "-y"]).0, Some(1));
    assert!(a.client.get(&of("n")).await.expect("answered").is_none());
}
