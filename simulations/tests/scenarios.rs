//! Every scenario with several seeds: the rules hold, and a seed has one history.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use simulations::{Report, Scenario};

const HONEST: &str = include_str!("../scenarios/honest.toml");
const CHURN: &str = include_str!("../scenarios/churn.toml");
const RUSH: &str = include_str!("../scenarios/rush.toml");
const PARTITION: &str = include_str!("../scenarios/partition.toml");

/// Runs all seeds of a scenario, and sees to it that the rules hold and that no two histories are the same.
fn run(text: &str) -> Vec<Report> {
    let scenario = Scenario::parse(text).unwrap();
    let reports: Vec<_> = scenario.seeds.iter().map(|seed| simulations::run(&scenario, *seed)).collect();
    for report in &reports {
        assert!(report.is_good(), "{report}");
    }
    let histories: BTreeSet<_> = reports.iter().map(|report| &report.history).collect();
    assert_eq!(histories.len(), reports.len(), "another seed is another history");
    reports
}

/// The same seed again, in a world of its own, gives the same report to the last byte.
fn repeats(text: &str) {
    let scenario = Scenario::parse(text).unwrap();
    let again = || serde_json::to_string(&simulations::run(&scenario, scenario.seeds[0])).unwrap();
    assert_eq!(again(), again());
}

#[test]
fn honest_peers_do_every_job() {
    for report in run(HONEST) {
        assert_eq!((report.jobs, report.done), (60, 60), "{report}");
        assert!(
            report.kinds["announcement"].messages > 0 && report.kinds["ask"].messages > 0,
            "both ways: {report}"
        );
    }
}

#[test]
fn churn_moves_jobs_and_loses_no_money() {
    let reports = run(CHURN);
    assert!(reports.iter().any(|report| report.moved > 0), "somebody took over");
    assert!(reports.iter().all(|report| report.failed.contains_key("cancelled")), "somebody lost patience");
}

#[test]
fn a_partition_heals() {
    let reports = run(PARTITION);
    assert!(reports.iter().any(|report| report.moved > 0), "the long cut broke streams");
}

#[test]
fn a_rush_bends_no_rule() {
    let reports = run(RUSH);
    assert!(reports.iter().all(|report| report.unsettled == 0), "no wire broke, so every debt is known");
}

#[test]
fn a_seed_has_one_history() {
    [HONEST, CHURN, PARTITION, RUSH].into_iter().for_each(repeats);
}
