//! Locals that keep changes waiting, and leases that grow: rules 16, 17, 19 and 29.

use super::*;

/// A holds k, l and m in e1, and B nothing in e2.
fn with_a_and_b() -> Table {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    for (i, k) in (1..).zip(["k", "l", "m"]) {
        assert!(t.fills(1, e(1), k, i));
    }
    t.skip();
    t
}

/// A acknowledged a DEL of `k` at `ms`, too late.
fn late(t: &mut Table, ms: u64, label: &'static str, k: &str, seq: u64) {
    t.del(ms - ACK_MAX_MS - 1, label, &[k]);
    t.ack(ms, 1, e(1), seq);
}

#[test]
fn rule_17_who_acknowledged_late_registers_nothing_for_a_second() {
    let mut t = with_a_and_b();
    late(&mut t, 1_000, "d1", "k", 1);
    t.gives(&["s1 inv 1 k upto 10 e1", "commit d1"]);
    assert!(!t.fills(1_999, e(1), "j", 9));
    t.set(1_999, "w1", "own", Some((e(1), 10)));
    t.stored(1_999, "w1", 11);
    t.gives(&["commit w1", "w1: stored 11"]);
    t.keep(1_999, 1, e(1), 1, 1);
    t.gives(&["s1 lease 1 e1"]);
    assert_eq!(t.m.listing_wait(at(1_500), e(1)), Duration::from_millis(500), "a listing waits for the end");
    assert!(t.fills(2_000, e(1), "j", 11));
    assert_eq!(t.m.slow(at(2_000)), 0);
}

#[test]
fn rule_17_who_acknowledged_in_time_is_not_slow() {
    let mut t = with_a_and_b();
    t.del(100, "d1", &["k"]);
    t.ack(100 + ACK_MAX_MS, 1, e(1), 1);
    assert!(t.fills(100 + ACK_MAX_MS, e(1), "j", 9));
    assert_eq!(t.m.slow(at(100 + ACK_MAX_MS)), 0);
}

#[test]
fn rule_17_who_hangs_again_is_to_drop_what_it_holds_and_delays_nothing_more() {
    let mut t = with_a_and_b();
    late(&mut t, 1_000, "d1", "k", 1);
    t.skip();
    late(&mut t, 1_900, "d2", "l", 2);
    t.gives(&["s1 inv 2 l upto 10 e1", "commit d2", "s1 resync 3 upto 10 e1"]);
    assert!(!t.fills(1_901, e(1), "j", 9));
    t.ack(1_902, 1, e(1), 3);
    t.keep(1_903, 1, e(1), 1, 3);
    t.gives(&["s1 lease 1 e1"]);
    t.del(1_904, "d3", &["m"]);
    t.gives(&["commit d3"]);
    assert!(!t.fills(3_899, e(1), "j", 10), "for two seconds this time");
    assert!(t.fills(3_900, e(1), "j", 11));
    while t.m.tick(at(3_901)) {}
    assert_eq!(t.registrations(), 1, "of what it held before, nothing is left");
    t.skip();
    t.del(3_902, "d4", &["j"]);
    t.gives(&["s1 inv 4 j upto 10 e1"]);
}

#[test]
fn rule_17_until_it_has_dropped_what_it_holds_it_registers_nothing_however_long_that_takes() {
    let mut t = with_a_and_b();
    late(&mut t, 1_000, "d1", "k", 1);
    late(&mut t, 1_900, "d2", "l", 2);
    t.tick(2_009);
    t.skip();
    // The two seconds are not over, and it has not acknowledged the RESYNC: on a new stream it is told again.
    t.resumes(2_009, A, 3, e(1), 10);
    t.gives(&[
        "s1 close",
        "s3 welcome e3 Resume",
        "s3 inv 1 k upto 10 e3",
        "s3 inv 2 l upto 10 e3",
        "s3 resync 3 upto 10 e3",
    ]);
    assert!(!t.fills(2_009, e(3), "j", 9));
    assert_eq!(t.registrations(), 3, "it may still serve what it holds");
}

#[test]
fn rule_17_a_read_under_way_when_the_resync_is_sent_is_not_kept() {
    // Its answer is newer than the RESYNC, so it would be installed, and then the acknowledgement unregisters it.
    let mut t = Table::new();
    t.hello_keeping(0, A, 1, None);
    for (i, k) in (1..).zip(["k", "l"]) {
        assert!(t.fills(1, e(1), k, i));
    }
    late(&mut t, 1_000, "d1", "k", 1);
    t.skip();
    t.keep(1_998, 1, e(1), 1, 1);
    t.del(2_000, "d2", &["l"]);
    let [bound, absent, early] = [("i", 8), ("j", 9), ("h", 10)].map(|(k, reg)| t.begin(2_000, e(1), k, reg));
    assert!(bound.is_some() && absent.is_some());
    assert_eq!(t.end(2_000, "h", early, true), Some(e(1)), "its answer is not newer than the RESYNC");
    t.ack(2_001 + ACK_MAX_MS, 1, e(1), 2);
    t.gives(&["s1 lease 1 e1", "s1 inv 2 l upto 10 e1", "commit d2", "s1 resync 3 upto 10 e1"]);
    assert_eq!(t.end(2_002 + ACK_MAX_MS, "i", bound, true), None);
    assert_eq!(t.m.end_absent(at(2_002 + ACK_MAX_MS), &name("j"), absent.unwrap()), None);
}

#[test]
fn rule_16_who_was_waited_out_comes_back_with_nothing_that_is_waited_for() {
    let mut t = with_a_and_b();
    t.keep(1_500, 2, e(2), 1, 0);
    t.del(1_500, "d1", &["k"]);
    t.tick(OVER_MS);
    t.removed(OVER_MS, "d1", 11);
    t.skip();
    let back = OVER_MS + 700;
    t.resumes(back, A, 3, e(1), 10);
    t.gives(&["s3 welcome e3", "s3 lease 0 e3"]);
    assert_eq!((t.m.counts().wildcards, t.m.slow(at(back))), (0, 1));
    assert_eq!(t.m.listing_wait(at(back), e(3)), Duration::from_secs(1), "from its return on");
    assert!(!t.fills(back + 999, e(3), "l", 9));
    t.skip();
    t.del(back + 999, "d2", &["l"]);
    t.gives(&["commit d2"]);
    t.summary(back + 1_000, 3, e(3), 1, &[("m", true)], false);
    t.gives(&["s3 summarized 1 refused [] e3"]);
    t.del(back + 1_001, "d3", &["m"]);
    t.gives(&["s3 inv 1 m upto 11 e3"]);
}

#[test]
fn rule_16_who_was_gone_without_anybody_waiting_is_not_slow() {
    let mut t = with_a_and_b();
    t.tick(OVER_MS);
    t.resumes(OVER_MS, A, 3, e(1), 10);
    assert_eq!((t.m.counts().wildcards, t.m.slow(at(OVER_MS))), (1, 0));
}

#[test]
fn easy_to_get_wrong_a_session_that_was_told_to_serve_nothing_is_resumed_before_it_has_heard_that() {
    let mut t = with_a_and_b();
    t.keep(1_500, 2, e(2), 1, 0);
    t.del(1_500, "d1", &["k"]);
    t.tick(OVER_MS);
    t.removed(OVER_MS, "d1", 11);
    t.skip();
    // Two HELLOs: the WELCOME that answers the first never arrives.
    t.resumes(OVER_MS + 1, A, 3, e(1), 10);
    t.resumes(OVER_MS + 2, A, 4, e(1), 10);
    t.gives(&["s3 welcome e3", "s3 lease 0 e3", "s3 close", "s4 welcome e4", "s4 lease 0 e4"]);
    t.keep(OVER_MS + 3, 4, e(4), 1, 0);
    t.lost(4);
    t.skip();
    t.resumes(OVER_MS + 4, A, 5, e(4), 11);
    t.gives(&["s5 welcome e5 Resume", "s5 lease 0 e5"]);
}

#[test]
fn rule_17_a_local_that_hangs_for_ever_delays_deletes_once_and_then_for_ever_shorter_times() {
    let mut t = with_a_and_b();
    let (mut last, mut delayed) = (e(1), 0);
    // It comes back, fills a name as soon as it may, and hangs at once; for ten minutes.
    let mut ms = 10;
    while ms < 600_000 {
        let stream = 10 + ms;
        let hello = Hello { applied_rev: t.m.head(), ..A.hello(Some(last)) };
        last = t.m.hello(at(ms), StreamId(stream), &hello).unwrap();
        t.keep(ms, stream, last, 1, 0);
        let filled = t.fills(ms, last, "k", ms);
        t.m.submit(
            at(ms),
            Submission {
                id: RequestId { client: ClientId(8), n: ms, born: t.m.born(at(ms)) },
                names: vec![name("k")],
                drains: true,
                spared: Vec::new(),
                mode: DeleteMode::Strict,
                job: "d1",
                caller: None,
                responder: "d1",
            },
        );
        delayed += u64::from(!t.m.take_actions().iter().any(|a| matches!(a, Action::Commit(..))));
        assert!(filled || t.m.slow(at(ms)) == 1);
        ms += OVER_MS + ACK_MAX_MS;
        t.tick(ms);
        let ops: Vec<OpNo> = t.m.ops.keys().copied().collect();
        for op in ops {
            let revision = t.m.head().next();
            let outcome = DeleteOutcome { removed: vec![true], revision };
            t.m.finish(at(ms), op, &Ok(Outcome::Delete(outcome)), revision);
        }
        t.m.take_actions();
    }
    // After 1, 2, 4, 8, 16, 32 seconds, and then once a minute.
    assert!((2..=16).contains(&delayed), "{delayed} of 266 were delayed");
}

#[test]
fn rule_17_of_many_locals_none_is_slow_that_is_told_late() {
    let mut t = Table::with(Terms { sessions_at_lease: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    for n in 1..=3 {
        t.hello(0, Life { local: u128::from(n), incarnation: 1 }, n);
    }
    t.m.allow_lease(Duration::from_secs(6));
    assert!(t.fills(1, e(1), "k", 1) && t.fills(1, e(1), "j", 2));
    for n in 1..=3 {
        t.keep(1, n, e(n), 1, 0);
        t.summary(1, n, e(n), 1, &[], true);
    }
    t.skip();
    t.del(10, "d1", &["k"]);
    t.skip();
    t.keep(10 + 3 * ACK_MAX_MS - 1, 1, e(1), 2, 0);
    t.gives(&["s1 lease 2 e1"]);
    t.ack(10 + 3 * ACK_MAX_MS, 1, e(1), 1);
    t.gives(&["commit d1"]);
    assert_eq!(t.m.slow(at(10 + 3 * ACK_MAX_MS)), 0);
    t.del(2_000, "d2", &["j"]);
    t.skip();
    t.keep(2_000 + 3 * ACK_MAX_MS, 1, e(1), 3, 1);
    t.gives_nothing();
    t.ack(2_001 + 3 * ACK_MAX_MS, 1, e(1), 2);
    assert_eq!(t.m.slow(at(2_001 + 3 * ACK_MAX_MS)), 1, "later than that is slow all the same");
}

#[test]
fn rule_17_a_keep_is_answered_by_the_ack_that_ends_the_registrations_of_a_slow_local() {
    for (first, carried) in [(2, None), (3, None), (2, Some(3))] {
        let mut t = with_a_and_b();
        late(&mut t, 1_000, "d1", "k", 1);
        t.skip();
        late(&mut t, 1_900, "d2", "l", 2);
        t.gives(&["s1 inv 2 l upto 10 e1", "commit d2", "s1 resync 3 upto 10 e1"]);
        t.keep(1_901, 1, e(1), 1, first);
        if first < 3 {
            t.gives_nothing();
            match carried {
                None => t.ack(1_902, 1, e(1), 3),
                Some(acked) => t.keep(1_902, 1, e(1), 2, acked),
            }
        }
        t.gives(&[if carried.is_some() { "s1 lease 2 e1" } else { "s1 lease 1 e1" }]);
    }
}

#[test]
fn rule_29_a_lease_grows_with_the_sessions_and_only_as_far_as_is_durable() {
    let terms = Terms {
        sessions_at_lease: 2,
        lease_max: Duration::from_secs(5),
        ..Terms::for_lease(Duration::from_secs(2))
    };
    let mut t = Table::with(terms, 0);
    let secs = Duration::from_secs;
    let attach = |t: &mut Table, n: u64| {
        for i in 0..n {
            let next = t.m.counts().sessions as u64 + i;
            t.hello(0, Life { local: u128::from(next + 100), incarnation: 1 }, next + 100);
        }
    };
    attach(&mut t, 1);
    attach(&mut t, 1);
    assert_eq!((t.m.lease(), t.m.lease_to_allow()), (secs(2), None));
    attach(&mut t, 1);
    assert_eq!((t.m.lease(), t.m.lease_to_allow()), (secs(2), Some(secs(4))), "at least twice as much");
    t.m.allow_lease(secs(4));
    assert_eq!((t.m.lease(), t.m.lease_to_allow()), (secs(3), None));
    for _ in 0..3 {
        attach(&mut t, 1);
    }
    assert_eq!((t.m.lease(), t.m.lease_to_allow()), (secs(4), Some(secs(5))), "and no more than the cap");
    t.m.allow_lease(secs(5));
    t.skip();
    t.keep(1, 100, e(1), 1, 0);
    t.gives(&["s100 lease 1 e1"]);
    t.del(2, "d1", &["none"]);
    t.gives(&["commit d1"]);
    assert_eq!(t.m.drain_max(), Duration::from_millis(625) + lengthened(secs(5)), "A grows with D");
    t.tick(5_025);
    assert_eq!(t.m.counts().sessions, 1, "the one that was granted a lease of five seconds");
    assert_eq!(t.m.lease(), secs(2), "it shrinks with their number");
    t.tick(1 + 5_025);
    assert_eq!(t.m.counts().sessions, 0);
}
