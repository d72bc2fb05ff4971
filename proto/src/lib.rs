//! The wire of dstore: everything that two processes must agree on.

pub mod store;
