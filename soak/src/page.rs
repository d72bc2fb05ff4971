//! One page that tells what a run came to.

use crate::args::Args;
use crate::fleet::Fleet;
use crate::told::Told;
use crate::vitals::{Sample, Vitals};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The page.
pub fn page(args: &Args, seed: u64, fleet: &Fleet, told: &Told, vitals: &Vitals, took: Duration) -> String {
    let calls = told.calls();
    let answered: u64 = calls.values().map(|figures| figures.took.len()).sum();
    let failed: u64 = calls.values().map(|figures| figures.failed).sum();
    let mut page = String::new();
    let Args { engine, locals, callers, lease, .. } = args;
    let _ = writeln!(
        page,
        "soak of {:.1} minutes: engine {engine}, {locals} locals, {callers} callers, lease {lease}, seed {seed}\n",
        took.as_secs_f64() / 60.0
    );
    let _ =
        writeln!(page, "calls: {answered} answered, {failed} failed, {} given up", told.counted("given up"));
    let _ = writeln!(
        page,
        "  {:<12} {:>9} {:>7} {:>10} {:>10} {:>10}",
        "", "answered", "failed", "p50", "p99", "max"
    );
    for (kind, figures) in &calls {
        let took = &figures.took;
        let at = |quantile| ms(took.value_at_quantile(quantile));
        let (p50, p99, max) = (at(0.5), at(0.99), ms(took.max()));
        let _ = writeln!(
            page,
            "  {kind:<12} {:>9} {:>7} {p50:>10} {p99:>10} {max:>10}",
            took.len(),
            figures.failed
        );
    }
    list(&mut page, "failed as", &told.counts("error "));
    list(&mut page, "faults", &told.counts("fault "));
    let counted = |what| told.counted(what);
    let _ = writeln!(
        page,
        "judged: {} names with {} calls for linearizability ({} undecided), {} reads of names left alone, {} events of \
         {} watches ({} too old)",
        counted("names judged"),
        counted("calls judged"),
        counted("names undecided"),
        counted("shelf"),
        counted("watched"),
        fleet.locals.len() + 1,
        counted("watches too old"),
    );
    let _ = writeln!(
        page,
        "  {:<10} {:>6} {:>28} {:>24}",
        "process", "lives", "MiB first/last/most", "files first/last/most"
    );
    for process in fleet.processes() {
        let Some(series) = vitals.of.get(&process.name) else { continue };
        let three = |of: &dyn Fn(&Sample) -> u64| {
            let tell =
                |sample: Option<&Sample>| sample.map_or("-".to_owned(), |sample| of(sample).to_string());
            format!(
                "{}/{}/{}",
                tell(series.first.as_ref()),
                tell(series.last.as_ref()),
                tell(series.most.as_ref())
            )
        };
        let (memory, files) = (three(&|s| s.bytes >> 20), three(&|s| s.files));
        let lives = process.lives.load(Ordering::SeqCst);
        let _ = writeln!(page, "  {:<10} {lives:>6} {memory:>28} {files:>24}", process.name);
    }
    let (faults, violations) = (told.counts("fault ").values().sum::<u64>(), told.violations());
    let _ = write!(page, "\nseed={seed} ops={answered} faults={faults} violations={violations}");
    page
}

fn list(page: &mut String, title: &str, counts: &std::collections::BTreeMap<String, u64>) {
    let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
    let _ = writeln!(page, "{title}: {}", if counts.is_empty() { "none".into() } else { counts.join(", ") });
}

fn ms(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1e3)
}
