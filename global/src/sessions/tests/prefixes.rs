//! A DEL by prefix wants every name under it, existing or not: rules 5 to 9 and 14.

use super::*;
use dstore_shared::{Namespace, Prefix, PrefixOutcome};

const C: Life = Life { local: 3, incarnation: 1 };

impl Table {
    /// As for a change of names, an attempt under the same label is a retry.
    fn del_prefix(&mut self, ms: u64, label: &'static str, prefix: &str) {
        let n = self.ids.len() as u64 + 1;
        let new = RequestId { client: ClientId(7), n, born: self.m.born(at(ms)) };
        let id = self.ids.entry(label).or_insert((new, None)).0;
        let prefix = Prefix::new(&Namespace::default(), prefix.as_bytes()).unwrap();
        let change = Submission {
            id,
            names: Vec::new(),
            drains: true,
            spared: Vec::new(),
            mode: DeleteMode::Strict,
            job: label,
            caller: None,
            responder: label,
        };
        self.m.submit_prefix(at(ms), prefix, change);
    }

    fn removed_prefix(&mut self, ms: u64, label: &str, head: u64, gone: &[&str]) {
        self.obey();
        let names: Vec<Name> = gone.iter().map(|k| name(k)).collect();
        let done = PrefixOutcome { removed: names.len() as u64, revision: Revision(head) };
        let op = self.ids[label].1.expect("committing");
        self.m.finish_prefix(at(ms), op, Outcome::DeletePrefix(done), Revision(head), &names);
    }
}

/// A Global whose Locals A and B, on streams 1 and 2, have just been let in.
fn with_both() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    t.skip();
    t
}

#[test]
fn rule_05_a_set_into_a_prefix_queues_behind_it_whether_or_not_its_name_exists() {
    let mut t = with_both();
    t.del_prefix(1, "p1", "a/");
    t.gives(&["s1 inv 1 a/* upto 10 e1", "s2 inv 1 a/* upto 10 e2"]);
    t.set(2, "w1", "a/new", None);
    t.set(2, "w2", "b/new", None);
    t.del(2, "d1", &["b/x", "a/x"]);
    t.gives(&["commit w2"]);
    t.ack(3, 1, e(1), 1);
    t.gives_nothing();
    t.ack(4, 2, e(2), 1);
    t.gives(&["commit p1"]);
    t.stored(5, "w2", 11);
    t.removed_prefix(6, "p1", 12, &["a/1"]);
    t.gives(&["w2: stored 11", "p1: removed 1 at 12", "commit w1", "commit d1"]);
    t.stored(7, "w1", 13);
    t.removed(8, "d1", 14);
    t.gives(&["w1: stored 13", "d1: removed 14"]);
    assert!(t.m.queues.is_empty() && t.m.ops.is_empty() && t.m.prefixes.is_empty(), "nothing is left behind");
    assert_eq!(t.m.names_wanted, 0);
}

#[test]
fn rule_05_a_prefix_waits_for_every_earlier_op_under_it_queued_ones_too() {
    let mut t = Table::new();
    t.set(0, "w1", "a/1", None);
    t.del(0, "d1", &["a/1"]);
    t.set(0, "w2", "other", None);
    t.del_prefix(1, "p1", "a");
    // It would be created by an op that came before, so it counts.
    t.set(1, "w3", "a/2", None);
    t.gives(&["commit w1", "commit w2"]);
    assert!(!t.m.is_busy(&name("a/9")), "nothing is marked before all is free");
    t.stored(2, "w1", 11);
    t.gives(&["w1: stored 11", "commit d1"]);
    t.removed(3, "d1", 12);
    t.gives(&["d1: removed 12", "commit p1"]);
    assert!(t.m.is_busy(&name("a/9")) && t.m.is_busy(&name("a/1")) && !t.m.is_busy(&name("b")));
    t.removed_prefix(4, "p1", 13, &[]);
    t.gives(&["p1: removed 0 at 13", "commit w3"]);
    t.stored(5, "w3", 14);
    t.stored(5, "w2", 15);
    t.skip();
    assert!(t.m.ops.is_empty());
}

#[test]
fn rule_05_overlap_of_prefixes_is_tested_both_ways_and_all_of_them_end() {
    let mut t = Table::new();
    t.del_prefix(0, "p1", "a/b/");
    t.del_prefix(0, "p2", "a/");
    t.del_prefix(0, "p3", "a/b/c");
    t.del_prefix(0, "p4", "b");
    t.del_prefix(0, "p5", "");
    t.set(0, "w1", "z", None);
    t.gives(&["commit p1", "commit p4"]);
    t.removed_prefix(1, "p1", 11, &[]);
    t.gives(&["p1: removed 0 at 11", "commit p2"]);
    t.removed_prefix(2, "p2", 12, &[]);
    t.gives(&["p2: removed 0 at 12", "commit p3"]);
    t.removed_prefix(3, "p3", 13, &[]);
    t.gives(&["p3: removed 0 at 13"]);
    t.removed_prefix(4, "p4", 14, &[]);
    t.gives(&["p4: removed 0 at 14", "commit p5"]);
    t.removed_prefix(5, "p5", 15, &[]);
    t.gives(&["p5: removed 0 at 15", "commit w1"]);
}

#[test]
fn rule_07_under_a_busy_prefix_nobody_registers_and_a_read_that_it_overtook_is_not_cached() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "a/held", 1));
    let before = t.begin(1, e(1), "a/late", 2);
    let elsewhere = t.begin(1, e(1), "b", 3);
    t.del_prefix(2, "p1", "a/");
    t.skip();
    assert!(t.begin(3, e(1), "a/late", 4).is_none(), "busy");
    assert!(t.fills(3, e(2), "b", 1), "not under it");
    t.ack(3, 1, e(1), 1);
    t.ack(3, 2, e(2), 1);
    t.gives(&["commit p1"]);
    assert!(t.begin(4, e(1), "a/late", 5).is_none(), "until it is visible");
    t.removed_prefix(5, "p1", 11, &["a/held", "a/late"]);
    assert_eq!(t.end(6, "a/late", before, true), None, "it may have seen what is gone");
    assert_eq!(t.end(6, "b", elsewhere, true), None, "which names it was about is not noted");
    assert!(t.fills(7, e(1), "a/late", 6), "free again");
    t.skip();
    t.del(8, "d1", &["a/held"]);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_14_a_prefix_that_drains_is_repeated_to_whoever_comes_and_he_is_waited_for_only_if_he_was() {
    let mut t = with_both();
    t.del_prefix(1, "p1", "a/");
    t.skip();
    t.hello_again(2, A, 3, e(1));
    t.gives(&["s1 close", "s3 welcome e3", "s3 inv 1 a/* upto 10 e3", "s3 lease 0 e3"]);
    t.hello(3, C, 4);
    t.gives(&["s4 welcome e4", "s4 inv 1 a/* upto 10 e4", "s4 lease 0 e4"]);
    t.ack(4, 2, e(2), 1);
    t.gives_nothing();
    t.ack(5, 3, e(3), 1);
    t.gives(&["commit p1"]);
}

#[test]
fn rule_18_a_prefix_waits_for_a_silent_local_until_its_lease_has_run_out() {
    let mut t = with_both();
    t.del_prefix(1, "p1", "a/");
    t.ack(2, 2, e(2), 1);
    t.skip();
    t.keep(OVER_MS - 5, 2, e(2), 1, 1);
    t.skip();
    t.tick(OVER_MS);
    t.gives(&["s1 close", "commit p1"]);
}

#[test]
fn rule_24_a_repeated_delete_by_prefix_joins_it_or_is_told_what_it_did() {
    let mut t = Table::new();
    t.del_prefix(0, "p1", "a/");
    t.gives(&["commit p1"]);
    t.del_prefix(1, "p1", "a/");
    t.gives_nothing();
    t.removed_prefix(2, "p1", 11, &["a/1", "a/2"]);
    t.gives(&["p1: removed 2 at 11", "p1: removed 2 at 11"]);
    t.del_prefix(3, "p1", "a/");
    t.gives(&["p1: removed 2 at 11"]);
}

#[test]
fn there_is_a_bound_on_prefixes_and_a_refused_one_may_come_again() {
    let mut t = Table::new();
    let labels: Vec<&'static str> = (0..65).map(|i| &*format!("p{i}").leak()).collect();
    for label in &labels {
        t.del_prefix(0, label, "a/");
    }
    t.gives(&["commit p0", "p64: Exhausted"]);
    t.removed_prefix(1, "p0", 11, &[]);
    t.gives(&["p0: removed 0 at 11", "commit p1"]);
    t.del_prefix(2, "p64", "b/");
    t.gives(&["commit p64"]);
}

#[test]
fn rule_14_a_prefix_that_unbound_only_names_whose_time_was_over_is_repeated_too() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    assert!(t.fills(1, e(1), "a/1", 1));
    t.skip();
    // Its lease runs out while nobody waits for it.
    t.tick(OVER_MS);
    t.skip();
    t.del_prefix(OVER_MS + 1, "p1", "a/");
    t.gives(&["commit p1"]);
    // As the committer counts: the one name under it was overdue, so nobody is told that it was removed.
    t.obey();
    let op = t.ids["p1"].1.expect("committing");
    let done = PrefixOutcome { removed: 0, revision: Revision(11) };
    t.m.finish_prefix(at(OVER_MS + 2), op, Outcome::DeletePrefix(done), Revision(11), &[name("a/1")]);
    t.skip();
    t.resumes(OVER_MS + 3, A, 3, e(1), 10);
    t.gives(&["s3 welcome e2 Resume, list", "s3 inv 1 a/* upto 10 e2", "s3 lease 0 e2"]);
}
