//! "Not found" answers that are kept: rule 28, and rules 10, 21 and 22 for them.

use super::*;

/// 500 ms shortened by ρ.
const TERM_MS: u64 = 497;

struct Keeping {
    t: Table,
    absences: Arc<Absences>,
}

impl Keeping {
    /// A Local in e1 that keeps absences, with a lease from 0 ms.
    fn open() -> Self {
        Self::with(10)
    }

    fn with(max: usize) -> Self {
        let (mut t, absences) = (Table::new(), Arc::new(Absences::new(max)));
        let identity = Identity { local_id: LocalId(1), incarnation: Incarnation(1), label: "l".into() };
        t.m = Coherence::new(identity, Bounds::default()).keeping(absences.clone());
        t.connected(0);
        t.welcome(e(1));
        t.lease(0, e(1), 0);
        t.summarized(e(1), 1, &[]);
        t.skip();
        Self { t, absences }
    }

    /// Flight `f` is answered: absent as of revision `head`.
    fn absent(&mut self, ms: u64, f: u64, head: u64, cacheable: Option<Epoch>) {
        let answer = Resolved { entry: None, carried: None, cacheable, head: Revision(head) };
        self.t.m.resolved(at(ms), FlightId(f), answer);
    }

    /// A hit, as a node makes it.
    fn knows_absent(&mut self, ms: u64, k: &str) -> bool {
        self.t.obey();
        let absent = self.absences.get(name(k).as_bytes());
        absent.is_some_and(|absent| at(ms) < self.t.valid_until.min(absent.until))
    }
}

#[test]
fn rule_28_an_absence_is_served_under_the_lease_for_its_term_from_the_asking() {
    let mut k = Keeping::open();
    k.t.get(10, "k", "g1");
    k.absent(300, 1, 20, Some(e(1)));
    k.t.gives(&["f1 resolve k e1 #1", "absent for g1"]);
    assert!(k.knows_absent(301, "k"));
    assert!(k.knows_absent(10 + TERM_MS, "k"), "497.5 ms from the asking");
    assert!(!k.knows_absent(10 + TERM_MS + 1, "k"));
    assert!(!k.knows_absent(301, "j"));
}

#[test]
fn rule_28_an_absence_is_never_served_past_the_lease() {
    let mut k = Keeping::open();
    k.t.get(VALID_MS - 100, "k", "g1");
    k.absent(VALID_MS - 99, 1, 20, Some(e(1)));
    assert!(k.knows_absent(VALID_MS - 1, "k") && !k.knows_absent(VALID_MS, "k"));
}

#[test]
fn rule_28_what_global_does_not_lease_is_not_kept_nor_anything_by_whom_does_not_keep_absences() {
    for cacheable in [None, Some(e(9))] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.absent(20, 1, 20, cacheable);
        assert!(!k.knows_absent(21, "k"), "{cacheable:?}");
        k.t.gives(&["f1 resolve k e1 #1", "absent for g1"]);
    }
    let mut t = Table::open();
    t.get(10, "k", "g1");
    t.get(11, "k", "late");
    let answer = Resolved { entry: None, carried: None, cacheable: Some(e(1)), head: Revision(20) };
    t.m.resolved(at(20), FlightId(1), answer);
    t.gives(&["f1 resolve k e1 #1", "absent for g1", "f2 resolve k e1 #2"]);
}

#[test]
fn rule_28_all_absences_go_at_every_change_of_the_epoch_also_at_a_resumption() {
    for resumption in [Resumption::Resume, Resumption::Compacted, Resumption::NewHistory] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.absent(11, 1, 20, Some(e(1)));
        k.t.m.lost();
        k.t.connected(20);
        assert!(k.knows_absent(21, "k"), "the old lease and registration go on");
        k.t.welcome_as(e(2), resumption);
        assert!(!k.knows_absent(22, "k"), "{resumption:?}");
        k.t.lease(23, e(2), 0);
        assert!(!k.knows_absent(24, "k"), "{resumption:?}");
    }
}

#[test]
fn rule_28_a_reply_of_an_older_epoch_is_not_kept() {
    for cacheable in [e(1), e(2)] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.t.m.lost();
        k.t.connected(11);
        k.t.welcome_as(e(2), Resumption::Resume);
        k.t.lease(12, e(2), 0);
        k.absent(13, 1, 20, Some(cacheable));
        assert!(!k.knows_absent(14, "k"), "{cacheable:?}");
    }
}

#[test]
fn rule_10_an_inv_removes_an_absence_read_at_or_before_its_revision() {
    for (upto, stays) in [(19, true), (20, false), (21, false)] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.absent(11, 1, 20, Some(e(1)));
        k.t.inv(e(1), 1, "k", upto);
        assert_eq!(k.knows_absent(12, "k"), stays, "upto {upto}");
    }
}

#[test]
fn rule_10_an_inv_of_a_prefix_removes_the_absences_under_it() {
    for (prefix, upto, stays) in [("k", 19, true), ("k", 20, false), ("", 20, false), ("l", 20, true)] {
        let mut k = Keeping::open();
        k.t.get(10, "key", "g1");
        k.absent(11, 1, 20, Some(e(1)));
        let covered = Prefix::new(&dstore_shared::Namespace::default(), prefix.as_bytes()).unwrap();
        let inv = Down::InvPrefix { epoch: e(1), seq: 1, prefix: covered, upto: Revision(upto) };
        k.t.down(0, inv);
        assert_eq!(k.knows_absent(12, "key"), stays, "{prefix}* upto {upto}");
    }
}

#[test]
fn rule_10_a_poisoned_absence_is_kept_only_if_it_is_newer_than_every_inv() {
    for (head, kept) in [(11, false), (12, false), (13, true)] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.t.inv(e(1), 1, "k", 12);
        k.t.skip();
        k.absent(11, 1, head, Some(e(1)));
        assert_eq!(k.knows_absent(12, "k"), kept, "head {head}");
        let told: &[&str] = if kept { &["absent for g1"] } else { &["drop k#1", "absent for g1"] };
        let done = std::mem::take(&mut k.t.done);
        assert_eq!(done, told, "what is registered and not held is given back");
    }
}

#[test]
fn rule_22_late_waiters_are_served_by_a_leased_absence_within_its_term_only() {
    for (ms, told) in [
        (10 + TERM_MS, &["absent for g1 late"][..]),
        (10 + TERM_MS + 1, &["drop k#1", "absent for g1", "f2 resolve k e1 #2"]),
    ] {
        let mut k = Keeping::open();
        k.t.get(10, "k", "g1");
        k.t.get(12, "k", "late");
        k.t.skip();
        k.absent(ms, 1, 20, Some(e(1)));
        k.t.gives(told);
    }
}

#[test]
fn a_request_that_is_sent_again_begins_no_new_term() {
    let mut k = Keeping::open();
    k.t.get(10, "k", "g1");
    k.t.m.keep(at(400));
    k.t.m.send_again();
    k.absent(401, 1, 20, Some(e(1)));
    assert!(k.knows_absent(402, "k"));
    assert!(!k.knows_absent(10 + TERM_MS + 1, "k"));
}

#[test]
fn absences_that_ran_out_are_given_back_with_a_keep_and_a_full_table_keeps_no_more() {
    let mut k = Keeping::with(1);
    k.t.get(10, "k", "g1");
    k.absent(11, 1, 20, Some(e(1)));
    k.t.get(12, "j", "g2");
    k.t.skip();
    k.absent(13, 2, 20, Some(e(1)));
    assert!(!k.knows_absent(14, "j"));
    k.t.gives(&["drop j#2", "absent for g2"]);
    k.t.m.keep(at(100));
    k.t.gives(&["keep 1 acked 0 e1"]);
    k.t.m.keep(at(10 + TERM_MS + 1));
    k.t.gives(&["drop k#1", "keep 2 acked 0 e1"]);
    assert!(k.absences.is_empty());
}

#[test]
fn a_retired_local_serves_no_absence() {
    let mut k = Keeping::open();
    k.t.get(10, "k", "g1");
    k.absent(11, 1, 20, Some(e(1)));
    k.t.down(12, Down::Retire { epoch: e(1) });
    assert!(!k.knows_absent(13, "k"));
}
