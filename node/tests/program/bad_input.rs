//! Bad input, nothing lost: every wrong thing that can be typed or lie around gets a message with a next step, its
//! class's exit code, and leaves what was there as it was.

use std::fs;
use std::path::Path;

use node::receipts::ReceiptFile;
use serde_json::json;

use crate::support::http::Request;
use crate::support::{ANYWHERE, Home, Outcome, Peer, shown, text, tiny};

/// A peer id that is well formed and nobody's.
const NOBODY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// An address at which nobody listens: the port is reserved for a service that died out.
const NOWHERE: &str = "/ip4/127.0.0.1/tcp/1";

/// `up` with loopback addresses that may not last.
fn up(home: &Home, args: &[&str]) -> Outcome {
    home.run(&[&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"], args].concat())
}

#[test]
fn no_bootstrap_is_reachable() {
    let second = "/ip4/127.0.0.1/tcp/2";
    let outcome = Home::new().run(&["submit", "x", "--bootstrap", NOWHERE, "--bootstrap", second]);
    outcome.refused(5, &["no bootstrap peer could be reached", NOWHERE, second, "llamesh up"]);
}

#[test]
fn a_bootstrap_address_is_malformed() {
    let peer = Peer::up(&["--model", "-"]);
    for (address, says) in [
        ("127.0.0.1:5263", "write it like /ip4/"),
        ("", "write it like /ip4/"),
        ("/ip4/127.0.0.1", "/tcp/PORT"),
        ("/ip4/127.0.0.1/tcp/1/ws", "/tcp/PORT"),
        ("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWnonsense", "12D3KooWnonsense"),
    ] {
        Home::new().run(&["submit", "x", "--bootstrap", address]).refused(2, &["--bootstrap", says]);
        up(&Home::new(), &["--model", "-", "--bootstrap", address]).refused(2, &["--bootstrap", says]);
        // A peer that runs is no reason to overlook it.
        peer.submit(&["x", "--bootstrap", address]).refused(2, &["--bootstrap", says]);
    }
}

#[test]
fn somebody_else_answers_at_the_bootstrap_address() {
    let peer = Peer::up(&["--engine", "echo"]);
    let place = peer.address().replace(&peer.id(), NOBODY);
    Home::new().run(&["submit", "x", "--bootstrap", &place]).refused(5, &[NOBODY, &peer.id()]);
    // One good address among the bad ones is enough.
    let outcome = Home::new().run(&["submit", "x", "--bootstrap", &place, "--bootstrap", &peer.address()]);
    assert_eq!(outcome.answer(), "x");
}

#[test]
fn nobody_offers_the_capability() {
    let peer =
        Peer::up(&["--engine", "echo", "--capability", "text.generation", "--capability", "code.review"]);
    let other = Peer::join(&peer, &["--model", "-"]);
    for (from, through) in [(&peer.home, None), (&other.home, None), (&Home::new(), Some(peer.address()))] {
        let through: Vec<String> =
            through.into_iter().flat_map(|place| ["--bootstrap".to_owned(), place]).collect();
        let through: Vec<&str> = through.iter().map(String::as_str).collect();
        let outcome = from.run(&[&["submit", "x", "--capability", "vision.ocr"], &through[..]].concat());
        outcome.refused(4, &["vision.ocr", "text.generation", "code.review"]);
        let outcome = from.run(&[&["find", "vision.ocr"], &through[..]].concat());
        assert_eq!(outcome.code, 4);
        assert_eq!(outcome.one("error")["class"], 4);
    }
    let lone = Peer::up(&["--model", "-"]);
    lone.submit(&["x"]).refused(4, &["text.generation", "llamesh doctor"]);
}

#[test]
fn the_provider_asked_for_is_not_there() {
    let peer = Peer::up(&["--engine", "echo"]);
    let outcome = peer.submit(&["x", "--provider", NOBODY]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    let outcome = peer.submit(&["x", "--provider", "me"]);
    assert_eq!((outcome.code, outcome.stderr.contains("--provider")), (2, true), "{outcome:?}");
}

#[test]
fn a_port_is_in_use() {
    let peer = Peer::up(&["--model", "-"]);
    let place = peer.address().split("/p2p/").next().unwrap().to_owned();
    let outcome = Home::new().run(&["up", "--model", "-", "--api", "127.0.0.1:0", "--listen", &place]);
    outcome.refused(5, &[&place]);
    let api = peer.api().trim_start_matches("http://").to_owned();
    let outcome = Home::new().run(&["up", "--model", "-", "--listen", ANYWHERE, "--api", &api]);
    outcome.refused(5, &[&api, "--api 127.0.0.1:0"]);
    // And the peer that has them is well.
    peer.run(&["doctor"]).document();
}

#[test]
fn a_listening_address_is_impossible() {
    let home = Home::new();
    for (address, code) in [("/ip4/127.0.0.1/tcp/0/ws", 2), ("here", 2), ("/ip4/192.0.2.1/tcp/0", 5)] {
        let outcome = home.run(&["up", "--model", "-", "--api", "127.0.0.1:0", "--listen", address]);
        outcome.refused(code, &[address]);
    }
}

#[test]
fn the_api_s_address_is_an_address() {
    for address in ["localhost", "5264", "nonsense:1"] {
        let outcome = Home::new().run(&["up", "--model", "-", "--listen", ANYWHERE, "--api", address]);
        outcome.refused(2, &["--api", address]);
    }
}

#[test]
fn a_data_directory_belongs_to_one_peer() {
    let peer = Peer::up(&["--engine", "echo"]);
    up(&peer.home, &["--model", "-"]).refused(9, &["is running in", "--data-dir"]);
    // The one that runs is still found.
    assert_eq!(peer.submit(&["x"]).answer(), "x");
}

#[test]
fn a_data_directory_cannot_be_made() {
    let home = Home::new();
    fs::write(home.data(), "a file").unwrap();
    up(&home, &["--model", "-"]).refused(9, &[&shown(&home.data())]);
    home.run(&["submit", "x", "--bootstrap", NOWHERE]).refused(9, &[]);
}

#[test]
fn no_peer_runs() {
    let home = Home::new();
    for command in [&["submit", "x"][..], &["find"], &["peers"], &["doctor"]] {
        home.run(command).refused(5, &["no peer is running", "llamesh up", "--bootstrap"]);
    }
    let nobody = "http://127.0.0.1:1";
    home.run(&["submit", "x", "--api", nobody]).refused(5, &[nobody, "llamesh up"]);
    home.run(&["submit", "x", "--api", "not a url"]).refused(5, &["not a url"]);
}

#[test]
fn a_peer_that_was_killed_leaves_no_trap() {
    let mut peer = Peer::up(&["--engine", "echo"]);
    peer.kill();
    assert!(peer.home.data().join("api").exists(), "it had no time to clean up");
    peer.submit(&["x"]).refused(5, &["does not answer", "llamesh up"]);
    let id = peer.id();
    let Peer { home, .. } = peer;
    let again = home.up(&["--engine", "echo"]);
    assert_eq!((again.id(), again.submit(&["x"]).answer()), (id, "x".to_owned()));
}

#[test]
fn a_key_file_is_damaged() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    let key = home.data().join("key");
    for damaged in [&b""[..], b"not a key", &[0xff; 64], &[b'a'; 63], &[b'g'; 64]] {
        fs::write(&key, damaged).unwrap();
        up(&home, &["--model", "-"]).refused(9, &["does not hold a key", "backup"]);
        assert_eq!(fs::read(&key).unwrap(), damaged, "it may still be worth something");
    }
}

#[test]
fn a_journal_is_damaged() {
    let provider = Peer::up(&["--engine", "echo", "--price-completion", "1000"]);
    provider.submit(&["x", "--budget", "1000"]).done();
    let home = provider.stop();
    let path = home.data().join("journal.redb");
    let sound = fs::read(&path).unwrap();
    let mut refused = 0;
    let mut try_it = |damaged: Vec<u8>| {
        fs::write(&path, &damaged).unwrap();
        let mut process = home.start(&["up", "--model", "-", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]);
        let line = process.line();
        if line["event"] == "error" {
            refused += 1;
            let (message, outcome) = (text(&line["message"]), process.finish());
            assert_eq!(outcome.code, 9, "{outcome:?}");
            assert!(message.contains("journal") && message.contains("backup"), "{message}");
        } else {
            // Damage where nothing is kept is none.
            assert_eq!(line["event"], "ready");
        }
    };
    try_it(vec![7; 4096]);
    try_it(b"GGUF".to_vec());
    for part in [8, 5, 3, 2] {
        try_it(sound[..sound.len() / part].to_vec());
    }
    for at in (0..sound.len().min(16 << 10)).step_by(911) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x55;
        try_it(damaged);
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn settings_are_wrong() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    let file = home.data().join("llamesh.toml");
    for (settings, says) in [
        ("bootstrap = 7", "bootstrap"),
        ("nonsense = true", "nonsense"),
        ("[[agent]]\ncapability = \"a.b\"", "exactly one of"),
        ("[[agent]]\ncapability = \"A B\"\nengine = \"echo\"", "A B"),
        ("[[agent]]\ncapability = \"a.b\"\nengine = \"echo\"\nmodel = \"x.gguf\"", "exactly one of"),
        ("[[agent]]\ncapability = \"a\"\nupstream = { url = \"ftp://x\", model = \"y\" }", "ftp://x"),
        (
            "[[agent]]\ncapability = \"a\"\nupstream = { url = \"http://x\", model = \"y\", key_env = \"NO_KEY\" }",
            "NO_KEY",
        ),
        ("[[agent", "llamesh.toml"),
    ] {
        fs::write(&file, settings).unwrap();
        up(&home, &[]).refused(2, &[says]);
    }
    fs::remove_file(&file).unwrap();
    up(&home, &["--config", &shown(&file)]).refused(2, &["llamesh.toml"]);
    up(&home, &["--engine", "parrot"]).refused(2, &["parrot", "echo:TOKENS_PER_SECOND"]);
    up(&home, &["--engine", "echo:fast"]).refused(2, &["echo:fast"]);
    let model = tiny(&home);
    up(&home, &["--engine", "echo", "--model", &model]).refused(2, &["exclude each other"]);
}

#[test]
fn the_command_line_is_wrong() {
    let home = Home::new();
    for args in [
        &["sing"][..],
        &["submit"],
        &["submit", "x", "--temperature", "warm"],
        &["submit", "x", "--capability", "Not A Capability"],
        &["submit", "x", "--api", "http://127.0.0.1:1", "--bootstrap", "/ip4/127.0.0.1/tcp/1"],
        &["up", "--slots", "-1"],
    ] {
        let outcome = home.run(args);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains("--help") || outcome.stderr.contains("Usage"), "{outcome:?}");
    }
}

/// A model file that says it is `name` and is not.
fn hostile(name: &str) -> Vec<u8> {
    let header = |version: u32, tensors: u64, pairs: u64| {
        [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat()
    };
    let key =
        |length: u64, name: &[u8], kind: u32| [&length.to_le_bytes()[..], name, &kind.to_le_bytes()].concat();
    let max = u64::MAX.to_le_bytes();
    match name {
        "empty" => Vec::new(),
        "magic only" => b"GGUF".to_vec(),
        "wrong magic" => b"FUGG\x03\0\0\0".to_vec(),
        "future version" => header(4_000_000_000, 0, 0),
        "nothing in it" => header(3, 0, 0),
        "endless tensors" => header(3, u64::MAX, 0),
        "endless metadata" => header(3, 0, u64::MAX),
        "endless key" => [header(3, 0, 1), max.to_vec()].concat(),
        "endless text" => [header(3, 0, 1), key(1, b"k", 8), max.to_vec()].concat(),
        "endless array" => {
            [header(3, 0, 1), key(1, b"k", 9), 4_u32.to_le_bytes().to_vec(), max.to_vec()].concat()
        }
        // An array of one array of one array …
        "nested arrays" => {
            let one = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
            [header(3, 0, 1), key(1, b"k", 9), one.repeat(100_000)].concat()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_model_file_is_no_model() {
    let home = Home::new();
    let path = home.file("bad.gguf");
    let refuse = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let outcome = up(&home, &["--model", &shown(&path)]);
        assert_eq!(outcome.code, 10, "{what}: {outcome:?}");
        outcome.refused(10, &["bad.gguf"]);
        assert!(!outcome.stderr.contains("panicked"), "{what}: {outcome:?}");
    };
    for name in [
        "empty",
        "magic only",
        "wrong magic",
        "future version",
        "nothing in it",
        "endless tensors",
        "endless metadata",
        "endless key",
        "endless text",
        "endless array",
        "nested arrays",
    ] {
        refuse(&hostile(name), name);
    }
    let sound = fs::read(tiny(&home)).unwrap();
    for cut in [5, 8, 12, 20, 24, 32, 100, 1_000, 5_000, sound.len() / 2, sound.len() - 1] {
        refuse(&sound[..cut], &format!("cut after {cut} bytes"));
    }
    up(&home, &["--model", &shown(&home.file("none.gguf"))]).refused(10, &["none.gguf", "smollm2"]);
    up(&home, &["--model", &shown(Path::new("/"))]).refused(10, &[]);
}

#[test]
fn a_model_that_cannot_be_had_is_told_with_every_source() {
    let home = Home::new();
    for model in ["smollm2", "minilm"] {
        up(&home, &["--model", model]).refused(10, &[model, "LLAMESH_OFFLINE"]);
        home.run(&["models", "pull", model]).refused(10, &[model, "LLAMESH_OFFLINE"]);
    }
    let of_the_hub = "some/where/a.gguf";
    home.run(&["models", "pull", of_the_hub]).refused(10, &[of_the_hub, "LLAMESH_OFFLINE"]);
}

#[test]
fn a_model_that_is_not_there_cannot_be_deleted() {
    let home = Home::new();
    let outside = tiny(&home);
    for model in ["gpt-9", "../tiny.gguf", &outside] {
        home.run(&["models", "rm", model]).refused(10, &[model, "llamesh models list"]);
    }
    home.run(&["models", "rm", "minilm"]).refused(10, &["nothing of `minilm`", "llamesh models list"]);
    assert!(Path::new(&outside).exists());
}

#[test]
fn a_prompt_or_a_parameter_does_not_fit() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let long = "word ".repeat(2_000);
    for peer in [&provider, &requester] {
        peer.submit(&[&long]).refused(3, &["context", "shorten"]);
    }
    requester.submit(&["x", "--model", "gpt-9"]).refused(3, &["gpt-9", "tiny"]);
    requester.submit(&["x", "--temperature=-1"]).refused(3, &["temperature"]);
    for value in ["NaN", "inf", "1e99"] {
        let outcome = requester.submit(&["x", "--temperature", value]);
        assert_eq!((outcome.code, outcome.stderr.contains("--temperature")), (2, true), "{outcome:?}");
    }
    requester.submit(&["x", "--top-p", "2"]).refused(3, &["top_p"]);
    requester.submit(&["x", "--max-tokens", "0"]).refused(3, &["max_tokens"]);
    Home::new()
        .run(&["submit", "x", "--model", "gpt-9", "--bootstrap", &provider.address()])
        .refused(3, &["gpt-9"]);
    let mut process = requester.home.start(&["submit", "-"]);
    process.feed(&"x".repeat(2 << 20));
    process.finish().refused(3, &[]);
    // It has done nobody any harm.
    requester.submit(&["x", "--max-tokens", "2"]).done();
}

#[test]
fn a_body_of_the_api_is_wrong() {
    let peer = Peer::up(&["--engine", "echo"]);
    let post =
        |body: &str| Request::post(&peer.api(), "/control/jobs", &json!(null)).body(body).send().status;
    for body in ["", "{", "[]", "{\"prompt\":7}", "{\"nonsense\":1,\"prompt\":\"x\"}", "{}"] {
        assert!((400..500).contains(&post(body)), "{body}");
    }
    assert!((400..500).contains(&post(&"[".repeat(100_000))));
    assert_eq!(peer.submit(&["x"]).answer(), "x");
}

/// A sealed receipt of an answer with everything that is hard to keep: escapes, replacement characters, not ASCII.
fn receipt() -> (Home, String) {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let prompt = "q\u{fffd} \"quoted\" \\ é 🦙 \u{1}\ttab";
    let done = peer.submit(&[prompt, "--max-tokens", "6", "--temperature", "1"]).done().clone();
    let file = text(&done["receipt_file"]);
    (peer.stop(), file)
}

#[test]
fn no_byte_of_a_receipt_can_be_changed() {
    let (home, file) = receipt();
    let sound = fs::read(&file).unwrap();
    let copy = home.file("copy.json");
    let holds = |bytes: &[u8]| {
        fs::write(&copy, bytes).unwrap();
        ReceiptFile::read(&copy).is_ok()
    };
    assert!(holds(&sound));
    for at in 0..sound.len() {
        let mut altered = sound.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(!holds(&altered), "a bit of byte {at} ({:?}) flipped", sound[at] as char);
    }
    for at in (0..=sound.len()).step_by(13) {
        let extra = [b' ', b'\n', b'0', 0][at % 4];
        assert!(
            !holds(&[&sound[..at], &[extra], &sound[at..]].concat()),
            "{extra:#x} put in before byte {at}"
        );
        assert!(
            at == sound.len() || !holds(&[&sound[..at], &sound[at + 1..]].concat()),
            "byte {at} taken out"
        );
        assert!(at == sound.len() || !holds(&sound[..at]), "cut after {at} bytes");
    }
}

#[test]
fn bytes_that_read_as_a_replacement_character_are_not_one() {
    let (home, file) = receipt();
    let sound = fs::read(&file).unwrap();
    let character = "\u{fffd}".as_bytes();
    let at = sound.windows(3).position(|window| window == character).expect("the prompt has one");
    for instead in [&[0xff][..], &[0xef, 0xbf], &[0xc0]] {
        let copy = home.file("copy.json");
        fs::write(&copy, [&sound[..at], instead, &sound[at + 3..]].concat()).unwrap();
        let outcome = home.run(&["verify", &shown(&copy)]);
        assert_eq!((outcome.code, &outcome.lines[0]["verdict"]), (7, &json!("refuted")), "{outcome:?}");
    }
}

#[test]
fn an_altered_receipt_is_refuted() {
    let (home, file) = receipt();
    let sound = fs::read(&file).unwrap();
    let copy = home.file("copy.json");
    let mut places: Vec<usize> = (0..sound.len()).step_by(sound.len() / 24).collect();
    places.push(sound.len() - 1);
    for at in places {
        let mut altered = sound.clone();
        altered[at] ^= 0x01;
        fs::write(&copy, altered).unwrap();
        let outcome = home.run(&["verify", &shown(&copy)]);
        assert_eq!(
            (outcome.code, &outcome.lines[0]["verdict"]),
            (7, &json!("refuted")),
            "byte {at}: {outcome:?}"
        );
        outcome.refused(7, &["do not rely"]);
    }
    for (bytes, what) in [(&b""[..], "empty"), (b"{}", "no receipt"), (&[0xff; 99], "no text")] {
        fs::write(&copy, bytes).unwrap();
        assert_eq!(home.run(&["verify", &shown(&copy)]).code, 7, "{what}");
    }
    home.run(&["verify", &shown(&home.file("none.json"))]).refused(3, &["llamesh receipts"]);
    home.run(&["verify", "abcdef"]).refused(3, &["llamesh receipts"]);
    // A damaged one in the folder hides none of the others.
    fs::write(home.data().join("receipts/damaged.json"), "{}").unwrap();
    let listed = home.run(&["receipts"]);
    assert_eq!((listed.code, listed.lines.len()), (0, 1), "{listed:?}");
    assert!(listed.stderr.contains("damaged.json"), "{listed:?}");
}
