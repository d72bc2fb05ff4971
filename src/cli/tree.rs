//! `dstore import` and `dstore export`: a tree of files into keys, and back.
//!
//! A key is the prefix and the path within the tree, with `/` between its parts. Both go on where they were broken off:
//! what is there with the same bytes is left as it is, compared by hash. Every value is hashed on this side too, and
//! what does not match counts as failed. What is skipped is told by name, with the reason.

mod export;
mod import;
mod progress;

use super::attach::{Attached, RemoteStore, attach};
use super::signals::{Signals, TERMINATED};
use super::{screen, sys};
use crate::config::{Node, TreeSettings};
use dstore_client::Client;
use dstore_local::repl::{Mode, escape, exit, failure, printable, short_time, size};
use dstore_shared::{Error, Kind};
use progress::Progress;
use serde_json::json;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Batches, or large values, that are under way at a time.
const AT_ONCE: usize = 8;
/// Names of one batch, and bytes of their values: what one call may carry.
const BATCH_NAMES: usize = 256;
/// How the name of a file begins that an export is writing.
const PART_BEGIN: &str = ".dstore-";
/// How it ends.
const PART_END: &str = ".partial";
const BATCH_BYTES: u64 = 512 << 10;
/// Things skipped or failed that are told by name; the others are counted.
const NAMED_MAX: u64 = 20;

/// Does it, and gives the exit code.
pub async fn run(node: Node, what: TreeSettings, mode: Mode) -> u8 {
    let sys = sys();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return screen::complain(&e, exit::SOFTWARE),
    };
    let Attached { client, .. } = match attach(&sys, node).await {
        Ok(attached) => attached,
        Err(e) => return screen::complain(&e, exit::UNREACHABLE),
    };
    let began = sys.clock.now();
    let tally = Arc::new(Tally::new(mode));
    let progress = Progress::begin(&sys, tally.clone());
    let mut pressed = signals.interrupts();
    let work = act(&client, &tally, &what);
    let ended = tokio::select! {
        done = work => done,
        _ = pressed.changed() => Err(Stopped::Code(exit::INTERRUPTED)),
        () = signals.end_of_session() => Err(Stopped::Code(TERMINATED)),
    };
    progress.end().await;
    let took = sys.clock.now().since(began);
    let word = what.word();
    match ended {
        Ok(()) => tell(&tally, word, took, mode, tally.code()),
        Err(Stopped::Code(code)) => {
            screen::say(&format!("{word} was broken off: the same command goes on where it ended"));
            tell(&tally, word, took, mode, code)
        }
        Err(Stopped::Failed(e)) => {
            let code = exit::of(e.kind());
            tell(&tally, word, took, mode, code);
            screen::complain(&e, code)
        }
    }
}

/// Why it ended before its end.
enum Stopped {
    Code(u8),
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

async fn act(client: &Client<RemoteStore>, tally: &Arc<Tally>, what: &TreeSettings) -> Result<(), Stopped> {
    match what {
        TreeSettings::Import { dir, prefix } => import::import(client, tally, dir, prefix).await?,
        TreeSettings::Export { prefix, dir, overwrite } => {
            export::export(client, tally, (prefix, dir), *overwrite).await?;
        }
    }
    Ok(())
}

/// What became of the files so far.
struct Tally {
    quiet: bool,
    /// Moved now.
    pub done: AtomicU64,
    pub bytes: AtomicU64,
    /// There with the same bytes before.
    pub same: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    /// The code of the worst that happened, 0 so far.
    code: AtomicU64,
    /// How many there will be, and their bytes, as far as it is known.
    pub found: AtomicU64,
    pub found_bytes: AtomicU64,
    pub all_found: std::sync::atomic::AtomicBool,
    named: AtomicU64,
}

impl Tally {
    fn new(mode: Mode) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            quiet: mode == Mode::Json,
            done: zero(),
            bytes: zero(),
            same: zero(),
            skipped: zero(),
            failed: zero(),
            code: zero(),
            found: zero(),
            found_bytes: zero(),
            all_found: false.into(),
            named: zero(),
        }
    }

    /// One was moved.
    fn moved(&self, bytes: u64) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One was there.
    fn was_there(&self, bytes: u64) {
        self.same.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One is left out on purpose.
    fn skip(&self, path: &[u8], why: impl Display) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.name("skipped", path, why);
    }

    /// One should have been moved, and was not.
    fn fail(&self, path: &[u8], error: &Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        // What is unreachable or wrong weighs more than what is occupied.
        let (code, before) = (u64::from(exit::of(error.kind())), self.code.load(Ordering::Relaxed));
        if before == 0 || before == u64::from(exit::OCCUPIED) {
            self.code.store(code, Ordering::Relaxed);
        }
        self.name("failed", path, failure(error));
    }

    fn name(&self, what: &str, path: &[u8], why: impl Display) {
        let n = self.named.fetch_add(1, Ordering::Relaxed);
        if n < NAMED_MAX {
            progress::above(&format!("{what}: {}: {why}", escape(path)));
        } else if n == NAMED_MAX {
            progress::above(".. more are counted and not named");
        }
    }

    fn code(&self) -> u8 {
        self.code.load(Ordering::Relaxed) as u8
    }
}

fn tell(tally: &Tally, word: &str, took: std::time::Duration, mode: Mode, code: u8) -> u8 {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (done, bytes, same) = (get(&tally.done), get(&tally.bytes), get(&tally.same));
    let (skipped, failed) = (get(&tally.skipped), get(&tally.failed));
    if mode == Mode::Json {
        let object = json!({
            "command": word, "moved": done, "unchanged": same, "bytes": bytes, "skipped": skipped,
            "failed": failed, "seconds": took.as_secs_f64(), "exit": code,
        });
        screen::tell(&printable(&object.to_string()));
        return code;
    }
    let files = |n: u64| if n == 1 { "1 file".to_owned() } else { format!("{n} files") };
    let rate = (done + same) as f64 / took.as_secs_f64().max(1e-9);
    let bytes_rate = size((bytes as f64 / took.as_secs_f64().max(1e-9)) as u64);
    screen::tell(&format!(
        "{}ed {}, {same} unchanged, {skipped} skipped, {failed} failed: {} in {}, {rate:.0} files/s, {bytes_rate}/s",
        word,
        files(done),
        size(bytes),
        short_time(took),
    ));
    code
}

/// An error of a file.
fn io_error(e: &std::io::Error, doing: &str) -> Error {
    use std::io::ErrorKind;
    let (kind, advice) = match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (Kind::Denied, "check owner and permissions")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Kind::Exhausted, "free some space"),
        ErrorKind::NotFound => (Kind::Invalid, "it went away"),
        _ => (Kind::Invalid, "check its disk"),
    };
    Error::new(kind, format!("it cannot be {doing}, {e}: {advice}"))
}

/// The root of a tree that must be a folder.
fn folder(dir: &Path) -> Result<(), Error> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(format!("`{}` is no folder: name one", dir.display()))),
        Err(e) => Err(Error::invalid(format!("`{}` cannot be read, {e}: name a folder", dir.display()))),
    }
}
