//! Answers before the drain, and absent names that are kept: rules 27, 28 and 29.

use super::*;

/// A + D(1+ρ): how long an asynchronous DEL may leave the old value with others.
const BOUND_MS: u64 = ACK_MAX_MS + OVER_MS;
/// 500 ms lengthened by ρ.
const ABSENCE_MS: u64 = 503;

/// A Global whose Local A, in e1, holds k.
fn a_holds_k() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    assert!(t.fills(0, e(1), "k", 1));
    t.skip();
    t
}

/// A Global whose Local A, in e1, keeps absent names, and knows since 10 ms that k is one.
fn a_keeps_absent_k() -> Table {
    let mut t = Table::new();
    t.hello_keeping(0, A, 1, None);
    assert!(t.misses(10, e(1), "k", 1));
    t.skip();
    t
}

// ---- 27: asynchronous DELs

#[test]
fn rule_27_an_async_del_commits_before_anybody_has_acknowledged_and_states_its_bound() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1", "commit d1"]);
    t.removed(20, "d1", 11);
    t.gives(&["d1: removed 11, stale for 2260 ms"]);
    assert!(t.m.is_busy(&name("k")), "until it is drained");
    assert!(!t.fills(21, e(1), "k", 2), "a read registers nobody meanwhile");
    t.ack(30, 1, e(1), 1);
    assert!(!t.m.is_busy(&name("k")));
    assert!(t.fills(31, e(1), "k", 3));
    assert_eq!(t.m.counts().ops, 0);
}

#[test]
fn rule_27_after_the_acks_of_all_nothing_is_stale_and_no_bound_is_stated() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.skip();
    t.ack(11, 1, e(1), 1);
    t.removed(20, "d1", 11);
    t.gives(&["d1: removed 11"]);
    assert!(!t.m.is_busy(&name("k")));
}

#[test]
fn easy_to_get_wrong_an_async_del_does_not_free_the_name_at_commit() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.removed(20, "d1", 11);
    t.skip();
    t.set(21, "w1", "k", None);
    t.del(22, "d2", &["k", "other"]);
    t.del_async(23, "d3", &["other", "k"]);
    t.gives_nothing();
    t.ack(30, 1, e(1), 1);
    t.gives(&["commit w1"]);
    t.stored(31, "w1", 12);
    t.gives(&["w1: stored 12", "commit d2"]);
}

#[test]
fn rule_27_the_drain_after_an_async_del_is_bounded_and_its_age_counts_from_visibility() {
    let mut t = a_holds_k();
    t.del_async(0, "d1", &["k"]);
    t.skip();
    // The disk takes a second. Until it has, nobody need have acknowledged.
    t.keep(900, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
    t.removed(1_000, "d1", 11);
    t.gives(&["d1: removed 11, stale for 2260 ms"]);
    t.keep(1_000 + ACK_MAX_MS - 1, 1, e(1), 2, 0);
    t.gives(&["s1 lease 2 e1"]);
    t.keep(1_000 + ACK_MAX_MS, 1, e(1), 3, 0);
    t.gives_nothing();
    t.set(1_500, "w1", "k", None);
    let end = 1_000 + ACK_MAX_MS - 1 + OVER_MS;
    assert!(end <= 1_000 + BOUND_MS, "as was stated");
    t.tick(end - 1);
    t.gives_nothing();
    t.tick(end);
    t.gives(&["s1 close", "commit w1"]);
}

#[test]
fn rule_27_a_repeated_async_del_is_told_what_is_left_and_a_strict_attempt_waits_for_the_drain() {
    let mut t = a_holds_k();
    t.del_async(0, "d1", &["k"]);
    t.removed(10, "d1", 11);
    t.skip();
    t.del_async(1_010, "d1", &["k"]);
    t.gives(&["d1: removed 11, stale for 1260 ms"]);
    t.del(1_020, "d1", &["k"]);
    t.del_within(1_020, "d1", &["k"], 100);
    t.gives_nothing();
    t.tick(1_120);
    t.gives(&["d1: Pending"]);
    t.ack(1_200, 1, e(1), 1);
    t.gives(&["d1: removed 11"]);
    t.del_async(1_210, "d1", &["k"]);
    t.gives(&["d1: removed 11"]);
}

#[test]
fn rule_27_a_strict_attempt_that_comes_before_an_async_del_is_visible_waits_for_its_drain() {
    let mut t = a_holds_k();
    t.del_async(0, "d1", &["k"]);
    t.del(1, "d1", &["k"]);
    t.del_within(1, "d1", &["k"], 100);
    t.del_async(1, "d1", &["k"]);
    t.skip();
    t.removed(10, "d1", 11);
    let early = "d1: removed 11, stale for 2260 ms";
    t.gives(&[early, early]);
    t.tick(101);
    t.gives(&["d1: Pending"]);
    t.ack(200, 1, e(1), 1);
    t.gives(&["d1: removed 11"]);
    assert!(t.m.deadlines.is_empty() && t.m.settling.is_empty() && t.m.ops.is_empty());
}

#[test]
fn rule_27_a_session_that_returns_while_an_async_del_settles_is_told_and_still_waited_for() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.removed(20, "d1", 11);
    t.set(21, "w1", "k", None);
    t.skip();
    t.hello_again(100, A, 2, e(1));
    t.gives(&["s1 close", "s2 welcome e2", "s2 inv 1 k upto 10 e2", "s2 lease 0 e2"]);
    t.ack(110, 2, e(2), 1);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_27_an_async_del_that_fails_frees_its_names() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.finish(20, "d1", &Err(Error::exhausted("full")), 0);
    t.set(21, "w1", "k", None);
    t.gives(&["s1 inv 1 k upto 10 e1", "commit d1", "d1: Exhausted", "commit w1"]);
    // Its INV is still owed, but nobody waits.
    t.keep(500, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
}

#[test]
fn rule_27_in_the_grace_an_async_del_commits_at_once_and_settles_until_its_end() {
    let mut t = Table::restarted(OVER_MS);
    t.del_async(100, "d1", &["k"]);
    t.del(100, "d2", &["j"]);
    t.gives(&["commit d1"]);
    t.removed(110, "d1", 11);
    t.gives(&["d1: removed 11, stale for 2260 ms"]);
    t.set(120, "w1", "k", None);
    t.gives_nothing();
    t.tick(OVER_MS);
    t.gives(&["commit w1", "commit d2"]);
}

#[test]
fn rule_29_after_a_crash_an_async_del_of_before_is_repeated_with_the_grace_as_its_bound() {
    let mut t = Table::restarted(OVER_MS);
    let id = RequestId { client: ClientId(7), n: 1, born: Born { boot: BOOT - 1, ..t.m.born(at(0)) } };
    let outcome = DeleteOutcome { removed: vec![true], revision: Revision(9) };
    t.m.restore_outcome(id, Outcome::Delete(outcome));
    t.ids.insert("d1", (id, None));
    t.del_async(10, "d1", &["k"]);
    t.gives(&["d1: removed 9, stale for 2000 ms"]);
}

#[test]
fn rule_29_a_set_waits_for_the_grace_if_an_async_del_may_have_been_cut_short_or_absences_were_leased() {
    let terms = Terms::for_lease(Duration::from_millis(LEASE_MS));
    let mut t = Table::that_knows(terms, OVER_MS, true);
    t.set(0, "w1", "k", None);
    t.del_async(0, "d1", &["j"]);
    t.gives(&["commit d1"]);
    t.tick(OVER_MS);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_29_a_stop_waits_for_those_whom_an_async_del_has_not_reached() {
    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.removed(20, "d1", 11);
    t.m.retire(at(30));
    assert!(!t.m.is_quiet(at(30)));
    t.bye(40, 1, e(1));
    assert!(t.m.is_quiet(at(40)));
    assert_eq!(t.m.counts().ops, 0);
}

// ---- 27: deadlines

#[test]
fn rule_27_a_del_with_a_deadline_is_pending_after_it_and_goes_on() {
    let mut t = a_holds_k();
    t.del_within(10, "d1", &["k"], 100);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    assert_eq!(t.m.next_deadline(), Some(at(110)));
    t.tick(109);
    t.gives_nothing();
    t.tick(110);
    t.gives(&["d1: Pending"]);
    t.ack(120, 1, e(1), 1);
    t.gives(&["commit d1"]);
    t.del_within(130, "d1", &["k"], 100);
    t.removed(140, "d1", 11);
    t.gives(&["d1: removed 11"]);
    t.del_within(150, "d1", &["k"], 0);
    t.gives(&["d1: removed 11"]);
    assert_eq!(t.m.next_deadline(), Some(at(OVER_MS)), "no deadline is left behind");
}

#[test]
fn rule_27_each_attempt_has_its_own_deadline_and_a_strict_one_has_none() {
    let mut t = a_holds_k();
    t.del(0, "d1", &["k"]);
    t.del_within(0, "d1", &["k"], 500);
    t.del_within(0, "d1", &["k"], 100);
    t.skip();
    t.tick(100);
    t.gives(&["d1: Pending"]);
    t.tick(500);
    t.gives(&["d1: Pending"]);
    t.tick(OVER_MS);
    t.gives(&["s1 close", "commit d1"]);
    t.removed(OVER_MS, "d1", 11);
    t.gives(&["d1: removed 11"]);
}

#[test]
fn rule_27_a_pending_answer_names_whom_the_op_waits_for_or_what() {
    let pending = |mut t: Table, ms: u64| {
        t.tick(ms);
        let answers = t.m.take_actions().into_iter();
        let mut texts = answers.filter_map(|action| match action {
            Action::Answer(_, Err(e)) if e.kind() == Kind::Pending => Some(e.message().to_owned()),
            _ => None,
        });
        texts.next().expect("a pending answer")
    };
    let rest = ": not durable yet, it goes on; ask again with the same request id";
    let mut t = a_holds_k();
    t.del_within(10, "d1", &["k"], 1);
    assert_eq!(pending(t, 11), format!("waiting for `local 1.1`{rest}"));

    let mut t = a_holds_k();
    t.del(10, "d1", &["k"]);
    t.del_within(10, "d2", &["other", "k"], 1);
    assert_eq!(pending(t, 11), format!("waiting for `local 1.1`{rest}"), "it queues behind d1");

    let mut t = Table::restarted(OVER_MS);
    t.del_within(10, "d1", &["k"], 1);
    assert_eq!(pending(t, 11), format!("waiting for leases of before the restart of global{rest}"));

    let mut t = Table::new();
    t.del_within(10, "d1", &["k"], 1);
    assert_eq!(pending(t, 11), format!("waiting for the disk of global{rest}"));

    let mut t = Table::new();
    t.set(9, "w1", "k", None);
    t.del_within(10, "d1", &["k"], 1);
    assert_eq!(pending(t, 11), format!("waiting for an earlier change of the key{rest}"));

    let mut t = a_holds_k();
    t.del_async(10, "d1", &["k"]);
    t.removed(11, "d1", 11);
    t.skip();
    t.del_within(12, "d1", &["k"], 1);
    let rest = ": durable, but the old value may still be read there; ask again with the same request id";
    assert_eq!(pending(t, 13), format!("waiting for `local 1.1`{rest}"), "it settles");

    let mut t = Table::new();
    for local in 1..=7 {
        t.hello(0, Life { local, incarnation: 1 }, local as u64);
        assert!(t.fills(0, e(local as u64), "k", 1));
    }
    t.del_within(10, "d1", &["k"], 1);
    let text = pending(t, 11);
    assert!(
        text.starts_with("waiting for `local 1.1`, `local 2.1`") && text.contains(" and 2 more:"),
        "{text}"
    );
}

#[test]
fn a_client_gone_wild_with_deadlines_leaves_nothing_behind() {
    let mut t = a_holds_k();
    t.del(0, "d1", &["k"]);
    for ms in 0..100 {
        t.del_within(ms, "d1", &["k"], 10_000 + ms);
    }
    t.skip();
    assert!(t.m.deadlines.len() < 64, "attempts of one op are bounded");
    t.ack(200, 1, e(1), 1);
    t.removed(201, "d1", 11);
    assert!(t.m.deadlines.is_empty() && t.m.settling.is_empty());
}

// ---- 28: absent names

#[test]
fn rule_28_without_a_session_that_keeps_them_an_absent_answer_registers_nobody() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.skip();
    assert!(!t.misses(1, e(1), "k", 1));
    assert_eq!(t.registrations(), 0);
    t.set(2, "w1", "k", None);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_a_set_over_an_absence_that_is_kept_drains_like_a_del() {
    let mut t = a_keeps_absent_k();
    t.set(20, "w1", "k", None);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    assert!(!t.misses(21, e(1), "k", 2), "it is busy");
    t.ack(30, 1, e(1), 1);
    t.gives(&["commit w1"]);
    t.stored(31, "w1", 11);
    assert_eq!(t.registrations(), 0);
    t.set(40, "w2", "k", None);
    t.gives(&["w1: stored 11", "commit w2"]);
}

#[test]
fn rule_28_a_set_waits_for_the_term_of_an_absence_and_not_for_the_lease() {
    let mut t = a_keeps_absent_k();
    t.set(20, "w1", "k", None);
    t.skip();
    // 10 ms, when it was answered, and the term.
    assert_eq!(t.m.next_deadline(), Some(Moment::from_nanos((1_010 + 500) * 1_000_000 + 2_500_000)));
    t.tick(10 + ABSENCE_MS - 1);
    t.gives_nothing();
    t.tick(10 + ABSENCE_MS);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_an_absence_whose_term_is_over_is_not_waited_for_at_all() {
    let mut t = a_keeps_absent_k();
    t.set(10 + ABSENCE_MS, "w1", "k", None);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_each_reading_begins_the_term_anew() {
    let mut t = a_keeps_absent_k();
    assert!(t.misses(400, e(1), "k", 2));
    t.set(600, "w1", "k", None);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.tick(400 + ABSENCE_MS - 1);
    t.gives_nothing();
    t.tick(400 + ABSENCE_MS);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_a_wildcard_that_keeps_absences_is_told_of_every_set_and_others_are_not() {
    let mut t = Table::with(Terms { holdings_max: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello_keeping(0, A, 1, None);
    t.hello(0, B, 2);
    assert!(t.fills(1, e(2), "full", 1));
    assert!(t.misses(1, e(1), "j", 1), "as a wildcard");
    assert!(t.fills(1, e(2), "other", 2), "this one too");
    t.skip();
    t.set(2, "w1", "k", None);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.tick(1_000);
    t.gives_nothing();
    t.ack(1_001, 1, e(1), 1);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_who_kept_absences_is_told_of_sets_though_its_next_stream_keeps_none() {
    let mut t = Table::with(Terms { holdings_max: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello_keeping(0, A, 1, None);
    t.hello(0, B, 2);
    assert!(t.fills(1, e(2), "full", 1));
    assert!(t.misses(1, e(1), "k", 1), "as a wildcard");
    t.hello(2, A, 3);
    t.skip();
    t.set(3, "w1", "k", None);
    t.gives(&["s3 inv 1 k upto 10 e3"]);
    t.ack(4, 3, e(3), 1);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_28_a_read_that_met_the_mark_or_the_visibility_of_a_set_may_not_be_kept() {
    let mut t = a_keeps_absent_k();
    // Registered before the mark, answered after.
    let made = t.begin(15, e(1), "j", 2).expect("registered");
    t.set(16, "w1", "j", None);
    t.gives(&["commit w1"]);
    assert!(t.m.end_absent(at(17), &name("j"), made).is_none());
    t.stored(18, "w1", 11);
    // Registered before the mark, answered after visibility, with what was read before it.
    let made = t.begin(20, e(1), "i", 3).expect("registered");
    t.set(21, "w2", "i", None);
    t.stored(22, "w2", 12);
    assert!(t.m.end_absent(at(23), &name("i"), made).is_none());
}

#[test]
fn rule_28_a_summary_of_a_name_that_is_absent_is_refused_even_to_who_keeps_absences() {
    let mut t = a_keeps_absent_k();
    t.summary(20, 1, e(1), 1, &[("gone", false)], true);
    t.gives(&["s1 summarized 1 refused [0] e1"]);
}

#[test]
fn rule_28_an_older_incarnation_is_waited_for_until_the_term_of_its_absence() {
    let mut t = a_keeps_absent_k();
    t.hello(20, A2, 2);
    t.skip();
    t.set(30, "w1", "k", None);
    t.gives_nothing();
    t.tick(10 + ABSENCE_MS);
    t.gives(&["commit w1"]);
}

#[test]
fn rule_17_a_session_that_owes_the_ack_of_a_set_is_not_renewed() {
    let mut t = Table::new();
    t.hello_keeping(0, A, 1, None);
    t.skip();
    assert!(t.misses(0, e(1), "k", 1));
    t.set(0, "w1", "k", None);
    t.skip();
    t.keep(ACK_MAX_MS, 1, e(1), 1, 0);
    t.gives_nothing();
    t.keep(ACK_MAX_MS, 1, e(1), 2, 1);
    t.gives(&["commit w1", "s1 lease 2 e1"]);
}

#[test]
fn rule_29_in_the_grace_no_absence_may_be_kept() {
    let mut t = Table::restarted(OVER_MS);
    t.hello_keeping(0, A, 1, None);
    assert!(!t.misses(1, e(1), "k", 1));
    t.keep(1_000, 1, e(1), 1, 0);
    assert!(t.misses(OVER_MS, e(1), "k", 2));
}
