//! What may be stored: any bytes, within limits that are told when they are passed.

use crate::rig::{Global, Local, dstore, noise};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use dstore_client::{Address, Client};
use dstore_shared::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX, UNARY_BYTES_MAX};
use dstore_shared::{Kind, Name};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// Messages as they are on the wire, so that what the client would refuse can be sent.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A unary call with a message of one's own making.
pub async fn call(at: &Address, path: &'static str, message: Bytes) -> Result<Bytes, Status> {
    let channel = Endpoint::from_shared(format!("http://{at}")).expect("an address").connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let answer = grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(path), Raw).await?;
    Ok(answer.into_inner())
}

/// A length-delimited field of a protobuf message.
fn field(number: u8, content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&[number << 3 | 2][..]);
    let mut len = content.len();
    while len >= 0x80 {
        bytes.put_u8(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.put_u8(len as u8);
    bytes.put(content);
    bytes.freeze()
}

const GET: &str = "/dstore.v1.Store/Get";
const SET: &str = "/dstore.v1.Store/Set";
const DELETE: &str = "/dstore.v1.Store/Delete";

/// The three commands about `key`, as messages.
fn commands(key: &[u8]) -> [(&'static str, Bytes); 3] {
    let name = field(2, key);
    let set = [field(2, &name), field(3, b"v")].concat();
    [(GET, field(1, &field(1, &name))), (SET, set.into()), (DELETE, field(2, &name))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_0_and_1025_bytes_are_refused_by_both_tiers_and_1024_are_taken() {
    // Whose count of names is exact.
    let global = Global::start(&["--engine", "memory"]);
    let local = Local::start(&global).await;
    for at in [&global.daemon.at, &local.daemon.at] {
        for (len, code) in [(0, Code::InvalidArgument), (KEY_BYTES_MAX + 1, Code::OutOfRange)] {
            let key = vec![b'k'; len];
            let refused = Name::of(key.clone()).expect_err("no name has such a key");
            assert_eq!(refused.kind(), if len == 0 { Kind::Invalid } else { Kind::TooLarge });
            for (path, message) in commands(&key) {
                let told = call(at, path, message).await.expect_err("refused");
                assert_eq!((told.code(), told.message()), (code, refused.message()), "{path} {len}");
            }
        }
        for len in [1, KEY_BYTES_MAX] {
            for (path, message) in commands(&vec![b'k'; len]) {
                call(at, path, message).await.unwrap_or_else(|e| panic!("{path} {len}: {e:?}"));
            }
        }
    }
    assert_eq!(global.fact("names").await, 0, "what was set was deleted, nothing else was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_its_limit_is_refused_and_the_next_one_is_answered() {
    let global = Global::start(&[]);
    let local = Local::start(&global).await;
    for at in [&global.daemon.at, &local.daemon.at] {
        let set = |len: usize| -> Bytes {
            [field(2, &field(2, b"large")), field(3, &vec![7; len])].concat().into()
        };
        // Too large for the call; too large for a frame; far too large.
        for len in [UNARY_BYTES_MAX + 1, FRAME_BYTES_MAX + 1, 8 * FRAME_BYTES_MAX] {
            let told = call(at, SET, set(len)).await.expect_err("refused");
            assert!(matches!(told.code(), Code::OutOfRange | Code::ResourceExhausted), "{len}: {told:?}");
        }
        for rubbish in [&[0xff; 40][..], b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x00"] {
            let told = call(at, SET, Bytes::copy_from_slice(rubbish)).await.expect_err("refused");
            assert!(matches!(told.code(), Code::InvalidArgument | Code::Internal), "{told:?}");
        }
        assert!(call(at, GET, commands(b"large")[0].1.clone()).await.is_ok(), "it goes on");
    }
    assert_eq!(global.fact("names").await, 0);
    local
        .client
        .set(&Name::of("large").expect("a key"), vec![7; FRAME_BYTES_MAX + 1])
        .await
        .expect("streamed");
}

/// Keys and values in which some program somewhere would trip.
fn awkward() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    all.extend([
        vec![0; KEY_BYTES_MAX],
        vec![0xff; KEY_BYTES_MAX],
        noise(1, KEY_BYTES_MAX),
        b"a b\tc\r\nd".to_vec(),
        b"'\"\\;--".to_vec(),
        b"\xf0\x9f\xa6\x80 \xed\xa0\x80".to_vec(),
        b"../../etc/passwd".to_vec(),
    ]);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bytes_are_a_key_and_a_value() {
    let mut global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    let name = |key: &[u8]| Name::of(key.to_vec()).expect("a key");
    for bytes in awkward() {
        a.client.set(&name(&bytes), bytes).await.expect("set");
    }
    let read = async |client: &Client| {
        for bytes in awkward() {
            let found = client.get(&name(&bytes)).await.expect("answered").expect("found");
            assert!(found.bytes == bytes, "{bytes:?}");
        }
    };
    read(&b.client).await;
    read(&b.client).await;
    global.daemon.kill();
    global.again();
    read(&global.client()).await;
    let names: Vec<Name> = awkward().iter().map(|key| name(key)).collect();
    let removed = global.client().delete(&names).await.expect("deleted").removed;
    assert!(removed.iter().all(|removed| *removed));
    a.follow(&global).await;
    assert!(a.client.exists(&names).await.is_ok_and(|bound| !bound.contains(&true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_stores_and_reads_any_bytes() {
    let global = Global::start(&[]);
    let local = Local::start(&global).await;
    let node = local.daemon.at.to_string();
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    // What a command line can carry: no NUL. A leading `-` would be a flag.
    for key in awkward().into_iter().filter(|key| !key.contains(&0) && key[0] != b'-').step_by(40) {
        let shown = format!("{:?}", Bytes::from(key.clone()));
        let key = OsString::from_vec(key);
        let mut set = dstore(global.dir.path(), &["set", "--node", &node]);
        let mut child = set.arg(&key).arg("-").stdin(Stdio::piped()).spawn().expect("dstore runs");
        child.stdin.take().expect("piped").write_all(&value).expect("written");
        assert_eq!(child.wait_with_output().expect("ended").status.code(), Some(0), "{shown}");
        let got =
            dstore(global.dir.path(), &["get", "--node", &node]).arg(&key).output().expect("dstore runs");
        assert_eq!(got.status.code(), Some(0), "{shown}");
        assert!(got.stdout == value, "{shown}: the exact bytes");
    }
}
