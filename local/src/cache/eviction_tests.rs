use super::*;
use dstore_sys::rng::{Rng, SeededRng};
use std::collections::HashMap;

#[derive(Debug, Default)]
struct Page {
    id: u64,
    uses: Uses,
}

impl Evictable for Page {
    fn charge(&self) -> u64 {
        1
    }

    fn fingerprint(&self) -> u64 {
        self.id
    }

    fn uses(&self) -> &Uses {
        &self.uses
    }
}

fn page(id: u64) -> Arc<Page> {
    Arc::new(Page { id, ..Page::default() })
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
        Self { eviction: Eviction::new(), held: HashMap::new(), room }
    }
}

impl Policy for S3Fifo {
    fn get(&mut self, id: u64) -> bool {
        if let Some(page) = self.held.get(&id) {
            page.uses.note();
            return true;
        }
        if self.held.len() == self.room {
            let victim = self.eviction.victim().unwrap();
            self.held.remove(&victim.id).expect("a victim was held");
        }
        let page = page(id);
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
    let mut eviction = Eviction::new();
    let pages: Vec<_> = (0..100_000).map(page).collect();
    for page in &pages {
        eviction.admit(Arc::clone(page));
        (0..3).for_each(|_| page.uses.note());
    }
    assert!(eviction.victim().is_some());
    let moved = pages.iter().filter(|page| page.uses.get() < USES_MAX).count();
    assert!(moved < CHANCES_MAX, "{moved} pages lost a chance for one victim");
    assert_eq!(eviction.recount(), (99_999, 99_999));
}

#[test]
fn a_spared_victim_is_still_there_and_an_empty_cache_has_none() {
    let mut eviction = Eviction::<Page>::new();
    assert!(eviction.victim().is_none());
    eviction.admit(page(1));
    let victim = eviction.victim().unwrap();
    assert_eq!(eviction.recount(), (0, 0));
    eviction.spare(victim);
    assert_eq!((eviction.recount(), eviction.victim().unwrap().id), ((1, 1), 1));
}

#[test]
fn ghosts_are_bounded() {
    let mut cache = S3Fifo::new(50);
    (0..10_000).for_each(|id| _ = cache.get(id));
    let ghosts = &cache.eviction.ghosts;
    assert!(ghosts.line.len() <= 50 && ghosts.set.len() <= 50);
}
