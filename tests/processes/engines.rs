//! What an index is worth: each engine, killed at random moments and then robbed of its index, or given another
//! one, must serve everything that was acknowledged, because the journal tells it; or refuse to start, if the journal
//! does not reach back so far, and serve again when the index is put back.

use crate::rig::{Global, client_with, name, noise};
use crate::storm::{Storm, seeded};
use dstore_client::Client;
use dstore_shared::BlobHash;
use dstore_sys::rng::{Rng, SeededRng};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const WRITERS: usize = 3;

/// What is done to the folder `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    /// Nothing: it is as the kill left it.
    None,
    /// The folder is gone.
    Gone,
    /// All of its files are empty.
    Emptied,
    /// One file is cut somewhere.
    Cut,
    /// One file is gone.
    FileGone,
    /// One byte is another.
    Flipped,
    /// An older copy is in its place.
    Older,
    /// The index of another data directory is in its place.
    Foreign,
}

const HARMS: [Harm; 8] = [
    Harm::None,
    Harm::Gone,
    Harm::Emptied,
    Harm::Cut,
    Harm::FileGone,
    Harm::Flipped,
    Harm::Older,
    Harm::Foreign,
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { _ = fs::copy(&path, &to).expect("copied") }
    }
}

fn files_of(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_of(&path, found) } else { found.push(path) }
    }
    found.sort();
}

/// A file that has bytes.
fn one_of(index: &Path, rng: &SeededRng) -> Option<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    files_of(index, &mut files);
    files.retain(|path| fs::metadata(path).expect("there").len() > 0);
    if files.is_empty() {
        return None;
    }
    let path = files.swap_remove(rng.next_u64() as usize % files.len());
    let bytes = fs::read(&path).expect("read");
    Some((path, bytes))
}

fn replace(index: &Path, by: &Path) {
    fs::remove_dir_all(index).expect("removed");
    copy(by, index);
}

fn harm(harm: Harm, index: &Path, older: &Path, foreign: &Path, rng: &SeededRng) {
    match harm {
        Harm::None => {}
        Harm::Gone => fs::remove_dir_all(index).expect("removed"),
        Harm::Emptied => {
            let mut files = Vec::new();
            files_of(index, &mut files);
            files.iter().for_each(|path| fs::write(path, b"").expect("emptied"));
        }
        Harm::Older => replace(index, older),
        Harm::Foreign => replace(index, foreign),
        Harm::Cut | Harm::FileGone | Harm::Flipped => {
            let Some((path, mut bytes)) = one_of(index, rng) else { return };
            let at = rng.next_u64() as usize % bytes.len();
            match harm {
                Harm::FileGone => fs::remove_file(&path).expect("removed"),
                Harm::Cut => fs::write(&path, &bytes[..at]).expect("cut"),
                _ => {
                    bytes[at] ^= 1 << (rng.next_u64() % 8);
                    fs::write(&path, bytes).expect("written");
                }
            }
        }
    }
}

/// How often a harm was survived by redoing what was not in the index, by rebuilding it, or by a refusal, after which
/// the index was put back.
#[derive(Default, Debug)]
struct Row {
    served: u64,
    rebuilt: u64,
    refused: u64,
}

impl Row {
    /// Starts Global with the harmed index, or else with the one it had.
    fn start(&mut self, global: &mut Global, index: &Path, kept: &Path, what: &str) {
        match global.again_with("") {
            Ok(()) if global.daemon.err().iter().any(|line| line.contains("rebuilding it")) => {
                self.rebuilt += 1;
            }
            Ok(()) => self.served += 1,
            Err(ended) => {
                let told = ended.err.join("\n");
                assert_eq!(ended.status.code(), Some(6), "{what}: {told}");
                assert!(
                    told.contains("put the right `index` back"),
                    "{what}: it must say what helps: {told}"
                );
                self.refused += 1;
                replace(index, kept);
                global.again();
            }
        }
    }
}

/// Places for copies of an index.
struct Aside {
    dir: TempDir,
}

impl Aside {
    /// With the index of a directory that has nothing to do with any other.
    fn new(engine: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut other = Global::start(&["--engine", engine]);
        other.daemon.end(Signal::TERM);
        copy(&other.data().join("index"), &dir.path().join("foreign"));
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keep(&self, index: &Path, name: &str) {
        let to = self.at(name);
        if to.exists() {
            fs::remove_dir_all(&to).expect("removed");
        }
        copy(index, &to);
    }
}

/// What was acknowledged of a key, and what may have been done to it.
type Ledger = Vec<(String, Vec<Option<BlobHash>>)>;

/// Sets and deletes until Global is gone.
async fn write(client: Client, me: u64) -> Ledger {
    let mut ledger = Ledger::new();
    for n in 0_u64.. {
        let value = noise(me << 32 | n, [100, 20_000, 70_000][n as usize % 3]);
        let (key, hash) = (format!("w{me}-{n}"), BlobHash::of(&value));
        let set = client.set(&name(&*key), value).await;
        ledger.push((key, if set.is_ok() { vec![Some(hash)] } else { vec![None, Some(hash)] }));
        if set.is_err() {
            return ledger;
        }
        if n % 4 == 3 {
            let (key, may_be) = &mut ledger[n as usize - 1];
            match client.delete(&[name(&**key)]).await {
                Ok(_) => *may_be = vec![None],
                Err(_) => may_be.push(None),
            }
        }
    }
    ledger
}

/// One life of a Global that is killed at some moment; what it acknowledged.
async fn life(global: &mut Global, round: u64, rng: &SeededRng) -> Ledger {
    // On a machine that does other things too, the first takes its time.
    let (first, value) = (format!("first-{round}"), noise(round, 100));
    let mut all: Ledger = vec![(first.clone(), vec![Some(BlobHash::of(&value))])];
    global.client().set(&name(first), value).await.expect("set");
    let client = || client_with(&global.daemon.at, Duration::from_millis(300));
    let writing: Vec<_> =
        (0..WRITERS as u64).map(|me| tokio::spawn(write(client(), round << 8 | me))).collect();
    tokio::time::sleep(Duration::from_micros(100_000 + rng.next_u64() % 200_000)).await;
    global.daemon.kill();
    for written in writing {
        all.extend(written.await.expect("it ended"));
    }
    all
}

/// A directory in its first life: the journal has all of it. Global is killed, the index harmed, and everything that
/// was acknowledged is there.
async fn young(engine: &'static str, harm_now: Harm, aside: &Aside, rng: &SeededRng, row: &mut Row) {
    let mut global = Global::start(&["--engine", engine, "--lease", "100ms"]);
    let index = global.data().join("index");
    let mut ledger = life(&mut global, 1, rng).await;
    aside.keep(&index, "older");
    if harm_now == Harm::Older {
        global.again();
        ledger.extend(life(&mut global, 2, rng).await);
    }
    aside.keep(&index, "kept");
    harm(harm_now, &index, &aside.at("older"), &aside.at("foreign"), rng);
    let what = format!("{engine} {harm_now:?}");
    row.start(&mut global, &index, &aside.at("kept"), &what);
    let client = global.client();
    for (key, may_be) in &ledger {
        let found = client.get(&name(&**key)).await.unwrap_or_else(|e| panic!("{what}: `{key}`: {e}"));
        let found = found.map(|value| value.entry.hash);
        assert!(may_be.contains(&found), "{what}: `{key}` is {found:?} and not among {may_be:?}");
    }
}

/// A directory of many lives and checkpoints, whose journal was trimmed: under a storm.
async fn old(engine: &'static str, rounds: u64, aside: &Aside, rng: &SeededRng, rows: &mut [(Harm, Row)]) {
    let mut global = Global::start(&["--engine", engine, "--lease", "100ms"]);
    let mut storm = Storm::begin(&global, WRITERS, rng, engine.to_owned()).await;
    let index = global.data().join("index");
    for round in 0..rounds {
        for (harm_now, row) in &mut *rows {
            tokio::time::sleep(Duration::from_micros(20_000 + rng.next_u64() % 60_000)).await;
            if round % 2 == 1 {
                _ = global.daemon.end(Signal::TERM);
            } else {
                global.daemon.kill();
            }
            if !aside.at("oldest").exists() {
                aside.keep(&index, "oldest");
            }
            aside.keep(&index, "kept");
            harm(*harm_now, &index, &aside.at("oldest"), &aside.at("foreign"), rng);
            row.start(&mut global, &index, &aside.at("kept"), &format!("{engine} {harm_now:?}"));
            storm.is_whole(&global, &format!("round {round} {harm_now:?}")).await;
        }
    }
    let (made, unknown) = storm.end().await;
    eprintln!("{engine}: {made} changes, {unknown} unknown, 0 lost");
}

fn rows() -> Vec<(Harm, Row)> {
    HARMS.into_iter().map(|harm| (harm, Row::default())).collect()
}

fn print(what: &str, rows: &[(Harm, Row)]) {
    eprintln!("| {what} | served | rebuilt | refused, and served when the index was put back |");
    for (harm, Row { served, rebuilt, refused }) in rows {
        eprintln!("| {harm:?} | {served} | {rebuilt} | {refused} |");
    }
}

async fn robbed(engine: &'static str, rounds: u64) {
    let (rng, _) = seeded(engine);
    let (aside, mut first_life) = (Aside::new(engine), rows());
    for _ in 0..rounds {
        for (harm, row) in &mut first_life {
            young(engine, *harm, &aside, &rng, row).await;
        }
    }
    print(&format!("{engine}, in its first life"), &first_life);
    for (harm, Row { served, refused, .. }) in &first_life {
        assert!(*refused == 0 || *harm == Harm::Older, "{engine} {harm:?}: the journal has all of it");
        assert!(*served == rounds || *harm != Harm::None, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fjall_killed_and_robbed_of_its_index_serves_what_was_acknowledged_from_the_journal() {
    robbed("fjall", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_killed_and_robbed_of_its_index_serves_what_was_acknowledged_from_the_journal() {
    robbed("sled", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_killed_and_robbed_of_its_index_serves_what_was_acknowledged_from_the_journal() {
    robbed("memory", 1).await;
}

/// `DSTORE_ROUNDS` for each harm and engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: the table of the engines"]
async fn every_engine_killed_and_robbed_of_its_index_again_and_again_loses_nothing_acknowledged() {
    let rounds = std::env::var("DSTORE_ROUNDS").map_or(20, |n| n.parse().expect("a number"));
    for engine in ["fjall", "sled", "memory"] {
        robbed(engine, rounds).await;
        let ((rng, _), mut trimmed) = (seeded(engine), rows());
        old(engine, rounds, &Aside::new(engine), &rng, &mut trimmed).await;
        print(&format!("{engine}, its journal trimmed"), &trimmed);
    }
}
