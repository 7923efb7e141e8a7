//! `simulate SCENARIO.toml [--seed N] [--json]`: runs a scenario with its seeds, or with one, and prints what came out.
//!
//! Exit code 0 when every rule held in every history, 1 when one did not, 2 when there was nothing to run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use simulations::{Report, Scenario};

/// What the command line asks for.
struct Wish {
    path: PathBuf,
    seed: Option<u64>,
    json: bool,
}

const USAGE: &str = "usage: simulate SCENARIO.toml [--seed N] [--json]";

fn main() -> ExitCode {
    match simulate() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&*error);
            ExitCode::from(2)
        }
    }
}

fn simulate() -> Result<bool, Box<dyn std::error::Error>> {
    let wish = Wish::parse(std::env::args().skip(1))?;
    let scenario = Scenario::parse(&std::fs::read_to_string(locate(&wish.path))?)?;
    let seeds = wish.seed.map_or_else(|| scenario.seeds.clone(), |seed| vec![seed]);
    let mut good = true;
    for seed in seeds {
        let report = simulations::run(&scenario, seed);
        good &= report.is_good();
        show(&report, wish.json)?;
    }
    Ok(good)
}

impl Wish {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn std::error::Error>> {
        let (mut path, mut seed, mut json) = (None, None, false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => json = true,
                "--seed" => seed = Some(arguments.next().ok_or(USAGE)?.parse()?),
                _ if argument.starts_with('-') || path.is_some() => return Err(USAGE.into()),
                _ => path = Some(PathBuf::from(argument)),
            }
        }
        Ok(Self { path: path.ok_or(USAGE)?, seed, json })
    }
}

/// `cargo run` starts in the folder of the caller and names this package's: a scenario is found from both.
fn locate(path: &Path) -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(|folder| PathBuf::from(folder).join(path));
    package.filter(|inside| !path.exists() && inside.exists()).unwrap_or_else(|| path.to_owned())
}

#[expect(clippy::print_stdout, reason = "what this program is for")]
fn show(report: &Report, json: bool) -> Result<(), serde_json::Error> {
    match json {
        true => println!("{}", serde_json::to_string(report)?),
        false => println!("{report}"),
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr, data to stdout")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("{error}");
}
