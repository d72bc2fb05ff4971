//! Clients that keep values themselves, and are told when they change.

use crate::resp_talk::{Talk, replacing, two};
use crate::rig::until;

/// Reads `key` until the node holds it; an invalidation that follows a reply is read too.
async fn read_until_held(talk: &mut Talk, key: &str, before: &str) {
    until("the node holds the name", async || {
        if !before.is_empty() {
            assert_eq!(talk.ask(before), "OK");
        }
        talk.send(&[b"GET", key.as_bytes()]);
        talk.send(&[b"PING"]);
        let mut came = 0;
        while talk.reply() != "PONG" {
            came += 1;
        }
        // The value and no push.
        came == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_tracks_what_he_read_is_told_when_another_node_changes_it() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    assert_eq!(b.ask("SET k 1"), "OK");
    assert!(a.ask("HELLO 3").contains("proto 3"));
    assert_eq!(a.ask("CLIENT TRACKING ON"), "OK");
    // Until the node holds it, the reply is followed by the invalidation.
    until("the node holds the name", async || {
        let value = a.ask("GET k");
        assert_eq!(value, "1");
        if a.ask("PING") == "PONG" {
            return true;
        }
        assert_eq!(a.reply(), "PONG");
        false
    })
    .await;
    assert_eq!(b.ask("SET k 2"), "OK");
    assert_eq!(a.reply(), ">[invalidate [k]]");
    assert_eq!(a.ask("GET k"), "2");
    assert_eq!(b.ask("SET other 2"), "OK");
    assert_eq!(a.ask("GET absent"), "nil");
    assert_eq!(a.reply(), ">[invalidate [absent]]", "its change would not be heard of");
    assert_eq!(a.ask("CLIENT TRACKING OFF"), "OK");
    assert_eq!(a.ask("PING"), "PONG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_loop_opt_in_and_broadcast_tell_what_they_say_and_nothing_else() {
    let (_global, a, b) = two().await;
    let (mut one, mut opted, mut all) = (replacing(&a).await, replacing(&a).await, replacing(&a).await);
    let mut other = replacing(&b).await;
    for talk in [&mut one, &mut opted, &mut all] {
        assert!(talk.ask("HELLO 3").contains("proto 3"));
    }
    assert_eq!(other.ask("MSET k 1 unread 1 p:k 1"), "OK");
    assert_eq!(one.ask("CLIENT TRACKING ON NOLOOP"), "OK");
    assert_eq!(opted.ask("CLIENT TRACKING ON OPTIN"), "OK");
    read_until_held(&mut one, "k", "").await;
    assert_eq!(one.ask("SET k 2"), "OK");
    assert_eq!(one.ask("PING"), "PONG", "its own change is not told");
    read_until_held(&mut one, "k", "").await;
    assert_eq!(opted.ask("GET k"), "2", "not asked for");
    assert_eq!(other.ask("SET k 3"), "OK");
    assert_eq!(one.reply(), ">[invalidate [k]]");
    assert_eq!(opted.ask("PING"), "PONG");
    read_until_held(&mut opted, "k", "CLIENT CACHING YES").await;
    assert_eq!(other.ask("SET k 4"), "OK");
    assert_eq!(opted.reply(), ">[invalidate [k]]");
    assert_eq!(all.ask("CLIENT TRACKING ON BCAST PREFIX p:"), "OK");
    assert_eq!(all.reply(), ">[invalidate nil]", "its watch has begun");
    assert_eq!((other.ask("SET q v"), other.ask("SET p:k v")), ("OK".into(), "OK".into()));
    assert_eq!(all.reply(), ">[invalidate [p:k]]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_connection_is_told_instead_and_if_it_is_gone_the_client_hears_of_that() {
    let (_global, a, b) = two().await;
    let (mut reader, mut told, mut other) = (replacing(&a).await, Talk::to(&a), replacing(&b).await);
    let id = told.ask("CLIENT ID");
    assert_eq!(told.ask("SUBSCRIBE __redis__:invalidate"), "[subscribe __redis__:invalidate 1]");
    assert_eq!(other.ask("SET k 1"), "OK");
    assert_eq!(reader.ask(&format!("CLIENT TRACKING ON REDIRECT {id}")), "OK");
    assert_eq!(reader.ask("CLIENT GETREDIR"), id);
    // A connection of RESP2 that reads: what it reads and this node does not hold is told there at once.
    until("the node holds the name", async || {
        assert_eq!(reader.ask("GET k"), "1");
        let told_at_once = told.ask("PING");
        if told_at_once == "[pong ]" {
            return true;
        }
        assert_eq!(told_at_once, "[message __redis__:invalidate [k]]");
        assert_eq!(told.reply(), "[pong ]");
        false
    })
    .await;
    assert_eq!(other.ask("SET k 2"), "OK");
    assert_eq!(told.reply(), "[message __redis__:invalidate [k]]");
    assert_eq!(reader.ask("GET k"), "2");
    // With RESP3 it is told that nobody is told any more.
    assert!(reader.ask("HELLO 3").contains("proto 3"));
    drop(told);
    until("it is gone", async || reader.ask("CLIENT TRACKINGINFO").contains("broken_redirect")).await;
    assert_eq!(reader.ask("GET absent"), "nil");
    assert_eq!(reader.reply(), format!(">[tracking-redir-broken {id}]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_with_no_loop_tells_of_all_changes_but_one_s_own() {
    let (_global, a, b) = two().await;
    let (mut one, mut other) = (replacing(&a).await, replacing(&b).await);
    assert!(one.ask("HELLO 3").contains("proto 3"));
    assert_eq!(one.ask("CLIENT TRACKING ON BCAST NOLOOP PREFIX p:"), "OK");
    assert_eq!(one.reply(), ">[invalidate nil]", "its watch has begun");
    assert_eq!(other.ask("SET p:begun v"), "OK");
    assert_eq!(one.reply(), ">[invalidate [p:begun]]");
    assert_eq!(one.ask("SET p:own 1"), "OK");
    assert_eq!(one.ask("MSET p:own 2 p:more 3"), "OK");
    assert_eq!(one.ask("DEL p:more"), "1");
    assert_eq!(other.ask("SET p:other 1"), "OK");
    assert_eq!(one.reply(), ">[invalidate [p:other]]", "and nothing of what it did itself");
    assert_eq!(other.ask("SET p:own 9"), "OK");
    assert_eq!(one.reply(), ">[invalidate [p:own]]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_loop_a_change_of_another_during_one_s_own_that_fails_is_told() {
    let (_global, a, b) = two().await;
    let (mut one, mut other) = (replacing(&a).await, replacing(&b).await);
    assert!(one.ask("HELLO 3").contains("proto 3"));
    assert_eq!(other.ask("SET k 0"), "OK");
    assert_eq!(one.ask("CLIENT TRACKING ON NOLOOP"), "OK");
    let mut told = 0;
    for round in 1..=50 {
        read_until_held(&mut one, "k", "").await;
        // It is not set, since it is bound: only the other's change counts.
        one.send(&[b"SET", b"k", b"own", b"NX"]);
        assert_eq!(other.ask(&format!("SET k {round}")), "OK");
        let (mut answered, mut heard) = (false, false);
        while !(answered && heard) {
            match one.reply().as_str() {
                "nil" => answered = true,
                ">[invalidate [k]]" => heard = true,
                other => panic!("round {round}: {other}"),
            }
        }
        told += 1;
        // It may be told again behind the SET, if that was outstanding.
        one.send(&[b"ECHO", b"next"]);
        while one.reply() != "next" {}
    }
    assert_eq!(told, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_read_is_told_when_it_changes_and_a_broadcast_goes_with_select() {
    let (_global, a, b) = two().await;
    let (mut one, mut all, mut other) = (replacing(&a).await, replacing(&a).await, replacing(&b).await);
    assert!(one.ask("HELLO 3").contains("proto 3") && all.ask("HELLO 3").contains("proto 3"));
    assert_eq!(other.ask("SET k 1"), "OK");
    assert_eq!(one.ask("CLIENT TRACKING ON"), "OK");
    read_until_held(&mut one, "k", "").await;
    assert_eq!(other.ask("SET k 2"), "OK");
    assert_eq!(one.reply(), ">[invalidate [k]]");
    assert_eq!((one.ask("MULTI"), one.ask("GET k")), ("OK".into(), "QUEUED".into()));
    assert_eq!(one.ask("EXEC"), "[2]");
    // The node does not hold what Global read for it: its change would not be heard of.
    assert_eq!(one.reply(), ">[invalidate [k]]");
    assert_eq!(all.ask("SELECT 0"), "OK");
    assert_eq!(all.ask("CLIENT TRACKING ON BCAST PREFIX k"), "OK");
    assert_eq!(all.reply(), ">[invalidate nil]");
    assert_eq!(all.ask("SELECT 1"), "OK");
    assert_eq!(all.reply(), ">[invalidate nil]", "another namespace is watched");
    assert_eq!(other.ask("SET k 3"), "OK");
    assert_eq!(all.reply(), ">[invalidate [k]]");
}
