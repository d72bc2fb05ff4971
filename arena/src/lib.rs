//! Shared memory from which the processes of a machine read the values that their node keeps: no system call, no copy,
//! no wake-up, and never a stale answer.
//!
//! ```text
//! daemon  Arena::create -> insert, remove, set_valid_until ... -> attach -> descriptors, over a Unix socket
//! worker  Reader::map(descriptors) -> get(key) -> Value, which is a slice of the very memory
//! ```
//! One daemon writes, any number of workers read; they map it read-only and cannot do otherwise. `docs/ARENA.md` has
//! the layout, byte by byte, and why no reader ever sees what it must not. `UNSAFE.md` lists every unsafe block.

mod core;
mod daemon;
mod error;
mod eviction;
mod files;
mod index;
pub mod layout;
mod map;
mod memory;
pub mod pass;
mod pins;
mod reader;
mod seqlock;
mod space;
mod value;
mod view;

#[cfg(all(test, not(miri)))]
mod loom_tests;

pub use crate::core::{Binding, Evicted, Expiry, Hash, Held, Hoarder, Listed, Obstacle, Stats};
pub use daemon::{Arena, Config, Descriptors, Draft, Filled, Kept, Worker};
pub use error::{Error, Miss, Refusal};
pub use layout::{KEY_BYTES_MAX, NOTE_BYTES_MAX};
pub use reader::{Reader, now};
pub use value::Value;
pub use view::Meta;
