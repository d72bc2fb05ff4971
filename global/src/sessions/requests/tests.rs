use super::*;
use dstore_shared::{DeleteOutcome, HistoryId, Kind, Revision};
use dstore_sys::rng::{Rng, SeededRng};

/// Never reached.
const WEIGHT_MAX: usize = 1 << 40;
const BOOT: Born = Born { history: HistoryId(1), boot: 3, at_ms: 0 };

fn id(client: u128, n: u64, at_ms: u64) -> RequestId {
    RequestId { client: ClientId(client), n, born: Born { at_ms, ..BOOT } }
}

fn outcome(rev: u64) -> Outcome {
    Outcome::Delete(DeleteOutcome { removed: vec![true], revision: Revision(rev) })
}

#[test]
fn rule_24_a_duplicate_joins_while_it_runs_and_then_gets_the_recorded_result() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
    t.start(id(1, 1, 5), OpNo(9));
    assert!(matches!(t.admit(id(1, 1, 5), 11), Ok(Admission::Join(OpNo(9)))));
    t.finish(id(1, 1, 5), outcome(7));
    assert!(matches!(t.admit(id(1, 1, 5), 12), Ok(Admission::Done(o)) if o == outcome(7)));
    assert_eq!(t.admit(id(1, 1, 6), 12).unwrap_err().kind(), Kind::Invalid, "same number, other birth");
}

#[test]
fn rule_25_what_is_forgotten_is_refused_and_never_new() {
    let mut t = Requests::new(BOOT, 2, WEIGHT_MAX);
    for n in 1..=3 {
        t.start(id(n, 1, n as u64), OpNo(n as u64));
        t.finish(id(n, 1, n as u64), outcome(1));
    }
    assert_eq!(t.len(), 2);
    assert_eq!(t.admit(id(1, 1, 1), 50).unwrap_err().kind(), Kind::Closed);
    assert_eq!(t.admit(id(8, 1, 1), 50).unwrap_err().kind(), Kind::Closed, "any attempt as old as the floor");
    assert!(matches!(t.admit(id(8, 1, 4), 50), Ok(Admission::New)));
    assert_eq!(t.admit(id(9, 1, 4), 700_000).unwrap_err().kind(), Kind::Closed, "ten minutes");
}

#[test]
fn rule_25_a_client_has_1024_outcomes() {
    let mut t = Requests::new(BOOT, 10_000, WEIGHT_MAX);
    for n in 1..=1025 {
        assert!(matches!(t.admit(id(1, n, 5), 10), Ok(Admission::New)), "{n}");
        t.start(id(1, n, 5), OpNo(n));
        t.finish(id(1, n, 5), outcome(n));
    }
    assert_eq!(t.len(), 1024);
    assert_eq!(t.admit(id(1, 1, 5), 10).unwrap_err().kind(), Kind::Closed);
    assert!(matches!(t.admit(id(1, 2, 5), 10), Ok(Admission::Done(_))));
}

#[test]
fn rule_26_an_attempt_of_an_older_boot_is_answered_from_the_table_or_refused() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    let old = |n| RequestId { born: Born { boot: 2, ..BOOT }, ..id(1, n, 0) };
    t.restore(old(1), outcome(4));
    assert!(matches!(t.admit(old(1), 5), Ok(Admission::Done(_))));
    assert_eq!(t.admit(old(2), 5).unwrap_err().kind(), Kind::Closed);
    let other = RequestId { born: Born { history: HistoryId(9), ..BOOT }, ..id(1, 5, 0) };
    assert_eq!(t.admit(other, 5).unwrap_err().kind(), Kind::Closed);
    assert_eq!(t.admit(id(1, 5, 99), 5).unwrap_err().kind(), Kind::Invalid, "the future");
    assert_eq!(t.admit(RequestId::default(), 5).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn what_was_not_executed_may_come_again() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    t.start(id(1, 1, 5), OpNo(1));
    t.not_done(id(1, 1, 5));
    assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
    assert_eq!(t.admit(id(1, 1, 6), 10).unwrap_err().kind(), Kind::Invalid);
    t.start(id(1, 1, 5), OpNo(2));
    assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::Join(OpNo(2)))));
}

#[test]
fn what_was_not_executed_may_come_again_though_younger_ones_were_forgotten() {
    let mut t = Requests::new(BOOT, 2, WEIGHT_MAX);
    t.start(id(1, 1, 7), OpNo(1));
    for n in 2..=4 {
        t.start(id(n, 1, 5), OpNo(n as u64));
        t.finish(id(n, 1, 5), outcome(1));
    }
    assert_eq!(t.admit(id(9, 1, 5), 10).unwrap_err().kind(), Kind::Closed, "the floor");
    t.not_done(id(1, 1, 7));
    t.start(id(5, 1, 9), OpNo(5));
    t.finish(id(5, 1, 9), outcome(1));
    assert!(matches!(t.admit(id(1, 1, 7), 10), Ok(Admission::New)));
}

#[test]
fn clients_whose_requests_are_not_executed_are_forgotten_too() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    for client in 0..1_000 {
        t.start(id(client, 1, 5), OpNo(1));
        t.not_done(id(client, 1, 5));
    }
    assert_eq!((t.len(), t.clients.len()), (100, 100));
}

#[test]
fn an_old_request_that_runs_long_does_not_make_the_table_grow() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    t.start(id(1, 1, 0), OpNo(1));
    for n in 2..1_000 {
        t.start(id(n, 1, 5), OpNo(1));
        t.finish(id(n, 1, 5), outcome(1));
    }
    assert_eq!(t.len(), 100);
    assert!(matches!(t.admit(id(1, 1, 0), 10), Ok(Admission::Join(_))));
    assert_eq!(t.clients.len(), 101);
}

#[test]
fn what_the_number_forgot_is_not_new_when_the_client_is_forgotten() {
    let mut t = Requests::new(BOOT, 1, WEIGHT_MAX);
    t.start(id(1, 1, 100), OpNo(1));
    t.finish(id(1, 1, 100), outcome(1));
    let jump = t.admit(id(1, 5_000, 50), 200);
    assert_eq!(jump.unwrap_err().kind(), Kind::Closed, "its floor would lie below that of number 1");
    t.start(id(1, 5_000, 150), OpNo(2));
    t.finish(id(1, 5_000, 150), outcome(2));
    t.start(id(2, 1, 160), OpNo(3));
    t.finish(id(2, 1, 160), outcome(3));
    assert!(!t.clients.contains_key(&ClientId(1)));
    assert_eq!(t.admit(id(1, 1, 100), 200).unwrap_err().kind(), Kind::Closed);
}

#[test]
fn a_client_has_at_most_1024_requests_under_way() {
    let mut t = Requests::new(BOOT, 10_000, WEIGHT_MAX);
    (1..=1024).for_each(|n| t.start(id(1, n, 5), OpNo(n)));
    assert_eq!(t.admit(id(1, 1025, 5), 10).unwrap_err().kind(), Kind::Exhausted);
    assert!(matches!(t.admit(id(2, 1, 5), 10), Ok(Admission::New)));
    t.finish(id(1, 7, 5), outcome(1));
    assert!(matches!(t.admit(id(1, 1025, 5), 10), Ok(Admission::New)));
}

#[test]
fn outcomes_leave_after_ten_minutes() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    t.start(id(1, 1, 5), OpNo(1));
    t.finish(id(1, 1, 5), outcome(1));
    t.expire(600_000);
    assert_eq!(t.len(), 1);
    t.expire(600_100);
    assert_eq!(t.len(), 0);
}

fn of_many(names: usize) -> Outcome {
    Outcome::Delete(DeleteOutcome { removed: vec![false; names], revision: Revision(1) })
}

#[test]
fn a_delete_of_many_names_weighs_what_it_holds_and_the_oldest_leave_for_it() {
    let mut t = Requests::new(BOOT, 1_000, 100_000);
    for n in 1..=200 {
        t.start(id(n.into(), 1, n), OpNo(n));
        t.finish(id(n.into(), 1, n), of_many(10_000));
    }
    assert_eq!((t.len(), t.weight), (9, 9 * (WEIGHT + 10_000)));
    assert!(matches!(t.admit(id(200, 1, 200), 300), Ok(Admission::Done(o)) if o == of_many(10_000)));
    assert_eq!(t.admit(id(191, 1, 191), 300).unwrap_err().kind(), Kind::Closed, "the floor");
    // One that no bound could hold is forgotten like any other, and nothing is counted twice.
    t.start(id(300, 1, 250), OpNo(300));
    t.finish(id(300, 1, 250), of_many(200_000));
    assert_eq!((t.len(), t.weight, t.clients.len()), (0, 0, 0));
    assert_eq!(t.admit(id(300, 1, 250), 300).unwrap_err().kind(), Kind::Closed);
}

#[test]
fn the_weight_is_that_of_what_is_remembered_whatever_happened() {
    let rng = SeededRng::new(5);
    let below = |n: u64| rng.next_u64() % n;
    let mut t = Requests::new(BOOT, 60, 30_000);
    let mut running = Vec::new();
    for at_ms in 1..20_000 {
        let id = id(below(4).into(), 1 + below(3_000), at_ms);
        match below(8) {
            0 => t.restore(id, of_many(below(2_000) as usize)),
            1 => t.expire(600_000 + at_ms.saturating_sub(50)),
            2..=4 if matches!(t.admit(id, at_ms), Ok(Admission::New)) => {
                t.start(id, OpNo(at_ms));
                running.push(id);
            }
            _ if running.is_empty() => {}
            _ => {
                let id = running.swap_remove(below(running.len() as u64) as usize);
                match below(3) {
                    0 => t.not_done(id),
                    _ => t.finish(id, of_many(below(2_000) as usize)),
                }
            }
        }
        let states = t.clients.values().flat_map(|c| c.requests.values()).map(|(_, state)| state);
        let (mut len, mut weight) = (0, 0);
        for state in states.filter(|state| !state.is_running()) {
            (len, weight) = (len + 1, weight + state.weight());
        }
        assert_eq!((t.len(), t.weight), (len, weight), "at {at_ms}");
        assert!(len <= 60 && weight <= 30_000, "at {at_ms}");
    }
}

#[test]
fn slices_give_every_outcome_once_and_go_on_where_one_was_forgotten() {
    let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
    for n in 1..=20 {
        t.start(id(1, n, 100 - n), OpNo(n));
        if n.is_multiple_of(3) {
            t.not_done(id(1, n, 100 - n));
        } else {
            t.finish(id(1, n, 100 - n), outcome(n));
        }
    }
    let (all, end) = t.done(None, 100);
    assert_eq!((all.len(), end), (14, None));
    assert!(all.is_sorted_by_key(|(id, _)| id.born.at_ms));
    for max in 1..=20 {
        let (mut slices, mut next) = (Vec::new(), None);
        loop {
            let (slice, after) = t.done(next, max);
            assert!(slice.len() <= max);
            slices.extend(slice);
            next = after;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(slices, all, "slices of {max}");
    }
    let (mut slices, next) = t.done(None, 5);
    (0..7).for_each(|_| _ = t.drop_oldest());
    slices.extend(t.done(next, 100).0);
    let left = all.iter().enumerate().filter(|(i, _)| *i < slices.len() - 9 || *i >= all.len() - 9);
    assert_eq!(slices, left.map(|(_, one)| one.clone()).collect::<Vec<_>>());
}
