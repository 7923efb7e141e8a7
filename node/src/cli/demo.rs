//! `llamesh demo`: the product in one command. Three peers on this machine meet; one submits a job, two bid for it;
//! one answers with a real model; the other checks the receipt by replaying it.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use crypto::{PeerId, SecretKey};
use inference::Engine;
use protocol::{Capability, JobError, Price};
use serde_json::json;

use super::print::{self, Style, styled};
use super::{Common, session};
use crate::agents::Agents;
use crate::agents::model::ModelAgent;
use crate::api::control;
use crate::clock;
use crate::config::DEFAULT_MODEL;
use crate::failure::{Class, Failure};
use crate::hosting::library::Hosted;
use crate::hosting::{Host, Resources};
use crate::journal::Journal;
use crate::models::{Bar, Models};
use crate::net::Address;
use crate::receipts::ReceiptFile;
use crate::request::{JobRequest, JobUpdate};
use crate::verification::{self, Verdict, Word};
use crate::{Node, NodeConfig};

/// Three peers on this machine, one job, one audit.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// What to ask
    #[arg(default_value = "Explain in two sentences why the sky is blue.")]
    prompt: String,
    /// The model: a name or a GGUF file
    #[arg(long, env = "LLAMESH_MODEL", value_name = "NAME|FILE", default_value = DEFAULT_MODEL)]
    model: String,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: u32,
}

/// Three peers, and what was measured on the way.
struct Stage {
    asker: Node,
    providers: Vec<Provider>,
    talk: Talk,
}

/// A peer with a model.
struct Provider {
    node: Node,
    engine: Arc<dyn Engine>,
}

/// Says what happens: for people on stdout, with `--json` on stderr only.
#[derive(Clone, Copy)]
struct Talk {
    json: bool,
}

/// What the job brought.
struct Outcome {
    text_tokens: u32,
    first_token_ms: u128,
    tokens_per_second: f64,
    provider: PeerId,
    receipt_file: String,
    receipt: crypto::Digest,
}

impl Demo {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let talk = Talk { json: common.json };
        let dir = common.data_dir()?;
        dir.create()?;
        talk.title("Llamesh demo: three peers on this machine")?;
        let models = Models::from_env().map_err(Failure::of(Class::Model))?;
        // Each provider reads the model for itself, so that the audit is not by what it audits.
        let answering = Host::new(&models, &Bar::new(), Resources::default()).model(&self.model).await?;
        let auditing = Host::new(&models, &Bar::new(), Resources::default()).model(&self.model).await?;
        let began = Instant::now();
        let stage = Stage::build([answering, auditing], dir.receipts(), talk).await?;
        let meeting_ms = began.elapsed().as_millis();
        let outcome = stage.job(&self.prompt, self.max_tokens).await?;
        let verdict = stage.audit(&outcome).await?;
        stage.leave().await?;
        report(&outcome, &verdict, meeting_ms, common.json)
    }
}

impl Stage {
    /// Starts three peers and waits until the asker sees both providers.
    async fn build(models: [Hosted; 2], receipts: std::path::PathBuf, talk: Talk) -> Result<Self, Failure> {
        let asker = start(Agents::default(), Vec::new(), Some(receipts)).await?;
        let snapshot = asker.handle().snapshot().await.map_err(session::busy)?;
        let bootstrap: Vec<Address> = snapshot.listening.iter().map(|a| a.with_peer(&snapshot.me)).collect();
        talk.row("peer 1", &format!("{}  asks, has no model", snapshot.me))?;
        let mut providers = Vec::new();
        for (number, model) in (2..).zip(models) {
            let engine = Arc::clone(model.lease().await.map_err(JobError::from)?.worker()?.engine());
            let name = model.volume().name().to_owned();
            let mut agents = Agents::default();
            let agent = ModelAgent::new(model, Capability::text_generation(), Price::default());
            agents.host(Arc::new(agent));
            let node = start(agents, bootstrap.clone(), None).await?;
            talk.row(
                &format!("peer {number}"),
                &format!("{}  offers text.generation with {name}", node.handle().id()),
            )?;
            node.handle().join(bootstrap.len()).await.map_err(|failures| session::unreachable(&failures))?;
            providers.push(Provider { node, engine });
        }
        let stage = Self { asker, providers, talk };
        stage.meet().await?;
        Ok(stage)
    }

    /// The asker finds both through the DHT.
    async fn meet(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let found =
                self.asker.handle().find(Some(Capability::text_generation())).await.map_err(session::busy)?;
            if found.len() >= self.providers.len() {
                return self
                    .talk
                    .row("mesh", &format!("peer 1 found {} providers of text.generation", found.len()));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(
                    Class::Network,
                    "the peers did not find each other: is loopback usable here?",
                ));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn job(&self, prompt: &str, max_tokens: u32) -> Result<Outcome, Failure> {
        let request = JobRequest {
            prompt: Some(prompt.to_owned()),
            max_tokens: Some(max_tokens),
            auction: true,
            ..JobRequest::default()
        };
        self.talk.row("job", &format!("{prompt}  (announced without the prompt)"))?;
        let node = self.asker.handle();
        let mut stream = node.submit(control::spec(node, &request).await?)?;
        let receipts = self.asker.receipts().map(std::path::Path::to_owned);
        let (mut started, mut first) = (Instant::now(), None);
        while let Some(event) = stream.next().await {
            match JobUpdate::of(stream.job(), event, receipts.as_deref()) {
                JobUpdate::Bid { provider, speed, price, .. } => {
                    self.talk
                        .row("bid", &format!("{}  {speed} tokens/s for {price} µcr", self.name(&provider)))?;
                }
                JobUpdate::Started { provider, .. } => {
                    started = Instant::now();
                    self.talk.row("award", &format!("{}  gets the prompt", self.name(&provider)))?;
                    self.talk.begin()?;
                }
                JobUpdate::Token { text, .. } => {
                    first.get_or_insert_with(Instant::now);
                    self.talk.token(&print::plain(&text))?;
                }
                JobUpdate::Done { provider, receipt, receipt_file, usage, .. } => {
                    self.talk.end()?;
                    let first = first.unwrap_or(started);
                    let rest = f64::from(usage.completion_tokens.saturating_sub(1));
                    return Ok(Outcome {
                        text_tokens: usage.completion_tokens,
                        first_token_ms: (first - started).as_millis(),
                        tokens_per_second: rest / first.elapsed().as_secs_f64().max(1e-9),
                        provider,
                        receipt_file: receipt_file.unwrap_or_default(),
                        receipt,
                    });
                }
                JobUpdate::Failed { code, message, .. } => {
                    return Err(Failure::new(Class::of_job(&code), message));
                }
                JobUpdate::Awaiting { .. } | JobUpdate::Progress { .. } => {}
            }
        }
        Err(Failure::new(Class::Job, "the job ended without an answer"))
    }

    /// The provider that did not get the job replays the receipt.
    async fn audit(&self, outcome: &Outcome) -> Result<Verdict, Failure> {
        let speed =
            format!("first token {} ms, {:.1} tokens/s", outcome.first_token_ms, outcome.tokens_per_second);
        self.talk.row("receipt", &format!("{}  signed by both; {speed}", outcome.receipt))?;
        let path = std::path::PathBuf::from(&outcome.receipt_file);
        let file = ReceiptFile::read(&path).map_err(Failure::of(Class::Refuted))?;
        let auditor = self.providers.iter().find(|provider| provider.node.handle().id() != outcome.provider);
        let auditor = auditor.ok_or_else(|| Failure::new(Class::Internal, "nobody is left to audit"))?;
        let engine = Arc::clone(&auditor.engine);
        let replay = tokio::task::spawn_blocking(move || verification::replay(&file, &engine, |_, _| {}));
        let verdict = replay.await.map_err(Failure::of(Class::Internal))?;
        let auditor = self.name(&auditor.node.handle().id());
        let word = format!("{:?}", verdict.verdict).to_lowercase();
        let word = styled(if verdict.failure().is_none() { Style::Good } else { Style::Strong }, &word);
        self.talk.row(
            "audit",
            &format!("{auditor}  replayed it: {word} ({} of {} tokens)", verdict.agree, verdict.of),
        )?;
        Ok(verdict)
    }

    fn name(&self, peer: &PeerId) -> String {
        let at = self.providers.iter().position(|provider| provider.node.handle().id() == *peer);
        at.map_or_else(|| "peer 1".to_owned(), |at| format!("peer {}", at + 2))
    }

    async fn leave(self) -> Result<(), Failure> {
        for provider in self.providers {
            provider.node.stop().await?;
        }
        self.asker.stop().await
    }
}

async fn start(
    agents: Agents,
    bootstrap: Vec<Address>,
    receipts: Option<std::path::PathBuf>,
) -> Result<Node, Failure> {
    let seed = clock::random().map_err(Failure::of(Class::Internal))?;
    let listen = crate::config::addresses("listen", &["/ip4/127.0.0.1/tcp/0".to_owned()])?;
    let network = "demo".parse().map_err(Failure::of(Class::Internal))?;
    let alone = NodeConfig::new(network, SecretKey::from_seed(&seed), Journal::in_memory()?);
    Node::start(NodeConfig { listen, bootstrap, agents, receipts, ..alone }).await
}

fn report(outcome: &Outcome, verdict: &Verdict, meeting_ms: u128, as_json: bool) -> Result<(), Failure> {
    let ok = matches!(verdict.verdict, Word::Exact | Word::Consistent);
    if as_json {
        print::json(&json!({
            "ok": ok, "peers": 3, "tokens": outcome.text_tokens, "receipt": outcome.receipt,
            "receipt_file": outcome.receipt_file, "verdict": verdict.verdict, "why": verdict.why,
            "mesh_ms": meeting_ms, "first_token_ms": outcome.first_token_ms,
            "tokens_per_second": outcome.tokens_per_second,
        }))?;
    } else {
        print::line("\nWhat next:")?;
        print::line(&format!(
            "  llamesh verify --replay {}    check it again yourself",
            outcome.receipt.short()
        ))?;
        print::line(
            "  llamesh up                            a peer of your own (the default model, port 5263)",
        )?;
        print::line("  llamesh submit \"…\"                    a job for it, from another terminal")?;
    }
    if ok { Ok(()) } else { Err(Failure::new(Class::Refuted, &verdict.why)) }
}

impl Talk {
    fn title(self, text: &str) -> Result<(), Failure> {
        self.out(&format!("{}\n\n", styled(Style::Strong, text)))
    }

    fn row(self, what: &str, text: &str) -> Result<(), Failure> {
        self.out(&format!("  {} {text}\n", styled(Style::Dim, &format!("{what:<8}"))))
    }

    fn begin(self) -> Result<(), Failure> {
        self.out("\n    ")
    }

    fn token(self, text: &str) -> Result<(), Failure> {
        self.out(&text.replace('\n', "\n    "))
    }

    fn end(self) -> Result<(), Failure> {
        self.out("\n\n")
    }

    fn out(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print::write(text) }
    }
}
