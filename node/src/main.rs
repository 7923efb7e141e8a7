//! The program `llamesh`: parse, run, exit code. Everything else is in the library.

use std::process::ExitCode;

use node::cli;

fn main() -> ExitCode {
    match cli::typed() {
        Ok(cli) => cli::main(cli),
        Err(code) => code,
    }
}
