//! Who shares a request, who is served by its reply, what is installed: rules 10 and 21 to 24, 28.

use super::*;

#[test]
fn rule_10_a_poisoned_reply_is_installed_only_if_it_is_newer_than_every_inv() {
    for (rev, installed) in [(10, false), (12, false), (13, true)] {
        let mut t = Table::open();
        t.get(3, "k", "g1");
        t.inv(e(1), 1, "k", 12);
        t.inv(e(1), 2, "k", 11);
        t.bound(4, 1, rev, Some(e(1)));
        assert_eq!(t.complete(1, "k", rev), (vec!["g1"], installed), "revision {rev}");
        assert_eq!(t.hit(5, "k").is_some(), installed);
    }
}

#[test]
fn rule_10_an_inv_while_the_blob_is_on_its_way_poisons_too() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    t.skip();
    t.inv(e(1), 1, "k", 10);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false), "early: served all the same");
    t.gives(&["drop k#1"]);
}

#[test]
fn rule_10_only_a_cacheable_reply_of_this_epoch_is_installed() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, None);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false), "no_cache");
    t.get(5, "k", "g2");
    t.bound(6, 2, 5, Some(e(9)));
    assert_eq!(t.complete(2, "k", 5), (vec!["g2"], false), "another epoch");
    t.skip();
    t.get(7, "k", "g3");
    t.bound(8, 3, 5, Some(e(1)));
    t.m.lost();
    t.connected(9);
    t.welcome(e(2));
    t.skip();
    assert_eq!(t.complete(3, "k", 5), (vec!["g3"], false), "the epoch ended before the blob came");
    t.gives_nothing();
}

#[test]
fn rule_10_a_reply_to_a_question_of_an_older_epoch_is_not_installed() {
    for cacheable in [e(1), e(2)] {
        let mut t = Table::open();
        t.get(3, "k", "early");
        t.get(3, "k", "late");
        t.m.lost();
        t.connected(4);
        t.welcome(e(2));
        t.lease(5, e(2), 0);
        t.skip();
        t.bound(6, 1, 5, Some(cacheable));
        t.gives(&["f1 found @5", "f2 resolve k e2 #2"]);
        assert_eq!(t.complete(1, "k", 5), (vec!["early"], false));
    }
}

#[test]
fn rule_21_a_reply_is_matched_by_flight_and_not_by_name() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.inv(e(1), 1, "k", 10);
    t.get(4, "k", "g2");
    t.gives(&["f1 resolve k e1 #1", "f2 resolve k e1 #2"]);
    t.bound(5, 1, 5, Some(e(1)));
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false));
    t.bound(6, 2, 11, Some(e(1)));
    assert_eq!(t.complete(2, "k", 11), (vec!["g2"], true));
    t.bound(7, 1, 5, Some(e(1)));
    t.bound(7, 99, 5, Some(e(1)));
    assert_eq!(t.complete(1, "k", 5), (vec![], false), "nobody waits for it any more");
    assert_eq!(t.hit(8, "k"), Some(11));
}

#[test]
fn rule_21_a_sent_flight_is_joined_while_the_lease_is_valid() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.get(4, "k", "g2");
    t.gives(&["f1 resolve k e1 #1"]);
    t.get(VALID_MS, "k", "g3");
    t.gives_nothing();
    t.bound(VALID_MS - 1, 1, 5, Some(e(1)));
    t.gives(&["f1 found @5", "f2 resolve k e1 #2"]);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1", "g2"], true));
}

#[test]
fn rule_21_a_poisoned_flight_is_not_joined() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.inv(e(1), 1, "k", 10);
    t.get(4, "k", "g2");
    t.gives(&["f1 resolve k e1 #1", "f2 resolve k e1 #2"]);
    t.bound(5, 2, 5, Some(e(1)));
    t.inv(e(1), 2, "k", 10);
    t.get(6, "k", "g3");
    t.gives(&["f2 found @5", "f3 resolve k e1 #3"]);
}

#[test]
fn rule_21_a_flight_whose_answer_is_not_to_be_cached_is_not_joined() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, None);
    t.get(5, "k", "g2");
    t.gives(&["f1 resolve k e1 #1", "f1 found @5", "f2 resolve k e1 #2"]);
}

#[test]
fn rule_21_a_binding_that_was_found_and_is_registered_is_as_good_as_a_hit() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    t.get(5, "k", "g2");
    t.gives(&["f1 resolve k e1 #1", "f1 found @5"]);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1", "g2"], true));
}

#[test]
fn rule_21_a_lapsed_local_has_one_sent_and_one_waiting_flight_a_name() {
    let mut t = Table::open();
    let lapsed = VALID_MS + 10;
    for who in ["g1", "g2", "g3", "g4"] {
        t.get(lapsed, "k", who);
    }
    t.gives(&["f1 resolve k e1 #1"]);
    t.get(lapsed, "j", "g5");
    t.gives(&["f3 resolve j e1 #3"]);
    t.bound(lapsed + 1, 1, 5, None);
    t.gives(&["f1 found @5", "f2 resolve k e1 #2"]);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false));
    t.get(lapsed + 2, "k", "g6");
    t.absent(lapsed + 3, 2);
    t.gives(&["absent for g2 g3 g4", "f4 resolve k e1 #4"]);
    assert_eq!(t.failed(4), vec!["g6"]);
    assert_eq!(t.m.by_name.len(), 1);
}

#[test]
fn rule_21_a_waiting_flight_goes_out_when_the_one_before_it_fails_or_is_abandoned() {
    for abandoned in [false, true] {
        let mut t = Table::open();
        let lapsed = VALID_MS + 10;
        t.get(lapsed, "k", "g1");
        t.get(lapsed, "k", "g2");
        t.skip();
        if abandoned {
            t.gone.borrow_mut().insert("g1");
            t.m.forget_abandoned();
        } else {
            assert_eq!(t.failed(1), vec!["g1"]);
        }
        t.gives(&["f2 resolve k e1 #2"]);
    }
}

#[test]
fn rule_21_a_waiting_flight_is_not_held_up_by_a_change_of_its_name() {
    let mut t = Table::open();
    let lapsed = VALID_MS + 10;
    t.set("k", "w1");
    t.get(lapsed, "k", "g1");
    t.gives(&["f1 set k (1) e1 #1", "f2 resolve k e1 #2"]);
    t.get(lapsed, "k", "g2");
    t.absent(lapsed, 2);
    t.gives(&["absent for g1", "f3 resolve k e1 #3"]);
    assert_eq!(t.stored(1, "k", 12, None), (vec!["w1"], false));
}

#[test]
fn rule_21_a_new_epoch_closes_all_flights_to_joiners() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.m.lost();
    t.connected(4);
    t.welcome(e(2));
    t.lease(5, e(2), 0);
    t.skip();
    t.get(6, "k", "g2");
    t.gives(&["f2 resolve k e2 #2"]);
    t.bound(7, 1, 5, Some(e(1)));
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false), "its reply serves early waiters only");
}

#[test]
fn rule_22_early_waiters_are_served_by_any_reply_late_ones_by_a_cacheable_one_only() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late1");
    t.get(4, "k", "late2");
    t.bound(5, 1, 5, None);
    t.gives(&["f1 resolve k e1 #1", "f1 found @5", "f2 resolve k e1 #2"]);
    assert_eq!(t.complete(1, "k", 5), (vec!["early"], false));
    t.bound(6, 2, 11, None);
    assert_eq!(t.complete(2, "k", 11).0, ["late1", "late2"], "early for the flight they share");
}

#[test]
fn rule_22_late_waiters_are_not_served_when_the_lease_or_the_epoch_has_gone() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.bound(VALID_MS, 1, 5, Some(e(1)));
    t.gives(&["f1 resolve k e1 #1", "f1 found @5", "f2 resolve k e1 #2"]);

    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.m.lost();
    t.connected(5);
    t.welcome(e(2));
    t.lease(6, e(2), 0);
    t.skip();
    t.bound(7, 1, 5, Some(e(1)));
    t.gives(&["f1 found @5", "f2 resolve k e2 #2"]);
}

#[test]
fn rule_22_late_waiters_of_a_reply_that_finds_nothing_ask_again() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.absent(5, 1);
    t.gives(&["f1 resolve k e1 #1", "absent for early", "f2 resolve k e1 #2"]);
    t.absent(6, 2);
    t.gives(&["absent for late"]);
}

#[test]
fn rule_22_late_waiters_who_have_gone_away_ask_for_nothing() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.gone.borrow_mut().insert("late");
    t.absent(5, 1);
    t.gives(&["f1 resolve k e1 #1", "absent for early"]);
    assert_eq!(t.m.flights(), 0);
}

#[test]
fn rule_22_those_who_ask_again_while_lapsed_keep_to_one_sent_flight() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.m.lost();
    t.connected(3_000);
    t.welcome(e(2));
    t.get(3_001, "k", "g1");
    t.skip();
    // Lapsed: f1 of the old epoch is out, f2 waits for it, and the late one joins f2.
    t.bound(3_002, 1, 5, None);
    t.gives(&["f1 found @5", "f2 resolve k e2 #2"]);
    t.bound(3_003, 2, 6, None);
    assert_eq!(t.complete(2, "k", 6).0, ["g1", "late"]);
}

#[test]
fn rule_22_lapsed_a_late_waiter_does_not_go_out_beside_another_sent_flight() {
    let mut t = Table::open();
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    t.inv(e(1), 1, "k", 10);
    t.get(5, "k", "g1");
    t.skip();
    t.bound(VALID_MS, 1, 5, Some(e(1)));
    t.gives(&["f1 found @5"]);
    t.bound(VALID_MS, 2, 11, Some(e(1)));
    t.gives(&["f2 found @11", "f3 resolve k e1 #3"]);
}

#[test]
fn rule_23_an_own_set_is_cached_under_rule_10() {
    let mut t = Table::open();
    t.set("k", "w1");
    assert_eq!(t.stored(1, "k", 12, Some(e(1))), (vec!["w1"], true));
    assert_eq!(t.hit(3, "k"), Some(12));

    let mut t = Table::open();
    t.set("k", "w1");
    t.inv(e(1), 1, "k", 12);
    t.skip();
    assert_eq!(t.stored(1, "k", 12, Some(e(1))), (vec!["w1"], false), "deleted since");
    t.gives(&["drop k#1"]);
    t.set("k", "w2");
    t.inv(e(1), 2, "k", 13);
    assert_eq!(t.stored(2, "k", 14, Some(e(1))), (vec!["w2"], true), "deleted before");
}

#[test]
fn rule_23_an_own_set_of_another_epoch_or_not_cacheable_is_not_installed() {
    let mut t = Table::open();
    t.set("k", "w1");
    assert_eq!(t.stored(1, "k", 12, None), (vec!["w1"], false));
    t.set("j", "w2");
    t.m.lost();
    t.connected(3);
    t.welcome(e(2));
    t.lease(4, e(2), 0);
    assert_eq!(t.stored(2, "j", 13, Some(e(1))), (vec!["w2"], false));
    assert!(!t.holds("k") && !t.holds("j"));
}

#[test]
fn rule_23_nobody_joins_a_change() {
    let mut t = Table::open();
    t.set("k", "w1");
    t.get(3, "k", "g1");
    t.set("k", "w2");
    t.gives(&["f1 set k (1) e1 #1", "f2 resolve k e1 #2", "f3 set k (2) e1 #3"]);
    assert_eq!(t.stored(1, "k", 12, None).0, ["w1"]);
}

#[test]
fn rule_23_an_occupied_or_unchanged_reply_is_never_installed() {
    let mut t = Table::open();
    let occupied = Outcome::Set(SetOutcome::Occupied(entry(5)));
    let unchanged = Outcome::Set(SetOutcome::Unchanged(entry(5)));
    let removed = Outcome::Delete(DeleteOutcome { removed: vec![true], revision: Revision(9) });
    for (f, outcome) in [(1, occupied), (2, unchanged), (3, removed)] {
        t.set("k", "w");
        assert_eq!(t.changed(f, &outcome), (vec!["w"], false));
    }
}

#[test]
fn rule_23_a_local_asks_even_for_what_it_holds() {
    let mut t = Table::holding_k();
    t.set("k", "w1");
    t.gives(&["f2 set k (1) e1 #2"]);
}

#[test]
fn rule_24_what_was_not_answered_goes_out_again_unchanged() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.set("j", "w1");
    t.del("i", "d1");
    let sent = ["f1 resolve k e1 #1", "f2 set j (1) e1 #2", "f3 del (2) e1 #0"];
    t.gives(&sent);
    t.m.send_again();
    t.gives(&sent);
    t.m.lost();
    t.connected(4);
    t.welcome(e(2));
    t.skip();
    t.m.send_again();
    t.gives(&sent);
    assert_eq!(t.stored(2, "j", 12, None).0, ["w1"]);
    t.m.send_again();
    t.gives(&[sent[0], sent[2]]);
}

#[test]
fn rule_24_what_nobody_waits_for_does_not_go_out_again() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.del("i", "d1");
    t.get(4, "j", "g2");
    t.skip();
    t.gone.borrow_mut().extend(["g1", "d1"]);
    t.m.send_again();
    t.gives(&["f3 resolve j e1 #3"]);
    assert_eq!(t.m.flights(), 1);
    t.get(5_000, "j", "g3");
    t.gone.borrow_mut().extend(["g2", "g3"]);
    t.m.forget_abandoned();
    t.gives_nothing();
    assert_eq!(t.m.flights(), 0);
}

#[test]
fn rule_28_not_found_is_not_remembered() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.absent(4, 1);
    t.get(5, "k", "g2");
    t.gives(&["f1 resolve k e1 #1", "absent for g1", "f2 resolve k e1 #2"]);
}

#[test]
fn easy_to_get_wrong_joining_a_flight_of_an_older_epoch_after_a_new_session() {
    // Sent in e1, read by Global before the cut; a DEL ran meanwhile, and this Local was not told of it but
    // by the loss of its session.
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.m.lost();
    t.connected(2_500);
    t.welcome(e(2));
    t.lease(2_501, e(2), 0);
    t.get(2_502, "k", "g2");
    t.bound(2_503, 1, 5, Some(e(1)));
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], false), "g2 began after the DEL");
    assert_eq!(t.hit(2_504, "k"), None);
}

#[test]
fn a_question_that_is_not_to_be_cached_is_neither_shared_nor_installed() {
    let mut t = Table::open();
    assert!(t.m.look(&name("k"), W("l1", t.gone.clone())).is_ok());
    t.get(3, "k", "g1");
    t.gives(&["f1 look k e1 #1", "f2 resolve k e1 #2"]);
    t.bound(4, 1, 5, Some(e(1)));
    t.gives(&["told @5 to l1"]);
    assert_eq!(t.complete(1, "k", 5), (vec![], false), "even if Global says that it may");
    assert_eq!(t.hit(5, "k"), None);
}

#[test]
fn what_was_registered_and_not_installed_is_dropped() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    t.skip();
    let (served, held) = t.m.complete(FlightId(1), |_, _| false);
    assert_eq!((served.len(), held), (1, false), "the cache did not want it");
    t.gives(&["drop k#1"]);
}

#[test]
fn a_blob_that_does_not_come_takes_no_registration_of_another_request() {
    // Global knows the larger registration only; to drop it would unregister what the smaller one holds.
    let mut t = Table::open();
    t.set("k", "w1");
    t.get(3, "k", "g1");
    assert_eq!(t.stored(1, "k", 12, Some(e(1))), (vec!["w1"], true));
    t.bound(4, 2, 12, Some(e(1)));
    t.skip();
    assert_eq!(t.failed(2), ["g1"]);
    t.gives_nothing();
    assert_eq!(t.hit(5, "k"), Some(12));
}
