//! A task at work: its job's events as the task's course. It outlives the connection that it came with.

use std::sync::Arc;

use protocol::JobError;
use protocol::event::{Completion, JobEvent};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Office;
use super::message::Message;
use super::task::State;
use crate::clock;
use crate::handle::{JobStream, NodeHandle};

/// A job on behalf of a task.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) office: Arc<Office>,
    pub(super) task: String,
    pub(super) context: String,
    /// The peer as the task's owner has it: as long as it is held, the request counts against their limits.
    pub(super) _node: NodeHandle,
    /// The model's name, once somebody has begun.
    pub(super) model: Option<String>,
}

impl Work {
    /// Works until the job is over or the task is taken back; dropping the stream cancels the job.
    pub(super) async fn run(mut self, mut stream: JobStream, stop: CancellationToken) {
        while let Some(Some(event)) = stop.run_until_cancelled(stream.next()).await {
            if !self.on_event(event) {
                return;
            }
        }
    }

    /// False where the task is over.
    fn on_event(&mut self, event: JobEvent) -> bool {
        match event {
            JobEvent::Awaiting(rule) => {
                let note =
                    format!("waits for the approval of the peer's owner, because of the rule `{rule}`");
                self.turn(State::Submitted, Some(&note));
            }
            JobEvent::Started { offer, .. } => {
                self.model = offer.model.map(|model| model.name);
                self.turn(State::Working, None);
            }
            JobEvent::Token { token, .. } => {
                if !token.text.is_empty() && !self.office.tasks().say(&self.task, &token.text) {
                    self.turn(
                        State::Failed,
                        Some("this peer has no room for more of the answer; try again later"),
                    );
                    return false;
                }
            }
            JobEvent::Done(completion) => {
                let proof = self.proof(&completion);
                self.office.tasks().complete(clock::now(), &self.task, proof);
                return false;
            }
            JobEvent::Failed(error) => {
                self.turn(state_of(&error), Some(&error.to_string()));
                return false;
            }
            JobEvent::Bid(..) | JobEvent::Progress { .. } => {}
        }
        true
    }

    fn turn(&self, state: State, note: Option<&str>) {
        let note = note.map(|note| {
            let id = format!("{}-{}", self.task, state.name().to_ascii_lowercase());
            Message::of_agent(id, (&self.task, &self.context), note.to_owned())
        });
        self.office.tasks().turn(clock::now(), &self.task, state, note);
    }

    /// What answers for the answer.
    fn proof(&self, completion: &Completion) -> Value {
        let receipt = completion.receipt.value();
        json!({
            "receipt": completion.receipt.digest(),
            "provider": completion.receipt.signer(),
            "model": self.model,
            "finish": receipt.finish,
            "cost": receipt.cost.0,
            "usage": { "prompt_tokens": receipt.prompt_tokens(), "completion_tokens": receipt.answer_tokens() },
        })
    }
}

/// A peer that will not do it has rejected it; one that could not has failed.
fn state_of(error: &JobError) -> State {
    match error.code() {
        "cancelled" => State::Canceled,
        "context_exceeded" | "invalid" | "limit" | "unsupported" => State::Rejected,
        _ => State::Failed,
    }
}
