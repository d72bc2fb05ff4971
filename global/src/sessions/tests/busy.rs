//! From the mark to visibility: rules 5 to 10, 23 and 28.

use super::*;

/// A Global whose Local A, on stream 1 in e1, has just been let in.
fn with_a() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.gives(&["s1 welcome e1", "s1 lease 0 e1"]);
    t
}

#[test]
fn rule_05_a_name_is_first_come_first_served() {
    let mut t = Table::new();
    t.set(0, "w1", "k", None);
    t.del(1, "d1", &["k"]);
    t.set(2, "w2", "k", None);
    t.gives(&["commit w1"]);
    t.stored(3, "w1", 11);
    t.gives(&["w1: stored 11", "commit d1"]);
    t.removed(4, "d1", 12);
    t.gives(&["d1: removed 12", "commit w2"]);
}

#[test]
fn rule_05_an_op_of_several_names_takes_them_all_at_once_and_nobody_overtakes_it() {
    let mut t = Table::new();
    t.set(0, "w1", "b", None);
    t.del(1, "d1", &["a", "b", "absent"]);
    t.gives(&["commit w1"]);
    assert!(!t.m.is_busy(&name("a")), "nothing is marked before all is free");
    t.set(2, "w2", "a", None);
    t.set(2, "w3", "absent", None);
    t.set(2, "w4", "other", None);
    t.gives(&["commit w4"]);
    t.stored(3, "w1", 11);
    t.gives(&["w1: stored 11", "commit d1"]);
    for k in ["a", "b", "absent"] {
        assert!(t.m.is_busy(&name(k)));
    }
    t.removed(4, "d1", 12);
    t.gives(&["d1: removed 12", "commit w2", "commit w3"]);
}

#[test]
fn rule_05_ops_that_want_each_others_names_all_end() {
    let mut t = Table::new();
    t.del(0, "d1", &["a", "b"]);
    t.del(0, "d2", &["b", "c"]);
    t.del(0, "d3", &["c", "a"]);
    t.del(0, "d4", &["c", "c", "b", "a", "a"]);
    t.gives(&["commit d1"]);
    t.removed(1, "d1", 11);
    t.gives(&["d1: removed 11", "commit d2"]);
    t.removed(2, "d2", 12);
    t.gives(&["d2: removed 12", "commit d3"]);
    t.removed(3, "d3", 13);
    t.gives(&["d3: removed 13", "commit d4"]);
    t.removed(4, "d4", 14);
    t.gives(&["d4: removed 14"]);
    assert!(t.m.queues.is_empty() && t.m.ops.is_empty(), "nothing is left behind");
}

#[test]
fn rule_06_the_mark_fixes_who_is_waited_for() {
    let mut t = with_a();
    t.hello(0, B, 2);
    t.skip();
    assert!(t.fills(1, e(1), "k", 1));
    t.del(2, "d1", &["k", "other"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    assert!(t.m.is_busy(&name("k")), "marked in the same step");
    assert!(!t.fills(3, e(2), "k", 1), "B does not join");
    t.ack(4, 1, e(1), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_06_a_session_is_waited_for_until_its_last_inv_of_the_op() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "a", 1) && t.fills(1, e(1), "b", 2));
    t.del(2, "d1", &["a", "b"]);
    t.gives(&["s1 inv 1 a upto 10 e1", "s1 inv 2 b upto 10 e1"]);
    t.ack(3, 1, e(1), 1);
    t.gives_nothing();
    t.ack(4, 1, e(1), 2);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_06_nobody_is_invalidated_for_a_name_that_he_does_not_hold() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "k", 1));
    t.del(2, "d1", &["other"]);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_07_a_busy_name_registers_nobody() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "k", 1));
    t.hello(1, B, 2);
    t.del(2, "d1", &["k"]);
    assert!(!t.fills(3, e(1), "k", 2) && !t.fills(3, e(2), "k", 1), "while it drains");
    t.ack(4, 1, e(1), 1);
    assert!(!t.fills(5, e(1), "k", 3) && !t.fills(5, e(2), "k", 2), "while it is committed");
    assert_eq!(t.registrations(), 1);
    t.removed(6, "d1", 11);
    assert_eq!(t.registrations(), 0, "rule 8");
    assert!(t.fills(7, e(2), "k", 3), "visible: free again");
}

#[test]
fn rule_07_a_set_that_needs_no_drain_makes_its_name_busy_too() {
    let mut t = with_a();
    t.set(1, "w1", "k", None);
    t.gives(&["commit w1"]);
    assert!(t.m.is_busy(&name("k")));
    assert!(!t.fills(2, e(1), "k", 1));
    t.stored(3, "w1", 11);
    assert!(t.fills(4, e(1), "k", 2));
}

#[test]
fn rule_07_a_summary_of_a_busy_name_is_refused() {
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.del(1, "d1", &["k"]);
    t.skip();
    t.summary(2, 1, e(1), 1, &[("j", true), ("k", true)], false);
    t.gives(&["s1 summarized 1 refused [1] e1"]);
}

#[test]
fn rule_07_a_read_that_a_mark_overtakes_is_not_cached() {
    let mut t = with_a();
    let made = t.begin(1, e(1), "k", 1);
    t.del(2, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    assert_eq!(t.end(3, "k", made, true), None, "marked in between");
    t.ack(4, 1, e(1), 1);
    t.removed(5, "d1", 11);
    assert_eq!(t.end(6, "k", made, true), None, "gone in between");
    assert!(t.fills(7, e(1), "k", 2));
    assert_eq!(t.end(8, "k", made, true), None, "not the same registration");
}

#[test]
fn rule_07_a_read_over_a_whole_change_is_not_cached_for_a_wildcard_either() {
    let mut t = Table::with(Terms { holdings_max: 0, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello(0, A, 1);
    t.skip();
    let made = t.begin(1, e(1), "k", 1);
    assert!(made.is_some(), "a wildcard is a holder");
    t.del(2, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.ack(3, 1, e(1), 1);
    t.removed(4, "d1", 11);
    assert_eq!(t.end(5, "k", made, true), None);
    assert!(t.fills(6, e(1), "k", 2));
}

#[test]
fn rule_08_registrations_end_when_the_change_is_visible_and_not_before() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "k", 1));
    t.del(2, "d1", &["k"]);
    t.ack(3, 1, e(1), 1);
    assert_eq!(t.registrations(), 1, "not by the ack");
    t.lost(1);
    t.hello_again(4, A, 2, e(1));
    assert_eq!(t.registrations(), 1, "not by a stream event");
    t.removed(5, "d1", 11);
    assert_eq!(t.registrations(), 0);
}

#[test]
fn rule_08_a_change_that_was_not_made_leaves_the_registrations() {
    let mut t = with_a();
    assert!(t.fills(1, e(1), "k", 1));
    t.del(2, "d1", &["k"]);
    t.ack(3, 1, e(1), 1);
    t.finish(4, "d1", &Err(Error::exhausted("no room")), 10);
    t.skip();
    assert_eq!(t.registrations(), 1);
    t.del(5, "d2", &["k"]);
    t.gives(&["s1 inv 2 k upto 10 e1"]);
}

#[test]
fn rule_09_an_inv_covers_every_binding_up_to_the_head_at_the_mark() {
    let mut t = with_a();
    t.set(1, "w1", "j", None);
    t.stored(2, "w1", 15);
    assert!(t.fills(3, e(1), "k", 1));
    t.skip();
    t.del(4, "d1", &["k"]);
    t.set(4, "w2", "i", None);
    t.gives(&["s1 inv 1 k upto 15 e1", "commit w2"]);
    t.stored(5, "w2", 16);
    t.hello(6, B, 2);
    let head = "s2 inv 1 k upto 15 e2";
    t.gives(&["w2: stored 16", "s2 welcome e2", head, "s2 lease 0 e2"]);
}

#[test]
fn rule_23_who_set_a_name_is_registered_in_the_step_that_makes_it_visible() {
    let mut t = with_a();
    t.set(1, "w1", "k", Some((e(1), 5)));
    t.set(2, "w2", "k", Some((e(1), 6)));
    assert_eq!(t.registrations(), 0, "not before");
    t.stored(3, "w1", 11);
    t.gives(&["commit w1", "w1: stored 11, cache in e1", "commit w2"]);
    assert_eq!(t.registrations(), 1);
    t.occupied(4, "w2", 11);
    t.gives(&["w2: occupied 11"]);
    t.drop(5, 1, e(1), "k", 6);
    assert_eq!(t.registrations(), 1, "an Occupied reply registers nobody");
    t.del(6, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 11 e1"]);
}

#[test]
fn rule_23_a_read_that_fails_does_not_take_the_registration_of_an_own_set() {
    let mut t = with_a();
    t.set(1, "w1", "k", Some((e(1), 5)));
    t.stored(2, "w1", 11);
    let made = t.begin(3, e(1), "k", 6);
    assert_eq!(t.end(4, "k", made, false), None, "its bytes are damaged");
    t.skip();
    t.del(5, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 11 e1"]);
}

#[test]
fn rule_23_nobody_is_registered_whose_session_is_not_the_one_he_asked_in() {
    let mut t = with_a();
    t.set(1, "w1", "k", Some((e(1), 5)));
    t.hello_again(2, A, 2, e(1));
    t.skip();
    t.stored(3, "w1", 11);
    t.gives(&["w1: stored 11"]);
    t.set(4, "w2", "j", Some((older(2), 6)));
    t.stored(5, "w2", 12);
    t.gives(&["commit w2", "w2: stored 12"]);
    t.set(6, "w3", "i", Some((e(2), 7)));
    t.stored(2 + OVER_MS, "w3", 13);
    t.gives(&["commit w3", "s2 close", "w3: stored 13"]);
    assert_eq!(t.registrations(), 0);
}

#[test]
fn rule_23_an_unchanged_reply_registers_nobody() {
    let mut t = with_a();
    t.set(1, "w1", "k", Some((e(1), 5)));
    t.finish(2, "w1", &Ok(Outcome::Set(SetOutcome::Unchanged(entry(9)))), 10);
    assert_eq!(t.registrations(), 0);
}

#[test]
fn rule_28_an_absent_answer_is_not_cached_and_leaves_no_registration() {
    let mut t = with_a();
    let made = t.begin(1, e(1), "k", 1);
    assert_eq!(t.end(1, "k", made, false), None);
    assert_eq!(t.registrations(), 0);
    t.del(2, "d1", &["k"]);
    t.gives(&["commit d1"]);
}

#[test]
fn a_summary_of_an_old_binding_takes_no_registration_from_a_read_of_the_new_one() {
    // The Local lists k as it held it before it was cut off, and asks for it anew; Global sees the question
    // first, then the listing, which does not agree with the binding.
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.skip();
    assert!(t.fills(1, e(1), "k", 1), "the Local may hold k from now on");
    t.summary(2, 1, e(1), 1, &[("k", false)], false);
    t.summary(3, 1, e(1), 2, &[], true);
    t.summary(4, 1, e(1), 3, &[], true);
    t.skip();
    t.del(5, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
}

#[test]
fn a_read_that_finds_nothing_breaks_no_other_read_of_the_same_session_unseen() {
    for order in [[5, 6], [6, 5]] {
        let mut t = with_a();
        let first = t.begin(1, e(1), "k", order[0]);
        let second = t.begin(2, e(1), "k", order[1]);
        assert_eq!(t.end(3, "k", first, false), None);
        let cacheable = t.end(4, "k", second, true).is_some();
        t.del(5, "d1", &["k"]);
        let told = if cacheable { "s1 inv 1 k upto 10 e1" } else { "commit d1" };
        t.gives(&[told]);

        let mut t = with_a();
        let first = t.begin(1, e(1), "k", order[0]);
        let second = t.begin(2, e(1), "k", order[1]);
        assert!(t.end(3, "k", second, true).is_some());
        assert_eq!(t.end(4, "k", first, false), None);
        t.del(5, "d1", &["k"]);
        t.gives(&["s1 inv 1 k upto 10 e1"]);
    }
}
