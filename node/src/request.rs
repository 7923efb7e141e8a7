//! A job as a user writes it, and its course as a user reads it: the JSON of the local API and of `submit --json`.
//!
//! The command line uses the same two types whether the job goes through a running peer's API or through a peer of
//! its own, so both print the same lines.
//!
//! | module | what a request may hold |
//! |---|---|
//! | [`form`] | what form the answer must have, and which tools there are, as JSON and not as the text of JSON |

pub mod form;

use crypto::{Digest, PeerId};
use protocol::approval::Rule;
use protocol::error::Report;
use protocol::event::JobEvent;
use protocol::{
    Capability, Chat, ChatMessage, Choosing, Credits, Input, JobError, JobId, JobKind, JobSpec, Limits,
    Logprobs, Preference, Price, Requirement, Role, Sampling, Scores, Timestamp, ToolChoice, Trace, Usage,
    Weights,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::models;
use crate::receipts;
use form::{Form, ToolOffer};

/// A job as a user writes it. Everything but the input has a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobRequest {
    /// The conversation so far; excludes `prompt`, `text`, `tokens` and `call`.
    pub messages: Vec<ChatMessage>,
    /// A single message of a user.
    pub prompt: Option<String>,
    /// Text as it is, rendered by no template.
    pub text: Option<String>,
    /// Token ids of the model, which must be named.
    pub tokens: Vec<u32>,
    /// Arguments of a tool: a JSON object.
    pub call: Option<Box<RawValue>>,
    /// What is to be done; by default what is done under the capability, or with the input.
    pub kind: Option<JobKind>,
    /// What is needed; `text.generation` by default, of a call `tool`.
    pub capability: Option<Capability>,
    /// With which model: a known name, a name on offer, or a digest.
    pub model: Option<String>,
    /// Only this peer.
    pub provider: Option<PeerId>,
    /// Rather this peer, at the same price: the one that has read the conversation, where nobody says otherwise.
    pub prefer: Option<PeerId>,
    /// Not these peers: they had a chance already.
    pub avoid: Vec<PeerId>,
    /// Tokens of context that the model must have; 0 by default.
    pub context: u32,
    /// The most that a provider may ask; without it, the budget alone bounds that.
    pub ceiling: Option<Price>,
    /// What it wants to pay: a best bid that asks more gets one counter-offer.
    pub target: Option<Price>,
    /// What counts how much when bids are compared; price alone by default.
    pub weights: Option<Weights>,
    /// Announce and collect sealed bids instead of asking a few.
    pub auction: bool,
    /// Longest answer in tokens.
    pub max_tokens: Option<u32>,
    /// 0 is greedy, and the default.
    pub temperature: Option<f32>,
    /// Nucleus.
    pub top_p: Option<f32>,
    /// How many candidates.
    pub top_k: Option<u32>,
    /// Floor relative to the best candidate.
    pub min_p: Option<f32>,
    /// Divides logits of tokens already seen.
    pub repeat_penalty: Option<f32>,
    /// Per occurrence.
    pub frequency_penalty: Option<f32>,
    /// Once for any occurrence.
    pub presence_penalty: Option<f32>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Of the sampling noise; 0 by default, so that the same request gives the same answer.
    pub seed: Option<u64>,
    /// Which of several answers to one prompt and seed; 0 by default.
    pub choice: Option<u32>,
    /// How many of the likeliest alternatives each token brings, and how likely it was; neither by default.
    pub logprobs: Option<u8>,
    /// What form the answer must have.
    pub constraint: Option<Form>,
    /// What the model may call.
    pub tools: Vec<ToolOffer>,
    /// Whether it is to; as it likes by default.
    pub tool_choice: Option<ToolChoice>,
    /// Seconds until the job is given up; 600 by default.
    pub timeout_s: Option<u64>,
    /// The most that it may cost, in micro-credits; 0 by default.
    pub budget: Option<u64>,
    /// When somebody is to be asked before it begins: `cost:N`, `depth:N`, `tool` or `tool:CAPABILITY`. The peer's own rules
    /// hold besides.
    pub approval: Vec<Rule>,
    /// Where it stands in a trace. By the API the header `traceparent` says so.
    #[serde(skip)]
    pub trace: Option<Trace>,
}

impl JobRequest {
    const TIMEOUT_S: u64 = 600;

    /// The job. `model` is the digest that [`JobRequest::model`] was resolved to.
    ///
    /// # Errors
    /// [`JobError::Invalid`] where input is missing or doubled, and what [`JobSpec::check`] finds.
    pub fn spec(&self, now: Timestamp, model: Option<Digest>) -> Result<JobSpec, JobError> {
        let budget = Credits(self.budget.unwrap_or(0));
        let usual = if self.call.is_some() { Capability::tool } else { Capability::text_generation };
        let capability = self.capability.clone().unwrap_or_else(usual);
        let usual = if self.call.is_some() { JobKind::Call } else { kind_of(&capability) };
        let kind = self.kind.unwrap_or(usual);
        let spec = JobSpec {
            kind,
            requirement: Requirement {
                capability,
                model,
                context: self.context,
                // Without a budget only what is free is asked for.
                ceiling: if budget == Credits::ZERO { Some(Price::default()) } else { self.ceiling },
            },
            provider: self.provider,
            choosing: if self.auction { Choosing::Auction } else { Choosing::Auto },
            preference: Preference {
                peer: self.prefer,
                avoid: self.avoid.clone(),
                target: self.target,
                weights: self.weights.unwrap_or_default(),
            },
            input: self.input(kind)?,
            sampling: self.sampling(kind),
            limits: Limits {
                budget,
                depth: 1,
                children: 16,
                deadline: now.after(self.timeout_s.unwrap_or(Self::TIMEOUT_S).saturating_mul(1000)),
            },
            constraint: self.constraint.clone().map(Into::into),
            approval: self.approval.clone(),
            parent: None,
        };
        spec.check()?;
        Ok(spec)
    }

    /// What the work starts from: exactly one of what may be given.
    fn input(&self, kind: JobKind) -> Result<Input, JobError> {
        let given = [
            self.prompt.is_some(),
            !self.messages.is_empty(),
            self.text.is_some(),
            !self.tokens.is_empty(),
            self.call.is_some(),
        ];
        match given.iter().filter(|given| **given).count() {
            0 => return Err(JobError::invalid("prompt", "is missing: give a prompt or messages")),
            1 => {}
            _ => {
                let problem = "messages, text, tokens and call exclude each other: give one of them";
                return Err(JobError::invalid("prompt", problem));
            }
        }
        let input = match (&self.text, &self.prompt) {
            _ if self.call.is_some() => {
                Input::Json(self.call.as_deref().map_or("", RawValue::get).to_owned())
            }
            _ if !self.tokens.is_empty() => Input::Tokens(self.tokens.clone()),
            (Some(text), _) => Input::Text(text.clone()),
            (None, Some(prompt)) => Input::Chat(vec![ChatMessage::new(Role::User, prompt)].into()),
            (None, None) => Input::Chat(self.messages.clone().into()),
        };
        match input {
            Input::Chat(chat) if kind == JobKind::Generate => Ok(Input::Chat(self.with_tools(chat))),
            _ if !self.tools.is_empty() || self.tool_choice.is_some() => {
                Err(JobError::invalid("tools", "are for a chat: give a prompt or messages"))
            }
            Input::Chat(chat) => text_of(chat),
            other => Ok(other),
        }
    }

    fn with_tools(&self, chat: Chat) -> Chat {
        let tools = self.tools.iter().map(Into::into).collect();
        Chat { tools, tool_choice: self.tool_choice.clone().unwrap_or_default(), ..chat }
    }

    fn sampling(&self, kind: JobKind) -> Sampling {
        let usual = Sampling::default();
        // Of a score the pieces are bounded, which nobody can count before it is there.
        let longest = if kind == JobKind::Score { Scores::MAX_PIECES } else { usual.max_tokens };
        Sampling {
            max_tokens: self.max_tokens.unwrap_or(longest),
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_p: self.top_p.unwrap_or(usual.top_p),
            top_k: self.top_k.unwrap_or(usual.top_k),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(usual.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            stop: self.stop.clone(),
            seed: self.seed.unwrap_or(usual.seed),
            choice: self.choice.unwrap_or(usual.choice),
            logprobs: self.logprobs,
        }
    }
}

/// What happened to a job: one line of `submit --json`, one event of the API's stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobUpdate {
    /// Nobody hears of the job until somebody approves it.
    Awaiting {
        /// The job.
        job: JobId,
        /// What names it.
        rule: Rule,
    },
    /// A provider made an offer.
    Bid {
        /// Who.
        provider: PeerId,
        /// What it asks for 1000 tokens of the answer, in micro-credits.
        price: u64,
        /// Tokens per second, as it measured itself.
        speed: u32,
        /// Jobs that go first.
        queue: u32,
    },
    /// The last line of a job that was done.
    Done {
        /// The whole answer.
        text: String,
        /// Who did it.
        provider: PeerId,
        /// The receipt's name.
        receipt: Digest,
        /// Where the receipt is kept; absent where the peer has no folder, or could not write to it.
        receipt_file: Option<String>,
        /// What was read and written.
        usage: Usage,
        /// What that costs.
        cost: Credits,
        /// Why the answer ended.
        finish: protocol::Finish,
    },
    /// The last line of a job that was not.
    Failed {
        /// Stable name of the error.
        code: String,
        /// What happened and what to do.
        message: String,
        /// Whether the same job may succeed later or elsewhere.
        retryable: bool,
        /// The error itself, where it says more than its code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<JobError>,
    },
    /// So much of the prompt has been read.
    Progress {
        /// Tokens read.
        done: u32,
        /// Tokens in the prompt.
        of: u32,
    },
    /// A provider got the job; again if another one takes over.
    Started {
        /// The job.
        job: JobId,
        /// Who.
        provider: PeerId,
        /// Its agent.
        agent: String,
        /// The model's name, where there is one.
        model: Option<String>,
        /// Tokens of the answer that are there already, if it takes over in the middle.
        #[serde(default, skip_serializing_if = "is_zero")]
        tokens: u64,
    },
    /// The next token.
    Token {
        /// Its position.
        index: u64,
        /// The model's id for it, where there is one.
        id: Option<u32>,
        /// Its text.
        text: String,
        /// How likely it was, if that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<Logprobs>,
    },
}

impl JobUpdate {
    /// What a user reads of an event. Receipts are kept in `folder`.
    pub fn of(job: JobId, event: JobEvent, folder: Option<&std::path::Path>) -> Self {
        match event {
            JobEvent::Awaiting(rule) => Self::Awaiting { job, rule },
            JobEvent::Bid(bid) => Self::Bid {
                provider: bid.signer(),
                price: bid.price().completion.0,
                speed: bid.offer.speed.decode,
                queue: bid.queue,
            },
            JobEvent::Done(completion) => {
                let digest = completion.receipt.digest();
                Self::Done {
                    text: completion.opening.output.iter().map(|token| token.text.as_str()).collect(),
                    provider: completion.receipt.signer(),
                    receipt: digest,
                    receipt_file: folder
                        .map(|folder| receipts::path_of(folder, digest))
                        .filter(|file| file.exists())
                        .map(|file| file.display().to_string()),
                    usage: Usage {
                        prompt_tokens: completion.receipt.prompt_tokens(),
                        completion_tokens: completion.receipt.answer_tokens(),
                    },
                    cost: completion.receipt.cost,
                    finish: completion.receipt.finish,
                }
            }
            JobEvent::Failed(error) => error.into(),
            JobEvent::Progress { done, of } => Self::Progress { done, of },
            JobEvent::Started { provider, offer, tokens } => Self::Started {
                job,
                provider,
                agent: offer.agent,
                model: offer.model.map(|model| model.name),
                tokens,
            },
            JobEvent::Token { index, token, logprobs } => {
                Self::Token { index, id: token.id, text: token.text, logprobs }
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<JobError> for JobUpdate {
    fn from(error: JobError) -> Self {
        let Report { code, message, retryable, detail } = Report::from(&error);
        Self::Failed { code, message, retryable, detail }
    }
}

/// The one text that is to be scored, or to become a vector.
fn text_of(chat: Chat) -> Result<Input, JobError> {
    match chat.messages.as_slice() {
        [message] if message.role == Role::User => Ok(Input::Text(message.content.clone())),
        _ => Err(JobError::invalid("messages", "must be one text of a user: it is read as it is")),
    }
}

/// What is to be done under a capability.
pub fn kind_of(capability: &Capability) -> JobKind {
    if Capability::text_embedding().covers(capability) { JobKind::Embed } else { JobKind::Generate }
}

/// The digest that a model's name means: a known name, a digest, or the name of a model on offer.
///
/// # Errors
/// [`JobError::Invalid`] naming models on offer.
pub fn resolve_model(
    name: &str,
    profiles: &[crypto::Verified<protocol::Profile>],
) -> Result<Digest, JobError> {
    let offered =
        || profiles.iter().flat_map(|profile| profile.agents.iter().filter_map(|a| a.model.as_ref()));
    let mut named: Vec<_> = offered().filter(|model| model.name == name).map(|model| model.digest).collect();
    named.sort_unstable();
    named.dedup();
    if let [first, second, ..] = named.as_slice() {
        // Anybody may call a model what they like; who gets the prompt must not hang on that.
        let problem =
            format!("`{name}` names several models: ask for one by its digest, {first} or {second}");
        return Err(JobError::invalid("model", &problem));
    }
    let known = models::known::ALL.iter().find(|known| known.name == name).map(models::Known::digest);
    known.or_else(|| name.parse().ok()).or_else(|| named.pop()).ok_or_else(|| {
        let mut names: Vec<_> = offered().map(|model| model.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(8);
        let hint = if names.is_empty() {
            "none is on offer".to_owned()
        } else {
            format!("on offer: {}", names.join(", "))
        };
        JobError::invalid("model", &format!("`{name}` is neither known nor on offer ({hint})"))
    })
}

#[cfg(test)]
mod tests;
