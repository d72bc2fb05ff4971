//! A Local comes back: rules 14 to 16, 19 and 31, and how resumption was once wrong.

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

#[test]
fn rule_14_welcome_then_the_busy_names_then_the_lease() {
    let mut t = with_a_and_b();
    t.set(2, "w1", "committing", None);
    t.del(3, "d1", &["k", "l"]);
    t.del(4, "d2", &["k", "queued"]);
    t.lost(2);
    t.skip();
    t.hello_again(5, B, 3, e(2));
    t.gives(&[
        "s3 welcome e3",
        "s3 inv 1 committing upto 10 e3",
        "s3 inv 2 k upto 10 e3",
        "s3 inv 3 l upto 10 e3",
        "s3 lease 0 e3",
    ]);
}

#[test]
fn rule_15_the_same_incarnation_keeps_its_registrations_its_lease_and_its_debts() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.hello_again(1_000, A, 3, e(1));
    t.gives(&["s3 welcome e3", "s3 lease 0 e3"]);
    assert_eq!((t.registrations(), t.m.counts().wildcards), (1, 0));
    t.del(1_001, "d1", &["k"]);
    t.gives(&["s3 inv 1 k upto 10 e3"]);
    t.lost(3);
    t.hello_again(1_002, A, 4, e(3));
    t.gives(&["s4 welcome e4", "s4 inv 1 k upto 10 e4", "s4 lease 0 e4"]);
    t.tick(1_002 + OVER_MS - 1);
    t.gives(&["s2 close"]);
    t.ack(1_002 + OVER_MS - 1, 4, e(4), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_15_a_lease_that_is_not_renewed_on_resumption_is_not_shortened_either() {
    let mut t = with_a_and_b();
    t.del(2, "d1", &["k"]);
    t.lost(1);
    t.hello_again(2 + ACK_MAX_MS, A, 3, e(1));
    t.gives(&["s1 inv 1 k upto 10 e1", "s3 welcome e3", "s3 inv 1 k upto 10 e3"]);
    t.keep(3 + ACK_MAX_MS, 2, e(2), 1, 0);
    t.skip();
    t.tick(OVER_MS - 1);
    t.gives_nothing();
    t.tick(OVER_MS);
    t.gives(&["s3 close", "commit d1"]);
}

#[test]
fn rule_15_a_wildcard_stays_one_over_a_resumption() {
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.hello_again(1, A, 2, e(1));
    t.skip();
    t.del(2, "d1", &["whatever"]);
    t.gives(&["s2 inv 1 whatever upto 10 e2"]);
}

#[test]
fn rule_16_who_comes_back_too_late_is_a_wildcard_for_every_later_drain() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.keep(1_500, 2, e(2), 1, 0);
    t.hello_again(OVER_MS, A, 3, e(1));
    t.skip();
    assert_eq!(t.m.counts().wildcards, 1);
    t.del(OVER_MS + 1, "d1", &["any"]);
    t.gives(&["s3 inv 1 any upto 10 e3"]);
    t.ack(OVER_MS + 2, 3, e(3), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_16_a_wildcard_joins_no_running_drain() {
    let mut t = Table::restarted(0);
    t.hello(0, B, 1);
    assert!(t.fills(1, e(1), "k", 1));
    t.del(2, "d1", &["k"]);
    t.skip();
    t.hello_again(3, A, 2, older(1));
    t.gives(&["s2 welcome e2", "s2 inv 1 k upto 10 e2", "s2 lease 0 e2"]);
    t.ack(4, 1, e(1), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_16_a_new_incarnation_is_empty_and_no_wildcard() {
    let mut t = with_a_and_b();
    t.tick(OVER_MS);
    t.hello(OVER_MS, A2, 3);
    t.skip();
    assert_eq!(t.m.counts().wildcards, 0);
    t.del(OVER_MS + 1, "d1", &["k"]);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_19_a_wildcard_ends_with_a_round_in_which_nothing_was_refused() {
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.skip();
    t.summary(1, 1, e(1), 1, &[("a", true), ("changed", false)], false);
    t.summary(2, 1, e(1), 2, &[("b", true)], false);
    t.summary(3, 1, e(1), 3, &[], true);
    t.gives(&[
        "s1 summarized 1 refused [1] e1",
        "s1 summarized 2 refused [] e1",
        "s1 summarized 3 refused [] e1",
    ]);
    assert_eq!(t.m.counts().wildcards, 1, "a name was refused, and is held until the Local has heard");
    t.summary(4, 1, e(1), 4, &[], true);
    t.skip();
    assert_eq!((t.m.counts().wildcards, t.registrations()), (0, 2));
    t.del(5, "d1", &["changed", "never held"]);
    t.gives(&["commit d1"]);
    t.del(6, "d2", &["a"]);
    t.gives(&["s1 inv 1 a upto 10 e1"]);
}

#[test]
fn rule_19_a_refusal_of_a_round_cut_off_does_not_count_in_the_next() {
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.summary(1, 1, e(1), 1, &[("changed", false)], false);
    t.hello_again(2, A, 2, e(1));
    t.summary(3, 2, e(2), 1, &[], true);
    assert_eq!(t.m.counts().wildcards, 0);
}

#[test]
fn rule_19_a_summary_of_an_old_stream_is_dropped() {
    let mut t = Table::new();
    t.hello_again(0, A, 1, older(1));
    t.hello_again(1, A, 2, e(1));
    t.skip();
    t.summary(2, 1, e(1), 1, &[("k", true)], true);
    t.summary(2, 2, e(1), 1, &[], true);
    t.summary(2, 1, e(2), 1, &[], true);
    t.gives_nothing();
    assert_eq!(t.m.counts().wildcards, 1);
}

#[test]
fn rule_31_another_history_is_named_and_an_unknown_one_is_not() {
    let mut t = Table::new();
    let stranger = Epoch { history: HistoryId(0xbad), ..e(4) };
    t.hello_again(0, A, 1, stranger);
    t.hello(0, B, 2);
    t.gives(&["s1 welcome e1 NewHistory", "s1 lease 0 e1", "s2 welcome e2", "s2 lease 0 e2"]);
}

#[test]
fn easy_to_get_wrong_a_drain_that_runs_during_the_cut_is_not_missed() {
    let mut t = with_a_and_b();
    t.lost(1);
    t.del(2, "d1", &["k"]);
    t.gives_nothing();
    t.hello_again(3, A, 3, e(1));
    t.gives(&["s3 welcome e3", "s3 inv 1 k upto 10 e3", "s3 lease 0 e3"]);
    t.ack(4, 3, e(3), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn easy_to_get_wrong_a_hello_between_the_end_of_a_drain_and_visibility() {
    let mut t = with_a_and_b();
    t.del(2, "d1", &["k"]);
    t.ack(3, 1, e(1), 1);
    t.gives(&["s1 inv 1 k upto 10 e1", "commit d1"]);
    t.lost(1);
    t.hello_again(4, A, 3, e(1));
    t.gives(&["s3 welcome e3", "s3 inv 1 k upto 10 e3", "s3 lease 0 e3"]);
    t.summary(5, 3, e(3), 1, &[("k", true)], false);
    t.gives(&["s3 summarized 1 refused [0] e3"]);
}

#[test]
fn easy_to_get_wrong_a_flapping_local_does_not_delay_a_delete_for_ever() {
    let mut t = with_a_and_b();
    t.del(0, "d1", &["k"]);
    let mut stream = 10;
    let mut last = e(1);
    for ms in (50..3_000).step_by(50) {
        t.lost(stream);
        stream += 1;
        last = t.m.hello(at(ms), StreamId(stream), &A.hello(Some(last))).unwrap();
        t.obey();
        if t.done.contains(&"commit d1".to_owned()) {
            assert!(ms <= ACK_MAX_MS + OVER_MS, "at {ms} ms");
            return;
        }
    }
    panic!("the drain never ended");
}

#[test]
fn easy_to_get_wrong_a_bystander_that_resumes_does_not_join_a_running_drain() {
    let mut t = with_a_and_b();
    t.del(2, "d1", &["k"]);
    t.lost(2);
    t.hello_again(3, B, 3, e(2));
    t.skip();
    t.ack(4, 1, e(1), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn easy_to_get_wrong_a_new_incarnation_does_not_join_a_running_drain() {
    let mut t = with_a_and_b();
    t.del(2, "d1", &["k"]);
    t.hello(1_500, A2, 3);
    t.gives(&[
        "s1 inv 1 k upto 10 e1",
        "s1 close",
        "s3 welcome e3",
        "s3 inv 1 k upto 10 e3",
        "s3 lease 0 e3",
    ]);
    t.keep(1_600, 2, e(2), 1, 0);
    t.skip();
    t.tick(OVER_MS);
    t.gives(&["commit d1"]);
}

#[test]
fn easy_to_get_wrong_who_has_acked_and_resumes_is_not_waited_for_again() {
    let mut t = with_a_and_b();
    assert!(t.fills(1, e(2), "k", 1));
    t.del(2, "d1", &["k"]);
    t.ack(3, 1, e(1), 1);
    t.hello_again(4, A, 3, e(1));
    t.skip();
    t.ack(5, 2, e(2), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn easy_to_get_wrong_newer_fences_older_does_not_mean_releases() {
    let mut t = with_a_and_b();
    t.keep(1_000, 1, e(1), 1, 0);
    t.hello(1_001, A2, 3);
    t.bye(1_002, 3, e(3));
    t.del(1_003, "d1", &["k"]);
    t.keep(1_500, 2, e(2), 1, 0);
    t.skip();
    t.tick(1_000 + OVER_MS - 1);
    t.gives_nothing();
    t.tick(1_000 + OVER_MS);
    t.gives(&["commit d1"]);
}
