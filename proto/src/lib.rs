//! The wire of dstore: everything that two processes must agree on.
//!
//! Invariants: generated code stays private, and what a peer sends becomes a domain value only through a
//! checked conversion; bytes become a blob only by verifying them. Never panics on, or allocates out of
//! proportion to, what a peer sends.

mod bulk;
mod codec;
mod convert;
pub mod dial;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod link;
mod loss;
mod many;
mod remote_store;
pub mod serve;
mod shape;
pub mod shm;
pub mod status;
pub mod store;
mod store_service;
mod transfer;
pub mod watch;
mod watch_wire;
mod wrapped;

pub use remote_store::RemoteStore;
pub use store_service::IdSource;

/// Bytes of one HTTP/2 DATA frame: a chunk of payload is not cut further.
pub const DATA_FRAME_BYTES: u32 = 256 << 10;

/// What the .proto files say, as generated.
#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod wire {
    tonic::include_proto!("dstore.v1");

    /// The .proto files, for reflection.
    pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dstore.v1.bin"));
}
