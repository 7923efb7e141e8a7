//! Unmodified client libraries at a peer that has no model: all they ask is answered by the mesh.
//!
//! Each program in `clients/` runs in a virtual environment of its own with pinned packages, made by pip on first use
//! below the build's folder. Where pip, the packages or the models cannot be had, this says so and tests nothing.

#[path = "support/support.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use node::models::{Models, Silent};
use support::{Home, LIMIT, Peer, Process, shown};

/// Tokens of an echo in a second: slow enough to be taken back, and fast enough to be waited for.
const ECHO: &str = "echo:100";
/// A provider loads two models first; a client imports half of Python.
const PATIENCE: Duration = Duration::from_secs(600);
/// The libraries, and the judge that holds answers against OpenAI's own description; each has a list of packages and a
/// program.
const LIBRARIES: [&str; 6] = ["openai", "langchain", "llamaindex", "autogen", "crewai", "schemathesis"];

#[test]
fn client_libraries_work_at_a_peer_without_a_model() {
    let cache = match obtained() {
        Ok(cache) => cache,
        Err(why) => return eprintln!("SKIPPED: the models cannot be had here: {why}"),
    };
    let provider = provider(&cache);
    let gateway = Home::patient(PATIENCE).up(&["--model", "-", "--bootstrap", &provider.address()]);
    for library in LIBRARIES {
        match environment(library) {
            Ok(python) => check(library, &python, &gateway),
            Err(why) => eprintln!("SKIPPED: {library} cannot be installed here: {why}"),
        }
    }
}

#[test]
fn the_protocol_s_own_client_reaches_all_tools_over_http_and_pipes() {
    let python = match environment("mcp") {
        Ok(python) => python,
        Err(why) => return eprintln!("SKIPPED: mcp cannot be installed here: {why}"),
    };
    let echo = "[[agent]]\ncapability = \"text.generation\"\nengine = \"echo\"\n\
                [[agent]]\ncapability = \"text.slow\"\nengine = \"echo:10\"\n";
    let home = Home::new();
    fs::create_dir(home.data()).expect("an empty home");
    fs::write(home.data().join("llamesh.toml"), echo).expect("a folder that can be written");
    let provider = home.up(&[]);
    let gateway = Home::patient(PATIENCE).up(&["--model", "-", "--bootstrap", &provider.address()]);
    let mcp = gateway.home.bare(&["mcp", "--data-dir", &shown(&gateway.home.data())]);
    let words = std::iter::once(mcp.get_program()).chain(mcp.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut program = Command::new(&python);
    program.arg(folder().join("check_mcp.py")).env("MCP_PROGRAM", words.join(" "));
    program.env("MCP_URL", format!("{}/mcp", gateway.api())).env("PYTHONDONTWRITEBYTECODE", "1");
    let outcome = Process::start(program, PATIENCE).finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    // What was begun in a session is given up some seconds after its end.
    let given_up = Instant::now() + LIMIT;
    while provider.run(&["jobs"]).document()["jobs"] != serde_json::json!([]) {
        assert!(Instant::now() < given_up, "nobody works for whoever has left");
    }
}

#[test]
fn the_a2a_library_works_at_a_peer() {
    let peer = Home::patient(PATIENCE).up(&["--engine", ECHO, "--push-private"]);
    match environment("a2a") {
        Ok(python) => check("a2a", &python, &peer),
        Err(why) => eprintln!("SKIPPED: a2a cannot be installed here: {why}"),
    }
}

/// A peer that generates and makes vectors.
fn provider(cache: &str) -> Peer {
    let home = Home::patient(PATIENCE);
    fs::create_dir(home.data()).expect("an empty home");
    let agents = "[[agent]]\ncapability = \"text.generation\"\nmodel = \"smollm2\"\n\
                  [[agent]]\ncapability = \"text.embedding\"\nmodel = \"minilm\"\n";
    fs::write(home.data().join("llamesh.toml"), agents).expect("a folder that can be written");
    let mut up = home.command(&["up", "--listen", support::ANYWHERE, "--api", "127.0.0.1:0"]);
    up.env("LLAMESH_CACHE", cache);
    Peer::of(home, up)
}

fn check(library: &str, python: &Path, gateway: &Peer) {
    let mut program = Command::new(python);
    program
        .arg(folder().join(format!("check_{library}.py")))
        .env("BASE_URL", format!("{}/v1", gateway.api()))
        .env("A2A_URL", gateway.api());
    program.env("MODEL", "smollm2").env("EMBEDDER", "minilm").env("PYTHONDONTWRITEBYTECODE", "1");
    let outcome = Process::start(program, PATIENCE).finish();
    assert_eq!(outcome.code, 0, "{library}: {outcome:?}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The Python of an environment with exactly these packages. One that is there was whole when it got its name.
fn environment(library: &str) -> Result<PathBuf, String> {
    let list = folder().join(format!("{library}.txt"));
    let pinned = fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let name = format!("{library}-{}", &crypto::Digest::of_content(&pinned).to_string()[..16]);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(name);
    let python = place.join("bin/python");
    let marker = place.join("whole");
    if !marker.exists() {
        let shown_place = shown(&place);
        run(Command::new("python3").args(["-m", "venv", "--clear", &shown_place]))?;
        let pip = ["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20", "--requirement"];
        run(Command::new(&python).args(pip).arg(&list))?;
        fs::write(&marker, "").map_err(|error| error.to_string())?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it says nothing").to_owned();
    if output.status.success() { Ok(()) } else { Err(last) }
}

/// The cache with the models in it, fetched like `llamesh up` does.
fn obtained() -> Result<String, String> {
    let models = Models::from_env().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let obtain = |name| runtime.block_on(models.obtain(name, &Silent)).map_err(|error| error.to_string());
    obtain("smollm2")?;
    // <cache>/models/minilm
    let folder = obtain("minilm")?.path;
    let cache = folder.ancestors().nth(2).ok_or("the cache has no folder of its own")?;
    Ok(shown(cache))
}
