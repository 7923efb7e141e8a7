//! What a program offers to the mesh: one trait of one function, and the agent that the mesh sees.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::error::Feature;
use protocol::profile::LatencyClass;
use protocol::{AgentOffer, Capability, Finish, Input, JobError, JobKind, Price, Speed, Token};

use crate::agents::{Agent, Context, Job, Running};

/// Something that a program can do for others.
///
/// ```
/// use node::sdk::{Question, Say, Skill};
/// use protocol::JobError;
///
/// /// Says everything backwards.
/// #[derive(Debug)]
/// struct Backwards;
///
/// impl Skill for Backwards {
///     async fn answer(&self, question: &Question, say: &Say) -> Result<(), JobError> {
///         for word in question.text().split(' ').rev() {
///             say.text(&format!("{word} ")).await;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Skill: Debug + Send + Sync + 'static {
    /// Answers a question piece by piece. Dropping the future cancels the work. What a stranger asks is in it: trust
    /// nothing of it.
    fn answer(&self, question: &Question, say: &Say) -> impl Future<Output = Result<(), JobError>> + Send;
}

/// What is asked.
#[derive(Debug)]
pub struct Question(Job);

impl Question {
    /// The last message of a chat, a text as it is, or a tool's arguments (a JSON object).
    pub fn text(&self) -> &str {
        match &self.0.input {
            Input::Chat(chat) => chat.messages.last().map_or("", |message| &message.content),
            Input::Text(text) | Input::Json(text) => text,
            Input::Tokens(_) => "",
        }
    }

    /// Everything that is known of it: the whole conversation, who asks, sampling, limits.
    pub fn job(&self) -> &Job {
        &self.0
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Say {
    context: Context,
    left: AtomicU32,
}

impl Say {
    /// The next piece. Waits while the network is behind. What is longer than the question allows is not said; then
    /// this is false, and nothing more need be said.
    pub async fn text(&self, text: &str) -> bool {
        let mut rest = text;
        while !rest.is_empty() {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                return false;
            }
            self.left.store(left - 1, Ordering::Relaxed);
            let (piece, more) = rest.split_at(rest.floor_char_boundary(Token::MAX_TEXT));
            rest = more;
            self.context.token(Token { id: None, text: piece.to_owned() }).await;
        }
        true
    }

    /// The way to sub-jobs, within what is left of this one's limits.
    pub fn context(&self) -> &Context {
        &self.context
    }

    fn is_full(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// The agent that the mesh sees.
#[derive(Debug)]
pub(super) struct Skilled<S> {
    skill: S,
    offer: AgentOffer,
}

impl<S: Skill> Skilled<S> {
    pub(super) fn new(skill: S, capability: Capability, price: Price) -> Self {
        let kind = if Capability::tool().covers(&capability) { JobKind::Call } else { JobKind::Generate };
        let offer = AgentOffer {
            agent: format!("skill-{capability}"),
            capability,
            kinds: vec![kind],
            model: None,
            price,
            // Nobody has measured it; a modest promise is easily kept.
            speed: Speed { prefill: 1000, decode: 100, latency: LatencyClass::Interactive },
            languages: Vec::new(),
            modalities: vec!["text".to_owned()],
            tools: Vec::new(),
        };
        Self { skill, offer }
    }
}

impl<S: Skill> Agent for Skilled<S> {
    fn offer(&self) -> AgentOffer {
        self.offer.clone()
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move {
            job.check_without(&[
                Feature::Constraint,
                Feature::Logprobs,
                Feature::Tools,
                Feature::Continuation,
            ])?;
            let say = Say { context, left: AtomicU32::new(job.order.sampling.max_tokens) };
            self.skill.answer(&Question(job), &say).await?;
            Ok(if say.is_full() { Finish::Length } else { Finish::EndOfText })
        })
    }
}
