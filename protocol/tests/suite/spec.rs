//! `SPEC.md` says the numbers that the code has. Prose is for readers; its tables are checked here.

use std::fmt::Debug;

use crypto::Payload;
use protocol::{
    Acknowledgement, Announcement, Evidence, Frame, JobError, Message, Order, Plan, Profile, Receipt,
    Reputation, Request, Response, Segment, Weights, message::Bid,
};

use crate::{any, values};

const SPEC: &str = include_str!("../../SPEC.md");

/// The text of a section.
fn section(number: u8) -> &'static str {
    let begins = format!("{number}. ");
    SPEC.split("\n## ").find(|section| section.starts_with(&begins)).expect("a section of that number")
}

/// The cells of the section's first table row that begins with `head`.
fn row(number: u8, head: &str) -> Vec<&'static str> {
    let start = format!("| {head} |");
    let line = section(number).lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("SPEC.md §{number} has no row for {head}"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn number(cell: &str) -> usize {
    cell.replace(' ', "").parse().unwrap_or_else(|_| panic!("`{cell}` is not a number"))
}

#[test]
fn the_caps_of_messages_are_written_down() {
    fn check<M: Message>(name: &str) {
        let row = row(3, name);
        let caps: Vec<_> = row[2].split(',').map(number).collect();
        assert_eq!(caps.len(), row[1].split(',').count(), "{name}");
        let ours = (0u8..).map_while(M::cap).collect::<Vec<_>>();
        assert_eq!(caps, ours, "{name}");
    }
    check::<Request>("`Request`");
    check::<Response>("`Response`");
    check::<Announcement>("`Announcement`");
    check::<Frame>("`Frame`");
}

#[test]
fn the_caps_of_statements_are_written_down() {
    fn check<T: Payload>() {
        assert_eq!(number(row(3, &format!("`{}`", T::KIND))[2]), T::MAX_LEN, "{}", T::KIND);
    }
    check::<Acknowledgement>();
    check::<Bid>();
    check::<Order>();
    check::<Profile>();
    check::<Receipt>();
    check::<Segment>();
}

#[test]
fn the_default_weights_are_written_down() {
    let Weights { price, latency, evidence, locality } = Weights::default();
    for (name, weight) in
        [("price", price), ("latency", latency), ("evidence", evidence), ("locality", locality)]
    {
        assert_eq!(number(row(6, name)[1]), usize::from(weight), "{name}");
    }
}

/// The JSON spelling of a value that is one word.
fn word(value: &(impl serde::Serialize + Debug)) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap_or_else(|| panic!("{value:?} is no word")).to_owned()
}

#[test]
fn the_tolerance_of_every_evidence_is_written_down() {
    let written = section(10).lines().filter(|line| line.starts_with("| `"));
    let mut kinds = 0;
    for line in written {
        let (names, tolerance) = line.trim_matches('|').split_once(" | ").unwrap();
        for name in names.split('`').skip(1).step_by(2) {
            let evidence: Evidence = serde_json::from_value(name.into()).unwrap();
            let mut reputation = Reputation::default();
            let forgiven = (0..100).position(|_| reputation.observe(values::peer(1), evidence));
            assert_eq!(
                forgiven.map_or_else(|| "any".to_owned(), |n| n.to_string()),
                tolerance.trim(),
                "{name}"
            );
            assert_eq!(word(&evidence), name);
            kinds += 1;
        }
    }
    assert_eq!(kinds, 15, "a new kind of evidence belongs into SPEC.md");
}

#[test]
fn every_error_is_written_down() {
    use proptest::prelude::*;
    proptest!(|(error in any::error())| {
        let row = row(9, &format!("`{}`", JobError::code(&error)));
        prop_assert_eq!(row[3], if error.retryable() { "yes" } else { "no" });
    });
}

#[test]
fn the_caps_of_plans_are_written_down() {
    for (what, most) in [
        ("nodes", Plan::MAX_NODES),
        ("items of a map", Plan::MAX_ITEMS.into()),
        ("jobs, all tries counted", Plan::MAX_JOBS as usize),
        ("jobs at once", Plan::MAX_PARALLEL.into()),
        ("further tries of a job", Plan::MAX_RETRIES.into()),
        ("elements of a group", Plan::MAX_ARITY.into()),
        ("bytes of a template", Plan::MAX_TEMPLATE),
    ] {
        assert_eq!(number(row(15, what)[1]), most, "{what}");
    }
}
