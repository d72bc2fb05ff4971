//! Daemons, clients, and waiting for what must come.

pub use crate::daemon::{Daemon, Stillborn};
use crate::wire::Wire;
use dstore_client::{Address, Client, ClientConfig, Status, Target, Tier, Value};
use dstore_shared::{Error, Name};
use dstore_sys::Sys;
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For what must come, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(20);
/// Added to a promised bound: the machine is shared and the build not optimised.
pub const SLACK: Duration = Duration::from_secs(2);

/// `dstore` with nothing of this machine's environment, in `dir`.
pub fn dstore(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
    command
        .args(args)
        .env_clear()
        .env("DSTORE_RESP", "off")
        .env("DSTORE_ADMIN", "off")
        .env("HOME", dir)
        .env("DSTORE_LOG", "info")
        .current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A Global with a data directory, and how it is started again.
pub struct Global {
    pub daemon: Daemon,
    flags: Vec<&'static str>,
    pub dir: TempDir,
}

impl Global {
    pub fn start(flags: &[&'static str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { daemon: Self::daemon(dir.path(), flags), flags: flags.to_vec(), dir }
    }

    fn daemon(dir: &Path, flags: &[&str]) -> Daemon {
        Daemon::begin(Self::command(dir, flags), "global")
            .unwrap_or_else(|ended| panic!("global does not listen: {ended:?}"))
    }

    fn command(dir: &Path, flags: &[&str]) -> Command {
        let args = [&["global", "--listen", "127.0.0.1:0", "--data", "data", "--min-free", "1MiB"], flags];
        dstore(dir, &args.concat())
    }

    /// Starts it on the same data, with failpoints. It must have ended.
    pub fn again_with(&mut self, failpoints: &str) -> Result<(), Stillborn> {
        let mut command = Self::command(self.dir.path(), &self.flags);
        command.env("FAILPOINTS", failpoints);
        self.daemon = Daemon::begin(command, "global")?;
        Ok(())
    }

    /// Starts it on the same data. It must have ended.
    pub fn again(&mut self) {
        self.daemon = Self::daemon(self.dir.path(), &self.flags);
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn client(&self) -> Client {
        client(&self.daemon.at)
    }

    /// The number that its status tells under `name`.
    pub async fn fact(&self, name: &str) -> u64 {
        let status = self.client().status().await.expect("global answers");
        fact(&status, name)
    }

    /// Uploads under way, or left over.
    pub fn staged(&self) -> usize {
        std::fs::read_dir(self.data().join("blobs/staging")).expect("it is there").count()
    }
}

pub fn fact(status: &Status, name: &str) -> u64 {
    let found = status.facts.iter().find(|(fact, _)| fact == name).expect("a fact of that name");
    found.1.parse().expect("a number")
}

/// A Local that reaches Global over a wire of its own.
pub struct Local {
    pub daemon: Daemon,
    pub wire: Wire,
    pub client: Client,
    flags: Vec<&'static str>,
    dir: TempDir,
}

impl Local {
    /// Starts one and waits until it serves.
    pub async fn start(global: &Global) -> Self {
        Self::start_with(global, &[]).await
    }

    /// Starts one with `flags` and waits until it serves.
    pub async fn start_with(global: &Global, flags: &[&'static str]) -> Self {
        let local = Self::of(&global.daemon.at, flags).await;
        local.serving().await;
        local
    }

    /// Starts one with failpoints, which may end it at any time.
    pub async fn begin(global: &Global, failpoints: &str) -> Result<Self, Stillborn> {
        Self::begin_with(global, &[], failpoints).await
    }

    /// As [`Self::begin`], with `flags`.
    pub async fn begin_with(
        global: &Global,
        flags: &[&'static str],
        failpoints: &str,
    ) -> Result<Self, Stillborn> {
        let (wire, dir) = (Wire::to(&global.daemon.at).await, tempfile::tempdir().expect("a directory"));
        let mut command = Self::command(dir.path(), &wire, flags);
        command.env("FAILPOINTS", failpoints);
        let daemon = Daemon::begin(command, "local")?;
        Ok(Self { client: client(&daemon.at), daemon, wire, flags: flags.to_vec(), dir })
    }

    /// Starts one that may be alone.
    pub async fn lonely(global: &Address) -> Self {
        Self::of(global, &[]).await
    }

    /// As [`Self::lonely`], with `flags`.
    pub async fn lonely_with(global: &Address, flags: &[&'static str]) -> Self {
        Self::of(global, flags).await
    }

    async fn of(global: &Address, flags: &[&'static str]) -> Self {
        let (wire, dir) = (Wire::to(global).await, tempfile::tempdir().expect("a directory"));
        let daemon = Self::daemon(dir.path(), &wire, flags);
        Self { client: client(&daemon.at), daemon, wire, flags: flags.to_vec(), dir }
    }

    fn daemon(dir: &Path, wire: &Wire, flags: &[&str]) -> Daemon {
        Daemon::begin(Self::command(dir, wire, flags), "local")
            .unwrap_or_else(|ended| panic!("local does not listen: {ended:?}"))
    }

    fn command(dir: &Path, wire: &Wire, flags: &[&str]) -> Command {
        let at = wire.at.to_string();
        dstore(dir, &[&["local", "--listen", "127.0.0.1:0", "--global", &at], flags].concat())
    }

    /// The folder that it runs in.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a new one on the same wire. The one before must have ended.
    pub async fn again(&mut self) {
        self.daemon = Self::daemon(self.dir.path(), &self.wire, &self.flags);
        self.client = client(&self.daemon.at);
        self.serving().await;
    }

    /// Waits until it serves names under a lease.
    pub async fn serving(&self) {
        until("the Local serves", async || self.client.status().await.is_ok_and(|s| s.serving)).await;
    }

    /// Waits until it serves under a lease of the Global that was started again.
    pub async fn follow(&self, global: &Global) {
        self.wire.point_to(&global.daemon.at);
        let boot = async |client: &Client| Some(client.status().await.ok()?.born?.boot);
        let now = boot(&global.client()).await.expect("global answers");
        until("the Local returns", async || boot(&self.client).await == Some(now)).await;
        self.serving().await;
    }

    /// Waits until a GET of `key` is a hit.
    pub async fn holds(&self, key: &str) {
        until("the Local holds the name", async || {
            let found = self.client.get(&name(key)).await;
            found.is_ok_and(|found| found.is_some_and(|value| value.from.tier == Tier::Local))
        })
        .await;
    }

    pub async fn get(&self, key: &str) -> Option<Value> {
        self.client.get(&name(key)).await.expect("answered")
    }
}

pub fn name(key: impl Into<String>) -> Name {
    Name::of(key.into()).expect("a valid key")
}

pub fn target(key: &str) -> Target {
    Target::Name(name(key))
}

/// A client that is patient.
pub fn client(at: &Address) -> Client {
    client_with(at, SOON)
}

pub fn client_with(at: &Address, deadline: Duration) -> Client {
    Client::connect(&Sys::real(), at, ClientConfig { deadline, ..ClientConfig::default() })
}

/// Waits until `holds`, at most [`SOON`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "in time: {what}");
}

/// What came, and how long it took.
pub async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let done = what.await;
    (done, start.elapsed())
}

/// Bytes that are the same for the same seed, and no two alike.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub fn failed<T: Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("it must fail")
}
