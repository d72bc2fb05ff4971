//! A session that falls behind: rule 14 when its queue is full.

use super::*;

fn with_a_holding(names: &[&str]) -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    for (i, k) in (1..).zip(names) {
        assert!(t.fills(1, e(1), k, i));
    }
    t.skip();
    t
}

impl Table {
    /// A frame found no room on the stream.
    fn overflows(&mut self, stream: u64) {
        self.m.overflowed(StreamId(stream));
    }
}

#[test]
fn rule_14_a_resync_stands_for_every_inv_before_it_and_no_lease_overtakes_it() {
    let mut t = with_a_holding(&["k", "l", "m"]);
    t.del(2, "d1", &["k"]);
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.overflows(1);
    t.gives(&["s1 resync 2 upto 10 e1"]);
    t.del(3, "d2", &["l"]);
    t.keep(4, 1, e(1), 1, 0);
    t.summary(4, 1, e(1), 9, &[], true);
    t.gives_nothing();
    t.ack(5, 1, e(1), 1);
    t.gives(&["commit d1"]);
    t.keep(6, 1, e(1), 2, 1);
    t.gives_nothing();
    t.ack(7, 1, e(1), 2);
    t.gives(&["s1 resync 4 upto 10 e1"]);
    t.keep(8, 1, e(1), 3, 2);
    t.gives_nothing();
    t.keep(9, 1, e(1), 4, 4);
    t.gives(&["commit d2", "s1 lease 4 e1"]);
    t.del(10, "d3", &["m"]);
    t.gives(&["s1 inv 5 m upto 10 e1"]);
    assert_eq!(t.m.counts().resyncs, 2);
}

#[test]
fn rule_14_a_frame_left_out_after_a_resync_is_made_up_for_by_another() {
    let mut t = with_a_holding(&["k"]);
    t.overflows(1);
    t.overflows(1);
    t.overflows(1);
    t.gives(&["s1 resync 1 upto 10 e1"]);
    t.ack(2, 1, e(1), 1);
    t.gives(&["s1 resync 2 upto 10 e1"]);
    t.keep(3, 1, e(1), 1, 2);
    t.gives(&["s1 lease 1 e1"]);
}

#[test]
fn rule_14_an_ack_from_before_a_resync_does_not_end_it() {
    let mut t = with_a_holding(&["k"]);
    t.del(2, "d1", &["k"]);
    t.ack(3, 1, e(1), 1);
    t.skip();
    t.overflows(1);
    t.skip();
    t.keep(4, 1, e(1), 1, 1);
    t.gives_nothing();
    t.keep(5, 1, e(1), 2, 2);
    t.gives(&["s1 lease 2 e1"]);
}

#[test]
fn rule_14_what_was_left_out_is_forgotten_with_its_stream_and_repeated_on_the_next() {
    let mut t = with_a_holding(&["k"]);
    t.overflows(1);
    t.del(2, "d1", &["k"]);
    t.lost(1);
    t.skip();
    t.resumes(3, A, 2, e(1), 10);
    t.gives(&["s2 welcome e2 Resume", "s2 inv 1 k upto 10 e2", "s2 lease 0 e2"]);
    t.overflows(1);
    t.overflows(99);
    t.gives_nothing();
    t.ack(4, 2, e(2), 1);
    t.gives(&["commit d1"]);
}

#[test]
fn rule_17_who_does_not_hear_a_resync_is_waited_for_no_longer_than_for_an_inv() {
    let mut t = with_a_holding(&["k"]);
    t.overflows(1);
    t.del(2, "d1", &["k"]);
    for ms in (500..2_000).step_by(500) {
        t.keep(ms, 1, e(1), ms, 0);
    }
    t.gives(&["s1 resync 1 upto 10 e1"]);
    t.tick(OVER_MS);
    t.gives(&["s1 close", "commit d1"]);
}

#[test]
fn rule_29_retire_is_told_to_one_that_fell_behind() {
    let mut t = with_a_holding(&["k"]);
    t.overflows(1);
    t.m.retire(at(3));
    t.gives(&["s1 resync 1 upto 10 e1", "s1 retire e1"]);
}
