//! A task: one message, the job that it became, and the answer so far (A2A §4.1.1 to §4.2.2).

use protocol::Timestamp;
use serde_json::{Value, json};

use super::message::{Message, Part};
use super::moment;

/// The only artifact of a task.
const ANSWER: &str = "answer";

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Canceled,
    Completed,
    Failed,
    Rejected,
    Submitted,
    Working,
}

impl State {
    pub(super) const ALL: [Self; 6] =
        [Self::Canceled, Self::Completed, Self::Failed, Self::Rejected, Self::Submitted, Self::Working];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Canceled => "TASK_STATE_CANCELED",
            Self::Completed => "TASK_STATE_COMPLETED",
            Self::Failed => "TASK_STATE_FAILED",
            Self::Rejected => "TASK_STATE_REJECTED",
            Self::Submitted => "TASK_STATE_SUBMITTED",
            Self::Working => "TASK_STATE_WORKING",
        }
    }

    pub(super) const fn is_over(self) -> bool {
        !matches!(self, Self::Submitted | Self::Working)
    }
}

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The name of its job.
    pub(super) id: String,
    pub(super) context: String,
    pub(super) state: State,
    /// What the agent says of its state.
    pub(super) note: Option<Message>,
    /// Since when.
    pub(super) since: Timestamp,
    /// How often state or note have changed.
    pub(super) turn: u64,
    pub(super) asked: Message,
    pub(super) answer: String,
    /// What answers for it: receipt, provider, model.
    pub(super) proof: Option<Value>,
}

impl Task {
    /// As clients read it: with so many messages at most, and maybe with the answer.
    pub(super) fn value(&self, history: Option<usize>, with_answer: bool) -> Value {
        let mut value = json!({ "id": self.id, "contextId": self.context, "status": self.status() });
        if history != Some(0) {
            value["history"] = json!([self.asked]);
        }
        if with_answer {
            let told = !self.answer.is_empty() || self.state == State::Completed;
            let artifacts = told.then(|| self.artifact(&self.answer));
            value["artifacts"] = artifacts.into_iter().collect();
        }
        value
    }

    /// The news of its state.
    pub(super) fn status_update(&self) -> Value {
        let update = json!({ "taskId": self.id, "contextId": self.context, "status": self.status() });
        json!({ "statusUpdate": update })
    }

    /// The news of its answer, of which `told` bytes were told before.
    pub(super) fn artifact_update(&self, told: usize) -> Value {
        let mut update = json!({
            "taskId": self.id, "contextId": self.context,
            "artifact": self.artifact(self.answer.get(told..).unwrap_or_default()),
        });
        if told > 0 {
            update["append"] = true.into();
        }
        if self.state == State::Completed {
            update["lastChunk"] = true.into();
        }
        json!({ "artifactUpdate": update })
    }

    fn artifact(&self, text: &str) -> Value {
        let mut artifact = json!({ "artifactId": ANSWER, "name": ANSWER, "parts": [Part::text(text)] });
        if let Some(proof) = &self.proof {
            artifact["metadata"] = json!({ super::EXTENSION: proof });
            artifact["extensions"] = json!([super::EXTENSION]);
        }
        artifact
    }

    fn status(&self) -> Value {
        let mut status = json!({ "state": self.state.name(), "timestamp": moment::iso(self.since) });
        if let Some(note) = &self.note {
            status["message"] = json!(note);
        }
        status
    }

    /// About what it takes in memory.
    pub(super) fn size(&self) -> usize {
        self.asked.size() + self.answer.len() + 512
    }
}
