use super::*;
use crate::{EngineKind, Global, GlobalConfig};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::frame::{Hello, Resumption};
use dstore_shared::{
    Blob, Decision, Epoch, Expiry, Guard, HistoryId, Incarnation, Kind, LocalId, Namespace, NamespaceMode,
    NamespaceSpec, Payload, SetOutcome, Step, StepResult, Transaction, When,
};
use std::future::poll_fn;

#[tokio::test]
async fn what_stays_in_memory_does_not_keep_the_frame_that_it_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let authority = global.authority();
    let mut frame = vec![3; 512 << 10];
    frame[..11].copy_from_slice(b"default\0key");
    let frame = Bytes::from(frame);
    let name = Name::from_packed(frame.slice(..11)).unwrap();
    let blob = Blob::hash(frame.slice(1000..1100));
    let (hash, size) = (blob.id(), blob.size());
    for checkpointed in [false, true] {
        if checkpointed {
            authority.checkpoint().await.unwrap();
        } else {
            let (to, answer) = oneshot::channel();
            let set = Command::Set {
                name: name.clone(),
                hash,
                size,
                carried: Some(blob.clone()),
                attributes: dstore_shared::Attributes::default(),
            };
            authority.submit(authority.next_id(), set, None, Responder::Call(to, None));
            let answered = answer.await.unwrap().unwrap();
            assert!(matches!(answered.outcome, Outcome::Set(SetOutcome::Stored(_))));
        }
        let kept = authority.catalog.inline_hot(&hash).unwrap();
        assert_eq!(kept, blob.bytes());
        assert!(!frame.as_ptr_range().contains(&kept.as_ptr()), "after a checkpoint: {checkpointed}");
    }
    drop((name, blob));
    assert!(frame.is_unique(), "somebody keeps the frame");
    global.stop().await.unwrap();
}

/// What is answered and not in the journal is lost with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_among_changes_lets_none_out_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config.clone()).await.unwrap();
    let authority = global.authority().clone();
    let entries = async |authority: &Authority, round: usize| {
        let mut answers = Vec::new();
        for i in 0..300 {
            let (to, answer) = oneshot::channel();
            let (name, blob) =
                (Name::of(format!("{round} {i}")).unwrap(), Blob::hash(format!("{round} {i}")));
            let (hash, size) = (blob.id(), blob.size());
            let set = Command::Set {
                name,
                hash,
                size,
                carried: Some(blob),
                attributes: dstore_shared::Attributes::default(),
            };
            authority.submit(authority.next_id(), set, None, Responder::Call(to, None));
            authority.nudge_committer();
            answers.push(answer);
        }
        for answer in answers {
            let answered = answer.await.unwrap().unwrap();
            assert!(matches!(answered.outcome, Outcome::Set(SetOutcome::Stored(_))), "{answered:?}");
        }
    };
    for round in 0..5 {
        entries(&authority, round).await;
    }
    let head = authority.catalog.head();
    assert_eq!(head, Revision(1500));
    drop(authority);
    global.stop().await.unwrap();
    let global = Global::start(Sys::real(), config).await.unwrap();
    assert_eq!(global.authority().catalog.head(), head);
    global.stop().await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_copied_in_slices_has_every_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let config =
            GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
        Global::start(Sys::real(), config)
    };
    let global = start().await.unwrap();
    let authority = global.authority().clone();
    let change = async |authority: &Authority, id: RequestId| {
        let (to, answer) = oneshot::channel();
        let names = vec![Name::of("absent").unwrap()];
        authority.submit(
            id,
            Command::Delete { names, mode: dstore_shared::DeleteMode::Strict },
            None,
            Responder::Call(to, None),
        );
        answer.await.unwrap()
    };
    // More than two slices; without effect, so that the journal knows none of them.
    let ids: Vec<RequestId> = (0..1_300).map(|_| authority.next_id()).collect();
    let mut told = Vec::new();
    for id in &ids {
        told.push(change(&authority, *id).await.unwrap().outcome);
    }
    let unknown = authority.next_id();
    drop(authority);
    global.stop().await.unwrap();
    let global = start().await.unwrap();
    for (id, outcome) in ids.iter().zip(told) {
        assert_eq!(change(global.authority(), *id).await.unwrap().outcome, outcome, "{id:?}");
    }
    let refused = change(global.authority(), unknown).await.unwrap_err();
    assert_eq!(refused.kind(), dstore_shared::Kind::Closed, "it was never asked, and its boot is over");
    global.stop().await.unwrap();
}

#[tokio::test]
async fn a_bound_blob_whose_file_is_gone_is_corrupt_until_it_is_set_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let (store, name) = (global.store(), Name::of("k").unwrap());
    let value = Bytes::from(vec![7; 200_000]);
    let hash = dstore_shared::BlobHash::of(&value);
    let set = || store.set(global.authority().next_id(), Some(name.clone()), Body::Bytes(value.clone()));
    assert!(matches!(set().await.unwrap().outcome, SetOutcome::Stored(_)));
    let text = hash.to_string();
    let file = dir.path().join("data/blobs").join(&text[..2]).join(&text[2..]);
    #[expect(clippy::disallowed_methods, reason = "damage from outside")]
    std::fs::remove_file(file).unwrap();
    for target in [Target::Name(name.clone()), Target::Hash(hash)] {
        let e = store.get(target, Slice::ALL).await.unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.message().contains("set the value again"), "{e}");
    }
    // What is marked is not taken for there: the bytes are asked for.
    while !global.authority().catalog.blob(&hash).unwrap().unwrap().corrupt {
        tokio::task::yield_now().await;
    }
    let bound = store.bind(global.authority().next_id(), name.clone(), hash, 200_000).await.unwrap();
    assert_eq!(bound.outcome, SetOutcome::NeedBlob);
    assert!(matches!(set().await.unwrap().outcome, SetOutcome::Unchanged(_)));
    let found = store.get(Target::Name(name.clone()), Slice::ALL).await.unwrap().unwrap();
    assert_eq!(found.body.collect(1 << 20).await.unwrap(), value);
    store.delete(global.authority().next_id(), vec![name.clone()]).await.unwrap();
    assert!(store.get(Target::Name(name.clone()), Slice::ALL).await.unwrap().is_none(), "gone, not damaged");
    drop(store);
    global.stop().await.unwrap();
}

#[tokio::test]
async fn the_count_of_names_is_exact_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let config = GlobalConfig::new(dir.path().join("data"));
        Global::start(Sys::real(), config).await.unwrap()
    };
    let global = start().await;
    let (store, authority) = (global.store(), global.authority());
    let name = |i: usize| Name::of(format!("{i}")).unwrap();
    let names = || authority.catalog.counts().names;
    let set = async |i: usize, value: &'static str| {
        let blob = Body::Blob(Blob::hash(value));
        store.set(authority.next_id(), Some(name(i)), blob).await.unwrap()
    };
    for i in 0..10 {
        set(i, "v").await;
        set(i, "other").await;
    }
    authority.checkpoint().await.unwrap();
    store.delete(authority.next_id(), vec![name(1), name(2), name(77)]).await.unwrap();
    store.delete(authority.next_id(), vec![name(1)]).await.unwrap();
    assert_eq!(names(), 8);
    set(1, "again").await;
    authority.checkpoint().await.unwrap();
    set(2, "again").await;
    store.delete(authority.next_id(), vec![name(3)]).await.unwrap();
    assert_eq!(names(), 9);
    drop(store);
    global.stop().await.unwrap();
    let global = start().await;
    assert_eq!(global.authority().catalog.counts().names, 9);
    global.stop().await.unwrap();
}

#[tokio::test]
async fn values_of_calls_count_until_the_change_is_answered_whoever_waits() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let (store, authority) = (global.store(), global.authority());
    let free = || authority.in_flight.available_permits();
    let all = free();
    let set = |key: &'static str| {
        let value = Body::Blob(Blob::hash(vec![1; 60_000]));
        store.set(authority.next_id(), Some(Name::of(key).unwrap()), value)
    };
    let held = authority.admit(all * 1024 - 50_000).await;
    {
        let mut waiting = std::pin::pin!(set("waits"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(authority.counts().ops, 0, "it is not taken in before there is room");
        drop(held);
        waiting.await.unwrap();
    }
    {
        let mut gone = std::pin::pin!(set("its caller goes away"));
        assert!(futures_util::poll!(&mut gone).is_pending());
    }
    while free() < all {
        tokio::task::yield_now().await;
    }
    assert!(authority.catalog.entry(&Name::of("its caller goes away").unwrap()).unwrap().is_some());
    drop(store);
    global.stop().await.unwrap();
}

/// Not every revision is about names: what is stored without one, swept or marked as damaged has one, too.
#[tokio::test]
async fn who_has_applied_all_that_there_is_resumes_after_a_restart_whatever_came_last() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let config =
            GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
        Global::start(Sys::real(), config)
    };
    let global = start().await.unwrap();
    let hello = |last_epoch: Option<Epoch>, applied_rev| Hello {
        local_id: LocalId(1),
        incarnation: Incarnation(1),
        history: last_epoch.map_or(HistoryId::default(), |e| e.history),
        last_epoch,
        applied_rev,
        label: String::new(),
        negatives: false,
    };
    let store = global.store();
    store.set(store.next_id().unwrap(), Some(Name::of("k").unwrap()), Body::Bytes("v".into())).await.unwrap();
    store.set(store.next_id().unwrap(), None, Body::Bytes("without a name".into())).await.unwrap();
    drop(store);
    let authority = global.authority();
    let (id, mut frames) = authority.open_stream();
    let epoch = authority.event(|m, now| m.hello(now, id, &hello(None, Revision(0)))).unwrap();
    let mut through = Revision(0);
    for _ in 0..2 {
        if let Ok(Down::Lease { through: to, .. }) = poll_fn(|cx| frames.poll_take(cx)).await.unwrap() {
            through = to;
        }
    }
    authority.event(|m, now| m.bye(now, id, epoch));
    global.stop().await.unwrap();
    let global = start().await.unwrap();
    let (id, mut frames) = global.authority().open_stream();
    global.authority().event(|m, now| m.hello(now, id, &hello(Some(epoch), through))).unwrap();
    let welcome = poll_fn(|cx| frames.poll_take(cx)).await.unwrap().unwrap();
    assert!(
        matches!(welcome, Down::Welcome { resumption: Resumption::Resume, .. }),
        "{through}: {welcome:?}"
    );
    drop(frames);
    global.authority().event(|m, now| m.bye(now, id, Epoch { boot: 2, counter: 1, ..epoch }));
    global.stop().await.unwrap();
}

async fn applied(authority: &Authority, id: RequestId, transaction: Transaction) -> Result<Outcome> {
    let (to, answer) = oneshot::channel();
    authority.submit(id, Command::Apply(transaction), None, Responder::Call(to, None));
    answer.await.unwrap().map(|answered| answered.outcome)
}

fn set_step(key: &str, value: Payload, expiry: Expiry) -> Step {
    Step::Set { name: Name::of(key.to_owned()).unwrap(), value, when: When::Always, expiry }
}

#[tokio::test]
async fn a_step_cannot_give_a_blob_that_another_carries_a_false_size() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let blob = Blob::hash("value");
    let carried = set_step("a", Payload::carrying(blob.clone()), Expiry::Clear);
    for (size, first) in [(1 << 40, true), (1 << 40, false), (4, true), (0, false)] {
        let claimed = set_step("b", Payload::stored(blob.id(), size), Expiry::Clear);
        let mut steps = vec![carried.clone(), claimed];
        if !first {
            steps.reverse();
        }
        let outcome =
            applied(global.authority(), global.authority().next_id(), Transaction::steps(steps)).await;
        assert_eq!(outcome.expect_err("refused").kind(), Kind::Invalid);
    }
    let claimed = set_step("b", Payload::stored(blob.id(), 5), Expiry::Clear);
    let both = Transaction::steps(vec![claimed, carried]);
    let outcome = applied(global.authority(), global.authority().next_id(), both).await.unwrap();
    assert!(!outcome.needs_blob(), "a later step carries it");
    for key in ["a", "b"] {
        let found =
            global.store().get(Target::Name(Name::of(key).unwrap()), Slice::ALL).await.unwrap().unwrap();
        assert_eq!(
            (Some(found.entry.size), &*found.body.collect(9).await.unwrap()),
            (Some(5), b"value".as_slice())
        );
    }
    global.stop().await.unwrap();
}

/// A replace namespace, and names in it.
async fn cache(global: &Global) -> impl Fn(&str) -> Name + use<> {
    let cache = Namespace::new("cache").unwrap();
    let spec = NamespaceSpec { mode: NamespaceMode::Replace, ttl: None };
    let id = global.authority().next_id();
    global.store().create_namespace(id, cache.clone(), spec).await.unwrap();
    move |key: &str| Name::new(&cache, &dstore_shared::Key::new(key.to_owned()).unwrap())
}

fn of(name: &Name, value: Payload) -> Step {
    Step::Set { name: name.clone(), value, when: When::Always, expiry: Expiry::Clear }
}

/// Of changes that share a batch, the one before is decided and not visible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_decided_and_not_yet_visible_is_appended_and_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let (authority, of_key) = (global.authority().clone(), cache(&global).await);
    for round in 0..100 {
        let blob = Blob::hash((1_000 + round).to_string());
        let [first, second] = ["first", "second"].map(|key| of_key(&format!("{key} {round}")));
        let stored = || Payload::stored(blob.id(), blob.size());
        let sets = Transaction::of(of(&first, Payload::carrying(blob.clone())));
        let steps = vec![
            of(&second, stored()),
            Step::Add { name: second.clone(), by: 1 },
            of(&second, stored()),
            Step::Append { name: second.clone(), bytes: "0".into() },
        ];
        let changes = Transaction::steps(steps);
        let both = [sets, changes].map(|transaction| {
            let (to, answer) = oneshot::channel();
            let command = Command::Apply(transaction);
            let id = authority.next_id();
            (Asked { id, command, caller: None, responder: Responder::Call(to, None) }, answer)
        });
        let (asked, answers): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        authority.submit_all(asked);
        for answer in answers {
            let Outcome::Transaction(done) = answer.await.unwrap().unwrap().outcome else {
                panic!("applied")
            };
            let Decision::Done(steps) = &done.decision else { panic!("{round}: {done:?}") };
            assert!(steps.iter().all(|step| step.result == StepResult::Done), "{round}: {steps:?}");
        }
    }
    drop(authority);
    global.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_value_fails_the_steps_that_need_it_and_no_other_and_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config).await.unwrap();
    let (authority, of_key) = (global.authority().clone(), cache(&global).await);
    let (bad, good, blob) = (of_key("bad"), of_key("good"), Blob::hash("12"));
    let broken = Payload { carried: Some(blob.damaged()), ..Payload::stored(blob.id(), blob.size()) };
    applied(&authority, authority.next_id(), Transaction::of(of(&bad, broken))).await.unwrap();
    let steps = vec![
        of(&good, Payload::carrying(Blob::hash("5"))),
        Step::Append { name: bad.clone(), bytes: "3".into() },
        Step::Add { name: bad.clone(), by: 1 },
        Step::Add { name: good.clone(), by: 1 },
    ];
    let done = applied(&authority, authority.next_id(), Transaction::steps(steps)).await.unwrap();
    let Outcome::Transaction(done) = done else { panic!("{done:?}") };
    let Decision::Done(steps) = &done.decision else { panic!("{done:?}") };
    let results: Vec<_> = steps.iter().map(|step| step.result).collect();
    assert_eq!(results, [StepResult::Done, StepResult::Damaged, StepResult::Damaged, StepResult::Done]);
    assert_eq!(steps[3].number, Some(6));
    while !authority.catalog.blob(&blob.id()).unwrap().unwrap().corrupt {
        tokio::task::yield_now().await;
    }
    // The same bytes, whole, heal it.
    applied(&authority, authority.next_id(), Transaction::of(of(&bad, Payload::carrying(blob))))
        .await
        .unwrap();
    let append = Step::Append { name: bad.clone(), bytes: "3".into() };
    applied(&authority, authority.next_id(), Transaction::of(append)).await.unwrap();
    let found = global.store().get(Target::Name(bad), Slice::ALL).await.unwrap().unwrap();
    assert_eq!(found.body.collect(9).await.unwrap(), "123");
    drop(authority);
    global.stop().await.unwrap();
}

#[tokio::test]
async fn that_blobs_are_missing_is_no_outcome_that_a_restart_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let config = GlobalConfig { engine: EngineKind::Memory, ..GlobalConfig::new(dir.path().join("data")) };
    let global = Global::start(Sys::real(), config.clone()).await.unwrap();
    let authority = global.authority().clone();
    let (blob, short) = (Blob::hash("value"), Expiry::In(Duration::from_millis(1)));
    let brief = Transaction::of(set_step("a", Payload::carrying(Blob::hash("x")), short));
    applied(&authority, authority.next_id(), brief).await.unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let id = authority.next_id();
    // Its guard unbinds a name whose time is over, which is journaled.
    let transaction = Transaction::guarded(
        vec![Guard { name: Name::of("a").unwrap(), bind_rev: None }],
        vec![set_step("b", Payload::stored(blob.id(), blob.size()), Expiry::Clear)],
    );
    assert!(applied(&authority, id, transaction.clone()).await.unwrap().needs_blob());
    drop(authority);
    global.stop().await.unwrap();
    let global = Global::start(Sys::real(), config).await.unwrap();
    let again = applied(global.authority(), id, transaction).await;
    assert_eq!(again.expect_err("of the boot before").kind(), Kind::Closed);
    global.stop().await.unwrap();
}
