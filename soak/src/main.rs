//! Soak: real processes under real load, killed and cut off at random, and judged while they run.
//!
//! ```text
//! callers -- door -- Local -- wire -- Global      nemesis kills, ends, stops, cuts, holds
//!    |         |________________________|         watchers at every door
//!    v
//! board (calls about each name) -> judge (linearizable?) -> shelf (stays as it was?)     vitals: memory, files
//! at the end: everything whole, every name read at every door, watches complete, processes end, `dstore check`
//! ```
//! Invariants: memory and work a second do not depend on how long it runs; a violation never ends unnoticed: the exit
//! code is 1, and data, logs and stories stay. It must never say "0 violations" of a run that did too little.

#[path = "../../tests/processes/daemon.rs"]
mod daemon;
#[path = "../../tests/processes/wire.rs"]
mod wire;

mod args;
mod board;
mod callers;
mod calls;
mod faults;
mod fleet;
mod judge;
mod page;
mod run;
mod shelf;
mod told;
mod values;
mod vitals;
mod watchers;

use args::Args;
use clap::Parser;
use dstore_sys::rng::{OsRng, Rng};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Exit code of a run that could not begin.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| OsRng.next_u64() >> 32);
    match soak(&args, seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("dstore-soak: {e}");
            ExitCode::from(UNUSABLE)
        }
    }
}

/// Runs, tells, and gives the number of violations.
fn soak(args: &Args, seed: u64) -> Result<u64, String> {
    let dstore = match &args.dstore {
        Some(path) => std::path::absolute(path).map_err(|e| format!("`{}`: {e}", path.display()))?,
        None => built()?,
    };
    let kept = match &args.dir {
        Some(dir) => {
            std::fs::create_dir(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
            Some(std::path::absolute(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?)
        }
        None => None,
    };
    let temporary = tempfile::tempdir().map_err(|e| format!("no temporary directory: {e}"))?;
    let dir = kept.clone().unwrap_or_else(|| temporary.path().to_owned());
    eprintln!("seed {seed}, in {}", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no threads: {e}"))?;
    let outcome = runtime.block_on(run::run(args, seed, &dstore, &dir))?;
    println!("{}", outcome.page);
    if outcome.violations > 0 {
        let text = format!("{}\n\n{}\n", outcome.page, outcome.stories);
        let stories = dir.join("violations.txt");
        std::fs::write(&stories, text).map_err(|e| format!("`{}`: {e}", stories.display()))?;
        let _ = temporary.keep();
        println!("stories, data and the processes' logs: {}", dir.display());
    }
    Ok(outcome.violations)
}

/// The `dstore` beside this program, brought up to date if cargo runs this.
fn built() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let dstore = me.with_file_name("dstore");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "dstore", "--bin", "dstore"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().map_err(|e| format!("cargo: {e}"))?;
        if !built.success() {
            return Err("`dstore` cannot be built".into());
        }
    }
    if dstore.exists() {
        Ok(dstore)
    } else {
        Err("build `dstore` first, or say where it is: --dstore FILE".into())
    }
}
