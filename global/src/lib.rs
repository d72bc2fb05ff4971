//! The Global tier of dstore.

pub mod change;
pub mod engine;
mod sealed;
