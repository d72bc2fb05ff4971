//! A Local that comes back and goes on serving, and one that fell behind: rules 10, 13, 14, 19, 21 and 31.

use super::*;

/// One that holds k@5 and lost its stream; it says HELLO at 100 ms.
fn returning() -> Table {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.skip();
    t
}

#[test]
fn rule_14_who_is_told_what_it_missed_goes_on_serving_the_rest_and_lists_nothing() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.m.lost();
    t.connected(100);
    t.skip();
    assert_eq!((t.hit(101, "k"), t.hit(101, "j")), (Some(5), Some(6)), "the old lease runs on");
    t.welcome_to(e(2), Resumption::Resume, false);
    assert_eq!(t.hit(101, "k"), Some(5), "a change waits for this Local until it has answered");
    t.inv(e(2), 1, "k", 10);
    t.lease(102, e(2), 0);
    t.m.flush_ack();
    t.gives(&["valid until 2090", "ack 1 e2"]);
    assert_eq!((t.hit(2_089, "k"), t.hit(2_089, "j")), (None, Some(6)));
}

#[test]
fn rule_14_after_a_lapse_what_was_missed_is_gone_before_the_lease_makes_the_rest_servable() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.m.lost();
    t.connected(5_000);
    t.welcome_to(e(2), Resumption::Resume, true);
    t.inv(e(2), 1, "k", 10);
    assert_eq!((t.hit(5_001, "k"), t.hit(5_001, "j")), (None, None));
    t.lease(5_002, e(2), 0);
    assert_eq!((t.hit(5_003, "k"), t.hit(5_003, "j")), (None, Some(6)));
}

#[test]
fn rule_19_a_wildcard_lists_what_it_serves_and_goes_on_serving_what_is_not_refused() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.skip();
    t.m.lost();
    t.connected(100);
    t.welcome_to(e(2), Resumption::Resume, true);
    t.lease(101, e(2), 0);
    t.gives(&["hello, was e1", "summary 1 j@6#3 k@5#4", "valid until 2090"]);
    assert_eq!((t.hit(102, "j"), t.hit(102, "k")), (Some(6), Some(5)), "before they are listed");
    t.summarized(e(2), 1, &[1]);
    assert_eq!((t.hit(103, "j"), t.holds("k")), (Some(6), false));
    t.gives(&["summary 2 last"]);
    t.summarized(e(2), 2, &[]);
    t.gives(&["summary 3 last"]);
    t.summarized(e(2), 3, &[]);
    t.gives_nothing();
}

#[test]
fn rule_19_what_is_installed_while_names_are_listed_is_neither_listed_nor_dropped() {
    let mut t = returning();
    t.welcome_to(e(2), Resumption::Resume, true);
    t.lease(101, e(2), 0);
    t.inv(e(2), 1, "k", 10);
    t.fill("k", 15, "g1");
    t.skip();
    t.summarized(e(2), 1, &[0]);
    assert_eq!(t.hit(102, "k"), Some(15), "refused was the one of before");
    t.gives(&["summary 2 last"]);
}

#[test]
fn rule_19_a_listing_that_was_cut_off_begins_again_though_the_session_is_resumed() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.lease(101, e(2), 0);
    t.m.lost();
    t.connected(200);
    t.skip();
    t.welcome_to(e(3), Resumption::Resume, false);
    t.lease(201, e(3), 0);
    t.gives(&["summary 1 k@5#3", "valid until 2190"]);
    assert_eq!(t.hit(202, "k"), None, "it was never registered since COMPACTED");
    t.summarized(e(3), 1, &[]);
    assert_eq!(t.hit(202, "k"), Some(5));
    t.summarized(e(3), 2, &[]);
    t.m.lost();
    t.connected(300);
    t.skip();
    t.welcome_to(e(4), Resumption::Resume, false);
    t.gives_nothing();
}

#[test]
fn rule_21_a_flight_of_before_is_neither_joined_nor_installed_after_a_resumption() {
    for (resumption, list) in
        [(Resumption::Resume, false), (Resumption::Resume, true), (Resumption::Compacted, false)]
    {
        let mut t = Table::open();
        t.get(3, "k", "early");
        t.m.lost();
        t.connected(4);
        t.welcome_to(e(2), resumption, list);
        t.lease(5, e(2), 0);
        t.skip();
        t.get(6, "k", "other");
        t.gives(&["f2 resolve k e2 #2"]);
        t.bound(7, 1, 5, Some(e(1)));
        assert_eq!(t.complete(1, "k", 5), (vec!["early"], false), "{resumption:?}");
        t.bound(8, 2, 5, Some(e(2)));
        assert_eq!(t.complete(2, "k", 5), (vec!["other"], true));
    }
}

#[test]
fn rule_21_a_flight_answered_before_a_resumption_is_not_installed_after_it() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    t.m.lost();
    t.connected(5);
    t.welcome_to(e(2), Resumption::Resume, false);
    t.lease(6, e(2), 0);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false), "its blob came too late");
    assert!(!t.holds("k"));
}

#[test]
fn rule_14_a_resync_makes_everything_unservable_before_it_is_acknowledged_and_lists_after() {
    let mut t = Table::holding_k();
    t.inv(e(1), 1, "j", 10);
    t.resync(e(1), 7, 10);
    t.gives(&["era 2", "ack 7 e1", "summary 2 k@5#2"]);
    assert_eq!(t.hit(5, "k"), None);
    assert!(t.holds("k"), "to be listed, and its blob kept");
    t.summarized(e(1), 2, &[]);
    assert_eq!(t.hit(5, "k"), Some(5));
    t.m.flush_ack();
    t.gives(&["summary 3 last"]);
    t.summarized(e(1), 3, &[]);
    t.gives(&["summary 4 last"]);
    t.summarized(e(1), 4, &[]);
    t.gives_nothing();
    t.inv(e(1), 8, "k", 10);
    t.m.flush_ack();
    t.gives(&["ack 8 e1"]);
}

#[test]
fn rule_14_a_resync_ends_the_listing_under_way_whose_answer_may_have_been_left_out() {
    let mut t = returning();
    t.welcome_to(e(2), Resumption::Resume, true);
    t.lease(101, e(2), 0);
    t.skip();
    t.resync(e(2), 1, 10);
    t.gives(&["era 3", "ack 1 e2", "summary 2 k@5#3"]);
    t.summarized(e(2), 1, &[0]);
    t.gives_nothing();
    assert!(t.holds("k"), "an answer to what is of no interest any more");
    t.summarized(e(2), 2, &[]);
    assert_eq!(t.hit(102, "k"), Some(5));
}

#[test]
fn rule_10_a_resync_poisons_every_flight_like_an_inv_of_its_name() {
    for (rev, installed) in [(12, false), (13, true)] {
        let mut t = Table::open();
        t.get(3, "k", "g1");
        t.get(3, "j", "g2");
        t.bound(4, 2, rev, Some(e(1)));
        t.resync(e(1), 4, 12);
        t.get(5, "k", "g3");
        t.bound(6, 1, rev, Some(e(1)));
        assert_eq!(t.complete(1, "k", rev), (vec!["g1"], installed), "asked, revision {rev}");
        assert_eq!(t.complete(2, "j", rev), (vec!["g2"], installed), "found");
        t.bound(7, 3, 5, Some(e(1)));
        assert_eq!(t.complete(3, "k", 5), (vec!["g3"], true), "asked after it");
    }
}

#[test]
fn rule_13_an_inv_after_a_resync_is_the_next_number_and_a_resync_of_another_epoch_is_dropped() {
    let mut t = Table::holding_k();
    t.resync(e(9), 3, 10);
    t.gives_nothing();
    t.resync(e(1), 3, 10);
    t.skip();
    t.inv(e(1), 5, "k", 10);
    t.gives(&["reconnect"]);
}

#[test]
fn rule_31_after_all_names_are_unservable_whatever_was_listed_before() {
    let mut t = returning();
    t.welcome_to(e(2), Resumption::Resume, true);
    t.lease(101, e(2), 0);
    t.m.lost();
    t.connected(200);
    t.welcome(e(3));
    t.lease(201, e(3), 0);
    assert_eq!(t.hit(202, "k"), None);
    t.summarized(e(3), 1, &[]);
    assert_eq!(t.hit(202, "k"), Some(5));
}

#[test]
fn a_resync_that_goes_back_or_to_the_end_of_numbers_harms_nobody() {
    let mut t = Table::holding_k();
    t.inv(e(1), 1, "j", 10);
    t.resync(e(1), 1, 10);
    t.gives(&["reconnect"]);
    let mut t = Table::holding_k();
    t.resync(e(1), u64::MAX, u64::MAX);
    t.inv(e(1), 0, "j", 10);
    t.obey();
    assert_eq!(t.done.last().unwrap(), "reconnect");
}
