//! Version 1 of the wire, pinned: the schema may grow, and what was said once is read for ever.

use super::*;
use crate::codec::read;
use dstore_shared::frame::{Answer, Ask, Down, Hello, Listed, Reply, Request, Resolved, Resumption, Up};
use dstore_shared::{
    Attributes, Command, ContentType, CopyOutcome, CopyResult, Decision, DeleteMode, DeleteOutcome,
    ExpireWhen, Expiry, FlightId, Guard, Incarnation, LocalId, Namespace, Outcome, Payload, Prefix,
    PrefixOutcome, RegSeq, SetOutcome, Step, StepOutcome, StepResult, Transaction, TransactionOutcome, When,
};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::fmt::{Debug, Write as _};

/// Every message, enumeration and call, a line for each field, value and call.
const SCHEMA: &str = include_str!("golden-v1-schema.txt");
/// A line for each frame: its name and its bytes.
const FRAMES: &str = include_str!("golden-v1-frames.txt");

/// The schema as text, so that a change of it is seen and a removal or another number is refused.
fn schema() -> String {
    let files = FileDescriptorSet::decode(crate::wire::DESCRIPTORS).expect("our own descriptors");
    let mut text = String::new();
    for file in files.file.iter().filter(|file| file.package() == "dstore.v1") {
        for service in &file.service {
            for call in &service.method {
                let streams = |yes: bool| if yes { "stream " } else { "" };
                writeln!(
                    text,
                    "{}.{}({}{}) -> {}{}",
                    service.name(),
                    call.name(),
                    streams(call.client_streaming()),
                    call.input_type(),
                    streams(call.server_streaming()),
                    call.output_type()
                )
                .unwrap();
            }
        }
        for values in &file.enum_type {
            for value in &values.value {
                writeln!(text, "{}.{} {}", values.name(), value.number(), value.name()).unwrap();
            }
        }
        file.message_type.iter().for_each(|message| fields(&mut text, message));
    }
    text
}

fn fields(text: &mut String, message: &DescriptorProto) {
    assert!(message.nested_type.is_empty(), "messages stand beside each other");
    if message.field.is_empty() {
        writeln!(text, "{}", message.name()).unwrap();
    }
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            kind => kind.as_str_name().to_owned(),
        };
        let many = if field.label() == Label::Repeated { " repeated" } else { "" };
        writeln!(text, "{}.{} {} {kind}{many}", message.name(), field.number(), field.name()).unwrap();
    }
}

fn epoch() -> Epoch {
    Epoch { history: HistoryId(0x0102), boot: 3, counter: 4 }
}

fn born() -> Born {
    Born { history: HistoryId(0x0102), boot: 3, at_ms: 5 }
}

fn name() -> Name {
    Name::of("key").expect("valid")
}

fn other() -> Name {
    Name::of("other").expect("valid")
}

fn prefix() -> Prefix {
    Prefix::new(&Namespace::default(), b"pre/").expect("valid")
}

fn blob() -> Blob {
    Blob::hash("value")
}

fn entry() -> Entry {
    Entry { hash: blob().id(), size: 5, bind_rev: Revision(6), expires_at: None, content_type: None }
}

fn ups() -> Vec<(&'static str, Up)> {
    let hello = Hello {
        local_id: LocalId(7),
        incarnation: Incarnation(8),
        last_epoch: Some(epoch()),
        history: HistoryId(0x0102),
        applied_rev: Revision(9),
        label: "host:1".into(),
        negatives: false,
    };
    let keeping = Hello { negatives: true, ..hello.clone() };
    let epoch = epoch();
    let listed = Listed { name: name(), bind_rev: Revision(6), reg_seq: RegSeq(11) };
    vec![
        ("up hello", Up::Hello(hello)),
        ("up hello negatives", Up::Hello(keeping)),
        ("up keep", Up::Keep { epoch, n: 1, acked: 2 }),
        ("up ack", Up::Ack { epoch, seq: 2 }),
        ("up summary", Up::Summary { epoch, batch: 1, names: vec![listed], last: true }),
        ("up drop", Up::Drop { epoch, names: vec![(name(), RegSeq(11))] }),
        ("up bye", Up::Bye { epoch }),
    ]
}

fn downs() -> Vec<(&'static str, Down)> {
    let (epoch, born, lease) = (epoch(), born(), Duration::from_secs(2));
    let list = true;
    let welcome =
        |resumption| Down::Welcome { epoch, head: Revision(9), resumption, lease, born, list, loss: None };
    vec![
        ("down welcome resume", welcome(Resumption::Resume)),
        ("down welcome compacted", welcome(Resumption::Compacted)),
        ("down welcome new history", welcome(Resumption::NewHistory)),
        (
            "down welcome relaxed",
            Down::Welcome {
                epoch,
                head: Revision(9),
                resumption: Resumption::Resume,
                lease,
                born,
                list,
                loss: Some(Duration::from_millis(100)),
            },
        ),
        ("down inv", Down::Inv { epoch, seq: 1, name: name(), upto: Revision(9) }),
        ("down inv prefix", Down::InvPrefix { epoch, seq: 2, prefix: prefix(), upto: Revision(9) }),
        ("down resync", Down::Resync { epoch, seq: 2, upto: Revision(9) }),
        ("down lease", Down::Lease { epoch, n: 1, lease, through: Revision(9), born }),
        ("down summarized", Down::Summarized { epoch, batch: 1, refused: vec![0, 300] }),
        ("down retire", Down::Retire { epoch }),
    ]
}

fn requests() -> Vec<(&'static str, Vec<Request>)> {
    let id = RequestId { client: ClientId(12), n: 13, born: born() };
    let request = |ask| vec![Request { flight: FlightId(10), epoch: epoch(), reg_seq: RegSeq(11), ask }];
    let set = |carried| said(carried, Attributes::default());
    let ttl = Some(Duration::from_secs(60));
    let typed = said(None, Attributes { content_type: Some(words()), ttl });
    let del = |mode| Command::Delete { names: vec![name()], mode };
    let have = Some(blob().id());
    let change = |command| request(Ask::Change { id, command });
    let names = vec![name(), other()];
    vec![
        ("requests resolve many", request(Ask::ResolveMany { names, cache: true, carry: true })),
        ("requests resolve", request(Ask::Resolve { name: name(), have, cache: true, carry: true })),
        ("requests put carried", request(Ask::Change { id, command: set(Some(blob())) })),
        ("requests put", request(Ask::Change { id, command: set(None) })),
        ("requests put typed", change(typed)),
        ("requests apply typed", change(Command::Apply(Transaction::of(set_typed())))),
        ("requests del prefix", change(Command::DeletePrefix { prefix: prefix() })),
        ("requests copy", change(Command::Copy { from: name(), to: other() })),
        ("requests rename", change(Command::Rename { from: name(), to: other() })),
        ("requests del", request(Ask::Change { id, command: del(DeleteMode::Strict) })),
        (
            "requests del deadline",
            request(Ask::Change { id, command: del(DeleteMode::Deadline(Duration::from_millis(300))) }),
        ),
        ("requests del async", request(Ask::Change { id, command: del(DeleteMode::Async) })),
        ("requests apply", change(Command::Apply(transaction()))),
        ("requests apply whole", change(Command::Apply(Transaction::of(Step::Get { name: name() }).whole()))),
    ]
}

fn words() -> ContentType {
    ContentType::new("text/plain; charset=utf-8").expect("valid")
}

fn said(carried: Option<Blob>, attributes: Attributes) -> Command {
    Command::Set { name: name(), hash: blob().id(), size: 5, carried, attributes }
}

fn set_typed() -> Step {
    let value = Payload::carrying(blob()).typed(Some(words()));
    Step::Set { name: name(), value, when: When::Always, expiry: Expiry::Clear }
}

/// Every step, when and expiry.
fn transaction() -> Transaction {
    let set = |carried, when, expiry| {
        let value = Payload { carried, ..Payload::stored(blob().id(), 5) };
        Step::Set { name: name(), value, when, expiry }
    };
    let expire = |expiry, when| Step::Expire { name: name(), expiry, when };
    let second = Expiry::In(Duration::from_secs(1));
    Transaction {
        whole: false,
        guards: vec![
            Guard { name: name(), bind_rev: Some(Revision(6)) },
            Guard { name: other(), bind_rev: None },
        ],
        steps: vec![
            Step::Get { name: name() },
            set(Some(blob()), When::Always, Expiry::Clear),
            set(None, When::Absent, Expiry::Keep),
            set(None, When::Present, Expiry::At(1_700_000_000_000)),
            Step::Delete { name: name() },
            expire(second, ExpireWhen::Always),
            expire(second, ExpireWhen::None),
            expire(second, ExpireWhen::Some),
            expire(second, ExpireWhen::Greater),
            expire(Expiry::Clear, ExpireWhen::Less),
            Step::Add { name: name(), by: -1 },
            Step::Append { name: name(), bytes: "more".into() },
            Step::Copy { from: name(), to: other(), replace: true },
            Step::Rename { from: name(), to: other(), only_absent: true },
        ],
    }
}

fn applied(decision: Decision) -> Outcome {
    let outcome = TransactionOutcome { decision, revision: Revision(9), at_ms: 1_700_000_000_000 };
    Outcome::Transaction(outcome.into())
}

fn replies() -> Vec<(&'static str, Vec<Reply>)> {
    let reply = |answer| vec![Reply { flight: FlightId(10), answer, born: born(), journal_ms: 0 }];
    let set = |outcome| {
        reply(Answer::Changed { outcome: Outcome::Set(outcome), cacheable: Some(epoch()), stale: None })
    };
    let resolved = |entry, carried| {
        reply(Answer::Resolved(Resolved { entry, carried, cacheable: Some(epoch()), head: Revision(9) }))
    };
    let outcome = DeleteOutcome { removed: vec![true, false], revision: Revision(9) };
    let deleted =
        |stale| reply(Answer::Changed { outcome: Outcome::Delete(outcome.clone()), cacheable: None, stale });
    let prefixes = PrefixOutcome { removed: 7, revision: Revision(9) };
    let copied = |result| CopyOutcome { result, revision: Revision(9) };
    let changed = |outcome| reply(Answer::Changed { outcome, cacheable: None, stale: None });
    let found = Resolved { entry: Some(entry()), carried: None, cacheable: Some(epoch()), head: Revision(9) };
    let absent = Resolved { entry: None, carried: None, cacheable: None, head: Revision(9) };
    let many = vec![found, absent];
    let ends = Entry { expires_at: dstore_shared::End::new(1_700_000_000_000), ..entry() };
    let timed = Answer::Resolved(Resolved {
        entry: Some(ends.clone()),
        carried: None,
        cacheable: Some(epoch()),
        head: Revision(9),
    });
    let step = |result| StepOutcome { result, old: None, entry: None, number: None };
    // Those that there were when transactions came, and what came later.
    let mut steps: Vec<StepOutcome> = StepResult::ALL[..9].iter().copied().map(step).collect();
    let later: Vec<StepOutcome> = StepResult::ALL[9..].iter().copied().map(step).collect();
    (steps[0].old, steps[0].entry, steps[0].number) = (Some(entry()), Some(ends), Some(-2));
    let refused = StepOutcome { old: Some(entry()), entry: Some(entry()), ..step(StepResult::Occupied) };
    let failed = Error::exhausted("full").retry_after(Duration::from_millis(20));
    vec![
        ("replies resolved", resolved(Some(entry()), Some(blob()))),
        ("replies absent", resolved(None, None)),
        ("replies resolved typed", resolved(Some(Entry { content_type: Some(words()), ..entry() }), None)),
        ("replies stored", set(SetOutcome::Stored(entry()))),
        ("replies unchanged", set(SetOutcome::Unchanged(entry()))),
        ("replies occupied", set(SetOutcome::Occupied(entry()))),
        ("replies blob needed", set(SetOutcome::NeedBlob)),
        ("replies prefix deleted", changed(Outcome::DeletePrefix(prefixes))),
        ("replies copied", changed(Outcome::Copy(copied(CopyResult::Done(entry()))))),
        ("replies copied nothing", changed(Outcome::Copy(copied(CopyResult::NotFound)))),
        ("replies renamed", changed(Outcome::Rename(copied(CopyResult::Occupied(entry()))))),
        ("replies resolved many", reply(Answer::ResolvedMany(many))),
        ("replies deleted", deleted(None)),
        ("replies deleted stale", deleted(Some(Duration::from_millis(2_260)))),
        ("replies failed", reply(Answer::Failed(failed))),
        ("replies applied", changed(applied(Decision::Done(steps)))),
        ("replies applied later results", changed(applied(Decision::Done(later)))),
        ("replies applied nothing", changed(applied(Decision::Aborted(1)))),
        ("replies applied refused", changed(applied(Decision::Refused(1, refused)))),
        ("replies applied needs blobs", changed(applied(Decision::NeedBlobs(vec![0, 300])))),
        (
            "replies resolved timed",
            vec![Reply { flight: FlightId(10), answer: timed, born: born(), journal_ms: 1_699_999_999_000 }],
        ),
    ]
}

fn frames() -> String {
    let mut text = String::new();
    let mut line = |name: &str, bytes: Vec<u8>| {
        write!(text, "{name}: ").unwrap();
        bytes.iter().for_each(|b| write!(text, "{b:02x}").unwrap());
        text.push('\n');
    };
    ups().into_iter().for_each(|(name, up)| line(name, up_to(up).encode_to_vec()));
    downs().into_iter().for_each(|(name, down)| line(name, down_to(down).encode_to_vec()));
    for (name, batch) in requests() {
        line(name, pack_requests(batch).expect("small").encode_to_vec());
    }
    for (name, batch) in replies() {
        line(name, pack_replies(batch).expect("small").encode_to_vec());
    }
    text
}

fn bytes_of(name: &str) -> Vec<u8> {
    let line = FRAMES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let hex = line.unwrap_or_else(|| panic!("`{name}` is in the fixture"));
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal")).collect()
}

fn same(name: &str, found: impl Debug, expected: impl Debug) {
    assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{name}");
}

/// Compares with a fixture, or writes it into the folder that `DSTORE_WRITE_GOLDEN_WIRE` names.
fn pinned(file: &str, now: &str, golden: &str) {
    if let Ok(folder) = std::env::var("DSTORE_WRITE_GOLDEN_WIRE") {
        // A developer asked for the fixture.
        std::fs::write(std::path::Path::new(&folder).join(file), now).expect("written");
    }
    for line in golden.lines() {
        assert!(
            now.lines().any(|l| l == line),
            "`{line}` is gone or another: what was said must stay readable"
        );
    }
    for line in now.lines() {
        assert!(golden.lines().any(|l| l == line), "`{line}` is new: write the fixture anew");
    }
}

#[test]
fn the_schema_of_version_1_has_only_grown() {
    pinned("golden-v1-schema.txt", &schema(), SCHEMA);
}

#[test]
fn this_binary_writes_the_frames_of_version_1() {
    pinned("golden-v1-frames.txt", &frames(), FRAMES);
}

#[test]
fn frames_of_version_1_are_read_as_what_they_said() {
    for (name, up) in ups() {
        same(name, up_from(read(&mut &bytes_of(name)[..]).expect("readable")).expect("valid"), up);
    }
    for (name, down) in downs() {
        same(name, down_from(read(&mut &bytes_of(name)[..]).expect("readable")).expect("valid"), down);
    }
    for (name, batch) in requests() {
        same(name, read_requests(read(&mut &bytes_of(name)[..]).expect("readable")).expect("valid"), batch);
    }
    for (name, batch) in replies() {
        same(name, read_replies(read(&mut &bytes_of(name)[..]).expect("readable")).expect("valid"), batch);
    }
}

#[test]
fn fields_that_a_later_version_adds_are_left_out() {
    // Field 200, a number; field 201, bytes.
    let news = [0xc0, 0x0c, 0x07, 0xca, 0x0c, 0x02, 0x01, 0x02];
    for (name, up) in ups() {
        let bytes = [&bytes_of(name)[..], &news].concat();
        same(name, up_from(read(&mut &bytes[..]).expect("readable")).expect("valid"), up);
    }
    for (name, down) in downs() {
        let bytes = [&bytes_of(name)[..], &news].concat();
        same(name, down_from(read(&mut &bytes[..]).expect("readable")).expect("valid"), down);
    }
}
