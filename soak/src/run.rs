//! A run from its beginning to its end, in the order in which things happen.

use crate::args::Args;
use crate::board::Board;
use crate::callers::Caller;
use crate::calls::Ground;
use crate::faults::Nemesis;
use crate::fleet::{DEADLINE, Fleet};
use crate::judge::Judge;
use crate::page::page;
use crate::shelf::Shelf;
use crate::told::Told;
use crate::values::Values;
use crate::vitals::Vitals;
use crate::watchers::{Ledger, Watcher};
use dstore_client::Client;
use dstore_shared::{BlobHash, Name, Revision, SetOutcome};
use dstore_sys::rng::{Rng, SeededRng};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// When nothing is wrong any more, everybody must be served within so long.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Calls a second below which a run means nothing: a hundredth of what two quiet cores do in a debug build.
const CALLS_A_SECOND_MIN: f64 = 3.0;
/// Faults a minute below which it does not either.
const FAULTS_A_MINUTE_MIN: f64 = 5.0;
/// Between two lines that tell how far a run has got.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a run came to.
pub struct Outcome {
    pub page: String,
    pub violations: u64,
    /// The violations, and what happened before.
    pub stories: String,
}

/// Runs.
///
/// # Errors
/// If it could not begin.
pub async fn run(args: &Args, seed: u64, dstore: &Path, dir: &Path) -> Result<Outcome, String> {
    let rng = SeededRng::new(seed);
    let fleet = Fleet::start(args, dstore, dir).await?;
    for process in fleet.processes() {
        process.serves(WHOLE_WITHIN).await?;
    }
    let told = Arc::new(Told::new());
    let ground = Arc::new(Ground {
        board: Board::new((args.callers as usize / 2).max(2)),
        shelf: Shelf::default(),
        values: Values::new(seed),
        told: told.clone(),
    });

    let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
    let (end, ends) = watch::channel(None);
    let ledger = Arc::<Ledger>::default();
    let mut watchers = JoinSet::new();
    for door in fleet.doors() {
        let watcher = Watcher::new(door, ledger.clone(), told.clone());
        watchers.spawn(watcher.watch(ends.clone(), give_up.clone()));
    }
    let mut callers = JoinSet::new();
    for me in 0..args.callers {
        let own = SeededRng::new(rng.next_u64());
        callers.spawn(Caller::new(ground.clone(), &fleet, me, own, args.stale_callers).call(stop.clone()));
    }
    let judge = Judge { ground: ground.clone(), doors: fleet.doors() };
    let (sitting, looking) = (CancellationToken::new(), CancellationToken::new());
    let judging = tokio::spawn(judge.sit(sitting.clone()));
    let nemesis = Nemesis { fleet: fleet.clone(), told: told.clone(), rng: SeededRng::new(rng.next_u64()) };
    let raging = tokio::spawn(nemesis.rage(stop.clone()));
    let (eyes, of, to) = (looking.clone(), fleet.clone(), told.clone());
    let vitals = tokio::spawn(async move { Vitals::watch(&of, &to, eyes).await });

    work(args.span(), &told, &looking).await;
    stop.cancel();
    told.note("the end begins");
    ended("the nemesis", raging.await, &told);
    while let Some(ended) = callers.join_next().await {
        self::ended("a caller", ended, &told);
    }
    for process in fleet.processes() {
        if let Err(e) = process.serves(WHOLE_WITHIN).await {
            told.accuse(e);
        }
    }
    let took = told.now();
    sitting.cancel();
    ended("the judge", judging.await, &told);
    see_the_end(&fleet, &ground, &told, (&end, &give_up), watchers).await;
    looking.cancel();
    let vitals = vitals.await.unwrap_or_default();
    vitals.judge(&told);
    end_all(&fleet, &told).await;
    check(dstore, dir, &told);
    panics(&fleet, &told);
    enough(took, args.span(), &told);
    let page = page(args, seed, &fleet, &told, &vitals, took);
    let stories =
        format!("{}\n\nwhat happened:\n{}", told.stories().join("\n\n"), told.happened().join("\n"));
    Ok(Outcome { page, violations: told.violations(), stories })
}

/// Lets it run, telling how far it has got; ends early if a process is gone.
async fn work(span: Duration, told: &Told, gone: &CancellationToken) {
    let over = tokio::time::sleep(span);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return,
            () = gone.cancelled() => return,
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
        let answered: u64 = told.calls().values().map(|figures| figures.took.len()).sum();
        let faults: u64 = told.counts("fault ").values().sum();
        let (now, violations) = (told.now().as_secs(), told.violations());
        eprintln!("{now} s: {answered} calls answered, {faults} faults, {violations} violations");
    }
}

fn ended(who: &str, how: Result<(), tokio::task::JoinError>, told: &Told) {
    if let Err(e) = how {
        told.accuse(format!("{who} ended early: {e}"));
    }
}

/// When nothing changes any more: the shelf is as it was at every door, and every watch has told all of it.
async fn see_the_end(
    fleet: &Fleet,
    ground: &Ground,
    told: &Arc<Told>,
    (end, give_up): (&watch::Sender<Option<Revision>>, &CancellationToken),
    mut watchers: JoinSet<HashMap<Vec<u8>, BlobHash>>,
) {
    for (name, client) in fleet.doors() {
        let by = format!("end@{name}");
        let reads = ground.shelf.all().into_iter().map(|kept| {
            let (client, by) = (&client, &by);
            async move { kept.check(client, by, told).await }
        });
        let mut reads = futures_util::stream::iter(reads).buffer_unordered(16);
        while let Some(read) = reads.next().await {
            if let Err(e) = read {
                told.accuse(format!("{by}: the shelf cannot be read: {e:?}"));
            }
        }
    }
    match last_revision(&fleet.global.client()).await {
        Ok(revision) => _ = end.send_replace(Some(revision)),
        Err(e) => told.accuse(e),
    }
    let (after, late) = (give_up.clone(), WHOLE_WITHIN + DEADLINE);
    let timer = tokio::spawn(async move {
        tokio::time::sleep(late).await;
        after.cancel();
    });
    let shelf = ground.shelf.all();
    while let Some(bound) = watchers.join_next().await {
        let Ok(bound) = bound else {
            told.accuse("a watcher ended early");
            continue;
        };
        for kept in &shelf {
            let (name, is) = kept.state().await;
            let watched = bound.get(name.key().as_bytes()).copied();
            if is.is_some_and(|is| is != watched) {
                told.accuse(format!("a watch left {name:?} as {watched:?}, and it is {is:?}"));
            }
        }
    }
    timer.abort();
}

/// The revision of a change that comes after all others.
async fn last_revision(client: &Client) -> Result<Revision, String> {
    let name = Name::of("s/end").map_err(|e| e.to_string())?;
    match client.set(&name, "the end").await.map(|reply| reply.outcome) {
        Ok(SetOutcome::Stored(entry)) => Ok(entry.bind_rev),
        other => Err(format!("the last SET came to {other:?}")),
    }
}

async fn end_all(fleet: &Fleet, told: &Told) {
    for local in &fleet.locals {
        if let Err(e) = local.process.end(&mut *local.process.daemon.lock().await).await {
            told.accuse(e);
        }
    }
    if let Err(e) = fleet.global.end(&mut *fleet.global.daemon.lock().await).await {
        told.accuse(e);
    }
}

/// The data directory must be whole.
fn check(dstore: &Path, dir: &Path, told: &Told) {
    let data = dir.join("data");
    match Command::new(dstore).args(["check", "--deep", "--data"]).arg(&data).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            told.accuse(format!("`dstore check --deep` ended as {}: {text}", output.status));
        }
        Err(e) => told.accuse(format!("`dstore check`: {e}")),
    }
}

fn panics(fleet: &Fleet, told: &Told) {
    for process in fleet.processes() {
        let log = std::fs::read(process.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
            told.accuse(format!("{} panicked: {line}", process.name));
        }
    }
}

/// A run that did next to nothing shows nothing.
fn enough(took: Duration, span: Duration, told: &Told) {
    let answered: u64 = told.calls().values().map(|figures| figures.took.len()).sum();
    let faults: u64 = told.counts("fault ").values().sum();
    let judged = told.counted("names judged");
    if (answered as f64) < CALLS_A_SECOND_MIN * span.as_secs_f64() || judged == 0 {
        told.accuse(format!(
            "only {answered} calls in {took:?}, {judged} names judged: too little to mean anything"
        ));
    }
    if (faults as f64) < (FAULTS_A_MINUTE_MIN * span.as_secs_f64() / 60.0).floor() {
        told.accuse(format!("only {faults} faults in {took:?}: too few to mean anything"));
    }
}
