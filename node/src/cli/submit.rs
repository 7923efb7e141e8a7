//! `llamesh submit`: a job from here, its answer streamed, its receipt kept.

use std::io::Read;

use clap::Args;
use crypto::PeerId;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use protocol::{Capability, ChatMessage, Credits, Price, Role, Weights};
use serde_json::value::RawValue;

use super::approval::{self, Approval, Approver};
use super::session::{Client, Peer, Through};
use super::{Common, print};
use crate::api::control;
use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use crate::request::form::Form;
use crate::request::{JobRequest, JobUpdate};

/// Submit a job and stream its answer.
#[derive(Debug, Args)]
pub(super) struct Submit {
    /// What to ask, or the text that becomes a vector with --capability text.embedding; `-` reads it from stdin
    #[arg(required_unless_present = "call")]
    prompt: Option<String>,
    /// Call a tool with these arguments, a JSON object; `-` reads them from stdin
    #[arg(long, value_name = "JSON", conflicts_with_all = ["prompt", "system"])]
    call: Option<String>,
    /// What the provider must be able to do [default: text.generation, of a call tool]
    #[arg(long, value_name = "C")]
    capability: Option<Capability>,
    /// With this model: a name or a digest
    #[arg(long, value_name = "NAME|DIGEST")]
    model: Option<String>,
    /// Put before the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer in tokens [default: 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 is greedy [default: 0]
    #[arg(long, value_name = "T", value_parser = finite)]
    temperature: Option<f32>,
    /// Nucleus
    #[arg(long, value_name = "P", value_parser = finite)]
    top_p: Option<f32>,
    /// How many candidates
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// The same seed gives the same answer [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A text that ends the answer (repeatable)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The answer is JSON that this schema describes: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", group = "form")]
    schema: Option<String>,
    /// The answer is what this expression matches
    #[arg(long, value_name = "R", group = "form")]
    regex: Option<String>,
    /// The answer is one of these texts (repeatable)
    #[arg(long, value_name = "TEXT", group = "form")]
    choice: Vec<String>,
    /// How likely each token was, with so many alternatives; needs --json
    #[arg(long, value_name = "N")]
    logprobs: Option<u8>,
    /// Only this peer
    #[arg(long, value_name = "PEER")]
    provider: Option<PeerId>,
    /// What you want to pay for 1000 tokens of prompt and answer, in micro-credits: the best bidder is asked once for that
    #[arg(long, value_name = "PROMPT:ANSWER", value_parser = price)]
    target: Option<Price>,
    /// What counts when bids are compared: price, latency, evidence, locality (repeatable) [default: price=1,locality=1]
    #[arg(long, value_name = "WHAT=N", value_delimiter = ',', value_parser = weight)]
    weigh: Vec<(String, u8)>,
    /// Announce the job and take the best of the sealed bids
    #[arg(long)]
    auction: bool,
    /// Seconds until the job is given up [default: 600]
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    /// The most that it may cost, in micro-credits [default: 0]
    #[arg(long, value_name = "N")]
    budget: Option<u64>,
    #[command(flatten)]
    approval: Approval,
    #[command(flatten)]
    through: Through,
}

impl Submit {
    /// Submits the job. Ctrl-C ends the process, and with it the stream, and with that the job.
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let through = self.through.clone();
        if self.logprobs.is_some() && !common.json {
            let why = "--logprobs are told token by token: add --json";
            return Err(Failure::new(Class::Usage, why));
        }
        let request = self.request()?;
        let peer = through.reach(&common).await?;
        let mut screen = Screen { approver: Some(Approver::of(&peer)), ..Screen::new(&common)? };
        let outcome = tokio::select! {
            outcome = stream(&peer, &request, &mut screen) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Class::Job, "cancelled")),
        };
        let left = peer.leave().await;
        outcome.and(left)
    }

    /// What form the answer must have; the command line allows one at most.
    fn form(&self) -> Result<Option<Form>, Failure> {
        if let Some(given) = &self.schema {
            let text = schema_text(given)?;
            if text.len() > protocol::Constraint::MAX_LEN {
                let why = format!("--schema: at most {} bytes are taken", protocol::Constraint::MAX_LEN);
                return Err(Failure::new(Class::Request, why));
            }
            let broken = |error| Failure::new(Class::Request, format!("--schema: this is not JSON: {error}"));
            return Ok(Some(Form::JsonSchema(RawValue::from_string(text).map_err(broken)?)));
        }
        let choices = (!self.choice.is_empty()).then(|| Form::Choices(self.choice.clone()));
        Ok(choices.or_else(|| self.regex.clone().map(Form::Regex)))
    }

    fn request(self) -> Result<JobRequest, Failure> {
        let constraint = self.form()?;
        let prompt = self.prompt.map(said).transpose()?.map(|text| ChatMessage::new(Role::User, text));
        let system = self.system.map(|text| ChatMessage::new(Role::System, text));
        let arguments = self.call.map(said).transpose()?.map(RawValue::from_string).transpose();
        let broken = |error| Failure::new(Class::Request, format!("--call: this is not JSON: {error}"));
        Ok(JobRequest {
            messages: system.into_iter().chain(prompt).collect(),
            call: arguments.map_err(broken)?,
            capability: self.capability,
            model: self.model,
            provider: self.provider,
            auction: self.auction,
            target: self.target,
            weights: weights(&self.weigh),
            approval: self.approval.rules,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop,
            seed: self.seed,
            timeout_s: self.timeout,
            budget: self.budget,
            logprobs: self.logprobs,
            constraint,
            ..JobRequest::default()
        })
    }
}

/// The text of a schema: what begins as one does is one, and everything else the name of a file.
fn schema_text(given: &str) -> Result<String, Failure> {
    let fail = |why: String| Failure::new(Class::Request, format!("--schema: {why}"));
    if given.trim_start().starts_with('{') {
        return Ok(given.to_owned());
    }
    let file = std::fs::File::open(given)
        .map_err(|error| fail(format!("{given}: {error}; give a file, or a JSON schema in braces")))?;
    let mut text = String::new();
    // A longer one is refused by its length; it need not be read to its end for that.
    let limit = protocol::Constraint::MAX_LEN as u64 + 1;
    let read = file.take(limit).read_to_string(&mut text);
    read.map_err(|error| fail(format!("{given}: {error}")))?;
    Ok(text)
}

/// A price as it is typed.
fn price(text: &str) -> Result<Price, String> {
    let number =
        |text: &str| text.parse().map(Credits).map_err(|_| "give it as PROMPT:ANSWER, like 10:50".to_owned());
    let (prompt, completion) = text.split_once(':').unwrap_or((text, text));
    Ok(Price { prompt: number(prompt)?, completion: number(completion)? })
}

/// One weight as it is typed.
fn weight(text: &str) -> Result<(String, u8), String> {
    let named = |what: &str| ["price", "latency", "evidence", "locality"].contains(&what);
    let typed = text.split_once('=').filter(|(what, _)| named(what));
    let (what, much) = typed.ok_or("give it as price=N, latency=N, evidence=N or locality=N")?;
    let much = much.parse().map_err(|_| "a weight is a number from 0 to 255".to_owned())?;
    Ok((what.to_owned(), much))
}

/// All that were given; what was not weighs nothing then. None where none was.
fn weights(given: &[(String, u8)]) -> Option<Weights> {
    let much = |what: &str| given.iter().rev().find(|(name, _)| name == what).map_or(0, |(_, much)| *much);
    (!given.is_empty()).then(|| Weights {
        price: much("price"),
        latency: much("latency"),
        evidence: much("evidence"),
        locality: much("locality"),
    })
}

/// JSON has no word for anything else: on its way to the running peer it would read as "not given".
fn finite(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("not a finite number".to_owned()) }
}

/// What was typed, or what stdin has.
fn said(text: String) -> Result<String, Failure> {
    if text == "-" { read_stdin() } else { Ok(text) }
}

fn read_stdin() -> Result<String, Failure> {
    let limit = protocol::JobSpec::MAX_INPUT as u64 + 1;
    let mut text = String::new();
    let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Class::Request, format!("what is on stdin is not text: {error}")))?;
    Ok(text)
}

/// Runs a job to its end, and shows its course.
pub(super) async fn stream(peer: &Peer, request: &JobRequest, screen: &mut Screen) -> Result<(), Failure> {
    match peer {
        Peer::Api(client) => through_api(client, request, screen).await,
        Peer::Own(node) => through_own(node.handle(), request, screen).await,
    }
}

async fn through_api(client: &Client, request: &JobRequest, screen: &mut Screen) -> Result<(), Failure> {
    let response = client.post("/control/jobs", request).await?;
    let mut events = response.bytes_stream().eventsource();
    while let Some(event) = events.next().await {
        let event =
            event.map_err(|error| Failure::new(Class::Job, format!("the local peer stopped: {error}")))?;
        let update = serde_json::from_str(&event.data).map_err(Failure::of(Class::Internal))?;
        if screen.show(update)? {
            return Ok(());
        }
    }
    Err(Failure::new(Class::Job, "the local peer stopped before the job was done"))
}

async fn through_own(node: &NodeHandle, request: &JobRequest, screen: &mut Screen) -> Result<(), Failure> {
    let mut stream = node.submit(control::spec(node, request).await?)?;
    while let Some(event) = stream.next().await {
        if screen.show(JobUpdate::of(stream.job(), event, Some(&screen.folder)))? {
            return Ok(());
        }
    }
    Err(Failure::new(Class::Job, "the job ended without an answer"))
}

/// Where a job's course is shown.
pub(super) struct Screen {
    json: bool,
    /// Where an own peer keeps receipts.
    folder: std::path::PathBuf,
    streamed: bool,
    /// Who is asked about a job that is held; nobody where the terminal is busy otherwise.
    approver: Option<Approver>,
    last: Option<JobUpdate>,
}

impl Screen {
    pub(super) fn new(common: &Common) -> Result<Self, Failure> {
        let folder = common.data_dir()?.receipts();
        Ok(Self { json: common.json, folder, streamed: false, approver: None, last: None })
    }

    /// How the job ended, once it has.
    pub(super) fn last(self) -> Option<JobUpdate> {
        self.last
    }

    /// Shows an update; true after the last one of a job that was done.
    fn show(&mut self, update: JobUpdate) -> Result<bool, Failure> {
        let last = matches!(update, JobUpdate::Done { .. });
        if last || matches!(update, JobUpdate::Failed { .. }) {
            self.last = Some(update.clone());
        }
        if let JobUpdate::Failed { code, message, .. } = update {
            if self.streamed {
                print::line("")?;
            }
            return Err(Failure::new(Class::of_job(&code), message));
        }
        if let JobUpdate::Awaiting { job, rule } = &update {
            match &self.approver {
                Some(approver) => approver.ask(*job, rule, "the job"),
                None => print::say(&approval::hint(*job, rule)),
            }
        }
        if self.json {
            print::json(&update)?;
        } else {
            self.talk(update)?;
        }
        Ok(last)
    }

    fn talk(&mut self, update: JobUpdate) -> Result<(), Failure> {
        match update {
            JobUpdate::Started { provider, tokens: tokens @ 1.., .. } => {
                print::say(&format!("\n… {} goes on after token {tokens}", provider.short()));
            }
            JobUpdate::Started { provider, model, .. } => {
                let model = model.map(|model| format!(" with {}", print::plain(&model))).unwrap_or_default();
                print::say(&format!("… {} answers{model}", provider.short()));
            }
            JobUpdate::Token { text, .. } => {
                self.streamed = true;
                print::write(&print::plain(&text))?;
            }
            JobUpdate::Done { receipt, usage, receipt_file, .. } => {
                print::line("")?;
                let file = receipt_file
                    .map(|file| format!("\n  llamesh verify --replay {file}"))
                    .unwrap_or_default();
                print::say(&format!("receipt {receipt}, {} tokens{file}", usage.completion_tokens));
            }
            JobUpdate::Awaiting { .. }
            | JobUpdate::Bid { .. }
            | JobUpdate::Progress { .. }
            | JobUpdate::Failed { .. } => {}
        }
        Ok(())
    }
}
