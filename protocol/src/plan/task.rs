//! One job of a plan: its name, what the driver makes a job of, and what the journal keeps of it.

use crypto::{Digest, Hasher, PeerId};
use minijinja::Value;
use serde::{Deserialize, Serialize};

use super::template::{Context, TemplateError, render};
use super::{Call, Expectation, Generate, Node, Work};
use crate::{Chat, ChatMessage, Constraint, Credits, Input, JobKind, Requirement, Role, Sampling, codec};

/// The name of one try of one job in one execution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskId {
    /// The node.
    pub node: String,
    /// The place in the list that the node maps, or the number of the group in a reduce tree; else 0.
    pub item: u32,
    /// Which of several answers to one prompt.
    pub choice: u16,
    /// Which try; the first is 0.
    pub attempt: u8,
}

/// A job that the driver is to submit.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name; events about it carry it.
    pub id: TaskId,
    /// The name of the question: equal ones are asked once.
    pub digest: Digest,
    /// What is to be done.
    pub kind: JobKind,
    /// What the provider must have. The model is [`Task::model`], and for the driver to look up.
    pub requirement: Requirement,
    /// Exactly this model, by digest or name.
    pub model: Option<String>,
    /// What the work starts from.
    pub input: Input,
    /// How tokens are chosen. Each try has another seed, or it would repeat the answer that was not good enough.
    pub sampling: Sampling,
    /// What form the answer must have.
    pub constraint: Option<Constraint>,
    /// All that it may cost; set aside for it.
    pub budget: Credits,
    /// Peers that failed at it.
    pub avoid: Vec<PeerId>,
}

/// What the journal keeps of a task that is over. An execution that is begun with it does not run the task again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Which one.
    pub task: TaskId,
    /// The question. An entry about another question than the plan asks now does not count.
    pub digest: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    pub cost: Credits,
    /// By whom it was done, where that is known.
    pub provider: Option<PeerId>,
    /// Its receipt, by digest, if it got that far.
    pub receipt: Option<Digest>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer is what was expected.
    Done {
        /// Its text.
        output: String,
    },
    /// There is no answer, or not the expected one.
    Failed {
        /// Why.
        why: String,
        /// Whether another try may do better.
        retryable: bool,
    },
}

/// A question: everything of a [`Task`] that has an influence on its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    pub(super) kind: JobKind,
    pub(super) requirement: Requirement,
    pub(super) model: Option<String>,
    pub(super) input: Input,
    pub(super) sampling: Sampling,
    pub(super) expect: Option<Expectation>,
}

/// Which job of a node, as its templates see it: `item` and `index`, or `items`.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The only one.
    Whole,
    /// One element of the list that the node maps.
    Item(u32, Value),
    /// A group of neighbours in a reduce tree.
    Group(Vec<Value>),
}

impl Place {
    /// What templates see at this place.
    pub(super) fn within(&self, mut context: Context) -> Context {
        match self {
            Self::Whole => {}
            Self::Item(index, item) => {
                context.extend([("index", Value::from(*index)), ("item", item.clone())]);
            }
            Self::Group(items) => context.extend([("items", Value::from(items.clone()))]),
        }
        context
    }
}

impl Question {
    /// What a node asks in this context; `None` where it asks nobody.
    pub(super) fn of(node: &Node, choice: u16, context: &Context) -> Option<Result<Self, String>> {
        let expect = node.expect.clone();
        match &node.work {
            Work::Generate(work) => Some(generate(work, choice, expect, context)),
            Work::Reduce(work) => Some(generate(&work.by, choice, expect, context)),
            Work::Call(work) => Some(call(work, expect, context)),
            Work::Concatenate(_) | Work::Vote(_) | Work::Pick(_) => None,
        }
    }

    /// The same for equal questions only.
    pub(super) fn digest(&self) -> Digest {
        let expect = self.expect.as_ref().map(|expect| serde_json::to_vec(expect).unwrap_or_default());
        let rest = (self.kind, &self.requirement, &self.model, &self.sampling, expect);
        Hasher::new("plan question").part(&codec::encode(&rest)).part(&codec::encode(&self.input)).finish()
    }

    /// The task that asks it.
    pub(super) fn into_task(self, id: TaskId, digest: Digest, budget: Credits, avoid: Vec<PeerId>) -> Task {
        let Self { kind, requirement, model, input, mut sampling, expect } = self;
        sampling.seed = sampling.seed.wrapping_add(u64::from(id.attempt));
        let constraint = expect.and_then(|expect| expect.constraint()).filter(|_| kind == JobKind::Generate);
        Task { id, digest, kind, requirement, model, input, sampling, constraint, budget, avoid }
    }
}

impl Generate {
    /// What its providers must have.
    pub(super) fn requirement(&self) -> Requirement {
        let (capability, ceiling) = (self.capability.clone(), self.ceiling);
        Requirement { capability, model: None, context: self.context, ceiling }
    }

    /// How one of its choices is sampled.
    pub(super) fn sampling(&self, choice: u16) -> Sampling {
        let (max_tokens, temperature, seed) = (self.max_tokens, self.temperature, self.seed);
        Sampling { max_tokens, temperature, seed, choice: choice.into(), ..Sampling::default() }
    }
}

fn generate(
    work: &Generate,
    choice: u16,
    expect: Option<Expectation>,
    context: &Context,
) -> Result<Question, String> {
    let rendered =
        |field: &str, source: &str| render(source, context).map_err(|error| located(field, &error));
    let system = work.system.as_deref().map(|source| rendered("system", source)).transpose()?;
    let system = system.map(|text| ChatMessage::new(Role::System, text));
    let prompt = ChatMessage::new(Role::User, rendered("prompt", &work.prompt)?);
    let input = Input::Chat(Chat::from(system.into_iter().chain([prompt]).collect::<Vec<_>>()));
    input.check().map_err(|error| error.to_string())?;
    let (requirement, sampling) = (work.requirement(), work.sampling(choice));
    Ok(Question { kind: JobKind::Generate, requirement, model: work.model.clone(), input, sampling, expect })
}

fn call(work: &Call, expect: Option<Expectation>, context: &Context) -> Result<Question, String> {
    let arguments = render(&work.arguments, context).map_err(|error| located("arguments", &error))?;
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&arguments);
    let object = object.map_err(|error| format!("`arguments` render to no JSON object: {error}"))?;
    let input = Input::Json(serde_json::Value::Object(object).to_string());
    let capability = work.capability.clone();
    let requirement = Requirement { capability, model: None, context: 0, ceiling: None };
    Ok(Question {
        kind: JobKind::Call,
        requirement,
        model: None,
        input,
        sampling: Sampling::default(),
        expect,
    })
}

fn located(field: &str, error: &TemplateError) -> String {
    format!("`{field}`, {error}")
}
