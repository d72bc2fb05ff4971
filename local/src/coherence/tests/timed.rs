//! Names with a time to live: until when what was found may be served (rule 33).

use super::*;

/// Journal time of every answer here.
const NOW_MS: u64 = 1_000_000;

impl Table {
    /// Flight `f` is answered: bound at 5, with `left_ms` to live.
    fn timed(&mut self, ms: u64, f: u64, left_ms: u64, journal_ms: u64) {
        let entry = Entry { expires_at: dstore_shared::End::new(NOW_MS + left_ms), ..entry(5) };
        let answer =
            Resolved { entry: Some(entry), carried: None, cacheable: Some(e(1)), head: Revision(20) };
        self.m.resolved_at(at(ms), FlightId(f), answer, journal_ms);
    }
}

#[test]
fn rule_33_a_name_is_served_until_what_was_left_has_passed_since_the_asking() {
    let mut t = Table::open();
    t.get(100, "k", "g1");
    // 1,000 ms, less 0.5 %, from the asking and not from the answer.
    t.timed(300, 1, 1_000, NOW_MS);
    assert_eq!(t.m.until(FlightId(1)), at(100 + 995));
    t.get(101, "j", "g2");
    t.bound(300, 2, 5, Some(e(1)));
    assert_eq!(t.m.until(FlightId(2)), Moment::MAX, "one without a time to live is served for ever");
    t.get(102, "i", "g3");
    t.timed(300, 3, 1_000, 0);
    assert_eq!(t.m.until(FlightId(3)), Moment::ZERO, "nobody said what time it is");
}

#[test]
fn rule_33_what_a_set_bound_is_served_from_its_sending_on() {
    let mut t = Table::open();
    t.get(100, "j", "g1");
    t.set("k", "s1");
    let entry = Entry { expires_at: dstore_shared::End::new(NOW_MS + 1_000), ..entry(5) };
    assert_eq!(t.m.until_of(FlightId(2), &entry, NOW_MS), at(100 + 995));
    assert_eq!(t.m.until_of(FlightId(2), &entry, 0), Moment::ZERO);
}

#[test]
fn rule_33_who_joined_late_is_not_served_what_is_over() {
    for (answered, served) in [(150, true), (300, false)] {
        let mut t = Table::open();
        t.get(100, "k", "early");
        t.get(101, "k", "late");
        t.timed(answered, 1, 100, NOW_MS);
        let expected = if served { vec!["early", "late"] } else { vec!["early"] };
        assert_eq!(t.complete(1, "k", 5).0, expected, "answered at {answered} ms");
    }
}

#[test]
fn rule_33_nobody_joins_what_was_found_and_is_over() {
    let mut t = Table::open();
    t.get(100, "k", "g1");
    t.timed(110, 1, 100, NOW_MS);
    t.get(150, "k", "in time");
    t.get(250, "k", "too late");
    assert_eq!(t.complete(1, "k", 5).0, ["g1", "in time"]);
    assert_eq!(t.m.flights(), 1, "the other asks anew");
}

#[test]
fn rule_33_of_many_names_each_counts_from_the_asking() {
    let mut t = Table::open();
    let waiter = |who| W(who, t.gone.clone());
    let (all, each) = (waiter("all"), vec![waiter("a")]);
    assert!(t.m.read_many(at(100), &[name("a")], all, each).is_ok());
    let entry = Entry { expires_at: dstore_shared::End::new(NOW_MS + 1_000), ..entry(5) };
    let answer = Resolved { entry: Some(entry), carried: None, cacheable: Some(e(1)), head: Revision(20) };
    assert!(t.m.resolved_many_at(at(200), FlightId(1), vec![answer], NOW_MS).is_ok());
    assert_eq!(t.m.until(FlightId(2)), at(100 + 995));
}
