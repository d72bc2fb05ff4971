use super::*;

/// `(begun, ended, op, answer)` in milliseconds.
fn call(begun: u64, ended: u64, op: Op, answer: Answer) -> Call {
    let ms = Duration::from_millis;
    let told = Told::default();
    Call { by: "t".into(), op, answer: Some(answer), begun: ms(begun), ended: Some(ms(ended)), told }
}

fn unknown(begun: u64, op: Op) -> Call {
    let told = Told::default();
    Call { by: "t".into(), op, answer: None, begun: Duration::from_millis(begun), ended: None, told }
}

use Answer::{Absent, All, Bound, Done, Found, Occupied, RemovedMany, Stored, Unchanged};
use Op::{Copy, DeletePrefix, Exists, Read, Rename};

const A: Keys = Keys(1);
const AB: Keys = Keys(3);

const GET: Op = Op::Get(0);
const DEL: Op = Op::Delete(A);

fn set(value: Value) -> Op {
    Op::Set(0, value)
}

fn removed(removed: bool) -> Answer {
    Answer::Removed(if removed { A } else { Keys::default() })
}

fn explained(calls: &[Call]) -> bool {
    match check(calls) {
        Verdict::Explained => true,
        Verdict::Impossible(_) => false,
        Verdict::Undecided(steps) => panic!("no verdict in {steps} steps"),
    }
}

#[test]
fn a_history_without_overlap_is_its_own_order() {
    assert!(explained(&[]));
    assert!(explained(&[
        call(0, 1, GET, Absent),
        call(2, 3, set(1), Stored),
        call(4, 5, set(2), Occupied(1)),
        call(6, 7, set(1), Unchanged),
        call(8, 9, GET, Found(1)),
        call(10, 11, DEL, removed(true)),
        call(12, 13, DEL, removed(false)),
        call(14, 15, GET, Absent),
    ]));
}

#[test]
fn every_wrong_answer_is_found() {
    let begin = [call(0, 1, set(1), Stored)];
    let wrong = [
        call(2, 3, GET, Absent),
        call(2, 3, GET, Found(2)),
        call(2, 3, set(2), Stored),
        call(2, 3, set(1), Stored),
        call(2, 3, set(2), Unchanged),
        call(2, 3, set(2), Occupied(2)),
        call(2, 3, DEL, removed(false)),
    ];
    for wrong in wrong {
        let calls = [&begin[..], std::slice::from_ref(&wrong)].concat();
        assert!(!explained(&calls), "{wrong}");
    }
}

#[test]
fn a_deleted_value_read_after_the_delete_is_found_and_one_read_during_it_is_not() {
    let begin = [call(0, 1, set(1), Stored), call(2, 6, DEL, removed(true))];
    let with = |get: Call| [&begin[..], &[get]].concat();
    assert!(!explained(&with(call(7, 8, GET, Found(1)))));
    assert!(explained(&with(call(5, 8, GET, Found(1)))));
    assert!(explained(&with(call(5, 8, GET, Absent))));
    // Equal times do not say which came first.
    assert!(explained(&with(call(6, 8, GET, Found(1)))));
}

#[test]
fn a_value_once_seen_gone_does_not_come_back_by_itself() {
    let calls = [
        call(0, 1, set(1), Stored),
        call(2, 20, DEL, removed(true)),
        call(3, 4, GET, Absent),
        call(5, 6, GET, Found(1)),
    ];
    assert!(!explained(&calls));
    let again = [&calls[..], &[call(2, 20, set(1), Stored)]].concat();
    assert!(explained(&again));
}

#[test]
fn an_unknown_call_may_happen_late_or_never_but_not_early() {
    let set = call(0, 1, set(1), Stored);
    let lost = unknown(10, DEL);
    let with = |get: Call| [set.clone(), lost.clone(), get];
    assert!(explained(&with(call(50, 51, GET, Found(1)))), "never");
    assert!(explained(&with(call(50, 51, GET, Absent))), "some time");
    assert!(!explained(&with(call(5, 6, GET, Absent))), "before it began");
    let twice = [set, lost, call(50, 51, GET, Absent), call(52, 53, GET, Found(1))];
    assert!(!explained(&twice), "it is not undone");
}

#[test]
fn one_unknown_set_explains_one_value_once() {
    let calls = [
        unknown(0, set(7)),
        call(10, 11, GET, Absent),
        call(12, 13, GET, Found(7)),
        call(14, 15, DEL, removed(true)),
        call(16, 17, GET, Absent),
    ];
    assert!(explained(&calls));
    let twice = [&calls[..], &[call(18, 19, GET, Found(7))]].concat();
    assert!(!explained(&twice));
}

#[test]
fn only_one_of_many_concurrent_sets_is_stored() {
    let mut calls: Vec<Call> = (1..=12).map(|v| call(0, 100, set(v), Occupied(5))).collect();
    calls[4].answer = Some(Stored);
    assert!(explained(&calls));
    calls[7].answer = Some(Stored);
    assert!(!explained(&calls));
}

#[test]
fn the_report_names_what_does_not_fit() {
    let calls = [call(0, 1, set(1), Stored), call(2, 3, DEL, removed(true)), call(4, 5, GET, Found(1))];
    let Verdict::Impossible(stuck) = check(&calls) else { panic!("it must be found") };
    assert_eq!((stuck.order.as_slice(), stuck.next.as_slice()), (&[0, 1][..], &[2][..]));
    assert!(stuck.tell(&calls).contains("Get(0) -> Found(1)"), "{}", stuck.tell(&calls));
}

#[test]
fn it_gives_up_rather_than_guess() {
    let one = Keys::one(0);
    let sets = (1..=8).map(|value| call(0, 100, Op::Set(0, value), Stored));
    let deletes = (1..=8).map(|_| call(0, 100, Op::Delete(one), Answer::Removed(one)));
    // Each order of them is possible, and none explains this.
    let calls: Vec<Call> = sets.chain(deletes).chain([call(0, 100, GET, Found(99))]).collect();
    assert_eq!(check_within(&calls, 1000), Verdict::Undecided(1000));
}

#[test]
fn half_a_change_of_two_keys_is_found() {
    let begin = [call(0, 1, Op::Set(0, 1), Stored), call(2, 3, Op::Set(1, 2), Stored)];
    let both = State::default().with(0, Some(1)).with(1, Some(2));
    let with = |rest: &[Call]| [&begin[..], rest].concat();
    let del = call(4, 20, Op::Delete(AB), Answer::Removed(AB));
    assert!(explained(&with(&[del.clone(), call(5, 6, Read(AB), All(both)), call(7, 8, GET, Absent)])));
    let half = both.with(0, None);
    assert!(!explained(&with(&[del.clone(), call(5, 6, Read(AB), All(half))])));
    assert!(!explained(&with(&[del.clone(), call(5, 6, Exists(AB), Bound(Keys::one(1)))])));
    // Two reads, one after the other, of which the first saw the delete done.
    let second = call(7, 8, Op::Get(1), Found(2));
    assert!(!explained(&with(&[del, call(5, 6, GET, Absent), second.clone()])));
    let prefix = call(4, 20, DeletePrefix(AB), RemovedMany(2));
    assert!(!explained(&with(&[prefix.clone(), call(5, 6, GET, Absent), second])));
    assert!(!explained(&with(&[Call { answer: Some(RemovedMany(1)), ..prefix }])));
}

#[test]
fn a_rename_is_seen_under_both_names_or_under_neither_by_nobody() {
    let begin = [call(0, 1, Op::Set(0, 1), Stored)];
    let with = |rest: &[Call]| [&begin[..], rest].concat();
    let rename = call(2, 20, Rename(0, 1), Done(1));
    let (before, after) = (State::default().with(0, Some(1)), State::default().with(1, Some(1)));
    for seen in [before, after] {
        assert!(explained(&with(&[rename.clone(), call(5, 6, Read(AB), All(seen))])));
    }
    for wrong in [State::default(), before.with(1, Some(1))] {
        assert!(!explained(&with(&[rename.clone(), call(5, 6, Read(AB), All(wrong))])));
    }
    assert!(explained(&with(&[
        call(2, 20, Copy(0, 1), Done(1)),
        call(30, 31, Read(AB), All(before.with(1, Some(1))))
    ])));
    assert!(explained(&with(&[call(2, 3, Copy(1, 0), Absent), call(4, 5, Copy(0, 0), Unchanged)])));
    assert!(!explained(&with(&[call(2, 3, Copy(1, 0), Occupied(1))])));
}

/// Histories made from an order that is known: each must be explained, and none when one answer is falsified
/// to a value that was never there.
#[test]
fn histories_of_two_hundred_calls_are_judged_quickly() {
    use dstore_sys::rng::{Rng, SeededRng};
    for seed in 0..50 {
        let rng = SeededRng::new(seed);
        let below = |n: u64| rng.next_u64() % n;
        let (mut state, mut calls) = (State::default(), Vec::new());
        for at in (0..200_u64).map(|n| 1000 + n * 10) {
            let ops = [
                GET,
                GET,
                Read(AB),
                Exists(AB),
                set(below(5) as Value + 1),
                set(at as Value),
                DEL,
                Op::Delete(AB),
                DeletePrefix(AB),
                Copy(0, 1),
                Rename(1, 0),
                Rename(0, 1),
                Op::Set(1, 3),
            ];
            let op = ops[below(ops.len() as u64) as usize];
            let told = model::told(state, op).0;
            state = step(state, op, Some(told)).expect("the answer was made from the state");
            // Around its moment, overlapping about eight others.
            let call = call(at - below(40), at + below(40), op, told);
            let lost = below(15) == 0 && !op.is_read();
            calls.push(if lost { Call { answer: None, ended: None, ..call } } else { call });
        }
        assert!(explained(&calls), "seed {seed}");
        let read = calls.iter().rposition(|c| c.op == GET);
        calls[read.expect("some call is a GET")].answer = Some(Found(9_999_999));
        assert!(!matches!(check_within(&calls, 20_000), Verdict::Explained), "seed {seed}");
    }
}
