//! The layout as it lies in memory, word by word: whoever changes it changes its version too.
//!
//! `DSTORE_GOLDEN=write cargo test -p dstore-arena golden` writes the files anew.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use super::tests::{attach, bytes, daemon_of, set};
use super::*;
use crate::memory::Heap;
use std::fmt::Write;

/// All words that are not 0, a line each: the byte where it begins, the word.
fn words(title: &str, memory: &Heap, out: &mut String) {
    writeln!(out, "{title}").unwrap();
    for at in 0..memory.extent().words() {
        let word = memory.load(at, Relaxed);
        if word != 0 {
            writeln!(out, "{:08x} {word:016x}", at * layout::WORD).unwrap();
        }
    }
}

fn is_as_in(file: &str, golden: &str, daemon: &Core<Heap, Heap>, page: &Heap) {
    let mut found = String::new();
    words("header", &daemon.header, &mut found);
    words("data", &daemon.data, &mut found);
    words("worker", page, &mut found);
    if std::env::var("DSTORE_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(format!("{}/src/core/golden/{file}", env!("CARGO_MANIFEST_DIR")), &found).unwrap();
        return;
    }
    assert!(found == golden, "the layout is not that of {file} any more: change its version\n{found}");
}

#[test]
fn an_empty_arena_lies_in_memory_as_the_golden_file_says() {
    let mut daemon = daemon_of(64, 512);
    daemon.set_valid_until(0x1122_3344);
    daemon.set_era(5);
    let (page, _) = attach(&mut daemon);
    is_as_in("empty.txt", include_str!("golden/empty.txt"), &daemon, &page.memory);
}

#[test]
fn a_small_arena_lies_in_memory_as_the_golden_file_says() {
    let mut daemon = daemon_of(64, 512);
    let (page, view) = attach(&mut daemon);
    set(&mut daemon, b"first", &bytes(0x41, 520), 3).unwrap();
    set(&mut daemon, b"an alias of it", &bytes(0x41, 520), 4).unwrap();
    set(&mut daemon, b"short", &bytes(0x44, 20), 7).unwrap();
    let short = super::tests::binding(&bytes(0x44, 20), 8);
    daemon.insert(b"as short", (&short, b"a note"), &bytes(0x44, 20), &mut Vec::new()).unwrap();
    set(&mut daemon, b"pinned", &bytes(0x42, 600), 5).unwrap();
    let expiry = Some(Expiry { until: 77, expires_at: 99 });
    let value = bytes(0x43, 8);
    let binding = Binding { expiry, ..super::tests::binding(&value, 6) };
    daemon.insert(b"mortal", (&binding, &[]), &value, &mut Vec::new()).unwrap();
    super::tests::pin(&view, b"pinned").unwrap();
    // Which pin and which ring a thread uses is its own affair; what they hold is not.
    let pinned: Vec<u64> = crate::pins::pinned(&page.memory).collect();
    let held = daemon.index.find(&daemon.header, &daemon.data, daemon.hash(b"pinned"), b"pinned").unwrap();
    assert_eq!(pinned, [1 << 32 | u64::from(held.unit)]);
    is_as_in("small.txt", include_str!("golden/small.txt"), &daemon, &Heap::new(0));
}
