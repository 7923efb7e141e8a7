//! A model without weights: what an engine costs in time, and a text that follows from its input.
//!
//! Slots run at once, the rest waits in line. A run reads its prompt in chunks and then writes a token at a time, at
//! the speeds that its host advertises. The answer is a function of model, input and seed alone, as exact inference
//! promises, so every provider of a model gives the same one and an invariant can hold them to it.

use std::collections::{BTreeMap, VecDeque};

use crypto::{Digest, Hasher, PeerId};
use protocol::event::{Production, Run, RunId};
use protocol::receipt::prompt_digest;
use protocol::{Finish, Input, JobId, Order, Rendering, Sampling, Timestamp, Token};

/// How fast, and how much at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Tokens of prompt per second.
    pub prefill: u32,
    /// Tokens of answer per second of one run.
    pub decode: u32,
    /// Runs at once.
    pub slots: usize,
}

/// Tokens of prompt read before the engine says how far it is.
const CHUNK: u32 = 64;
/// Size of the imagined vocabulary.
const VOCABULARY: u32 = 32_000;

/// The engine of one host.
#[derive(Debug)]
pub struct Engine {
    pace: Pace,
    running: BTreeMap<RunId, Work>,
    waiting: VecDeque<(RunId, Answer)>,
    /// For whom each run is, running or waiting.
    clients: BTreeMap<RunId, (PeerId, JobId)>,
}

#[derive(Debug)]
struct Work {
    answer: Answer,
    began: Timestamp,
    step: Step,
}

/// What a run produces next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Finish,
    Prompt,
    Read(u32),
    Write(u32),
}

/// Everything that a run will produce: it is known from the start, only the time is not.
#[derive(Clone, Debug)]
pub struct Answer {
    root: Hasher,
    prompt: u32,
    len: u32,
    finish: Finish,
    /// Tokens that somebody else has given: they are read like a prompt.
    inherited: u32,
    /// What the template was told by whoever began.
    template_time: Option<u64>,
}

impl Engine {
    /// An idle engine.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, running: BTreeMap::new(), waiting: VecDeque::new(), clients: BTreeMap::new() }
    }

    /// Takes a run, now or when a slot is free.
    pub fn start(&mut self, now: Timestamp, run: &Run) {
        let order = run.order.value();
        self.clients.insert(run.run, (run.order.signer(), order.job));
        let answer = Answer::to(order.model, &order.sampling, &run.input);
        self.waiting.push_back((run.run, answer.after(order)));
        self.fill(now);
    }

    /// Stops a run and forgets it.
    pub fn abort(&mut self, now: Timestamp, run: RunId) {
        self.clients.remove(&run);
        self.running.remove(&run);
        self.waiting.retain(|(waiting, _)| *waiting != run);
        self.fill(now);
    }

    /// The next thing that is due, if anything is.
    pub fn advance(&mut self, now: Timestamp) -> Option<(RunId, Production)> {
        let pace = self.pace;
        let due = |work: &Work| work.due(pace);
        let run = self.running.iter().filter(|(_, w)| due(w) <= now).min_by_key(|(r, w)| (due(w), **r));
        let run = run.map(|(run, _)| *run)?;
        let production = self.running.get_mut(&run)?.produce(now);
        if matches!(production, Production::Finished(_)) {
            self.clients.remove(&run);
            self.running.remove(&run);
            self.fill(now);
        }
        Some((run, production))
    }

    /// When [`Engine::advance`] has something.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.running.values().map(|work| work.due(self.pace)).min()
    }

    /// Runs that run or wait.
    #[must_use]
    pub fn load(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// True while something runs or waits for this peer: for one job of it, or for any.
    #[must_use]
    pub fn serves(&self, client: PeerId, job: Option<JobId>) -> bool {
        self.clients.values().any(|(peer, of)| *peer == client && job.is_none_or(|job| job == *of))
    }

    fn fill(&mut self, now: Timestamp) {
        while self.running.len() < self.pace.slots {
            let Some((run, answer)) = self.waiting.pop_front() else { return };
            self.running.insert(run, Work { answer, began: now, step: Step::Prompt });
        }
    }
}

impl Work {
    fn due(&self, pace: Pace) -> Timestamp {
        let millis = |tokens: u32, rate: u32| u64::from(tokens) * 1000 / u64::from(rate.max(1));
        let read = |tokens| millis(tokens, pace.prefill);
        let Answer { prompt, inherited, .. } = self.answer;
        let written = |tokens: u32| read(prompt + inherited) + millis(tokens - inherited, pace.decode);
        self.began.after(match self.step {
            Step::Prompt => 0,
            Step::Read(done) => read(done),
            Step::Write(index) => written(index + 1),
            Step::Finish => written(self.answer.len),
        })
    }

    fn produce(&mut self, now: Timestamp) -> Production {
        let Answer { prompt, len, finish, inherited, .. } = self.answer;
        let (production, step) = match self.step {
            Step::Prompt => (self.answer.rendered(now), Step::Read(CHUNK.min(prompt))),
            Step::Read(done) if done < prompt => {
                (Production::Progress { done, of: prompt }, Step::Read((done + CHUNK).min(prompt)))
            }
            Step::Read(done) => {
                let next = if inherited < len { Step::Write(inherited) } else { Step::Finish };
                (Production::Progress { done, of: prompt }, next)
            }
            Step::Write(index) => {
                let next = if index + 1 < len { Step::Write(index + 1) } else { Step::Finish };
                (Production::from(self.answer.token(index)), next)
            }
            Step::Finish => (Production::Finished(finish), Step::Finish),
        };
        self.step = step;
        production
    }
}

impl Answer {
    /// What any provider of this model answers.
    #[must_use]
    pub fn to(model: Option<Digest>, sampling: &Sampling, input: &Input) -> Self {
        let model = model.map(|model| *model.as_bytes()).unwrap_or_default();
        let seed = sampling.seed.to_le_bytes();
        let root = Hasher::new("simulation/answer").part(&model).part(&seed).part(text(input).as_bytes());
        let draw = first_number(&root);
        // Most answers stop by themselves, some hit their limit.
        let (limit, len) = (sampling.max_tokens, draw % (sampling.max_tokens + 8) + 1);
        let finish = if len < limit { Finish::EndOfText } else { Finish::Length };
        let prompt = u32::try_from(input.len() / 4).unwrap_or(u32::MAX).max(1);
        Self { root, prompt, len: len.min(limit), finish, inherited: 0, template_time: None }
    }

    /// The rest of it, for whoever goes on.
    fn after(self, order: &Order) -> Self {
        let inherited = u32::try_from(order.inherited()).unwrap_or(u32::MAX).min(self.len);
        let template_time = order.continues.map(|continues| continues.rendering.template_time);
        Self { inherited, template_time, ..self }
    }

    /// The whole text, token by token.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        (0..self.len).map(|index| self.token(index))
    }

    fn token(&self, index: u32) -> Token {
        let id = first_number(&self.root.clone().part(&index.to_le_bytes())) % VOCABULARY;
        Token { id: Some(id), text: format!(" w{id}") }
    }

    fn rendered(&self, now: Timestamp) -> Production {
        let prompt = prompt_digest(&[first_number(&self.root)]);
        let template_time = self.template_time.unwrap_or(now.0 / 1000);
        Production::Prompt(Rendering { prompt, tokens: self.prompt, template_time })
    }
}

fn first_number(hasher: &Hasher) -> u32 {
    let [a, b, c, d, ..] = *hasher.clone().finish().as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn text(input: &Input) -> String {
    match input {
        Input::Chat(chat) => chat.messages.iter().map(|message| message.content.as_str()).collect(),
        Input::Json(text) | Input::Text(text) => text.clone(),
        Input::Tokens(ids) => format!("{ids:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1000);

    fn answer(seed: u64, max_tokens: u32) -> Answer {
        let sampling = Sampling { seed, max_tokens, ..Sampling::default() };
        Answer::to(None, &sampling, &Input::Text("x".repeat(400)))
    }

    fn engine(slots: usize, runs: u64) -> Engine {
        let mut engine = Engine::new(Pace { prefill: 1000, decode: 100, slots });
        engine.waiting.extend((0..runs).map(|run| (RunId(run), answer(run, 20))));
        engine.fill(START);
        engine
    }

    /// Lets an engine work until it is done; returns what each run produced, with times.
    fn work(engine: &mut Engine) -> Vec<(u64, RunId, Production)> {
        let mut produced = Vec::new();
        while let Some(due) = engine.poll_timeout() {
            assert!(engine.advance(Timestamp(due.0 - 1)).is_none(), "nothing comes before it is due");
            let (run, production) = engine.advance(due).unwrap();
            produced.push((due.since(START), run, production));
        }
        produced
    }

    #[test]
    fn a_run_reads_in_chunks_and_writes_at_its_pace() {
        let produced = work(&mut engine(1, 1));
        let tokens = answer(0, 20).tokens().count() as u64;
        assert!(matches!(produced[0], (0, _, Production::Prompt(Rendering { tokens: 100, .. }))));
        assert!(matches!(produced[1], (64, _, Production::Progress { done: 64, of: 100 })));
        assert!(matches!(produced[2], (100, _, Production::Progress { done: 100, of: 100 })));
        assert!(matches!(produced[3], (110, _, Production::Token { .. })));
        let (end, _, last) = produced.last().unwrap();
        assert_eq!(*end, 100 + 10 * tokens);
        assert!(matches!(last, Production::Finished(_)));
    }

    #[test]
    fn slots_bound_what_runs_and_an_abort_frees_one() {
        let mut engine = engine(2, 4);
        assert_eq!((engine.running.len(), engine.load()), (2, 4));
        engine.abort(START, RunId(0));
        engine.abort(START, RunId(3));
        assert_eq!((engine.running.len(), engine.load()), (2, 2));
        assert!(work(&mut engine).iter().all(|(_, run, _)| [RunId(1), RunId(2)].contains(run)));
    }

    #[test]
    fn an_answer_follows_from_its_seed_and_keeps_its_limit() {
        let text = |seed| answer(seed, 20).tokens().collect::<Vec<_>>();
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert!((0..50).all(|seed| (1..=20).contains(&text(seed).len())));
    }
}
