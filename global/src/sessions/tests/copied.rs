//! COPY and RENAME: both names are wanted, and of a RENAME only the holders of the first are waited for.

use super::*;
use dstore_shared::{CopyOutcome, CopyResult};

impl Table {
    fn copy(&mut self, ms: u64, label: &'static str, (from, to): (&str, &str)) {
        self.submit_sparing(ms, label, (from, to), false);
    }

    fn rename(&mut self, ms: u64, label: &'static str, (from, to): (&str, &str)) {
        self.submit_sparing(ms, label, (from, to), true);
    }

    fn submit_sparing(&mut self, ms: u64, label: &'static str, (from, to): (&str, &str), drains: bool) {
        let n = self.ids.len() as u64 + 1;
        let id = RequestId { client: ClientId(7), n, born: self.m.born(at(ms)) };
        self.ids.insert(label, (id, None));
        let (names, spared) = (vec![name(from), name(to)], vec![name(to)]);
        let change = Submission {
            id,
            names,
            drains,
            spared,
            mode: DeleteMode::Strict,
            job: label,
            caller: None,
            responder: label,
        };
        self.m.submit(at(ms), change);
    }

    fn renamed(&mut self, ms: u64, label: &str, result: CopyResult, head: u64) {
        let outcome = CopyOutcome { result, revision: Revision(head) };
        self.finish(ms, label, &Ok(Outcome::Rename(outcome)), head);
    }

    fn copied(&mut self, ms: u64, label: &str, result: CopyResult, head: u64) {
        let outcome = CopyOutcome { result, revision: Revision(head) };
        self.finish(ms, label, &Ok(Outcome::Copy(outcome)), head);
    }

    fn commits(&mut self, label: &str) -> bool {
        self.obey();
        self.done.drain(..).any(|done| done == format!("commit {label}"))
    }
}

fn with_a() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.skip();
    t
}

#[test]
fn rule_06_a_rename_waits_for_the_holders_of_the_name_that_it_unbinds_and_of_no_other() {
    let mut t = with_a();
    t.hello(0, B, 2);
    assert!(t.fills(1, e(1), "a", 1) && t.fills(1, e(2), "b", 1));
    t.skip();
    t.rename(2, "r1", ("a", "b"));
    t.gives(&["s1 inv 1 a upto 10 e1"]);
    assert!(t.m.is_busy(&name("a")) && t.m.is_busy(&name("b")), "both are its own");
    t.ack(3, 1, e(1), 1);
    assert!(t.commits("r1"));
    t.renamed(4, "r1", CopyResult::Occupied(entry(9)), 10);
    t.del(5, "d1", &["b"]);
    t.obey();
    assert!(t.done.contains(&"s2 inv 1 b upto 10 e2".into()), "B holds it still: {:?}", t.done);
}

#[test]
fn rule_08_a_name_that_a_rename_binds_is_held_by_nobody_from_before() {
    let mut t = with_a();
    let early = t.begin(1, e(1), "b", 1);
    t.rename(2, "r1", ("a", "b"));
    t.renamed(3, "r1", CopyResult::Done(entry(11)), 11);
    assert_eq!(t.end(4, "b", early, true), None, "it may have looked before");
    assert!(t.fills(5, e(1), "b", 2));
}

#[test]
fn rule_08_a_rename_over_a_name_of_the_same_blob_leaves_its_holders() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "b", 1));
    t.rename(2, "r1", ("a", "b"));
    t.renamed(3, "r1", CopyResult::Done(entry(9)), 11);
    t.skip();
    t.del(4, "d1", &["b"]);
    t.gives(&["s1 inv 1 b upto 11 e1"]);
}

#[test]
fn rule_14_who_was_away_is_told_of_a_rename_over_a_name_of_the_same_blob() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "a", 1));
    t.lost(1);
    // Its session is over before anything changes, so nobody waits for it, and it is not slow.
    t.tick(OVER_MS);
    t.rename(3_000, "r1", ("a", "b"));
    t.renamed(3_000, "r1", CopyResult::Done(entry(9)), 11);
    t.skip();
    t.resumes(3_001, A, 2, e(1), 10);
    t.obey();
    assert!(t.done.contains(&"s2 inv 1 a upto 10 e2".into()), "it holds what was unbound: {:?}", t.done);
}

#[test]
fn a_copy_drains_nobody_and_keeps_the_holders_of_its_source() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "a", 1));
    let early = t.begin(1, e(1), "b", 2);
    t.copy(2, "c1", ("a", "b"));
    t.gives(&["commit c1"]);
    assert!(!t.fills(3, e(1), "a", 3), "busy until it is visible (rule 7)");
    t.copied(3, "c1", CopyResult::Done(entry(11)), 11);
    t.skip();
    assert_eq!(t.end(4, "b", early, true), None, "rule 8");
    t.del(5, "d1", &["a"]);
    t.gives(&["s1 inv 1 a upto 11 e1"]);
}

#[test]
fn rule_05_changes_of_either_name_wait_for_a_rename_and_it_for_them() {
    let mut t = with_a();
    t.set(0, "w1", "b", None);
    t.rename(1, "r1", ("a", "b"));
    t.set(2, "w2", "a", None);
    t.set(2, "w3", "b", None);
    t.gives(&["commit w1"]);
    t.stored(3, "w1", 11);
    assert!(t.commits("r1"));
    t.renamed(4, "r1", CopyResult::Occupied(entry(11)), 11);
    t.obey();
    assert!(t.done.ends_with(&["commit w2".into(), "commit w3".into()]), "{:?}", t.done);
}

#[test]
fn rule_29_a_rename_waits_for_the_end_of_the_grace_and_a_copy_does_not() {
    let mut t = Table::restarted(2_010);
    t.copy(1, "c1", ("a", "b"));
    t.rename(1, "r1", ("c", "d"));
    t.gives(&["commit c1"]);
    t.tick(3_000);
    assert!(t.commits("r1"));
}

#[test]
fn a_rename_of_a_name_to_itself_is_one_name() {
    let mut t = with_a();
    t.submit_sparing(1, "r1", ("a", "a"), false);
    t.gives(&["commit r1"]);
    t.renamed(2, "r1", CopyResult::Unchanged(entry(5)), 10);
    assert!(t.m.queues.is_empty() && t.m.ops.is_empty());
}

#[test]
fn easy_to_get_wrong_a_rename_over_a_name_of_the_same_blob_is_a_change_that_who_was_away_missed() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "a", 1));
    t.lost(1);
    t.rename(OVER_MS, "r1", ("a", "b"));
    t.renamed(OVER_MS + 1, "r1", CopyResult::Done(entry(9)), 11);
    t.skip();
    t.resumes(OVER_MS + 2, A, 2, e(1), 10);
    t.obey();
    assert!(t.done.contains(&"s2 inv 1 a upto 10 e2".into()), "it is told that `a` is gone: {:?}", t.done);
}

#[test]
fn what_a_copy_or_a_rename_without_effect_left_alone_is_not_repeated_to_who_was_away() {
    let mut t = with_a();
    t.lost(1);
    t.copy(OVER_MS, "c1", ("a", "b"));
    t.copied(OVER_MS + 1, "c1", CopyResult::Done(entry(11)), 11);
    t.rename(OVER_MS + 2, "r1", ("a", "b"));
    t.renamed(OVER_MS + 3, "r1", CopyResult::Occupied(entry(11)), 11);
    t.skip();
    t.resumes(OVER_MS + 4, A, 2, e(1), 10);
    t.gives(&["s2 welcome e2 Resume, list", "s2 lease 0 e2"]);
}
