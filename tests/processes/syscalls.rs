//! A disk that fails under a real Global: `strace` lets its system calls fail from some moment on.
//!
//! Needs `strace` and the right to trace; where that is missing the tests say so and look at nothing. Which calls of
//! which file fail on a simulated disk is in `global/src/journal/tests/faults.rs` and `global/src/blobs/tests/faults.rs`.

use crate::rig::{Global, client_with, name, noise, until};
use dstore_shared::{BlobHash, Error, Kind};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WRITERS: u64 = 4;
/// For what must come on a machine that does other things too, under `strace`.
const SOON: Duration = Duration::from_secs(40);

/// `strace` at work on a process; it lets go when dropped.
struct Tracer(Child);

impl Tracer {
    /// From now on the calls `inject` names fail; `None` if nothing can be traced here.
    fn attach(pid: u32, inject: &str) -> Option<Self> {
        let call = inject.split(':').next().expect("there is always one");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={inject}"), "-p", &pid.to_string()]);
        let mut child = match strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        {
            Ok(child) => child,
            Err(e) => {
                eprintln!("SKIPPED: no strace: {e}");
                return None;
            }
        };
        let mut told = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let first = told.next().unwrap_or_default();
        // It may have more to say, which must not fill the pipe.
        std::thread::spawn(move || told.for_each(drop));
        if first.contains("attached") {
            return Some(Self(child));
        }
        eprintln!("SKIPPED: strace cannot trace here: {first}");
        let _ = (child.kill(), child.wait());
        None
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// What a writer knows of its keys: acknowledged before the disk failed, and begun after it.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeMap<String, BlobHash>,
    in_doubt: BTreeMap<String, BlobHash>,
    /// Acknowledged though they were begun when every such call failed already.
    wrong: Vec<String>,
    refusals: Vec<Error>,
}

/// Sets until Global has gone.
async fn write(global: &Global, me: u64, len: usize, sick: &AtomicBool) -> Ledger {
    let client = client_with(&global.daemon.at, Duration::from_secs(2));
    let mut ledger = Ledger::default();
    for n in 0_u64.. {
        let (key, value) = (format!("w{me}-{n}"), noise(me << 32 | n, len));
        let hash = BlobHash::of(&value);
        let begun_after = sick.load(Ordering::SeqCst);
        match client.set(&name(&*key), value).await {
            Ok(_) if begun_after => ledger.wrong.push(key),
            Ok(_) => _ = ledger.acknowledged.insert(key, hash),
            Err(e) => {
                ledger.in_doubt.insert(key, hash);
                ledger.refusals.push(e);
                if ledger.refusals.len() > 20 {
                    return ledger;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    ledger
}

/// Lets `inject` fail under a Global that values of `len` bytes are set at.
async fn fails(inject: &str, len: usize) {
    let mut global = Global::start(&["--lease", "200ms", "--drain-timeout", "700ms"]);
    let sick = Arc::new(AtomicBool::new(false));
    let set_before = |client: dstore_client::Client| async move {
        client.set(&name("before"), noise(7, len)).await.expect("a sound disk");
    };
    set_before(global.client()).await;
    let writing = (0..WRITERS).map(|me| write(&global, me, len, &sick));
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let tracer = Tracer::attach(global.daemon.id(), inject);
        // What is begun from here on meets calls that fail.
        sick.store(tracer.is_some(), Ordering::SeqCst);
        if tracer.is_none() {
            global.daemon.signal(rustix::process::Signal::KILL);
        }
        tracer
    };
    let (tracer, ledgers) = tokio::join!(breaking, futures_util::future::join_all(writing));
    if tracer.is_none() {
        return;
    }
    let wrong: Vec<_> = ledgers.iter().flat_map(|ledger| &ledger.wrong).collect();
    assert!(wrong.is_empty(), "{inject}: acknowledged after the disk had failed: {wrong:?}");
    for e in ledgers.iter().flat_map(|ledger| &ledger.refusals) {
        let kinds = [Kind::Unavailable, Kind::Closed, Kind::Exhausted];
        assert!(kinds.contains(&e.kind()), "{inject}: {e:?}");
    }
    // It says so, and ends by itself.
    let mut status = None;
    let began = std::time::Instant::now();
    while status.is_none() && began.elapsed() < SOON {
        status = global.daemon.ended();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(tracer);
    let status = status.unwrap_or_else(|| panic!("{inject}: it goes on: {:#?}", global.daemon.err()));
    assert_eq!(status.code(), Some(70), "{inject}: {:#?}", global.daemon.err());
    let said = "the disk failed, nothing can be stored";
    until("it says so", async || global.daemon.err().iter().any(|line| line.contains(said))).await;
    // On a sound disk all is there that was acknowledged, and what was in doubt is there or not.
    global.again();
    let client = global.client();
    let (mut kept, mut came) = (0, 0);
    for ledger in &ledgers {
        for (key, hash) in &ledger.acknowledged {
            let found = client.get(&name(&**key)).await.expect("answered").map(|value| value.entry.hash);
            assert_eq!(found, Some(*hash), "{inject}: `{key}` was acknowledged");
            kept += 1;
        }
        for (key, hash) in &ledger.in_doubt {
            let found = client.get(&name(&**key)).await.expect("answered").map(|value| value.entry.hash);
            assert!(found.is_none() || found == Some(*hash), "{inject}: `{key}` is {found:?}");
            came += usize::from(found.is_some());
        }
    }
    eprintln!("{inject}, {len} bytes: {kept} acknowledged and there, {came} there of those in doubt");
    assert!(kept > 0, "{inject}: nothing was acknowledged before");
    set_before(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_fsync_nothing_is_acknowledged_and_global_says_so_and_ends() {
    fails("fdatasync:error=EIO", 100).await;
    // The commit after next: some are acknowledged meanwhile.
    fails("fdatasync:error=ENOSPC", 30_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_fsync_of_a_directory_nothing_is_acknowledged_and_global_says_so_and_ends() {
    fails("fsync:error=EIO", 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_write_of_the_journal_nothing_is_acknowledged_and_global_says_so_and_ends() {
    fails("pwrite64:error=EIO", 100).await;
}
