//! A real model through the mesh beside the same model alone, and the demo as a newcomer runs it. Needs the default
//! model in the cache; `llamesh demo` puts it there.

use std::sync::Arc;
use std::time::Instant;

use inference::{Engine, Request, Step};
use node::agents::Agents;
use node::agents::model::{ModelAgent, order};
use node::config::DEFAULT_MODEL;
use node::hosting::{Host, Resources};
use node::models::{Bar, Models};
use node::request::JobRequest;
use protocol::{Capability, Price};
use serde_json::json;

use crate::pair::{Course, Pair};
use crate::process::{self, Failed};
use crate::stats::Series;

/// Answers by each road; whichever goes first in one round goes second in the next.
const ROUNDS: usize = 12;
/// Tokens of an answer, as in the demo.
const TOKENS: u32 = 64;
/// Runs of the demo.
const DEMOS: usize = 5;

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let models = Models::from_env()?.offline();
    let loaded = Host::new(&models, &Bar::new(), Resources::default()).model(DEFAULT_MODEL).await?;
    let engine = Arc::clone(loaded.lease().await?.worker()?.engine());
    let mut agents = Agents::default();
    agents.host(Arc::new(ModelAgent::new(loaded, Capability::text_generation(), Price::default())));
    let pair = Pair::meet(agents).await?;
    let (mut mesh, mut alone) = (Series::default(), Series::default());
    for round in 0..=ROUNDS {
        if round <= 1 {
            (mesh, alone) = (Series::default(), Series::default());
        }
        mesh.round();
        alone.round();
        for mesh_now in [round % 2 == 0, round % 2 == 1] {
            if mesh_now {
                mesh.add(pair.job(&request()).await?.rate());
            } else {
                let engine = Arc::clone(&engine);
                alone.add(tokio::task::spawn_blocking(move || generate(engine.as_ref())).await??.rate());
            }
        }
    }
    pair.part().await?;
    report(&mesh, &alone, &Demos::run()?, as_json);
    Ok(())
}

fn request() -> JobRequest {
    let prompt = "Explain in two sentences why the sky is blue.".to_owned();
    JobRequest { prompt: Some(prompt), max_tokens: Some(TOKENS), ..JobRequest::default() }
}

/// The same answer without agent, session or peer.
fn generate(engine: &dyn Engine) -> Result<Course, Failed> {
    let spec = request().spec(node::clock::now(), None)?;
    let prompt = engine.prompt(&order::prompt(&spec.input, 0)?)?;
    let (mut course, begin) = (Course::default(), Instant::now());
    for step in engine.generate(&Request::new(prompt, order::sampling(&spec.sampling)))? {
        if let Step::Token { .. } = step? {
            course.token(begin);
        }
    }
    Ok(course)
}

/// What the demo says of itself.
#[derive(Default)]
struct Demos {
    mesh_ms: Series,
    first_token_ms: Series,
    tokens_per_second: Series,
}

impl Demos {
    fn run() -> Result<Self, Failed> {
        let mut demos = Self::default();
        for _ in 0..DEMOS {
            let line = process::demo()?;
            let number = |field: &str| {
                line.get(field).and_then(serde_json::Value::as_f64).ok_or_else(|| line.to_string())
            };
            demos.mesh_ms.add(number("mesh_ms")?);
            demos.first_token_ms.add(number("first_token_ms")?);
            demos.tokens_per_second.add(number("tokens_per_second")?);
        }
        Ok(demos)
    }
}

fn report(mesh: &Series, alone: &Series, demos: &Demos, as_json: bool) {
    let ratio = mesh.ratio(alone);
    let [mesh, alone, meeting, first, speed] =
        [mesh, alone, &demos.mesh_ms, &demos.first_token_ms, &demos.tokens_per_second]
            .map(|series| series.quantile(0.5));
    if as_json {
        let demo = json!({ "mesh_ms": meeting, "first_token_ms": first, "tokens_per_second": speed });
        println!(
            "{}",
            json!({ "bench": "demo_rate", "mesh": mesh, "alone": alone, "ratio": ratio, "demo": demo })
        );
    } else {
        println!("tokens/s through the mesh  {mesh:>7.1}");
        println!("tokens/s of the model alone{alone:>7.1}   median of ratios {ratio:.3}");
        println!(
            "demo: mesh formed after {meeting:.0} ms, first token {first:.0} ms after the award, {speed:.1} tokens/s"
        );
    }
}
