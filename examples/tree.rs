//! The main job on real input: every regular file below a directory goes through dstore and comes back equal.
//!
//! ```text
//! store    each file under its relative path, through one Local, many at a time
//! kill     Global, a process of its own, by SIGKILL; then it is started again
//! read     each file through another Local, compared with the hash that was taken from the disk
//! fill     the same, now that leases of before the crash have run out and nodes may keep what they read
//! again    the same, from that Local's memory
//! ```
//! Prints the figures of each phase and ends with 1 if a single file was refused, lost or different.
//!
//! ```text
//! cargo run --release --example tree                         the downloaded crate sources of this machine
//! cargo run --release --example tree -- DIR --limit 500      the first 500 files below DIR
//! cargo run --release --example tree -- --storm              kill Global in the midst of the writes instead
//! ```

use clap::Parser;
use dstore::{
    Address, Client, ClientConfig, Error, Global, GlobalConfig, Kind, Local, LocalConfig, Name, Node, Result,
    SetOutcome, Sys, Tier, limits,
};
use futures_util::{Stream, StreamExt, stream};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// MiB of files in memory at a time.
const MEMORY_MIB: u32 = 256;
/// How often a file is set anew, under a new id, when the outcome of an attempt stayed unknown.
const SETS_MAX: usize = 10;
/// How long a Local may take to get its session.
const SOON: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Options {
    /// The directory [default: the downloaded crate sources, `registry/src` in Cargo's home].
    dir: Option<PathBuf>,
    /// Take the first N files, in the order of their paths.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Files on their way at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    in_flight: usize,
    /// Keep Global's data in DIR, which must not exist yet [default: a temporary directory].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Kill Global when half of the files are stored, with the next ones on their way.
    #[arg(long)]
    storm: bool,
    /// Be the Global of this example: the data directory. Ends when standard input does.
    #[arg(long, value_name = "DIR", hide = true)]
    be_global: Option<PathBuf>,
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    listen: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = match &options.be_global {
        Some(data) => be_global(data, &options.listen).await.map(|()| true),
        None => run(options).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("tree: {}: {}", e.kind(), e.message());
            ExitCode::FAILURE
        }
    }
}

/// A file as it is on the disk.
#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    name: Name,
    size: u64,
}

/// A file that was stored: what must come back.
#[derive(Clone, Debug)]
struct Stored {
    file: File,
    hash: blake3::Hash,
}

async fn run(options: Options) -> Result<bool> {
    let Some(dir) = options.dir.clone().or_else(crate_sources) else {
        return Err(Error::invalid("no crate sources are found: name a directory"));
    };
    let files = files_below(&dir, options.limit.unwrap_or(usize::MAX))?;
    let temporary = tempfile::tempdir().map_err(|e| io_error(&std::env::temp_dir(), &e))?;
    let data = options.data.clone().unwrap_or_else(|| temporary.path().join("data"));
    if data.exists() {
        return Err(Error::invalid(format!("`{}` exists: name a new directory", data.display())));
    }
    println!("{} files, {} below {}", files.len(), mb(total(&files)), dir.display());
    println!("Global's data: {}", data.display());

    let sys = Sys::real();
    let mut global = GlobalProcess::start(&data, "127.0.0.1:0")?;
    let (one, other) = (start_local(&sys, &global).await?, start_local(&sys, &global).await?);
    let (writer, reader) = (client(&sys, &one), client(&sys, &other));
    let half = if options.storm { files.len() / 2 } else { files.len() };

    let mut phase = Phase::begin("store");
    let mut stored = Vec::with_capacity(files.len());
    let mut storing = std::pin::pin!(store_all(&writer, files, options.in_flight));
    while let Some(done) = storing.next().await {
        if let Some(done) = phase.note(done) {
            stored.push(done);
        }
        if options.storm && stored.len() == half {
            global = global.kill_and_restart(&data)?;
        }
    }
    phase.end(total_stored(&stored));
    if !options.storm {
        global = global.kill_and_restart(&data)?;
    }
    for local in [&one, &other] {
        local.ready(SOON).await?;
    }

    let mut bad = phase.failed + read_all("read", &reader, &stored, options.in_flight).await;
    // A Global that crashed lets nothing be kept until every lease of before has run out.
    tokio::time::sleep(limits::LEASE + limits::LEASE / 10).await;
    for what in ["fill", "again"] {
        bad += read_all(what, &reader, &stored, options.in_flight).await;
    }
    let distinct: HashSet<_> = stored.iter().map(|s| *s.hash.as_bytes()).collect();
    println!(
        "{} files have the bytes of another: {} blobs are stored",
        stored.len() - distinct.len(),
        distinct.len()
    );
    one.stop().await;
    other.stop().await;
    global.stop();
    println!("{}", if bad == 0 { "every file came back equal" } else { "FAILED" });
    Ok(bad == 0)
}

/// Stores every file, each under its relative path.
fn store_all(
    client: &Client<Node>,
    files: Vec<File>,
    in_flight: usize,
) -> impl Stream<Item = Result<Stored>> {
    let memory = Arc::new(Semaphore::new(MEMORY_MIB as usize));
    stream::iter(files)
        .map(move |file| {
            let (client, memory) = (client.clone(), memory.clone());
            async move {
                let _room = room(&memory, file.size).await;
                let bytes = tokio::fs::read(&file.path).await.map_err(|e| io_error(&file.path, &e))?;
                let hash = blake3::hash(&bytes);
                set(&client, &file, bytes.into()).await?;
                Ok(Stored { file, hash })
            }
        })
        .buffer_unordered(in_flight)
}

/// Sets one file. After a crash of Global an id of before may be refused, because its outcome cannot be known any
/// more; only who made the id may then set anew, and finds the bytes there or not.
async fn set(client: &Client<Node>, file: &File, bytes: bytes::Bytes) -> Result<()> {
    let mut last = None;
    for _ in 0..SETS_MAX {
        match client.set(&file.name, bytes.clone()).await {
            Ok(reply) => match reply.outcome {
                SetOutcome::Stored(_) | SetOutcome::Unchanged(_) => return Ok(()),
                other => return Err(Error::internal(format!("`{}`: {other:?}", file.path.display()))),
            },
            Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Closed) => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("no attempt was made")))
}

/// Reads every file back and compares; gives how many were not as they were stored.
async fn read_all(what: &'static str, client: &Client<Node>, stored: &[Stored], in_flight: usize) -> usize {
    let memory = Arc::new(Semaphore::new(MEMORY_MIB as usize));
    let mut phase = Phase::begin(what);
    let (mut bytes, mut hits) = (0, 0);
    let reads = stored.iter().cloned().map(|stored| {
        let (client, memory) = (client.clone(), memory.clone());
        async move {
            let _room = room(&memory, stored.file.size).await;
            read(&client, &stored).await
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(in_flight);
    while let Some(read) = reads.next().await {
        if let Some((size, tier)) = phase.note(read) {
            bytes += size;
            hits += usize::from(tier == Tier::Local);
        }
    }
    let (verified, failed) = (phase.done, phase.failed);
    phase.end(bytes);
    println!("         {verified} verified, {hits} of them from this node's memory");
    failed
}

async fn read(client: &Client<Node>, stored: &Stored) -> Result<(u64, Tier)> {
    let path = stored.file.path.display();
    let Some(value) = client.get(&stored.file.name).await? else {
        return Err(Error::corrupt(format!("`{path}` was acknowledged and is not there")));
    };
    if blake3::hash(&value.bytes) != stored.hash {
        return Err(Error::corrupt(format!("`{path}` came back with other bytes")));
    }
    Ok((value.bytes.len() as u64, value.from.tier))
}

/// Room for a file in memory, while the permit lives.
async fn room(memory: &Semaphore, size: u64) -> impl Drop + use<'_> {
    let mib = ((size >> 20) as u32 + 1).min(MEMORY_MIB);
    memory.acquire_many(mib).await.expect("nobody closes it")
}

/// Counts and times one phase.
struct Phase {
    what: &'static str,
    began: Instant,
    done: usize,
    failed: usize,
}

impl Phase {
    fn begin(what: &'static str) -> Self {
        Self { what, began: Instant::now(), done: 0, failed: 0 }
    }

    fn note<T>(&mut self, done: Result<T>) -> Option<T> {
        match done {
            Ok(done) => {
                self.done += 1;
                Some(done)
            }
            Err(e) => {
                self.failed += 1;
                eprintln!("tree: {}: {}: {}", self.what, e.kind(), e.message());
                None
            }
        }
    }

    fn end(&self, bytes: u64) {
        let took = self.began.elapsed().as_secs_f64();
        println!(
            "{:<8} {} files, {} in {took:.2} s: {:.0} files/s, {:.1} MB/s, {} failed",
            self.what,
            self.done,
            mb(bytes),
            self.done as f64 / took,
            bytes as f64 / 1e6 / took,
            self.failed
        );
    }
}

/// A Global that is a process of its own. It ends with this process: its standard input does.
struct GlobalProcess {
    child: Child,
    input: Option<ChildStdin>,
    address: Address,
}

impl GlobalProcess {
    fn start(data: &Path, listen: &str) -> Result<Self> {
        let me = std::env::current_exe().map_err(|e| io_error(Path::new("this program"), &e))?;
        let mut child = Command::new(&me)
            .arg("--be-global")
            .arg(data)
            .args(["--listen", listen])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| io_error(&me, &e))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(|e| io_error(&me, &e))?;
        }
        let Some(address) = line.trim().strip_prefix("Dstore server listening on ") else {
            let _ = child.wait();
            return Err(Error::unavailable("global did not start: see above"));
        };
        let address = address.parse()?;
        Ok(Self { input: child.stdin.take(), child, address })
    }

    /// SIGKILL: nothing is flushed, no goodbye is said.
    fn kill_and_restart(mut self, data: &Path) -> Result<Self> {
        let began = Instant::now();
        self.child.kill().map_err(|e| io_error(data, &e))?;
        self.child.wait().map_err(|e| io_error(data, &e))?;
        let again = Self::start(data, &self.address.to_string())?;
        println!("kill     Global by SIGKILL; it listens again after {:.0?}", began.elapsed());
        Ok(again)
    }

    /// Lets it stop in order.
    fn stop(mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The other side of [`GlobalProcess`].
async fn be_global(data: &Path, listen: &str) -> Result<()> {
    let config = GlobalConfig { listen: vec![listen.parse()?], ..GlobalConfig::new(data) };
    let global = Global::start(Sys::real(), config).await?;
    println!("Dstore server listening on {}", global.addresses()[0]);
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
    global.stop().await
}

async fn start_local(sys: &Sys, global: &GlobalProcess) -> Result<Local> {
    let local = Local::start(sys.clone(), LocalConfig::new(global.address.clone())).await?;
    local.ready(SOON).await?;
    Ok(local)
}

fn client(sys: &Sys, local: &Local) -> Client<Node> {
    Client::over(sys, Arc::new(local.node().clone()), ClientConfig::default())
}

/// The first `limit` regular files below `dir`, in the order of their paths; links are not followed.
fn files_below(dir: &Path, limit: usize) -> Result<Vec<File>> {
    let (mut folders, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for found in std::fs::read_dir(&folder).map_err(|e| io_error(&folder, &e))? {
            let path = found.map_err(|e| io_error(&folder, &e))?.path();
            let about = path.symlink_metadata().map_err(|e| io_error(&path, &e))?;
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file() {
                files.extend(file(dir, path, about.len()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.truncate(limit);
    Ok(files)
}

/// A file, unless dstore would refuse it; that is said.
fn file(dir: &Path, path: PathBuf, size: u64) -> Option<File> {
    let relative = path.strip_prefix(dir).unwrap_or(&path).as_os_str().as_bytes().to_vec();
    let why = match Name::of(relative) {
        Err(e) => e.message().to_owned(),
        Ok(_) if size > limits::BLOB_BYTES_MAX => "larger than a blob may be".to_owned(),
        Ok(name) => return Some(File { path, name, size }),
    };
    eprintln!("tree: left out `{}`: {why}", path.display());
    None
}

/// `registry/src` in Cargo's home, if there is one.
fn crate_sources() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    Some(home.join("registry/src")).filter(|sources| sources.is_dir())
}

fn total(files: &[File]) -> u64 {
    files.iter().map(|file| file.size).sum()
}

fn total_stored(stored: &[Stored]) -> u64 {
    stored.iter().map(|stored| stored.file.size).sum()
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(format!("`{}`: {error}", path.display()))
}
