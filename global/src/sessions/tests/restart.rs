//! Global comes and goes: rules 29 and 30.

use super::*;

#[test]
fn rule_29_after_a_crash_every_drain_waits_for_the_grace() {
    let mut t = Table::restarted(OVER_MS);
    t.del(0, "d1", &["k"]);
    t.set(0, "w1", "absent", None);
    t.gives(&["commit w1"]);
    assert_eq!(t.m.next_deadline(), Some(at(OVER_MS)));
    t.tick(OVER_MS - 1);
    t.gives_nothing();
    t.tick(OVER_MS);
    t.gives(&["commit d1"]);
    assert_eq!(t.m.next_deadline(), None);
}

#[test]
fn rule_29_in_the_grace_nothing_may_be_cached() {
    let mut t = Table::restarted(OVER_MS);
    t.hello_again(0, A, 1, older(1));
    t.skip();
    assert!(!t.fills(1, e(1), "k", 1));
    t.set(2, "w1", "absent", Some((e(1), 2)));
    t.stored(3, "w1", 11);
    t.gives(&["commit w1", "w1: stored 11"]);
    t.keep(1_500, 1, e(1), 1, 0);
    assert!(!t.fills(OVER_MS - 1, e(1), "k", 3));
    assert!(t.fills(OVER_MS, e(1), "k", 4));
}

#[test]
fn rule_29_a_new_directory_or_a_clean_stop_needs_no_grace() {
    let mut t = Table::restarted(0);
    t.hello(0, A, 1);
    t.skip();
    assert!(t.fills(0, e(1), "k", 1));
    t.del(0, "d1", &["other"]);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_29_a_clean_stop_grants_no_more_and_waits_for_goodbye_or_the_lease_end() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    t.skip();
    t.m.retire(at(100));
    t.gives(&["s1 retire e1", "s2 retire e2"]);
    t.keep(101, 1, e(1), 1, 0);
    assert!(!t.fills(101, e(1), "k", 1));
    assert_eq!(t.refused_hello(101, Life { local: 3, incarnation: 1 }, 3), Kind::Unavailable);
    t.set(101, "w1", "k", Some((e(1), 2)));
    t.gives(&["w1: Unavailable"]);
    t.bye(102, 1, e(1));
    t.gives(&["s1 close"]);
    assert!(!t.m.is_quiet(at(OVER_MS - 1)), "B has not answered");
    t.tick(OVER_MS);
    assert!(t.m.is_quiet(at(OVER_MS)));
}

#[test]
fn rule_29_a_clean_stop_waits_for_fenced_sessions_and_for_the_grace() {
    let mut t = Table::restarted(3_000);
    t.hello(0, A, 1);
    t.hello(1, A2, 2);
    t.m.retire(at(2));
    t.bye(3, 2, e(2));
    t.skip();
    t.tick(4);
    assert!(!t.m.is_quiet(at(4)), "the older process may still serve");
    t.tick(OVER_MS);
    assert_eq!(t.m.counts().sessions, 0);
    assert!(!t.m.is_quiet(at(2_999)), "leases of the boot before");
    t.tick(3_000);
    assert!(t.m.is_quiet(at(3_000)));
}

#[test]
fn rule_30_the_grace_does_not_end_early_because_somebody_is_back() {
    let mut t = Table::restarted(OVER_MS);
    t.hello_again(0, A, 1, older(1));
    t.summary(1, 1, e(1), 1, &[], true);
    t.skip();
    t.del(2, "d1", &["k"]);
    t.gives_nothing();
    t.keep(1_000, 1, e(1), 1, 0);
    t.skip();
    t.tick(OVER_MS);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_30_a_wildcard_is_waited_for_besides_the_grace() {
    let mut t = Table::restarted(OVER_MS);
    t.hello_again(0, A, 1, older(1));
    t.skip();
    t.del(2, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.keep(200, 1, e(1), 1, 0);
    t.tick(OVER_MS);
    t.gives(&["s1 lease 1 e1"]);
    t.tick(200 + OVER_MS);
    t.gives(&["s1 close", "commit d1"]);
}
