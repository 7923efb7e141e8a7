//! Providers that are killed in the middle of an answer: is it the same answer, and how long does its reader wait?
//!
//! One peer here asks; three processes with the real model answer. In each run the one that is answering gets `SIGKILL` at
//! some token. The answer must be the undisturbed one to the byte. The wait has two parts: until a successor was
//! found (detection, quotes, award), and until it has read the prompt and what was answered.

use std::time::{Duration, Instant};

use node::request::JobRequest;
use node::{Node, clock};
use protocol::Capability;
use protocol::event::JobEvent;
use serde_json::json;

use crate::pair;
use crate::process::{Failed, Provider};
use crate::stats::quantile;

/// Providers: two of them live at any time.
const PROVIDERS: usize = 3;
/// Runs over each transport.
const RUNS: usize = 100;
/// Longest answer.
const TOKENS: u32 = 96;
/// What is asked; the seed makes more answers of them.
const PROMPTS: [&str; 4] = [
    "Describe the sea to somebody who has never seen it.",
    "Write a short story about a lighthouse.",
    "List ten fruits, and a sentence about each of them.",
    "Explain how a bicycle stays upright.",
];

/// What one run was like.
struct Run {
    identical: bool,
    /// Somebody took over: the answer had not ended before the kill.
    moved: bool,
    found: Duration,
    whole: Duration,
}

pub(crate) async fn run(json: bool) -> Result<(), Failed> {
    for transport in ["tcp", "quic"] {
        let mut mesh = Mesh::meet(transport).await?;
        let mut runs = Vec::new();
        for number in 0.. {
            let run = mesh.run(number).await?;
            // An answer that was faster than the kill says nothing.
            runs.extend(run.moved.then_some(run));
            if runs.len() == RUNS {
                break;
            }
        }
        let identical = runs.iter().filter(|run| run.identical).count();
        let times = |of: fn(&Run) -> Duration| {
            let times: Vec<f64> = runs.iter().map(|run| of(run).as_secs_f64() * 1e3).collect();
            [0.5, 0.99].map(|share| quantile(times.clone(), share))
        };
        let ([found, found99], [whole, whole99]) = (times(|run| run.found), times(|run| run.whole));
        if json {
            let line = json!({ "bench": "failover", "transport": transport, "runs": RUNS, "identical": identical,
                "found_ms": [found, found99], "whole_ms": [whole, whole99] });
            println!("{line}");
        } else {
            println!(
                "{transport}: {identical} of {RUNS} answers identical; reader waits p50 {found:.0} ms, p99 {found99:.0} ms"
            );
            println!(
                "      until a successor is found, {whole:.0} and {whole99:.0} ms until its first token"
            );
        }
        mesh.asker.stop().await?;
    }
    Ok(())
}

struct Mesh {
    asker: Node,
    folder: tempfile::TempDir,
    bootstrap: String,
    transport: &'static str,
    providers: Vec<Provider>,
    /// The undisturbed answers, and how many tokens each has.
    answers: Vec<(String, u64)>,
}

impl Mesh {
    async fn meet(transport: &'static str) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let asker = pair::start(&folder, 9, node::agents::Agents::default(), Vec::new()).await?;
        let snapshot = asker.handle().snapshot().await?;
        let listening = snapshot.listening.iter().find(|address| address.to_string().contains(transport));
        let bootstrap = listening.ok_or("not listening")?.with_peer(&snapshot.me).to_string();
        let mut mesh =
            Self { asker, folder, bootstrap, transport, providers: Vec::new(), answers: Vec::new() };
        for number in 0..PROVIDERS {
            let provider = mesh.provider(number)?;
            mesh.providers.push(provider);
        }
        mesh.complete().await?;
        for number in 0..PROMPTS.len() * 4 {
            let (answer, tokens, _) = mesh.answer(number, None).await?;
            mesh.answers.push((answer, tokens));
        }
        Ok(mesh)
    }

    fn provider(&self, number: usize) -> Result<Provider, Failed> {
        Provider::up(&self.folder.path().join(format!("provider-{number}")), self.transport, &self.bootstrap)
    }

    /// Waits until the asker knows all providers.
    async fn complete(&self) -> Result<(), Failed> {
        while self.asker.handle().find(Some(Capability::text_generation())).await?.len() < PROVIDERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn run(&mut self, number: usize) -> Result<Run, Failed> {
        let which = number % self.answers.len();
        // Any token, the first and the last included.
        let (undisturbed, tokens) = self.answers[which].clone();
        let at = (number * 7_919 + 13) as u64 % tokens.max(1);
        let (answer, _, run) = self.answer(which, Some(at)).await?;
        self.complete().await?;
        Ok(Run { identical: answer == undisturbed, ..run })
    }

    /// The answer to one of the questions; its provider dies when the token with this index has come.
    async fn answer(&mut self, which: usize, dies_at: Option<u64>) -> Result<(String, u64, Run), Failed> {
        let request = JobRequest {
            prompt: Some(PROMPTS[which % PROMPTS.len()].to_owned()),
            max_tokens: Some(TOKENS),
            temperature: Some(0.8),
            seed: Some(which as u64),
            ..JobRequest::default()
        };
        let mut stream = self.asker.handle().submit(request.spec(clock::now(), None)?)?;
        let (mut text, mut answering, mut dead) = (String::new(), None, None);
        let mut run = Run { identical: false, moved: false, found: Duration::ZERO, whole: Duration::ZERO };
        let (mut last, mut tokens) = (Instant::now(), 0);
        while let Some(event) = stream.next().await {
            match event {
                JobEvent::Started { provider, .. } => {
                    answering = self.providers.iter().position(|p| p.id == provider.to_string());
                    if dead.is_some() {
                        (run.moved, run.found) = (true, last.elapsed());
                    }
                }
                JobEvent::Token { index, token, .. } => {
                    if run.moved && run.whole.is_zero() {
                        run.whole = last.elapsed();
                    }
                    (last, tokens) = (Instant::now(), index + 1);
                    text += &token.text;
                    if let Some(victim) = answering.filter(|_| dies_at == Some(index) && dead.is_none()) {
                        self.providers[victim].kill()?;
                        dead = Some(victim);
                    }
                }
                JobEvent::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
        if let Some(victim) = dead {
            self.providers[victim] = self.provider(victim)?;
        }
        Ok((text, tokens, run))
    }
}
