//! Each row of the design's table, letter by letter.

use super::*;
use dstore_shared::{BlobHash, Entry, Revision};
use std::time::Duration;

fn from(tier: Tier, cached: bool) -> Provenance {
    Provenance::new(tier, cached, Revision(7))
}

fn entry() -> Entry {
    Entry {
        hash: BlobHash::of(b"hello"),
        size: 5,
        bind_rev: Revision(7),
        expires_at: None,
        content_type: None,
    }
}

fn get_line(key: &'static [u8], from: Provenance, value: &str) -> String {
    let (before, after) = around_value(&What::Key(dstore_shared::Key::new(key).expect("valid")), from);
    format!("{before}{value}{after}")
}

fn set(outcome: SetOutcome, from: Provenance) -> (&'static str, u8) {
    set_line(&SetReply { outcome, from })
}

#[test]
fn a_get_says_which_tier_answered() {
    assert_eq!(get_line(b"key", from(Tier::Local, true), "value"), "db: key -> value");
    assert_eq!(get_line(b"key", from(Tier::Local, false), "value"), "db: key -> value");
    assert_eq!(
        get_line(b"hi", from(Tier::Global, true), "hello"),
        "global: hi -> hello     (Updating Local)"
    );
    assert_eq!(get_line(b"hi", from(Tier::Global, false), "hello"), "global: hi -> hello");
    assert_eq!(get_line(b"\x1b\n\xff", from(Tier::Local, true), ""), "db: \\x1b\\n\\xff -> ");
    assert_eq!(NOWHERE, "Key-Value mapping doesn't exist");
}

#[test]
fn a_set_says_what_became_of_it_and_who_held_the_key() {
    let (stored, unchanged, occupied) =
        (SetOutcome::Stored(entry()), SetOutcome::Unchanged(entry()), SetOutcome::Occupied(entry()));
    for from in [from(Tier::Local, true), from(Tier::Global, true), from(Tier::Global, false)] {
        assert_eq!(set(stored.clone(), from), ("Database updated", 0));
        assert_eq!(set(unchanged.clone(), from), ("Key occupied!", 0));
    }
    assert_eq!(set(occupied.clone(), from(Tier::Local, true)), ("Key occupied!", 3));
    assert_eq!(set(occupied.clone(), from(Tier::Local, false)), ("Key occupied!", 3));
    assert_eq!(set(occupied.clone(), from(Tier::Global, false)), ("Key occupied!", 3));
    assert_eq!(set(occupied, from(Tier::Global, true)), ("(Updated local) Key occupied!", 3));
}

#[test]
fn a_del_says_a_line_a_key() {
    let reply = DeleteReply { removed: vec![true, false], revision: Revision(1), stale: None };
    let lines: Vec<_> = delete_lines(&reply).collect();
    assert_eq!(lines, ["Key removed (global and local)", "Key-Value mapping doesn't exist"]);
}

#[test]
fn the_other_texts_are_as_promised() {
    let lines = banner("0.1.0", "127.0.0.1:50052");
    assert_eq!(lines[0], "dstore v0.1.0 (addr: 127.0.0.1:50052)");
    assert_eq!(lines[2], "Use `.exit` to exit the repl");
    assert_eq!(PROMPT, "db > ");
    assert_eq!(UNKNOWN, "Unknown command!");
    assert_eq!(UNPARSED, "Unsuccessful parsing!");
}

#[test]
fn a_status_is_a_table_that_cannot_forge_lines() {
    let status = Status {
        tier: Tier::Local,
        version: "0.1.0".into(),
        serving: false,
        born: None,
        revision: Revision(12),
        lease: Duration::from_secs(2),
        facts: vec![("global\nserving".into(), "\x1b[2Jx".into())],
    };
    let expected = [
        "tier            local",
        "version         0.1.0",
        "serving         no",
        "revision        12",
        "lease           2s",
        "global\\nserving  \\x1b[2Jx",
    ];
    assert_eq!(status_lines(&status), expected);
}
