//! The Global tier of dstore.

pub mod catalog;
pub mod change;
pub mod checkpoint;
pub mod data_dir;
pub mod engine;
mod sealed;
