//! The RESP door as foreign clients meet it: real Locals, bytes over a Unix socket.

use crate::resp_talk::{DOOR, Talk, command, replacing, two};
use crate::rig::{Global, Local, until};
use std::io::Write;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_over_resp_is_read_at_another_node_and_a_bound_name_refuses_other_bytes() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (Talk::to(&a), Talk::to(&b));
    assert_eq!(a.ask("SET k v"), "OK");
    assert_eq!(a.ask("SET k v"), "OK", "identical bytes");
    assert!(a.ask("SET k other").starts_with("-OCCUPIED Key occupied! (blake3:"));
    assert_eq!(a.ask("SET k other NX"), "nil");
    assert_eq!(b.ask("GET k"), "v");
    assert_eq!(b.ask("MGET k nope"), "[v nil]");
    assert_eq!(b.ask("STRLEN k"), "1");
    assert_eq!(
        (b.ask("DEL k k nope"), a.ask("GET k"), b.ask("EXISTS k k")),
        ("1".into(), "nil".into(), "0".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replies_in_order_a_pipeline_sees_its_own_changes() {
    let (_global, a, _b) = two().await;
    let mut talk = replacing(&a).await;
    let mut bytes = Vec::new();
    for n in 0..500 {
        let n = n.to_string();
        bytes.extend(command(&[b"SET", b"n", n.as_bytes()]));
        bytes.extend(command(&[b"GET", b"n"]));
        bytes.extend(command(&[b"PING", n.as_bytes()]));
        bytes.extend(command(&[b"GET", format!("absent{n}").as_bytes()]));
    }
    let mut writer = talk.stream.try_clone().expect("cloned");
    let written = std::thread::spawn(move || writer.write_all(&bytes).expect("taken"));
    for n in 0..500 {
        let n = n.to_string();
        let replies = [talk.reply(), talk.reply(), talk.reply(), talk.reply()];
        assert_eq!(replies, ["OK", &n, &n, "nil"]);
    }
    written.join().expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_replaced_over_resp_is_what_every_later_get_at_any_node_returns() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    for n in 0..100 {
        assert_eq!(a.ask(&format!("SET k {n}")), "OK");
        assert_eq!(b.ask("GET k"), n.to_string());
        assert_eq!(b.ask("INCR k"), (n + 1).to_string());
        assert_eq!(a.ask("GET k"), (n + 1).to_string());
    }
    assert_eq!(a.ask("SET k v EX 1000"), "OK");
    assert!(b.ask("TTL k").parse::<i64>().is_ok_and(|left| (900..=1000).contains(&left)));
    assert_eq!(b.ask("PERSIST k"), "1");
    assert_eq!(a.ask("TTL k"), "-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_does_all_or_nothing_and_nothing_if_a_watched_key_changed() {
    let (_global, a, b) = two().await;
    let (mut a, mut b) = (replacing(&a).await, replacing(&b).await);
    assert_eq!(a.ask("MULTI"), "OK");
    for line in ["SET x 1", "INCR x", "GET x", "MGET x y", "PING"] {
        assert_eq!(a.ask(line), "QUEUED");
    }
    assert_eq!(b.ask("GET x"), "nil", "nothing is done before EXEC");
    assert_eq!(a.ask("EXEC"), "[OK 2 2 [2 nil] PONG]");
    assert_eq!(a.ask("WATCH x y"), "OK");
    assert_eq!(b.ask("SET y 1"), "OK");
    assert_eq!((a.ask("MULTI"), a.ask("SET x 9")), ("OK".into(), "QUEUED".into()));
    assert_eq!(a.ask("EXEC"), "none");
    assert_eq!(b.ask("GET x"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_global_hits_are_served_while_the_lease_lives_and_then_clients_are_told_to_try_again() {
    let mut global = Global::start(&["--lease", "2s"]);
    let a = Local::start_with(&global, DOOR).await;
    let mut talk = Talk::to(&a);
    assert_eq!(talk.ask("SET k v"), "OK");
    a.holds("k").await;
    global.daemon.kill();
    let start = Instant::now();
    let first = talk.ask("GET k");
    assert!(first == "v" || first.starts_with("-TRYAGAIN"), "{first}");
    until("the lease ends", async || talk.ask("GET k").starts_with("-TRYAGAIN")).await;
    assert!(start.elapsed() > Duration::from_millis(500), "not before");
    assert!(talk.ask("SET k w").starts_with("-TRYAGAIN"));
    assert_eq!(talk.ask("PING"), "PONG");
    let alone = Local::lonely_with(&global.daemon.at, DOOR).await;
    assert!(Talk::to(&alone).ask("GET k").starts_with("-LOADING"));
    assert!(Talk::to(&alone).ask("INFO persistence").contains("loading:1"));
}
