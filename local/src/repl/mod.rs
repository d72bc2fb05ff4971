//! What a user types at dstore, and what is answered: the REPL language over any [`Store`].
//!
//! A line of bytes goes through `command` (parser, pure) to `session`, which asks the node with `patience`, and
//! comes back through `render` or `json` (pure) to `output`. `run` is the loop, `input` where lines come from.
//! The REPL is a client of a node like any other: it never reaches into one, and `dstore-client` names its changes
//! and tries them again.
//!
//! [`Store`]: dstore_proto::store::Store

mod command;
mod complete;
mod escape;
pub mod exit;
mod input;
mod json;
mod options;
mod output;
mod patience;
mod render;
mod run;
mod scan;
mod script;
mod session;
mod show;
mod terminal;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod session_tests;

pub use command::{Command, Line, Refused, parse, words};
pub use escape::{Escaper, escape};
pub use input::{Input, LINE_BYTES_MAX, Next};
pub use json::printable;
pub use options::{How, request_from, stale_wait, time};
pub use output::{Output, Screen, Sink};
pub use patience::{Interrupts, Patience};
pub use render::Mode;
pub use run::run;
pub use scan::quote;
pub use script::{Script, Separators};
pub use session::{Session, Settings, Step, failure};
pub use terminal::Terminal;
