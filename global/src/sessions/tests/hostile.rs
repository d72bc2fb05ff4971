//! What a peer gone wild may send, and what the machine must bear: no panic, nothing unbounded, nobody else
//! disturbed.

use super::*;

#[test]
fn a_second_hello_on_one_stream_is_refused_and_disturbs_nobody() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.skip();
    assert_eq!(t.refused_hello(1, B, 1), Kind::Invalid);
    assert_eq!(t.refused_hello(1, A, 1), Kind::Invalid);
    t.gives_nothing();
    t.keep(2, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
}

#[test]
fn a_new_incarnation_that_finds_no_room_does_not_fence_the_old_one() {
    let mut t = Table::with(Terms { sessions_max: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello(0, A, 1);
    t.skip();
    assert_eq!(t.refused_hello(1, A2, 2), Kind::Exhausted);
    t.keep(2, 1, e(1), 1, 0);
    t.gives(&["s1 lease 1 e1"]);
    t.hello_again(3, A, 3, e(1));
    t.keep(4, 3, e(2), 1, 0);
    t.gives(&["s1 close", "s3 welcome e2", "s3 lease 0 e2", "s3 lease 1 e2"]);
    t.bye(5, 3, e(2));
    assert!(t.m.by_epoch.is_empty() && t.m.by_stream.is_empty() && t.m.by_local.is_empty());
}

#[test]
fn a_full_holder_index_makes_a_session_a_wildcard() {
    let mut t = Table::with(Terms { holdings_max: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.hello(0, A, 1);
    t.hello(0, B, 2);
    t.skip();
    assert!(t.fills(1, e(1), "a", 1) && t.fills(1, e(2), "b", 1) && t.fills(1, e(2), "c", 2));
    assert_eq!(t.m.counts().wildcards, 1);
    t.summary(2, 2, e(2), 1, &[], true);
    t.skip();
    t.del(3, "d1", &["c"]);
    t.gives(&["s2 inv 1 c upto 10 e2"]);
}

#[test]
fn there_is_a_bound_on_ops_and_a_refused_one_may_come_again() {
    let mut t = Table::with(Terms { ops_max: 1, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.set(0, "w1", "k", None);
    t.set(0, "w2", "j", None);
    t.gives(&["commit w1", "w2: Exhausted"]);
    t.stored(1, "w1", 11);
    t.set(2, "w2", "j", None);
    t.gives(&["w1: stored 11", "commit w2"]);
}

#[test]
fn attempts_that_wait_for_one_op_are_bounded() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    assert!(t.fills(0, e(1), "k", 1));
    t.skip();
    (0..64).for_each(|_| t.del(1, "d1", &["k"]));
    t.gives(&["s1 inv 1 k upto 10 e1"]);
    t.del(1, "d1", &["k"]);
    t.gives(&["d1: Exhausted"]);
}

#[test]
fn a_request_without_number_or_birth_or_of_the_future_is_invalid() {
    let mut t = Table::new();
    let id = RequestId { client: ClientId(1), n: 1, born: t.m.born(at(0)) };
    let future = RequestId { born: Born { at_ms: 5, ..id.born }, ..id };
    for (label, id) in [("d1", RequestId::default()), ("d2", RequestId { n: 0, ..id }), ("d3", future)] {
        t.ids.insert(label, (id, None));
        t.del(4, label, &["k"]);
    }
    t.gives(&["d1: Invalid", "d2: Invalid", "d3: Invalid"]);
}

#[test]
fn an_op_without_names_or_with_one_name_many_times_ends() {
    let mut t = Table::new();
    t.del(0, "d1", &[]);
    t.del(0, "d2", &["k", "k", "k"]);
    t.gives(&["commit d1", "commit d2"]);
    t.removed(1, "d1", 10);
    t.removed(1, "d2", 11);
    t.gives(&["d1: removed 10", "d2: removed 11"]);
    assert!(t.m.ops.is_empty() && t.m.queues.is_empty());
}

#[test]
fn after_a_failed_journal_nobody_waits_for_an_answer_that_never_comes() {
    let mut t = Table::new();
    t.hello(0, A, 1);
    t.skip();
    t.del(0, "d1", &["k"]);
    t.gives(&["commit d1"]);
    let op = t.ids["d1"].1.unwrap();
    t.m.fail(op, &Error::unavailable("outcome unknown"));
    t.gives(&["d1: Unavailable"]);
    assert!(!t.fills(1, e(1), "k", 1), "its names stay busy");
    t.del(1, "d1", &["k"]);
    t.gives(&["d1: Unavailable"]);
}

#[test]
fn a_label_is_cut() {
    let mut t = Table::new();
    let hello = Hello { label: "é".repeat(10_000), ..A.hello(None) };
    t.m.hello(at(0), StreamId(1), &hello).unwrap();
    assert!(t.m.by_no.values().all(|s| s.label.len() <= 256));
}

#[test]
fn a_session_leaves_nothing_behind() {
    let mut t = Table::with(Terms { holdings_max: 2, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    for (i, k) in (0..4).zip(["a", "b", "c", "d"]) {
        t.hello_again(i * 3_000, Life { local: i.into(), incarnation: 1 }, i, older(1));
        t.fills(i * 3_000 + 1, e(i + 1), k, 1);
        t.fills(i * 3_000 + 1, e(i + 1), "k", 2);
    }
    t.tick(20_000);
    while t.m.tick(at(20_000)) {}
    let m = &t.m;
    assert_eq!((m.counts().sessions, m.counts().wildcards, m.counts().registrations), (0, 0, 0));
    assert!(m.by_local.is_empty() && m.by_epoch.is_empty() && m.by_stream.is_empty());
    assert!(m.lease_ends.is_empty());
}

#[test]
fn there_is_a_bound_on_the_names_that_ops_want() {
    let mut t = Table::with(Terms { names_max: 3, ..Terms::for_lease(Duration::from_secs(2)) }, 0);
    t.del(0, "d1", &["a", "b", "a"]);
    t.del(0, "d2", &["a", "b"]);
    t.set(0, "w1", "a", None);
    t.gives(&["commit d1", "d2: Exhausted"]);
    t.removed(1, "d1", 11);
    t.stored(2, "w1", 12);
    t.gives(&["d1: removed 11", "commit w1", "w1: stored 12"]);
    assert_eq!(t.m.names_wanted, 0);
}
