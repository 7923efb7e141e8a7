//! A2A 1.0 at a peer: the card and its signature, every method over both bindings, whose tasks they are, webhooks, and agents
//! elsewhere that are lent to the mesh.

mod elsewhere;
mod harness;

use crypto::PeerId;
use harness::{BOTH, Binding, Client, Hook, Mesh, answer, message, state};
use node::api::a2a::EXTENSION;
use node::api::keys::limits::Limits;
use node::clock;
use node::jws::Jws;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::http::{Request, Response};
use crate::support::text;

fn send(request: Request) -> Response {
    block_in_place(|| request.send())
}

const CARD: &str = "/.well-known/agent-card.json";

/// Whose card it is, if its signature holds.
fn signer(card: &Value) -> PeerId {
    use base64::Engine;
    let signature = &card["signatures"][0];
    let jws = Jws { protected: text(&signature["protected"]), signature: text(&signature["signature"]) };
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&jws.protected).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("a header");
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("JOSE")));
    let signer = text(&header["kid"]).parse().expect("a did:key");
    let mut unsigned = card.clone();
    unsigned.as_object_mut().expect("an object").remove("signatures");
    let canonical = serde_json_canonicalizer::to_vec(&unsigned).expect("a canonical form");
    assert!(jws.verifies(signer, &canonical), "{card}");
    signer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_card_is_signed_by_the_peer_s_key() {
    let mesh = Mesh::up(false).await;
    let response = mesh.get(CARD);
    let card = response.json();
    assert_eq!(signer(&card), mesh.node.handle().id());
    let ids: Vec<_> =
        card["skills"].as_array().expect("skills").iter().map(|skill| text(&skill["id"])).collect();
    assert_eq!(ids, ["text.generation", "tool.count"]);
    for interface in card["supportedInterfaces"].as_array().expect("interfaces") {
        assert_eq!(
            (&interface["url"], &interface["protocolVersion"]),
            (&json!(format!("{}/a2a", mesh.url)), &json!("1.0"))
        );
    }
    assert!(card["securitySchemes"].is_null());
    assert!(response.header("cache-control").expect("a header").contains("max-age="));
    assert!(response.header("last-modified").expect("a header").ends_with("GMT"));
    let tag = response.header("etag").expect("a tag").to_owned();
    assert_eq!(send(Request::get(&mesh.url, CARD).with("if-none-match", &tag)).status, 304);
    assert_eq!(send(Request::get(&mesh.url, CARD).with("if-none-match", "\"x\"")).status, 200);
    let key = mesh.get("/.well-known/jwks.json").json()["keys"][0].take();
    assert_eq!((&key["kty"], &key["kid"]), (&json!("OKP"), &json!(mesh.node.handle().id().did_key())));

    // Nobody gets a card signed in another's name, and everybody gets one without a token.
    assert_eq!(send(Request::get(&mesh.url, CARD).with("host", "evil.example")).status, 403);
    mesh.keys.create(clock::now(), "somebody", Limits::default()).expect("a key");
    let locked = mesh.get(CARD).json();
    assert_eq!(signer(&locked), mesh.node.handle().id());
    assert_eq!(locked["securitySchemes"]["key"]["httpAuthSecurityScheme"]["scheme"], "Bearer");
    assert!(!locked.to_string().contains("teller"), "not who offers it: {locked}");
    assert_eq!(mesh.get("/a2a/tasks").status, 401);
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_becomes_a_task_with_a_receipt() {
    let mesh = Mesh::up(false).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let task = client.send("hello", &json!({}));
        assert_eq!((state(&task), answer(&task).as_str()), ("TASK_STATE_COMPLETED", "1: hello"));
        assert_eq!(
            (&task["history"][0]["parts"][0]["text"], &task["history"][0]["taskId"]),
            (&json!("hello"), &task["id"])
        );
        let proof = &task["artifacts"][0]["metadata"][EXTENSION];
        assert_eq!(text(&proof["receipt"]).len(), 64, "{proof}");
        assert_eq!(proof["provider"], json!(mesh.node.handle().id()));
        assert!(text(&task["status"]["timestamp"]).ends_with('Z'));

        let named = |more: Value| {
            let mut named = json!({ "id": task["id"] });
            named.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            client.call("GetTask", &named)
        };
        assert_eq!(named(json!({})), Ok(task.clone()));
        assert!(named(json!({ "historyLength": 0 })).expect("a task")["history"].is_null());
        assert_eq!(named(json!({ "historyLength": 1 })), Ok(task.clone()));
        assert_eq!(named(json!({ "historyLength": -1 })), Err("INVALID_PARAMS".to_owned()));
        let silent = json!({ "configuration": { "historyLength": 0, "acceptedOutputModes": ["text/*"] } });
        assert!(client.send("x", &silent)["history"].is_null());

        // What was said in a context is said to whoever answers next.
        let second = client.send("again", &json!({ "contextId": task["contextId"] }));
        assert_eq!((answer(&second).as_str(), &second["contextId"]), ("3: again", &task["contextId"]));
        assert_eq!(
            answer(&client.send("x", &json!({ "contextId": format!("mine-{:?}", client.binding) }))),
            "1: x"
        );

        let wish = json!({ EXTENSION: { "capability": "tool.count", "max_price": 0, "deadline": 30 } });
        let call = json!({ "parts": [{ "data": { "a": 1 } }], "metadata": wish });
        assert_eq!(answer(&client.send("", &call)), "0: {\"a\":1}");
        let cut = json!({ "metadata": { EXTENSION: { "model": "cap:text", "max_tokens": 1 } } });
        assert_eq!(answer(&client.send("hello", &cut)), "1: ");
        for (said, expected) in [("refuse", "TASK_STATE_REJECTED"), ("fail", "TASK_STATE_FAILED")] {
            let task = client.send(said, &json!({}));
            assert_eq!(
                (state(&task), &task["status"]["message"]["role"]),
                (expected, &json!("ROLE_AGENT")),
                "{task}"
            );
        }
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_a_task_and_who_leaves_it_cancels_nothing() {
    let mut mesh = Mesh::up(false).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let events = client.stream("SendStreamingMessage", &message("hello", &json!({}))).rest();
        let task = &events[0]["task"];
        assert_eq!(state(task), "TASK_STATE_SUBMITTED");
        let last = &events.last().expect("events")["statusUpdate"];
        assert_eq!((state(last), &last["taskId"]), ("TASK_STATE_COMPLETED", &task["id"]));
        assert_eq!((streamed(&events).as_str(), &last["contextId"]), ("1: hello", &task["contextId"]));
        let artifact = &events[events.len() - 2]["artifactUpdate"];
        assert_eq!(
            (&artifact["lastChunk"], artifact["artifact"]["metadata"][EXTENSION]["receipt"].is_string()),
            (&json!(true), true)
        );

        // Two follow one task; the first leaves.
        mesh.open.send_replace(false);
        let mut first = client.stream("SendStreamingMessage", &message("wait", &json!({})));
        let id = first.next().expect("a task")["task"]["id"].clone();
        mesh.waiting.wait_for(|count| *count == 1).await.expect("an agent");
        while first.next().expect("an event")["artifactUpdate"].is_null() {}
        let mut second = client.stream("SubscribeToTask", &json!({ "id": id }));
        let begun = second.next().expect("a task")["task"].take();
        assert_eq!((state(&begun), answer(&begun).as_str()), ("TASK_STATE_WORKING", "1: "));
        drop(first);
        mesh.open.send_replace(true);
        let events = second.rest();
        assert_eq!(streamed(&events), "wait");
        assert_eq!(state(&events.last().expect("events")["statusUpdate"]), "TASK_STATE_COMPLETED");
        assert_eq!(answer(&client.call("GetTask", &json!({ "id": id })).expect("a task")), "1: wait");
        assert_eq!(
            client.call("SubscribeToTask", &json!({ "id": id })),
            Err("UNSUPPORTED_OPERATION".to_owned())
        );
    }
    mesh.node.stop().await.expect("an end in order");
}

/// The text that events bring.
fn streamed(events: &[Value]) -> String {
    let updates = events.iter().map(|event| &event["artifactUpdate"]["artifact"]["parts"][0]["text"]);
    updates.filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_at_work_can_be_taken_back_and_no_other() {
    let mut mesh = Mesh::up(false).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let begun = client.send("wait", &json!({ "configuration": { "returnImmediately": true } }));
        assert!(["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&state(&begun)), "{begun}");
        mesh.waiting.wait_for(|count| *count == 1).await.expect("an agent");
        let mut followed = client.stream("SubscribeToTask", &json!({ "id": begun["id"] }));
        assert!(followed.next().expect("a task")["task"].is_object());
        let named = json!({ "id": begun["id"] });
        assert_eq!(state(&client.call("CancelTask", &named).expect("a task")), "TASK_STATE_CANCELED");
        mesh.waiting.wait_for(|count| *count == 0).await.expect("an agent");
        assert_eq!(state(&followed.rest().last().expect("an end")["statusUpdate"]), "TASK_STATE_CANCELED");
        assert_eq!(client.call("CancelTask", &named), Err("TASK_NOT_CANCELABLE".to_owned()));
        assert_eq!(state(&client.call("GetTask", &named).expect("a task")), "TASK_STATE_CANCELED");
        for method in ["GetTask", "CancelTask", "SubscribeToTask"] {
            assert_eq!(client.call(method, &json!({ "id": "none" })), Err("TASK_NOT_FOUND".to_owned()));
        }
        let reply = |more: Value| client.call("SendMessage", &message("x", &more));
        assert_eq!(reply(json!({ "taskId": "none" })), Err("TASK_NOT_FOUND".to_owned()));
        assert_eq!(reply(json!({ "taskId": begun["id"] })), Err("UNSUPPORTED_OPERATION".to_owned()));
        let other = json!({ "taskId": begun["id"], "contextId": "other" });
        assert_eq!(reply(other), Err("INVALID_PARAMS".to_owned()));
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_listed_by_pages_the_latest_first() {
    let mesh = Mesh::up(false).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let context = format!("c-{:?}", client.binding);
        let tasks: Vec<_> = (0..3).map(|_| client.send("x", &json!({ "contextId": context }))).collect();
        let list = |more: Value| {
            let mut params = json!({ "contextId": context });
            params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            client.call("ListTasks", &params)
        };
        let all = list(json!({})).expect("a list");
        assert_eq!(
            (&all["totalSize"], &all["pageSize"], &all["nextPageToken"]),
            (&json!(3), &json!(50), &json!(""))
        );
        let ids = |page: &Value| -> Vec<Value> {
            page["tasks"].as_array().expect("tasks").iter().map(|task| task["id"].clone()).collect()
        };
        let expected: Vec<_> = tasks.iter().rev().map(|task| task["id"].clone()).collect();
        assert_eq!(ids(&all), expected);
        assert!(all["tasks"][0]["artifacts"].is_null() && all["tasks"][0]["history"].is_array());
        let first =
            list(json!({ "pageSize": 2, "includeArtifacts": true, "historyLength": 0 })).expect("a page");
        assert_eq!((ids(&first), answer(&first["tasks"][0]).as_str()), (expected[..2].to_vec(), "5: x"));
        assert!(first["tasks"][0]["history"].is_null());
        let second = list(json!({ "pageSize": 2, "pageToken": first["nextPageToken"] })).expect("a page");
        assert_eq!((ids(&second), &second["nextPageToken"]), (expected[2..].to_vec(), &json!("")));
        let count = |more: Value| list(more).expect("a list")["totalSize"].clone();
        assert_eq!(count(json!({ "status": "TASK_STATE_COMPLETED" })), 3);
        assert_eq!(count(json!({ "status": "TASK_STATE_INPUT_REQUIRED" })), 0);
        assert_eq!(count(json!({ "statusTimestampAfter": tasks[0]["status"]["timestamp"] })), 3);
        assert_eq!(count(json!({ "statusTimestampAfter": "2999-01-01T00:00:00Z" })), 0);
        for wrong in [
            json!({ "pageSize": 0 }),
            json!({ "pageSize": 101 }),
            json!({ "pageToken": "mine" }),
            json!({ "status": "done" }),
            json!({ "statusTimestampAfter": "yesterday" }),
            json!({ "historyLength": -1 }),
        ] {
            assert_eq!(list(wrong.clone()), Err("INVALID_PARAMS".to_owned()), "{wrong}");
        }
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_in_a2a_s_words() {
    let mesh = Mesh::up(false).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let reason = |params: &Value| client.call("SendMessage", params).expect_err("a refusal");
        assert_eq!(reason(&json!({})), "INVALID_PARAMS");
        assert_eq!(reason(&message("", &json!({ "parts": [] }))), "INVALID_PARAMS");
        assert_eq!(
            reason(&message("", &json!({ "parts": [{ "url": "https://a.example" }] }))),
            "CONTENT_TYPE_NOT_SUPPORTED"
        );
        assert_eq!(reason(&message("x", &json!({ "role": "ROLE_AGENT" }))), "INVALID_PARAMS");
        let picture = json!({ "configuration": { "acceptedOutputModes": ["image/png"] } });
        assert_eq!(reason(&message("x", &picture)), "CONTENT_TYPE_NOT_SUPPORTED");
        for wish in [
            json!({ "trust": 1 }),
            json!({ "model": "none" }),
            json!({ "capability": "No!" }),
            json!({ "temperature": -1 }),
            json!({ "capability": "tool.count" }),
        ] {
            let metadata = json!({ "metadata": { EXTENSION: wish } });
            assert_eq!(reason(&message("x", &metadata)), "INVALID_PARAMS", "{wish}");
        }
        assert_eq!(client.call("GetExtendedAgentCard", &json!({})), Err("UNSUPPORTED_OPERATION".to_owned()));
    }
    let rpc = |body: &str, version: &str| {
        let request = Request::post(&mesh.url, "/a2a", &Value::Null).body(body).with("a2a-version", version);
        let response = send(request);
        (response.status, response.json()["error"]["code"].clone())
    };
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "ListTasks" }).to_string();
    assert_eq!(rpc(&call, "1.0"), (200, Value::Null));
    assert_eq!(rpc(&call, "1.0.3"), (200, Value::Null));
    for (body, version, code) in [
        (call.as_str(), "", -32009),
        (&call, "0.3", -32009),
        (&call, "2.0", -32009),
        ("{", "1.0", -32700),
        ("[]", "1.0", -32600),
        (r#"{"id":1,"method":"ListTasks"}"#, "1.0", -32600),
        (r#"{"jsonrpc":"2.0","id":[],"method":"ListTasks"}"#, "1.0", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, "1.0", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"message/send"}"#, "1.0", -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}"#, "1.0", -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":7}}"#, "1.0", -32602),
    ] {
        assert_eq!(rpc(body, version), (200, json!(code)), "{body} {version}");
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_path_is_told_by_its_status() {
    let mesh = Mesh::up(false).await;
    let status = |request: Request| {
        let response = send(request);
        (response.status, response.json()["error"]["details"][0]["reason"].clone())
    };
    let list = || Request::get(&mesh.url, "/a2a/tasks");
    assert_eq!(status(list()), (400, json!("VERSION_NOT_SUPPORTED")));
    let text = Request::post(&mesh.url, "/a2a/message:send", &message("x", &json!({})));
    assert_eq!(
        status(text.with("a2a-version", "1.0").with("content-type", "text/plain")),
        (400, json!("CONTENT_TYPE_NOT_SUPPORTED"))
    );
    let odd = Request::get(&mesh.url, "/a2a/tasks/x:fly").with("a2a-version", "1.0");
    assert_eq!(status(odd), (404, json!("METHOD_NOT_FOUND")));
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_s_tasks_are_nobody_else_s() {
    let mesh = Mesh::up(false).await;
    let key = |name: &str| {
        let (_, token) = mesh.keys.create(clock::now(), name, Limits::default()).expect("a key");
        token.text().to_owned()
    };
    let tokens = [key("a"), key("b")];
    for binding in BOTH {
        let [ours, theirs] = tokens.clone().map(|token| mesh.client(binding).by(&token));
        let task = ours.send("secret", &json!({ "contextId": "shared" }));
        let named = json!({ "id": task["id"] });
        assert_eq!(theirs.call("GetTask", &named), Err("TASK_NOT_FOUND".to_owned()));
        assert_eq!(theirs.call("CancelTask", &named), Err("TASK_NOT_FOUND".to_owned()));
        let hooks = json!({ "taskId": task["id"], "id": "h" });
        assert_eq!(theirs.call("ListTaskPushNotificationConfigs", &hooks), Err("TASK_NOT_FOUND".to_owned()));
        assert_eq!(
            theirs.call("ListTasks", &json!({ "contextId": "shared" })).expect("a list")["totalSize"],
            0
        );
        assert_eq!(answer(&theirs.send("x", &json!({ "contextId": format!("shared-{binding:?}") }))), "1: x");
        assert_eq!(ours.call("GetTask", &named), Ok(task));
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_so_as_each_binding_tells_errors() {
    let mesh = Mesh::up(false).await;
    let limits = Limits { capabilities: vec!["code.review".parse().expect("a name")], ..Limits::default() };
    let (_, token) = mesh.keys.create(clock::now(), "reviewer", limits).expect("a key");
    for binding in BOTH {
        let stranger = mesh.client(binding);
        let told = |client: &Client| {
            let response = send(client.request("SendMessage", &message("x", &json!({}))));
            let (body, details) = match binding {
                Binding::Rest => (response.json(), "details"),
                Binding::Rpc => (response.json(), "data"),
            };
            let (id, code) = (body["id"].clone(), body["error"]["code"].clone());
            (response.status, id, code, body["error"][details][0]["reason"].clone())
        };
        let (read, code) = match binding {
            Binding::Rest => (Value::Null, [json!(401), json!(403)]),
            Binding::Rpc => (json!("7"), [json!(-32000), json!(-32000)]),
        };
        let [unknown, forbidden] = code;
        assert_eq!(told(&stranger), (401, Value::Null, unknown, json!("INVALID_API_KEY")), "unread");
        let known = stranger.by(token.text());
        assert_eq!(told(&known), (403, read, forbidden, json!("CAPABILITY_NOT_ALLOWED")));
    }
    let nowhere = Request::get(&mesh.url, "/a2a/nowhere").by(token.text()).with("a2a-version", "1.0");
    assert_eq!(send(nowhere).json()["error"]["details"][0]["reason"], "METHOD_NOT_FOUND");
    mesh.node.stop().await.expect("an end in order");
}

/// A webhook of a task.
fn webhook(task: &Value, url: &str) -> Value {
    json!({ "taskId": task["id"], "id": "h", "url": url, "token": "secret",
            "authentication": { "scheme": "Bearer", "credentials": "mine" } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_told_and_kept_in_order() {
    let mut mesh = Mesh::up(true).await;
    for client in BOTH.map(|binding| mesh.client(binding)) {
        mesh.open.send_replace(false);
        let hook = Hook::new(&["500 Oh No", "200 OK"]);
        let config = json!({ "url": hook.url, "token": "first" });
        let configuration = json!({ "returnImmediately": true, "taskPushNotificationConfig": config });
        let task = client.send("wait", &json!({ "configuration": configuration }));
        let (head, told) = hook.next();
        assert!(
            head.contains("x-a2a-notification-token: first\r\n")
                && head.contains("content-type: application/a2a+json")
        );
        assert_eq!(
            (state(&told["statusUpdate"]), &told["statusUpdate"]["taskId"]),
            ("TASK_STATE_WORKING", &task["id"])
        );
        assert_eq!(hook.next().1, told, "once more after a failure");
        mesh.waiting.wait_for(|count| *count == 1).await.expect("an agent");

        let other = Hook::new(&["204 No Content"]);
        let config = webhook(&task, &other.url);
        assert_eq!(
            client.call("CreateTaskPushNotificationConfig", &config).expect("a configuration"),
            config
        );
        let named = json!({ "taskId": task["id"], "id": "h" });
        assert_eq!(client.call("GetTaskPushNotificationConfig", &named).expect("a configuration"), config);
        let listed =
            client.call("ListTaskPushNotificationConfigs", &json!({ "taskId": task["id"] })).expect("a list");
        assert_eq!(listed["configs"].as_array().expect("configurations").len(), 2);
        let gone = Hook::new(&["200 OK"]);
        let mut third = webhook(&task, &gone.url);
        third["id"] = json!("gone");
        client.call("CreateTaskPushNotificationConfig", &third).expect("a configuration");
        let gone_named = json!({ "taskId": task["id"], "id": "gone" });
        for _ in 0..2 {
            assert_eq!(client.call("DeleteTaskPushNotificationConfig", &gone_named), Ok(json!({})));
        }
        assert_eq!(
            client.call("GetTaskPushNotificationConfig", &gone_named),
            Err("TASK_NOT_FOUND".to_owned())
        );

        mesh.open.send_replace(true);
        for hook in [&hook, &other] {
            let (head, told) = hook.next();
            assert_eq!(told["artifactUpdate"]["artifact"]["parts"][0]["text"], "1: wait");
            assert_eq!(head.contains("authorization: bearer mine\r\n"), std::ptr::eq(hook, &raw const other));
            assert_eq!(state(&hook.next().1["statusUpdate"]), "TASK_STATE_COMPLETED");
        }
        assert!(gone.is_quiet());
    }
    mesh.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_webhook_leads_into_this_machine_or_its_network() {
    let mesh = Mesh::up(false).await;
    let hook = Hook::new(&["200 OK"]);
    let port = hook.url.rsplit(':').next().expect("a port").to_owned();
    for client in BOTH.map(|binding| mesh.client(binding)) {
        let task = client.send("x", &json!({}));
        for url in [
            hook.url.clone(),
            format!("http://localhost:{port}"),
            format!("http://2130706433:{port}"),
            format!("http://[::1]:{port}"),
            format!("http://[::ffff:127.0.0.1]:{port}"),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "http://10.0.0.1/".to_owned(),
            "https://[fd00::1]/".to_owned(),
            "file:///etc/passwd".to_owned(),
            "nonsense".to_owned(),
        ] {
            let refused = client.call("CreateTaskPushNotificationConfig", &webhook(&task, &url));
            assert_eq!(refused, Err("INVALID_PARAMS".to_owned()), "{url}");
            let configuration = json!({ "configuration": { "taskPushNotificationConfig": { "url": url } } });
            assert_eq!(
                client.call("SendMessage", &message("x", &configuration)),
                Err("INVALID_PARAMS".to_owned())
            );
        }
        let header = json!({ "taskId": task["id"], "url": "https://1.1.1.1/", "token": "a\r\nb: c" });
        assert_eq!(
            client.call("CreateTaskPushNotificationConfig", &header),
            Err("INVALID_PARAMS".to_owned())
        );
    }
    assert!(hook.is_quiet());

    // Where all addresses are allowed, redirects are not followed all the same.
    let open = Mesh::up(true).await;
    let client: Client = open.client(Binding::Rpc);
    let redirecting = Hook::new(&["307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/", "200 OK"]);
    let configuration =
        json!({ "configuration": { "taskPushNotificationConfig": { "url": redirecting.url } } });
    client.send("x", &configuration);
    let first = redirecting.next().1;
    assert_eq!(redirecting.next().1, first, "a redirect is a failure");
    for node in [mesh.node, open.node] {
        node.stop().await.expect("an end in order");
    }
}
