//! The Global tier of dstore: the authority over names, and where they are durable.

pub mod journal;
pub mod sessions;
