//! Values with names: the peers, offers and jobs of the stories, always the same.

use crypto::{Digest, PeerId, SecretKey};
use protocol::event::Production;
use protocol::job::Salt;
use protocol::message::Ask;
use protocol::profile::{LatencyClass, Speed};
use protocol::receipt::{Rendering, prompt_digest};
use protocol::{
    AgentOffer, Capability, Choosing, Credits, Finish, Input, JobId, JobKind, JobSpec, Limits, ModelOffer,
    Preference, Price, Requirement, Sampling, Timestamp, Token,
};

/// When every story begins.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);
/// What no stranger may ever read.
pub(crate) const PROMPT: &str = "the prompt that only the winner may see";
pub(crate) const SALT: Salt = Salt([7; 16]);

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn peer(seed: u8) -> PeerId {
    key(seed).peer_id()
}

pub(crate) fn job_id(n: u8) -> JobId {
    JobId([n; 16])
}

pub(crate) fn capability(text: &str) -> Capability {
    text.parse().unwrap()
}

pub(crate) fn price(prompt: u64, completion: u64) -> Price {
    Price { prompt: Credits(prompt), completion: Credits(completion) }
}

/// An agent with a model. Its price is what a thousand tokens of the answer cost.
pub(crate) fn offer(capability: &Capability, completion: u64) -> AgentOffer {
    AgentOffer {
        agent: "writer".into(),
        capability: capability.clone(),
        kinds: vec![JobKind::Generate, JobKind::Score],
        model: Some(ModelOffer {
            name: "tiny".into(),
            digest: Digest::of_content(b"tiny"),
            manifest: false,
            engine: "candle-f32/1".into(),
            context: 2048,
        }),
        price: price(0, completion),
        speed: Speed { prefill: 1000, decode: 50, latency: LatencyClass::Interactive },
        languages: vec!["en".into()],
        modalities: vec!["text".into()],
        tools: Vec::new(),
    }
}

pub(crate) fn text_offer(completion: u64) -> AgentOffer {
    offer(&Capability::text_generation(), completion)
}

/// A job for anybody who generates text.
pub(crate) fn spec() -> JobSpec {
    JobSpec {
        kind: JobKind::Generate,
        requirement: Requirement {
            capability: Capability::text_generation(),
            model: None,
            context: 0,
            ceiling: None,
        },
        provider: None,
        choosing: Choosing::Direct,
        preference: Preference::default(),
        input: Input::Text(PROMPT.into()),
        sampling: Sampling { max_tokens: 100, ..Sampling::default() },
        limits: Limits { budget: Credits(1_000_000), depth: 2, children: 4, deadline: START.after(300_000) },
        constraint: None,
        approval: Vec::new(),
        parent: None,
    }
}

pub(crate) fn auction() -> JobSpec {
    JobSpec { choosing: Choosing::Auction, ..spec() }
}

pub(crate) fn for_peer(provider: PeerId) -> JobSpec {
    JobSpec { provider: Some(provider), ..spec() }
}

pub(crate) fn token(index: u32) -> Token {
    Token { id: Some(index), text: format!(" w{index}") }
}

pub(crate) fn rendering() -> Rendering {
    Rendering { prompt: prompt_digest(&[1, 2, 3, 4, 5]), tokens: 5, template_time: 1_700_000_000 }
}

pub(crate) fn rendered() -> Production {
    Production::Prompt(rendering())
}

/// A whole answer: the prompt, `tokens` tokens, the end.
pub(crate) fn answer(tokens: u32) -> Vec<Production> {
    let tokens = (0..tokens).map(|index| Production::from(token(index)));
    [rendered()].into_iter().chain(tokens).chain([Production::Finished(Finish::EndOfText)]).collect()
}

/// A question for `job` as a stranger sees it.
pub(crate) fn ask(job: JobId) -> Ask {
    Ask {
        job,
        kind: JobKind::Generate,
        requirement: spec().requirement,
        input: Digest::of("test", b"input"),
        input_len: 40,
        max_tokens: 100,
        deadline: START.after(60_000),
    }
}
