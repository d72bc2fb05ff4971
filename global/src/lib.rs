//! The Global tier of dstore.

pub mod catalog;
pub mod change;
pub mod checkpoint;
pub mod engine;
mod sealed;
