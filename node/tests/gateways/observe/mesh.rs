//! Peers in this process, for tests of what can be seen of them from outside.

use std::sync::Arc;

use node::agents::{Agent, Agents};
use node::api::Server;
use node::net::Address;
use node::request::JobRequest;
use node::traces::Traces;
use node::{Node, NodeConfig, clock};
use protocol::JobError;
use protocol::event::{Completion, JobEvent};

use crate::support::within::{alone, serve};

/// A peer and its API.
pub(crate) struct Seen {
    pub(crate) node: Node,
    pub(crate) url: String,
}

impl Seen {
    /// A peer with these agents that meets the mesh at another one, if there is one.
    pub(crate) async fn up(agents: Vec<Arc<dyn Agent>>, at: Option<&Self>, traces: Traces) -> Self {
        let mut hosted = Agents::default();
        agents.into_iter().for_each(|agent| hosted.host(agent));
        let bootstrap = match at {
            Some(other) => vec![other.address().await],
            None => Vec::new(),
        };
        let addresses = bootstrap.len();
        let config = NodeConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")],
            bootstrap,
            ..alone(hosted)
        };
        let node = Node::start_traced(config, traces).await.expect("a peer");
        if addresses > 0 {
            node.handle().join(addresses).await.expect("a mesh");
        }
        let server = Server::bind("127.0.0.1:0").await.expect("a free port");
        let url = serve(&node, server);
        Self { node, url }
    }

    /// Where others meet it.
    pub(crate) async fn address(&self) -> Address {
        let snapshot = self.node.handle().snapshot().await.expect("a peer");
        snapshot.listening.first().expect("an address").with_peer(&snapshot.me)
    }

    /// Has something done under a capability.
    pub(crate) async fn ask(&self, capability: &str, prompt: &str) -> Result<Box<Completion>, JobError> {
        let request = JobRequest {
            capability: Some(capability.parse().expect("a capability")),
            prompt: Some(prompt.to_owned()),
            ..JobRequest::default()
        };
        let mut stream = self.node.handle().submit(request.spec(clock::now(), None)?)?;
        while let Some(event) = stream.next().await {
            match event {
                JobEvent::Done(completion) => return Ok(completion),
                JobEvent::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Err(JobError::Cancelled)
    }
}
