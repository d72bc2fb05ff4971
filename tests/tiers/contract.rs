//! What every `Store` promises, told once and run against Global's own door, a Local, and the client of either.

use crate::rig::{global, global_at, local, machine, name};
use bytes::Bytes;
use dstore_proto::RemoteStore;
use dstore_proto::dial::{Channel, Dial};
use dstore_proto::store::{Body, FoundMany, ListQuery, SetOne, Slice, Store, Target};
use dstore_shared::limits::{
    DELETE_NAMES_MAX, GET_MANY_NAMES_MAX, SET_MANY_BYTES_MAX, SET_MANY_NAMES_MAX, UNARY_BYTES_MAX,
};
use dstore_shared::{
    Attributes, Blob, BlobHash, ClientId, ContentType, CopyResult, Entry, Expiry, Kind, Name, Namespace,
    Payload, RequestId, SetOutcome, Step, Transaction, When,
};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);

/// A store under test, and somebody who names changes.
struct Subject<'a, S> {
    store: &'a S,
    client: ClientId,
    next: AtomicU64,
}

impl<S: Store> Subject<'_, S> {
    async fn id(&self) -> RequestId {
        self.ids(1).await
    }

    /// The first of `count` ids.
    async fn ids(&self, count: u64) -> RequestId {
        let born = self.store.status().await.expect("answered").born.expect("global was reached");
        RequestId { client: self.client, n: self.next.fetch_add(count, Ordering::Relaxed), born }
    }

    async fn set(&self, key: &str, value: impl Into<Bytes>) -> SetOutcome {
        let body = Body::Bytes(value.into());
        self.store.set(self.id().await, Some(name(key)), body).await.expect("answered").outcome
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.store.get(Target::Name(name(key)), Slice::ALL).await.expect("answered")?;
        Some(found.body.collect(1 << 30).await.expect("the bytes").to_vec())
    }

    async fn delete(&self, keys: &[&str]) -> Vec<bool> {
        self.store.delete(self.id().await, names(keys)).await.expect("answered").removed
    }

    async fn copy(&self, from: &str, to: &str) -> CopyResult {
        self.store.copy(self.id().await, name(from), name(to)).await.expect("answered").result
    }

    async fn rename(&self, from: &str, to: &str) -> CopyResult {
        self.store.rename(self.id().await, name(from), name(to)).await.expect("answered").result
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Option<Vec<u8>>> {
        values(self.store.get_many(names(keys)).await.expect("answered")).await
    }

    async fn sets(&self, values: Vec<(Name, Vec<u8>)>) -> Vec<SetOne> {
        let first = self.ids(values.len() as u64).await;
        let one = |(i, (name, value))| SetOne {
            id: RequestId { n: first.n + i, ..first },
            name,
            value: Blob::hash(value),
            attributes: dstore_shared::Attributes::default(),
        };
        (0..).zip(values).map(one).collect()
    }
}

fn names(keys: &[&str]) -> Vec<Name> {
    keys.iter().map(|key| name(*key)).collect()
}

async fn values(all: FoundMany) -> Vec<Option<Vec<u8>>> {
    let mut values = Vec::new();
    for found in all.found {
        values.push(match found {
            Some(found) => {
                let bytes = found.body.collect(1 << 30).await.expect("the bytes");
                assert_eq!((BlobHash::of(&bytes), bytes.len() as u64), (found.entry.hash, found.entry.size));
                Some(bytes.to_vec())
            }
            None => None,
        });
    }
    values
}

#[expect(clippy::unnecessary_wraps, reason = "what a GET gives is compared with it")]
fn some(value: &str) -> Option<Vec<u8>> {
    Some(value.as_bytes().to_vec())
}

/// All of the contract. Keys begin with the name of their part, so that the parts do not meet.
async fn keeps_the_contract<S: Store>(store: &S) {
    let client = ClientId(Sys::real().rng.next_u128());
    let subject = Subject { store, client, next: AtomicU64::new(1) };
    a_name_is_write_once(&subject).await;
    a_delete_takes_all_or_none(&subject).await;
    a_stored_blob_is_bound(&subject).await;
    slices_are_cut(&subject).await;
    many_are_read_in_order(&subject).await;
    many_are_set_each_by_itself(&subject).await;
    what_is_said_with_a_value_is_given_back(&subject).await;
    what_was_said_first_stays(&subject).await;
    names_are_copied(&subject).await;
    names_are_renamed(&subject).await;
    retries_are_exact(&subject).await;
    what_is_too_much_is_refused(&subject).await;
    names_are_listed(&subject).await;
}

async fn a_name_is_write_once<S: Store>(s: &Subject<'_, S>) {
    assert_eq!(s.get("once").await, None);
    assert!(matches!(s.set("once", "a").await, SetOutcome::Stored(_)));
    assert_eq!(s.get("once").await, some("a"));
    assert!(matches!(s.set("once", "a").await, SetOutcome::Unchanged(_)));
    let SetOutcome::Occupied(by) = s.set("once", "b").await else { panic!("write-once") };
    assert_eq!(by.hash, BlobHash::of(b"a"));
    assert_eq!(s.get("once").await, some("a"), "nothing was changed");
    let stat = s.store.stat(Target::Name(name("once"))).await.expect("answered").expect("found");
    assert_eq!((stat.entry.hash, stat.entry.size), (by.hash, 1));
    let by_hash = s.store.stat(Target::Hash(by.hash)).await.expect("answered").expect("found");
    assert_eq!((by_hash.entry.size, by_hash.entry.bind_rev.0), (1, 0));
}

fn said(words: &str, ttl: Option<Duration>) -> Attributes {
    Attributes { content_type: ContentType::optional(words).expect("valid"), ttl }
}

/// A long time, of which little is over when it is looked at.
const HOURS: Duration = Duration::from_secs(1_000 * 3_600);

impl<S: Store> Subject<'_, S> {
    async fn set_as(&self, key: &str, value: impl Into<Bytes>, said: Attributes) -> SetOutcome {
        let body = Body::Bytes(value.into());
        self.store.set_as(self.id().await, Some(name(key)), body, said).await.expect("answered").outcome
    }

    /// The type of a name as each way of reading tells it, and how many hours it has to live, rounded up.
    async fn told(&self, key: &str) -> (Option<String>, Option<u64>) {
        let stat = self.store.stat(Target::Name(name(key))).await.expect("answered").expect("bound");
        for _ in 0..2 {
            let found =
                self.store.get(Target::Name(name(key)), Slice::ALL).await.expect("answered").expect("bound");
            assert_eq!(found.entry, stat.entry, "read, and held if it may be");
        }
        let many = self.store.get_many(names(&[key])).await.expect("answered").found.remove(0);
        assert_eq!(many.expect("bound").entry, stat.entry);
        let stats = self.store.stat_many(names(&[key])).await.expect("answered").stats.remove(0);
        assert_eq!(stats.expect("bound").entry, stat.entry);
        let query = ListQuery {
            namespace: Namespace::default(),
            prefix: key.to_owned().into(),
            after: None,
            limit: 1,
        };
        assert_eq!(self.store.list(query).await.expect("answered").names[0].1, stat.entry);
        let hours = |left: Duration| left.as_secs().div_ceil(3_600);
        (stat.entry.content_type.as_ref().map(ContentType::to_string), stat.left().map(hours))
    }
}

async fn what_is_said_with_a_value_is_given_back<S: Store>(s: &Subject<'_, S>) {
    let hours = Some(HOURS.as_secs() / 3_600);
    let both = said("text/plain; charset=utf-8", Some(HOURS));
    assert!(matches!(s.set_as("said/set", "1", both.clone()).await, SetOutcome::Stored(_)));
    assert_eq!(s.told("said/set").await, (Some("text/plain; charset=utf-8".into()), hours));
    let large = vec![7; UNARY_BYTES_MAX + 1];
    assert!(matches!(s.set_as("said/large", large, both.clone()).await, SetOutcome::Stored(_)));
    assert_eq!(s.told("said/large").await, (Some("text/plain; charset=utf-8".into()), hours));
    let stored = s.store.set(RequestId::default(), None, Body::Bytes("bound".into())).await.expect("stored");
    let SetOutcome::Stored(blob) = stored.outcome else { panic!("without a name") };
    let bind =
        s.store.bind_as(s.id().await, name("said/bind"), (blob.hash, blob.size), said("a/b", Some(HOURS)));
    assert!(matches!(bind.await.expect("answered").outcome, SetOutcome::Stored(_)));
    assert_eq!(s.told("said/bind").await, (Some("a/b".into()), hours));
    let mut sets = s.sets(vec![(name("said/m1"), b"1".to_vec()), (name("said/m2"), b"2".to_vec())]).await;
    sets[1].attributes = said("c/d", Some(HOURS));
    assert!(s.store.set_many(sets).await.expect("answered").iter().all(Result::is_ok));
    assert_eq!(s.told("said/m1").await, (None, None));
    assert_eq!(s.told("said/m2").await, (Some("c/d".into()), hours));
    let value = Payload::carrying(Blob::hash("x")).typed(said("e/f", None).content_type);
    let step = Step::Set { name: name("said/apply"), value, when: When::Always, expiry: Expiry::In(HOURS) };
    s.store.apply(s.id().await, Transaction::of(step)).await.expect("answered");
    assert_eq!(s.told("said/apply").await, (Some("e/f".into()), hours));
    // It goes with the value, and the time with the name.
    assert!(matches!(s.copy("said/set", "said/copied").await, CopyResult::Done(_)));
    assert_eq!(s.told("said/copied").await, s.told("said/set").await);
    assert!(matches!(s.rename("said/bind", "said/renamed").await, CopyResult::Done(_)));
    assert_eq!(s.told("said/renamed").await, (Some("a/b".into()), hours));
    let brief = Duration::from_millis(1);
    assert!(matches!(s.set_as("said/brief", "1", said("", Some(brief))).await, SetOutcome::Stored(_)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(s.get("said/brief").await, None);
    for never in [Duration::ZERO, Duration::from_micros(1), HOURS * 10_000] {
        let body = Body::Bytes("1".into());
        let refused =
            s.store.set_as(s.id().await, Some(name("said/never")), body, said("", Some(never))).await;
        assert!(refused.is_err_and(|e| e.kind() == Kind::Invalid), "{never:?}");
    }
}

async fn what_was_said_first_stays<S: Store>(s: &Subject<'_, S>) {
    s.set_as("first", "1", said("a/a", None)).await;
    let SetOutcome::Unchanged(entry) = s.set_as("first", "1", said("b/b", None)).await else {
        panic!("the same bytes in a write-once namespace change nothing")
    };
    assert_eq!(entry.content_type, said("a/a", None).content_type);
    assert!(
        matches!(s.set("first", "1").await, SetOutcome::Unchanged(_)),
        "nor does a SET that says nothing"
    );
    let SetOutcome::Stored(later) = s.set_as("first", "1", said("b/b", Some(HOURS))).await else {
        panic!("a time to live is given")
    };
    assert!(later.bind_rev > entry.bind_rev && later.content_type == entry.content_type);
    assert_eq!(s.told("first").await, (Some("a/a".into()), Some(HOURS.as_secs() / 3_600)));
    assert!(matches!(s.set_as("first", "2", said("b/b", Some(HOURS))).await, SetOutcome::Occupied(_)));
    s.set_as("first/other", "1", said("c/c", None)).await;
    assert!(matches!(s.copy("first", "first/other").await, CopyResult::Unchanged(_)));
    assert_eq!(s.told("first/other").await.0, Some("c/c".into()), "the same blob under another name");
    assert_eq!(s.delete(&["first"]).await, [true]);
    assert!(matches!(s.set_as("first", "1", said("b/b", None)).await, SetOutcome::Stored(_)));
    assert_eq!(s.told("first").await, (Some("b/b".into()), None), "a name that was free has no memory");
}

async fn a_delete_takes_all_or_none<S: Store>(s: &Subject<'_, S>) {
    s.set("del/a", "1").await;
    s.set("del/b", "2").await;
    assert_eq!(s.delete(&["del/a", "del/none", "del/b", "del/a"]).await, [true, false, true, true]);
    assert_eq!(s.get_many(&["del/a", "del/b"]).await, [None, None]);
    assert!(matches!(s.set("del/a", "3").await, SetOutcome::Stored(_)), "a name that is free again");
    let refused = s.store.delete(s.id().await, Vec::new()).await.expect_err("no name");
    assert_eq!(refused.kind(), Kind::Invalid);
}

async fn a_stored_blob_is_bound<S: Store>(s: &Subject<'_, S>) {
    let large: Bytes = vec![7; UNARY_BYTES_MAX + 1].into();
    let stored = s.store.set(RequestId::default(), None, Body::Bytes(large.clone())).await.expect("stored");
    let SetOutcome::Stored(Entry { hash, size, .. }) = stored.outcome else { panic!("stored") };
    let bound = s.store.bind(s.id().await, name("bind"), hash, size).await.expect("answered").outcome;
    assert!(matches!(bound, SetOutcome::Stored(_)), "{bound:?}");
    assert_eq!(s.get("bind").await.as_deref(), Some(&large[..]));
    let nowhere = BlobHash::of(b"nobody stored this");
    let needs = s.store.bind(s.id().await, name("bind/none"), nowhere, 3).await.expect("answered").outcome;
    assert_eq!(needs, SetOutcome::NeedBlob);
    let other = s.store.bind(s.id().await, name("bind/size"), hash, 3).await.expect_err("another size");
    assert_eq!(other.kind(), Kind::Invalid);
}

async fn slices_are_cut<S: Store>(s: &Subject<'_, S>) {
    s.set("slice", "0123456789").await;
    let get = |offset, len| s.store.get(Target::Name(name("slice")), Slice { offset, len });
    let bytes =
        get(3, Some(4)).await.expect("answered").expect("found").body.collect(10).await.expect("bytes");
    assert_eq!(bytes, &b"3456"[..]);
    let bytes = get(8, Some(u64::MAX)).await.expect("answered").expect("found");
    assert_eq!(bytes.body.collect(10).await.expect("bytes"), &b"89"[..]);
    assert_eq!(get(11, None).await.expect_err("past the end").kind(), Kind::Invalid);
}

async fn many_are_read_in_order<S: Store>(s: &Subject<'_, S>) {
    let (long, longer) = (vec![1; 200_000], vec![2; 3 << 20]);
    s.set("many/a", "a").await;
    s.set("many/empty", "").await;
    s.set("many/long", long.clone()).await;
    s.set("many/longer", longer.clone()).await;
    for round in 0..2 {
        let keys = ["many/longer", "many/none", "many/a", "many/long", "many/empty", "many/a", "many/none"];
        let got = s.get_many(&keys).await;
        let expected = [Some(longer.clone()), None, some("a"), Some(long.clone()), some(""), some("a"), None];
        assert!(got == expected, "round {round}");
    }
    let all = s.store.get_many(names(&["many/none", "many/a"])).await.expect("answered");
    let bound = all.found[1].as_ref().expect("found").entry.bind_rev;
    assert!(all.revision >= bound, "{:?} as of {:?}", bound, all.revision);
    let stats = s.store.stat_many(names(&["many/a", "many/none", "many/long"])).await.expect("answered");
    let sizes: Vec<_> = stats.stats.iter().map(|stat| stat.as_ref().map(|stat| stat.entry.size)).collect();
    assert_eq!(sizes, [Some(1), None, Some(200_000)]);
    assert!(stats.revision >= bound);
    let exists = s.store.exists(names(&["many/none", "many/a", "many/a"])).await.expect("answered");
    assert_eq!(exists, [false, true, true]);
    assert!(s.get_many(&[]).await.is_empty());
    assert!(s.store.exists(Vec::new()).await.expect("answered").is_empty());
    assert!(s.store.stat_many(Vec::new()).await.expect("answered").stats.is_empty());
    // Many small values, more than travel in one frame.
    let keys: Vec<String> = (0..GET_MANY_NAMES_MAX).map(|i| format!("many/n{i}")).collect();
    let value = |i: usize| vec![i as u8; 2000 + i];
    for part in keys.iter().enumerate().collect::<Vec<_>>().chunks(200) {
        let sets = part.iter().map(|(i, key)| (name(key.as_str()), value(*i))).collect();
        for done in s.store.set_many(s.sets(sets).await).await.expect("answered") {
            assert!(matches!(done.expect("set").outcome, SetOutcome::Stored(_)));
        }
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let got = s.get_many(&keys).await;
    assert!(got.iter().enumerate().all(|(i, got)| got.as_deref() == Some(&value(i)[..])), "each its own");
}

async fn many_are_set_each_by_itself<S: Store>(s: &Subject<'_, S>) {
    s.set("sets/taken", "x").await;
    let values =
        [("sets/a", "1"), ("sets/taken", "y"), ("sets/b", "2"), ("sets/taken", "x"), ("sets/a", "3")];
    let sets = values.map(|(key, value)| (name(key), value.as_bytes().to_vec()));
    let sets = s.sets(sets.to_vec()).await;
    let outcome = |done: Vec<dstore_shared::Result<dstore_proto::store::SetReply>>| {
        done.into_iter().map(|one| one.expect("answered").outcome).collect::<Vec<_>>()
    };
    let done = outcome(s.store.set_many(sets.clone()).await.expect("answered"));
    assert!(
        matches!(
            done[..],
            [
                SetOutcome::Stored(_),
                SetOutcome::Occupied(_),
                SetOutcome::Stored(_),
                SetOutcome::Unchanged(_),
                SetOutcome::Occupied(_)
            ]
        ),
        "{done:?}"
    );
    assert_eq!(s.get_many(&["sets/a", "sets/b", "sets/taken"]).await, [some("1"), some("2"), some("x")]);
    s.delete(&["sets/a", "sets/b"]).await;
    let again = outcome(s.store.set_many(sets).await.expect("answered"));
    assert_eq!(again, done, "the very ids are answered with what they did");
    assert_eq!(s.get_many(&["sets/a", "sets/b"]).await, [None, None], "and do nothing again");
    assert!(s.store.set_many(Vec::new()).await.expect("answered").is_empty());
    let long = vec![9; 300_000];
    let done =
        s.store.set_many(s.sets(vec![(name("sets/long"), long.clone())]).await).await.expect("answered");
    assert!(matches!(&done[..], [Ok(reply)] if matches!(reply.outcome, SetOutcome::Stored(_))), "{done:?}");
    assert_eq!(s.get("sets/long").await, Some(long));
}

async fn names_are_copied<S: Store>(s: &Subject<'_, S>) {
    assert_eq!(s.copy("copy/none", "copy/b").await, CopyResult::NotFound);
    s.set("copy/a", "v").await;
    let CopyResult::Done(entry) = s.copy("copy/a", "copy/b").await else { panic!("copied") };
    assert_eq!(entry.hash, BlobHash::of(b"v"));
    assert!(matches!(s.copy("copy/a", "copy/b").await, CopyResult::Unchanged(same) if same == entry));
    assert!(matches!(s.copy("copy/a", "copy/a").await, CopyResult::Unchanged(_)));
    s.set("copy/other", "w").await;
    assert!(
        matches!(s.copy("copy/a", "copy/other").await, CopyResult::Occupied(by) if by.hash == BlobHash::of(b"w"))
    );
    assert_eq!(s.get_many(&["copy/a", "copy/b", "copy/other"]).await, [some("v"), some("v"), some("w")]);
    s.delete(&["copy/a"]).await;
    assert_eq!(s.get_many(&["copy/a", "copy/b"]).await, [None, some("v")], "the copy lives on");
    let other = Name::new(&Namespace::new("elsewhere").expect("valid"), &name("copy/b").key());
    let copied = s.store.copy(s.id().await, name("copy/b"), other.clone()).await.expect("answered");
    assert!(matches!(copied.result, CopyResult::Done(e) if e.bind_rev == copied.revision));
    assert_eq!(s.store.exists(vec![other]).await.expect("answered"), [true]);
}

async fn names_are_renamed<S: Store>(s: &Subject<'_, S>) {
    assert_eq!(s.rename("mv/none", "mv/b").await, CopyResult::NotFound);
    assert_eq!(s.rename("mv/none", "mv/none").await, CopyResult::NotFound);
    let large = vec![5; 100_000];
    s.set("mv/a", large.clone()).await;
    assert_eq!(s.get("mv/a").await.map(|v| v.len()), Some(100_000));
    assert!(matches!(s.rename("mv/a", "mv/a").await, CopyResult::Unchanged(_)));
    assert!(matches!(s.rename("mv/a", "mv/b").await, CopyResult::Done(_)));
    assert_eq!(s.get_many(&["mv/a", "mv/b"]).await, [None, Some(large.clone())]);
    assert_eq!(s.rename("mv/a", "mv/c").await, CopyResult::NotFound);
    s.set("mv/taken", "x").await;
    assert!(matches!(s.rename("mv/b", "mv/taken").await, CopyResult::Occupied(_)));
    assert_eq!(
        s.get_many(&["mv/b", "mv/taken"]).await,
        [Some(large.clone()), some("x")],
        "nothing was changed"
    );
    s.set("mv/same", large.clone()).await;
    assert!(matches!(s.rename("mv/b", "mv/same").await, CopyResult::Done(_)));
    assert_eq!(s.get_many(&["mv/b", "mv/same"]).await, [None, Some(large)], "both were one, and one is left");
    assert!(matches!(s.set("mv/b", "free").await, SetOutcome::Stored(_)));
}

async fn retries_are_exact<S: Store>(s: &Subject<'_, S>) {
    s.set("again/a", "v").await;
    let id = s.id().await;
    let first = s.store.rename(id, name("again/a"), name("again/b")).await.expect("answered");
    s.set("again/a", "new").await;
    let second = s.store.rename(id, name("again/a"), name("again/b")).await.expect("answered");
    assert_eq!(first, second);
    assert_eq!(s.get_many(&["again/a", "again/b"]).await, [some("new"), some("v")], "renamed once");
    let id = s.id().await;
    let none = s.store.copy(id, name("again/none"), name("again/c")).await.expect("answered");
    s.set("again/none", "late").await;
    assert_eq!(s.store.copy(id, name("again/none"), name("again/c")).await.expect("answered"), none);
    assert_eq!(s.get("again/c").await, None, "what was decided stays decided");
}

async fn what_is_too_much_is_refused<S: Store>(s: &Subject<'_, S>) {
    let too_many: Vec<Name> = (0..=GET_MANY_NAMES_MAX).map(|i| name(format!("x{i}"))).collect();
    let e = s.store.get_many(too_many.clone()).await.expect_err("too many");
    assert_eq!(e.kind(), Kind::TooLarge, "{e}");
    assert_eq!(s.store.stat_many(too_many).await.expect_err("too many").kind(), Kind::TooLarge);
    let most: Vec<Name> = (0..DELETE_NAMES_MAX).map(|i| name(format!("x{i}"))).collect();
    assert_eq!(s.store.exists(most.clone()).await.expect("answered"), vec![false; DELETE_NAMES_MAX]);
    let over = [most, names(&["one more"])].concat();
    assert_eq!(s.store.exists(over).await.expect_err("too many").kind(), Kind::TooLarge);
    let long: Vec<Name> = (0..600).map(|i| name(format!("{i:0>1024}"))).collect();
    assert_eq!(s.store.get_many(long).await.expect_err("too long").kind(), Kind::TooLarge);
    let many = (0..=SET_MANY_NAMES_MAX).map(|i| (name(format!("x{i}")), vec![1])).collect();
    let sets = s.sets(many).await;
    assert_eq!(s.store.set_many(sets).await.expect_err("too many").kind(), Kind::TooLarge);
    let large = vec![(name("large"), vec![1; SET_MANY_BYTES_MAX])];
    let sets = s.sets(large).await;
    assert_eq!(s.store.set_many(sets).await.expect_err("too large").kind(), Kind::TooLarge);
    assert_eq!(
        s.store.exists(names(&["x0", "large"])).await.expect("answered"),
        [false, false],
        "none was set"
    );
}

async fn names_are_listed<S: Store>(s: &Subject<'_, S>) {
    for key in ["list/b", "list/a", "list/c/d"] {
        s.set(key, key.to_owned()).await;
    }
    let query = ListQuery {
        namespace: Namespace::default(),
        prefix: "list/".into(),
        after: Some(name("list/a").key()),
        limit: 10,
    };
    let page = s.store.list(query).await.expect("answered");
    let keys: Vec<_> = page.names.iter().map(|(key, _)| key.as_bytes()).collect();
    assert_eq!((keys, page.next), (vec![&b"list/b"[..], &b"list/c/d"[..]], None));
}

fn client(sys: &Sys, tasks: &Tasks, at: &Address) -> RemoteStore {
    RemoteStore::new(Channel::new(sys, tasks, at, &Dial::default()), &Dial::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn globals_own_door_keeps_the_contract_of_a_store() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    keeps_the_contract(&*global.store()).await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_keeps_the_contract_of_a_store() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let local = local(&sys).await;
    keeps_the_contract(local.node()).await;
    local.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_either_tier_keeps_the_contract_of_a_store() {
    for of_local in [false, true] {
        let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
        let (global, tasks) = (global(&sys, dir.path(), LEASE).await, Tasks::new());
        let at = Address::Memory("local".into());
        let local = crate::rig::local_at(&sys, &at).await;
        let asked = if of_local { at } else { global_at() };
        keeps_the_contract(&client(&sys, &tasks, &asked)).await;
        tasks.stop().await;
        local.stop().await;
        global.stop().await.expect("a clean stop");
    }
}
