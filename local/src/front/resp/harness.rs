//! A connection without a client and a node without a Global: for unit tests and fuzzing.
//!
//! What asks Global fails, or is given up after one look.

use super::commands::Later;
use super::config::RespConfig;
#[cfg(test)]
use super::connection::Fate;
use super::connection::{Connection, Lent};
use super::door::Door;
use super::mail::Mailbox;
use super::reply::Reply;
use crate::{Local, LocalConfig};
use dstore_shared::Moment;
use dstore_sys::Sys;
use dstore_sys::net::{Address, MemoryNet};
use dstore_sys::ready::{Poller, Stream};
use dstore_sys::tasks::Tasks;
#[cfg(test)]
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A node that never reaches its Global, and its door.
pub struct Harness {
    runtime: Runtime,
    door: Arc<Door>,
    mailbox: Arc<Mailbox>,
    _local: Local,
    _poller: Poller,
}

/// A connection to it.
pub struct Talk<'a> {
    harness: &'a Harness,
    /// This side of it.
    pub connection: Connection,
    /// The client's side.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests read and write there"))]
    far: Stream,
    input: Vec<u8>,
    /// What asks Global stays under way without a look, instead of being given up after one.
    pub patient: bool,
}

/// Whether somebody was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls for as long as it is woken at once.
fn look(later: &mut Later) -> Option<Reply> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    loop {
        match later.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reply) => return Some(reply),
            Poll::Pending if bell.0.swap(false, Ordering::Relaxed) => {}
            Poll::Pending => return None,
        }
    }
}

impl Harness {
    /// Starts a node; `started` lets commands pass that would be told that the node is starting.
    pub fn new(config: RespConfig, started: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let deadline = Duration::from_millis(500);
        let settings = LocalConfig { deadline, ..LocalConfig::new(Address::Memory("nowhere".into())) };
        let local = runtime.block_on(Local::start(sys.clone(), settings)).expect("it needs no Global");
        let door = Door::new(&sys, &Tasks::new(), local.node().clone(), config);
        door.pretend_started(started);
        let poller = Poller::new().expect("a poller");
        let mailbox = Arc::new(Mailbox::new(poller.waker()));
        Self { runtime, door, mailbox, _local: local, _poller: poller }
    }

    /// A client comes.
    pub fn talk(&self) -> Talk<'_> {
        let (stream, far) = Stream::pair().expect("a pair of sockets");
        let addresses = ("127.0.0.1:1".into(), "127.0.0.1:2".into());
        let peer = self.door.peers.enter(addresses, (&self.mailbox, 0), Moment::ZERO, usize::MAX);
        let connection = Connection::new(stream, peer.expect("there is room"), &self.door);
        Talk { harness: self, connection, far, input: Vec::new(), patient: false }
    }
}

impl Talk<'_> {
    /// Says something, and gives what is answered at once.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let used = self.with(&mut [0; 16], |connection, lent| connection.run(&input, lent));
        self.input = input[used..].to_vec();
        let said = self.connection.output.to_bytes();
        self.connection.output = super::output::Output::default();
        said
    }

    fn with<T>(&mut self, scratch: &mut [u8], act: impl FnOnce(&mut Connection, &mut Lent<'_>) -> T) -> T {
        let _within = self.harness.runtime.enter();
        let patient = self.patient;
        // What is looked at may be ready by chance.
        let mut begin = |mut later: Later, _| {
            (!patient).then(|| look(&mut later).unwrap_or(Reply::error("TRYAGAIN given up")))
        };
        let (mut spare, mut packed) = (Vec::new(), Vec::new());
        let (mut commands, mut hits) = (0, 0);
        let mut lent = Lent {
            door: &self.harness.door,
            scratch,
            spare: &mut spare,
            packed: &mut packed,
            begin: &mut begin,
            commands: &mut commands,
            hits: &mut hits,
            now: Moment::ZERO,
        };
        act(&mut self.connection, &mut lent)
    }

    /// Whether it will be disconnected.
    pub fn is_closing(&self) -> bool {
        self.connection.closing
    }
}

#[cfg(test)]
impl Harness {
    /// What all connections share.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Where futures run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

#[cfg(test)]
impl Talk<'_> {
    /// Writes to the socket what it takes, and lets the connection have a turn; gives how much was taken, and the fate.
    pub fn send(&mut self, bytes: &[u8]) -> (usize, Fate) {
        let sent = self.far.write(bytes).unwrap_or(0);
        self.connection.ready(true, false);
        (sent, self.turn())
    }

    /// Lets the connection have a turn.
    pub fn turn(&mut self) -> Fate {
        self.with(&mut vec![0; 1 << 16], Connection::turn)
    }

    /// What came at the client's side.
    pub fn read(&mut self) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(n) = self.far.read(&mut piece) {
            all.extend_from_slice(&piece[..n]);
            if n == 0 {
                break;
            }
        }
        all
    }
}

/// Reads one reply from the beginning of `bytes`; gives what follows. `None`: it is none.
pub fn after_reply(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let (kind, text) = line.split_first()?;
    let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let many = |n: usize| (0..n).try_fold(rest, |rest, _| after_reply(rest));
    match kind {
        b'+' | b'-' => (!text.contains(&b'\n')).then_some(rest),
        b':' => number().map(|_| rest),
        b'_' => text.is_empty().then_some(rest),
        b'$' | b'=' => match number()? {
            -1 => Some(rest),
            n => {
                let n = usize::try_from(n).ok()?;
                (rest.get(n..n + 2)? == b"\r\n").then(|| &rest[n + 2..])
            }
        },
        b'*' | b'~' | b'>' => match number()? {
            -1 => Some(rest),
            n => many(usize::try_from(n).ok()?),
        },
        b'%' => many(2 * usize::try_from(number()?).ok()?),
        _ => None,
    }
}
