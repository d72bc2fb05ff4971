//! Round trips of every frame, and hostile bytes.

use super::*;
use crate::codec::read;
use crate::shape::Shaped;
use crate::store::{self, ListQuery, Listing, Provenance, SetReply, Slice, Stat, Target, Tier};
use dstore_shared::frame::{Answer, Ask, Down, Hello, Listed, Reply, Request, Resolved, Resumption, Up};
use dstore_shared::{
    Command, CopyOutcome, CopyResult, Decision, DeleteMode, DeleteOutcome, ExpireWhen, Expiry, FlightId,
    Guard, Incarnation, Key, Kind, LocalId, Namespace, Outcome, Payload, Prefix, PrefixOutcome, RegSeq,
    SetOutcome, Step, StepOutcome, StepResult, Transaction, TransactionOutcome, When,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use std::fmt::Debug;

fn name() -> impl Strategy<Value = Name> {
    let namespace = vec(prop::sample::select(&b"abz09_-."[..]), 1..=64);
    (namespace, vec(any::<u8>(), 1..=1024)).prop_map(|(namespace, key)| {
        let namespace = Namespace::new(namespace).expect("valid");
        Name::new(&namespace, &Key::new(key).expect("valid"))
    })
}

fn hash() -> impl Strategy<Value = BlobHash> {
    any::<[u8; 32]>().prop_map(BlobHash::from_bytes)
}

fn blob() -> impl Strategy<Value = Blob> {
    vec(any::<u8>(), 0..300).prop_map(Blob::hash)
}

fn born() -> impl Strategy<Value = Born> {
    any::<(u128, u64, u64)>().prop_map(|(h, boot, at_ms)| Born { history: HistoryId(h), boot, at_ms })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u128>(), any::<u64>(), 1..=u64::MAX).prop_map(|(h, boot, counter)| Epoch {
        history: HistoryId(h),
        boot,
        counter,
    })
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (any::<u128>(), 1..=u64::MAX, born()).prop_map(|(c, n, born)| RequestId { client: ClientId(c), n, born })
}

fn entry() -> impl Strategy<Value = Entry> {
    (hash(), any::<u64>(), any::<u64>(), any::<u64>(), content_type()).prop_map(
        |(hash, size, rev, end, content_type)| {
            let expires_at = dstore_shared::End::new(end);
            Entry { hash, size, bind_rev: Revision(rev), expires_at, content_type }
        },
    )
}

fn content_type() -> impl Strategy<Value = Option<ContentType>> {
    option::of("[!-~]([ -~]{0,253}[!-~])?".prop_map(|words| ContentType::new(&words).expect("valid")))
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (content_type(), option::of(1..1_000_000_u64))
        .prop_map(|(content_type, ms)| Attributes { content_type, ttl: ms.map(Duration::from_millis) })
}

fn error() -> impl Strategy<Value = Error> {
    let kind = prop::sample::select(&Kind::ALL[1..]);
    (kind, "[ -~]{0,80}", option::of(1..3_600_000_u64), hash()).prop_map(|(kind, text, ms, hash)| {
        let error = if text.is_empty() { Error::occupied(hash) } else { Error::new(kind, text) };
        ms.map_or(error.clone(), |ms| error.retry_after(Duration::from_millis(ms)))
    })
}

fn lease() -> impl Strategy<Value = Duration> {
    (0..=3_600_000_000_u64).prop_map(Duration::from_micros)
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<(u128, u64, u128, u64, bool)>(), option::of(epoch()), "[a-z é]{0,60}").prop_map(
        |((local, incarnation, history, rev, negatives), last_epoch, label)| Hello {
            local_id: LocalId(local),
            incarnation: Incarnation(incarnation),
            last_epoch,
            history: HistoryId(history),
            applied_rev: Revision(rev),
            label,
            negatives,
        },
    )
}

fn up() -> impl Strategy<Value = Up> {
    let listed = (name(), any::<u64>(), any::<u64>()).prop_map(|(name, rev, seq)| Listed {
        name,
        bind_rev: Revision(rev),
        reg_seq: RegSeq(seq),
    });
    let dropped = (name(), any::<u64>()).prop_map(|(name, seq)| (name, RegSeq(seq)));
    prop_oneof![
        hello().prop_map(Up::Hello),
        (epoch(), any::<u64>(), any::<u64>()).prop_map(|(epoch, n, acked)| Up::Keep { epoch, n, acked }),
        (epoch(), any::<u64>()).prop_map(|(epoch, seq)| Up::Ack { epoch, seq }),
        (epoch(), any::<u64>(), vec(listed, 0..5), any::<bool>())
            .prop_map(|(epoch, batch, names, last)| Up::Summary { epoch, batch, names, last }),
        (epoch(), vec(dropped, 0..5)).prop_map(|(epoch, names)| Up::Drop { epoch, names }),
        epoch().prop_map(|epoch| Up::Bye { epoch }),
    ]
}

fn down() -> impl Strategy<Value = Down> {
    use Resumption::{Compacted, NewHistory, Resume};
    let resumption = prop::sample::select(&[Resume, Compacted, NewHistory][..]);
    prop_oneof![
        (epoch(), any::<u64>(), resumption, lease(), born(), any::<bool>()).prop_map(
            |(epoch, head, resumption, lease, born, list)| {
                let loss = list.then(|| Duration::from_millis(head % 10_000 + 1));
                Down::Welcome { epoch, head: Revision(head), resumption, lease, born, list, loss }
            }
        ),
        (epoch(), any::<u64>(), any::<u64>()).prop_map(|(epoch, seq, upto)| Down::Resync {
            epoch,
            seq,
            upto: Revision(upto)
        }),
        (epoch(), any::<u64>(), name(), any::<u64>()).prop_map(|(epoch, seq, name, upto)| Down::Inv {
            epoch,
            seq,
            name,
            upto: Revision(upto)
        }),
        (epoch(), any::<(u64, u64)>(), prefix()).prop_map(|(epoch, (seq, upto), prefix)| Down::InvPrefix {
            epoch,
            seq,
            prefix,
            upto: Revision(upto)
        }),
        (epoch(), any::<u64>(), lease(), any::<u64>(), born()).prop_map(
            |(epoch, n, lease, through, born)| Down::Lease {
                epoch,
                n,
                lease,
                through: Revision(through),
                born
            }
        ),
        (epoch(), any::<u64>(), vec(any::<u32>(), 0..9))
            .prop_map(|(epoch, batch, refused)| Down::Summarized { epoch, batch, refused }),
        epoch().prop_map(|epoch| Down::Retire { epoch }),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (name(), vec(any::<u8>(), 0..20))
        .prop_map(|(name, bytes)| Prefix::new(&name.namespace(), &bytes).expect("short"))
}

fn ask() -> impl Strategy<Value = Ask> {
    let set = (name(), blob(), any::<bool>(), attributes()).prop_map(|(name, blob, carry, attributes)| {
        Command::Set { name, hash: blob.id(), size: blob.size(), carried: carry.then_some(blob), attributes }
    });
    let mode = prop_oneof![
        Just(DeleteMode::Strict),
        (0..20_000_u64).prop_map(|ms| DeleteMode::Deadline(Duration::from_millis(ms))),
        Just(DeleteMode::Async),
    ];
    let delete = (vec(name(), 1..5), mode).prop_map(|(names, mode)| Command::Delete { names, mode });
    let moved = (name(), name(), any::<bool>()).prop_map(|(from, to, unbinds)| {
        if unbinds { Command::Rename { from, to } } else { Command::Copy { from, to } }
    });
    prop_oneof![
        (name(), option::of(hash()), any::<bool>(), any::<bool>())
            .prop_map(|(name, have, cache, carry)| Ask::Resolve { name, have, cache, carry }),
        (vec(name(), 1..5), any::<bool>(), any::<bool>())
            .prop_map(|(names, cache, carry)| Ask::ResolveMany { names, cache, carry }),
        (
            request_id(),
            prop_oneof![
                set,
                delete,
                moved,
                prefix().prop_map(|prefix| Command::DeletePrefix { prefix }),
                transaction().prop_map(Command::Apply)
            ]
        )
            .prop_map(|(id, command)| Ask::Change { id, command }),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Clear),
        any::<u64>().prop_map(Expiry::At),
        (1..1_000_000_u64).prop_map(|ms| Expiry::In(Duration::from_millis(ms))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let when = prop::sample::select(&[When::Always, When::Absent, When::Present][..]);
    let whens =
        [ExpireWhen::Always, ExpireWhen::None, ExpireWhen::Some, ExpireWhen::Greater, ExpireWhen::Less];
    let payload = (blob(), any::<bool>(), content_type()).prop_map(|(blob, carry, content_type)| Payload {
        hash: blob.id(),
        size: blob.size(),
        carried: carry.then_some(blob),
        content_type,
    });
    let set_expiry = prop_oneof![expiry(), Just(Expiry::Keep)];
    prop_oneof![
        name().prop_map(|name| Step::Get { name }),
        (name(), payload, when, set_expiry).prop_map(|(name, value, when, expiry)| Step::Set {
            name,
            value,
            when,
            expiry
        }),
        name().prop_map(|name| Step::Delete { name }),
        (name(), expiry(), prop::sample::select(whens.to_vec()))
            .prop_map(|(name, expiry, when)| Step::Expire { name, expiry, when }),
        (name(), any::<i64>()).prop_map(|(name, by)| Step::Add { name, by }),
        (name(), vec(any::<u8>(), 0..50))
            .prop_map(|(name, bytes)| Step::Append { name, bytes: bytes.into() }),
        (name(), name(), any::<bool>()).prop_map(|(from, to, replace)| Step::Copy { from, to, replace }),
        (name(), name(), any::<bool>()).prop_map(|(from, to, only_absent)| Step::Rename {
            from,
            to,
            only_absent
        }),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let guard = (name(), option::of(1..=u64::MAX))
        .prop_map(|(name, rev)| Guard { name, bind_rev: rev.map(Revision) });
    (vec(guard, 0..3), vec(step(), 0..6), any::<bool>()).prop_map(|(guards, steps, whole)| Transaction {
        guards,
        steps,
        whole,
    })
}

fn applied() -> impl Strategy<Value = TransactionOutcome> {
    let result = prop::sample::select(&StepResult::ALL[..]);
    let done = || {
        (result.clone(), option::of(entry()), option::of(entry()), any::<Option<i64>>())
            .prop_map(|(result, old, entry, number)| StepOutcome { result, old, entry, number })
    };
    let decision = prop_oneof![
        (0..1000_usize, done()).prop_map(|(at, step)| Decision::Refused(at, step)),
        vec(done(), 0..6).prop_map(Decision::Done),
        (0..1000_usize).prop_map(Decision::Aborted),
        vec(0..1000_usize, 1..4).prop_map(Decision::NeedBlobs),
    ];
    (decision, any::<(u64, u64)>()).prop_map(|(decision, (rev, at_ms))| TransactionOutcome {
        decision,
        revision: Revision(rev),
        at_ms,
    })
}

fn request() -> impl Strategy<Value = Request> {
    (any::<(u64, u64)>(), prop_oneof![Just(Epoch::default()), epoch()], ask()).prop_map(
        |((flight, reg_seq), epoch, ask)| Request {
            flight: FlightId(flight),
            epoch,
            reg_seq: RegSeq(reg_seq),
            ask,
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        resolved().prop_map(Answer::Resolved),
        vec(resolved(), 0..4).prop_map(Answer::ResolvedMany),
        changed(),
        error().prop_map(Answer::Failed),
    ]
}

fn resolved() -> impl Strategy<Value = Resolved> {
    (option::of(entry()), option::of(blob()), option::of(epoch()), any::<u64>()).prop_map(
        |(entry, carried, cacheable, head)| {
            let fit = |entry: Entry, blob: &Blob| Entry { hash: blob.id(), size: blob.size(), ..entry };
            let entry = entry.map(|e| carried.as_ref().map_or(e.clone(), |blob| fit(e, blob)));
            let carried = carried.filter(|_| entry.is_some());
            Resolved { entry, carried, cacheable, head: Revision(head) }
        },
    )
}

fn copied() -> impl Strategy<Value = CopyOutcome> {
    let result = prop_oneof![
        entry().prop_map(CopyResult::Done),
        entry().prop_map(CopyResult::Unchanged),
        entry().prop_map(CopyResult::Occupied),
        Just(CopyResult::NotFound),
    ];
    (result, any::<u64>()).prop_map(|(result, rev)| CopyOutcome { result, revision: Revision(rev) })
}

fn changed() -> impl Strategy<Value = Answer> {
    let set = prop_oneof![
        entry().prop_map(SetOutcome::Stored),
        entry().prop_map(SetOutcome::Unchanged),
        entry().prop_map(SetOutcome::Occupied),
        Just(SetOutcome::NeedBlob),
    ];
    let delete = (vec(any::<bool>(), 0..9), any::<u64>())
        .prop_map(|(removed, rev)| DeleteOutcome { removed, revision: Revision(rev) });
    prop_oneof![
        applied().prop_map(|done| Answer::Changed {
            outcome: Outcome::Transaction(done.into()),
            cacheable: None,
            stale: None
        }),
        copied().prop_map(|c| Answer::Changed { outcome: Outcome::Copy(c), cacheable: None, stale: None }),
        copied().prop_map(|c| Answer::Changed { outcome: Outcome::Rename(c), cacheable: None, stale: None }),
        (set, option::of(epoch())).prop_map(|(outcome, cacheable)| Answer::Changed {
            outcome: Outcome::Set(outcome),
            cacheable,
            stale: None
        }),
        (delete, option::of(1..99_999_u64)).prop_map(|(outcome, stale)| Answer::Changed {
            outcome: Outcome::Delete(outcome),
            cacheable: None,
            stale: stale.map(Duration::from_millis),
        }),
        any::<(u64, u64)>().prop_map(|(removed, revision)| {
            let outcome = PrefixOutcome { removed, revision: Revision(revision) };
            Answer::Changed { outcome: Outcome::DeletePrefix(outcome), cacheable: None, stale: None }
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    (any::<u64>(), answer(), born()).prop_map(|(flight, answer, born)| Reply {
        journal_ms: flight / 2,
        flight: FlightId(flight),
        answer,
        born,
    })
}

/// Writes, reads and writes again: text and bytes must be the same.
fn round_trip<T: Debug, W: Shaped + PartialEq>(
    value: T,
    write: impl Fn(T) -> W,
    from: impl Fn(W) -> Result<T>,
) {
    let text = format!("{value:?}");
    let bytes = write(value).encode_to_vec();
    let back = from(read::<W>(&mut &bytes[..]).expect("readable")).expect("valid");
    assert_eq!(format!("{back:?}"), text);
    assert_eq!(write(back).encode_to_vec(), bytes);
}

proptest! {
    #[test]
    fn a_session_frame_reads_back_as_it_was(up in up(), down in down()) {
        round_trip(up, up_to, up_from);
        round_trip(down, down_to, down_from);
    }

    #[test]
    fn a_batch_reads_back_as_it_was(requests in vec(request(), 0..6), replies in vec(reply(), 0..6)) {
        round_trip(requests, |r| pack_requests(r).expect("small"), read_requests);
        round_trip(replies, |r| pack_replies(r).expect("small"), read_replies);
    }

    #[test]
    fn what_a_door_says_reads_back_as_it_was(
        names in vec(name(), 1..5), entry in entry(), tier in any::<bool>(), cached in any::<bool>(),
        rev in any::<u64>(), born in option::of(born()), id in request_id(), by_hash in any::<bool>(),
    ) {
        let tier = if tier { Tier::Local } else { Tier::Global };
        let from = Provenance::new(tier, cached, Revision(rev));
        for outcome in [SetOutcome::Stored(entry.clone()), SetOutcome::Unchanged(entry.clone()), SetOutcome::Occupied(entry.clone())] {
            round_trip(SetReply { outcome, from }, |r| wire::SetResponse::from(&r), SetReply::try_from);
        }
        let stat = |s: Option<Stat>| s.as_ref().map(wire::StatResponse::from).unwrap_or_default();
        round_trip(Some(Stat { entry: entry.clone(), from }), stat, TryInto::try_into);
        round_trip(None, stat, TryInto::try_into);
        let status = store::Status {
            tier, version: "0.1.0".into(), serving: cached, born, revision: Revision(rev),
            lease: Duration::from_millis(rev), facts: vec![("a".into(), "b".into())],
        };
        round_trip(status, wire::StatusResponse::from, store::Status::try_from);
        let target = if by_hash { Target::Hash(entry.hash) } else { Target::Name(names[0].clone()) };
        let target_wire = |t| wire::StatRequest { target: Some(target_to(&t)), ..wire::StatRequest::default() };
        round_trip(target, target_wire, |w| target_from(w.target));
        let delete = |(id, names): (RequestId, Vec<Name>)| wire::DeleteRequest {
            id: Some(Packer::new(0).request_id(&id)), names: names_to(&names),
            ..wire::DeleteRequest::default()
        };
        round_trip((id, names), delete, |w| Ok((need(w.id, "id")?.try_into()?, names_from(w.names)?)));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_frames_are_read_or_refused(
        up in up(), down in down(), requests in vec(request(), 1..4), replies in vec(reply(), 1..4),
        at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        for whole in [
            up_to(up).encode_to_vec(),
            down_to(down).encode_to_vec(),
            pack_requests(requests).expect("small").encode_to_vec(),
            pack_replies(replies).expect("small").encode_to_vec(),
        ] {
            let mut damaged = whole.clone();
            let at = at.index(whole.len());
            damaged[at] = with;
            read_all(&damaged);
            read_all(&whole[..cut.index(whole.len())]);
        }
    }
}

/// Reads bytes as every message there is; the test is that nothing panics, and that what was read is within
/// limits.
fn read_all(bytes: &[u8]) {
    fn as_one<W: Shaped, T>(bytes: &[u8], convert: impl Fn(W) -> Result<T>) -> Option<T> {
        read::<W>(&mut &bytes[..]).and_then(convert).ok()
    }
    as_one(bytes, up_from);
    as_one(bytes, down_from);
    if let Some(requests) = as_one(bytes, read_requests) {
        assert!(requests.len() <= dstore_shared::limits::BATCH_LEN_MAX);
    }
    as_one(bytes, read_replies);
    as_one(bytes, |w: wire::GetRequest| {
        Ok((Slice::from(&w).within(100).map(|range| assert!(range.end <= 100)), target_from(w.target)))
    });
    as_one(bytes, |w: wire::SetRequest| Ok((w.name.map(Name::try_from), w.id.map(RequestId::try_from))));
    as_one(bytes, |w: wire::DeleteRequest| names_from(w.names));
    as_one(bytes, |w: wire::SetResponse| SetReply::try_from(w));
    as_one(bytes, |w: wire::StatResponse| Option::<Stat>::try_from(w));
    as_one(bytes, |w: wire::StatusResponse| store::Status::try_from(w));
    as_one(bytes, |w: wire::ErrorDetail| Ok(crate::status::from_detail(&w, "x")));
}

#[test]
fn carried_bytes_become_a_blob_only_if_they_match() {
    let blob = Blob::hash("hello");
    let put = |carried: &[u8], size| wire::RequestBatch {
        requests: vec![wire::Request {
            ask: Some(wire::request::Ask::Put(wire::Put {
                id: Some(Packer::new(0).request_id(&RequestId { n: 1, ..RequestId::default() })),
                name: Name::of("k").expect("valid").packed(),
                hash: Bytes::copy_from_slice(blob.id().as_bytes()),
                size,
                carried: Some(Bytes::copy_from_slice(carried)),
                ..wire::Put::default()
            })),
            ..wire::Request::default()
        }],
    };
    assert!(read_requests(put(b"hello", 5)).is_ok());
    assert_eq!(read_requests(put(b"hellO", 5)).expect_err("flipped").kind(), Kind::Corrupt);
    assert_eq!(read_requests(put(b"hello", 6)).expect_err("short").kind(), Kind::Invalid);
    let long = put(&vec![0; dstore_shared::limits::CARRIED_BYTES_MAX + 1], 1 << 20);
    assert_eq!(read_requests(long).expect_err("long").kind(), Kind::TooLarge);
}

#[test]
fn a_reply_with_damaged_bytes_fails_alone() {
    let entry = |blob: &Blob| Entry {
        hash: blob.id(),
        size: blob.size(),
        bind_rev: Revision(1),
        expires_at: None,
        content_type: None,
    };
    let blob = Blob::hash("hello");
    let found =
        Resolved { entry: Some(entry(&blob)), carried: Some(blob), cacheable: None, head: Revision(1) };
    let reply = |n| Reply {
        flight: FlightId(n),
        answer: Answer::Resolved(found.clone()),
        born: Born::default(),
        journal_ms: 0,
    };
    let mut batch = pack_replies(vec![reply(1), reply(2)]).expect("small");
    let Some(wire::reply::Answer::Resolved(first)) = &mut batch.replies[0].answer else {
        panic!("a resolve was packed")
    };
    first.carried = Some(Bytes::from_static(b"hellO"));
    let replies = read_replies(batch).expect("the batch is good");
    assert!(matches!(&replies[0].answer, Answer::Failed(e) if e.kind() == Kind::Corrupt));
    assert!(matches!(&replies[1].answer, Answer::Resolved(r) if r.carried.is_some()));
}

#[test]
fn sides_of_which_none_speaks_a_version_of_the_other_part_with_both_named() {
    let hello = |oldest_version, version| {
        let local_id = vec![0; 16].into();
        let history = vec![0; 16].into();
        let hello = wire::Hello { version, oldest_version, local_id, history, ..wire::Hello::default() };
        up_from(wire::SessionUp { epoch: None, frame: Some(wire::session_up::Frame::Hello(hello)) })
    };
    for (oldest, newest) in [(2, 2), (0, 2), (1, 7)] {
        hello(oldest, newest).expect("version 2 is spoken by both");
    }
    for (oldest, newest) in [(3, 7), (1, 1), (0, 3), (0, 0), (5, 1)] {
        let refused = hello(oldest, newest).expect_err("no version in common");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.message().contains(&format!("to `{newest}`")), "{refused}");
    }
    let mut welcome = down_to(Down::Welcome {
        epoch: Epoch { counter: 1, ..Epoch::default() },
        head: Revision(1),
        resumption: Resumption::Resume,
        lease: Duration::from_secs(1),
        born: Born::default(),
        loss: None,
        list: false,
    });
    assert!(down_from(welcome.clone()).is_ok());
    if let Some(wire::session_down::Frame::Welcome(welcome)) = &mut welcome.frame {
        welcome.version = 1;
    }
    assert_eq!(down_from(welcome).expect_err("version 2 was not offered").kind(), Kind::Invalid);
}

#[test]
fn a_frame_without_its_parts_is_refused() {
    for (bad, what) in [
        (wire::SessionUp::default(), "frame"),
        (wire::SessionUp { epoch: None, frame: Some(wire::session_up::Frame::Bye(wire::Bye {})) }, "epoch"),
    ] {
        let refused = up_from(bad).expect_err(what);
        assert!(refused.kind() == Kind::Invalid && refused.message().contains(what), "{refused}");
    }
    assert!(down_from(wire::SessionDown::default()).is_err());
    assert!(RequestId::try_from(wire::RequestId { n: 0, client: vec![0; 16].into(), born: None }).is_err());
    assert!(BlobHash::from_slice(&[0; 31]).is_err());
}

#[test]
fn a_short_name_does_not_keep_its_frame_alive() {
    let frame = pack_requests(vec![Request {
        flight: FlightId(1),
        epoch: Epoch::default(),
        reg_seq: RegSeq(0),
        ask: Ask::Resolve { name: Name::of("k").expect("valid"), have: None, cache: true, carry: true },
    }])
    .expect("small")
    .encode_to_vec();
    let frame = Bytes::from(frame);
    let batch = read::<wire::RequestBatch>(&mut frame.clone()).expect("readable");
    let requests = read_requests(batch).expect("valid");
    assert!(frame.is_unique(), "the requests share the frame's bytes");
    drop(requests);
}

proptest! {
    #[test]
    fn a_list_and_its_pages_come_back_equal(
        name in name(),
        prefix in vec(any::<u8>(), 0..=1024),
        limit in 1..=1000_usize,
        names in vec((name(), entry()), 0..20),
        (after, next) in (any::<bool>(), any::<bool>()),
    ) {
        let after = after.then(|| name.key());
        let query = ListQuery { namespace: name.namespace(), prefix: prefix.into(), after, limit };
        prop_assert_eq!(ListQuery::try_from(wire::ListRequest::from(&query)).unwrap(), query);
        let from = Provenance::new(Tier::Global, false, Revision(7));
        let names = names.into_iter().map(|(name, entry)| (name.key(), entry)).collect();
        let page = Listing { names, next: next.then(|| name.key()), from };
        prop_assert_eq!(Listing::try_from(wire::ListResponse::from(page.clone())).unwrap(), page);
    }
}

#[test]
fn a_list_is_asked_for_within_its_bounds() {
    let query = |request: wire::ListRequest| ListQuery::try_from(request);
    let limit = |limit| query(wire::ListRequest { limit, ..Default::default() }).unwrap().limit;
    assert_eq!([limit(0), limit(1), limit(1000), limit(u32::MAX)], [1000, 1, 1000, 1000]);
    let token = |bytes: &[u8]| {
        let page_token = Bytes::copy_from_slice(bytes);
        query(wire::ListRequest { page_token, ..Default::default() })
    };
    assert_eq!(token(b"\x01k").unwrap().after, Some(Key::new("k").unwrap()));
    for foreign in [&b"\x01"[..], b"\x02k", b"k", &[1; 1026]] {
        assert_eq!(token(foreign).unwrap_err().kind(), Kind::Invalid, "{foreign:?}");
    }
    let prefix = Bytes::from(vec![0; 1025]);
    assert_eq!(query(wire::ListRequest { prefix, ..Default::default() }).unwrap_err().kind(), Kind::Invalid);
    let namespace = "not/one".to_owned();
    assert_eq!(
        query(wire::ListRequest { namespace, ..Default::default() }).unwrap_err().kind(),
        Kind::Invalid
    );
}
