//! The program `llamesh`: parse, run, exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use node::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(Cli::parse())
}
