//! Every crash image of random workloads: what was acknowledged is there, what was never written is not.

use super::*;
use dstore_sys::disk::Survival;

/// Something that others could rely on from a moment on, counted in changes of the disk.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A batch up to here was begun.
    Begun(Revision),
    /// It was acknowledged.
    Acknowledged(Revision),
    /// A checkpoint covers everything up to here.
    Checkpoint(Revision),
    /// The clean-shutdown mark was written, or removed.
    Clean(Option<Revision>),
}

/// What was promised at a moment.
#[derive(Clone, Copy, Default, Debug)]
struct Promise {
    begun: Revision,
    acknowledged: Revision,
    checkpoint: Revision,
    clean: Option<Revision>,
}

struct Run {
    disk: SimDisk,
    events: Vec<(usize, Event)>,
    rng: SeededRng,
}

impl Run {
    fn draw(&self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    fn note(&mut self, event: Event) {
        self.events.push((self.disk.op_count(), event));
    }

    fn open(&mut self, promise: &Promise) -> Journal {
        let floors = Floors { checkpoint: promise.checkpoint, clean: promise.clean, ..Floors::default() };
        let seed = self.rng.next_u64();
        let journal = open_with(&self.disk, seed, &config(), floors).expect("a sound disk").journal;
        self.note(Event::Clean(None));
        journal
    }

    /// Appends, checkpoints, trims, stops cleanly, and is killed on a machine that goes on.
    fn new(seed: u64, steps: usize) -> Self {
        let disk = new_disk();
        disk.record(64 << 20);
        let mut run = Self { disk, events: Vec::new(), rng: SeededRng::new(seed) };
        let mut promise = Promise::default();
        let mut journal = run.open(&promise);
        for _ in 0..steps {
            match run.draw(20) {
                0 => {
                    drop(journal);
                    promise.clean = Some(promise.acknowledged);
                    run.note(Event::Clean(promise.clean));
                    journal = run.open(&promise);
                    promise.clean = None;
                }
                1 => {
                    drop(journal);
                    journal = run.open(&promise);
                }
                2..5 => {
                    let older = promise.checkpoint;
                    promise.checkpoint = promise.acknowledged;
                    run.note(Event::Checkpoint(promise.checkpoint));
                    journal.trim(older.next());
                }
                _ => {
                    let revisions = 1 + run.draw(3);
                    let len = [0, 100, 4_032, 4_033, 9_000, 20_000][run.draw(6) as usize];
                    run.note(Event::Begun(Revision(journal.head().0 + revisions)));
                    promise.acknowledged = append(&mut journal, revisions, len).expect("a sound disk");
                    run.note(Event::Acknowledged(promise.acknowledged));
                }
            }
        }
        run
    }

    fn promise_at(&self, op: usize) -> Promise {
        let mut promise = Promise::default();
        for (_, event) in self.events.iter().take_while(|(at, _)| *at <= op) {
            match *event {
                Event::Begun(revision) => promise.begun = revision,
                Event::Acknowledged(revision) => promise.acknowledged = revision,
                Event::Checkpoint(revision) => promise.checkpoint = revision,
                Event::Clean(mark) => promise.clean = mark,
            }
        }
        promise
    }
}

/// Opens an image and checks it against what was promised; gives the head.
fn recover(image: &SimDisk, promise: &Promise, seed: u64, context: &str) -> (Journal, Revision) {
    // The index may show any revision between the checkpoint and the last that was acknowledged.
    let span = promise.acknowledged.0 - promise.checkpoint.0;
    let index = Revision(promise.checkpoint.0 + seed % (span + 1));
    let floors = Floors { checkpoint: promise.checkpoint, index, clean: promise.clean };
    let open = open_with(image, seed, &config(), floors);
    let Open { journal, opened, batches } = open.unwrap_or_else(|e| panic!("{context}: {e}"));
    assert_sound(&batches, promise.checkpoint, context);
    let rubbish = image.files().into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "new"));
    assert_eq!(rubbish, None, "{context}: a half-made segment stays");
    let head = batches.last().map_or(promise.checkpoint, |batch| batch.last);
    assert_eq!((head, head), (opened.head, journal.head()), "{context}");
    assert!(head >= promise.acknowledged, "{context}: {head} lacks acknowledged writes");
    assert!(head <= promise.begun.max(promise.acknowledged), "{context}: {head} was never begun");
    (journal, head)
}

fn check(seed: u64) -> usize {
    let run = Run::new(seed, 14);
    let moments = run.disk.moments();
    let start = *moments.start();
    assert!(start < 5, "the whole history is kept");
    for op in moments {
        let context = format!("seed {seed} op {op}");
        let promise = run.promise_at(op);
        let image = run.disk.crash_at(op, Survival::Any, seed << 16 | op as u64);
        image.record(16 << 20);
        let (mut journal, head) = recover(&image, &promise, seed + op as u64, &context);
        let recovered = image.op_count();
        if op % 2 == 0 {
            // What was given out after recovery is as good as acknowledged.
            let after = append(&mut journal, 1, 5_000).expect("a sound disk");
            drop(journal);
            let later = Promise { begun: after, acknowledged: after, clean: None, ..promise };
            let again = image.crash(Survival::Nothing, seed);
            recover(&again, &later, seed, &format!("{context}, crashed after the next append"));
        } else {
            // And a crash within recovery loses nothing either.
            let within = (seed as usize).wrapping_mul(31).wrapping_add(op) % (recovered + 1);
            let again = image.crash_at(within, Survival::Any, seed ^ op as u64);
            let promise = Promise { begun: head, ..promise };
            recover(&again, &promise, seed, &format!("{context}, crashed again at {within} of {recovered}"));
        }
    }
    run.disk.op_count()
}

/// Images that a workload must give on the average: 200 workloads give more than 10,000 in all.
const IMAGES_MIN: usize = 100;

/// Checks one quarter of the workloads, so that they run beside each other.
fn check_quarter(quarter: u64) {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let (count, first) = (number("DSTORE_CRASH_SEEDS", 200), number("DSTORE_CRASH_SEED", 1));
    let seeds = (first..first + count).filter(|seed| seed % 4 == quarter);
    let (workloads, mut images) = (seeds.clone().count(), 0);
    for seed in seeds {
        let moments = check(seed);
        assert!(moments > 40, "workload {seed} does too little: {moments} changes of the disk");
        // One of each moment, and one after the recovery or within it.
        images += 2 * (moments - 4);
    }
    println!("{images} crash images of {workloads} journals");
    assert!(images >= workloads * IMAGES_MIN, "{images} crash images of {workloads} journals");
}

#[test]
fn every_crash_image_recovers_to_a_prefix_with_all_that_was_acknowledged() {
    check_quarter(0);
}

#[test]
fn every_crash_image_recovers_to_a_prefix_with_all_that_was_acknowledged_second_quarter() {
    check_quarter(1);
}

#[test]
fn every_crash_image_recovers_to_a_prefix_with_all_that_was_acknowledged_third_quarter() {
    check_quarter(2);
}

#[test]
fn every_crash_image_recovers_to_a_prefix_with_all_that_was_acknowledged_fourth_quarter() {
    check_quarter(3);
}

#[test]
fn a_batch_in_flight_is_seen_both_lost_and_kept() {
    let (disk, mut journal) = begin();
    append(&mut journal, 1, 100).expect("appended");
    disk.record(1 << 20);
    append(&mut journal, 1, 20_000).expect("appended");
    let written = *disk.moments().start() + 1;
    let heads: std::collections::BTreeSet<_> = (0..50)
        .map(|seed| open(&disk.crash_at(written, Survival::Any, seed)).expect("opens").opened)
        .map(|opened| (opened.head.0, opened.torn.is_some()))
        .collect();
    assert_eq!(heads, [(1, false), (1, true), (2, false)].into(), "lost, torn and whole all happen");
}

#[test]
fn a_first_segment_is_durable_by_itself_though_nothing_else_is_done_after_it() {
    // Preparing or retiring a segment syncs the directory too, which would hide it if `open` did not.
    let disk = new_disk();
    let config = JournalConfig { min_free_bytes: 1 << 60, ..config() };
    let mut journal = open_with(&disk, 1, &config, Floors::default()).expect("opens").journal;
    append(&mut journal, 1, 100).expect("appended");
    let later = open_with(&disk.crash(Survival::Nothing, 0), 2, &config, Floors::default()).expect("opens");
    assert_eq!((later.opened.head, later.opened.created), (Revision(1), false));
    assert_sound(&later.batches, Revision(0), "without spares");
}

#[test]
fn a_loop_of_crashes_while_opening_does_not_fill_the_disk() {
    let (mut disk, mut journal) = begin();
    append(&mut journal, 1, 100).expect("appended");
    drop(journal);
    for seed in 0..150_usize {
        disk.record(1 << 20);
        drop(open(&disk).expect("opens"));
        let (start, end) = disk.moments().into_inner();
        disk = disk.crash_at(start + seed * 7 % (end - start + 1), Survival::Everything, 0);
        assert!(disk.files().len() <= 12, "after {seed} crashes: {:?}", disk.files());
    }
    let (opened, batches) = look(&disk, Floors::default()).expect("opens");
    assert_sound(&batches, Revision(0), "after all that");
    assert_eq!((opened.head, opened.oldest), (Revision(1), Revision(1)));
}
