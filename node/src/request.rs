//! A job as a user writes it, and its course as a user reads it: the JSON of the local API and of `submit --json`.
//!
//! The command line uses the same two types whether the job goes through a running peer's API or through a peer of
//! its own, so both print the same lines.

use crypto::{Digest, PeerId};
use protocol::event::JobEvent;
use protocol::{
    Capability, ChatMessage, Choosing, Credits, Input, JobError, JobId, JobKind, JobSpec, Limits, Price,
    Requirement, Role, Sampling, Timestamp, Usage,
};
use serde::{Deserialize, Serialize};

use crate::models;
use crate::receipts;

/// A job as a user writes it. Everything but the input has a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobRequest {
    /// The conversation so far; excludes `prompt`.
    pub messages: Vec<ChatMessage>,
    /// A single message of a user; excludes `messages`.
    pub prompt: Option<String>,
    /// What is needed; `text.generation` by default.
    pub capability: Option<Capability>,
    /// With which model: a known name, a name on offer, or a digest.
    pub model: Option<String>,
    /// Only this peer.
    pub provider: Option<PeerId>,
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
    /// Seconds until the job is given up; 600 by default.
    pub timeout_s: Option<u64>,
    /// The most that it may cost, in micro-credits; 0 by default.
    pub budget: Option<u64>,
}

impl JobRequest {
    const TIMEOUT_S: u64 = 600;

    /// The job. `model` is the digest that [`JobRequest::model`] was resolved to.
    ///
    /// # Errors
    /// [`JobError::Invalid`] where input is missing or doubled, and what [`JobSpec::check`] finds.
    pub fn spec(&self, now: Timestamp, model: Option<Digest>) -> Result<JobSpec, JobError> {
        let budget = Credits(self.budget.unwrap_or(0));
        let capability = self.capability.clone().unwrap_or_else(Capability::text_generation);
        let kind = kind_of(&capability);
        let spec = JobSpec {
            kind,
            requirement: Requirement {
                capability,
                model,
                context: 0,
                // Without a budget only what is free is asked for.
                ceiling: (budget == Credits::ZERO).then(Price::default),
            },
            provider: self.provider,
            choosing: if self.auction { Choosing::Auction } else { Choosing::Direct },
            input: if kind == JobKind::Embed { self.text()? } else { self.input()? },
            sampling: self.sampling(),
            limits: Limits {
                budget,
                depth: 1,
                children: 16,
                deadline: now.after(self.timeout_s.unwrap_or(Self::TIMEOUT_S).saturating_mul(1000)),
            },
            constraint: None,
            parent: None,
        };
        spec.check()?;
        Ok(spec)
    }

    fn input(&self) -> Result<Input, JobError> {
        match (&self.prompt, self.messages.as_slice()) {
            (Some(text), []) => {
                Ok(Input::Chat(vec![ChatMessage { role: Role::User, content: text.clone(), name: None }]))
            }
            (None, [_, ..]) => Ok(Input::Chat(self.messages.clone())),
            (None, []) => Err(JobError::invalid("prompt", "is missing: give a prompt or messages")),
            (Some(_), _) => {
                Err(JobError::invalid("prompt", "and messages exclude each other: give one of them"))
            }
        }
    }

    /// The one text that is to become a vector.
    fn text(&self) -> Result<Input, JobError> {
        match self.input()? {
            Input::Chat(messages) if messages.len() == 1 && messages[0].role == Role::User => {
                Ok(Input::Text(messages.into_iter().map(|message| message.content).collect()))
            }
            _ => Err(JobError::invalid("messages", "must be one text of a user: it becomes one vector")),
        }
    }

    fn sampling(&self) -> Sampling {
        let usual = Sampling::default();
        Sampling {
            max_tokens: self.max_tokens.unwrap_or(usual.max_tokens),
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_p: self.top_p.unwrap_or(usual.top_p),
            top_k: self.top_k.unwrap_or(usual.top_k),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(usual.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            stop: self.stop.clone(),
            seed: self.seed.unwrap_or(usual.seed),
            choice: usual.choice,
        }
    }
}

/// What happened to a job: one line of `submit --json`, one event of the API's stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobUpdate {
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
    },
    /// The next token.
    Token {
        /// Its position.
        index: u64,
        /// The model's id for it, where there is one.
        id: Option<u32>,
        /// Its text.
        text: String,
    },
}

impl JobUpdate {
    /// What a user reads of an event. Receipts are kept in `folder`.
    pub fn of(job: JobId, event: JobEvent, folder: Option<&std::path::Path>) -> Self {
        match event {
            JobEvent::Bid(bid, provider) => Self::Bid {
                provider,
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
                    usage: completion.receipt.usage,
                    finish: completion.receipt.finish,
                }
            }
            JobEvent::Failed(error) => error.into(),
            JobEvent::Progress { done, of } => Self::Progress { done, of },
            JobEvent::Started { provider, offer } => Self::Started {
                job,
                provider,
                agent: offer.agent,
                model: offer.model.map(|model| model.name),
            },
            JobEvent::Token { index, token } => Self::Token { index, id: token.id, text: token.text },
        }
    }
}

impl From<JobError> for JobUpdate {
    fn from(error: JobError) -> Self {
        Self::Failed {
            code: error.code().to_owned(),
            message: error.to_string(),
            retryable: error.retryable(),
        }
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
mod tests {
    use crypto::{Network, SecretKey, Signed, Verified};
    use protocol::profile::Versions;
    use protocol::{AgentOffer, ModelOffer, Profile, Speed};

    use super::*;

    /// A peer that offers a model which it calls `name`.
    fn offering(seed: u8, name: &str, digest: Digest) -> Verified<Profile> {
        let model =
            ModelOffer { name: name.to_owned(), digest, manifest: false, engine: "e".to_owned(), context: 1 };
        let agent = AgentOffer {
            agent: "a".to_owned(),
            capability: Capability::text_generation(),
            model: Some(model),
            price: Price::default(),
            speed: Speed::default(),
            languages: Vec::new(),
            modalities: Vec::new(),
            tools: Vec::new(),
        };
        let profile = Profile {
            versions: Versions { min: 1, max: 1 },
            agents: vec![agent],
            issued: Timestamp(0),
            expires: Timestamp(1),
        };
        Signed::sign(&Network::default(), &SecretKey::from_seed(&[seed; 32]), profile)
    }

    #[test]
    fn a_stranger_cannot_take_over_a_models_name() {
        let (ours, theirs) = (Digest::of_content(b"ours"), Digest::of_content(b"theirs"));
        let alone = [offering(1, "foo", ours), offering(2, "foo", ours)];
        assert_eq!(resolve_model("foo", &alone), Ok(ours));
        let contested = [offering(1, "foo", ours), offering(2, "foo", theirs)];
        assert!(matches!(resolve_model("foo", &contested), Err(JobError::Invalid { .. })));
        assert_eq!(resolve_model(&ours.to_string(), &contested), Ok(ours), "a digest is nobody's to claim");
        let pinned = models::known::SMOLLM2.digest();
        assert_eq!(resolve_model("smollm2", &[offering(2, "smollm2", theirs)]), Ok(pinned));
    }

    #[test]
    fn a_vector_is_made_of_one_text() {
        let request = |messages: Vec<ChatMessage>, prompt: Option<&str>| JobRequest {
            capability: Some(Capability::text_embedding()),
            messages,
            prompt: prompt.map(str::to_owned),
            ..JobRequest::default()
        };
        let message = |role| ChatMessage { role, content: "x".to_owned(), name: None };
        for good in [request(Vec::new(), Some("x")), request(vec![message(Role::User)], None)] {
            let spec = good.spec(Timestamp(5), None).unwrap();
            assert_eq!((spec.kind, spec.input), (JobKind::Embed, Input::Text("x".to_owned())));
        }
        for bad in [vec![message(Role::System), message(Role::User)], vec![message(Role::System)], Vec::new()]
        {
            assert!(matches!(request(bad, None).spec(Timestamp(5), None), Err(JobError::Invalid { .. })));
        }
    }

    #[test]
    fn a_time_without_end_is_no_overflow() {
        let request =
            JobRequest { prompt: Some("x".to_owned()), timeout_s: Some(u64::MAX), ..JobRequest::default() };
        let spec = request.spec(Timestamp(5), None).unwrap();
        assert_eq!(spec.limits.deadline, Timestamp(u64::MAX));
    }
}
