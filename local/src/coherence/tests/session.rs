//! Lease, session and held names: rules 1, 2, 4, 10, 13, 14, 18, 19, 20 and 31.

use super::*;

#[test]
fn rule_01_a_name_is_served_strictly_before_valid_until() {
    let mut t = Table::holding_k();
    assert_eq!(t.hit(VALID_MS - 1, "k"), Some(5));
    assert!(t.m.is_valid(at(VALID_MS - 1)));
    assert_eq!(t.hit(VALID_MS, "k"), None);
    assert!(!t.m.is_valid(at(VALID_MS)));
}

#[test]
fn rule_02_a_lease_counts_from_the_sending_of_the_very_keep_that_it_answers() {
    let mut t = Table::open();
    t.m.keep(at(500));
    t.m.keep(at(900));
    t.gives(&["keep 1 acked 0 e1", "keep 2 acked 0 e1"]);
    t.lease(1_000, e(1), 1);
    t.gives(&["valid until 2490"]);
    t.lease(1_800, e(1), 2);
    t.gives(&["valid until 2890"]);
}

#[test]
fn rule_02_the_first_lease_counts_from_hello() {
    let mut t = Table::new();
    t.connected(100);
    t.welcome(e(1));
    t.lease(900, e(1), 0);
    t.gives(&["hello, was e0", "era 1", "summary 1 last", "valid until 2090"]);
}

#[test]
fn rule_02_a_lease_that_answers_no_outstanding_keep_is_ignored() {
    let mut t = Table::open();
    t.m.keep(at(500));
    t.m.keep(at(900));
    t.skip();
    t.lease(1_000, e(1), 2);
    t.gives(&["valid until 2890"]);
    for n in [0, 1, 2, 3, u64::MAX] {
        t.lease(1_001, e(1), n);
    }
    t.gives_nothing();
}

#[test]
fn rule_02_keeps_of_an_old_stream_are_forgotten() {
    let mut t = Table::open();
    t.m.keep(at(500));
    t.m.lost();
    t.lease(600, e(1), 1);
    t.connected(1_000);
    t.welcome(e(2));
    t.skip();
    t.lease(1_100, e(2), 1);
    t.lease(1_100, e(1), 0);
    t.gives_nothing();
    t.lease(1_100, e(2), 0);
    t.gives(&["valid until 2990"]);
}

#[test]
fn rule_02_valid_until_never_falls_by_a_lease() {
    let mut t = Table::open();
    t.m.keep(at(500));
    t.skip();
    let short = Duration::from_millis(100);
    let through = Revision(1);
    t.down(600, Down::Lease { epoch: e(1), n: 1, lease: short, through, born: born(0) });
    t.gives_nothing();
    assert!(t.m.is_valid(at(VALID_MS - 1)));
}

#[test]
fn rule_02_unanswered_keeps_are_bounded_and_the_newest_count() {
    let mut t = Table::open();
    (1..=100).for_each(|i| t.m.keep(at(i)));
    t.skip();
    assert!(t.m.keeps.len() <= 16);
    t.lease(200, e(1), 84);
    t.gives_nothing();
    t.lease(200, e(1), 85);
    t.gives(&["valid until 2075"]);
}

#[test]
fn rule_04_welcome_alone_ends_no_lapse() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(5_000);
    t.welcome(e(2));
    t.summarized(e(2), 1, &[]);
    assert_eq!(t.hit(5_001, "k"), None);
    t.lease(5_001, e(1), 0);
    assert_eq!(t.hit(5_001, "k"), None, "a lease of the old epoch");
    t.lease(5_002, e(2), 0);
    assert_eq!(t.hit(5_002, "k"), Some(5));
}

#[test]
fn rule_10_an_inv_removes_what_is_bound_at_or_before_it() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.inv(e(1), 1, "k", 4);
    assert_eq!(t.hit(3, "k"), Some(5), "a newer binding stays");
    t.inv(e(1), 2, "k", 5);
    assert_eq!(t.hit(3, "k"), None);
    assert_eq!(t.hit(3, "j"), Some(6), "another name");
}

#[test]
fn rule_13_the_ack_follows_removal_and_tells_the_last_inv() {
    let mut t = Table::holding_k();
    t.inv(e(1), 1, "k", 10);
    t.inv(e(1), 2, "j", 10);
    assert!(!t.holds("k"));
    t.gives_nothing();
    t.m.flush_ack();
    t.m.flush_ack();
    t.gives(&["ack 2 e1"]);
    t.m.keep(at(5));
    t.gives(&["keep 1 acked 2 e1"]);
}

#[test]
fn rule_13_a_frame_of_another_epoch_is_dropped() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(3);
    t.welcome(e(2));
    t.skip();
    t.inv(e(1), 1, "k", 10);
    t.down(4, Down::Retire { epoch: e(1) });
    t.summarized(e(1), 1, &[0]);
    t.lease(4, e(1), 0);
    t.m.flush_ack();
    t.gives_nothing();
    assert!(t.holds("k"));
}

#[test]
fn rule_13_seq_restarts_with_the_epoch_and_no_ack_crosses_over() {
    let mut t = Table::open();
    t.inv(e(1), 1, "k", 10);
    t.m.lost();
    t.m.flush_ack();
    t.connected(3);
    t.m.flush_ack();
    t.welcome(e(2));
    t.m.flush_ack();
    t.gives(&["hello, was e1", "era 2", "summary 1 last"]);
    t.inv(e(2), 1, "k", 10);
    t.m.flush_ack();
    t.gives(&["ack 1 e2"]);
}

#[test]
fn rule_14_an_inv_between_welcome_and_lease_is_applied_before_anything_is_served() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.skip();
    t.inv(e(2), 1, "k", 10);
    t.lease(101, e(2), 0);
    t.summarized(e(2), 1, &[]);
    // The INV overtook the listing; its name is not there to be validated any more.
    t.gives(&["valid until 2090", "drop k#4", "summary 2 last"]);
    assert_eq!((t.hit(102, "k"), t.hit(102, "j")), (None, Some(6)));
}

#[test]
fn rule_18_goodbye_is_said_after_serving_has_ended() {
    let mut t = Table::holding_k();
    t.m.keep(at(2));
    t.skip();
    t.m.leave();
    t.gives(&["serve nothing", "bye e1"]);
    assert_eq!(t.hit(3, "k"), None);
    t.m.keep(at(4));
    t.lease(5, e(1), 1);
    t.gives_nothing();
}

#[test]
fn rule_18_who_has_left_says_hello_no_more() {
    let mut t = Table::holding_k();
    t.m.leave();
    t.skip();
    t.m.lost();
    assert!(!t.m.connected(at(100)));
    t.gives_nothing();
}

#[test]
fn rule_18_who_left_before_welcome_came_says_goodbye_to_the_session_that_it_begins() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.skip();
    t.m.leave();
    t.gives(&["serve nothing"]);
    t.welcome(e(2));
    t.gives(&["bye e2"]);
    t.lease(101, e(2), 0);
    t.m.keep(at(102));
    t.gives_nothing();
    assert_eq!(t.hit(103, "k"), None);
}

#[test]
fn rule_18_who_retired_because_global_stopped_serves_again_in_the_next_epoch() {
    let mut t = Table::holding_k();
    t.down(2, Down::Retire { epoch: e(1) });
    t.m.lost();
    t.skip();
    t.connected(100);
    t.welcome_as(e(2), Resumption::Resume);
    t.lease(101, e(2), 0);
    t.gives(&["hello, was e1", "valid until 2090"]);
}

#[test]
fn rule_18_a_lost_stream_lets_the_lease_run_on() {
    let mut t = Table::holding_k();
    t.m.lost();
    assert_eq!(t.hit(VALID_MS - 1, "k"), Some(5));
    t.m.keep(at(10));
    t.gives_nothing();
}

#[test]
fn rule_19_names_are_listed_served_again_if_registered_and_dropped_if_refused() {
    let mut t = Table::holding_k();
    t.fill("j", 6, "g1");
    t.skip();
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.lease(101, e(2), 0);
    t.gives(&["hello, was e1", "era 2", "summary 1 j@6#3 k@5#4", "valid until 2090"]);
    assert_eq!((t.hit(102, "j"), t.hit(102, "k")), (None, None), "not before they are registered");
    t.summarized(e(2), 1, &[1]);
    t.gives(&["summary 2 last"]);
    assert_eq!((t.hit(103, "j"), t.holds("k")), (Some(6), false));
    t.summarized(e(2), 2, &[]);
    // Another round tells that what was refused is gone.
    t.gives(&["summary 3 last"]);
    t.summarized(e(2), 3, &[]);
    t.gives_nothing();
}

#[test]
fn rule_19_a_long_list_goes_in_batches_one_at_a_time() {
    let mut t = Table::open();
    for i in 0..=SUMMARY_LEN_MAX {
        t.names.0.borrow_mut().insert(name(&format!("k{i:04}")), Held { rev: 5, reg: RegSeq(1), era: 1 });
    }
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.obey();
    assert_eq!(t.done.iter().filter(|d| d.starts_with("summary")).count(), 1);
    t.skip();
    t.summarized(e(2), 1, &[]);
    t.obey();
    assert!(t.done[0].starts_with("summary 2 k0512@5#"), "{:?}", t.done);
    t.skip();
    t.summarized(e(2), 2, &[]);
    t.gives(&["summary 3 last"]);
    t.summarized(e(2), 3, &[]);
    t.gives_nothing();
}

#[test]
fn rule_19_a_refusal_does_not_drop_what_was_installed_since() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.lease(101, e(2), 0);
    t.fill("k", 15, "g1");
    t.skip();
    t.summarized(e(2), 1, &[0]);
    assert_eq!(t.hit(102, "k"), Some(15));
}

#[test]
fn rule_19_a_listing_ends_with_its_stream() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.m.lost();
    t.connected(200);
    t.welcome(e(3));
    t.skip();
    t.summarized(e(2), 1, &[]);
    t.lease(201, e(3), 0);
    assert_eq!(t.hit(202, "k"), None);
    t.summarized(e(3), 1, &[]);
    assert_eq!(t.hit(202, "k"), Some(5));
}

#[test]
fn rule_20_registrations_are_numbered_without_repetition() {
    let mut t = Table::holding_k();
    t.get(3, "i", "g1");
    t.set("j", "w1");
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.get(101, "i", "g2");
    t.gives(&[
        "f2 resolve i e1 #2",
        "f3 set j (1) e1 #3",
        "hello, was e1",
        "era 2",
        "summary 1 k@5#4",
        "f4 resolve i e2 #5",
    ]);
}

#[test]
fn rule_20_what_was_evicted_is_dropped_unless_a_request_for_it_is_out() {
    let mut t = Table::holding_k();
    t.dropped("k", 1);
    t.gives(&["drop k#1"]);
    t.get(3, "k", "g1");
    t.set("j", "w1");
    t.skip();
    t.dropped("k", 1);
    t.dropped("j", 1);
    t.gives_nothing();
    t.m.lost();
    t.dropped("i", 1);
    t.gives_nothing();
}

#[test]
fn rule_29_when_global_retires_nothing_is_served_and_goodbye_is_said() {
    let mut t = Table::holding_k();
    t.down(10, Down::Retire { epoch: e(1) });
    t.gives(&["serve nothing", "bye e1"]);
    assert_eq!(t.hit(11, "k"), None);
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.lease(101, e(2), 0);
    t.summarized(e(2), 1, &[]);
    assert_eq!(t.hit(102, "k"), Some(5), "with the next session");
}

#[test]
fn rule_31_names_are_unservable_from_welcome_though_the_old_lease_runs() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    assert_eq!(t.hit(101, "k"), Some(5));
    t.welcome(e(2));
    t.gives(&["hello, was e1", "era 2", "summary 1 k@5#2"]);
    assert_eq!(t.hit(102, "k"), None);
    assert!(t.holds("k"), "to be listed, and its blob kept");
}

#[test]
fn rule_31_in_another_history_all_names_are_gone() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    let other = Epoch { history: HistoryId(9), ..e(2) };
    t.welcome_as(other, Resumption::NewHistory);
    t.lease(101, other, 0);
    assert!(!t.holds("k"));
    assert_eq!(t.m.applied(), Revision(10), "of the new history");
    t.gives(&["hello, was e1", "era 2", "summary 1 last", "valid until 2090"]);
    t.m.lost();
    t.connected(200);
    let Some(Action::Send(Up::Hello(hello))) = t.m.take_actions().pop() else { panic!("a hello") };
    assert_eq!((hello.history, hello.last_epoch), (HistoryId(9), Some(other)));
}

#[test]
fn every_frame_and_reply_tells_the_newest_revision_and_a_lease_alone_what_was_applied() {
    let mut t = Table::open();
    assert_eq!((t.m.known(), t.m.applied()), (Revision(10), Revision(10)), "by WELCOME and LEASE");
    t.inv(e(1), 1, "k", 12);
    assert_eq!(t.m.known(), Revision(12));
    t.get(0, "k", "g0");
    t.absent(1, 1);
    assert_eq!(t.m.known(), Revision(20), "the head at the read");
    t.set("k", "s0");
    t.stored(2, "k", 21, Some(e(1)));
    assert_eq!(t.m.known(), Revision(21));
    t.del("k", "d0");
    t.changed(3, &Outcome::Delete(DeleteOutcome { removed: vec![true], revision: Revision(22) }));
    t.set("k", "s1");
    t.changed(4, &Outcome::Set(SetOutcome::NeedBlob));
    assert_eq!((t.m.known(), t.m.applied()), (Revision(22), Revision(10)));
    t.m.lost();
    t.connected(100);
    let Some(Action::Send(Up::Hello(hello))) = t.m.take_actions().pop() else { panic!("a hello") };
    assert_eq!(hello.applied_rev, Revision(10), "an INV may be missing after it");
}

#[test]
fn a_reply_of_another_history_tells_no_revision() {
    let mut t = Table::open();
    t.inv(e(1), 1, "j", 30);
    t.get(0, "k", "g0");
    t.m.lost();
    t.connected(100);
    let other = Epoch { history: HistoryId(9), ..e(2) };
    t.welcome_as(other, Resumption::NewHistory);
    assert_eq!(t.m.known(), Revision(10), "30 was of the other one");
    t.absent(101, 1);
    assert_eq!(t.m.known(), Revision(10), "20 was, too");
    t.get(102, "k", "g1");
    t.absent(103, 2);
    assert_eq!(t.m.known(), Revision(20));
}

#[test]
fn rule_10_an_inv_of_a_prefix_removes_and_poisons_all_that_is_under_it_and_nothing_else() {
    let mut t = Table::open();
    t.get(1, "a/1", "w1");
    t.get(1, "a/2", "w2");
    t.get(1, "b", "w3");
    t.get(1, "a/out", "w4");
    for (f, k, rev) in [(1, "a/1", 5), (2, "a/2", 30), (3, "b", 6)] {
        t.bound(2, f, rev, Some(e(1)));
        assert!(t.complete(f, k, rev).1, "{k} is held");
    }
    t.skip();
    let prefix = Prefix::new(&dstore_shared::Namespace::default(), b"a/").unwrap();
    let inv = |seq, upto| Down::InvPrefix { epoch: e(1), seq, prefix: prefix.clone(), upto: Revision(upto) };
    t.down(3, inv(1, 20));
    t.m.flush_ack();
    t.gives(&["ack 1 e1"]);
    let held: Vec<Name> = t.names.0.borrow().keys().cloned().collect();
    assert_eq!(held, [name("a/2"), name("b")], "a newer binding stays");
    // A reply that the INV overtook is installed iff it is newer.
    t.bound(4, 4, 20, Some(e(1)));
    assert_eq!(t.complete(4, "a/out", 20), (vec!["w4"], false));
    t.skip();
    t.get(5, "a/out", "w5");
    t.bound(6, 5, 21, Some(e(1)));
    assert!(t.complete(5, "a/out", 21).1);
    // They are counted with the others: a missing one ends the stream.
    t.skip();
    t.inv(e(1), 2, "b", 20);
    t.down(7, inv(4, 20));
    t.gives(&["reconnect"]);
}

#[test]
fn rule_26_requests_are_stamped_with_the_newest_of_globals_clocks_that_was_seen() {
    let mut t = Table::new();
    assert_eq!(t.m.born(), None);
    t.m.saw(Born { boot: 0, ..born(9) });
    assert_eq!(t.m.born(), None, "of no boot: it tells nothing");
    t.m.saw(born(5));
    assert_eq!(t.m.born(), Some(born(5)));
    t.m.saw(born(3));
    assert_eq!(t.m.born(), Some(born(5)), "late");
    t.m.saw(born(7));
    assert_eq!(t.m.born(), Some(born(7)));
}

#[test]
fn what_a_welcome_tells_of_the_lease_and_of_what_a_crash_may_take_is_known_from_then_on() {
    let mut t = Table::new();
    assert_eq!((t.m.lease(), t.m.loss()), (dstore_shared::limits::LEASE, None));
    t.connected(0);
    let (lease, loss) = (Duration::from_secs(3), Some(Duration::from_millis(100)));
    let (head, resumption) = (Revision(10), Resumption::Compacted);
    let list = false;
    t.down(0, Down::Welcome { epoch: e(1), head, resumption, lease, born: born(4), list, loss });
    assert_eq!((t.m.lease(), t.m.loss(), t.m.born()), (lease, loss, Some(born(4))));
}
