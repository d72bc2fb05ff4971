use super::*;
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::HashMap;

#[derive(Debug)]
struct Page {
    id: u64,
    number: usize,
    seat: Seat,
}

impl Evictable for Page {
    fn charge(&self) -> u64 {
        1
    }

    fn fingerprint(&self) -> u64 {
        self.id
    }

    fn number(&self) -> usize {
        self.number
    }

    fn seat(&self) -> &Seat {
        &self.seat
    }
}

fn page(id: u64, number: usize) -> Arc<Page> {
    Arc::new(Page { id, number, seat: Seat::default() })
}

fn eviction(room: usize) -> Eviction<Page> {
    Eviction::new(Arc::new(Uses::new(room as u64)))
}

/// A cache of pages, to be asked for one after another.
trait Policy {
    fn get(&mut self, id: u64) -> bool;
}

struct S3Fifo {
    eviction: Eviction<Page>,
    held: HashMap<u64, Arc<Page>>,
    room: usize,
}

impl S3Fifo {
    fn new(room: usize) -> Self {
        Self { eviction: eviction(room), held: HashMap::new(), room }
    }
}

impl Policy for S3Fifo {
    fn get(&mut self, id: u64) -> bool {
        if let Some(page) = self.held.get(&id) {
            self.eviction.uses.note(page.number);
            return true;
        }
        let mut number = self.held.len();
        if number == self.room {
            let victim = self.eviction.victim(|_| 0).unwrap();
            self.held.remove(&victim.id).expect("a victim was held");
            number = victim.number;
        }
        let page = page(id, number);
        self.held.insert(id, Arc::clone(&page));
        self.eviction.admit(page);
        false
    }
}

/// The alternative: SIEVE (Zhang et al., NSDI 2024), newest page last.
struct Sieve {
    line: Vec<(u64, bool)>,
    hand: usize,
    room: usize,
}

impl Policy for Sieve {
    fn get(&mut self, id: u64) -> bool {
        if let Some(found) = self.line.iter_mut().find(|(held, _)| *held == id) {
            found.1 = true;
            return true;
        }
        if self.line.len() == self.room {
            self.hand %= self.line.len();
            while std::mem::take(&mut self.line[self.hand].1) {
                self.hand = (self.hand + 1) % self.line.len();
            }
            self.line.remove(self.hand);
        }
        self.line.push((id, false));
        false
    }
}

struct Lru(Vec<u64>, usize);

impl Policy for Lru {
    fn get(&mut self, id: u64) -> bool {
        let at = self.0.iter().position(|held| *held == id);
        let gone = at.or((self.0.len() == self.1).then_some(0));
        gone.map(|at| self.0.remove(at));
        self.0.push(id);
        at.is_some()
    }
}

/// Page numbers by Zipf's law with exponent `skew` over `pages`; of every `period` requests the last
/// `scan` ask for pages that never come again.
fn trace(skew: f64, (pages, requests): (usize, u64), (period, scan): (u64, u64)) -> Vec<u64> {
    let rng = SeededRng::new(2024);
    let mut sum = 0.0;
    let weight = |rank: usize| {
        sum += 1.0 / (rank as f64).powf(skew);
        sum
    };
    let sums: Vec<f64> = (1..=pages).map(weight).collect();
    let popular = |_| {
        let at = rng.next_u64() as f64 / u64::MAX as f64 * sums[pages - 1];
        sums.partition_point(|s| *s < at) as u64
    };
    (0..requests).map(|n| if n % period < period - scan { popular(n) } else { 1 << 40 | n }).collect()
}

fn ratio(policy: &mut dyn Policy, trace: &[u64]) -> f64 {
    let hits = trace.iter().filter(|id| policy.get(**id) && **id < 1 << 40).count();
    hits as f64 / trace.iter().filter(|id| **id < 1 << 40).count() as f64
}

#[test]
fn hit_ratios_beat_lru_and_match_sieve_with_and_without_scans() {
    const ROOM: usize = 200;
    for (skew, scan) in [
        (0.8, (1, 0)),
        (1.0, (1, 0)),
        (1.2, (1, 0)),
        (1.0, (2_000, 1_000)),
        (1.0, (10_000, 2_000)),
        (1.0, (4_000, 3_000)),
        (0.8, (20_000, 10_000)),
    ] {
        let trace = trace(skew, (5_000, 60_000), scan);
        let ours = ratio(&mut S3Fifo::new(ROOM), &trace);
        let sieve = ratio(&mut Sieve { line: Vec::new(), hand: 0, room: ROOM }, &trace);
        let lru = ratio(&mut Lru(Vec::new(), ROOM), &trace);
        println!("zipf {skew}, scans {scan:?}: s3-fifo {ours:.3}, sieve {sieve:.3}, lru {lru:.3}");
        assert!(ours > lru + 0.01, "{ours:.3} is not better than lru's {lru:.3}");
        assert!(ours > sieve - 0.02, "{ours:.3} is worse than sieve's {sieve:.3}");
    }
}

#[test]
fn a_newcomer_leaves_before_what_was_asked_for_twice() {
    let mut cache = S3Fifo::new(10);
    for _ in 0..3 {
        (0..5).for_each(|id| _ = cache.get(id));
    }
    (100..200).for_each(|id| _ = cache.get(id));
    assert!((0..5).all(|id| cache.held.contains_key(&id)));
}

#[test]
fn a_ghost_that_returns_goes_straight_to_main() {
    let mut cache = S3Fifo::new(10);
    (0..12).for_each(|id| _ = cache.get(id));
    assert!(!cache.held.contains_key(&0));
    cache.get(0);
    (100..150).for_each(|id| _ = cache.get(id));
    assert!(cache.held.contains_key(&0), "it outlives newcomers now");
    assert!(!cache.held.contains_key(&11));
}

#[test]
fn a_victim_is_found_in_bounded_time_though_all_are_hot() {
    let mut eviction = eviction(100_000);
    for number in 0..100_000 {
        eviction.admit(page(number as u64, number));
        (0..3).for_each(|_| eviction.uses.note(number));
    }
    assert!(eviction.victim(|_| 0).is_some());
    let moved = (0..100_000).filter(|number| eviction.uses.get(*number) < USES_MAX).count();
    assert!(moved < CHANCES_MAX, "{moved} pages lost a chance for one victim");
    assert_eq!(eviction.recount(), (99_999, 99_999));
}

#[test]
fn a_spared_victim_is_still_there_and_an_empty_cache_has_none() {
    let mut eviction = eviction(1);
    assert!(eviction.victim(|_| 0).is_none());
    eviction.admit(page(1, 0));
    let victim = eviction.victim(|_| 0).unwrap();
    assert_eq!(eviction.recount(), (0, 0));
    eviction.spare(victim);
    assert_eq!((eviction.recount(), eviction.victim(|_| 0).unwrap().id), ((1, 1), 1));
}

#[test]
fn ghosts_are_bounded() {
    let mut cache = S3Fifo::new(50);
    (0..10_000).for_each(|id| _ = cache.get(id));
    let ghosts = &cache.eviction.ghosts;
    assert!(ghosts.line.len() <= 50 && ghosts.set.len() <= 50);
}

#[test]
fn a_cache_of_any_size_has_bounded_counts() {
    for (blobs, counts) in [(0, 1), (1, 1), (1_000, 1_024), (u64::MAX, 1 << 24)] {
        let uses = Uses::new(blobs);
        assert_eq!(uses.0.len(), counts);
        uses.note(usize::MAX);
        assert_eq!(uses.get(usize::MAX), 1);
    }
}

#[test]
fn who_leaves_out_of_its_turn_is_not_searched_for_and_the_others_keep_their_order() {
    const PAGES: usize = 20_000;
    let mut eviction = eviction(PAGES);
    let pages: Vec<_> = (0..PAGES).map(|number| page(number as u64, number)).collect();
    pages.iter().for_each(|page| eviction.admit(page.clone()));
    // Those in the middle first, and each twice: who is gone is not there to leave.
    let (stays, mut left) = (|at: usize| at.is_multiple_of(100), PAGES);
    for at in (PAGES / 2..PAGES).chain(0..PAGES / 2).filter(|at| !stays(*at)) {
        eviction.withdraw(&pages[at]);
        eviction.withdraw(&pages[at]);
        left -= 1;
        if at.is_multiple_of(500) || left < 300 {
            assert_eq!(eviction.recount(), (left as u64, left));
        }
    }
    assert!(pages.iter().enumerate().all(|(at, page)| Arc::strong_count(page) == 1 + usize::from(stays(at))));
    // One that returns has a new place, and its old one is nobody's.
    eviction.admit(pages[1].clone());
    let order: Vec<_> = std::iter::from_fn(|| eviction.victim(|_| 0)).map(|page| page.number).collect();
    assert_eq!(order, (0..PAGES).filter(|at| stays(*at)).chain([1]).collect::<Vec<_>>());
    assert_eq!(eviction.recount(), (0, 0));
    let steps = eviction.small.steps + eviction.main.steps;
    assert!(steps < 5 * PAGES, "{steps} places were looked at for {PAGES}");
}
