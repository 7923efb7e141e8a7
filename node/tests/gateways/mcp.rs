//! The Model Context Protocol as its clients meet it: over HTTP in both revisions, and over pipes of the real program.

mod mesh;

use std::fs;
use std::process::Stdio;

use mesh::{Client, Peers, plan, said, with_sessions, without_sessions};
use rmcp::model::{ErrorCode, PaginatedRequestParams, ReadResourceRequestParams, ResourceContents};
use rmcp::service::{ClientLifecycleMode, ServiceError};
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::http::{Request, Response};
use crate::support::{Home, LIMIT, text};

const BOTH: [fn() -> ClientLifecycleMode; 2] = [with_sessions, without_sessions];

fn send(request: Request) -> Response {
    block_in_place(|| request.send())
}

async fn read(client: &Client, uri: &str) -> Result<Value, ServiceError> {
    let result = client.service.read_resource(ReadResourceRequestParams::new(uri)).await?;
    match result.contents.as_slice() {
        [ResourceContents::TextResourceContents { text, mime_type, .. }] => {
            assert_eq!(mime_type.as_deref(), Some("application/json"));
            Ok(serde_json::from_str(text).expect("JSON"))
        }
        other => panic!("not one text: {other:?}"),
    }
}

fn code(error: &ServiceError) -> ErrorCode {
    match error {
        ServiceError::McpError(error) => error.code,
        other => panic!("no error of the server: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_found_and_do_jobs_that_receipts_prove() {
    let peers = Peers::up().await;
    let provider = json!(peers.provider.id());
    for lifecycle in BOTH {
        let mut client = Client::at(&peers.url, None, lifecycle()).await;
        let found = client.done("find_agents", json!({ "capability": "text" })).await;
        let prices: Vec<_> =
            found["agents"].as_array().unwrap().iter().map(|one| &one["price"]["completion"]).collect();
        assert_eq!(prices, [&json!(0), &json!(1000)], "the cheapest first: {found}");
        let free = client.done("find_agents", json!({ "max_price": 0 })).await;
        assert_eq!(free["agents"].as_array().unwrap().len(), 2, "{free}");
        assert_eq!(free["agents"][0]["peer"], provider);
        let none = client.call("find_agents", json!({ "language": "tlh" })).await;
        assert!(said(&none).contains("nobody"), "{none:?}");

        client.heard();
        let done =
            client.done("submit_job", json!({ "prompt": "one two three", "verify": "signatures" })).await;
        assert_eq!(
            (&done["text"], &done["provider"], &done["cost"]),
            (&json!("one two three"), &provider, &json!(0))
        );
        assert_eq!(done["verdict"]["verdict"], "signed");
        let heard = client.heard_to(3.0).await;
        assert_eq!(heard.last(), Some(&(3.0, None)), "{heard:?}");
        assert!(heard.is_sorted_by(|a, b| a.0 < b.0), "{heard:?}");
        let paid = json!({ "messages": [{ "role": "user", "content": "x" }], "capability": "text.paid", "budget": 2_000_000 });
        assert_ne!(client.done("submit_job", paid).await["cost"], 0);
        let called = json!({ "input": { "a": 1 }, "capability": "tool.parrot" });
        assert_eq!(client.done("submit_job", called).await["text"], r#"{"a":1}"#);

        let named = json!({ "receipt": done["receipt"] });
        let receipt = client.done("get_receipt", named.clone()).await;
        assert_eq!((&receipt["answer"], &receipt["provider"]), (&done["text"], &provider));
        assert_eq!(client.done("verify_receipt", named.clone()).await["verdict"], "signed");
        let replay = json!({ "receipt": done["receipt"], "replay": true });
        assert_eq!(client.done("verify_receipt", replay).await["verdict"], "unverifiable");
        let file = read(&client, &text(&receipt["uri"])).await.expect("the file");
        assert_eq!((&file["digest"], file["opening"].is_object()), (&done["receipt"], true));

        // A file that somebody changed is evidence, and no error of the tool.
        let path = peers.file(&text(&done["receipt"]));
        let changed = fs::read_to_string(&path).unwrap().replacen("one ", "own ", 1);
        fs::write(&path, changed).unwrap();
        assert_eq!(client.done("verify_receipt", named.clone()).await["verdict"], "refuted");
        client.refused("get_receipt", named, &["llamesh verify"]).await;
        client.leave().await;
    }
    peers.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_and_profiles_are_resources() {
    let peers = Peers::up().await;
    let folder = peers.folder.path().join("receipts");
    for number in 0..120 {
        let name = crypto::Digest::of_content(format!("{number}").as_bytes());
        fs::write(folder.join(format!("{name}.json")), "{}").unwrap();
    }
    fs::write(folder.join("token"), "not for anybody").unwrap();
    for lifecycle in BOTH {
        let client = Client::at(&peers.url, None, lifecycle()).await;
        let mut pages = Vec::new();
        let mut cursor = None;
        loop {
            let page = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = client.service.list_resources(Some(page)).await.expect("a page");
            pages.push(page.resources);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [51, 50, 20]);
        let mut uris: Vec<_> = pages.concat().into_iter().map(|resource| resource.uri).collect();
        let profile = read(&client, &uris[0]).await.expect("a profile");
        assert_eq!(profile["peer"], json!(peers.provider.id()));
        assert_eq!(profile["profile"]["agents"].as_array().unwrap().len(), 3);
        uris.sort_unstable();
        uris.dedup();
        assert_eq!(uris.len(), 121);

        let templates = client.service.list_all_resource_templates().await.expect("templates");
        assert_eq!(templates.len(), 2);
        let unknown = format!("llamesh://receipts/{}", "0".repeat(64));
        for uri in [unknown.as_str(), "llamesh://receipts/../token", "file:///etc/passwd"] {
            let error = read(&client, uri).await.expect_err("no such resource");
            assert!(
                [ErrorCode::RESOURCE_NOT_FOUND, ErrorCode::INVALID_PARAMS].contains(&code(&error)),
                "{error}"
            );
        }
        let wrong = PaginatedRequestParams::default().with_cursor(Some("1.x".to_owned()));
        let error = client.service.list_resources(Some(wrong)).await.expect_err("no such page");
        assert_eq!(code(&error), ErrorCode::INVALID_PARAMS);
        client.leave().await;
    }
    peers.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_are_estimated_and_run() {
    let peers = Peers::up().await;
    for lifecycle in BOTH {
        let mut client = Client::at(&peers.url, None, lifecycle()).await;
        let dry = client.done("run_plan", json!({ "plan": plan("left"), "dry_run": true })).await;
        assert_eq!(
            (&dry["ran"], &dry["affordable"], &dry["least"]["jobs"]),
            (&json!(false), &json!(true), &json!(2))
        );
        client.heard();
        let ran = client.done("run_plan", json!({ "plan": plan("left") })).await;
        assert_eq!((&ran["output"], &ran["output_node"]), (&json!("left\nright"), &json!("both")));
        assert_eq!(ran["receipts"].as_array().unwrap().len(), 2);
        assert!(peers.folder.path().join("plans").join(text(&ran["run"])).is_dir());
        let heard = client.heard_to(3.0).await;
        assert_eq!(heard.last(), Some(&(3.0, Some(3.0))), "{heard:?}");
        assert!(heard.is_sorted_by(|a, b| a.0 < b.0), "{heard:?}");
        for receipt in ran["receipts"].as_array().unwrap() {
            assert_eq!(
                client.done("verify_receipt", json!({ "receipt": receipt })).await["verdict"],
                "signed"
            );
        }

        let mut dear = plan("x");
        dear["nodes"]["left"]["generate"]["capability"] = json!("text.paid");
        client.refused("run_plan", json!({ "plan": dear }), &["limits.budget"]).await;
        dear["nodes"]["left"]["generate"]["capability"] = json!("text.nowhere");
        client.refused("run_plan", json!({ "plan": dear }), &["text.nowhere", "llamesh find"]).await;
        let dry = client.done("run_plan", json!({ "plan": dear, "dry_run": true })).await;
        assert_eq!(dry["affordable"], false);
        let mut circle = plan("{{ nodes.both }}");
        circle["nodes"]["right"]["generate"]["prompt"] = json!("{{ inputs.none }}");
        client.refused("run_plan", json!({ "plan": circle }), &["waits for itself", "`none`"]).await;
        let mut form = plan("x");
        form["nodes"]["left"]["expect"] = json!({ "regex": "[0-9]+" });
        client.refused("run_plan", json!({ "plan": form }), &["`left`", "--resume"]).await;
        client.leave().await;
    }
    peers.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled_is_not_worked_on_any_more() {
    let mut peers = Peers::up().await;
    let calls = [
        ("submit_job", json!({ "prompt": "wait for me" })),
        ("run_plan", json!({ "plan": plan("wait {{ 1 + 1 }}") })),
    ];
    for lifecycle in BOTH {
        for (tool, arguments) in &calls {
            let client = Client::at(&peers.url, None, lifecycle()).await;
            let call = client.begin(tool, arguments).await;
            peers.wait_for(1).await;
            call.cancel(Some("enough".to_owned())).await.expect("a server");
            peers.wait_for(0).await;
            assert_eq!(client.done("find_agents", json!({})).await["more"], 0, "the server goes on");

            client.leave().await;
        }
        // Whoever leaves does the same.
        let (tool, arguments) = &calls[0];
        let client = Client::at(&peers.url, None, lifecycle()).await;
        let _call = client.begin(tool, arguments).await;
        peers.wait_for(1).await;
        client.leave().await;
        peers.wait_for(0).await;
    }
    // And so does whoever is cut off, in the revision where no session waits for them.
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    for token in [None, Some(7)] {
        let mut meta = meta.clone();
        if let Some(token) = token {
            meta["progressToken"] = json!(token);
        }
        let params = json!({ "name": "submit_job", "arguments": { "prompt": "wait" }, "_meta": meta });
        let request = rpc(&peers.url, "tools/call", &params);
        let request = request.with("mcp-protocol-version", "2026-07-28").with("mcp-method", "tools/call");
        let open = block_in_place(|| request.with("mcp-name", "submit_job").open());
        peers.wait_for(1).await;
        drop(open);
        peers.wait_for(0).await;
    }
    peers.down().await;
}

/// A request in the words of the wire.
fn rpc(url: &str, method: &str, params: &Value) -> Request {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    Request::post(url, "/mcp", &body).with("accept", "application/json, text/event-stream")
}

fn hello(url: &str) -> Request {
    let client = json!({ "name": "t", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    rpc(url, "initialize", &params)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_are_what_a_tool_takes_or_are_told_why_not() {
    let peers = Peers::up().await;
    let client = Client::at(&peers.url, None, without_sessions()).await;
    let long = "x".repeat(2 << 20);
    let cases = [
        ("find_agents", json!({ "capability": "no capability" }), vec!["`/capability`"]),
        ("find_agents", json!({ "capabilities": "text" }), vec!["capabilities", "find_agents"]),
        ("find_agents", json!({ "max_price": -1 }), vec!["`/max_price`"]),
        ("submit_job", json!({}), vec!["prompt, messages and input"]),
        ("submit_job", json!({ "prompt": "x", "input": {} }), vec!["prompt, messages and input"]),
        ("submit_job", json!({ "prompt": long }), vec!["`/prompt`"]),
        ("submit_job", json!({ "prompt": "x", "max_tokens": 0 }), vec!["`/max_tokens`"]),
        ("submit_job", json!({ "prompt": "x", "provider": "me" }), vec!["provider"]),
        ("submit_job", json!({ "prompt": "x", "model": "none" }), vec!["`none`"]),
        (
            "submit_job",
            json!({ "prompt": "x", "capability": "text.nowhere" }),
            vec!["text.nowhere", "find_agents"],
        ),
        ("submit_job", json!({ "prompt": "x", "capability": "text.paid" }), vec!["higher budget"]),
        ("submit_job", json!({ "prompt": "x", "max_price": 3 }), vec!["budget"]),
        ("submit_job", json!({ "prompt": "x", "schema": { "type": 7 } }), vec!["Constraint"]),
        (
            "submit_job",
            json!({ "messages": [{ "role": "root", "content": "x" }] }),
            vec!["`/messages/0/role`"],
        ),
        ("run_plan", json!({}), vec!["plan"]),
        ("run_plan", json!({ "plan": { "goal": "g", "nodes": { "a": {} } } }), vec!["nodes", "generate"]),
        ("run_plan", json!({ "plan": plan("x"), "inputs": { "a": 1 } }), vec!["`a`"]),
        ("get_receipt", json!({ "receipt": "../token" }), vec!["`/receipt`"]),
        ("get_receipt", json!({ "receipt": "0".repeat(64) }), vec!["no receipt", "submit_job"]),
        ("verify_receipt", json!({ "receipt": "0".repeat(64), "replay": 1 }), vec!["`/replay`"]),
    ];
    for (tool, arguments, says) in cases {
        client.refused(tool, arguments, &says).await;
    }
    let call = client.begin("rm", &json!({})).await.await_response().await;
    assert_eq!(code(&call.expect_err("no such tool")), ErrorCode::INVALID_PARAMS);
    client.leave().await;
    for (body, status) in [("", 415), ("{", 415), ("[]", 415), ("{\"jsonrpc\":\"2.0\"}", 415)] {
        let response = send(rpc(&peers.url, "ping", &json!({})).body(body));
        assert!((400..=status).contains(&response.status), "{body}: {response:?}");
    }
    peers.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_key_s_own_and_so_is_what_it_may() {
    let peers = Peers::up().await;
    let (mine, theirs) =
        (peers.key(json!({ "concurrent": 1 })), peers.key(json!({ "capabilities": ["tool"] })));
    assert_eq!(send(hello(&peers.url)).status, 401, "there are keys now");
    let begun = send(hello(&peers.url).by(&mine));
    let session = begun.header("mcp-session-id").expect("a session").to_owned();
    let within = |request: Request, token: &str| {
        send(request.by(token).with("mcp-session-id", &session).with("mcp-protocol-version", "2025-11-25"))
            .status
    };
    let tools = || rpc(&peers.url, "tools/list", &json!({}));
    assert_eq!(within(tools(), &theirs), 404, "as unknown as any other");
    assert_eq!(within(Request::of("DELETE", &peers.url, "/mcp"), &theirs), 404);
    assert_eq!(within(Request::get(&peers.url, "/mcp"), &theirs), 404);
    assert_eq!(within(tools(), &mine), 200);
    assert_eq!(within(Request::of("DELETE", &peers.url, "/mcp"), &mine), 204);
    assert_eq!(within(tools(), &mine), 404);
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        assert_eq!(send(hello(&peers.url).by(&mine).with(name, value)).status, 403);
    }

    // Waiting for news is no work: with one request at once there is still one.
    let client = Client::at(&peers.url, Some(&mine), with_sessions()).await;
    let done = client.done("submit_job", json!({ "prompt": "a secret" })).await;
    let named = json!({ "receipt": done["receipt"] });
    assert_eq!(client.done("get_receipt", named.clone()).await["answer"], Value::Null, "the owner's only");
    assert_eq!(client.done("verify_receipt", named.clone()).await["verdict"], "signed");
    let replay = json!({ "receipt": done["receipt"], "replay": true });
    client.refused("verify_receipt", replay, &["owner", "llamesh verify --replay"]).await;
    assert!(read(&client, &text(&done["uri"])).await.expect("a receipt")["opening"].is_null());
    let listed = client.service.list_all_resources().await.expect("a list");
    assert!(listed.iter().all(|resource| resource.uri.starts_with("llamesh://peers/")), "{listed:?}");
    let ran = client.done("run_plan", json!({ "plan": plan("x") })).await;
    assert!(ran["run"].is_null() && !peers.folder.path().join("plans").exists(), "nothing is kept of it");
    client.leave().await;

    for lifecycle in BOTH {
        let client = Client::at(&peers.url, Some(&theirs), lifecycle()).await;
        client.refused("submit_job", json!({ "prompt": "x" }), &["may not ask for `text.generation`"]).await;
        client.refused("run_plan", json!({ "plan": plan("x") }), &["may not ask for"]).await;
        client.done("submit_job", json!({ "input": {}, "capability": "tool.parrot" })).await;
        client.leave().await;
        let owner = Client::at(&peers.url, Some(peers.owner()), lifecycle()).await;
        assert_eq!(owner.done("get_receipt", named.clone()).await["answer"], "a secret");
        owner.leave().await;
    }
    peers.down().await;
}

/// The program, spoken to through its pipes.
async fn started(
    home: &Home,
    args: &[&str],
    lifecycle: ClientLifecycleMode,
) -> (Client, tokio::process::Child) {
    let mut command = tokio::process::Command::from(home.command(&[&["mcp"], args].concat()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program");
    let pipes = (child.stdout.take().expect("stdout"), child.stdin.take().expect("stdin"));
    (Client::through(AsyncRwTransport::new_client(pipes.0, pipes.1), lifecycle).await, child)
}

async fn ended(mut child: tokio::process::Child) {
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("in time").expect("a status");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_start_it_have_the_same_over_pipes() {
    let mut peers = Peers::up().await;
    let (home, address) = (Home::new(), peers.address().await);
    for (lifecycle, way) in [(BOTH[0], "--bootstrap"), (BOTH[1], "--bootstrap"), (BOTH[0], "--api")] {
        let place = if way == "--api" { peers.url.as_str() } else { address.as_str() };
        let (mut client, child) = started(&home, &[way, place], lifecycle()).await;
        assert_eq!(client.service.list_all_tools().await.expect("tools").len(), 5);
        assert_eq!(
            client.done("find_agents", json!({ "max_price": 0 })).await["agents"].as_array().unwrap().len(),
            2
        );
        client.heard();
        let done = client.done("submit_job", json!({ "prompt": "one two" })).await;
        assert_eq!(done["text"], "one two");
        assert_eq!(client.heard_to(2.0).await.last(), Some(&(2.0, None)));
        assert_eq!(client.done("run_plan", json!({ "plan": plan("left") })).await["output"], "left\nright");
        if way == "--bootstrap" {
            let verdict = client.done("verify_receipt", json!({ "receipt": done["receipt"] })).await;
            assert_eq!(verdict["verdict"], "signed");
            assert_eq!(
                read(&client, &text(&done["uri"])).await.expect("a receipt")["digest"],
                done["receipt"]
            );
        }
        let call = client.begin("submit_job", &json!({ "prompt": "wait" })).await;
        peers.wait_for(1).await;
        call.cancel(None).await.expect("a server");
        peers.wait_for(0).await;
        client.leave().await;
        ended(child).await;
    }
    let (client, child) = started(&home, &["--bootstrap", &address], with_sessions()).await;
    let _call = client.begin("submit_job", &json!({ "prompt": "wait" })).await;
    peers.wait_for(1).await;
    client.leave().await;
    ended(child).await;
    peers.wait_for(0).await;
    assert_eq!(
        home.run(&["receipts"]).lines.len(),
        6,
        "what was done through a peer of its own is kept here"
    );
    peers.down().await;
}

#[test]
fn whoever_says_nothing_or_nonsense_to_the_program_is_left_in_order() {
    let home = Home::new();
    home.run(&["mcp"]).refused(5, &["llamesh up"]);
    let peer = home.up(&["--engine", "echo"]);
    let outcome = peer.run(&["mcp"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""), "{outcome:?}");
    let mut process = peer.home.start(&["mcp"]);
    process.feed("this is not the protocol\n{}\n[1,2]\n");
    let outcome = process.finish();
    assert!([0, 3].contains(&outcome.code), "{outcome:?}");
    assert_eq!(outcome.lines.len(), outcome.stdout.lines().count(), "nothing but the protocol: {outcome:?}");
}
