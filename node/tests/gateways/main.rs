//! What programs speak to a peer by: OpenAI's API, A2A, MCP, metrics and traces; mostly at
//! peers within this process.

mod a2a;
mod agents;
mod bounds;
mod gateway;
mod mcp;
mod metrics;
mod observe;
mod openai;
mod oracle;
mod responses;
mod strangers;
#[path = "../support/support.rs"]
mod support;
mod traces;
