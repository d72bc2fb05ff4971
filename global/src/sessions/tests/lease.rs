//! Leases and the ends of sessions: rules 3, 11 to 13, 17, 18 and 20.

use super::*;

fn with_a_holding_k() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    assert!(t.fills(1, e(1), "k", 1));
    t.skip();
    t
}

#[test]
fn rule_03_a_lease_ends_d_and_the_rate_error_after_the_reply() {
    let mut t = with_a_holding_k();
    t.keep(500, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
    t.del(501, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.tick(500 + OVER_MS - 1);
    t.gives_nothing();
    assert_eq!(t.m.next_deadline(), Some(at(500 + OVER_MS)));
    t.tick(500 + OVER_MS);
    t.gives(&["s1 close", "commit d1"]);
}

#[test]
fn rule_03_a_lease_end_never_comes_earlier() {
    let mut t = with_a_holding_k();
    t.keep(500, 1, e(1), 1, 0);
    // An event whose clock was read before is taken after.
    t.keep(400, 1, e(1), 2, 0);
    assert_eq!(t.m.next_deadline(), Some(at(500 + OVER_MS)));
}

#[test]
fn rule_11_epochs_are_never_reused() {
    let mut t = Table::new();
    let mut seen = Vec::new();
    for i in 0..5 {
        let epoch = t.m.hello(at(i), StreamId(i), &A.hello(None)).unwrap();
        assert!(!seen.contains(&epoch));
        seen.push(epoch);
        let gone = i * 10_000 + 9_999;
        t.tick(gone);
    }
    assert!(seen.iter().all(|epoch| epoch.boot == BOOT && epoch.history == HISTORY));
}

#[test]
fn rule_11_an_epoch_of_another_boot_or_history_is_nobodys() {
    let mut t = with_a_holding_k();
    t.del(2, "d1", &["k"]);
    t.skip();
    for foreign in [older(1), Epoch { history: HistoryId(9), ..e(1) }, e(0), e(2), Epoch::default()] {
        assert!(!t.fills(3, foreign, "j", 9), "{foreign:?}");
        t.ack(3, 1, foreign, 1);
        t.keep(3, 1, foreign, 1, 1);
        t.bye(3, 1, foreign);
        t.summary(3, 1, foreign, 1, &[("j", true)], true);
    }
    t.gives_nothing();
}

#[test]
fn rule_12_a_newer_incarnation_fences_the_older_and_does_not_release_it() {
    let mut t = with_a_holding_k();
    t.hello(100, A2, 2);
    t.gives(&["s1 close", "s2 welcome e2", "s2 lease 0 e2"]);
    t.del(101, "d1", &["k"]);
    t.gives_nothing();
    t.keep(102, 1, e(1), 1, 1);
    t.ack(102, 1, e(1), 1);
    t.bye(102, 1, e(1));
    t.drop(102, 1, e(1), "k", 1);
    assert!(!t.fills(102, e(1), "j", 2), "its requests are answered, and registered nowhere");
    t.gives_nothing();
    t.tick(OVER_MS - 1);
    t.gives_nothing();
    t.tick(OVER_MS);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_12_an_older_incarnation_gets_no_session() {
    let mut t = Table::new();
    t.hello(0, A2, 1);
    t.skip();
    assert_eq!(t.refused_hello(1, A, 2), Kind::Denied);
    t.gives_nothing();
    assert!(t.fills(2, e(1), "k", 1), "the newer one is not disturbed");
}

#[test]
fn rule_12_what_the_older_asked_to_cache_is_not_registered() {
    let mut t = with_a_holding_k();
    let made = t.begin(1, e(1), "j", 2);
    t.set(2, "w1", "i", Some((e(1), 3)));
    t.hello(3, A2, 2);
    t.skip();
    assert_eq!(t.end(4, "j", made, true), None);
    t.stored(5, "w1", 11);
    t.gives(&["w1: stored 11"]);
}

#[test]
fn rule_13_an_ack_of_the_old_stream_does_not_count_for_the_new() {
    let mut t = with_a_holding_k();
    t.del(2, "d1", &["k"]);
    t.lost(1);
    t.hello_again(3, A, 2, e(1));
    t.gives(&["s1 inv 1 k upto 10 e1", "s2 welcome e2", "s2 inv 1 k upto 10 e2", "s2 lease 0 e2"]);
    t.ack(4, 1, e(1), 1);
    t.ack(4, 2, e(1), 1);
    t.ack(4, 1, e(2), 1);
    t.keep(4, 1, e(1), 1, 1);
    t.gives_nothing();
    t.ack(5, 2, e(2), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_13_an_ack_is_cumulative_and_never_runs_ahead_of_what_was_sent() {
    let mut t = with_a_holding_k();
    assert!(t.fills(1, e(1), "j", 2) && t.fills(1, e(1), "i", 3));
    t.ack(2, 1, e(1), u64::MAX);
    t.del(3, "d1", &["k"]);
    t.del(3, "d2", &["j"]);
    t.skip();
    t.ack(4, 1, e(1), 0);
    t.gives_nothing();
    t.ack(5, 1, e(1), 2);
    t.gives(&["commit d1", "commit d2"]);
    t.ack(6, 1, e(1), 1);
    t.del(7, "d3", &["i"]);
    t.gives(&["s1 inv 3 i upto 10 e1"]);
}

#[test]
fn rule_13_a_keep_carries_an_ack() {
    let mut t = with_a_holding_k();
    t.del(2, "d1", &["k"]);
    t.skip();
    t.keep(3 + ACK_MAX_MS, 1, e(1), 1, 1);
    t.gives(&["commit d1", "s1 lease 1 e1"]);
}

#[test]
fn rule_17_who_owes_an_old_ack_is_not_renewed_until_he_gives_it() {
    let mut t = with_a_holding_k();
    t.del(100, "d1", &["k"]);
    t.skip();
    t.keep(100 + ACK_MAX_MS - 1, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
    t.keep(100 + ACK_MAX_MS, 1, e(1), 2, 0);
    t.gives_nothing();
    t.keep(100 + ACK_MAX_MS + 1, 1, e(1), 3, 1);
    t.gives(&["commit d1", "s1 lease 3 e1"]);
}

#[test]
fn rule_17_the_newest_keep_that_found_a_debt_is_answered_when_the_debt_is_paid() {
    let mut t = with_a_holding_k();
    t.del(100, "d1", &["k"]);
    t.skip();
    t.keep(100 + ACK_MAX_MS, 1, e(1), 1, 0);
    t.keep(101 + ACK_MAX_MS, 1, e(1), 2, 0);
    t.gives_nothing();
    t.ack(102 + ACK_MAX_MS, 1, e(1), 1);
    t.gives(&["commit d1", "s1 lease 2 e1"]);
    t.ack(103 + ACK_MAX_MS, 1, e(1), 1);
    t.gives_nothing();
}

#[test]
fn rule_17_the_age_of_a_debt_counts_over_all_streams() {
    let mut t = with_a_holding_k();
    t.del(100, "d1", &["k"]);
    t.skip();
    let last = 100 + ACK_MAX_MS - 1;
    for (stream, ms) in [(2, 150), (3, 200), (4, last)] {
        t.hello_again(ms, A, stream, e(stream - 1));
        t.obey();
        assert!(t.done.last().unwrap().contains("lease 0"), "A has not passed");
    }
    t.skip();
    t.hello_again(100 + ACK_MAX_MS, A, 5, e(4));
    t.gives(&["s4 close", "s5 welcome e5", "s5 inv 1 k upto 10 e5"]);
    t.tick(last + OVER_MS);
    t.gives(&["s5 close", "commit d1"]);
}

#[test]
fn rule_17_a_debt_to_a_queued_op_counts_from_its_own_mark() {
    let mut t = with_a_holding_k();
    t.set(2, "w1", "j", None);
    t.del(3, "d1", &["j", "k"]);
    t.keep(600, 1, e(1), 1, 0);
    t.stored(700, "w1", 11);
    t.gives(&["commit w1", "s1 lease 1 e1", "w1: stored 11", "s1 inv 1 k upto 11 e1"]);
    t.keep(700 + ACK_MAX_MS - 1, 1, e(1), 2, 0);
    t.gives(&["s1 lease 2 e1"]);
}

#[test]
fn rule_18_a_broken_stream_releases_nobody() {
    let mut t = with_a_holding_k();
    t.lost(1);
    t.del(2, "d1", &["k"]);
    t.gives_nothing();
    t.tick(OVER_MS - 1);
    t.gives_nothing();
    t.tick(OVER_MS);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_18_a_session_that_ran_out_is_over_for_good() {
    let mut t = with_a_holding_k();
    t.keep(OVER_MS, 1, e(1), 1, 0);
    t.gives(&["s1 close"]);
    t.keep(OVER_MS + 1, 1, e(1), 2, 0);
    t.gives_nothing();
    assert!(!t.fills(OVER_MS + 1, e(1), "k", 2));
    t.del(OVER_MS + 2, "d1", &["k"]);
    t.gives(&["commit d1"]);
    assert_eq!(t.m.counts().sessions, 0);
}

#[test]
fn rule_18_goodbye_releases_at_once() {
    let mut t = with_a_holding_k();
    t.del(2, "d1", &["k"]);
    t.skip();
    t.bye(3, 1, e(1));
    t.gives(&["s1 close", "commit d1"]);
    while t.m.tick(at(4)) {}
    assert_eq!(t.registrations(), 0, "swept");
}

#[test]
fn rule_18_goodbye_on_a_stream_that_was_replaced_releases_nobody() {
    let mut t = with_a_holding_k();
    t.hello_again(2, A, 2, e(1));
    t.bye(3, 1, e(1));
    t.bye(3, 1, e(2));
    t.bye(3, 2, e(1));
    assert_eq!(t.m.counts().sessions, 1);
}

#[test]
fn rule_20_a_drop_counts_only_for_the_newest_registration() {
    let mut t = with_a_holding_k();
    assert!(t.fills(2, e(1), "k", 7), "asked again");
    t.drop(3, 1, e(1), "k", 1);
    assert_eq!(t.registrations(), 1, "an older one");
    assert!(t.fills(4, e(1), "k", 3), "a late question does not lower it");
    t.drop(5, 1, e(1), "k", 3);
    assert_eq!(t.registrations(), 1);
    t.drop(6, 1, older(1), "k", 7);
    t.drop(6, 2, e(1), "k", 7);
    assert_eq!(t.registrations(), 1, "another epoch, another stream");
    t.drop(7, 1, e(1), "k", 7);
    assert_eq!(t.registrations(), 0);
    t.del(8, "d1", &["k"]);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_20_a_drop_releases_no_drain_under_way() {
    let mut t = with_a_holding_k();
    t.del(2, "d1", &["k"]);
    t.skip();
    t.drop(3, 1, e(1), "k", 1);
    t.gives_nothing();
    t.ack(4, 1, e(1), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_17_an_ack_may_be_owed_for_a_quarter_of_the_lease_and_for_a_quarter_of_a_second_at_most() {
    let owed = |ms| Terms::for_lease(Duration::from_millis(ms)).ack_max;
    assert_eq!(owed(400), Duration::from_millis(100));
    assert_eq!(owed(2_000), Duration::from_millis(250));
    assert_eq!(owed(10_000), Duration::from_millis(250));
}
