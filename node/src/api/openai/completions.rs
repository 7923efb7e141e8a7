//! `/v1/completions`: raw text or token ids go on, and how likely they are is told.
//!
//! A prompt comes back with `echo`. How likely *its* tokens are is a job of its own, of the kind `score`; so is reading
//! what token ids say. Evaluations ask for nothing else: `echo`, `logprobs` and one token, or none.

use std::collections::VecDeque;

use axum::response::Response;
use futures::Stream;
use futures::stream::unfold;
use protocol::{JobError, JobKind, JobSpec, Logprobs, Sampling, Scores, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::course::{Course, News, Told};
use super::likely::Likely;
use super::prompts::{Prompt, Prompts};
use super::reply::{Bill, Reply, reason};
use super::target::{Aimed, aim};
use super::{Choosing, Error, Gateway};
use crate::request::JobRequest;

/// What this build understands of a request.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    prompt: Prompts,
    max_tokens: Option<u32>,
    echo: Option<bool>,
    logprobs: Option<u8>,
    suffix: Option<String>,
    #[serde(flatten)]
    choosing: Choosing,
}

/// Answers in one reply at most: prompts times choices, each a job.
const MAX_JOBS: usize = 128;
/// Length of an answer unless told otherwise, as OpenAI has it.
const USUAL: u32 = 16;

pub(super) async fn answer(
    gateway: Gateway,
    Body { request, options, .. }: Body<CompletionRequest>,
) -> Result<Response, Error> {
    let (plan, choosing) = (request.plan()?, &request.choosing);
    // All prompts go the same way, so names are looked up once.
    let aimed = aim(&gateway, &choosing.model, &options, request.first(&plan)).await?.shared(plan.jobs());
    let begun = plan.begin(&gateway, &aimed).await.map_err(|error| aimed.error(error))?;
    let text = Text { begun, choices: plan.choices };
    let (specs, counts) = (plan.specs(&aimed.spec), choosing.counts());
    if specs.is_empty() {
        let reply = Reply::text(text.begun.job(), &aimed, counts);
        return Ok(text.alone(&reply, choosing.streams()));
    }
    let course = Course::start(&gateway.node, specs)?;
    let reply = Reply::text(course.job(0), &aimed, counts);
    if choosing.streams() {
        let course = course.begun().await.map_err(|error| aimed.error(error))?;
        return Ok(reply.stream(chunks(course, reply.clone(), aimed, text)));
    }
    let told = course.all().await.map_err(|error| aimed.error(error))?;
    Ok(whole(&told, &reply, &text))
}

/// What is to be done for a request.
struct Plan {
    prompts: Vec<Prompt>,
    /// Answers to each.
    choices: u32,
    /// Whether the prompt is a part of the answer.
    echo: bool,
    /// Whether the prompt is scored: to tell how likely it is, or what its ids say.
    score: bool,
    max_tokens: u32,
}

impl CompletionRequest {
    /// The job of the first prompt.
    pub(super) fn job(&self) -> Result<JobRequest, Error> {
        Ok(self.first(&self.plan()?))
    }

    fn plan(&self) -> Result<Plan, Error> {
        let prompts = self.prompt.all();
        let (choices, echo) = (self.choosing.choices()?, self.echo == Some(true));
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            let message = "suffix is not supported; put all of the text before the prompt's end";
            return Err(Error::unsupported(message).about("suffix"));
        }
        if prompts.is_empty() || prompts.len() * choices as usize > MAX_JOBS {
            let message = format!("prompts times n must be between 1 and {MAX_JOBS}");
            return Err(Error::invalid(message).about("prompt"));
        }
        let max_tokens = self.max_tokens.unwrap_or(USUAL);
        if max_tokens == 0 && !echo {
            let message = "max_tokens must be 1 at least, unless echo gives the prompt back";
            return Err(Error::invalid(message).about("max_tokens"));
        }
        let ids = prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_)));
        Ok(Plan { score: echo && (ids || self.logprobs.is_some()), prompts, choices, echo, max_tokens })
    }

    fn first(&self, plan: &Plan) -> JobRequest {
        let request = JobRequest {
            kind: Some(JobKind::Generate),
            logprobs: self.logprobs,
            max_tokens: Some(plan.max_tokens.max(1)),
            ..self.choosing.job()
        };
        match plan.prompts.first() {
            Some(prompt) => prompt.on(request),
            None => request,
        }
    }
}

impl Plan {
    /// How many jobs there are to be.
    fn jobs(&self) -> usize {
        let each = if self.max_tokens > 0 { self.choices as usize } else { 0 };
        self.prompts.len() * (each + usize::from(self.score))
    }

    /// The jobs that generate, all choices of a prompt side by side; none where nothing is to be.
    fn specs(&self, base: &JobSpec) -> Vec<JobSpec> {
        let prompts = self.prompts.iter().filter(|_| self.max_tokens > 0);
        let spec = |prompt: &Prompt, choice| JobSpec {
            input: prompt.input(),
            sampling: Sampling { choice, ..base.sampling.clone() },
            ..base.clone()
        };
        prompts.flat_map(|prompt| (0..self.choices).map(move |choice| spec(prompt, choice))).collect()
    }

    /// What stands before the answers.
    async fn begin(&self, gateway: &Gateway, aimed: &Aimed) -> Result<Begun, Error> {
        let base = &aimed.spec;
        let tells = base.sampling.logprobs.is_some();
        if !self.score {
            let text = |prompt: &Prompt| match prompt {
                Prompt::Text(text) if self.echo => text.clone(),
                Prompt::Text(_) | Prompt::Tokens(_) => String::new(),
            };
            let echoes = self.prompts.iter().map(|prompt| Echo { text: text(prompt), scores: None });
            return Ok(Begun { echoes: echoes.collect(), scored: Vec::new(), tells });
        }
        let spec = |prompt: &Prompt| JobSpec {
            kind: JobKind::Score,
            input: prompt.input(),
            sampling: Sampling { max_tokens: Scores::MAX_PIECES, stop: Vec::new(), ..base.sampling.clone() },
            ..base.clone()
        };
        let scored = Course::start(&gateway.node, self.prompts.iter().map(spec).collect())?.all().await?;
        let echoes = self.prompts.iter().zip(&scored).map(|(prompt, told)| Echo::of(prompt, told));
        let echoes = echoes.collect::<Result<_, _>>()?;
        Ok(Begun { echoes, scored, tells })
    }
}

/// A prompt as it comes back.
struct Echo {
    text: String,
    scores: Option<Scores>,
}

impl Echo {
    /// A prompt that was scored.
    fn of(prompt: &Prompt, told: &Told) -> Result<Self, JobError> {
        let scores = Scores::parse(&told.text()).ok_or(JobError::Engine)?;
        let text = match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(_) => scores.texts.concat(),
        };
        Ok(Self { text, scores: Some(scores) })
    }
}

/// What stands before the answers, a text for each prompt.
struct Begun {
    echoes: Vec<Echo>,
    /// The jobs that told how likely it is.
    scored: Vec<Told>,
    /// Whether likelihoods are wanted.
    tells: bool,
}

impl Begun {
    /// The name of the first job, or of none where nothing was to be done.
    fn job(&self) -> protocol::JobId {
        self.scored.first().map_or(protocol::JobId([0; 16]), |told| told.completion.receipt.job)
    }

    /// How likely a prompt's tokens are.
    fn likely(&self, prompt: usize) -> Likely {
        let Echo { text, scores } = &self.echoes[prompt];
        let Some(Scores { texts, logprobs, top, .. }) = scores else {
            return Likely::after(text.chars().count());
        };
        let mut likely = Likely::default();
        for ((text, logprob), top) in texts.iter().zip(logprobs).zip(top) {
            likely.push(text, logprob.map(|logprob| (logprob, top.as_deref().unwrap_or_default())));
        }
        likely
    }

    fn likely_value(&self, prompt: usize) -> Value {
        if self.tells { self.likely(prompt).value() } else { Value::Null }
    }
}

/// Answers and what stands before them.
struct Text {
    begun: Begun,
    /// Answers to each prompt.
    choices: u32,
}

impl Text {
    fn prompt(&self, index: usize) -> usize {
        index / self.choices as usize
    }

    /// The reply that is nothing but the prompts.
    fn alone(self, reply: &Reply, streams: bool) -> Response {
        let mut bill = Bill::default();
        self.begun.scored.iter().for_each(|told| bill.add_read(&told.completion));
        let choice = |index: usize| {
            let prompt = self.prompt(index);
            let text = &self.begun.echoes[prompt].text;
            json!({ "index": index, "text": text, "logprobs": self.begun.likely_value(prompt),
                    "finish_reason": "length" })
        };
        let count = self.begun.echoes.len() * self.choices as usize;
        let choices: Vec<Value> = (0..count).map(choice).collect();
        if !streams {
            return reply.whole(choices, &bill);
        }
        let lines: Vec<String> = choices.into_iter().map(|choice| reply.chunk(choice).to_string()).collect();
        reply.stream(futures::stream::iter(lines.into_iter().chain(reply.end(&bill))))
    }

    fn logprobs(&self, mut likely: Likely, tokens: &[(Token, Option<Logprobs>)]) -> Value {
        if !self.begun.tells {
            return Value::Null;
        }
        for (token, logprobs) in tokens {
            let told = logprobs.as_ref().map(|told| (told.logprob, told.top.as_slice()));
            if told.is_some() || !token.text.is_empty() {
                likely.push(&token.text, told);
            }
        }
        likely.value()
    }
}

fn whole(told: &[Told], reply: &Reply, text: &Text) -> Response {
    let (mut choices, mut bill) = (Vec::new(), Bill::default());
    for (index, told) in told.iter().enumerate() {
        bill.add(&told.completion);
        let (begun, prompt) = (&text.begun, text.prompt(index));
        choices.push(json!({
            "index": index,
            "text": begun.echoes[prompt].text.clone() + &told.text(),
            "logprobs": text.logprobs(begun.likely(prompt), &told.tokens),
            "finish_reason": reason(told.completion.receipt.finish),
        }));
    }
    text.begun.scored.iter().for_each(|told| bill.keep(&told.completion));
    reply.whole(choices, &bill)
}

/// A reply that is being streamed.
struct Streamed {
    course: Course,
    reply: Reply,
    aimed: Aimed,
    text: Text,
    bill: Bill,
    /// Characters of each answer so far.
    offsets: Vec<usize>,
    queue: VecDeque<String>,
}

/// Everything that events become; the stream ends after `[DONE]`, or after an error.
fn chunks(course: Course, reply: Reply, aimed: Aimed, text: Text) -> impl Stream<Item = String> {
    let offsets = (0..course.len()).map(|index| text.begun.likely(text.prompt(index)).offset()).collect();
    let mut streamed =
        Streamed { course, reply, aimed, text, bill: Bill::default(), offsets, queue: VecDeque::new() };
    for index in 0..streamed.course.len() {
        let prompt = streamed.text.prompt(index);
        let echo = streamed.text.begun.echoes[prompt].text.clone();
        if !echo.is_empty() {
            let logprobs = streamed.text.begun.likely_value(prompt);
            streamed.say(index, &echo, logprobs);
        }
    }
    unfold(streamed, |mut streamed| async move {
        while streamed.queue.is_empty() {
            match streamed.course.next().await? {
                Ok(news) => streamed.tell(news),
                Err(error) => streamed.queue.push_back(streamed.aimed.error(error).body().to_string()),
            }
        }
        let line = streamed.queue.pop_front()?;
        Some((line, streamed))
    })
}

impl Streamed {
    fn tell(&mut self, (index, news): (usize, News)) {
        match news {
            News::Token(token, logprobs) => {
                if token.text.is_empty() && logprobs.is_none() {
                    return;
                }
                let likely = Likely::after(self.offsets[index]);
                self.offsets[index] += token.text.chars().count();
                let said = token.text.clone();
                let logprobs = self.text.logprobs(likely, &[(token, logprobs)]);
                self.say(index, &said, logprobs);
            }
            News::Done(completion) => {
                let finish = reason(completion.receipt.finish);
                let choice = json!({ "index": index, "text": "", "logprobs": null, "finish_reason": finish });
                self.queue.push_back(self.reply.last_chunk(choice, &completion).to_string());
                self.bill.add(&completion);
                if self.course.is_over() {
                    self.text.begun.scored.iter().for_each(|told| self.bill.keep(&told.completion));
                    self.queue.extend(self.reply.end(&self.bill));
                }
            }
        }
    }

    fn say(&mut self, index: usize, text: &str, logprobs: Value) {
        let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": null });
        self.queue.push_back(self.reply.chunk(choice).to_string());
    }
}
