//! The auditor, beside a Local that is right and one that is not.

use super::rig::{delete, global, global_at, machine, set, value};
use dstore_local::{Local, LocalConfig};
use dstore_shared::figures::Reading;
use dstore_shared::planted::{Mistake, make};
use std::time::{Duration, Instant};

/// Long enough for a machine that does other things too.
const LEASE: Duration = Duration::from_secs(2);
/// For what must come there.
const SOON: Duration = Duration::from_secs(90);

async fn start(sys: &dstore_sys::Sys) -> Local {
    let config = LocalConfig { audits_a_minute: 6_000, ..LocalConfig::new(global_at()) };
    let local = Local::start(sys.clone(), config).await.expect("local starts");
    local.ready(SOON).await.expect("a session");
    local
}

fn count(local: &Local, name: &str) -> u64 {
    let (_, figures) = local.reporter().report().expect("it runs");
    match figures.iter().find(|figure| figure.name == name).expect("told").reading {
        Reading::Counter(count) => count,
        ref other => panic!("{other:?}"),
    }
}

/// Reads until a count is reached.
async fn reads_until(local: &Local, key: &str, name: &str, wanted: u64) {
    let since = Instant::now();
    while count(local, name) < wanted {
        assert!(since.elapsed() < SOON, "{name} is {}", count(local, name));
        let _ = value(local, key).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One thread, on which the mistake is made.
#[tokio::test(flavor = "current_thread")]
async fn an_audit_finds_a_local_that_goes_on_serving_what_was_deleted() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (keeper, other) = (start(&sys).await, start(&sys).await);
    set(&other, "k", "old").await.expect("set");
    assert_eq!(value(&keeper, "k").await, Some(b"old".to_vec()));
    reads_until(&keeper, "k", "dstore_local_audits_total", 3).await;
    assert_eq!(count(&keeper, "dstore_local_audits_suspect_total"), 0);

    make(Some(Mistake::KeepsInvalidated));
    assert_eq!(delete(&other, &["k"]).await.expect("deleted"), [true]);
    reads_until(&keeper, "k", "dstore_local_stale_serves_total", 1).await;
    make(None);
    assert!(count(&keeper, "dstore_local_audits_suspect_total") >= 1);
    assert_eq!(count(&other, "dstore_local_stale_serves_total"), 0);
    keeper.stop().await;
    other.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audits_of_a_local_whose_names_others_change_all_the_time_find_nothing() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (reader, writer) = (start(&sys).await, start(&sys).await);
    let since = Instant::now();
    let mut round = 0_u64;
    while count(&reader, "dstore_local_audits_total") < 10 {
        assert!(since.elapsed() < SOON, "nothing is audited");
        set(&writer, "k", round.to_le_bytes().to_vec()).await.expect("set");
        for _ in 0..5 {
            assert_eq!(value(&reader, "k").await, Some(round.to_le_bytes().to_vec()));
        }
        delete(&writer, &["k"]).await.expect("deleted");
        round += 1;
    }
    for name in ["dstore_local_audits_suspect_total", "dstore_local_stale_serves_total"] {
        assert_eq!(count(&reader, name), 0, "{name}");
    }
    reader.stop().await;
    writer.stop().await;
    global.stop().await.expect("a clean stop");
}
