//! What an index is worth: each engine, killed at random moments and then robbed of its index, or given another
//! one, must serve everything that was acknowledged, because the journal tells it; or refuse to start, if the journal
//! does not reach back so far, and serve again when the index is put back.

use crate::rig::Global;
use crate::storm::{Storm, seeded};
use dstore_sys::rng::{Rng, SeededRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// How often each harm was survived, by redoing what is there, by rebuilding, or by a refusal.
#[derive(Default, Debug)]
struct Row {
    served: u64,
    rebuilt: u64,
    refused: u64,
}

/// Kills Global, harms its index and starts it again, `rounds` times for each harm.
async fn robbed(engine: &'static str, rounds: u64) {
    let (rng, what) = seeded(engine);
    let mut global = Global::start(&["--engine", engine, "--lease", "100ms"]);
    let mut storm = Storm::begin(&global, &rng, what).await;
    let (aside, index) = (tempfile::tempdir().expect("a directory"), global.data().join("index"));
    let (older, foreign, kept) =
        (aside.path().join("older"), aside.path().join("foreign"), aside.path().join("kept"));
    {
        let mut other = Global::start(&["--engine", engine]);
        other.client().set(&crate::rig::name("foreign"), "value").await.expect("set");
        other.daemon.end(rustix::process::Signal::TERM);
        copy(&other.data().join("index"), &foreign);
    }
    let mut rows: Vec<(Harm, Row)> = HARMS.into_iter().map(|harm| (harm, Row::default())).collect();
    for round in 0..rounds {
        for (harm_now, row) in &mut rows {
            let harm_now = *harm_now;
            tokio::time::sleep(Duration::from_micros(20_000 + rng.next_u64() % 60_000)).await;
            if round % 2 == 1 {
                // A checkpoint more, so that the index has something and the journal may be trimmed.
                global.daemon.end(rustix::process::Signal::TERM);
            } else {
                global.daemon.kill();
            }
            if older.exists() {
                fs::remove_dir_all(&kept).ok();
            } else {
                copy(&index, &older);
            }
            copy(&index, &kept);
            harm(harm_now, &index, &older, &foreign, &rng);
            match global.again_with("") {
                Ok(()) => {
                    let rebuilt = global.daemon.err().iter().any(|line| line.contains("rebuilding it"));
                    if rebuilt { row.rebuilt += 1 } else { row.served += 1 }
                }
                Err(ended) => {
                    let told = ended.err.join("\n");
                    assert_eq!(ended.status.code(), Some(6), "{engine} {harm_now:?}: {told}");
                    assert!(harm_now != Harm::None, "{engine}: {told}");
                    row.refused += 1;
                    replace(&index, &kept);
                    global.again();
                }
            }
            storm.is_whole(&global, &format!("round {round} {harm_now:?}")).await;
        }
    }
    let (made, unknown) = storm.end().await;
    eprintln!("{engine}: {made} changes, {unknown} unknown, 0 lost, over {rounds} rounds of");
    eprintln!("| {engine} | served | rebuilt | refused |");
    for (harm, Row { served, rebuilt, refused }) in &rows {
        eprintln!("| {harm:?} | {served} | {rebuilt} | {refused} |");
        assert_eq!(served + rebuilt + refused, rounds, "{harm:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fjall_killed_and_robbed_of_its_index_loses_nothing_acknowledged() {
    robbed("fjall", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_killed_and_robbed_of_its_index_loses_nothing_acknowledged() {
    robbed("sled", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_killed_and_robbed_of_its_index_loses_nothing_acknowledged() {
    robbed("memory", 1).await;
}

/// `DSTORE_ROUNDS` for each harm and engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: the table of the engines"]
async fn every_engine_killed_and_robbed_of_its_index_again_and_again_loses_nothing_acknowledged() {
    let rounds = std::env::var("DSTORE_ROUNDS").map_or(20, |n| n.parse().expect("a number"));
    for engine in ["fjall", "sled", "memory"] {
        robbed(engine, rounds).await;
    }
}
