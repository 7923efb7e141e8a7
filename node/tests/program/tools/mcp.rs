//! Tools of servers that speak the Model Context Protocol: over pipes, and over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use super::{call, declare, home, script};

use crate::support::{ANYWHERE, Home, Peer};

/// A server in shell: it doubles, fails, ends, and says which variables it sees.
const SERVER: &str = r#"
say() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  a=$(printf '%s' "$line" | sed -n 's/.*"a":\([0-9]*\).*/\1/p')
  case "$line" in
    *'"initialize"'*) say '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}';;
    *'"tools/list"'*) say '{"tools":[{"name":"other","inputSchema":{"type":"object"}},{"name":"double","description":"Doubles.","inputSchema":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}]}';;
    *'"a":13}'*) say '{"content":[{"type":"text","text":"thirteen is bad luck"}],"isError":true}';;
    *'"a":99}'*) exit 1;;
    *'"a":7}'*) say '{"content":[{"type":"text","text":"ignored"}],"structuredContent":{"b":14}}';;
    *'"a":5}'*) say '{"content":[{"type":"image","data":"","mimeType":"image/png"}]}';;
    *'"tools/call"'*) say "{\"content\":[{\"type\":\"text\",\"text\":\"$((a * 2))\"},{\"type\":\"text\",\"text\":\"$KEPT$HIDDEN\"}]}";;
  esac
done"#;

fn mcp(name: &str, what: &str) -> String {
    format!("capability = \"tool.{name}\"\nmcp = {{ {what} }}")
}

/// A peer with the server's tool, or its attempt to start.
fn served(tool: &str) -> Home {
    let home = home(&[]);
    let server = home.file("server");
    script(&server, SERVER);
    let what = format!("command = [\"{}\"], tool = \"{tool}\", env = [\"KEPT\"]", server.display());
    declare(&home, &[mcp("double", &what)]);
    home
}

fn up(home: Home) -> Peer {
    let mut command = home.command(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]);
    command.env("KEPT", "kept").env("HIDDEN", "hidden");
    Peer::of(home, command)
}

#[test]
fn a_tool_of_a_server_is_called_with_what_it_takes() {
    let peer = up(served("double"));
    let outcome = call(&peer, "double", r#"{"a":21}"#);
    assert_eq!(outcome.answer(), "42\nkept", "its texts in order, and no variable but the named");
    assert_eq!(outcome.one("started")["model"], "double");
    assert_eq!(call(&peer, "double", r#"{"a":7}"#).answer(), r#"{"b":14}"#, "what is structured comes first");
    call(&peer, "double", r#"{"a":"x"}"#).refused(3, &["call", "integer"]);
    call(&peer, "double", "{}").refused(3, &["call", "required"]);
    call(&peer, "double", r#"{"a":13}"#).refused(3, &["thirteen is bad luck"]);
    assert_eq!(call(&peer, "double", r#"{"a":5}"#).code, 6, "an answer without text is none");

    let file = crate::support::text(&outcome.done()["receipt_file"]);
    assert_eq!(peer.run(&["verify", "--replay", &file]).code, 8);
}

#[test]
fn a_server_that_has_ended_is_started_again() {
    let peer = up(served("double"));
    assert_eq!(call(&peer, "double", r#"{"a":99}"#).code, 6);
    assert_eq!(call(&peer, "double", r#"{"a":1}"#).answer(), "2\nkept");
}

#[test]
fn a_tool_that_a_server_does_not_have_is_told_with_those_it_has() {
    let home = served("triple");
    let outcome = home.run(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]);
    outcome.refused(2, &["triple", "other, double"]);
}

#[test]
fn a_tool_behind_an_address_is_called_with_its_key() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", server.local_addr().unwrap());
    thread::spawn(move || {
        for stream in server.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    let home = home(&[mcp("double", &format!("url = \"{url}\", key_env = \"KEPT\", tool = \"double\""))]);
    let peer = up(home);
    assert_eq!(call(&peer, "double", r#"{"a":21}"#).answer(), "42");
}

/// Answers one request over HTTP.
fn serve(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    let head = head.to_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut body = vec![0; field("content-length:").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let (status, answer) = match serde_json::from_slice::<Value>(&body) {
        _ if field("authorization:") != Some("bearer kept") => ("401 Unauthorized", String::new()),
        Err(_) => ("405 Method Not Allowed", String::new()),
        Ok(request) => match result(&request) {
            Some(result) => {
                let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
                ("200 OK", answer.to_string())
            }
            None => ("202 Accepted", String::new()),
        },
    };
    let fields =
        format!("content-type: application/json\r\ncontent-length: {}\r\nconnection: close", answer.len());
    // Who cancelled is gone.
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{answer}").as_bytes());
}

fn result(request: &Value) -> Option<Value> {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    Some(match request["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "s", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [{ "name": "double", "inputSchema": schema }] }),
        "tools/call" => {
            let a = request["params"]["arguments"]["a"].as_i64()?;
            json!({ "content": [{ "type": "text", "text": (2 * a).to_string() }] })
        }
        _ => return None,
    })
}
