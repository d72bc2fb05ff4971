//! `/status.json`: what status and the figures tell, for programs and for the page.

use super::report::TierReport;
use dstore_proto::store::Tier;
use dstore_shared::figures::{Figure, Reading, Tally};
use serde_json::{Map, Value, json};

/// Everything, as one object.
pub fn status(tiers: &[TierReport]) -> Value {
    json!({ "version": env!("CARGO_PKG_VERSION"), "tiers": tiers.iter().map(tier).collect::<Vec<_>>() })
}

fn tier(report: &TierReport) -> Value {
    let status = &report.status;
    let facts: Map<String, Value> =
        status.facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| json!({ "name": check.name, "ok": check.ok, "why": if check.ok { "" } else { check.why } }))
        .collect();
    json!({
        "tier": match status.tier { Tier::Local => "local", Tier::Global => "global" },
        "version": status.version,
        "serving": status.serving,
        "revision": status.revision.0,
        "lease_ms": u64::try_from(status.lease.as_millis()).unwrap_or(u64::MAX),
        "checks": checks,
        "facts": facts,
        "figures": report.figures.iter().map(figure).collect::<Vec<_>>(),
    })
}

fn figure(figure: &Figure) -> Value {
    let labels: Map<String, Value> =
        figure.labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
    let (kind, value) = match &figure.reading {
        Reading::Counter(count) => ("counter", json!(count)),
        Reading::Seconds(time) => ("counter", json!(time.as_secs_f64())),
        Reading::Gauge(level) => ("gauge", json!(level)),
        Reading::Times(tally) => ("seconds", distribution(tally, 1e6)),
        Reading::Sizes(tally) => ("sizes", distribution(tally, 1.0)),
    };
    json!({ "name": figure.name, "help": figure.help, "kind": kind, "labels": labels, "value": value })
}

fn distribution(tally: &Tally, unit: f64) -> Value {
    let count = tally.count();
    let at = |part: f64| {
        let rank = (count as f64 * part).ceil() as u64;
        let most =
            tally.up_to().find(|(_, up_to)| *up_to >= rank && count > 0).map(|(most, _)| most as f64 / unit);
        most.map_or(Value::Null, Value::from)
    };
    json!({ "count": count, "sum": tally.sum() as f64 / unit, "p50": at(0.5), "p99": at(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_greatest_value_of_its_bucket() {
        let mut tally = Tally::default();
        (0..99).for_each(|_| tally.note(3));
        tally.note(1000);
        let told = distribution(&tally, 1.0);
        assert_eq!((&told["p50"], &told["p99"], &told["count"]), (&json!(4.0), &json!(4.0), &json!(100)));
        assert_eq!(distribution(&Tally::default(), 1.0)["p50"], Value::Null);
    }
}
