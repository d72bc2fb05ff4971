//! Questions about many names: one request, and a flight for each name under the rules of any other (10, 21, 22).

use super::*;

impl Table {
    /// A GET of many names, of which nothing is held; gives whether they may be cached.
    fn get_many(&mut self, ms: u64, names: &[(&str, &'static str)], who: &'static str) -> bool {
        let each = names.iter().map(|(_, who)| W(who, self.gone.clone())).collect();
        let names: Vec<Name> = names.iter().map(|(k, _)| name(k)).collect();
        let unused = self.m.read_many(at(ms), &names, W(who, self.gone.clone()), each).expect("room");
        unused.is_empty()
    }

    /// Flight `f` is answered: each name bound at a revision and to be cached, or not bound.
    fn bound_many(&mut self, ms: u64, f: u64, revs: &[Option<u64>], cacheable: Option<Epoch>) {
        let answer = |rev: &Option<u64>| Resolved {
            entry: rev.map(entry),
            carried: None,
            cacheable: cacheable.filter(|_| rev.is_some()),
            head: Revision(20),
        };
        let answers = revs.iter().map(answer).collect();
        assert!(self.m.resolved_many(at(ms), FlightId(f), answers).is_ok());
    }
}

#[test]
fn many_names_go_in_one_request_and_each_has_a_registration_of_its_own() {
    let mut t = Table::open();
    assert!(t.get_many(1, &[("a", "ga"), ("b", "gb"), ("c", "gc")], "all"));
    t.gives(&["f1 resolve many a b c e1 #2"]);
    t.bound_many(2, 1, &[Some(5), None, Some(6)], Some(e(1)));
    t.gives(&["f2 found @5", "absent for gb", "f4 found @6", "told many to all"]);
    assert_eq!(t.complete(2, "a", 5), (vec!["ga"], true));
    assert_eq!(t.complete(4, "c", 6), (vec!["gc"], true));
    let regs: Vec<u64> = t.names.0.borrow().values().map(|held| held.reg.0).collect();
    assert_eq!(regs, [2, 4], "the first is that of the request, each further one is one more");
    assert_eq!((t.hit(3, "a"), t.hit(3, "b"), t.hit(3, "c"), t.m.flights()), (Some(5), None, Some(6), 0));
}

#[test]
fn rule_10_an_inv_of_one_of_many_names_poisons_that_one_only() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.inv(e(1), 1, "a", 12);
    t.bound_many(2, 1, &[Some(5), Some(6)], Some(e(1)));
    assert_eq!(t.complete(2, "a", 5), (vec!["ga"], false));
    assert_eq!(t.complete(3, "b", 6), (vec!["gb"], true));
    assert_eq!((t.hit(3, "a"), t.hit(3, "b")), (None, Some(6)));
}

#[test]
fn rule_21_a_get_joins_the_flight_of_one_of_many_names() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.get(1, "b", "late");
    t.inv(e(1), 1, "a", 12);
    t.get(1, "a", "later");
    t.gives(&["f1 resolve many a b e1 #2", "f4 resolve a e1 #4"]);
    t.bound_many(2, 1, &[Some(5), Some(6)], Some(e(1)));
    assert_eq!(t.complete(3, "b", 6), (vec!["gb", "late"], true));
    assert_eq!(t.complete(2, "a", 5), (vec!["ga"], false), "a poisoned one is joined by nobody");
}

#[test]
fn rule_22_who_joined_one_of_many_asks_again_if_it_may_not_be_cached() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.get(1, "b", "late");
    t.skip();
    t.bound_many(2, 1, &[Some(5), Some(6)], None);
    t.gives(&["f2 found @5", "f3 found @6", "f4 resolve b e1 #4", "told many to all"]);
    assert_eq!(t.complete(3, "b", 6), (vec!["gb"], false));
}

#[test]
fn a_lapsed_local_asks_for_many_names_and_caches_none() {
    let mut t = Table::open();
    assert!(!t.get_many(VALID_MS, &[("a", "ga"), ("b", "gb")], "all"), "the waiters are handed back");
    t.gives(&["f1 look many a b e1 #1"]);
    t.bound_many(VALID_MS + 1, 1, &[Some(5), Some(6)], Some(e(1)));
    t.gives(&["told many to all"]);
    assert!(!t.holds("a") && t.m.flights() == 0);
}

#[test]
fn many_names_are_asked_for_again_when_the_request_stream_was_lost() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.skip();
    t.m.send_again();
    t.gives(&["f1 resolve many a b e1 #2"]);
    t.bound_many(2, 1, &[None, None], Some(e(1)));
    t.bound_many(3, 1, &[Some(5), Some(6)], Some(e(1)));
    t.gives(&["absent for ga", "absent for gb", "told many to all"]);
}

#[test]
fn many_names_are_forgotten_only_when_nobody_waits_for_any_of_them() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.get(1, "b", "late");
    t.gone.borrow_mut().extend(["all", "ga", "gb"]);
    t.m.forget_abandoned();
    assert_eq!(t.m.flights(), 3, "somebody joined one of them");
    t.gone.borrow_mut().insert("late");
    t.m.forget_abandoned();
    assert_eq!(t.m.flights(), 0);
}

#[test]
fn all_who_wait_for_many_names_hear_of_a_failure() {
    let mut t = Table::open();
    t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
    t.get(1, "b", "late");
    assert_eq!(t.failed(1), ["all", "ga", "gb", "late"]);
    assert_eq!(t.m.flights(), 0);
}

#[test]
fn an_answer_of_another_length_or_of_several_revisions_fails_all_who_wait() {
    let answer = |head| Resolved { entry: None, carried: None, cacheable: None, head: Revision(head) };
    for answers in [vec![], vec![answer(1)], vec![answer(1), answer(2)], vec![answer(1); 3]] {
        let mut t = Table::open();
        t.get_many(1, &[("a", "ga"), ("b", "gb")], "all");
        let (error, waiters) = t.m.resolved_many(at(2), FlightId(1), answers).expect_err("refused");
        assert_eq!((error.kind(), waiters.len(), t.m.flights()), (Kind::Internal, 3, 0));
    }
    // An answer to nobody's question, or of another kind.
    let mut t = Table::open();
    t.get(1, "k", "g1");
    assert!(t.m.resolved_many(at(2), FlightId(1), vec![answer(1)]).is_ok());
    assert!(t.m.resolved_many(at(2), FlightId(9), vec![answer(1)]).is_ok());
    assert_eq!(t.m.flights(), 1);
    t.get_many(1, &[("a", "ga")], "all");
    t.m.resolved(at(2), FlightId(2), answer(1));
    assert_eq!(t.m.flights(), 3, "a Resolve's answer is none for many");
}

#[test]
fn too_many_names_are_refused_and_their_waiters_handed_back() {
    let mut t = Table::with(Bounds { flights_max: 3, waiters_max: 16 });
    let names: Vec<Name> = ["a", "b", "c"].map(name).to_vec();
    let each = ["a", "b", "c"].map(|who| W(who, t.gone.clone())).into();
    let waiter = W("all", t.gone.clone());
    let (error, waiters) = t.m.read_many(at(1), &names, waiter, each).expect_err("no room");
    assert_eq!((error.kind(), waiters.len(), t.m.flights()), (Kind::Exhausted, 4, 0));
}
