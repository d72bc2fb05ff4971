//! One line that tells how far it is, on a terminal only, rewritten in place a few times a second.
//!
//! Sixty lines of our own instead of a crate with five dependencies: one line, no bars side by side, no colours.

use super::Tally;
use dstore_local::repl::size;
use dstore_shared::Moment;
use dstore_sys::Sys;
use rustix::termios::tcgetwinsize;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the line is written.
const EVERY: Duration = Duration::from_millis(200);
/// Cells of the bar.
const BAR: u64 = 20;

/// A line stands there now, without an end.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Writes a line for good, above the one that is rewritten.
pub fn above(line: &str) {
    let clear = if SHOWN.load(Ordering::Relaxed) { "\r\x1b[K" } else { "" };
    let _ = writeln!(stderr(), "{clear}{line}");
}

/// The line, for as long as there is one.
#[derive(Debug)]
pub struct Progress(Option<JoinHandle<()>>);

impl Progress {
    /// Begins, if anybody sees it.
    pub fn begin(sys: &Sys, tally: Arc<Tally>) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if tally.quiet || dumb || !stderr().is_terminal() {
            return Self(None);
        }
        let clock = sys.clock.clone();
        let began = clock.now();
        Self(Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                show(&tally, clock.now(), began);
            }
        })))
    }

    /// Takes the line away.
    pub async fn end(self) {
        let Some(task) = self.0 else { return };
        task.abort();
        let _ = task.await;
        if SHOWN.swap(false, Ordering::Relaxed) {
            let _ = write!(stderr(), "\r\x1b[K").and_then(|()| stderr().flush());
        }
    }
}

fn show(tally: &Tally, now: Moment, began: Moment) {
    let columns = tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col)).max(10);
    let line: String = line(tally, now.since(began)).chars().take(columns - 1).collect();
    SHOWN.store(true, Ordering::Relaxed);
    let _ = write!(stderr(), "\r\x1b[K{line}").and_then(|()| stderr().flush());
}

/// `[#####     ] 1234 of 5678 files, 12.3 MiB, 456 files/s, 4.5 MiB/s, 12 s left`
fn line(tally: &Tally, took: Duration) -> String {
    let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (files, bytes) = (get(&tally.done) + get(&tally.same), get(&tally.bytes));
    let (found, all) = (get(&tally.found), tally.all_found.load(Ordering::Relaxed));
    let seconds = took.as_secs_f64().max(0.001);
    let rate = files as f64 / seconds;
    let cells = (files * BAR).checked_div(found).unwrap_or(0).min(BAR);
    let bar: String = (0..BAR).map(|cell| if all && cell < cells { '#' } else { ' ' }).collect();
    let of = if all { format!("{found}") } else { format!("{found}+") };
    let left = if all && rate > 0.0 {
        format!(", {:.0} s left", found.saturating_sub(files) as f64 / rate)
    } else {
        String::new()
    };
    format!(
        "[{bar}] {files} of {of} files{left}, {rate:.0}/s, {}/s, {}",
        size((bytes as f64 / seconds) as u64),
        size(bytes)
    )
}
