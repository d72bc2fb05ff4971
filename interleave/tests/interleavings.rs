//! Some thousand schedules of each scenario, drawn anew each time. A schedule that fails is printed, and can be run again
//! with `shuttle::replay`. `DSTORE_SCHEDULES` sets how many.

use dstore_interleave::{commit, node, shown};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn schedules(default: usize) -> usize {
    std::env::var("DSTORE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Tries schedules drawn at random, then such as change threads seldom (Burckhardt and others, 2010). Gives what all
/// runs add up to.
fn explore(default: usize, scenario: fn() -> u64) -> u64 {
    // tokio's channels want to be within a runtime; nothing runs on it.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _within = runtime.enter();
    let total = Arc::new(AtomicU64::new(0));
    let run = || {
        let total = total.clone();
        move || {
            total.fetch_add(scenario(), Ordering::SeqCst);
        }
    };
    let n = schedules(default);
    shuttle::check_random(run(), n / 2);
    shuttle::check_pct(run(), n - n / 2, 3);
    total.load(Ordering::SeqCst)
}

#[test]
fn no_interleaving_of_hits_fills_and_invalidations_serves_what_was_removed() {
    let hits = explore(600, node::hits_and_fills_against_invalidations);
    assert!(hits > 600, "names are held and served: {hits} hits");
}

#[test]
fn no_interleaving_of_commits_reads_and_the_index_shows_what_was_not_so_then() {
    let indexed = explore(300, shown::reads_while_commits_become_visible);
    assert!(indexed > 300, "memtables move into the index meanwhile: {indexed} did");
}

#[test]
fn no_interleaving_of_group_commit_tells_what_a_crash_would_take() {
    let told = explore(100, commit::changes_are_committed_together);
    assert!(told > 500, "callers are answered: {told} answers");
}
