//! What the levels have in common over crashes and failed syncs, and what tells them apart in the journal.

use super::SyncLevel;
use crate::authority::{Authority, Responder};
use crate::journal::{Floors, Journal, JournalConfig};
use crate::sessions::Answered;
use crate::{EngineKind, Global, GlobalConfig};
use dstore_proto::store::Store;
use dstore_shared::{Blob, Command, Kind, Name, Result};
use dstore_sys::Sys;
use dstore_sys::disk::{Call, Fault, SimDisk, Survival};
use dstore_sys::rng::SeededRng;
use dstore_sys::tasks::Blocking;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) fn sys(disk: &SimDisk, seed: u64) -> Sys {
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let (disk, rng) = (Arc::new(disk.clone()), Arc::new(SeededRng::new(seed)));
    Sys { blocking, disk, rng, ..Sys::real() }
}

pub(super) async fn start(disk: &SimDisk, sync: SyncLevel, seed: u64) -> Global {
    let config = GlobalConfig { engine: EngineKind::Memory, sync, min_free: 0, ..GlobalConfig::new("/data") };
    let global = Global::start(sys(disk, seed), config).await.expect("started");
    // The journal's spare segments are made meanwhile: from here on only changes touch the disk.
    tokio::time::sleep(Duration::from_secs(1)).await;
    global
}

/// Ends what began after a crash: not cleanly, because leases of the life before may be outstanding.
pub(super) async fn end(global: Global) {
    let _ = global.stop().await;
}

/// The first and last revision of each batch of the journal that a crash now would leave.
pub(crate) fn batches(disk: &SimDisk) -> Vec<(u64, u64)> {
    let image = disk.crash(Survival::Nothing, 1);
    let config = JournalConfig { min_free_bytes: 0, ..JournalConfig::new("/data/journal") };
    let mut batches = Vec::new();
    let replay = |batch: crate::journal::Batch| {
        batches.push((batch.first.0, batch.last.0));
        Ok(())
    };
    Journal::open(&sys(&image, 1), &config, &Floors::default(), replay).expect("whole");
    batches
}

pub(super) fn name(i: usize) -> Name {
    Name::of(format!("k{i}")).unwrap()
}

pub(super) fn set(i: usize) -> Command {
    let blob = Blob::hash(format!("value {i}"));
    Command::Set {
        name: name(i),
        hash: blob.id(),
        size: blob.size(),
        carried: Some(blob),
        attributes: dstore_shared::Attributes::default(),
    }
}

pub(super) fn delete(i: usize) -> Command {
    Command::Delete { names: vec![name(i)], mode: dstore_shared::DeleteMode::Strict }
}

/// Asks for all before any is answered, so that they can gather.
pub(super) async fn at_once(authority: &Authority, commands: Vec<Command>) -> Vec<Result<Answered>> {
    let ask = |command| {
        let (to, answer) = oneshot::channel();
        authority.submit(authority.next_id(), command, None, Responder::Call(to, None));
        answer
    };
    let asked: Vec<_> = commands.into_iter().map(ask).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.expect("answered"));
    }
    answers
}

pub(super) fn is_bound(global: &Global, i: usize) -> bool {
    global.authority().look(&name(i)).expect("the index is sound").0.is_some()
}

#[test]
fn a_level_is_read_as_it_is_written() {
    for level in SyncLevel::DURABLE {
        assert_eq!(level.to_string().parse::<SyncLevel>().unwrap(), level);
    }
    assert_eq!(SyncLevel::default(), SyncLevel::Group);
    let relaxed = |ms| SyncLevel::Relaxed(Duration::from_millis(ms));
    for (text, ms) in [("relaxed", 100), ("relaxed=50ms", 50), ("relaxed=10ms", 10), ("relaxed=10s", 10_000)]
    {
        assert_eq!(text.parse::<SyncLevel>().expect(text), relaxed(ms));
        assert_eq!(relaxed(ms).to_string().parse::<SyncLevel>().unwrap(), relaxed(ms));
    }
    for wrong in ["", "Group", "relaxed=", "relaxed=ms", "relaxed=-5ms", "relaxed=50", "relaxed=1m", "none"] {
        let e = wrong.parse::<SyncLevel>().expect_err(wrong);
        assert!(e.kind() == Kind::Invalid && e.message().contains("use group, always or"), "{e}");
    }
    for wrong in ["relaxed=9ms", "relaxed=11s", "relaxed=0ms", "relaxed=99999999999999999999s"] {
        let e = wrong.parse::<SyncLevel>().expect_err(wrong);
        assert!(e.kind() == Kind::Invalid && e.message().contains("write 10ms to 10s"), "{e}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_gather_share_a_batch_and_at_always_each_has_its_own() {
    for level in SyncLevel::DURABLE {
        let disk = SimDisk::new();
        let global = start(&disk, level, 1).await;
        // The last two write nothing: they must not cost a batch, nor be forgotten.
        let mut commands: Vec<Command> = (0..50).map(set).collect();
        commands.extend([delete(100), delete(101)]);
        let answers = at_once(global.authority(), commands).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let batches = batches(&disk);
        assert_eq!(batches.last().map(|(_, last)| *last), Some(50), "{level}");
        match level {
            SyncLevel::Group => assert!(batches.len() < 5, "{batches:?}"),
            _ => assert_eq!(batches, (1..=50).map(|r| (r, r)).collect::<Vec<_>>()),
        }
        let status = global.store().status().await.unwrap();
        assert!(status.facts.contains(&("sync".into(), level.to_string())), "{:?}", status.facts);
        global.stop().await.expect("a clean stop");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_a_crash_at_any_moment_at_every_level() {
    const AT_ONCE: usize = 4;
    const ROUNDS: usize = 8;
    let mut images = 0;
    for level in SyncLevel::DURABLE {
        let disk = SimDisk::new();
        let global = start(&disk, level, 7).await;
        disk.record(64 << 20);
        let mut bound = [false; AT_ONCE * ROUNDS];
        let mut promises = vec![(disk.op_count(), bound)];
        for round in 0..ROUNDS {
            let news = round * AT_ONCE..(round + 1) * AT_ONCE;
            let mut commands: Vec<Command> = news.clone().map(set).collect();
            bound[news].fill(true);
            if round > 0 {
                let gone = (round - 1) * AT_ONCE + 1;
                commands.push(delete(gone));
                bound[gone] = false;
            }
            let answers = at_once(global.authority(), commands).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            promises.push((disk.op_count(), bound));
        }
        for op in disk.moments() {
            let seed = op as u64;
            let image = disk.crash_at(op, Survival::Any, seed);
            let made = promises.iter().filter(|(at, _)| *at <= op).count();
            let (promised, next) = (&promises[made - 1].1, &promises[made.min(ROUNDS)].1);
            let again = start(&image, level, seed).await;
            for i in 0..bound.len() {
                let found = is_bound(&again, i);
                // What was asked for and not acknowledged may be there or not.
                assert!(found == promised[i] || found == next[i], "{level}, change {op}, name {i}: {found}");
            }
            images += 1;
            end(again).await;
        }
        global.stop().await.expect("a clean stop");
    }
    assert!(images > 50, "{images}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_fsync_puts_in_doubt_what_shares_its_batch_and_acknowledges_nothing_after() {
    for level in SyncLevel::DURABLE {
        let disk = SimDisk::new();
        let global = start(&disk, level, 3).await;
        let before = match level {
            SyncLevel::Group => 0,
            _ => 3,
        };
        disk.inject(Fault::next(Call::Sync).at("/data/journal/").after(before));
        let answers = at_once(global.authority(), (0..6).map(set).collect()).await;
        let image = disk.crash(Survival::Nothing, 5);
        for (i, answer) in answers.iter().enumerate() {
            let in_doubt = match level {
                SyncLevel::Group => true,
                _ => i == before,
            };
            match answer {
                Ok(_) => assert!(i < before, "{level}: {i} was acknowledged"),
                Err(e) => {
                    assert!(i >= before && e.kind() == Kind::Unavailable, "{level}: {i} {e}");
                    assert_eq!(e.message().contains("outcome unknown"), in_doubt, "{level}: {i} {e}");
                }
            }
            assert_eq!(is_bound(&global, i), i < before, "{level}: what is not durable is not readable");
        }
        let later = at_once(global.authority(), vec![set(9)]).await;
        assert!(later[0].is_err(), "{level}: the journal is poisoned");
        global.stop().await.expect_err("the store has failed");
        let again = start(&image, level, 4).await;
        for i in 0..6 {
            assert_eq!(is_bound(&again, i), i < before, "{level}: {i}");
        }
        end(again).await;
    }
}
