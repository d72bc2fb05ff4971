//! The Global tier of dstore: the authority over names, and where they are durable.

pub mod blobs;
pub mod catalog;
pub mod change;
pub mod checkpoint;
pub mod data_dir;
pub mod engine;
pub mod journal;
mod sealed;
pub mod sessions;
