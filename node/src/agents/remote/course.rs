//! What an agent says of a task, as pieces of text and an end. Pure; everything in it is a stranger's.

use std::collections::{BTreeMap, VecDeque};

use protocol::{Finish, JobError, Token};
use serde::Deserialize;
use serde_json::Value;

use super::super::upstream::answer::{broken, split};
use super::{ApiKey, refused};

/// Artifacts of one task.
const MAX_ARTIFACTS: usize = 64;
/// Bytes of a task's name.
const MAX_NAME: usize = 256;
/// Between the texts of two artifacts.
const GAP: &str = "\n\n";

/// One event of a stream, or the answer to a message.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Event {
    task: Option<Task>,
    message: Option<Message>,
    status_update: Option<StatusUpdate>,
    artifact_update: Option<ArtifactUpdate>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Task {
    id: String,
    status: Status,
    #[serde(default)]
    artifacts: Vec<Artifact>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusUpdate {
    task_id: String,
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactUpdate {
    task_id: String,
    artifact: Artifact,
    #[serde(default)]
    append: bool,
}

#[derive(Debug, Deserialize)]
struct Status {
    state: String,
    message: Option<Message>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    artifact_id: String,
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    parts: Vec<Part>,
}

/// Files have no place in an answer.
#[derive(Debug, Deserialize)]
struct Part {
    text: Option<String>,
    data: Option<Value>,
}

impl Event {
    pub(super) fn of(task: Task) -> Self {
        Self { task: Some(task), ..Self::default() }
    }
}

/// A task as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Course {
    task: Option<String>,
    over: bool,
    /// What was said of each artifact.
    said: BTreeMap<String, String>,
    bytes: usize,
    ready: VecDeque<String>,
}

impl Course {
    /// The task's name, as soon as it has one.
    pub(super) fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// The same while it is not over.
    pub(super) fn at_work(&self) -> Option<&str> {
        self.task().filter(|_| !self.over)
    }

    /// The next piece of the answer that is there.
    pub(super) fn next_piece(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// Takes an event; tells the end.
    pub(super) fn on_event(
        &mut self,
        event: Event,
        key: Option<&ApiKey>,
    ) -> Result<Option<Finish>, JobError> {
        if let Some(Task { id, status, artifacts }) = event.task {
            self.name(id)?;
            for artifact in artifacts {
                self.on_artifact(&artifact, false)?;
            }
            return self.on_status(&status, key);
        }
        if let Some(ArtifactUpdate { task_id, artifact, append }) = event.artifact_update {
            self.name(task_id)?;
            self.on_artifact(&artifact, append)?;
            return Ok(None);
        }
        if let Some(StatusUpdate { task_id, status }) = event.status_update {
            self.name(task_id)?;
            return self.on_status(&status, key);
        }
        let message = event.message.ok_or_else(|| broken(&"an event says nothing that is known"))?;
        self.over = true;
        self.say(&words(&message.parts))?;
        Ok(Some(Finish::EndOfText))
    }

    fn name(&mut self, id: String) -> Result<(), JobError> {
        if id.is_empty() || id.len() > MAX_NAME || self.task.as_ref().is_some_and(|task| *task != id) {
            return Err(broken(&"it speaks of another task"));
        }
        self.task = Some(id);
        Ok(())
    }

    /// What was said cannot be taken back: an artifact that is told again must go on where it was.
    fn on_artifact(&mut self, artifact: &Artifact, append: bool) -> Result<(), JobError> {
        let text = words(&artifact.parts);
        let before = self.said.get(&artifact.artifact_id);
        let more = match before {
            Some(before) if !append => {
                text.strip_prefix(before.as_str()).ok_or_else(|| broken(&"it takes back what it said"))?
            }
            _ => text.as_str(),
        };
        let gap = before.is_none() && !self.said.is_empty() && !more.is_empty();
        let more = if gap { format!("{GAP}{more}") } else { more.to_owned() };
        self.say(&more)?;
        if self.said.len() >= MAX_ARTIFACTS && !self.said.contains_key(&artifact.artifact_id) {
            return Err(broken(&"it has more artifacts than an answer may have"));
        }
        let said = self.said.entry(artifact.artifact_id.clone()).or_default();
        said.push_str(if gap { &more[GAP.len()..] } else { &more });
        Ok(())
    }

    fn on_status(&mut self, status: &Status, key: Option<&ApiKey>) -> Result<Option<Finish>, JobError> {
        let note = status.message.as_ref().map(|message| words(&message.parts)).unwrap_or_default();
        match status.state.as_str() {
            "TASK_STATE_SUBMITTED" | "TASK_STATE_WORKING" => Ok(None),
            "TASK_STATE_COMPLETED" => {
                self.over = true;
                if self.bytes == 0 {
                    self.say(&note)?;
                }
                Ok(Some(Finish::EndOfText))
            }
            // It asks back. A job has one turn, so the question is its answer.
            "TASK_STATE_INPUT_REQUIRED" if !note.is_empty() => {
                let gap = if self.bytes > 0 { GAP } else { "" };
                self.say(&format!("{gap}{note}"))?;
                Ok(Some(Finish::EndOfText))
            }
            "TASK_STATE_REJECTED" => {
                self.over = true;
                Err(refused(key, if note.is_empty() { "without a word" } else { &note }))
            }
            other => {
                self.over = other != "TASK_STATE_AUTH_REQUIRED" && other != "TASK_STATE_INPUT_REQUIRED";
                Err(broken(&format!("the task ended as {other:.40}: {note:.200}")))
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<(), JobError> {
        self.bytes += text.len();
        if self.bytes > Token::MAX_ANSWER {
            return Err(broken(&"it says more than an answer may have"));
        }
        self.ready.extend(split(text));
        Ok(())
    }
}

/// Texts as they are, data as JSON.
fn words(parts: &[Part]) -> String {
    let word = |part: &Part| match (&part.text, &part.data) {
        (Some(text), _) => text.clone(),
        (None, Some(data)) => data.to_string(),
        (None, None) => String::new(),
    };
    parts.iter().map(word).collect()
}

#[cfg(test)]
mod tests;
