//! What is done for a client, whichever binding it comes by (A2A §3.1).

use std::sync::Arc;

use protocol::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::error::{Error, Kind};
use super::follow::{Follower, Telling};
use super::message::Message;
use super::push::Webhook;
use super::store::Wanted;
use super::task::{State, Task};
use super::wishes::Wishes;
use super::work::Work;
use super::{Desk, moment};
use crate::clock;

/// Tasks on a page, unless told otherwise, and at most.
const PAGE: (usize, usize) = (50, 100);

/// What `SendMessage` is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Sending {
    message: Message,
    #[serde(default)]
    configuration: Option<Configuration>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    accepted_output_modes: Option<Vec<String>>,
    task_push_notification_config: Option<Webhook>,
    history_length: Option<i64>,
    return_immediately: Option<bool>,
}

/// A task that has begun.
struct Begun {
    follower: Follower,
    /// How much of its history is wanted.
    history: Option<usize>,
    id: String,
    /// As it was at its beginning.
    task: Value,
}

/// What a task is named by, and how much of it is to be told.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) history_length: Option<i64>,
}

/// What `ListTasks` is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Listing {
    context_id: Option<String>,
    status: Option<String>,
    page_size: Option<i64>,
    page_token: Option<String>,
    history_length: Option<i64>,
    status_timestamp_after: Option<String>,
    include_artifacts: Option<bool>,
}

/// What a task's webhooks are named by.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hooked {
    pub(super) task_id: String,
    pub(super) id: String,
}

impl Desk {
    /// Begins a task, and waits for its end unless told not to.
    pub(super) async fn send(&self, sending: Sending) -> Result<Value, Error> {
        let waits = sending.configuration.as_ref().is_none_or(|said| said.return_immediately != Some(true));
        let Begun { mut follower, history, id, .. } = self.begin(sending).await?;
        if waits {
            follower.end().await;
        }
        Ok(json!({ "task": self.task(&id, history)? }))
    }

    /// Begins a task and follows it.
    pub(super) async fn send_streaming(&self, sending: Sending) -> Result<Follower, Error> {
        let Begun { follower, task, .. } = self.begin(sending).await?;
        Ok(follower.beginning_with(&task))
    }

    async fn begin(&self, sending: Sending) -> Result<Begun, Error> {
        let Sending { message, configuration, metadata } = sending;
        let said = configuration.unwrap_or_default();
        let message = message.checked()?;
        let (history, webhook) = (length(said.history_length)?, said.task_push_notification_config);
        check_modes(said.accepted_output_modes.as_deref().unwrap_or_default())?;
        self.check_task(&message)?;
        let wishes = Wishes::read(&message, metadata.as_ref())?;
        let webhook = match webhook {
            Some(webhook) => Some(webhook.checked(&self.office.post.vetting).await?),
            None => None,
        };
        let context = message.context_id.clone().map_or_else(super::name, Ok)?;
        let before = {
            let tasks = self.office.tasks();
            tasks.check_room(self.caller)?;
            tasks.conversation(self.caller, &context)
        };
        let request = wishes.job(&message, before)?;
        let spec = self.office.sight.aim(&self.node, &wishes.model, &wishes.options, request).await?;
        let stream = self.node.submit(spec)?;
        let (id, stop) = (stream.job().to_string(), CancellationToken::new());
        let task = new_task(&id, &context, message);
        self.office.tasks().begin(clock::now(), self.caller, task, stop.clone())?;
        if let Some(webhook) = webhook {
            self.office.tell(self.caller, &id, webhook)?;
        }
        // Before anything happens to it, so that nothing is told twice.
        let (follower, task) = (self.follower(&id)?, self.task(&id, history)?);
        let (office, node) = (Arc::clone(&self.office), self.node.clone());
        let work = Work { office, task: id.clone(), context, _node: node, model: None };
        tokio::spawn(work.run(stream, stop));
        Ok(Begun { follower, history, id, task })
    }

    /// A message to a task: each has one, so there is nothing to add to it.
    fn check_task(&self, message: &Message) -> Result<(), Error> {
        let Some(id) = &message.task_id else { return Ok(()) };
        let tasks = self.office.tasks();
        let task = &tasks.get(clock::now(), self.caller, id)?.task;
        if message.context_id.as_ref().is_some_and(|context| *context != task.context) {
            return Err(Error::invalid(
                "message.contextId",
                "is not that of the task; leave one of them out",
            ));
        }
        let message = "a task takes one message here; go on with its contextId, and without taskId";
        Err(Error::new(Kind::Unsupported, message).with("contextId", &task.context))
    }

    pub(super) fn get(&self, named: &Named) -> Result<Value, Error> {
        self.task(&named.id, length(named.history_length)?)
    }

    pub(super) fn list(&self, listing: &Listing) -> Result<Value, Error> {
        let (wanted, history) = (listing.wanted()?, length(listing.history_length)?);
        let tasks = self.office.tasks();
        let page = tasks.list(clock::now(), self.caller, &wanted);
        let with_answer = listing.include_artifacts == Some(true);
        let told: Vec<Value> = page.tasks.iter().map(|task| task.value(history, with_answer)).collect();
        Ok(json!({
            "tasks": told, "nextPageToken": page.next.map(|next| next.to_string()).unwrap_or_default(),
            "pageSize": wanted.most, "totalSize": page.total,
        }))
    }

    /// Takes a task back, and its job.
    pub(super) fn cancel(&self, named: &Named) -> Result<Value, Error> {
        let now = clock::now();
        let mut tasks = self.office.tasks();
        let kept = tasks.get(now, self.caller, &named.id)?;
        if kept.task.state.is_over() {
            let message = format!("the task is over: {}", kept.task.state.name());
            return Err(Error::new(Kind::NotCancelable, message).with("taskId", &named.id));
        }
        kept.stop();
        tasks.turn(now, &named.id, State::Canceled, None);
        drop(tasks);
        self.task(&named.id, None)
    }

    pub(super) fn subscribe(&self, named: &Named) -> Result<Follower, Error> {
        let tasks = self.office.tasks();
        let kept = tasks.get(clock::now(), self.caller, &named.id)?;
        if kept.task.state.is_over() {
            let message = format!("the task is over: {}; get it instead", kept.task.state.name());
            return Err(Error::new(Kind::Unsupported, message).with("taskId", &named.id));
        }
        let task = kept.task.value(None, true);
        Ok(Follower::new(&self.office, kept, Telling::Piecewise).beginning_with(&task))
    }

    pub(super) async fn create_webhook(&self, webhook: Webhook) -> Result<Value, Error> {
        let task = webhook.task_id.clone();
        // Before anything is looked up for somebody who has no such task.
        self.office.tasks().get(clock::now(), self.caller, &task)?;
        let webhook = webhook.checked(&self.office.post.vetting).await?;
        Ok(json!(self.office.tell(self.caller, &task, webhook)?))
    }

    pub(super) fn webhook(&self, hooked: &Hooked) -> Result<Value, Error> {
        let tasks = self.office.tasks();
        let found = tasks.get(clock::now(), self.caller, &hooked.task_id)?.webhook(&hooked.id);
        let missing =
            || Error::new(Kind::NotFound, "the task has no such configuration").with("id", &hooked.id);
        found.map(|webhook| json!(webhook)).ok_or_else(missing)
    }

    pub(super) fn webhooks(&self, hooked: &Hooked) -> Result<Value, Error> {
        let tasks = self.office.tasks();
        let all: Vec<_> = tasks.get(clock::now(), self.caller, &hooked.task_id)?.webhooks().collect();
        Ok(json!({ "configs": all, "nextPageToken": "" }))
    }

    pub(super) fn delete_webhook(&self, hooked: &Hooked) -> Result<Value, Error> {
        let mut tasks = self.office.tasks();
        tasks.get(clock::now(), self.caller, &hooked.task_id)?;
        tasks.remove_webhook(&hooked.task_id, &hooked.id);
        Ok(json!({}))
    }

    #[expect(clippy::unused_self, reason = "as everything else that is asked at the desk")]
    pub(super) fn extended_card(&self) -> Error {
        let message = "there is no extended card: all of it is at /.well-known/agent-card.json";
        Error::new(Kind::Unsupported, message)
    }

    fn task(&self, id: &str, history: Option<usize>) -> Result<Value, Error> {
        let tasks = self.office.tasks();
        Ok(tasks.get(clock::now(), self.caller, id)?.task.value(history, true))
    }

    fn follower(&self, id: &str) -> Result<Follower, Error> {
        let tasks = self.office.tasks();
        let kept = tasks.get(clock::now(), self.caller, id)?;
        Ok(Follower::new(&self.office, kept, Telling::Piecewise))
    }
}

fn new_task(id: &str, context: &str, message: Message) -> Task {
    Task {
        id: id.to_owned(),
        context: context.to_owned(),
        state: State::Submitted,
        note: None,
        since: clock::now(),
        turn: 0,
        asked: Message { task_id: Some(id.to_owned()), context_id: Some(context.to_owned()), ..message },
        answer: String::new(),
        proof: None,
    }
}

/// How many messages of a history are wanted, where that was said.
fn length(said: Option<i64>) -> Result<Option<usize>, Error> {
    let wrong = |_| Error::invalid("historyLength", "must not be below 0");
    said.map(usize::try_from).transpose().map_err(wrong)
}

/// An answer is text; who wants none of that gets none.
fn check_modes(modes: &[String]) -> Result<(), Error> {
    let text = |mode: &String| ["text", "text/plain", "text/*", "*/*", "*"].contains(&mode.trim());
    if modes.is_empty() || modes.iter().any(text) {
        return Ok(());
    }
    Err(Error::new(Kind::ContentType, "answers are text here: accept text/plain"))
}

impl Listing {
    fn wanted(&self) -> Result<Wanted, Error> {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let most = match self.page_size {
            None => PAGE.0,
            Some(size) => usize::try_from(size)
                .ok()
                .filter(|size| (1..=PAGE.1).contains(size))
                .ok_or_else(|| Error::invalid("pageSize", &format!("must be between 1 and {}", PAGE.1)))?,
        };
        let before = said(&self.page_token).map(|token| token.parse()).transpose();
        Ok(Wanted {
            context: said(&self.context_id),
            state: said(&self.status).map_or(Ok(None), |name| state(&name))?,
            since: said(&self.status_timestamp_after).map(|text| since(&text)).transpose()?,
            before: before.map_err(|_| Error::invalid("pageToken", "is none that this peer gave"))?,
            most,
        })
    }
}

/// States that A2A has and no task here ever is in.
const OTHERS: [&str; 2] = ["TASK_STATE_AUTH_REQUIRED", "TASK_STATE_INPUT_REQUIRED"];

/// The state that tasks must be in.
fn state(name: &str) -> Result<Option<&'static str>, Error> {
    if name == "TASK_STATE_UNSPECIFIED" {
        return Ok(None);
    }
    let known = State::ALL.into_iter().map(State::name).chain(OTHERS).find(|known| *known == name);
    known.map(Some).ok_or_else(|| Error::invalid("status", "is no state, like TASK_STATE_WORKING"))
}

fn since(text: &str) -> Result<Timestamp, Error> {
    moment::parse(text)
        .ok_or_else(|| Error::invalid("statusTimestampAfter", "is no moment like 2026-11-28T05:40:00Z"))
}
