//! The peer Redis, started from the distribution's package, and a lean client of it: RESP over a Unix socket,
//! one thread, epoll, no allocation a command.

use crate::harness::{Turn, serial, value};
use crate::place::Process;
use rustix::event::epoll;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub struct Redis {
    process: Process,
    dir: tempfile::TempDir,
}

impl Redis {
    /// `None`, said on stderr, if it is not installed. `fsync`: what `appendfsync` is set to.
    pub fn start(core: usize, fsync: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        Self::start_in(core, fsync, dir)
    }

    /// At a port too.
    pub fn listening(core: usize, fsync: &str, port: u16) -> Option<Self> {
        Self::begin(core, fsync, tempfile::tempdir().expect("a directory"), port)
    }

    pub fn start_in(core: usize, fsync: &str, dir: tempfile::TempDir) -> Option<Self> {
        Self::begin(core, fsync, dir, 0)
    }

    fn begin(core: usize, fsync: &str, dir: tempfile::TempDir, port: u16) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            fsync,
        ]);
        command.args(["--auto-aof-rewrite-percentage", "0", "--unixsocket"]).arg(socket(dir.path()));
        command.arg("--dir").arg(dir.path());
        let Some(process) = Process::start(core, &mut command) else {
            eprintln!("redis-server is not installed: its figures are left out");
            return None;
        };
        let redis = Self { process, dir };
        let began = Instant::now();
        while !redis.answers() {
            assert!(began.elapsed() < Duration::from_secs(60), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(redis)
    }

    fn answers(&self) -> bool {
        let Ok(stream) = UnixStream::connect(socket(self.dir.path())) else { return false };
        let mut conn = Conn { stream, got: Vec::new() };
        conn.send(&[b"PING"]);
        conn.reply().starts_with(b"+PONG")
    }

    pub fn connect(&self) -> Conn {
        let stream = UnixStream::connect(socket(self.dir.path())).expect("redis listens");
        Conn { stream, got: Vec::with_capacity(128 << 10) }
    }

    pub fn clients(&self, n: usize) -> Clients {
        Clients::new((0..n).map(|_| self.connect()).collect())
    }

    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// kill -9; the directory is kept.
    pub fn kill(self) -> tempfile::TempDir {
        self.process.kill();
        let _ = std::fs::remove_file(socket(self.dir.path()));
        self.dir
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("s")
}

/// One connection with at most one command under way.
pub struct Conn {
    stream: UnixStream,
    got: Vec<u8>,
}

impl Conn {
    pub fn send(&mut self, parts: &[&[u8]]) {
        let mut out = Vec::with_capacity(64 + parts.iter().map(|p| p.len() + 16).sum::<usize>());
        command(&mut out, parts);
        self.stream.write_all(&out).expect("redis reads");
    }

    /// Waits for the next reply or push, whole.
    pub fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = reply_len(&self.got) {
                return self.got.drain(..len).collect();
            }
            self.read();
        }
    }

    pub fn ask(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        self.send(parts);
        self.reply()
    }

    fn read(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        let n = self.stream.read(&mut buffer).expect("redis answers");
        assert!(n > 0, "redis closed the connection");
        self.got.extend_from_slice(&buffer[..n]);
    }

    /// Takes a whole reply away if it has come.
    fn take(&mut self) -> bool {
        let len = reply_len(&self.got);
        if let Some(len) = len {
            assert!(self.got[0] != b'-', "{}", self.got[..len].escape_ascii());
            self.got.drain(..len);
        }
        len.is_some()
    }
}

/// A command as RESP.
pub fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Length of the reply at the start of `got`, if it is whole.
fn reply_len(got: &[u8]) -> Option<usize> {
    let line = got.windows(2).position(|w| w == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&got[1..line - 2]).ok()?.parse::<i64>().ok();
    let mut at = line;
    match got[0] {
        b'$' => at += count().filter(|n| *n >= 0).map_or(0, |n| n as usize + 2),
        kind @ (b'*' | b'>' | b'%') => {
            let parts = count()? * if kind == b'%' { 2 } else { 1 };
            for _ in 0..parts {
                at += reply_len(got.get(at..)?)?;
            }
        }
        _ => {}
    }
    (at <= got.len()).then_some(at)
}

/// Connections that one thread serves.
pub struct Clients {
    conns: Vec<Conn>,
    began: Vec<Instant>,
    poll: rustix::fd::OwnedFd,
}

impl Clients {
    fn new(conns: Vec<Conn>) -> Self {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        for (at, conn) in conns.iter().enumerate() {
            epoll::add(&poll, &conn.stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)
                .expect("epoll");
        }
        Self { began: vec![Instant::now(); conns.len()], conns, poll }
    }

    /// SETs of fresh keys for `span`, one under way on each connection.
    pub fn set(&mut self, span: Duration, size: usize) -> Turn {
        let mut bytes = value(0, size);
        self.drive(span, move |out| {
            let number = serial();
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            command(out, &[b"SET", format!("k{number:015}").as_bytes(), &bytes]);
        })
    }

    /// Keeps one command under way on each connection for `span`.
    pub fn drive(&mut self, span: Duration, mut next: impl FnMut(&mut Vec<u8>)) -> Turn {
        let (mut turn, start) = (Turn::begin(), Instant::now());
        let mut out = Vec::with_capacity(128 << 10);
        let mut begin = |conn: &mut Conn, began: &mut Instant| {
            out.clear();
            next(&mut out);
            *began = Instant::now();
            conn.stream.write_all(&out).expect("redis reads");
        };
        for (conn, began) in self.conns.iter_mut().zip(&mut self.began) {
            begin(conn, began);
        }
        let mut running = self.conns.len();
        let mut events = Vec::with_capacity(self.conns.len());
        while running > 0 {
            events.clear();
            if self.conns.len() == 1 {
                self.conns[0].read();
                events.push(0);
            } else {
                let mut ready = Vec::with_capacity(self.conns.len());
                epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), None).expect("epoll");
                for event in ready {
                    let at = event.data.u64() as usize;
                    self.conns[at].read();
                    events.push(at);
                }
            }
            for at in &events {
                let (conn, began) = (&mut self.conns[*at], &mut self.began[*at]);
                if conn.take() {
                    turn.note(*began);
                    if start.elapsed() < span {
                        begin(conn, began);
                    } else {
                        running -= 1;
                    }
                }
            }
        }
        turn.took = start.elapsed();
        turn
    }
}
