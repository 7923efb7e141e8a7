//! A conversation goes on: what a chat and a response have in common, in the mesh's words.

use inference::{ToolCall, tools};
use protocol::{ChatMessage, Constraint, Finish, Input, JobKind, ToolChoice};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::course::{Course, Told};
use super::reply::reason;
use super::target::{Aimed, aim};
use super::{Choosing, Error, Gateway, Options};
use crate::request::JobRequest;
use crate::request::form::{Form, ToolOffer};

/// Tokens of an answer unless the client says how many: programs expect to hear all of it. What a model cannot hold beside its
/// prompt it does not say, and who pays says less.
const USUAL: u32 = 2048;

/// What has been said, and how it is to go on.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) messages: Vec<ChatMessage>,
    pub(super) max_tokens: Option<u32>,
    pub(super) logprobs: Option<u8>,
    pub(super) form: Option<Form>,
    pub(super) tools: Vec<ToolOffer>,
    pub(super) tool_choice: Option<ToolChoice>,
    /// Whether one tool at most may be called.
    pub(super) one_call: bool,
}

/// A turn at work.
pub(super) struct Begun {
    pub(super) course: Course,
    pub(super) aimed: Aimed,
    pub(super) calling: Calls,
}

/// What of an answer is taken for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// No tool may be called: all of it is text.
    Never,
    /// One at most.
    One,
    /// As many as there are.
    Many,
}

impl Turn {
    /// Sends it on its way, as often as there are to be choices.
    pub(super) async fn begin(
        self,
        gateway: &Gateway,
        choosing: &Choosing,
        options: &Options,
    ) -> Result<Begun, Error> {
        let (choices, calling, job) = (choosing.choices()?, self.calling(), self.job(choosing));
        let aimed = aim(gateway, &choosing.model, options, job).await?.shared(choices as usize);
        let specs = (0..choices).map(|choice| {
            let mut spec = aimed.spec.clone();
            spec.sampling.choice = choice;
            spec
        });
        let course = Course::start(&gateway.node, specs.collect())?;
        Ok(Begun { course, aimed, calling })
    }

    /// The job of one choice.
    pub(super) fn job(self, choosing: &Choosing) -> JobRequest {
        JobRequest {
            kind: Some(JobKind::Generate),
            messages: self.messages,
            max_tokens: self.max_tokens.or(Some(USUAL)),
            logprobs: self.logprobs,
            constraint: self.form,
            tools: self.tools,
            tool_choice: self.tool_choice,
            ..choosing.job()
        }
    }

    fn calling(&self) -> Calls {
        match (self.tools.is_empty(), &self.tool_choice, self.one_call) {
            (true, ..) | (_, Some(ToolChoice::None), _) => Calls::Never,
            (_, _, true) => Calls::One,
            _ => Calls::Many,
        }
    }
}

/// An answer as a message: its text, and what it calls.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) calls: Vec<Called>,
    pub(super) finish: &'static str,
}

/// A call, with a name unlike that of any other one.
pub(super) struct Called {
    pub(super) id: String,
    pub(super) call: ToolCall,
}

impl Said {
    pub(super) fn of(told: &Told, calling: Calls) -> Self {
        let receipt = told.completion.receipt.value();
        let most = match calling {
            Calls::Never => 0,
            Calls::One => 1,
            Calls::Many => usize::MAX,
        };
        let text = told.text();
        let (text, calls) = if most == 0 { (text, Vec::new()) } else { told.calls(text) };
        let named = |(index, call)| Called { id: format!("call_{}_{index}", receipt.job), call };
        let calls: Vec<_> = calls.into_iter().take(most).enumerate().map(named).collect();
        let finish = match receipt.finish {
            _ if !calls.is_empty() => "tool_calls",
            Finish::Length if is_whole(&text, told.completion.opening.constraint.as_ref()) => "stop",
            finish => reason(finish),
        };
        Self { text, calls, finish }
    }
}

impl Told {
    /// What of an answer is text, and what calls tools. Text that only looks like a call calls none that was offered.
    fn calls(&self, text: String) -> (String, Vec<ToolCall>) {
        let offered = |call: &ToolCall| match &self.completion.opening.input {
            Input::Chat(chat) => chat.tools.iter().any(|tool| tool.name == call.name),
            Input::Json(_) | Input::Text(_) | Input::Tokens(_) => false,
        };
        let (rest, calls) = tools::parse(&text);
        if calls.iter().all(offered) { (rest, calls) } else { (text, Vec::new()) }
    }
}

/// Whether an answer is all of what was wanted, although its last token was the last that it could have: documents are closed within
/// the limit, and a client that is told that one was cut throws it away. A bare number does not say where it ends.
fn is_whole(text: &str, constraint: Option<&Constraint>) -> bool {
    matches!(constraint, Some(Constraint::JsonSchema(_)))
        && text.trim_end().ends_with(['}', ']', '"'])
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

impl Called {
    /// As a chat has it.
    pub(super) fn value(&self) -> Value {
        let function = json!({ "name": self.call.name, "arguments": self.call.arguments });
        json!({ "id": self.id, "type": "function", "function": function })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_whole_and_a_number_that_may_be_cut_is_not() {
        let schema = Constraint::JsonSchema("{}".to_owned());
        let whole = |text| is_whole(text, Some(&schema));
        assert!(["{\"a\":1}", "[1]\n", "\"a\""].into_iter().all(whole));
        assert!(!["{\"a\":1", "12", "\"a", "a\"", ""].into_iter().any(whole));
        assert!(!is_whole("{}", None), "nothing was wanted of it");
    }
}
