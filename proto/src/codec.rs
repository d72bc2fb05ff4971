//! How one message becomes bytes and back: prost's encoding, with a look at its shape before it is read.
//!
//! Two bytes on the wire can become some 250 bytes of an empty submessage in memory. So the number of
//! repeated submessages is counted before any of them is built: a frame of 1 MiB never costs much more than
//! itself. Never panics on what a peer sends.

use crate::shape::Shaped;
use crate::{status, wire};
use bytes::Buf;
use dstore_shared::Error;
use prost::Message;
use std::any::TypeId;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes that the buffer of a session stream begins with: a few frames.
const SESSION_BUFFER: usize = 256;
/// Frames of a session stream are sent when so many bytes of them are there, or no more come.
const SESSION_YIELD: usize = 32 << 10;

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub(crate) struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for WireCodec<T, U>
where
    T: Message + Send + 'static,
    U: Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WireEncoder<T>;
    type Decoder = WireDecoder<U>;

    fn encoder(&mut self) -> WireEncoder<T> {
        WireEncoder(PhantomData)
    }

    fn decoder(&mut self) -> WireDecoder<U> {
        WireDecoder(PhantomData)
    }
}

#[derive(Debug)]
pub(crate) struct WireEncoder<T>(PhantomData<T>);

impl<T: Message + 'static> Encoder for WireEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let len = message.encoded_len();
        out.reserve(len);
        message.encode_raw(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers::<T>()
    }
}

#[derive(Debug)]
pub(crate) struct WireDecoder<U>(PhantomData<U>);

impl<U: Shaped + 'static> Decoder for WireDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        read(from).map(Some).map_err(|e| status::to_status(&e))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers::<U>()
    }
}

/// What a stream's buffer begins with. Of session streams there are ten thousand, and their frames are small.
fn buffers<M: 'static>() -> BufferSettings {
    let message = TypeId::of::<M>();
    if message == TypeId::of::<wire::SessionUp>() || message == TypeId::of::<wire::SessionDown>() {
        BufferSettings::new(SESSION_BUFFER, SESSION_YIELD)
    } else {
        BufferSettings::default()
    }
}

/// Reads one message whose bytes lie in one piece, as a gRPC frame's do.
///
/// # Errors
/// `Invalid` if it is not one or has more parts than its [`Shape`](crate::shape::Shape) allows.
pub(crate) fn read<U: Shaped>(from: &mut impl Buf) -> Result<U, Error> {
    if from.chunk().len() != from.remaining() {
        return Err(Error::internal("a message lies in several pieces: report this"));
    }
    crate::shape::check(U::SHAPE, from.chunk())?;
    U::decode(from).map_err(|e| unreadable(&e))
}

/// Reads the message of the next `len` bytes, which may lie in several pieces.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_pieces<U: Shaped>(from: &mut impl Buf, len: usize) -> Result<U, Error> {
    if U::SHAPE.is_empty() {
        return U::decode(from.take(len)).map_err(|e| unreadable(&e));
    }
    read(&mut from.copy_to_bytes(len))
}

fn unreadable(e: &prost::DecodeError) -> Error {
    Error::invalid(format!("the message cannot be read: {e}: speak dstore.v1"))
}
