//! What a session does outside of the store, on behalf of the person who types: files, commands, an editor.
//!
//! A seam, so that the REPL itself touches nothing: the binary gives the real one, tests one in memory, and a session
//! that was given none has none of it.

use bytes::BytesMut;
use dstore_proto::store::BodyStream;
use dstore_shared::limits::CHUNK_BYTES;
use dstore_shared::{Error, Result};
use futures_util::future::BoxFuture;
use std::ffi::OsStr;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::output::Sink;

/// Bytes to be read.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;

/// What a source gives, in full pieces, the last one excepted.
pub fn body(source: Source) -> BodyStream {
    Box::pin(futures_util::stream::unfold(Some(source), |source| async {
        let mut source = source?;
        let mut piece = BytesMut::with_capacity(CHUNK_BYTES);
        while piece.len() < CHUNK_BYTES {
            let room = CHUNK_BYTES - piece.len();
            match (&mut source).take(room as u64).read_buf(&mut piece).await {
                Ok(0) => {
                    let last = (!piece.is_empty()).then(|| Ok(piece.freeze()));
                    return last.map(|piece| (piece, None));
                }
                Ok(_) => {}
                Err(e) => {
                    let error = Error::invalid(format!("the input cannot be read, {e}: nothing was stored"));
                    return Some((Err(error), None));
                }
            }
        }
        Some((Ok(piece.freeze()), Some(source)))
    }))
}

/// Something that is being written, and what makes it count.
pub struct Writing {
    /// Where the bytes go.
    pub sink: Sink,
    /// To be awaited once `sink` is dropped: a file comes to its place, a command is waited for. Gives its exit code.
    pub done: BoxFuture<'static, Result<u8>>,
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writing")
    }
}

/// The outside.
pub trait Outside: Send + Sync {
    /// Opens a file to be read.
    fn open<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Source>>;

    /// Begins a file, which is there whole once `done` was awaited, and otherwise as it was.
    fn create<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Writing>>;

    /// Begins a command of the shell that reads what is written.
    fn pipe<'a>(&'a self, command: &'a OsStr) -> BoxFuture<'a, Result<Writing>>;

    /// Lets the person write `text` anew.
    fn edit<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<String>>;
}

/// Of a session that has no outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nowhere;

fn none<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    let refused = Error::invalid("files and commands are for a prompt or a script: use those of your shell");
    Box::pin(std::future::ready(Err(refused)))
}

impl Outside for Nowhere {
    fn open<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<Source>> {
        none()
    }

    fn create<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<Writing>> {
        none()
    }

    fn pipe<'a>(&'a self, _: &'a OsStr) -> BoxFuture<'a, Result<Writing>> {
        none()
    }

    fn edit<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<String>> {
        none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn lengths(len: usize) -> Vec<usize> {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let source = tokio::io::BufReader::with_capacity(1000, std::io::Cursor::new(bytes.clone()));
        let pieces: Vec<_> = body(Box::new(source)).try_collect().await.expect("read");
        assert_eq!(pieces.concat(), bytes);
        pieces.iter().map(bytes::Bytes::len).collect()
    }

    #[tokio::test]
    async fn input_is_cut_into_full_pieces() {
        assert_eq!(lengths(0).await, [0_usize; 0]);
        assert_eq!(lengths(1).await, [1]);
        assert_eq!(lengths(CHUNK_BYTES).await, [CHUNK_BYTES]);
        assert_eq!(lengths(CHUNK_BYTES + 1).await, [CHUNK_BYTES, 1]);
        assert_eq!(lengths(2 * CHUNK_BYTES - 1).await, [CHUNK_BYTES, CHUNK_BYTES - 1]);
    }
}
