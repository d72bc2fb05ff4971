//! The `dstore` binary: reads what was asked, does it, and ends with the documented code.

mod admin;
mod cli;
mod config;

use clap::Parser;
use config::Surroundings;
use std::process::ExitCode;

/// Gives memory back to the system some seconds after it was freed, which glibc's does not: 10,000 Locals that left would
/// keep 300 MiB of it.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let line = cli::args::CommandLine::parse();
    let around =
        Surroundings { env: &|name| std::env::var_os(name), read: &|path| std::fs::read_to_string(path) };
    let code = match config::resolve(line, &around) {
        Ok(config) => cli::run(config),
        Err(e) => cli::refuse(&e),
    };
    ExitCode::from(code)
}
