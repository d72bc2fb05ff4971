//! The processes: one Global, some Locals, a wire between each Local and Global and one before each door.
//!
//! Invariants: a door keeps its address over all lives of its process; each process is changed by one fault at a time,
//! who holds its lock; all that a process wrote to standard error is in a file.

use crate::args::Args;
use crate::daemon::Daemon;
use crate::wire::Wire;
use dstore_client::{Address, Client, ClientConfig};
use dstore_sys::Sys;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Longer than Global is ever away.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// A process that does not listen by then never will.
const START_MAX: Duration = Duration::from_secs(60);
/// A process that did not end by then never will.
const STOP_MAX: Duration = Duration::from_secs(60);
/// What a Local may keep; some of the values together are more.
pub const CACHE_BYTES: u64 = 16 << 20;

/// A process, over its lives.
pub struct Process {
    pub name: String,
    dir: PathBuf,
    dstore: PathBuf,
    flags: Vec<String>,
    /// Held by whoever changes it.
    pub daemon: Mutex<Option<Daemon>>,
    /// Of the present life; 0 = there is none.
    pub pid: AtomicU32,
    pub lives: AtomicU64,
    /// Where its callers are.
    pub front: Wire,
}

/// A Local, and its way to Global.
pub struct Local {
    pub process: Process,
    pub wire: Wire,
}

/// All of them.
pub struct Fleet {
    pub global: Process,
    pub locals: Vec<Local>,
}

impl Process {
    async fn start(dstore: &Path, dir: &Path, name: &str, flags: Vec<String>) -> Result<Self, String> {
        let nowhere = Address::Tcp("127.0.0.1:1".into());
        let process = Self {
            name: name.into(),
            dir: dir.into(),
            dstore: dstore.into(),
            flags,
            daemon: Mutex::default(),
            pid: AtomicU32::new(0),
            lives: AtomicU64::new(0),
            front: Wire::to(&nowhere).await,
        };
        process.live(&mut *process.daemon.lock().await).await?;
        Ok(process)
    }

    /// Begins another life, and gives where it listens. The one before must have ended.
    pub async fn live(&self, daemon: &mut Option<Daemon>) -> Result<Address, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|e| format!("{}: no log: {e}", self.name))?;
        let mut command = Command::new(&self.dstore);
        command.args(&self.flags).env_clear().env("HOME", &self.dir).env("DSTORE_LOG", "info");
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let what = if self.flags[0] == "global" { "global" } else { "local" };
        let starting = tokio::task::spawn_blocking(move || Daemon::begin(command, what));
        let started = match tokio::time::timeout(START_MAX, starting).await {
            Ok(Ok(started)) => started.map_err(|ended| {
                format!("{what} ended before it listened: {}\n{}", ended.status, self.last_words())
            })?,
            Ok(Err(e)) => return Err(format!("{}: {e}", self.name)),
            Err(_) => return Err(format!("{} did not start within {START_MAX:?}", self.name)),
        };
        let at = started.at.clone();
        self.front.point_to(&at);
        self.pid.store(started.id(), Ordering::SeqCst);
        self.lives.fetch_add(1, Ordering::SeqCst);
        *daemon = Some(started);
        Ok(at)
    }

    /// kill -9.
    pub fn kill(&self, daemon: &mut Option<Daemon>) {
        self.pid.store(0, Ordering::SeqCst);
        if let Some(mut daemon) = daemon.take() {
            daemon.kill();
        }
    }

    /// Asks it to end, and gives how it did.
    pub async fn end(&self, daemon: &mut Option<Daemon>) -> Result<(), String> {
        self.pid.store(0, Ordering::SeqCst);
        let Some(mut daemon) = daemon.take() else { return Ok(()) };
        daemon.signal(Signal::TERM);
        let begun = std::time::Instant::now();
        while begun.elapsed() < STOP_MAX {
            match daemon.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{} ended as {status} when asked to", self.name)),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        Err(format!("{} did not end within {STOP_MAX:?}", self.name))
    }

    /// How it ended though nobody ended it.
    pub fn has_ended(&self) -> Option<ExitStatus> {
        self.daemon.try_lock().ok()?.as_mut()?.ended()
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(1000)..]).into_owned();
        format!("{}: {}", self.log().display(), log.trim())
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    pub fn client(&self) -> Client {
        let config = ClientConfig { deadline: DEADLINE, ..ClientConfig::default() };
        Client::connect(&Sys::real(), &self.front.at, config)
    }

    /// Waits until it answers and, of a Local, serves names.
    pub async fn serves(&self, within: Duration) -> Result<(), String> {
        let client = self.client();
        let wait = async {
            while !client.status().await.is_ok_and(|status| status.serving) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(within, wait).await;
        waited.map_err(|_| format!("{} did not serve within {within:?}", self.name))
    }
}

impl Fleet {
    pub async fn start(args: &Args, dstore: &Path, dir: &Path) -> Result<Arc<Self>, String> {
        let text = |flags: &[&str]| flags.iter().map(ToString::to_string).collect::<Vec<String>>();
        let mut flags = text(&["global", "--listen", "127.0.0.1:0", "--data", "data", "--min-free", "64MiB"]);
        flags.extend(text(&["--engine", &args.engine, "--lease", &args.lease]));
        let global = Process::start(dstore, dir, "global", flags).await?;
        let at = global.daemon.lock().await.as_ref().map(|daemon| daemon.at.clone());
        let at = at.ok_or("global is not there")?;
        let mut locals = Vec::new();
        for n in 1..=args.locals {
            let wire = Wire::to(&at).await;
            let cache = format!("{CACHE_BYTES}B");
            let mut flags = text(&["local", "--listen", "127.0.0.1:0", "--cache-bytes", &cache]);
            flags.extend(text(&["--global", &wire.at.to_string()]));
            // Every other one keeps absences too.
            if n % 2 == 0 {
                flags.extend(text(&["--negatives"]));
            }
            let process = Process::start(dstore, dir, &format!("local-{n}"), flags).await?;
            locals.push(Local { process, wire });
        }
        Ok(Arc::new(Self { global, locals }))
    }

    /// Global lives again: the Locals are led to it.
    pub async fn global_lives(&self, daemon: &mut Option<Daemon>) -> Result<(), String> {
        let at = self.global.live(daemon).await?;
        for local in &self.locals {
            local.wire.point_to(&at);
        }
        Ok(())
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.global).chain(self.locals.iter().map(|local| &local.process))
    }

    /// A client at each door, Global's last.
    pub fn doors(&self) -> Vec<(String, Client)> {
        let locals = self.locals.iter().map(|local| &local.process);
        locals.chain([&self.global]).map(|process| (process.name.clone(), process.client())).collect()
    }
}
