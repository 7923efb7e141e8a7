//! The architecture's invariants, as far as a text can show them. Whoever breaks one learns it here, with the reason.

#![expect(clippy::unwrap_used, reason = "a check that cannot read the sources has failed")]

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 6] = ["crypto", "protocol", "inference", "dht", "node", "simulations"];
/// Lines of a file without its tests. Where a file needs more, a room is missing.
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust source of a crate, by its path from the root.
fn sources(of: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(of).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{of} has no sources");
    found
}

/// The lines of a source that are code: no comments, no inline tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// Fails with every file of `crates` that has one of `words` in its code, except where `allowed`.
fn only_in(crates: &[&str], words: &[&str], allowed: impl Fn(&str) -> bool, why: &str) {
    let mut faults = Vec::new();
    for (name, text) in crates.iter().flat_map(|of| sources(of)) {
        if allowed(&name) || is_test(&name) {
            continue;
        }
        let hits = code(&text).filter(|line| words.iter().any(|word| line.contains(word)));
        faults.extend(hits.map(|line| format!("{name}: {}", line.trim())));
    }
    assert!(faults.is_empty(), "{why}:\n{}", faults.join("\n"));
}

fn manifest(of: &str) -> String {
    let text = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
    text.split("[dev-dependencies]").next().unwrap().to_owned()
}

#[test]
fn pure_crates_have_no_io_clock_entropy_async_or_hash_order() {
    let words = [
        "std::fs",
        "std::net",
        "std::io::",
        "std::env",
        "std::process",
        "std::thread",
        "Instant",
        "SystemTime",
        "tokio",
        "async ",
        "await",
        "HashMap",
        "HashSet",
        "getrandom",
        "rand::",
        "println!",
    ];
    only_in(
        &["crypto", "protocol"],
        &words,
        |_| false,
        "time, chance, IO and keys are inputs of the pure crates",
    );
}

#[test]
fn machines_meet_only_in_the_peer() {
    let machines = |name: &str| name.starts_with("protocol/src/session");
    only_in(
        &["protocol"],
        &["crate::market", "market::"],
        |name| !machines(name),
        "sessions do not know the market",
    );
    let market = |name: &str| name.starts_with("protocol/src/market");
    only_in(
        &["protocol"],
        &["crate::session", "session::", "crate::ledger", "crate::mandate"],
        |name| !market(name),
        "the market does not know sessions, ledger or mandates",
    );
    only_in(&["protocol"], &["crate::peer", "super::peer"], |_| false, "no machine knows its parent");
}

#[test]
fn foreign_types_stay_in_their_rooms() {
    let net = |name: &str| name.starts_with("node/src/net") || name.starts_with("dht/src/kademlia");
    only_in(&CRATES, &["libp2p::", "use libp2p"], net, "libp2p is known to the network's rooms only");
    let models = |name: &str| name.starts_with("inference/src");
    only_in(&CRATES, &["candle_"], models, "candle is known to inference only");
    let traces = |name: &str| name.starts_with("node/src/traces");
    only_in(&CRATES, &["opentelemetry"], traces, "OpenTelemetry is known to the room of traces only");
    let metrics = |name: &str| name.starts_with("node/src/metrics");
    only_in(&CRATES, &["prometheus_client"], metrics, "Prometheus is known to the room of metrics only");
    let codec = |name: &str| name == "protocol/src/codec.rs";
    only_in(&CRATES, &["bincode::"], codec, "the encoding can be replaced in one place");
}

#[test]
fn crates_depend_downwards_only() {
    for (of, forbidden) in [
        ("crypto", &["protocol", "inference", "dht", "node", "tokio", "libp2p"][..]),
        ("protocol", &["inference", "dht", "node", "tokio", "libp2p", "getrandom", "rand"]),
        ("inference", &["protocol", "dht", "node", "tokio", "libp2p", "reqwest"]),
        ("dht", &["inference", "node", "tokio"]),
        ("simulations", &["inference", "llamesh-node", "node", "tokio", "libp2p"]),
    ] {
        let manifest = manifest(of);
        let dependencies = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for dependency in dependencies {
            assert!(!forbidden.contains(&dependency), "{of} must not depend on {dependency}");
        }
    }
    let dht = manifest("simulations");
    assert!(dht.contains("dht.workspace = true"), "simulations take dht without its network half");
}

#[test]
fn every_file_says_why_it_exists_and_fits_a_head() {
    let mut faults = Vec::new();
    for (name, text) in CRATES.iter().flat_map(|of| sources(of)) {
        if !text.starts_with("//!") {
            faults.push(format!("{name} does not begin with why it exists"));
        }
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..end].lines().count();
        if lines > MAX_LINES && !is_test(&name) {
            faults
                .push(format!("{name} has {lines} lines; {MAX_LINES} are the limit: which room is missing?"));
        }
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        if ["mod", "utils", "util", "helpers", "common", "manager", "types", "misc"].contains(&stem.as_str())
        {
            faults.push(format!("{name}: a room is named for what is in it"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn lints_are_inherited_and_not_switched_off() {
    for of in CRATES {
        assert!(
            manifest_whole(of).contains("[lints]\nworkspace = true"),
            "{of} does not inherit the workspace's lints"
        );
    }
    only_in(&CRATES, &["#[allow(", "#![allow("], |_| false, "`expect` with a reason, never `allow`");
}

fn manifest_whole(of: &str) -> String {
    fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap()
}
