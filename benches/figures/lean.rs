//! Owns a lean load of RESP: one thread, epoll, a fixed number of commands under way on each connection, no allocation
//! a command, every byte of every reply compared with what must come.

use crate::harness::Turn;
use rustix::event::epoll;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where a server of RESP listens.
#[derive(Clone)]
pub enum Door {
    Unix(PathBuf),
    Tcp(String),
}

impl Door {
    /// Waits until somebody answers there.
    pub fn await_answer(&self) {
        let began = Instant::now();
        while !self.answers() {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody speaks RESP there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        let Some(mut conn) = self.connect() else { return false };
        let mut got = [0; 7];
        conn.write_all(b"PING\r\n").is_ok() && conn.read_exact(&mut got).is_ok() && &got == b"+PONG\r\n"
    }

    /// A socket, which is a file that is read and written like any.
    fn connect(&self) -> Option<File> {
        let socket = match self {
            Self::Unix(path) => OwnedFd::from(UnixStream::connect(path).ok()?),
            Self::Tcp(at) => {
                let stream = TcpStream::connect(at).ok()?;
                stream.set_nodelay(true).ok()?;
                OwnedFd::from(stream)
            }
        };
        Some(File::from(socket))
    }
}

/// Connections that one thread serves.
pub struct Load {
    conns: Vec<Conn>,
    poll: OwnedFd,
    buffer: Vec<u8>,
}

struct Conn {
    socket: File,
    /// Bytes of the replies that have come.
    got: usize,
    began: Instant,
}

impl Load {
    pub fn new(door: &Door, connections: usize) -> Self {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let conns: Vec<_> = (0..connections)
            .map(|_| Conn { socket: door.connect().expect("it listens"), got: 0, began: Instant::now() })
            .collect();
        for (at, conn) in conns.iter().enumerate() {
            epoll::add(&poll, &conn.socket, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)
                .expect("epoll");
        }
        Self { conns, poll, buffer: vec![0; 1 << 20] }
    }

    /// Sends one command and gives its reply, which is as long as `len`.
    pub fn ask(&mut self, command: &[u8], len: usize) -> Vec<u8> {
        let mut reply = vec![0; len];
        let socket = &mut self.conns[0].socket;
        socket.write_all(command).expect("it reads");
        socket.read_exact(&mut reply).expect("it answers");
        reply
    }

    /// For `span`, keeps batches of `depth` commands under way on each connection: `next` writes one command. Each is
    /// answered by `reply`.
    pub fn drive(
        &mut self,
        span: Duration,
        depth: usize,
        reply: &[u8],
        mut next: impl FnMut(&mut Vec<u8>),
    ) -> Turn {
        let replies = reply.repeat(depth);
        let (mut turn, start, mut out) = (Turn::begin(), Instant::now(), Vec::with_capacity(1 << 20));
        let mut begin = |conn: &mut Conn| {
            out.clear();
            (0..depth).for_each(|_| next(&mut out));
            (conn.got, conn.began) = (0, Instant::now());
            conn.socket.write_all(&out).expect("it reads");
        };
        self.conns.iter_mut().for_each(&mut begin);
        let (mut running, alone) = (self.conns.len(), self.conns.len() == 1);
        let mut ready = Vec::with_capacity(self.conns.len());
        while running > 0 {
            ready.clear();
            if !alone {
                epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), None).expect("epoll");
            }
            let of_all = ready.iter().map(|event| event.data.u64() as usize);
            for at in of_all.chain(alone.then_some(0)) {
                let conn = &mut self.conns[at];
                if !conn.read(&mut self.buffer, &replies) {
                    continue;
                }
                turn.note_many(conn.began, depth as u64);
                if start.elapsed() < span {
                    begin(conn);
                } else {
                    running -= 1;
                }
            }
        }
        turn.took = start.elapsed();
        turn
    }
}

impl Conn {
    /// Reads what is there; whether all replies have come.
    fn read(&mut self, buffer: &mut [u8], replies: &[u8]) -> bool {
        let wanted = (replies.len() - self.got).min(buffer.len());
        let n = self.socket.read(&mut buffer[..wanted]).expect("it answers");
        assert!(n > 0, "the connection was closed");
        let due = &replies[self.got..self.got + n];
        assert!(buffer[..n] == *due, "another reply: {}", buffer[..n.min(80)].escape_ascii());
        self.got += n;
        self.got == replies.len()
    }
}
