//! The feed against a model, and at its edges.

use super::log::Limits;
use super::*;
use crate::change::{BlobMeta, Change, Place};
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{BlobHash, Entry, Kind, Name, Namespace};
use dstore_sys::rng::{Rng, SeededRng};
use futures_util::{FutureExt, StreamExt};

const HISTORY: HistoryId = HistoryId(5);

fn feed(limits: Limits) -> Arc<Feed> {
    Feed::new(HISTORY, Log::new(Revision(0), limits), limits.bytes)
}

fn name(key: &str) -> Name {
    Name::of(key.to_owned()).expect("a valid key")
}

fn entry(revision: u64) -> Entry {
    Entry {
        hash: BlobHash::of(&revision.to_le_bytes()),
        size: 8,
        bind_rev: Revision(revision),
        expires_at: None,
        content_type: None,
    }
}

fn commit(revision: u64, changes: Vec<Change>) -> Commit {
    Commit { revision: Revision(revision), at_ms: 1000 + revision, outcome: None, changes }
}

fn bind(revision: u64, key: &str) -> Commit {
    let meta = BlobMeta { size: 8, refs: 1, place: Place::Inline, unnamed_since_ms: None, corrupt: false };
    let blob = Change::Blob { hash: entry(revision).hash, meta };
    commit(revision, vec![blob, Change::Bind { name: name(key), entry: entry(revision) }])
}

fn unbind(revision: u64, keys: &[&str]) -> Commit {
    commit(revision, keys.iter().map(|key| Change::Unbind { name: name(key) }).collect())
}

fn query(prefix: &str, after: u64) -> WatchQuery {
    WatchQuery {
        namespace: Namespace::default(),
        prefix: prefix.to_owned().into(),
        after: Some(Revision(after)),
        history: Some(HISTORY),
    }
}

fn watch(feed: &Arc<Feed>, prefix: &str, after: u64) -> Watching {
    feed.watch(&query(prefix, after), Revision(u64::MAX)).expect("it is remembered")
}

/// What is there without waiting for more.
async fn now(watching: &mut Watching) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    loop {
        // A look may let others have their turn.
        let mut polled = None;
        for _ in 0..8 {
            polled = watching.batches.next().now_or_never();
            if polled.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        match polled {
            Some(Some(Ok(seen))) => all.push(seen),
            Some(Some(Err(e))) => return Err(e),
            Some(None) | None => return Ok(all),
        }
    }
}

fn keys(seen: &[Seen]) -> Vec<String> {
    let events = seen.iter().flat_map(|seen| &seen.events);
    events.map(|event| format!("{}{}", event.revision, event.key.as_bytes().escape_ascii())).collect()
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_with_what_they_bind_and_unbind() {
    let feed = feed(Limits::default());
    let was = entry(1);
    feed.append(&[bind(1, "a"), bind(2, "b")], &[]);
    let unbound = [Unbound { revision: Revision(3), name: name("b"), was: was.clone() }];
    feed.append(&[unbind(3, &["a", "b"])], &unbound);
    let seen = now(&mut watch(&feed, "", 0)).await.expect("remembered");
    let happened: Vec<_> = seen[0].events.iter().map(|event| event.happened.clone()).collect();
    let expected = [
        Happened::Bound(entry(1)),
        Happened::Bound(entry(2)),
        Happened::Unbound(None),
        Happened::Unbound(Some(was)),
    ];
    assert_eq!((&happened[..], seen[0].through), (&expected[..], Revision(3)));
    assert_eq!(seen[0].events[3].at_ms, 1003);
    assert_eq!(keys(&seen), ["1a", "2b", "3a", "3b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_after_its_revision_at_every_edge_of_every_chunk() {
    for chunk in [1, 2, 3, 7] {
        let feed = feed(Limits { chunk, ..Limits::default() });
        for revision in 1..=20 {
            // One in three is about no name, one in five about three.
            match revision {
                r if r % 3 == 0 => feed.append(&[commit(r, vec![])], &[]),
                r if r % 5 == 0 => feed.append(&[unbind(r, &["x", "y", "z"])], &[]),
                r => feed.append(&[bind(r, "k")], &[]),
            }
        }
        let all = keys(&now(&mut watch(&feed, "", 0)).await.expect("remembered"));
        assert_eq!(all.len(), 20 - 6 + 2 * 3);
        for after in 0..=20 {
            let got = now(&mut watch(&feed, "", after)).await.expect("remembered");
            let rest = |key: &&String| {
                key.trim_end_matches(char::is_alphabetic).parse::<u64>().expect("a number") > after
            };
            let expected: Vec<&String> = all.iter().filter(rest).collect();
            assert_eq!(keys(&got).iter().collect::<Vec<_>>(), expected, "chunks of {chunk}, after {after}");
            assert!(got.is_empty() || got.last().expect("one").through == Revision(20));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_keys_with_the_prefix_in_the_namespace_are_told() {
    let feed = feed(Limits::default());
    let elsewhere = Name::new(&Namespace::new("other").expect("valid"), &name("ab").key());
    let foreign = commit(5, vec![Change::Bind { name: elsewhere, entry: entry(5) }]);
    feed.append(&[bind(1, "a"), bind(2, "ab"), bind(3, "abc"), bind(4, "b"), foreign], &[]);
    assert_eq!(keys(&now(&mut watch(&feed, "ab", 0)).await.expect("remembered")), ["2ab", "3abc"]);
    let other = WatchQuery { namespace: Namespace::new("other").expect("valid"), ..query("", 0) };
    let mut other = feed.watch(&other, Revision(5)).expect("remembered");
    assert_eq!(keys(&now(&mut other).await.expect("remembered")), ["5ab"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_revision_that_fills_many_batches_none_says_that_it_is_whole_but_the_last() {
    let feed = feed(Limits::default());
    let many: Vec<String> = (0..5000).map(|i| format!("{i:04}")).collect();
    feed.append(&[bind(1, "first"), unbind(2, &many.iter().map(String::as_str).collect::<Vec<_>>())], &[]);
    feed.append(&[bind(3, "last")], &[]);
    let seen = now(&mut watch(&feed, "", 0)).await.expect("remembered");
    assert_eq!(keys(&seen).len(), 5002);
    let (last, parts) = seen.split_last().expect("some");
    assert!(parts.len() >= 5, "{}", parts.len());
    assert!(parts.iter().all(|part| part.through == Revision(1)), "half of revision 2 passes for all of it");
    assert_eq!(last.through, Revision(3));
    assert!(seen.iter().all(|seen| seen.events.len() <= 1000));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_told_with_what_is_not() {
    let feed = feed(Limits { events: 10, chunk: 4, ..Limits::default() });
    let mut slow = watch(&feed, "", 0);
    for revision in 1..=30 {
        feed.append(&[bind(revision, "k")], &[]);
    }
    let (floor, _) = feed.reach();
    assert!((20..=26).contains(&floor.0), "the last ten are remembered, by chunks: {floor}");
    let e = feed.watch(&query("", floor.0 - 1), Revision(30)).expect_err("too old");
    assert_eq!(e.kind(), Kind::TooOld);
    assert!(e.message().contains(&format!("`{floor}`")) && e.message().contains("list"), "{e}");
    assert_eq!(
        keys(&now(&mut watch(&feed, "", floor.0)).await.expect("remembered")).len() as u64,
        30 - floor.0
    );
    assert_eq!(now(&mut slow).await.expect_err("it did not keep up").kind(), Kind::TooOld);
    assert!(slow.batches.next().await.is_none(), "an error is its end");
    drop(slow);
    assert_eq!(feed.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_behind_in_the_middle_is_told_from_where_to_go_on() {
    let feed = feed(Limits { events: 3000, chunk: 100, ..Limits::default() });
    (1..=2000).for_each(|revision| feed.append(&[bind(revision, "k")], &[]));
    let mut slow = watch(&feed, "", 0);
    let first = slow.batches.next().await.expect("goes on").expect("remembered");
    assert_eq!((first.events.len(), first.through), (1000, Revision(1000)));
    (2001..=9000).for_each(|revision| feed.append(&[bind(revision, "k")], &[]));
    let e = slow.batches.next().await.expect("told").expect_err("it did not keep up");
    assert_eq!(e.kind(), Kind::TooOld);
    assert!(e.message().contains("`1000`"), "what it has seen: {e}");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_in_bytes_too() {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let feed = feed(limits);
    let long = "k".repeat(1000);
    for revision in 1..=5000 {
        feed.append(&[bind(revision, &long)], &[]);
        assert!(feed.reach().1 <= limits.bytes + (256 << 10), "{}", feed.reach().1);
    }
    assert!(feed.reach().0 > Revision(1000));
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_revision_that_the_feed_has_not_reached_can_be_gone_on_from() {
    let feed = feed(Limits::default());
    feed.append(&[bind(1, "a")], &[]);
    let mut ahead = feed.watch(&query("", 3), Revision(3)).expect("visible already");
    feed.append(&[bind(2, "b"), bind(3, "c")], &[]);
    feed.append(&[bind(4, "d")], &[]);
    assert_eq!(keys(&now(&mut ahead).await.expect("remembered")), ["4d"]);
    let e = feed.watch(&query("", 9), Revision(4)).expect_err("not there yet");
    assert_eq!(e.kind(), Kind::TooOld);
    assert!(e.message().contains("`9` is not reached here, the newest is `4`"), "{e}");
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "the clock is tokio's, and virtual")]
async fn an_idle_watch_tells_how_far_it_has_got_and_an_event_comes_at_once() {
    let feed = feed(Limits::default());
    feed.append(&[bind(1, "a")], &[]);
    let mut idle = watch(&feed, "x", 0);
    let began = tokio::time::Instant::now();
    let seen = idle.batches.next().await.expect("goes on").expect("remembered");
    assert_eq!((seen.events.len(), seen.through), (0, Revision(1)));
    assert_eq!(began.elapsed().as_secs(), WATCH_PROGRESS.as_secs());
    // Also while there is much that it does not want.
    let busy = async {
        for revision in 2.. {
            feed.append(&[bind(revision, "y")], &[]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = busy => {}
        seen = idle.batches.next() => {
            let seen = seen.expect("goes on").expect("remembered");
            assert!(seen.events.is_empty() && seen.through > Revision(100), "{seen:?}");
        }
    }
    let head = feed.reach().0.0.max(feed.log.read().head().0);
    let mut next = watch(&feed, "", head);
    let (seen, ()) = tokio::join!(next.batches.next(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        feed.append(&[bind(head + 1, "z")], &[]);
    });
    assert_eq!(keys(&[seen.expect("goes on").expect("remembered")]), [format!("{}z", head + 1)]);
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_on_watchers_and_one_that_ends_makes_room() {
    let feed = feed(Limits::default());
    let mut all: Vec<Watching> = (0..WATCHERS_MAX).map(|_| watch(&feed, "", 0)).collect();
    let e = feed.watch(&query("", 0), Revision(0)).expect_err("one too many");
    assert_eq!((e.kind(), feed.watchers()), (Kind::Exhausted, WATCHERS_MAX));
    all.pop();
    watch(&feed, "", 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_what_is_there_and_ends_every_watch() {
    let feed = feed(Limits::default());
    let mut watching = watch(&feed, "", 0);
    feed.append(&[bind(1, "a")], &[]);
    feed.close();
    assert_eq!(keys(&[watching.batches.next().await.expect("one").expect("remembered")]), ["1a"]);
    let e = watching.batches.next().await.expect("told").expect_err("it ends");
    assert_eq!(e.kind(), Kind::Unavailable);
}

/// Watchers with all kinds of prefixes and paces, cut and resumed at any moment, against a list of all events.
#[tokio::test(start_paused = true)]
async fn whatever_the_writers_and_the_cuts_a_watcher_sees_each_event_once_or_is_told() {
    let mut told = 0;
    for seed in 0..150_u64 {
        let rng = SeededRng::new(seed);
        let below = |n: u64| rng.next_u64() % n;
        let limits = Limits {
            events: 50 + below(400) as usize,
            chunk: 1 + below(20) as usize,
            bytes: if below(4) == 0 { 20_000 } else { 1 << 20 },
        };
        let feed = feed(limits);
        let mut model: Vec<(u64, String)> = Vec::new();
        let prefix = ["", "a", "ab", "b"][below(4) as usize];
        let mut revision = 0;
        let (mut through, mut got): (u64, Vec<(u64, String)>) = (0, Vec::new());
        let mut watching = watch(&feed, prefix, 0);
        for _ in 0..200 {
            let batch: Vec<Commit> = (0..below(4))
                .map(|_| {
                    revision += 1;
                    let keys: Vec<String> = (0..below(6))
                        .map(|_| ["a", "ab", "abc", "b", "c"][below(5) as usize].to_owned())
                        .collect();
                    model.extend(keys.iter().map(|key| (revision, key.clone())));
                    unbind(revision, &keys.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .collect();
            feed.append(&batch, &[]);
            if below(3) > 0 {
                continue;
            }
            let resumed = if below(3) == 0 {
                feed.watch(&query(prefix, through), Revision(revision))
            } else {
                Ok(watching)
            };
            let seen = match resumed {
                Ok(resumed) => {
                    watching = resumed;
                    now(&mut watching).await
                }
                // Nothing of its prefix came for so long that even what it does not want is forgotten.
                Err(e) => {
                    watching = watch(&feed, prefix, revision);
                    Err(e)
                }
            };
            match seen {
                Ok(seen) => {
                    for Seen { events, through: upto } in seen {
                        assert!(upto.0 >= through, "seed {seed}");
                        let of =
                            |e: Event| (e.revision.0, String::from_utf8_lossy(e.key.as_bytes()).into_owned());
                        got.extend(events.into_iter().map(of));
                        through = upto.0;
                    }
                }
                Err(e) => {
                    assert_eq!(e.kind(), Kind::TooOld, "seed {seed}");
                    told += 1;
                    // As if it had listed: what came before is known.
                    through = revision;
                    got = model.iter().filter(|(_, key)| key.starts_with(prefix)).cloned().collect();
                    watching = watch(&feed, prefix, revision);
                    continue;
                }
            }
            let due: Vec<_> =
                model.iter().filter(|(of, key)| *of <= through && key.starts_with(prefix)).cloned().collect();
            assert_eq!(got, due, "seed {seed}: through {through} of {revision}");
        }
    }
    assert!(told > 20, "some fall behind: {told}");
}
