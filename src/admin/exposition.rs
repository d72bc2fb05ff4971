//! Prometheus's text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Pure. Invariants: each name has its HELP and TYPE once, before all its samples; whatever a label says, it is one label.

use dstore_shared::figures::{Figure, Reading, Tally};
use std::fmt::Write;

/// The media type of what is written.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// Writes figures.
pub fn text<'a>(figures: impl IntoIterator<Item = &'a Figure>) -> String {
    let mut figures: Vec<&Figure> = figures.into_iter().collect();
    // Stable, so that what belongs to one name comes together and in its order.
    figures.sort_by_key(|figure| figure.name);
    let (mut out, mut last) = (String::new(), "");
    for figure in figures {
        if figure.name != last {
            last = figure.name;
            let help = figure.help.replace('\\', "\\\\").replace('\n', "\\n");
            put(&mut out, format_args!("# HELP {last} {help}\n# TYPE {last} {}\n", kind(&figure.reading)));
        }
        sample(&mut out, figure);
    }
    out
}

fn put(out: &mut String, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("a string takes what is written");
}

fn kind(reading: &Reading) -> &'static str {
    match reading {
        Reading::Counter(_) | Reading::Seconds(_) => "counter",
        Reading::Gauge(_) => "gauge",
        Reading::Times(_) | Reading::Sizes(_) => "histogram",
    }
}

fn sample(out: &mut String, figure: &Figure) {
    let name = figure.name;
    let labels = |more: Option<&str>| labels(figure, more);
    match &figure.reading {
        Reading::Counter(count) => put(out, format_args!("{name}{} {count}\n", labels(None))),
        Reading::Seconds(time) => put(out, format_args!("{name}{} {}\n", labels(None), time.as_secs_f64())),
        Reading::Gauge(level) => put(out, format_args!("{name}{} {level}\n", labels(None))),
        Reading::Times(tally) => distribution(out, figure, tally, MICROS),
        Reading::Sizes(tally) => distribution(out, figure, tally, 1.0),
    }
}

fn distribution(out: &mut String, figure: &Figure, tally: &Tally, unit: f64) {
    let name = figure.name;
    for (most, count) in tally.up_to() {
        let most = (most as f64 / unit).to_string();
        put(out, format_args!("{name}_bucket{} {count}\n", labels(figure, Some(&most))));
    }
    let count = tally.count();
    put(out, format_args!("{name}_bucket{} {count}\n", labels(figure, Some("+Inf"))));
    let plain = labels(figure, None);
    put(out, format_args!("{name}_sum{plain} {}\n{name}_count{plain} {count}\n", tally.sum() as f64 / unit));
}

fn labels(figure: &Figure, le: Option<&str>) -> String {
    let all =
        figure.labels.iter().map(|(name, value)| (*name, value.as_str())).chain(le.map(|le| ("le", le)));
    let all: Vec<String> = all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escaped(value: &str) -> String {
    value.chars().fold(String::new(), |mut out, c| {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            // Allowed, and of no use but to confuse a terminal.
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_name_has_its_help_and_type_once() {
        let of = |tier: &str, n| Figure::counter("x_total", "How\nmany.", n).of("tier", tier);
        let level = Figure::gauge("a", "Level.", 0.5);
        let seconds = Figure::new("y_seconds_total", "Long.", Reading::Seconds(Duration::from_millis(1500)));
        let wanted = "# HELP a Level.\n# TYPE a gauge\na 0.5\n\
                      # HELP x_total How\\nmany.\n# TYPE x_total counter\n\
                      x_total{tier=\"local\"} 1\nx_total{tier=\"global\"} 18446744073709551615\n\
                      # HELP y_seconds_total Long.\n# TYPE y_seconds_total counter\ny_seconds_total 1.5\n";
        assert_eq!(text([&of("local", 1), &level, &of("global", u64::MAX), &seconds]), wanted);
    }

    #[test]
    fn a_distribution_has_cumulative_buckets_a_sum_and_a_count() {
        let mut tally = Tally::default();
        tally.note_time(Duration::from_micros(3));
        tally.note_time(Duration::from_secs(1_000_000));
        let written = text([&Figure::new("t_seconds", "T.", Reading::Times(tally))]);
        for line in [
            "t_seconds_bucket{le=\"0.000002\"} 0\n",
            "t_seconds_bucket{le=\"0.000004\"} 1\n",
            "t_seconds_bucket{le=\"67.108864\"} 1\n",
            "t_seconds_bucket{le=\"+Inf\"} 2\n",
            "t_seconds_sum 1000000.000003\n",
            "t_seconds_count 2\n",
        ] {
            assert!(written.contains(line), "{line} in {written}");
        }
    }

    #[test]
    fn whatever_a_label_says_it_is_one_label_on_one_line() {
        let hostile = "a\"} 1\nevil_total{x=\"\\\u{1b}[31m";
        let written = text([&Figure::counter("x_total", "X.", 1).of("local", hostile)]);
        let samples: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, ["x_total{local=\"a\\\"} 1\\nevil_total{x=\\\"\\\\\u{FFFD}[31m\"} 1"]);
    }
}
