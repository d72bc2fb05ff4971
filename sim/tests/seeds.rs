//! Both tiers, real gRPC included, under faults: a run for each seed.

use dstore_sim::run::{Plan, run};

#[test]
fn a_calm_cluster_is_linearizable() {
    for seed in 0..3 {
        let started = std::time::Instant::now();
        let report = run(Plan::calm(seed));
        println!("{report} {:?}", started.elapsed());
        assert!(report.violations.is_empty());
        assert_eq!(run(Plan::calm(seed)), report);
    }
}
