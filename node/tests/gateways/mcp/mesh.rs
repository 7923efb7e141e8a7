//! Two peers in this process: one that works, and one that serves the protocol without an agent of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crypto::Digest;
use node::api::keys::Keys;
use node::api::keys::limits::Limits;
use node::api::{Api, Server};
use node::clock;
use node::receipts::path_of;
use node::sdk::{Mesh, Question, Say, Skill};
use protocol::JobError;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ProgressNotificationParam,
    ProtocolVersion, ServerResult,
};
use rmcp::service::{
    ClientLifecycleMode, NotificationContext, PeerRequestOptions, RequestHandle, RunningService,
    serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, RoleClient};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::LIMIT;

/// Says what it hears, word by word. Whoever says `wait` waits until it is told to stop.
#[derive(Debug)]
struct Parrot(watch::Sender<usize>);

/// One that waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Skill for Parrot {
    async fn answer(&self, question: &Question, say: &Say) -> Result<(), JobError> {
        for word in question.text().split_inclusive(' ') {
            say.text(word).await;
        }
        if question.text().starts_with("wait") {
            self.0.send_modify(|count| *count += 1);
            let _waiting = Waiting(&self.0);
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The peers.
pub(crate) struct Peers {
    pub(crate) provider: Mesh,
    pub(crate) gateway: Mesh,
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) keys: Keys,
    /// How many questions wait.
    pub(crate) waiting: watch::Receiver<usize>,
    shutdown: CancellationToken,
}

impl Peers {
    pub(crate) async fn up() -> Self {
        let (parrot, waiting) = watch::channel(0);
        let offer = |name: &str| name.parse().expect("a capability");
        let provider = Mesh::builder()
            .listen("/ip4/127.0.0.1/tcp/0")
            .offer(offer("text.generation"), Parrot(parrot.clone()))
            .offer(offer("tool.parrot"), Parrot(parrot.clone()))
            .price(10, 1000)
            .offer(offer("text.paid"), Parrot(parrot));
        let provider = provider.start().await.expect("a peer");
        let address = provider.addresses().await.expect("addresses").swap_remove(0);
        let folder = tempfile::tempdir().expect("a folder");
        let gateway =
            Mesh::builder().bootstrap(&address).folder(folder.path()).start().await.expect("a peer");
        let (keys, shutdown) = (Keys::default(), CancellationToken::new());
        let server = Server::bind("127.0.0.1:0").await.expect("a free port").with_keys(keys.clone());
        let url = server.url();
        let api = Api { node: gateway.handle().clone(), receipts: Some(folder.path().join("receipts")) };
        tokio::spawn(server.serve(api, shutdown.clone()));
        Self { provider, gateway, folder, url, keys, waiting, shutdown }
    }

    /// Where others find the one that works.
    pub(crate) async fn address(&self) -> String {
        self.provider.addresses().await.expect("addresses").swap_remove(0)
    }

    /// The token of a new key.
    pub(crate) fn key(&self, limits: Value) -> String {
        let limits: Limits = serde_json::from_value(limits).expect("limits");
        self.keys.create(clock::now(), "somebody", limits).expect("a key").1.text().to_owned()
    }

    /// The owner's token, once there are keys.
    pub(crate) fn owner(&self) -> &'static str {
        self.keys.set_owner("owner");
        "owner"
    }

    /// The file of a receipt.
    pub(crate) fn file(&self, receipt: &str) -> PathBuf {
        let digest: Digest = receipt.parse().expect("a digest");
        path_of(&self.folder.path().join("receipts"), digest)
    }

    /// Waits until so many questions wait.
    pub(crate) async fn wait_for(&mut self, waiting: usize) {
        let reached = self.waiting.wait_for(|count| *count == waiting);
        tokio::time::timeout(LIMIT, reached).await.expect("in time").expect("a provider");
    }

    pub(crate) async fn down(self) {
        self.shutdown.cancel();
        self.gateway.leave().await.expect("an end in order");
        self.provider.leave().await.expect("an end in order");
    }
}

/// A client that keeps what it is told of its calls.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) service: RunningService<RoleClient, Ear>,
    progress: mpsc::Receiver<ProgressNotificationParam>,
}

/// Where progress is heard.
#[derive(Debug)]
pub(crate) struct Ear {
    tell: mpsc::Sender<ProgressNotificationParam>,
    full: AtomicBool,
}

impl ClientHandler for Ear {
    async fn on_progress(&self, report: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let _ = self.tell.try_send(report).inspect_err(|_| self.full.store(true, Ordering::Relaxed));
    }
}

/// The revision with sessions.
pub(crate) fn with_sessions() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

/// The one without.
pub(crate) fn without_sessions() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

impl Client {
    /// Connects over HTTP.
    pub(crate) async fn at(url: &str, token: Option<&str>, lifecycle: ClientLifecycleMode) -> Self {
        let mut config = StreamableHttpClientTransportConfig::with_uri(format!("{url}/mcp"));
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self::through(StreamableHttpClientTransport::with_client(http, config), lifecycle).await
    }

    /// Connects over anything.
    pub(crate) async fn through<T, E, A>(transport: T, lifecycle: ClientLifecycleMode) -> Self
    where
        T: rmcp::transport::IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (tell, progress) = mpsc::channel(1024);
        let ear = Ear { tell, full: AtomicBool::new(false) };
        let service = serve_client_with_lifecycle(ear, transport, lifecycle).await.expect("a server");
        Self { service, progress }
    }

    /// Begins a call.
    pub(crate) async fn begin(&self, tool: &str, arguments: &Value) -> RequestHandle<RoleClient> {
        let params = CallToolRequestParams::new(tool.to_owned())
            .with_arguments(arguments.as_object().expect("an object").clone());
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options();
        self.service.send_cancellable_request(request, options).await.expect("a request")
    }

    /// Calls a tool to its end.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> CallToolResult {
        let answer = self.begin(tool, &arguments).await.await_response();
        let answer = tokio::time::timeout(LIMIT, answer).await.expect("in time");
        match answer.expect("a result") {
            ServerResult::CallToolResult(result) => result,
            other => panic!("no result of a call: {other:?}"),
        }
    }

    /// Calls a tool that does it; what it found is as its schema says.
    pub(crate) async fn done(&self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_ne!(result.is_error, Some(true), "{result:?}");
        assert!(!said(&result).is_empty());
        let tools = self.service.list_all_tools().await.expect("tools");
        let declared = tools.into_iter().find(|known| known.name == tool).expect("the tool");
        let schema = Value::Object(declared.output_schema.expect("a schema").as_ref().clone());
        let found = result.structured_content.expect("a structure");
        jsonschema::validate(&schema, &found).unwrap_or_else(|error| panic!("{error}: {found}"));
        found
    }

    /// Calls a tool that cannot, and says why.
    pub(crate) async fn refused(&self, tool: &str, arguments: Value, says: &[&str]) {
        let result = self.call(tool, arguments.clone()).await;
        assert_eq!(result.is_error, Some(true), "{arguments}: {result:?}");
        let text = said(&result);
        for part in says {
            assert!(text.contains(part), "`{part}` is missing in `{text}` ({tool} {arguments})");
        }
    }

    /// What was told of calls so far: how much, and of how much.
    pub(crate) fn heard(&mut self) -> Vec<(f64, Option<f64>)> {
        assert!(!self.service.service().full.load(Ordering::Relaxed), "more was told than anybody reads");
        std::iter::from_fn(|| self.progress.try_recv().ok()).map(|one| (one.progress, one.total)).collect()
    }

    /// All that is told until so much is done, the least first: the client's library hands over each report by a task of
    /// its own, before or after the answer, and in any order.
    pub(crate) async fn heard_to(&mut self, done: f64) -> Vec<(f64, Option<f64>)> {
        let mut heard = Vec::new();
        while heard.iter().all(|(told, _)| *told < done) {
            let report = tokio::time::timeout(LIMIT, self.progress.recv()).await.expect("in time");
            heard.extend(report.map(|one| (one.progress, one.total)));
        }
        heard.extend(self.heard());
        heard.sort_by(|a, b| a.0.total_cmp(&b.0));
        heard
    }

    pub(crate) async fn leave(self) {
        self.service.cancel().await.expect("an end in order");
    }
}

/// All texts of a result.
pub(crate) fn said(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// A plan of three nodes, of which two run at once.
pub(crate) fn plan(prompt: &str) -> Value {
    let ask = |prompt: &str| json!({ "generate": { "prompt": prompt } });
    json!({
        "goal": "two answers in one",
        "nodes": {
            "left": ask(prompt),
            "right": ask("right"),
            "both": { "concatenate": { "of": "[nodes.left, nodes.right]" } },
        },
    })
}
