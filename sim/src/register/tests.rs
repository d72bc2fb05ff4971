use super::*;

/// `(begun, ended, op, answer)` in milliseconds.
fn call(begun: u64, ended: u64, op: Op, answer: Answer) -> Call {
    let ms = Duration::from_millis;
    Call { by: "t".into(), op, answer: Some(answer), begun: ms(begun), ended: Some(ms(ended)) }
}

fn unknown(begun: u64, op: Op) -> Call {
    Call { by: "t".into(), op, answer: None, begun: Duration::from_millis(begun), ended: None }
}

use Answer::{Absent, Found, Occupied, Removed, Stored, Taken, Unchanged};
use Op::{Delete, Get, Set, Take};

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
        call(0, 1, Get, Absent),
        call(2, 3, Set(1), Stored),
        call(4, 5, Set(2), Occupied(1)),
        call(6, 7, Set(1), Unchanged),
        call(8, 9, Get, Found(1)),
        call(10, 11, Delete, Removed(true)),
        call(12, 13, Delete, Removed(false)),
        call(14, 15, Get, Absent),
    ]));
}

#[test]
fn every_wrong_answer_is_found() {
    let begin = [call(0, 1, Set(1), Stored)];
    let wrong = [
        call(2, 3, Get, Absent),
        call(2, 3, Get, Found(2)),
        call(2, 3, Set(2), Stored),
        call(2, 3, Set(1), Stored),
        call(2, 3, Set(2), Unchanged),
        call(2, 3, Set(2), Occupied(2)),
        call(2, 3, Delete, Removed(false)),
    ];
    for wrong in wrong {
        let calls = [&begin[..], std::slice::from_ref(&wrong)].concat();
        assert!(!explained(&calls), "{wrong}");
    }
}

#[test]
fn a_deleted_value_read_after_the_delete_is_found_and_one_read_during_it_is_not() {
    let begin = [call(0, 1, Set(1), Stored), call(2, 6, Delete, Removed(true))];
    let with = |get: Call| [&begin[..], &[get]].concat();
    assert!(!explained(&with(call(7, 8, Get, Found(1)))));
    assert!(explained(&with(call(5, 8, Get, Found(1)))));
    assert!(explained(&with(call(5, 8, Get, Absent))));
    // Equal times do not say which came first.
    assert!(explained(&with(call(6, 8, Get, Found(1)))));
}

#[test]
fn a_value_once_seen_gone_does_not_come_back_by_itself() {
    let calls = [
        call(0, 1, Set(1), Stored),
        call(2, 20, Delete, Removed(true)),
        call(3, 4, Get, Absent),
        call(5, 6, Get, Found(1)),
    ];
    assert!(!explained(&calls));
    let again = [&calls[..], &[call(2, 20, Set(1), Stored)]].concat();
    assert!(explained(&again));
}

#[test]
fn an_unknown_call_may_happen_late_or_never_but_not_early() {
    let set = call(0, 1, Set(1), Stored);
    let lost = unknown(10, Delete);
    let with = |get: Call| [set.clone(), lost.clone(), get];
    assert!(explained(&with(call(50, 51, Get, Found(1)))), "never");
    assert!(explained(&with(call(50, 51, Get, Absent))), "some time");
    assert!(!explained(&with(call(5, 6, Get, Absent))), "before it began");
    let twice = [set, lost, call(50, 51, Get, Absent), call(52, 53, Get, Found(1))];
    assert!(!explained(&twice), "it is not undone");
}

#[test]
fn one_unknown_set_explains_one_value_once() {
    let calls = [
        unknown(0, Set(7)),
        call(10, 11, Get, Absent),
        call(12, 13, Get, Found(7)),
        call(14, 15, Delete, Removed(true)),
        call(16, 17, Get, Absent),
    ];
    assert!(explained(&calls));
    let twice = [&calls[..], &[call(18, 19, Get, Found(7))]].concat();
    assert!(!explained(&twice));
}

#[test]
fn a_rename_takes_the_very_value_that_it_gives_to_the_other_name() {
    let set = call(0, 1, Set(1), Stored);
    assert!(explained(&[set.clone(), call(2, 3, Take(1), Taken), call(4, 5, Get, Absent)]));
    assert!(!explained(&[set.clone(), call(2, 3, Take(2), Taken)]), "it was bound to another");
    assert!(!explained(&[set.clone(), call(2, 3, Take(1), Taken), call(4, 5, Get, Found(1))]));
    assert!(!explained(&[call(2, 3, Take(1), Taken)]), "it was not bound at all");
    assert!(!explained(&[set, call(2, 3, Take(1), Taken), call(4, 5, Take(1), Taken)]), "once only");
}

#[test]
fn only_one_of_many_concurrent_sets_is_stored() {
    let mut calls: Vec<Call> = (1..=12).map(|v| call(0, 100, Set(v), Occupied(5))).collect();
    calls[4].answer = Some(Stored);
    assert!(explained(&calls));
    calls[7].answer = Some(Stored);
    assert!(!explained(&calls));
}

#[test]
fn the_report_names_what_does_not_fit() {
    let calls = [call(0, 1, Set(1), Stored), call(2, 3, Delete, Removed(true)), call(4, 5, Get, Found(1))];
    let Verdict::Impossible(stuck) = check(&calls) else { panic!("it must be found") };
    assert_eq!((stuck.order.as_slice(), stuck.next.as_slice()), (&[0, 1][..], &[2][..]));
    assert!(stuck.tell(&calls).contains("Get -> Found(1)"), "{}", stuck.tell(&calls));
}

#[test]
fn it_gives_up_rather_than_guess() {
    let mut calls = vec![call(0, 100, Get, Absent); 14];
    calls.push(call(0, 100, Get, Found(99)));
    assert_eq!(check_within(&calls, 1000), Verdict::Undecided(1000));
}

/// Histories made from an order that is known: each must be explained, and none when one answer is falsified
/// to a value that was never there.
#[test]
fn histories_of_two_hundred_calls_are_judged_quickly() {
    use dstore_sys::rng::{Rng, SeededRng};
    for seed in 0..50 {
        let rng = SeededRng::new(seed);
        let below = |n: u64| rng.next_u64() % n;
        let (mut state, mut calls) = (None, Vec::new());
        for at in (0..200_u64).map(|n| 1000 + n * 10) {
            let op = [Get, Get, Set(below(5) as Value), Set(at as Value), Delete][below(5) as usize];
            let told = match (op, state) {
                (Set(_), None) => Stored,
                (Set(v), Some(held)) if v == held => Unchanged,
                (Set(_), Some(held)) => Occupied(held),
                (Get, held) => held.map_or(Absent, Found),
                (Delete, held) => Removed(held.is_some()),
                (Op::Take(_), _) => unreachable!("not among those drawn"),
            };
            state = step(state, op, Some(told)).expect("the answer was made from the state");
            // Around its moment, overlapping about eight others.
            let call = call(at - below(40), at + below(40), op, told);
            let lost = below(15) == 0 && op != Get;
            calls.push(if lost { Call { answer: None, ended: None, ..call } } else { call });
        }
        assert!(explained(&calls), "seed {seed}");
        let read = calls.iter().rposition(|c| matches!(c.answer, Some(Found(_) | Absent)));
        calls[read.expect("some call is a GET")].answer = Some(Found(9_999_999));
        assert!(!matches!(check_within(&calls, 20_000), Verdict::Explained), "seed {seed}");
    }
}
