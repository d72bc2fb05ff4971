//! What is read and written here is what tonic and prost read and write.

use super::*;
use prost::Message;

fn chunk(len: usize) -> wire::UploadChunk {
    let header = wire::UploadHeader { size: Some(len as u64), ..Default::default() };
    let data = (0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    wire::UploadChunk { header: Some(header), data }
}

/// As gRPC says: not compressed, length, message.
fn plain(message: &wire::UploadChunk) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn receiving(
    frames: impl IntoIterator<Item = Frame<Bytes>>,
    is_answer: bool,
) -> Receiving<wire::UploadChunk> {
    let frames = Frames(frames.into_iter().map(Ok).collect());
    Receiving::new(Body::new(frames), 1 << 20, is_answer)
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Frame::trailers(trailers)
}

const SIZES: [usize; 8] = [0, 1, SHORT - 1, SHORT, SHORT + 1, 65_536, 262_144, 1_000_000];

#[tokio::test]
async fn what_is_sent_is_what_prost_would_send_and_payload_is_not_copied() {
    for len in SIZES {
        let message = chunk(len);
        let (head, payload) = encode(message.clone());
        assert_eq!([&head[..], &payload].concat(), plain(&message), "{len}");
        if len >= SHORT {
            assert_eq!(payload.as_ptr(), message.data.as_ptr(), "{len}: the very bytes");
        }
    }
    let plain_empty = plain(&wire::UploadChunk::default());
    assert_eq!(encode(wire::UploadChunk::default()).0, plain_empty);
}

#[tokio::test]
async fn messages_are_read_however_they_are_cut_into_frames() {
    let all: Vec<u8> = SIZES.iter().flat_map(|len| plain(&chunk(*len))).collect();
    let all = Bytes::from(all);
    for cut in [7, 1000, SHORT, 262_144, 4 << 20] {
        let frames = (0..all.len()).step_by(cut).map(|at| all.slice(at..all.len().min(at + cut)));
        let mut messages = receiving(frames.map(Frame::data), false);
        for len in SIZES {
            assert!(messages.message().await.expect("good") == Some(chunk(len)), "{len} cut at {cut}");
        }
        assert_eq!(messages.message().await.expect("the end"), None);
    }
}

#[tokio::test]
async fn payload_that_came_in_one_frame_is_not_copied() {
    let (head, payload) = encode(chunk(262_144));
    let mut messages = receiving([head, payload.clone()].map(Frame::data), false);
    let message = messages.message().await.expect("good").expect("one");
    assert_eq!(message.data.as_ptr(), payload.as_ptr());
}

#[tokio::test]
async fn a_stream_that_is_cut_short_or_does_not_say_how_it_ended_is_an_error() {
    let whole = Bytes::from(plain(&chunk(100_000)));
    for len in [1, PREFIX, 100, whole.len() - 1] {
        let mut messages = receiving([Frame::data(whole.slice(..len))], false);
        assert_eq!(messages.message().await.expect_err("cut").code(), Code::Internal, "{len}");
        assert!(messages.message().await.expect("ended").is_none(), "an error is the end");
    }
    for (end, code) in [(None, Code::Unavailable), (Some(status("13")), Code::Internal)] {
        let mut messages = receiving([Frame::data(whole.clone())].into_iter().chain(end), true);
        assert!(messages.message().await.expect("good").is_some());
        assert_eq!(messages.message().await.expect_err("not whole").code(), code);
    }
    let mut messages = receiving([Frame::data(whole.clone()), status("0")], true);
    assert!(messages.message().await.expect("good").is_some());
    assert!(messages.message().await.expect("whole").is_none());
    let mut messages = receiving([Frame::data(whole.slice(..100)), status("0")], true);
    assert!(messages.message().await.is_err(), "it says that it is whole, and is not");
}

#[tokio::test]
async fn what_no_peer_of_ours_sends_is_refused() {
    let compressed = [1, 0, 0, 0, 0];
    let long = [0, 0, 16, 0, 1];
    let unreadable = [0, 0, 0, 0, 2, 0x12, 0x7f];
    for (bytes, code) in [
        (&compressed[..], Code::Unimplemented),
        (&long[..], Code::OutOfRange),
        (&unreadable[..], Code::InvalidArgument),
    ] {
        let mut messages = receiving([Frame::data(Bytes::copy_from_slice(bytes))], false);
        assert_eq!(messages.message().await.expect_err("refused").code(), code);
    }
}
