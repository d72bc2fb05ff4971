//! Owns how a figure is taken: contenders in interleaved turns, their latencies, and the line that compares
//! them. A figure is the median over turns, so that a moment in which the machine did something else
//! touches one turn of each. Processor time per operation, of all processes that took part, is told beside
//! it: it hardly changes when others use the machine.

use crate::place::Process;
use hdrhistogram::Histogram;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was asked on the command line.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only figures whose name contains it.
    pub filter: Option<String>,
    /// Turns that each contender has; odd, so that there is a middle one.
    pub turns: usize,
    /// How long a turn lasts.
    pub span: Duration,
    /// Names of the store that is opened again.
    pub names: u64,
}

impl Plan {
    /// Whether any figure called `figure/..` may be wanted.
    pub fn wants(&self, figure: &str) -> bool {
        self.filter.as_ref().is_none_or(|f| figure.contains(f.as_str()) || f.starts_with(figure))
    }
}

/// What one contender did in one turn.
pub struct Turn {
    pub ops: u64,
    pub took: Duration,
    /// Processor time of all processes that took part.
    computed: Duration,
    /// Nanoseconds of each operation.
    pub latency: Histogram<u64>,
}

impl Turn {
    pub fn begin() -> Self {
        Self { ops: 0, took: Duration::ZERO, computed: Duration::ZERO, latency: histogram() }
    }

    pub fn note(&mut self, began: Instant) {
        self.ops += 1;
        self.latency.saturating_record(began.elapsed().as_nanos() as u64);
    }

    /// `n` operations that began and ended together.
    pub fn note_many(&mut self, began: Instant, n: u64) {
        self.ops += n;
        self.latency.saturating_record_n(began.elapsed().as_nanos() as u64, n);
    }

    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.latency.add(&other.latency).expect("histograms of one kind");
    }

    fn rate(&self) -> f64 {
        self.ops as f64 / self.took.as_secs_f64()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("valid bounds")
}

/// Somebody who takes part: a name, and how it does one turn of about the given length.
pub struct Contender<'a> {
    who: &'static str,
    turn: Box<dyn FnMut(Duration) -> Turn + 'a>,
    /// The processes that do its work, besides this one.
    servers: Vec<u32>,
}

impl<'a> Contender<'a> {
    pub fn new(who: &'static str, turn: impl FnMut(Duration) -> Turn + 'a) -> Self {
        Self { who, turn: Box::new(turn), servers: Vec::new() }
    }

    /// Its work is done by `server` too: what that computes counts.
    #[must_use]
    pub fn by(mut self, server: &Process) -> Self {
        self.servers.push(server.id());
        self
    }

    /// Processor time of this process and its servers so far.
    fn computed(&self) -> Duration {
        self.servers.iter().copied().chain([std::process::id()]).map(computed).sum()
    }

    fn measured(&mut self, span: Duration) -> Turn {
        let before = self.computed();
        let mut turn = (self.turn)(span);
        turn.computed = self.computed().saturating_sub(before);
        turn
    }
}

/// Processor time that a process has had, in steps of a tick of 10 ms.
pub fn computed(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is a name in parentheses, which may have spaces.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(10 * ticks)
}

/// How the rates of a figure are told.
#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    /// Each operation moves so many bytes.
    Bytes(u64),
}

pub fn header() {
    println!(
        "| figure | placed | who | rate | min | p50 | p99 | processor | ours : its rate | ours : its p50 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

/// Lets the contenders take turns and prints a line for each. The first is ours; the others are compared to it.
pub fn compare(plan: &Plan, figure: &str, place: &str, unit: Unit, mut contenders: Vec<Contender<'_>>) {
    if plan.filter.as_ref().is_some_and(|f| !format!("{figure} {place}").contains(f.as_str())) {
        return;
    }
    for contender in &mut contenders {
        (contender.turn)(plan.span / 4);
    }
    let mut turns: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.turns {
        for (contender, turns) in contenders.iter_mut().zip(&mut turns) {
            turns.push(contender.measured(plan.span));
        }
    }
    let mut ours = None;
    for (contender, turns) in contenders.iter().zip(&turns) {
        let mut all = histogram();
        turns.iter().for_each(|turn| all.add(&turn.latency).expect("histograms of one kind"));
        let computed: Duration = turns.iter().map(|turn| turn.computed).sum();
        let rate = median(turns.iter().map(Turn::rate).collect());
        let p50 = median(turns.iter().map(|t| t.latency.value_at_quantile(0.5) as f64).collect());
        let (to_rate, to_p50) = match ours {
            None => (String::new(), String::new()),
            Some((r, p)) => (format!("{:.2}x", r / rate), format!("{:.2}x", p / p50)),
        };
        ours = ours.or(Some((rate, p50)));
        println!(
            "| {figure} | {place} | {} | {} | {} | {} | {} | {} | {to_rate} | {to_p50} |",
            contender.who,
            told(rate, unit),
            time(all.min() as f64),
            time(p50),
            time(all.value_at_quantile(0.99) as f64),
            time(computed.as_nanos() as f64 / turns.iter().map(|t| t.ops).sum::<u64>() as f64),
        );
    }
}

fn told(rate: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes(bytes) => format!("{:.2} GB/s", rate * bytes as f64 / 1e9),
        Unit::PerSecond if rate >= 10_000.0 => format!("{:.1} k/s", rate / 1e3),
        Unit::PerSecond => format!("{rate:.0} /s"),
    }
}

pub fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e5 => format!("{:.1} µs", n / 1e3),
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Keeps `in_flight` operations under way for `span`, at most `limit` in all. Each gets a number that no
/// other operation of this process has.
pub async fn drive<F>(
    in_flight: usize,
    span: Duration,
    limit: u64,
    op: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Turn
where
    F: Future<Output = ()> + Send,
{
    let left = Arc::new(AtomicU64::new(limit));
    let began = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (op, left) = (op.clone(), left.clone());
            tokio::spawn(async move {
                let mut turn = Turn::begin();
                while began.elapsed() < span {
                    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                    let Ok(rest) = taken else { break };
                    let number = if limit == u64::MAX { serial() } else { limit - rest };
                    let began = Instant::now();
                    op(number).await;
                    turn.note(began);
                }
                turn
            })
        })
        .collect();
    let mut all = Turn::begin();
    for task in tasks {
        all.add(&task.await.expect("no operation failed"));
    }
    all.took = began.elapsed();
    all
}

/// A number that was not given before.
pub fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Bytes that no other number gives.
pub fn value(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; size];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub const SIZES: [(&str, usize); 3] = [("100B", 100), ("4KiB", 4 << 10), ("64KiB", 64 << 10)];
