//! The real binary: what a shell sees of it.

mod check;
mod configuration;
mod files;
mod interrupted;
mod names;
mod patient;
mod prompt;
mod solo;
mod tree;
mod unreachable;
mod usage;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// `dstore` in an empty directory, with nothing of this machine's environment.
struct Dstore {
    dir: TempDir,
}

impl Dstore {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
        command.args(args).env_clear().env("HOME", self.path()).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        Ended::of(&self.command(args).output().expect("dstore runs"))
    }

    /// Runs with `input` on standard input.
    fn run_with(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("dstore runs");
        // A process that ends before it has read everything is for the caller to judge.
        let _ = child.stdin.take().expect("piped").write_all(input);
        Ended::of(&child.wait_with_output().expect("dstore ends"))
    }
}

/// How a process ended.
#[derive(PartialEq, Eq, Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}
