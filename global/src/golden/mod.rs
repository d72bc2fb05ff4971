//! A whole data directory, pinned: what format 1 of every file says must be written and read for ever.
//!
//! `data-v1.txt` is what a Global with the memory engine left on disk after a clean stop, a second start and a
//! crash: `meta`, two checkpoints, the index, live journal segments, a blob file. An earlier dstore wrote it, whose journal time
//! stood still after a wall clock was set back, as here at the second start; `data-v1-now.txt` is what is written now.
//! A line names a file and its length,
//! or is an offset and bytes that are not zero. The engines fjall and sled have formats of their own.

use crate::{EngineKind, Global, GlobalConfig};
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::{
    Attributes, BlobHash, ContentType, Key, Kind, Moment, Name, Namespace, NamespaceMode, NamespaceSpec,
    Outcome, RequestId, SetOutcome, Step, Transaction,
};
use dstore_sys::Sys;
use dstore_sys::clock::TokioClock;
use dstore_sys::disk::{Disk, Open, SimDisk, Survival};
use dstore_sys::rng::SeededRng;
use dstore_sys::tasks::Blocking;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const GOLDEN: &str = include_str!("data-v1.txt");
/// The same as it is written now: only the times are others.
const GOLDEN_NOW: &str = include_str!("data-v1-now.txt");
/// The same with what came later: namespaces, times to live, content types.
const GOLDEN_TYPES: &str = include_str!("data-v1-types.txt");
/// Bytes a line of the fixture is about.
const LINE: usize = 32;

fn sys(disk: &SimDisk) -> Sys {
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let clock = Arc::new(TokioClock::new(Moment::from_nanos(1_000_000_000), 1_000_000));
    Sys { blocking, clock, disk: Arc::new(disk.clone()), rng: Arc::new(SeededRng::new(1)), ..Sys::real() }
}

async fn start(disk: &SimDisk) -> Global {
    let config = GlobalConfig { engine: EngineKind::Memory, min_free: 0, ..GlobalConfig::new("/data") };
    let global = Global::start(sys(disk), config).await.expect("started");
    // Spare segments are made meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    global
}

fn name(key: &'static str) -> Name {
    Name::of(key).unwrap()
}

/// A value that gets a file of its own, nearly all of it zeros so that the fixture is small.
fn large() -> Vec<u8> {
    let mut value = vec![0; 300_000];
    (value[0], value[299_999]) = (1, 2);
    value
}

async fn set(global: &Global, n: u64, key: &'static str, value: Vec<u8>) {
    let id = id(global, n);
    let reply = global.store().set(id, Some(name(key)), Body::Bytes(value.into())).await.expect("set");
    assert!(matches!(reply.outcome, SetOutcome::Stored(_)), "{reply:?}");
}

fn id(global: &Global, n: u64) -> RequestId {
    RequestId { client: dstore_shared::ClientId(7), n, ..global.authority().next_id() }
}

/// The directory as this binary writes it: a first life with a clean stop, and a second that crashed.
async fn written() -> SimDisk {
    let disk = SimDisk::new();
    let first = start(&disk).await;
    set(&first, 1, "small", b"value".to_vec()).await;
    set(&first, 2, "large", large()).await;
    set(&first, 3, "gone", b"gone soon".to_vec()).await;
    first.store().delete(id(&first, 4), vec![name("gone"), name("never")]).await.expect("deleted");
    first.stop().await.expect("a clean stop");
    let second = start(&disk).await;
    set(&second, 5, "later", b"only in the journal".to_vec()).await;
    second.store().delete(id(&second, 6), vec![name("never")]).await.expect("looked");
    set(&second, 7, "same", b"value".to_vec()).await;
    let crashed = disk.crash(Survival::Nothing, 1);
    second.stop().await.expect("a clean stop");
    crashed
}

/// A directory with namespaces, times to live and content types, in its index and checkpoint and in its journal.
async fn written_with_types() -> SimDisk {
    let disk = SimDisk::new();
    let first = start(&disk).await;
    let cache = Namespace::new("cache").unwrap();
    let spec = NamespaceSpec { mode: NamespaceMode::Replace, ttl: Some(Duration::from_secs(3_600)) };
    first.store().create_namespace(id(&first, 1), cache.clone(), spec).await.expect("created");
    set_as(&first, 2, name("typed"), said("text/plain", None)).await;
    set_as(&first, 3, in_cache("k"), said("image/png", Some(60))).await;
    first.stop().await.expect("a clean stop");
    let second = start(&disk).await;
    set_as(&second, 4, in_cache("k"), said("text/html; charset=utf-8", None)).await;
    set_as(&second, 5, name("brief"), said("", Some(7))).await;
    let step = Step::Copy { from: name("typed"), to: name("copied"), replace: false };
    second.store().apply(id(&second, 6), Transaction::of(step)).await.expect("applied");
    let crashed = disk.crash(Survival::Nothing, 1);
    second.stop().await.expect("a clean stop");
    crashed
}

fn in_cache(key: &'static str) -> Name {
    Name::new(&Namespace::new("cache").unwrap(), &Key::new(key).unwrap())
}

fn said(words: &str, secs: Option<u64>) -> Attributes {
    let ttl = secs.map(Duration::from_secs);
    Attributes { content_type: ContentType::optional(words).unwrap(), ttl }
}

async fn set_as(global: &Global, n: u64, name: Name, attributes: Attributes) {
    let value = Body::Bytes(format!("value {n}").into());
    let reply = global.store().set_as(id(global, n), Some(name), value, attributes).await.expect("set");
    assert!(matches!(reply.outcome, SetOutcome::Stored(_)), "{reply:?}");
}

/// What tells directories apart: not locks, nor spare segments, which are worth nothing.
fn dump(disk: &SimDisk) -> String {
    let mut text = String::new();
    for (path, len) in disk.files() {
        if path.ends_with("LOCK") || path.extension().is_some_and(|what| what == "spare") {
            continue;
        }
        writeln!(text, "{} {len}", path.display()).unwrap();
        let bytes = disk.read(&path, 128 << 20).expect("read");
        for (i, line) in bytes.chunks(LINE).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0)) {
            let hex: String = line.iter().fold(String::new(), |mut hex, b| {
                write!(hex, "{b:02x}").unwrap();
                hex
            });
            writeln!(text, "  {} {hex}", i * LINE).unwrap();
        }
    }
    text
}

fn place(text: &str) -> SimDisk {
    let disk = SimDisk::new();
    let mut file = None;
    for line in text.lines() {
        let (first, second) = line.trim_start().split_once(' ').expect("two words");
        if !line.starts_with(' ') {
            let path = Path::new(first);
            disk.create_dir_all(path.parent().expect("in a folder")).expect("made");
            let created = disk.open(path, Open::Create).expect("created");
            created.preallocate(second.parse().expect("a length")).expect("filled with zeros");
            file = Some(created);
            continue;
        }
        let byte = |i: usize| u8::from_str_radix(&second[i..i + 2], 16).expect("hexadecimal");
        let bytes: Vec<u8> = (0..second.len()).step_by(2).map(byte).collect();
        let at = first.parse().expect("an offset");
        file.as_ref().expect("a file comes first").write_all_at(&bytes, at).expect("written");
    }
    disk
}

async fn value(global: &Global, key: &'static str) -> Option<Vec<u8>> {
    let found = global.store().get(Target::Name(name(key)), Slice::ALL).await.expect("read")?;
    Some(found.body.collect(1 << 20).await.expect("whole").to_vec())
}

/// Compares with a fixture, or writes it into the folder that `DSTORE_WRITE_GOLDEN_DATA` names.
fn pinned(file: &str, now: &str, golden: &str) {
    if let Ok(folder) = std::env::var("DSTORE_WRITE_GOLDEN_DATA") {
        #[expect(clippy::disallowed_methods, reason = "a developer asked for the fixture")]
        std::fs::write(Path::new(&folder).join(file), now).expect("written");
    }
    let differs = now.lines().zip(golden.lines()).find(|(now, golden)| now != golden);
    assert!(
        now == golden,
        "a format changed, first at {differs:?}: raise its version, keep reading 1, and add a fixture"
    );
}

#[tokio::test(start_paused = true)]
async fn this_binary_writes_a_data_directory_of_version_1() {
    pinned("data-v1-now.txt", &dump(&written().await), GOLDEN_NOW);
}

#[tokio::test(start_paused = true)]
async fn this_binary_writes_a_data_directory_with_namespaces_times_to_live_and_types_of_version_1() {
    pinned("data-v1-types.txt", &dump(&written_with_types().await), GOLDEN_TYPES);
}

#[tokio::test(start_paused = true)]
async fn a_data_directory_of_version_1_opens_with_its_namespaces_times_to_live_and_types() {
    let disk = place(GOLDEN_TYPES);
    let global = start(&disk).await;
    let stat = async |name: Name| {
        let stat = global.store().stat(Target::Name(name)).await.expect("looked").expect("bound");
        let words = stat.entry.content_type.as_ref().map(|words| words.as_str().to_owned());
        (words, stat.left().map(|left| left.as_secs().div_ceil(10)))
    };
    assert_eq!(stat(name("typed")).await, (Some("text/plain".to_owned()), None));
    assert_eq!(stat(name("copied")).await, (Some("text/plain".to_owned()), None));
    assert_eq!(stat(in_cache("k")).await, (Some("text/html; charset=utf-8".to_owned()), Some(360)));
    assert_eq!(stat(name("brief")).await, (None, Some(1)));
    let spaces = global.store().namespaces().await.expect("listed");
    let cache = spaces.iter().find(|info| info.namespace.to_string() == "cache").expect("there");
    assert!(cache.spec.replaces() && cache.spec.ttl == Some(Duration::from_secs(3_600)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(global.store().stat(Target::Name(name("brief"))).await.expect("looked").is_none(), "over");
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_data_directory_of_version_1_opens_with_all_that_it_held() {
    let disk = place(GOLDEN);
    let global = start(&disk).await;
    assert_eq!(value(&global, "small").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(value(&global, "same").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(value(&global, "later").await.as_deref(), Some(&b"only in the journal"[..]));
    assert_eq!(value(&global, "large").await, Some(large()));
    assert_eq!(value(&global, "gone").await, None);
    assert_eq!(global.authority().event(|machine, _| machine.head()).0, 7, "revisions go on where they were");
    let hash = BlobHash::of(b"gone soon");
    let kept = global.store().stat(Target::Hash(hash)).await.expect("looked");
    assert!(kept.is_some(), "a blob without a name is kept for its hour");
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn outcomes_of_version_1_are_remembered_from_the_checkpoint_and_from_the_journal() {
    let disk = place(GOLDEN);
    let global = start(&disk).await;
    let (outcomes, rest) = global.authority().event(|machine, _| machine.outcomes(None, 100));
    assert_eq!(rest, None);
    let told: Vec<(u64, bool)> =
        outcomes.iter().map(|(id, outcome)| (id.n, matches!(outcome, Outcome::Set(_)))).collect();
    assert_eq!(told, [(1, true), (2, true), (3, true), (4, false), (5, true), (7, true)]);
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_file_of_a_newer_version_is_refused_by_that_name_and_left_alone() {
    for (file, at) in [("/data/meta", 8), ("/data/checkpoint", 8), ("/data/index/memory", 8)] {
        let disk = place(GOLDEN);
        disk.flip(Path::new(file), at, 0b11).expect("damaged");
        let bytes = disk.read(Path::new(file), 1 << 20).expect("read");
        let crc = crc_fast::checksum(
            crc_fast::CrcAlgorithm::Crc64Nvme,
            &[&0_u64.to_le_bytes()[..], &bytes[..16]].concat(),
        );
        let open = disk.open(Path::new(file), Open::Write).expect("opened");
        open.write_all_at(&crc.to_le_bytes(), 16).expect("written");
        drop(open);
        let before = dump(&disk);
        let config = GlobalConfig { engine: EngineKind::Memory, min_free: 0, ..GlobalConfig::new("/data") };
        let Err(e) = Global::start(sys(&disk), config).await else { panic!("`{file}` was opened") };
        assert_eq!(e.kind(), Kind::Invalid, "{file}: {e}");
        assert!(e.message().contains("newer"), "{file}: {e}");
        assert_eq!(dump(&disk), before, "{file}");
    }
}
