//! `submit_job`: one job, its answer, and the receipt that proves it.

use crypto::{Digest, PeerId};
use futures::StreamExt;
use protocol::{Capability, ChatMessage, Credits, Finish, JobError, JobId, Price, Role, Usage};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::guest::{Guest, refuse};
use super::progress::Progress;
use super::receipt::{self, Replays};
use super::resources;
use crate::failure::{Class, Failure};
use crate::request::form::Form;
use crate::request::{JobRequest, JobUpdate};
use crate::verification::Verdict;

/// The job as the tool's arguments say it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    prompt: Option<String>,
    messages: Vec<Turn>,
    input: Option<Map<String, Value>>,
    system: Option<String>,
    capability: Option<Capability>,
    model: Option<String>,
    provider: Option<PeerId>,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    seed: Option<u64>,
    stop: Vec<String>,
    schema: Option<Map<String, Value>>,
    budget: Option<u64>,
    max_price: Option<u64>,
    deadline_s: Option<u64>,
    auction: bool,
    verify: Option<Check>,
}

/// One turn of a conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Role,
    content: String,
}

/// How the receipt is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    Replay,
    Signatures,
}

impl Asked {
    fn request(self) -> Result<JobRequest, Failure> {
        let given = [self.prompt.is_some(), !self.messages.is_empty(), self.input.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(refuse("prompt", "is missing or doubled: give one of prompt, messages and input"));
        }
        if self.input.is_some() && (self.system.is_some() || self.schema.is_some()) {
            return Err(refuse(
                "input",
                "goes to a tool, which reads neither system nor schema: leave them out",
            ));
        }
        if self.max_price.is_some_and(|most| most > 0) && self.budget.unwrap_or(0) == 0 {
            return Err(refuse("max_price", "needs a budget: without one only free agents are asked"));
        }
        let raw = |value: &Map<String, Value>| to_raw_value(value).map_err(Failure::of(Class::Request));
        let system = self.system.map(|text| ChatMessage::new(Role::System, text));
        let prompt = self.prompt.map(|text| ChatMessage::new(Role::User, text));
        let turns = self.messages.into_iter().map(|turn| ChatMessage::new(turn.role, turn.content));
        let price = |most| Price { prompt: Credits(most), completion: Credits(most) };
        let call: Option<Box<RawValue>> = self.input.as_ref().map(raw).transpose()?;
        Ok(JobRequest {
            messages: if call.is_some() {
                Vec::new()
            } else {
                system.into_iter().chain(prompt).chain(turns).collect()
            },
            call,
            capability: self.capability,
            model: self.model,
            provider: self.provider,
            auction: self.auction,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            stop: self.stop,
            constraint: self.schema.as_ref().map(raw).transpose()?.map(Form::JsonSchema),
            budget: self.budget,
            ceiling: self.max_price.map(price),
            timeout_s: self.deadline_s,
            ..JobRequest::default()
        })
    }
}

/// A job that is done.
struct Done {
    by: By,
    text: String,
    provider: PeerId,
    receipt: Digest,
    usage: Usage,
    cost: Credits,
    finish: Finish,
}

/// Who works on a job; the last one, where several did.
#[derive(Default)]
struct By {
    job: Option<JobId>,
    agent: Option<String>,
    model: Option<String>,
}

pub(super) async fn submit(
    guest: &Guest,
    asked: Asked,
    replays: &Replays,
    progress: &mut Progress,
) -> Result<Answer, Failure> {
    let (verify, reads) = (asked.verify, asked.schema.is_some());
    if verify == Some(Check::Replay) {
        replays.allow(guest)?;
    }
    if verify.is_some() {
        guest.receipts()?;
    }
    let done = follow(guest, asked.request()?, progress).await?;
    let verdict = match verify {
        Some(check) => {
            Some(receipt::judge(guest, done.receipt, check == Check::Replay, replays, progress).await?)
        }
        None => None,
    };
    Ok(done.told(verdict, reads))
}

/// The course of a job to its end. Dropping it cancels the job.
async fn follow(guest: &Guest, request: JobRequest, progress: &mut Progress) -> Result<Done, Failure> {
    let mut updates = guest.mesh.stream(request);
    let mut by = By::default();
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Started { job, provider, agent, model, tokens } => {
                let with = model.as_ref().map(|model| format!(" with {model}")).unwrap_or_default();
                progress.tell(tokens as f64, None, format!("{} answers{with}", provider.short())).await;
                by = By { job: Some(job), agent: Some(agent), model };
            }
            JobUpdate::Token { index, .. } => {
                let tokens = index + 1;
                progress.tell(tokens as f64, None, format!("{tokens} tokens")).await;
            }
            JobUpdate::Awaiting { job, rule } => {
                let next = format!("needs approval ({rule}): `llamesh approve {job}`");
                progress.tell(0.0, None, next).await;
            }
            JobUpdate::Done { text, provider, receipt, usage, cost, finish, .. } => {
                let tokens = usage.completion_tokens;
                progress.tell_now(f64::from(tokens), None, format!("{tokens} tokens, done")).await;
                return Ok(Done { by, text, provider, receipt, usage, cost, finish });
            }
            JobUpdate::Failed { code, message, .. } => return Err(guest.failure(&code, message)),
            JobUpdate::Bid { .. } | JobUpdate::Progress { .. } => {}
        }
    }
    let lost = JobError::ProviderLost;
    Err(guest.failure(lost.code(), lost.to_string()))
}

impl Done {
    fn told(self, verdict: Option<Verdict>, reads: bool) -> Answer {
        let Self { by, text, provider, receipt, usage, cost, finish } = self;
        let uri = resources::of_receipt(receipt);
        let mut value = json!({
            "text": text, "provider": provider, "receipt": receipt, "uri": uri, "usage": usage, "cost": cost,
            "finish": finish,
        });
        let read = reads.then(|| serde_json::from_str::<Value>(&text).ok()).flatten();
        let more = [
            ("json", read),
            ("job", by.job.map(|job| json!(job))),
            ("agent", by.agent.map(Value::from)),
            ("model", by.model.clone().map(Value::from)),
            ("verdict", verdict.as_ref().map(|verdict| json!(verdict))),
        ];
        for (name, one) in more {
            if let Some(one) = one {
                value[name] = one;
            }
        }
        let with = by.model.map(|model| format!(" with {model}")).unwrap_or_default();
        let tokens = usage.completion_tokens;
        let mut note = format!("answered by {provider}{with}: {tokens} tokens, {cost}; receipt {receipt}");
        if let Some(verdict) = verdict {
            note += &format!("; {}", receipt::told(&verdict));
        }
        Answer { value, texts: vec![text, note], receipts: vec![receipt] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(given: Value) -> Result<JobRequest, String> {
        serde_json::from_value::<Asked>(given).unwrap().request().map_err(|failure| failure.message)
    }

    #[test]
    fn exactly_one_input_is_taken() {
        assert!(request(json!({})).unwrap_err().contains("prompt, messages and input"));
        let turns = json!([{ "role": "user", "content": "x" }]);
        assert!(request(json!({ "prompt": "x", "messages": turns })).is_err());
        assert!(request(json!({ "input": {}, "system": "s" })).is_err());
        let chat = request(json!({ "system": "s", "prompt": "x", "deadline_s": 7 })).unwrap();
        assert_eq!(
            chat.messages.iter().map(|turn| turn.role).collect::<Vec<_>>(),
            [Role::System, Role::User]
        );
        assert_eq!(chat.timeout_s, Some(7));
        let call = request(json!({ "input": { "a": 1 } })).unwrap();
        assert_eq!((call.messages.len(), call.call.unwrap().get()), (0, r#"{"a":1}"#));
    }

    #[test]
    fn a_price_needs_a_budget() {
        assert!(request(json!({ "prompt": "x", "max_price": 5 })).unwrap_err().contains("budget"));
        let paid = request(json!({ "prompt": "x", "max_price": 5, "budget": 9 })).unwrap();
        assert_eq!((paid.budget, paid.ceiling.unwrap().completion), (Some(9), Credits(5)));
        request(json!({ "prompt": "x", "max_price": 0 })).unwrap();
    }
}
