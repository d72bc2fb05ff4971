//! Memory and open files of the processes over time, and whether each lives at all.
//!
//! Invariant: a process's samples are thinned out rather than too many.

use crate::fleet::{CACHE_BYTES, Fleet, Process};
use crate::told::Told;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Samples of a process that are kept.
const SAMPLES_MAX: usize = 2048;
/// A life of less is all beginning.
const SETTLED: Duration = Duration::from_secs(20);
/// Samples from which on a process can be judged to be level.
const LEVEL_SAMPLES: usize = 180;

/// Memory of Global, most of it caches and what waits for the index, whose bounds add up to 300 MiB, and of the engine.
const GLOBAL_BYTES_MAX: u64 = 1 << 30;
/// Memory of a Local: its cache twice, as values on their way count apart, and what connections take.
const LOCAL_BYTES_MAX: u64 = 2 * CACHE_BYTES + (256 << 20);
/// Open files: connections of all callers, and the engine's files.
const FILES_MAX: u64 = 1000;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub bytes: u64,
    pub files: u64,
}

/// What was seen of one process, over its lives.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub samples: Vec<Sample>,
    /// One look in so many is kept, less one.
    skip: u32,
    skipped: u32,
    pid: u32,
    age: Duration,
    pub first: Option<Sample>,
    pub last: Option<Sample>,
    pub most: Option<Sample>,
}

/// What was seen of all.
#[derive(Debug, Default)]
pub struct Vitals {
    pub of: HashMap<String, Series>,
}

impl Series {
    fn take(&mut self, pid: u32, sample: Sample) {
        self.age = if self.pid == pid { self.age + EVERY } else { Duration::ZERO };
        self.pid = pid;
        self.first.get_or_insert(sample);
        self.last = Some(sample);
        let most = self.most.get_or_insert(sample);
        *most = Sample { bytes: most.bytes.max(sample.bytes), files: most.files.max(sample.files) };
        if self.age < SETTLED {
            return;
        }
        self.skipped += 1;
        if self.skipped > self.skip {
            self.skipped = 0;
            self.samples.push(sample);
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.skip = 2 * self.skip + 1;
        }
    }

    /// The medians of the second quarter of what was seen, and of the last.
    fn quarters(&self) -> Option<(Sample, Sample)> {
        let n = self.samples.len();
        (n >= LEVEL_SAMPLES)
            .then(|| (median(&self.samples[n / 4..n / 2]), median(&self.samples[n - n / 4..])))
    }
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |of: &dyn Fn(&Sample) -> u64| {
        let mut all: Vec<u64> = samples.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Sample { bytes: middle(&|s| s.bytes), files: middle(&|s| s.files) }
}

/// What a process has now; `None` if it is gone.
fn look(pid: u32) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { bytes: kib << 10, files })
}

impl Vitals {
    /// Looks until `stop`.
    pub async fn watch(fleet: &Fleet, told: &Told, stop: CancellationToken) -> Self {
        let mut vitals = Self::default();
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            for process in fleet.processes() {
                if let Some(status) = process.has_ended() {
                    told.accuse(format!("{} ended by itself: {status}", process.name));
                    stop.cancel();
                }
                vitals.take(process, told);
            }
        }
        vitals
    }

    fn take(&mut self, process: &Process, told: &Told) {
        let pid = process.pid.load(Ordering::SeqCst);
        let Some(sample) = look(pid).filter(|_| pid > 0) else { return };
        let bytes_max = if process.name == "global" { GLOBAL_BYTES_MAX } else { LOCAL_BYTES_MAX };
        let series = self.of.entry(process.name.clone()).or_default();
        let before = series.most;
        series.take(pid, sample);
        let was_within = before.is_none_or(|most| most.bytes <= bytes_max && most.files <= FILES_MAX);
        if was_within && (sample.bytes > bytes_max || sample.files > FILES_MAX) {
            told.accuse(format!(
                "{} has {sample:?}: at most {bytes_max} bytes, {FILES_MAX} files",
                process.name
            ));
        }
    }

    /// Accuses what grows. Half as much again, and what one burst of values may take, is not growth.
    pub fn judge(&self, told: &Told) {
        for (name, series) in &self.of {
            let Some((before, after)) = series.quarters() else { continue };
            if after.bytes > before.bytes / 2 * 3 + (64 << 20) || after.files > before.files / 2 * 3 + 64 {
                told.accuse(format!("{name} grows: {before:?} in the second quarter, {after:?} in the last"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sample: impl Fn(u64) -> Sample) -> u64 {
        let mut series = Series::default();
        for at in 0..20_000 {
            series.take(1, sample(at));
        }
        assert!(series.samples.len() < SAMPLES_MAX);
        let told = Told::new();
        Vitals { of: HashMap::from([("global".to_owned(), series)]) }.judge(&told);
        told.violations()
    }

    #[test]
    fn what_grows_is_found_and_what_is_level_is_not() {
        let mib = |n: u64| n << 20;
        assert_eq!(judged(|at| Sample { bytes: mib(100 + at % 50), files: 30 + at % 20 }), 0);
        assert_eq!(judged(|at| Sample { bytes: mib(100 + at / 50), files: 30 }), 1, "memory");
        assert_eq!(judged(|at| Sample { bytes: mib(100), files: 30 + at / 50 }), 1, "files");
    }

    #[test]
    fn a_process_is_looked_at() {
        let me = look(std::process::id()).expect("it runs");
        assert!(me.bytes > 1 << 20 && me.files > 2, "{me:?}");
        assert!(look(u32::MAX).is_none());
    }
}
