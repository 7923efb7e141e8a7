//! Peers on one local network find each other without being told of each other.
//!
//! The local network is one of its own: two network namespaces with a cable (a veth pair) between them, like two
//! machines at one switch, so that nothing is heard from outside and nothing is said there. Making them takes root
//! and the tools `unshare`, `nsenter` and `ip`; where that is not to be had, the test says so and tests nothing.

use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Home, LIMIT, Outcome, Peer};

/// One machine, with both ends of the cable; then it becomes the program.
const FIRST: &str = "ip link set lo up && ip link add lan0 type veth peer name lan1 && \
                     ip addr add 10.77.0.1/24 dev lan0 && ip link set lan0 up && exec \"$@\"";
/// The other machine takes its end of the cable out of the namespace that `$FIRST` names.
const SECOND: &str = "nsenter $FIRST ip link set lan1 netns $$ && ip link set lo up && \
                      ip addr add 10.77.0.2/24 dev lan1 && ip link set lan1 up && exec \"$@\"";

#[test]
fn peers_of_one_local_network_meet() {
    if !possible() {
        eprintln!("SKIPPED: no network namespace can be made here (root, unshare, nsenter and ip with veth)");
        return;
    }
    let up = |engine: &[&str]| {
        let home = Home::new();
        let args = ["up", "--listen", "/ip4/0.0.0.0/tcp/0", "--api", "127.0.0.1:0", "--lan"];
        let command = home.command(&[&args[..], engine].concat());
        (home, command)
    };
    let (home, command) = up(&["--engine", "echo"]);
    let first = Peer::of(home, within(&["unshare", "--net", "sh", "-c", FIRST, "sh"], &command));
    let (home, command) = up(&["--model", "-"]);
    let mut command = within(&["unshare", "--net", "sh", "-c", SECOND, "sh"], &command);
    command.env("FIRST", namespace(&first));
    let second = Peer::of(home, command);

    let ask = |args: &[&str]| -> Outcome {
        let command = within(&["nsenter", &namespace(&second), "--"], &second.home.command(args));
        second.home.spawn(command).finish()
    };
    // A query goes out every now and then, so this takes a moment.
    let met =
        |status: &Value| status["connected"].as_array().unwrap().iter().any(|p| p["peer"] == first.id());
    let begin = Instant::now();
    while !met(ask(&["doctor"]).document()) {
        assert!(begin.elapsed() < LIMIT, "they do not meet: {}", ask(&["doctor"]).stdout);
    }
    let outcome = ask(&["submit", "over the local network"]);
    assert_eq!(outcome.answer(), "over the local network");
    assert_eq!(outcome.done()["provider"], first.id());
}

/// Where a peer's network is, for `nsenter`.
fn namespace(peer: &Peer) -> String {
    format!("--net=/proc/{}/ns/net", peer.process.id())
}

/// `inner` as the end of `outer`, in its environment.
fn within(outer: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(outer[0]);
    command.args(&outer[1..]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn possible() -> bool {
    let script = FIRST.replace("exec \"$@\"", "nsenter --version");
    let tried = Command::new("unshare").args(["--net", "sh", "-c", &script]).output();
    tried.is_ok_and(|output| output.status.success())
}
