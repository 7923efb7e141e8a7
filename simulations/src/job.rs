//! The jobs of a scenario: what was submitted, what its submitter was told, how it ended.

use std::collections::BTreeMap;

use protocol::event::Submission;
use protocol::job::Salt;
use protocol::{
    Chat, ChatMessage, Credits, Input, JobId, JobKind, JobSpec, Limits, Preference, Requirement, Role,
    Sampling, Timestamp, Token,
};

use crate::chance::Chance;
use crate::host::HostId;
use crate::scenario::Batch;

/// Every prompt begins with this, and nothing else ever holds it: whoever sees it has seen a prompt.
pub const MARKER: &str = "prompt:7f3a91c4";
/// More than any job here may cost.
const BUDGET: Credits = Credits(1_000_000_000);

/// A job, from its submission to its last event.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who submitted it.
    pub host: HostId,
    /// What was wanted.
    pub spec: JobSpec,
    /// When.
    pub submitted: Timestamp,
    /// When the first token was there.
    pub first_token: Option<Timestamp>,
    /// Providers that were started on it.
    pub started: u32,
    /// What its submitter has read.
    pub output: Vec<Token>,
    /// When and how it ended.
    pub end: Option<(Timestamp, End)>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With a receipt.
    Done,
    /// With an error of this code.
    Failed(&'static str),
    /// With its submitter: the host went down, and nobody is left to be told.
    Orphaned,
}

/// All jobs, by name.
pub type Jobs = BTreeMap<JobId, Job>;

impl Batch {
    /// Makes the next job of the batch; `clock` is its submitter's.
    pub(crate) fn draw(&self, chance: &mut Chance, clock: Timestamp) -> Submission {
        let (job, salt) = (JobId(chance.bytes()), Salt(chance.bytes()));
        Submission { job, salt, spec: self.spec(chance, clock), run: None, trace: None }
    }

    fn spec(&self, chance: &mut Chance, clock: Timestamp) -> JobSpec {
        let requirement =
            Requirement { capability: self.capability.clone(), model: None, context: 0, ceiling: None };
        let max_tokens = chance.between(self.tokens.min, self.tokens.max);
        let max_tokens = u32::try_from(max_tokens).unwrap_or(Sampling::MAX_TOKENS);
        let sampling = Sampling { max_tokens, seed: chance.number(), ..Sampling::default() };
        let deadline = clock.after(self.deadline);
        JobSpec {
            kind: JobKind::Generate,
            requirement,
            provider: None,
            choosing: self.choosing,
            preference: Preference::default(),
            input: self.input(chance),
            sampling,
            limits: Limits { budget: BUDGET, depth: 0, children: 0, deadline },
            constraint: None,
            approval: Vec::new(),
            parent: None,
        }
    }

    fn input(&self, chance: &mut Chance) -> Input {
        let len = chance.between(self.prompt.min, self.prompt.max) as usize;
        let mut content = MARKER.to_owned();
        while content.len() < len {
            content.push_str(&format!(" {:x}", chance.below(1 << 24)));
        }
        match chance.below(2) {
            0 => Input::Text(content),
            _ => Input::Chat(Chat::from(vec![ChatMessage::new(Role::User, content)])),
        }
    }
}

impl Job {
    /// A job that is just being submitted.
    #[must_use]
    pub fn new(host: HostId, spec: JobSpec, submitted: Timestamp) -> Self {
        Self { host, spec, submitted, first_token: None, started: 0, output: Vec::new(), end: None }
    }
}
