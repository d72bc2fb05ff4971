//! An arena and readers in processes of their own: what they read, what happens when they die, fork or lie.
//!
//! A reader's process is this very program, started again with the role it plays in its environment and its socket as
//! standard input.

#![allow(unsafe_code, reason = "fork and _exit are the C library's")]
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use dstore_arena::{Arena, Binding, Config, Error, Evicted, Miss, Reader, Refusal, Value, Worker, now, pass};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "DSTORE_ARENA_ROLE";
const PATIENCE: Duration = Duration::from_secs(300);

/// A process that reads, and the daemon's end of its socket.
struct Process {
    child: Child,
    socket: UnixStream,
    worker: Option<Worker>,
}

impl Process {
    fn start(arena: &mut Arena, role: &str) -> Self {
        Self::start_as(arena, role, Command::new(std::env::current_exe().unwrap()))
    }

    fn start_as(arena: &mut Arena, role: &str, mut command: Command) -> Self {
        let (mut socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command
            .args(["--exact", "a_process_that_reads", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (worker, descriptors) = arena.attach().unwrap();
        pass::send(&socket, &descriptors).unwrap();
        assert_eq!(byte(&mut socket), b'r', "it is ready");
        Self { child, socket, worker: Some(worker) }
    }

    /// What it says next.
    fn says(&mut self) -> u8 {
        byte(&mut self.socket)
    }

    fn tell(&mut self, what: u8) {
        self.socket.write_all(&[what]).unwrap();
    }

    /// Kills it, waits for it, and lets go of what it pinned.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.worker = None;
    }

    fn ends_well(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "{status}"),
                None if Instant::now() > deadline => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn byte(socket: &mut UnixStream) -> u8 {
    let mut byte = [0];
    socket.read_exact(&mut byte).expect("the other side speaks");
    byte[0]
}

/// The value of key number `key` in its round `round`: tells both, and every word of it.
fn value(key: u64, round: u64, len: usize) -> Vec<u8> {
    let word = |i: u64| (key << 40 ^ round << 8 ^ i).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let mut bytes: Vec<u8> = [key.to_le_bytes(), round.to_le_bytes()].concat();
    bytes.extend((0..).flat_map(word).take(len));
    bytes
}

/// Whether these are the bytes of a value of `key`, and of which round.
fn round_of(key: u64, bytes: &[u8]) -> u64 {
    let (head, _) = bytes.as_chunks::<8>();
    let (found, round) = (u64::from_le_bytes(head[0]), u64::from_le_bytes(head[1]));
    assert_eq!(found, key, "another key's value");
    assert!(bytes == value(key, round, bytes.len() - 16), "a value that is none");
    round
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (i, part) in hash.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&xxhash_rust::xxh3::xxh3_64_with_seed(bytes, i as u64).to_le_bytes());
    }
    hash
}

fn set(arena: &mut Arena, key: u64, bytes: &[u8]) -> Result<Vec<Evicted>, Refusal> {
    let binding = Binding { hash: hash(bytes), bind_rev: 1, registration: 1, era: 0, expiry: None };
    let mut evicted = Vec::new();
    arena.insert(&key.to_le_bytes(), &binding, bytes, &mut evicted).map(|()| evicted)
}

fn arena(budget: u64) -> Arena {
    arena_of(budget, 2 << 20)
}

fn arena_of(budget: u64, segment_bytes: u64) -> Arena {
    let config = Config { budget, segment_bytes, pin_bytes_max: budget / 4, ..Config::default() };
    let arena = Arena::create(config).unwrap();
    arena.set_valid_until(u64::MAX);
    arena
}

/// Keys of the stress, and lengths: some are copied, some are pinned.
const KEYS: u64 = 400;

fn len_of(key: u64, round: u64) -> usize {
    [40, 100, 900, 3_000, 9_000, 40_000][(key + round) as usize % 6]
}

/// The role is played here; nothing is tested when nobody asked for one.
#[test]
#[ignore = "a part of other tests"]
fn a_process_that_reads() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    if role == "elsewhere" {
        let why = pass::receive(&socket).unwrap_err();
        assert!(matches!(why, Error::Clock(_)), "{why}");
        return socket.write_all(b"r").unwrap();
    }
    let reader = Reader::map(pass::receive(&socket).unwrap()).unwrap();
    match role.as_str() {
        "stress" => stress(&reader, socket),
        "once" => once(&reader, socket),
        "fork" => fork(reader, socket),
        "rounds" => rounds(&reader, socket),
        _ => panic!("no such role: {role}"),
    }
}

/// The role is played here, by a process that loses its right to more descriptors.
#[test]
#[ignore = "a part of another test"]
fn a_process_that_can_open_nothing_more() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if std::env::var(ROLE).as_deref() != Ok("poor") {
        return;
    }
    let mut arena = arena_of(32 << 20, 2 << 20);
    for key in 0..20 {
        assert_eq!(set(&mut arena, key, &value(key, 1, 40_000)).unwrap(), []);
    }
    let begun = arena.stats();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let mut evicted = 0;
    for key in 20..200 {
        evicted += set(&mut arena, key, &value(key, 1, 40_000)).unwrap().len();
    }
    let stats = arena.stats();
    assert!(evicted > 100 && stats.names > 20, "{stats:?}");
    assert!(stats.resident < begun.bytes_max / 4 && stats.bytes <= stats.resident, "{stats:?}");
    setrlimit(Resource::Nofile, limit).unwrap();
    arena.sweep();
    assert_eq!(set(&mut arena, 200, &value(200, 1, 400_000)).unwrap(), [], "there is more again");
    assert!(arena.stats().resident > stats.resident);
    // Readers find all of it.
    let (_worker, reader) = arena.attach_own(1 << 30).unwrap();
    let read = (0..201_u64).filter_map(|key| Some((key, reader.get(&key.to_le_bytes()).ok()?)));
    let rounds: Vec<u64> = read.map(|(key, value)| round_of(key, &value)).collect();
    assert_eq!(rounds.len() as u64, arena.stats().names);
}

#[test]
fn where_a_segment_cannot_be_had_something_leaves_for_what_comes() {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_can_open_nothing_more", "--ignored", "--nocapture"])
        .env(ROLE, "poor")
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
}

#[test]
fn memory_is_reserved_before_it_is_written_and_no_more_than_is_said() {
    let blocks = |arena: &mut Arena| {
        let (_worker, all) = arena.attach().unwrap();
        let files = all.segments.iter().chain([&all.header]);
        files.map(|file| rustix::fs::fstat(file).unwrap().st_blocks.cast_unsigned() * 512).sum::<u64>()
    };
    let mut arena = arena_of(64 << 20, 16 << 20);
    let mut shown = 0;
    for key in 0..500 {
        set(&mut arena, key, &value(key, 1, 40_000)).unwrap();
        if key % 100 == 0 {
            let (has, says) = (blocks(&mut arena), arena.stats().resident);
            let most = 16 * 4096;
            assert!(has <= says && has + most >= says, "{has} bytes of files, {says} said");
            assert!(says > shown, "it grows");
            shown = says;
        }
        assert!(arena.stats().bytes <= arena.stats().resident);
    }
    // All of it, and a value that lies on both sides of where the two ends met.
    for key in 1_000..1_030 {
        set(&mut arena, key, &value(key, 1, [100, 300_000, 14 << 20][key as usize % 3])).unwrap();
    }
    let stats = arena.stats();
    assert!(stats.resident <= stats.bytes_max && stats.bytes_max <= 64 << 20, "{stats:?}");
    let has = blocks(&mut arena);
    assert!(has <= stats.resident && has + 16 * 4096 >= stats.resident, "{has} {stats:?}");
}

#[test]
fn a_segment_is_mapped_only_where_it_says_itself_that_it_belongs() {
    let mut arena = arena(16 << 20);
    for key in 0..200 {
        set(&mut arena, key, &value(key, 1, 40_000)).unwrap();
    }
    let (_worker, descriptors) = arena.attach().unwrap();
    let there = descriptors.segments.len();
    assert!(there > 3, "{there}");
    let reader = Reader::map(dstore_arena::Descriptors { segments: Vec::new(), ..descriptors }).unwrap();
    let refused =
        |from: usize, segments: Vec<OwnedFd>| reader.extend(from, segments).unwrap_err().to_string();
    // The caller is mistaken about where they begin.
    let why = refused(0, arena.segments_from(1).unwrap());
    assert!(why.contains("not the one that it is said to be") && reader.segments().0 == 0, "{why}");
    let why = refused(1, arena.segments_from(1).unwrap());
    assert!(why.contains("do not follow") && reader.segments().0 == 0, "{why}");
    // They come in another order.
    let mut swapped = arena.segments_from(0).unwrap();
    swapped.swap(1, 2);
    let why = refused(0, swapped);
    assert!(why.contains("not the one") && reader.segments().0 == 1, "{why}");
    // They are of another arena.
    let mut other = arena_of(16 << 20, 2 << 20);
    for key in 0..200 {
        set(&mut other, key, &value(key, 2, 40_000)).unwrap();
    }
    let why = refused(1, other.segments_from(1).unwrap());
    assert!(why.contains("another start of the daemon") && reader.segments().0 == 1, "{why}");
    reader.extend(0, arena.segments_from(0).unwrap()).unwrap();
    assert_eq!(reader.segments(), (there, there));
    for key in 0..200_u64 {
        assert_eq!(round_of(key, &reader.get(&key.to_le_bytes()).unwrap()), 1);
    }
}

#[test]
fn the_daemon_reads_by_a_reader_of_its_own_and_never_hoards() {
    let mut arena = arena(16 << 20);
    let (_worker, reader) = arena.attach_own(12 << 20).unwrap();
    let binding = |bytes: &[u8]| Binding {
        hash: hash(bytes),
        bind_rev: 7,
        registration: 1,
        era: 3,
        expiry: Some(dstore_arena::Expiry { until: u64::MAX - 1, expires_at: 55 }),
    };
    let mut held = Vec::new();
    for key in 0..200_u64 {
        let bytes = value(key, 1, 40_000);
        let noted = (&binding(&bytes), &b"text/plain"[..]);
        arena.insert_noted(&key.to_le_bytes(), noted, &bytes, &mut Vec::new()).unwrap();
        // Nothing of what comes is ever lacking.
        held.push(reader.get(&key.to_le_bytes()).unwrap());
    }
    assert!(held.iter().all(Value::is_in_place) && reader.pinned().0 == 200 * 40_016);
    for _ in 0..3 {
        assert_eq!(arena.sweep(), [], "more than a worker may hold, and it may");
    }
    let meta = held[9].meta();
    assert_eq!((meta.bind_rev, meta.era, meta.expiry.unwrap().expires_at), (7, 3, 55));
    assert_eq!(
        (held[9].note(), arena.note(&9_u64.to_le_bytes()).as_deref()),
        (&b"text/plain"[..], Some(&b"text/plain"[..]))
    );
    assert_eq!(reader.segments().0, reader.segments().1);
    // Without a lease, in another era: only for who asks for what may be stale.
    arena.set_valid_until(0);
    arena.set_era(4);
    assert_eq!(reader.get(&9_u64.to_le_bytes()).unwrap_err(), Miss::Absent);
    assert_eq!(round_of(9, &reader.get_stale(&9_u64.to_le_bytes()).unwrap()), 1);
    // By its hash, also without a name.
    let bytes = value(9, 1, 40_000);
    arena.remove(&9_u64.to_le_bytes()).unwrap();
    let found = arena.blob(&hash(&bytes), &reader).unwrap().unwrap();
    assert!(*found == *bytes && found.is_in_place());
    assert!(arena.blob(&[9; 32], &reader).unwrap().is_none());
    let (mut place, mut sampled) = (0, 0);
    loop {
        let (values, next) = arena.sample(place, 100_000, &reader).unwrap();
        assert!(values.iter().all(|value| hash(value) == value.meta().hash));
        (place, sampled) = (next, sampled + values.len());
        if next == 0 {
            break;
        }
    }
    assert!(sampled > 40, "as many as may be pinned beside the others: {sampled}");
    let (_other, others) = arena_of(4 << 20, 2 << 20).attach_own(1 << 20).unwrap();
    assert_eq!(arena.blob(&hash(&bytes), &others).unwrap_err(), Miss::Unmapped);
    // The bytes that the daemon keeps stay where they are when they leave.
    let kept = arena.keep(&hash(&bytes)).unwrap();
    arena.expel(&hash(&bytes), &mut Vec::new());
    drop((held, found));
    while arena.evict(&mut Vec::new()) {}
    arena.sweep();
    assert_eq!((arena.stats().limbo, kept.as_ref() == bytes), (1, true));
    drop(arena);
    assert!(kept.as_ref() == bytes, "even when the arena is gone");
}

#[test]
#[ignore = "needs the right to make time namespaces, and util-linux's unshare"]
fn a_worker_in_another_time_namespace_is_refused() {
    let mut arena = arena(4 << 20);
    for offset in ["86400", "-3600", "0"] {
        let mut command = Command::new("unshare");
        command.args(["--fork", "--time", "--boottime", offset]).arg(std::env::current_exe().unwrap());
        Process::start_as(&mut arena, "elsewhere", command).ends_well();
    }
}

/// Maps what it lacks.
fn extend(reader: &Reader, mut socket: &UnixStream) {
    let from = reader.segments().0;
    socket.write_all(&[b'm', from as u8]).unwrap();
    reader.extend(from, pass::receive_segments(socket).unwrap()).unwrap();
}

/// Reads all keys again and again, checks every byte, and holds some values for a while, until it is killed.
fn stress(reader: &Reader, mut socket: UnixStream) {
    socket.write_all(b"r").unwrap();
    let mut held: Vec<(u64, Value)> = Vec::new();
    let mut copy = Vec::new();
    let mut random = u64::from(std::process::id()) | 1;
    let mut served = 0_u64;
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = (random >> 33) % KEYS;
        match reader.get(&key.to_le_bytes()) {
            Ok(value) => {
                round_of(key, &value);
                assert_eq!(hash(&value), value.meta().hash);
                served += 1;
                if value.is_in_place() && (random >> 20).is_multiple_of(3) {
                    held.push((key, value));
                }
            }
            Err(Miss::Absent | Miss::Busy | Miss::PinBudget { .. }) => {}
            Err(Miss::Unmapped) => extend(reader, &socket),
            Err(other) => panic!("{other}"),
        }
        if let Ok(meta) = reader.get_into(&key.to_le_bytes(), &mut copy) {
            round_of(key, &copy);
            assert_eq!(hash(&copy), meta.hash);
        }
        if held.len() > 8 {
            let (key, value) = held.swap_remove((random >> 40) as usize % held.len());
            round_of(key, &value);
            assert_eq!(hash(&value), value.meta().hash, "what is pinned does not change");
        }
        if served.is_multiple_of(5_000) {
            socket.write_all(b".").unwrap();
        }
    }
}

/// Reads key 1 whenever it is asked, and says whether it was there.
fn once(reader: &Reader, mut socket: UnixStream) {
    socket.write_all(b"r").unwrap();
    while byte(&mut socket) == b'g' {
        let said = match reader.get(&1_u64.to_le_bytes()) {
            Ok(_) => b'y',
            Err(Miss::Absent) => b'n',
            Err(Miss::Lapsed) => b'l',
            Err(_) => b'?',
        };
        socket.write_all(&[said]).unwrap();
    }
}

/// Reads key 1, whose rounds only rise, and sees none of them fall.
fn rounds(reader: &Reader, mut socket: UnixStream) {
    socket.write_all(b"r").unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut last = 0;
    let mut said = false;
    while socket.read(&mut [0]).is_err() {
        for _ in 0..1000 {
            match reader.get(&1_u64.to_le_bytes()) {
                Ok(value) => {
                    let round = round_of(1, &value);
                    assert!(round >= last, "round {round} after {last}");
                    last = round;
                }
                Err(Miss::Absent | Miss::Busy | Miss::PinBudget { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        if last > 0 && !said {
            socket.write_all(b"s").unwrap();
            said = true;
        }
    }
}

/// Holds a value, forks, and has the child try what it must not.
fn fork(reader: Reader, mut socket: UnixStream) {
    socket.write_all(b"r").unwrap();
    let value = reader.get(&1_u64.to_le_bytes()).unwrap();
    assert!(value.is_in_place());
    let held = reader.pinned().0;
    // SAFETY: the child calls nothing but what follows here, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(reader.get(&1_u64.to_le_bytes()), Err(Miss::Forked))
            && matches!(reader.get_into(&1_u64.to_le_bytes(), &mut Vec::new()), Err(Miss::Forked))
            && value.try_bytes().is_none();
        // It attaches anew, as a worker of its own, and what it maps may lie where its parent's page was.
        let mine = pass::receive(&socket).ok().and_then(|all| Reader::map(all).ok());
        // Lets go of its copy of the value and of the reader: the parent's pin stays, and so does what is mapped anew.
        drop(value);
        drop(reader);
        let read = mine.and_then(|mine| mine.get(&1_u64.to_le_bytes()).ok());
        let well = refused && read.is_some_and(|value| value.is_in_place() && round_of(1, &value) == 7);
        // SAFETY: ends this process, without running what its parent's threads left.
        unsafe { libc::_exit(i32::from(!well)) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for the child's status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child");
    assert_eq!(reader.pinned().0, held);
    socket.write_all(b"f").unwrap();
    assert_eq!(byte(&mut socket), b'c');
    assert_eq!(round_of(1, &value), 7, "the parent's value is where it was");
}

/// One round of changes over all keys, under eviction. Gives the names that went.
fn churn(arena: &mut Arena, round: u64) {
    for key in 0..KEYS {
        let bytes = value(key, round, len_of(key, round));
        match set(arena, key, &bytes) {
            Ok(_) | Err(Refusal::Full) => {}
            Err(why) => panic!("{why:?}"),
        }
        if (key + round).is_multiple_of(7) {
            arena.remove(&((key + 3) % KEYS).to_le_bytes());
        }
    }
    assert_eq!(arena.sweep(), [], "readers that use the library never hoard");
}

/// Answers readers that lack segments.
fn serve(arena: &Arena, processes: &mut [Process]) -> u64 {
    let mut signs = 0;
    for process in processes {
        process.socket.set_nonblocking(true).unwrap();
        let mut said = [0];
        let heard = process.socket.read(&mut said);
        process.socket.set_nonblocking(false).unwrap();
        match (heard, said[0]) {
            (Ok(1), b'm') => {
                let from = byte(&mut process.socket);
                pass::send_segments(&process.socket, &arena.segments_from(usize::from(from)).unwrap())
                    .unwrap();
            }
            (Ok(1), b'.') => signs += 1,
            (Ok(_), said) => panic!("a reader ended, or said {said}"),
            (Err(why), _) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            (Err(why), _) => panic!("{why}"),
        }
    }
    signs
}

#[test]
fn readers_that_are_killed_at_any_moment_leave_nothing_behind_and_no_value_is_ever_wrong() {
    let kills: u64 = std::env::var("DSTORE_ARENA_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(9);
    let mut arena = arena(4 << 20);
    churn(&mut arena, 0);
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start(&mut arena, "stress")).collect();
    let (mut killed, mut round, mut signs) = (0, 0, 0);
    let deadline = Instant::now() + PATIENCE.max(Duration::from_secs(kills));
    while killed < kills || signs < 3 {
        assert!(Instant::now() < deadline, "{killed} killed, {signs} signs of life");
        round += 1;
        churn(&mut arena, round);
        signs += serve(&arena, &mut processes);
        if killed < kills {
            let at = killed as usize % processes.len();
            processes[at].kill();
            processes[at] = Process::start(&mut arena, "stress");
            killed += 1;
        }
    }
    processes.iter_mut().for_each(Process::kill);
    arena.sweep();
    let stats = arena.stats();
    assert_eq!((stats.limbo, stats.workers), (0, 0), "{stats:?}");
    assert!(stats.resident <= stats.bytes_max && stats.evicted > 0, "{stats:?}");
    // All of it can be emptied: nothing is kept for the dead.
    while arena.evict(&mut Vec::new()) {}
    assert_eq!((arena.stats().names, arena.stats().rows), (0, 0));
    for round in 0..2 {
        churn(&mut arena, round);
    }
}

#[test]
fn a_removed_name_is_never_read_again_in_any_process() {
    let mut arena = arena(4 << 20);
    let mut processes: Vec<Process> = (0..2).map(|_| Process::start(&mut arena, "once")).collect();
    let mut ask = |arena: &mut Arena, what: u8| {
        let _ = &arena;
        for process in &mut processes {
            process.tell(b'g');
            assert_eq!(process.says(), what);
        }
    };
    for round in 0..50 {
        ask(&mut arena, b'n');
        set(&mut arena, 1, &value(1, round, len_of(1, round))).unwrap();
        ask(&mut arena, b'y');
        arena.set_valid_until(now().saturating_sub(1));
        ask(&mut arena, b'l');
        arena.set_valid_until(u64::MAX);
        arena.remove(&1_u64.to_le_bytes()).unwrap();
    }
    ask(&mut arena, b'n');
}

#[test]
fn a_name_that_is_bound_anew_never_goes_back() {
    let mut arena = arena_of(4 << 20, 4 << 20);
    let mut processes: Vec<Process> = (0..2).map(|_| Process::start(&mut arena, "rounds")).collect();
    let rounds = if cfg!(debug_assertions) { 6_000 } else { 200_000 };
    for round in 1..rounds {
        let bytes = value(1, round, [60, 500, 2_000][round as usize % 3]);
        match set(&mut arena, 1, &bytes) {
            Ok(_) => {}
            Err(why) => panic!("{why:?}"),
        }
        if round.is_multiple_of(3) {
            arena.remove(&1_u64.to_le_bytes());
        }
    }
    for process in &mut processes {
        assert_eq!(process.says(), b's', "it has read some");
        process.tell(b'e');
        process.ends_well();
    }
}

#[test]
fn a_forked_child_notices_shares_no_pins_and_attaches_anew() {
    let mut arena = arena(4 << 20);
    let bytes = value(1, 7, 40_000);
    set(&mut arena, 1, &bytes).unwrap();
    let mut process = Process::start(&mut arena, "fork");
    // For the child, whenever it comes to it.
    let (child, descriptors) = arena.attach().unwrap();
    pass::send(&process.socket, &descriptors).unwrap();
    drop(descriptors);
    assert_eq!(process.says(), b'f');
    drop(child);
    let mut evicted = Vec::new();
    assert!(arena.expel(&hash(&bytes), &mut evicted));
    arena.sweep();
    assert_eq!(arena.stats().limbo, 1, "the parent's pin survived its child");
    for key in 10..200 {
        set(&mut arena, key, &value(key, 1, 40_000)).unwrap();
    }
    process.tell(b'c');
    process.ends_well();
    process.worker = None;
    arena.sweep();
    assert_eq!(arena.stats().limbo, 0);
}

#[test]
fn a_worker_can_neither_write_nor_resize_what_it_was_given() {
    use rustix::fs::{OFlags, ftruncate, open};
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    use std::os::fd::AsRawFd;
    let mut arena = arena(4 << 20);
    set(&mut arena, 1, &value(1, 1, 100)).unwrap();
    let (_worker, descriptors) = arena.attach().unwrap();
    let write = ProtFlags::READ | ProtFlags::WRITE;
    for file in descriptors.segments.iter().chain([&descriptors.header]) {
        // Opened anew, too, by the path under which a process sees its descriptors.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let again = open(path, OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
        for file in [file.as_fd(), again.as_fd()] {
            // SAFETY: the kernel chooses the addresses, and nothing comes of it.
            let mapped = unsafe { mmap(std::ptr::null_mut(), 4096, write, MapFlags::SHARED, file, 0) };
            assert_eq!(mapped.unwrap_err(), rustix::io::Errno::PERM);
            assert_eq!(rustix::io::write(file, b"x").unwrap_err(), rustix::io::Errno::PERM);
            assert!(ftruncate(file, 0).is_err() && ftruncate(file, 1 << 30).is_err());
        }
    }
    assert!(ftruncate(&descriptors.page, 0).is_err(), "a page that goes would take the daemon with it");
    let reader = Reader::map(descriptors).unwrap();
    assert_eq!(round_of(1, &reader.get(&1_u64.to_le_bytes()).unwrap()), 1);
}

#[test]
fn what_is_no_arena_is_refused_and_never_mapped() {
    let mut arena = arena(4 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    let (_other, others) = arena.attach().unwrap();
    let swapped =
        dstore_arena::Descriptors { header: others.page, page: others.header, segments: Vec::new() };
    let why = Reader::map(swapped).unwrap_err().to_string();
    assert!(why.contains("not an arena"), "{why}");
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let foreign =
        dstore_arena::Descriptors { header: file.into(), page: descriptors.page, segments: Vec::new() };
    let why = Reader::map(foreign).unwrap_err().to_string();
    assert!(why.contains("not of shared memory") || why.contains("not sealed"), "{why}");
}

#[test]
fn an_arena_grows_by_segments_that_readers_map_when_they_meet_them() {
    let mut arena = arena(16 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    assert_eq!(reader.segments().0, 2, "one for rows, one for the index");
    for key in 0..200 {
        set(&mut arena, key, &value(key, 1, 40_000)).unwrap();
    }
    let unmapped = (0..200_u64).find(|key| matches!(reader.get(&key.to_le_bytes()), Err(Miss::Unmapped)));
    assert!(unmapped.is_some() && reader.segments().1 > 2, "{:?}", reader.segments());
    reader.extend(2, arena.segments_from(2).unwrap()).unwrap();
    assert_eq!(reader.segments().0, reader.segments().1);
    for key in 0..200_u64 {
        assert_eq!(round_of(key, &reader.get(&key.to_le_bytes()).unwrap()), 1);
    }
}

#[test]
fn a_worker_that_hoards_is_told_so_and_may_still_copy() {
    let mut arena = arena(4 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    for key in 0..60 {
        set(&mut arena, key, &value(key, 1, 40_000 - 16)).unwrap();
    }
    let (_second, others) = arena.attach().unwrap();
    let (reader, other) = (Reader::map(descriptors).unwrap(), Reader::map(others).unwrap());
    reader.extend(2, arena.segments_from(2).unwrap()).unwrap();
    let mut held = Vec::new();
    let why = loop {
        match reader.get(&(held.len() as u64).to_le_bytes()) {
            Ok(value) => held.push(value),
            Err(why) => break why,
        }
    };
    assert_eq!(why, Miss::PinBudget { held: 26 * 40_000, max: 1 << 20 });
    assert!(why.to_string().contains("`1040000` of `1048576` bytes pinned"), "{why}");
    assert!(reader.get_into(&50_u64.to_le_bytes(), &mut Vec::new()).is_ok());
    assert!(other.get(&50_u64.to_le_bytes()).is_ok(), "another worker has its own");
    held.pop();
    assert!(reader.get(&50_u64.to_le_bytes()).is_ok());
    // Values outlive their reader and go to other threads.
    drop(reader);
    let lens =
        std::thread::spawn(move || held.iter().map(|value| value.len()).sum::<usize>()).join().unwrap();
    assert_eq!(lens, 25 * 40_000);
}

#[test]
fn a_reader_that_lacks_segments_says_so_for_every_key_in_them() {
    let mut arena = arena(32 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    let keys = 8_000_u64;
    for key in 0..keys {
        assert_eq!(set(&mut arena, key, &value(key, 1, len_of(key, 0).min(3_000))).unwrap(), []);
    }
    let (mapped, there) = reader.segments();
    assert!(mapped == 2 && there > 3, "{mapped} of {there}");
    let (mut lacking, mut read) = (0, 0);
    for key in 0..keys {
        match reader.get(&key.to_le_bytes()) {
            Ok(value) => {
                assert_eq!(round_of(key, &value), 1);
                read += 1;
            }
            Err(why) => {
                assert_eq!(why, Miss::Unmapped, "key {key}");
                lacking += 1;
            }
        }
    }
    assert!(lacking > keys / 4 && read > 0, "{lacking} lacking, {read} read");
    reader.extend(mapped, arena.segments_from(mapped).unwrap()).unwrap();
    for key in 0..keys {
        assert_eq!(round_of(key, &reader.get(&key.to_le_bytes()).unwrap()), 1);
    }
    assert_eq!(reader.get(&keys.to_le_bytes()).unwrap_err(), Miss::Absent);
}

#[test]
fn threads_that_fetch_the_same_segments_map_them_once() {
    let mut arena = arena(12 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    let keys = 200_u64;
    for key in 0..keys {
        set(&mut arena, key, &value(key, 1, 40_000)).unwrap();
    }
    let (from, there) = reader.segments();
    assert!(there > 3, "{there}");
    // Both have asked before either maps.
    let (first, second) = (arena.segments_from(from).unwrap(), arena.segments_from(from).unwrap());
    std::thread::scope(|scope| {
        for segments in [first, second] {
            let reader = &reader;
            scope.spawn(move || reader.extend(from, segments).unwrap());
        }
    });
    assert_eq!(reader.segments(), (there, there));
    for key in 0..keys {
        assert_eq!(round_of(key, &reader.get(&key.to_le_bytes()).unwrap()), 1);
    }
    // Segments that do not follow what is mapped are not mapped.
    let (_other, descriptors) = arena.attach().unwrap();
    let lacking = Reader::map(dstore_arena::Descriptors { segments: Vec::new(), ..descriptors }).unwrap();
    assert!(lacking.extend(1, arena.segments_from(1).unwrap()).is_err());
    assert_eq!(lacking.segments().0, 0);
}

#[test]
fn the_socket_of_a_reader_stays_open_until_its_last_value_is_dropped() {
    let mut arena = arena(4 << 20);
    set(&mut arena, 1, &value(1, 1, 9_000)).unwrap();
    let (_worker, descriptors) = arena.attach().unwrap();
    let (mut daemons, workers) = UnixStream::pair().unwrap();
    pass::send(&daemons, &descriptors).unwrap();
    let reader = Reader::attach(workers.into()).unwrap();
    let held = reader.get(&1_u64.to_le_bytes()).unwrap();
    assert!(held.is_in_place());
    drop(reader);
    daemons.set_nonblocking(true).unwrap();
    let why = daemons.read(&mut [0]).unwrap_err();
    assert_eq!(why.kind(), std::io::ErrorKind::WouldBlock, "a value is held still");
    drop(held);
    assert_eq!(daemons.read(&mut [0]).unwrap(), 0, "its end");
}

#[test]
fn memory_that_others_may_write_to_is_not_mapped() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let mut arena = arena(4 << 20);
    let (_worker, descriptors) = arena.attach().unwrap();
    let file = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, 2 << 20).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let again = file.try_clone().unwrap();
    let segment = dstore_arena::Descriptors { segments: vec![file], ..descriptors };
    let why = Reader::map(segment).unwrap_err().to_string();
    assert!(why.contains("not sealed against writing"), "{why}");
    let (_worker, descriptors) = arena.attach().unwrap();
    let why =
        Reader::map(dstore_arena::Descriptors { header: again, ..descriptors }).unwrap_err().to_string();
    assert!(why.contains("not sealed against writing"), "{why}");
}

#[test]
fn a_large_value_whose_name_changes_all_the_while_is_copied_and_pinned() {
    let mut arena = arena_of(8 << 20, 8 << 20);
    let len = (2 << 20) - 60_000;
    set(&mut arena, 1, &value(1, 1, len)).unwrap();
    let (_worker, descriptors) = arena.attach().unwrap();
    let reader = Reader::map(descriptors).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let renewed = scope.spawn(|| {
            let mut era = 1;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(arena.renew(&1_u64.to_le_bytes(), 1, era, 0));
                era += 1;
                // Often beside a copy, seldom beside a lookup.
                if era % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            era
        });
        let (mut copy, mut copied) = (Vec::new(), 0);
        let deadline = Instant::now() + PATIENCE;
        while copied < 5 {
            assert!(Instant::now() < deadline);
            match reader.get_into(&1_u64.to_le_bytes(), &mut copy) {
                Ok(_) => {
                    assert!(copy == value(1, 1, len));
                    copied += 1;
                }
                Err(why) => assert_eq!(why, Miss::Busy),
            }
        }
        for _ in 0..5_000 {
            match reader.get(&1_u64.to_le_bytes()) {
                Ok(value) => assert!(value.is_in_place()),
                Err(why) => assert_eq!(why, Miss::Busy, "a pin of its own stood in its way"),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(renewed.join().unwrap() > 1);
    });
    assert_eq!(reader.pinned().0, 0);
}

#[test]
fn an_arena_whose_largest_value_no_worker_could_pin_is_not_made() {
    let config = Config { budget: 64 << 20, pin_bytes_max: 15 << 20, ..Config::default() };
    let why = Arena::create(config).unwrap_err().to_string();
    assert!(why.contains("pin the largest value"), "{why}");
    assert!(Arena::create(Config { pin_bytes_max: 16 << 20, ..config }).is_ok());
}
