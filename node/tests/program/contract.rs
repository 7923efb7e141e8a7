//! The contract with scripts: what every command prints as JSON and how it ends, with real processes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{ANYWHERE, Home, Outcome, Peer, shown, text, tiny};

/// A job's lines as the contract has them: started, tokens in order, done; and the receipt that they lead to.
fn assert_job(home: &Home, outcome: &Outcome, provider: &str) {
    let done = outcome.done();
    let started = outcome.one("started");
    assert_eq!(started["provider"], provider);
    assert!(started["job"].as_str().is_some_and(|job| job.len() == 32), "{started}");
    let tokens: Vec<&Value> = outcome.lines.iter().filter(|line| line["event"] == "token").collect();
    for (index, token) in tokens.iter().enumerate() {
        assert_eq!(token["index"], index);
        assert!(token.get("id").is_some(), "{token}");
    }
    let streamed: String = tokens.iter().map(|token| text(&token["text"])).collect();
    assert_eq!(done["text"], streamed);
    assert_eq!(done["provider"], provider);
    assert_eq!(done["usage"]["completion_tokens"], tokens.len());
    assert!(done["usage"]["prompt_tokens"].is_u64());
    let file = text(&done["receipt_file"]);
    assert!(file.contains(&text(&done["receipt"])));
    assert_eq!(home.run(&["verify", &file]).document()["verdict"], "signed");
}

#[test]
fn the_ready_line_is_the_first_and_only_one() {
    let peer = Peer::up(&["--engine", "echo"]);
    let keys: BTreeSet<_> = peer.ready.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["api", "event", "listen", "peer"]));
    assert!(peer.id().starts_with("12D3"));
    assert!(peer.address().starts_with("/ip4/127.0.0.1/tcp/") && !peer.address().contains("/tcp/0/"));
    assert!(peer.address().ends_with(&format!("/p2p/{}", peer.id())));
    assert!(peer.api().starts_with("http://127.0.0.1:"));
    assert_eq!(std::fs::read_to_string(peer.home.data().join("api")).unwrap().trim(), peer.api());
    peer.process.signal("TERM");
    let outcome = peer.process.finish();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""), "{outcome:?}");
    assert!(!peer.home.data().join("api").exists());
}

#[test]
fn ctrl_c_ends_a_peer_in_order_too() {
    let peer = Peer::up(&["--engine", "echo"]);
    peer.process.signal("INT");
    assert_eq!((peer.process.finish().code, peer.home.data().join("api").exists()), (0, false));
}

#[test]
fn a_job_goes_through_the_running_peer_its_api_or_a_bootstrap_address() {
    let provider = Peer::up(&["--engine", "echo"]);
    let other = Peer::join(&provider, &["--model", "-"]);
    let stranger = Home::new();
    let prompt = "one two  three";

    let outcome = other.submit(&[prompt]);
    assert_job(&other.home, &outcome, &provider.id());
    assert_eq!(outcome.answer(), prompt);

    let outcome = stranger.run(&["submit", prompt, "--api", &other.api()]);
    assert_job(&stranger, &outcome, &provider.id());

    let outcome = stranger.run(&["submit", prompt, "--bootstrap", &provider.address()]);
    assert_job(&stranger, &outcome, &provider.id());
    assert!(text(&outcome.done()["receipt_file"]).starts_with(&shown(&stranger.data())), "{outcome:?}");

    // The peer that it came to by is not the one that can do it.
    let outcome = stranger.run(&["submit", prompt, "--bootstrap", &other.address()]);
    assert_job(&stranger, &outcome, &provider.id());
}

#[test]
fn a_peer_serves_itself() {
    let peer = Peer::up(&["--engine", "echo"]);
    assert_job(&peer.home, &peer.submit(&["hello"]), &peer.id());
}

#[test]
fn the_prompt_may_come_by_stdin() {
    let peer = Peer::up(&["--engine", "echo"]);
    let mut process = peer.home.start(&["submit", "-"]);
    process.feed("from a pipe\nwith two lines");
    assert_eq!(process.finish().answer(), "from a pipe\nwith two lines");
}

#[test]
fn the_provider_may_be_chosen_and_the_job_may_be_auctioned() {
    let first = Peer::up(&["--engine", "echo"]);
    let second = Peer::join(&first, &["--engine", "echo"]);
    for chosen in [&first, &second] {
        let outcome = first.submit(&["x", "--provider", &chosen.id()]);
        assert_job(&first.home, &outcome, &chosen.id());
    }
    let outcome = second.submit(&["x y", "--auction"]);
    assert_eq!(outcome.answer(), "x y");
    let bids = outcome.lines.iter().filter(|line| line["event"] == "bid").count();
    assert!(bids >= 1, "{outcome:?}");
}

#[test]
fn people_read_the_answer_on_stdout_and_the_rest_on_stderr() {
    let peer = Peer::up(&["--engine", "echo"]);
    let mut command = peer.home.bare(&["submit", "plain words"]);
    command.arg("--data-dir").arg(peer.home.data());
    let outcome = peer.home.spawn(command).finish();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "plain words\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("llamesh verify"), "{outcome:?}");
}

#[test]
fn find_peers_and_doctor_tell_who_is_there() {
    let provider = Peer::up(&["--engine", "echo:50", "--capability", "code.generation"]);
    let other = Peer::join(&provider, &["--model", "-"]);
    other.submit(&["x", "--capability", "code", "--max-tokens", "1"]).done();

    for capability in [&[][..], &["code"], &["code.generation"]] {
        let found = other.run(&[&["find"], capability].concat());
        let providers = &found.document()["providers"];
        assert_eq!(providers[0]["peer"], provider.id());
        assert_eq!(providers[0]["profile"]["agents"][0]["capability"], "code.generation");
        assert_eq!(providers[0]["profile"]["agents"][0]["speed"]["decode"], 50);
    }
    let found = Home::new().run(&["find", "code", "--bootstrap", &other.address()]);
    assert_eq!(found.document()["providers"][0]["peer"], provider.id());

    let peers = other.run(&["peers"]);
    let peer = &peers.document()["peers"][0];
    assert_eq!((&peer["peer"], &peer["connected"]), (&json!(provider.id()), &json!(true)));
    assert_eq!(peer["direction"], "outbound");
    assert_eq!(peer["capabilities"][0], "code.generation");
    assert!(peer["evidence"].as_array().unwrap().contains(&json!(["delivered", 1])), "{peer}");

    let doctor = other.run(&["doctor"]);
    let status = doctor.document();
    assert_eq!((&status["peer"], &status["network"]), (&json!(other.id()), &json!("main")));
    assert!(text(&status["did"]).starts_with("did:key:z6Mk"));
    assert_eq!(status["connected"][0]["peer"], provider.id());
    assert_eq!(status["listening"][0], other.address());
}

#[test]
fn doctor_remembers_dials_that_failed() {
    let mut gone = Peer::up(&["--model", "-"]);
    gone.kill();
    let peer = Peer::join(&gone, &["--engine", "echo"]);
    // Its first dial may still be on its way when it is ready; a lookup of its own waits long enough.
    let status = loop {
        let status = peer.run(&["doctor"]).document().clone();
        if status["dial_errors"] != json!([]) {
            break status;
        }
    };
    assert!(text(&status["dial_errors"][0]["address"]).starts_with("/ip4/127.0.0.1/tcp/"), "{status}");
    // A bootstrap peer that is away is no reason not to work.
    assert_eq!(peer.submit(&["alone"]).answer(), "alone");
}

#[test]
fn environment_variables_say_what_flags_say() {
    let home = Home::new();
    let with = |args: &[&str]| {
        let mut command = home.bare(args);
        command
            .env("LLAMESH_DATA_DIR", home.data())
            .env("LLAMESH_JSON", "true")
            .env("LLAMESH_NETWORK", "elsewhere");
        command
    };
    let mut command = with(&["up"]);
    command.env("LLAMESH_LISTEN", ANYWHERE).env("LLAMESH_API", "127.0.0.1:0").env("LLAMESH_ENGINE", "echo");
    command.env("LLAMESH_CAPABILITY", "text.generation,text.echo");
    let mut process = home.spawn(command);
    let ready = process.line();
    assert_eq!(ready["event"], "ready");

    let status = home.spawn(with(&["doctor"])).finish();
    assert_eq!(status.document()["network"], "elsewhere");
    let outcome = home.spawn(with(&["submit", "by environment", "--capability", "text.echo"])).finish();
    assert_eq!(outcome.answer(), "by environment");

    // What a container has in its environment for `up` does not get in the way of other commands.
    let mut command = with(&["submit", "x"]);
    command.env("LLAMESH_API", text(&ready["api"])).env("LLAMESH_BOOTSTRAP", text(&ready["listen"][0]));
    assert_eq!(home.spawn(command).finish().answer(), "x");
    let mut command = with(&["submit", "x"]);
    command.env("LLAMESH_API", text(&ready["api"]).trim_start_matches("http://"));
    assert_eq!(home.spawn(command).finish().answer(), "x");
}

#[test]
fn a_flag_beats_the_environment_and_that_the_file() {
    let home = Home::new();
    std::fs::create_dir(home.data()).unwrap();
    let file = "network = \"of-the-file\"\nengine = \"echo:7\"\ncapability = [\"file.echo\"]\n";
    std::fs::write(home.data().join("llamesh.toml"), file).unwrap();
    let mut command =
        home.command(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0", "--capability", "flag.echo"]);
    command.env("LLAMESH_CAPABILITY", "environment.echo").env("LLAMESH_ENGINE", "echo:9");
    let peer = Peer::of(home, command);
    let found = peer.run(&["find"]).document().clone();
    let agent = &found["providers"][0]["profile"]["agents"][0];
    assert_eq!((&agent["capability"], &agent["speed"]["decode"]), (&json!("flag.echo"), &json!(9)));
    assert_eq!(peer.run(&["doctor"]).document()["network"], "of-the-file");
}

#[test]
fn two_networks_do_not_meet() {
    let home = Home::new();
    let peer = home.up(&["--engine", "echo", "--network", "one"]);
    Home::new()
        .run(&["submit", "x", "--bootstrap", &peer.address(), "--network", "two"])
        // Whichever side notices first hangs up; only the nearer one can say why.
        .refused(5, &["bootstrap"]);
    let outcome = Home::new().run(&["submit", "x", "--bootstrap", &peer.address(), "--network", "one"]);
    assert_eq!(outcome.answer(), "x");
    // What `up` takes from the folder's file holds for a peer of one command as well.
    let told = Home::new();
    std::fs::create_dir(told.data()).unwrap();
    std::fs::write(told.data().join("llamesh.toml"), "network = \"one\"\n").unwrap();
    assert_eq!(told.run(&["submit", "x", "--bootstrap", &peer.address()]).answer(), "x");
}

#[test]
fn a_peer_hosts_what_its_file_declares() {
    let home = Home::new();
    let model = tiny(&home);
    std::fs::create_dir(home.data()).unwrap();
    let file = format!(
        "[[agent]]\ncapability = \"text.generation\"\nmodel = \"{model}\"\n\n\
         [[agent]]\nname = \"coder\"\ncapability = \"code.generation\"\nmodel = \"{model}\"\nsystem = \"Be brief.\"\n\n\
         [[agent]]\ncapability = \"text.echo\"\nengine = \"echo\"\n"
    );
    std::fs::write(home.data().join("llamesh.toml"), file).unwrap();
    let peer = home.up(&[]);
    let ask = |capability| peer.submit(&["hi", "--capability", capability, "--max-tokens", "8"]);
    let (plain, coder) = (ask("text.generation"), ask("code.generation"));
    assert_eq!(coder.one("started")["agent"], "coder");
    let read = |outcome: &Outcome| outcome.done()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(read(&coder) > read(&plain), "the system prompt is read: {coder:?}");
    assert_eq!(ask("text.echo").answer(), "hi");
    let models = Request::get(&peer.api(), "/v1/models").send().json();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1), "one file, one model: {models}");
}

#[test]
fn the_seed_makes_the_answer_and_the_receipt_replays() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let ask = |seed: &str| {
        requester.submit(&["Tell me", "--max-tokens", "40", "--temperature", "1.0", "--seed", seed])
    };
    let (first, again, other) = (ask("1"), ask("1"), ask("2"));
    assert_job(&requester.home, &first, &provider.id());
    assert_eq!(first.answer(), again.answer());
    assert_ne!(first.answer(), other.answer());

    let file = text(&first.done()["receipt_file"]);
    let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
    let verdict = replayed.document();
    assert_eq!((&verdict["verdict"], &verdict["first"]), (&json!("exact"), &Value::Null), "{verdict}");
    assert_eq!(verdict["agree"], verdict["of"]);
    assert_eq!(verdict["of"], first.done()["usage"]["completion_tokens"]);

    // Without the model, or with another one, nothing is known.
    let missing = requester.run(&["verify", "--replay", &file]);
    missing.refused(8, &["nothing is known"]);
    assert_eq!(missing.lines[0]["verdict"], "unverifiable");
    let stranger = requester.home.file("stranger.gguf");
    inference::tiny::write_tiny(&stranger, 8).unwrap();
    let wrong = requester.run(&["verify", "--replay", "--model", &shown(&stranger), &file]);
    assert_eq!((wrong.code, &wrong.lines[0]["verdict"]), (8, &json!("unverifiable")), "{wrong:?}");
}

#[test]
fn greedy_answers_replay_and_stops_are_kept() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let whole = peer.submit(&["Say", "--max-tokens", "24"]);
    let words: Vec<String> =
        whole.lines.iter().filter_map(|l| l["text"].as_str().map(str::to_owned)).collect();
    let stop =
        words.iter().skip(3).find(|word| !word.trim().is_empty() && !word.contains('\u{fffd}')).unwrap();
    let cut = peer.submit(&["Say", "--max-tokens", "24", "--stop", stop]);
    assert_eq!(cut.done()["finish"], "stop");
    assert!(whole.answer().starts_with(&cut.answer()) && !cut.answer().contains(stop.as_str()), "{cut:?}");
    for outcome in [&whole, &cut] {
        let file = text(&outcome.done()["receipt_file"]);
        let replayed = peer.run(&["verify", "--replay", "--model", &model, &file]);
        assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");
    }
}

#[test]
fn forms_and_likelihoods_are_asked_for_in_one_way_and_refused_where_nobody_has_them() {
    let peer = Peer::up(&["--engine", "echo"]);
    let schema = peer.home.file("schema.json");
    std::fs::write(&schema, "{\"type\":\"object\"}").unwrap();
    let forms: [&[&str]; 4] = [
        &["--schema", &shown(&schema)],
        &["--schema", " {\"type\":\"object\"}"],
        &["--regex", "a+"],
        &["--choice", "yes", "--choice", "no"],
    ];
    for form in forms {
        // An echo says what it heard and nothing else, and says so.
        peer.submit(&[&["x"], form].concat()).refused(3, &["unsupported: Constraint"]);
    }
    peer.submit(&["x", "--logprobs", "3"]).refused(3, &["unsupported: Logprobs"]);
    peer.submit(&["x", "--logprobs", "21"]).refused(3, &["logprobs", "20"]);
    peer.submit(&["x", "--schema", "{"]).refused(3, &["--schema", "not JSON"]);
    peer.submit(&["x", "--schema", &shown(&peer.home.file("none.json"))])
        .refused(3, &["--schema", "none.json"]);
    peer.submit(&["x", "--choice", ""]).refused(3, &["constraint", "without text"]);
    let twice = peer.submit(&["x", "--regex", "a", "--choice", "b"]);
    assert_eq!(twice.code, 2, "{twice:?}");
    let mut command = peer.home.bare(&["submit", "x", "--logprobs", "1"]);
    command.arg("--data-dir").arg(peer.home.data());
    let silent = peer.home.spawn(command).finish();
    assert!(silent.code == 2 && silent.stderr.contains("--json"), "{silent:?}");
}

#[test]
fn choices_of_one_seed_differ_and_their_receipts_replay() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "Tell me" }],
        "max_tokens": 24, "temperature": 1.5, "seed": 3, "n": 2 });
    let reply = Request::post(&peer.api(), "/v1/chat/completions", &body).send().json();
    let content = |index: usize| text(&reply["choices"][index]["message"]["content"]);
    assert_ne!(content(0), content(1), "{reply}");
    for receipt in reply["llamesh"]["choices"].as_array().unwrap() {
        let replayed = peer.run(&["verify", "--replay", "--model", &model, &text(&receipt["receipt"])]);
        assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");
    }
}

#[test]
fn an_echo_cannot_be_replayed() {
    let peer = Peer::up(&["--engine", "echo"]);
    let digest = text(&peer.submit(&["x"]).done()["receipt"]);
    let replayed = peer.run(&["verify", "--replay", &digest]);
    replayed.refused(8, &[]);
    assert_eq!(replayed.lines[0]["verdict"], "unverifiable");
    assert!(text(&replayed.lines[0]["why"]).contains("no model"), "{replayed:?}");
}

#[test]
fn receipts_are_listed_and_exported_without_their_secrets() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let done = peer.submit(&["a very private question", "--max-tokens", "8"]).done().clone();
    let listed = peer.run(&["receipts"]);
    assert_eq!(listed.document()["receipt"], done["receipt"]);
    assert_eq!(listed.document()["receipt_file"], done["receipt_file"]);

    let digest = text(&done["receipt"]);
    let whole = peer.run(&["receipts", "export", &digest[..8]]).stdout;
    assert_eq!(whole, std::fs::read_to_string(text(&done["receipt_file"])).unwrap());
    let public = peer.run(&["receipts", "export", "--public", &digest]).stdout;
    assert!(whole.contains("a very private question") && !public.contains("private"));

    let file = peer.home.file("public.json");
    std::fs::write(&file, public).unwrap();
    let stranger = Home::new();
    assert_eq!(stranger.run(&["verify", &shown(&file)]).document()["verdict"], "signed");
    let replayed = stranger.run(&["verify", "--replay", "--model", &model, &shown(&file)]);
    assert_eq!((replayed.code, &replayed.lines[0]["verdict"]), (8, &json!("unverifiable")), "{replayed:?}");
}

/// What `of` has on its books with `with`: earned, spent.
fn books(of: &Peer, with: &Peer) -> (u64, u64) {
    let peers = of.run(&["peers"]);
    let views = peers.document()["peers"].as_array().expect("a list");
    let account = views.iter().find(|view| view["peer"] == with.id()).map(|view| &view["account"]);
    let amount = |name| account.and_then(|account| account[name].as_u64()).expect("an account");
    (amount("earned"), amount("spent"))
}

#[test]
fn receipts_and_balances_outlive_a_restart() {
    let priced = ["--engine", "echo", "--price-completion", "1000"];
    let provider = Peer::up(&priced);
    let requester = Peer::join(&provider, &["--model", "-"]);
    requester.submit(&["what costs something"]).refused(3, &["Budget", "raise it"]);
    let done = requester.submit(&["one two three", "--budget", "100000"]).done().clone();
    assert_eq!(books(&requester, &provider), (0, 3));
    assert_eq!(books(&provider, &requester), (3, 0));

    let provider = provider.stop().up(&priced);
    let requester = requester.stop().up(&["--model", "-", "--bootstrap", &provider.address()]);
    assert_eq!(books(&requester, &provider), (0, 3));
    assert_eq!(books(&provider, &requester), (3, 0));
    assert_eq!(requester.run(&["receipts"]).document()["receipt"], done["receipt"]);
    requester.submit(&["four five", "--budget", "100000"]).done();
    assert_eq!(books(&requester, &provider), (0, 5));
}

#[test]
fn ctrl_c_on_a_job_frees_the_provider() {
    let provider = Peer::up(&["--engine", "echo:5", "--slots", "1"]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let through = [vec![], vec!["--bootstrap".to_owned(), provider.address()]];
    for through in through {
        let through: Vec<&str> = through.iter().map(String::as_str).collect();
        let slow = [&["submit", "for a long while", "--max-tokens", "3000"], &through[..]].concat();
        let mut process = requester.home.start(&slow);
        process.until("token");
        process.signal("INT");
        process.finish().refused(6, &["cancelled"]);
        // The only slot is free again: three tokens at five a second, not ten minutes.
        assert_eq!(requester.submit(&["x ", "--max-tokens", "3"]).answer(), "x x x ");
    }
}

#[test]
fn a_reader_that_leaves_frees_the_provider() {
    let provider = Peer::up(&["--engine", "echo:5", "--slots", "1"]);
    let body = json!({ "prompt": "on and on ", "max_tokens": 3000 });
    let mut stream = Request::post(&provider.api(), "/control/jobs", &body).open();
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut stream, &mut first).unwrap();
    drop(stream);
    assert_eq!(provider.submit(&["x ", "--max-tokens", "2"]).answer(), "x x ");
}

#[test]
fn models_are_listed_fetched_and_deleted() {
    let home = Home::new();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let listed = |args: &[&str]| {
        let outcome = home.run(args);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.lines
    };
    let known = listed(&["models"]);
    assert_eq!(known, listed(&["models", "list"]));
    let names: Vec<_> = known.iter().map(|line| (text(&line["name"]), line["present"].clone())).collect();
    assert_eq!(names, [("smollm2".to_owned(), json!(false)), ("minilm".to_owned(), json!(false))]);
    let expected = ["digest", "form", "from", "name", "path", "present", "size"];
    assert_eq!(keys(&known[1]), expected.map(str::to_owned).into());
    assert_eq!((&known[1]["form"], &known[1]["size"]), (&json!("folder"), &json!(91_335_288)));

    let folder = home.file("cache").join("models");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::rename(tiny(&home), folder.join("mine.gguf")).unwrap();
    let mine = &listed(&["models", "list"])[2];
    assert_eq!(
        (&mine["name"], &mine["present"], &mine["digest"]),
        (&json!("mine.gguf"), &json!(true), &Value::Null)
    );
    let path = text(&mine["path"]);
    let pulled = home.run(&["models", "pull", &path]).document().clone();
    assert_eq!(keys(&pulled), ["digest", "form", "name", "path"].map(str::to_owned).into());
    let removed = home.run(&["models", "rm", "mine.gguf"]);
    assert_eq!(removed.document(), &json!({ "name": "mine.gguf", "freed": mine["size"] }));
    assert_eq!(listed(&["models"]), known);
}
