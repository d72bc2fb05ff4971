//! The body of a request, piece by piece: bounded in bytes and in time, and never whole if it was cut.

use super::problem::{Problem, Slug};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Version};
use bytes::{Bytes, BytesMut};
use dstore_proto::DATA_FRAME_BYTES;
use dstore_proto::serve::HTTP1_BUFFER_BYTES;
use dstore_proto::store::BodyStream;
use dstore_shared::limits::CHUNK_BYTES;
use dstore_shared::{Error, Kind};
use futures_util::StreamExt;
use hyper::body::Body as _;
use std::time::Duration;
use tokio::sync::mpsc;

/// Pieces that wait between a caller and the store.
const PIECES_AHEAD: usize = 2;

/// A body that is read.
#[derive(Debug)]
pub struct Arriving {
    body: Option<Body>,
    /// HTTP/2 lets a caller cut a body so that hyper takes it for ended.
    http2: bool,
    /// What the caller said it is to have.
    length: Option<u64>,
    taken: u64,
    max: u64,
    idle: Duration,
}

impl Arriving {
    /// `body` of at most `max` bytes, none of whose pieces comes later than `idle` after the one before.
    ///
    /// # Errors
    /// 413 if it says that it is longer.
    pub fn new(body: Body, version: Version, max: u64, idle: Duration) -> Result<Self, Problem> {
        let length = body.size_hint().exact();
        if length.is_some_and(|length| length > max) {
            return Err(too_large(max));
        }
        Ok(Self { body: Some(body), http2: version == Version::HTTP_2, length, taken: 0, max, idle })
    }

    /// The next piece; `None` at the end of the whole.
    ///
    /// # Errors
    /// 408 if none came in time, 413 beyond the most, 400 if the body was cut.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        use hyper::body::Frame;
        loop {
            let Some(body) = &mut self.body else { return Ok(None) };
            let mut body = std::pin::Pin::new(body);
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
            let idle = self.idle;
            let late = |_| late(format!("no piece of the body came for `{idle:?}`: send it without a pause"));
            let frame = tokio::time::timeout(idle, frame).await.map_err(late)?;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(piece))) if piece.is_empty() => {}
                Some(Ok(Ok(piece))) => {
                    self.taken += piece.len() as u64;
                    return if self.taken > self.max { Err(too_large(self.max)) } else { Ok(Some(piece)) };
                }
                // Trailers.
                Some(Ok(Err(_))) => {}
                Some(Err(_)) => return Err(cut()),
                None => {
                    let whole = self.length.is_none_or(|length| length == self.taken);
                    let ended = !self.http2 || body.is_end_stream();
                    self.body = None;
                    return if whole && ended { Ok(None) } else { Err(cut()) };
                }
            }
        }
    }

    /// Whether it may have more than `max` bytes.
    pub fn may_exceed(&self, max: usize) -> bool {
        self.length.is_none_or(|length| length > max as u64)
    }

    /// About as many bytes as it takes in memory at most, if no more than `max` are gathered and the rest is passed on.
    pub fn memory(&self, max: usize) -> u64 {
        match self.length {
            Some(length) if length <= max as u64 => length,
            _ => {
                let piece = if self.http2 { DATA_FRAME_BYTES as usize } else { HTTP1_BUFFER_BYTES };
                // What was gathered with its last piece, what waits, and what is in hand.
                (max + (PIECES_AHEAD + 2) * piece) as u64
            }
        }
    }

    /// Takes pieces until the end, or until there are more than `max` bytes. Whether that was the end. What is given is
    /// as large in memory as it is long: whoever keeps it keeps nothing else.
    ///
    /// # Errors
    /// As [`Arriving::piece`].
    pub async fn gather(&mut self, max: usize) -> Result<(Bytes, bool), Problem> {
        let Some(first) = self.piece().await? else { return Ok((Bytes::new(), true)) };
        // In a place of its own: what is kept must not keep the connection's buffer with it.
        let expected = self.length.map_or(first.len(), |length| length.min(max as u64) as usize);
        let mut all = BytesMut::with_capacity(expected.max(first.len()));
        all.extend_from_slice(&first);
        while all.len() <= max {
            match self.piece().await? {
                Some(piece) => all.extend_from_slice(&piece),
                None => return Ok((tight(all), true)),
            }
        }
        Ok((tight(all), false))
    }

    /// Passes `head` and what follows to a reader, who sees an error if the whole did not come, also when this future is
    /// dropped. Gives up when the reader has.
    ///
    /// # Errors
    /// As [`Arriving::piece`].
    pub async fn pass(&mut self, head: Bytes, to: mpsc::Sender<Piece>) -> Result<(), Problem> {
        let mut next = Some(head);
        while let Some(mut rest) = next {
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(CHUNK_BYTES));
                match tokio::time::timeout(self.idle, to.send(Piece::Of(piece))).await {
                    Ok(Ok(())) => {}
                    // It has an answer already, or none comes.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(Error::unavailable("the value is not taken: try again").into()),
                }
            }
            next = self.piece().await?;
        }
        _ = tokio::time::timeout(self.idle, to.send(Piece::End)).await;
        Ok(())
    }
}

/// The same in a place of its own length: a body of unknown length grew by doubling.
fn tight(all: BytesMut) -> Bytes {
    if all.capacity() == all.len() { all.freeze() } else { Bytes::copy_from_slice(&all) }
}

/// What a reader is passed.
#[derive(Debug)]
pub enum Piece {
    /// Some bytes.
    Of(Bytes),
    /// All have come.
    End,
}

/// A way to pass a body to a reader of its own.
pub fn passage() -> (mpsc::Sender<Piece>, BodyStream) {
    let (to, pieces) = mpsc::channel(PIECES_AHEAD);
    let stream = futures_util::stream::unfold(Some(pieces), |pieces| async {
        let mut pieces: mpsc::Receiver<Piece> = pieces?;
        match pieces.recv().await {
            Some(Piece::Of(bytes)) => Some((Ok(bytes), Some(pieces))),
            Some(Piece::End) => None,
            None => Some((Err(Error::closed("the caller went away before all was there")), None)),
        }
    });
    (to, stream.boxed())
}

/// A body that did not come in time.
pub fn late(text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, Slug::Slow, text)
}

fn too_large(max: u64) -> Problem {
    Error::too_large(format!("the body has more than `{max}` bytes: send less")).into()
}

fn cut() -> Problem {
    Error::new(Kind::Invalid, "the body was cut: send all of it").into()
}

/// Whether the body is of the type `expected`.
///
/// # Errors
/// 415.
pub fn need_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let given = headers.get(axum::http::header::CONTENT_TYPE).and_then(|given| given.to_str().ok());
    let bare = given.and_then(|given| given.split(';').next()).map(str::trim);
    if bare.is_some_and(|bare| bare.eq_ignore_ascii_case(expected)) {
        return Ok(());
    }
    let text = format!("the body is to be `{expected}`: say so in `Content-Type`");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Slug::MediaType, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    /// A body of pieces, whose length nobody says.
    fn arriving(pieces: Vec<Bytes>, max: u64) -> Arriving {
        let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>)));
        Arriving::new(body, Version::HTTP_11, max, Duration::from_secs(60)).expect("no length is told")
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_kept_without_room_to_spare() {
        for (n, len) in [(1, 1), (3, 7), (65, 1000), (64, 1024), (5, 13_001)] {
            let pieces = vec![Bytes::from(vec![7; len]); n];
            let (all, is_whole) = arriving(pieces, 1 << 20).gather(65_536).await.expect("it comes");
            assert_eq!((all.len(), is_whole), (n * len, true));
            let kept = all.try_into_mut().expect("nobody else has it").capacity();
            assert_eq!(kept, n * len, "{n} pieces of {len} bytes");
        }
    }

    #[tokio::test]
    async fn no_more_than_a_piece_beyond_the_most_is_gathered() {
        let mut body = arriving(vec![Bytes::from(vec![7; 1000]); 100], 1 << 20);
        let (head, is_whole) = body.gather(9_500).await.expect("it comes");
        assert_eq!((head.len(), is_whole), (10_000, false));
        let kept = head.try_into_mut().expect("nobody else has it").capacity();
        assert_eq!(kept, 10_000);
        assert!(body.piece().await.expect("it goes on").is_some());
    }
}
