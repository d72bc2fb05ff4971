//! Owns a worker's attachment: how it comes about, what of it is mended, and when it is given up.
//!
//! ```text
//! attach   HELLO -> WELCOME -> one clock? -> descriptors -> mapped
//! miss     the node's end of the socket closed, the daemon took the pins, this is a child  -> attach anew
//!          in a segment that is not mapped                                                   -> MORE, mapped, looked again
//!          anything else                                                                     -> the socket
//! ```
//! Invariants: one attempt at a time, with pauses that grow and are jittered; each ends by its patience and blocks no async
//! thread. A reader that is given up is dropped here only: values that it gave keep it, and its socket, for as long as they
//! live. It must never keep a caller waiting for an attachment that is not to be had.

use super::{Attach, Value};
use crate::Client;
use dstore_arena::{Miss, Reader, layout, pass};
use dstore_proto::shm::{self, Hello, Verdict, WELCOME_BYTES, Welcome};
use dstore_shared::{Error, Moment, Namespace, Result};
use dstore_sys::Sys;
use dstore_sys::net::{Address, LocalSocket};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Added to the path of a node's socket, it is where shared memory is asked for.
const BESIDE: &str = ".shm";
/// How long the node may take for each step of an attachment.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first and the longest pause between attempts to attach.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Whether a worker reads from shared memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SharedMemory {
    /// It does, from the daemon of this incarnation.
    Attached {
        /// Tells one start of the daemon from every other.
        incarnation: [u64; 2],
    },
    /// It does not now, for this reason, and tries again; everything is read over the socket.
    Detached(String),
    /// It was told not to.
    Off,
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached { .. } => f.write_str("attached"),
            Self::Detached(why) => write!(f, "values are read over the socket: {why}"),
            Self::Off => f.write_str("values are read over the socket, as was asked for"),
        }
    }
}

/// What is mapped, and the socket on which more is asked for.
struct Attachment {
    reader: Reader,
    socket: Arc<Mutex<LocalSocket>>,
}

struct Attempts {
    why_not: String,
    /// No attempt before this moment.
    next: Moment,
    pause: Duration,
}

/// The attachment of a worker, of all its clones.
pub(super) struct Shared {
    sys: Sys,
    namespace: Namespace,
    attach: Attach,
    address: Address,
    client: Client,
    attachment: RwLock<Option<Attachment>>,
    attempts: Mutex<Attempts>,
    /// Somebody is at it.
    is_busy: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        sys: &Sys,
        namespace: Namespace,
        attach: Attach,
        address: &Address,
        client: Client,
    ) -> Arc<Self> {
        let attempts = Attempts { why_not: "not tried yet".into(), next: Moment::ZERO, pause: PAUSE.0 };
        Arc::new(Self {
            sys: sys.clone(),
            namespace,
            attach,
            address: address.clone(),
            client,
            attachment: RwLock::new(None),
            attempts: Mutex::new(attempts),
            is_busy: AtomicBool::new(false),
        })
    }

    /// How it is.
    pub(super) fn standing(&self) -> SharedMemory {
        if self.attach == Attach::Off {
            return SharedMemory::Off;
        }
        let why_not = self.attempts.lock().why_not.clone();
        match &*self.attachment.read() {
            Some(attachment) if !attachment.reader.is_mine() => {
                SharedMemory::Detached(Miss::Forked.to_string())
            }
            Some(attachment) => SharedMemory::Attached { incarnation: attachment.reader.incarnation() },
            None => SharedMemory::Detached(why_not),
        }
    }

    /// Looks a key up.
    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> std::result::Result<Value, Miss> {
        match &*self.attachment.read() {
            Some(attachment) => attachment.reader.get(key).map(Value::shared),
            None => Err(Miss::Absent),
        }
    }

    /// The values of all keys, if all are here: each is looked at twice, and was bound so between the first looks and the
    /// second.
    pub(super) fn get_all(&self, keys: &[&[u8]]) -> Option<Vec<Value>> {
        let attachment = self.attachment.read();
        let reader = &attachment.as_ref()?.reader;
        let look = |key: &&[u8]| reader.get(key).ok();
        let first = keys.iter().map(look).collect::<Option<Vec<_>>>()?;
        let is_same = |(key, value): (&&[u8], &dstore_arena::Value)| {
            look(key).is_some_and(|again| again.meta() == value.meta())
        };
        let all = keys.len() < 2 || keys.iter().zip(&first).all(is_same);
        all.then(|| first.into_iter().map(Value::shared).collect())
    }

    /// Mends what a miss tells of, as far as that can be done at once; gives whether it is worth to look again.
    pub(super) async fn mend(self: Arc<Self>, miss: Miss) -> bool {
        match miss {
            Miss::Unmapped => self.map_more().await,
            Miss::Absent | Miss::Lapsed | Miss::Busy | Miss::PinBudget { .. } | Miss::Forked => {
                self.tend();
                false
            }
        }
    }

    /// Attaches anew in the background, if there is reason to and it is time.
    pub(super) fn tend(self: &Arc<Self>) {
        if !self.is_due() {
            return;
        }
        let Some(turn) = Turn::take(self) else { return };
        let shared = self.clone();
        self.client.tasks().spawn("attach", async move { shared.attach_in(turn).await });
    }

    /// Attaches, unless that is under way.
    pub(super) async fn attach(self: Arc<Self>) {
        if let Some(turn) = Turn::take(&self) {
            self.clone().attach_in(turn).await;
        }
    }

    fn is_due(&self) -> bool {
        if self.attach == Attach::Off || self.is_busy.load(Ordering::Relaxed) {
            return false;
        }
        let is_lost = match &*self.attachment.read() {
            None => true,
            Some(Attachment { reader, socket }) => {
                let is_over = socket.try_lock().is_some_and(|socket| socket.has_ended());
                is_over || !reader.is_mine() || reader.is_revoked()
            }
        };
        is_lost && self.sys.clock.now() >= self.attempts.lock().next
    }

    async fn attach_in(self: Arc<Self>, _turn: Turn) {
        let attached = match self.socket_path().await {
            Ok(Some(path)) => {
                let (sys, namespace) = (self.sys.clone(), self.namespace.clone());
                self.sys.blocking.run(move || attach(&sys, &path, namespace)).await
            }
            Ok(None) => Err(Error::unavailable("the node offers none")),
            Err(e) => Err(e),
        };
        let (attachment, why_not) = match attached {
            Ok(attachment) => (Some(attachment), String::new()),
            Err(e) => {
                tracing::debug!(error = %e, "no shared memory: values are read over the socket");
                (None, e.message().to_owned())
            }
        };
        // What was there before is given up without the lock: that unmaps it.
        let before = std::mem::replace(&mut *self.attachment.write(), attachment);
        drop(before);
        self.wait_with_the_next(why_not);
    }

    /// No further attempt for a while; none has failed if there is no reason.
    fn wait_with_the_next(&self, why_not: String) {
        let mut attempts = self.attempts.lock();
        if why_not.is_empty() {
            attempts.pause = PAUSE.0;
        }
        attempts.why_not = why_not;
        // Also after success: an attachment that is lost at once is not made again and again.
        attempts.next = self.sys.clock.now() + self.sys.rng.jitter(attempts.pause);
        attempts.pause = (attempts.pause * 2).min(PAUSE.1);
    }

    /// Where to ask.
    async fn socket_path(&self) -> Result<Option<PathBuf>> {
        match (&self.attach, &self.address) {
            (Attach::Off, _) => Ok(None),
            (Attach::At(path), _) => Ok(Some(path.clone())),
            (Attach::Found, Address::Unix(path)) => {
                let mut beside = path.clone().into_os_string();
                beside.push(BESIDE);
                Ok(Some(beside.into()))
            }
            (Attach::Found, _) => {
                let status = self.client.status().await?;
                let told = status.facts.into_iter().find(|(fact, _)| fact == "shm");
                Ok(told.map(|(_, path)| path.into()))
            }
        }
    }

    /// Maps the segments that are there by now, unless somebody is at it: nobody waits for another. If they cannot be had the
    /// attachment is given up: each further call would wait for them, too.
    async fn map_more(&self) -> bool {
        let Some((reader, socket)) =
            self.attachment.read().as_ref().map(|one| (one.reader.clone(), one.socket.clone()))
        else {
            return false;
        };
        let asked = socket.clone();
        match self.sys.blocking.run(move || map_more(&reader, &asked)).await {
            Ok(is_mapped) => is_mapped,
            Err(e) => {
                let given_up = self.attachment.write().take_if(|one| Arc::ptr_eq(&one.socket, &socket));
                if given_up.is_some() {
                    self.wait_with_the_next(format!("the node did not give what it has added: {e}"));
                }
                false
            }
        }
    }
}

/// The only one that attaches now.
struct Turn(Arc<Shared>);

impl Turn {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let is_free = !shared.is_busy.swap(true, Ordering::AcqRel);
        is_free.then(|| Self(shared.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
    }
}

fn attach(sys: &Sys, path: &std::path::Path, namespace: Namespace) -> Result<Attachment> {
    let failed = |e: std::io::Error| {
        let path = path.display();
        Error::unavailable(format!("the node does not answer at `{path}`: {e}")).caused_by(e)
    };
    let mut socket = LocalSocket::connect(path, PATIENCE).map_err(failed)?;
    let before = sys.clock.now();
    let hello = Hello { layout: layout::VERSION, now: before, namespace };
    let mut welcome = [0; WELCOME_BYTES];
    socket.ask(&hello.encode(), &mut welcome).map_err(failed)?;
    let after = sys.clock.now();
    let Welcome { verdict, now, text, .. } = Welcome::decode(&welcome)?;
    if verdict != Verdict::Attached {
        return Err(Error::unavailable(text));
    }
    if !shm::is_one_clock(before, now, after) {
        return Err(Error::unavailable(
            "the node's CLOCK_BOOTTIME is not this process's: they are in different time namespaces",
        ));
    }
    let foreign = |e: dstore_arena::Error| Error::unavailable(e.to_string()).caused_by(e);
    let more = socket.try_clone().map_err(failed)?;
    let reader = Reader::attach_since(socket.into(), before.as_nanos()).map_err(foreign)?;
    Ok(Attachment { reader, socket: Arc::new(Mutex::new(more)) })
}

/// Gives whether all is mapped; not if somebody else asks just now.
fn map_more(reader: &Reader, socket: &Mutex<LocalSocket>) -> std::result::Result<bool, dstore_arena::Error> {
    let Some(mut socket) = socket.try_lock() else { return Ok(false) };
    // Perhaps somebody else has, meanwhile.
    let (mapped, there) = reader.segments();
    if mapped >= there {
        return Ok(true);
    }
    let asked = socket.ask(&shm::more(mapped as u32), &mut []);
    asked.map_err(|source| dstore_arena::Error::System { what: "asking for segments", source })?;
    reader.extend(mapped, pass::receive_segments(&*socket)?)?;
    Ok(true)
}
