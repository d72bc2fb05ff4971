//! A Local comes back and is told what it missed: rules 14 to 16, 19 and 31 with RESUME.

use super::*;

/// A holds k in e1, B nothing in e2.
fn with_a_and_b() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    assert!(t.fills(1, e(1), "k", 1));
    t.skip();
    t
}

/// As a boot of this table begins whose journal tells what was deleted from revision 7 on.
fn redone() -> Table {
    let mut t = Table::restarted(0);
    let voided = [(7, "a"), (8, "b"), (10, "c")];
    t.m.restore_log(Revision(6), voided.map(|(revision, k)| (Revision(revision), vec![name(k)])));
    t
}

#[test]
fn rule_14_what_was_missed_comes_before_the_busy_names_and_both_before_the_lease() {
    let mut t = with_a_and_b();
    t.lost(2);
    t.deleted(2, "d1", &["x", "y"], 11);
    t.set(3, "w1", "committing", None);
    t.del(4, "d2", &["k", "l"]);
    t.skip();
    t.resumes(5, B, 3, e(2), 10);
    t.gives(&[
        "s3 welcome e3 Resume",
        "s3 inv 1 x upto 10 e3",
        "s3 inv 2 y upto 10 e3",
        "s3 inv 3 committing upto 11 e3",
        "s3 inv 4 k upto 11 e3",
        "s3 inv 5 l upto 11 e3",
        "s3 lease 0 e3",
    ]);
}

#[test]
fn rule_14_the_replay_begins_right_after_what_was_applied() {
    for (applied, expected) in [
        (6, vec!["s1 inv 1 a upto 6 e1", "s1 inv 2 b upto 7 e1", "s1 inv 3 c upto 9 e1"]),
        (7, vec!["s1 inv 1 b upto 7 e1", "s1 inv 2 c upto 9 e1"]),
        (8, vec!["s1 inv 1 c upto 9 e1"]),
        (9, vec!["s1 inv 1 c upto 9 e1"]),
        (10, vec![]),
    ] {
        let mut t = redone();
        t.resumes(0, A, 1, older(1), applied);
        let all = [&["s1 welcome e1 Resume, list"][..], &expected, &["s1 lease 0 e1"]].concat();
        t.gives(&all);
    }
}

#[test]
fn rule_14_who_missed_more_than_is_remembered_lists_what_it_holds() {
    let mut t = redone();
    t.resumes(0, A, 1, older(1), 5);
    t.gives(&["s1 welcome e1", "s1 lease 0 e1"]);
    assert_eq!(t.m.counts().wildcards, 1);
}

#[test]
fn rule_14_who_missed_more_than_fits_the_queue_lists_what_it_holds() {
    let mut t = Table::with(Terms { replay_max: 2, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello(0, A, 1);
    t.skip();
    t.deleted(1, "d1", &["x", "y", "z"], 11);
    t.deleted(1, "d2", &["u", "v"], 12);
    t.skip();
    t.resumes(2, A, 2, e(1), 11);
    t.gives(&[
        "s1 close",
        "s2 welcome e2 Resume",
        "s2 inv 1 u upto 11 e2",
        "s2 inv 2 v upto 11 e2",
        "s2 lease 0 e2",
    ]);
    t.resumes(3, A, 3, e(2), 10);
    t.gives(&["s2 close", "s3 welcome e3", "s3 lease 0 e3"]);
}

#[test]
fn rule_14_the_log_is_bounded_and_forgets_with_age() {
    let log = LogBounds { revisions_max: 2, ..LogBounds::default() };
    let mut t = Table::with(Terms { log, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    for (i, label) in ["d1", "d2", "d3"].into_iter().enumerate() {
        t.deleted(i as u64, label, &["x"], 11 + i as u64);
    }
    t.skip();
    t.resumes(3, A, 1, older(1), 10);
    t.gives(&["s1 welcome e1", "s1 lease 0 e1"]);
    t.resumes(4, A, 2, e(1), 11);
    t.gives(&[
        "s1 close",
        "s2 welcome e2 Resume, list",
        "s2 inv 1 x upto 11 e2",
        "s2 inv 2 x upto 12 e2",
        "s2 lease 0 e2",
    ]);
    t.tick(300_002);
    assert_eq!(t.m.counts().log, 0);
    t.resumes(300_003, B, 3, older(1), 12);
    t.skip();
    t.resumes(300_004, B, 4, e(3), 13);
    t.gives(&["s3 close", "s4 welcome e4 Resume, list", "s4 lease 0 e4"]);
}

#[test]
fn rule_14_a_set_or_a_delete_of_nothing_is_not_remembered_and_costs_no_listing() {
    let mut t = with_a_and_b();
    t.set(2, "w1", "new", None);
    t.stored(2, "w1", 11);
    t.del(3, "d1", &["absent"]);
    let nothing = DeleteOutcome { removed: vec![false], revision: Revision(11) };
    t.finish(3, "d1", &Ok(Outcome::Delete(nothing)), 11);
    t.del(4, "d2", &["other"]);
    t.finish(4, "d2", &Err(Error::exhausted("no space")), 0);
    t.skip();
    t.resumes(5, B, 3, e(2), 10);
    t.gives(&["s2 close", "s3 welcome e3 Resume", "s3 lease 0 e3"]);
    assert_eq!(t.m.counts().log, 0);
}

#[test]
fn rule_14_who_is_ahead_of_the_history_is_of_another_one() {
    let mut t = redone();
    t.resumes(0, A, 1, older(1), 11);
    t.gives(&["s1 welcome e1 NewHistory", "s1 lease 0 e1"]);
}

#[test]
fn rule_14_who_has_never_had_a_session_has_missed_nothing() {
    let mut t = redone();
    t.hello(0, A, 1);
    t.gives(&["s1 welcome e1", "s1 lease 0 e1"]);
    assert_eq!((t.m.counts().wildcards, t.m.counts().resumed), (0, 0));
}

#[test]
fn rule_15_a_resumed_session_keeps_its_registrations_and_lists_nothing() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.resumes(1_000, A, 3, e(1), 10);
    t.gives(&["s3 welcome e3 Resume", "s3 lease 0 e3"]);
    assert_eq!((t.registrations(), t.m.counts().wildcards), (1, 0));
    t.del(1_001, "d1", &["k"]);
    t.gives(&["s3 inv 1 k upto 10 e3"]);
}

#[test]
fn rule_16_who_resumes_too_late_is_a_wildcard_until_it_has_listed_what_it_serves() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.keep(1_500, 2, e(2), 1, 0);
    t.resumes(OVER_MS, A, 3, e(1), 10);
    t.skip();
    t.del(OVER_MS + 1, "d1", &["any"]);
    t.gives(&["s3 inv 1 any upto 10 e3"]);
    t.ack(OVER_MS + 2, 3, e(3), 1);
    t.summary(OVER_MS + 3, 3, e(3), 1, &[("k", true)], false);
    t.summary(OVER_MS + 4, 3, e(3), 2, &[], true);
    while t.m.tick(at(OVER_MS + 4)) {}
    assert_eq!((t.m.counts().wildcards, t.registrations()), (0, 1));
    t.skip();
    t.del(OVER_MS + 5, "d2", &["k"]);
    t.gives(&["s3 inv 2 k upto 10 e3"]);
}

#[test]
fn rule_19_a_listing_of_names_that_stay_servable_is_not_hurried() {
    let mut t = redone();
    t.resumes(0, A, 1, older(1), 10);
    t.resumes(0, B, 2, older(2), 5);
    assert!(t.m.listing_pause(e(1)) > Duration::ZERO);
    assert_eq!(t.m.listing_pause(e(2)), Duration::ZERO, "these wait to be served again");
}

#[test]
fn easy_to_get_wrong_a_drain_that_runs_during_the_cut_is_not_missed_by_a_resumption_either() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.del(2, "d1", &["k"]);
    t.gives_nothing();
    t.resumes(3, A, 3, e(1), 10);
    t.gives(&["s3 welcome e3 Resume", "s3 inv 1 k upto 10 e3", "s3 lease 0 e3"]);
    t.ack(4, 3, e(3), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn easy_to_get_wrong_a_resumption_between_the_end_of_a_drain_and_visibility_or_right_after_it() {
    for visible in [false, true] {
        let mut t = with_a_and_b();
        t.del(2, "d1", &["k"]);
        t.ack(3, 1, e(1), 1);
        t.lost(1);
        if visible {
            t.removed(4, "d1", 11);
        }
        t.skip();
        t.resumes(5, A, 3, e(1), 10);
        t.gives(&["s3 welcome e3 Resume", "s3 inv 1 k upto 10 e3", "s3 lease 0 e3"]);
    }
}

#[test]
fn easy_to_get_wrong_a_bystander_that_is_told_what_it_missed_joins_no_running_drain() {
    let mut t = with_a_and_b();
    t.lost(2);
    t.deleted(2, "d1", &["x"], 11);
    t.del(2, "d2", &["k"]);
    t.skip();
    t.resumes(3, B, 3, e(2), 10);
    t.skip();
    t.ack(4, 1, e(1), 1);
    t.gives(&["commit d2"]);
}

#[test]
fn easy_to_get_wrong_each_resumption_restarts_the_age_of_an_owed_inv() {
    let mut t = with_a_and_b();
    t.del(100, "d1", &["k"]);
    t.lost(1);
    t.skip();
    t.resumes(100 + ACK_MAX_MS, A, 3, e(1), 10);
    t.gives(&["s3 welcome e3 Resume", "s3 inv 1 k upto 10 e3"]);
    t.tick(OVER_MS);
    t.gives(&["s3 close", "commit d1", "s2 close"]);
}
