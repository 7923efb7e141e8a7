//! A peer with more models than memory, as its user meets it.

use std::fs;

use crate::support::{Home, Peer, shown, text};

/// Room for one tiny model and the caches of its jobs: those take whatever is left.
const ROOM_FOR_ONE: &str = "64MiB";

/// Two tiny models under a limit for one, each behind its own capability.
#[expect(clippy::unwrap_used, reason = "a test that cannot write its files has failed")]
fn peer(home: Home, damage: impl FnOnce(&mut Vec<u8>)) -> Peer {
    let [first, second] = [1, 2].map(|seed| home.file(&format!("tiny-{seed}.gguf")));
    inference::tiny::write_tiny(&first, 1).unwrap();
    inference::tiny::write_tiny(&second, 2).unwrap();
    let mut bytes = fs::read(&second).unwrap();
    damage(&mut bytes);
    fs::write(&second, bytes).unwrap();
    fs::create_dir(home.data()).unwrap();
    let agent = |capability: &str, model: &str| {
        format!("[[agent]]\ncapability = \"{capability}\"\nmodel = \"{model}\"\n")
    };
    let agents = agent("text.generation", &shown(&first)) + &agent("code.generation", &shown(&second));
    fs::write(home.data().join("llamesh.toml"), format!("memory = \"{ROOM_FOR_ONE}\"\n{agents}")).unwrap();
    home.up(&[])
}

#[test]
fn jobs_for_models_that_do_not_fit_together_alternate() {
    let peer = peer(Home::new(), |_| {});
    let answer = |capability: &str| {
        let outcome = peer.submit(&["the otter", "--capability", capability, "--max-tokens", "8"]);
        let receipt = text(&outcome.done()["receipt_file"]);
        (outcome.answer(), receipt)
    };
    let (prose, _) = answer("text.generation");
    let (code, receipt) = answer("code.generation");
    assert_ne!(prose, code, "they are two models");
    assert_eq!(answer("text.generation").0, prose);
    assert_eq!(answer("code.generation").0, code);
    let model = shown(&peer.home.file("tiny-2.gguf"));
    let verdict = peer.run(&["verify", "--replay", "--model", &model, &receipt]);
    assert_eq!(verdict.document()["verdict"], "exact", "{verdict:?}");
    let speeds = fs::read_to_string(peer.home.data().join("speeds.json")).unwrap();
    assert_eq!(speeds.matches("\"exact-1\"").count(), 2, "both were measured: {speeds}");
}

#[test]
fn a_second_model_that_is_damaged_does_not_stop_the_first() {
    let peer = peer(Home::new(), |bytes| bytes.truncate(bytes.len() / 2));
    peer.submit(&["the otter", "--max-tokens", "8"]).done();
    let gone = peer.submit(&["the otter", "--capability", "code.generation", "--max-tokens", "8"]);
    gone.refused(4, &["code.generation"]);
    let Peer { process, home: _home, .. } = peer;
    process.signal("TERM");
    let outcome = process.finish();
    assert!(outcome.stderr.contains("tiny-2.gguf"), "{outcome:?}");
}

#[test]
fn a_limit_that_no_model_fits_or_that_is_none_is_refused() {
    let home = Home::new();
    let model = crate::support::tiny(&home);
    let up = |memory: &str| home.run(&["up", "--model", &model, "--api", "127.0.0.1:0", "--memory", memory]);
    up("1KiB").refused(2, &["tiny.gguf", "1.0 KiB", "--memory"]);
    for wrong in ["0", "much"] {
        assert_eq!(up(wrong).code, 2);
    }
}
