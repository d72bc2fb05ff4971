//! The Local tier of dstore: the node's cache, its session with Global, its doors and the REPL.
//!
//! Where to read: [`node`] has GET and SET in the order they happen, `core` the lock around the machine,
//! `core::fetch` how a binding gets its bytes, [`coherence`] the rules, [`cache`] the memory, `upstream` the
//! streams to Global, [`front`] the doors besides gRPC.

mod audit;
pub mod blob_flight;
pub mod cache;
pub mod coherence;
mod config;
mod copies;
mod core;
mod figures;
pub mod front;
mod local;
pub mod node;
pub mod repl;
mod rooms;
mod scrub;
mod served;
mod upstream;

pub use config::{Listen, LocalConfig};
pub use figures::LocalReporter;
pub use front::resp::{Database, RespConfig};
pub use front::shm::ShmConfig;
pub use local::Local;
pub use node::Node;
