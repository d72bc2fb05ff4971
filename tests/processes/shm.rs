//! Worker processes that read a Local's values from shared memory. This test is such a process itself; those that are killed
//! are made of it.

use crate::rig::{Global, Local, SOON, fact, failed, name, noise, until};
use dstore_client::worker::{Attach, BlockingWorker, SharedMemory, Value as Shared, Worker, WorkerConfig};
use dstore_client::{Address, ClientConfig, Slice};
use dstore_proto::shm::{Hello, Verdict, WELCOME_BYTES, Welcome};
use dstore_shared::{Attributes, Error, Kind, Moment, Namespace, NamespaceMode, NamespaceSpec};
use dstore_sys::Sys;
use dstore_sys::net::LocalSocket;
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A Local at which workers attach.
async fn local(global: &Global) -> Local {
    Local::start_with(global, &["--shm", "shm.sock"]).await
}

fn config(local: &Local) -> WorkerConfig {
    WorkerConfig { attach: Attach::At(local.folder().join("shm.sock")), ..WorkerConfig::default() }
}

async fn worker_of(local: &Local, config: WorkerConfig) -> Worker {
    Worker::connect(&Sys::real(), &local.daemon.at, config).await
}

async fn worker(local: &Local) -> Worker {
    let worker = worker_of(local, config(local)).await;
    assert!(matches!(worker.shared_memory(), SharedMemory::Attached { .. }), "{}", worker.shared_memory());
    worker
}

/// Waits until the worker finds `key` in shared memory, and gives what it finds.
async fn found_here(worker: &Worker, key: &str) -> Vec<u8> {
    let mut found = None;
    until("the worker finds the key in shared memory", async || {
        // What is missing comes by a read.
        let _ = worker.get(key.as_bytes()).await;
        found = worker.get_here(key.as_bytes()).map(|value| value.to_vec());
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn a_value_set_at_one_local_is_read_in_shared_memory_at_another_until_it_is_deleted() {
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let worker = worker(&b).await;
    let values = [("tiny", noise(1, 100)), ("page", noise(2, 5_000)), ("large", noise(3, 3 << 20))];
    for (key, value) in &values {
        a.client.set(&name(*key), value.clone()).await.expect("set");
    }
    for (key, value) in &values {
        assert!(worker.get_here(key.as_bytes()).is_none(), "nobody has asked for it at this Local");
        let first = worker.get(key.as_bytes()).await.expect("answered").expect("it is bound");
        assert_eq!(&*first, &value[..]);
        let again = worker.get_here(key.as_bytes()).expect("the first read brought it there");
        assert_eq!(&*again, &value[..]);
        assert_eq!(again.is_in_place(), value.len() > 512, "small ones are copied");
    }
    let kept = worker.get_here(b"large").expect("it is there");
    for (key, _) in &values {
        a.client.delete(&[name(*key)]).await.expect("deleted");
        assert!(worker.get_here(key.as_bytes()).is_none(), "an acknowledged DEL is seen at once");
        assert!(worker.get(key.as_bytes()).await.expect("answered").is_none());
    }
    assert_eq!(&*kept, &values[2].1[..], "who has it keeps it");
    // Bound anew, it is another value.
    a.client.set(&name("large"), "another").await.expect("set");
    assert_eq!(found_here(&worker, "large").await, b"another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_reads_all_the_while_never_sees_what_was_deleted_before_it_looked() {
    const ROUNDS: u64 = 150;
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let worker = worker(&b).await;
    let (floor, hits) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (worker, floor, hits, done) = (worker.clone(), floor.clone(), hits.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                let deleted = floor.load(Ordering::Acquire);
                let Some(value) = worker.get_here(b"k") else { continue };
                let (round, rest) = value.split_first_chunk::<8>().expect("it begins with its round");
                let round = u64::from_le_bytes(*round);
                assert!(round > deleted, "round {round} was deleted when {deleted} was");
                assert_eq!(rest, noise(round, rest.len()), "the bytes are those of the round");
                hits.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for round in 1_u64.. {
        let len = if round % 3 == 0 { 3_000 } else { 100 };
        let value = [&round.to_le_bytes()[..], &noise(round, len)].concat();
        a.client.set(&name("k"), value).await.expect("set");
        found_here(&worker, "k").await;
        if round == ROUNDS {
            // On a machine that does other things too it may have seen none of the others.
            let seen = async || hits.load(Ordering::Relaxed) > 0 || reader.is_finished();
            until("the reader has read", seen).await;
            break;
        }
        a.client.delete(&[name("k")]).await.expect("deleted");
        floor.store(round, Ordering::Release);
    }
    done.store(true, Ordering::Release);
    reader.join().expect("nothing was wrong");
}

#[tokio::test]
async fn a_stopped_daemon_makes_a_worker_say_so_and_never_serve_what_was_deleted_meanwhile() {
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let worker = worker_of(
        &b,
        WorkerConfig {
            client: ClientConfig { deadline: Duration::from_millis(500), ..ClientConfig::default() },
            ..config(&b)
        },
    )
    .await;
    for key in ["kept", "gone"] {
        a.client.set(&name(key), key).await.expect("set");
        found_here(&worker, key).await;
    }
    b.daemon.signal(Signal::STOP);
    // It waits for the lease of the one that is stopped.
    a.client.delete(&[name("gone")]).await.expect("deleted");
    assert!(worker.get_here(b"gone").is_none(), "its lease is over: nobody knows");
    assert!(worker.get_here(b"kept").is_none(), "that is so of all names");
    let e = failed(worker.get(b"gone").await);
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    b.daemon.signal(Signal::CONT);
    b.serving().await;
    until("the name is known to be gone", async || matches!(worker.get(b"gone").await, Ok(None))).await;
    assert_eq!(found_here(&worker, "kept").await, b"kept");
}

#[tokio::test]
async fn a_daemon_that_is_killed_and_started_again_is_read_from_again_and_no_byte_is_wrong() {
    let global = Global::start(&[]);
    let mut b = Local::start_with(&global, &["--socket", "s"]).await;
    let address = Address::Unix(b.folder().join("s"));
    // Where the socket is tells where shared memory is.
    let worker = Worker::connect(&Sys::real(), &address, WorkerConfig::default()).await;
    let SharedMemory::Attached { incarnation: first } = worker.shared_memory() else {
        panic!("{}", worker.shared_memory());
    };
    let values = [("small", noise(1, 90)), ("large", noise(2, 2 << 20))];
    for (key, value) in &values {
        b.client.set(&name(*key), value.clone()).await.expect("set");
        assert_eq!(&found_here(&worker, key).await, value);
    }
    let (done, hits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (worker, values) = (worker.clone(), values.clone());
            let (done, hits) = (done.clone(), hits.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Acquire) {
                    for (key, value) in &values {
                        if let Some(found) = worker.get_here(key.as_bytes()) {
                            assert!(*found == value[..], "`{key}` is what was set");
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let held = worker.get_here(b"large").expect("it is there");
    b.daemon.kill();
    b.again().await;
    for (key, value) in &values {
        assert_eq!(&found_here(&worker, key).await, value);
    }
    until("it reads from the new daemon", async || {
        let _ = worker.get(b"no such key").await;
        matches!(worker.shared_memory(), SharedMemory::Attached { incarnation } if incarnation != first)
    })
    .await;
    for (key, value) in &values {
        assert_eq!(&found_here(&worker, key).await, value);
    }
    assert_eq!(&*held, &values[1].1[..], "who has a value of the one that died keeps it");
    let before = hits.load(Ordering::Relaxed);
    let is_ended = || readers.iter().any(std::thread::JoinHandle::is_finished);
    until("they read on", async || hits.load(Ordering::Relaxed) > before || is_ended()).await;
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().expect("nothing was wrong");
    }
    // The same for who does not wait for futures.
    let all = tokio::task::spawn_blocking(move || {
        let worker = BlockingWorker::connect(&Sys::real(), &address, WorkerConfig::default())?;
        worker.set(b"own", "value")?;
        let many = worker.get_many(&[b"own", b"small"])?;
        let part = worker.get_range(b"own", Slice { offset: 1, len: Some(2) })?;
        let size = worker.stat(b"own")?.map(|stat| stat.entry.size);
        let found = worker.get(b"large")?.is_some_and(|value| value.is_in_place());
        let removed = worker.delete(&[b"own"])?.removed;
        let gone = worker.get(b"own")?.is_none();
        Ok::<_, Error>((many.len(), part.map(|part| part.to_vec()), size, found, removed, gone))
    });
    let all = all.await.expect("no panic").expect("answered");
    assert_eq!(all, (2, Some(b"al".to_vec()), Some(5), true, vec![true], true));
}

/// Tells the process that is made of this test which Local it reads from.
const HOLDER: &str = "DSTORE_TEST_SHM_HOLDER";

#[test]
#[ignore = "the process that the test below kills"]
fn holder() {
    let Ok(folder) = std::env::var(HOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let attach = Attach::At(Path::new(&folder).join("shm.sock"));
        let address = Address::Unix(Path::new(&folder).join("nowhere"));
        let config = WorkerConfig { attach, ..WorkerConfig::default() };
        let worker = Worker::connect(&Sys::real(), &address, config).await;
        let value = worker.get_here(b"held").expect("it is there");
        assert!(value.is_in_place());
        println!("holding {} bytes", value.len());
        std::thread::sleep(Duration::from_secs(600));
    });
}

#[tokio::test]
async fn what_a_killed_worker_held_is_free_again() {
    let global = Global::start(&[]);
    let local = Local::start_with(&global, &["--shm", "shm.sock", "--cache-bytes", "16MiB"]).await;
    let mut worker = Some(worker(&local).await);
    local.client.set(&name("held"), noise(1, 2 << 20)).await.expect("set");
    found_here(worker.as_ref().expect("it is there"), "held").await;
    let workers = async || fact(&local.client.status().await.expect("answered"), "shm_workers");
    assert_eq!(workers().await, 1);
    let mut holders: Vec<Child> = (0..3)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            command.args(["shm::holder", "--exact", "--ignored", "--nocapture"]).env(HOLDER, local.folder());
            let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
            let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            let mut lines = lines.map_while(Result::ok);
            assert!(lines.any(|line| line.contains("holding 2097152 bytes")), "it holds the value");
            child
        })
        .collect();
    assert_eq!(workers().await, 4);
    for holder in &mut holders {
        holder.kill().expect("killed");
        holder.wait().expect("ended");
    }
    until("their pins are gone", async || workers().await == 1).await;
    // A worker that goes in good order is gone too.
    worker.take();
    until("nobody is attached", async || workers().await == 0).await;
    let worker = self::worker(&local).await;
    for n in 0..20 {
        let (key, value) = (format!("k{n}"), noise(100 + n, 2 << 20));
        local.client.set(&name(key.clone()), value.clone()).await.expect("set");
        assert_eq!(found_here(&worker, &key).await, value, "there is room for it");
    }
}

#[tokio::test]
async fn a_worker_gets_its_own_namespace_and_a_replaced_value_is_replaced_for_it() {
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let spec = NamespaceSpec { mode: NamespaceMode::Replace, ..NamespaceSpec::default() };
    let cache = Namespace::new("cache").expect("valid");
    a.client.create_namespace(&cache, spec).await.expect("created");
    let of_cache = worker_of(&b, WorkerConfig { namespace: cache, ..config(&b) }).await;
    let of_default = worker(&b).await;
    a.client.set(&name("k"), "of default").await.expect("set");
    assert_eq!(found_here(&of_default, "k").await, b"of default");
    assert!(of_cache.get_here(b"k").is_none(), "it is not of its namespace");
    assert!(of_cache.get(b"k").await.expect("answered").is_none());
    for round in 0..20_u8 {
        let value = vec![round; if round % 2 == 0 { 50 } else { 9_000 }];
        a.client.set(&of_cache.name(b"k").expect("valid"), value.clone()).await.expect("set");
        let seen = of_cache.get_here(b"k").map(|value| value.to_vec());
        assert!(seen.is_none_or(|seen| seen == value), "what was replaced is gone");
        assert_eq!(found_here(&of_cache, "k").await, value);
    }
    assert_eq!(of_default.get_here(b"k").expect("it is there").to_vec(), b"of default");
    // Several at once, a part of one, and the calls that go over the socket.
    a.client.set(&name("l"), "another").await.expect("set");
    found_here(&of_default, "l").await;
    let both = of_default.get_many(&[b"k", b"l"]).await.expect("answered");
    assert!(both.iter().flatten().all(Shared::is_shared) && both.len() == 2);
    let some = of_default.get_many(&[b"k", b"none"]).await.expect("answered");
    assert_eq!((some[0].as_deref(), some[1].is_none()), (Some(&b"of default"[..]), true));
    let part = of_default.get_range(b"k", Slice { offset: 3, len: Some(4) }).await.expect("answered");
    assert_eq!(&*part.expect("it is bound"), b"defa");
    assert_eq!(of_default.stat(b"l").await.expect("answered").expect("it is bound").entry.size, 7);
    of_default.set(b"own", "value").await.expect("set");
    assert_eq!(&*of_default.get(b"own").await.expect("answered").expect("it is bound"), b"value");
    assert_eq!(of_default.delete(&[b"own"]).await.expect("deleted").removed, [true]);
    assert!(of_default.get(b"own").await.expect("answered").is_none());
}

#[tokio::test]
async fn a_name_whose_time_is_over_is_not_found_any_more() {
    let global = Global::start(&[]);
    let (a, b) = (local(&global).await, local(&global).await);
    let worker = worker(&b).await;
    let attributes = Attributes { ttl: Some(Duration::from_millis(1500)), ..Attributes::default() };
    a.client.set_as(&name("k"), "v", &attributes).await.expect("set");
    // On a machine that is very late it is over already.
    let _ = worker.get(b"k").await;
    let was_here = worker.get_here(b"k").is_some();
    until("it is over", async || a.get("k").await.is_none()).await;
    assert!(worker.get_here(b"k").is_none(), "nobody answers with it (it was here: {was_here})");
    assert!(worker.get(b"k").await.expect("answered").is_none());
}

#[tokio::test]
async fn without_shared_memory_everything_works_over_the_socket_and_says_so() {
    let global = Global::start(&[]);
    let local = Local::start_with(&global, &["--socket", "s", "--shm", "off"]).await;
    assert!(!local.folder().join("s.shm").exists());
    let address = Address::Unix(local.folder().join("s"));
    let worker = Worker::connect(&Sys::real(), &address, WorkerConfig::default()).await;
    let SharedMemory::Detached(why) = worker.shared_memory() else { panic!("{}", worker.shared_memory()) };
    assert!(why.contains("s.shm"), "{why}");
    worker.set(b"k", "v").await.expect("set");
    let value = worker.get(b"k").await.expect("answered").expect("it is bound");
    assert_eq!((&*value, value.is_shared()), (&b"v"[..], false));
    // Over TCP the status would tell where it is.
    let worker = Worker::connect(&Sys::real(), &local.daemon.at, WorkerConfig::default()).await;
    assert_eq!(worker.shared_memory(), SharedMemory::Detached("the node offers none".into()));
    let off = WorkerConfig { attach: Attach::Off, ..WorkerConfig::default() };
    let worker = Worker::connect(&Sys::real(), &address, off).await;
    assert_eq!(worker.shared_memory(), SharedMemory::Off);
    assert!(worker.get(b"k").await.expect("answered").is_some());
}

#[tokio::test]
async fn the_door_answers_every_hello_with_what_is_the_matter_and_goes_on() {
    let global = Global::start(&[]);
    let local = local(&global).await;
    let path = local.folder().join("shm.sock");
    let now = || Sys::real().clock.now();
    let hello = |layout, now| Hello { layout, now, namespace: Namespace::default() }.encode();
    let say = |frame: [u8; 96]| {
        let mut socket = LocalSocket::connect(&path, SOON).expect("it listens");
        let mut answer = [0; WELCOME_BYTES];
        socket.ask(&frame, &mut answer).expect("it answers");
        let welcome = Welcome::decode(&answer).expect("a welcome");
        if welcome.verdict != Verdict::Attached {
            assert!(!welcome.text.is_empty());
            until_ended(&socket);
        }
        (welcome.verdict, welcome.text)
    };
    let layout = dstore_arena::layout::VERSION;
    let (verdict, text) = say(hello(layout + 1, now()));
    assert_eq!(verdict, Verdict::Layout);
    assert!(text.contains("update the older of the two"), "{text}");
    assert_eq!(say([7; 96]).0, Verdict::Version);
    let mut newer = hello(layout, now());
    newer[8] = 9;
    assert!(say(newer).1.contains("version `9`"));
    let mut nowhere = hello(layout, now());
    nowhere[32] = b'/';
    assert_eq!(say(nowhere).0, Verdict::Namespace);
    for other in [Moment::ZERO, now() + Duration::from_secs(3600)] {
        let (verdict, text) = say(hello(layout, other));
        assert!(verdict == Verdict::Clock && text.contains("time namespaces"), "{text}");
    }
    // Who says nothing keeps nobody waiting, and who goes in the middle of a word is forgotten.
    let _silent = LocalSocket::connect(&path, SOON).expect("it listens");
    drop(LocalSocket::connect(&path, SOON).expect("it listens").ask(&[1], &mut []));
    assert_eq!(say(hello(layout, now())).0, Verdict::Attached);
    let mut rude = LocalSocket::connect(&path, SOON).expect("it listens");
    rude.ask(&hello(layout, now()), &mut [0; WELCOME_BYTES]).expect("attached");
    rude.ask(&[9; 8], &mut []).expect("said");
    worker(&local).await;
}

/// Waits until the other side has closed.
fn until_ended(socket: &LocalSocket) {
    let started = std::time::Instant::now();
    while !socket.has_ended() {
        assert!(started.elapsed() < SOON, "it is sent away");
        std::thread::sleep(Duration::from_millis(1));
    }
}
