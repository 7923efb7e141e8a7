//! A tool of a server that speaks the Model Context Protocol: a child process, or an address.
//!
//! The server is the operator's, and what it sends is bounded all the same. It is connected to when the peer starts, because
//! an offer says which tool it is: the digest of its name, description and schema. A server that is gone is connected to
//! again with the next call, and one that then describes the tool otherwise is not called. Arguments are checked
//! against the schema first, so that most of what a model got wrong never reaches the server.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use crypto::Digest;
use protocol::{JobError, call};
use reqwest::Client;
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock, ErrorCode, PaginatedRequestParams};
use rmcp::service::{ClientInitializeError, Peer, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::process::{self, Pipes, Process};
use super::{failed, refused};
use crate::agents::upstream::{UpstreamError, client};
use crate::config::tool::McpSettings;

/// A server may have to be loaded from a slow disk before it speaks.
const CONNECT: Duration = Duration::from_secs(30);
/// The longest message that a server may send: an answer of the longest kind, said twice and escaped.
const MESSAGE: usize = 16 << 20;
/// Pages of a server's list of tools that are looked at.
const PAGES: usize = 32;
/// Variables that programs need which keep something for their user.
const VARIABLES: [&str; 2] = ["HOME", "LANG"];

/// Why a tool cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// No such address, or no client for it.
    #[error(transparent)]
    Address(#[from] UpstreamError),
    /// The server's words make no sense, or it said none.
    #[error("the server does not speak the Model Context Protocol: {0}")]
    Hello(#[source] Box<ClientInitializeError>),
    /// The variable with its key is not there.
    #[error("the environment has no {0}, the server's key")]
    Key(String),
    /// The server cannot be started.
    #[error("the server cannot be started: {0}")]
    Program(#[from] io::Error),
    /// The tool has a schema that is none.
    #[error("what the server says of the tool's arguments is no JSON schema: {0}")]
    Schema(String),
    /// It does not answer.
    #[error("the server does not answer")]
    Silent,
    /// It does not tell its tools.
    #[error("the server does not tell its tools: {0}")]
    Tools(#[source] Box<ServiceError>),
    /// It has other tools.
    #[error("the server has no tool `{0}`; it has: {1}")]
    Unknown(String, String),
}

/// A tool of a server, and the connection to that.
#[derive(Debug)]
pub struct McpTool {
    settings: McpSettings,
    description: Description,
    connection: Mutex<Connection>,
}

/// What a server says of a tool.
#[derive(Debug)]
struct Description {
    digest: Digest,
    arguments: jsonschema::Validator,
}

/// A server that answers. A child process ends with it.
#[derive(Debug)]
struct Connection {
    service: RunningService<RoleClient, ()>,
    _process: Option<Process>,
}

impl McpTool {
    /// Connects to the server and looks at the tool.
    ///
    /// # Errors
    /// [`McpError`].
    pub async fn connect(settings: McpSettings) -> Result<Self, McpError> {
        let (connection, description) = connect(&settings).await?;
        Ok(Self { settings, description, connection: Mutex::new(connection) })
    }

    /// What the server calls it.
    pub fn name(&self) -> &str {
        &self.settings.tool
    }

    /// What names it in receipts.
    pub fn digest(&self) -> Digest {
        self.description.digest
    }

    /// Calls it once. Dropping the future tells the server to stop.
    pub(super) async fn call(&self, arguments: &str) -> Result<String, JobError> {
        let arguments: Map<String, Value> =
            serde_json::from_str(arguments).map_err(|error| wrong(&error.to_string()))?;
        let arguments = Value::Object(arguments);
        self.description.arguments.validate(&arguments).map_err(|error| wrong(&error.to_string()))?;
        let Value::Object(arguments) = arguments else { return Err(JobError::Engine) };
        let params = CallToolRequestParams::new(self.settings.tool.clone()).with_arguments(arguments);
        let called = timeout(Duration::from_secs(self.settings.timeout_s), async {
            self.peer().await?.call_tool(params).await.map_err(|error| self.fault(&error))
        });
        let result = called.await.unwrap_or_else(|_| Err(failed(self.name(), &"it takes too long")))?;
        self.answer(result)
    }

    /// The server, connected to again if it is gone.
    async fn peer(&self) -> Result<Peer<RoleClient>, JobError> {
        let mut connection = self.connection.lock().await;
        if connection.service.is_closed() || connection.service.is_transport_closed() {
            let again = connect(&self.settings).await.map_err(|error| failed(self.name(), &error))?;
            if again.1.digest != self.digest() {
                return Err(failed(self.name(), &"the server describes it otherwise than before"));
            }
            *connection = again.0;
        }
        Ok(connection.service.peer().clone())
    }

    fn answer(&self, result: CallToolResult) -> Result<String, JobError> {
        let text = text(&result.content);
        if result.is_error == Some(true) {
            return Err(refused(&text));
        }
        let answer = match result.structured_content {
            Some(value) => value.to_string(),
            None if text.is_empty() && !result.content.is_empty() => {
                return Err(failed(self.name(), &"its answer has no text"));
            }
            None => text,
        };
        if answer.len() > self.settings.output() {
            return Err(failed(self.name(), &"its answer is too long"));
        }
        Ok(answer)
    }

    /// What a server's error means to the requester.
    fn fault(&self, error: &ServiceError) -> JobError {
        match error {
            ServiceError::McpError(error) if error.code == ErrorCode::INVALID_PARAMS => {
                refused(&error.message)
            }
            error => failed(self.name(), error),
        }
    }
}

fn wrong(problem: &str) -> JobError {
    JobError::invalid("call", &format!("is not what the tool takes: {problem}"))
}

/// The texts of an answer. What else a server may send has no place in one.
fn text(content: &[ContentBlock]) -> String {
    let texts: Vec<_> = content
        .iter()
        .filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

async fn connect(settings: &McpSettings) -> Result<(Connection, Description), McpError> {
    let connected = timeout(CONNECT, async {
        let connection = match &settings.url {
            Some(url) => at(url, settings.key_env.as_deref()).await?,
            None => child(settings).await?,
        };
        let description = describe(connection.service.peer(), &settings.tool).await?;
        Ok((connection, description))
    });
    connected.await.unwrap_or(Err(McpError::Silent))
}

async fn at(url: &str, key_env: Option<&str>) -> Result<Connection, McpError> {
    let client: Client = client(url)?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_sse_event_size(MESSAGE)
        .max_json_response_size(MESSAGE);
    if let Some(variable) = key_env {
        config = config.auth_header(std::env::var(variable).map_err(|_| McpError::Key(variable.to_owned()))?);
    }
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let service = ().serve(transport).await.map_err(|error| McpError::Hello(Box::new(error)))?;
    Ok(Connection { service, _process: None })
}

async fn child(settings: &McpSettings) -> Result<Connection, McpError> {
    let Some((program, arguments)) = settings.command.split_first() else {
        return Err(McpError::Program(io::ErrorKind::NotFound.into()));
    };
    let variables: Vec<&str> = VARIABLES.into_iter().chain(settings.env.iter().map(String::as_str)).collect();
    let (process, pipes) = Process::start(process::command(OsStr::new(program), arguments, &variables))?;
    let Pipes { stdin, stdout, stderr } = pipes;
    let tool = settings.tool.clone();
    tokio::spawn(async move { process::log(&tool, stderr).await });
    let transport = AsyncRwTransport::new(stdout, stdin).with_max_line_length(MESSAGE);
    let service = ().serve(transport).await.map_err(|error| McpError::Hello(Box::new(error)))?;
    Ok(Connection { service, _process: Some(process) })
}

/// What the server says of one of its tools.
async fn describe(peer: &Peer<RoleClient>, name: &str) -> Result<Description, McpError> {
    let (mut cursor, mut others) = (None, Vec::new());
    for _ in 0..PAGES {
        let params = cursor.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let page = peer.list_tools(params).await.map_err(|error| McpError::Tools(Box::new(error)))?;
        if let Some(tool) = page.tools.iter().find(|tool| tool.name == name) {
            return Description::of(tool);
        }
        others.extend(page.tools.into_iter().map(|tool| tool.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Err(McpError::Unknown(name.to_owned(), others.join(", ")))
}

impl Description {
    fn of(tool: &rmcp::model::Tool) -> Result<Self, McpError> {
        let mut schema = Value::Object(tool.input_schema.as_ref().clone());
        // The order of fields means nothing, and not every server keeps it.
        schema.sort_all_objects();
        let digest =
            call::described(&tool.name, tool.description.as_deref().unwrap_or_default(), &schema.to_string());
        // Patterns that look back can take for ever on the arguments of a stranger.
        let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        let arguments = options.build(&schema).map_err(|error| McpError::Schema(error.to_string()))?;
        Ok(Self { digest, arguments })
    }
}
