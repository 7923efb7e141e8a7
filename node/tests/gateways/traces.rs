//! Traces: one for everything that follows from a request or a plan, over as many peers as it takes; without a word of
//! what was said; and lines of the log that name it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node::agents::echo::Echo;
use node::agents::{Agent, Context, Job, Running};
use node::datadir::DataDir;
use node::plans::journal::{Journal, Order};
use node::plans::{Driver, PlanUpdate};
use node::request::JobRequest;
use node::traces::Traces;
use node::{Node, clock};
use opentelemetry_proto::tonic::trace::v1::Span;
use protocol::event::JobEvent;
use protocol::plan::Execution;
use protocol::{AgentOffer, Capability, Finish, JobKind, Plan, Price, Token, Trace};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::observe::collector::{Collector, said};
use crate::observe::mesh::Seen;
use crate::support::Home;
use crate::support::http::Request;
use crate::support::within::free;

/// What is asked in these tests: words that no span may hold.
const SECRET: &str = "quokka";

fn capability(name: &str) -> Capability {
    name.parse().expect("a capability")
}

/// Has its jobs done by whoever offers another capability.
#[derive(Debug)]
struct Relay(&'static str);

impl Agent for Relay {
    fn offer(&self) -> AgentOffer {
        free("relay", capability("relay"), vec![JobKind::Generate])
    }

    fn run(self: Arc<Self>, _: Job, context: Context) -> Running {
        Box::pin(async move {
            let request = JobRequest {
                capability: Some(capability(self.0)),
                prompt: Some(format!("{SECRET} again")),
                ..JobRequest::default()
            };
            let mut part = context.submit(request.spec(clock::now(), None)?)?;
            while let Some(event) = part.next().await {
                match event {
                    JobEvent::Token { token, .. } => {
                        context.token(Token { id: None, text: token.text }).await
                    }
                    JobEvent::Failed(error) => return Err(error),
                    _ => {}
                }
            }
            Ok(Finish::EndOfText)
        })
    }
}

fn echo() -> Arc<dyn Agent> {
    Arc::new(Echo::new(capability("echo"), Price::default(), None))
}

/// One who asks, one who relays, one who echoes; each has its own way to the collector, if it is traced.
struct Three {
    asker: Seen,
    relay: Seen,
    echo: Seen,
    collector: Collector,
    traces: Vec<Traces>,
}

impl Three {
    async fn up(relay_is_traced: bool) -> Self {
        let collector = Collector::listen();
        let traced = || block_in_place(|| Traces::to(&collector.url).expect("a collector"));
        let traces = vec![traced(), if relay_is_traced { traced() } else { Traces::default() }, traced()];
        let echo = Seen::up(vec![echo()], None, traces[2].clone()).await;
        let relay = Seen::up(vec![Arc::new(Relay("echo"))], Some(&echo), traces[1].clone()).await;
        let asker = Seen::up(Vec::new(), Some(&echo), traces[0].clone()).await;
        Self { asker, relay, echo, collector, traces }
    }

    /// All spans, as soon as there are so many.
    fn spans(&self, count: usize) -> Vec<Span> {
        let flush = || self.traces.iter().for_each(Traces::flush);
        let spans = block_in_place(|| self.collector.until(flush, |spans| spans.len() >= count));
        assert_eq!(spans.len(), count, "{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        spans
    }

    async fn stop(self) {
        for node in [self.asker.node, self.relay.node, self.echo.node] {
            node.stop().await.expect("an end in order");
        }
        block_in_place(|| drop(self.traces));
    }
}

/// Each span's name with those above it, the outermost first. All are of one trace.
fn paths(spans: &[Span]) -> Vec<String> {
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(traces.len(), 1, "one trace");
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (&span.span_id, span)).collect();
    assert_eq!(by_id.len(), spans.len());
    let path = |span: &Span| {
        let (mut names, mut at) = (vec![span.name.clone()], span);
        while let Some(parent) = by_id.get(&at.parent_span_id) {
            assert!(parent.start_time_unix_nano <= at.start_time_unix_nano, "{} began first", at.name);
            names.push(parent.name.clone());
            at = parent;
        }
        names.reverse();
        names.join(" > ")
    };
    let mut paths: Vec<_> = spans.iter().map(path).collect();
    paths.sort_unstable();
    paths
}

fn plan() -> Plan {
    let text = format!(
        "goal = 'say it twice'
        [nodes.first]
        generate = {{ prompt = '{SECRET} one', capability = 'relay' }}
        [nodes.second]
        generate = {{ prompt = 'say {{{{ nodes.first }}}}', capability = 'echo' }}"
    );
    toml::from_str(&text).expect("a plan")
}

async fn run(plan: Plan, node: &Node) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = DataDir::locate(Some(folder.path().to_owned())).expect("a folder");
    dir.create().expect("a folder");
    let budget = plan.limits.budget;
    let checked = plan.clone().check().expect("a plan without mistakes");
    let execution = Execution::begin(clock::now(), checked, BTreeMap::new(), Vec::new()).expect("a plan");
    let journal = Journal::create(&dir, &Order { plan, inputs: BTreeMap::new() }).expect("a journal");
    let driver = Driver::new(execution, budget, journal, Arc::new(node.handle().clone()));
    let mut driver = driver.with_traces(node.handle().traces(), None);
    while let Some(update) = driver.next().await.expect("a journal") {
        match update {
            PlanUpdate::Done { output, .. } => return output,
            PlanUpdate::Failed { node, message } => panic!("{node:?}: {message}"),
            _ => {}
        }
    }
    panic!("no end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_on_three_peers_is_one_trace() {
    let three = Three::up(true).await;
    assert_eq!(run(plan(), &three.asker.node).await, format!("say {SECRET} again"));
    let spans = three.spans(24);
    let first = "invoke_workflow > node first > chat";
    let second = "invoke_workflow > node second > chat";
    let job = |at: &str, agent: &str| {
        let run = format!("{at} > chat {agent}");
        let parts = ["auction".to_owned(), "provider".to_owned(), format!("chat {agent}")];
        let parts = parts.map(|part| format!("{at} > {part}"));
        let stages = ["decode", "prefill", "queue"].map(|stage| format!("{run} > {stage}"));
        [vec![at.to_owned()], parts.to_vec(), stages.to_vec()].concat()
    };
    let mut expected = [
        vec!["invoke_workflow".to_owned(), "invoke_workflow > node first".to_owned()],
        vec!["invoke_workflow > node second".to_owned()],
        job(first, "relay"),
        job(&format!("{first} > chat relay > chat"), "echo-echo"),
        job(second, "echo-echo"),
    ]
    .concat();
    expected.sort_unstable();
    assert_eq!(paths(&spans), expected);

    let jobs: Vec<_> = spans.iter().filter(|span| span.name == "chat").collect();
    for job in jobs {
        let says = |key| said(&job.attributes, key);
        assert_eq!(says("gen_ai.operation.name").as_deref(), Some("chat"));
        assert_eq!(says("gen_ai.provider.name").as_deref(), Some("llamesh"));
        assert_eq!(says("gen_ai.response.finish_reasons").as_deref(), Some("stop"));
        assert!(says("gen_ai.usage.input_tokens").is_some() && says("llamesh.job.id").is_some());
        let words = if says("llamesh.capability").as_deref() == Some("relay") { "2" } else { "" };
        assert!(says("gen_ai.usage.output_tokens").expect("tokens").contains(words));
        assert!(job.events.iter().any(|event| event.name == "first token"));
    }
    let bytes = three.collector.bytes();
    assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "no content");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_a_tool_runs_stands_below_its_request() {
    let three = Three::up(true).await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let plan = json!({ "goal": "say it", "nodes": { "only": { "generate": { "prompt": SECRET, "capability": "echo" } } } });
    let call = json!({ "name": "run_plan", "arguments": { "plan": plan }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call });
    let request = Request::post(&three.asker.url, "/mcp", &body)
        .with("accept", "application/json, text/event-stream")
        .with("mcp-protocol-version", "2026-07-28")
        .with("mcp-method", "tools/call")
        .with("mcp-name", "run_plan");
    let answer = block_in_place(|| request.send());
    assert!(answer.status == 200 && answer.body.contains(SECRET), "{answer:?}");
    let paths = paths(&three.spans(10));
    let deepest = "POST /mcp > invoke_workflow > node only > chat > chat echo-echo > decode";
    assert!(paths.contains(&deepest.to_owned()), "{paths:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_traced_leaves_no_hole() {
    let three = Three::up(false).await;
    three.asker.ask("relay", SECRET).await.expect("an answer");
    // Of the job: itself, auction, provider; and of its part, at the peer behind: run, queue, prefill, decode.
    let paths = paths(&three.spans(7));
    assert!(paths.contains(&"chat > chat echo-echo > decode".to_owned()), "{paths:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_s_trace_goes_on_through_the_gateway() {
    let three = Three::up(true).await;
    let caller = Trace { id: [0xab; 16], span: [0xcd; 8], flags: 1 };
    let body = json!({ "model": "cap:echo", "messages": [{ "role": "user", "content": SECRET }] });
    let request = || Request::post(&three.asker.url, "/v1/chat/completions", &body);
    let headed = request().with("traceparent", &caller.to_string());
    assert_eq!(block_in_place(|| headed.send().status), 200);
    let spans = three.spans(8);
    assert!(spans.iter().all(|span| span.trace_id == caller.id));
    let door = spans.iter().find(|span| span.parent_span_id == caller.span).expect("a span at the door");
    assert_eq!(door.name, "POST /v1/chat/completions");
    assert_eq!(said(&door.attributes, "http.response.status_code").as_deref(), Some("200"));
    assert!(paths(&spans).contains(&format!("{} > chat > chat echo-echo > queue", door.name)));

    // What the caller does not record is recorded nowhere, and nonsense is a trace of one's own.
    let unsampled = Trace { id: [0xef; 16], flags: 0, ..caller };
    for header in [unsampled.to_string(), "00-nonsense".to_owned()] {
        assert_eq!(block_in_place(|| request().with("traceparent", &header).send().status), 200);
    }
    let spans = three.spans(16);
    assert!(spans.iter().all(|span| span.trace_id != unsampled.id));
    let own: Vec<_> = spans.into_iter().filter(|span| span.trace_id != caller.id).collect();
    assert_eq!(paths(&own).len(), 8);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_says_why() {
    let three = Three::up(true).await;
    three.asker.ask("nothing.like.it", SECRET).await.expect_err("nobody offers that");
    for span in three.spans(2) {
        assert_eq!(said(&span.attributes, "error.type").as_deref(), Some("nothing_offered"), "{}", span.name);
        assert_eq!(span.status.expect("a status").message, "nothing_offered");
    }
    three.stop().await;
}

#[test]
fn lines_of_the_log_name_their_trace() {
    let collector = Collector::listen();
    let home = Home::new();
    let args = ["--engine", "echo", "-v", "--log-format", "json", "--otlp", &collector.url];
    let peer = home.up(&args);
    assert_eq!(peer.submit(&["x"]).answer(), "x");
    let stderr = || peer.process.stderr();
    let lines = |text: &str| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    };
    let over = |line: &Value| line["fields"]["message"] == "a job is over";
    let is_told = || lines(&stderr()).iter().any(over);
    let spans = collector.until(|| {}, |spans| spans.iter().any(|span| span.name == "chat") && is_told());
    let told = lines(&stderr());
    let line = told.iter().find(|line| over(line)).expect("a line of the job's end");
    let job = spans.iter().find(|span| span.name == "chat").expect("the job's span");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(line["span"]["trace_id"], hex(&job.trace_id));
    assert_eq!(line["span"]["span_id"], hex(&job.span_id));
    assert_eq!(line["fields"]["outcome"], "done");
}
