//! A `dstore` server process: started, signalled, measured, and ended with whoever has it.

#![allow(dead_code, reason = "the soak has this file too, and uses other parts of it")]

use dstore_client::Address;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server process. Ended when dropped.
pub struct Daemon {
    child: Child,
    /// Where it listens.
    pub at: Address,
    out: BufReader<ChildStdout>,
    err: Arc<Mutex<Vec<String>>>,
    what: &'static str,
}

/// How a server ended that never listened, and what it wrote to standard error.
#[derive(Debug)]
pub struct Stillborn {
    pub status: ExitStatus,
    pub err: Vec<String>,
}

impl Daemon {
    /// Runs `command` and waits until it says where it listens.
    pub fn start(command: Command, what: &'static str) -> Self {
        Self::begin(command, what).unwrap_or_else(|ended| panic!("{what} does not listen: {ended:?}"))
    }

    /// As [`Self::start`], or how it ended before it listened. What it writes to standard error is kept if that is a
    /// pipe.
    pub fn begin(mut command: Command, what: &'static str) -> Result<Self, Stillborn> {
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {command:?} does not run: {e}"));
        let err = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|told| {
            let kept = err.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(told).lines().map_while(Result::ok) {
                    kept.lock().expect("nobody panics with it").push(line);
                }
            })
        });
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("read");
        let Some((_, at)) = line.trim_end().rsplit_once(" listening on ") else {
            let status = child.wait().expect("ended");
            if let Some(reader) = reader {
                reader.join().expect("nothing fails there");
            }
            let err = err.lock().expect("nobody panics with it").clone();
            return Err(Stillborn { status, err });
        };
        let at = at.parse().expect("an address");
        Ok(Self { child, at, out, err, what })
    }

    /// Where it also listens, for HTTP or RESP: what one of its next lines says.
    pub fn also_at(&mut self, wire: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.out.read_line(&mut line).expect("read") > 0,
                "{}: it listens for no {wire}",
                self.what
            );
            if let Some(at) = line.trim_end().strip_prefix(&format!("Dstore {wire} listening on ")) {
                return at.to_owned();
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("sent");
    }

    /// kill -9, and its end awaited.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks it to end and gives how it did.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().expect("ended")
    }

    /// What it wrote to standard error so far.
    pub fn err(&self) -> Vec<String> {
        self.err.lock().expect("nobody panics with it").clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// KiB of memory that it has now.
    pub fn resident_kib(&self) -> usize {
        resident_kib(self.id())
    }

    /// CPU that its threads have taken so far.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let taken = tasks.filter_map(|task| {
            // A thread may end meanwhile.
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(taken.sum())
    }

    /// The most memory it ever had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

/// KiB of memory that a process has now.
pub fn resident_kib(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.what, self.err().join("\n"));
        }
    }
}
