//! Names that are bound anew while they are bound, expire, or change together: who is waited for, and who is not.

use super::*;
use dstore_shared::{Decision, TransactionOutcome};

impl Table {
    /// A change of `names`, of which the holders of `spared` are not waited for.
    fn apply(&mut self, ms: u64, label: &'static str, names: &[&str], spared: &[&str]) {
        let n = self.ids.len() as u64 + 1;
        let id = RequestId { client: ClientId(7), n, born: self.m.born(at(ms)) };
        self.ids.insert(label, (id, None));
        let change = Submission {
            id,
            names: names.iter().map(|k| name(k)).collect(),
            drains: names.len() > spared.len(),
            spared: spared.iter().map(|k| name(k)).collect(),
            mode: DeleteMode::Strict,
            job: label,
            caller: None,
            responder: label,
        };
        self.m.submit(at(ms), change);
    }

    /// It was done, and made void what was held of these of its names.
    fn applied(&mut self, ms: u64, label: &str, head: u64, void: &[&str]) {
        self.obey();
        let op = self.ids[label].1.expect("committing");
        let decision = Decision::Done(Vec::new());
        let outcome = TransactionOutcome { decision, revision: Revision(head), at_ms: 5 };
        let outcome = Outcome::Transaction(outcome.into());
        let void: Vec<Name> = void.iter().map(|k| name(k)).collect();
        self.m.finish_changed(at(ms), op, outcome, Revision(head), &void);
    }

    /// The committer will not do it before everybody was waited for.
    fn undrained(&mut self, ms: u64, label: &'static str) {
        self.obey();
        let op = self.ids[label].1.expect("committing");
        self.m.drain_first(at(ms), op, label);
    }
}

fn with_both() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    t.skip();
    t
}

#[test]
fn rule_06_a_set_that_replaces_waits_for_the_holders_and_its_requester_may_keep_the_new_value() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "k", 1) && t.fills(1, e(2), "k", 1));
    t.skip();
    t.submit(2, "w1", &["k"], true, Some((e(1), 9)));
    t.gives(&["s1 inv 1 k upto 10 e1", "s2 inv 1 k upto 10 e2"]);
    t.ack(3, 1, e(1), 1);
    t.gives(&[]);
    assert!(!t.fills(3, e(1), "k", 2), "busy until it is visible (rule 7)");
    t.ack(4, 2, e(2), 1);
    t.gives(&["commit w1"]);
    t.stored(5, "w1", 11);
    t.gives(&["w1: stored 11, cache in e1"]);
    // Only it holds the name now.
    t.submit(6, "w2", &["k"], true, None);
    t.gives(&["s1 inv 2 k upto 11 e1"]);
}

#[test]
fn rule_09_a_transaction_drains_what_it_may_change_and_spares_what_it_reads_or_binds_anew() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "a", 1) && t.fills(1, e(2), "b", 1) && t.fills(1, e(2), "c", 2));
    t.skip();
    t.apply(2, "t1", &["a", "b", "c"], &["b", "c"]);
    t.gives(&["s1 inv 1 a upto 10 e1"]);
    assert!(["a", "b", "c"].iter().all(|k| t.m.is_busy(&name(k))), "all are its own");
    t.ack(3, 1, e(1), 1);
    t.applied(4, "t1", 11, &["a", "b"]);
    t.gives(&["commit t1", "t1: applied 11"]);
    t.del(5, "d1", &["a", "b", "c"]);
    // Of what was changed nobody holds anything, of what was read its holders still do.
    t.gives(&["s2 inv 1 c upto 11 e2"]);
}

#[test]
fn rule_09_what_the_committer_sends_back_waits_for_every_holder_before_it_is_done() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "a", 1) && t.fills(1, e(2), "b", 1));
    t.skip();
    t.apply(2, "t1", &["a", "b"], &["a", "b"]);
    t.gives(&["commit t1"]);
    t.undrained(3, "t1");
    t.gives(&["s1 inv 1 a upto 10 e1", "s2 inv 1 b upto 10 e2"]);
    t.ack(4, 1, e(1), 1);
    t.gives(&[]);
    assert!(t.m.is_busy(&name("a")) && !t.fills(4, e(1), "a", 2), "busy all the while");
    t.ack(5, 2, e(2), 1);
    t.gives(&["commit t1"]);
    t.applied(6, "t1", 11, &["a"]);
    t.gives(&["t1: applied 11"]);
    assert!(t.fills(7, e(1), "a", 3), "free again");
}

#[test]
fn easy_to_get_wrong_who_holds_a_name_that_lives_longer_is_told_of_its_next_change() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "k", 1));
    t.skip();
    // It drains nobody, so A goes on serving what it has.
    t.apply(2, "t1", &["k"], &["k"]);
    t.applied(3, "t1", 11, &[]);
    t.gives(&["commit t1", "t1: applied 11"]);
    t.del(4, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 11 e1"]);
}

#[test]
fn rule_29_what_the_committer_sends_back_waits_for_the_grace() {
    let mut t = Table::restarted(2_010);
    t.apply(1, "t1", &["a"], &["a"]);
    t.gives(&["commit t1"]);
    t.undrained(2, "t1");
    t.gives(&[]);
    t.tick(2_010);
    t.gives(&["commit t1"]);
}

#[test]
fn easy_to_get_wrong_the_end_of_an_absence_does_not_end_the_wait_for_a_holder() {
    let mut t = Table::new();
    t.hello_keeping(0, A, 1, None);
    t.skip();
    // A serves that `a` is absent, and holds `b`.
    assert!(t.misses(1, e(1), "a", 1) && t.fills(1, e(1), "b", 2));
    t.apply(2, "t1", &["a", "b"], &["a", "b"]);
    t.gives(&["s1 inv 1 a upto 10 e1"]);
    // The absence runs out unacknowledged: the work goes to the committer, who sends it back.
    t.tick(510);
    t.gives(&["commit t1"]);
    t.undrained(511, "t1");
    t.obey();
    assert!(t.done.iter().any(|done| done.contains("inv") && done.contains(" b ")), "{:?}", t.done);
    t.skip();
    // The acknowledgement of the first INV says nothing of the second.
    t.ack(512, 1, e(1), 1);
    t.tick(520);
    t.gives(&[]);
    t.ack(521, 1, e(1), 3);
    t.gives(&["commit t1"]);
}

#[test]
fn rule_14_who_was_away_is_told_of_what_a_transaction_changed_and_of_nothing_else() {
    let mut t = with_both();
    assert!(t.fills(1, e(1), "a", 1));
    t.lost(1);
    t.tick(OVER_MS);
    t.apply(OVER_MS + 1, "t1", &["a", "b"], &["b"]);
    t.applied(OVER_MS + 2, "t1", 11, &["a"]);
    t.skip();
    t.resumes(OVER_MS + 3, A, 3, e(1), 10);
    t.gives(&["s3 welcome e3 Resume, list", "s3 inv 1 a upto 10 e3", "s3 lease 0 e3"]);
}
