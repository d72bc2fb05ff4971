//! The Global tier of dstore: the authority over names, and where they are durable.
//!
//! Where to read: [`authority`] has SET and DEL in the order they happen, `committer` the batch,
//! `publisher` what follows it, `feed` what watchers are told, [`sessions`] the coherence rules, [`journal`] the truth on disk, [`catalog`] what is visible,
//! [`engine`] the index, [`blobs`] the files, [`data_dir`] how it is opened again.

pub mod authority;
pub mod blobs;
pub mod catalog;
pub mod change;
pub mod checkpoint;
mod committer;
mod config;
pub mod data_dir;
mod door;
pub mod engine;
mod expiry;
pub mod feed;
mod figures;
#[cfg(test)]
mod full;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod global;
#[cfg(test)]
mod golden;
mod host;
pub mod inspect;
pub mod journal;
mod journal_time;
mod mailbox;
mod publisher;
mod sealed;
pub mod sessions;
mod space;
mod sweep;
mod sync_level;
#[cfg(test)]
mod tests;

pub use authority::Authority;
pub use config::GlobalConfig;
pub use engine::EngineKind;
pub use figures::GlobalReporter;
pub use global::Global;
pub use sync_level::SyncLevel;
