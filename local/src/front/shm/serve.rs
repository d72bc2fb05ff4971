//! Who is at the door: one thread for all workers, which wakes only when one comes, asks or goes, and a few times a second
//! while any is there.

use crate::cache::NotShelved;
use crate::core::{Core, Shown};
use dstore_arena::{Error, layout, pass};
use dstore_proto::shm::{self, HELLO_BYTES, Hello, MORE_BYTES, Verdict, Welcome};
use dstore_shared::{Moment, Namespace};
use dstore_sys::ready::{Acceptor, PeerProcess, Poller, Stream};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The acceptor's token: no guest has it.
const ACCEPTOR: usize = usize::MAX - 1;
/// How often the arenas are swept while somebody is there.
const SWEEP: Duration = Duration::from_millis(250);
/// How often it is looked whether somebody is to be let in who could not be before.
const IDLE: Duration = Duration::from_secs(60);
/// By when HELLO must have come.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// How old the worker's reading of the clock may be when it is compared.
const READING_MAX: Duration = Duration::from_secs(10);
/// Questions for segments that one worker may ask: more than an arena has segments.
const QUESTIONS_MAX: u32 = 1 << 16;
/// What a guest that is not heard any more has said is thrown away, so many bytes at each sweep, in search of its end.
const SCRAP_BYTES: usize = 4096;

/// Somebody who connected.
struct Guest {
    /// `None`: it was sent away, and its process tells when it has ended.
    stream: Option<Stream>,
    process: Option<PeerProcess>,
    /// It was sent away and may read on: its pins count until it has ended. It is not heard.
    is_dismissed: bool,
    came: Moment,
    frame: [u8; HELLO_BYTES],
    len: usize,
    /// Its namespace and its number there, once it is attached.
    worker: Option<(Namespace, u64)>,
    questions: u32,
}

impl Guest {
    /// Sends it away. Whose process cannot be watched keeps its socket: that alone tells when it reads no more.
    fn dismiss(&mut self) {
        self.is_dismissed = true;
        if self.process.is_some() {
            self.stream = None;
        }
    }

    /// Whether it is not to be waited for, or reads no more.
    fn has_gone(&mut self, now: Moment) -> bool {
        let is_late = self.worker.is_none() && now.since(self.came) > HELLO_MAX;
        is_late
            || self.process.as_ref().is_some_and(PeerProcess::has_ended)
            || self.is_dismissed && self.has_closed()
    }

    fn has_closed(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        match stream.read(&mut [0; SCRAP_BYTES]) {
            Ok(n) => n == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// What came of listening to somebody.
enum Heard {
    /// There is no more for now.
    All,
    /// It said something, and perhaps more: it is heard again when everybody else was.
    More,
    /// It closed its socket.
    End,
    /// It cannot be served.
    Nonsense,
}

/// The thread's state.
pub(super) struct Attendance {
    core: Arc<Core>,
    poller: Poller,
    acceptor: Acceptor,
    guests: Slab<Guest>,
    guests_max: usize,
    swept: Moment,
    shown: Arc<Shown>,
    /// Who may have more to say, of which the poller told already.
    talking: Vec<usize>,
    /// The poller tells nothing any more: everybody is looked at at each sweep.
    is_blind: bool,
}

impl Attendance {
    pub(super) fn new(
        core: Arc<Core>,
        poller: Poller,
        mut acceptor: Acceptor,
        guests_max: usize,
        shown: Arc<Shown>,
    ) -> io::Result<Self> {
        poller.add_acceptor(&mut acceptor, ACCEPTOR)?;
        let swept = core.sys.clock.now();
        Ok(Self {
            core,
            poller,
            acceptor,
            guests: Slab::new(),
            guests_max,
            swept,
            shown,
            talking: Vec::new(),
            is_blind: false,
        })
    }

    pub(super) fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            // Nobody is detached by that: whoever was served goes on reading.
            tracing::error!("the door to shared memory panicked: it goes on: report this");
            std::thread::sleep(SWEEP);
        }
    }

    fn serve(&mut self) {
        let mut ready = Vec::new();
        while !self.shown.is_stopped.load(Ordering::Acquire) {
            self.wait(&mut ready);
            // Also without being told: the process may have had no descriptor for one before.
            self.let_in();
            for token in ready.drain(..).filter(|token| *token != ACCEPTOR) {
                self.turn_of(token);
            }
            self.sweep();
        }
    }

    /// Waits for something to do. The door does not end with its poller: pins count until somebody has seen that nothing
    /// is read by them.
    fn wait(&mut self, ready: &mut Vec<usize>) {
        let limit = match (self.talking.is_empty(), self.guests.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, true) => IDLE,
            (true, false) => SWEEP,
        };
        match self.poller.wait(Some(limit)) {
            Ok(told) => ready.extend(told.map(|event| event.token)),
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::error!(%error, "the door to shared memory cannot wait for workers: it looks at each in turn");
                }
                std::thread::sleep(SWEEP);
                ready.extend(self.guests.iter().map(|(token, _)| token));
            }
        }
        ready.append(&mut self.talking);
        ready.sort_unstable();
        ready.dedup();
    }

    fn let_in(&mut self) {
        while let Ok(mut stream) = self.acceptor.accept() {
            let now = self.core.sys.clock.now();
            if self.guests.len() >= self.guests_max {
                let text = format!(
                    "`{}` workers are attached already: values are read over the socket",
                    self.guests_max
                );
                let welcome = Welcome { verdict: Verdict::Exhausted, now, worker: 0, text };
                let _ = stream.write_all(&welcome.encode());
                continue;
            }
            let place = self.guests.vacant_entry();
            if self.poller.add(&mut stream, place.key()).is_err() {
                continue;
            }
            let process = stream.peer_process();
            let (frame, len) = ([0; HELLO_BYTES], 0);
            let token = place.key();
            place.insert(Guest {
                stream: Some(stream),
                process,
                is_dismissed: false,
                came: now,
                frame,
                len,
                worker: None,
                questions: 0,
            });
            // What it said before it was added is not told of.
            self.turn_of(token);
        }
    }

    fn turn_of(&mut self, token: usize) {
        match self.hear(token) {
            Heard::All => {}
            Heard::More => self.talking.push(token),
            Heard::End => self.see_off(token),
            Heard::Nonsense => self.dismiss(token),
        }
    }

    /// Reads what a guest says, one thing at a time, and does it.
    fn hear(&mut self, token: usize) -> Heard {
        loop {
            let Some(guest) = self.guests.get_mut(token) else { return Heard::All };
            let Some(stream) = guest.stream.as_mut().filter(|_| !guest.is_dismissed) else {
                return Heard::All;
            };
            let wanted = if guest.worker.is_some() { MORE_BYTES } else { HELLO_BYTES };
            match stream.read(&mut guest.frame[guest.len..wanted]) {
                Ok(0) => return Heard::End,
                Ok(n) => guest.len += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Heard::All,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Heard::End,
            }
            if guest.len < wanted {
                continue;
            }
            guest.len = 0;
            if guest.worker.is_none() {
                if !self.welcome(token) {
                    // It lacks what is sent last: nobody can read by what it has.
                    return Heard::End;
                }
            } else if !self.give_more(token) {
                return Heard::Nonsense;
            }
            return Heard::More;
        }
    }

    /// Attaches a worker, or tells it why not.
    fn welcome(&mut self, token: usize) -> bool {
        let Some(guest) = self.guests.get_mut(token) else { return false };
        let now = self.core.sys.clock.now();
        let (verdict, text, attached) = match judge(&guest.frame, now) {
            Err((verdict, text)) => (verdict, text, None),
            Ok(namespace) => match self.core.attach(&namespace) {
                Ok(attached) => (Verdict::Attached, String::new(), Some((namespace, attached))),
                Err(why) => (verdict_of(&why), why.to_string(), None),
            },
        };
        let worker = attached.as_ref().map_or(0, |(_, attached)| attached.worker);
        let welcome = Welcome { verdict, now, worker, text };
        // What was attached is detached with the guest, whether it is told of it or not.
        let descriptors = attached.map(|(namespace, attached)| {
            guest.worker = Some((namespace, attached.worker));
            self.shown.workers.fetch_add(1, Ordering::Relaxed);
            attached.descriptors
        });
        let Some(stream) = &mut guest.stream else { return false };
        let told = stream.write_all(&welcome.encode());
        told.is_ok() && descriptors.is_some_and(|all| pass::send(&*stream, &all).is_ok())
    }

    fn give_more(&mut self, token: usize) -> bool {
        let Some(guest) = self.guests.get_mut(token) else { return false };
        let Some((namespace, _)) = &guest.worker else { return false };
        let Some((frame, _)) = guest.frame.split_first_chunk() else { return false };
        let Some(from) = shm::read_more(frame) else { return false };
        guest.questions += 1;
        let segments = self.core.cache.segments(namespace, from as usize);
        guest.questions <= QUESTIONS_MAX
            && segments.is_ok_and(|segments| {
                guest.stream.as_ref().is_some_and(|stream| pass::send_segments(stream, &segments).is_ok())
            })
    }

    /// A guest is sent away. One that was attached may still read: its pins count until it has ended.
    fn dismiss(&mut self, token: usize) {
        match self.guests.get_mut(token) {
            Some(guest) if guest.worker.is_some() => guest.dismiss(),
            _ => self.see_off(token),
        }
    }

    /// A guest reads no more.
    fn see_off(&mut self, token: usize) {
        let guest = self.guests.remove(token);
        if let Some((namespace, worker)) = guest.worker {
            self.shown.workers.fetch_sub(1, Ordering::Relaxed);
            self.core.cache.detach(&namespace, worker);
        }
    }

    fn sweep(&mut self) {
        let now = self.core.sys.clock.now();
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let gone = self.guests.iter_mut().filter_map(|(token, guest)| guest.has_gone(now).then_some(token));
        let gone: Vec<usize> = gone.collect();
        gone.into_iter().for_each(|token| self.see_off(token));
        self.core.sweep_workers();
    }
}

/// Whether a worker that says this can be attached, and to what.
fn judge(frame: &[u8; HELLO_BYTES], now: Moment) -> Result<Namespace, (Verdict, String)> {
    let hello = Hello::decode(frame)?;
    if hello.layout != layout::VERSION {
        let why = Error::Layout { found: layout::VERSION.into(), known: hello.layout };
        return Err((Verdict::Layout, why.to_string()));
    }
    if !shm::is_one_clock(hello.now, now, hello.now + READING_MAX) {
        let text = "the worker's CLOCK_BOOTTIME is not the node's: they are in different time namespaces";
        return Err((Verdict::Clock, text.into()));
    }
    Ok(hello.namespace)
}

fn verdict_of(why: &NotShelved) -> Verdict {
    match why {
        NotShelved::Arena(Error::Unsupported { .. } | Error::Config { .. }) => Verdict::Unsupported,
        NotShelved::TooMany | NotShelved::NoRoom | NotShelved::Arena(_) => Verdict::Exhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(stream: Stream, came: Moment) -> Guest {
        let worker = Some((Namespace::default(), 1));
        let (frame, len) = ([0; HELLO_BYTES], 0);
        Guest {
            stream: Some(stream),
            process: None,
            is_dismissed: false,
            came,
            frame,
            len,
            worker,
            questions: 0,
        }
    }

    #[test]
    fn who_was_sent_away_and_whose_process_is_unknown_counts_until_it_closes_its_socket() {
        let (ours, mut theirs) = Stream::pair().unwrap();
        let mut guest = guest(ours, Moment::ZERO);
        guest.dismiss();
        let said = theirs.write(&[7; 3 * SCRAP_BYTES]).unwrap();
        for _ in 0..said.div_ceil(SCRAP_BYTES) + 2 {
            assert!(!guest.has_gone(Moment::MAX), "it may still read");
        }
        drop(theirs);
        assert!(guest.has_gone(Moment::MAX));
    }

    #[test]
    fn who_never_said_hello_is_waited_for_no_longer_than_its_time() {
        let (ours, _theirs) = Stream::pair().unwrap();
        let mut guest = Guest { worker: None, ..guest(ours, Moment::ZERO) };
        assert!(!guest.has_gone(Moment::ZERO + HELLO_MAX));
        assert!(guest.has_gone(Moment::ZERO + HELLO_MAX + SWEEP));
    }
}
