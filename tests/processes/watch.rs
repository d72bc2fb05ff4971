//! Watchers that are cut off, killed and resumed in a storm of changes, while Global restarts: each sees every change
//! of its names once, as the writers were told it.

use crate::rig::{Global, Local, client_with, dstore, name, noise, until};
use crate::wire::{Flow, Wire};
use dstore_client::{Client, Event, Happened, WatchQuery};
use dstore_shared::{BlobHash, Kind, Namespace, Revision, SetOutcome};
use dstore_sys::rng::{OsRng, Rng, SeededRng};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const WRITERS: usize = 4;
/// Longer than Global is ever away.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often each watcher is cut off or killed.
const CUTS: u64 = 100;
/// Names of the largest DELs: their events do not fit one message.
const MANY: usize = 1500;

/// A change of one name: what it is bound to now.
type Change = (u64, String, Option<BlobHash>);

/// What the writers were told.
#[derive(Default)]
struct Told {
    changes: BTreeSet<Change>,
    /// Keys of changes whose outcome is unknown.
    unknown: BTreeSet<String>,
}

fn change_of(event: &Event) -> Change {
    let key = String::from_utf8(event.key.as_bytes().to_vec()).expect("ours are text");
    let hash = match &event.happened {
        Happened::Bound(entry) => Some(entry.hash),
        Happened::Unbound(_) => None,
    };
    (event.revision.0, key, hash)
}

/// When writers stop, and what they have done.
#[derive(Default)]
struct Storm {
    stop: AtomicBool,
    made: AtomicU64,
}

/// Sets some names, deletes them together, and so on, until `stop`.
async fn write(me: usize, client: Client, rng: SeededRng, storm: Arc<Storm>) -> Told {
    let mut told = Told::default();
    for round in 0.. {
        if storm.stop.load(Ordering::SeqCst) {
            break;
        }
        let many = if me == 0 && round % 8 == 0 { MANY } else { 1 + (rng.next_u64() % 6) as usize };
        let keys: Vec<String> = (0..many).map(|i| format!("w/{me}/{round}/{i}")).collect();
        // Not watched; what becomes of it does not matter.
        let _ = client.set(&name(format!("elsewhere/{me}/{round}")), "x").await;
        let (rng, client) = (&rng, &client);
        let sets = keys.into_iter().map(|key| async move {
            let value = noise(rng.next_u64(), 40);
            (key.clone(), BlobHash::of(&value), client.set(&name(key), value).await)
        });
        let mut sets =
            futures_util::stream::StreamExt::buffer_unordered(futures_util::stream::iter(sets), 64);
        let mut bound = Vec::new();
        while let Some((key, hash, reply)) = futures_util::StreamExt::next(&mut sets).await {
            match reply.map(|reply| reply.outcome) {
                Ok(SetOutcome::Stored(entry)) => {
                    told.changes.insert((entry.bind_rev.0, key.clone(), Some(hash)));
                    bound.push(key);
                }
                Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Closed) => {
                    _ = told.unknown.insert(key);
                }
                other => panic!("SET of the free `{key}` came to {other:?}"),
            }
        }
        let names: Vec<_> = bound.iter().cloned().map(name).collect();
        if names.is_empty() {
            continue;
        }
        match client.delete(&names).await {
            Ok(reply) => {
                assert!(reply.removed.iter().all(|removed| *removed));
                storm.made.fetch_add(2 * bound.len() as u64, Ordering::SeqCst);
                told.changes.extend(bound.into_iter().map(|key| (reply.revision.0, key, None)));
            }
            Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Closed) => told.unknown.extend(bound),
            Err(e) => panic!("DEL came to {e:?}"),
        }
    }
    told
}

fn query(after: u64) -> WatchQuery {
    let (namespace, prefix) = (Namespace::default(), "w/".into());
    WatchQuery { namespace, prefix, after: Some(Revision(after)), history: None }
}

/// Where the storm ends; 0 while it goes on.
type End = Arc<AtomicU64>;

fn is_over(end: &End, through: u64) -> bool {
    let end = end.load(Ordering::SeqCst);
    end > 0 && through >= end
}

/// One watch over all of it, whose connection is cut again and again.
async fn cut_off(at: dstore_client::Address, end: End, rng: SeededRng) -> (Vec<Change>, u64) {
    let wire = Wire::to(&at).await;
    let mut watch = client_with(&wire.at, DEADLINE).watch(query(0));
    let (mut seen, mut cuts) = (Vec::new(), 0);
    let mut next_cut = tokio::time::Instant::now();
    loop {
        let more = watch.next().await.expect("it resumes");
        seen.extend(more.events.iter().map(change_of));
        if cuts >= CUTS && is_over(&end, more.through.0) {
            return (seen, cuts);
        }
        if cuts < CUTS && tokio::time::Instant::now() >= next_cut {
            cuts += 1;
            wire.set(Flow::Cut);
            tokio::time::sleep(Duration::from_millis(2)).await;
            wire.set(Flow::Through);
            next_cut += Duration::from_millis(10 + rng.next_u64() % 50);
        }
    }
}

/// A watcher that dies at any moment, and another that goes on from what it had done.
async fn dropped(at: dstore_client::Address, end: End, rng: SeededRng) -> (Vec<Change>, u64) {
    let (mut seen, mut through, mut deaths) = (BTreeMap::<u64, Vec<Change>>::new(), 0, 0);
    loop {
        // What was seen of a revision that was not whole is forgotten with whoever saw it.
        seen.retain(|revision, _| *revision <= through);
        let mut watch = client_with(&at, DEADLINE).watch(query(through));
        let life = Duration::from_millis(5 + rng.next_u64() % 80);
        let dies = tokio::time::sleep(life);
        let mut dies = std::pin::pin!(dies);
        loop {
            let more = tokio::select! {
                more = watch.next() => more.expect("it resumes"),
                () = &mut dies, if deaths < CUTS => break,
            };
            for change in more.events.iter().map(change_of) {
                seen.entry(change.0).or_default().push(change);
            }
            through = more.through.0;
            if is_over(&end, through) {
                return (seen.into_values().flatten().collect(), deaths);
            }
        }
        deaths += 1;
    }
}

/// `dstore watch`, killed again and again; what it wrote last may be half of a revision.
fn killed(dir: &Path, at: &str, end: &End, rng: &SeededRng) -> (Vec<Change>, u64) {
    let (mut seen, mut kills) = (BTreeMap::<u64, Vec<Change>>::new(), 0);
    loop {
        let from = seen.pop_last().map_or(0, |(revision, _)| revision - 1).to_string();
        let mut child = dstore(dir, &["watch", "w/", "--json", "--from", &from, "--node", at])
            .spawn()
            .expect("dstore runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let pid = Pid::from_child(&child);
        let begin = |life| {
            std::thread::spawn(move || {
                std::thread::sleep(life);
                kill_process(pid, Signal::KILL).expect("nobody has waited for it");
            })
        };
        let life = || (kills < CUTS).then(|| Duration::from_millis(20 + rng.next_u64() % 100));
        // Every second one lives until it has told something: on a busy machine no other gets that far, and what nobody
        // has seen over two restarts is forgotten.
        let mut killer = life().filter(|_| kills % 2 == 1).map(begin);
        let mut over = false;
        for line in lines.map_while(Result::ok) {
            killer = killer.or_else(|| life().map(begin));
            // Its last line may be half of one.
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { break };
            let (Some(revision), Some(key)) = (event["revision"].as_u64(), event["key"].as_str()) else {
                panic!("after {from} it wrote {line}");
            };
            let hash = (event["kind"] == "set").then(|| event["hash"].as_str().expect("a hash"));
            let hash = hash.map(|hash| hash.parse().expect("a hash"));
            seen.entry(revision).or_default().push((revision, key.to_owned(), hash));
            // The last change of all is one of its own.
            over = kills >= CUTS && is_over(end, revision);
            if over {
                child.kill().expect("killed");
                break;
            }
        }
        if let Some(killer) = killer {
            killer.join().expect("it killed");
            kills += 1;
        }
        child.wait().expect("ended");
        if over {
            return (seen.into_values().flatten().collect(), kills);
        }
    }
}

fn compare(who: &str, seen: &[Change], told: &Told) {
    assert!(seen.is_sorted_by_key(|(revision, ..)| *revision), "{who}: in order");
    let once: BTreeSet<&Change> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "{who}: nothing comes twice");
    let known = |change: &&Change| !told.unknown.contains(&change.1);
    let (seen, due): (BTreeSet<&Change>, BTreeSet<&Change>) =
        (once.into_iter().filter(known).collect(), told.changes.iter().filter(known).collect());
    let missed: Vec<_> = due.difference(&seen).take(5).collect();
    let invented: Vec<_> = seen.difference(&due).take(5).collect();
    assert!(missed.is_empty() && invented.is_empty(), "{who}: missed {missed:?}, invented {invented:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_are_cut_off_and_killed_a_hundred_times_miss_nothing_and_see_nothing_twice() {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| OsRng.next_u64());
    eprintln!("DSTORE_SEED={seed}");
    let rng = SeededRng::new(seed);
    let fresh = || SeededRng::new(rng.next_u64());
    let mut global = Global::start(&["--lease", "100ms"]);
    let locals = [Local::start(&global).await, Local::start(&global).await];
    let (storm, end) = (Arc::new(Storm::default()), End::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|me| {
            tokio::spawn(write(me, client_with(&locals[0].daemon.at, DEADLINE), fresh(), storm.clone()))
        })
        .collect();
    let at = locals[1].daemon.at.clone();
    let cut_off = tokio::spawn(cut_off(at.clone(), end.clone(), fresh()));
    let dropped = tokio::spawn(dropped(at.clone(), end.clone(), fresh()));
    let (dir, over, rng_of_killed) = (tempfile::tempdir().expect("a directory"), end.clone(), fresh());
    let killed =
        tokio::task::spawn_blocking(move || killed(dir.path(), &at.to_string(), &over, &rng_of_killed));
    for restart in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // In order, and not: then it is killed in the midst of changes.
        if restart % 2 == 0 {
            let ended = global.daemon.end(Signal::TERM);
            assert!(ended.success(), "watches do not keep it from a clean stop: {ended:?}");
        } else {
            global.daemon.kill();
        }
        global.again();
        for local in &locals {
            local.wire.point_to(&global.daemon.at);
        }
        for local in &locals {
            local.follow(&global).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // However slow the machine is.
    until("a storm and not a breeze", async || storm.made.load(Ordering::SeqCst) > 5000).await;
    storm.stop.store(true, Ordering::SeqCst);
    let mut told = Told::default();
    for writer in writers {
        let Told { mut changes, mut unknown } = writer.await.expect("it ended");
        told.changes.append(&mut changes);
        told.unknown.append(&mut unknown);
    }
    // While the watchers go on being killed there is something to see.
    let client = client_with(&locals[0].daemon.at, DEADLINE);
    let mut n = 0;
    while !(cut_off.is_finished() && dropped.is_finished() && killed.is_finished()) {
        let key = format!("w/last/{n}");
        let reply = client.set(&name(key.clone()), key.clone()).await.expect("set");
        let SetOutcome::Stored(entry) = reply.outcome else { panic!("{reply:?}") };
        told.changes.insert((entry.bind_rev.0, key, Some(entry.hash)));
        end.compare_exchange(0, entry.bind_rev.0, Ordering::SeqCst, Ordering::SeqCst).ok();
        n += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (cut_off, dropped, killed) = (cut_off.await, dropped.await, killed.await);
    let all = [("cut off", cut_off), ("dropped", dropped), ("killed", killed)];
    eprintln!("{} changes, {} unknown", told.changes.len(), told.unknown.len());
    let over = end.load(Ordering::SeqCst);
    told.changes.retain(|(revision, ..)| *revision <= over);
    for (who, result) in all {
        let (mut seen, times) = result.expect("it ended");
        seen.retain(|(revision, ..)| *revision <= over);
        eprintln!("{who} {times} times, saw {}", seen.len());
        compare(who, &seen, &told);
    }
    assert!(told.changes.len() > 5000, "a storm and not a breeze: {}", told.changes.len());
}
