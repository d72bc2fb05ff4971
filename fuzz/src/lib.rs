//! Everything that reads bytes from outside, as functions of bytes: from a peer, a disk, a prompt, a command line.
//!
//! A target reads its bytes as the product does, and panics if what was read does not hold what every reading must: what
//! is written reads back, a length that no bytes stand behind reserves nothing, nothing is read twice or left over. What
//! it refuses it must refuse in words that can be shown: [`run`] looks at those.
//!
//! The same targets run under libFuzzer (`fuzz/libfuzzer`, which wants a nightly compiler) and, over the inputs that are
//! kept in `fuzz/corpus` and mutations of them, in `cargo test`. It must never read in a way of its own.

/// The binary's own modules, where it has them.
#[allow(dead_code, reason = "the binary uses what is not used here")]
#[path = "../../src/cli"]
mod cli {
    pub mod args;
    pub mod looks;
}
#[allow(dead_code, unused_imports, reason = "the binary uses what is not used here")]
#[path = "../../src/config/mod.rs"]
mod config;

mod mutate;
mod prompt;
mod settings;
mod words;

pub use mutate::Mutator;

use dstore_global::fuzzing as global;
use dstore_local::front::resp::fuzzing as resp;
use dstore_proto::fuzzing as proto;
use dstore_shared::{Error, Result};

/// Something that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, and the folder of its inputs.
    pub name: &'static str,
    read: fn(&[u8]) -> Result<()>,
}

macro_rules! targets {
    ($($name:ident: $read:path;)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), read: $read }),*];
    };
}

targets! {
    answer: proto::answer;
    batch: proto::batch;
    blob_header: global::blob_header;
    checkpoint: global::checkpoint;
    command_line: settings::command_line;
    commits: global::commits;
    config_file: settings::config_file;
    http_request: dstore_local::front::http::fuzzing::request;
    index_value: global::index_value;
    journal: global::journal;
    journal_headers: global::journal_headers;
    many_pieces: proto::many_pieces;
    meta: global::meta;
    names: words::names;
    outline: words::outline;
    repl_line: prompt::line;
    repl_script: prompt::script;
    request: proto::request;
    resp_commands: resp::resp_commands;
    resp_session: resp::resp_session;
    session_frame: proto::session_frame;
    shown: prompt::shown;
    status: proto::status;
    upload: proto::upload;
}

impl Target {
    /// Reads `bytes`; true if they were taken and not refused.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn run(self, bytes: &[u8]) -> bool {
        match (self.read)(bytes) {
            Ok(()) => true,
            Err(refusal) => {
                check(&refusal);
                false
            }
        }
    }
}

/// Reads `bytes` with the target `name`, as libFuzzer does.
///
/// # Panics
/// If something does not hold, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target of that name").run(bytes);
}

/// A refusal is text for a person: not empty, not long, and as it is shown nothing that a terminal obeys.
fn check(refusal: &Error) {
    let text = dstore_local::repl::failure(refusal);
    assert!(!refusal.message().is_empty(), "a refusal says nothing");
    assert!(text.len() <= 64 << 10, "a refusal of `{}` bytes", text.len());
    assert!(!text.chars().any(char::is_control), "a terminal would obey {text:?}");
}
