use super::*;
use dstore_shared::Error;
use dstore_shared::{
    Born, ClientId, ContentType, CopyOutcome, CopyResult, Decision, DeleteOutcome, HistoryId, Kind,
    NamespaceMode, NamespaceOutcome, NamespaceResult, NamespaceSpec, SetOutcome, StepOutcome, StepResult,
    TransactionOutcome,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Write;
use std::time::Duration;

fn name() -> impl Strategy<Value = Name> {
    vec(any::<u8>(), 1..60).prop_map(|key| Name::of(key).unwrap())
}

fn hash() -> impl Strategy<Value = BlobHash> {
    any::<[u8; 32]>().prop_map(BlobHash::from_bytes)
}

fn entry() -> impl Strategy<Value = Entry> {
    let content_type = proptest::option::of("[!-~]([ -~]{0,253}[!-~])?");
    (hash(), any::<u64>(), any::<u64>(), any::<u64>(), content_type).prop_map(
        |(hash, size, rev, end, words)| {
            let content_type = words.map(|words| ContentType::new(&words).expect("valid"));
            Entry {
                hash,
                size,
                bind_rev: Revision(rev),
                expires_at: dstore_shared::End::new(end),
                content_type,
            }
        },
    )
}

fn meta() -> impl Strategy<Value = BlobMeta> {
    (any::<u64>(), any::<u64>(), any::<bool>(), any::<Option<u64>>(), any::<bool>()).prop_map(
        |(size, refs, file, unnamed_since_ms, corrupt)| {
            let place = if file { Place::File } else { Place::Inline };
            BlobMeta { size, refs, place, unnamed_since_ms, corrupt }
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (name(), entry()).prop_map(|(name, entry)| Change::Bind { name, entry }),
        name().prop_map(|name| Change::Unbind { name }),
        (hash(), meta()).prop_map(|(hash, meta)| Change::Blob { hash, meta }),
        hash().prop_map(|hash| Change::BlobGone { hash }),
        (hash(), prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 4090..4100)])
            .prop_map(|(hash, bytes)| Change::Inline { hash, bytes: bytes.into() }),
        hash().prop_map(|hash| Change::InlineGone { hash }),
        (name(), entry()).prop_map(|(name, entry)| Change::Rebind { name, entry }),
        namespace().prop_map(Change::Namespace),
        namespace().prop_map(|info| Change::NamespaceGone { namespace: info.namespace }),
    ]
}

fn namespace() -> impl Strategy<Value = NamespaceInfo> {
    ("[a-z0-9_.-]{1,64}", any::<bool>(), any::<Option<u64>>(), any::<u64>()).prop_map(
        |(namespace, replaces, ttl_ms, created)| {
            let mode = if replaces { NamespaceMode::Replace } else { NamespaceMode::WriteOnce };
            let spec = NamespaceSpec { mode, ttl: ttl_ms.map(Duration::from_millis) };
            let namespace = Namespace::new(namespace).unwrap();
            NamespaceInfo { namespace, spec, created: Revision(created) }
        },
    )
}

fn step() -> impl Strategy<Value = StepOutcome> {
    let result = prop::sample::select(&StepResult::ALL[..]);
    (result, proptest::option::of(entry()), proptest::option::of(entry()), any::<Option<i64>>())
        .prop_map(|(result, old, entry, number)| StepOutcome { result, old, entry, number })
}

fn transaction() -> impl Strategy<Value = TransactionOutcome> {
    let decision = prop_oneof![
        vec(step(), 0..9).prop_map(Decision::Done),
        (0..1000_usize).prop_map(Decision::Aborted),
        (0..1000_usize, step()).prop_map(|(at, step)| Decision::Refused(at, step)),
        vec(0..1000_usize, 1..5).prop_map(Decision::NeedBlobs),
    ];
    (decision, any::<u64>(), any::<u64>()).prop_map(|(decision, revision, at_ms)| TransactionOutcome {
        decision,
        revision: Revision(revision),
        at_ms,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        entry().prop_map(|e| Outcome::Set(SetOutcome::Stored(e))),
        entry().prop_map(|e| Outcome::Set(SetOutcome::Unchanged(e))),
        entry().prop_map(|e| Outcome::Set(SetOutcome::Occupied(e))),
        Just(Outcome::Set(SetOutcome::NeedBlob)),
        (vec(any::<bool>(), 0..40), any::<u64>()).prop_map(|(removed, revision)| {
            Outcome::Delete(DeleteOutcome { removed, revision: Revision(revision) })
        }),
        copied().prop_map(Outcome::Copy),
        copied().prop_map(Outcome::Rename),
        any::<(u64, u64)>().prop_map(|(removed, revision)| {
            Outcome::DeletePrefix(dstore_shared::PrefixOutcome { removed, revision: Revision(revision) })
        }),
        transaction().prop_map(|done| Outcome::Transaction(done.into())),
        (prop::sample::select(&NamespaceResult::ALL[..]), any::<u64>()).prop_map(|(result, revision)| {
            Outcome::Namespace(NamespaceOutcome { result, revision: Revision(revision) })
        }),
    ]
}

fn copied() -> impl Strategy<Value = CopyOutcome> {
    let result = prop_oneof![
        entry().prop_map(CopyResult::Done),
        entry().prop_map(CopyResult::Unchanged),
        entry().prop_map(CopyResult::Occupied),
        Just(CopyResult::NotFound),
    ];
    (result, any::<u64>()).prop_map(|(result, revision)| CopyOutcome { result, revision: Revision(revision) })
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (any::<u128>(), any::<u64>(), any::<u128>(), any::<u64>(), any::<u64>()).prop_map(
        |(client, n, history, boot, at_ms)| {
            let born = Born { history: HistoryId(history), boot, at_ms };
            RequestId { client: ClientId(client), n, born }
        },
    )
}

fn commit() -> impl Strategy<Value = Commit> {
    let outcome = proptest::option::of((request_id(), outcome()));
    (any::<u64>(), any::<u64>(), outcome, vec(change(), 0..6)).prop_map(
        |(revision, at_ms, outcome, changes)| Commit {
            revision: Revision(revision),
            at_ms,
            outcome,
            changes,
        },
    )
}

fn bytes_of(commits: &[Commit]) -> Vec<u8> {
    let mut payload = Payload::new();
    for commit in commits {
        payload.push(commit);
    }
    let bytes = payload.slices().concat();
    assert_eq!(bytes.len(), payload.len());
    bytes
}

proptest! {
    #[test]
    fn commits_read_back_as_they_were_written(commits in vec(commit(), 0..5)) {
        let bytes = bytes_of(&commits);
        prop_assert_eq!(bytes.len(), commits.iter().map(Commit::encoded_len).sum::<usize>());
        let read: Vec<Commit> = Commits::of(bytes.into()).collect::<Result<_, _>>().expect("valid");
        prop_assert_eq!(read, commits);
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(
        commit in commit(), at in any::<prop::sample::Index>(), with in any::<[u8; 4]>()
    ) {
        let mut bytes = bytes_of(std::slice::from_ref(&commit));
        let at = at.index(bytes.len());
        for (b, w) in bytes[at..].iter_mut().zip(with) {
            *b = w;
        }
        for read in Commits::of(bytes.into()) {
            if let Err(e) = read {
                prop_assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{e}");
            }
        }
    }

    #[test]
    fn cut_bytes_are_never_a_commit(commit in commit(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(std::slice::from_ref(&commit));
        let cut = at.index(bytes.len());
        let mut commits = Commits::of(Bytes::from(bytes).slice(..cut));
        match commits.next() {
            None => prop_assert_eq!(cut, 0),
            Some(read) => prop_assert_eq!(read.expect_err("cut").kind(), Kind::Corrupt),
        }
        prop_assert!(commits.next().is_none());
    }
}

/// Every field of the format in one commit. If this test fails, the format has changed: raise its version.
#[test]
fn the_bytes_of_a_commit_are_those_of_version_1() {
    let hash = BlobHash::from_bytes([0xaa; 32]);
    let entry = Entry {
        hash,
        size: 5,
        bind_rev: Revision(7),
        expires_at: dstore_shared::End::new(9),
        content_type: None,
    };
    let id = RequestId { client: ClientId(1), n: 2, born: Born { history: HistoryId(3), boot: 4, at_ms: 5 } };
    let removed = vec![true, false, false, false, false, false, false, false, true];
    let meta = BlobMeta { size: 5, refs: 1, place: Place::File, unnamed_since_ms: Some(6), corrupt: true };
    let commit = Commit {
        revision: Revision(7),
        at_ms: 8,
        outcome: Some((id, Outcome::Delete(DeleteOutcome { removed, revision: Revision(7) }))),
        changes: vec![
            Change::Bind { name: Name::of("k").unwrap(), entry },
            Change::Unbind { name: Name::of("k").unwrap() },
            Change::Blob { hash, meta },
            Change::BlobGone { hash },
            Change::Inline { hash, bytes: "hello".into() },
            Change::InlineGone { hash },
        ],
    };
    let aa = "aa".repeat(32);
    let golden = [
        "6c010000 01 01 0700000000000000 0800000000000000",
        "01000000000000000000000000000000 0200000000000000",
        "03000000000000000000000000000000 0400000000000000 0500000000000000",
        "0f000000 05 0700000000000000 09000000 0101",
        "06000000",
        "01 44000000 0900 64656661756c74006b",
        &format!("01 {aa} 0500000000000000 0700000000000000 0900000000000000"),
        "02 0b000000 0900 64656661756c74006b",
        &format!("03 39000000 {aa} 07 0500000000000000 0100000000000000 0600000000000000"),
        &format!("04 20000000 {aa}"),
        &format!("05 25000000 {aa} 68656c6c6f"),
        &format!("06 20000000 {aa}"),
    ]
    .concat()
    .replace(' ', "");
    let mut hex = String::new();
    for byte in bytes_of(&[commit]) {
        write!(hex, "{byte:02x}").unwrap();
    }
    assert_eq!(hex, golden);
}

/// The outcomes that came after the first version: an older dstore refuses them by their kind.
#[test]
fn the_bytes_of_a_copy_and_of_a_rename_are_these() {
    let hash = BlobHash::from_bytes([0xaa; 32]);
    let entry = Entry { hash, size: 5, bind_rev: Revision(7), expires_at: None, content_type: None };
    let aa = "aa".repeat(32);
    let held = format!("00 {aa} 0500000000000000 0700000000000000");
    let of = |result| CopyOutcome { result, revision: Revision(9) };
    let table = [
        (Outcome::Copy(of(CopyResult::Done(entry.clone()))), format!("06 0900000000000000 01 {held}")),
        (Outcome::Copy(of(CopyResult::Unchanged(entry.clone()))), format!("06 0900000000000000 02 {held}")),
        (Outcome::Rename(of(CopyResult::Occupied(entry))), format!("07 0900000000000000 03 {held}")),
        (Outcome::Rename(of(CopyResult::NotFound)), "07 0900000000000000 04".to_owned()),
    ];
    for (outcome, golden) in table {
        let mut bytes = Vec::new();
        put_outcome(&mut bytes, &outcome);
        let mut hex = String::new();
        bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        assert_eq!(hex, golden.replace(' ', ""), "{outcome:?}");
        assert_eq!(read_outcome(&mut Reader::new(bytes.into())).unwrap(), outcome);
    }
    let newer = Bytes::from_static(&[6, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let error = Error::from(read_outcome(&mut Reader::new(newer)).expect_err("newer"));
    assert!(error.kind() == Kind::Invalid && error.message().contains("result of a copy"), "{error}");
}

/// The changes and outcomes that came with namespaces and transactions: an older dstore refuses them by their kind.
#[test]
fn the_bytes_of_namespaces_and_transactions_are_these() {
    let hash = BlobHash::from_bytes([0xaa; 32]);
    let entry = |end: Option<u64>| Entry {
        expires_at: end.and_then(dstore_shared::End::new),
        ..Entry::new(hash, 5, Revision(7))
    };
    let aa = "aa".repeat(32);
    let (held, timed) = (
        format!("00 {aa} 0500000000000000 0700000000000000"),
        format!("01 {aa} 0500000000000000 0700000000000000 0900000000000000"),
    );
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    };
    let info = |mode, ttl_ms: Option<u64>| NamespaceInfo {
        namespace: Namespace::new("cache").unwrap(),
        spec: NamespaceSpec { mode, ttl: ttl_ms.map(Duration::from_millis) },
        created: Revision(3),
    };
    let changes = vec![
        Change::Rebind { name: Name::of("k").unwrap(), entry: entry(Some(9)) },
        Change::Namespace(info(NamespaceMode::Replace, Some(60_000))),
        Change::Namespace(info(NamespaceMode::WriteOnce, None)),
        Change::NamespaceGone { namespace: Namespace::new("cache").unwrap() },
    ];
    let commit = Commit { revision: Revision(7), at_ms: 8, outcome: None, changes };
    let golden = [
        "9d000000 01 00 0700000000000000 0800000000000000 04000000",
        &format!("07 44000000 0900 64656661756c74006b {timed}"),
        "08 18000000 0500 6361636865 03 0300000000000000 60ea000000000000",
        "08 10000000 0500 6361636865 00 0300000000000000",
        "09 07000000 0500 6361636865",
    ];
    assert_eq!(hex(&bytes_of(&[commit])), golden.concat().replace(' ', ""));

    let of = |decision| {
        Outcome::Transaction(TransactionOutcome { decision, revision: Revision(7), at_ms: 8 }.into())
    };
    let step = |result, old, entry, number| StepOutcome { result, old, entry, number };
    let steps = vec![
        step(StepResult::Done, Some(entry(None)), Some(entry(Some(9))), Some(-2)),
        step(StepResult::WriteOnce, None, None, None),
    ];
    let created = NamespaceOutcome { result: NamespaceResult::NotEmpty, revision: Revision(7) };
    let head = "09 0700000000000000 0800000000000000";
    let table = [
        (
            of(Decision::Done(steps)),
            format!("{head} 01 02000000 01 07 {held} {timed} feffffffffffffff 09 00"),
        ),
        (of(Decision::Aborted(1)), format!("{head} 02 01000000")),
        (
            of(Decision::Refused(1, step(StepResult::NotInteger, None, None, None))),
            format!("{head} 04 01000000 0600"),
        ),
        (of(Decision::NeedBlobs(vec![0, 2])), format!("{head} 03 02000000 00000000 02000000")),
        (Outcome::Namespace(created), "0a 0700000000000000 04".to_owned()),
    ];
    for (outcome, golden) in table {
        let mut bytes = Vec::new();
        put_outcome(&mut bytes, &outcome);
        assert_eq!(hex(&bytes), golden.replace(' ', ""), "{outcome:?}");
        assert_eq!(values::outcome_len(&outcome), bytes.len(), "{outcome:?}");
        assert_eq!(read_outcome(&mut Reader::new(bytes.into())).unwrap(), outcome);
    }
    let newer = Bytes::from_static(&[10, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let error = Error::from(read_outcome(&mut Reader::new(newer)).expect_err("newer"));
    assert!(error.kind() == Kind::Invalid && error.message().contains("about a namespace"), "{error}");
}

/// What came with content types: an older dstore refuses such an entry by its flags.
#[test]
fn the_bytes_of_an_entry_with_a_content_type_are_these() {
    let content_type = Some(ContentType::new("text/css").expect("valid"));
    let entry = Entry { content_type, ..Entry::new(BlobHash::from_bytes([0xaa; 32]), 5, Revision(7)) };
    let timed = Entry { expires_at: dstore_shared::End::new(9), ..entry.clone() };
    let (aa, words) = ("aa".repeat(32), "08 746578742f637373");
    let held = format!("{aa} 0500000000000000 0700000000000000");
    for (entry, golden) in
        [(entry, format!("04 {held} {words}")), (timed, format!("05 {held} 0900000000000000 {words}"))]
    {
        let bytes = encode_entry(&entry);
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        assert_eq!(hex, golden.replace(' ', ""), "{entry:?}");
        assert_eq!(decode_entry(bytes).expect("its own"), entry);
    }
    let good = encode_entry(&Entry::new(BlobHash::from_bytes([0xaa; 32]), 5, Revision(7)));
    for (flags, rest, kind) in [
        (4, &b"\x00"[..], Kind::Corrupt),
        (4, b"\x02a\n", Kind::Corrupt),
        (4, b"\x03ab", Kind::Corrupt),
        (1, &[0; 8], Kind::Corrupt),
        (2, b"", Kind::Invalid),
    ] {
        let mut bad = good.to_vec();
        bad[0] = flags;
        bad.extend_from_slice(rest);
        assert_eq!(decode_entry(bad.into()).expect_err("damaged").kind(), kind, "{flags} {rest:?}");
    }
}

#[test]
fn what_a_newer_dstore_wrote_is_refused_by_name() {
    let commit = Commit { revision: Revision(1), at_ms: 2, outcome: None, changes: vec![] };
    let bytes = bytes_of(&[commit]);
    for (at, what) in [(4, "version"), (5, "flags")] {
        let mut newer = bytes.clone();
        newer[at] = 0x80;
        let error = Commits::of(newer.into()).next().unwrap().expect_err("newer");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().contains(what) && error.message().contains("newer dstore"), "{error}");
    }
}

#[test]
fn a_hostile_count_reserves_no_memory() {
    let commit = Commit { revision: Revision(1), at_ms: 2, outcome: None, changes: vec![] };
    let mut bytes = bytes_of(&[commit]);
    let n = bytes.len();
    bytes[n - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Commits::of(bytes.into()).next().unwrap().expect_err("hostile").kind(), Kind::Corrupt);
}

#[test]
fn large_values_are_handed_over_in_place() {
    let bytes = Bytes::from(vec![1; 64 << 10]);
    let hash = BlobHash::of(&bytes);
    let changes = vec![Change::Inline { hash, bytes: bytes.clone() }, Change::InlineGone { hash }];
    let mut payload = Payload::new();
    payload.push(&Commit { revision: Revision(1), at_ms: 0, outcome: None, changes });
    assert!(payload.slices().iter().any(|s| s.as_ptr() == bytes.as_ptr() && s.len() == bytes.len()));
    assert!(
        payload.slices().iter().filter(|s| s.as_ptr() != bytes.as_ptr()).map(|s| s.len()).sum::<usize>()
            < 200
    );
    payload.clear();
    assert!(payload.is_empty() && payload.slices().concat().is_empty());
}

#[test]
fn the_outcome_of_a_delete_by_prefix_is_as_docs_storage_says() {
    let mut bytes = Vec::new();
    let outcome =
        Outcome::DeletePrefix(dstore_shared::PrefixOutcome { removed: 0x0102, revision: Revision(7) });
    put_outcome(&mut bytes, &outcome);
    assert_eq!(bytes, [8, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(values::outcome_len(&outcome), bytes.len());
}
