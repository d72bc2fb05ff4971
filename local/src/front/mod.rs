//! The doors of a Local beside its own gRPC: each turns a wire that clients speak which nobody here wrote into calls of a
//! [`Store`](dstore_proto::store::Store), and decides nothing about data.

pub mod http;
pub mod resp;
pub mod shm;
