//! A request is executed once, however often it comes: rules 24 to 26.

use super::*;

#[test]
fn rule_24_a_retry_joins_while_the_op_is_queued_and_while_it_drains() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    assert!(t.fills(1, e(1), "k", 1));
    t.skip();
    t.del(2, "d1", &["k"]);
    t.del(2, "d2", &["k"]);
    t.del(3, "d1", &["k"]);
    t.del(3, "d2", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.ack(4, 1, e(1), 1);
    t.del(5, "d1", &["k"]);
    t.removed(6, "d1", 11);
    t.gives(&["commit d1", "d1: removed 11", "d1: removed 11", "d1: removed 11", "commit d2"]);
    t.removed(7, "d2", 12);
    t.gives(&["d2: removed 12", "d2: removed 12"]);
}

#[test]
fn rule_24_a_retry_of_a_finished_op_gets_the_recorded_result() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.set(1, "w1", "k", Some((e(1), 1)));
    t.stored(2, "w1", 11);
    t.skip();
    t.set(3, "w1", "k", Some((e(1), 1)));
    t.gives(&["w1: stored 11"]);
}

#[test]
fn rule_25_a_result_without_effect_is_recorded_too() {
    let mut t = Table::new();
    t.set(0, "w1", "k", None);
    t.occupied(1, "w1", 9);
    t.del(2, "d1", &["absent"]);
    t.removed(3, "d1", 10);
    t.skip();
    // Now k is free and `absent` is bound: the late duplicates would do something.
    t.set(4, "w1", "k", None);
    t.del(5, "d1", &["absent"]);
    t.gives(&["w1: occupied 9", "d1: removed 10"]);
}

#[test]
fn rule_25_what_was_not_done_may_come_again() {
    let mut t = Table::new();
    t.set(0, "w1", "k", None);
    t.finish(1, "w1", &Ok(Outcome::Set(SetOutcome::NeedBlob)), 10);
    t.gives(&["commit w1", "w1: NeedBlob"]);
    t.set(2, "w1", "k", None);
    t.gives(&["commit w1"]);
    t.finish(3, "w1", &Err(Error::exhausted("no room")), 10);
    t.gives(&["w1: Exhausted"]);
    t.set(4, "w1", "k", None);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_26_after_a_restart_only_the_durable_table_answers() {
    let mut t = Table::restarted(0);
    let born = Born { history: HISTORY, boot: BOOT - 1, at_ms: 4 };
    let known = RequestId { client: ClientId(7), n: 1, born };
    let removed = DeleteOutcome { removed: vec![true], revision: Revision(9) };
    t.m.restore_outcome(known, Outcome::Delete(removed));
    t.ids.insert("d1", (known, None));
    t.ids.insert("d2", (RequestId { n: 2, ..known }, None));
    t.del(0, "d1", &["k"]);
    t.del(0, "d2", &["k"]);
    t.gives(&["d1: removed 9", "d2: Closed"]);
}

#[test]
fn rule_26_an_attempt_of_another_history_is_refused() {
    let mut t = Table::new();
    let born = Born { history: HistoryId(1), boot: BOOT, at_ms: 0 };
    t.ids.insert("d1", (RequestId { client: ClientId(7), n: 1, born }, None));
    t.del(0, "d1", &["k"]);
    t.gives(&["d1: Closed"]);
}
