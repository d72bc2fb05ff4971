//! What a user types at dstore, and what is answered: the REPL language over any [`Store`].
//!
//! A line of bytes goes through `command` (parser, pure) to `session`, which asks the node with `patience`, and
//! comes back through `render` or `json` (pure) to `output`. `run` is the loop, `input` where lines come from. At a
//! prompt (`terminal`) `complete` and `hint` help with what `words` and `keys` know; `outside` is files and commands.
//! The REPL is a client of a node like any other: it never reaches into one, and `dstore-client` names its changes
//! and tries them again.
//!
//! [`Store`]: dstore_proto::store::Store

mod command;
mod complete;
mod escape;
pub mod exit;
mod hint;
mod history;
mod input;
mod json;
mod keys;
mod options;
mod output;
mod outside;
mod patience;
mod pretty;
mod render;
mod run;
mod scan;
mod script;
mod session;
mod show;
mod terminal;
mod words;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod words_tests;

pub use command::{Command, Get, Given, Line, List, Refused, Sent, Warm, What, bench, parse, words};
pub use escape::{Escaper, escape};
pub use input::{Input, LINE_BYTES_MAX, Next};
pub use json::printable;
pub use keys::Keys;
pub use options::{How, request_from, stale_wait, time};
pub use output::{Output, Screen, Sink};
pub use outside::{Outside, Source, Writing, body};
pub use patience::{Interrupts, Patience};
pub use pretty::size;
pub use render::{Mode, short_time};
pub use run::{Ended, converse, run};
pub use scan::quote;
pub use script::{Script, Separators};
pub use session::{Printer, Session, Settings, Step, failure};
pub use terminal::Terminal;
