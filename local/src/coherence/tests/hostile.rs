//! What a Global gone wild may send, and what the machine must bear: no panic, nothing unbounded, no name
//! served on the word of a stream that broke its order.

use super::*;

#[test]
fn a_frame_before_welcome_and_a_second_welcome_end_the_stream() {
    let mut t = Table::new();
    t.connected(0);
    t.inv(e(1), 1, "k", 10);
    t.gives(&["hello, was e0", "reconnect"]);
    let mut t = Table::open();
    t.welcome(e(2));
    t.gives(&["reconnect"]);
    assert_eq!(t.m.epoch(), Some(e(1)));
}

#[test]
fn after_a_missing_inv_no_lease_of_that_stream_counts() {
    for seq in [0, 2, u64::MAX] {
        let mut t = Table::holding_k();
        t.m.keep(at(500));
        t.skip();
        t.inv(e(1), seq, "other", 10);
        t.gives(&["reconnect"]);
        t.lease(501, e(1), 1);
        t.m.flush_ack();
        t.inv(e(1), 1, "other", 10);
        t.m.flush_ack();
        t.m.keep(at(502));
        t.gives_nothing();
        assert_eq!(t.hit(VALID_MS, "k"), None, "seq {seq}");
    }
}

#[test]
fn frames_without_a_stream_change_nothing() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.skip();
    t.inv(e(1), 1, "k", 10);
    t.inv(e(1), 7, "k", 10);
    t.welcome(e(5));
    t.lease(3, e(1), 0);
    t.summarized(e(1), 1, &[0]);
    t.down(3, Down::Retire { epoch: e(1) });
    t.m.flush_ack();
    t.gives_nothing();
    assert_eq!(t.hit(4, "k"), Some(5));
}

#[test]
fn a_lease_of_any_length_is_borne() {
    for lease in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX] {
        let mut t = Table::new();
        t.connected(0);
        let (head, resumption) = (Revision(u64::MAX), Resumption::Compacted);
        t.down(
            0,
            Down::Welcome {
                epoch: e(1),
                head,
                resumption,
                lease,
                born: born(u64::MAX),
                list: true,
                loss: None,
            },
        );
        t.down(0, Down::Lease { epoch: e(1), n: 0, lease, through: head, born: born(0) });
        t.m.keep(at(1));
        assert!(t.m.is_valid(at(0)) == (lease > Duration::from_nanos(1)), "{lease:?}");
    }
}

#[test]
fn a_summary_answer_of_another_batch_or_with_wild_positions_is_borne() {
    let mut t = Table::holding_k();
    t.m.lost();
    t.connected(100);
    t.welcome(e(2));
    t.lease(101, e(2), 0);
    t.skip();
    t.summarized(e(2), 9, &[0]);
    assert!(t.holds("k"));
    t.gives_nothing();
    t.summarized(e(2), 1, &[u32::MAX, 1, 7]);
    assert_eq!(t.hit(102, "k"), Some(5));
    t.gives(&["summary 2 last"]);
}

#[test]
fn replies_that_fit_no_question_are_ignored() {
    let mut t = Table::open();
    t.set("k", "w1");
    t.get(3, "j", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    assert_eq!(t.stored(2, "j", 5, Some(e(1))), (vec![], false));
    assert_eq!(t.stored(9, "j", 5, Some(e(1))), (vec![], false));
    assert!(!t.holds("j") && !t.holds("k"));
    assert_eq!(t.m.flights(), 2, "both still wait for their answers");
    t.absent(5, 2);
    assert_eq!(t.stored(1, "k", 12, None).0, ["w1"]);
    assert_eq!(t.m.flights(), 0);
}

#[test]
fn a_second_reply_to_one_question_is_ignored() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.bound(4, 1, 5, Some(e(1)));
    t.bound(4, 1, 4, None);
    t.absent(4, 1);
    t.gives(&["f1 resolve k e1 #1", "f1 found @5"]);
    assert_eq!(t.complete(1, "k", 5), (vec!["g1"], true));
}

#[test]
fn flights_and_waiters_are_bounded_and_the_refused_are_handed_back() {
    let mut t = Table::with(Bounds { flights_max: 2, waiters_max: 2 });
    t.connected(0);
    t.welcome(e(1));
    t.lease(0, e(1), 0);
    t.get(1, "k", "g1");
    t.get(1, "k", "g2");
    let third = t.m.read(at(1), &name("k"), None, W("g3", t.gone.clone())).unwrap_err();
    assert_eq!((third.0.kind(), third.1.0), (Kind::Exhausted, "g3"));
    t.get(1, "j", "g4");
    let fourth = t.m.look(&name("i"), W("g5", t.gone.clone())).unwrap_err();
    assert_eq!((fourth.0.kind(), fourth.1.0), (Kind::Exhausted, "g5"));
    t.skip();
    t.bound(2, 1, 5, None);
    t.gives(&["f1 found @5", "Exhausted for g2"]);
}

#[test]
fn late_waiters_who_ask_again_keep_to_the_bound_of_the_flight_that_they_join() {
    let mut t = Table::with(Bounds { flights_max: 8, waiters_max: 2 });
    t.connected(0);
    t.welcome(e(1));
    t.lease(0, e(1), 0);
    t.summarized(e(1), 1, &[]);
    t.get(3, "k", "early");
    t.get(4, "k", "late");
    // Lapsed: another flight waits for the one that is out, and is full.
    t.get(VALID_MS, "k", "g1");
    t.get(VALID_MS, "k", "g2");
    t.skip();
    t.bound(VALID_MS + 1, 1, 5, None);
    t.gives(&["f1 found @5", "Exhausted for late", "f2 resolve k e1 #2"]);
    assert_eq!(t.m.leaks(), Vec::<String>::new());
    t.bound(VALID_MS + 2, 2, 6, None);
    assert_eq!(t.complete(2, "k", 6).0, ["g1", "g2"]);
}

#[test]
fn nothing_is_left_when_all_was_answered() {
    let mut t = Table::open();
    t.get(3, "k", "g1");
    t.set("k", "w1");
    t.del("k", "d1");
    t.get(5_000, "k", "g2");
    assert_eq!(t.failed(1), ["g1"]);
    assert_eq!(t.failed(2), ["w1"]);
    assert_eq!(t.failed(3), ["d1"]);
    assert_eq!(t.failed(4), ["g2"]);
    assert_eq!(t.failed(4), Vec::<&str>::new());
    assert!(t.m.flights.is_empty() && t.m.by_name.is_empty());
}
