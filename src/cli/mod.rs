//! From the process to the parts: starts what the configuration asks for and gives the exit code.

pub mod args;
mod attach;
mod check;
mod client;
mod configuration;
mod files;
mod logging;
pub mod looks;
mod namespaces;
mod outside;
mod papers;
mod salvage;
mod screen;
mod serve;
mod service;
mod signals;
mod tree;

use crate::config::{Action, Config};
use dstore_local::repl::exit;
use dstore_shared::Error;
use dstore_sys::Sys;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long work that blocks may hold up the end of the process.
const LINGER: Duration = Duration::from_millis(100);

/// Does what was asked, and gives the exit code.
pub fn run(config: Config) -> u8 {
    if let Err(e) = logging::start(&config) {
        return screen::complain(&e, exit::USAGE);
    }
    if let Err(e) = dstore_sys::failpoints::arm() {
        return refuse(&Error::invalid(e));
    }
    let Config { action, mode, .. } = config;
    if matches!(action, Action::Global(_) | Action::Local { .. } | Action::Solo { .. }) {
        raise_open_files();
    }
    match action {
        Action::Global(global) => block_on(Builder::new_multi_thread(), serve::global(global)),
        Action::Local { local, repl } => {
            block_on(Builder::new_multi_thread(), serve::local(local, repl, mode))
        }
        Action::Solo { global, local, script } => {
            block_on(Builder::new_multi_thread(), serve::solo(global, local, script, mode))
        }
        // A client is one conversation: it starts quicker without a pool of threads.
        Action::Repl { node, script } => {
            block_on(Builder::new_current_thread(), client::repl(node, script, mode))
        }
        Action::OneShot { node, command } => {
            block_on(Builder::new_current_thread(), client::one_shot(node, command, mode))
        }
        Action::Check(mut settings) => match settings.salvage.take() {
            Some(to) => salvage::run(settings, to, mode),
            None => check::run(settings, mode),
        },
        Action::Download { node, key, slice, out } => {
            block_on(Builder::new_current_thread(), files::download(node, key, slice, out, mode))
        }
        Action::Tree { node, what } => block_on(Builder::new_multi_thread(), tree::run(node, what, mode)),
        Action::Completions(shell) => papers::completions(shell),
        Action::Manual(dir) => papers::manual(&dir),
        Action::ShowConfig { all, origin } => configuration::show(&all, origin, mode),
        Action::ConfigIsGood(file) => configuration::good(file.as_deref(), mode),
        Action::Namespaces { node, what } => {
            block_on(Builder::new_current_thread(), namespaces::run(node, what, mode))
        }
        Action::Upload { node, key, attributes } => {
            block_on(Builder::new_current_thread(), client::upload(node, key, attributes, mode))
        }
    }
}

/// Lets a server have as many files open as the system allows it: each connection is one, and shells often
/// begin with 1,024. Without it everything works, with fewer connections.
fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    let (from, to) = (before.current, before.maximum);
    tracing::debug!(?from, ?to, ?raised, "limit on open files");
}

/// Says what is wrong with what was asked, and gives the exit code.
pub fn refuse(error: &Error) -> u8 {
    screen::complain(error, exit::of(error.kind()))
}

fn block_on(mut builder: Builder, main: impl Future<Output = u8>) -> u8 {
    let runtime: Runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error =
                Error::internal(format!("the process cannot start its threads, {e}: raise its limits"));
            return screen::complain(&error, exit::SOFTWARE);
        }
    };
    let code = runtime.block_on(main);
    runtime.shutdown_timeout(LINGER);
    code
}

/// What a command does on the machine that it runs on.
fn sys() -> Sys {
    Sys::real()
}
