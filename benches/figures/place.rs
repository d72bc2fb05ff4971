//! Owns which core runs what, and the processes that are started: each is pinned, and ended by its pid.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where this process and a server run. A round trip between two idle cores of a virtual machine pays for
/// waking the other one, which belongs to the machine: so each latency is taken both ways.
#[derive(Clone, Copy)]
pub struct Place {
    pub name: &'static str,
    pub here: usize,
    pub server: usize,
}

pub const PLACES: [Place; 2] =
    [Place { name: "one core", here: 0, server: 0 }, Place { name: "split", here: 0, server: 1 }];

/// Runs `work` on `core`: threads and processes that it starts stay there.
pub fn on<T>(core: usize, work: impl FnOnce() -> T) -> T {
    let before = allowed();
    pin(&core.to_string());
    let done = work();
    pin(&before);
    done
}

/// The cores that this thread may use, as `0-1`.
fn allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux tells of its threads");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("Linux tells where it runs").trim().to_owned()
}

/// By the program of util-linux; without it, or without that core, the thread stays where it may be.
fn pin(cores: &str) {
    let me = std::fs::read_link("/proc/thread-self").expect("Linux tells of its threads");
    let thread = me.file_name().expect("it has a number");
    let pinned = Command::new("taskset").args(["-cp", cores]).arg(thread).output();
    if !pinned.is_ok_and(|done| done.status.success()) {
        eprintln!("taskset cannot pin a thread to core {cores}: it runs anywhere");
    }
}

/// A runtime of one worker on `core`, which goes on while another contender has its turn.
pub fn runtime(core: usize) -> tokio::runtime::Runtime {
    on(core, || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started")
    })
}

/// Does `work` on the runtime's worker.
pub fn run<T: Send + 'static>(
    rt: &tokio::runtime::Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    rt.block_on(async { tokio::spawn(work).await.expect("no operation failed") })
}

/// A process that ends with this value.
pub struct Process(Child);

impl Process {
    /// Starts `command` on `core`; `None` if the program is not installed.
    pub fn start(core: usize, command: &mut Command) -> Option<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        on(core, || command.spawn()).ok().map(Self)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The last word of its first line.
    pub fn told(&mut self) -> String {
        let mut line = String::new();
        let out = self.0.stdout.as_mut().expect("it is piped");
        BufReader::with_capacity(1, out).read_line(&mut line).expect("it says where it listens");
        line.split_whitespace().last().expect("it started").to_owned()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// `dstore global` over `data`; gives where it listens too.
pub fn global(core: usize, data: &Path) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
    command.args(["global", "--listen", "127.0.0.1:0", "--data"]).arg(data).env("DSTORE_LOG", "warn");
    let mut process = Process::start(core, &mut command).expect("dstore was built");
    let address = process.told();
    (process, address)
}

/// `dstore global` over `data`, with `flags` and on any core.
pub fn global_anywhere(data: &Path, flags: &[&str]) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
    command.args(["global", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(flags);
    let command = command.env("DSTORE_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().expect("dstore was built"));
    let address = process.told();
    (process, address)
}

/// `dstore local` of the Global at `global`.
pub fn local(core: usize, global: &str) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
    command.args(["local", "--listen", "127.0.0.1:0", "--global", global]).env("DSTORE_LOG", "error");
    let mut process = Process::start(core, &mut command).expect("dstore was built");
    let address = process.told();
    (process, address)
}

/// `dstore local` of the Global at `global`, which speaks RESP at a Unix socket and a port.
pub fn local_with_resp(core: usize, global: &str, socket: &Path, at: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstore"));
    command.args(["local", "--listen", "127.0.0.1:0", "--global", global, "--resp", at, "--resp-socket"]);
    command.arg(socket).env("DSTORE_LOG", "error");
    Process::start(core, &mut command).expect("dstore was built")
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
