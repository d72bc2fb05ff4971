//! What keeps a server from starting, and what does not.

use crate::rig::{Daemon, Global, Local, SLACK, client, client_with, dstore, failed, name, timed, until};
use crate::wire::Flow;
use bytes::Bytes;
use dstore_client::Address;
use dstore_shared::Kind;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// Runs to its end: exit code, standard output, standard error without the log.
fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = dstore(dir, args).env_remove("DSTORE_LOG").output().expect("dstore runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An address where nobody listens.
fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    Address::Tcp(listener.local_addr().expect("bound").to_string())
}

/// What the standard health service answers: 1 = `SERVING`, 2 = `NOT_SERVING`.
pub async fn health(at: &Address) -> u8 {
    let answer = crate::limits::call(at, "/grpc.health.v1.Health/Check", Bytes::new()).await;
    let answer = answer.expect("health answers");
    assert_eq!((answer.len(), answer[0]), (2, 8), "one field, the status: {answer:?}");
    answer[1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_starts_without_global_says_so_once_and_recovers_by_itself() {
    let local = Local::lonely(&nobody()).await;
    let node = local.daemon.at.to_string();
    let told = || local.daemon.err();
    assert_eq!(health(&local.daemon.at).await, 2);
    assert!(!local.client.status().await.expect("it answers for itself").serving);
    let dir = tempfile::tempdir().expect("a directory");
    // Every verb waits for its deadline and ends with the documented code.
    for args in [&["get", "k"][..], &["set", "k", "v"], &["del", "k"], &["repl", "-c", "GET k"]] {
        let args = [args, &["--node", &node]].concat();
        let ((code, out, err), took) = timed(async { run(dir.path(), &args) }).await;
        assert_eq!((code, &out[..]), (Some(4), ""), "{args:?}: {err}");
        assert!(err.contains("Unavailable") || err.contains("global"), "{args:?}: {err}");
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(8), "{args:?}: {took:?}");
    }
    let brief = client_with(&local.daemon.at, Duration::from_millis(300));
    assert_eq!(failed(brief.get(&name("k")).await).kind(), Kind::Unavailable);
    // Many attempts have failed by now, and it has nothing else to say either.
    let alone = told();
    assert_eq!(alone.len(), 1, "said once: {alone:?}");
    assert!(alone[0].contains("global does not answer"), "{alone:?}");
    assert!(alone[0].contains(&local.wire.at.to_string()), "and where: {alone:?}");
    let global = Global::start(&[]);
    local.wire.point_to(&global.daemon.at);
    local.serving().await;
    until("health tells", async || health(&local.daemon.at).await == 1).await;
    let back = told();
    assert_eq!(back.len(), 2, "and its return once: {back:?}");
    assert!(back[1].contains("global is back"), "{back:?}");
    assert_eq!(run(dir.path(), &["set", "k", "v", "--node", &node]).0, Some(0));
    assert_eq!(run(dir.path(), &["get", "k", "--node", &node]), (Some(0), "v".into(), String::new()));
    // Away again: health follows the lease.
    local.wire.set(Flow::Held);
    until("health tells", async || health(&local.daemon.at).await == 2).await;
    local.wire.set(Flow::Through);
    until("health tells", async || health(&local.daemon.at).await == 1).await;
    // At most one line for the session's end and one for the next.
    assert!(told().len() <= 4, "{:?}", told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_that_is_pointed_at_a_local_is_refused_and_told_what_to_do() {
    let global = Global::start(&[]);
    let local = Local::start(&global).await;
    let (dir, at) = (tempfile::tempdir().expect("a directory"), local.daemon.at.to_string());
    for more in [&[][..], &["--repl"]] {
        let args = [&["local", "--listen", "127.0.0.1:0", "--global", &at], more].concat();
        let ((code, _, err), took) = timed(async { run(dir.path(), &args) }).await;
        assert_eq!(code, Some(2), "{more:?}: {err}");
        assert!(err.contains(&format!("`{at}` is not a Global")), "{more:?}: {err}");
        assert!(err.contains("dstore global") && err.lines().count() == 1, "{more:?}: {err}");
        assert!(took < SLACK, "at once: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_is_named_and_ends_with_2() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "mine").expect("written");
    for data in ["file", "file/below"] {
        let (code, out, err) = run(dir.path(), &["global", "--listen", "127.0.0.1:0", "--data", data]);
        assert_eq!((code, &out[..]), (Some(2), ""), "{err}");
        assert!(err.contains("`file"), "it is named: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert_eq!(std::fs::read(dir.path().join("file")).expect("read"), b"mine", "and left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_global_on_the_same_data_is_refused_and_the_first_goes_on() {
    let mut global = Global::start(&[]);
    global.client().set(&name("k"), "v").await.expect("set");
    for engine in ["fjall", "sled", "memory"] {
        let args = ["global", "--listen", "127.0.0.1:0", "--data", "data", "--engine", engine];
        let (code, out, err) = run(global.dir.path(), &args);
        assert_eq!((code, &out[..]), (Some(2), ""), "{err}");
        assert!(err.contains("data`") && err.lines().count() == 1, "{err}");
    }
    global.client().set(&name("l"), "w").await.expect("it goes on");
    // A lock ends with its process, however that ends.
    global.daemon.kill();
    global.again();
    for (key, value) in [("k", "v"), ("l", "w")] {
        let found = global.client().get(&name(key)).await.expect("answered").expect("found");
        assert_eq!(found.bytes, value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_global_whose_port_is_taken_says_so_and_leaves_its_data_as_they_were() {
    let mut global = Global::start(&[]);
    global.client().set(&name("k"), "v").await.expect("set");
    global.daemon.kill();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = taken.local_addr().expect("bound").to_string();
    let (code, out, err) = run(global.dir.path(), &["global", "--listen", &at, "--data", "data"]);
    assert_eq!((code, &out[..]), (Some(2), ""), "{err}");
    assert!(err.contains(&at), "{err}");
    global.again();
    assert_eq!(global.client().get(&name("k")).await.expect("answered").expect("found").bytes, "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_failed_between_a_clean_stop_and_the_next_start_costs_no_grace() {
    let mut global = Global::start(&["--lease", "8s"]);
    let client = global.client();
    client.set(&name("k"), "v").await.expect("set");
    assert_eq!(global.daemon.end(rustix::process::Signal::TERM).code(), Some(0));
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = taken.local_addr().expect("bound").to_string();
    let (code, _, err) = run(global.dir.path(), &["global", "--listen", &at, "--data", "data"]);
    assert_eq!(code, Some(2), "{err}");
    global.again();
    let (deleted, took) = timed(global.client().delete(&[name("k")])).await;
    assert_eq!(deleted.expect("deleted").removed, [true]);
    assert!(took < Duration::from_secs(4), "nobody had a lease: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_locals_run_on_one_machine_with_the_default_port_taken() {
    let global = Global::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let at = global.daemon.at.to_string();
    let start = || Daemon::start(dstore(dir.path(), &["local", "--global", &at]), "local");
    let (one, two) = (start(), start());
    assert_ne!(one.at, two.at);
    for daemon in [&one, &two] {
        client(&daemon.at).set(&name(daemon.at.to_string()), "v").await.expect("set");
    }
    assert_eq!(global.fact("sessions").await, 2, "identities of their own");
}
