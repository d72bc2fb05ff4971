use super::super::config::RespConfig;
use super::super::harness::Harness;
use super::*;
use dstore_sys::net::Address;
use dstore_sys::tasks::Thread;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// For what must come, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);

/// A loop that runs, and where it listens.
struct Open {
    harness: Harness,
    mailbox: Arc<Mailbox>,
    thread: Option<Thread>,
    dir: tempfile::TempDir,
}

impl Open {
    fn new(config: RespConfig) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let harness = Harness::new(config, true);
        let acceptor = Acceptor::bind(&Address::Unix(dir.path().join("s"))).expect("bound");
        let mut one = EventLoop::new(harness.door()).expect("descriptors");
        let mailbox = one.mailbox();
        one.accept(vec![acceptor], vec![mailbox.clone()]).expect("added");
        let within = harness.runtime().enter();
        let thread = Thread::start("resp-test", move || one.run()).expect("a thread");
        drop(within);
        Self { harness, mailbox, thread: Some(thread), dir }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("s")).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("set");
        stream.set_write_timeout(Some(SOON)).expect("set");
        stream
    }

    /// A client that is told of what it reads, and its number.
    fn tracking(&self) -> (UnixStream, Arc<crate::front::resp::peers::Peer>) {
        let mut stream = self.connect();
        stream.write_all(b"HELLO 3\r\nCLIENT TRACKING ON\r\nCLIENT ID\r\n").expect("written");
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n") || !said.windows(6).any(|w| w == b"+OK\r\n:") {
            let mut bytes = [0; 4096];
            let n = stream.read(&mut bytes).expect("answered");
            said.extend_from_slice(&bytes[..n]);
        }
        let text = String::from_utf8_lossy(&said).into_owned();
        let id = text.trim_end().rsplit(':').next().and_then(|id| id.parse().ok()).expect("a number");
        (stream, self.harness.door().peers.find(id).expect("it is there"))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.take() {
            self.harness.runtime().block_on(thread.ended());
        }
    }
}

/// Whether the other side ends it, whatever it says before.
fn ends(stream: &mut UnixStream) -> bool {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn ping(stream: &mut UnixStream) {
    stream.write_all(b"PING\r\n").expect("written");
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).expect("answered");
    assert_eq!(&pong, b"+PONG\r\n");
}

#[test]
fn who_is_slow_with_a_command_or_takes_no_replies_is_given_up_and_who_is_idle_is_not() {
    let open = Open::new(RespConfig { patience: Duration::from_secs(1), ..RespConfig::default() });
    let (mut idle, mut half, mut slow, mut deaf) =
        (open.connect(), open.connect(), open.connect(), open.connect());
    ping(&mut idle);
    half.write_all(b"*2\r\n$3\r\nGET\r\n$5\r\nab").expect("written");
    deaf.write_all(&[b"*2\r\n$4\r\nECHO\r\n$50000\r\n", &vec![7; 50_000][..], b"\r\n"].concat().repeat(20))
        .ok();
    // A byte now and then is not enough.
    slow.write_all(b"*2\r\n$3\r\nGET\r\n$60000\r\n").expect("written");
    slow.set_nonblocking(true).expect("set");
    let mut sent = 0;
    while slow.write(b"x").is_ok() && sent < 1200 {
        sent += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(sent < 1200, "a byte now and then is enough");
    assert!(ends(&mut half) && ends(&mut deaf));
    ping(&mut idle);
    assert_eq!(open.harness.door().peers.len(), 1);
}

#[test]
fn who_never_reads_what_he_is_told_is_disconnected_and_who_reads_is_not() {
    let open = Open::new(RespConfig::default());
    let ((mut deaf, deaf_peer), (mut reader, reading)) = (open.tracking(), open.tracking());
    reader.set_nonblocking(true).expect("set");
    let (mut bytes, mut all) = (vec![0; 1 << 16], 0);
    let key = "k".repeat(1000);
    let mut told = 0;
    while !deaf_peer.gone.load(Ordering::Relaxed) {
        for peer in [&deaf_peer, &reading] {
            open.harness.door().tracking.tell(peer.id, Reply::Array(vec![Reply::text(key.clone())]));
        }
        told += 1;
        assert!(told < 20_000, "`{told}` times 1000 bytes are kept for a client that reads nothing");
        while all + (1 << 20) < told * key.len() {
            all += reader.read(&mut bytes).unwrap_or(0);
            assert!(!reading.gone.load(Ordering::Relaxed), "it reads what it is told");
        }
    }
    assert!(ends(&mut deaf), "it gets what the socket took, and the end");
    assert!(!reading.gone.load(Ordering::Relaxed));
    reader.set_nonblocking(false).expect("set");
    while all < told * key.len() {
        all += reader.read(&mut bytes).expect("it is told all");
    }
}

#[test]
fn after_a_panic_between_its_wake_and_its_look_a_loop_is_woken_again() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut one = EventLoop::new(harness.door()).expect("descriptors");
    let peer = harness.talk().connection.peer.clone();
    one.mailbox.put(Letter::Kill(peer));
    assert_eq!(
        one.poller.wait(Some(SOON)).expect("waited").count(),
        0,
        "it is woken, and no socket is ready"
    );
    one.begin_anew();
    let began = harness.door().clock.now();
    assert_eq!(one.poller.wait(Some(SOON)).expect("waited").count(), 0);
    assert!(harness.door().clock.now().since(began) < SOON / 2, "what was put in is looked at");
    one.mailbox.take(&mut one.letters);
    assert_eq!(one.letters.len(), 1);
}

#[test]
fn the_futures_of_a_connection_end_with_it_and_no_others() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut one = EventLoop::new(harness.door()).expect("descriptors");
    let (mut running, mut numbers) = (Slab::new(), 0);
    let mut places = vec![Vec::new(), Vec::new()];
    for n in 0..10 {
        let to = (n % 2, n as u64, 0);
        let never = Box::pin(std::future::pending());
        assert!(begin((&mut running, &mut places[n % 2]), &mut numbers, &one.mailbox, never, to).is_none());
    }
    (one.running, one.places) = (running, places);
    let mut clients: Vec<_> = (0..2).map(|_| harness.talk().connection).collect();
    let first = one.connections.insert(clients.remove(0));
    one.connections.insert(clients.remove(0));
    one.end(first);
    assert_eq!(one.running.len(), 5);
    assert!(one.running.iter().all(|(_, running)| running.token == 1) && one.places[0].is_empty());
}
