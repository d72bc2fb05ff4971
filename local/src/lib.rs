//! The Local tier of dstore: the node's cache, its session with Global, its doors and the REPL.

pub mod blob_flight;
pub mod cache;
pub mod coherence;
