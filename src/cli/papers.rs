//! `dstore completions` and `dstore man`: what a shell and a reader know of the command line, made from itself.

use super::args::CommandLine;
use super::screen;
use clap::CommandFactory;
use clap_complete::Shell;
use dstore_local::repl::exit;
use dstore_shared::Error;
use std::io::Write;
use std::path::Path;

/// Writes what `shell` needs to complete words to standard output.
pub fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "dstore", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => exit::OK,
        Err(e) => refused(&format!("the completions cannot be written, {e}")),
    }
}

/// Writes a page of the manual for dstore and each of its verbs into `dir`.
pub fn manual(dir: &Path) -> u8 {
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(CommandLine::command(), dir));
    match written {
        Ok(()) => exit::OK,
        Err(e) => refused(&format!("the pages cannot be written to `{}`, {e}", dir.display())),
    }
}

fn refused(text: &str) -> u8 {
    screen::complain(&Error::invalid(text.to_owned()), exit::USAGE)
}
