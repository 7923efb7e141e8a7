//! Tools as agents, with real programs: what they are given, what they may have, and that nothing of them is left.

#![expect(clippy::unwrap_used, reason = "tests say by failing")]

mod mcp;

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{ANYWHERE, Home, LIMIT, Outcome, Peer};

/// Far longer than any limit that a test waits for.
const FOREVER: u32 = 100_000;

/// A folder with these lines of settings for each agent.
fn home(agents: &[String]) -> Home {
    let home = Home::new();
    std::fs::create_dir(home.data()).unwrap();
    declare(&home, agents);
    home
}

fn declare(home: &Home, agents: &[String]) {
    let agents: String = agents.iter().map(|agent| format!("[[agent]]\n{agent}\n")).collect();
    std::fs::write(home.data().join("llamesh.toml"), agents).unwrap();
}

/// An agent `tool.NAME` behind a program.
fn program(name: &str, path: &str, more: &str) -> String {
    format!("capability = \"tool.{name}\"\nprogram = {{ path = \"{path}\"{more} }}")
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn call(peer: &Peer, name: &str, arguments: &str) -> Outcome {
    peer.submit(&["--call", arguments, "--capability", &format!("tool.{name}")])
}

/// A pipe that tells when the first has it open, and when the last is gone who had.
struct Witness {
    path: PathBuf,
    told: Receiver<()>,
}

impl Witness {
    fn of(home: &Home, name: &str) -> Self {
        let path = home.file(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (tell, told) = sync_channel(2);
        let fifo = path.clone();
        thread::spawn(move || {
            let mut pipe = File::open(fifo).unwrap();
            tell.send(()).unwrap();
            pipe.read_to_end(&mut Vec::new()).unwrap();
            tell.send(()).unwrap();
        });
        Self { path, told }
    }

    /// Arguments of a program that keeps it open.
    fn args(&self) -> String {
        format!(", args = [\"{}\"]", self.path.display())
    }

    fn wait(&self) {
        self.told.recv_timeout(LIMIT).unwrap();
    }
}

/// A program that sleeps with a child of its own, both under the eyes of a witness.
fn sleeper(home: &Home) {
    script(&home.data().join("sleeper"), &format!("exec 3>\"$1\"\nsleep {FOREVER} &\nsleep {FOREVER}"));
}

#[test]
fn a_program_answers_over_the_mesh_and_its_receipt_cannot_be_replayed() {
    let tools = home(&[program("echo", "echo.sh", "")]);
    script(&tools.data().join("echo.sh"), "cat");
    let provider = tools.up(&[]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let outcome = call(&requester, "echo", r#"{"a": [1, "é"]}"#);
    assert_eq!(outcome.answer(), r#"{"a": [1, "é"]}"#);
    assert_eq!(outcome.done()["provider"], provider.id());
    assert_eq!(outcome.one("started")["model"], "echo.sh");

    let file = crate::support::text(&outcome.done()["receipt_file"]);
    assert_eq!(requester.run(&["verify", &file]).document()["verdict"], "signed");
    let replayed = requester.run(&["verify", "--replay", &file]);
    assert_eq!((replayed.code, &replayed.lines[0]["verdict"]), (8, &"unverifiable".into()), "{replayed:?}");

    let mut process = requester.home.start(&["submit", "--call", "-", "--capability", "tool"]);
    process.feed(r#"{"b":2}"#);
    assert_eq!(process.finish().answer(), r#"{"b":2}"#);
}

#[test]
fn what_is_no_call_reaches_no_program() {
    let tools = home(&[program("echo", "echo.sh", "")]);
    script(&tools.data().join("echo.sh"), "cat");
    let peer = tools.up(&[]);
    call(&peer, "echo", "[1]").refused(3, &["JSON object"]);
    call(&peer, "echo", "{").refused(3, &["--call"]);
    let chat = peer.submit(&["hello", "--capability", "tool.echo"]);
    assert_eq!(chat.one("error")["class"], 3, "{chat:?}");
}

#[test]
fn a_program_knows_nothing_of_its_peer_and_nobody_sees_its_arguments() {
    let peer = home(&[
        program("environment", "/usr/bin/env", ""),
        program("line", "/bin/cat", ", args = [\"/proc/self/cmdline\"]"),
        program("folder", "/bin/pwd", ""),
        program("files", "/bin/ls", ", args = [\"-A\"]"),
    ])
    .up(&[]);
    let secret = r#"{"secret":"sesame"}"#;
    let environment = call(&peer, "environment", secret).answer();
    let mut names: Vec<_> = environment.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LANG", "PATH"], "{environment}");
    assert_eq!(call(&peer, "line", secret).answer(), "/bin/cat\0/proc/self/cmdline\0");
    assert_eq!(call(&peer, "files", secret).answer(), "");
    let folder = call(&peer, "folder", secret).answer();
    let folder = Path::new(folder.trim_end());
    assert!(folder.is_absolute() && !folder.exists(), "{folder:?} is left");
}

#[test]
fn a_program_that_refuses_says_why_and_what_it_logs_is_not_told() {
    let tools = home(&[program("picky", "picky", ""), program("chatty", "chatty", "")]);
    script(&tools.data().join("picky"), "echo hidden >&2\necho 'no such town'\nexit 3");
    script(&tools.data().join("chatty"), "head -c 300000 /dev/zero >&2\ncat");
    let peer = tools.up(&[]);
    let refused = call(&peer, "picky", "{}");
    refused.refused(3, &["call", "no such town"]);
    assert!(!refused.stdout.contains("hidden"), "{refused:?}");
    assert_eq!(call(&peer, "chatty", "{}").answer(), "{}", "a full pipe stops nobody");
}

#[test]
fn a_program_that_does_not_listen_is_done_all_the_same() {
    let peer = home(&[program("deaf", "/bin/true", "")]).up(&[]);
    let mut process = peer.home.start(&["submit", "--call", "-", "--capability", "tool.deaf"]);
    process.feed(&format!("{{\"a\":\"{}\"}}", "x".repeat(300_000)));
    assert_eq!(process.finish().answer(), "");
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let tools = home(&[]);
    let witness = Witness::of(&tools, "pipe");
    sleeper(&tools);
    let args = format!("{}, timeout_s = 1", witness.args());
    declare(&tools, &[program("sleeper", "sleeper", &args)]);
    let peer = tools.up(&[]);
    let began = Instant::now();
    let outcome = call(&peer, "sleeper", "{}");
    assert_eq!(outcome.code, 6, "{outcome:?}");
    witness.wait();
    witness.wait();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_program_is_killed_with_its_children_when_its_job_is_cancelled() {
    let tools = home(&[]);
    let witness = Witness::of(&tools, "pipe");
    sleeper(&tools);
    let args = format!("{}, timeout_s = 600", witness.args());
    declare(&tools, &[program("sleeper", "sleeper", &args)]);
    let peer = tools.up(&[]);
    let process = peer.home.start(&["submit", "--call", "{}", "--capability", "tool.sleeper"]);
    witness.wait();
    process.signal("INT");
    witness.wait();
    assert_eq!(process.finish().code, 6);
}

#[test]
fn what_a_program_left_behind_ends_with_it() {
    let tools = home(&[]);
    let witness = Witness::of(&tools, "pipe");
    script(&tools.data().join("litter"), &format!("exec 3>\"$1\"\nsleep {FOREVER} &\necho done"));
    declare(&tools, &[program("litter", "litter", &witness.args())]);
    let peer = tools.up(&[]);
    assert_eq!(call(&peer, "litter", "{}").answer(), "done\n");
    witness.wait();
    witness.wait();
}

#[test]
fn a_program_gets_no_more_memory_than_its_operator_said() {
    let large = "args = [\"if=/dev/zero\", \"of=/dev/null\", \"bs=256M\", \"count=1\"]";
    let with = |name, memory| program(name, "/bin/dd", &format!(", {large}, memory_mib = {memory}"));
    let peer = home(&[with("tight", 64), with("roomy", 1024)]).up(&[]);
    call(&peer, "tight", "{}").refused(3, &["refused by the tool"]);
    assert_eq!(call(&peer, "roomy", "{}").answer(), "");
}

#[test]
fn a_program_that_says_too_much_is_killed() {
    let tools = home(&[
        program("flood", "/usr/bin/yes", ", timeout_s = 600, output_kib = 4"),
        program("exact", "exact", ", output_kib = 4"),
    ]);
    script(&tools.data().join("exact"), "head -c 4096 /dev/zero | tr '\\0' x");
    let peer = tools.up(&[]);
    assert_eq!(call(&peer, "flood", "{}").code, 6);
    assert_eq!(call(&peer, "exact", "{}").answer(), "x".repeat(4096));
}

#[test]
fn an_answer_is_cut_into_pieces_and_must_fit_the_order() {
    let tools = home(&[program("long", "long", "")]);
    script(&tools.data().join("long"), "head -c 20000 /dev/zero | tr '\\0' x");
    let peer = tools.up(&[]);
    let outcome = call(&peer, "long", "{}");
    assert_eq!(outcome.answer().len(), 20_000);
    assert_eq!(outcome.done()["usage"]["completion_tokens"], 3);
    let short = peer.submit(&["--call", "{}", "--capability", "tool.long", "--max-tokens", "2"]);
    short.refused(3, &["max_tokens"]);
}

#[test]
fn a_program_that_has_changed_is_not_run_under_its_old_digest() {
    let tools = home(&[program("echo", "echo.sh", "")]);
    script(&tools.data().join("echo.sh"), "cat");
    let peer = tools.up(&[]);
    assert_eq!(call(&peer, "echo", "{}").answer(), "{}");
    script(&peer.home.data().join("echo.sh"), "echo other");
    assert_eq!(call(&peer, "echo", "{}").code, 6);
}

#[test]
fn a_program_that_is_not_there_is_told_when_the_peer_starts() {
    let tools = home(&[program("none", "nothing-here", "")]);
    tools.run(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]).refused(2, &["nothing-here"]);
}
