//! The Global tier of dstore.

pub mod blobs;
