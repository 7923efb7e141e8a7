//! `/v1/completions`: raw text or token ids go on, and how likely they are is told.
//!
//! A prompt comes back with `echo`. How likely *its* tokens are is a job of its own, of the kind `score`; so is reading
//! what token ids say. Evaluations ask for nothing else: `echo`, `logprobs` and one token, or none.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use protocol::{Input, JobError, JobKind, JobSpec, Logprobs, Sampling, Scores, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::course::{Course, News, Told};
use super::likely::Likely;
use super::reply::{Bill, Reply, events, reason, receipt};
use super::{Api, Choosing, Error};
use crate::api::control;
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

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Batch(Vec<Vec<u32>>),
}

/// Where an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// Answers in one reply at most: prompts times choices, each a job.
const MAX_JOBS: usize = 128;
/// Length of an answer unless told otherwise, as OpenAI has it.
const USUAL: u32 = 16;

pub(super) async fn answer(
    State(api): State<Api>,
    body: Result<Json<CompletionRequest>, JsonRejection>,
) -> Result<Response, Error> {
    let Json(request) = body.map_err(|rejection| Error::invalid(rejection.body_text()))?;
    let plan = request.plan()?;
    // All prompts go the same way, so names are looked up once.
    let base = control::spec(&api.node, &request.job(&plan)).await?;
    let text = Text { begun: plan.begin(&api, &base).await?, choices: plan.choices };
    let specs = plan.specs(&base);
    if specs.is_empty() {
        let reply = Reply::text(text.begun.job(), &request.choosing.model, request.choosing.counts());
        return Ok(text.alone(&reply, request.choosing.streams()));
    }
    let course = Course::start(&api.node, specs)?;
    let reply = Reply::text(course.job(0), &request.choosing.model, request.choosing.counts());
    if request.choosing.streams() {
        return Ok(events(chunks(course, reply, text)));
    }
    Ok(Json(whole(course, &reply, &text).await?).into_response())
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
    fn plan(&self) -> Result<Plan, Error> {
        let prompts = self.prompt.all();
        let (choices, echo) = (self.choosing.choices()?, self.echo == Some(true));
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Error::invalid(
                "suffix is not supported; put all of the text before the prompt's end",
            ));
        }
        if prompts.is_empty() || prompts.len() * choices as usize > MAX_JOBS {
            return Err(Error::invalid(format!("prompts times n must be between 1 and {MAX_JOBS}")));
        }
        let max_tokens = self.max_tokens.unwrap_or(USUAL);
        if max_tokens == 0 && !echo {
            return Err(Error::invalid("max_tokens must be 1 at least, unless echo gives the prompt back"));
        }
        let ids = prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_)));
        Ok(Plan { score: echo && (ids || self.logprobs.is_some()), prompts, choices, echo, max_tokens })
    }

    /// The job of the first prompt.
    fn job(&self, plan: &Plan) -> JobRequest {
        let max_tokens = Some(plan.max_tokens.max(1));
        let request = JobRequest { logprobs: self.logprobs, max_tokens, ..self.choosing.job() };
        match plan.prompts.first() {
            Some(Prompt::Text(text)) => JobRequest { text: Some(text.clone()), ..request },
            Some(Prompt::Tokens(ids)) => JobRequest { tokens: ids.clone(), ..request },
            None => request,
        }
    }
}

impl Prompt {
    fn input(&self) -> Input {
        match self {
            Self::Text(text) => Input::Text(text.clone()),
            Self::Tokens(ids) => Input::Tokens(ids.clone()),
        }
    }
}

impl Prompts {
    fn all(&self) -> Vec<Prompt> {
        match self {
            Self::Text(text) => vec![Prompt::Text(text.clone())],
            Self::Texts(texts) => texts.iter().cloned().map(Prompt::Text).collect(),
            Self::Tokens(ids) => vec![Prompt::Tokens(ids.clone())],
            Self::Batch(all) => all.iter().cloned().map(Prompt::Tokens).collect(),
        }
    }
}

impl Plan {
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
    async fn begin(&self, api: &Api, base: &JobSpec) -> Result<Begun, Error> {
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
        let scored = Course::start(&api.node, self.prompts.iter().map(spec).collect())?.all().await?;
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
            return Json(reply.whole(choices, &bill)).into_response();
        }
        let lines: Vec<String> = choices.into_iter().map(|choice| reply.chunk(choice).to_string()).collect();
        events(futures::stream::iter(lines.into_iter().chain(reply.end(&bill))))
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

async fn whole(course: Course, reply: &Reply, text: &Text) -> Result<Value, Error> {
    let (mut choices, mut bill) = (Vec::new(), Bill::default());
    for (index, told) in course.all().await?.iter().enumerate() {
        bill.add(&told.completion);
        let (begun, prompt) = (&text.begun, text.prompt(index));
        choices.push(json!({
            "index": index,
            "text": begun.echoes[prompt].text.clone() + &told.text(),
            "logprobs": text.logprobs(begun.likely(prompt), &told.tokens),
            "finish_reason": reason(told.completion.receipt.finish),
        }));
    }
    Ok(reply.whole(choices, &bill))
}

/// A reply that is being streamed.
struct Streamed {
    course: Course,
    reply: Reply,
    text: Text,
    bill: Bill,
    /// Characters of each answer so far.
    offsets: Vec<usize>,
    queue: VecDeque<String>,
}

/// Everything that events become; the stream ends after `[DONE]`, or after an error.
fn chunks(course: Course, reply: Reply, text: Text) -> impl Stream<Item = String> {
    let offsets = (0..course.len()).map(|index| text.begun.likely(text.prompt(index)).offset()).collect();
    let mut streamed =
        Streamed { course, reply, text, bill: Bill::default(), offsets, queue: VecDeque::new() };
    for index in 0..streamed.course.len() {
        let prompt = streamed.text.prompt(index);
        let echo = streamed.text.begun.echoes[prompt].text.clone();
        if !echo.is_empty() {
            let logprobs = streamed.text.begun.likely_value(prompt);
            streamed.say(index, &echo, logprobs, None);
        }
    }
    unfold(streamed, |mut streamed| async move {
        while streamed.queue.is_empty() {
            match streamed.course.next().await? {
                Ok(news) => streamed.tell(news),
                Err(error) => streamed.queue.push_back(Error::from(error).body().to_string()),
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
                self.say(index, &said, logprobs, None);
            }
            News::Done(completion) => {
                self.say(
                    index,
                    "",
                    Value::Null,
                    Some((reason(completion.receipt.finish), receipt(&completion))),
                );
                self.bill.add(&completion);
                if self.course.is_over() {
                    self.queue.extend(self.reply.end(&self.bill));
                }
            }
        }
    }

    fn say(&mut self, index: usize, text: &str, logprobs: Value, last: Option<(&str, Value)>) {
        let finish = last.as_ref().map(|(finish, _)| *finish);
        let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish });
        let mut chunk = self.reply.chunk(choice);
        if let Some((_, receipt)) = last {
            chunk["llamesh"] = receipt;
        }
        self.queue.push_back(chunk.to_string());
    }
}
