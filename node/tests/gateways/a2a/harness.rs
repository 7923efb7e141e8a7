//! A peer whose agent tells how much it was told, and waits when it is asked to; both bindings; and whoever is posted to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use node::Node;
use node::agents::{Agent, Agents, Context, Job, Running};
use node::api::Server;
use node::api::keys::Keys;
use protocol::{AgentOffer, Capability, Finish, Input, JobError, JobKind, Token};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::support::LIMIT;
use crate::support::http::{Request, Response};
use crate::support::within::{Counted, alone, free, serve};

/// Tells how many messages it was given, and the last; after `wait` it waits to be let go on.
#[derive(Debug)]
struct Teller {
    capability: Capability,
    waiting: watch::Sender<usize>,
    open: watch::Receiver<bool>,
}

impl Agent for Teller {
    fn offer(&self) -> AgentOffer {
        let tool = Capability::tool().covers(&self.capability);
        let kind = if tool { JobKind::Call } else { JobKind::Generate };
        free(&format!("teller-{}", self.capability), self.capability.clone(), vec![kind])
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.tell(job, context).await })
    }
}

impl Teller {
    async fn tell(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        let (count, last) = match &job.input {
            Input::Chat(chat) => {
                (chat.messages.len(), chat.messages.last().expect("a message").content.clone())
            }
            Input::Json(text) => (0, text.clone()),
            Input::Text(_) | Input::Tokens(_) => return Err(JobError::Engine),
        };
        if last == "refuse" {
            return Err(JobError::invalid("prompt", "is refused"));
        }
        if last == "fail" {
            return Err(JobError::Engine);
        }
        let say = async |text: String| context.token(Token { id: None, text }).await;
        say(format!("{count}: ")).await;
        if job.order.sampling.max_tokens == 1 {
            return Ok(Finish::Length);
        }
        if last == "wait" {
            let _waiting = Counted::by(&self.waiting);
            let mut open = self.open.clone();
            open.wait_for(|open| *open).await.map_err(|_| JobError::Engine)?;
        }
        say(last).await;
        Ok(Finish::EndOfText)
    }
}

/// A peer with such agents, and its API.
pub(crate) struct Mesh {
    pub(crate) node: Node,
    pub(crate) url: String,
    pub(crate) keys: Keys,
    pub(crate) waiting: watch::Receiver<usize>,
    pub(crate) open: watch::Sender<bool>,
}

impl Mesh {
    pub(crate) async fn up(private_webhooks: bool) -> Self {
        let (waiting, watched) = watch::channel(0);
        let (open, opened) = watch::channel(false);
        let mut agents = Agents::default();
        for capability in ["text.generation", "tool.count"] {
            let capability = capability.parse().expect("a capability");
            agents.host(Arc::new(Teller { capability, waiting: waiting.clone(), open: opened.clone() }));
        }
        let (node, keys) = (Node::start(alone(agents)).await.expect("a peer"), Keys::default());
        let server = Server::bind("127.0.0.1:0").await.expect("a free port");
        let server = server.with_keys(keys.clone()).with_private_webhooks(private_webhooks);
        let url = serve(&node, server);
        Self { node, url, keys, waiting: watched, open }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        block_in_place(|| Request::get(&self.url, path).send())
    }

    /// A client of one binding.
    pub(crate) fn client(&self, binding: Binding) -> Client {
        Client { url: self.url.clone(), binding, token: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Rest,
    Rpc,
}

pub(crate) const BOTH: [Binding; 2] = [Binding::Rpc, Binding::Rest];

/// Whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) binding: Binding,
    pub(crate) token: Option<String>,
}

impl Client {
    pub(crate) fn by(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Calls a method; what comes back, or the reason of an error.
    pub(crate) fn call(&self, method: &str, params: &Value) -> Result<Value, String> {
        let response = block_in_place(|| self.request(method, params).send());
        let body = response.json();
        match self.binding {
            Binding::Rpc => {
                assert_eq!((response.status, &body["id"]), (200, &json!("7")), "{response:?}");
                told(&body["error"], "data", &body["result"])
            }
            Binding::Rest => {
                let kind = if response.status == 200 { "application/a2a+json" } else { "application/json" };
                assert_eq!(response.header("content-type"), Some(kind), "{response:?}");
                assert!(body["error"].is_null() || body["error"]["code"] == response.status, "{response:?}");
                told(&body["error"], "details", &body)
            }
        }
    }

    /// Sends a text, and waits for the task.
    pub(crate) fn send(&self, text: &str, more: &Value) -> Value {
        let task = self.call("SendMessage", &message(text, more)).expect("a task")["task"].take();
        assert!(task["id"].is_string() && task["contextId"].is_string(), "{task}");
        task
    }

    /// Opens a stream.
    pub(crate) fn stream(&self, method: &str, params: &Value) -> Events {
        let stream = block_in_place(|| self.request(method, params).open());
        Events { binding: self.binding, lines: BufReader::new(stream) }
    }

    pub(crate) fn request(&self, method: &str, params: &Value) -> Request {
        let request = match self.binding {
            Binding::Rpc => {
                let call = json!({ "jsonrpc": "2.0", "id": "7", "method": method, "params": params });
                Request::post(&self.url, "/a2a", &call)
            }
            Binding::Rest => rest(&self.url, method, params),
        };
        let request = request.with("a2a-version", "1.0");
        match &self.token {
            Some(token) => request.by(token),
            None => request,
        }
    }
}

/// The path of a method.
fn rest(url: &str, method: &str, params: &Value) -> Request {
    let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
    let (id, task) = (text("id"), text("taskId"));
    let hooks = format!("/a2a/tasks/{task}/pushNotificationConfigs");
    let query: Vec<String> = params
        .as_object()
        .expect("parameters")
        .iter()
        .filter(|(name, _)| !["id", "taskId"].contains(&name.as_str()))
        .map(|(name, value)| {
            format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    let query = query.join("&");
    match method {
        "SendMessage" => Request::post(url, "/a2a/message:send", params),
        "SendStreamingMessage" => Request::post(url, "/a2a/message:stream", params),
        "GetTask" => Request::get(url, &format!("/a2a/tasks/{id}?{query}")),
        "ListTasks" => Request::get(url, &format!("/a2a/tasks?{query}")),
        "CancelTask" => Request::post(url, &format!("/a2a/tasks/{id}:cancel"), params),
        "SubscribeToTask" => Request::get(url, &format!("/a2a/tasks/{id}:subscribe")),
        "CreateTaskPushNotificationConfig" => Request::post(url, &hooks, params),
        "GetTaskPushNotificationConfig" => Request::get(url, &format!("{hooks}/{id}")),
        "ListTaskPushNotificationConfigs" => Request::get(url, &hooks),
        "DeleteTaskPushNotificationConfig" => Request::of("DELETE", url, &format!("{hooks}/{id}")),
        "GetExtendedAgentCard" => Request::get(url, "/a2a/extendedAgentCard"),
        other => panic!("{other} has no path"),
    }
}

fn told(error: &Value, details: &str, result: &Value) -> Result<Value, String> {
    if error.is_null() {
        return Ok(result.clone());
    }
    let info = &error[details][0];
    assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo", "{error}");
    assert_eq!(info["domain"], "a2a-protocol.org", "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    Err(info["reason"].as_str().expect("a reason").to_owned())
}

/// The parameters of `SendMessage`.
pub(crate) fn message(text: &str, more: &Value) -> Value {
    let mut params =
        json!({ "message": { "messageId": "m1", "role": "ROLE_USER", "parts": [{ "text": text }] } });
    for (name, value) in more.as_object().expect("an object") {
        let place =
            if name == "configuration" || name == "metadata" { &mut params } else { &mut params["message"] };
        place[name] = value.clone();
    }
    params
}

/// The text of a task's answer.
pub(crate) fn answer(task: &Value) -> String {
    let parts = task["artifacts"][0]["parts"].as_array().cloned().unwrap_or_default();
    parts.iter().filter_map(|part| part["text"].as_str()).collect()
}

pub(crate) fn state(task: &Value) -> &str {
    task["status"]["state"].as_str().expect("a state")
}

/// A stream of events as they come.
pub(crate) struct Events {
    binding: Binding,
    lines: BufReader<TcpStream>,
}

impl Events {
    /// The next one; none after the end.
    pub(crate) fn next(&mut self) -> Option<Value> {
        block_in_place(|| {
            loop {
                let mut line = String::new();
                if self.lines.read_line(&mut line).expect("a line in time") == 0 {
                    return None;
                }
                let Some(data) = line.strip_prefix("data: ") else { continue };
                let mut event: Value = serde_json::from_str(data).expect("JSON");
                if self.binding == Binding::Rpc {
                    assert_eq!(event["id"], "7");
                    event = event["result"].take();
                }
                return Some(event);
            }
        })
    }

    pub(crate) fn rest(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// Somebody who is posted to: what came, as head and body. Statuses are answered in order, and the last for ever.
pub(crate) struct Hook {
    pub(crate) url: String,
    posts: Receiver<(String, Value)>,
}

impl Hook {
    pub(crate) fn new(statuses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let (sender, posts) = sync_channel(64);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let Some(post) = read(&stream) else { continue };
                let status = statuses[number.min(statuses.len() - 1)];
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = (&stream).write_all(answer.as_bytes());
                if sender.send(post).is_err() {
                    return;
                }
            }
        });
        Self { url, posts }
    }

    pub(crate) fn next(&self) -> (String, Value) {
        block_in_place(|| self.posts.recv_timeout(LIMIT)).expect("a post")
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.posts.try_recv().is_err()
    }
}

/// One request.
pub(crate) fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap_or_default()))
}
