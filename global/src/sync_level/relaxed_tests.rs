//! What the level `relaxed` may lose, what it must not, and that whoever saw what is lost is told.

use super::SyncLevel;
use super::tests::{at_once, delete, end, is_bound, set, start, sys};
use crate::authority::Responder;
use crate::inspect::{InspectConfig, inspect};
use crate::{EngineKind, Global, GlobalConfig};
use dstore_proto::store::{Body, Store};
use dstore_proto::watch::WatchQuery;
use dstore_shared::{Kind, Namespace, Revision};
use dstore_sys::clock::{BootClock, Clock};
use dstore_sys::disk::{Call, Disk, Fault, SimDisk, Survival};
use dstore_sys::rng::{Rng, SeededRng};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

const SPAN: Duration = Duration::from_millis(100);
const LEVEL: SyncLevel = SyncLevel::Relaxed(SPAN);
/// Nothing is synced by time within a test.
const LAZY: SyncLevel = SyncLevel::Relaxed(SyncLevel::RELAXED_MAX);
/// What a commit takes in simulation, and the timer's grain.
const EPSILON: Duration = Duration::from_millis(10);
const NAMES: usize = 64;

/// Simulated time.
#[expect(clippy::disallowed_methods, reason = "the timer under test sleeps in it")]
fn now() -> Instant {
    Instant::now()
}

/// What was acknowledged when.
struct Acknowledged {
    op: usize,
    at: Instant,
    revision: Revision,
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_level_relaxed_takes_a_suffix_of_the_last_moments_and_nothing_else() {
    let (mut images, mut losses, mut whole) = (0, 0, 0);
    for seed in 0..3 {
        let disk = SimDisk::new();
        let rng = SeededRng::new(seed);
        let global = start(&disk, LEVEL, seed).await;
        let history = global.authority().born().history;
        disk.record(256 << 20);
        // What is bound after each revision.
        let mut states = vec![[false; NAMES]];
        let mut acknowledged = vec![Acknowledged { op: 0, at: now(), revision: Revision(0) }];
        let mut checkpoints = vec![(0, Revision(0))];
        while states.len() <= 48 {
            let mut commands = Vec::new();
            for _ in 0..=rng.next_u64() % 3 {
                let made = states.len() - 1;
                let mut state = states[made];
                if made % 5 == 4 && state[made - 2] {
                    state[made - 2] = false;
                    commands.push(delete(made - 2));
                } else {
                    state[made] = true;
                    commands.push(set(made));
                }
                states.push(state);
            }
            let answers = at_once(global.authority(), commands).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            let revision = global.authority().catalog.head();
            assert_eq!(revision.0 as usize, states.len() - 1, "each change has an effect");
            acknowledged.push(Acknowledged { op: disk.op_count(), at: now(), revision });
            if rng.next_u64().is_multiple_of(8) {
                let covered = global.authority().checkpoint().await.expect("written");
                checkpoints.push((disk.op_count(), covered));
            }
            tokio::time::sleep(Duration::from_millis(rng.next_u64() % 40)).await;
        }
        let moments = disk.moments();
        for op in moments {
            let made = acknowledged.iter().rposition(|a| a.op <= op).unwrap();
            let last = &acknowledged[made];
            let due = acknowledged.iter().rev().find(|a| a.at + SPAN + EPSILON <= last.at);
            let due = due.map_or(Revision(0), |a| a.revision);
            let covered = checkpoints.iter().rev().find(|(at, _)| *at <= op).unwrap().1;
            for survival in [Survival::Any, Survival::Nothing] {
                let image = disk.crash_at(op, survival, op as u64);
                // Whoever comes next may be strict.
                let level = if op % 2 == 0 { LEVEL } else { SyncLevel::Group };
                let again = start(&image, level, op as u64).await;
                let head = again.authority().catalog.head();
                let context = format!("seed {seed}, change {op}, {head} after {due} of {}", last.revision);
                assert!(head >= due && head >= covered, "{context}: what was durable is lost");
                for (i, bound) in states[head.0 as usize].iter().enumerate() {
                    assert_eq!(is_bound(&again, i), *bound, "{context}: name {i} is of no prefix");
                }
                assert_ne!(
                    again.authority().born().history,
                    history,
                    "{context}: a revision may be given again"
                );
                images += 1;
                losses += usize::from(head < last.revision);
                whole += usize::from(head >= last.revision);
                end(again).await;
            }
        }
        global.stop().await.expect("a clean stop");
    }
    assert!(images > 200 && losses > 100 && whole > 100, "{images} {losses} {whole}");
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_at_level_relaxed_is_durable_when_its_span_has_passed() {
    let disk = SimDisk::new();
    let global = start(&disk, LEVEL, 1).await;
    let answers = at_once(global.authority(), vec![set(1)]).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    let early = disk.crash(Survival::Nothing, 1);
    tokio::time::sleep(SPAN).await;
    let late = disk.crash(Survival::Nothing, 1);
    for (image, kept) in [(early, false), (late, true)] {
        let again = start(&image, SyncLevel::Group, 2).await;
        assert_eq!(is_bound(&again, 1), kept);
        end(again).await;
    }
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn who_saw_what_a_crash_took_is_told_of_another_history() {
    let disk = SimDisk::new();
    let global = start(&disk, LAZY, 1).await;
    let authority = global.authority();
    let history = authority.born().history;
    let id = authority.next_id();
    let (to, answer) = oneshot::channel();
    authority.submit(id, set(1), None, Responder::Call(to, None));
    answer.await.unwrap().expect("acknowledged");
    let seen = authority.catalog.head();
    assert_eq!(seen, Revision(1));
    let image = disk.crash(Survival::Nothing, 1);
    let again = start(&image, LAZY, 2).await;
    assert!(!is_bound(&again, 1) && again.authority().catalog.head() == Revision(0), "it is lost");
    let grace = again.authority().event(|m, now| m.grace_left(now));
    assert!(grace > Duration::ZERO, "a Local may hold what is lost");
    // The watcher.
    let query = WatchQuery {
        namespace: Namespace::default(),
        prefix: bytes::Bytes::new(),
        after: Some(seen),
        history: Some(history),
    };
    let Err(e) = again.store().watch(query).await else { panic!("it goes on") };
    assert_eq!(e.kind(), Kind::TooOld, "{e}");
    // The request.
    let (to, answer) = oneshot::channel();
    again.authority().submit(id, set(1), None, Responder::Call(to, None));
    let e = answer.await.unwrap().expect_err("nobody knows");
    assert!(e.kind() == Kind::Closed && e.message().contains("outcome unknown"), "{e}");
    // And a change of the name waits for whoever may hold it under a lease.
    let begun = BootClock.now();
    let answers = at_once(again.authority(), vec![set(1)]).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    assert!(BootClock.now().since(begun) >= grace / 2, "it overtook a lease");
    end(again).await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_order_at_level_relaxed_loses_nothing_and_keeps_the_history() {
    let disk = SimDisk::new();
    let global = start(&disk, LAZY, 1).await;
    let history = global.authority().born().history;
    let answers = at_once(global.authority(), (0..9).map(set).collect()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    global.stop().await.expect("a clean stop");
    for level in [LAZY, SyncLevel::Group, SyncLevel::Always] {
        let image = disk.crash(Survival::Nothing, 1);
        let again = start(&image, level, 2).await;
        assert!((0..9).all(|i| is_bound(&again, i)), "{level}");
        assert_eq!(again.authority().born().history, history, "{level}");
        assert_eq!(again.authority().event(|m, now| m.grace_left(now)), Duration::ZERO, "{level}");
        again.stop().await.expect("a clean stop");
    }
}

#[tokio::test(start_paused = true)]
async fn group_after_relaxed_is_strict_again_and_keeps_its_history_over_a_crash() {
    let disk = SimDisk::new();
    let global = start(&disk, LEVEL, 1).await;
    at_once(global.authority(), vec![set(1)]).await;
    let image = disk.crash(Survival::Nothing, 1);
    let strict = start(&image, SyncLevel::Group, 2).await;
    let history = strict.authority().born().history;
    let answers = at_once(strict.authority(), vec![set(2)]).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    let image = image.crash(Survival::Nothing, 1);
    let again = start(&image, SyncLevel::Group, 3).await;
    assert!(is_bound(&again, 2), "it was acknowledged");
    assert_eq!(again.authority().born().history, history);
    // Over checkpoints of both histories.
    again.authority().checkpoint().await.expect("written");
    end(again).await;
    let image = image.crash(Survival::Nothing, 1);
    let last = start(&image, SyncLevel::Group, 4).await;
    assert!(is_bound(&last, 2) && last.authority().born().history == history);
    end(last).await;
    end(strict).await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_at_level_relaxed_ends_the_store() {
    let disk = SimDisk::new();
    let global = start(&disk, LEVEL, 3).await;
    disk.inject(Fault::next(Call::Sync).at("/data/journal/"));
    let answers = at_once(global.authority(), vec![set(1)]).await;
    assert!(answers[0].is_ok(), "acknowledged before the sync: {answers:?}");
    tokio::time::sleep(2 * SPAN).await;
    let e = global.authority().failed().expect("the store has failed");
    assert!(e.message().contains("from revision `1` on may be lost"), "{e}");
    let later = at_once(global.authority(), vec![set(2)]).await;
    assert!(later[0].is_err(), "{later:?}");
    let image = disk.crash(Survival::Nothing, 1);
    global.stop().await.expect_err("the store has failed");
    let again = start(&image, LEVEL, 4).await;
    assert!(!is_bound(&again, 1));
    end(again).await;
}

#[tokio::test(start_paused = true)]
async fn the_file_of_a_swept_blob_goes_only_after_its_sweep_is_durable() {
    let disk = SimDisk::new();
    let config = || GlobalConfig {
        engine: EngineKind::Memory,
        sync: LAZY,
        min_free: 0,
        sweep_grace: Duration::ZERO,
        ..GlobalConfig::new("/data")
    };
    let global = Global::start(sys(&disk, 1), config()).await.expect("started");
    let body = Body::Bytes(vec![7; 70_000].into()).into_stream();
    let authority = global.authority().clone();
    let (hash, _) = authority.take_blob(None, body).await.expect("kept");
    authority.sync_all().await.expect("known for good");
    let text = hash.to_string();
    let path = PathBuf::from("/data/blobs").join(&text[..2]).join(&text[2..]);
    for _ in 0..5_000 {
        if !disk.exists(&path).expect("looked") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!disk.exists(&path).expect("looked"), "swept");
    let image = disk.crash(Survival::Nothing, 1);
    let again = Global::start(sys(&image, 2), config()).await.expect("started");
    let known = again.authority().catalog.blob(&hash).expect("looked").is_some();
    assert!(!known, "the journal knows a blob whose file is gone");
    end(again).await;
    drop(authority);
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn check_explains_a_directory_that_lost_what_was_not_synced() {
    let disk = SimDisk::new();
    let global = start(&disk, LAZY, 1).await;
    for i in 0..9 {
        at_once(global.authority(), vec![set(i)]).await;
    }
    let config = InspectConfig { data: "/data".into(), temp: std::env::temp_dir(), deep: false, min_free: 0 };
    let mut holes = 0;
    for seed in 0..20 {
        let image = disk.crash(Survival::Writes, seed);
        let report = inspect(&sys(&image, 2), &config).expect("looked");
        assert!(report.faults.is_empty(), "seed {seed}: {:?}", report.faults);
        let about = |note: &&String| note.contains("--sync relaxed") && note.contains("new history");
        assert_eq!(report.notes.iter().filter(about).count(), 1, "seed {seed}: {:?}", report.notes);
        assert!(!report.notes.iter().any(|note| note.contains("the index has what they held")));
        assert!(!report.mends.iter().any(|mend| mend.contains("never acknowledged")), "seed {seed}");
        holes +=
            report.mends.iter().filter(|mend| mend.contains("is cut with it; it was not durable")).count();
    }
    assert!(holes > 3, "{holes}");
    global.stop().await.expect("a clean stop");
    let report = inspect(&sys(&disk, 2), &config).expect("looked");
    assert!(report.faults.is_empty() && !report.notes.iter().any(|note| note.contains("relaxed")));
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_level_relaxed_may_lose() {
    let disk = SimDisk::new();
    let global = start(&disk, LEVEL, 1).await;
    let status = global.store().status().await.unwrap();
    let told = "relaxed: up to 100 ms of changes may be lost by a crash".to_owned();
    assert!(status.facts.contains(&("sync".into(), told)), "{:?}", status.facts);
    global.stop().await.expect("a clean stop");
}
