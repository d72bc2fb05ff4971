//! Namespaces whose names may be bound anew, transactions, and times to live, through two Locals.

use crate::rig::{SOON, global, local, machine, name};
use bytes::Bytes;
use dstore_local::Local;
use dstore_proto::store::{Body, Slice, Store, Target, Tier};
use dstore_shared::{
    Attributes, Blob, ContentType, Decision, ExpireWhen, Expiry, Guard, Key, Kind, Name, Namespace,
    NamespaceMode, NamespaceResult, NamespaceSpec, Payload, SetOutcome, Step, StepOutcome, StepResult,
    Transaction, TransactionOutcome, When,
};
use futures_util::future::join_all;
use std::time::{Duration, SystemTime};

const LEASE: Duration = Duration::from_secs(2);
const REPLACE: NamespaceSpec = NamespaceSpec { mode: NamespaceMode::Replace, ttl: None };

fn cache() -> Namespace {
    Namespace::new("cache").expect("valid")
}

fn of(key: &str) -> Name {
    Name::new(&cache(), &Key::new(key.to_owned()).expect("valid"))
}

async fn create(local: &Local, namespace: &Namespace, spec: NamespaceSpec) -> NamespaceResult {
    let id = local.node().request_id().await.expect("an id");
    local.node().create_namespace(id, namespace.clone(), spec).await.expect("answered").result
}

async fn drop_it(local: &Local, namespace: &Namespace) -> NamespaceResult {
    let id = local.node().request_id().await.expect("an id");
    local.node().drop_namespace(id, namespace.clone()).await.expect("answered").result
}

async fn put(local: &Local, name: &Name, value: impl Into<Bytes>) -> SetOutcome {
    let id = local.node().request_id().await.expect("an id");
    let body = Body::Bytes(value.into());
    local.node().set(id, Some(name.clone()), body).await.expect("answered").outcome
}

async fn read(local: &Local, name: &Name) -> Option<Vec<u8>> {
    let found = local.node().get(Target::Name(name.clone()), Slice::ALL).await.expect("answered")?;
    Some(found.body.collect(1 << 30).await.expect("the bytes").to_vec())
}

async fn left(local: &Local, name: &Name) -> Option<Option<Duration>> {
    let stat = local.node().stat(Target::Name(name.clone())).await.expect("answered")?;
    Some(stat.left())
}

async fn apply(local: &Local, transaction: Transaction) -> TransactionOutcome {
    let id = local.node().request_id().await.expect("an id");
    local.node().apply(id, transaction).await.expect("answered")
}

async fn steps(local: &Local, steps: Vec<Step>) -> Vec<StepOutcome> {
    match apply(local, Transaction::steps(steps)).await.decision {
        Decision::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

async fn step(local: &Local, step: Step) -> StepOutcome {
    steps(local, vec![step]).await.remove(0)
}

fn set(name: &Name, value: &str, when: When, expiry: Expiry) -> Step {
    let value = Payload::carrying(Blob::hash(value.to_owned()));
    Step::Set { name: name.clone(), value, when, expiry }
}

fn add(name: &Name, by: i64) -> Step {
    Step::Add { name: name.clone(), by }
}

fn expire(name: &Name, expiry: Expiry, when: ExpireWhen) -> Step {
    Step::Expire { name: name.clone(), expiry, when }
}

fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_replace_namespace_a_name_is_of_the_type_that_was_said_last_and_nobody_holds_another() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    assert_eq!(create(&a, &cache(), REPLACE).await, NamespaceResult::Done);
    let words = |words: &str| ContentType::optional(words).expect("valid");
    let held = |local: &Local| local.node().hit(&of("k")).map(|(entry, _)| entry.content_type);
    for (value, said) in [("1", "a/a"), ("1", "b/b"), ("2", "c/c"), ("2", ""), ("2", "d/d")] {
        let id = a.node().request_id().await.expect("an id");
        let (body, attributes) =
            (Body::Bytes(value.into()), Attributes { content_type: words(said), ttl: None });
        let done = a.node().set_as(id, Some(of("k")), body, attributes).await.expect("answered").outcome;
        assert!(
            matches!(done, SetOutcome::Stored(_)),
            "the same bytes of another type are another value: {done:?}"
        );
        assert_eq!(held(&b), None, "what the other held is gone: {value} {said}");
        assert_eq!(read(&b, &of("k")).await.as_deref(), Some(value.as_bytes()));
        assert_eq!((held(&a), held(&b)), (Some(words(said)), Some(words(said))));
    }
    // What changes a value in place leaves its type as it is.
    for step_of in [add(&of("k"), 1), Step::Append { name: of("k"), bytes: "0".into() }] {
        let done = step(&b, step_of).await;
        assert_eq!((done.result, done.entry.expect("bound").content_type), (StepResult::Done, words("d/d")));
    }
    let copy = Step::Copy { from: of("k"), to: of("l"), replace: true };
    assert_eq!(step(&b, copy).await.entry.expect("bound").content_type, words("d/d"));
    let plain = set(&of("k"), "30", When::Always, Expiry::Clear);
    assert_eq!(step(&b, plain).await.entry.expect("bound").content_type, None);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_gives_a_bound_name_less_long_to_live_drains_those_who_hold_it() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    let k = name("k");
    put(&a, &k, "v").await;
    assert_eq!(read(&b, &k).await.as_deref(), Some(&b"v"[..]));
    let id = a.node().request_id().await.expect("an id");
    let attributes = Attributes { content_type: None, ttl: Some(Duration::from_secs(1)) };
    let done =
        a.node().set_as(id, Some(k.clone()), Body::Bytes("v".into()), attributes).await.expect("answered");
    assert!(matches!(done.outcome, SetOutcome::Stored(_)), "{done:?}");
    assert!(b.node().hit(&k).is_none(), "it would serve the name for ever");
    assert_eq!(left(&b, &k).await.expect("bound").map(|left| left <= Duration::from_secs(1)), Some(true));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_replaces_is_what_every_later_get_returns_anywhere() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    assert_eq!(create(&a, &cache(), REPLACE).await, NamespaceResult::Done);
    for round in 0..50 {
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let value = format!("value {round}");
        assert!(matches!(put(writer, &of("k"), value.clone()).await, SetOutcome::Stored(_)));
        let held = writer.node().hit(&of("k")).expect("who SET it holds it");
        assert_eq!(held.1.bytes(), value.as_bytes());
        assert!(reader.node().hit(&of("k")).is_none(), "what the other held is gone");
        assert_eq!(read(reader, &of("k")).await.as_deref(), Some(value.as_bytes()));
        assert!(reader.node().hit(&of("k")).is_some(), "and it may hold the new one");
    }
    assert!(matches!(put(&a, &of("k"), "value 49").await, SetOutcome::Unchanged(_)));
    assert!(matches!(put(&a, &name("k"), "1").await, SetOutcome::Stored(_)));
    assert!(matches!(put(&b, &name("k"), "2").await, SetOutcome::Occupied(_)), "`default` is write-once");
    // A value that is not carried is replaced, and replaces.
    let large = vec![7; 3 << 20];
    assert!(matches!(put(&a, &of("k"), large.clone()).await, SetOutcome::Stored(_)));
    assert_eq!(read(&b, &of("k")).await, Some(large));
    assert!(matches!(put(&b, &of("k"), "small").await, SetOutcome::Stored(_)));
    assert_eq!(read(&a, &of("k")).await.as_deref(), Some(&b"small"[..]));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_created_where_there_are_no_names_and_outlives_a_restart() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let first = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    let hour = NamespaceSpec { ttl: Some(Duration::from_secs(3600)), ..REPLACE };
    assert_eq!(create(&a, &cache(), hour).await, NamespaceResult::Done);
    assert_eq!(create(&a, &cache(), hour).await, NamespaceResult::Unchanged);
    assert_eq!(create(&a, &cache(), REPLACE).await, NamespaceResult::Differs);
    let used = Namespace::new("used").expect("valid");
    let in_used = Name::new(&used, &Key::new("k").expect("valid"));
    put(&a, &in_used, "1").await;
    assert_eq!(create(&a, &used, REPLACE).await, NamespaceResult::NotEmpty, "what is write-once stays so");
    assert!(matches!(put(&a, &in_used, "2").await, SetOutcome::Occupied(_)));
    let id = a.node().request_id().await.expect("an id");
    let refused = a.node().create_namespace(id, Namespace::default(), REPLACE).await.expect_err("refused");
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    put(&a, &of("k"), "1").await;
    first.stop().await.expect("a clean stop");

    let second = global(&sys, dir.path(), LEASE).await;
    a.ready(SOON).await.expect("it returns");
    let all = a.node().namespaces().await.expect("answered");
    let told: Vec<_> = all.iter().map(|info| (info.namespace.as_str(), info.spec)).collect();
    assert_eq!(told, [("cache", hour), ("default", NamespaceSpec::default())]);
    let (had, hour) =
        (left(&a, &of("k")).await.expect("bound").expect("a time to live"), hour.ttl.expect("set"));
    assert!(had <= hour && had > hour / 2, "{had:?}");
    assert!(matches!(put(&a, &of("k"), "2").await, SetOutcome::Stored(_)));
    assert_eq!(drop_it(&a, &cache()).await, NamespaceResult::NotEmpty);
    assert_eq!(step(&a, Step::Delete { name: of("k") }).await.result, StepResult::Done);
    assert_eq!(drop_it(&a, &cache()).await, NamespaceResult::Done);
    assert_eq!(drop_it(&a, &cache()).await, NamespaceResult::NotFound);
    put(&a, &of("k"), "1").await;
    assert!(matches!(put(&a, &of("k"), "2").await, SetOutcome::Occupied(_)), "as one that nobody created");
    a.stop().await;
    second.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_transaction_sees_what_those_before_it_did_and_fails_alone() {
    use StepResult::{Done, NotFound, NotInteger, NotMet, Occupied, OutOfRange, WriteOnce};
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    let append = |name: &Name, bytes: &'static str| Step::Append { name: name.clone(), bytes: bytes.into() };
    let done = steps(
        &a,
        vec![
            set(&of("s"), "text", When::Absent, Expiry::Clear),
            set(&of("s"), "other", When::Absent, Expiry::Clear),
            set(&of("gone"), "x", When::Present, Expiry::Clear),
            add(&of("s"), 1),
            add(&of("n"), 5),
            add(&of("n"), -7),
            append(&of("n"), "0"),
            add(&of("n"), 1),
            set(&of("max"), &i64::MAX.to_string(), When::Always, Expiry::Clear),
            add(&of("max"), 1),
            Step::Get { name: of("n") },
            Step::Copy { from: of("s"), to: of("copy"), replace: false },
            Step::Copy { from: of("s"), to: of("n"), replace: false },
            Step::Copy { from: of("n"), to: of("copy"), replace: true },
            Step::Rename { from: of("s"), to: of("n"), only_absent: true },
            Step::Rename { from: of("s"), to: of("n"), only_absent: false },
            Step::Rename { from: of("s"), to: of("x"), only_absent: false },
            Step::Delete { name: of("s") },
            Step::Delete { name: of("max") },
            add(&name("w"), 1),
            set(&name("w"), "1", When::Always, Expiry::Clear),
            set(&name("w"), "2", When::Always, Expiry::Clear),
            append(&name("w"), "1"),
        ],
    )
    .await;
    let results: Vec<StepResult> = done.iter().map(|step| step.result).collect();
    let expected = [
        Done, NotMet, NotMet, NotInteger, Done, Done, Done, Done, Done, OutOfRange, Done, Done, NotMet, Done,
        NotMet, Done, NotFound, NotFound, Done, WriteOnce, Done, Occupied, WriteOnce,
    ];
    assert_eq!(results, expected);
    let numbers: Vec<i64> = done.iter().filter_map(|step| step.number).collect();
    assert_eq!(numbers, [5, -2, -19], "-2, then -20, then one more");
    for local in [&a, &b] {
        assert_eq!(read(local, &of("n")).await.as_deref(), Some(&b"text"[..]));
        assert_eq!(read(local, &of("copy")).await.as_deref(), Some(&b"-19"[..]));
        assert_eq!(read(local, &name("w")).await.as_deref(), Some(&b"1"[..]));
        for gone in ["s", "max", "gone", "x"] {
            assert_eq!(read(local, &of(gone)).await, None, "{gone}");
        }
    }
    let revisions: Vec<u64> =
        done.iter().filter_map(|step| step.entry.clone()).map(|entry| entry.bind_rev.0).collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "one revision: {revisions:?}");
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_guard_fails_does_nothing_and_a_repeated_one_is_done_once() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    let SetOutcome::Stored(first) = put(&a, &of("k"), "1").await else { panic!("stored") };
    let guarded = |bind_rev| {
        let steps = vec![add(&of("k"), 1), add(&of("other"), 1)];
        Transaction::guarded(vec![Guard { name: of("k"), bind_rev }], steps)
    };
    assert_eq!(apply(&b, guarded(None)).await.decision, Decision::Aborted(0));
    assert_eq!(read(&a, &of("other")).await, None);
    let done = apply(&b, guarded(Some(first.bind_rev))).await;
    assert!(matches!(&done.decision, Decision::Done(steps) if steps[0].number == Some(2)), "{done:?}");
    assert_eq!(read(&a, &of("k")).await.as_deref(), Some(&b"2"[..]));
    let again = apply(&a, guarded(Some(first.bind_rev))).await;
    assert_eq!(again.decision, Decision::Aborted(0), "it was bound anew");

    let id = a.node().request_id().await.expect("an id");
    let add_one = Transaction::of(add(&of("k"), 1));
    let done = a.node().apply(id, add_one.clone()).await.expect("answered");
    for node in [a.node(), b.node()] {
        assert_eq!(node.apply(id, add_one.clone()).await.expect("answered"), done, "as it was told");
    }
    assert_eq!(read(&b, &of("k")).await.as_deref(), Some(&b"3"[..]));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_whole_transaction_nothing_is_done_if_a_step_is_refused() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    put(&a, &name("once"), "1").await;
    put(&a, &of("held"), "old").await;
    let set = |name: &Name, value: &str| set(name, value, When::Always, Expiry::Clear);
    // What the first ones did is seen by the one that is refused, and undone; deletes of nothing are not refused.
    let begin =
        || vec![set(&of("held"), "new"), set(&name("free"), "1"), Step::Delete { name: name("nothing") }];
    let get_nothing = || Step::Get { name: name("nothing") };
    let rename = Step::Rename { from: name("nothing"), to: name("x"), only_absent: false };
    for (refused, result) in [
        (set(&name("once"), "2"), StepResult::Occupied),
        (set(&name("free"), "2"), StepResult::Occupied),
        (add(&of("held"), 1), StepResult::NotInteger),
        (add(&name("free"), 1), StepResult::WriteOnce),
        (rename, StepResult::NotFound),
    ] {
        let all = [begin(), vec![refused, get_nothing()]].concat();
        let revision = apply(&b, Transaction::steps(vec![get_nothing()])).await.revision;
        let done = apply(&b, Transaction::steps(all.clone()).whole()).await;
        let Decision::Refused(3, step) = &done.decision else { panic!("{result:?}: {done:?}") };
        assert_eq!((step.result, done.revision), (result, revision), "nothing was changed");
        for local in [&a, &b] {
            assert_eq!(read(local, &of("held")).await.as_deref(), Some(&b"old"[..]));
            assert_eq!(read(local, &name("free")).await, None);
            assert_eq!(read(local, &name("once")).await.as_deref(), Some(&b"1"[..]));
        }
    }
    // All of it, if none is refused; and without the word the others are done.
    let done = apply(&a, Transaction::steps([begin(), vec![get_nothing()]].concat()).whole()).await;
    assert!(matches!(&done.decision, Decision::Done(steps) if steps.len() == 4), "{done:?}");
    assert_eq!(read(&b, &of("held")).await.as_deref(), Some(&b"new"[..]));
    let done = steps(&a, vec![set(&name("once"), "2"), set(&of("held"), "newer")]).await;
    assert_eq!((done[0].result, done[1].result), (StepResult::Occupied, StepResult::Done));
    assert_eq!(read(&b, &of("held")).await.as_deref(), Some(&b"newer"[..]));
    // A name whose time is over is unbound, also if the rest is undone.
    put(&a, &name("last"), "1").await;
    let brief = Step::Expire {
        name: name("last"),
        expiry: Expiry::In(Duration::from_millis(1)),
        when: ExpireWhen::Always,
    };
    step(&a, brief).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let guard = Guard { name: name("last"), bind_rev: None };
    let over = Transaction::guarded(vec![guard], vec![set(&name("last"), "2"), set(&name("once"), "2")]);
    let done = apply(&b, over.whole()).await;
    assert!(matches!(done.decision, Decision::Refused(1, _)), "{done:?}");
    assert_eq!(read(&a, &name("last")).await, None);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_many_add_to_at_two_locals_lose_nothing() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    let adders = (0..20).map(async |i| {
        let (local, mut newest) = (if i % 2 == 0 { &a } else { &b }, i64::MIN);
        for _ in 0..20 {
            let sum = step(local, add(&of("n"), 1)).await.number.expect("a number");
            assert!(sum > newest, "it only grows: {sum} after {newest}");
            newest = sum;
            let text = read(local, &of("n")).await.expect("bound");
            let seen: i64 = String::from_utf8(text).expect("text").parse().expect("a number");
            assert!(seen >= sum, "{seen} was read after {sum} was told");
        }
    });
    join_all(adders).await;
    assert_eq!(read(&a, &of("n")).await.as_deref(), Some(&b"400"[..]));
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_too_large_to_travel_together_go_before_their_transaction() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    create(&a, &cache(), REPLACE).await;
    let value = |i: usize| vec![i as u8; if i == 0 { 2 << 20 } else { 60 << 10 }];
    let steps_of = (0..20).map(|i| {
        let value = Payload::carrying(Blob::hash(value(i)));
        Step::Set { name: of(&format!("k{i}")), value, when: When::Always, expiry: Expiry::Clear }
    });
    let done = steps(&a, steps_of.collect()).await;
    assert!(done.iter().all(|step| step.result == StepResult::Done), "{done:?}");
    for i in 0..20 {
        assert_eq!(read(&a, &of(&format!("k{i}"))).await, Some(value(i)), "{i}");
    }
    let unknown = Payload::stored(Blob::hash("nobody has it").id(), 13);
    let step = Step::Set { name: of("k"), value: unknown, when: When::Always, expiry: Expiry::Clear };
    let outcome = apply(&a, Transaction::steps(vec![add(&of("n"), 1), step])).await;
    assert_eq!(outcome.decision, Decision::NeedBlobs(vec![1]));
    assert_eq!(read(&a, &of("n")).await, None);
    a.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_not_served_after_its_time_at_any_local() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    for (key, ttl_ms) in [("short", 30), ("longer", 700)] {
        let ttl = Duration::from_millis(ttl_ms);
        let done = step(&a, set(&of(key), "v", When::Always, Expiry::In(ttl))).await;
        let end = done.entry.expect("bound").expires_at.expect("a time to live").get();
        let mut reads = 0;
        loop {
            let (begun, local) = (wall_ms(), if reads % 2 == 0 { &a } else { &b });
            let value = read(local, &of(key)).await;
            assert!(value.is_none() || begun < end, "read at {begun}, over at {end}");
            reads += 1;
            if value.is_none() {
                assert!(wall_ms() >= end, "gone before its time");
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for local in [&a, &b] {
            assert_eq!(read(local, &of(key)).await, None);
            assert!(left(local, &of(key)).await.is_none());
            let exists = local.node().exists(vec![of(key)]).await.expect("answered");
            assert_eq!(exists, [false]);
        }
        assert!(matches!(put(&b, &of(key), "again").await, SetOutcome::Stored(_)));
        assert_eq!(left(&a, &of(key)).await, Some(None), "a SET that does not say makes it live for ever");
    }
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_live_is_given_taken_and_told() {
    use ExpireWhen::{Always, Greater, Less};
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    create(&a, &cache(), REPLACE).await;
    let (k, hour, day) = (of("k"), Duration::from_secs(3600), Duration::from_secs(86_400));
    let result = async |to: &Local, expiry, when| step(to, expire(&k, expiry, when)).await.result;
    assert_eq!(result(&a, Expiry::In(hour), Always).await, StepResult::NotFound);
    put(&a, &k, "v").await;
    read(&b, &k).await;
    assert!(b.node().hit(&k).is_some());
    assert_eq!(result(&a, Expiry::In(hour), ExpireWhen::Some).await, StepResult::NotMet);
    assert_eq!(result(&a, Expiry::In(hour), Greater).await, StepResult::NotMet, "for ever is longest");
    assert_eq!(result(&a, Expiry::In(hour), Less).await, StepResult::Done);
    assert!(b.node().hit(&k).is_none(), "to shorten drains");
    let held = left(&b, &k).await.expect("bound").expect("a time to live");
    assert!(held <= hour && held > hour / 2, "{held:?}");
    read(&b, &k).await;
    assert!(b.node().hit(&k).is_some(), "what has a time to live is held too");
    assert_eq!(result(&a, Expiry::In(hour), ExpireWhen::None).await, StepResult::NotMet);
    assert_eq!(result(&a, Expiry::In(day), Greater).await, StepResult::Done);
    assert!(b.node().hit(&k).is_some(), "to lengthen drains nobody");
    let held = left(&b, &k).await.expect("bound").expect("a time to live");
    assert!(held > hour, "Global is asked what is left: {held:?}");
    put(&a, &k, "other").await;
    assert_eq!(
        read(&b, &k).await.as_deref(),
        Some(&b"other"[..]),
        "who went on holding it is told of the next"
    );
    assert_eq!(result(&a, Expiry::In(day), Always).await, StepResult::Done);
    assert_eq!(result(&b, Expiry::Clear, Always).await, StepResult::Done);
    assert_eq!(left(&a, &k).await, Some(None));
    // A SET takes the time to live away, unless it is to keep it.
    step(&a, set(&k, "w", When::Always, Expiry::In(hour))).await;
    step(&a, set(&k, "x", When::Always, Expiry::Keep)).await;
    assert!(left(&b, &k).await.expect("bound").is_some());
    step(&a, add(&of("n"), 1)).await;
    step(&a, expire(&of("n"), Expiry::In(hour), Always)).await;
    step(&a, add(&of("n"), 1)).await;
    assert!(left(&b, &of("n")).await.expect("bound").is_some(), "an addition keeps it");
    step(&a, Step::Rename { from: k.clone(), to: of("moved"), only_absent: false }).await;
    assert!(left(&b, &of("moved")).await.expect("bound").is_some(), "it moves along");
    put(&a, &of("moved"), "y").await;
    assert_eq!(left(&b, &of("moved")).await, Some(None));
    // A time that is over unbinds.
    let over = step(&a, expire(&of("moved"), Expiry::At(1), Always)).await;
    assert_eq!((over.result, over.entry), (StepResult::Done, None));
    assert_eq!(read(&b, &of("moved")).await, None);
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_whose_time_is_over_go_without_being_asked_for_and_are_not_listed() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let a = local(&sys).await;
    create(&a, &cache(), NamespaceSpec { ttl: Some(Duration::from_millis(50)), ..REPLACE }).await;
    let sets = (0..300).map(|i| set(&of(&format!("k{i}")), "v", When::Always, Expiry::Clear));
    steps(&a, sets.collect()).await;
    let hour = Expiry::In(Duration::from_secs(3600));
    step(&a, set(&of("stays"), "v", When::Always, hour)).await;
    let names = async || {
        let facts = global.store().status().await.expect("answered").facts;
        facts.iter().find(|(fact, _)| fact == "names").expect("told").1.parse::<u64>().expect("a number")
    };
    let gone = async {
        while names().await > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("in time");
    let query =
        dstore_proto::store::ListQuery { namespace: cache(), prefix: Bytes::new(), after: None, limit: 1000 };
    let listed = a.node().list(query).await.expect("answered");
    let keys: Vec<_> = listed.names.iter().map(|(key, _)| key.as_bytes().to_vec()).collect();
    assert_eq!(keys, [b"stays".to_vec()]);
    let found = a.node().get(Target::Name(of("stays")), Slice::ALL).await.expect("answered").expect("bound");
    assert!(matches!(found.from.tier, Tier::Global | Tier::Local));
    a.stop().await;
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_drains_for_its_time_to_live_only_where_the_name_then_lives_less_long() {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let (a, b) = (local(&sys).await, local(&sys).await);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let put_for = async |k: &Name, value: &'static str, ttl| {
        let id = a.node().request_id().await.expect("an id");
        let said = Attributes { content_type: None, ttl: Some(ttl) };
        let body = Body::Bytes(value.into());
        let done = a.node().set_as(id, Some(k.clone()), body, said).await.expect("answered").outcome;
        matches!(done, SetOutcome::Stored(_))
    };
    let by_step = async |k: &Name, value: &'static str, ttl| {
        step(&a, set(k, value, When::Always, Expiry::In(ttl))).await.result == StepResult::Done
    };
    for plain in [true, false] {
        let k = name(if plain { "plain" } else { "step" });
        let to = async |value, ttl| {
            if plain { put_for(&k, value, ttl).await } else { by_step(&k, value, ttl).await }
        };
        assert!(put_for(&k, "v", hour).await);
        read(&b, &k).await;
        assert!(to("v", day).await);
        assert!(b.node().hit(&k).is_some(), "to lengthen drains nobody: {plain}");
        assert!(left(&b, &k).await.expect("bound").expect("a time to live") > hour);
        assert!(!to("other", hour).await, "it is bound");
        assert!(b.node().hit(&k).is_some(), "nor does what is refused: {plain}");
        assert!(to("v", hour).await);
        assert!(b.node().hit(&k).is_none(), "to shorten drains: {plain}");
    }
    a.stop().await;
    b.stop().await;
    global.stop().await.expect("a clean stop");
}
