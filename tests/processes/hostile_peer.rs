//! A peer that keeps no rule: bytes and HTTP/2 frames written by hand, and what comes back.

use dstore_client::Address;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For what must come, beside other tests on a machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of a GOAWAY: why.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A frame to be sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A literal header that is not indexed (RFC 7541, 6.2.2).
pub fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        length(&mut out, text.len());
        out.extend_from_slice(text);
    }
    out
}

/// A length of a string that is not Huffman-coded (RFC 7541, 5.1).
fn length(out: &mut Vec<u8>, len: usize) {
    if len < 127 {
        out.push(len as u8);
        return;
    }
    out.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The header block of a call of `path`.
pub fn call(path: &str) -> Vec<u8> {
    // :method POST and :scheme http, which have numbers.
    let mut block = vec![0x83, 0x86];
    block.extend(header(b":path", path.as_bytes()));
    block.extend(header(b":authority", b"localhost"));
    block.extend(header(b"te", b"trailers"));
    block.extend(header(b"content-type", b"application/grpc"));
    block
}

/// A gRPC message that is not compressed.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A call and its only message, on `stream`.
pub fn whole_call(path: &str, stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = frame(HEADERS, END_HEADERS, stream, &call(path));
    out.extend(frame(DATA, END_STREAM, stream, &message(bytes)));
    out
}

/// The SETTINGS that a peer may send nothing before it gives leave.
pub fn no_window() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

/// A TLS client hello, as a browser begins with.
pub fn tls_hello() -> Vec<u8> {
    let mut hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".to_vec();
    hello.resize(205, 0x5a);
    hello
}

/// A connection.
pub struct Peer {
    io: TcpStream,
    got: Vec<u8>,
    /// Why the server is about to end the connection, if it said so.
    pub told: Option<u32>,
}

impl Peer {
    pub async fn connect(at: &Address) -> Self {
        let io =
            timeout(PATIENCE, TcpStream::connect(at.to_string())).await.expect("in time").expect("connected");
        io.set_nodelay(true).expect("set");
        Self { io, got: Vec::new(), told: None }
    }

    /// A connection that has begun as HTTP/2 does, and whose server may be sent what its settings allow.
    pub async fn greet(at: &Address) -> Self {
        Self::greet_with(at, &frame(SETTINGS, 0, 0, &[])).await
    }

    /// The same, with settings of one's own.
    pub async fn greet_with(at: &Address, settings: &[u8]) -> Self {
        let mut peer = Self::connect(at).await;
        peer.say(&[PREFACE, settings].concat()).await;
        peer.until(|f| f.kind == SETTINGS).await.expect("the server greets");
        peer.say(&frame(SETTINGS, ACK, 0, &[])).await;
        // Before it says so the connection's window is as HTTP/2 begins with.
        peer.until(|f| f.kind == WINDOW_UPDATE).await.expect("the server opens its window");
        peer
    }

    /// Sends; what the server does with it is seen by reading.
    pub async fn say(&mut self, bytes: &[u8]) {
        // The server may have ended the connection already.
        _ = timeout(PATIENCE, self.io.write_all(bytes)).await;
    }

    /// The next frame; `None` once the connection has ended.
    pub async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                self.told = self.told.or((frame.kind == GOAWAY).then(|| frame.reason()));
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            match timeout(PATIENCE, self.io.read(&mut bytes)).await.expect("something comes in time") {
                Ok(n @ 1..) => self.got.extend_from_slice(&bytes[..n]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.got.get(..9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, stream) = (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        let payload = self.got.get(9..9 + len)?.to_vec();
        self.got.drain(..9 + len);
        Some(Frame { kind, stream, payload })
    }

    /// Hears until `what` comes, in time; `None` if the connection ends before.
    pub async fn until(&mut self, what: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.hear().await?;
            if what(&frame) {
                return Some(frame);
            }
        }
    }

    /// Waits until the server has ended the connection.
    pub async fn is_ended(&mut self) {
        let ended = timeout(PATIENCE, async { while self.hear().await.is_some() {} });
        ended.await.expect("the connection is ended in time");
    }

    /// Sends `bytes` again and again for `long`, or until the server ends the connection, and hears whatever comes;
    /// gives how many were sent and whether it ended.
    pub async fn flood(self, long: Duration, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Flooded {
        let (mut from, mut to) = self.io.into_split();
        let began = Instant::now();
        let hearing = tokio::spawn(async move {
            let mut some = [0; 16 << 10];
            while let Ok(1..) = from.read(&mut some).await {}
        });
        let mut sent = 0;
        let mut ended = false;
        while !ended && began.elapsed() < long {
            let some = bytes(sent);
            ended = !matches!(timeout(long, to.write_all(&some)).await, Ok(Ok(())) | Err(_));
            sent += 1;
        }
        hearing.abort();
        Flooded { sent, ended }
    }
}

/// How a flood went.
pub struct Flooded {
    pub sent: u32,
    /// The server ended the connection.
    pub ended: bool,
}
