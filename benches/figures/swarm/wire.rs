//! Owns what a light Local says and hears: HTTP/2 frames of one call, gRPC messages in them, and the frames of the
//! session stream, all written by hand. It must know just enough to be a lawful peer: everything else is load.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct Epoch {
    #[prost(bytes = "vec", tag = "1")]
    pub history: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub boot: u64,
    #[prost(uint64, tag = "3")]
    pub counter: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Up {
    #[prost(message, optional, tag = "1")]
    pub epoch: Option<Epoch>,
    #[prost(oneof = "UpFrame", tags = "2, 3, 4, 5")]
    pub frame: Option<UpFrame>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum UpFrame {
    #[prost(message, tag = "2")]
    Hello(Hello),
    #[prost(message, tag = "3")]
    Keep(Keep),
    #[prost(message, tag = "4")]
    Ack(Ack),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub local_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    #[prost(message, optional, tag = "4")]
    pub last_epoch: Option<Epoch>,
    #[prost(bytes = "vec", tag = "5")]
    pub history: Vec<u8>,
    #[prost(string, tag = "7")]
    pub label: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Keep {
    #[prost(uint64, tag = "1")]
    pub n: u64,
    #[prost(uint64, tag = "2")]
    pub acked: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ack {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(uint64, tag = "1")]
    pub batch: u64,
    #[prost(message, repeated, tag = "2")]
    pub names: Vec<Listed>,
    #[prost(bool, tag = "3")]
    pub last: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Listed {
    /// Packed: namespace, 0x00, key.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub bind_rev: u64,
    #[prost(uint64, tag = "3")]
    pub reg_seq: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Down {
    #[prost(message, optional, tag = "1")]
    pub epoch: Option<Epoch>,
    #[prost(oneof = "DownFrame", tags = "2, 3, 4, 5")]
    pub frame: Option<DownFrame>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum DownFrame {
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    #[prost(message, tag = "3")]
    Inv(Inv),
    #[prost(message, tag = "4")]
    Lease(Lease),
    #[prost(message, tag = "5")]
    Summarized(Summarized),
}

#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    #[prost(uint64, tag = "3")]
    pub lease_us: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Inv {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    #[prost(uint64, tag = "1")]
    pub n: u64,
    #[prost(uint64, tag = "2")]
    pub lease_us: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Summarized {
    #[prost(uint64, tag = "1")]
    pub batch: u64,
    #[prost(uint32, repeated, tag = "2")]
    pub refused: Vec<u32>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The only call of the connection.
const STREAM: u32 = 1;
/// Bytes received before the peer may send as many again.
const CREDIT: u32 = 16 << 10;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// One call of `Link.Session` on a connection of its own: what is to be written gathers in `out`.
#[derive(Default)]
pub struct Call {
    got: Vec<u8>,
    message: Vec<u8>,
    owed: u32,
    pub out: Vec<u8>,
}

impl Call {
    /// The connection's and the call's beginning.
    pub fn begun() -> Self {
        let mut call = Self::default();
        call.out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(&mut call.out, SETTINGS, 0, 0, &[]);
        // :method POST, :scheme http; then literals that are not indexed (RFC 7541, 6.2.2).
        let mut headers = vec![0x83, 0x86];
        let mut literal = |name: &[u8], value: &[u8]| {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value);
        };
        literal(&[0x04], b"/dstore.v1.Link/Session");
        literal(&[0x01], b"localhost");
        literal(b"\x00\x02te", b"trailers");
        literal(b"\x00\x0ccontent-type", b"application/grpc");
        frame(&mut call.out, HEADERS, END_HEADERS, STREAM, &headers);
        call
    }

    pub fn say(&mut self, up: &Up) {
        let mut payload = vec![0];
        payload.extend_from_slice(&(up.encoded_len() as u32).to_be_bytes());
        up.encode(&mut payload).expect("a vector grows");
        frame(&mut self.out, DATA, 0, STREAM, &payload);
    }

    /// Takes what was read; gives the frames that it completes, or `None` when the call has ended.
    pub fn take(&mut self, read: &[u8]) -> Option<Vec<Down>> {
        self.got.extend_from_slice(read);
        let mut at = 0;
        while let Some(head) = self.got.get(at..at + 9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let Some(payload) = self.got.get(at + 9..at + 9 + len) else { break };
            match kind {
                DATA => {
                    self.message.extend_from_slice(payload);
                    self.owed += len as u32;
                }
                SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => {
                    let payload = payload.to_vec();
                    frame(&mut self.out, PING, ACK, 0, &payload);
                }
                RST_STREAM | GOAWAY => return None,
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return None;
            }
            at += 9 + len;
        }
        self.got.drain(..at);
        if self.owed >= CREDIT {
            for stream in [0, STREAM] {
                frame(&mut self.out, WINDOW_UPDATE, 0, stream, &self.owed.to_be_bytes());
            }
            self.owed = 0;
        }
        self.messages()
    }

    fn messages(&mut self) -> Option<Vec<Down>> {
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some(head) = self.message.get(at..at + 5) {
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(message) = self.message.get(at + 5..at + 5 + len) else { break };
            frames.push(Down::decode(message).ok()?);
            at += 5 + len;
        }
        self.message.drain(..at);
        Some(frames)
    }
}
