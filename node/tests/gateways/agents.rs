//! Agents as a Rust program writes them: what one submits runs under its job's limits, and one that panics fails its
//! own job only. A peer that serves itself is enough for both.

use std::sync::Arc;

use node::agents::echo::Echo;
use node::agents::{Agent, Agents, Context, Job, Running};
use node::request::JobRequest;
use node::{Node, clock};
use protocol::error::Limit;
use protocol::event::{Completion, JobEvent};
use protocol::{AgentOffer, Capability, Finish, JobError, JobKind, Price, Token};

use crate::support::within::{alone, free};

fn capability(name: &str) -> Capability {
    name.parse().expect("a capability")
}

fn request(name: &str) -> JobRequest {
    JobRequest {
        capability: Some(capability(name)),
        prompt: Some("hello".to_owned()),
        ..JobRequest::default()
    }
}

/// What an agent of these tests does with a job.
#[derive(Clone, Copy, Debug)]
enum Conduct {
    /// Has the job done by whoever offers this.
    Delegate(&'static str),
    /// Panics.
    Panic,
}

#[derive(Debug)]
struct Scripted(&'static str, Conduct);

impl Agent for Scripted {
    fn offer(&self) -> AgentOffer {
        free(self.0, capability(self.0), vec![JobKind::Generate])
    }

    fn run(self: Arc<Self>, _: Job, context: Context) -> Running {
        Box::pin(async move {
            let Conduct::Delegate(to) = self.1 else { panic!("as the test wants") };
            let mut part = context.submit(request(to).spec(clock::now(), None)?)?;
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

async fn peer(scripted: Vec<Scripted>) -> Node {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(capability("echo"), Price::default(), None)));
    scripted.into_iter().for_each(|agent| agents.host(Arc::new(agent)));
    Node::start(alone(agents)).await.expect("a peer")
}

async fn outcome(node: &Node, name: &str) -> Result<Box<Completion>, JobError> {
    let spec = request(name).spec(clock::now(), None)?;
    let mut stream = node.handle().submit(spec)?;
    while let Some(event) = stream.next().await {
        match event {
            JobEvent::Done(completion) => return Ok(completion),
            JobEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Err(JobError::Cancelled)
}

fn text(completion: &Completion) -> String {
    completion.opening.output.iter().map(|token| token.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_submits_runs_under_its_jobs_limits() {
    let chain =
        vec![Scripted("once", Conduct::Delegate("echo")), Scripted("twice", Conduct::Delegate("once"))];
    let node = peer(chain).await;
    let once = outcome(&node, "once").await.expect("one level is allowed");
    assert_eq!(text(&once), "hello");
    assert_eq!(once.receipt.children.len(), 1, "the receipt names the sub-job's");
    let twice = outcome(&node, "twice").await.map(|_| ());
    assert_eq!(twice, Err(JobError::Limit { limit: Limit::Depth }), "two levels are not");
    node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_panics_fails_its_own_job_only() {
    let node = peer(vec![Scripted("bomb", Conduct::Panic)]).await;
    let bomb = outcome(&node, "bomb").await.map(|_| ());
    assert_eq!(bomb, Err(JobError::Engine));
    assert_eq!(outcome(&node, "echo").await.map(|done| text(&done)), Ok("hello".to_owned()));
    node.stop().await.expect("an end in order");
}
