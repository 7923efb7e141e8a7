//! The agent behind a tool: arguments in, text out (SPEC §8.10).
//!
//! A tool is the operator's choice: nothing of a job decides what is run, and no job brings code. What a job does bring are
//! arguments, a JSON object of a stranger, which reach the tool as data and in no other way.
//!
//! | module | what it answers |
//! |---|---|
//! | [`mcp`] | a tool of a server that speaks the Model Context Protocol |
//! | [`program`] | a program on this machine, started for each call |
//! | `process` | a child process that ends with whoever started it, all its children with it |

pub mod mcp;
mod process;
pub mod program;

use std::sync::Arc;

use protocol::error::Feature;
use protocol::{
    AgentOffer, Capability, Finish, Input, JobError, JobKind, ModelOffer, Price, Speed, Token, call,
};
use tokio::sync::Semaphore;

use self::mcp::McpTool;
use self::program::Program;
use super::{Agent, Context, Job, Running};

/// What is behind a [`ToolAgent`].
#[derive(Debug)]
pub enum Tool {
    /// A tool of an MCP server.
    Mcp(McpTool),
    /// A program on this machine.
    Program(Program),
}

impl Tool {
    fn name(&self) -> String {
        match self {
            Self::Mcp(tool) => tool.name().to_owned(),
            Self::Program(program) => program.name(),
        }
    }

    fn digest(&self) -> crypto::Digest {
        match self {
            Self::Mcp(tool) => tool.digest(),
            Self::Program(program) => program.digest(),
        }
    }

    async fn call(&self, arguments: &str) -> Result<String, JobError> {
        match self {
            Self::Mcp(tool) => tool.call(arguments).await,
            Self::Program(program) => program.call(arguments).await,
        }
    }
}

/// An agent that calls a tool.
#[derive(Debug)]
pub struct ToolAgent {
    offer: AgentOffer,
    tool: Tool,
    slots: Semaphore,
}

impl ToolAgent {
    /// An agent that calls this tool under `capability`, at most `slots` times at once.
    pub fn new(tool: Tool, (capability, price): (Capability, Price), slots: usize) -> Self {
        let (name, digest) = (tool.name(), tool.digest());
        let engine = call::ENGINE.to_owned();
        let offer = AgentOffer {
            agent: format!("{name}-{capability}"),
            capability,
            kinds: vec![JobKind::Call],
            model: Some(ModelOffer { name: name.clone(), digest, manifest: false, engine, context: 0 }),
            price,
            speed: Speed::default(),
            languages: Vec::new(),
            modalities: vec!["text".to_owned()],
            tools: vec![name],
        };
        Self { offer, tool, slots: Semaphore::new(slots) }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.offer.agent = name.unwrap_or(self.offer.agent);
        self
    }

    async fn answer(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        job.check_without(&[Feature::Logprobs, Feature::Constraint, Feature::Continuation])?;
        let Input::Json(arguments) = &job.input else {
            return Err(JobError::Unsupported { feature: Feature::Input });
        };
        let answer = {
            let _slot = self.slots.acquire().await.map_err(|_| JobError::Engine)?;
            self.tool.call(arguments).await?
        };
        for piece in Token::pieces(&answer, &job.order.sampling)? {
            context.token(piece).await;
        }
        Ok(Finish::EndOfText)
    }
}

impl Agent for ToolAgent {
    fn offer(&self) -> AgentOffer {
        self.offer.clone()
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.answer(job, context).await })
    }
}

/// What a tool said against its arguments. It is for the requester, who sees no more of it than a line.
fn refused(words: &str) -> JobError {
    let words = words.trim();
    let words = if words.is_empty() { "without a word" } else { words };
    JobError::invalid("call", &format!("was refused by the tool: {words}"))
}

/// A tool that did not do what it is for. Why is its operator's business.
fn failed(tool: &str, why: &dyn std::fmt::Display) -> JobError {
    tracing::warn!(tool, %why, "a tool failed");
    JobError::Engine
}
