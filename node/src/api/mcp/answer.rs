//! Results: structured for programs, a text for people and models, links to what proves it.

use crypto::Digest;
use rmcp::model::{CallToolResult, ContentBlock, Resource};
use serde_json::Value;

use super::resources;
use crate::failure::Failure;

/// What a tool has to say.
#[derive(Debug)]
pub(super) struct Answer {
    /// As the tool's schema has it.
    pub(super) value: Value,
    /// The same as texts; the first is what was asked for.
    pub(super) texts: Vec<String>,
    /// Receipts that prove it.
    pub(super) receipts: Vec<Digest>,
}

/// Receipts that are linked to; all of them are named in what is structured.
const MAX_LINKS: usize = 16;

impl Answer {
    /// One that no receipt proves.
    pub(super) fn new(value: Value, text: impl Into<String>) -> Self {
        Self { value, texts: vec![text.into()], receipts: Vec::new() }
    }
}

impl From<Answer> for CallToolResult {
    fn from(answer: Answer) -> Self {
        let links = answer.receipts.into_iter().take(MAX_LINKS).map(link);
        let content = answer.texts.iter().map(|text| ContentBlock::text(plain(text))).chain(links).collect();
        let mut result = Self::success(content);
        result.structured_content = Some(answer.value);
        result
    }
}

/// What a tool could not do; the message has a next step.
pub(super) fn failed(failure: &Failure) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(plain(&failure.message))])
}

fn link(receipt: Digest) -> ContentBlock {
    let resource = Resource::new(resources::of_receipt(receipt), format!("receipt {receipt}"));
    ContentBlock::resource_link(resource.with_mime_type(resources::JSON))
}

/// What others say, fit to be shown: control characters could move a terminal's cursor.
fn plain(text: &str) -> String {
    let hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}
