//! The examples: what a newcomer copies must work.

use std::process::Command;

use crate::support::{Home, LIMIT, Peer, Process};

/// An example of this crate, as cargo has built it beside this test.
fn example(name: &str, args: &[&str]) -> Process {
    let this = std::env::current_exe().expect("a path");
    let folder = this.ancestors().nth(2).expect("the build's folder").join("examples");
    let program = folder.join(name);
    assert!(program.exists(), "not built: `cargo test` without --test builds the examples, too");
    let mut command = Command::new(program);
    command.args(args);
    Process::start(command, LIMIT)
}

#[test]
fn the_example_that_asks_gets_an_answer() {
    let peer = Peer::up(&["--engine", "echo"]);
    let outcome = example("ask", &[&peer.address(), "one two"]).finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout, format!("one two\n(by {}, for {})\n", peer.id(), protocol::Credits::ZERO));
}

#[test]
fn the_example_that_offers_gives_an_answer() {
    let peer = Peer::up(&["--model", "-"]);
    let mut offering = example("offer", &[&peer.address()]);
    assert!(offering.text().expect("an address").contains("/p2p/"));
    let submit = ["submit", "one two three", "--capability", "text.count", "--api", &peer.api()];
    assert_eq!(Home::new().run(&submit).answer(), "3 words");
}
