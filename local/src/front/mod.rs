//! The doors of a node besides gRPC, which `dstore-proto` has: each turns a foreign wire into calls of a
//! [`Store`](dstore_proto::store::Store) and decides nothing about data.

pub mod http;
